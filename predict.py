"""Classify images: `python predict.py --pretrained FILE --input IMAGE_OR_FOLDER`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np
from tqdm import tqdm

# Which `python -P` does not do.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from src.args import PredictRun, help_of_keys
from src.checkpoints.named_weights import stage_weights
from src.errors import UserError
from src.report.embeddings import EMBEDDINGS, check_embeddings, write_embeddings
from src.report.image_files import ImageStream, find_images
from src.report.predictions import FORMATS, Prediction, check_format, top_k, write_predictions
from src.runtime.device import prepare_import, setup_device
from src.runtime.entry import CommandParser, parse_recipe, run_parsed, whole
from src.runtime.files import check_output, check_output_folder

_LOGGER = logging.getLogger(__name__)

DESCRIPTION = """\
Classify images: print the likeliest classes of each, or write them as a file or as pictures.

--pretrained FILE is needed: a checkpoint, a .mindir or .onnx of export.py, or the name of published
weights. It and every other key of a recipe are options too; they are listed at the end.

Architecture and classes come from the options and --config, else from the file. Image size,
resizing, cropping and normalisation come from the options, else from the file, else from --config.
Names of classes come from --labels, else from the file."""


def predict(arguments: argparse.Namespace, config: PredictRun) -> None:
    """Predicts all images, writes the result and maybe pictures."""
    _check(arguments)
    prepare_import(config.run)  # weights by name are converted, which imports MindSpore
    config = stage_weights(config)
    root, files = find_images(arguments.input)
    setup_device(config.run, seed=config.train.seed)
    if arguments.output == EMBEDDINGS:
        _embed(arguments, config, root, files)
        return
    from src.report.class_names import class_names
    from src.report.sheets import PredictionSheets
    from src.serving.predictor import open_predictor

    predictor = open_predictor(config)
    names = class_names(
        predictor.num_classes, labels=arguments.labels, of_weights=predictor.class_names
    )
    stream = ImageStream.of_config(predictor.config, root, files)
    folder = arguments.save_pictures
    heat_maps = _heat_maps(predictor.eval_net()) if arguments.heat_maps else None
    sheets = None
    if folder:
        sheets = PredictionSheets(folder, num_classes=predictor.num_classes, heat_maps=heat_maps)
    predictions: List[Prediction] = []
    with tqdm(total=len(files), unit="image", disable=not sys.stderr.isatty()) as bar:
        for batch in stream:
            logits = predictor(batch.image)
            labels, shares = top_k(logits, arguments.top_k, is_multi_label=predictor.is_multi_label)
            found = [
                Prediction(path, best.tolist(), [names[label] for label in best], share.tolist())
                for path, best, share in zip(batch.paths, labels, shares)
            ]
            predictions += found
            if sheets:
                sheets.add(batch.image, found)
            bar.update(len(found))
    _tell_unreadable(arguments, stream, len(files))
    path = write_predictions(predictions, arguments.output, arguments.output_file)
    written = [str(path)] if path else []
    written += [str(sheet) for sheet in sheets.close()] if sheets else []
    _report(len(predictions), len(stream.unreadable), written)


def _embed(arguments: argparse.Namespace, config: PredictRun, root: Path, files: List[str]) -> None:
    """Writes the features of all images."""
    from src.serving.predictor import FeatureExtractor

    extractor = FeatureExtractor(config)
    stream = ImageStream.of_config(extractor.config, root, files)
    paths: List[str] = []
    parts: List[Any] = []
    with tqdm(total=len(files), unit="image", disable=not sys.stderr.isatty()) as bar:
        for batch in stream:
            parts.append(extractor(batch.image))
            paths += batch.paths
            bar.update(len(batch.paths))
    _tell_unreadable(arguments, stream, len(files))
    written = write_embeddings(arguments.output_file, paths, np.concatenate(parts))
    _report(len(paths), len(stream.unreadable), [str(written)])


def _tell_unreadable(arguments: argparse.Namespace, stream: ImageStream, total: int) -> None:
    for message in stream.unreadable:
        _LOGGER.warning("left out: %s", message)
    if len(stream.unreadable) == total:
        raise UserError(f"input {arguments.input!r}: none of {total} images can be read")


def _heat_maps(eval_net: Any) -> Tuple[str, Any]:
    from src.report.heat_maps import create_heat_maps

    return create_heat_maps(eval_net.normalize, eval_net.network)


def _check(arguments: argparse.Namespace) -> None:
    if arguments.output == EMBEDDINGS:
        check_embeddings(arguments.output_file)
        for key in ("save_pictures", "labels", "heat_maps"):
            if getattr(arguments, key):
                raise UserError(f"{key}: is for predictions, not for embeddings; leave it out")
    else:
        check_format(arguments.output, arguments.output_file)
    if arguments.top_k < 1:
        raise UserError(f"top_k {arguments.top_k}: expected 1 or more")
    if arguments.heat_maps and not arguments.save_pictures:
        raise UserError("heat_maps: are drawn into pictures; give --save_pictures DIR")
    if arguments.output_file:
        check_output("output_file", arguments.output_file)
    if arguments.save_pictures:
        check_output_folder("save_pictures", arguments.save_pictures)


def _report(predicted: int, left_out: int, written: List[str]) -> None:
    said = f"{predicted} images predicted, {left_out} left out"
    shown = written if len(written) < 4 else [written[0], "...", written[-1]]
    _LOGGER.info("%s%s", said, f"; wrote {' '.join(shown)}" if shown else "")


def create_parser() -> CommandParser:
    """The options that are no keys of a recipe; the help names those too."""
    parser = CommandParser("predict.py", DESCRIPTION)
    parser.epilog = f"Keys of a recipe, which --config FILE gives too:\n\n{help_of_keys()}"
    parser.add_argument(
        "--input", required=True, help="an image, a folder (searched to any depth) or file:///PATH"
    )
    parser.add_argument(
        "--top_k", type=whole, default=5, help="how many classes are shown per image (default 5)"
    )
    parser.add_argument("--labels", type=Path, help="file of class names: one per line, or JSON")
    parser.add_argument(
        "--output",
        choices=(*FORMATS, EMBEDDINGS),
        default="table",
        help="format of the predictions (default: table); embeddings: the pooled features instead",
    )
    parser.add_argument(
        "--output_file",
        type=Path,
        help="file to write (default: the screen); parquet needs one, and embeddings FILE.npz or "
        "FILE.parquet",
    )
    parser.add_argument(
        "--save_pictures",
        type=Path,
        metavar="DIR",
        help="folder for pictures of the images with their predictions",
    )
    parser.add_argument(
        "--heat_maps",
        action="store_true",
        help="show beside each image where the network looks: by Grad-CAM of the likeliest class "
        "(ConvMixer, ConvNeXt, Twins) or attention rollout (DeiT, CCT, CVT, ViT-Lite)",
    )
    return parser


def completed(config: PredictRun) -> PredictRun:
    """The recipe with what the file of weights says."""
    from src.serving.complete_config import complete_by_file

    return complete_by_file(config)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = create_parser()
    # What is no option of this program is a key of the recipe, and is checked there.
    arguments, keys = parser.parse_with_keys(argv)
    config = parse_recipe(keys, PredictRun, complete=completed)
    return run_parsed(lambda arguments: predict(arguments, config), arguments, config)


if __name__ == "__main__":
    sys.exit(main())
