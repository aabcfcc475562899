#!/bin/sh
# Runs libmemcached's memccapable (Debian: libmemcached-tools), text protocol, against a server.
# usage: memccapable.sh HOST PORT
set -eu
[ $# -eq 2 ] || { echo "usage: $0 HOST PORT" >&2; exit 2; }
if ! command -v memccapable >/dev/null; then
    [ "${RAWCACHED_TEST_REQUIRE:-}" = all ] && { echo "memccapable is not installed" >&2; exit 1; }
    echo "SKIPPED: memccapable is not installed"
    exit 0
fi
exec memccapable -h "$1" -p "$2" -a -v
