"""Which folders of a data set hold the images to train on and those to evaluate on."""

from __future__ import annotations

import contextlib
import itertools
import re
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..errors import UserError, some_of
from .find_images import folders_in, images_in
from .run_folders import holds_runs

# What users call them, in any case; of `val` those of a later row count where none of an earlier
# one is there. timm knows the same names but for `test`.
_NAMES: Dict[str, Tuple[Tuple[str, ...], ...]] = {
    "train": (("train", "training"),),
    "val": (("val", "valid", "validation", "eval", "evaluation"), ("test", "testing")),
}
# Endings of files that pack many images -> what they are.
_PACKED = {
    ".mindrecord": "MindRecord that pack_dataset.py did not write",
    ".tfrecord": "TFRecord",
    ".tar": "a tar archive",
    ".tgz": "a tar archive",
    ".tar.gz": "a tar archive",
    ".zip": "a zip archive",
    ".mdb": "an LMDB database",
    ".lmdb": "an LMDB database",
    ".parquet": "Parquet",
    ".arrow": "Arrow",
    ".rec": "RecordIO",
    ".h5": "HDF5",
    ".hdf5": "HDF5",
    ".npz": "NumPy's arrays",
}
# Files that may say the labels of images beside them.
_LIST = re.compile(r".+\.[ct]sv|(train|labels?|list)\.txt", re.IGNORECASE)
_CIFAR = {"cifar-10": "CIFAR10", "cifar-100": "CIFAR100"}
_IDX_FILE = re.compile(r"(train|t10k)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")
_IDX_SETS = ["MNIST", "FashionMNIST"]
_MOST_LOOKED_AT = 1000
_MOST_WRAPPERS = 8


def names_of(split: str) -> Tuple[Tuple[str, ...], ...]:
    """What users call a split, in small letters; a later row counts where none of an earlier is."""
    return _NAMES[split]


def find_splits(root: Path) -> Dict[str, str]:
    """`train` and `val`, as far as they are there -> the folder in `root`; {}: classes only.

    A folder called `train` in which there are images and no folders, beside others, is a class.

    Raises:
        UserError: two folders for one split, or one that may be a split or a class.
    """
    folders = folders_in(str(root))
    others = [name for name in folders if not any(_is_called(name, split) for split in _NAMES)]
    others = [name for name in others if not holds_runs(f"{root}/{name}")]
    found: Dict[str, str] = {}
    for split in _NAMES:
        name = _find_split(root, folders, split, bool(others))
        if name is not None:
            found[split] = name
    if len(found) == 1:
        _refuse_classes_beside(root, next(iter(found.values())), others)
    return found


def _is_called(name: str, split: str) -> bool:
    return any(name.lower() in row for row in _NAMES[split])


def _find_split(root: Path, folders: Sequence[str], split: str, has_others: bool) -> Optional[str]:
    for row in _NAMES[split]:
        names = [name for name in folders if name.lower() in row]
        if has_others:
            names = [name for name in names if not _is_class(root / name)]
        if len(names) > 1:
            raise UserError(
                f"{root}: {' and '.join(f'{name}/' for name in names)} may each be the folder to "
                f"{'train' if split == 'train' else 'evaluate'} on; rename or move all but one"
            )
        if names:
            return names[0]
    return None


def _is_class(folder: Path) -> bool:
    return not folders_in(str(folder)) and any(images_in(str(folder)))


def _refuse_classes_beside(root: Path, name: str, others: Sequence[str]) -> None:
    classes = [other for other in others if any(images_in(str(root / other)))]
    if classes:
        raise UserError(
            f"{root}: {name}/ may be a split or a class, beside {some_of(classes)} with images in "
            "them; rename it if it is a class, else put the other split beside it and move these"
        )


class KnownSet(NamedTuple):
    """What a folder holds.

    Attributes:
        what: a clause.
        sets: what `set` of a recipe calls it; several: any of them.
    """

    what: str
    sets: Sequence[str]

    def advice(self) -> str:
        """What it is, and what to give for it: a clause."""
        return f"{self.what}; give {' or '.join(f'--set {name}' for name in self.sets)}"

    def is_folders(self) -> bool:
        """Whether it is `train` and `val` with class folders."""
        return list(self.sets) == ["ImageNet"]


