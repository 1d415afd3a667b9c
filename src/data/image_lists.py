"""Images whose labels stand in a list: a CSV, or lines of text such as `cats/1.jpg 3`.

The lines of text are those of Caffe's `ImageData` and of mmpretrain's `ann_file`.
"""

from __future__ import annotations

import csv
import functools
import io
import os
import posixpath
import re
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ..errors import UserError, on_one_line, some_of
from ..runtime.memory import check_room
from ..runtime.regular_files import TABLE_BYTES, read_regular
from .classes import classes_of, number_labels, sort_classes
from .find_images import say_once, stamp_of
from .folder_index import Listing, to_listing
from .image_folder import list_classes
from .image_formats import readable_extensions
from .splits import find_splits

_CSV_ENDINGS = (".csv", ".tsv")
# What a header may call the columns, in any case; of several the first of these.
_PATH_NAMES = "path file filename file_name filepath file_path image_path image img id name".split()
_LABEL_NAMES = "label labels class class_name category target class_id".split()
# Characters of a cell or line; more than a path has.
_MOST_CHARS = 8192
_NAMED = 3
_QUOTED = re.compile(r'"[^"]*"')
_UTF16 = (b"\xff\xfe", b"\xfe\xff")

# The line it ends on, path, label.
_Row = Tuple[int, str, str]


# Values of the key `label_separator`.
_SEPARATORS = {"bar": "|", "semicolon": ";", "comma": ",", "space": " "}


class Lists(NamedTuple):
    """The keys `train_list`, `val_list` and `label_separator`; None: there is none."""

    train: Optional[str] = None
    val: Optional[str] = None
    separator: Optional[str] = None

    def are_given(self) -> bool:
        return bool(self.train or self.val)


NO_LISTS = Lists()


class ImageList(NamedTuple):
    """The rows of a list.

    Attributes:
        file: as messages name it.
        lines: of each row, counted from 1.
        paths: as written.
        labels: as written.
    """

    file: str
    lines: List[int]
    paths: List[str]
    labels: List[str]

    def refuse(self, rows: Sequence[int], what: Callable[[int], str], remedy: str) -> None:
        """Raises UserError where there are such rows: what is wrong with the first, and how many.

        Args:
            rows: positions.
            what: position -> a clause.
        """
        if rows:
            lines = [self.lines[row] for row in rows]
            raise _bad_rows(self.file, lines, what(rows[0]), remedy)


def _bad_rows(file: str, lines: Sequence[int], what: str, remedy: str) -> UserError:
    more = some_of([str(line) for line in lines[1:]], _NAMED)
    are = f" ({len(lines)} lines are so: {lines[0]}, {more})" if len(lines) > 1 else ""
    return UserError(f"{file}, line {lines[0]}: {what}{are}; {remedy}")


def listed_classes(root: Path, lists: Lists, class_order: str) -> List[str]:
    """The classes by label: those of `train_list`, else of the folder train/, else of `val_list`.

    Raises:
        UserError: as of `read_list`.
    """
    if lists.train is None and root.is_dir() and "train" in find_splits(root):
        return sort_classes(list_classes(root), class_order)
    key, given = ("train_list", lists.train) if lists.train else ("val_list", lists.val)
    images = read_list(find_list(root, key, given or ""), may_be_empty=lists.separator is not None)
    said = {part for label in set(images.labels) for part in _parts_of(label, lists.separator)}
    if not said:
        raise _no_labels(images)
    return classes_of(said, class_order)


def _no_labels(images: ImageList) -> UserError:
    return UserError(f"{images.file}: no image has a label; write the labels of each")


def _parts_of(label: str, separator: Optional[str]) -> List[str]:
    """The labels in a cell."""
    if separator is None:
        return [label]
    return [part.strip() for part in label.split(_SEPARATORS[separator]) if part.strip()]


def listed_images(root: Path, lists: Lists, split: str, class_names: Sequence[str]) -> Listing:
    """The images of one split, by class and path: the order in which a folder of them is read.

    Without `val_list` the images of `train_list` are those of both splits.

    Args:
        root: the `data_url`, which paths start from.
        class_names: the position is the label.

    Raises:
        UserError: a row names no image, an image twice, or no class; as of `read_list`.
    """
    images, paths = _rows_of_split(root, lists, split)
    by_class: List[List[bytes]] = [[] for _ in class_names]
    for path, labels in zip(paths, _checked_labels(images, class_names, lists)):
        by_class[labels[0]].append(os.fsencode(path))
    _say_empty(images, class_names, [len(found) for found in by_class])
    return to_listing(class_names, [sorted(found) for found in by_class])


