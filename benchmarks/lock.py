"""Time under the interpreter's lock per image, and the images per second that it allows.

python benchmarks/lock.py

Threads share the lock, so one process with threads makes at most 1e6 / (microseconds under the
lock) images per second, on any number of cores. A library that is loaded ahead of Python stands in
for PyEval_SaveThread and PyEval_RestoreThread, by which the lock is released and taken again, and
adds up each thread's processor time between taking and releasing. So it is counted, not sampled,
waiting for the lock is not in it, and of other work on the machine only what that takes of caches.
Before each measurement known cases are counted: a loop in Python holds the lock throughout;
sleeping, and hashing a megabyte, do not.

The chains are those of benchmarks/pipeline.py, on its images, in the pipeline's own threads and as
far as the training loop hands a batch to the device. Stages are the pipeline's own functions, less
what their clocks take. "into the batch" is what a sample takes besides them, "queue" what no sample
takes: keys, tasks, waiting. "whole" is measured without these clocks, so it is not quite the sum.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import hashlib
import itertools
import json
import multiprocessing
import operator
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)
from unittest import mock

import pipeline  # finds the package beside it
from scaling_model import QUOTED

from src.errors import UserError
from src.runtime.entry import CommandParser, positive, run_command
from src.runtime.native_library import find_compiler

BATCH_SIZE, NUM_WORKERS = 128, 2
METER = pipeline.ROOT / "benchmarks" / "lock_meter.cc"
CHAINS: Dict[str, Dict[str, Any]] = {
    "plain": {},  # random resized crop and flip
    "full": {"auto_augment": pipeline.POLICY, "re_prob": 0.25, "mix_up": 0.8, "cutmix": 1.0},
    "evaluation": {},
}
SOURCES = {"folder": "ImageNet", "packed": "MindRecord"}
# What of a sample is in none of its other stages, and what of the whole is in no stage.
ON_HOST = ("mix of the batch", "copy to a Tensor")
REST, QUEUE = "into the batch", "queue"
ROWS = [*pipeline.STAGES, QUEUE, "whole"]
CORES = (16, 24, 64, 192)


class Spent(NamedTuple):
    """Processor time of a piece of work, microseconds.

    Attributes:
        held: under the interpreter's lock.
        all: in all.
        releases: how often the lock was given up, where it was counted.
        main: in the thread that takes the batches, where it was counted.
    """

    held: float
    all: float
    releases: float = 0.0
    main: float = 0.0

    def plus(self, other: Spent) -> Spent:
        return Spent(*map(operator.add, self, other))

    def minus(self, other: Spent) -> Spent:
        return Spent(*map(operator.sub, self, other))

    def times(self, factor: float) -> Spent:
        return Spent(*(factor * value for value in self))


class Meter:
    """Counts of this process, by the library that was loaded ahead of Python."""

    def __init__(self) -> None:
        library = ctypes.PyDLL(None)  # which keeps the lock during a call
        if not hasattr(library, "held_ns_of_all"):
            raise UserError("the meter is not loaded; give no chain, and it will be")
        self._held, self._held_by_all = library.held_ns, library.held_ns_of_all
        self._releases, self._take = library.releases_of_all, library.take
        for function in (self._held, self._held_by_all, self._releases, self._take):
            function.restype = ctypes.c_long
        self._enter, self._leave = library.enter, library.leave

    def thread(self) -> Spent:
        """Of this thread since it began."""
        return Spent(self._held() / 1000, time.thread_time_ns() / 1000)

    def process(self) -> Spent:
        """Of all threads; of another one that holds the lock, until its latest release."""
        held, all_ = self._held_by_all() / 1000, time.process_time_ns() / 1000
        return Spent(held, all_, self._releases(), time.thread_time_ns() / 1000)

    def timed(self, function: Callable[..., Any], stage: int) -> Callable[..., Any]:
        """The function, as a stage: what others within it take is not in it."""
        enter, leave = self._enter, self._leave

        @functools.wraps(function)
        def call(*words: Any, **keywords: Any) -> Any:
            enter(stage)
            result = function(*words, **keywords)
            leave()
            return result

        return call

    def take(self, stage: int) -> Spent:
        """Of a stage, all threads, since it was last taken; `releases` is how often it ran."""
        held, all_, count = (self._take(stage, column) for column in range(3))
        return Spent(held / 1000, all_ / 1000, count)

    def of(self, work: Callable[[], Any], count: int) -> Spent:
        """What this thread spends on a call."""
        before = self.thread()
        for _ in range(count):
            work()
        return self.thread().minus(before).times(1 / count)


class Job(NamedTuple):
    """What is measured: a chain, where its images are, and by what kind of workers."""

    chain: str
    source: str
    root: Path
    num_batches: int
    in_processes: bool = False


def check_known_cases(meter: Meter) -> None:
    """Raises UserError: releases of this Python cannot be counted."""
    megabyte = bytes(2**20)
    loop = meter.of(lambda: sum(range(100_000)), 20)
    hashing = meter.of(lambda: hashlib.sha256(megabyte), 20)
    sleeping = meter.of(lambda: time.sleep(1e-4), 20)
    is_known = loop.held > 0.99 * loop.all and hashing.held < 0.1 * hashing.all
    if not (is_known and sleeping.held < 0.5 * sleeping.all):
        raise UserError(
            f"us under the lock of us in all: loop {loop.held:.0f} of {loop.all:.0f}, hashing "
            f"{hashing.held:.0f} of {hashing.all:.0f}, sleeping {sleeping.held:.0f} of "
            f"{sleeping.all:.0f}; needs a Python that was built with --enable-shared"
        )


def stage_functions() -> List[Tuple[str, Any, str]]:
    """(stage, owner, attribute) of what the stages consist of."""
    from src.data import decode, imagenet, sampler
    from src.data.augment.auto_augment import RandAugment
    from src.data.augment.random_erasing import RandomErasing
    from src.data.augment.transforms import DrawnCrop, RandomFlip, ResizeCenterCrop
    from src.data.image_folder import ImageFolder
    from src.data.packed import PackedImages
    from src.data.samples import EvalSample, TrainSample

    return [
        ("generator", sampler, "sample_generator"),
        ("read", ImageFolder, "_path"),
        ("read", decode, "read_image_file"),
        ("read", PackedImages, "read_bytes"),
        ("decode", decode.Decoder, "decode_part"),
        ("crop and resize", DrawnCrop, "box_seen"),
        ("crop and resize", DrawnCrop, "__call__"),
        ("crop and resize", ResizeCenterCrop, "box_seen"),
        ("crop and resize", ResizeCenterCrop, "__call__"),
        ("flip", RandomFlip, "__call__"),
        ("policy", RandAugment, "__call__"),
        ("erase", RandomErasing, "draw"),
        ("erase", RandomErasing, "write_noise"),
        ("mix of the batch", imagenet, "_draw_batch_mix"),
        ("copy to a Tensor", sys.modules[__name__], "copy_to_tensors"),
        (REST, TrainSample, "__call__"),
        (REST, EvalSample, "__call__"),
    ]


def copy_to_tensors(batch: Any) -> List[Any]:
    """As the training loop hands a batch to the device."""
    from mindspore import Tensor

    return [Tensor.from_numpy(array) for array in batch if array is not None]


def endless_batches(job: Job) -> Iterator[Any]:
    """Of one stream, so that nothing is started anew between two of them."""
    from src.args import Config, DataConfig, ModelConfig, TrainConfig
    from src.data.imagenet import create_dataset
    from src.data.sampler import Key

    data = DataConfig(
        set=SOURCES[job.source],
        data_url=str(job.root / "packed" if job.source == "packed" else job.root),
        batch_size=BATCH_SIZE,
        num_parallel_workers=NUM_WORKERS,
        python_multiprocessing=job.in_processes,
        **CHAINS[job.chain],
    )
    model = ModelConfig(num_classes=8, image_size=pipeline.IMAGE_SIZE)
    config = Config(model=model, data=data, train=TrainConfig(epochs=1000))
    dataset = create_dataset(config, training=job.chain != "evaluation")
    if job.chain == "evaluation":
        samples = itertools.cycle(range(dataset.num_samples))
        dataset.keys = lambda: (Key(0, sample, 0) for sample in samples)
    return dataset.batches()


def spend(meter: Meter, job: Job) -> Spent:
    """For an image, in this process and its workers; `held` and `releases` in this one."""
    with contextlib.closing(endless_batches(job)) as batches:  # type: ignore[type-var]
        for _ in range(3):  # the first compile
            copy_to_tensors(next(batches))
        workers = [process.pid for process in multiprocessing.active_children()]
        before, theirs = meter.process(), sum(map(cpu_us, workers))
        for _ in range(job.num_batches):
            copy_to_tensors(next(batches))
        spent = meter.process().minus(before)
        spent = spent.plus(Spent(0, sum(map(cpu_us, workers)) - theirs))
    return spent.times(1 / (job.num_batches * BATCH_SIZE))


def cpu_us(process: Optional[int]) -> float:
    """Processor time of another process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


