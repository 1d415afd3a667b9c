"""MindSpore's GPU back end without a GPU: everything compiles and steps over stand-in libraries.

Numbers mean nothing there; what a network computes is tested on a CPU.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import cuda_stand_in
import gpu_cases
import mindspore as ms
import numpy as np
import pytest
from digits_run import failure
from gpu_cases import LEVELS, OPTIMIZERS, TEACHER, Case
from model_parity import HAS_TIMM, load_rule_weights
from small_networks import ARGUMENTS, words
from test_scripts import script

from src.args import parse_args
from src.serving.exported_network import load_mindir
from src.trainer.build import build_eval_net, build_network

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64"
    or not all(map(shutil.which, ("gcc", "nm")))
    or not (cuda_stand_in.plugin_folder() / cuda_stand_in.PLUGIN).exists(),
    reason="needs gcc, nm and MindSpore's GPU plugin, which is for x86-64",
)
ROOT = Path(__file__).resolve().parent.parent
CONVMIXER, CONVNEXT, CCT, DEIT, TWINS = ARGUMENTS
CLIP = ("--clip_global_norm_value", "1.0", "--clip_mode")
EMA = ("--with_ema", "True")
DISTILLED = ("--arch", "deit_tiny_distilled_patch16_224", *TEACHER, "--distillation_type")
# Every family and level once or more, at a cost of twenty seconds.
FAST = [
    ("train", CONVMIXER, "--optimizer", "lamb", "--amp_level", "O3", *EMA, *CLIP, "value"),
    ("train", CCT, "--optimizer", "lion", "--amp_level", "O1", "--accumulation_step", "2"),
    ("train", DEIT, "--optimizer", "momentum", "--amp_level", "O0", *CLIP, "norm"),
    ("evaluate", CONVNEXT, "--amp_level", "O2"),
    ("evaluate", TWINS, "--amp_level", "O2"),
]
# Every pair of family, optimizer and level.
PAIRS = [
    ("train", arch, "--optimizer", optimizer, "--amp_level", LEVELS[(i + j) % len(LEVELS)])
    for i, arch in enumerate(ARGUMENTS)
    for j, optimizer in enumerate(OPTIMIZERS)
]
OPTIONS = [
    *(
        ("train", CCT, *EMA, *CLIP, mode, "--optimizer", "momentum")
        for mode in ("norm", "adaptive")
    ),
    *(("train", CCT, "--accumulation_step", "2", "--optimizer", o) for o in OPTIMIZERS),
    *(("train", CONVMIXER, *CLIP, "adaptive", *EMA, "--optimizer", o) for o in OPTIMIZERS),
    *(("train", CONVMIXER, "--re_prob", "1", "--re_mode", m) for m in ("const", "rand", "pixel")),
    *(("train", DEIT, *DISTILLED, kind, "--amp_level", "O2") for kind in ("soft", "hard")),
    ("train", CCT, *CLIP, "adaptive", "--layer_decay", "0.8"),
    ("train", DEIT, "--drop_path_rate", "0.1", "--label_smoothing", "0.1"),
    ("train", CCT, "--seeded_dropout", "False", "--criterion", "bce"),
    ("train", CONVMIXER, "--is_dynamic_loss_scale", "False", "--keep_bn_fp32", "False"),
    *(("evaluate", arch, "--amp_level", level) for arch in ARGUMENTS for level in LEVELS),
]


def check(cases: List[Case], folder: Path) -> None:
    """All run, and nothing is left to the host but what is meant to show that it would be seen."""
    *outcomes, canary = gpu_cases.run([*cases, ("without kernel", CCT)], folder)
    assert canary.on_cpu == ["Eig"]
    failed = {case: o.error for case, o in zip(cases, outcomes) if o.error}
    assert not failed
    assert not {operator for o in outcomes for operator in o.on_cpu}


def test_every_family_and_level_runs(tmp_path: Path) -> None:
    check(FAST, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("arch", ARGUMENTS)
def test_every_pair_of_family_optimizer_and_level_steps(arch: str, tmp_path: Path) -> None:
    check([case for case in PAIRS if case[1] == arch], tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_option_of_training_and_evaluation_runs(tmp_path: Path) -> None:
    check(OPTIONS, tmp_path)


@pytest.mark.parametrize(
    "archs", [[CONVMIXER], pytest.param([*ARGUMENTS], marks=pytest.mark.slow)], ids=["one", "all"]
)
def test_what_is_exported_on_a_gpu_computes_the_same_on_a_cpu(
    archs: List[str], tmp_path: Path
) -> None:
    outcomes = gpu_cases.run([("export", arch) for arch in archs], tmp_path)
    assert [outcome.error for outcome in outcomes] == [None] * len(archs)
    rng = np.random.default_rng(0)
    image = ms.Tensor(rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8))
    for arch in archs:
        config = parse_args(words(arch))
        network = build_eval_net(config, load_rule_weights(build_network(config)))
        expected = network.set_train(False)(image).asnumpy()
        found = load_mindir(tmp_path / f"{arch}.mindir")(image).asnumpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not HAS_TIMM, reason="needs torch and timm")
def test_the_benchmark_runs(tmp_path: Path) -> None:
    variables = cuda_stand_in.build(tmp_path)
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--quick", "--json", "out.json"]
    environment = {**os.environ, **variables}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    rows = json.loads((tmp_path / "out.json").read_text())
    kinds = [(row["phase"], row["data"], row["side"]) for row in rows]
    assert kinds == list(
        itertools.product(("infer", "train"), ("memory", "folder"), ("O2", "timm_amp"))
    )
    assert all(row["images_per_s"] > 0 and row["times_timms"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data_url", "/nowhere"], "'/nowhere/train': no such folder"),
        (["--json", "/nowhere/gpu.json"], "'/nowhere/gpu.json': no such folder"),
        (["--timm_python", "true"], "--timm_python 'true': is no Python"),
    ],
)
def test_what_would_end_the_benchmark_late(
    words: List[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    assert importlib.import_module("gpu").main([*words, "--data", "memory"]) == 2
    assert said in capsys.readouterr().err


def test_without_the_wheels_their_command_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    message = failure(capsys, script("gpu_environment"), [])
    assert "pip install -r requirements-gpu.txt" in message


def test_the_variables_of_the_wheels_are_printed(tmp_path: Path) -> None:
    library = tmp_path / "nvidia" / "cuda_runtime" / "lib" / "libcudart.so.11.0"
    library.parent.mkdir(parents=True)
    library.touch()
    program = ROOT / "scripts" / "gpu_environment.py"
    code = f"import sys; sys.prefix = {str(tmp_path)!r}; sys.path.insert(0, {str(tmp_path)!r})\n"
    code += f"sys.argv = ['x']; import runpy; runpy.run_path({str(program)!r}, run_name='__main__')"
    lines = 'eval "$($0 -c "$1")"; "$CUDA_HOME/bin/nvcc" --version; echo "$LD_LIBRARY_PATH"'
    environment: Dict[str, str] = {"LD_LIBRARY_PATH": "/before"}
    command = ["bash", "-eu", "-c", lines, sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    version, path = done.stdout.splitlines()
    assert "release 11.8" in version
    assert path == f"{library.parent}:/before"
