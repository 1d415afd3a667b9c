"""Images per second of the C++ program on MindSpore Lite, of MindSpore itself and of timm.

    bash scripts/run_core_tests.sh    # makes .venv20
    LITE_HOME=$(bash scripts/get_lite.sh) bash ascend310_infer/build.sh
    .venv/bin/python benchmarks/lite.py [--archs NAME ...] [--batch N] [--rounds N] [--json FILE]

Evaluation of random pixels at 224. `lite 1` and `lite 2` are the C++ program with one and with two
threads; `native`, `off` and `torch` are those of benchmarks/cpu.py, on all cores. The sides take
turns, each round in a fresh process; what counts is the median of the rounds. `apart` is the
largest difference between the logits of one and of two threads, as a share of the largest logit.
With `--files N` instead: the C++ program reads N photographs itself, JPEGs of 500x375, with a
bundle and one thread of Lite: `all`, and decoding (with the transform) and the network alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import cpu  # finds the package beside it
import numpy as np
from pipeline import SIZES, write_images

from src.errors import UserError
from src.runtime.entry import CommandParser, positive, run_command
from src.runtime.files import check_output, write_json

SIDE = 224
ARCHS = [name for name, (_, side) in cpu.NETWORKS.items() if side == SIDE]
THREADS = (1, 2)
MS20 = Path(os.environ.get("VENV20", cpu.ROOT / ".venv20")) / "bin" / "python"
PROGRAM = Path(os.environ.get("BUILD_DIR", cpu.ROOT / "ascend310_infer" / "out")) / "main"
# "...; 12.5 images/s (decoding alone 310, the network alone 12.6); wrote ..."
RATE = re.compile(r"([\d.e+]+)(?: images/s|, the|\))")

_EXPORT = """
import sys, mindspore as ms
sys.path.insert(0, ".")
from src.models.registry import create_model
import export
name, batch, folder = sys.argv[1:]
ms.save_checkpoint(create_model(name, num_classes=1000, img_size=224), f"{folder}/n.ckpt")
for output in ("--output", f"{folder}/n.mindir"), ("--bundle", f"{folder}/bundle"):
    code = export.main(["--arch", name, "--image_size", "224", "--num_classes", "1000",
        "--pretrained", f"{folder}/n.ckpt", "--input", "uint8_nhwc",
        "--batch_size", batch, *output])
    if code:
        sys.exit(code)
"""


def run(command: List[Any], **options: Any) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    return done.stdout


def write_inputs(folder: Path, batch: int, count: int) -> None:
    """Random pixels in the layout of preprocess.py."""
    rng = np.random.default_rng(0)
    (folder / "input").mkdir(parents=True)
    lines = ["version\t1", "dtype\tuint8", f"shape\t{batch},{SIDE},{SIDE},3"]
    lines.append(f"images\t{batch * count}")
    for number in range(count):
        data = rng.integers(0, 256, (batch, SIDE, SIDE, 3), np.uint8).tobytes()
        (folder / f"input/{number:06d}.bin").write_bytes(data)
        lines.append(f"file\tinput/{number:06d}.bin\t{batch}\t{zlib.crc32(data):08x}")
    text = "\n".join([*lines, f"end\t{count}"]) + "\n"
    (folder / "manifest.tsv").write_text(text, encoding="utf-8")


def lite_images_per_second(folder: Path, threads: int, turn: int) -> float:
    """Of one process; its results stay in `folder`/out-THREADS-TURN."""
    paths = {"mindir_path": "n.mindir", "input0_path": "in", "time_path": "time"}
    paths["output_path"] = f"out-{threads}-{turn}"
    words = [f"--{name}={folder / path}" for name, path in paths.items()]
    run([PROGRAM, "--device_target=CPU", f"--threads={threads}", "--warmup=2", *words])
    times = json.loads((folder / "time" / "times.json").read_text(encoding="utf-8"))
    return times["images_per_second"]


def difference(folder: Path) -> float:
    one, two = (
        np.concatenate([np.fromfile(p, np.float32) for p in sorted(out.glob("*_0.bin"))])
        for out in (folder / f"out-{threads}-0" for threads in THREADS)
    )
    return float(np.abs(one - two).max() / np.abs(one).max())


def compare(arch: str, args: argparse.Namespace) -> Dict[str, Any]:
    """One row of the table, images per second."""
    rates: Dict[str, List[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run([MS20, "-c", _EXPORT, arch, args.batch, folder], cwd=cpu.ROOT)
        write_inputs(folder / "in", args.batch, args.batches)
        for turn in range(args.rounds):
            for threads in THREADS:
                rate = lite_images_per_second(folder, threads, turn)
                rates.setdefault(f"lite {threads}", []).append(rate)
            for side in cpu.sides_of(arch, ("native", "off", "torch")):
                found = cpu.in_fresh_process(arch, args.batch, side, False, args.batches)
                rate = args.batch / statistics.median(found["seconds"])
                rates.setdefault(side, []).append(rate)
        apart = difference(folder)
    medians = {side: statistics.median(found) for side, found in rates.items()}
    return {"arch": arch, "batch": args.batch, "apart": apart, **medians}


def compare_files(arch: str, args: argparse.Namespace) -> Dict[str, Any]:
    """What the program says of images that it reads itself, images per second."""
    rates: Dict[str, List[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run([MS20, "-c", _EXPORT, arch, args.batch, folder], cwd=cpu.ROOT)
        write_images(folder / "photographs", SIZES["500x375"]._replace(num_images=args.files))
        words = [f"--images={folder / 'photographs/train'}", f"--bundle={folder / 'bundle'}"]
        words += ["--device_target=CPU", "--threads=1"]
        for _ in range(args.rounds):
            said = run([PROGRAM, *words], cwd=folder).splitlines()[-1]
            for side, rate in zip(("all", "decoding", "network"), RATE.findall(said)):
                rates.setdefault(side, []).append(float(rate))
    return {"arch": arch, **{side: statistics.median(found) for side, found in rates.items()}}


def run_all(args: argparse.Namespace) -> None:
    """Measures all that was asked for."""
    if args.json:
        check_output("json", args.json)
    for path in (MS20, PROGRAM):
        if not path.exists():
            raise UserError(f"{path}: not there; see --help")
    rows = []
    for arch in args.archs:
        rows.append((compare_files if args.files else compare)(arch, args))
        rates = {side: value for side, value in rows[-1].items() if side not in ("arch", "batch")}
        print(arch, "  ".join(f"{side} {value:.3g}" for side, value in rates.items()), flush=True)
    if args.json:
        write_json(args.json, rows)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("benchmarks/lite.py", __doc__ or "")
    parser.add_argument("--archs", nargs="+", choices=ARCHS, default=ARCHS, help="networks")
    parser.add_argument("--batch", type=positive, default=8, help="images of a batch")
    parser.add_argument("--rounds", type=positive, default=3, help="turns of each side")
    parser.add_argument("--batches", type=positive, default=5, help="measured in each process")
    parser.add_argument("--files", type=positive, help="photographs that the program reads itself")
    parser.add_argument("--json", type=Path, help="file for everything, as JSON")
    return run_command(run_all, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