def spend_by_stage(meter: Meter, job: Job) -> Dict[str, Spent]:
    """For an image, each stage and QUEUE, less what the clocks take."""
    names = list(dict.fromkeys(name for name, _, _ in stage_functions()))
    clocks = meter.of(meter.timed(lambda: None, 0), 10_000)
    inside = meter.take(0).times(1 / 10_000)
    outside = clocks.minus(inside)
    with contextlib.ExitStack() as stack:
        for name, owner, attribute in stage_functions():
            call = meter.timed(getattr(owner, attribute), names.index(name))
            stack.enter_context(mock.patch.object(owner, attribute, call))
        batches = stack.enter_context(contextlib.closing(endless_batches(job)))  # type: ignore[type-var]
        for _ in range(3):
            copy_to_tensors(next(batches))
        for stage in range(len(names)):
            meter.take(stage)
        before = meter.process()
        for _ in range(job.num_batches):
            copy_to_tensors(next(batches))
        whole = meter.process().minus(before)
        taken = {name: meter.take(stage) for stage, name in enumerate(names)}
    calls = {name: spent.releases for name, spent in taken.items()}
    apart = sum(calls[name] for name in (REST, *ON_HOST))
    found = {name: spent.minus(inside.times(calls[name])) for name, spent in taken.items()}
    found[REST] = found[REST].minus(outside.times(sum(calls.values()) - apart))
    found[QUEUE] = functools.reduce(Spent.minus, taken.values(), whole).minus(outside.times(apart))
    count = job.num_batches * BATCH_SIZE
    return {name: spent.times(1 / count) for name, spent in found.items()}


