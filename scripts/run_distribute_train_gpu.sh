#!/usr/bin/env bash
# Trains with several GPUs of this host.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
check_arguments 2 "run_distribute_train_gpu.sh [CUDA_VISIBLE_DEVICES] [CONFIG_PATH]" "$@"
need_file CONFIG_PATH "$2"
launch --device GPU --devices "$1" -- \
    "$REPO/train.py" --config "$2" --device_target GPU "${@:3}"
