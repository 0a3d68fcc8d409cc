#!/bin/sh
# Makes .venv from any Python >= 3.10 and installs the locked tools into it, with the machine's own
# pip configuration. Does nothing while the lock is the one that was installed.
set -eu
cd "$(dirname "$0")/.."

venv=.venv
lock=locks/host.txt
stamp=$venv/.stamp # a copy of the lock that was installed

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "bootstrap: $1"
    shift
    for line in "$@"; do say "    $line"; done
    exit 1
}
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }
has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

find_python() {
    for name in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
        path=$(command -v "$name") || continue
        if new_enough "$path"; then
            printf '%s\n' "$path"
            return
        fi
    done
    fail "no Python 3.10 or newer found" \
        "Install python3 (Debian 12 and Ubuntu 22.04 have it), or put a newer one on PATH."
}

# Debian and Ubuntu ship ensurepip in a package of its own.
add_venv_module() {
    package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    command -v apt-get >/dev/null ||
        fail "$1 has no module ensurepip" "Install the package with python3's venv module."
    [ "$(id -u)" = 0 ] ||
        fail "$1 has no module ensurepip, and only root can add it" \
            "Run: sudo apt-get install $package"
    say "bootstrap: installing $package"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -qq update && apt-get -qq -y --no-install-recommends install "$package"; } >/dev/null ||
        fail "apt could not install $package" "Check apt's sources, the network and proxies."
    has_venv "$1" || fail "$1 still has no module ensurepip" "It may not be the system's python3."
}

main() {
    # The interpreter is run too: a venv breaks when the system's Python is replaced.
    if cmp -s "$lock" "$stamp" && "$venv/bin/python" -c '' 2>/dev/null; then
        return
    fi
    if ! { new_enough "$venv/bin/python" && "$venv/bin/python" -c 'import pip' 2>/dev/null; }; then
        python=$(find_python)
        has_venv "$python" || add_venv_module "$python"
        say "bootstrap: making $venv with $python"
        "$python" -m venv --clear "$venv"
    fi
    say "bootstrap: installing $lock (about a minute)"
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-input \
        --require-hashes --requirement "$lock" ||
        fail "pip could not install $lock" "Check the package index pip is configured with:" \
            "$venv/bin/python -m pip config list"
    cp "$lock" "$stamp"
}

main
