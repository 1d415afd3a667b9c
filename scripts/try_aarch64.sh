#!/usr/bin/env bash
# Installs and tries this repository as an ARM server would, in a Debian root under an emulator.
set -euo pipefail
if [ "${1:-}" = -h ] || [ "${1:-}" = --help ] || [ $# -gt 1 ]; then
    echo "usage: bash scripts/try_aarch64.sh [FOLDER]    (default build/aarch64; needs root; 2.2 GB)"
    exit $(($# > 1 ? 2 : 0))
fi
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
root=$(realpath -m "${1:-$REPO/build/aarch64}")
[ "$(id -u)" = 0 ] || die "user $(id -un): a root directory can be made by root only"
for tool in debootstrap qemu-aarch64-static aarch64-linux-gnu-g++; do
    command -v "$tool" >/dev/null ||
        die "$tool: not installed; apt-get install debootstrap qemu-user-static g++-aarch64-linux-gnu"
done

# The kernel starts programs for ARM in the emulator while this script runs.
formats=/proc/sys/fs/binfmt_misc
clean_up() {
    umount -q "$root/proc" "$root/dev" || true
    if [ "${registered:-}" = yes ]; then echo -1 >$formats/qemu-aarch64; fi
}
trap clean_up EXIT
[ -e $formats/register ] || mount -t binfmt_misc none $formats
if [ ! -e $formats/qemu-aarch64 ]; then
    magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    printf '%s' ":qemu-aarch64:M::$magic:$mask:$(command -v qemu-aarch64-static):F" >$formats/register
    registered=yes
fi

# inside COMMAND: in the root, at the repository's copy. /bin/true stands for the compiler of the kernels,
# which are there already: in the emulator it would take longer than src/runtime/native_library.py waits.
inside() {
    local path=/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin
    env -i PATH=$path HOME=/root CXX=/bin/true chroot "$root" /bin/bash -c "cd /repo && $1"
}

step() { echo "--- $1 (after $SECONDS s)"; }

if [ ! -e "$root/.complete" ]; then
    step "Debian for arm64"
    debootstrap --foreign --arch=arm64 --variant=minbase --include=python3-venv,libgomp1,ca-certificates \
        bookworm "$root" http://deb.debian.org/debian >/dev/null
    chroot "$root" /debootstrap/debootstrap --second-stage >/dev/null
    # oneDNN waits for ever for this file, by which Linux on ARM says what the core is: a Kunpeng 920.
    mkdir -p "$root/sys/devices/system/cpu/cpu0/regs/identification"
    echo 0x00000000481fd010 >"$root/sys/devices/system/cpu/cpu0/regs/identification/midr_el1"
    touch "$root/.complete"
fi
cp /etc/resolv.conf /etc/hosts "$root/etc/"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
mount --bind /proc "$root/proc"
mount --bind /dev "$root/dev"
mkdir -p "$root/repo"
(cd "$REPO" && git ls-files -z | tar --null -cT -) | tar -x -C "$root/repo"

step "requirements"
[ -x "$root/venv/bin/python" ] || inside "python3 -m venv /venv"
inside "python -m pip install --quiet --no-cache-dir -r requirements.txt pytest pytest-timeout 'hypothesis>=6.100,<7' scikit-learn"

step "kernels, compiled here"
stem=$(inside "python -c 'from src.kernels.build import KERNELS; from src.runtime.caches import cache_folders; print(next(cache_folders(KERNELS.name)) / KERNELS.stem([\"/bin/true\"]))'")
aarch64-linux-gnu-g++ -std=c++17 -O3 -mcpu=tsv110 -ffp-contract=fast -fno-math-errno -fno-trapping-math \
    -fopenmp -fPIC -shared -o "$root$stem.so" "$REPO"/src/kernels/native/*.cc
mv "$root$stem.so" "$root$stem-$(sha256sum "$root$stem.so" | cut -c1-16).so"

step "train.py --dry_run"
inside "python train.py --config src/configs/cct_2_3x2_32_digits.yaml --device_target CPU --cpu_kernels native --dry_run"
step "tests of models and data"
# Samplers, batches, one network of each kind by its stored logits, and the arithmetic of a step.
inside "python -m pytest -q -p no:cacheprovider tests/test_data_sampler.py tests/test_data_digits.py \
    'tests/test_cct.py::test_logits_equal_the_authors[cct_2_3x2_32]' \
    'tests/test_models.py::test_logits_equal_timms[deit_tiny_patch16_384, 4 blocks, 96]' \
    'tests/test_models.py::test_logits_equal_timms[convmixer_1024_20_ks9_p14, 3 blocks, 112]' \
    tests/test_step_arithmetic.py"
step "done: $(du -sx --block-size=1M "$root" | cut -f1) MB"
