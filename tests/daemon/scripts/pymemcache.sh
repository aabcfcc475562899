#!/bin/sh
# Runs pymemcache's own integration tests, which its source distribution carries, against a
# server on a Unix socket whose limit for a value is 1 MiB. Fetches pymemcache and pytest into a
# temporary directory.
# usage: pymemcache.sh SOCKET
set -eu
[ $# -eq 1 ] || { echo "usage: $0 SOCKET" >&2; exit 2; }
socket=$(realpath "$1")
. "$(dirname "$0")/common.sh"
enter_source pymemcache
# The tests name a server by host and port: send them all to the socket.
cat > to_socket.py <<PLUGIN
from pymemcache.client import base, hash

base.normalize_server_spec = hash.normalize_server_spec = lambda server: "$socket"
PLUGIN
# test_tls is skipped by pymemcache itself, whatever the server.
PYTHONPATH=. "$pytest" -o addopts= -p to_socket -m integration \
    pymemcache/test/test_integration.py -k 'not test_tls'
