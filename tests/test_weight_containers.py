"""Files in which trainers of PyTorch keep weights, written by their own code where it is here."""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import zipfile
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Any, Callable, Dict, Optional

import numpy as np
import pytest
from mindspore import nn
from safetensors.torch import save_file
from torch_oracle import timm, torch

from scripts import convert_weights
from src.checkpoints.checkpoint import read_checkpoint
from src.checkpoints.weight_conversion import to_network_names, to_reference_names
from src.checkpoints.weight_files import read_weights, weights_sha256
from src.errors import UserError
from src.models import deit
from src.models.registry import create_model

ARCH = "deit_tiny_patch16_224"
SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
State = Dict[str, Any]


def network() -> Any:
    return timm.models.VisionTransformer(**SIZES, num_classes=5)


@cache
def model() -> Any:
    torch.manual_seed(0)
    return network()


@cache
def ours() -> nn.Cell:
    return create_model(ARCH, **SIZES, num_classes=5)


def halved() -> State:
    return {name: value / 2 for name, value in model().state_dict().items()}


def averaged_model() -> Any:
    """torch's own averages: of the model and itself times zero."""
    averages = torch.optim.swa_utils.AveragedModel(model())
    averages.update_parameters(model())
    other = network()
    other.load_state_dict({name: value * 0 for name, value in model().state_dict().items()})
    averages.update_parameters(other)
    return averages


def timm_checkpoint(folder: Path) -> Path:
    from timm.utils import CheckpointSaver, ModelEmaV3

    ema = ModelEmaV3(model(), decay=0.5)
    ema.module.load_state_dict(halved())
    optimizer = torch.optim.AdamW(model().parameters())
    arguments = argparse.Namespace(model=ARCH, opt="adamw")
    saver = CheckpointSaver(
        model(), optimizer, arguments, model_ema=ema, checkpoint_dir=str(folder)
    )
    saver.save_checkpoint(3, metric=np.float64(71.5))
    return folder / "last.pth.tar"


def torchvision_checkpoint(folder: Path) -> Path:
    optimizer = torch.optim.SGD(model().parameters(), lr=0.1)
    saved = {"model": model().state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    saved.update(model_ema=averaged_model().state_dict(), args=argparse.Namespace(lr=0.1))
    return written(saved, folder)


def mmengine_checkpoint(folder: Path) -> Path:
    """As EMAHook leaves it: the averages where the weights were, and the other way round."""
    raw = {f"module.net.{name}": value for name, value in model().state_dict().items()}
    saved = {
        "meta": {"mmengine_version": "0.10.7", "cfg": "x"},
        "state_dict": OrderedDict((f"net.{n}", value) for n, value in halved().items()),
        "ema_state_dict": {**raw, "steps": torch.tensor(4)},
        "message_hub": {"log_scalars": {"loss": Path("x")}},
    }
    return written(saved, folder)


def lightning_checkpoint(folder: Path) -> Path:
    """As WeightAveraging leaves it."""
    state = {
        which: {f"model.{n}": value for n, value in weights.items()}
        for which, weights in (("raw", model().state_dict()), ("averaged", halved()))
    }
    saved = {
        "state_dict": {**state["averaged"], "criterion.weight": torch.ones(5)},
        "current_model_state": {**state["raw"], "criterion.weight": torch.ones(5)},
        "pytorch-lightning_version": "2.6.6",
        "hyper_parameters": {"root": Path("x")},
        "optimizer_states": [torch.optim.SGD(model().parameters(), lr=0.1).state_dict()],
    }
    return written(saved, folder, "x.ckpt")


def side_by_side(folder: Path) -> Path:
    names = {f"net.{name}": value for name, value in model().state_dict().items()}
    averages = {f"net_ema.module.{name}": value for name, value in halved().items()}
    return written({"state_dict": {**names, **averages}}, folder)


def written(saved: Any, folder: Path, name: str = "x.pth") -> Path:
    torch.save(saved, folder / name)
    return folder / name


def read(path: Path, *, ema: bool = False, prefix: Optional[str] = None, **chosen: Any) -> State:
    arrays = read_weights(path, ema=ema, **chosen)
    options = {"source": path, "ema": ema, "prefix": prefix}
    found = to_reference_names(to_network_names(arrays, ours(), arch=ARCH, **options)[0], ours())
    return found


def check(found: State, expected: State) -> None:
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value.numpy(), err_msg=name)


@pytest.fixture(autouse=True)
def notes(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


@pytest.mark.parametrize(
    "write",
    [
        timm_checkpoint,
        torchvision_checkpoint,
        mmengine_checkpoint,
        lightning_checkpoint,
        side_by_side,
    ],
)
def test_of_two_sets_the_raw_one_or_the_averages(
    write: Callable[[Path], Path], tmp_path: Path, notes: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path)
    check(read(path), model().state_dict())
    assert "taking the weights" in notes.text
    check(read(path, ema=True), halved())


def prefixed(prefix: str) -> State:
    return {prefix + name: value for name, value in model().state_dict().items()}


WRAPPED: Dict[str, Callable[[], Any]] = {
    "DataParallel": lambda: torch.nn.DataParallel(model()).state_dict(),
    "torch.compile": lambda: torch.compile(model()).state_dict(),
    "DDP of a compiled": lambda: prefixed("module._orig_mod."),
    "in the middle": lambda: {
        name.replace("blocks.", "blocks._orig_mod."): value
        for name, value in model().state_dict().items()
    },
    "whole network": model,
    "whole network in a dict": lambda: {"epoch": 3, "model": model(), "ema": None},
    "averages alone": lambda: torch.optim.swa_utils.AveragedModel(model()).state_dict(),
    "nested": lambda: {"state": {"model": {"state_dict": model().state_dict()}}},
    "deepspeed": lambda: {"module": model().state_dict(), "dp_world_size": 1},
    "arrays": lambda: {"net": {n: v.numpy() for n, v in model().state_dict().items()}},
    "numbers beside": lambda: {
        "model": model().state_dict(),
        "best": np.float32(1),
        "a": np.eye(2),
    },
}


SLOW = ("torch.compile",)  # its import alone takes eight seconds


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] * (k in SLOW)) for k in WRAPPED]
)
def test_wrappers_are_looked_through(kind: str, tmp_path: Path) -> None:
    path = written(WRAPPED[kind](), tmp_path)
    check(read(path), model().state_dict())
    torch.save(WRAPPED[kind](), path, _use_new_zipfile_serialization=False)
    check(read(path), model().state_dict())


