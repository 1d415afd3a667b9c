"""Memory and time of a training step under several values of one key, beside each other.

    python benchmarks/step_memory.py --key recompute --values false true
    python benchmarks/step_memory.py deit_small_patch16_224 --key freeze --values none backbone

Each measurement is a process of its own: its peak is counted from what it holds once the network
and its training step are built, and the time is the median of the steps after the first two.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from src.args import Config, replace
from src.configs.plain_values import plain_value
from src.errors import UserError, on_one_line
from src.runtime.entry import CommandParser, positive, run_command

# Network -> what makes it shallow.
ARCHS: Dict[str, Dict[str, Any]] = {
    "deit_tiny_patch16_224": {"depth": 4},
    "convnext_atto": {"depths": [1, 1, 4, 1]},
    "cct_7_7x2_224": {"num_layers": 4},
    "convmixer_1024_20_ks9_p14": {"depth": 4},
    "pcpvt_small_v0": {"depths": [1, 1, 4, 1]},
}
KERNELS = ("auto", "off")
_CHILD = """
import json, statistics, sys, time
from src.args import Config, replace
from src.runtime.device import setup_device
given, steps = json.loads(sys.argv[1]), int(sys.argv[2])
config = replace(Config(), **given)
setup_device(config.run, seed=1)
import mindspore as ms, numpy as np
from src.runtime.memory import host_peak
from src.trainer.build import build_network, build_train_step
step = build_train_step(config, build_network(config)).set_train(True)
count, side = config.data.batch_size, config.model.image_size
image = ms.Tensor(np.zeros((count, side, side, 3), np.uint8))
label = ms.Tensor(np.zeros(count), ms.int32)
mix = ms.Tensor(np.tile(np.array([1, 0, 0, 0, 0], np.float32), (count, 1)))
before, times = host_peak(), []
for _ in range(2 + steps):
    start = time.perf_counter()
    loss = float(step(image, label, mix, ms.Tensor(1e-4, ms.float32))[0].asnumpy())
    times.append(time.perf_counter() - start)
peak = host_peak() - before
print(json.dumps({"seconds": statistics.median(times[2:]), "peak": peak, "loss": loss}))
"""


def measure(given: Dict[str, Any], steps: int) -> Dict[str, float]:
    """Seconds of a step, bytes of the peak above what was held before, and the last loss.

    Raises:
        UserError: a value that is not allowed, or the process failed.
    """
    replace(Config(), **given)
    command = [sys.executable, "-c", _CHILD, json.dumps(given), str(steps)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"{given}: no measurement ({on_one_line(said[-1])})")
    found: Dict[str, float] = json.loads(lines[-1])
    return found


def run(arguments: argparse.Namespace) -> None:
    """Prints a row for each network, kernels and value."""
    from src.models.registry import family_of

    archs = arguments.archs or ARCHS
    for arch in archs:
        family_of(arch)
    for value in arguments.values:
        replace(Config(), **{arguments.key: plain_value(value)})
    print(f"| network | cpu_kernels | {arguments.key} | peak, MiB | step, ms | last loss |")
    print("|---|---|---|---|---|---|")
    for arch in archs:
        for kernels in arguments.kernels:
            for value in arguments.values:
                given = {
                    "arch": arch,
                    "image_size": arguments.image_size,
                    "num_classes": 1000,
                    "batch_size": arguments.batch_size,
                    "cpu_kernels": kernels,
                    "model_args": ARCHS.get(arch, {}) if arguments.shallow else {},
                    arguments.key: plain_value(value),
                }
                found = measure(given, arguments.steps)
                numbers = (f"{found['peak'] / 2**20:.0f}", f"{1e3 * found['seconds']:.0f}")
                cells = (arch, kernels, value, *numbers, repr(found["loss"]))
                print(f"| {' | '.join(cells)} |", flush=True)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("benchmarks/step_memory.py", __doc__ or "")
    parser.add_argument("archs", nargs="*", help=f"networks; default: {', '.join(ARCHS)}")
    parser.add_argument("--key", default="recompute", help="key of a recipe")
    parser.add_argument("--values", nargs="+", default=["false", "true"], help="values of the key")
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=KERNELS, help="forms")
    parser.add_argument("--batch_size", type=positive, default=8, help="images of a step")
    parser.add_argument("--image_size", type=positive, default=224, help="side of an image")
    parser.add_argument(
        "--shallow", action="store_true", help="few blocks, which compile in less time"
    )
    parser.add_argument("--steps", type=positive, default=5, help="measured in each process")
    return run_command(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
