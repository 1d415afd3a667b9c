"""Evaluation images as files for a program that reads no images: inputs, manifest and labels.

    FOLDER/settings.json         what the inputs were made from and how
    FOLDER/input/000000.bin ...  one batch each, in the dataset's order; the last is filled up
    FOLDER/label.json            labels by relative path, in the order of the images
    FOLDER/manifest.tsv          shape, dtype, and a CRC-32 for each file; written last

A folder that is not finished is gone on with; one that was made from something else is refused.
"""

from __future__ import annotations

import itertools
import json
import logging
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
from tqdm import tqdm

from ..args import Config, PreprocessRun
from ..data import sampler
from ..data.classes import TrainedClasses
from ..data.dataset import BadImages, clamp_workers
from ..data.rows import Rows, Shape
from ..data.samples import EvalSample
from ..data.sources import Source, open_source
from ..data.transforms_factory import create_eval_transform
from ..data.workers import batches_of, check_room_for_batches
from ..errors import EndedBySignal, UserError
from ..runtime.files import write_whole
from ..runtime.regular_files import FileTooLarge, NoRegularFile, read_regular
from .export_record import transform_of
from .input_format import as_input, image_shape, takes_pixels

_LOGGER = logging.getLogger(__name__)

MANIFEST, LABELS, SETTINGS = "manifest.tsv", "label.json", "settings.json"
_VERSION = 1


@dataclass(frozen=True)
class InputFile:
    """One file of inputs: its name below the folder, its images and its CRC-32."""

    name: str
    images: int
    crc32: int