def test_attachments_have_zip_at_the_end(tmp_path: Path) -> None:
    check(read(written(prefixed("module."), tmp_path, "x.pth.zip")), model().state_dict())
    with zipfile.ZipFile(tmp_path / "y.pth.zip", "w") as archive:
        archive.write(tmp_path / "x.pth.zip", "x.pth")
    with pytest.raises(UserError, match="not a whole"):
        read(tmp_path / "y.pth.zip")


def pieces(folder: Path) -> Path:
    names = {}
    state = sorted(model().state_dict().items())
    for number, part in enumerate((state[:10], state[10:]), 1):
        name = f"model-{number:05d}-of-00002.safetensors"
        save_file(dict(part), folder / name)
        names.update({weight: name for weight, _ in part})
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return path


def test_pieces_are_put_together(tmp_path: Path) -> None:
    path = pieces(tmp_path)
    check(read(path), model().state_dict())
    files = sorted(piece.name for piece in tmp_path.glob("*.safetensors"))
    lines = subprocess.check_output(["sha256sum", path.name, *files], cwd=tmp_path)
    expected = subprocess.check_output(["sha256sum"], input=lines).split()[0].decode()
    assert weights_sha256(path) == expected
    one = tmp_path / "model-00001-of-00002.safetensors"
    for wrong in (one, tmp_path):
        with pytest.raises(UserError, match=r"give .*model\.safetensors\.index\.json"):
            read(wrong)
    one.unlink()
    with pytest.raises(UserError, match=r"model-00001-of-00002\.safetensors is missing"):
        read(path)


def test_several_of_no_known_name_are_asked_for(tmp_path: Path) -> None:
    path = written({"one": model().state_dict(), "two": halved()}, tmp_path)
    with pytest.raises(UserError, match="give --key one or --key two"):
        read(path)
    check(read(path, key="two"), halved())
    with pytest.raises(UserError, match="key 'three': no weights there; give --key one"):
        read(path, key="three")
    twins = {f"{who}.{name}": value for who in ("a", "b") for name, value in halved().items()}
    path = written(twins, tmp_path)
    with pytest.raises(UserError, match=r"2 networks: give --prefix, one of 'a\.', 'b\.'"):
        read(path)
    check(read(path, prefix="b"), halved())
    with pytest.raises(UserError, match="prefix 'c'"):
        read(path, prefix="c")


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (lambda: torch.optim.AdamW(model().parameters()).state_dict(), "state of an optimizer"),
        (
            lambda: {"vit.embeddings.cls_token": torch.zeros(2), "vit.a": torch.zeros(2)},
            "other code",
        ),
        (lambda: [model().state_dict()], "holds a list"),
    ],
)
def test_what_is_no_network_of_ours_is_explained(
    saved: Callable[[], Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        read(written(saved(), tmp_path))


@pytest.mark.parametrize("name", ["x.pth", "x.ckpt", "x.index.json"])
def test_programs_say_that_they_are_to_be_converted(name: str, tmp_path: Path) -> None:
    path = written(model().state_dict(), tmp_path, name)
    with pytest.raises(UserError, match=r"scripts/convert_weights\.py makes one of it"):
        read_checkpoint(path)


def test_of_a_folder_the_file_to_take_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a folder; there is no \.ckpt in it"):
        read_checkpoint(tmp_path)
    for name in ("epoch_001.ckpt", "last.ckpt", "best.ckpt"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"a folder; give a file in it: \S+/best\.ckpt, \S+/last"):
        read_checkpoint(tmp_path)


def test_the_converter_takes_sizes_from_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    constructor, own = deit.VARIANTS[ARCH]
    changes = {**own, **SIZES, "img_size": 16}
    monkeypatch.setitem(deit.VARIANTS, ARCH, (constructor, changes))
    path = written({"model": model().state_dict()}, tmp_path)
    words = ["--arch", ARCH, "--input", str(path), "--output", str(tmp_path / "y.ckpt")]
    assert convert_weights.main(words) == 0
    checkpoint = read_checkpoint(tmp_path / "y.ckpt")
    recipe = checkpoint.record.recipe("y.ckpt")
    assert recipe is not None
    assert (checkpoint.record.num_classes, recipe.model.image_size) == (5, 32)
    assert checkpoint.tensors["pos_embed"].shape == (1, 17, 48)


def test_torchscript_is_explained(tmp_path: Path) -> None:
    layer = torch.jit.script(torch.nn.Linear(2, 2))
    layer.save(str(tmp_path / "x.pt"))
    with pytest.raises(UserError, match=r"TorchScript; save its weights"):
        read(tmp_path / "x.pt")
