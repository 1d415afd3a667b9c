"""Seconds per batch on this CPU: our kernels, MindSpore's own cells, torch, mindcv.

    .venv/bin/python benchmarks/cpu.py [--quick] [--archs NAME ...] [--sides NAME ...] [--json FILE]

`native`, `pure` and `off` are the forms of `cpu_kernels`; `torch` is timm in eager mode, for CCT
the port of the authors' modules in `vit-pytorch`; `compile` the same through torch.compile;
`mindcv` is mindcv's ConvNeXt. `products` is no peer but a bound: the network's multiply-adds, in
training three times as many, at the rate of NumPy's product of two large matrices. Peers that are
not installed are left out, with a line that says so:

    .venv/bin/pip install --no-deps mindcv==0.3.0 vit-pytorch einops

The sides take turns, each round in a fresh process; what counts is the median over all batches, the
compute time of the process beside it, and the ratio to `torch`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from src.runtime.entry import CommandParser, positive, run_command
from src.runtime.files import check_output, write_json

# torch's operators in place of torchvision's compiled ones.
library: Any = None
# Ours -> peer on torch, image side.
NETWORKS = {
    "convnext_tiny": ("convnext_tiny", 224),
    "deit_small_patch16_224": ("deit_small_patch16_224", 224),
    "pcpvt_small_v0": ("twins_pcpvt_small", 224),
    "convmixer_768_32": ("convmixer_768_32", 224),
    "cct_14_7x2_224": ("cct_14", 224),
    "deit_tiny_patch16_224": ("deit_tiny_patch16_224", 224),
    "cct_7_3x1_32": ("cct_7", 32),
}
QUICK = ("convnext_tiny", "deit_small_patch16_224")
FORMS = ("native", "pure", "off")
SIDES = (*FORMS, "torch", "compile", "mindcv", "products")


def timed(call: Callable[[], Any], batches: int) -> Dict[str, Any]:
    """First call apart: it compiles."""
    start = time.perf_counter()
    call()
    first = time.perf_counter() - start
    call()
    seconds, cpu_seconds = [], []
    for _ in range(batches):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        seconds.append(time.perf_counter() - wall)
        cpu_seconds.append(time.process_time() - cpu)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"first": first, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_gb": peak}


def mindspore_call(arch: str, side: int, batch: int, form: str, training: bool) -> Callable:
    from src.args import Config, RunConfig, replace
    from src.runtime.device import setup_device

    setup_device(RunConfig(cpu_kernels=form), seed=1)
    import mindspore as ms
    import numpy as np

    from src.trainer.build import build_eval_net, build_network, build_train_step

    classes = 10 if side == 32 else 1000
    config = replace(
        Config(), arch=arch, image_size=side, num_classes=classes, batch_size=batch, base_lr=1e-6
    )
    image = ms.Tensor(np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8))
    if not training:
        net = build_eval_net(config, build_network(config)).set_train(False)
        return lambda: net(image).asnumpy()
    step = build_train_step(config, build_network(config)).set_train(True)
    label = ms.Tensor(np.arange(batch) % classes, ms.int32)
    mix = ms.Tensor(np.tile(np.array([1, 0, 0, 0, 0], np.float32), (batch, 1)))
    lr = ms.Tensor(1e-6, ms.float32)
    return lambda: step(image, label, mix, lr)[0].asnumpy()


def torch_network(name: str, side: int) -> Any:
    import torch

    # torchvision, which both packages import, wants these where its compiled library does not
    # load. They live as long as `library`.
    global library
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            library.define(f"{operator}(Tensor d, Tensor s, float iou_threshold) -> Tensor")
    if not name.startswith("cct"):
        import timm

        return timm.create_model(name)
    from vit_pytorch import cct

    kernel, stride, layers = (7, 2, 2) if side == 224 else (3, 1, 1)
    return getattr(cct, name)(
        img_size=side,
        kernel_size=kernel,
        stride=stride,
        padding=kernel // 2,
        n_conv_layers=layers,
        num_classes=1000 if side == 224 else 10,
        positional_embedding="learnable",
    )


def torch_call(name: str, side: int, batch: int, training: bool, *, compiled: bool) -> Callable:
    import torch

    model = torch_network(name, side).train(training)
    if compiled:
        model = torch.compile(model)
    image = torch.randn(batch, 3, side, side)
    if not training:

        def infer() -> Any:
            with torch.inference_mode():
                return model(image).numpy()

        return infer
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.05)
    label = torch.arange(batch) % 10

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(image), label)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def mindcv_call(side: int, batch: int, training: bool) -> Callable:
    """mindcv's ConvNeXt-T as its users run it: graph mode, MindSpore's own optimizer and step."""
    import mindspore as ms
    import numpy as np
    from mindcv.models import convnext_tiny
    from mindspore import nn

    ms.set_context(mode=ms.GRAPH_MODE)
    network = convnext_tiny(num_classes=1000).set_train(training)
    image = ms.Tensor(np.random.default_rng(0).normal(size=(batch, 3, side, side)), ms.float32)
    if not training:
        return lambda: network(image).asnumpy()
    with_loss = nn.WithLossCell(network, nn.CrossEntropyLoss())
    optimizer = nn.AdamWeightDecay(network.trainable_params(), 1e-6, weight_decay=0.05)
    step = nn.TrainOneStepCell(with_loss, optimizer).set_train()
    label = ms.Tensor(np.arange(batch), ms.int32)
    return lambda: step(image, label).asnumpy()


def products(arch: str, batch: int, training: bool, batches: int) -> Dict[str, Any]:
    """As `timed`, of the network's multiply-adds and nothing else."""
    # NumPy's library takes processors that are newer than itself for very old ones.
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and "avx512f" in cpuinfo.read_text(encoding="utf-8"):
        os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")
    import numpy as np

    from src.models.registry import count_macs

    length = 2048
    matrix = np.random.default_rng(0).normal(size=(length, length)).astype(np.float32)
    found = timed(lambda: matrix @ matrix, 4 * batches)
    count = batch * count_macs(arch) * (3 if training else 1) / length**3
    scaled = {key: [count * x for x in found[key]] for key in ("seconds", "cpu_seconds")}
    return {**found, **scaled}


