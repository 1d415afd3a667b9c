#!/usr/bin/env bash
# Fetches MindSpore Lite 2.0.0 (headers, libraries) from PyPI and prints the folder for LITE_HOME.
set -euo pipefail
if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
    echo "usage: bash scripts/get_lite.sh [FOLDER]    (default build/lite-MACHINE)"
    echo "MACHINE: x86_64 or aarch64, what the libraries are for; default this one's"
    exit 0
fi
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
machine=${MACHINE:-$(uname -m)}
# Wheels for Python 3.7, which serve any program that takes their headers and libraries only.
case $machine in
x86_64) platform=manylinux1_x86_64 wheel=mindspore_lite-2.0.0-cp37-cp37m-manylinux1_x86_64.whl
    sha256=199cd0605cc985b88eddb273db9dfe9000a585ba10ca2292b6b36ebfff07b3ec ;;
aarch64) platform=manylinux2014_aarch64 wheel=mindspore_lite-2.0.0-cp37-none-any.whl
    sha256=9006b56a0285833802b4880f34cbce5f94111ef5ca4071d5df5c61e8c2a3a6f7 ;;
*) die "machine '$machine': PyPI has MindSpore Lite for x86_64 and aarch64; install the package of mindspore.cn/lite and set LITE_HOME" ;;
esac
folder=${1:-$REPO/build/lite-$machine}
if [ ! -f "$folder/.complete" ]; then
    [ -x "$PYTHON" ] || PYTHON=$(find_python)
    mkdir -p "$folder" || die "folder '$folder': cannot be made; give another"
    "$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --python-version 3.7 --implementation cp --abi cp37m --platform "$platform" \
        --dest "$folder" mindspore-lite==2.0.0 >&2 ||
        die "mindspore-lite==2.0.0 cannot be downloaded; is there a network?"
    # Its libraries are run, so a mirror may not give other ones.
    sha256sum --check --status <<<"$sha256  $folder/$wheel" ||
        { rm "$folder/$wheel"; die "$wheel: is not the file that PyPI has; ask the owner of this package index"; }
    "$PYTHON" -m zipfile -e "$folder/$wheel" "$folder"
    rm "$folder/$wheel"
    touch "$folder/.complete"
fi
echo "$folder/mindspore_lite"
