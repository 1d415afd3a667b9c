"""ImageNet's archives as they are offered for download, read where they are.

`ILSVRC2012_img_train.tar` holds `<synset>.tar` for each class with `<synset>_<number>.JPEG` in it,
`ILSVRC2012_img_val.tar` all `ILSVRC2012_val_<number>.JPEG`, whose classes the devkit knows.
Images are found by their places in the outer file, so no inner archive is ever copied.
"""

from __future__ import annotations

import abc
import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import numpy as np
from tqdm import tqdm

from ..errors import UserError, some_of
from ..runtime.regular_files import IMAGE_BYTES, UNLIMITED, open_regular
from .augment.parts import Part
from .decode import BoxSeen, Decoder
from .devkit import NUM_CLASSES, NUM_VAL_IMAGES, SYNSET, Devkit
from .tar_members import DamagedArchive, Expected, Member, list_members, whole_file

# As torchvision 0.28 has them too (torchvision/datasets/imagenet.py).
MD5 = {
    "train": "1d675b47d978889d74fa0da5fadfb00e",
    "val": "29b22e2961454d5413ddabcf34fc5622",
    "devkit": "fa75699e90414af021442c21a62c3abf",
}
_NUM_IMAGES = {"train": 1_281_167, "val": NUM_VAL_IMAGES}
_INNER = Expected(re.compile(SYNSET.pattern + r"\.tar"), "n01440764.tar", UNLIMITED)
_VAL = Expected(
    re.compile(r"ILSVRC2012_val_([0-9]{8})\.JPEG"), "ILSVRC2012_val_00000001.JPEG", IMAGE_BYTES
)
_PARTLY = "give --allow_partial for a part of the set"
_BLOCK_BYTES = 1 << 22


class ImageArchive(abc.ABC):
    """One split in its archive.

    Attributes:
        split: `train` or `val`.
        class_names: the synsets that have images, sorted.
    """

    split: str
    class_names: List[str]

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = open_regular(path, UNLIMITED)
        except OSError as error:
            raise UserError(
                f"{self.split} {str(path)!r}: {error.strerror}; expected "
                f"ILSVRC2012_img_{self.split}.tar"
            ) from error

    @abc.abstractmethod
    def images_of(self, class_name: str) -> List[Member]:
        """The images of a class, sorted by name.

        Raises:
            UserError: what holds them is damaged, or holds something else too.
        """

    @abc.abstractmethod
    def num_bytes(self, class_name: str) -> int:
        """About what they take in a folder."""

    def read(self, image: Member) -> bytes:
        """The content of an image.

        Raises:
            DamagedArchive: the archive has become shorter, or its disk fails.
        """
        try:
            data = os.pread(self._file.fileno(), image.size, image.offset)
        except OSError as error:
            raise DamagedArchive(f"{self.path}: {image.name}", error.strerror) from error
        if len(data) != image.size:
            raise DamagedArchive(f"{self.path}: {image.name}", "the file ends inside it")
        return data

    def check_count(self, num_images: int, *, allow_partial: bool) -> None:
        """Raises UserError: these are not all images of the split."""
        due = _NUM_IMAGES[self.split]
        if num_images != due and not allow_partial:
            raise UserError(f"{self.path}: {num_images:,} images, not {due:,}; {_PARTLY}")


class TrainArchive(ImageArchive):
    """An archive of archives."""

    split = "train"

    def __init__(self, path: Path, devkit: Devkit) -> None:
        super().__init__(path)
        inner = list_members(self._file, whole_file(self._file), _INNER, str(path))
        self._inner = {name.partition(".")[0]: part for name, part in sorted(inner.items())}
        self.class_names = list(self._inner)
        unknown = [name for name in self.class_names if name not in devkit.words]
        if unknown:
            raise UserError(
                f"{path}: {some_of(unknown)} are no classes of the devkit; give the devkit of "
                "this archive"
            )

    def images_of(self, class_name: str) -> List[Member]:
        expected = Expected(
            re.compile(class_name + r"_[0-9]{1,9}\.JPEG"), f"{class_name}_10026.JPEG", IMAGE_BYTES
        )
        where = f"{self.path}: {class_name}.tar"
        images = list_members(self._file, self._inner[class_name], expected, where)
        if not images:
            raise DamagedArchive(where, "it holds no images")
        return sorted(images.values())

    def num_bytes(self, class_name: str) -> int:
        return self._inner[class_name].size


