"""CIFAR-10 and CIFAR-100 from their original archives, Python or binary version, packed or not.

https://www.cs.toronto.edu/~kriz/cifar.html. Nothing is extracted to disk. The Python version is
pickled; its reader admits NumPy arrays and nothing else, so a file from elsewhere runs no code.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any, BinaryIO, Callable, Collection, Dict, List, NamedTuple, Tuple, cast

import numpy as np

from ..errors import UserError, on_one_line
from ..runtime.pickles import InertUnpickler, PickledArray
from ..runtime.regular_files import open_regular, read_regular
from .array_images import ArrayImages
from .splits import of_another_set

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
ROWS_PER_BATCH = 10_000
# The largest has 155 MB, all of them 187 MB.
_FILE_BYTES, _ARCHIVE_BYTES = 2**28, 2**29


class _Layout(NamedTuple):
    """How one version of one data set is laid out.

    Attributes:
        folder: the archive's only folder.
        archive: the file's name without .gz.
        files: of each split, with how many times ROWS_PER_BATCH rows each has.
        meta: file with the names of the classes.
        label_key: pickled: where labels and class names are; binary: the label's byte, from the end
            of those before the pixels, and their number.
    """

    folder: str
    archive: str
    files: Dict[str, List[Tuple[str, int]]]
    meta: str
    is_pickled: bool
    keys: Tuple[str, str] = ("", "")
    label_bytes: int = 1


def _five(pattern: str) -> List[Tuple[str, int]]:
    return [(pattern.format(number), 1) for number in range(1, 6)]


LAYOUTS: Dict[str, List[_Layout]] = {
    "CIFAR10": [
        _Layout(
            "cifar-10-batches-py",
            "cifar-10-python.tar",
            {"train": _five("data_batch_{}"), "val": [("test_batch", 1)]},
            "batches.meta",
            is_pickled=True,
            keys=("labels", "label_names"),
        ),
        _Layout(
            "cifar-10-batches-bin",
            "cifar-10-binary.tar",
            {"train": _five("data_batch_{}.bin"), "val": [("test_batch.bin", 1)]},
            "batches.meta.txt",
            is_pickled=False,
        ),
    ],
    "CIFAR100": [
        _Layout(
            "cifar-100-python",
            "cifar-100-python.tar",
            {"train": [("train", 5)], "val": [("test", 1)]},
            "meta",
            is_pickled=True,
            keys=("fine_labels", "fine_label_names"),
        ),
        _Layout(
            "cifar-100-binary",
            "cifar-100-binary.tar",
            {"train": [("train.bin", 5)], "val": [("test.bin", 1)]},
            "fine_label_names.txt",
            is_pickled=False,
            label_bytes=2,
        ),
    ],
}
NUM_CLASSES = {"CIFAR10": 10, "CIFAR100": 100}


def open_cifar(root: Path, name: str, split: str) -> ArrayImages:
    """Read one split, `train` or `val`, of `CIFAR10` or `CIFAR100`.

    Args:
        root: folder with an archive (.tar.gz or .tar) or with its extracted folder; or that folder.
        name: of the data set.
        split: train (50,000 images) or val (10,000).

    Raises:
        UserError: there is neither, or a file is missing, damaged or not what it should be.
    """
    layout, read_file, where = _find(root, name, split)
    images, labels = [], []
    for file_name, factor in layout.files[split]:
        read = _read_pickled if layout.is_pickled else _read_binary
        pixels, numbers = read(read_file(file_name), layout, f"{where}/{file_name}")
        if len(pixels) != factor * ROWS_PER_BATCH or len(numbers) != len(pixels):
            raise _damaged(
                f"{where}/{file_name}",
                f"{len(pixels)} images and {len(numbers)} labels instead of "
                f"{factor * ROWS_PER_BATCH}",
            )
        if numbers.min() < 0 or numbers.max() >= NUM_CLASSES[name]:
            raise _damaged(f"{where}/{file_name}", f"a label outside 0..{NUM_CLASSES[name] - 1}")
        images.append(pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))
        labels.append(numbers.astype(np.int32))
    class_names = _read_names(read_file(layout.meta), layout, f"{where}/{layout.meta}")
    if len(class_names) != NUM_CLASSES[name]:
        raise _damaged(f"{where}/{layout.meta}", f"{len(class_names)} class names")
    return ArrayImages(root, class_names, np.concatenate(images), np.concatenate(labels))


def _damaged(where: str, reason: str) -> UserError:
    return UserError(f"{where}: damaged ({reason}); download the archive again")


def _find(root: Path, name: str, split: str) -> Tuple[_Layout, Callable[[str], bytes], str]:
    for layout in LAYOUTS[name]:
        folders = [root / layout.folder, *([root] if (root / layout.meta).is_file() else [])]
        for folder in folders:
            if (folder / layout.meta).is_file():
                return layout, _file_reader(folder), str(folder)
        for suffix in (".gz", ""):
            path = root / f"{layout.archive}{suffix}"
            if path.is_file():
                return layout, _archive_reader(path, layout, split), str(path)
    choices = " or ".join(f"{layout.archive}.gz" for layout in LAYOUTS[name])
    remedy = (
        f"put {choices} into it, as https://www.cs.toronto.edu/~kriz/cifar.html offers them, or "
        "what they hold"
    )
    raise UserError(
        f"data_url {str(root)!r}: no {name} there; {of_another_set(root, name) or remedy}"
    )


def _file_reader(folder: Path) -> Callable[[str], bytes]:
    def read(name: str) -> bytes:
        try:
            return read_regular(folder / name, _FILE_BYTES)
        except OSError as error:
            raise _damaged(str(folder / name), error.strerror or str(error)) from error

    return read


def _archive_reader(path: Path, layout: _Layout, split: str) -> Callable[[str], bytes]:
    wanted = {name for name, _ in layout.files[split]} | {layout.meta}
    try:
        contents = _read_archive(path, wanted)
    # gzip and zlib have their own errors beside those of tarfile.
    except Exception as error:
        raise _damaged(str(path), on_one_line(getattr(error, "strerror", None) or error)) from error

    def read(name: str) -> bytes:
        if name not in contents:
            raise _damaged(str(path), f"it holds no {name}")
        return contents.pop(name)

    return read


class _Bounded:
    """What an archive unpacks to, which ends with an error where none of CIFAR's does."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, _ARCHIVE_BYTES
        self._is_over = False

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise ValueError(f"more than {_ARCHIVE_BYTES:,} bytes in it")
        # tarfile goes on reading nothing up to where the next member should be.
        if not content and self._is_over:
            raise EOFError("it ends early")
        self._is_over = not content
        return content


