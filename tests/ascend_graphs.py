"""What is in the compiled graphs of training, evaluation and export: operators and their types.

The graphs are those of the front end, without the kernels that a CPU has in an Ascend's place.
Nothing is executed.
"""

from __future__ import annotations

import gc
import os
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache, partial
from itertools import combinations, product
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Set, Tuple
from unittest.mock import patch

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from mindspore.nn.cell import _cell_graph_executor
from mindspore.train.mind_ir_pb2 import ModelProto, TensorProto
from small_networks import ARGUMENTS

from src.args import Config, parse_args
from src.data.augment.batch_transform import MIX_COLUMNS
from src.data.augment.random_erasing import BOX_COLUMNS
from src.kernels import selection
from src.trainer.build import build_eval_net, build_network, build_train_step

BATCH, SIDE, CLASSES = 4, 32, 1000
TEACHER = "cct_2_3x2_32"


def _network(arch: str, **options: str) -> Dict[str, Any]:
    return {"arch": arch, "model_args": ARGUMENTS.get(arch, "{depth: 2, patch_size: 8}"), **options}


def _distilled(kind: str) -> Dict[str, Any]:
    arch = "deit_tiny_distilled_patch16_224"
    return _network(arch, teacher_arch=TEACHER, distillation_type=kind)


# The first five are of five families.
NETWORKS: Dict[str, Dict[str, Any]] = {
    "ConvMixer": _network("convmixer_768_32"),
    "ConvNeXt": _network("convnext_tiny"),
    "CCT": _network("cct_2_3x2_32"),
    "DeiT under a teacher, hard": _distilled("hard"),
    "Twins": {"arch": "pcpvt_small_v0", "model_args": "{depths: [1, 1, 1, 1]}"},
    "DeiT": _network("deit_tiny_patch16_224"),
    "DeiT under a teacher, soft": _distilled("soft"),
    "CCT with a class token": {
        "arch": TEACHER,
        "model_args": "{seq_pool: false, positional_embedding: sine, dropout: 0.1}",
    },
}
# A recipe has one value of each group.
GROUPS: Dict[str, Dict[str, Dict[str, Any]]] = {
    "network": NETWORKS,
    "level": {level: {"amp_level": level} for level in ("O0", "O1", "O2", "O3")},
    "optimizer": {
        name: {"optimizer": name}
        for name in ("lamb", "adamweightdecay", "sgd", "momentum", "adamw", "lion")
    },
    "clipping": {
        "off": {},
        **{
            mode: {"clip_mode": mode, "clip_global_norm_value": 1.0}
            for mode in ("norm", "value", "adaptive")
        },
    },
    "erasing": {
        "off": {},
        **{mode: {"re_prob": 0.25, "re_mode": mode} for mode in ("const", "rand", "pixel")},
    },
    "loss": {
        "cross entropy": {},
        "bce": {"criterion": "bce"},
        "bce, sum of hard targets": {"criterion": "bce", "bce_target_thresh": 0.2, "bce_sum": True},
    },
    "averages": {
        "off": {},
        "ema": {"with_ema": True},
        "ema, warmup": {"with_ema": True, "ema_warmup": True},
    },
    "batches": {"one": {}, "two": {"accumulation_step": 2}},
    "scale": {
        "dynamic": {},
        "static, BatchNorm too": {"is_dynamic_loss_scale": False, "keep_bn_fp32": False},
    },
    "layers": {
        "seeded": {"drop_path_rate": 0.1},
        "not seeded, ReLU": {"seeded_dropout": False, "nonlinearity": "ReLU", "layer_decay": 0.7},
    },
}
# What says how values flow; no kernel runs for them.
STRUCTURE = {"TupleGetItem", "MakeTuple", "Partial", "Switch", "Depend", "UpdateState", "Load"}
_SATURATES = {"MS_ASCEND_CHECK_OVERFLOW_MODE": "SATURATION_MODE"}
_TYPED = ("shape", "value")  # attributes of a node that hold the types of what it gives

Recipe = Tuple[str, ...]  # in the order of the groups
Choice = Tuple[int, int]  # number of a group, and of a value of it
Pair = Tuple[Choice, ...]


class Primitive(NamedTuple):
    """An operator of a graph: its name, the types of its tensors, and where it is.

    Attributes:
        inputs: dtypes of the tensors, constants included; numbers are none. A tuple of tensors has
            one entry.
        outputs: dtypes, each once.
        largest: elements of the largest tensor; -1 where a shape is not known in advance.
    """

    operator: str
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]
    largest: int
    place: str


@cache
def recipes() -> Tuple[Recipe, ...]:
    """Recipes that hold every pair of values of two groups, found greedily.

    What is behind the network has nothing to do with it, so that it is paired with levels only.
    Each starts from a pair that none has yet, of the values that were taken least often: the first
    few hold every value.
    """
    groups = [[(number, i) for i in range(len(GROUPS[name]))] for number, name in enumerate(GROUPS)]
    waiting = {pair for a, b in combinations(groups, 2) for pair in product(a, b)}
    waiting -= {(one, other) for one, other in waiting if one[0] == 0 and other[0] > 1}
    taken: Counter = Counter()
    found = []
    while waiting:
        chosen = list(min(waiting, key=lambda pair: (sum(taken[one] for one in pair), pair)))
        for values in sorted(groups, key=len, reverse=True):
            if values[0][0] not in dict(chosen):
                chosen.append(max(values, key=partial(_gain, chosen, waiting, taken)))
        chosen.sort()
        waiting -= set(combinations(chosen, 2))
        taken.update(chosen)
        found.append(tuple(list(GROUPS[name])[i] for name, (_, i) in zip(GROUPS, chosen)))
    return tuple(found)


