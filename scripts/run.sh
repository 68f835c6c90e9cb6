#!/usr/bin/env bash
#
# Starts mitmdump with flowtally on 127.0.0.1:8080, or shows what flowtally does:
#
#   scripts/run.sh [mitmdump arguments]           for example -p 9090, or --set flowtally_log=FILE
#   scripts/run.sh --demo [mitmdump arguments]    real exchanges of every kind, in a few seconds
#
# Needs Python 3.11 or newer. The first run installs mitmproxy into .venv beside this folder.
# PYTHON names the interpreter to use.

set -euo pipefail
repository=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
# shellcheck source=scripts/environment.sh
source "$repository/scripts/environment.sh"

find_python
prepare_environment "$repository/.venv" .

if [ "${1-}" = --demo ]; then
    shift
    exec "$repository/.venv/bin/python" -P "$repository/scripts/demo.py" "$@"
fi

exec "$repository/.venv/bin/python" -P "$repository/scripts/run.py" "$@"