class InputWriter:
    """Writes a dataset's evaluation images below `folder`.

    Args:
        config: sections model, data, input.
        batch_size: images of each file.
    """

    def __init__(self, config: PreprocessRun, source: Source, folder: Path, batch_size: int):
        self._config, self._source = config, source
        self._form = config.serving.input
        self._folder, self._batch_size = folder, batch_size
        self._num_files = -(-len(source) // batch_size)
        self._skips_bad = config.data.on_bad_image == "skip"
        self._labels = [int(label) for label in source.labels]

    def write(self) -> int:
        """Writes what is missing and returns the number of files; all there is is whole.

        Raises:
            UserError: an image cannot be read, or the folder holds inputs of other settings.
            OSError: the folder cannot be written.
        """
        (self._folder / "input").mkdir(parents=True, exist_ok=True)
        names = [self._source.file_name(index) for index in range(len(self._source))]
        self._claim(names)
        files = list(self._finished())
        try:
            self._write_rest(files)
        except EndedBySignal as ended:
            ended.kept = f"{len(files)} of {self._num_files} inputs are whole in {self._folder}" + (
                "" if self._skips_bad else "; the same command goes on with the next"
            )
            raise
        labels = {
            "dataset_name": self._config.data.set,
            "num_classes": self._config.model.num_classes,
            "batch_size": self._batch_size,
            "labels": dict(zip(names, self._labels)),
        }
        write_whole(self._folder / LABELS, _json(labels))
        write_whole(self._folder / MANIFEST, self._manifest(files).encode())
        return len(files)

    def _write_rest(self, files: List[InputFile]) -> None:
        """Adds to the files that are there the others."""
        with tqdm(total=len(self._source), unit="image", initial=self._images(files)) as bar:
            bad = BadImages(self._source, self._config.data, len(self._source))
            lost = None
            for number, rows in enumerate(self._rows(len(files)), len(files)):
                bad.add(rows.bad)
                files.append(self._write_file(number, rows))
                bar.update(files[-1].images)
                lost = rows.lost
            bad.report()
        if lost:
            _LOGGER.warning("%s; went on without", lost)

    @property
    def _shape(self) -> Tuple[int, ...]:
        return (self._batch_size, *image_shape(self._form, self._config))

    @property
    def _dtype(self) -> str:
        return "uint8" if takes_pixels(self._form) else "float32"

    def _images(self, files: List[InputFile]) -> int:
        return sum(file.images for file in files)

    def _settings(self, names: List[str]) -> Dict[str, Any]:
        listing = "\n".join(names).encode("utf-8", "surrogateescape")
        return {
            "version": _VERSION,
            "data_path": str(Path(self._config.data.data_url).resolve()),
            "images": len(names),
            "names_crc32": zlib.crc32(listing),
            "input": self._form,
            "on_bad_image": self._config.data.on_bad_image,
            "shape": list(self._shape),
            "transform": transform_of(self._config),
        }

    def _claim(self, names: List[str]) -> None:
        path, mine = self._folder / SETTINGS, _json(self._settings(names))
        if path.exists() and not self._is_claimed(path, mine):
            raise UserError(
                f"result_path {str(self._folder)!r}: holds inputs of another dataset, transform, "
                "input or batch; delete it, or give another --result_path"
            )
        write_whole(path, mine)
        (self._folder / MANIFEST).unlink(missing_ok=True)

    @staticmethod
    def _is_claimed(path: Path, mine: bytes) -> bool:
        try:
            return read_regular(path, len(mine)) == mine
        except (NoRegularFile, FileTooLarge):
            return False

    def _finished(self) -> Iterator[InputFile]:
        """Whole files that an earlier run left; which images it skipped is not known."""
        size = int(np.prod(self._shape)) * np.dtype(self._dtype).itemsize
        for number in range(0 if self._skips_bad else self._num_files):
            path = self._folder / self._name(number)
            if not path.is_file() or path.stat().st_size != size:
                return
            yield self._describe(number, read_regular(path, size))

    @staticmethod
    def _name(number: int) -> str:
        return f"input/{number:06d}.bin"

    def _rows(self, first: int) -> Iterator[Rows]:
        config = self._config
        keys = sampler.eval_keys(
            len(self._source), batch_size=self._batch_size, rank=0, world_size=1
        )
        model = config.model
        shape = Shape(self._batch_size, model.image_size, 0, model.in_chans)
        check_room_for_batches(shape, config)
        return batches_of(
            EvalSample(self._source, create_eval_transform(config), skips_bad=self._skips_bad),
            itertools.islice(keys, first * self._batch_size, None),
            shape,
            num_workers=clamp_workers(config.data.num_parallel_workers),
            in_processes=config.data.python_multiprocessing,
            file_name=self._source.file_name,
        )

    def _write_file(self, number: int, rows: Rows) -> InputFile:
        for position in np.flatnonzero(rows.label == sampler.PADDING):
            index = number * self._batch_size + int(position)
            if index < len(self._labels):
                self._labels[index] = sampler.PADDING  # it cannot be read, and is not scored
        data = as_input(self._form, self._config, rows.image).tobytes()
        write_whole(self._folder / self._name(number), data)
        return self._describe(number, data)

    def _describe(self, number: int, data: bytes) -> InputFile:
        images = min(self._batch_size, len(self._source) - number * self._batch_size)
        return InputFile(self._name(number), images, zlib.crc32(data))

    def _manifest(self, files: List[InputFile]) -> str:
        return manifest_text(self._config, self._dtype, self._shape, files)


def manifest_text(
    config: Config, dtype: str, shape: Tuple[int, ...], files: Sequence[InputFile]
) -> str:
    """What manifest.tsv says of files of the shape (B, ...), uint8 or float32."""
    head = {
        "version": _VERSION,
        "dtype": dtype,
        "shape": ",".join(map(str, shape)),
        "images": sum(file.images for file in files),
        "transform": json.dumps(transform_of(config)),
    }
    lines = [f"{key}\t{value}" for key, value in head.items()]
    lines += [f"file\t{file.name}\t{file.images}\t{file.crc32:08x}" for file in files]
    return "\n".join([*lines, f"end\t{len(files)}"]) + "\n"


def write_inputs(
    config: PreprocessRun, *, batch_size: int, trained: Optional[TrainedClasses] = None
) -> int:
    """Writes the files of `result_path`, and returns how many inputs there are.

    Args:
        trained: what the network they are for knows of its classes.

    Raises:
        UserError: as of `InputWriter.write` and `open_source`, or the folder cannot be written.
    """
    folder = Path(config.preprocess.result_path)
    source = open_source(config, False, trained)
    if source.labels.ndim == 2:
        raise UserError(
            f"label_separator {config.data.label_separator!r}: the C++ program names one class for "
            "an image; evaluate the exported file with eval.py --pretrained FILE"
        )
    try:
        return InputWriter(config, source, folder, batch_size).write()
    except OSError as error:
        raise UserError(
            f"result_path {str(folder)!r}: cannot be written ({error}); give another one"
        ) from error


def _json(value: Dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
