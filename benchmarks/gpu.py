"""Images per second on one GPU, beside timm on torch.

    python benchmarks/gpu.py [--quick] [--archs NAME ...] [--timm_python PYTHON] [--json FILE]

`O0` and `O2` are levels of mixed precision here; `timm` is float32, `timm_amp` torch.autocast with
float16, a scaler and channels-last. CCT is the port of the authors' modules in `vit-pytorch`. All
use AdamW, and TF32 as their framework sets it: convolutions do, matrix products do not. With
`memory` one batch stays on the GPU; with `folder` images come through each side's own training or
evaluation pipeline, from --data_url (train/ and val/, a folder for each class) or photographs.

torch for CUDA 12 or newer may have an environment of its own: --timm_python names its interpreter,
which needs torch, timm and PyYAML. Where torch sees no GPU, its sides are left out, with a line
that says so; the same of CCT without vit-pytorch. With --quick, which is to show that everything
runs, torch is on the CPU there.

The sides take turns, each round in a fresh process. A time is that of steps in a row with one wait
for the GPU at their end; what counts is the median over all rounds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cpu import NETWORKS, torch_network

from src.errors import UserError
from src.runtime.entry import CommandParser, positive, run_command
from src.runtime.files import check_output, write_json

HEADLINE = (
    "convnext_tiny",
    "deit_small_patch16_224",
    "pcpvt_small_v0",
    "convmixer_768_32",
    "cct_14_7x2_224",
)
# A side here -> the side it is compared with.
PEERS = {"O0": "timm", "O2": "timm_amp"}
SIDES = (*PEERS, *PEERS.values())
POLICY = "rand-m9-mstd0.5-inc1"
Job = Dict[str, Any]
Call = Callable[[], Any]


def timed(call: Call, wait: Callable[[Any], Any], job: Job) -> Dict[str, Any]:
    """The first step apart: it compiles; two more are not counted."""
    start = time.perf_counter()
    wait(call())
    first = time.perf_counter() - start
    call()
    wait(call())
    seconds = []
    for _ in range(job["batches"]):
        start = time.perf_counter()
        for _ in range(job["steps"] - 1):
            call()
        wait(call())
        seconds.append((time.perf_counter() - start) / job["steps"])
    return {"first_s": first, "seconds": seconds}


# --- the two frameworks, each in a process of its own ---------------------------------------------


def measure_here(job: Job) -> Dict[str, Any]:
    """This repository, from uint8 images on."""
    from src.args import Config, replace
    from src.runtime.device import peak_memory_gib, setup_device

    _, side = NETWORKS[job["arch"]]
    training = job["phase"] == "train"
    data, classes = {}, 1000
    if job["folder"]:
        data["data_url"] = job["folder"]
        classes = sum(path.is_dir() for path in Path(job["folder"], "train").iterdir())
    config = replace(
        Config(),
        **data,
        arch=job["arch"],
        image_size=side,
        num_classes=classes,
        base_lr=1e-6,
        batch_size=job["batch"],
        amp_level=job["side"],
        device_target="GPU",
        auto_augment=POLICY,
        num_parallel_workers=job["workers"],
    )
    setup_device(config.run, seed=1)
    import mindspore as ms

    from src.trainer.build import build_eval_net, build_network, build_train_step

    batches = folder_batches(config, training) if job["folder"] else one_batch(config)
    network = build_network(config)
    if training:
        step = build_train_step(config, network).set_train(True)
        lr = ms.Tensor(1e-6, ms.float32)
        call = lambda: step(*next(batches), lr)[0]  # noqa: E731
    else:
        net = build_eval_net(config, network).set_train(False)
        call = lambda: net(next(batches)[0])  # noqa: E731
    times = timed(call, lambda output: output.asnumpy(), job)
    return {**times, "peak_gib": peak_memory_gib(config.run)}


def one_batch(config: Any) -> Iterator[Any]:
    """Random pixels, always the same tensors."""
    import mindspore as ms
    import numpy as np

    size, side = config.data.batch_size, config.model.image_size
    image = np.random.default_rng(0).integers(0, 256, (size, side, side, 3), np.uint8)
    label = np.arange(size, dtype=np.int32) % config.model.num_classes
    mix = np.tile(np.array([1, 0, 0, 0, 0], np.float32), (size, 1))
    return itertools.repeat((ms.Tensor(image), ms.Tensor(label), ms.Tensor(mix)))


def folder_batches(config: Any, training: bool) -> Iterator[Any]:
    """Through the pipeline of the recipe, epoch after epoch; whole batches only."""
    import mindspore as ms

    from src.data.imagenet import create_dataset

    while True:
        for batch in create_dataset(config, training).batches():
            if len(batch.image) == config.data.batch_size:
                columns = batch if training else [batch.image]
                yield tuple(map(ms.Tensor.from_numpy, columns))


def measure_timm(job: Job) -> Dict[str, Any]:
    """timm on torch, eager."""
    import torch

    name, side = NETWORKS[job["arch"]]
    amp, training = job["side"] == "timm_amp", job["phase"] == "train"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layout = torch.channels_last if amp else torch.contiguous_format
    model = torch_network(name, side).to(device, memory_format=layout).train(training)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.05)
    scaler = torch.amp.GradScaler(device, enabled=amp)
    if job["folder"]:
        batches = timm_batches(job, side, device)
    else:
        image = torch.randn(job["batch"], 3, side, side, device=device)
        batches = itertools.repeat((image, torch.arange(job["batch"], device=device) % 1000))

    def forward(image: Any) -> Any:
        with torch.autocast(device, dtype=torch.float16, enabled=amp):
            return model(image.to(memory_format=layout))

    def infer() -> Any:
        with torch.inference_mode():
            return forward(next(batches)[0])

    def step() -> Any:
        image, label = next(batches)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(forward(image).float(), label)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    times = timed(step if training else infer, lambda output: output.float().cpu(), job)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return {**times, "peak_gib": peak / 2**30}


def timm_batches(job: Job, side: int, device: str) -> Iterator[Any]:
    """Through timm's loader, with its prefetcher onto the device; whole batches only."""
    import timm.data
    import torch

    training = job["phase"] == "train"
    loader = timm.data.create_loader(
        timm.data.ImageDataset(str(Path(job["folder"]) / ("train" if training else "val"))),
        (3, side, side),
        job["batch"],
        is_training=training,
        auto_augment=POLICY if training else None,
        color_jitter=None,
        interpolation="bicubic",
        num_workers=job["workers"],
        device=torch.device(device),
    )
    while True:
        yield from (batch for batch in loader if len(batch[0]) == job["batch"])