class ValArchive(ImageArchive):
    """A flat archive, whose labels are in the devkit."""

    split = "val"

    def __init__(self, path: Path, devkit: Devkit) -> None:
        super().__init__(path)
        members = list_members(self._file, whole_file(self._file), _VAL, str(path))
        self._images: Dict[str, List[Member]] = {}
        for name, image in sorted(members.items()):
            number = int(name[-len("00000001.JPEG") : -len(".JPEG")])
            if not 1 <= number <= len(devkit.val_synsets):
                raise UserError(
                    f"{path}: {name} has no label among the {len(devkit.val_synsets):,} of the "
                    "devkit; give the devkit of this archive"
                )
            self._images.setdefault(devkit.val_synsets[number - 1], []).append(image)
        self.class_names = sorted(self._images)

    def images_of(self, class_name: str) -> List[Member]:
        return self._images[class_name]

    def num_bytes(self, class_name: str) -> int:
        return sum(image.size for image in self._images[class_name])


def open_archives(
    train: Optional[Path], val: Optional[Path], devkit: Devkit, *, allow_partial: bool
) -> List[ImageArchive]:
    """The archives that are given.

    Raises:
        UserError: one is damaged, holds something else, or lacks classes.
    """
    archives: List[ImageArchive] = []
    if train:
        archives.append(TrainArchive(train, devkit))
    if val:
        archives.append(ValArchive(val, devkit))
    for archive in archives:
        if not archive.class_names:
            raise UserError(f"{archive.path}: it holds no images")
        if len(archive.class_names) != NUM_CLASSES and not allow_partial:
            raise UserError(
                f"{archive.path}: {len(archive.class_names)} classes, not {NUM_CLASSES:,}; "
                f"{_PARTLY}"
            )
        if isinstance(archive, ValArchive):
            num_images = sum(len(archive.images_of(name)) for name in archive.class_names)
            archive.check_count(num_images, allow_partial=allow_partial)
    return archives


def common_classes(archives: Sequence[ImageArchive]) -> List[str]:
    """The classes that have images in every archive, sorted.

    Raises:
        UserError: there are none.
    """
    names = set.intersection(*(set(archive.class_names) for archive in archives))
    if not names:
        raise UserError("train and val have no class in common; give archives of the same classes")
    return sorted(names)


def check_md5(path: Path, due: str) -> None:
    """Raises UserError: the file is not the one that is offered for download."""
    digest = hashlib.md5(usedforsecurity=False)
    with open_regular(path, UNLIMITED) as file:
        total = os.fstat(file.fileno()).st_size
        with tqdm(total=total, unit="B", unit_scale=True, desc=f"MD5 of {path.name}") as progress:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                progress.update(len(block))
    if digest.hexdigest() != due:
        raise UserError(
            f"{path}: its MD5 is {digest.hexdigest()}, not {due}; download it again, or leave out "
            "--check_md5 for another archive"
        )


@dataclass(frozen=True)
class ArchivedImages:
    """The images of some classes of an archive, in the order in which folders would list them.

    Attributes:
        archive: reads them.
        class_names: the position is the label.
        names: (N,) bytes, below the class.
        places: (N, 2) int64, offset and size in bytes.
        labels: (N,) int32.
        decoder: reads the files.
    """

    archive: ImageArchive
    class_names: List[str]
    names: np.ndarray = field(repr=False)
    places: np.ndarray = field(repr=False)
    labels: np.ndarray
    decoder: Decoder

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def folder(self) -> Path:
        """The archive's file, which stands where a folder would."""
        return self.archive.path

    def file_name(self, index: int) -> str:
        """`<class>/<image>`."""
        return f"{self.class_names[self.labels[index]]}/{self.names[index].decode()}"

    def read_bytes(self, index: int) -> bytes:
        """The image file as it is; raises DamagedArchive."""
        offset, size = self.places[index].tolist()
        return self.archive.read(Member(self.file_name(index), offset, size))

    def read(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8, RGB; raises BadImageError."""
        name = f"{self.folder}/{self.file_name(index)}"
        return self.decoder.decode(self.read_bytes(index), name)

    def read_part(self, index: int, box_seen: BoxSeen) -> Part:
        """As much of an image as is seen, or more; raises BadImageError."""
        name = f"{self.folder}/{self.file_name(index)}"
        return self.decoder.decode_part(self.read_bytes(index), name, box_seen)


def list_images(
    archive: ImageArchive, class_names: Sequence[str], decoder: Decoder
) -> ArchivedImages:
    """Finds all images of these classes: one header is read for each.

    Raises:
        UserError: as of `ImageArchive.images_of`.
    """
    classes = [
        archive.images_of(class_name)
        for class_name in tqdm(class_names, unit="class", desc=f"{archive.path.name}: images")
    ]
    images = [image for members in classes for image in members]
    counts = [len(members) for members in classes]
    return ArchivedImages(
        archive=archive,
        class_names=list(class_names),
        names=np.array([image.name.encode() for image in images]),
        places=np.array([(image.offset, image.size) for image in images], np.int64),
        labels=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        decoder=decoder,
    )
