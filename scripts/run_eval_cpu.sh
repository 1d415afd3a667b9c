#!/usr/bin/env bash
# Evaluates a checkpoint with one process on the CPU.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
check_arguments 3 "run_eval_cpu.sh [DEVICE_ID] [CONFIG_PATH] [CHECKPOINT_PATH]" "$@"
need_file CONFIG_PATH "$2"
need_file CHECKPOINT_PATH "$3"
launch --launcher standalone --device CPU --device_id "$1" -- \
    "$REPO/eval.py" --config "$2" --pretrained "$3" --device_target CPU "${@:4}"
