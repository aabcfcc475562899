#!/bin/sh
# Drives a server on a Unix socket with php-memcached (Debian: php-cli, php-memcached).
# usage: php-memcached.sh SOCKET
set -eu
[ $# -eq 1 ] || { echo "usage: $0 SOCKET" >&2; exit 2; }
if ! command -v php >/dev/null; then
    [ "${RAWCACHED_TEST_REQUIRE:-}" = all ] && { echo "php is not installed" >&2; exit 1; }
    echo "SKIPPED: php is not installed"
    exit 0
fi
exec php "$(dirname "$0")/php-memcached.php" "$(realpath "$1")"
