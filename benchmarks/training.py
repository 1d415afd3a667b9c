"""What the training engine costs: the loop around the step, the optimizer within it.

    .venv/bin/python benchmarks/training.py [loop] [optimizer]

loop: CCT-2/3x2 at 16x16, batch 32, ready-made batches: `Trainer.run` (host batch to device,
records, log every 10 steps) beside the same compiled step called with tensors that are on the
device already.
optimizer: AdamW of DeiT-S (batch 32, 224x224) and of that CCT beside the whole step, and beside
torch.optim.AdamW(fused=True) on tensors of the same shapes.

The sides take turns in one process; numbers are medians. Needs requirements-dev.txt (torch).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import mindspore as ms
import numpy as np
from mindspore import Tensor

from src.args import Config, RunConfig, replace
from src.data.dataset import Batch
from src.data.slow_images import SlowImages
from src.errors import UserError
from src.runs.records import Records
from src.runtime.device import setup_device
from src.runtime.entry import CommandParser, positive, run_command
from src.trainer.build import build_network, build_train_step
from src.trainer.loop import Trainer
from src.trainer.run import build_run, build_trainer
from src.trainer.train_one_step import TrainOneStep

_PARTS = ("loop", "optimizer")
BATCH = 32
# So low that learning the one batch by heart does not change what is computed.
LR = 1e-6
CCT = replace(
    Config(), arch="cct_2_3x2_32", image_size=16, num_classes=10, batch_size=BATCH, log_interval=10
)
DEIT = replace(
    Config(),
    arch="deit_small_patch16_224",
    image_size=224,
    num_classes=1000,
    batch_size=BATCH,
    drop_path_rate=0.1,
)


class Seconds(NamedTuple):
    """Medians of the wall clock and of the process's time on the processors."""

    wall: float
    cpu: float


