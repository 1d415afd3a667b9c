"""list_models.py, plot_runs.py and average_checkpoints.py on good and bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, List

import mindspore as ms
import numpy as np
import pytest
from digits_run import failure
from mindspore import Parameter, Tensor
from model_parity import HAS_TIMM
from PIL import Image

from src.checkpoints.checkpoint import read_checkpoint, save_checkpoint
from src.models.catalogue import read_catalogue
from src.models.registry import list_models
from src.runs.records import COLUMNS, draw_runs

ROOT = Path(__file__).resolve().parent.parent
PARAMS = json.loads((ROOT / "tests" / "data" / "params.json").read_text())


def script(name: str) -> ModuleType:
    """A command of scripts/ as a module."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        return __import__(name)
    finally:
        sys.path.pop(0)


# --- list_models ----------------------------------------------------------------------------------


def test_the_catalogue_names_every_architecture() -> None:
    assert sorted(entry.arch for entry in read_catalogue()) == list_models()


def test_the_catalogue_has_the_references_counts() -> None:
    by_arch = {entry.arch: entry for entry in read_catalogue()}
    for arch, counts in PARAMS.items():
        entry = by_arch[arch]
        found = (entry.params, entry.image_size, entry.num_classes)
        assert found == (counts["params"], counts["img_size"], counts["num_classes"]), arch
    for size in ("small", "base", "large"):
        for ours, timms in ((f"pcpvt_{size}_v0", "pcpvt"), (f"alt_gvt_{size}", "svt")):
            assert by_arch[ours][2:] == by_arch[f"twins_{timms}_{size}"][2:]


@pytest.mark.skipif(not HAS_TIMM, reason="needs torch and timm")
@pytest.mark.parametrize(
    ("arch", "timm_name"),
    [
        ("convmixer_1024_20_ks9_p14", "convmixer_1024_20_ks9_p14"),
        ("convnext_tiny", "convnext_tiny"),
        ("convnext_tiny_in22k_ft_in1k_384", "convnext_tiny"),
        ("deit_tiny_patch16_224", "deit_tiny_patch16_224"),
        ("deit_small_distilled_patch16_224", "deit_small_distilled_patch16_224"),
        ("pcpvt_small_v0", "twins_pcpvt_small"),
        ("alt_gvt_small", "twins_svt_small"),
    ],
)
def test_gmacs_are_what_torch_counts(arch: str, timm_name: str) -> None:
    import timm
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    entry = next(entry for entry in read_catalogue() if entry.arch == arch)
    with torch.device("meta"):
        network = timm.create_model(timm_name).eval()
        images = torch.zeros(1, 3, entry.image_size, entry.image_size)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(images)
    assert counter.get_total_flops() / 2e9 == pytest.approx(entry.gmacs, abs=6e-5)