def images_with_labels(
    root: Path, lists: Lists, split: str, class_names: Sequence[str]
) -> Tuple[Listing, np.ndarray]:
    """The images of one split by path, as those of one class, and the labels of each.

    The arguments are those of `listed_images`, and so is what it raises.

    Returns:
        The listing, and (N, K) uint8: 1 where an image is of a class.
    """
    images, paths = _rows_of_split(root, lists, split)
    check_room(
        len(paths) * len(class_names),
        f"{len(paths)} images with {len(class_names)} labels each, 1 or 0, of {images.file}",
        "give fewer images or classes",
    )
    found = np.zeros((len(paths), len(class_names)), np.uint8)
    for row, labels in zip(found, _checked_labels(images, class_names, lists)):
        row[labels] = 1
    if not found.any():
        raise _no_labels(images)
    _say_empty(images, class_names, found.sum(axis=0))
    names = [os.fsencode(path) for path in paths]
    order = sorted(range(len(names)), key=names.__getitem__)
    return to_listing([images.file], [[names[at] for at in order]]), found[order]


def _rows_of_split(root: Path, lists: Lists, split: str) -> Tuple[ImageList, List[str]]:
    """The list of a split, and its paths; what of it is trained on too is said."""
    is_val = split == "val" and lists.val is not None
    key, given = ("val_list", lists.val) if is_val else ("train_list", lists.train)
    file = find_list(root, key, given or "")
    images = read_list(file, may_be_empty=lists.separator is not None)
    if lists.separator == "space" and not images.file.lower().endswith(_CSV_ENDINGS):
        raise UserError(
            f"label_separator 'space': {images.file} is a text, where a space ends the path; write "
            "a CSV, or divide the labels by another separator"
        )
    if lists.separator is None:
        _say_separators(images)
    paths = _checked_paths(root, images, lists.separator)
    if is_val and lists.train is not None:
        _warn_of_overlap(root, lists, images.file, paths)
    elif is_val and "train" in (splits := find_splits(root)):
        inside = [path for path in paths if path.startswith(f"{splits['train']}/")]
        if inside:
            where = f"{splits['train']}/, which is trained on"
            say_once(f"{images.file}: {len(inside)} images lie in {where} ({some_of(inside)})")
    return images, paths


def _say_separators(images: ImageList) -> None:
    """Labels that look like several are one class, as long as nobody says otherwise."""
    for name in ("bar", "semicolon"):
        if found := sorted({label for label in images.labels if _SEPARATORS[name] in label}):
            say_once(
                f"{images.file}: labels such as {on_one_line(repr(found[0]), 120)} are one class "
                f"each; if they are several, give --label_separator {name}"
            )


def _say_empty(images: ImageList, class_names: Sequence[str], counts: Sequence[int]) -> None:
    if empty := [name for name, count in zip(class_names, counts) if count == 0]:
        say_once(f"{images.file}: no images of {len(empty)} classes ({some_of(empty)})")


def find_list(root: Path, key: str, given: str) -> Path:
    """The file that a key names: in `root`, else from the working folder.

    Raises:
        UserError: in neither.
    """
    for path in (root / given, Path(given)):
        if os.path.lexists(path):
            return path
    raise UserError(
        f"{key} {given!r}: no such file in data_url {str(root)!r} nor from the working folder; "
        "give the path of a CSV, or of a text with `path label` on each line"
    )


def read_list(path: Path, *, may_be_empty: bool = False) -> ImageList:
    """The rows of a list; a file that stays as it is is read once.

    Args:
        may_be_empty: labels; the image is of no class.

    Raises:
        UserError: it cannot be read, is not UTF-8, has no rows, or one without path and label.
    """
    try:
        return _read_list(str(path), stamp_of(os.stat(path)), may_be_empty)
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror or error}; give a CSV, or a text with `path label` on each "
            "line"
        ) from error


@functools.lru_cache(maxsize=4)
def _read_list(path: str, stamp: Tuple[int, int, int], may_be_empty: bool) -> ImageList:
    text = _text_of(path)
    is_csv = path.lower().endswith(_CSV_ENDINGS)
    rows = list(_rows_of_csv(text, path) if is_csv else _rows_of_text(text))
    if bad := [line for line, name, label in rows if not (name and (label or may_be_empty))]:
        form = "path and label in two columns" if is_csv else "`path label`"
        more = "" if is_csv else "; a file with commas has to be called .csv"
        raise _bad_rows(path, bad, "no path, or no label", f"write {form}, or delete it{more}")
    if not rows:
        raise UserError(f"{path}: no images in it; write a line for each, a path and its label")
    lines, paths, labels = zip(*rows)
    once: Dict[str, str] = {}  # of equal labels one string
    return ImageList(path, list(lines), list(paths), [once.setdefault(t, t) for t in labels])


def _text_of(path: str) -> str:
    data = read_regular(path, TABLE_BYTES)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        kind = "UTF-16" if data.startswith(_UTF16) else "not UTF-8"
        raise UserError(f"{path}, line {line}: {kind}; save it as UTF-8") from error


