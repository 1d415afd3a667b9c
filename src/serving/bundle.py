"""A network in a folder with what proves it on another machine.

    FOLDER/network.mindir             or .onnx, with its record network.mindir.json
    FOLDER/labels.txt                 a name for each class, one a line
    FOLDER/golden/wide.jpg ...        five images
    FOLDER/manifest.tsv, input/...    their pixels as the transform makes them, as of input_files
    FOLDER/result/000000_0.bin ...    their logits, as the C++ program writes results
    FOLDER/bundle.tsv                 transform, versions, size and SHA-256 of every other file

The last line of bundle.tsv holds the SHA-256 of what stands before it.
"""

from __future__ import annotations

import hashlib
import platform
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, NoReturn, Sequence

import numpy as np
import PIL

from ..args import Config, ExportRun
from ..data.augment.parts import whole
from ..data.decode import Decoder
from ..data.sources import create_decoder
from ..data.transforms_factory import create_eval_transform
from ..errors import UserError
from ..runtime import compat
from ..runtime.files import file_sha256, write_whole
from ..runtime.regular_files import (
    EXPORT_BYTES,
    IMAGE_BYTES,
    RECORD_BYTES,
    read_regular,
    require_regular,
)
from ..runtime.text import printable, to_utf8
from .export_record import TOLERANCE
from .exported_network import filled
from .golden_images import golden_images
from .input_files import MANIFEST, InputFile, manifest_text

BUNDLE, LABELS = "bundle.tsv", "labels.txt"
_VERSION = 1
# (B, H, W, 3) uint8 -> (B, num_classes) float32 logits.
Predict = Callable[[np.ndarray], np.ndarray]

_FILE = re.compile(r"([\w.-]+(?:/[\w.-]+)*)\t(0|[1-9]\d{0,17})\t([0-9a-f]{64})", re.ASCII)
_REMEDY = "copy the whole folder again"
_REAL = r"-?\d{1,20}(\.\d{1,20})?(e[+-]?\d{1,3})?"
_THREE = f"{_REAL},{_REAL},{_REAL}"
# What stands behind a key.
_HEAD = {
    "version": str(_VERSION),
    "network": r"[\w-][\w.-]*\.(mindir|onnx)",
    "input": "float32_nchw|uint8_nhwc",
    "batch_size": r"\d{1,5}",
    "num_classes": r"[1-9]\d{0,6}",
    "image_size": r"[1-9]\d{0,5}",
    "crop_pct": _REAL,
    "crop_mode": "center|squash",
    "interpolation": "bilinear|bicubic",
    "exif_orientation": "true|false",
    "background": r"null|\d{1,3},\d{1,3},\d{1,3}",
    "mean": _THREE,
    "std": _THREE,
    "tolerance": _REAL,
    **dict.fromkeys(("mindspore", "numpy", "pillow", "python"), r"[^\t]{1,200}"),
}


class Golden(NamedTuple):
    """An image, its pixels (H, W, 3) uint8, and its logits (num_classes,) float32."""

    image: Path
    pixels: np.ndarray
    logits: np.ndarray


@dataclass(frozen=True)
class Bundle:
    """What a bundle holds; every file is as it was written.

    Attributes:
        network: the file.
        head: first words of the lines of bundle.tsv -> what stands behind them, files aside.
        golden: in order.
    """

    network: Path
    head: Dict[str, str]
    golden: List[Golden]

    @property
    def tolerance(self) -> float:
        return float(self.head["tolerance"])


def prepared(config: Config, decoder: Decoder, path: Path) -> np.ndarray:
    """The pixels of an image file as evaluation makes them, (H, W, 3) uint8."""
    return create_eval_transform(config)(whole(decoder.read(str(path))))


def write_bundle(
    config: ExportRun, folder: Path, network: str, predict: Predict, names: Sequence[str]
) -> None:
    """Adds to a folder with the file `network` and its record all that makes it a bundle.

    Args:
        predict: the network that the file was made of.
        names: of the classes.

    Raises:
        OSError: the folder cannot be written.
    """
    for name in ("golden", "input", "result"):
        (folder / name).mkdir()
    images, decoder, inputs = golden_images(config.model.image_size), create_decoder(config), []
    for image in images:
        write_whole(folder / "golden" / image.name, image.content)
    pixels = np.stack([prepared(config, decoder, folder / "golden" / i.name) for i in images])
    logits = predict_all(predict, pixels, config.serving_batch())
    for number, (seen, scores) in enumerate(zip(pixels, logits)):
        content, name = seen.tobytes(), f"input/{number:06d}.bin"
        write_whole(folder / name, content)
        write_whole(folder / f"result/{number:06d}_0.bin", scores.astype("<f4").tobytes())
        inputs.append(InputFile(name, 1, zlib.crc32(content)))
    text = manifest_text(config, "uint8", (1, *pixels.shape[1:]), inputs)
    write_whole(folder / MANIFEST, text.encode())
    write_whole(folder / LABELS, to_utf8("".join(f"{printable(name)}\n" for name in names)))
    golden = [f"golden\tgolden/{image.name}" for image in images]
    head = [f"{key}\t{value}" for key, value in head_of(config, network).items()]
    write_whole(folder / BUNDLE, _sealed([*head, *golden, *_listed(folder)]))


def predict_all(predict: Predict, pixels: np.ndarray, batch_size: int) -> np.ndarray:
    """(N, H, W, 3) -> (N, num_classes), in batches that are filled up with black images."""
    batches = [pixels[at : at + batch_size] for at in range(0, len(pixels), batch_size)]
    return np.concatenate([predict(filled(batch, batch_size))[: len(batch)] for batch in batches])