# --- rounds ---------------------------------------------------------------------------------------


def in_fresh_process(job: Job, timm_python: str) -> Dict[str, Any]:
    """One measurement.

    Raises:
        UserError: what ended it.
    """
    python = sys.executable if job["side"] in PEERS else timm_python
    command = [python, str(Path(__file__).resolve()), "--job", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"{job['arch']}, {job['side']}: {lines[-1].removeprefix('error: ')}")
    result: Dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def reason_without(arch: str, timm_python: str, quick: bool) -> Optional[str]:
    """Why timm's sides are left out; None: they are measured."""
    package = "vit_pytorch" if arch.startswith("cct") else "timm"
    code = f"import torch, importlib.util as u; print(u.find_spec({package!r}) is not None)"
    code += "; print(torch.cuda.is_available())"
    try:
        done = subprocess.run([timm_python, "-c", code], capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"--timm_python {timm_python!r}: {error.strerror}") from error
    if done.returncode:
        return f"{timm_python} has no torch"
    answers = done.stdout.split()[-2:]
    if not set(answers) <= {"True", "False"} or len(answers) != 2:
        raise UserError(f"--timm_python {timm_python!r}: is no Python; give an interpreter")
    is_there, sees_gpu = (answer == "True" for answer in answers)
    if not is_there:
        return f"{timm_python} has no {package}"
    return None if sees_gpu or quick else "torch sees no GPU"


def compare(job: Job, sides: Sequence[str], arguments: argparse.Namespace) -> List[Dict[str, Any]]:
    """A row for each side, the two frameworks in turns."""
    rounds: Dict[str, List[Dict[str, Any]]] = {side: [] for side in sides}
    for _, side in itertools.product(range(arguments.rounds), sides):
        rounds[side].append(in_fresh_process({**job, "side": side}, arguments.timm_python))
    rows = {}
    for side, found in rounds.items():
        seconds = statistics.median(value for one in found for value in one["seconds"])
        rows[side] = {
            **{key: job[key] for key in ("arch", "phase", "batch")},
            "data": "folder" if job["folder"] else "memory",
            "side": side,
            "images_per_s": job["batch"] / seconds,
            **{key: max(one[key] for one in found) for key in ("first_s", "peak_gib")},
        }
    for side, row in rows.items():
        peer = rows.get(PEERS.get(side, side))
        row["times_timms"] = row["images_per_s"] / peer["images_per_s"] if peer else None
    return list(rows.values())


