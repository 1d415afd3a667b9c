"""Writes docs/ascend_operators.md and the tables it is made from, after a change of a graph:

    .venv/bin/python tests/ascend_page.py && .venv20/bin/python tests/ascend_page.py

Each compiles the graphs of its own version of MindSpore (minutes) and replaces that version's rows
in tests/fixtures/ascend_operators.csv. Both read both wheels for fixtures/ascend_registry.json.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections import defaultdict
from itertools import groupby
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Set, Tuple

from ascend_registry import (
    PASSES,
    TYPES,
    Registries,
    read_wheels,
    runs_in_20,
    runs_in_210,
    write_stored,
)

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "ascend_operators.md"
OPERATORS = ROOT / "tests" / "fixtures" / "ascend_operators.csv"
COMMAND = ".venv/bin/python tests/ascend_page.py && .venv20/bin/python tests/ascend_page.py"

# Elements of a tensor, for each image of a batch, that an operator on the AI CPU may have.
AI_CPU_LIMIT = 64
# What may have more there, with the reason.
ON_AI_CPU = {
    "Dropout": "seeded_dropout false only: the framework draws the mask on the AI CPU",
}
# What is slow though it is right, or is not what it seems to be.
NOTES = {
    **ON_AI_CPU,
    "Adam": "2.10: CANN compiles it at the first step, like all without aclnn",
    "Conv2D": "2.0: float32 is computed in float16 (910A), with `amp_level O0` too",
    "Conv2DBackpropFilter": "2.0: takes float16, gives float32",
    "Conv2DBackpropInput": "2.0: as Conv2D",
    "Erf": "exact GELU: Erf, Mul, Add forward and Exp, Pow backward, each over the hidden layer",
    "Gather": "takes the partner of a mixed image, and a random number per sample, row or column",
    "IsFinite": "2.0: one number on the AI CPU, once a step",
    "LayerNorm": "float16 with `amp_level O3` only",
    "MaxPool": "2.0: float32 is computed in float16",
    "NPUClearFloatStatusV2": "on chips that saturate, for the loss scale",
    "NPUGetFloatStatusV2": "on chips that saturate, for the loss scale",
    "TensorMove": "a copy of a Parameter that changes in the same step",
}

_HEAD = """# Operators of our graphs on an Ascend

This page lists every operator in the compiled graphs of this repository, and says whether each
MindSpore has a kernel for it on an Ascend, and of which kind. Look here when an operator is slow or
missing on a card; [ascend.md](ascend.md) says how to start one. **Nothing here has run on an
Ascend**: the graphs were compiled for a CPU, without its native kernels, and the kernels of an
Ascend were read from MindSpore's wheels.

The graphs are those of training, evaluation and export, for networks of five families. They cover
`amp_level` O0 to O3 in float16, and every optimizer, clipping, erasing, loss, distillation,
averaging and accumulation. They do not cover AllReduce (several ranks), `amp_dtype bfloat16`, or
what the compiler changes afterwards for an Ascend.

`tests/ascend_page.py` writes this page. `tests/test_ascend_graphs.py` fails when a graph has

- an operator, or types of one, that no row below has;
- a tensor of a type other than {types};
- an operator on the AI CPU with a tensor of more than {limit} elements for each image of a batch,
  except {exceptions};
- an operator of both float16 and float32, except norms: CANN's compiler of whole graphs may
  refuse it;
- a shape that depends on data;
- more than one compilation for the same shapes.

The columns 2.0.0 and 2.10.0 say where an operator runs:

| word | meaning | source |
|---|---|---|
| AI Core | 2.0.0 has a kernel of these types | `mindspore/ops/_op_impl/tbe` of its wheel |
| AI Core in float16 | 2.0.0 has a float16 kernel only; float32 is cast | the same |
| AI Core in float32 | 2.0.0 has a float32 kernel only; float16 is cast | the same |
| AI CPU | 2.0.0 has a kernel that is slow on large tensors | `mindspore/ops/_op_impl/aicpu` |
| aclnn | 2.10.0 has a class that calls CANN | names in `lib/plugin/libmindspore_ops_ascend.so` |
| CANN, ... | 2.10.0 has none; CANN compiles its operator at the first step | 2.0.0's kernel |
| no kernel | none is needed: another view of the same memory | |
| - | not in the graphs of this version | |