def head_of(config: ExportRun, network: str) -> Dict[str, str]:
    """What bundle.tsv begins with: the version first."""
    batch_size = 0 if config.export.dynamic_batch else config.serving_batch()
    return {
        "version": str(_VERSION),
        "network": network,
        "input": config.serving.input,
        "batch_size": str(batch_size),
        "num_classes": str(config.model.num_classes),
        **transform_lines(config),
        "tolerance": repr(TOLERANCE),
        "mindspore": compat.version(),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
    }


def transform_lines(config: Config) -> Dict[str, str]:
    """How an image becomes pixels, and those the network's input, in the words of bundle.tsv."""
    data = config.data
    # `random` means bicubic where an image is seen once.
    filters = "bilinear" if data.interpolation == "bilinear" else "bicubic"
    return {
        "image_size": str(config.model.image_size),
        "crop_pct": repr(float(data.crop_pct)),
        "crop_mode": data.crop_mode,
        "interpolation": filters,
        "exif_orientation": "true" if data.exif_orientation else "false",
        "background": _joined(data.background) if data.background else "null",
        "mean": _joined([float(value) for value in data.mean]),
        "std": _joined([float(value) for value in data.std]),
    }


def _joined(values: Sequence[Any]) -> str:
    return ",".join(repr(value) for value in values)


def _listed(folder: Path) -> List[str]:
    """A line for each file."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        f"file\t{path.relative_to(folder)}\t{path.stat().st_size}\t{file_sha256(path)}"
        for path in paths
    ]


def _sealed(lines: List[str]) -> bytes:
    files = sum(line.startswith("file\t") for line in lines)
    text = "\n".join(lines) + "\n"
    return f"{text}end\t{files}\t{hashlib.sha256(text.encode()).hexdigest()}\n".encode()


def read_bundle(folder: Path) -> Bundle:
    """A folder that export.py made, every byte of it.

    Raises:
        UserError: it is none, or a file is missing or another one; files beside those are ignored.
    """
    lines = _unsealed(folder)
    golden: List[str] = []
    files: List[str] = []
    head: Dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition("\t")
        if key == "file":
            files.append(value)
        elif key == "golden":
            golden.append(value)
        elif key in head:
            _refuse(folder, BUNDLE, f"two lines of {printable(key)[:80]!r}")
        else:
            head[key] = value
    for key in {**_HEAD, **head}:
        value = head.get(key, "")
        if not re.fullmatch(_HEAD.get(key, "(?!)"), value, re.ASCII):
            _refuse(folder, BUNDLE, f"the line {printable(key)[:80]!r} with {value[:80]!r}")
    if not golden:
        _refuse(folder, BUNDLE, "without golden images")
    sizes = dict(_checked(folder, value) for value in files)
    for name in (head["network"], *golden):
        if name not in sizes:
            _refuse(folder, BUNDLE, f"without a digest of {printable(name)!r}")
    return Bundle(
        folder / head["network"],
        head,
        [_golden(folder, head, number, name) for number, name in enumerate(golden)],
    )


def _unsealed(folder: Path) -> List[str]:
    """The lines of bundle.tsv but for the last."""
    try:
        content = read_regular(folder / BUNDLE, RECORD_BYTES)
        text, _, end = content.decode().removesuffix("\n").rpartition("\nend\t")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UserError(
            f"bundle {str(folder)!r}: {BUNDLE}: {reason}; export.py --bundle makes such folders"
        ) from error
    if not text.startswith("version\t1\n"):
        _refuse(folder, BUNDLE, "not of version 1, or cut off")
    lines = text.split("\n")
    if content != _sealed(lines):
        _refuse(folder, BUNDLE, f"not as it was written (it ends in {printable(end)[:80]!r})")
    return lines


def _checked(folder: Path, value: str) -> Any:
    """(name, bytes) of a line of bundle.tsv whose file is as it says."""
    found = _FILE.fullmatch(value)
    if not found or {".", ".."} & set(found[1].split("/")):
        _refuse(folder, BUNDLE, f"the line {printable(value)[:80]!r}")
    name, size, digest = found[1], int(found[2]), found[3]
    path = folder / name
    try:
        require_regular(path, EXPORT_BYTES)
        if not path.resolve().is_relative_to(folder.resolve()):
            _refuse(folder, name, "a link that leaves the folder")
        there = path.stat().st_size
        if there != size:
            _refuse(folder, name, f"{there} bytes, not {size}")
        if file_sha256(path, EXPORT_BYTES) != digest:
            _refuse(folder, name, "not the file that was written, its SHA-256 is another")
    except OSError as error:
        _refuse(folder, name, str(error.strerror))
    return name, size


def _golden(folder: Path, head: Dict[str, str], number: int, name: str) -> Golden:
    side, classes = int(head["image_size"]), int(head["num_classes"])
    arrays = []
    shapes = {"input/{:06d}.bin": (side, side, 3), "result/{:06d}_0.bin": (classes,)}
    for form, shape in shapes.items():
        path, kind = form.format(number), np.dtype("u1" if len(shape) == 3 else "<f4")
        try:
            content = read_regular(folder / path, IMAGE_BYTES)
            arrays.append(np.frombuffer(content, kind).reshape(shape))
        except (OSError, ValueError):
            _refuse(folder, path, f"not the {'x'.join(map(str, shape))} numbers of {name!r}")
    return Golden(folder / name, arrays[0], arrays[1])


def _refuse(folder: Path, name: str, reason: str) -> NoReturn:
    raise UserError(f"bundle {str(folder)!r}: {printable(name)}: {reason}; {_REMEDY}")
