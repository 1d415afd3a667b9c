"""How images are made for weights of others: who says it, who overrules it, and who is told."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Dict, List

import lite
import mindspore as ms
import numpy as np
import pytest
from hub_server import HubServer
from safetensors.torch import save_file
from test_named_weights import SMALL, images, our_logits, publish, server, timms_logits
from torch_oracle import timm, torch

import eval as eval_program
import export as export_program
import preprocess as preprocess_program
from scripts import convert_weights
from src.args import Config, EvalRun, ExportRun, PredictRun, PreprocessRun, parse_args
from src.checkpoints.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from src.checkpoints.named_weights import local_checkpoint
from src.checkpoints.saved_record import SavedRecord
from src.errors import UserError
from src.models.registry import create_model
from src.serving.complete_config import complete_by_file
from src.serving.export import _record_of as record_of_export
from src.serving.export_record import write_record
from src.trainer.run import tell_normalisation

__all__ = ["images", "server"]  # fixtures
ARCH = "test_convnext"


@pytest.fixture
def network() -> Any:
    torch.manual_seed(0)
    return timm.create_model(SMALL, num_classes=3).eval()


def convert(network: Any, folder: Path, *options: str, name: str = "w.safetensors") -> Path:
    save_file(network.state_dict(), folder / name)
    output = folder / "w.ckpt"
    arguments = ["--input", str(folder / name), "--output", str(output), *options]
    assert convert_weights.main(arguments) == 0
    return output


def transform_in(path: Path) -> Dict[str, Any]:
    keys = ("image_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")
    return read_checkpoint(path).record.values(str(path), keys)


def write_config(folder: Path, network: Any, **changes: Any) -> None:
    own = {key: value for key, value in network.pretrained_cfg.items() if value is not None}
    config = {"architecture": ARCH, "num_classes": 3, "pretrained_cfg": {**own, **changes}}
    (folder / "config.json").write_text(json.dumps(config))


def test_the_table_says_it(
    network: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = convert(network, tmp_path, "--name", SMALL)
    settings = timm.data.resolve_data_config({}, model=network)
    assert transform_in(path) == {
        "image_size": settings["input_size"][1],
        **{k: settings[k] for k in ("crop_pct", "crop_mode", "interpolation", "mean", "std")},
    }
    record = read_checkpoint(path).record
    assert (record.arch, record.num_classes, record.published) == (ARCH, 3, f"timm/{SMALL}")
    assert f"by published.csv, {SMALL}" in capsys.readouterr().out


def test_the_hubs_config_says_it(network: Any, tmp_path: Path) -> None:
    write_config(tmp_path, network, crop_pct=0.8, crop_mode="squash", mean=[0.5, 0.4, 0.3])
    found = transform_in(convert(network, tmp_path))
    assert (found["crop_pct"], found["crop_mode"]) == (0.8, "squash")
    assert found["mean"] == (0.5, 0.4, 0.3)


def test_the_files_name_says_it(network: Any, tmp_path: Path) -> None:
    path = convert(network, tmp_path, name=f"{SMALL}.safetensors")
    assert transform_in(path)["image_size"] == 160


def test_options_go_before(network: Any, tmp_path: Path) -> None:
    options = ("--crop_pct", "0.7", "--std", "0.3", "0.2", "0.1", "--image_size", "96")
    found = transform_in(convert(network, tmp_path, "--name", SMALL, *options))
    assert (found["crop_pct"], found["std"], found["image_size"]) == (0.7, (0.3, 0.2, 0.1), 96)


def test_nothing_is_guessed_silently(
    network: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = convert(network, tmp_path, "--arch", ARCH)
    every = "crop_pct, crop_mode, interpolation, mean, std by default, because nothing says"
    assert every in capsys.readouterr().out
    convert(network, tmp_path, "--arch", ARCH, "--crop_pct", "0.9", "--mean", "[0.5, 0.5, 0.5]")
    assert "; crop_mode, interpolation, std by default" in capsys.readouterr().out
    path = convert(network, tmp_path, "--arch", ARCH)
    assert transform_in(path)["crop_pct"] == 0.875
    save_file(network.state_dict(), tmp_path / "x.safetensors")
    arguments = ["--input", str(tmp_path / "x.safetensors"), "--output", str(tmp_path / "x.ckpt")]
    assert convert_weights.main(arguments) == 2
    assert "arch: not given" in capsys.readouterr().err
    assert not (tmp_path / "x.ckpt").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "architecture"),
        ("[", "says nothing of them"),
        (
            '{"architecture": "x", "num_classes": 3, "pretrained_cfg": {"crop_pct": 2}}',
            "crop_pct",
        ),
        (
            '{"architecture": "test_convnext", "num_classes": 3, '
            '"pretrained_cfg": {"input_size": [3, 224, 160]}}',
            "expected a square",
        ),
        (
            '{"architecture": "test_convnext", "num_classes": 3, '
            '"pretrained_cfg": {"crop_mode": "border"}}',
            "crop_mode border",
        ),
        (
            '{"architecture": "test_convnext", "num_classes": 3, "label_names": ["a"], '
            '"pretrained_cfg": {}}',
            "1 label_names of 3 classes",
        ),
    ],
)
def test_a_config_that_cannot_be_true(
    network: Any, tmp_path: Path, content: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(content)
    save_file(network.state_dict(), tmp_path / "x.safetensors")
    arguments = ["--input", str(tmp_path / "x.safetensors"), "--output", str(tmp_path / "x.ckpt")]
    assert convert_weights.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert "config.json" in line


def completed(path: Path, caplog: pytest.LogCaptureFixture, *arguments: str) -> Any:
    caplog.clear()
    caplog.set_level(logging.INFO)
    config = complete_by_file(parse_args(["--pretrained", str(path), *arguments], EvalRun))
    return config.data


def test_the_weights_go_before_a_recipe_and_the_command_line_before_both(
    network: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = convert(network, tmp_path, "--name", SMALL)  # crop_pct 0.95
    own = completed(path, caplog)
    assert own.crop_pct == 0.95
    assert f"images as {path} has them: crop_pct 0.95" in caplog.text
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"arch: {ARCH}\ncrop_pct: 0.5\n")
    assert completed(path, caplog, "--config", str(recipe)).crop_pct == 0.95
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    expected = f"r.yaml:2: crop_pct 0.5; {path} has crop_pct 0.95, which is used; the command line"
    assert expected in warning
    found = completed(path, caplog, "--config", str(recipe), "--crop_pct", "0.6")
    assert found.crop_pct == 0.6
    assert not [r for r in caplog.records if r.levelno == logging.WARNING]


def test_older_conversions_say_nothing_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = create_model(ARCH, num_classes=3)
    path = tmp_path / "old.ckpt"
    record = {"arch": ARCH, "num_classes": 3, "naming": "timm", "source": "w.pth"}
    save_checkpoint(path, network.get_parameters(), record)
    data = completed(path, caplog)
    assert data.crop_pct == 0.875
    assert caplog.text.count("does not say how its images are made") == 1
    completed(path, caplog)
    assert "does not say" not in caplog.text


def publish_two(server: HubServer) -> Any:
    """timm's network for the classes of `images`, in a repository of its own."""
    torch.manual_seed(0)
    two = timm.create_model(SMALL, num_classes=2).eval()
    folder = server.folder / "me" / "two"
    folder.mkdir(parents=True)
    save_file(two.state_dict(), folder / "model.safetensors")
    write_config(folder, two)
    config = json.loads((folder / "config.json").read_text())
    names = {"num_classes": 2, "label_names": ["a", "b"]}
    (folder / "config.json").write_text(json.dumps({**config, **names}))
    return two


