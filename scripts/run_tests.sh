#!/usr/bin/env bash
# Installs what the tests need and runs them; arguments go to pytest.
set -euo pipefail
if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
    echo "usage: bash scripts/run_tests.sh [PYTEST_ARGUMENTS]    (FULL=1: slow tests too)"
    exit 0
fi
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$REPO"
install_test_environment
if [ "${FULL:-}" = 1 ]; then
    set -- -m "slow or not slow" "$@"
fi
# Compiling graphs keeps one core busy, so two files at a time.
exec "$PYTHON" -m pytest -n 2 --dist loadfile "$@"
