"""ONNX files of whole classifiers, through the framework's exporter and the `onnx` package.

The exporter lacks three things. `Erf`, which exact GELU needs: each GELU is exported as a Softplus,
which no network here has, and then replaced by the five nodes it stands for. `Unstack`: exported as
a split. And batches of any size: the network is exported for 2 and for 3 images, and whatever
constant differs between the two is a batch, which is then read from the input.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
from mindspore import Tensor, nn, ops

from ..models.layers.attention import SplitHeads
from ..runtime.compat import export_onnx

INPUT, OUTPUT = "image", "logits"


class _Stub(nn.Cell):
    """Stands for GELU in the exporter's file."""

    def __init__(self) -> None:
        super().__init__()
        self.softplus = ops.Softplus()

    def construct(self, x: Tensor) -> Tensor:
        return self.softplus(x)


class _Unstack(nn.Cell):
    """(n, ...) -> n times (...), in operators the exporter knows."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.split = ops.Split(0, number)
        self.squeeze = ops.Squeeze(0)

    def construct(self, x: Tensor) -> Tuple[Tensor, ...]:
        parts = ()  # type: Tuple[Tensor, ...]
        for part in self.split(x):
            parts += (self.squeeze(part),)
        return parts


def prepare_for_onnx(network: nn.Cell) -> None:
    """Replaces in place what the exporter does not know; the network computes nonsense after it."""
    if isinstance(network, SplitHeads):
        del network.unstack
        network.unstack = _Unstack(network.parts)
    for name, child in list(network.name_cells().items()):
        if not isinstance(child, nn.GELU):
            prepare_for_onnx(child)
        elif isinstance(network, (nn.SequentialCell, nn.CellList)):
            network[int(name)] = _Stub()
        else:
            setattr(network, name, _Stub())


def build_onnx(cell: nn.Cell, images: np.ndarray, folder: Path, *, dynamic: bool) -> Any:
    """The checked ONNX model of a cell that `prepare_for_onnx` has gone through.

    Args:
        images: the batch as the cell takes it; with `dynamic` at least 3.
        folder: for files on the way.
        dynamic: take any number of images.
    """
    import onnx

    if not dynamic:
        model = _export(cell, images, folder / "fixed.onnx")
    else:
        model, other = (_export(cell, images[:n], folder / f"{n}.onnx") for n in (2, 3))
        _free_batch(model, other)
    _insert_erf(model)
    _name_ends(model)
    onnx.checker.check_model(model)
    return model


def _export(cell: nn.Cell, images: np.ndarray, path: Path) -> Any:
    import onnx

    export_onnx(cell, Tensor(images), path)
    model = onnx.load(str(path))
    # The exporter lists weights among the inputs, which freezes no constants in runtimes.
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model


def _insert_erf(model: Any) -> None:
    """Softplus(x) -> x * (erf(x / sqrt(2)) + 1) * 0.5."""
    from onnx import helper, numpy_helper

    values = {"gelu.root": math.sqrt(0.5), "gelu.one": 1.0, "gelu.half": 0.5}
    nodes: List[Any] = []
    for node in model.graph.node:
        if node.op_type != "Softplus":
            nodes.append(node)
            continue
        x, y = node.input[0], node.output[0]
        nodes += [
            helper.make_node("Mul", [x, "gelu.root"], [f"{y}.scaled"]),
            helper.make_node("Erf", [f"{y}.scaled"], [f"{y}.erf"]),
            helper.make_node("Add", [f"{y}.erf", "gelu.one"], [f"{y}.sum"]),
            helper.make_node("Mul", [x, f"{y}.sum"], [f"{y}.double"]),
            helper.make_node("Mul", [f"{y}.double", "gelu.half"], [y]),
        ]
    if len(nodes) > len(model.graph.node):
        model.graph.initializer.extend(
            numpy_helper.from_array(np.array(value, np.float32), name)
            for name, value in values.items()
        )
    _set_nodes(model, nodes)


def _set_nodes(model: Any, nodes: List[Any]) -> None:
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _name_ends(model: Any) -> None:
    """Calls the input `image` and the output `logits`."""
    graph = model.graph
    names = {graph.input[0].name: INPUT, graph.output[0].name: OUTPUT}
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
    graph.input[0].name, graph.output[0].name = INPUT, OUTPUT


def _free_batch(model: Any, other: Any) -> None:
    """Makes a model for 2 images one for any number, by comparison with one for 3.

    Raises:
        ValueError: a constant depends on the batch in a way that is not understood.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    image = graph.input[0].name
    nodes: List[Any] = [
        helper.make_node("Shape", [image], ["batch.shape"]),
        helper.make_node("Slice", ["batch.shape", "batch.start", "batch.end"], ["batch.size"]),
    ]
    for name, value in (("batch.start", 0), ("batch.end", 1)):
        graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), name))
    consumers = {name: node.op_type for node in graph.node for name in node.input}
    _free_tables(graph, other.graph, nodes, consumers)
    constants = {n.output[0]: n for n in other.graph.node if n.op_type == "Constant"}
    for node in graph.node:
        mine, theirs = node, constants.get(node.output[0])
        if theirs is None or node.op_type != "Constant" or mine.attribute == theirs.attribute:
            nodes.append(node)
            continue
        shapes = [numpy_helper.to_array(n.attribute[0].t) for n in (mine, theirs)]
        nodes += _free_shape(node.output[0], *shapes, consumer=consumers[node.output[0]])
    _set_nodes(model, nodes)
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.value_info[:]