def known_set(root: Path) -> Optional[KnownSet]:
    """What `data_url` names, as far as its names tell; None: unknown."""
    if any((root / split / "manifest.json").is_file() for split in _NAMES):
        return KnownSet("it was written by pack_dataset.py", ["MindRecord"])
    names = _some_names(root)
    for start, kind in _CIFAR.items():
        if any(name.startswith((f"{start}-", f"{start}.")) for name in names):
            return KnownSet("it holds CIFAR's archive", [kind])
    # As torchvision leaves them.
    found = [name for name in _IDX_SETS if _holds_idx(root / name / "raw")]
    if not found and (_holds_idx(root) or _holds_idx(root / "raw")):
        found = [name for name in _IDX_SETS if name in (root.name, root.parent.name)] or _IDX_SETS
    if found:
        return KnownSet("it holds IDX files", found)
    is_split = root.is_dir() and find_splits(root)
    return KnownSet("it holds folders of images", ["ImageNet"]) if is_split else None


def of_another_set(root: Path, name: str) -> Optional[str]:
    """What to give for a folder in which the files of the set `name` are not; None: unknown."""
    known = known_set(root)
    return known.advice() if known and name not in known.sets else None


def _holds_idx(folder: Path) -> bool:
    return any(_IDX_FILE.fullmatch(name) for name in _some_names(folder))


def recognise(root: Path, folder: Path) -> Optional[str]:
    """What to do about a folder of `root` that has no class folders: one clause; None: unknown."""
    known = known_set(root)
    if known and not known.is_folders():
        return known.advice()
    if (root / "manifest.json").is_file() and any(root.glob("*.mindrecord")):
        return f"it was written by pack_dataset.py; give --set MindRecord --data_url {root.parent}"
    inner = [folder / name for name in folders_in(str(folder))]
    for place in inner if folder == root else [folder, *inner]:
        known = known_set(place)
        if known:
            start = "give" if known.is_folders() else f"in {place.name}/ {known.advice()}"
            return f"{start} --data_url {place}"
    if (folder != root or len(inner) < 2) and (named := _find_list(root)):
        return f"if {named} has a path and a label for each image, give --train_list {named}"
    names = [name for at in dict.fromkeys((folder, root)) for name in _some_names(at)]
    # Beside folders an archive may be what they came from.
    for ending, kind in _PACKED.items() if not folders_in(str(folder)) else ():
        if any(name.endswith(ending) or f"{ending}-" in name for name in names):
            if ending == ".tar":
                return (
                    "it holds a tar archive; if it is a shard of webdataset's layout give --set "
                    "WebDataset, else unpack the images, a folder per class"
                )
            return f"it holds {kind}, which is not read; unpack the images, a folder per class"
    return None


def _find_list(root: Path) -> Optional[str]:
    """A file that may say labels, one with `train` in its name first."""
    names = [path.name for path in itertools.islice(root.iterdir(), _MOST_LOOKED_AT)]
    found = sorted((n for n in names if _LIST.fullmatch(n)), key=lambda n: ("train" not in n, n))
    return found[0] if found else None


def find_classes_below(folder: Path) -> Optional[Path]:
    """Where below a lone class folder the classes or splits are, if it is a wrapper of them."""
    with contextlib.suppress(OSError):  # whoever lists the images says so
        for _ in range(_MOST_WRAPPERS):
            names = folders_in(str(folder))
            if not names or any(images_in(str(folder))):
                break
            if len(names) > 1:
                return folder
            folder = folder / names[0]
    return None


def _some_names(folder: Path) -> List[str]:
    """Of what lies in a folder, lower case, without what is hidden."""
    if not folder.is_dir():
        return []
    names = (path.name.lower() for path in itertools.islice(folder.iterdir(), _MOST_LOOKED_AT))
    return sorted(name for name in names if not name.startswith("."))
