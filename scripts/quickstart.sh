#!/usr/bin/env bash
# Trains CCT-2 on handwritten digits on this machine's CPU, evaluates it and draws its curves.
set -euo pipefail
if [ $# -gt 0 ]; then
    echo "usage: bash scripts/quickstart.sh    (VENV=DIR: environment to make or use, default .venv)"
    [ "$1" = -h ] || [ "$1" = --help ] || exit 2
    exit 0
fi
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$REPO"
config=src/configs/cct_2_3x2_32_digits.yaml
run=outputs/quickstart

install_requirements requirements.txt
forward "$PYTHON" train.py --config "$config" --train_url "$run" --resume auto
forward "$PYTHON" eval.py --pretrained "$run/best.ckpt"
cat <<EOF

Everything is in $run:
  best.ckpt, last.ckpt   checkpoints (best and newest)
  metrics.csv            loss, learning rate and accuracy of every interval
  report.html            a page with the curves, the recipe and the machine
  README.md              a model card with the scores
  eval_best_digits_val.json   what eval.py measured on best.ckpt
  config.yaml            the resolved recipe, with the origin of every value
The images are in data/digits. A second call continues or evaluates again; remove $run to start anew.
EOF
