"""benchmarks/accuracy.py: its verdict, what it refuses, and one short comparison with torch."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from mindspore import Tensor
from model_parity import load_rule_weights
from program_options import load
from test_data_idx import write_idx

from src.checkpoints.weight_conversion import to_reference_names
from src.errors import UserError
from src.trainer.build import build_eval_net, build_network

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "src" / "configs" / "convnext_mini_32_fashion_mnist.yaml"
program = load("benchmarks/accuracy.py")


def runs(*top1: float, speed: float = 100.0) -> List[List[Dict[str, float]]]:
    """A training of two epochs for each seed."""
    first = {"top1": 50.0, "val_loss": 1.0, "images_per_s": 1.0}
    return [[first, {"top1": x, "val_loss": 0.5, "images_per_s": speed}] for x in top1]


@pytest.mark.parametrize(
    ("here", "torch", "holds"),
    [
        ((90.0, 90.4, 90.2), (90.1, 90.3, 90.2), True),
        ((90.0, 91.0, 92.0), (90.4, 91.4, 92.4), False),  # by more than 0.3 points
        ((90.0, 90.01, 90.0), (90.1, 90.11, 90.1), False),  # by more than two spreads
    ],
)
def test_the_verdict_is_the_claim(here: Any, torch: Any, holds: bool) -> None:
    sides = {"here": runs(*here, speed=150.0), "torch": runs(*torch)}
    lines, found = program.compare("net", sides)
    assert found is holds
    assert ("they agree" in lines[-1]) is holds
    assert "150 images/s here, 100 in torch, median ratio 1.50" in lines[-1]
    assert lines[0] == "| net | 1 | 50.00 | 50.00 | 1.0000 | 1.0000 |"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--mix_up", "0.2"], "mix_up 0.2: torch's side knows 0.0 only; set 0.0"),
        (["--optimizer", "lion"], "optimizer lion: torch's side knows adamw only; set adamw"),
        (["--layer_decay", "0.7"], "layer_decay 0.7: torch's side knows null only; set null"),
        # Its positions do not train, the port's would.
        (["--arch", "cct_2_3x2_32_sine"], "torch's side has cct_2_3x2_32"),
    ],
)
def test_what_torchs_side_lacks_is_refused(given: List[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        program.strict(["--config", program.RECIPES[0], *given], 0, 1)


def test_results_of_other_options_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: List[Dict[str, Any]] = []

    def train(job: Dict[str, Any]) -> None:
        jobs.append(job)
        program.write_json(Path(job["result"]), {"recipe": job["recipe"], "epochs": runs(90.0)[0]})

    monkeypatch.setattr(program, "in_fresh_process", train)
    arguments = argparse.Namespace(output=tmp_path, epochs=2)
    keys = ["--config", str(RECIPE)]
    for _ in range(2):
        assert program.epochs_of(arguments, keys, 1, "here") == runs(90.0)[0]
    assert len(jobs) == 1
    with pytest.raises(UserError, match=r"1_here_2\.json: of another recipe or options; give"):
        program.epochs_of(arguments, [*keys, "--base_lr", "1"], 1, "here")
    Path(jobs[0]["result"]).write_text("{")
    with pytest.raises(UserError, match=r"1_here_2\.json: no result .* delete it"):
        program.epochs_of(arguments, keys, 1, "here")


@pytest.mark.parametrize("recipe", program.RECIPES, ids=lambda path: Path(path).stem)
def test_torchs_networks_compute_what_ours_do(recipe: str) -> None:
    torch = pytest.importorskip("torch")
    config = program.strict(["--config", recipe], 0, 1)
    for package in ("timm", *(["vit_pytorch"] if config.model.arch == program.CCT else [])):
        if not find_spec(package):
            pytest.skip(f"needs {package}")
    # Initial weights are so small that attention is the same for any number of heads.
    network, side = load_rule_weights(build_network(config)), config.model.image_size
    arrays = {name: value.asnumpy() for name, value in network.parameters_and_names()}
    model = program.torch_network(config)
    theirs = to_reference_names(arrays, network)
    model.load_state_dict({name: torch.tensor(theirs[name]) for name in theirs})
    image = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    found = build_eval_net(config, network).set_train(False)(Tensor(image)).asnumpy()
    with torch.inference_mode():
        expected = model.eval()(program.normalised(image, config)).numpy()
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.slow
def test_both_sides_train_alike(tmp_path: Path) -> None:
    write_idx(tmp_path)
    words = ["--output", "out", "--recipes", str(RECIPE), "--epochs", "2", "--seeds", "1", "2"]
    words += ["--data_url", str(tmp_path), "--batch_size", "10"]
    command = [sys.executable, str(ROOT / "benchmarks" / "accuracy.py"), *words]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    results = sorted((tmp_path / "out").glob("*.json"))
    assert len(results) == 4, first.stderr
    for seed in (1, 2):
        here, torch = (
            json.loads(path.read_text())["epochs"] for path in results if f"_{seed}_" in path.name
        )
        for ours, theirs in zip(here, torch):
            assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=2e-4)
    assert (tmp_path / "out" / "accuracy.png").stat().st_size > 5000
    # Nothing but results: what an interrupted training leaves would be in the next one's way.
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".npz", ".png"}
    # What is there is not done again.
    times = [path.stat().st_mtime_ns for path in results]
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert again.stdout == first.stdout
    assert [path.stat().st_mtime_ns for path in results] == times
