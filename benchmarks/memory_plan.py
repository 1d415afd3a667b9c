"""Device memory that a training step needs by MindSpore's own plan: what batch fits on a card.

python benchmarks/memory_plan.py [ARCH ...] [--batches 2 4]

MindSpore plans the memory of a compiled graph before it runs (SOMAS). The step is compiled on a
CPU, of MindSpore's standard cells, as for an Ascend; the plan is read from MindSpore's log for two
batches, and a line through them gives what does not grow with the batch and what an image needs.
It is a plan, in float32: for mixed precision MindSpore makes none ahead of the step. What a card
adds (workspaces, its own layouts, collectives) is not in it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from src.errors import UserError, on_one_line
from src.runtime.entry import CommandParser, positive, run_command

ARCHS = (
    "convmixer_1536_20",
    "convnext_tiny",
    "cct_14_7x2_224",
    "deit_small_patch16_224",
    "pcpvt_small_v0",
)
_MIB = 2**20
_CHILD = """
from src.args import Config, replace
from src.runtime.device import setup_device
config = replace(Config(), arch={arch!r}, image_size=224, num_classes=1000, batch_size={batch},
                 base_lr=1e-6, cpu_kernels="off")
setup_device(config.run, seed=1)
import mindspore as ms, numpy as np
from src.trainer.build import build_network, build_train_step
ms.set_context(memory_optimize_level="O1")
step = build_train_step(config, build_network(config)).set_train(True)
image = ms.Tensor(np.zeros(({batch}, 224, 224, 3), np.uint8))
label = ms.Tensor(np.zeros({batch}), ms.int32)
mix = ms.Tensor(np.tile(np.array([1, 0, 0, 0, 0], np.float32), ({batch}, 1)))
step(image, label, mix, ms.Tensor(1e-6, ms.float32))[0].asnumpy()
print("parameters", sum(p.nbytes for p in step.get_parameters()))
"""


class Plan(NamedTuple):
    """Bytes of a step: of everything that is kept from step to step, and of its graphs."""

    parameters: int
    graphs: int


def plan_of(arch: str, batch: int) -> Plan:
    """Compiles and runs one step in a process of its own.

    Raises:
        UserError: it failed, or its log says nothing of a plan.
    """
    code = _CHILD.format(arch=arch, batch=batch)
    with tempfile.TemporaryDirectory() as folder:
        logs = {"GLOG_v": "1", "GLOG_logtostderr": "0", "GLOG_log_dir": folder}
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, **logs},
            capture_output=True,
            text=True,
        )
        files = list(Path(folder).glob("rank_*/logs/*.log.INFO.*"))
        text = "".join(path.read_text(errors="replace") for path in files)
    kept = re.search("^parameters ([0-9]+)$", done.stdout, re.MULTILINE)
    graphs = [int(size) for size in re.findall("Best result:([0-9]+) Bytes", text)]
    if kept is None or not graphs:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"{arch}, batch {batch}: no plan ({on_one_line(said[-1])})")
    return Plan(int(kept.group(1)), sum(graphs))


def line_through(plans: Sequence[Plan], batches: Sequence[int]) -> List[float]:
    """[bytes for any batch, bytes per image], from plans for two batches."""
    per_image = (plans[1].graphs - plans[0].graphs) / (batches[1] - batches[0])
    return [plans[0].parameters + plans[0].graphs - per_image * batches[0], per_image]


def measure(arguments: argparse.Namespace) -> None:
    """Prints a row for each network."""
    if len(set(arguments.batches)) != 2 or min(arguments.batches) < 1:
        raise UserError(f"--batches {arguments.batches}: give two different ones, such as 2 4")
    from src.models.registry import family_of

    for arch in arguments.archs:
        family_of(arch)  # a wrong name costs no measurement before it
    print("| network | for any batch, MiB | per image, MiB | batch 64, GiB | batch 128, GiB |")
    print("|---|---|---|---|---|")
    for arch in arguments.archs or ARCHS:
        plans = [plan_of(arch, batch) for batch in arguments.batches]
        fixed, per_image = line_through(plans, arguments.batches)
        totals = [f"{(fixed + batch * per_image) / 2**30:.1f}" for batch in (64, 128)]
        cells = [arch, f"{fixed / _MIB:.0f}", f"{per_image / _MIB:.1f}", *totals]
        print(f"| {' | '.join(cells)} |", flush=True)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("benchmarks/memory_plan.py", __doc__ or "")
    parser.add_argument("archs", nargs="*", help=f"networks; default: {', '.join(ARCHS)}")
    parser.add_argument("--batches", type=positive, nargs="+", default=[2, 4], help="two of them")
    return run_command(measure, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
