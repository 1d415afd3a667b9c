#!/usr/bin/env bash
# Fetches MindSpore Lite 2.0.0 (headers, libraries, x86-64) from PyPI and prints the folder for LITE_HOME.
set -euo pipefail
if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
    echo "usage: bash scripts/get_lite.sh [FOLDER]    (default build/lite)"
    exit 0
fi
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
folder=${1:-$REPO/build/lite}
home=$folder/mindspore_lite
if [ ! -f "$folder/.complete" ]; then
    [ "$(uname -m)" = x86_64 ] || die "$(uname -m): PyPI has MindSpore Lite for x86_64; install the package of mindspore.cn/lite and set LITE_HOME"
    [ -x "$PYTHON" ] || PYTHON=$(find_python)
    mkdir -p "$folder"
    wheel=mindspore_lite-2.0.0-cp37-cp37m-manylinux1_x86_64.whl
    # A wheel for Python 3.7, which serves any program that takes its headers and libraries only.
    "$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --python-version 3.7 --implementation cp --abi cp37m --dest "$folder" mindspore-lite==2.0.0 >&2 ||
        die "mindspore-lite==2.0.0 cannot be downloaded; is there a network?"
    "$PYTHON" -m zipfile -e "$folder/$wheel" "$folder"
    rm "$folder/$wheel"
    touch "$folder/.complete"
fi
echo "$home"
