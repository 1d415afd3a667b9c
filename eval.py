"""Measure the accuracy of weights on validation images: top-1, top-5 and loss.

usage: python eval.py --pretrained FILE [--KEY VALUE ...]

The scores are printed, and written beside the weights; --report DIR makes a page with pictures.

FILE is a checkpoint, or with `--data_url DIR` a .mindir or .onnx of export.py, or the name of
published weights, or a pattern of files such as 'outputs/*/best.ckpt'.
"""

from __future__ import annotations

import glob
import logging
import math
import os
import sys
import zlib
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

# Which `python -P` does not do.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from src.args import EvalRun, replace
from src.checkpoints.named_weights import stage_weights
from src.configs.parser import COMMAND_LINE
from src.data.classes import TrainedClasses
from src.errors import UserError, on_one_line, some_of
from src.runtime.device import prepare_import, setup_device
from src.runtime.entry import run_entry_point
from src.runtime.files import check_output, check_output_folder
from src.runtime.ranks import World
from src.storage.staging import localize_output, uploads

_LOGGER = logging.getLogger(__name__)


def evaluate_network(config: EvalRun) -> None:
    """Prints one line of scores over the validation set, and writes them beside the weights.

    Of several checkpoints a table too.
    """
    if not config.model.pretrained:
        raise UserError("pretrained null: eval.py needs --pretrained FILE (.ckpt .mindir .onnx)")
    report, results = config.evaluation.report, config.evaluation.results_file
    if report:
        check_output_folder("report", Path(report))
    if results:
        check_output("results_file", Path(results), ".csv")
    if results or _is_pattern(_source(config)):
        _evaluate_all(config, _files(config), Path(results) if results else None)
    else:
        _evaluate(config)


def _is_pattern(source: str) -> bool:
    return glob.has_magic(source) and not Path(source).exists()


def _files(config: EvalRun) -> List[str]:
    source = _source(config)
    if not _is_pattern(source):
        return [source]
    found = sorted(path for path in glob.glob(source, recursive=True) if os.path.isfile(path))
    if not found:
        raise UserError(f"pretrained {source!r}: no file here matches; put a pattern into quotes")
    if config.evaluation.report:
        raise UserError(
            f"report {config.evaluation.report!r}: is of one checkpoint, and pretrained {source!r} "
            f"are {len(found)} files; leave it out, or name one of them"
        )
    return found


def _evaluate_all(config: EvalRun, sources: Sequence[str], results: Optional[Path]) -> None:
    """One after the other; what fails is said, and costs the others nothing."""
    from src.report.score_table import ScoreTable

    world = setup_device(config.run, seed=config.train.seed)
    _check_same_files(sources, world)
    table = ScoreTable(results if world.is_main else None)
    for source in sources:
        try:
            completed, result = _evaluate(replace(config, pretrained=source), world)
        except Exception as error:  # of MindSpore too
            # The other ranks are inside this evaluation: one cannot go on alone.
            if config.run.debug or len(sources) == 1 or world.size > 1:
                raise
            reason = on_one_line(error, 1000)
            _LOGGER.error("%s: no scores: %s", source, reason)
            table.add_failure(source, reason)
        else:
            table.add(replace(completed, pretrained=source), result)
    if world.is_main:
        print(table.text())
    failures = table.failures()
    if failures:
        raise UserError(
            f"pretrained {_source(config)!r}: {len(failures)} of {len(sources)} files have no "
            f"scores, for the reasons above: {some_of(failures)}"
        )


def _check_same_files(sources: Sequence[str], world: World) -> None:
    """Ranks that look on other hosts, or a little later, may find others."""
    from src.runtime.collectives import check_equal_over_ranks

    if world.size > 1:
        names = zlib.crc32("\0".join(sources).encode("utf-8", "surrogateescape"))
        remedy = "give a pattern of files that all hosts share, and that no run writes now"
        check_equal_over_ranks("what pretrained names", float(names), world, remedy=remedy)


def _evaluate(config: EvalRun, world: Optional[World] = None) -> Tuple[EvalRun, Any]:
    """Evaluates one set of weights, prints and writes its scores.

    Args:
        world: None: the device is not set up yet, which is for when inputs are here.

    Returns:
        The recipe that was completed by the weights, and an `EvalResult`.
    """
    given = _with_own_folder(config)
    prepare_import(given.run)  # weights by name are converted, which imports MindSpore
    config = localize_output(stage_weights(given), continues=False)
    world = world or setup_device(config.run, seed=config.train.seed)
    from src.data.imagenet import create_dataset
    from src.runtime.float_status import create_float_status
    from src.trainer.evaluate import evaluate

    weights = _open(config)
    net, config = weights.net, weights.config
    _check_data(config)
    dataset = create_dataset(config, False, world.rank, world.size, trained=weights.trained)
    if config.evaluation.report:
        if world.size > 1:
            raise UserError(
                f"report {config.evaluation.report!r}: is made by one process, not several"
            )
        result = _write_report(config, weights, dataset)
    else:
        status = create_float_status(config.run)
        result = evaluate(net, dataset, world, float_status=status)
    if world.is_main:
        with uploads(given.train.train_url, config, is_main=True):
            _write_result(config, result, is_local=_source(given) == _source(config))
    return config, result


