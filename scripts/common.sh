# shellcheck shell=bash
# Shared by the scripts of this folder; to be sourced. Sets REPO and PYTHON.
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${VENV:-$REPO/.venv}
PYTHON=$VENV/bin/python

die() {
    echo "error: $*" >&2
    exit 2
}

# The first Python of the versions MindSpore 2.10 has wheels for.
find_python() {
    local candidate
    for candidate in python3.11 python3.12 python3.10 python3; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' \
                >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    die "no Python 3.10 to 3.12 with venv found; install one, e.g. apt-get install python3 python3-venv"
}

# install_requirements FILE: makes $VENV when absent and installs FILE when it has changed since.
install_requirements() {
    local file=$1 stamp
    if [ ! -x "$PYTHON" ]; then
        "$(find_python)" -m venv "$VENV"
    fi
    stamp=$VENV/.installed-$file
    if [ "$(cat "$stamp" 2>/dev/null)" != "$(requirements_hash)" ]; then
        echo "installing $file into $VENV"
        "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$REPO/$file"
        requirements_hash >"$stamp"
    fi
}

requirements_hash() {
    cat "$REPO"/requirements*.txt | cksum
}

# The environment of the tests: torch first, as nothing may pull another build of it in.
install_test_environment() {
    local pins=(torch==2.13.0 torchvision==0.28.0 timm==1.0.31)
    if [ ! -x "$PYTHON" ]; then
        "$(find_python)" -m venv "$VENV"
    fi
    local pip=("$PYTHON" -m pip install --quiet --disable-pip-version-check)
    if [ "$(cat "$VENV/.installed-oracles" 2>/dev/null)" != "${pins[*]}" ]; then
        echo "installing ${pins[*]} into $VENV"
        "${pip[@]}" "${pins[0]}"
        "${pip[@]}" --no-deps "${pins[@]:1}"
        echo "${pins[*]}" >"$VENV/.installed-oracles"
    fi
    install_requirements requirements-dev.txt
}

# check_arguments COUNT USAGE ARGUMENTS...: usage for -h, and an error for fewer than COUNT.
check_arguments() {
    local count=$1 usage=$2
    shift 2
    case ${1:-} in
    -h | --help)
        echo "usage: bash scripts/$usage [--dry_run] [OPTION OF THE PROGRAM ...]"
        echo "LAUNCH_OPTIONS: further options of scripts/launch.py; docs/distributed.md says more."
        exit 0
        ;;
    esac
    [ $# -ge "$count" ] || die "$# argument(s) given, $count needed; usage: bash scripts/$usage"
}

# need_file WHAT PATH: an error when there is no such file, or a pipe or a device; URLs pass.
need_file() {
    case $2 in
    *://*) ;;
    *)
        [ -e "$2" ] || die "$1 '$2': no such file"
        [ -f "$2" ] || [ -d "$2" ] || die "$1 '$2': no regular file"
        ;;
    esac
}

# launch LAUNCHER_OPTIONS -- PROGRAM ARGUMENTS: becomes scripts/launch.py; --dry_run may come anywhere.
launch() {
    local python=${LAUNCH_PYTHON:-$PYTHON} argument dry=() words=() more=()
    [ -x "$python" ] || python=$(command -v python3)
    for argument in "$@"; do
        if [ "$argument" = --dry_run ]; then dry=(--dry_run); else words+=("$argument"); fi
    done
    read -ra more <<<"${LAUNCH_OPTIONS:-}"
    exec "$python" "$REPO/scripts/launch.py" "${dry[@]}" "${more[@]}" "${words[@]}"
}

# forward COMMAND ARGUMENTS: runs it, and hands on what asks this shell to end.
forward() {
    local child code number
    "$@" &
    child=$!
    for number in TERM INT HUP USR1; do
        # shellcheck disable=SC2064
        trap "kill -$number $child 2>/dev/null || true" "$number"
    done
    while true; do
        code=0
        wait "$child" || code=$?
        kill -0 "$child" 2>/dev/null || break
    done
    trap - TERM INT HUP USR1
    return "$code"
}
