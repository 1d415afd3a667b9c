"""Speed of training and inference: images/s, ms per step, wait for data, memory, compilation.

    .venv/bin/python benchmarks/run.py --arch convnext_tiny --batch_size 8 --compare timm
    .venv/bin/python benchmarks/run.py --config src/configs/cct_2_3x2_32_digits.yaml

Every key of a recipe is an option. With --config the images come from the recipe's data, through
its augmentation, and the wait for them is measured; with --arch alone, or --in_memory, one batch is
reused and there is no wait. Each measurement is a process of its own; with --compare timm the two
take turns, on one batch in memory, and what counts is the median over all rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from src.args import Config, parse_args
from src.errors import UserError
from src.run_length import schedule_epochs
from src.runtime.entry import CommandParser, positive, run_parsed
from src.runtime.files import check_output, write_json

PHASES = ("training", "inference")
HERE, TIMM = "here", "timm"
COLUMNS = (
    ("side", "{side}"),
    ("phase", "{phase}"),
    ("batch", "{batch_size}"),
    ("images/s", "{images_per_s:.1f}"),
    ("ms p50", "{ms_p50:.1f}"),
    ("ms p95", "{ms_p95:.1f}"),
    ("data wait", "{wait}"),
    ("peak GiB", "{peak_gib:.2f}"),
    ("compile s", "{compile_s:.1f}"),
    ("x timm", "{times_timm}"),
)
Times = Dict[str, Any]


def timed(batches: Iterator[Any], run: Callable[[Any], Any], steps: int) -> Times:
    """Seconds of each step, whole and waiting for its batch. The first, which compiles, is apart;
    the second is not counted.
    """
    first = next(batches)
    start = time.perf_counter()
    run(first)
    compiling = time.perf_counter() - start
    run(next(batches))
    whole, waits = [], []
    for _ in range(steps):
        start = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - start)
        run(batch)
        whole.append(time.perf_counter() - start)
    return {"first_s": compiling, "seconds": whole, "waits": waits}


# --- the two sides, each in a process of its own --------------------------------------------------


def completed(config: Config, in_memory: bool) -> Config:
    """With sizes where the recipe leaves them open: of the data, or else of the architecture."""
    from src.checkpoints.complete_config import complete_by_data, complete_sizes
    from src.models.registry import resolve

    if in_memory:
        return complete_sizes(config, num_classes=int(resolve(config.model.arch)[1]["num_classes"]))
    return complete_by_data(config)


def in_memory_batch(config: Config) -> Any:
    """Random pixels and labels, unmixed."""
    import numpy as np

    from src.data.augment.random_erasing import BOX_COLUMNS
    from src.data.dataset import Batch

    size, side, data = config.data.batch_size, config.model.image_size, config.data
    rng = np.random.default_rng(0)
    columns = 5 + (BOX_COLUMNS * data.re_count if data.re_prob > 0 else 0)
    mix = np.zeros((size, columns), np.float32)
    mix[:, 0] = 1.0
    image = rng.integers(0, 256, (size, side, side, 3), dtype=np.uint8)
    return Batch(image, rng.integers(0, config.model.num_classes, size).astype(np.int32), mix)


def measure_here(config: Config, phase: str, steps: int, in_memory: bool) -> Times:
    """This repository on this machine."""
    from src.runtime.device import describe_device, peak_memory_gib, setup_device

    setup_device(config.run, seed=config.train.seed)
    import mindspore as ms

    from src.data.imagenet import create_dataset
    from src.trainer.build import build_eval_net, build_network, build_train_step

    config = completed(config, in_memory)
    training = phase == "training"
    batches: Iterator[Any] = (
        itertools.repeat(in_memory_batch(config))
        if in_memory
        else itertools.chain.from_iterable(
            create_dataset(config, training).batches() for _ in itertools.count()
        )
    )
    network = build_network(config)
    if training:
        step = build_train_step(config, network).set_train(True)
        lr = ms.Tensor(1e-6, ms.float32)

        def run(batch: Any) -> Any:
            return step(*(ms.Tensor(array) for array in batch), lr)[0].asnumpy()
    else:
        net = build_eval_net(config, network).set_train(False)

        def run(batch: Any) -> Any:
            return net(ms.Tensor(batch.image)).asnumpy()

    times = timed(batches, run, steps)
    return {**times, "peak_gib": peak_memory_gib(config.run), "device": describe_device(config.run)}


def timms_name(arch: str) -> str:
    """What timm calls an architecture.

    Raises:
        UserError: timm is not installed, or does not have it.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError("compare timm: needs torch and timm; pip install torch timm") from error
    # torchvision, which timm imports, wants these where its compiled library does not load.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            library.define(f"{operator}(Tensor d, Tensor s, float iou_threshold) -> Tensor")
    _KEPT.append(library)
    import timm

    name = arch.replace("pcpvt_", "twins_pcpvt_").replace("alt_gvt_", "twins_svt_")
    name = name.replace("_v0", "").replace("twins_twins_", "twins_")
    if name not in timm.list_models():
        raise UserError(f"compare timm: timm has no {arch!r}; leave --compare out")
    return name


# A library of torch ends with its handle.
_KEPT: List[Any] = []


