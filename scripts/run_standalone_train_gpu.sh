#!/usr/bin/env bash
# Trains with one GPU.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
check_arguments 2 "run_standalone_train_gpu.sh [DEVICE_ID] [CONFIG_PATH]" "$@"
need_file CONFIG_PATH "$2"
launch --launcher standalone --device GPU --device_id "$1" -- \
    "$REPO/train.py" --config "$2" --device_target GPU "${@:3}"
