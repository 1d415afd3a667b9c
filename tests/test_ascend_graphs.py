"""What an Ascend would be given: operators and types of compiled graphs, beside its registries."""

from __future__ import annotations

from pathlib import Path
from typing import List, Tuple

import mindspore as ms
import numpy as np
import pytest
from ascend_graphs import (
    BATCH,
    GROUPS,
    Primitive,
    Recipe,
    config_of,
    evaluation_graph,
    graphs_of,
    primitives_of,
    recipes,
    training_graph,
    write_teacher,
)
from ascend_page import (
    AI_CPU_LIMIT,
    COMMAND,
    ON_AI_CPU,
    OPERATORS,
    PAGE,
    Row,
    page,
    read_rows,
)
from ascend_registry import (
    AI_CORE,
    AI_CPU,
    IN_HALF,
    NOWHERE,
    PASSES,
    TYPES,
    find_package,
    read_stored,
    read_wheels,
    registered_in_20,
    runs_in_20,
)
from mindspore import Tensor, nn, ops

VERSION = ".".join(ms.__version__.split(".")[:2])
WHEELS = read_stored()
# Their statistics are float32, whatever the tensor is.
NORMS = {"BatchNorm", "BatchNormGrad", "LayerNorm", "LayerNormGrad"}
FAST = 4  # the first recipes, of four families; after them comes Twins
REGENERATE = f"when it is as it should be, run: {COMMAND}"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.ckpt")


def _row(primitive: Primitive) -> Row:
    inputs, outputs = ", ".join(primitive.inputs), ", ".join(primitive.outputs)
    return Row(VERSION, primitive.operator, inputs, outputs)


def broken_rules(primitives: List[Primitive]) -> List[str]:
    """What an Ascend cannot do, or not fast, one line for each operator."""
    found = set()
    for one in primitives:
        what = f"{one.operator} {one.inputs} -> {one.outputs} in {one.place}"
        if not {*one.inputs, *one.outputs} <= TYPES:
            found.add(f"a type that is none of {sorted(TYPES)}: {what}")
        is_mixed = {"float16", "float32"} <= set(one.inputs)
        if is_mixed and one.operator not in NORMS:
            found.add(f"float16 and float32 together: {what}")
        if one.largest < 0:
            found.add(f"a shape that depends on data: {what}")
        is_large = one.largest > AI_CPU_LIMIT * BATCH
        if is_large and one.operator not in ON_AI_CPU and AI_CPU in _row(one).place(WHEELS):
            found.add(f"{one.largest} elements on the AI CPU: {what}")
    return sorted(found)


def _check(primitives: List[Primitive]) -> None:
    assert broken_rules(primitives) == []
    unknown = {_row(one) for one in primitives} - set(read_rows())
    assert not unknown, f"not in {OPERATORS.name}: {sorted(unknown)}; {REGENERATE}"


def _cases() -> List[object]:
    """Fast: DeiT under a teacher and CCT. Compiling the steps of the others takes longer."""
    fast = [recipe for recipe in recipes()[:FAST] if recipe[0].startswith(("DeiT under", "CCT"))]
    others = [recipe for recipe in recipes() if recipe not in fast]
    return [*fast, *(pytest.param(recipe, marks=pytest.mark.slow) for recipe in others)]


@pytest.mark.parametrize("recipe", _cases(), ids=lambda recipe: ", ".join(recipe[:3]))
def test_graphs_are_ready_for_an_ascend(recipe: Recipe, teacher: Path) -> None:
    config = config_of(recipe, teacher)
    _check(training_graph(config))
    _check(evaluation_graph(config))


def test_evaluation_of_twins_is_ready_for_an_ascend(teacher: Path) -> None:
    recipe = recipes()[FAST]
    assert recipe[0] == "Twins"
    _check(evaluation_graph(config_of(recipe, teacher)))


@pytest.mark.slow
def test_the_table_has_no_more_than_the_graphs(teacher: Path) -> None:
    in_graphs = {_row(one) for recipe in recipes() for one in graphs_of(config_of(recipe, teacher))}
    stored = {row for row in read_rows() if row.mindspore == VERSION}
    assert stored == in_graphs, REGENERATE