On an Ascend the compiler replaces {passes} by others
(in 2.0.0's wheel: {pass_names}).
A newer CANN may take more types than 2.0.0 did. With `jit_level` O2, the default on 910A, 2.10
gives whole graphs to CANN's compiler, and nothing runs through aclnn.

| operator | types | 2.0.0 | 2.10.0 | remarks |
|---|---|---|---|---|
"""


class Row(NamedTuple):
    """An operator with types in the graphs of a version, `2.0` or `2.10`; types as `a, b`."""

    mindspore: str
    operator: str
    inputs: str
    outputs: str

    def place(self, wheels: Registries) -> str:
        """Where it runs in this version."""
        inputs, outputs = self.inputs.split(", "), self.outputs.split(", ")
        in_20 = runs_in_20(wheels.kernels, self.operator, inputs, outputs)
        if self.mindspore == "2.0":
            return in_20
        return runs_in_210(wheels.classes, self.operator, in_20)


def read_rows() -> List[Row]:
    """`OPERATORS`."""
    with OPERATORS.open(encoding="utf-8", newline="") as file:
        return [Row(**row) for row in csv.DictReader(file)]


def write_rows(rows: Iterable[Row]) -> None:
    """Into `OPERATORS`."""
    with OPERATORS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(sorted(rows))


def page(rows: Iterable[Row], wheels: Registries) -> str:
    """The text of `PAGE`."""
    head = _HEAD.format(
        types=", ".join(sorted(TYPES)),
        limit=AI_CPU_LIMIT,
        exceptions=", ".join(f"{name} ({reason})" for name, reason in ON_AI_CPU.items()),
        passes=", ".join(PASSES),
        pass_names=", ".join(pass_name for pass_name, _ in PASSES.values()),
    )
    lines = []
    for operator, types, places in _by_place(rows, wheels):
        old, new = (places.get(version, "-") for version in ("2.0", "2.10"))
        shown = "; ".join(f"{_short(inputs)} → {_short(outputs)}" for inputs, outputs in types)
        lines.append(f"| {operator} | {shown} | {old} | {new} | {NOTES.get(operator, '')} |")
    return head + "\n".join(lines) + "\n"


Types = Tuple[str, str]


def _by_place(
    rows: Iterable[Row], wheels: Registries
) -> List[Tuple[str, List[Types], Dict[str, str]]]:
    """Operator, types that run in the same places, and these places by version."""
    places: Dict[Tuple[str, Types], Dict[str, str]] = defaultdict(dict)
    for row in rows:
        key = (row.operator, (row.inputs, row.outputs))
        places[key][row.mindspore] = row.place(wheels)
    found = []
    for operator, group in groupby(sorted(places), key=lambda key: key[0]):
        together: Dict[Tuple[Tuple[str, str], ...], List[Types]] = defaultdict(list)
        for _, types in group:
            together[tuple(sorted(places[operator, types].items()))].append(types)
        found += [(operator, types, dict(where)) for where, types in together.items()]
    return found


def _short(types: str) -> str:
    """`float32, float32, int32` -> `2 float32, int32`."""
    runs = [(dtype, len(list(run))) for dtype, run in groupby(types.split(", "))]
    return ", ".join(dtype if count == 1 else f"{count} {dtype}" for dtype, count in runs)


def graph_rows(version: str) -> Set[Row]:
    """Of all recipes, with the MindSpore of this process."""
    from ascend_graphs import config_of, graphs_of, recipes, write_teacher

    found = set()
    with tempfile.TemporaryDirectory() as folder:
        teacher = write_teacher(Path(folder) / "teacher.ckpt")
        for number, recipe in enumerate(recipes(), 1):
            print(f"{number} of {len(recipes())}: {', '.join(recipe)}", flush=True)
            for one in graphs_of(config_of(recipe, teacher)):
                found.add(Row(version, one.operator, ", ".join(one.inputs), ", ".join(one.outputs)))
    return found


def main() -> None:
    sys.path.insert(0, str(ROOT))
    import mindspore

    from src.args import RunConfig
    from src.runtime.device import setup_device

    setup_device(RunConfig(), seed=1)
    version = ".".join(mindspore.__version__.split(".")[:2])
    rows = graph_rows(version)
    rows |= {row for row in read_rows() if row.mindspore != version}
    write_rows(rows)
    wheels = read_wheels({row.operator for row in rows})
    if wheels is None:
        sys.exit("MindSpore 2.0 and 2.10 are not both here: run bash scripts/run_core_tests.sh")
    write_stored(wheels)
    PAGE.write_text(page(rows, wheels), encoding="utf-8")


if __name__ == "__main__":
    main()
