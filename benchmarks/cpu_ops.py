"""Milliseconds of one hot layer on this CPU: our kernels, MindSpore's own cells, torch.

    .venv/bin/python benchmarks/cpu_ops.py [--layers NAME ...] [--rounds N] [--json FILE]

Layers have the sizes they have in the networks, at batch 8 and 224x224. The sides take turns, each
round in a fresh process; shown are medians of a forward pass, and of a forward and backward pass
with the gradients of input and weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from src.runtime.entry import CommandParser, positive, run_command
from src.runtime.files import check_output, write_json

SIDES = ("native", "off", "torch")
Shape = Tuple[int, ...]

# Layer -> shape of its input here: maps are channels-last, but for the image.
LAYERS: Dict[str, Shape] = {
    "depthwise 7x7, 96 at 56": (8, 56, 56, 96),
    "depthwise 7x7, 768 at 32": (8, 32, 32, 768),
    "depthwise 3x3, 320 at 14": (8, 14, 14, 320),
    "layer norm, 96 at 56": (8, 56, 56, 96),
    "gelu, 1536": (8, 197, 1536),
    "linear, 384 to 1152": (8, 197, 384),
    "perceptron, 384 to 1536": (8, 197, 384),
    "attention, 6 heads of 64": (8, 197, 384),
    "patches 4x4, 3 to 96": (8, 3, 224, 224),
    "patches 2x2, 96 to 192": (8, 56, 56, 96),
    "dense 7x7 stride 2, 3 to 64": (8, 224, 224, 3),
}


def our_layers() -> Dict[str, Callable]:
    from mindspore.common.initializer import Normal, Zero

    from src.models.layers.activation import Gelu
    from src.models.layers.attention import Attention
    from src.models.layers.conv_pool import DenseConv
    from src.models.layers.depthwise_conv import DepthwiseConv
    from src.models.layers.layout import NCHW, NHWC
    from src.models.layers.linear import create_linear
    from src.models.layers.mlp import Mlp
    from src.models.layers.norm import LayerNorm
    from src.models.layers.patch_embed import PatchConv

    weight = {"weight_init": Normal(0.1)}
    init = {**weight, "bias_init": Zero()}
    layout, dense = {"layout": NHWC}, {"stride": 2, "padding": 3, "layout": NHWC}
    return {
        "depthwise 7x7, 96 at 56": lambda: DepthwiseConv(96, 7, **layout, **init),
        "depthwise 7x7, 768 at 32": lambda: DepthwiseConv(768, 7, **layout, **init),
        "depthwise 3x3, 320 at 14": lambda: DepthwiseConv(320, 3, **layout, **init),
        "layer norm, 96 at 56": lambda: LayerNorm(96, epsilon=1e-6),
        "gelu, 1536": Gelu,
        "linear, 384 to 1152": lambda: create_linear(384, 1152),
        "perceptron, 384 to 1536": lambda: Mlp(384, 1536, nonlinearity="GELU"),
        "attention, 6 heads of 64": lambda: Attention(384, 6, qkv_bias=True),
        "patches 4x4, 3 to 96": lambda: PatchConv(
            3, 96, 4, in_layout=NCHW, out_layout=NHWC, **init
        ),
        "patches 2x2, 96 to 192": lambda: PatchConv(
            96, 192, 2, in_layout=NHWC, out_layout=NHWC, **init
        ),
        "dense 7x7 stride 2, 3 to 64": lambda: DenseConv(3, 64, 7, **dense, **weight),
    }


def torch_layers() -> Dict[str, Any]:
    from torch import nn

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.proj = nn.Linear(384, 1152), nn.Linear(384, 384)

        def forward(self, x: Any) -> Any:
            q, k, v = self.qkv(x).unflatten(2, (3, 6, 64)).permute(2, 0, 3, 1, 4)
            x = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.proj(x.transpose(1, 2).flatten(2))

    return {
        "depthwise 7x7, 96 at 56": nn.Conv2d(96, 96, 7, padding=3, groups=96),
        "depthwise 7x7, 768 at 32": nn.Conv2d(768, 768, 7, padding=3, groups=768),
        "depthwise 3x3, 320 at 14": nn.Conv2d(320, 320, 3, padding=1, groups=320),
        "layer norm, 96 at 56": nn.LayerNorm(96),
        "gelu, 1536": nn.GELU(),
        "linear, 384 to 1152": nn.Linear(384, 1152),
        "perceptron, 384 to 1536": nn.Sequential(
            nn.Linear(384, 1536), nn.GELU(), nn.Linear(1536, 384)
        ),
        "attention, 6 heads of 64": Attention(),
        "patches 4x4, 3 to 96": nn.Conv2d(3, 96, 4, 4),
        "patches 2x2, 96 to 192": nn.Conv2d(96, 192, 2, 2),
        "dense 7x7 stride 2, 3 to 64": nn.Conv2d(3, 64, 7, 2, 3, bias=False),
    }


def mindspore_calls(name: str, form: str) -> Tuple[Callable, Callable]:
    from src.args import RunConfig
    from src.runtime.device import setup_device

    setup_device(RunConfig(cpu_kernels=form), seed=1)
    import mindspore as ms
    from mindspore import ops

    layer = our_layers()[name]().set_train(True)
    x = ms.Tensor(np.random.default_rng(0).normal(size=LAYERS[name]), ms.float32)
    dy = ms.Tensor(np.ones_like(layer(x).asnumpy()))
    weights = ms.ParameterTuple(layer.trainable_params())
    by_list = len(weights) > 0
    derive = ops.GradOperation(get_all=True, get_by_list=by_list, sens_param=True)
    gradient = derive(layer, weights) if by_list else derive(layer)
    return lambda: layer(x).asnumpy(), lambda: first_tensor(gradient(x, dy)).asnumpy()


def first_tensor(found: Any) -> Any:
    while isinstance(found, tuple):
        found = found[0]
    return found


def torch_calls(name: str) -> Tuple[Callable, Callable]:
    import torch

    layer, shape = torch_layers()[name], LAYERS[name]
    # torch's convolutions and BatchNorm take maps channels-first.
    is_map = len(shape) == 4 and shape[1] != 3 and not isinstance(layer, torch.nn.LayerNorm)
    if is_map:
        shape = (shape[0], shape[3], *shape[1:3])
    x = torch.randn(shape, requires_grad=True)
    dy = torch.ones_like(layer(x))
    weights = [x, *layer.parameters()]

    def forward() -> Any:
        with torch.no_grad():
            return layer(x)

    return forward, lambda: torch.autograd.grad(layer(x), weights, dy)


def milliseconds(call: Callable, count: int) -> List[float]:
    for _ in range(3):
        call()
    found = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        found.append(1e3 * (time.perf_counter() - start))
    return found


def in_fresh_process(name: str, side: str, count: int) -> Dict[str, List[float]]:
    command = [sys.executable, __file__, "--job", json.dumps([name, side, count])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{name}, {side}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def run_job(name: str, side: str, count: int) -> Dict[str, List[float]]:
    calls = torch_calls(name) if side == "torch" else mindspore_calls(name, side)
    forward, both = (milliseconds(call, count) for call in calls)
    return {"forward": forward, "both": both}


def run(args: argparse.Namespace) -> None:
    """Measures all that was asked for, or one job of it."""
    if args.job:
        print(json.dumps(run_job(*json.loads(args.job))))
        return
    if args.json:
        check_output("json", args.json)
    rows = []
    print("| layer | ms forward: " + ", ".join(args.sides) + " | forward and backward |")
    for name in args.layers:
        rounds: Dict[str, List[Dict[str, List[float]]]] = {side: [] for side in args.sides}
        for _ in range(args.rounds):
            for side in args.sides:
                rounds[side].append(in_fresh_process(name, side, args.calls))
        row = {
            side: {
                key: statistics.median(x for one in found for x in one[key])
                for key in ("forward", "both")
            }
            for side, found in rounds.items()
        }
        rows.append({"layer": name, **row})
        cells = (
            ", ".join(f"{row[side][key]:.2f}" for side in args.sides) for key in ("forward", "both")
        )
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    if args.json:
        write_json(args.json, rows)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("benchmarks/cpu_ops.py", __doc__ or "")
    parser.add_argument(
        "--layers", nargs="+", choices=LAYERS, default=list(LAYERS), help="which ones"
    )
    parser.add_argument(
        "--sides", nargs="+", choices=SIDES, default=list(SIDES), help="what takes turns"
    )
    parser.add_argument("--rounds", type=positive, default=3, help="turns of each side")
    parser.add_argument("--calls", type=positive, default=15, help="measured in each process")
    parser.add_argument("--json", type=Path, help="file for everything, as JSON")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    return run_command(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