def _rows_of_text(text: str) -> Iterator[_Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if parts := line.strip().rsplit(None, 1):
            yield (number, *parts) if len(parts) == 2 else (number, parts[0], "")  # type: ignore[misc]


def _rows_of_csv(text: str, file: str) -> Iterator[_Row]:
    first = _QUOTED.sub("", text.lstrip().partition("\n")[0])
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    columns: Optional[_Columns] = None
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if columns is None:
                columns = _find_columns(cells, f"{file}, line {reader.line_num}")
                if columns.has_header:
                    continue
            if max(map(len, cells)) > _MOST_CHARS:
                raise csv.Error(f"a cell of more than {_MOST_CHARS:,} characters")
            if len(cells) != columns.width:
                raise csv.Error(f"{len(cells)} columns, and the first line has {columns.width}")
            yield reader.line_num, cells[columns.path], cells[columns.label]
    except csv.Error as error:
        raise UserError(
            f"{file}, line {reader.line_num}: {on_one_line(error)}; put quotes around a cell that "
            "holds a delimiter, and double the quotes inside it"
        ) from error


class _Columns(NamedTuple):
    """Of a CSV."""

    path: int
    label: int
    width: int
    has_header: bool


def _find_columns(cells: Sequence[str], where: str) -> _Columns:
    """From the first line, which is a header unless it names an image."""
    names = [cell.lower() for cell in cells]
    path = next((names.index(name) for name in _PATH_NAMES if name in names), None)
    label = next((names.index(name) for name in _LABEL_NAMES if name in names), None)
    has_image = any(os.path.splitext(name)[1] in readable_extensions() for name in names)
    if len(cells) == 2 and (path, label) != (None, None) and not has_image:
        path = 1 - label if path is None and label is not None else path
        label = 1 - path if label is None and path is not None else label
    if path is not None and label is not None:
        say_once(f"{where.rpartition(',')[0]}: columns {cells[path]!r} and {cells[label]!r}")
        return _Columns(path, label, len(cells), True)
    is_image = os.path.splitext(names[0])[1] in readable_extensions()
    if is_image and len(cells) == 2:
        return _Columns(0, 1, 2, False)
    found = f"{len(cells)} columns without a header" if is_image else "no header, and no image"
    raise UserError(
        f"{where}: {found}; name the columns path and label in a first line, or write these two "
        "columns alone"
    )


def _checked_paths(root: Path, images: ImageList, separator: Optional[str]) -> List[str]:
    """Below `root`, each there and once."""
    top = os.path.abspath(root)
    paths = [_below(top, path) for path in images.paths]

    def shown(row: int) -> str:
        return on_one_line(repr(images.paths[row]), 120)

    images.refuse(
        [row for row, path in enumerate(paths) if not path],
        lambda row: f"{shown(row)} leads out of data_url {str(root)!r}",
        "give a data_url that holds all images, and paths below it",
    )
    images.refuse(
        _missing_rows(top, paths),
        lambda row: f"no image {shown(row)} in data_url {str(root)!r}",
        "paths start from data_url, have / between folders, and the file's ending",
    )
    first: Dict[str, int] = {}
    twice = [row for row, path in enumerate(paths) if first.setdefault(path, row) != row]
    images.refuse(
        twice,
        lambda row: f"{shown(row)} is in line {images.lines[first[paths[row]]]} too",
        "an image has one line; delete the others"
        + (f", and write its labels into one, divided by a {separator}" if separator else ""),
    )
    return paths


def _below(top: str, path: str) -> str:
    """A path from `top` on; "": it is not below."""
    if os.path.isabs(path):
        path = os.path.relpath(path, top)
    path = posixpath.normpath(path)
    return "" if "\0" in path or path in (".", "..") or path.startswith("../") else path


def _missing_rows(top: str, paths: Sequence[str]) -> List[int]:
    """Rows without a file: each folder is listed once, which is quicker than asking for each."""
    files: Dict[str, frozenset[str]] = {}
    missing = []
    for row, path in enumerate(paths):
        folder, _, name = path.rpartition("/")
        if folder not in files:
            files[folder] = _files_in(f"{top}/{folder}")
        if name not in files[folder]:
            missing.append(row)
    return missing


def _files_in(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_file())
    except OSError:
        return frozenset()


def _checked_labels(images: ImageList, class_names: Sequence[str], lists: Lists) -> List[List[int]]:
    """Positions of the classes of each row: one, or with a separator any number."""
    parts = {label: _parts_of(label, lists.separator) for label in set(images.labels)}
    numbers = number_labels({part for said in parts.values() for part in said}, class_names)
    unknown = {label: [p for p in said if p not in numbers] for label, said in parts.items()}
    images.refuse(
        [row for row, label in enumerate(images.labels) if unknown[label]],
        lambda row: (
            f"label {unknown[images.labels[row]][0]!r} is none of the {len(class_names)} classes "
            f"({some_of(class_names)})"
        ),
        "write one of these",
    )
    found = {label: [numbers[part] for part in said] for label, said in parts.items()}
    return [found[label] for label in images.labels]


def _warn_of_overlap(root: Path, lists: Lists, file: str, paths: Sequence[str]) -> None:
    """Where images that are trained on are evaluated on too."""
    top, path = os.path.abspath(root), find_list(root, "train_list", lists.train or "")
    images = read_list(path, may_be_empty=lists.separator is not None)
    train = {_below(top, path) for path in images.paths}
    if common := [path for path in paths if path in train]:
        say_once(f"{file}: {len(common)} images are in train_list too ({some_of(common)})")