class _Weights(NamedTuple):
    """What is evaluated: a network behind the normalisation, and what its file says."""

    net: Any
    config: EvalRun
    checkpoint: Any  # None: an exported file
    about: Any  # the record within the checkpoint, or beside the exported file
    trained: TrainedClasses


def _open(config: EvalRun) -> _Weights:
    from src.serving.exported_network import is_exported, open_exported
    from src.trainer.build import build_eval_net
    from src.trainer.open_checkpoint import open_checkpoint

    path = Path(_source(config))
    if is_exported(path):
        net, config, record = open_exported(config)
        trained = record.trained_classes(f"{path.suffix[1:]} {str(path)!r}")
        return _Weights(net, config, None, record, trained)
    network, config, checkpoint = open_checkpoint(config)
    net = build_eval_net(config, network)
    return _Weights(net, config, checkpoint, checkpoint.record, checkpoint.trained_classes())


def _with_own_folder(config: EvalRun) -> EvalRun:
    """A train_url is where scores go only when it is given for this evaluation: that of a recipe
    is the folder of a run, maybe another than the weights are of."""
    if config.origins["train_url"] == COMMAND_LINE:
        return config
    return replace(config, train_url=None)


def _check_data(config: EvalRun) -> None:
    """Says what is evaluated on, where the weights say it themselves.

    Raises:
        UserError: they were trained on data that is not here.
    """
    url, origin = config.data.data_url, config.origins["data_url"]
    if origin != _source(config):
        _warn_of_share(config)
        return
    if config.data.set != "Digits" and not Path(url).exists():
        from src.data.idx import SETS

        remedy = f"{SETS[config.data.set].remedy}; " if config.data.set in SETS else ""
        raise UserError(
            f"data_url {url!r}: {origin} was trained on it, but it is not here; {remedy}"
            "give --data_url"
        )
    _LOGGER.info("data of the weights: %s %s", config.data.set, url)


def _warn_of_share(config: EvalRun) -> None:
    """A share that was set aside of the images of training is none of those of a test set."""
    share, origin = config.data.val_share, config.origins["val_share"]
    if config.evaluation.class_subset and share and origin == _source(config):
        _LOGGER.warning(
            "val_share %g, as %s says: a folder without val/ is evaluated in part; --val_share 0 "
            "takes all of its images",
            share,
            origin,
        )


def _source(config: EvalRun) -> str:
    return str(config.model.pretrained)


def _write_result(config: EvalRun, result: Any, *, is_local: bool) -> None:
    """Prints the scores, and writes them into train_url or else beside the weights.

    Args:
        is_local: the weights were not brought here from a URL.
    """
    source = _source(config)
    if not math.isfinite(result.loss):
        _LOGGER.warning(
            "loss %s: some logits are not finite numbers and count as wrong; --amp_level O0 may "
            "cure it",
            result.loss,
        )
    everything = result.all_classes
    over = f"over {result.classes} of {everything.classes} classes: " if everything else ""
    print(f"{over}{result.text()}  images {result.images}  {config.model.arch}  {source}")
    if everything:
        print(f"over all {everything.classes} classes: {everything.text()}")
    if config.train.train_url is None and not is_local:
        _LOGGER.info("the weights are no file here: give --train_url for a file of the scores")
    else:
        _write_file(config, result)


def _write_file(config: EvalRun, result: Any) -> None:
    from src.report.evaluation_file import evaluation_name, write_evaluation

    source, given = _source(config), config.train.train_url
    chosen = {"val_list": config.data.val_list, "class_subset": config.evaluation.class_subset}
    content = {
        "arch": config.model.arch,
        # Whole, so that the same evaluation from another working folder says the same.
        "checkpoint": os.path.abspath(source),
        "weights": "ema" if config.train.ema else "raw",
        "set": config.data.set,
        "data_url": os.path.abspath(config.data.data_url),
        **{key: value for key, value in chosen.items() if value},
        **result.as_json(),
    }
    name = evaluation_name(Path(source), weights=content["weights"], data_url=config.data.data_url)
    try:
        path = write_evaluation(Path(given or Path(source).parent), name, content)
    except OSError as error:
        if given is not None:
            raise UserError(f"train_url {given!r}: cannot be written ({error})") from error
        _LOGGER.warning("no file of the scores (%s); --train_url gives it a folder", error)
        return
    _LOGGER.info("wrote %s", path)