def measure(job: Job) -> Dict[str, Spent]:
    """Every one of ROWS, and "processes": the whole with workers that are processes."""
    meter = Meter()
    check_known_cases(meter)
    stages, whole = spend_by_stage(meter, job), spend(meter, job)
    return {**stages, "whole": whole, "processes": spend(meter, job._replace(in_processes=True))}


def compile_meter(folder: Path) -> Path:
    """The library that counts.

    Raises:
        UserError: there is no C++ compiler, or it fails.
    """
    compiler = find_compiler(os.environ)
    if compiler is None:
        raise UserError("no C++ compiler on this machine; install g++, or name one in CXX")
    library = folder / "meter.so"
    command = [*compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(METER), "-ldl"]
    subprocess.run(command, check=True)
    return library


def measure_apart(job: Job, meter: Path) -> Dict[str, Spent]:
    """The same as `measure`, in a process that has the meter."""
    words = [job.chain, job.source, str(job.root), "--batches", str(job.num_batches)]
    command = ["env", f"LD_PRELOAD={meter}", sys.executable, __file__, *words]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = json.loads(output.splitlines()[-1])
    return {name: Spent(*values) for name, values in found.items()}


def medians(turns: Sequence[Dict[str, Spent]]) -> Dict[str, Spent]:
    """Of each number by itself."""
    return {
        name: Spent(*map(statistics.median, zip(*(turn[name] for turn in turns))))
        for name in turns[0]
    }


