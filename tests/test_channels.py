"""in_chans: grey images and those with opacity, from the file to the network, and its weights."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import List

import numpy as np
import pytest
import timm.models
from digits_run import failure
from model_parity import load_rule_weights
from photographs import load_photographs
from PIL import Image, ImageEnhance, ImageOps
from small_networks import ARGUMENTS
from test_fine_tuning import checkpoint_of
from test_scripts import script
from torch_oracle import torch

import eval as eval_program
import export as export_program
import predict as predict_program
import preprocess as preprocess_program
import train as train_program
from src.args import parse_args
from src.checkpoints.pretrained import start_from_weights
from src.data.augment.batch_transform import normalize_pixels
from src.data.augment.parts import whole
from src.data.augment.resampling import FILTERS, resize_box
from src.data.augment.transforms import RandomFlip
from src.data.decode import Decoder
from src.data.imagenet import create_dataset
from src.errors import UserError
from src.models.registry import create_model
from src.trainer.build import build_batch_transform, build_network, build_normalize

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
LAYERS = "{num_layers: 1, n_conv_layers: 1}"


def files() -> List[bytes]:
    """A photograph in the modes of Pillow, some with transparent pixels."""
    photograph = load_photographs()[0].resize((45, 30))
    clear = photograph.copy()
    clear.putalpha(Image.linear_gradient("L").resize((45, 30)))
    grey = photograph.convert("L")
    images = [photograph, clear, grey, clear.convert("LA"), clear.quantize(60)]
    content = []
    for image, form in [*((image, "PNG") for image in images), (photograph, "JPEG")]:
        stream = io.BytesIO()
        image.save(stream, form)
        content.append(stream.getvalue())
    return content


@pytest.mark.parametrize("channels", [1, 4])
def test_pixels_are_those_of_pillow(channels: int) -> None:
    for data in files():
        expected = np.asarray(Image.open(io.BytesIO(data)).convert(MODES[channels]))
        found = Decoder(background=None, channels=channels).decode(data, "x")
        equal = expected if channels == 4 else np.dstack([expected] * 3)
        np.testing.assert_array_equal(found, equal)


def test_a_part_and_a_large_image_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = files()[-1]
    part = Decoder(channels=1).decode_part(data, "x", lambda *size: (5, 8, 12, 20))
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    top, left = 5 - part.top, 8 - part.left
    found = part.pixels[top : top + 12, left : left + 20, 0]
    np.testing.assert_array_equal(found, expected[5:17, 8:28])
    whole_images = [Decoder(channels=channels).decode(files()[1], "x") for channels in (1, 4)]
    monkeypatch.setattr("src.data.decode._BAND_PIXELS", 100)
    monkeypatch.setattr("src.data.channels._BAND_PIXELS", 100)
    for channels, pixels in zip((1, 4), whole_images):
        banded = Decoder(channels=channels).decode(files()[1], "x")
        np.testing.assert_array_equal(banded, pixels)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("side", [20, 30])
def test_opacity_is_resized_as_pillow_does(interpolation: str, side: int) -> None:
    image = Image.open(io.BytesIO(files()[1]))
    box, resample = (2, 3, 30 - 2, 30), FILTERS[interpolation]
    cut = image.crop((3, 2, 33, 30))
    expected = np.asarray(cut.resize((side, side - 2), resample).crop((1, 0, side, 15)))
    found = resize_box(whole(np.asarray(image)), box, (side, side - 2), resample, (1, 0, side, 15))
    np.testing.assert_array_equal(found, expected)
    flipped = RandomFlip(1.0, axis=1)(np.asarray(image), np.random.default_rng(0))
    np.testing.assert_array_equal(flipped, np.asarray(ImageOps.mirror(image)))


def test_operations_on_three_equal_channels_are_those_on_grey() -> None:
    """What Pillow makes of mode L: none of the policies' operations needs colours."""
    from src.data.augment import image_ops

    grey = load_photographs()[0].resize((45, 30)).convert("L")
    equal = np.dstack([np.asarray(grey)] * 3)
    expected = {
        "auto_contrast": ImageOps.autocontrast(grey),
        "equalize": ImageOps.equalize(grey),
        "invert": ImageOps.invert(grey),
    }
    found = {name: getattr(image_ops, name)(equal) for name in expected}
    factors = {"contrast": ImageEnhance.Contrast, "color": ImageEnhance.Color}
    factors.update(brightness=ImageEnhance.Brightness, sharpness=ImageEnhance.Sharpness)
    expected.update({name: kind(grey).enhance(1.6) for name, kind in factors.items()})
    found.update({name: getattr(image_ops, name)(equal, 1.6) for name in factors})
    for name, image in expected.items():
        np.testing.assert_array_equal(found[name], np.dstack([np.asarray(image)] * 3), name)


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "augmix-m3", "v0", "3a", "ta_wide"])
def test_every_policy_keeps_grey_images_grey(policy: str) -> None:
    from src.data.transforms_factory import create_transforms

    words = ["--in_chans", "1", "--image_size", "24", "--auto_augment", policy]
    words += ["--color_jitter", "0.4", "0.4", "0.4", "0.1", "--grayscale_prob", "0.5"]
    transforms = create_transforms(parse_args([*words, "--gaussian_blur_prob", "0.5"]))
    for seed in range(30):
        pixels, rng = Decoder(channels=1).decode(files()[0], "x"), np.random.default_rng(seed)
        for transform in transforms:
            pixels = transform(pixels, rng)
        assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize(
    ("arch", "in_chans"),
    [*((arch, 1) for arch in ARGUMENTS), *(("cct_2_3x2_32", count) for count in (2, 4, 7))],
)
def test_the_first_layer_is_adapted_as_timm_does(arch: str, in_chans: int) -> None:
    keywords = parse_args(["--model_args", ARGUMENTS[arch]]).model.model_args
    keywords.update(img_size=32, num_classes=5)
    source = load_rule_weights(create_model(arch, **keywords))
    network = create_model(arch, in_chans=in_chans, **keywords)
    start_from_weights(network, checkpoint_of(source), target=arch)
    before = {parameter.name: parameter.asnumpy() for parameter in source.get_parameters()}
    after = {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}
    changed = [name for name in before if before[name].shape != after[name].shape]
    assert len(changed) == 1
    weight = torch.tensor(before[changed[0]])
    expected = timm.models.adapt_input_conv(in_chans, weight).numpy()
    np.testing.assert_allclose(after.pop(changed[0]), expected, rtol=0, atol=1e-7)
    for name, value in after.items():
        np.testing.assert_array_equal(value, before[name])


