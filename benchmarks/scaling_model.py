"""What 8, 64 and 1024 devices need and can give: a model of compute, all-reduce and input time.

python benchmarks/scaling_model.py

Nothing is run. Step times are the model zoo's, quoted; images/s per core are measured by
benchmarks/pipeline.py; gradient bytes come from the parameter counts that the tests check against
timm. Bandwidth, latency and disk are assumptions: give your own (hccl_test or nccl-tests, dd).
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from src.errors import UserError
from src.runtime.entry import CommandParser, finite, positive, run_command, whole

DEVICES_PER_HOST = 8
TRAIN_IMAGES, VAL_IMAGES = 1_281_167, 50_000  # ImageNet-1k (ILSVRC 2012)
FLOAT_BYTES = 4
# Weights and the two moments of AdamW; averages (with_ema) are a fourth.
CHECKPOINT_COPIES = 3
# A forward pass is a third of a training step: the backward pass computes two products for its one.
FORWARD_SHARE = 1 / 3


class Quoted(NamedTuple):
    """A step time on Ascend 910 from the README of the model zoo's folder of that family."""

    arch: str
    devices: int
    global_batch: int
    step_ms: float


QUOTED = (
    Quoted("convmixer_1536_20", 8, 256, 476.913),
    Quoted("convnext_tiny", 16, 4096, 1106.875),
    Quoted("cct_14_7x2_224", 8, 1024, 349.577),
    Quoted("deit_small_patch16_224", 8, 1024, 271.135),
    Quoted("pcpvt_small_v0", 8, 1024, 371.446),
)


@dataclass(frozen=True)
class Machine:
    """Assumed and measured rates.

    Attributes:
        bandwidth: all-reduce, bytes/s in and out of each device.
        latency_s: of one message.
        images_per_core: input pipeline, images/s.
        cores: per host.
        disk: bytes/s of a checkpoint.
    """

    bandwidth: float
    latency_s: float
    images_per_core: float
    cores: int
    disk: float


class Estimate(NamedTuple):
    """Of one family on some number of devices.

    Attributes:
        efficiency_low: share of the step that is compute, when nothing overlaps; `_high`: when the
            all-reduce runs beside the backward pass altogether.
        epoch_s: without overlap; evaluation and saving come on top, as shares of it.
    """

    images_per_s_per_host: float
    cores_per_host: float
    all_reduce_s: float
    efficiency_low: float
    efficiency_high: float
    epoch_s: float
    eval_share: float
    save_share: float


def all_reduce_s(gradient_bytes: float, devices: int, machine: Machine) -> float:
    """Each device sends and receives 2 (n-1)/n of the gradient, in 2 log2(n) rounds."""
    if devices == 1:
        return 0.0
    traffic = 2 * (devices - 1) / devices * gradient_bytes
    return traffic / machine.bandwidth + 2 * math.ceil(math.log2(devices)) * machine.latency_s


def estimate(
    quoted: Quoted, params: int, devices: int, machine: Machine, *, global_batch: int = 0
) -> Estimate:
    """The quoted step counts as compute alone; 0 for `global_batch` keeps its batch per device.

    Another batch per device changes the compute in proportion here, which flatters small ones.
    """
    quoted_batch = quoted.global_batch / quoted.devices
    batch = global_batch / devices if global_batch else quoted_batch
    compute_s = quoted.step_ms / 1000 * batch / quoted_batch
    gradient = params * FLOAT_BYTES
    reduce_s = all_reduce_s(gradient, devices, machine)
    local = min(devices, DEVICES_PER_HOST)
    input_s = local * batch / (machine.cores * machine.images_per_core)
    slow, fast = max(compute_s + reduce_s, input_s), max(compute_s, reduce_s, input_s)
    needed = local * batch / compute_s
    epoch_s = TRAIN_IMAGES // int(batch * devices) * slow
    eval_s = math.ceil(VAL_IMAGES / devices / batch) * compute_s * FORWARD_SHARE
    save_s = gradient * CHECKPOINT_COPIES / machine.disk
    return Estimate(
        images_per_s_per_host=needed,
        cores_per_host=needed / machine.images_per_core,
        all_reduce_s=reduce_s,
        efficiency_low=compute_s / slow,
        efficiency_high=compute_s / fast,
        epoch_s=epoch_s,
        eval_share=eval_s / epoch_s,
        save_share=save_s / epoch_s,
    )


def parameter_counts() -> Dict[str, int]:
    """Architecture -> parameters, from the catalogue that tests/test_scripts.py checks."""
    with (ROOT / "src" / "models" / "catalogue.csv").open(newline="", encoding="utf-8") as file:
        return {row["arch"]: int(row["params"]) for row in csv.DictReader(file)}


def table(devices: List[int], machine: Machine, *, global_batch: int = 0) -> str:
    """Markdown: a row per family and number of devices."""
    lines = [
        "| arch | devices | global batch | gradient MB | images/s per host | cores per host "
        "| all-reduce ms | efficiency | epoch s | eval | save |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    params = parameter_counts()
    for quoted in QUOTED:
        for count in devices:
            counted = params[quoted.arch]
            row = estimate(quoted, counted, count, machine, global_batch=global_batch)
            batch = global_batch or quoted.global_batch // quoted.devices * count
            lines.append(
                f"| {quoted.arch} | {count} | {batch} "
                f"| {counted * FLOAT_BYTES / 1e6:.0f} "
                f"| {row.images_per_s_per_host:.0f} | {row.cores_per_host:.1f} "
                f"| {row.all_reduce_s * 1e3:.1f} "
                f"| {row.efficiency_low:.0%} to {row.efficiency_high:.0%} "
                f"| {row.epoch_s:.0f} | {row.eval_share:.1%} | {row.save_share:.1%} |"
            )
    return "\n".join(lines)


def run(given: argparse.Namespace) -> None:
    """Prints the table."""
    for name in ("bandwidth_gb_s", "images_per_core", "disk_mb_s"):
        if getattr(given, name) == 0:
            raise UserError(f"--{name} 0: expected more than 0")
    if given.global_batch < 0:
        raise UserError(f"--global_batch {given.global_batch}: expected 0 or more")
    machine = Machine(
        bandwidth=given.bandwidth_gb_s * 1e9,
        latency_s=given.latency_us * 1e-6,
        images_per_core=given.images_per_core,
        cores=given.cores,
        disk=given.disk_mb_s * 1e6,
    )
    print(table(given.devices, machine, global_batch=given.global_batch))


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("benchmarks/scaling_model.py", __doc__ or "")
    parser.add_argument(
        "--devices", type=positive, nargs="+", default=[8, 64, 1024], help="numbers of devices"
    )
    parser.add_argument("--global_batch", type=whole, default=0, help="0: grows with the devices")
    parser.add_argument(
        "--bandwidth_gb_s", type=finite, default=6.25, help="all-reduce, per device"
    )
    parser.add_argument("--latency_us", type=finite, default=50.0, help="of one message")
    parser.add_argument(
        "--images_per_core", type=finite, default=738.0, help="docs/results.md, data pipeline"
    )
    parser.add_argument("--cores", type=positive, default=96, help="per host")
    parser.add_argument("--disk_mb_s", type=finite, default=500.0, help="writing a checkpoint")
    return run_command(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
