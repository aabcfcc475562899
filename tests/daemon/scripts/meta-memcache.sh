#!/bin/sh
# Drives a server on a Unix socket with meta-memcache (PyPI), whose package carries no tests, and which speaks meta
# commands only. Fetches it into a temporary directory.
# usage: meta-memcache.sh SOCKET
set -eu
[ $# -eq 1 ] || { echo "usage: $0 SOCKET" >&2; exit 2; }
. "$(dirname "$0")/common.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fetch_meta_memcache() {
    python3 -m venv "$work/venv" || return
    "$work/venv/bin/pip" --quiet --disable-pip-version-check --retries 1 install 'meta-memcache>=4.3,<5'
}
fetch_meta_memcache || missing "meta-memcache cannot be fetched (python3-venv, a package index)"
"$work/venv/bin/python" "$(dirname "$0")/meta-memcache.py" "$(realpath "$1")"