def _read_archive(path: Path, wanted: Collection[str]) -> Dict[str, bytes]:
    """Files by their names, read from the archive's start to its end, once."""
    contents: Dict[str, bytes] = {}
    with open_regular(path, _ARCHIVE_BYTES) as file:
        is_packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        unpacked = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if is_packed else file
        bounded = _Bounded(unpacked)
        with tarfile.open(fileobj=cast(Any, bounded), mode="r|") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                # Not a sparse one: it may claim any size, and have none.
                if name not in wanted or not member.isreg() or member.issparse():
                    continue
                if name in contents or not 0 <= member.size <= _FILE_BYTES:
                    raise ValueError(f"{name} twice, or of {member.size:,} bytes")
                content = archive.extractfile(member)
                contents[name] = content.read() if content else b""
        # The checksum is at the end.
        while is_packed and bounded.read(2**20):
            pass
    return contents


def _read_binary(data: bytes, layout: _Layout, where: str) -> Tuple[np.ndarray, np.ndarray]:
    row = layout.label_bytes + _PIXELS
    if len(data) % row:
        raise _damaged(where, f"{len(data)} bytes, no multiple of {row}")
    rows = np.frombuffer(data, np.uint8).reshape(-1, row)
    # CIFAR-100 has the coarse label first.
    return rows[:, layout.label_bytes :], rows[:, layout.label_bytes - 1]


def _read_pickled(data: bytes, layout: _Layout, where: str) -> Tuple[np.ndarray, np.ndarray]:
    content = load_arrays(data, where)
    pixels = _entry(content, "data", where)
    labels = np.asarray(_entry(content, layout.keys[0], where))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise _damaged(where, "'data' is no array of bytes")
    if pixels.ndim != 2 or pixels.shape[1] != _PIXELS or labels.dtype.kind != "i":
        raise _damaged(where, f"'data' of shape {pixels.shape}, labels of type {labels.dtype}")
    return pixels, labels


def _read_names(data: bytes, layout: _Layout, where: str) -> List[str]:
    if not layout.is_pickled:
        return data.decode("utf-8", "replace").split()
    names = _entry(load_arrays(data, where), layout.keys[1], where)
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _entry(content: Any, key: str, where: str) -> Any:
    # Python 2 wrote the keys as bytes.
    for spelling in (key, key.encode()):
        if isinstance(content, dict) and spelling in content:
            return content[spelling]
    raise _damaged(where, f"no entry {key!r}")


def load_arrays(data: bytes, where: str) -> Any:
    """Unpickle plain values and a dict's arrays.

    Raises:
        UserError: it is no pickle, or holds anything else; nothing of it was run.
    """
    try:
        unpickler = InertUnpickler(io.BytesIO(data), most_bytes=2 * len(data), encoding="bytes")
        content = unpickler.load()
        if isinstance(content, dict):
            for key, value in content.items():
                content[key] = value.values() if isinstance(value, PickledArray) else value
        return content
    # A damaged pickle raises nearly anything.
    except Exception as error:
        raise _damaged(where, f"no pickle of arrays: {on_one_line(error)}") from error
