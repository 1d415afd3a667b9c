"""What a digest costs: saving and reading a checkpoint of DeiT-S with AdamW and averaged weights.

    .venv/bin/python benchmarks/checkpoint.py [--folder DIR] [--rounds N]

"save" is as training saves, until the file is on the disk; "resume" reads it and sets all state.
The sides take turns in one process: without a digest; with ours (XXH3 of the file, and of the
weights alone); with XXH3, SHA-256 and, where it is installed, BLAKE3 of the file only; MindSpore's
own writer and reader, which have none. Printed are medians of the wall clock, of the process's time
on the processors, and of the ratios of each turn to the one without a digest beside it. On a busy
machine only the processors' time tells something.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import importlib.util
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple
from unittest import mock

import xxhash

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from run import machine

from src.runtime.entry import CommandParser, positive, run_command
from src.runtime.files import check_output_folder

NONE, OURS, FRAMEWORK = "no digest", "ours", "MindSpore"


class Seconds(NamedTuple):
    """Of the wall clock and of the process on the processors."""

    wall: float
    cpu: float


Times = Dict[Tuple[str, str], List[Seconds]]


class Cut:
    """A hash of a file as `tensor_file` uses one, with a digest as long as XXH3's."""

    def __init__(self, inner: Any = None) -> None:
        self.inner = inner

    def update(self, data: Any) -> None:
        if self.inner is not None:
            self.inner.update(data)

    def digest(self) -> bytes:
        return bytes(16) if self.inner is None else self.inner.digest()[:16]


class NoWeightsDigest:
    """In the place of `WeightsDigest`."""

    def add(self, name: str, array: Any) -> None:
        pass

    def hex(self) -> str:
        return ""


def hashes() -> Dict[str, Optional[Callable[[], Any]]]:
    """Side -> the hash of the file; None: all that a save has."""
    found: Dict[str, Optional[Callable[[], Any]]] = {NONE: Cut, OURS: None}
    found["XXH3"] = xxhash.xxh3_128
    found["SHA-256"] = lambda: Cut(hashlib.sha256())
    if importlib.util.find_spec("blake3"):
        blake3 = importlib.import_module("blake3").blake3
        found["BLAKE3"] = lambda: Cut(blake3())
    return found


@contextlib.contextmanager
def using(stand_in: Optional[Callable[[], Any]]) -> Iterator[None]:
    if stand_in is None:
        yield
        return
    module = "src.checkpoints.tensor_file"
    of_file = mock.patch(f"{module}.xxhash", SimpleNamespace(xxh3_128=stand_in))
    with of_file, mock.patch(f"{module}.WeightsDigest", NoWeightsDigest):
        yield


def seconds(work: Callable[[], Any]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def measure(parameters: Sequence[Any], folder: Path, rounds: int) -> Tuple[Times, int]:
    """(side, save or resume) -> seconds of each round, and the bytes of a file."""
    import mindspore as ms

    from src.checkpoints.checkpoint import load_parameters, read_checkpoint, save_checkpoint
    from src.runtime.files import replacing

    path = folder / "last.ckpt"
    times: Times = {}

    def save_by_framework() -> None:
        with replacing(path, to_disk=True) as draft:
            draft.unlink()
            ms.save_checkpoint([{"name": p.name, "data": p} for p in parameters], str(draft))

    def resume() -> None:
        load_parameters(parameters, read_checkpoint(path), target="this")

    def resume_by_framework() -> None:
        held = ms.load_checkpoint(str(path))
        for parameter in parameters:
            parameter.set_data(ms.Tensor(held[parameter.name].asnumpy(), parameter.dtype))

    for _ in range(rounds + 1):  # the first is not counted
        for side, stand_in in hashes().items():
            with using(stand_in):
                save = seconds(lambda: save_checkpoint(path, parameters, {}))
                times.setdefault((side, "save"), []).append(save)
                times.setdefault((side, "resume"), []).append(seconds(resume))
        size = path.stat().st_size
        times.setdefault((FRAMEWORK, "save"), []).append(seconds(save_by_framework))
        times.setdefault((FRAMEWORK, "resume"), []).append(seconds(resume_by_framework))
    return {key: row[1:] for key, row in times.items()}, size


def run(arguments: argparse.Namespace) -> None:
    from src.args import Config, RunConfig, replace
    from src.runtime.device import setup_device
    from src.trainer.build import build_network, build_train_step

    if arguments.folder:
        check_output_folder("folder", arguments.folder)
        arguments.folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger().setLevel(logging.ERROR)
    setup_device(RunConfig(), seed=1)
    sizes = {"image_size": 224, "num_classes": 1000}
    config = replace(Config(), arch="deit_small_patch16_224", with_ema=True, **sizes)
    parameters = build_train_step(config, build_network(config)).saved_parameters()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        times, size = measure(parameters, Path(folder), arguments.rounds)
    print(f"{size / 2**20:.1f} MiB, {len(parameters)} tensors, medians of {arguments.rounds}")
    print(", ".join(f"{key} {value}" for key, value in machine().items()), flush=True)
    for side, what in times:
        shown = []
        for kind in Seconds._fields:
            row, base = ([getattr(t, kind) for t in times[s, what]] for s in (side, NONE))
            ratio = statistics.median(mine / plain for mine, plain in zip(row, base))
            shown.append(f"{kind} {statistics.median(row):.3f} s, {ratio:.3f} times")
        print(f"{side:10} {what:7} {'; '.join(shown)}", flush=True)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("benchmarks/checkpoint.py", __doc__ or "")
    parser.add_argument("--folder", type=Path, help="where files are written; default: TMPDIR")
    parser.add_argument("--rounds", type=positive, default=9, help="turns of each side")
    return run_command(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
