#!/bin/sh
# Runs libmemcached's memccapable (Debian: libmemcached-tools), text protocol, against a server.
# usage: memccapable.sh HOST PORT
set -eu
[ $# -eq 2 ] || { echo "usage: $0 HOST PORT" >&2; exit 2; }
. "$(dirname "$0")/common.sh"
command -v memccapable >/dev/null || missing "memccapable is not installed"
exec memccapable -h "$1" -p "$2" -a -v
