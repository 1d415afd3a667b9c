"""The images that a recipe names: folders, lists, archives, arrays, packed sets, the digits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import List, Optional, Protocol, Sequence, Union

import numpy as np

from ..args import Config, EvalRun
from ..configs import parser
from ..errors import UserError, some_of
from . import cifar, idx
from .array_images import ArrayImages
from .augment.parts import Part
from .class_subset import take_subset
from .classes import CLASS_ORDERS, TrainedClasses, sort_classes
from .decode import BoxSeen, Decoder
from .digits import prepare_digits
from .folder_index import images_by_class
from .image_folder import ImageFolder, ListedImages, list_classes, scan_image_folder, share_of
from .image_lists import NO_LISTS, Lists, images_with_labels, listed_classes, listed_images
from .packed import open_packed, read_manifest
from .splits import find_splits
from .tar_shards import TarImages, open_tar, tar_classes


class Source(Protocol):
    """Images with labels, by index."""

    @property
    def class_names(self) -> List[str]:
        """Sorted as the source sorts them; the position is the label."""

    @property
    def labels(self) -> np.ndarray:
        """(N,) int32; where images have any number of labels (N, K) uint8, 1 for each."""

    def __len__(self) -> int: ...

    def file_name(self, index: int) -> str:
        """How messages name an image."""

    def read(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8, RGB, or as `with_channels` has it; raises BadImageError."""

    def read_part(self, index: int, box_seen: BoxSeen) -> Part:
        """As much of an image as is seen, or more; raises BadImageError."""


def create_decoder(config: Config) -> Decoder:
    """How the recipe reads image files."""
    data = config.data
    return Decoder(
        data.max_image_pixels,
        data.exif_orientation,
        data.background,
        channels=config.model.in_chans,
    )


def open_source(config: Config, training: bool, trained: Optional[TrainedClasses] = None) -> Source:
    """The images that `set` and `data_url` name; `set: Digits` writes its folder first.

    Args:
        training: the split to train on, else the one to evaluate on.
        trained: what the weights that meet these images know of their classes.

    Raises:
        UserError: they are not there, damaged, or of other classes than the weights or the recipe.
    """
    data = config.data
    _check_multi_label(config)
    subset = config.evaluation.class_subset if isinstance(config, EvalRun) else None
    root = Path(data.data_url)
    split = "train" if training else "val"
    decoder = create_decoder(config)
    source: Source
    if data.set == "MindRecord":
        source = open_packed(root / split, decoder)
        _check_packed_labels(config, source.labels.ndim == 2)
        _check_packed_order(config, source.class_names)
    else:
        source = open_unpacked(
            data.set,
            root,
            split,
            val_share=data.val_share,
            class_order=data.class_order,
            decoder=decoder,
            takes_whole=subset is not None,
            lists=_lists_of(config),
            classes=trained.names if trained and not (training or subset) else None,
        )
    if subset is not None and trained is not None:
        return take_subset(source, subset, trained, config.model.num_classes)
    if trained is not None:
        check_classes(config, trained, source.class_names)
    if not training and len(source.class_names) != config.model.num_classes:
        raise UserError(
            f"data_url {data.data_url!r}: has {len(source.class_names)} classes, and the network "
            f"{config.model.num_classes}; give the --data_url it was trained on"
            + _subset_remedy(config)
        )
    if len(source.class_names) != config.model.num_classes:
        raise UserError(
            f"num_classes {config.model.num_classes}: {root} has {len(source.class_names)} "
            f"classes; set num_classes: {len(source.class_names)}"
        )
    return source


def _check_multi_label(config: Config) -> None:
    separator = config.data.label_separator
    if separator is None:
        return
    if isinstance(config, EvalRun) and config.evaluation.class_subset is not None:
        raise UserError(
            f"class_subset {config.evaluation.class_subset!r}: is for images of one label each, "
            f"and label_separator is {separator!r}; leave class_subset out"
        )
    if not _lists_of(config).are_given() and config.data.set != "MindRecord":
        raise UserError(
            f"label_separator {separator!r}: divides labels in lists, and there is none; give "
            "--val_list FILE, or --label_separator null for a folder for each class"
        )


def _lists_of(config: Config) -> Lists:
    data = config.data
    return Lists(data.train_list, data.val_list, data.label_separator)


def _subset_remedy(config: Config) -> str:
    """What eval.py can do where data has other classes than the network."""
    if not isinstance(config, EvalRun):
        return ""
    return ", or --class_subset auto (or a file) to score some of the network's classes"


