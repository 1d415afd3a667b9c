#!/usr/bin/env bash
# Trains with several Ascend cards of this host, or with all that a rank table gives it.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
check_arguments 2 "run_distribute_train_ascend.sh [NUMBER_OF_CARDS|CARDS|RANK_TABLE_FILE] [CONFIG_PATH]" "$@"
case $1 in
*[!0-9,]*)
    need_file "RANK_TABLE_FILE (no number of cards, no list such as 4,5)" "$1"
    cards=(--launcher rank_table --rank_table "$1")
    ;;
*,*) cards=(--devices "$1") ;;
*) cards=(--nproc "$1") ;;
esac
need_file CONFIG_PATH "$2"
launch "${cards[@]}" --device Ascend -- \
    "$REPO/train.py" --config "$2" --device_target Ascend "${@:3}"