def test_weights_of_other_channels_are_refused() -> None:
    keywords = {"num_classes": 5, "num_layers": 1, "n_conv_layers": 1}
    grey = create_model("cct_2_3x2_32", in_chans=1, **keywords)
    network = create_model("cct_2_3x2_32", **keywords)
    with pytest.raises(UserError, match=r"in_chans 3: the weights are for in_chans 1, .* give --"):
        start_from_weights(network, checkpoint_of(grey), target="x")


@pytest.mark.parametrize(
    ("words", "mean", "std"),
    [
        (["--in_chans", "1"], (0.449,), (0.226,)),
        (["--in_chans", "4"], (0.485, 0.456, 0.406, 0.5), (0.229, 0.224, 0.225, 0.5)),
        (["--mean", "[0.5]"], (0.5, 0.5, 0.5), (0.229, 0.224, 0.225)),
        (["--in_chans", "4", "--std", "[0.25]"], None, (0.25,) * 4),
    ],
)
def test_mean_and_std_have_a_value_for_each_channel(words, mean, std) -> None:
    data = parse_args(words).data
    assert data.std == std
    assert mean is None or data.mean == mean


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--in_chans", "2"], "in_chans: 2 is not allowed; allowed: 1, 3, 4"),
        (["--in_chans", "1", "--mean", "0.1", "0.2"], "allowed: 1 or 3 numbers, for in_chans 1"),
        (["--std", "0.1", "0.2", "0.1", "0.2"], "allowed: 1 or 3 numbers, for in_chans 3"),
        (["--mean", "[]"], "allowed: 1, 3 or in_chans numbers"),
        (["--in_chans", "4", "--auto_augment", "rand-m9"], "auto_augment off, or in_chans 1 or 3"),
        (["--in_chans", "4", "--color_jitter", "1", "1", "1"], "color_jitter off"),
        (["--in_chans", "4", "--re_prob", "1", "--re_mode", "rand"], "const or pixel"),
    ],
)
def test_what_does_not_go_together(words, said, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_args(words)
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_model_args_of_before_still_count() -> None:
    words = ["--num_classes", "3", "--image_size", "32", "--model_args"]
    layers = "num_layers: 1, n_conv_layers: 1"
    build_network(parse_args([*words, f"{{in_chans: 3, {layers}}}"]))
    with pytest.raises(UserError, match="model_args 'in_chans': has a key of its own; give --in_c"):
        build_network(parse_args([*words, f"{{in_chans: 1, {layers}}}"]))


@pytest.mark.parametrize(("in_chans", "re_mode"), [(1, "const"), (4, "const"), (4, "pixel")])
def test_a_batch_is_normalised_and_erased(in_chans: int, re_mode: str, tmp_path: Path) -> None:
    """Against NumPy; outside the boxes, and inside those of one colour."""
    words = ["--set", "Digits", "--data_url", str(tmp_path), "--image_size", "16"]
    words += ["--num_classes", "10", "--batch_size", "4", "--re_prob", "1", "--re_mode", re_mode]
    config = parse_args([*words, "--in_chans", str(in_chans), "--num_parallel_workers", "1"])
    batch = next(create_dataset(config, True).batches())
    assert batch.image.shape == (4, 16, 16, in_chans)
    from mindspore import Tensor

    image = build_batch_transform(config)(*map(Tensor, batch))[0].asnumpy()
    data = config.data
    expected = normalize_pixels(batch.image, mean=data.mean, std=data.std)
    in_box = np.zeros((4, 1, 16, 16), bool)
    for row, (x0, y0, x1, y1) in enumerate(batch.mix[:, 5:9].astype(int)):
        in_box[row, :, y0:y1, x0:x1] = True
    if re_mode == "const":
        expected = np.where(in_box, 0.0, expected)
    outside = np.broadcast_to(~in_box | (re_mode == "const"), image.shape)
    assert in_box.any()
    assert image.shape == (4, in_chans, 16, 16)
    np.testing.assert_allclose(image[outside], expected[outside], atol=1e-6)
    inside = image[~outside]
    assert re_mode == "const" or 0.5 < inside.std() < 1.5
    normalized = build_normalize(config)(Tensor(batch.image)).asnumpy()
    whole_batch = normalize_pixels(batch.image, mean=data.mean, std=data.std)
    np.testing.assert_allclose(normalized, whole_batch, atol=1e-6)


@pytest.fixture(scope="module")
def grey_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few steps on grey digits, from weights for RGB."""
    folder = tmp_path_factory.mktemp("grey")
    sizes = ["--set", "Digits", "--data_url", str(folder / "digits"), "--image_size", "16"]
    model = ["--arch", "cct_2_3x2_32", "--model_args", LAYERS, "--batch_size", "64"]
    common = [*sizes, *model, "--crop_pct", "1.0", "--epochs", "1", "--num_parallel_workers", "1"]
    colours = folder / "colours.ckpt"
    import mindspore as ms

    ms.save_checkpoint(build_network(parse_args([*common, "--num_classes", "10"])), str(colours))
    words = [*common, "--in_chans", "1", "--pretrained", str(colours)]
    words += ["--auto_augment", "rand-m9-mstd0.5-inc1", "--re_prob", "0.3", "--cutmix", "1"]
    assert train_program.main([*words, "--train_url", str(folder / "run")]) == 0
    return folder / "run"


def test_programs_take_in_chans_from_the_weights(
    grey_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = ["--pretrained", str(grey_run / "last.ckpt")]
    with (grey_run / "metrics.csv").open(newline="") as file:
        trained = [row["top1"] for row in csv.DictReader(file) if row["top1"]][-1]
    assert "in_chans: 1" in (grey_run / "config.yaml").read_text()
    assert "16 x 16 pixels, grey" in (grey_run / "README.md").read_text()
    exported = str(tmp_path / "grey.mindir")
    assert export_program.main([*weights, "--output", exported, "--batch_size", "360"]) == 0
    assert json.loads(Path(f"{exported}.json").read_text())["in_chans"] == 1
    data = ["--data_url", str(grey_run.parent / "digits"), "--set", "Digits"]
    for words in ([*weights, "--report", str(tmp_path / "r")], ["--pretrained", exported, *data]):
        capsys.readouterr()
        assert eval_program.main(words) == 0
        assert f"top-1 {float(trained):.3f} %" in capsys.readouterr().out
    image = next((grey_run.parent / "digits").rglob("*.png"))
    pictures = ["--save_pictures", str(tmp_path / "pictures"), "--heat_maps"]
    assert predict_program.main([*weights, "--input", str(image), *pictures]) == 0
    inputs = ["--for_mindir", exported, "--result_path", str(tmp_path / "in")]
    assert preprocess_program.main([*inputs, "--dataset_name", "digits", *data[:2]]) == 0
    manifest = (tmp_path / "in" / "manifest.tsv").read_text()
    assert "shape\t360,1,16,16\n" in manifest or "shape\t360,16,16,1\n" in manifest


def test_what_is_for_rgb_says_so(
    grey_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = ["--pretrained", str(grey_run / "last.ckpt")]
    message = failure(capsys, export_program, [*weights, "--bundle", str(tmp_path / "bundle")])
    assert "its images are RGB, and in_chans is 1; leave it out, and give --output" in message
    assert not list(tmp_path.iterdir())
    message = failure(capsys, eval_program, [*weights, "--in_chans", "3"])
    assert "in_chans 3: " in message
    assert "of another shape" in message


def test_preview_shows_grey_and_transparent_images(tmp_path: Path) -> None:
    preview = script("preview_augment")
    for in_chans in ("1", "4"):
        words = ["--set", "Digits", "--data_url", str(tmp_path / "digits"), "--batch_size", "2"]
        words += ["--in_chans", in_chans, "--image_size", "16", "--num_classes", "10"]
        assert preview.main([*words, "--train_url", str(tmp_path / in_chans)]) == 0
        assert Image.open(tmp_path / in_chans / "preview.png").mode == "RGB"