def test_list_models_shows_what_the_filter_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    program = script("list_models")
    assert program.main(["--filter", "convnext_tiny"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list_models("convnext_tiny")
    assert lines[1].split()[1:7] == ["convnext", "28.59", "4.46", "224", "1000", "82.1"]
    assert "convnext_tiny_official.yaml" in lines[1]
    assert program.main([]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(list_models())
    assert program.main(["--filter", "TWINS"]) == 0  # a family
    assert len(capsys.readouterr().out.splitlines()) == 13


def test_list_models_refuses_a_filter_that_leaves_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "'resnet'" in failure(capsys, script("list_models"), ["--filter", "resnet"])


# --- plot_runs ------------------------------------------------------------------------------------


def write_run(folder: Path, *, epochs: int = 3, columns: Any = COLUMNS) -> Path:
    folder.mkdir(parents=True)
    lines = [",".join(columns)]
    for epoch in range(1, epochs + 1):
        values = {"step": 10 * epoch, "epoch": epoch, "loss": 2 / epoch, "lr": 0.1 / epoch}
        lines.append(",".join(str(values.get(column, "")) for column in columns))
        values = {"step": 10 * epoch, "epoch": epoch, "val_loss": 2.5 / epoch, "top1": 30 * epoch}
        lines.append(",".join(str(values.get(column, "")) for column in columns))
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_every_run_is_in_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn: List[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))
    )
    runs = [write_run(tmp_path / name) for name in ("first", "second")]
    picture = tmp_path / "both.png"
    words = [str(runs[0]), str(runs[1] / "metrics.csv"), "--output", str(picture), "--x", "step"]
    assert script("plot_runs").main(words) == 0
    loss, rate, accuracy = drawn[0].axes
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["first", "second"]
    assert [list(line.get_ydata()) for line in accuracy.lines] == [[30.0, 60.0, 90.0]] * 2
    assert list(rate.lines[0].get_xdata()) == [10.0, 20.0, 30.0]
    colours = {line.get_color() for line in loss.lines}
    assert colours == {"C0", "C1"}
    with Image.open(picture) as image:
        assert image.size == (1430, 462)


def test_many_runs_fit(tmp_path: Path) -> None:
    rows = [{"step": "1", "epoch": "1", "loss": "2", "lr": "", "val_loss": "", "top1": ""}]
    draw_runs({f"run {i}": rows for i in range(30)}, tmp_path / "many.png")
    assert (tmp_path / "many.png").stat().st_size > 10_000


@pytest.mark.parametrize("kind", ["missing", "empty", "other", "bytes", "suffix", "folder"])
def test_plot_runs_refuses(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = write_run(tmp_path / "good"), tmp_path / "bad"
    picture = tmp_path / "p.png"
    if kind == "empty":
        write_run(bad, epochs=0)
    elif kind == "other":
        write_run(bad, columns=("step", "epoch", "accuracy"))
    elif kind == "bytes":
        write_run(bad)
        (bad / "metrics.csv").write_bytes(b"\xff\xfe\x00\x81" * 9)
    elif kind == "suffix":
        picture, bad = tmp_path / "p.jpeg", good
    elif kind == "folder":
        picture, bad = tmp_path / "nowhere" / "p.png", good
    message = failure(capsys, script("plot_runs"), [str(good), str(bad), "--output", str(picture)])
    assert str(picture if kind in ("suffix", "folder") else bad) in message
    assert not picture.exists()


# --- average_checkpoints --------------------------------------------------------------------------


def write_checkpoint(path: Path, arrays: Dict[str, np.ndarray], **meta: Any) -> Path:
    parameters = [Parameter(Tensor(array), name=name) for name, array in arrays.items()]
    save_checkpoint(path, parameters, {"arch": "cct_2_3x2_32", "num_classes": 10, **meta})
    return path


def random_arrays(seed: int) -> Dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "stem.weight": rng.normal(size=(4, 3)).astype(np.float32),
        "norm.moving_mean": 1e4 + rng.normal(size=4).astype(np.float32),
        "train.moment1.stem.weight": np.full((4, 3), np.nan, np.float32),
        "train.ema.stem.weight": rng.normal(size=(4, 3)).astype(np.float32),
        "train.ema.norm.moving_mean": rng.normal(size=4).astype(np.float32),
    }


@pytest.mark.parametrize("ema", [False, True])
def test_the_average_is_numpys_in_float64(ema: bool, tmp_path: Path) -> None:
    arrays = [random_arrays(seed) for seed in range(3)]
    paths = [
        write_checkpoint(tmp_path / f"epoch_00{i}.ckpt", held, step=i)
        for i, held in enumerate(arrays)
    ]
    output = tmp_path / "mean.ckpt"
    given = [str(tmp_path)] if ema else [str(path) for path in paths]
    words = [*given, "--output", str(output), *(["--ema"] if ema else [])]
    assert script("average_checkpoints").main(words) == 0
    prefix = "train.ema." if ema else ""
    found = ms.load_checkpoint(str(output))
    assert set(found) == {"stem.weight", "norm.moving_mean", "train.meta", "train.digest"}
    for name in ("stem.weight", "norm.moving_mean"):
        due = np.mean([held[prefix + name].astype(np.float64) for held in arrays], axis=0)
        np.testing.assert_array_equal(found[name].asnumpy(), due.astype(np.float32))
    record = read_checkpoint(output).record
    assert record.averaged == [str(path) for path in paths]
    # No state of a run: `--resume` refuses it, `--pretrained` takes it.
    assert record.step is None
    assert (record.arch, record.num_classes) == ("cct_2_3x2_32", 10)


@pytest.mark.parametrize(
    "kind", ["one", "missing", "shape", "name", "folder", "suffix", "arch", "no ema"]
)
def test_average_checkpoints_refuses(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_checkpoint(tmp_path / "a.ckpt", random_arrays(0))
    other, output, said, more = tmp_path / "b.ckpt", tmp_path / "mean.ckpt", "b.ckpt", []
    arrays = random_arrays(1)
    if kind == "shape":
        arrays["stem.weight"] = np.zeros((5, 3), np.float32)
        said = "stem.weight (4, 3) and (5, 3)"
    elif kind == "name":
        arrays["stem.bias"] = np.zeros(4, np.float32)
        said = "stem.bias None and (4,)"
    elif kind == "arch":
        write_checkpoint(other, arrays, arch="cct_2_3x2_32_sine")
    elif kind == "no ema":
        arrays = {name: a for name, a in arrays.items() if not name.startswith("train.ema")}
        said, more = "averaged weights", ["--ema"]
    if kind not in ("missing", "folder", "arch"):
        write_checkpoint(other, arrays)
    if kind == "folder":
        other = tmp_path / "empty"
        other.mkdir()
        said = "epoch_*.ckpt"
    elif kind == "suffix":
        output, said = tmp_path / "mean.pth", ".ckpt"
    given = [str(first)] if kind == "one" else [str(first), str(other)]
    said = "two or more" if kind == "one" else said
    words = [*given, "--output", str(output), *more]
    message = failure(capsys, script("average_checkpoints"), words)
    assert said in message, message
    assert not output.exists()