def _free_shape(name: str, mine: np.ndarray, theirs: np.ndarray, *, consumer: str) -> List[Any]:
    """Nodes that give the shape `name`, which is `mine` for 2 images and `theirs` for 3."""
    from onnx import helper, numpy_helper

    share = theirs[0] - mine[0]
    if not np.array_equal(mine[1:], theirs[1:]) or mine[0] != 2 * share:
        raise ValueError(f"{name}: the shape {mine} depends on the batch in an unknown way")
    rest = mine[1:].astype(np.int64)
    if consumer == "Reshape":
        # 0 copies the input's own; -1 is what remains.
        first = -1 if (rest >= 0).all() else 0
        if first == 0 and share != 1:
            raise ValueError(f"{name}: the shape {mine} has two unknown sides")
        value = numpy_helper.from_array(np.array([first, *rest], np.int64), name)
        return [helper.make_node("Constant", [], [name], value=value)]
    if share != 1:
        raise ValueError(f"{name}: {consumer} to {mine} depends on the batch in an unknown way")
    return _shape_with_batch(name, rest)


def _shape_with_batch(name: str, rest: np.ndarray) -> List[Any]:
    from onnx import helper, numpy_helper

    value = numpy_helper.from_array(rest.astype(np.int64), f"{name}.rest")
    return [
        helper.make_node("Constant", [], [f"{name}.rest"], value=value),
        helper.make_node("Concat", ["batch.size", f"{name}.rest"], [name], axis=0),
    ]


def _free_tables(graph: Any, other: Any, nodes: List[Any], consumers: Dict[str, str]) -> None:
    """Weights that repeat one image's part for the whole batch are kept once and expanded.

    Shapes that the exporter stored as weights become nodes.
    """
    from onnx import helper, numpy_helper

    theirs = {tensor.name: tensor for tensor in other.initializer}
    for tensor in list(graph.initializer):
        partner = theirs.get(tensor.name)
        if partner is None or partner.SerializeToString() == tensor.SerializeToString():
            continue
        table = numpy_helper.to_array(tensor)
        if list(partner.dims) == list(tensor.dims):
            shapes = (table, numpy_helper.to_array(partner))
            nodes += _free_shape(tensor.name, *shapes, consumer=consumers[tensor.name])
            graph.initializer.remove(tensor)
            continue
        if not (table == table[:1]).all():
            raise ValueError(f"{tensor.name}: a table that differs from image to image")
        once = f"{tensor.name}.once"
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(table[:1].copy(), once))
        nodes += _shape_with_batch(f"{tensor.name}.shape", np.array(table.shape[1:]))
        nodes.append(helper.make_node("Expand", [once, f"{tensor.name}.shape"], [tensor.name]))
