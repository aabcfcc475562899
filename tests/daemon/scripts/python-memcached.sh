#!/bin/sh
# Runs python-memcached's own tests, which its source distribution carries, against a server on a Unix
# socket that refuses values of 1 MiB, as memcached does by default. Fetches python-memcached and pytest
# into a temporary directory.
# usage: python-memcached.sh SOCKET
set -eu
[ $# -eq 1 ] || { echo "usage: $0 SOCKET" >&2; exit 2; }
socket=$(realpath "$1")
. "$(dirname "$0")/common.sh"
enter_source python-memcached
# The tests name a server by host and port: send them to the socket.
sed -i "s#127\.0\.0\.1:11211#unix:$socket#" tests/*.py
grep -q "unix:$socket" tests/test_memcache.py
# What the tests import and the distribution lacks.
touch tests/__init__.py
cat > tests/utils.py <<'PYTHON'
import contextlib
import io


@contextlib.contextmanager
def captured_stderr():
    with contextlib.redirect_stderr(io.StringIO()) as log:
        yield log
PYTHON
"$pytest" -o addopts= tests
