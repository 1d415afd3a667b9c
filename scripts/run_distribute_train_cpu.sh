#!/usr/bin/env bash
# Trains with several processes on the CPU.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
check_arguments 2 "run_distribute_train_cpu.sh [NPROC] [CONFIG_PATH]" "$@"
need_file CONFIG_PATH "$2"
launch --device CPU --nproc "$1" -- \
    "$REPO/train.py" --config "$2" --device_target CPU "${@:3}"
