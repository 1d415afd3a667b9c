"""Images in a folder per class: `root/train/<class>/<image>` and `root/val/<class>/<image>`.

Or `root/<class>/<image>` alone, of which a share is set aside for validation. The images of a class
may lie in folders of their own.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Sequence, Set

import numpy as np

from ..errors import UserError, some_of
from .augment.parts import Part
from .classes import sort_classes
from .decode import BoxSeen, Decoder, read_image_file
from .find_images import describe_skipped, images_in, list_folders, list_kinds, say_once
from .folder_index import Listing, Tally, images_by_class, scan_classes, to_listing
from .splits import find_classes_below, find_splits, of_another_set, recognise

_NAMED_CLASSES = 5


@dataclass(frozen=True)
class ImageFolder:
    """One split.

    File names are kept as one text, which takes a third of the memory of as many Python strings.

    Attributes:
        folder: the split's folder.
        class_names: in the order asked for; the position is the label.
        names: uint8, every file name below its class folder, one after the other, UTF-8.
        ends: (N,) int64, end of each name in `names`.
        labels: (N,) int32.
        decoder: reads the files.
    """

    folder: Path
    class_names: List[str]
    names: np.ndarray = field(repr=False)
    ends: np.ndarray
    labels: np.ndarray
    decoder: Decoder = field(default_factory=Decoder)

    @classmethod
    def of(cls, listing: Listing, folder: Path, decoder: Decoder) -> ImageFolder:
        """The images of a listing."""
        return cls(
            folder=folder,
            class_names=listing.class_names,
            names=listing.names,
            ends=np.cumsum(listing.lengths, dtype=np.int64),
            labels=np.repeat(np.arange(len(listing.counts), dtype=np.int32), listing.counts),
            decoder=decoder,
        )

    def __len__(self) -> int:
        return len(self.ends)

    def file_name(self, index: int) -> str:
        """`<class>/<image>`."""
        return f"{self.class_names[self.labels[index]]}/{self._name(index)}"

    def read_bytes(self, index: int) -> bytes:
        """The file as it is.

        Raises:
            BadImageError: it cannot be opened.
        """
        return read_image_file(self._path(index), self.decoder.budget)

    def read(self, index: int) -> np.ndarray:
        """The pixels of one image: (H, W, 3) uint8, RGB.

        Raises:
            BadImageError: the file is missing or damaged.
        """
        return self.decoder.read(self._path(index))

    def read_part(self, index: int, box_seen: BoxSeen) -> Part:
        """As much of an image as is seen, or more; raises BadImageError."""
        return self.decoder.read_part(self._path(index), box_seen)

    def _name(self, index: int) -> str:
        start = int(self.ends[index - 1]) if index else 0
        return os.fsdecode(self.names[start : int(self.ends[index])].tobytes())

    def _path(self, index: int) -> str:
        return f"{self.folder}/{self.file_name(index)}"


class ListedImages(ImageFolder):
    """Images that a list names with their labels: names are paths below the folder."""

    def file_name(self, index: int) -> str:
        """The path that the list has."""
        return self._name(index)


def scan_image_folder(
    root: Path,
    split: str,
    *,
    val_share: float = 0.0,
    class_order: str = "code_point",
    decoder: Decoder | None = None,
    takes_whole: bool = False,
    is_alone: bool = False,
) -> ImageFolder:
    """List one split, `train` or `val`, of the dataset at `root`, and say what is left out.

    Args:
        root: of the dataset.
        split: `train` or `val`.
        val_share: where `root` holds class folders only, the share of each class that is `val`.
        class_order: of `classes.CLASS_ORDERS`.
        decoder: reads the files; None: with the defaults.
        takes_whole: class folders that are not split are `val`, all of them, unless `val_share`
            says otherwise.
        is_alone: the other split is no folder, and not compared.

    Raises:
        UserError: a folder is missing or empty, or the splits have different classes.
    """
    splits = _find_splits(root)
    takes_whole = takes_whole and val_share == 0
    if not (splits or takes_whole) and val_share == 0 and list_folders(str(root)):
        raise UserError(_no_split(root))
    folder = root / splits.get(split, split) if splits else root
    class_names = _list_classes(root, folder)
    # Where nothing is trained val/ may stand alone.
    if splits and not is_alone and (split == "train" or "train" in splits):
        other = root / splits.get("val" if split == "train" else "train", "val")
        _check_same_classes(folder, class_names, other, _list_classes(root, other))
    listing = _scan(root, folder, sort_classes(class_names, class_order))
    if not (splits or takes_whole):
        listing = share_of(listing, split, val_share)
    return ImageFolder.of(listing, folder, decoder or Decoder())


def _find_splits(root: Path) -> Dict[str, str]:
    if not root.is_dir():
        raise UserError(
            f"data_url {str(root)!r}: no such folder; give one that has train/ and val/"
        )
    return find_splits(root)


def _no_split(root: Path) -> str:
    classes = len(list_folders(str(root)))
    remedy = recognise(root, root) or (
        f"to set a share of its {classes} class folders aside for validation, give --val_share 0.1"
    )
    return f"data_url {str(root)!r}: neither train/ nor val/; {remedy}"


def _scan(root: Path, folder: Path, class_names: List[str]) -> Listing:
    listing, tallies = scan_classes(folder, class_names)
    empty = np.flatnonzero(listing.counts == 0)
    if len(empty):
        said = describe_skipped(tallies[empty[0]].skipped)
        away = "move the folder away" + (" in train/ and val/" if folder != root else "")
        raise UserError(
            f"{folder / listing.class_names[empty[0]]}: no images"
            + (f" ({said})" if said else "")
            + f"; {of_another_set(root, 'ImageNet') or f'add some, or {away}'}"
        )
    _tell_kinds(folder, tallies)
    return listing


def _tell_kinds(folder: Path, tallies: Sequence[Tally]) -> None:
    """Says which files are read, where they are of several kinds, and which are left out."""
    kinds: Counter[str] = Counter()
    left_out = Counter({"image in no class folder": sum(1 for _ in images_in(str(folder)))})
    for tally in tallies:
        for kind, count in tally.kinds.items():
            kinds[kind] += count
        if tally.skipped:
            left_out.update(tally.skipped)
    if len(kinds) > 1:
        say_once(f"{folder}: {sum(kinds.values())} images: {list_kinds(kinds)}")
    if said := describe_skipped(left_out):
        say_once(f"{folder}: {said}")


def share_of(listing: Listing, split: str, val_share: float) -> Listing:
    """The part of every class that belongs to a split."""
    images = []
    for class_name, names in zip(listing.class_names, images_by_class(listing)):
        is_val = drawn_for_val(class_name, names, val_share)
        images.append([name for name in names if (name in is_val) == (split == "val")])
    return to_listing(listing.class_names, images)


def drawn_for_val(class_name: str, names: Sequence[bytes], val_share: float) -> Set[bytes]:
    """Those images of a class that are set aside for validation, by a hash of their names.

    The run's seed has no part in it: what was trained on with one must not be validated on with
    another. Every split gets at least one image.

    Raises:
        UserError: there are fewer than two.
    """
    if len(names) < 2:
        raise UserError(
            f"class {class_name!r}: fewer than two images, so not one for each split; add more, or "
            "take the class away"
        )
    count = min(max(round(val_share * len(names)), 1), len(names) - 1)
    return set(sorted(names, key=lambda name: (zlib.crc32(name), name))[:count])


def list_classes(root: Path) -> List[str]:
    """Sorted class folders of train/, or of `root` where it is not split.

    Raises:
        UserError: no such folder, or none in it.
    """
    splits = _find_splits(root)
    return _list_classes(root, root / splits.get("train", "train") if splits else root)


def _list_classes(root: Path, folder: Path) -> List[str]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; data_url needs train/ and val/")
    names = list_folders(str(folder))
    if not names:
        remedy = recognise(root, folder) or "put the images of each class into one folder"
        raise UserError(f"{folder}: no class folders; {remedy}")
    below = find_classes_below(root / names[0]) if folder == root and len(names) == 1 else None
    if below:
        raise UserError(
            f"{root}: one class folder, {names[0]}, whose images are all in folders of its own; "
            f"give --data_url {below}"
        )
    return names


def _check_same_classes(
    folder: Path, class_names: List[str], other: Path, names_there: List[str]
) -> None:
    if class_names == names_there:
        return
    here, there = set(class_names), set(names_there)
    sides = sorted([(folder.name, here - there), (other.name, there - here)])
    differences = "; ".join(
        f"only in {name}/: {some_of(sorted(names), _NAMED_CLASSES)}"
        for name, names in sides
        if names
    )
    raise UserError(
        f"{folder.parent}: {sides[0][0]}/ and {sides[1][0]}/ need the same class folders "
        f"({differences})"
    )
