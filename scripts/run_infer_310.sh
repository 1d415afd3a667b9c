#!/usr/bin/env bash
# Inputs, C++ program and scores of an exported file, on an Ascend 310 or (DEVICE_TARGET=CPU) on a CPU.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
usage="run_infer_310.sh [MINDIR_PATH] [DATASET_NAME] [DATASET_PATH] [DEVICE_ID]"
case ${1:-} in
-h | --help)
    echo "usage: bash scripts/$usage"
    echo "MINDIR_PATH: of export.py, with its FILE.json. DATASET_NAME: imagenet2012, cifar10, fashion_mnist, ..."
    echo "DEVICE_TARGET=CPU (default Ascend), LITE_HOME (on a CPU fetched when unset), WORK_DIR (default"
    echo "./infer_310), INFER_OPTIONS and PREPROCESS_OPTIONS for more options of the two programs."
    exit 0
    ;;
esac
[ $# -ge 3 ] && [ $# -le 4 ] || die "$# argument(s) given, 3 or 4 needed; usage: bash scripts/$usage"
mindir=$(realpath -m -- "$1") name=$2 data=$(realpath -m -- "$3") device_id=${4:-0}
need_file MINDIR_PATH "$mindir"
if [ -e "$mindir.json" ]; then need_file "MINDIR_PATH's record" "$mindir.json"; fi
target=${DEVICE_TARGET:-Ascend} work=$(realpath -m -- "${WORK_DIR:-infer_310}")
python=${INFER_PYTHON:-$PYTHON}
[ -x "$python" ] || python=$(command -v python3)
[ "$target" = Ascend ] || [ "$target" = CPU ] || die "DEVICE_TARGET '$target': expected Ascend or CPU"
[ -n "${LITE_HOME:-}" ] || [ "$target" = CPU ] ||
    die "LITE_HOME is not set: it names the MindSpore Lite of this machine"
# Lite 2.0 builds the files of MindSpore 2.0 alone: said here, before a program is built for it. The
# version is in the wheel's version.py, or in the folder's name.
lite=2.0.0 exporter=$(sed -n 's/.*"mindspore": "\([^"]*\)".*/\1/p' "$mindir.json" 2>/dev/null || true)
if [ -n "${LITE_HOME:-}" ]; then
    lite=$(cat "$LITE_HOME/version.py" 2>/dev/null || basename "$LITE_HOME")
    lite=$(grep -o '[0-9][0-9.]*[0-9]' <<<"$lite" | head -n 1 || true)
fi
case $lite:$exporter in
2.0.*:2.0.* | 2.0.*:) ;;
2.0.*) die "MINDIR_PATH '$mindir': written by MindSpore $exporter, and MindSpore Lite $lite reads files of 2.0 \
only; export it with MindSpore 2.0.0 (requirements-ms20.txt)" ;;
esac
if [ -z "${LITE_HOME:-}" ]; then
    LITE_HOME=$(bash "$REPO/scripts/get_lite.sh")
fi
export LITE_HOME BUILD_DIR=${BUILD_DIR:-$work/build}
# The results are of this run only; inputs are gone on with.
mkdir -p "$work/log" && rm -rf "$work/result_Files" && cd "$work"

# step LOG COMMAND...: shows the reason, which is its log's last error, when it fails.
step() {
    local log=log/$1.log code=0 reason
    shift
    "$@" >"$log" 2>&1 || code=$?
    [ "$code" != 0 ] || return 0
    reason=$(grep -a '^error: ' "$log" | tail -n 1) || reason=$(tail -n 1 "$log")
    die "${reason#error: } (exit code $code; $work/$log)"
}

read -ra infer_options <<<"${INFER_OPTIONS:-}"
read -ra preprocess_options <<<"${PREPROCESS_OPTIONS:-}"
step build bash "$REPO/ascend310_infer/build.sh"
step preprocess "$python" "$REPO/preprocess.py" --for_mindir "$mindir" --dataset_name "$name" \
    --data_path "$data" --result_path preprocess_Result "${preprocess_options[@]}"
step infer "$BUILD_DIR/main" --device_target "$target" --device_id "$device_id" --mindir_path "$mindir" \
    --input0_path preprocess_Result --output_path result_Files --time_path time_Result "${infer_options[@]}"
step acc "$python" "$REPO/postprocess.py" --result_dir result_Files --dataset_name "$name" \
    --label_file preprocess_Result/label.json
cat time_Result/test_perform_static.txt log/acc.log
