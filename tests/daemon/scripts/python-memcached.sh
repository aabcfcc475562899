#!/bin/sh
# Runs python-memcached's own tests, which its source distribution carries, against a server on a Unix
# socket that refuses values of 1 MiB, as memcached does by default. Fetches python-memcached and pytest
# into a temporary directory.
# usage: python-memcached.sh SOCKET
set -eu
[ $# -eq 1 ] || { echo "usage: $0 SOCKET" >&2; exit 2; }
socket=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fetch() {
    python3 -m venv "$work/venv" || return
    pip="$work/venv/bin/pip --quiet --disable-pip-version-check --retries 1"
    $pip download --no-binary :all: --no-deps --dest "$work" python-memcached || return
    $pip install pytest "$work"/python*memcached-*.tar.gz
}
if ! fetch; then
    [ "${RAWCACHED_TEST_REQUIRE:-}" = all ] && exit 1
    echo "SKIPPED: python-memcached and pytest cannot be fetched (python3-venv, a package index)"
    exit 0
fi
tar -xzf "$work"/python*memcached-*.tar.gz -C "$work"
cd "$work"/python*memcached-*/
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
"$work/venv/bin/pytest" -o addopts= tests
