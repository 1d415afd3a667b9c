#!/usr/bin/env bash
# Trains with all Ascend devices that a rank table gives this host.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
check_arguments 2 "run_distribute_train_ascend.sh [RANK_TABLE_FILE] [CONFIG_PATH]" "$@"
need_file RANK_TABLE_FILE "$1"
need_file CONFIG_PATH "$2"
launch --launcher rank_table --device Ascend --rank_table "$1" -- \
    "$REPO/train.py" --config "$2" --device_target Ascend "${@:3}"
