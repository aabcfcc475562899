#!/bin/sh
# Runs pymemcache's own integration tests, which its source distribution carries, against a
# server on a Unix socket. Fetches pymemcache and pytest into a temporary directory.
# usage: pymemcache.sh SOCKET
set -eu
[ $# -eq 1 ] || { echo "usage: $0 SOCKET" >&2; exit 2; }
socket=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip="$work/venv/bin/pip --quiet --disable-pip-version-check"
$pip download --no-binary :all: --no-deps --dest "$work" pymemcache
$pip install pytest "$work"/pymemcache-*.tar.gz
tar -xzf "$work"/pymemcache-*.tar.gz -C "$work"
cd "$work"/pymemcache-*/
# The tests name a server by host and port: send them all to the socket.
cat > to_socket.py <<PLUGIN
from pymemcache.client import base, hash

base.normalize_server_spec = hash.normalize_server_spec = lambda server: "$socket"
PLUGIN
# test_get_set_large with pickle_serde expects memcached's default limit of 1 MiB to refuse a
# value; the limit here is another.
PYTHONPATH=. "$work/venv/bin/pytest" -o addopts= -p to_socket -m integration \
    pymemcache/test/test_integration.py -k 'not (test_get_set_large and True)'