def _gain(chosen: List[Choice], waiting: Set[Pair], taken: Counter, one: Choice) -> Tuple[int, int]:
    """Pairs that `one` would add, and then how rarely it was taken."""
    return sum(tuple(sorted((one, other))) in waiting for other in chosen), -taken[one]


def config_of(recipe: Recipe, teacher: Path) -> Config:
    """The recipe with small images; `teacher` is a checkpoint of `TEACHER`."""
    options: Dict[str, Any] = {
        "batch_size": BATCH,
        "image_size": SIDE,
        "num_classes": CLASSES,
        "set": "Digits",
        "device_target": "Ascend",
    }
    for values, name in zip(GROUPS.values(), recipe):
        options.update(values[name])
    if "teacher_arch" in options:
        options["teacher_pretrained"] = teacher
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    return parse_args(words)


def write_teacher(path: Path) -> Path:
    config = parse_args(["--arch", TEACHER, "--num_classes", str(CLASSES), "--image_size", "32"])
    ms.save_checkpoint(build_network(config), str(path))
    return path


def training_graph(config: Config) -> List[Primitive]:
    """Of one step of the recipe on a chip that saturates, whose overflow has operators too."""
    with selection.using(selection.OFF), patch.dict(os.environ, _SATURATES):
        step = build_train_step(config, build_network(config))
    step.set_train(True)
    columns = MIX_COLUMNS + (config.data.re_count * BOX_COLUMNS if config.data.re_prob else 0)
    label = Tensor(np.zeros(BATCH, np.int32))
    mix = Tensor(np.zeros((BATCH, columns), np.float32))
    # As for two steps.
    _compile(step, *((_images(), label, mix, Tensor(rate, ms.float32)) for rate in (0.1, 0.2)))
    return primitives_of(step)


def evaluation_graph(config: Config) -> List[Primitive]:
    """Of one batch of images; `export.py` writes the same, at O0."""
    with selection.using(selection.OFF):
        cell = build_eval_net(config, build_network(config))
    cell.set_train(False)
    _compile(cell, (_images(),), (_images(),))
    return primitives_of(cell)


def graphs_of(config: Config) -> List[Primitive]:
    """Of both."""
    return [*training_graph(config), *evaluation_graph(config)]


def _images() -> Tensor:
    return Tensor(np.zeros((BATCH, SIDE, SIDE, 3), np.uint8))


def _compile(cell: nn.Cell, *calls: Tuple[Tensor, ...]) -> None:
    """As for export, which ends before the back end: a CPU's knows no operators of an Ascend."""
    # A cell that ends during another's compilation has MindSpore 2.10 compile that one again.
    gc.collect()
    for inputs in calls:
        _cell_graph_executor.compile(cell, *inputs, phase="export")


def primitives_of(cell: nn.Cell) -> List[Primitive]:
    """Of a cell that has been compiled once.

    Raises:
        AssertionError: it was compiled more than once.
    """
    phases = sorted(cell.compile_cache)
    if len(phases) != 1:
        raise AssertionError(f"{type(cell).__name__} was compiled {len(phases)} times: {phases}")
    executor = _cell_graph_executor._graph_executor
    model = ModelProto()
    model.ParseFromString(executor.get_func_graph_proto(phases[0], "mind_ir", False))
    return list(_nodes(model))


@dataclass(frozen=True)
class _Value:
    """Tensors on an edge: one, or those of a tuple; none for numbers and control."""

    dtypes: Tuple[str, ...]
    largest: int


def _nodes(model: Any) -> Iterator[Primitive]:
    graphs = [model.graph, *model.functions]
    values: Dict[str, _Value] = {}
    for graph in graphs:
        for parameter in graph.parameter:
            values[parameter.name] = _value([parameter])
        for graph_input in graph.input:
            values[graph_input.name] = _value(graph_input.tensor)
        for node in graph.node:
            found = [t for a in node.attribute if a.name in _TYPED for t in _tensors(a)]
            value = _value(found)
            if node.op_type.startswith("REF::MakeTuple"):  # any number of tensors
                value = _Value(tuple(sorted(set(value.dtypes))), value.largest)
            values[node.output[0]] = value
    for graph in graphs:
        for node in graph.node:
            called = re.match(r"REF::(\w+):\d+$", node.op_type)
            if called is None or called[1] in STRUCTURE:
                continue
            inputs = [values.get(name, _value([])) for name in node.input]
            if called[1] == "Cast":  # the other is a type
                inputs = inputs[:1]
            output = values[node.output[0]]
            yield Primitive(
                called[1],
                tuple(dtype for value in inputs for dtype in value.dtypes),
                tuple(dict.fromkeys(output.dtypes)),
                _largest(value.largest for value in (*inputs, output)),
                node.domain,
            )


def _tensors(attribute: Any) -> List[Any]:
    return [*attribute.tensors, *(t for value in attribute.values for t in _tensors(value))]


def _value(tensors: Any) -> _Value:
    dtypes = tuple(_dtype(tensor) for tensor in tensors)
    sizes = [-1 if min(t.dims, default=1) < 0 else int(np.prod(t.dims)) for t in tensors]
    return _Value(dtypes, _largest(sizes))


def _largest(sizes: Iterable[int]) -> int:
    sizes = list(sizes)
    return -1 if -1 in sizes else max(sizes, default=0)


def _dtype(tensor: Any) -> str:
    name = TensorProto.DataType.Name(tensor.data_type).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)
