"""From a checkpoint to a file that serves: MINDIR, ONNX or AIR, compared with the network."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable, List, Optional, cast

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from PIL import Image

from ..args import ExportRun, PredictRun, replace
from ..checkpoints.checkpoint import Checkpoint
from ..data.digits import read_digits
from ..errors import UserError, on_one_line
from ..overrides import without_overrides
from ..runtime import compat
from ..runtime.files import check_output, file_sha256
from ..trainer.build import build_network
from ..trainer.evaluate import EvalNet
from ..trainer.open_checkpoint import open_checkpoint
from .converter_config import write_converter_configs
from .export_record import (
    TOLERANCE,
    ExportRecord,
    Input,
    Separator,
    record_path,
    transform_of,
    write_record,
)
from .exported_network import load_mindir
from .input_format import as_input, normalize_within
from .onnx_export import INPUT, build_onnx, prepare_for_onnx

_LOGGER = logging.getLogger(__name__)

_SUFFIXES = {"MINDIR": ".mindir", "ONNX": ".onnx", "AIR": ".air"}
# A cell over numpy batches: what a file computes.
Predict = Callable[[np.ndarray], np.ndarray]
# Number of classes and what the weights call them -> a name for each.
NameClasses = Callable[[int, Optional[List[str]]], List[str]]


def check_export(config: ExportRun) -> None:
    """Refuses what cannot work, before any weight is read.

    Raises:
        UserError: a file that cannot be written, AIR away from an Ascend, ONNX without its
            packages, or a free batch where it does not run.
    """
    form, target = config.export.file_format, config.run.device_target
    _check_place(config)
    if form == "AIR" and target != "Ascend":
        raise UserError(
            f"file_format AIR: MindSpore writes it on an Ascend only, device_target is {target}; "
            "give --file_format MINDIR, which every device writes and MindSpore Lite reads"
        )
    if form == "AIR" and config.export.dynamic_batch:
        raise UserError("dynamic_batch True: AIR files have a fixed batch; give --batch_size N")
    if form == "ONNX":
        missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
        if missing:
            raise UserError(
                f"file_format ONNX: needs {' and '.join(missing)}; pip install -r "
                "requirements-onnx.txt"
            )
    is_free = form == "MINDIR" and config.export.dynamic_batch
    if is_free and not compat.loads_mindir_of_any_batch():
        raise UserError(
            f"dynamic_batch True: MindSpore {compat.version()} crashes on such MINDIR files; give "
            "--batch_size N"
        )


def output_path(config: ExportRun) -> Path:
    """The file to write: by default beside the checkpoint, with its name."""
    suffix = _SUFFIXES[config.export.file_format]
    if config.export.bundle:
        return Path(config.export.bundle) / f"network{suffix}"
    return Path(config.export.output or Path(str(config.model.pretrained)).with_suffix(suffix))


def _check_bundle(config: ExportRun) -> None:
    folder, given = Path(str(config.export.bundle)), f"bundle {config.export.bundle!r}"
    if config.export.output is not None:
        raise UserError(f"{given}: holds the file; leave --output out")
    if config.export.file_format == "AIR":
        raise UserError(f"{given}: nothing here reads AIR; give --file_format MINDIR or ONNX")
    if os.path.lexists(folder):
        raise UserError(f"{given}: is there already; give another --bundle, or delete it")
    check_output("bundle", folder)


def _check_place(config: ExportRun) -> None:
    if config.export.bundle:
        _check_bundle(config)
        return
    path, suffix = output_path(config), _SUFFIXES[config.export.file_format]
    if path.suffix != suffix:
        raise UserError(
            f"output {str(path)!r}: files of {config.export.file_format} end in {suffix}"
        )
    if config.export.output is None and path.exists():
        raise UserError(
            f"output null: {path} is there already; give --output FILE, which is written over"
        )
    if config.export.output is not None or path.parent.is_dir():
        check_output("output", path)


def export_checkpoint(config: ExportRun, name_classes: NameClasses) -> None:
    """Writes the file and its record, or a bundle, and prints how far it is from the network.

    Args:
        name_classes: for a bundle.

    Raises:
        UserError: weights that do not fit, a file that cannot be written.
    """
    # Files hold no operators of this package: none of their readers knows them.
    with without_overrides():
        network, config, checkpoint = open_checkpoint(replace(config, amp_level="O0"))
        cell = _with_normalisation(config, network)
    if config.export.bundle and config.model.in_chans != 3:
        raise UserError(
            f"bundle {config.export.bundle!r}: its images are RGB, and in_chans is "
            f"{config.model.in_chans}; leave it out, and give --output"
        )
    if config.export.bundle and checkpoint.record.label_separator(str(checkpoint.path)):
        raise UserError(
            f"bundle {config.export.bundle!r}: its program names one class for an image, and the "
            "network was trained with several (label_separator); leave it out, and give --output"
        )
    path = output_path(config)
    place = path.parent if config.export.bundle else path
    try:
        with tempfile.TemporaryDirectory(prefix=".export-", dir=place.parent) as beside:
            folder = Path(beside) / place.name if config.export.bundle else Path(beside)
            folder.mkdir(exist_ok=True)  # with the mode of a new folder
            draft = _write_draft(config, cell, path, folder)
            record = _record_of(config, draft, checkpoint)
            write_record(draft, record)
            if config.export.bundle:
                names = name_classes(record.num_classes, record.class_names)
                _finish_bundle(config, cell, draft, names)
            else:
                _publish(config, draft, path)
    except OSError as error:
        key = "bundle" if config.export.bundle else "output"
        raise UserError(f"{key} {str(place)!r}: cannot be written ({error})") from error


def _publish(config: ExportRun, draft: Path, path: Path) -> None:
    """Gives a draft and its record their names."""
    record_path(path).unlink(missing_ok=True)  # it may be of an older file
    for file in (draft, record_path(draft)):
        os.replace(file, path.with_name(file.name))
    print(f"wrote {path} and {record_path(path).name}")
    if config.export.write_converter_config:
        for written in write_converter_configs(config, path):
            print(f"wrote {written}")


def _finish_bundle(config: ExportRun, cell: nn.Cell, draft: Path, names: List[str]) -> None:
    """Makes a bundle of the folder of the draft, checks it, and gives it its name."""
    # They load the compiler of the input pipeline.
    from .bundle import write_bundle
    from .bundle_check import check_bundle, explain

    if config.export.write_converter_config:
        write_converter_configs(config, draft)
    form, folder = config.serving.input, Path(str(config.export.bundle))

    def predict(pixels: np.ndarray) -> np.ndarray:
        return cell(Tensor(as_input(form, config, pixels))).asnumpy()

    write_bundle(config, draft.parent, draft.name, predict, names)
    wrong = explain(list(check_bundle(draft.parent, PredictRun(run=config.run))))
    if wrong:
        raise UserError(f"bundle {str(folder)!r}: {wrong}; it is not kept")
    os.rename(draft.parent, folder)
    print(f"wrote {folder}: {draft.name}, five images with their logits, bundle.tsv")


def _write_draft(config: ExportRun, cell: nn.Cell, path: Path, beside: Path) -> Path:
    """A file in the folder `beside` that was compared with the network, to be renamed to `path`."""
    images = example_images(config)
    expected = cell(Tensor(images)).asnumpy()
    # MindSpore 2.0 exports to no path with a space or a letter beyond ASCII.
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / f"draft{path.suffix}"
        predict = _EXPORTERS[config.export.file_format](config, cell, images, exported)
        if not exported.is_file():
            raise UserError(
                f"output {str(path)!r}: the framework splits networks of this size over several "
                "files, which is not supported"
            )
        _compare(predict, images, expected, path)
        draft = beside / path.name
        shutil.copyfile(exported, draft)  # not its mode: the framework makes files unwritable
    return draft


def _compare(predict: Predict, images: np.ndarray, expected: np.ndarray, path: Path) -> None:
    try:
        found = predict(images)
    except Exception as error:  # whatever the runtime's loader met
        raise UserError(
            f"output {str(path)!r}: cannot be loaded back ({on_one_line(error)})"
        ) from error
    difference = float(np.abs(found - expected).max())
    limit = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    print(f"largest difference of {expected.size} logits from the network's: {difference:.3g}")
    if not difference <= limit:
        raise UserError(
            f"output {str(path)!r}: its logits differ from the network's by {difference:.3g}, "
            f"allowed: {limit:.3g}; it is not kept"
        )


def _with_normalisation(config: ExportRun, network: nn.Cell) -> nn.Cell:
    return EvalNet(normalize_within(config.serving.input, config), network).set_train(False)


def example_images(config: ExportRun) -> np.ndarray:
    """Handwritten digits as the exported network takes them, (B, ...); B is 3 when it is free."""
    side, mode = config.model.image_size, {1: "L", 3: "RGB", 4: "RGBA"}[config.model.in_chans]
    count = 3 if config.export.dynamic_batch else config.serving_batch()
    pixels = np.stack(
        [
            np.asarray(Image.fromarray(digit).resize((side, side)).convert(mode))
            for digit in read_digits(count)
        ]
    ).reshape(count, side, side, config.model.in_chans)
    return as_input(config.serving.input, config, pixels)


def _export_mindir(config: ExportRun, cell: nn.Cell, images: np.ndarray, draft: Path) -> Predict:
    spec = Tensor(images)
    if config.export.dynamic_batch:
        spec = Tensor(shape=[None, *images.shape[1:]], dtype=spec.dtype)
    ms.export(cell, spec, file_name=str(draft.with_suffix("")), file_format="MINDIR")
    return lambda batch: load_mindir(draft)(Tensor(batch)).asnumpy()


def _export_onnx(config: ExportRun, cell: nn.Cell, images: np.ndarray, draft: Path) -> Predict:
    import onnx

    with without_overrides():
        twin = _with_normalisation(config, build_network(config))
    for mine, source in zip(_parameters(twin), _parameters(cell)):
        mine.set_data(source)
    prepare_for_onnx(twin)
    model = build_onnx(twin, images, draft.parent, dynamic=config.export.dynamic_batch)
    onnx.save(model, str(draft))

    def predict(batch: np.ndarray) -> np.ndarray:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(draft), providers=["CPUExecutionProvider"])
        return session.run(None, {INPUT: batch})[0]

    return predict


def _parameters(cell: nn.Cell) -> Any:
    return cell.network.get_parameters()


def _export_air(config: ExportRun, cell: nn.Cell, images: np.ndarray, draft: Path) -> Predict:
    ms.export(cell, Tensor(images), file_name=str(draft.with_suffix("")), file_format="AIR")
    # Nothing but an Ascend runtime reads AIR: there is nothing to compare with.
    print(
        "an AIR file cannot be loaded back by MindSpore; its logits are not compared. MindSpore "
        "2.10 calls the format deprecated: MINDIR takes its place"
    )
    return lambda batch: cell(Tensor(batch)).asnumpy()


_EXPORTERS = {"MINDIR": _export_mindir, "ONNX": _export_onnx, "AIR": _export_air}


def _record_of(config: ExportRun, path: Path, checkpoint: Checkpoint) -> ExportRecord:
    trained, said = checkpoint.trained_classes(), checkpoint.record
    return ExportRecord(
        arch=config.model.arch,
        num_classes=config.model.num_classes,
        image_size=config.model.image_size,
        input=cast(Input, config.serving.input),
        batch_size=None if config.export.dynamic_batch else config.serving_batch(),
        transform=transform_of(config),
        sha256=file_sha256(path),
        mindspore=compat.version(),
        class_names=trained.names,
        is_converted=trained.is_converted,
        source=said.source,
        source_sha256=said.sha256,
        published=said.published,
        started_from=said.started_from,
        licence=said.licence,
        in_chans=config.model.in_chans,
        label_separator=cast(Optional[Separator], said.label_separator(str(checkpoint.path))),
    )
