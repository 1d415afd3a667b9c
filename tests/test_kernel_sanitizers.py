"""Memory errors, undefined behaviour and data races of the native kernels."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import List, Sequence

import pytest

from src.kernels import build
from src.runtime import native_library

COMPILER = native_library.find_compiler(os.environ)
DRIVER = Path(__file__).with_name("kernels_driver.cc")

# Maps (B, H, W, C): odd, below the kernel, empty, and large enough for several threads.
MAPS = ["2x9x17x13", "1x2x3x20", "1x1x1x1", "3x5x4x16", "0x4x4x8", "2x30x30x35"]


def calls(maps: Sequence[str] = MAPS) -> List[str]:
    """One line per call of every kernel."""
    lines = []
    for m in maps:
        b, h, w, c = (int(n) for n in m.split("x"))
        hidden, mlp = f"{b}x{h}x{w}x401", f"401x{c} 401 {c}x401"
        lines += [
            f"gelu_forward {m} {c} {m}",
            f"gelu_backward {m} {m} {c} {m} {c}",
            f"linear_forward {m} 37x{c} 37 {b}x{h}x{w}x37",
            f"linear_backward {b}x{h}x{w}x37 {m} 37x{c} {m} 37x{c} 37",
            f"mlp_forward {m} {mlp} {c} {m} {hidden}",
            f"mlp_backward {m} {hidden} {m} {mlp} {m} {mlp} {c}",
            f"global_norm {m} {c} {m} 1",
            f"adamw =1e-3,0.9,0.999,1e-8,0.1,0.03,0.05 =1,0 =1,0.5{4 * f' {m} {c}'} 1",
            f"layer_norm_forward {m} {c} {c} =1e-6 {m}",
            f"layer_norm_backward {m} {m} {c} =1e-6 {m} {c} {c}",
            f"keep {c} {b}x{h} {c + b * h}",
            f"put_back {c + b * h} {c} {b}x{h} 1",
            *(
                line
                for name in ("gelu_running_norm", "relu_running_norm")
                for line in (
                    f"{name}_forward {m} {c} {c} {c} {c} =1e-5 {m}",
                    f"{name}_backward {m} {m} {c} {c} {c} =1e-5 {m} {c} {c}",
                )
            ),
            f"to_channels_first {m} {b}x{c}x{h}x{w}",
            f"to_channels_last {m} {b}x{w}x{c}x{h}",
            f"mean_of_maps_forward {m} {b}x{h}",
            f"mean_of_maps_backward {b}x{h} {m} {m}",
            f"mix_images %{b}x{h}x{w}x3 3 3 1 {b}x12 {b}x3x{h}x{w}",
            f"mix_images %{b}x{h}x{w}x3 3 3 256 {b}x19 {b}x3x{h}x{w}",
            f"normalize_images %{b}x{h}x{w}x3 1x3x1x1 1x3x1x1 {b}x3x{h}x{w}",
            f"add_kept_forward {m} {m} {b} {m}",
            f"add_kept_backward {m} {b} {m}",
            f"residual_forward {m} {m} {c} {b} {m}",
            f"residual_backward {m} {m} {c} {b} {m} {c}",
        ]
        three = f"{c} {c} {c}"
        for k, activation in ((3, "gelu"), (9, "relu")):
            block = f"{c}x1x{k}x{k} {three} {c}x{c}x1x1 {three}"
            weights, statistics, maps = f"{c} {c} {block} {block}", f"10x{c}", f"2x{m}"
            start, name = f"=1e-5 {m} 2x{b}", f"{activation}_conv_mixer_blocks"
            lines += [
                f"{name}_forward {start} {weights} {m} {maps} {maps} {statistics}",
                f"follow_statistics =0.1 {m} {statistics}{10 * f' {c}'} 1",
                f"{name}_backward {start} {m} {maps} {maps} {statistics} {weights} {m} {weights}",
            ]
        # Up to three heads of c channels; h w and h tokens, no more than make three chunks of
        # queries: the time grows with their square.
        heads, tokens = min(w, 3), min(h * w, 225)
        whole, others = f"{b}x{tokens}x{heads * c}", f"{b}x{h}x{2 * heads * c}"
        for dropout in ("=0 =1", f"{1 + b} 92674"):
            packed = f"={heads} {b}x{tokens}x{3 * heads * c} {dropout}"
            lines += [
                f"self_attention_forward {packed} {whole}",
                f"self_attention_backward {whole} {packed} {b}x{tokens}x{3 * heads * c}",
            ]
        lines += [
            f"cross_attention_forward ={heads} {whole} {others} {whole}",
            f"cross_attention_backward {whole} ={heads} {whole} {others} {whole} {others}",
            f"draw_keys #70000 ={','.join('7' * (2 + b))} {1 + b}",
            f"draw_uniform #70000 ={','.join('7' * (2 + b))} {b}",
        ]
        for k in (3, 5, 7, 9):
            lines += [
                f"depthwise_conv_forward {m} {c}x1x{k}x{k} {c} {m}",
                f"depthwise_conv_backward_input {m} {c}x1x{k}x{k} {m}",
                f"depthwise_conv_backward_weight {m} {m} {2 * f' {c}x1x{k}x{k}'} {c}",
            ]
        pooled = f"{b}x{(h - 1) // 2 + 1}x{(w - 1) // 2 + 1}x{c}"
        lines += [
            f"relu_max_pool_forward {m} {pooled}",
            f"relu_max_pool_backward {pooled} {pooled} {m} {m}",
        ]
        m32, w32 = f"{b}x{h}x{w}x32", "64x288"
        for pad in (0, 1, 2):
            high, wide = (max(n + 2 * pad - 2, 0) for n in (h, w))
            y64, geometry = f"{b}x{high}x{wide}x64", f"3x1x{pad + 1}"
            lines += [
                f"dense_conv_forward {m32} {w32} {geometry} {y64}",
                f"dense_conv_backward_input {y64} {w32} {geometry} {m32} {m32}",
                f"dense_conv_backward_weight {y64} {m32} {geometry} {w32}",
            ]
        for k in (1, 2, 4):
            patches = f"{b}x{h // k}x{w // k}x9"
            weight = f"9x{c}x{k}x{k}"
            lines += [
                f"patch_conv_forward {m} {weight} 9 {patches}",
                f"patch_conv_backward_input {patches} {weight} {m} {m}",
                f"patch_conv_backward_weight {patches} {m} {weight} {weight} 9",
            ]
        for k, stride, pad in ((7, 2, 3), (3, 1, 1)):
            high, wide = ((n + 2 * pad - k) // stride + 1 for n in (h, w))
            weight, geometry = f"9x{k * k * c}", f"{k}x{stride}x{pad + 1}"
            lines += [
                f"dense_conv_forward {m} {weight} {geometry} {b}x{high}x{wide}x9",
                f"dense_conv_backward_input {b}x{high}x{wide}x9 {weight} {geometry} {m} {m}",
                f"dense_conv_backward_weight {b}x{high}x{wide}x9 {m} {geometry} {weight}",
            ]
    return lines


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["-O0", "-fsanitize=address,undefined", "-fopenmp"], id="address"),
        # OpenMP's barriers are invisible to ThreadSanitizer: the same shares, on std::thread.
        pytest.param(
            ["-O1", "-fsanitize=thread", "-DKERNELS_STD_THREADS"],
            id="thread",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_sanitizers_find_nothing(flags: List[str], tmp_path: Path) -> None:
    sources = [str(DRIVER), *(str(path) for path in build.SOURCES.glob("*.cc"))]
    program = str(tmp_path / "driver")
    options = ["-std=c++17", "-g", build.NATIVE, "-fno-sanitize-recover=all", "-rdynamic"]
    command = [*(COMPILER or []), *options, *flags, f"-I{build.SOURCES}", "-o", program, *sources]
    compiled = subprocess.run([*command, "-ldl", "-pthread"], capture_output=True, text=True)
    if re.search(r"cannot find .*lib[at]san|unsupported option '-fsanitize", compiled.stderr):
        pytest.skip("this compiler has no sanitizers")
    assert compiled.returncode == 0, compiled.stderr
    environment = {**os.environ, "OMP_NUM_THREADS": "4", "ASAN_OPTIONS": "detect_leaks=1"}
    done = subprocess.run(
        [program], input="\n".join(calls()), env=environment, capture_output=True, text=True
    )
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("ThreadSanitizer does not run under this kernel's address randomisation")
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == len(calls())


def test_every_kernel_is_called() -> None:
    defined = set()
    for source in build.SOURCES.glob("*.cc"):
        defined.update(
            re.findall(r'^KERNEL(?:_FROM)?\((?:"\w+", )?(\w+),', source.read_text(), re.MULTILINE)
        )
    assert defined == {line.split()[0] for line in calls()}