def take_turns(sides: Dict[str, Callable[[], Any]], rounds: int) -> Dict[str, List[Seconds]]:
    """The times of each side, by round; each runs once before, uncounted."""
    for work in sides.values():
        work()
    times: Dict[str, List[Seconds]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            times[name].append(Seconds(time.perf_counter() - wall, time.process_time() - cpu))
    return times


def median(times: Iterable[Seconds]) -> Seconds:
    return Seconds(*(statistics.median(column) for column in zip(*times)))


def medians(sides: Dict[str, Callable[[], Any]], rounds: int) -> Dict[str, Seconds]:
    return {name: median(times) for name, times in take_turns(sides, rounds).items()}


def batch_of(config: Config) -> Batch:
    side, classes = config.model.image_size, config.model.num_classes
    image = np.random.default_rng(0).integers(0, 256, (BATCH, side, side, 3), np.uint8)
    mix = np.tile(np.array([1, 0, 0, 0, 0], np.float32), (BATCH, 1))
    return Batch(image, (np.arange(BATCH) % classes).astype(np.int32), mix)


@dataclasses.dataclass
class ReadyMade:
    """A dataset that costs nothing, in epochs that never end."""

    batch: Batch
    steps_per_epoch: int = 10**9
    lost: Optional[str] = None
    slow_images: SlowImages = dataclasses.field(default_factory=lambda: SlowImages(str))

    def batches(self) -> Iterator[Batch]:
        return itertools.repeat(self.batch)


def trainer_of(config: Config, batch: Batch) -> Trainer:
    ready: Any = ReadyMade(batch, steps_per_epoch=1)  # the schedule is a table of every step
    trainer = build_trainer(config, build_run(config), train_set=ready, val_set=ready)
    ready.steps_per_epoch = 10**9
    return trainer


def bare_steps(step: TrainOneStep, batch: Batch, count: int) -> Callable[[], None]:
    """The compiled step alone; its loss is read as often as the loop does."""
    tensors = [Tensor(array) for array in batch[:3]]
    lr = Tensor(LR, ms.float32)

    def work() -> None:
        for number in range(1, count + 1):
            loss = step(*tensors, lr)[0]
            if number % 10 == 0:
                loss.asnumpy()

    return work


def measure_loop(rounds: int, steps: int = 25) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = replace(CCT, train_url=folder, epochs=10**6)
        batch = batch_of(config)
        trainer = trainer_of(config, batch)
        schedule = np.full_like(trainer.lr_schedule, LR)
        metrics = Path(folder) / "metrics.csv"

        def loop() -> None:
            first = trainer.state.step
            trainer.records = Records(metrics, first_step=first)
            trainer.lr_schedule = schedule[: first + steps]
            trainer.run()

        trainer.train_step.set_train(True)
        sides = {"loop": loop, "step": bare_steps(trainer.train_step, batch, steps)}
        times = take_turns(sides, rounds)
    ours, bare = median(times["loop"]), median(times["step"])
    # A shared machine changes its speed over minutes, so neighbours are compared.
    pairs = zip(times["loop"], times["step"])
    ratio = median(Seconds(one.wall / two.wall, one.cpu / two.cpu) for one, two in pairs)
    print(
        f"loop: {1e3 * ours.wall / steps:.2f} ms a step, bare step {1e3 * bare.wall / steps:.2f} "
        f"ms: {ratio.wall - 1:+.2%}; CPU time {1e3 * ours.cpu / steps:.2f} and "
        f"{1e3 * bare.cpu / steps:.2f} ms: {ratio.cpu - 1:+.2%} ({config.model.arch}, "
        f"batch {BATCH}, medians of {rounds} x {steps} steps and of their ratios)",
        flush=True,
    )


def torch_adamw(shapes: List[tuple]) -> Callable[[], None]:
    import torch

    rng = np.random.default_rng(1)
    weights = [torch.nn.Parameter(torch.tensor(rng.normal(size=s)).float()) for s in shapes]
    for weight in weights:
        weight.grad = torch.full_like(weight, 1e-3)
    return torch.optim.AdamW(weights, lr=1e-4, weight_decay=0.05, fused=True).step


def measure_optimizer(config: Config, rounds: int) -> None:
    network = build_network(config)
    step = build_train_step(config, network).set_train(True)
    weights = step.optimizer.parameters
    grads = ms.mutable(tuple(Tensor(np.full(w.shape, 1e-3, np.float32)) for w in weights))
    lr = Tensor(1e-4, ms.float32)
    tensors = [Tensor(array) for array in batch_of(config)[:3]]
    sides = {
        "ours": lambda: step.optimizer(grads, lr).asnumpy(),
        "torch": torch_adamw([w.shape for w in weights]),
        "step": lambda: step(*tensors, lr)[1].asnumpy(),
    }
    found = medians(sides, rounds)
    ours, theirs, whole = (found[name] for name in ("ours", "torch", "step"))
    print(
        f"optimizer: {1e3 * ours.wall:.2f} ms of a step of {1e3 * whole.wall:.1f} ms: "
        f"{ours.wall / whole.wall:.2%}, of its CPU time {ours.cpu / whole.cpu:.2%}; torch's fused "
        f"AdamW {1e3 * theirs.wall:.2f} ms, ours {ours.wall / theirs.wall:.2f} times that, of CPU "
        f"time {ours.cpu / theirs.cpu:.2f} times ({config.model.arch}, batch {BATCH})",
        flush=True,
    )


def run(args: argparse.Namespace) -> None:
    """Measures the parts that were asked for."""
    unknown = set(args.parts) - set(_PARTS)
    if unknown:
        raise UserError(f"unknown part {unknown.pop()!r}; allowed: {', '.join(_PARTS)}")
    logging.getLogger().setLevel(logging.WARNING)
    setup_device(RunConfig(), seed=1)
    chosen = args.parts or _PARTS
    if "loop" in chosen:
        measure_loop(args.rounds)
    if "optimizer" in chosen:
        measure_optimizer(CCT, 4 * args.rounds)
        measure_optimizer(DEIT, max(1, args.rounds // 3))


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("benchmarks/training.py", __doc__ or "")
    parser.add_argument("parts", nargs="*", help=f"{', '.join(_PARTS)}; default: all")
    parser.add_argument("--rounds", type=positive, default=9, help="turns of each side")
    return run_command(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
