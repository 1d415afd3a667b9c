#!/usr/bin/env bash
# Runs the core suite on MindSpore 2.0.0, where a Python 3.9 can be found.
set -euo pipefail
if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
    echo "usage: bash scripts/run_core_tests.sh    (VENV20=DIR: environment to make or use, default .venv20)"
    exit 0
fi
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$REPO"
VENV20=${VENV20:-$REPO/.venv20}

# A pyenv offers versions that are installed but not selected.
find_python39() {
    local candidate root
    root=${PYENV_ROOT:-$(pyenv root 2>/dev/null || echo "$HOME/.pyenv")}
    for candidate in python3.9 "$root"/versions/3.9.*/bin/python3.9; do
        if "$candidate" -c 'import ensurepip' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

if [ ! -x "$VENV20/bin/python" ]; then
    if ! python39=$(find_python39); then
        echo "WARNING: no Python 3.9 found: NOTHING WAS TESTED ON MINDSPORE 2.0.0" >&2
        exit 0
    fi
    "$python39" -m venv "$VENV20"
fi
stamp=$VENV20/.installed
if [ "$(cat "$stamp" 2>/dev/null)" != "$(requirements_hash)" ]; then
    echo "installing requirements-ms20.txt into $VENV20"
    "$VENV20/bin/python" -m pip install --quiet --disable-pip-version-check \
        -r requirements-ms20.txt -r requirements-onnx.txt pytest pytest-timeout 'hypothesis>=6.100,<7' 'scikit-learn>=1.4,<1.7' 'tensorboard>=2.14,<2.15'
    requirements_hash >"$stamp"
fi
# Config; data; the arithmetic of training; every family by its stored logits; a run and its
# evaluation; resume; export; an Ascend's graphs.
"$VENV20/bin/python" -m pytest -q --durations=12 tests/test_config.py tests/test_data_sampler.py \
    tests/test_ema.py tests/test_step_arithmetic.py tests/test_saturation.py \
    tests/test_ascend_graphs.py \
    "tests/test_cct.py::test_logits_equal_the_authors[cct_2_3x2_32]" \
    "tests/test_models.py::test_logits_equal_timms[convmixer_1024_20_ks9_p14, 3 blocks, 112]" \
    "tests/test_models.py::test_logits_equal_timms[convnext_base, 5 blocks, 160]" \
    "tests/test_models.py::test_logits_equal_timms[deit_tiny_patch16_384, 4 blocks, 96]" \
    "tests/test_models.py::test_logits_equal_timms[pcpvt_base_v0, 5 blocks, 96]" \
    tests/test_train_eval.py::test_eval_reports_exactly_what_training_logged \
    tests/test_engine.py::test_sigterm_saves_and_the_run_continues_to_the_same_bits \
    "tests/test_export.py::test_mindir_of_pixels_computes_the_network[cct_2_3x2_32]" \
    "tests/test_export.py::test_onnx_of_any_batch_computes_the_network[deit_tiny_patch16_224]"