def _write_report(config: EvalRun, weights: _Weights, dataset: Any) -> Any:
    """Evaluates the network, and after it the averaged weights where the checkpoint has both."""
    from src.checkpoints.checkpoint import STATE_PREFIX
    from src.data.imagenet_names import imagenet_names
    from src.report.label_report import LabelCollector, write_label_report
    from src.report.outcomes import Collector, read_real_labels
    from src.report.page import MISTAKES, create_folder, write_report
    from src.runtime.float_status import create_float_status
    from src.trainer.evaluate import evaluate
    from src.trainer.open_checkpoint import load_network

    folder, real = Path(str(config.evaluation.report)), config.evaluation.real_labels
    if real and dataset.is_multi_label:
        raise UserError(f"real_labels {real!r}: are ImageNet's; leave it out for other data")
    if real:
        read_real_labels(Path(real))  # a wrong file is said now, not after the evaluation
    create_folder(folder)
    status = create_float_status(config.run)
    known = imagenet_names()
    names = [known.get(name, name) for name in dataset.class_names]
    net, checkpoint = weights.net, weights.checkpoint

    def one_pass(which: str) -> Any:
        collector = LabelCollector() if dataset.is_multi_label else Collector(keep=MISTAKES)
        result = evaluate(net, dataset, watch=collector.add, float_status=status)
        return collector.outcomes(which, result, dataset.file_name, names), collector

    passes = [one_pass("ema" if config.train.ema else "raw")]
    # Before other weights are loaded: the pictures are of these.
    background = _background(config, weights, passes[0])
    tensors = checkpoint.tensors if checkpoint and not config.train.ema else {}
    if any(name.startswith(f"{STATE_PREFIX}ema.") for name in tensors):
        load_network(net.network, checkpoint.averaged(), config)
        passes.append(one_pass("ema"))
    about = {"facts": _facts(config, weights), "background": background}
    if dataset.is_multi_label:
        page = write_label_report(folder, passes, **about)
    else:
        page = write_report(folder, passes, real_labels=Path(real) if real else None, **about)
    _write_card(folder, config, weights, passes[0][0])
    _LOGGER.info("wrote %s", page)
    return passes[0][0].result


def _background(config: EvalRun, weights: _Weights, first: Any) -> Any:
    """What the page shows beside the scores: the run that made the weights, heat maps, machine."""
    from src.report.heat_maps import create_heat_maps
    from src.report.mistakes import try_heat_maps
    from src.report.page import Background
    from src.runs.run_page import host_section, recipe_section
    from src.runs.weights_page import choice_of, curves_of, recipe_of
    from src.runtime.device import describe_device

    after = [
        recipe_section(config, config.origins, title="Settings of the evaluation"),
        host_section({"device": describe_device(config.run)}),
    ]
    if not weights.checkpoint:
        return Background(after=after)
    known, net = (weights.about, weights.checkpoint.path), weights.net
    heat = None
    if config.data.label_separator is None:  # they are of mistakes
        heat = try_heat_maps(lambda: create_heat_maps(net.normalize, net.network), *first)
    recipe = [*recipe_of(*known), *after]
    return Background(curves_of(*known), recipe, heat, choice_of(*known, config))


def _facts(config: EvalRun, weights: _Weights) -> Dict[str, str]:
    """For the head of the page."""
    from src.runs.weights_page import epochs_of

    epochs = epochs_of(weights.about) if weights.checkpoint else ""
    return {
        "arch": config.model.arch,
        "checkpoint": _source(config),
        **({"epoch": epochs} if epochs else {}),
        "data": config.data.data_url,
        "image size": str(config.model.image_size),
    }


def _write_card(folder: Path, config: EvalRun, weights: _Weights, first: Any) -> None:
    from src.runs.model_card import CARD_TITLES, Card, data_name, write_card

    about, result = weights.about, first.result
    scores = {title: getattr(result, k) for k, title in CARD_TITLES.items() if hasattr(result, k)}
    facts = {"images": str(result.images), "weights": first.weights}
    if config.data.label_separator is None:
        scores["Macro accuracy (%)"] = first.macro_accuracy()
        facts["95 % interval of top-1"] = "{:.2f} to {:.2f}".format(*result.top1_interval)
    if about.started_from:
        facts["started from"] = about.started_from
    card = Card(
        config.model.arch,
        Path(_source(config)).name,
        config.model.image_size,
        data_name(config.data.set, config.data.data_url),
        first.class_names,
        scores,
        about.licence,
        about.published,
        facts,
        config.model.in_chans,
    )
    write_card(folder, card)


def completed(config: EvalRun) -> EvalRun:
    """The recipe with what the file of weights says."""
    from src.serving.complete_config import complete_by_file

    if _is_pattern(_source(config)):  # each of the files says something else
        return config
    return complete_by_file(config)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_entry_point(evaluate_network, argv, EvalRun, complete=completed, about=__doc__)


if __name__ == "__main__":
    sys.exit(main())
