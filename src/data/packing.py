"""Writes packed data sets, see `packed`."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import sqlite3
import tempfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Protocol, Sequence, Tuple

import numpy as np
import simplejpeg
from mindspore.mindrecord import FileWriter
from PIL import Image
from tqdm import tqdm

from ..errors import EndedBySignal, UserError, on_one_line
from ..runtime.files import (
    can_flush,
    file_sha256,
    give_mode_of_new_file,
    what_helps,
    write_json,
)
from ..runtime.json_files import read_typed
from ..runtime.regular_files import RECORD_BYTES, UNLIMITED, open_regular
from ..runtime.threads import ThreadPool
from .augment.parts import whole
from .augment.resampling import resize_box
from .decode import WHITE, BadImageError, Colour, Decoder
from .packed import FORMAT, MANIFEST, Shard, index_file
from .pixel_budget import BUDGET_PIXELS, PixelsInFlight
from .sources import Source

_PLAN, _STAGING = "plan.json", "unfinished"
# MindRecord's default; offsets of its index count in pages.
_PAGE_BYTES = 1 << 25
_ROWS_PER_WRITE = 256
# Images by which it is judged how many bytes all will take.
_TRIED = 64
_SCHEMA: Dict[str, Dict[str, Any]] = {
    "index": {"type": "int64"},
    "label": {"type": "int32"},  # of images with several labels: (K,), 1 for each
    "image": {"type": "bytes"},
}


class FileSource(Source, Protocol):
    """Images that can be had as files."""

    @property
    def folder(self) -> Path:
        """Where they are."""

    @property
    def decoder(self) -> Decoder:
        """Reads the files."""

    def read_bytes(self, index: int) -> bytes:
        """An image file; raises BadImageError."""


@dataclass(frozen=True)
class PackSettings:
    """Which images are packed, and how.

    Attributes:
        set: what they are, as in a recipe.
        short_side: larger images are shrunk to it, pixels; 0: stored as they are.
        quality: of the JPEGs that shrunk images become, 1..100.
        images_per_shard: of every shard but the last.
        skips_bad: images that cannot be read are left out and listed; otherwise they are an error.
        exif_orientation: shrunk images are turned as their EXIF block says.
        background: what shows through the transparent pixels of shrunk images.
        label_separator: of lists in which images have several labels.
    """

    set: str = "ImageNet"
    short_side: int = 0
    quality: int = 95
    images_per_shard: int = 10_000
    skips_bad: bool = False
    exif_orientation: bool = False
    background: Optional[Colour] = WHITE
    label_separator: Optional[str] = None

    def decoder(self, max_pixels: int = BUDGET_PIXELS) -> Decoder:
        """How the images are read; larger ones than `max_pixels` are not."""
        return Decoder(max_pixels, self.exif_orientation, self.background)


def pack_split(
    source: FileSource, target: Path, settings: PackSettings, *, num_workers: int
) -> Dict[str, Any]:
    """Pack one split, or go on where packing it stopped.

    Every image is decoded, and every record read back and compared.

    Returns:
        The manifest, which is also written.

    Raises:
        UserError: an image cannot be read, `target` holds something else, or the disk is full.
    """
    _check_plan(source, target, settings)
    entries: List[Dict[str, Any]] = []
    try:
        for entry in _shards(source, target, settings, num_workers):
            entries.append(entry)
    except EndedBySignal as ended:
        ended.kept = _what_is_kept(entries, source, target, settings)
        raise
    except OSError as error:
        raise UserError(
            f"{error.filename or target}: {on_one_line(error.strerror or error)}; "
            f"{what_helps(error)}; {_what_is_kept(entries, source, target, settings)}"
        ) from error
    manifest = {
        "format": FORMAT,
        "images": sum(entry["images"] for entry in entries),
        "source_images": len(source),
        "skipped": [reason for entry in entries for reason in entry["skipped"]],
        "class_names": source.class_names,
        "settings": asdict(settings),
        "shards": [{key: e[key] for key in ("file", "images", "bytes", "sha256")} for e in entries],
    }
    write_json(target / MANIFEST, manifest)
    return manifest


def _what_is_kept(
    entries: Sequence[Any], source: FileSource, target: Path, settings: PackSettings
) -> str:
    total = -(-len(source) // settings.images_per_shard)
    return (
        f"{len(entries)} of {total} shards are whole in {target}; the same command goes on with "
        "the next"
    )


def packed_bytes(source: FileSource, settings: PackSettings) -> int:
    """About what the shards will take, judged by images from all over the source.

    Raises:
        UserError: one of them cannot be read.
    """
    indices = range(0, len(source), -(-len(source) // _TRIED))
    writer = _ShardWriter(source, Path(), settings, num_workers=1)
    sizes = [len(writer.prepare(index)[0]) for index in indices]
    return round(len(source) * sum(sizes) / len(sizes))


def _shards(
    source: FileSource, target: Path, settings: PackSettings, num_workers: int
) -> Iterator[Dict[str, Any]]:
    """What is known of each, which is written if it is not there."""
    with tqdm(total=len(source), unit="image", desc=str(target)) as progress:
        for number, start in enumerate(range(0, len(source), settings.images_per_shard)):
            stop = min(start + settings.images_per_shard, len(source))
            shard = target / f"{number:05d}.mindrecord"
            entry = _finished_entry(shard)
            if entry is None:
                writer = _ShardWriter(source, shard, settings, num_workers)
                entry = writer.write(range(start, stop), progress)
            else:
                progress.update(stop - start)
            if entry["images"] + len(entry["skipped"]) != stop - start:
                raise UserError(f"{shard}: {entry['images']} images; delete it and start again")
            yield entry


def _check_plan(source: FileSource, target: Path, settings: PackSettings) -> None:
    digest = hashlib.sha256()
    for index in range(len(source)):
        digest.update(source.file_name(index).encode("utf-8", "surrogateescape") + b"\0")
    plan = {
        "source": str(source.folder.resolve()),  # another folder may have files of these names
        "names_sha256": digest.hexdigest(),
        **asdict(settings),
    }
    plan = json.loads(json.dumps(plan))  # as JSON has it, to compare
    path = target / _PLAN
    if path.is_file():
        try:
            known = read_typed(path, RECORD_BYTES, Dict[str, Any])
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path}: damaged ({on_one_line(error)}); give another output folder"
            ) from error
        # Plans of before lack them.
        before = {"source": plan["source"], "set": "ImageNet", "label_separator": None}
        known = {**before, **known}
        if known != plan:
            differing = ", ".join(sorted(key for key in plan if known.get(key) != plan[key]))
            raise UserError(
                f"{target}: packing was begun with other images or settings ({differing}); give "
                "the same, or another output folder"
            )
    elif target.is_dir() and any(target.iterdir()):
        raise UserError(f"{target}: holds something else, and is left alone; give another folder")
    else:
        target.mkdir(parents=True, exist_ok=True)
        write_json(path, plan)


def _entry_file(shard: Path) -> Path:
    return shard.with_suffix(".json")


class _Entry(Shard):
    """Of a shard that is whole, with what was left out of it."""

    skipped: List[str]


def _finished_entry(shard: Path) -> Optional[Dict[str, Any]]:
    """What is known of a shard that is whole; the file is written last."""
    path = _entry_file(shard)
    try:
        entry = read_typed(path, RECORD_BYTES, _Entry)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: damaged ({on_one_line(error)}); delete it, and run it again"
        ) from error
    is_whole = shard.is_file() and shard.stat().st_size == entry["bytes"]
    return dict(entry) if is_whole and index_file(shard).is_file() else None


@contextlib.contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """An empty folder for the files of a shard: in `target`, or among temporary files.

    MindRecord's index is an SQLite database, which ends where it cannot flush.
    """
    folder = target / _STAGING
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if can_flush(folder):
        yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="pack_") as elsewhere:
            if not can_flush(Path(elsewhere)):
                raise UserError(
                    f"{target}: files there cannot be flushed to the disk, as MindRecord's index "
                    f"has to be, nor in {tempfile.gettempdir()}; set TMPDIR to a folder of a disk "
                    "that can"
                )
            yield Path(elsewhere)
    shutil.rmtree(folder)


@contextlib.contextmanager
def _full_disk_said(draft: Path) -> Iterator[None]:
    """Raises OSError where MindRecord, or SQLite in it, says so by a RuntimeError of many lines."""
    try:
        yield
    except RuntimeError as error:
        if not re.search("No free disk|disk is full", str(error)):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(draft)) from error


class _ShardWriter:
    """Writes one shard in a folder of its own, checks it, and moves it into place."""

    def __init__(
        self, source: FileSource, shard: Path, settings: PackSettings, num_workers: int
    ) -> None:
        self._source = source
        self._shard = shard
        self._settings = settings
        self._num_workers = num_workers
        self._lengths: List[int] = []
        self._checksums: List[int] = []
        self._labels: List[np.ndarray] = []  # of each image: () or (K,)
        self._skipped: List[str] = []

    def write(self, indices: Sequence[int], progress: tqdm) -> Dict[str, Any]:
        with _staging(self._shard.parent) as staging:
            draft = staging / self._shard.name
            self._write(draft, indices, progress)
            entry = {
                "file": draft.name,
                "images": len(self._labels),
                "bytes": draft.stat().st_size,
                "sha256": file_sha256(draft),
                "skipped": self._skipped,
            }
            for finished in (draft, draft.with_suffix(".mindrecord.db"), index_file(draft)):
                # MindRecord makes files that nobody but their owner can read.
                give_mode_of_new_file(finished)
                # A copy where that is another disk; whole once the entry says so.
                shutil.move(finished, self._shard.parent / finished.name, shutil.copyfile)
            write_json(_entry_file(self._shard), entry)
        return entry

    def _write(self, draft: Path, indices: Sequence[int], progress: tqdm) -> None:
        writer = FileWriter(str(draft), shard_num=1)
        shape = list(self._source.labels.shape[1:])
        label = {**_SCHEMA["label"], **({"shape": shape} if shape else {})}
        writer.add_schema({**_SCHEMA, "label": label}, "images with labels")
        writer.add_index(["index"])
        for rows in self._rows(indices, progress):
            with _full_disk_said(draft):
                writer.write_raw_data(rows)
        if not self._labels:
            raise UserError(f"{self._shard}: none of its images can be read; mend the data")
        with _full_disk_said(draft):
            writer.commit()
        offsets = self._offsets(draft)
        self._read_back(draft, offsets)
        np.savez(
            index_file(draft),
            offsets=offsets,
            lengths=np.array(self._lengths, np.int64),
            checksums=np.array(self._checksums, np.uint32),
            labels=np.array(self._labels, np.int32),
        )

    def _rows(self, indices: Sequence[int], progress: tqdm) -> Iterator[List[Dict[str, Any]]]:
        with ThreadPool(self._num_workers, "image-worker") as pool:
            chunks = iter(indices)
            while chunk := list(itertools.islice(chunks, _ROWS_PER_WRITE)):
                rows = []
                prepared = pool.map(self.prepare, chunk, self._source.file_name)
                for index, (data, problem) in zip(chunk, prepared):
                    progress.update()
                    if problem is not None:
                        self._skipped.append(problem)
                        continue
                    label = np.asarray(self._source.labels[index], np.int32)
                    self._lengths.append(len(data))
                    self._checksums.append(zlib.crc32(data))
                    self._labels.append(label)
                    value = label if label.ndim else int(label)
                    rows.append({"index": index, "label": value, "image": data})
                if rows:
                    yield rows

    def prepare(self, index: int) -> Tuple[bytes, Optional[str]]:
        """The bytes to store, or why there are none."""
        with PixelsInFlight():
            return self._prepare_within_budget(index)

    def _prepare_within_budget(self, index: int) -> Tuple[bytes, Optional[str]]:
        try:
            data = self._source.read_bytes(index)
            name = str(self._source.folder / self._source.file_name(index))
            pixels = self._source.decoder.decode(data, name)
        except BadImageError as error:
            if not self._settings.skips_bad:
                raise UserError(f"{error}; replace it, or give --on_bad_image skip") from error
            return b"", str(error)
        short = self._settings.short_side
        if short and min(pixels.shape[:2]) > short:
            pixels = shrunk(pixels, short)
            encoded = simplejpeg.encode_jpeg(
                pixels, quality=self._settings.quality, colorsubsampling="420"
            )
            return bytes(encoded), None
        return data, None

    def _offsets(self, draft: Path) -> np.ndarray:
        """Where each image starts in the file, from MindRecord's own index."""
        with open_regular(draft, UNLIMITED) as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        query = "SELECT PAGE_ID_BLOB, PAGE_OFFSET_BLOB FROM INDEXES ORDER BY ROW_ID"
        database = sqlite3.connect(str(draft) + ".db")
        try:
            places = np.array(database.execute(query).fetchall(), np.int64)
        finally:
            database.close()
        # Before each stand 8 bytes with its length; with several labels those of the row too.
        before = 16 if self._labels[0].ndim else 8
        return int(header["header_size"]) + places[:, 0] * _PAGE_BYTES + places[:, 1] + before

    def _read_back(self, draft: Path, offsets: np.ndarray) -> None:
        with open_regular(draft, UNLIMITED) as file:
            for offset, length, checksum in zip(offsets, self._lengths, self._checksums):
                file.seek(int(offset))
                if zlib.crc32(file.read(length)) != checksum:
                    raise UserError(f"{draft}: reads back otherwise than it was written")
        if len(offsets) != len(self._labels):
            raise UserError(f"{draft}: {len(offsets)} records, not {len(self._labels)}")


def shrunk(pixels: np.ndarray, short_side: int) -> np.ndarray:
    """(H, W, 3) uint8 with the shorter side resized to `short_side`, bicubic, antialiased."""
    height, width = pixels.shape[:2]
    scale = short_side / min(height, width)
    size = (max(round(width * scale), short_side), max(round(height * scale), short_side))
    box, part = (0, 0, height, width), (0, 0, *size)
    return resize_box(whole(pixels), box, size, Image.Resampling.BICUBIC, part)