def measure(arch: str, batch: int, side_name: str, training: bool, batches: int) -> Dict[str, Any]:
    """What runs in the fresh process."""
    theirs, side = NETWORKS[arch]
    if side_name in FORMS:
        return timed(mindspore_call(arch, side, batch, side_name, training), batches)
    if side_name == "products":
        return products(arch, batch, training, batches)
    if side_name == "mindcv":
        return timed(mindcv_call(side, batch, training), batches)
    compiled = side_name == "compile"
    return timed(torch_call(theirs, side, batch, training, compiled=compiled), batches)


def in_fresh_process(*job: Any) -> Dict[str, Any]:
    command = [sys.executable, __file__, "--job", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{job}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def sides_of(arch: str, wanted: Sequence[str]) -> List[str]:
    """Those of `wanted` that exist for `arch` and are installed."""
    needed = {
        "torch": "vit_pytorch" if arch.startswith("cct") else "timm",
        "mindcv": "mindcv",
    }
    needed["compile"] = needed["torch"]
    found = []
    for side in wanted:
        package = needed.get(side)
        if side == "mindcv" and arch != "convnext_tiny":
            continue
        if package and importlib.util.find_spec(package) is None:
            print(f"{arch}: no {side}, for {package} is not installed", file=sys.stderr)
            continue
        found.append(side)
    return found


def compare(arch: str, batch: int, training: bool, args: argparse.Namespace) -> Dict[str, Any]:
    """One row of the table."""
    sides = sides_of(arch, args.sides)
    rounds: Dict[str, List[Dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(args.rounds):
        for side in sides:
            rounds[side].append(in_fresh_process(arch, batch, side, training, args.batches))
    row: Dict[str, Any] = {"arch": arch, "batch": batch, "training": training}
    for side, found in rounds.items():
        row[side] = {
            key: statistics.median(x for one in found for x in one[key])
            for key in ("seconds", "cpu_seconds")
        }
        row[side].update({key: max(one[key] for one in found) for key in ("first", "peak_gb")})
    return row


def show(row: Dict[str, Any]) -> None:
    peer = row.get("torch")
    for side in SIDES:
        if side in row:
            ours = row[side]
            ratio = f"{ours['seconds'] / peer['seconds']:.2f}" if peer else "-"
            print(
                f"{row['arch']:24} {'train' if row['training'] else 'infer'} batch {row['batch']:3}"
                f" {side:7} {ours['seconds']:8.3f} s {ours['cpu_seconds']:8.3f} s cpu  "
                f"x torch {ratio:>5}  first {ours['first']:5.1f} s  peak {ours['peak_gb']:5.2f} GB",
                flush=True,
            )


def run(args: argparse.Namespace) -> None:
    """Measures all that was asked for, or one job of it."""
    if args.job:
        print(json.dumps(measure(*json.loads(args.job))))
        return
    if args.quick:
        args.archs, args.batch, args.rounds, args.batches = list(QUICK), [8], 1, 3
    if args.json:
        check_output("json", args.json)
    rows = []
    for arch in args.archs:
        for batch in args.batch:
            for phase in args.phases:
                rows.append(compare(arch, batch, phase == "train", args))
                show(rows[-1])
    if args.json:
        write_json(args.json, rows)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("benchmarks/cpu.py", __doc__ or "")
    parser.add_argument("--quick", action="store_true", help="two networks, batch 8, one round")
    parser.add_argument(
        "--archs", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="networks"
    )
    parser.add_argument(
        "--batch", nargs="+", type=positive, default=[1, 8, 32], help="images of a batch"
    )
    parser.add_argument(
        "--sides",
        nargs="+",
        choices=SIDES,
        default=["native", "off", "torch"],
        help="what takes turns",
    )
    parser.add_argument("--rounds", type=positive, default=3, help="turns of each side")
    parser.add_argument("--batches", type=positive, default=5, help="measured in each process")
    parser.add_argument("--json", type=Path, help="file for everything, as JSON")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument(
        "--phases",
        nargs="+",
        choices=("infer", "train"),
        default=["infer", "train"],
        help="inference, training or both",
    )
    return run_command(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