def measure_timm(config: Config, phase: str, steps: int, in_memory: bool) -> Times:
    """timm on torch, eager, float32, on the CPU; the same batch size, AdamW."""
    name = timms_name(config.model.arch)
    import timm
    import torch

    training, size = phase == "training", config.data.batch_size
    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = timm.create_model(name).train(training)
    side = config.model.image_size or model.default_cfg["input_size"][-1]
    batch = (torch.randn(size, 3, side, side), torch.randint(0, model.num_classes, (size,)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.05)

    def train_step(batch: Any) -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return float(loss.item())

    def infer(batch: Any) -> Any:
        with torch.inference_mode():
            return model(batch[0]).numpy()

    times = timed(itertools.repeat(batch), train_step if training else infer, steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {**times, "peak_gib": peak, "device": f"CPU ({torch.get_num_threads()} threads)"}


SIDES = {HERE: measure_here, TIMM: measure_timm}

# --- rounds ---------------------------------------------------------------------------------------


def in_fresh_process(job: Dict[str, Any]) -> Times:
    """One measurement.

    Raises:
        UserError: what ended it.
    """
    command = [sys.executable, str(Path(__file__).resolve()), "--job", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"{job['side']}, {job['phase']}: {lines[-1].removeprefix('error: ')}")
    result: Times = json.loads(done.stdout.splitlines()[-1])
    return result


def summarise(rounds: Sequence[Times], batch_size: int, in_memory: bool) -> Dict[str, Any]:
    """A row: medians over the steps of all rounds."""
    seconds = [value for one in rounds for value in one["seconds"]]
    waits = [value for one in rounds for value in one["waits"]]
    p50 = statistics.median(seconds)
    return {
        "batch_size": batch_size,
        "images_per_s": batch_size / p50,
        "ms_p50": 1000 * p50,
        "ms_p95": 1000 * percentile(seconds, 0.95),
        "data_wait_share": None if in_memory else sum(waits) / sum(seconds),
        "peak_gib": max(one["peak_gib"] for one in rounds),
        "compile_s": max(0.0, statistics.median(one["first_s"] for one in rounds) - p50),
        "steps": len(seconds),
        "device": rounds[0]["device"],
    }


def percentile(values: Sequence[float], share: float) -> float:
    """Linear between the two nearest, as numpy.percentile."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def benchmark(arguments: argparse.Namespace, config: Config, keys: List[str]) -> List[Dict]:
    """A row per phase and side; the sides take turns."""
    in_memory = arguments.in_memory or arguments.compare is not None or not has_data(keys)
    sides = [HERE, *([TIMM] if arguments.compare else [])]
    rows = []
    for phase in arguments.phases:
        rounds: Dict[str, List[Times]] = {side: [] for side in sides}
        for _, side in itertools.product(range(arguments.rounds), sides):
            job = {"side": side, "phase": phase, "keys": keys, "steps": arguments.steps}
            rounds[side].append(in_fresh_process({**job, "in_memory": in_memory}))
        found = {side: summarise(rounds[side], config.data.batch_size, in_memory) for side in sides}
        for side in sides:
            ratio = found[side]["ms_p50"] / found[TIMM]["ms_p50"] if TIMM in found else None
            row = {"side": side, "phase": phase, "arch": config.model.arch, **found[side]}
            rows.append({**row, "ms_p50_to_timms": ratio})
    return rows


def has_data(keys: Sequence[str]) -> bool:
    """A recipe or a folder was named."""
    return any(
        word.split("=")[0] in ("--config", "--cct_config", "--data_url", "--set") for word in keys
    )


def table(rows: Sequence[Dict[str, Any]]) -> str:
    """In Markdown."""
    lines = ["| " + " | ".join(name for name, _ in COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for row in rows:
        wait, ratio = row["data_wait_share"], row["ms_p50_to_timms"]
        shown = {
            **row,
            "wait": "-" if wait is None else f"{100 * wait:.1f} %",
            "times_timm": "-" if ratio is None else f"{ratio:.2f}",
        }
        lines.append("| " + " | ".join(form.format(**shown) for _, form in COLUMNS) + " |")
    return "\n".join(lines)


def machine() -> Dict[str, Any]:
    """What the numbers hold for."""
    model = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def report(arguments: argparse.Namespace, config: Config, keys: List[str]) -> None:
    """Measures, prints the table, writes the JSON."""
    if not schedule_epochs(config.optim, config.train.epochs):
        raise UserError("epochs 0: a run without steps has no batches; give --epochs 1 or more")
    if arguments.json:
        check_output("json", arguments.json)
    if arguments.compare:
        timms_name(config.model.arch)
    facts = machine()
    rows = benchmark(arguments, config, keys)
    print(f"{config.model.arch}: {', '.join(f'{name} {value}' for name, value in facts.items())}")
    print(table(rows))
    if arguments.json:
        content = {"command": ["benchmarks/run.py", *keys], **facts, "rows": rows}
        write_json(arguments.json, content)


def _parser() -> CommandParser:
    parser = CommandParser("benchmarks/run.py", __doc__ or "")
    parser.add_argument(
        "--phases",
        nargs="+",
        choices=PHASES,
        default=list(PHASES),
        help="inference, training or both",
    )
    parser.add_argument("--steps", type=positive, default=10, help="measured in each process")
    parser.add_argument("--rounds", type=positive, default=1, help="processes per side and phase")
    parser.add_argument("--in_memory", action="store_true", help="reuse one batch, read no data")
    parser.add_argument("--compare", choices=[TIMM], help="measure timm on torch too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything, as JSON")
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    return parser


def work_on(job: Dict[str, Any]) -> None:
    """What runs in the fresh process: its last line is the result."""
    config = parse_args(job["keys"])
    times = SIDES[job["side"]](config, job["phase"], job["steps"], job["in_memory"])
    print(json.dumps(times))


def main(argv: Optional[Sequence[str]] = None) -> int:
    arguments, keys = _parser().parse_with_keys(argv)
    if arguments.job:
        return run_parsed(lambda given: work_on(given.job), arguments)
    config = parse_args(keys)
    return run_parsed(lambda given: report(given, config, keys), arguments, config)


if __name__ == "__main__":
    sys.exit(main())
