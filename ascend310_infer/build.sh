#!/usr/bin/env bash
# Builds the program into out/ (BUILD_DIR); LITE_HOME is MindSpore Lite. --test: the tests, under sanitizers.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
case ${1:-} in
-h | --help)
    echo "usage: LITE_HOME=DIR bash ascend310_infer/build.sh    or    bash ascend310_infer/build.sh --test"
    exit 0
    ;;
--test)
    build=${BUILD_DIR:-$here/out-test}
    cmake -S "$here" -B "$build" -DSANITIZE=ON -DLITE_HOME= -DCMAKE_BUILD_TYPE=Debug
    cmake --build "$build" --parallel 2
    "$build/test_parts"
    exit
    ;;
esac
if [ ! -d "${LITE_HOME:-}/lib" ] && [ ! -d "${LITE_HOME:-}/runtime/lib" ]; then
    echo "error: LITE_HOME '${LITE_HOME:-}': no MindSpore Lite there; bash scripts/get_lite.sh fetches it" >&2
    exit 2
fi
build=${BUILD_DIR:-$here/out}
cmake -S "$here" -B "$build" -DLITE_HOME="$LITE_HOME"
cmake --build "$build" --parallel 2
echo "built $build/main"
