#!/usr/bin/env bash
# Installs what the tests need and runs them; arguments go to pytest.
set -euo pipefail
if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
    echo "usage: bash scripts/run_tests.sh [--fast] [PYTEST_ARGUMENTS]    (FULL=1: slow tests too)"
    echo "--fast: the files of tests/README.md that are marked * and parts of those marked (*), two minutes"
    exit 0
fi
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$REPO"
# tests/README.md says what the others prove.
FAST=(
    code_size contributing cited_numbers documentation languages remedies layering overrides config recipes scripts
    checkpoint criterion schedulers optimizers clipping ema metrics data_sampler data_find_images data_imagenet
    data_sources data_transforms data_transposing
)
FAST_PARTS=(
    tests/test_models.py::test_logits_equal_timms
    tests/test_train_eval.py::test_eval_reports_exactly_what_training_logged
)
install_test_environment
if [ "${1:-}" = --fast ]; then
    files=("${FAST[@]/#/tests/test_}")
    set -- "${files[@]/%/.py}" "${FAST_PARTS[@]}" "${@:2}"
fi
if [ "${FULL:-}" = 1 ]; then
    set -- -m "slow or not slow" "$@"
fi
# Compiling graphs keeps one core busy, so two files at a time, in the order of tests/conftest.py.
exec "$PYTHON" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