def line(row: Dict[str, Any]) -> str:
    """Of the table."""
    ratio = "-" if row["times_timms"] is None else f"{row['times_timms']:.2f}"
    keys = ("arch", "phase", "data", "batch", "side")
    numbers = f"{row['images_per_s']:.0f} | {ratio} | {row['first_s']:.1f} | {row['peak_gib']:.1f}"
    return f"| {' | '.join(str(row[key]) for key in keys)} | {numbers} |"


HEAD = "| network | phase | data | batch | side | images/s | x timm's | first step s | peak GiB |"


def measure_all(arguments: argparse.Namespace, photographs: str) -> List[Dict[str, Any]]:
    """Prints the table; returns its rows."""
    rows = []
    print(f"{HEAD}\n{'|---' * 9}|", flush=True)
    sizes = {key: getattr(arguments, key) for key in ("batch", "steps", "batches", "workers")}
    for arch in arguments.archs:
        missing = reason_without(arch, arguments.timm_python, arguments.quick)
        if missing:
            print(f"{arch}: timm is left out: {missing}", file=sys.stderr, flush=True)
        sides = [side for side in arguments.sides if side in PEERS or not missing]
        for phase, data in itertools.product(arguments.phases, arguments.data):
            folder = photographs if data == "folder" else None
            job = {**sizes, "arch": arch, "phase": phase, "folder": folder}
            for row in compare(job, sides, arguments):
                rows.append(row)
                print(line(row), flush=True)
    return rows


def check(arguments: argparse.Namespace) -> None:
    """Refuses what would end the measurement late.

    Raises:
        UserError: a folder that is not there, or a file that cannot be written.
    """
    if arguments.json:
        check_output("json", arguments.json)
    parts = (
        [Path(arguments.data_url, part) for part in ("train", "val")] if arguments.data_url else []
    )
    for folder in parts:
        if not folder.is_dir():
            raise UserError(f"{str(folder)!r}: no such folder")


def run(arguments: argparse.Namespace) -> None:
    """Measures all that was asked for, or one job of it."""
    if arguments.job:
        side = arguments.job["side"]
        result = (measure_here if side in PEERS else measure_timm)(arguments.job)
        print(json.dumps(result))
        return
    check(arguments)
    if arguments.quick:
        arguments.archs, arguments.batch, arguments.rounds = ["deit_tiny_patch16_224"], 2, 1
        arguments.batches, arguments.steps, arguments.workers = 1, 1, 2
        arguments.sides = ["O2", "timm_amp"]
    from src.doctor.machine import Machine

    print("; ".join(Machine().gpus()) or "no GPU: the numbers mean nothing")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.data_url or temporary
        if "folder" in arguments.data and not arguments.data_url:
            from pipeline import write_images

            write_images(Path(folder))
        rows = measure_all(arguments, str(folder))
    if arguments.json:
        write_json(arguments.json, rows)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("benchmarks/gpu.py", __doc__ or "")
    parser.add_argument("--quick", action="store_true", help="one small network, a few steps")
    parser.add_argument(
        "--archs", nargs="+", choices=NETWORKS, default=list(HEADLINE), help="networks"
    )
    parser.add_argument(
        "--sides", nargs="+", choices=SIDES, default=list(SIDES), help="what takes turns"
    )
    parser.add_argument(
        "--phases",
        nargs="+",
        choices=("infer", "train"),
        default=["infer", "train"],
        help="inference, training or both",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        choices=("memory", "folder"),
        default=["memory", "folder"],
        help="ready-made batches, photographs in a folder, or both",
    )
    parser.add_argument("--data_url", help="images of `folder`, instead of photographs")
    parser.add_argument("--batch", type=positive, default=128, help="images of a batch")
    parser.add_argument("--rounds", type=positive, default=3, help="turns of each side")
    parser.add_argument(
        "--batches", type=positive, default=5, help="measured times in each process"
    )
    parser.add_argument("--steps", type=positive, default=10, help="in each of them")
    parser.add_argument(
        "--workers", type=positive, default=8, help="that read images, on either side"
    )
    parser.add_argument("--timm_python", default=sys.executable, help="interpreter that has torch")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for everything, as JSON")
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    return run_command(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
