"""One way to open a checkpoint, for eval.py, export.py and predict.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from digits_run import failure
from mindspore import Parameter, Tensor
from PIL import Image

import eval as eval_program
import export as export_program
import predict as predict_program
from src.args import EvalRun, parse_args, replace, to_yaml
from src.checkpoints.checkpoint import save_checkpoint
from src.errors import UserError
from src.models.registry import create_model
from src.trainer.open_checkpoint import open_checkpoint

ARCH = "cct_2_3x2_32"
NAME = "classifier.fc.weight"


def saved(path: Path, meta: Dict[str, Any], *, averages: bool) -> Path:
    """A network of three classes whose weights are 1, with averages that are 2."""
    parameters: List[Parameter] = []
    for parameter in create_model(ARCH, num_classes=3).get_parameters():
        value = np.ones(parameter.shape, np.float32)
        parameters.append(Parameter(Tensor(value), name=parameter.name))
        if averages:
            parameters.append(Parameter(Tensor(2 * value), name=f"train.ema.{parameter.name}"))
    save_checkpoint(path, parameters, meta)
    return path


def trained_meta() -> Dict[str, Any]:
    trained = replace(parse_args(["--arch", ARCH]), crop_pct=0.5, num_classes=3)
    return {"arch": ARCH, "num_classes": 3, "config": to_yaml(trained)}


@pytest.mark.parametrize(("words", "value"), [([], 1.0), (["--ema"], 2.0)])
def test_weights_and_recipe_are_those_of_the_file(
    tmp_path: Path, words: List[str], value: float
) -> None:
    path = saved(tmp_path / "x.ckpt", trained_meta(), averages=True)
    given = parse_args(["--pretrained", str(path), *words], EvalRun)
    network, config, checkpoint = open_checkpoint(given)
    weights = {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}
    assert (weights[NAME] == value).all()
    assert isinstance(config, EvalRun)
    assert (config.model.num_classes, config.model.image_size) == (3, 32)
    assert config.data.crop_pct == 0.5
    # The file is what it was: eval.py's report goes on to the averages.
    assert (checkpoint.tensors[NAME].asnumpy() == 1.0).all()
    assert (checkpoint.averaged().tensors[NAME].asnumpy() == 2.0).all()


def test_a_file_without_averages_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.ckpt", trained_meta(), averages=False)
    with pytest.raises(UserError, match=r"ema True: .* no averaged weights"):
        open_checkpoint(parse_args(["--pretrained", str(path), "--ema"]))


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (eval_program, ["--train_url", "out"]),
        (export_program, ["--output", "x.mindir"]),
        (predict_program, ["--input", "image.png"]),
    ],
)
def test_all_programs_ask_for_classes_that_nobody_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    program: Any,
    words: List[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("image.png")
    path = saved(tmp_path / "x.ckpt", {}, averages=False)
    message = failure(capsys, program, ["--arch", ARCH, "--pretrained", str(path), *words])
    assert f"num_classes 0: {path} does not say how many classes" in message
