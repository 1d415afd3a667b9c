"""The same training here and in torch: accuracy, and images/s.

    .venv/bin/python benchmarks/accuracy.py --output outputs/accuracy [--epochs 5] [--seeds 0 1 2]

Each recipe is trained by our loop and by torch (timm's network; for CCT the port of the authors'
modules in `vit-pytorch`), in float32, from the same initial weights, on the same augmented batches
in the same order, with the recipe's optimizer as torch has it, the same rate in each step, and the
same smoothing and clipping. Stochastic depth, dropout and averages are off, since each side would
draw its own, and a warmup takes one epoch. So what differs is rounding, which training enlarges:
the sides agree when the mean difference of the last top-1 is at most 0.3 points and twice the
spread over the seeds.

Each training is a process of its own, and its result a file in --output: what is there is not done
again, so the same command goes on after an interruption; one of another recipe is refused. The
sides take turns. Further options are keys of the recipes; what torch's side does not do is refused.

    .venv/bin/pip install --no-deps vit-pytorch einops
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set, Tuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np

from src.args import Config, parse_args, replace, to_yaml
from src.data.imagenet import create_dataset
from src.errors import UserError, on_one_line
from src.optim.schedulers import create_lr_schedule
from src.runs.fonts import create_figure
from src.runtime.entry import CommandParser, positive, run_parsed, whole
from src.runtime.files import check_output_folder, replacing, write_json
from src.runtime.json_files import read_json

RECIPES = tuple(
    str(ROOT / "src" / "configs" / f"{name}_fashion_mnist.yaml")
    for name in ("cct_2_3x2_28", "convnext_mini_32", "deit_mini_28")
)
HERE, TORCH = "here", "torch"
MOST_POINTS, MOST_SPREADS = 0.3, 2.0
CCT = "cct_2_3x2_32"  # the one whose port is built below
# All that torch's side does: another value would be trained here only.
REQUIRED = {
    "optimizer": "adamw",
    "layer_decay": None,
    "clip_mode": "norm",
    "accumulation_step": 1,
    "warmup_mode": "replace",
    "cooldown_epochs": 0,
    "lr_cycles": 1,
    "criterion": "cross_entropy",
    "distillation_type": "none",
    "nonlinearity": None,
    "mix_up": 0.0,
    "cutmix": 0.0,
    "cutmix_minmax": None,
    "re_prob": 0.0,
}
MOST_BYTES = 10**6  # of a result
# What one epoch left: loss and top-1 (percent) of the validation set, images/s of training.
Epoch = Dict[str, float]


def strict(keys: Sequence[str], seed: int, epochs: int) -> Config:
    """The recipe without what each side would draw by itself.

    Raises:
        UserError: it asks for what is not done to torch's side.
    """
    config = parse_args(keys)
    flat, arch = config.flat(), config.model.arch
    for key, value in REQUIRED.items():
        if flat[key] != value:
            needed = "null" if value is None else value
            raise UserError(f"{key} {flat[key]}: torch's side knows {needed} only; set {needed}")
    if arch.startswith(("cct", "cvt", "vit_lite")) and arch != CCT:
        raise UserError(f"arch {arch}: of its family torch's side has {CCT} only; give that")
    arguments = dict(config.model.model_args)
    if arch == CCT:
        arguments["attention_dropout"] = 0.0
    return replace(
        config,
        seed=seed,
        epochs=epochs,
        warmup_length=min(1, config.optim.warmup_length),
        drop_path_rate=0.0,
        model_args=arguments,
        with_ema=False,
        best_by="raw",
        eval_every=1,
        resume=None,
        amp_level="O0",
        save_every=0,
        log_interval=10**6,  # a row for each epoch
    )


# --- here -----------------------------------------------------------------------------------------


def train_here(config: Config, start: Path) -> List[Epoch]:
    """As train.py does; the initial weights go to `start`, by the reference's names."""
    from src.checkpoints.weight_conversion import to_reference_names
    from src.runtime.device import setup_device
    from src.trainer.run import build_run, build_trainer

    setup_device(config.run, seed=config.train.seed)
    logging.getLogger().setLevel(logging.WARNING)
    sets = {f"{split}_set": create_dataset(config, split == "train") for split in ("train", "val")}
    # What an interrupted training leaves is in nobody's way.
    with tempfile.TemporaryDirectory() as folder:
        config = replace(config, train_url=folder)
        trainer = build_trainer(config, build_run(config), **sets)
        network = trainer.eval_net.network
        arrays = {name: parameter.asnumpy() for name, parameter in network.parameters_and_names()}
        with replacing(start) as draft, draft.open("wb") as file:
            np.savez(file, **to_reference_names(arrays, network))
        trainer.run()
        with (Path(folder) / "metrics.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    trained, scored = ([row for row in rows if row[key]] for key in ("loss", "top1"))
    return [
        {
            "val_loss": float(two["val_loss"]),
            "top1": float(two["top1"]),
            "images_per_s": float(one["images_per_s"]),
        }
        for one, two in zip(trained, scored)
    ]


# --- torch ----------------------------------------------------------------------------------------


def torch_network(config: Config) -> Any:
    """The reference implementation of the recipe's network."""
    import torch

    # torchvision, which both packages import, wants these where its compiled library does not load.
    library = torch.library.Library("torchvision", "FRAGMENT")
    _KEPT.append(library)
    for operator in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            library.define(f"{operator}(Tensor d, Tensor s, float iou_threshold) -> Tensor")
    model, side = config.model, {"img_size": config.model.image_size}
    arguments = {"num_classes": model.num_classes, **model.model_args}
    if model.arch == CCT:
        from vit_pytorch import cct

        arguments.pop("attention_dropout")
        sizes = {"embedding_dim": 128, "num_layers": 2, "num_heads": 2, "mlp_ratio": 1}
        tokenizer = {"kernel_size": 3, "stride": 1, "padding": 1, "n_conv_layers": 2}
        off = dict.fromkeys(("dropout_rate", "attention_dropout", "stochastic_depth_rate"), 0.0)
        learnt = {"positional_embedding": "learnable"}
        return cct.CCT(**{**side, **sizes, **tokenizer, **off, **learnt, **arguments})
    import timm

    needs_side = not model.arch.startswith(("convnext", "convmixer"))
    return timm.create_model(model.arch, **arguments, **(side if needs_side else {}))


# A library of torch ends with its handle.
_KEPT: List[Any] = []


def train_torch(config: Config, start: Path) -> List[Epoch]:
    """The same in torch, eager, with all cores."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(config.train.seed)
    model, optim = torch_network(config), config.optim
    from timm.optim import param_groups_weight_decay  # as timm is, once torchvision can be

    with np.load(start) as arrays:
        model.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays})
    skipped: Set[str] = getattr(model, "no_weight_decay", set)()
    groups = param_groups_weight_decay(model, optim.weight_decay, no_weight_decay_list=skipped)
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=optim.beta, eps=optim.eps)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=config.data.label_smoothing)
    train_set = create_dataset(config, training=True)
    val_set = create_dataset(config, training=False)
    steps, epochs = train_set.steps_per_epoch, config.train.epochs
    schedule = create_lr_schedule(
        optim, epochs=epochs, steps_per_epoch=steps, global_batch=config.data.batch_size
    )
    batches = train_set.batches()

    def step(batch: Any, lr: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = float(lr)
        optimizer.zero_grad()
        loss = criterion(model(normalised(batch.image, config)), torch.tensor(batch.label).long())
        loss.backward()
        if optim.clip_global_norm_value:
            torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip_global_norm_value)
        optimizer.step()

    found = []
    for epoch in range(epochs):
        model.train()
        begin = time.perf_counter()
        for lr in schedule[epoch * steps : (epoch + 1) * steps]:
            step(next(batches), lr)
        seconds = time.perf_counter() - begin
        loss, top1 = scores(model.eval(), val_set.batches(), config)
        speed = steps * config.data.batch_size / seconds
        found.append({"val_loss": loss, "top1": top1, "images_per_s": speed})
    return found


def normalised(image: np.ndarray, config: Config) -> Any:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32."""
    import torch

    mean, std = (torch.tensor(values) for values in (config.data.mean, config.data.std))
    return torch.from_numpy(image).float().div(255).sub(mean).div(std).permute(0, 3, 1, 2)


def scores(model: Any, batches: Iterator[Any], config: Config) -> Tuple[float, float]:
    """Cross entropy and top-1 in percent."""
    import torch

    loss, right, count = 0.0, 0, 0
    with torch.inference_mode():
        for batch in batches:
            kept = batch.label >= 0
            logits = model(normalised(batch.image[kept], config)).double()
            label = torch.from_numpy(batch.label[kept]).long()
            loss += torch.nn.functional.cross_entropy(logits, label, reduction="sum").item()
            right += int((logits.argmax(1) == label).sum())
            count += len(label)
    return loss / count, 100 * right / count


# --- both -----------------------------------------------------------------------------------------

SIDES = {HERE: train_here, TORCH: train_torch}


def train_one(job: Dict[str, Any]) -> None:
    """One training, in this process; its result is a file."""
    config = strict(job["keys"], job["seed"], job["epochs"])
    epochs = SIDES[job["side"]](config, Path(job["start"]))
    write_json(Path(job["result"]), {"recipe": job["recipe"], "epochs": epochs})


def train_all(arguments: argparse.Namespace, keys: List[str]) -> Dict[str, Dict[str, List]]:
    """Recipe -> side -> epochs of each seed; what is not in the folder yet is trained."""
    found: Dict[str, Dict[str, List]] = {}
    for recipe in arguments.recipes:
        check_packages(strict(["--config", recipe, *keys], 0, arguments.epochs).model.arch)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for recipe in arguments.recipes:
        name = Path(recipe).stem
        found[name] = {side: [] for side in SIDES}
        for seed in arguments.seeds:
            for side in SIDES:
                epochs = epochs_of(arguments, ["--config", recipe, *keys], seed, side)
                print(f"{name}, seed {seed}, {side}: top-1 {epochs[-1]['top1']:.2f}", flush=True)
                found[name][side].append(epochs)
    return found


def epochs_of(arguments: argparse.Namespace, keys: List[str], seed: int, side: str) -> List[Epoch]:
    """One training's, from its file or else by training now.

    Raises:
        UserError: the file is of another recipe, or cannot be read.
    """
    name, epochs = Path(keys[1]).stem, arguments.epochs
    result = arguments.output / f"{name}_{seed}_{side}_{epochs}.json"
    recipe = to_yaml(strict(keys, seed, epochs))
    if not result.exists():
        start = arguments.output / f"{name}_{seed}_start.npz"
        job = {"side": side, "keys": keys, "seed": seed, "epochs": epochs, "recipe": recipe}
        in_fresh_process({**job, "result": str(result), "start": str(start)})
    try:
        content = read_json(result, MOST_BYTES)
        if content["recipe"] == recipe:
            return list(content["epochs"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{result}: no result ({on_one_line(error)}); delete it") from error
    raise UserError(f"{result}: of another recipe or options; give another --output, or delete it")


def check_packages(arch: str) -> None:
    """Raises UserError where torch's side would fail, after ours has been trained."""
    needed = ["torch", "torchvision", "timm", *(["vit_pytorch", "einops"] if arch == CCT else [])]
    missing = [name.replace("_", "-") for name in needed if not find_spec(name)]
    if missing:
        names = " ".join(missing)
        raise UserError(f"arch {arch}: torch's side needs {names}; pip install --no-deps {names}")


def in_fresh_process(job: Dict[str, Any]) -> None:
    """Raises UserError with the last line of what went wrong."""
    command = [sys.executable, str(Path(__file__).resolve()), "--job", json.dumps(job)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"{job['side']}: {lines[-1].removeprefix('error: ')}")


def compare(name: str, sides: Dict[str, List[List[Epoch]]]) -> Tuple[List[str], bool]:
    """Lines of the table, an epoch each, and the verdict; whether the claim holds."""
    values = {
        key: {side: np.array([[e[key] for e in run] for run in sides[side]]) for side in SIDES}
        for key in ("top1", "val_loss", "images_per_s")
    }
    top1, loss = values["top1"], values["val_loss"]
    lines = [
        f"| {name} | {epoch + 1} | {top1[HERE][:, epoch].mean():.2f} | "
        f"{top1[TORCH][:, epoch].mean():.2f} | {loss[HERE][:, epoch].mean():.4f} | "
        f"{loss[TORCH][:, epoch].mean():.4f} |"
        for epoch in range(top1[HERE].shape[1])
    ]
    last = {side: top1[side][:, -1] for side in SIDES}
    difference = float(last[HERE].mean() - last[TORCH].mean())
    spread = float(np.sqrt(np.mean([np.var(last[side], ddof=1) for side in SIDES])))
    holds = abs(difference) <= min(MOST_POINTS, MOST_SPREADS * spread)
    # The first epoch compiles.
    ratios = values["images_per_s"][HERE][:, 1:] / values["images_per_s"][TORCH][:, 1:]
    verdict = (
        f"{name}: top-1 here minus torch {difference:+.2f} points, spread over seeds {spread:.2f}: "
        f"{'they agree' if holds else 'THEY DIFFER'}"
    )
    if ratios.size:
        speeds = [statistics.median(values["images_per_s"][side][:, 1:].ravel()) for side in SIDES]
        verdict += (
            f"; {speeds[0]:.0f} images/s here, {speeds[1]:.0f} in torch, median ratio "
            f"{statistics.median(ratios.ravel()):.2f}"
        )
    return [*lines, "", verdict], holds


def draw(found: Dict[str, Dict[str, List]], picture: Path) -> None:
    """Top-1 of both sides by epoch, a panel for each network, a line for each seed."""
    figure, panels = create_figure(1, len(found), figsize=(4 * len(found), 3.2), squeeze=False)
    for panel, (name, sides) in zip(panels[0], found.items()):
        for side, style in ((TORCH, "C1s-"), (HERE, "C0.--")):
            for number, epochs in enumerate(sides[side]):
                heights = [epoch["top1"] for epoch in epochs]
                label = side if number == 0 else None
                panel.plot(range(1, len(heights) + 1), heights, style, lw=1, label=label)
                panel.set_xticks(range(1, len(heights) + 1))
        panel.set_title(name.removesuffix("_fashion_mnist"), fontsize=10)
        panel.set_xlabel("epoch")
        panel.legend(fontsize=8)
    panels[0][0].set_ylabel("validation top-1, percent")
    with replacing(picture) as draft:
        figure.savefig(draft, dpi=90)


def run(arguments: argparse.Namespace, keys: List[str]) -> None:
    """Trains what is missing, prints the table, draws the picture.

    Raises:
        UserError: a claim does not hold, or there is nothing to compare.
    """
    if len(set(arguments.seeds)) < max(2, len(arguments.seeds)):
        raise UserError(
            f"seeds {arguments.seeds}: a spread needs two or more, each once; give --seeds 0 1"
        )
    check_output_folder("output", arguments.output)
    found = train_all(arguments, keys)
    print("| network | epoch | top-1 here | in torch | loss here | in torch |\n" + "|---" * 6 + "|")
    results = [compare(name, sides) for name, sides in found.items()]
    for lines, _ in results:
        print("\n".join(lines))
    draw(found, arguments.output / "accuracy.png")
    if not all(holds for _, holds in results):
        raise UserError("the sides differ by more than the claim, see above")


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("benchmarks/accuracy.py", __doc__ or "")
    parser.add_argument("--output", type=Path, default=Path("outputs/accuracy"), help="results")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), help="YAML files")
    parser.add_argument("--epochs", type=positive, default=5, help="of each training")
    parser.add_argument("--seeds", type=whole, nargs="+", default=[0, 1, 2], help="two or more")
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    arguments, keys = parser.parse_with_keys(argv)
    if arguments.job:
        return run_parsed(lambda given: train_one(given.job), arguments)
    return run_parsed(lambda given: run(given, keys), arguments)


if __name__ == "__main__":
    sys.exit(main())
