"""Archives of the structure of ImageNet's: 10 classes, 200 images, a devkit as MATLAB writes it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple

import numpy as np
from PIL import Image
from scipy.io import savemat

# Of ImageNet, not in the order of their numbers there: labels are the order of the synsets.
WORDS = {
    "n02119789": "kit fox, Vulpes macrotis",
    "n02100735": "English setter",
    "n02110185": "Siberian husky",
    "n02096294": "Australian terrier",
    "n02102040": "English springer, English springer spaniel",
    "n02066245": "grey whale, gray whale, devilfish, Eschrichtius gibbosus",
    "n02509815": "lesser panda, red panda, panda, bear cat, cat bear, Ailurus fulgens",
    "n02124075": "Egyptian cat",
    "n02417914": "ibex, Capra ibex",
    "n02105855": "Shetland sheepdog, Shetland sheep dog, Shetland",
}
SYNSETS = list(WORDS)
PER_CLASS = {"train": 15, "val": 5}
DEVKIT = "ILSVRC2012_devkit_t12/data"
_FIELDS = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children")
_FIELDS += ("wordnet_height", "num_train_images")
_MORE = "canine, canid"


class Archives(NamedTuple):
    """Their files, and what is to come of them: `<split>/<synset>/<name>` -> content."""

    folder: Path
    due: Dict[str, bytes]

    @property
    def words(self) -> List[str]:
        """Of the command line, but for --output."""
        return [
            word
            for name, file in (
                ("train", "ILSVRC2012_img_train.tar"),
                ("val", "ILSVRC2012_img_val.tar"),
                ("devkit", "ILSVRC2012_devkit_t12.tar.gz"),
            )
            for word in (f"--{name}", str(self.folder / file))
        ]


def picture(seed: int, kind: str = "JPEG", mode: str = "RGB", orientation: int = 0) -> bytes:
    """A file of 24 x 20 pixels, another for each seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    file = io.BytesIO()
    small.resize((24, 20)).convert(mode).save(file, kind, exif=exif)
    return file.getvalue()


# As in the real set: a PNG, CMYK, grey, a turned one, and an EXIF block that is none.
ODD = {
    "n02105855_2933.JPEG": picture(1, "PNG"),
    "n02105855_1.JPEG": picture(2, mode="CMYK"),
    "n02105855_2.JPEG": picture(3, mode="L"),
    "n02105855_3.JPEG": picture(4, orientation=6),
    "n02105855_4.JPEG": picture(5, orientation=1).replace(b"Exif\0\0MM", b"Exif\0\0XX"),
}


def tar_of(members: Dict[str, bytes]) -> bytes:
    """As GNU tar writes it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def train_images() -> Dict[str, Dict[str, bytes]]:
    """Synset -> name -> content; the names are in no order."""
    found: Dict[str, Dict[str, bytes]] = {}
    for label, synset in enumerate(SYNSETS):
        numbers = [(7919 * i + 31 * label) % 20_000 for i in range(PER_CLASS["train"])]
        images = {f"{synset}_{n}.JPEG": picture(100 * label + n) for n in numbers}
        if synset == "n02105855":
            images = dict([*images.items()][len(ODD) :]) | ODD
        found[synset] = images
    return found


def val_images() -> Tuple[Dict[str, bytes], List[int]]:
    """Name -> content, and the ground truth: a number of a class, from 1 on, for each."""
    count = PER_CLASS["val"] * len(SYNSETS)
    truth = np.random.default_rng(0).permutation(np.arange(count) % len(SYNSETS) + 1).tolist()
    names = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, count + 1)]
    return {name: picture(10_000 + i) for i, name in enumerate(names)}, truth


def meta_mat(table: Dict[str, str] = WORDS, **changed: object) -> bytes:
    """The table as MATLAB writes it: classes, then what has children; `changed`: in row 0."""
    rows = np.empty((len(table) + 1, 1), dtype=[(name, object) for name in _FIELDS])
    for index, (synset, said) in enumerate([*table.items(), ("n02083346", _MORE)]):
        children = np.array([1.0, 2.0]) if said == _MORE else np.zeros((1, 0))
        height = float(said == _MORE)
        row = [float(index + 1), synset, said, "a gloss", 2 * height, children, height, 15.0]
        rows[index, 0] = tuple(row)
    for name, value in changed.items():
        rows[0, 0][name] = value
    file = io.BytesIO()
    savemat(file, {"synsets": rows}, do_compression=True)
    return file.getvalue()


def devkit_of(members: Dict[str, bytes]) -> bytes:
    """`.tar.gz`."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def devkit_files() -> Dict[str, bytes]:
    """What a devkit holds, the readme too."""
    truth = "".join(f"{number}\n" for number in val_images()[1])
    return {
        "ILSVRC2012_devkit_t12/readme.txt": b"ImageNet\n",
        f"{DEVKIT}/meta.mat": meta_mat(),
        f"{DEVKIT}/ILSVRC2012_validation_ground_truth.txt": truth.encode(),
    }


def write_archives(folder: Path) -> Archives:
    """All three, under the names they are offered by."""
    folder.mkdir(parents=True, exist_ok=True)
    train, (val, truth) = train_images(), val_images()
    inner = {f"{synset}.tar": tar_of(images) for synset, images in train.items()}
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar_of(inner))
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar_of(val))
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(devkit_of(devkit_files()))
    due = {f"train/{s}/{n}": data for s, images in train.items() for n, data in images.items()}
    for number, (name, data) in zip(truth, val.items()):
        due[f"val/{SYNSETS[number - 1]}/{name}"] = data
    return Archives(folder, due)
