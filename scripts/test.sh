#!/usr/bin/env bash
#
# Runs the whole test suite:  scripts/test.sh [pytest arguments]
#
# Paths among the arguments are relative to the repository. PYTHON names the interpreter to use; each
# version of Python has its own environment, .venv-test-3.11 and so on.

set -euo pipefail
repository=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
# shellcheck source=scripts/environment.sh
source "$repository/scripts/environment.sh"

find_python
environment=$repository/.venv-test-${python_version%.*}
prepare_environment "$environment" ".[test]"

cd -- "$repository"
# Two workers: most tests wait for processes and sockets. An -n among the arguments wins.
exec "$environment/bin/python" -m pytest -n 2 "$@"