def test_eval_by_name_scores_as_timm(
    server: HubServer, images: List[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    best = timms_logits(publish_two(server), images).argmax(1)
    arguments = ["--pretrained", "hf-hub:me/two", "--data_url", str(images[0].parents[2])]
    assert eval_program.main([*arguments, "--batch_size", "2"]) == 0
    top1 = 100 * float((best == np.arange(2)).mean())
    assert f"top-1 {top1:.3f} %" in capsys.readouterr().out
    assert read_checkpoint(local_checkpoint("hf-hub:me/two")).record.published == "me/two"


@pytest.mark.slow  # the weights themselves are scored above
def test_an_exported_file_keeps_timms_transform(
    server: HubServer, images: List[Path], tmp_path: Path
) -> None:
    expected = timms_logits(publish_two(server), images)
    onnx = tmp_path / "x.onnx"
    words = ["--pretrained", str(local_checkpoint("hf-hub:me/two")), "--output", str(onnx)]
    assert export_program.main([*words, "--file_format", "ONNX"]) == 0
    found = our_logits(str(onnx), images)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.slow
def test_inputs_of_an_exported_file_keep_timms_transform(
    server: HubServer, images: List[Path], tmp_path: Path
) -> None:
    """Through MINDIR, the inputs of preprocess.py and the C++ program."""
    expected = timms_logits(publish_two(server), images)
    checkpoint, mindir = local_checkpoint("hf-hub:me/two"), tmp_path / "x.mindir"
    words = ["--pretrained", str(checkpoint), "--output", str(mindir)]
    lite.export_with_ms20([*words, "--batch_size", "1"])
    data = ["--dataset_name", "imagenet2012", "--data_path", str(images[0].parents[2])]
    inputs, results = tmp_path / "inputs", tmp_path / "results"
    paths = ["--result_path", str(inputs), "--for_mindir", str(mindir)]
    assert preprocess_program.main([*data, *paths]) == 0
    done = lite.infer(mindir, inputs, results)
    assert done.returncode == 0, done.stderr
    found = [np.fromfile(file, np.float32) for file in sorted(results.glob("*_0.bin"))]
    assert np.abs(np.stack(found) - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm/test_convnext.r160", "did you mean 'test_convnext.r160_in1k'"),
        ("convnext_tiny", "give convnext_tiny.TAG with one of the tags"),
        ("hf-hub:me", "expected hf-hub:OWNER/NAME"),
        ("hf-hub:me/nobody", "there is no such repository"),
    ],
)
def test_names_that_mean_nothing(server: HubServer, name: str, words: str) -> None:
    with pytest.raises(UserError, match="pretrained") as refused:
        complete_by_file(parse_args(["--pretrained", name], PredictRun))
    assert words in str(refused.value)


def test_create_model_takes_names(server: HubServer) -> None:
    network = publish(server, SMALL)
    model = create_model(ARCH, pretrained=SMALL)
    ours = {p.name: p.asnumpy() for p in model.get_parameters()}
    np.testing.assert_array_equal(ours["head.fc.weight"], network.head.fc.weight.detach().numpy())
    assert ms.Tensor(ours["head.fc.weight"]).shape == (1000, 64)


def test_exported_files_say_where_their_weights_are_from(tmp_path: Path) -> None:
    said = {"source": "w.pth", "sha256": "0" * 64, "published": "timm/x.y", "licence": "mit"}
    checkpoint = Checkpoint(tmp_path / "w.ckpt", {}, SavedRecord(naming="timm", **said))
    (tmp_path / "w.mindir").write_bytes(b"")
    config = parse_args(["--arch", ARCH, "--num_classes", "3", "--image_size", "32"], ExportRun)
    record = record_of_export(config, tmp_path / "w.mindir", checkpoint)
    assert (record.source, record.source_sha256) == (said["source"], said["sha256"])
    assert (record.published, record.licence) == (said["published"], said["licence"])


def test_training_says_that_it_normalises_otherwise(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    record = SavedRecord(arch=ARCH, naming="timm", config="mean: [0.5, 0.5, 0.5]\n")
    checkpoint = Checkpoint(Path("w.ckpt"), {}, record)
    tell_normalisation(parse_args(["--mean", "0.5", "0.5", "0.5"]), checkpoint)
    assert caplog.messages == []
    tell_normalisation(Config(), checkpoint)
    assert caplog.messages == [
        "w.ckpt learnt images with mean [0.5, 0.5, 0.5]; this training has mean [0.485, 0.456, "
        "0.406]"
    ]


def test_inputs_of_the_cpp_program_are_as_the_weights_need_them(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = convert(network, tmp_path, "--arch", ARCH, "--crop_pct", "0.8", "--crop_mode", "squash")
    seen: List[Any] = []

    def keep(config: Any, **_: Any) -> int:
        seen.append(config)
        return 0

    monkeypatch.setattr("src.serving.input_files.write_inputs", keep)
    words = ["--pretrained", str(path), "--result_path", str(tmp_path / "out")]
    assert preprocess_program.main([*words, "--crop_mode", "center", "--arch", ARCH]) == 0
    assert (seen[0].data.crop_pct, seen[0].data.crop_mode) == (0.8, "center")


def test_the_command_line_goes_before_an_exported_file(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "w.ckpt", {}, SavedRecord())
    (tmp_path / "w.mindir").write_bytes(b"")
    sizes = ["--arch", ARCH, "--num_classes", "3", "--image_size", "32"]
    config = parse_args([*sizes, "--crop_pct", "0.8", "--crop_mode", "squash"], ExportRun)
    write_record(tmp_path / "w.mindir", record_of_export(config, tmp_path / "w.mindir", checkpoint))
    words = ["--for_mindir", str(tmp_path / "w.mindir"), "--crop_mode", "center"]
    found, *_ = preprocess_program.inputs_recipe(parse_args(words, PreprocessRun))
    assert (found.data.crop_pct, found.data.crop_mode) == (0.8, "center")