def open_unpacked(
    name: str,
    root: Path,
    split: str,
    *,
    val_share: float,
    class_order: str,
    decoder: Decoder,
    takes_whole: bool = False,
    lists: Lists = NO_LISTS,
    classes: Optional[Sequence[str]] = None,
) -> Union[ImageFolder, ArrayImages, TarImages]:
    """One split, train or val, of any `set` but MindRecord; that of the digits is written first.

    Args:
        name: the `set`.
        root: the `data_url`.
        lists: of images with labels; each replaces a split's folder.
        classes: that the labels of a list are of; None: it names them itself.

    The others are as of `scan_image_folder`, and for folders and lists only.

    Raises:
        UserError: it is not there, or damaged.
    """
    if name in cifar.LAYOUTS:
        return replace(cifar.open_cifar(root, name, split), channels=decoder.channels)
    if name in idx.SETS:
        return replace(idx.open_idx(root, name, split), channels=decoder.channels)
    if name == "WebDataset":
        return open_tar(root, split, val_share, class_order, decoder, classes)
    if name == "Digits":
        prepare_digits(root)
    _check_train_images(root, split, lists)
    if lists.train or (lists.val and split == "val"):
        classes = classes or listed_classes(root, lists, class_order)
        return _open_listed(root, split, lists, classes, val_share, decoder)
    return scan_image_folder(
        root,
        split,
        val_share=val_share,
        class_order=class_order,
        decoder=decoder,
        takes_whole=takes_whole,
        is_alone=lists.val is not None,
    )


def _check_train_images(root: Path, split: str, lists: Lists) -> None:
    if lists.val and not lists.train and split == "train" and not find_splits(root):
        raise UserError(
            f"val_list {lists.val!r}: data_url {str(root)!r} has no train/, so which images to "
            "train on is not known; give --train_list FILE too, or leave val_list out"
        )


def _open_listed(
    root: Path,
    split: str,
    lists: Lists,
    classes: Sequence[str],
    val_share: float,
    decoder: Decoder,
) -> ImageFolder:
    if split == "val" and lists.val is None and val_share == 0:
        raise UserError(
            "val_list null: there are no images to evaluate on beside those of train_list "
            f"{lists.train!r}; give --val_list FILE, or --val_share 0.1 to set a share aside"
        )
    share = val_share if lists.val is None else 0.0
    if lists.separator is not None:
        return _open_multi_label(root, split, lists, classes, share, decoder)
    listing = listed_images(root, lists, split, classes)
    return ListedImages.of(share_of(listing, split, share) if share else listing, root, decoder)


def _open_multi_label(
    root: Path,
    split: str,
    lists: Lists,
    classes: Sequence[str],
    val_share: float,
    decoder: Decoder,
) -> ImageFolder:
    """Images with any number of labels; the share is of all images, not of each class."""
    listing, labels = images_with_labels(root, lists, split, classes)
    if val_share:
        part = share_of(listing, split, val_share)
        kept = set(images_by_class(part)[0])
        labels = labels[[name in kept for name in images_by_class(listing)[0]]]
        listing = part
    images = ListedImages.of(listing, root, decoder)
    return replace(images, class_names=list(classes), labels=labels)


def _check_packed_labels(config: Config, have_several: bool) -> None:
    separator, url = config.data.label_separator, config.data.data_url
    if have_several and separator is None:
        raise UserError(
            f"label_separator null: the images of {url} were packed with several labels each; give "
            "--label_separator bar"
        )
    if separator is not None and not have_several:
        raise UserError(
            f"label_separator {separator!r}: the images of {url} were packed with one label each; "
            "leave it out, or pack them with scripts/pack_dataset.py --label_separator"
        )


def _check_packed_order(config: Config, names: List[str]) -> None:
    order = config.data.class_order
    is_given = config.origins["class_order"] == parser.COMMAND_LINE
    # In neither order are the classes of a set that numbers them itself.
    of_folders = any(names == sort_classes(names, known) for known in CLASS_ORDERS)
    if is_given and of_folders and names != sort_classes(names, order):
        raise UserError(
            f"class_order {order!r}: the classes of {config.data.data_url} were packed in another "
            f"order ({some_of(names, 3)}); pack them with scripts/pack_dataset.py --class_order "
            f"{order}, or leave class_order out"
        )


def check_classes(config: Config, trained: TrainedClasses, names: List[str]) -> None:
    """Refuses weights whose classes are called otherwise than those of the recipe's data.

    Raises:
        UserError: as of `TrainedClasses.check`.
    """
    trained.check(
        names,
        config.data.data_url,
        knows_order=config.origins["class_order"] != parser.DEFAULT,
        allows_other=config.train.allow_other_classes,
        more_remedies=_subset_remedy(config),
    )


def count_classes(config: Config) -> int:
    """Classes of the data that `set` and `data_url` name.

    Raises:
        UserError: no such folder, or no classes in it.
    """
    root, name = Path(config.data.data_url), config.data.set
    if name in cifar.NUM_CLASSES:
        return cifar.NUM_CLASSES[name]
    if name in idx.SETS:
        return len(idx.SETS[name].class_names)
    if name == "Digits":
        return 10
    if name == "WebDataset":
        return len(tar_classes(root, config.data.class_order))
    if name == "MindRecord":
        return len(read_manifest(root / "train")["class_names"])
    if (lists := _lists_of(config)).are_given():
        return len(listed_classes(root, lists, config.data.class_order))
    return len(list_classes(root))
