#!/bin/sh
# Runs pymemcache's own integration tests, which its source distribution carries, against a
# server on a Unix socket whose limit for a value is 1 MiB. Fetches pymemcache and pytest into a
# temporary directory.
# usage: pymemcache.sh SOCKET
set -eu
[ $# -eq 1 ] || { echo "usage: $0 SOCKET" >&2; exit 2; }
socket=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fetch() {
    python3 -m venv "$work/venv" || return
    pip="$work/venv/bin/pip --quiet --disable-pip-version-check --retries 1"
    $pip download --no-binary :all: --no-deps --dest "$work" pymemcache || return
    $pip install pytest "$work"/pymemcache-*.tar.gz
}
if ! fetch; then
    [ "${RAWCACHED_TEST_REQUIRE:-}" = all ] && exit 1
    echo "SKIPPED: pymemcache and pytest cannot be fetched (python3-venv, a package index)"
    exit 0
fi
tar -xzf "$work"/pymemcache-*.tar.gz -C "$work"
cd "$work"/pymemcache-*/
# The tests name a server by host and port: send them all to the socket.
cat > to_socket.py <<PLUGIN
from pymemcache.client import base, hash

base.normalize_server_spec = hash.normalize_server_spec = lambda server: "$socket"
PLUGIN
# test_tls is skipped by pymemcache itself, whatever the server.
PYTHONPATH=. "$work/venv/bin/pytest" -o addopts= -p to_socket -m integration \
    pymemcache/test/test_integration.py -k 'not test_tls'
