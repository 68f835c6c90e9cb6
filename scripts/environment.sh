# shellcheck shell=bash
#
# Sourced by the other scripts: finds a Python and keeps virtual environments in step with
# pyproject.toml. Expects $repository. Talks on standard error, for standard output belongs to
# whatever is run afterwards.

say() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
}

fail() {
    say "$1"
    exit 1
}

# Sets $python and $python_version (as in 3.11.7): $PYTHON if that is set, else the first Python on
# PATH that is new enough and can make virtual environments. Each is run to find out: a pyenv shim is
# there for every version installed, and fails for those that are not active; Debian's Python comes
# without ensurepip, and venv cannot do without it.
find_python() {
    local candidates=(python3 python3.14 python3.13 python3.12 python3.11 python)
    local candidate version lacking="" probe='
import sys
if sys.version_info < (3, 11):
    sys.exit(1)
print("%d.%d.%d" % sys.version_info[:3], flush=True)
import ensurepip, venv'
    if [ -n "${PYTHON:-}" ]; then
        candidates=("$PYTHON")
    fi
    for candidate in "${candidates[@]}"; do
        if version=$("$candidate" -c "$probe" 2>/dev/null); then
            python=$candidate
            python_version=$version
            return
        elif [ -n "$version" ]; then
            lacking=${lacking:-$candidate ($version)}
        fi
    done
    if [ -n "$lacking" ]; then
        fail "$lacking lacks the venv module. On Debian and Ubuntu: apt install python3-venv"
    elif [ -n "${PYTHON:-}" ]; then
        fail "PYTHON=$PYTHON does not run, or is older than Python 3.11"
    fi
    fail "needs Python 3.11 or newer, and found none on PATH. Install it from your system's packages \
or https://www.python.org/downloads/, or name one: PYTHON=/path/to/python3 $0"
}

# prepare_environment FOLDER PROJECT: installs PROJECT (the repository's own "." or ".[extra]")
# editable into a virtual environment, unless that is what FOLDER holds already.
#
# The stamp is there from the start but gets its content last, so an interrupted run is seen and made
# again, and a folder without one is somebody else's and stays untouched. It names the folder, since
# a virtual environment does not survive being moved or copied.
prepare_environment() {
    local folder=$1 project=$2 stamp=$1/flowtally-environment key
    # shellcheck disable=SC2154  # The script that sources this sets $repository.
    key="$python_version $project $(cksum <"$repository/pyproject.toml") $folder"
    if [ "$(cat "$stamp" 2>/dev/null)" = "$key" ] && [ -x "$folder/bin/mitmdump" ] &&
        "$folder/bin/python" -c "" 2>/dev/null; then
        return
    fi
    if [ -e "$folder" ] && [ ! -e "$stamp" ]; then
        fail "$folder is in the way: it is not of this script's making. Move it and run again."
    fi
    say "installing into $folder with Python $python_version ..."
    mkdir -p -- "$folder"
    : >"$stamp"
    find "$folder" -mindepth 1 -maxdepth 1 ! -path "$stamp" -exec rm -rf -- {} +
    "$python" -m venv "$folder" >&2 || fail "could not make $folder"
    (
        cd -- "$repository" &&
            "$folder/bin/python" -m pip install -qq --disable-pip-version-check \
                --editable "$project" >&2
    ) || fail "could not install the packages that pyproject.toml asks for; pip says above why. \
Run again when that is put right."
    printf '%s\n' "$key" >"$stamp"
}