def images_per_s(spent: Spent, cores: int) -> float:
    """At most: each core works, or each thread waits for the lock or for the main thread."""
    return min(cores * 1e6 / spent.all, most_images_per_s(spent))


def most_images_per_s(spent: Spent) -> float:
    """On any number of cores."""
    return 1e6 / max(spent.held, spent.main)


def cores_for_processes(threads: Spent, processes: Spent) -> float:
    """From so many on processes are faster."""
    return processes.all * most_images_per_s(threads) / 1e6


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Markdown, and an empty line."""
    for cells in (titles, ["---"] * len(titles), *rows):
        print(f"| {' | '.join(cells)} |")
    print()


def print_results(found: Dict[str, Dict[str, Spent]]) -> None:
    """What was measured of each chain, and what follows from it."""
    print("Microseconds an image under the lock, of those of processor time (measured):\n")
    rows = [[name] + [_held_of_all(row[name]) for row in found.values()] for name in ROWS]
    releases = [f"{row['whole'].releases:.0f}" for row in found.values()]
    print_table(["stage", *found], [*rows, ["releases of the lock", *releases]])
    pairs = {title: (row["whole"], row["processes"]) for title, row in found.items()}
    print("One process: its lock and main thread (measured), and what follows (computed):\n")
    print_table(
        ["chain", "workers", "us under the lock", "us of the main thread", "us in all"]
        + ["images/s at most", "cores for that", "processes win from"],
        (
            [title, kind, f"{spent.held:.0f}", f"{spent.main:.0f}", f"{spent.all:.0f}"]
            + [f"{most_images_per_s(spent):.0f}", f"{spent.all / max(spent.held, spent.main):.1f}"]
            + [f"{cores_for_processes(*pair):.1f} cores" if kind == "threads" else ""]
            for title, pair in pairs.items()
            for kind, spent in zip(("threads", "processes"), pair)
        ),
    )
    print("Images/s of one process at most, with threads / with processes (computed):\n")
    print_table(
        ["cores", *found],
        (
            [str(cores)]
            + [" / ".join(f"{images_per_s(s, cores):.0f}" for s in pair) for pair in pairs.values()]
            for cores in CORES
        ),
    )
    whole = found["full, folder"]["whole"]
    print("What one Ascend 910 takes (quoted); with threads, full, folder (computed):\n")
    print_table(
        ["network", "images/s", "of the lock", "cores"],
        (
            [quoted.arch, f"{need:.0f}", f"{need * whole.held / 1e6:.0%}"]
            + [f"{need * whole.all / 1e6:.1f}"]
            for quoted in QUOTED
            for need in [quoted.global_batch / quoted.devices / quoted.step_ms * 1000]
        ),
    )


def _held_of_all(spent: Spent) -> str:
    return f"{spent.held:.0f} of {spent.all:.0f}"


def run(given: argparse.Namespace) -> None:
    """Measures every chain, or one in this process."""
    if given.chain:
        if given.source is None or given.root is None:
            raise UserError("a chain needs its source and the folder of its images")
        found = measure(Job(given.chain, given.source, given.root, given.batches))
        print(json.dumps(found), flush=True)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        meter = compile_meter(folder)
        pipeline.write_images(folder)
        pipeline.pack_images(folder)
        jobs = {f"{c}, {s}": Job(c, s, folder, given.batches) for c in CHAINS for s in SOURCES}
        turns = [
            {title: measure_apart(job, meter) for title, job in jobs.items()}
            for _ in range(given.turns)
        ]
        print_results({title: medians([turn[title] for turn in turns]) for title in jobs})


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("benchmarks/lock.py", __doc__ or "")
    parser.add_argument("chain", nargs="?", choices=CHAINS, help="this one, in this process")
    parser.add_argument("source", nargs="?", choices=SOURCES, help="where its images are")
    parser.add_argument("root", nargs="?", type=Path, help="folder of the images")
    parser.add_argument("--batches", type=positive, default=16, help="measured in each turn")
    parser.add_argument("--turns", type=positive, default=3, help="turns of each chain")
    return run_command(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