def test_recipes_hold_every_value_and_pairs_of_them() -> None:
    names = list(GROUPS)
    for number, name in enumerate(names):
        assert {recipe[number] for recipe in recipes()} == set(GROUPS[name])
        for other in range(number + 1, len(names)):
            pairs = {(recipe[number], recipe[other]) for recipe in recipes()}
            if number > 0 or names[other] == "level":
                assert len(pairs) == len(GROUPS[name]) * len(GROUPS[names[other]])
    assert len({recipe[0] for recipe in recipes()[: FAST + 1]}) == FAST + 1


def test_every_operator_of_the_table_runs_somewhere() -> None:
    rows = read_rows()
    assert {row.mindspore for row in rows} == {"2.0", "2.10"}
    nowhere = [row for row in rows if NOWHERE in row.place(WHEELS)]
    assert not nowhere, f"no kernel takes them: {nowhere}"


def test_the_page_is_made_of_the_tables() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(read_rows(), WHEELS), REGENERATE


def test_stored_registries_are_those_of_the_wheels() -> None:
    wheels = read_wheels({row.operator for row in read_rows()})
    if wheels is None:
        pytest.skip("the wheels of MindSpore 2.0 and 2.10 are not both installed")
    assert wheels == WHEELS, REGENERATE
    assert set(wheels.passes) == set(PASSES)


def test_registrations_are_read_as_mindspore_registers_them() -> None:
    """The framework's own decorators beside the reading of their source."""
    if VERSION != "2.0":
        pytest.skip("MindSpore 2.10 has no registrations to compare with")
    from mindspore.ops._op_impl.aicpu import gather_d
    from mindspore.ops._op_impl.tbe import floor_mod

    package = find_package("2.0") or Path(ms.__file__).parent
    kernels = registered_in_20(package)
    for where, info in (
        (AI_CORE, floor_mod.floor_mod_op_info),
        (AI_CPU, gather_d.gather_d_op_info),
    ):
        rows = {
            ", ".join(dtype for dtype, _ in row[: len(info["inputs"])])
            for row in info["dtype_format"]
        }
        read = {row.split(" -> ")[0] for row in kernels[info["op_name"]][where]}
        assert read == rows


@pytest.mark.parametrize(
    ("operator", "inputs", "outputs", "expected"),
    [
        ("FloorMod", ["int32", "int32"], ["int32"], AI_CORE),
        ("FloorMod", ["int64", "int64"], ["int64"], NOWHERE),
        ("Conv2D", ["float32", "float32"], ["float32"], IN_HALF),
        ("IsFinite", ["float32"], ["bool"], AI_CPU),
        ("Dropout", ["float16"], ["float16"], AI_CPU),
        ("NoSuchOperator", ["float32"], ["float32"], NOWHERE),
    ],
)
def test_where_2_0_runs_an_operator(
    operator: str, inputs: List[str], outputs: List[str], expected: str
) -> None:
    assert runs_in_20(WHEELS.kernels, operator, inputs, outputs) == expected


class _Unready(nn.Cell):
    """64-bit integers, a large tensor on the AI CPU, and a shape that depends on data."""

    def construct(self, x: Tensor, index: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        return index + 1, ops.isfinite(x), ops.nonzero(x)


def test_a_network_that_is_not_ready_breaks_every_rule() -> None:
    cell = _Unready()
    shape = (BATCH, AI_CPU_LIMIT + 1)
    cell.compile(Tensor(np.zeros(shape, np.float32)), Tensor(np.zeros(shape, np.int64)))
    broken = broken_rules(primitives_of(cell))
    found = {(line.split(":")[0], line.split(": ")[1].split()[0]) for line in broken}
    expected = {(f"a type that is none of {sorted(TYPES)}", name) for name in ("Add", "NonZero")}
    expected.add(("a shape that depends on data", "NonZero"))
    if VERSION == "2.0":  # 2.10 has an aclnn kernel for it
        expected.add((f"{BATCH * (AI_CPU_LIMIT + 1)} elements on the AI CPU", "IsFinite"))
    assert found == expected


def test_a_second_compilation_is_noticed() -> None:
    cell = nn.ReLU()
    for size in (2, 3):
        cell.compile(Tensor(np.zeros(size, np.float32)))
    with pytest.raises(AssertionError, match="compiled 2 times"):
        primitives_of(cell)
