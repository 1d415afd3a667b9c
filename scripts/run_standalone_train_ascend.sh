#!/usr/bin/env bash
# Trains with one Ascend device.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
check_arguments 2 "run_standalone_train_ascend.sh [DEVICE_ID] [CONFIG_PATH]" "$@"
need_file CONFIG_PATH "$2"
launch --launcher standalone --device Ascend --device_id "$1" -- \
    "$REPO/train.py" --config "$2" --device_target Ascend "${@:3}"
