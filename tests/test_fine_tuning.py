"""--pretrained with other classes or image size: what changes, and that nothing else may."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Dict

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from torch_oracle import torch
from weight_rule import fill

import eval as eval_program
import train as train_program
from src.args import parse_args, to_yaml
from src.checkpoints.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from src.checkpoints.pretrained import start_from_weights
from src.checkpoints.saved_record import SavedRecord
from src.errors import UserError
from src.models.layers.positions import sinusoidal_embedding
from src.models.registry import create_model
from src.trainer.build import build_network

CCT_TINY = {"num_layers": 1, "n_conv_layers": 1, "attention_dropout": 0.0}


@pytest.fixture(autouse=True)
def notes(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def rule_filled(model: nn.Cell) -> nn.Cell:
    """Learnt parameters by a rule; fixed tables stay."""
    for parameter in model.trainable_params():
        parameter.set_data(ms.Tensor(fill(parameter.name, parameter.shape)))
    return model


def values(model: nn.Cell) -> Dict[str, np.ndarray]:
    return {parameter.name: parameter.asnumpy().copy() for parameter in model.get_parameters()}


def checkpoint_of(model: nn.Cell, **changes: Any) -> Checkpoint:
    """As `read_checkpoint` gives it; a change to None removes the tensor."""
    tensors = {parameter.name: parameter for parameter in model.get_parameters()}
    tensors.update({name: ms.Tensor(value) for name, value in changes.items() if value is not None})
    kept = {n: t for n, t in tensors.items() if n not in changes or changes[n] is not None}
    return Checkpoint(Path("x.ckpt"), kept, SavedRecord())


def interpolated(table: np.ndarray, side: int, *, prefix: int, mode: str) -> np.ndarray:
    """torch's resizing of the patches' positions."""
    old = round((table.shape[1] - prefix) ** 0.5)
    grid = torch.tensor(table[:, prefix:]).reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, (side, side), mode=mode, align_corners=False)
    places = grid.permute(0, 2, 3, 1).reshape(1, side * side, -1).numpy()
    return np.concatenate([table[:, :prefix], places], axis=1)


@pytest.mark.parametrize(
    ("arch", "keywords", "sides", "table", "prefix", "mode"),
    [
        ("deit_tiny_patch16_224", {"depth": 1}, (64, 96, 6), "pos_embed", 1, "bicubic"),
        ("deit_tiny_distilled_patch16_224", {"depth": 1}, (96, 64, 4), "pos_embed", 2, "bicubic"),
        (
            "cct_2_3x2_32",
            {"num_layers": 1},
            (32, 64, 16),
            "classifier.positional_emb",
            0,
            "bilinear",
        ),
        (
            "vit_lite_2_4_32",
            {"num_layers": 1},
            (32, 24, 6),
            "classifier.positional_emb",
            1,
            "bilinear",
        ),
    ],
)
def test_classifier_and_positions_change_and_nothing_else(
    arch: str,
    keywords: Dict[str, int],
    sides: tuple,
    table: str,
    prefix: int,
    mode: str,
    notes: pytest.LogCaptureFixture,
) -> None:
    old_side, side, grid = sides
    trained = rule_filled(create_model(arch, img_size=old_side, num_classes=10, **keywords))
    model = create_model(arch, img_size=side, num_classes=7, **keywords)
    fresh, held = values(model), values(trained)
    start_from_weights(model, checkpoint_of(trained), target="test")
    changed = {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}
    changed |= {"classifier.fc.weight", "classifier.fc.bias"}
    for name, value in values(model).items():
        if name in changed:
            np.testing.assert_array_equal(value, fresh[name], err_msg=name)
        elif name == table:
            expected = interpolated(held[name], grid, prefix=prefix, mode=mode)
            np.testing.assert_allclose(value, expected, atol=1e-5)
            np.testing.assert_array_equal(value[:, :prefix], held[name][:, :prefix])
        else:
            np.testing.assert_array_equal(value, held[name], err_msg=name)
    layer = "classifier.fc" if "classifier" in table else "head"
    assert f"{layer}: 10 -> 7 classes, freshly initialised" in notes.messages
    assert ("head_dist: 10 -> 7 classes, freshly initialised" in notes.messages) == (prefix == 2)
    old_grid = old_side // 16 if "deit" in arch else old_side // 4
    assert f"{table}: {old_grid}x{old_grid} -> {grid}x{grid} positions, {mode}" in notes.text


@pytest.mark.parametrize(
    ("arch", "keywords", "sides"),
    [
        ("convmixer_768_32", {"dim": 16, "depth": 1}, (28, 56)),
        ("convnext_tiny", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}, (64, 96)),
        ("pcpvt_small_v0", {"depths": (1, 1, 1, 1)}, (64, 96)),
    ],
)
def test_families_without_positions_keep_all_but_the_classifier(
    arch: str, keywords: Dict[str, Any], sides: tuple, notes: pytest.LogCaptureFixture
) -> None:
    trained = rule_filled(create_model(arch, img_size=sides[0], num_classes=10, **keywords))
    model = create_model(arch, img_size=sides[1], num_classes=7, **keywords)
    fresh, held = values(model), values(trained)
    start_from_weights(model, checkpoint_of(trained), target="test")
    replaced = {n for n, value in values(model).items() if value.shape != held[n].shape}
    assert len(replaced) == 2
    for name, value in values(model).items():
        expected = fresh[name] if name in replaced else held[name]
        np.testing.assert_array_equal(value, expected, err_msg=name)
    assert len(notes.messages) == 2


def test_weights_that_fit_are_taken_as_they_are(notes: pytest.LogCaptureFixture) -> None:
    keywords = {"img_size": 64, "num_classes": 10, "depth": 1}
    trained = rule_filled(create_model("deit_tiny_patch16_224", **keywords))
    # A larger variant's name for the same network, as deit_*_384 at another size.
    model = create_model("deit_tiny_patch16_384", **keywords)
    start_from_weights(model, checkpoint_of(trained), target="test")
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, values(trained)[name], err_msg=name)
    assert notes.messages == ["started from the weights of x.ckpt"]


def test_sine_tables_are_generated_for_the_new_grid(notes: pytest.LogCaptureFixture) -> None:
    trained = rule_filled(create_model("cct_2_3x2_32_sine"))
    model = create_model("cct_2_3x2_32_sine", img_size=64)
    start_from_weights(model, checkpoint_of(trained), target="test")
    table = values(model)["classifier.positional_emb"]
    np.testing.assert_array_equal(table, sinusoidal_embedding(256, 128))
    assert "classifier.positional_emb: sine table of 16x16 generated" in notes.messages


DEIT = {"depth": 1, "img_size": 64, "num_classes": 10}


@pytest.mark.parametrize(
    ("arch", "keywords", "changes", "said"),
    [
        ("deit_tiny_patch16_224", {"depth": 2}, {}, "missing: blocks.1."),
        ("deit_tiny_patch16_224", {}, {"neck": np.zeros(2)}, "1 unexpected: neck"),
        ("deit_tiny_patch16_224", {}, {"norm.beta": None}, "1 missing: norm.beta"),
        ("deit_small_patch16_224", {}, {}, "of another shape: "),
        ("deit_tiny_distilled_patch16_224", {}, {}, "head_dist"),
        ("convnext_tiny", {"depth": None, "depths": (1, 1, 1, 1)}, {}, "missing: stem.0"),
        # A classifier of other features, or half of one, is no head for other classes.
        (
            "deit_tiny_patch16_224",
            {},
            {"head.weight": np.zeros((5, 96)), "head.bias": np.zeros(5)},
            "head.weight (5, 96)",
        ),
        ("deit_tiny_patch16_224", {}, {"head.bias": np.zeros(5)}, "head.bias (5,)"),
        ("deit_tiny_patch16_224", {"num_classes": 5}, {"head.bias": np.zeros(7)}, "head.bias (7,)"),
        # Positions of another width, or that are no square.
        (
            "deit_tiny_patch16_224",
            {},
            {"pos_embed": np.zeros((1, 26, 96))},
            "pos_embed (1, 26, 96)",
        ),
        (
            "deit_tiny_patch16_224",
            {},
            {"pos_embed": np.zeros((1, 8, 192))},
            "pos_embed (1, 8, 192)",
        ),
        ("deit_tiny_patch16_224", {}, {"cls_token": np.zeros((1, 2, 192))}, "cls_token"),
        (
            "deit_tiny_patch16_224",
            {},
            {"patch_embed.proj.weight": np.zeros((192, 3, 8, 8))},
            "proj",
        ),
    ],
)
def test_everything_else_is_refused_and_nothing_changed(
    arch: str, keywords: Dict[str, Any], changes: Dict[str, Any], said: str
) -> None:
    trained = create_model("deit_tiny_patch16_224", **DEIT)
    given = {key: value for key, value in {**DEIT, **keywords}.items() if value is not None}
    model = create_model(arch, **given)
    before = values(model)
    with pytest.raises(UserError) as caught:
        start_from_weights(model, checkpoint_of(trained, **changes), target="arch X")
    assert said in str(caught.value)
    assert "arch X" in str(caught.value)
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


@pytest.mark.parametrize(
    ("arch", "other"),
    [("cct_2_3x2_32_sine", "cct_2_3x2_32"), ("cct_2_3x2_32", "cct_2_3x2_32_sine")],
)
def test_learnt_and_fixed_positions_are_not_exchanged(arch: str, other: str) -> None:
    trained = rule_filled(create_model(other))
    with pytest.raises(UserError, match="_sine"):
        start_from_weights(create_model(arch), checkpoint_of(trained), target="test")


# The programs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of two classes."""
    from PIL import Image

    root = tmp_path_factory.mktemp("images")
    for split in ("train", "val"):
        for name, grey in (("a", 0), ("b", 255)):
            (root / split / name).mkdir(parents=True)
            for number in range(4):
                image = Image.new("RGB", (32, 32), (grey, 8 * number, 0))
                image.save(root / split / name / f"{number}.png")
    return root


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Of a small CCT for 16x16 images of ten classes."""
    model = rule_filled(create_model("cct_2_3x2_32", img_size=16, num_classes=10, **CCT_TINY))
    meta = {"arch": "cct_2_3x2_32", "num_classes": 10, "licence": "cc-by-nc-4.0"}
    save_checkpoint(tmp_path / "pretrained.ckpt", model.get_parameters(), meta)
    return tmp_path / "pretrained.ckpt"


def words(folder: Path, weights: Path) -> Any:
    flat = f"--arch cct_2_3x2_32 --data_url {folder} --num_classes 2 --image_size 32 --batch_size 4"
    flat += f" --train_url {weights.parent / 'run'} --pretrained {weights}"
    return [*flat.split(), "--model_args", str(CCT_TINY)]


def test_train_starts_from_adapted_weights(
    folder: Path, weights: Path, notes: pytest.LogCaptureFixture
) -> None:
    still = "--epochs 1 --base_lr 0 --min_lr 0 --warmup_lr 0".split()
    assert train_program.main([*words(folder, weights), *still]) == 0
    assert "classifier.fc: 10 -> 2 classes, freshly initialised" in notes.messages
    assert "classifier.positional_emb: 8x8 -> 16x16 positions, bilinear" in notes.messages
    held = read_checkpoint(weights).tensors
    checkpoint = read_checkpoint(weights.parent / "run" / "last.ckpt")
    record, trained = checkpoint.record, checkpoint.tensors
    assert (record.started_from, record.licence) == ("pretrained.ckpt", "cc-by-nc-4.0")
    for name in set(held) - {"classifier.fc.weight", "classifier.fc.bias"}:
        if name != "classifier.positional_emb":
            np.testing.assert_array_equal(trained[name].asnumpy(), held[name].asnumpy())
    assert trained["classifier.fc.weight"].shape == (2, 128)
    assert trained["classifier.positional_emb"].shape == (1, 256, 128)


def test_eval_stays_strict(folder: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert eval_program.main(words(folder, weights)) == 2
    assert "num_classes is 10 in the file and 2 here" in capsys.readouterr().err


def test_train_refuses_a_pytorch_file(
    folder: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = weights.rename(weights.with_suffix(".pth"))
    assert train_program.main(words(folder, path)) == 2
    assert "scripts/convert_weights.py" in capsys.readouterr().err
    assert not (path.parent / "run").exists()


def test_create_model_takes_pretrained_weights(tmp_path: Path) -> None:
    """The learnt filters stay bit for bit; a classifier for other classes does not."""
    trained = rule_filled(create_model("cct_2_3x2_32", **CCT_TINY))
    path = tmp_path / "weights.ckpt"
    save_checkpoint(path, trained.get_parameters(), {})
    model = create_model("cct_2_3x2_32", pretrained=str(path), num_classes=7, **CCT_TINY)
    held, due = values(model), values(trained)
    for name in due:
        if not name.startswith("classifier.fc."):
            np.testing.assert_array_equal(held[name], due[name], err_msg=name)
    assert held["classifier.fc.weight"].shape == (7, 128)
    with pytest.raises(UserError, match=r"nowhere\.ckpt.*no such file"):
        create_model("cct_2_3x2_32", pretrained=str(tmp_path / "nowhere.ckpt"))
    with pytest.raises(UserError, match="does not fit arch cvt_2_4_32"):
        create_model("cvt_2_4_32", pretrained=str(path))


@pytest.fixture
def of_a_run(tmp_path: Path) -> Path:
    """Weights with the record of a run: 8 classes, 16 pixels, other layers and activation."""
    options = "--arch cct_2_3x2_32 --num_classes 8 --image_size 16 --nonlinearity ReLU"
    config = parse_args([*options.split(), "--model_args", str(CCT_TINY)])
    meta = {"arch": "cct_2_3x2_32", "num_classes": 8, "config": to_yaml(config)}
    save_checkpoint(
        tmp_path / "run.ckpt", rule_filled(build_network(config)).get_parameters(), meta
    )
    return tmp_path / "run.ckpt"


def test_create_model_takes_sizes_and_keywords_of_the_file(
    of_a_run: Path, notes: pytest.LogCaptureFixture
) -> None:
    model = create_model("cct_2_3x2_32", pretrained=str(of_a_run))
    held = read_checkpoint(of_a_run).tensors
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, held[name].asnumpy(), err_msg=name)
    assert model.num_classes == 8
    assert [cell for _, cell in model.cells_and_names() if isinstance(cell, nn.ReLU)]
    assert not [record for record in notes.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("record", [{}, {"num_classes": 8}])
def test_sizes_of_files_without_a_record_are_read_off_the_weights(
    record: Dict[str, int], tmp_path: Path
) -> None:
    trained = rule_filled(create_model("cct_2_3x2_32", num_classes=8, img_size=16, **CCT_TINY))
    save_checkpoint(tmp_path / "x.ckpt", trained.get_parameters(), record)
    model = create_model("cct_2_3x2_32", pretrained=str(tmp_path / "x.ckpt"), **CCT_TINY)
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, values(trained)[name], err_msg=name)


def test_what_the_caller_gives_goes_before_the_file_and_is_warned_of(
    of_a_run: Path, notes: pytest.LogCaptureFixture
) -> None:
    model = create_model("cct_2_3x2_32", pretrained=str(of_a_run), num_classes=3, img_size=32)
    assert model.num_classes == 3
    warned = [record.message for record in notes.records if record.levelname == "WARNING"]
    assert warned == [
        "classifier.positional_emb: 8x8 -> 16x16 positions, bilinear",
        "classifier.fc: 8 -> 3 classes, freshly initialised",
    ]
    backbone = create_model("cct_2_3x2_32", pretrained=str(of_a_run), num_classes=0)
    assert backbone.num_classes == 0


def test_another_architecture_takes_the_classes_alone(of_a_run: Path, tmp_path: Path) -> None:
    small = rule_filled(create_model("deit_tiny_patch16_224", img_size=32, depth=1, num_classes=8))
    meta = {"arch": "deit_tiny_patch16_224", "num_classes": 8, "img_size": 32}
    save_checkpoint(tmp_path / "x.ckpt", small.get_parameters(), meta)
    path = str(tmp_path / "x.ckpt")
    model = create_model("deit_tiny_patch16_384", pretrained=path, depth=1, img_size=64)
    assert model.num_classes == 8
    assert model.pos_embed.shape == (1, 17, 192)
    with pytest.raises(UserError, match="does not fit arch cct_4_3x2_32"):
        create_model("cct_4_3x2_32", pretrained=str(of_a_run))
