# What the scripts beside it share. They source it.

# missing WHAT: ends the script, which fails if nothing may be missing.
missing() {
    [ "${RAWCACHED_TEST_REQUIRE:-}" = all ] && { echo "$1" >&2; exit 1; }
    echo "SKIPPED: $1"
    exit 0
}

# enter_source PACKAGE: fetches the source distribution of a package and pytest into a temporary
# directory, installs both and goes to the source. $pytest runs pytest there.
enter_source() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    fetch "$1" || missing "$1 and pytest cannot be fetched (python3-venv, a package index)"
    pytest=$work/venv/bin/pytest
    mkdir "$work/source"
    tar -xzf "$work"/sdist/*.tar.gz -C "$work/source" --strip-components=1
    cd "$work/source"
}

fetch() {
    python3 -m venv "$work/venv" || return
    pip="$work/venv/bin/pip --quiet --disable-pip-version-check --retries 1"
    $pip download --no-binary :all: --no-deps --dest "$work/sdist" "$1" || return
    $pip install pytest "$work"/sdist/*.tar.gz
}
