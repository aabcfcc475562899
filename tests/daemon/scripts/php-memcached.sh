#!/bin/sh
# Drives a server on a Unix socket with php-memcached (Debian: php-cli, php-memcached).
# usage: php-memcached.sh SOCKET
set -eu
[ $# -eq 1 ] || { echo "usage: $0 SOCKET" >&2; exit 2; }
. "$(dirname "$0")/common.sh"
command -v php >/dev/null || missing "php is not installed"
exec php "$(dirname "$0")/php-memcached.php" "$(realpath "$1")"
