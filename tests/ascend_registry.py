"""Where an operator runs on an Ascend, by what the wheels of MindSpore 2.0 and 2.10 say.

2.0.0 registers its kernels in Python: `mindspore/ops/_op_impl/{tbe,aicpu}/*.py`, each with the
combinations of types it takes. 2.10.0 chooses among types at run time; its wheel has the names of
the classes that call CANN's aclnn interface (`lib/plugin/libmindspore_ops_ascend.so`). What has no
such class is compiled by CANN when a graph is built, from the operators that 2.0 registers.

`tests/fixtures/ascend_registry.json` holds what both say of the operators in our graphs.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

STORED = Path(__file__).resolve().parent / "fixtures" / "ascend_registry.json"
_ROOT = Path(__file__).resolve().parent.parent

AI_CORE, AI_CPU, ACLNN, RUNTIME = "AI Core", "AI CPU", "aclnn", "no kernel"
IN_HALF, IN_FLOAT32 = "AI Core in float16", "AI Core in float32"
NOWHERE = "nowhere"
# A graph may hold tensors of these. 64 bits are slow on an Ascend or have no kernel.
TYPES = {"float16", "float32", "int32", "uint8", "bool"}
# Those of rows worth keeping: CANN chooses `none` by itself, int8 is of optional offsets.
_KEPT = TYPES | {"none", "int8"}

_CLASSES = {"TBERegOp": AI_CORE, "AiCPURegOp": AI_CPU}
_TYPES = {"F": "float", "I": "int", "U": "uint"}
# Another view of the same memory, whatever its type.
VIEWS = {"Reshape", "ExpandDims"}
# An optimization pass puts other operators in their place: the class of the pass in 2.0's
# lib/plugin/libmindspore_ascend.so.2, and the operators. 2.10 has passes of the same names.
PASSES: Dict[str, Tuple[str, Tuple[str, ...]]] = {
    "AdamWeightDecay": (
        "AdamWeightDecayFission",
        ("Mul", "Add", "Sub", "Square", "Sqrt", "RealDiv", "Assign"),
    ),
    "Dropout": ("DropoutUnifyMindIR1", ("DropoutGenMask", "DropoutDoMask")),
    "DropoutGrad": ("DropoutGradUnifyMindIR", ("DropoutDoMask",)),
}
# Classes of 2.10 that are not called as their operator.
_ALIASES = {"BatchMatMul": "BMM", "GatherDGradV2": "GatherDGrad"}


# Operator -> AI_CORE or AI_CPU -> combinations of types, `int32, int32 -> int32`. One type stands
# for any number of tensors where an operator takes a list of them.
Kernels = Dict[str, Dict[str, List[str]]]


class Registries(NamedTuple):
    """What the wheels say.

    Attributes:
        kernels: of 2.0.0.
        passes: operators of `PASSES` that 2.0.0 has a pass for.
        classes: operator -> its class in 2.10.
    """

    kernels: Kernels
    passes: List[str]
    classes: Dict[str, str]


def registered_in_20(package: Path) -> Kernels:
    """Operator -> its kernels, of the folder `mindspore` of a 2.0 wheel; nothing is imported."""
    found: Kernels = {}
    for folder in ("tbe", "aicpu"):
        for path in sorted((package / "ops" / "_op_impl" / folder).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                    _read_registration(node.value, found)
    return found


def _read_registration(call: ast.Call, found: Kernels) -> None:
    """`TBERegOp("Add").input(0, "x1", ...).dtype_format(...).get_op_info()` -> an entry."""
    links: List[Tuple[str, List[ast.expr]]] = []
    node: ast.expr = call
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        links.insert(0, (node.func.attr, node.args))
        node = node.func.value
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        return
    if node.func.id not in _CLASSES or not isinstance(node.args[0], ast.Constant):
        return
    count = sum(name == "input" for name, _ in links)
    rows = []
    for name, words in links:
        if name == "dtype_format":
            types = [_type_name(word) for word in words]
            rows.append(f"{', '.join(types[:count])} -> {', '.join(types[count:])}")
    known = found.setdefault(node.args[0].value, {})
    where = _CLASSES[node.func.id]
    known[where] = sorted({*known.get(where, []), *rows})


def _type_name(word: ast.expr) -> str:
    """`DataType.F16_5HD` -> `float16`."""
    name = word.attr.split("_")[0] if isinstance(word, ast.Attribute) else "?"
    short = re.fullmatch(r"([FIU])(\d+)", name)
    return _TYPES[short[1]] + short[2] if short else name.lower()


def classes_in_210(package: Path) -> Dict[str, str]:
    """Operator -> the class that runs it through aclnn, of the folder of a 2.10 wheel."""
    data = (package / "lib" / "plugin" / "libmindspore_ops_ascend.so").read_bytes()
    found = {}
    for mangled in set(re.findall(rb"N9mindspore6kernel[A-Za-z0-9_]+", data)):
        for match in re.finditer(rb"(?=(\d{1,2})([A-Z]\w*))", mangled):
            if b"7pyboost" in mangled:
                continue
            name = match[2][: int(match[1])].decode()
            operator = re.fullmatch(
                r"(?:Aclnn(\w+)KernelMod|(\w+)AclnnKernelMod|(\w+)Ascend)", name
            )
            if operator:
                found[next(filter(None, operator.groups()))] = name
    return found


def passes_in_20(package: Path) -> List[str]:
    """Which of `PASSES` a 2.0 wheel has."""
    data = (package / "lib" / "plugin" / "libmindspore_ascend.so.2").read_bytes()
    return [name for name, (pass_name, _) in PASSES.items() if pass_name.encode() in data]


def fits(row: str, inputs: Sequence[str], outputs: Sequence[str]) -> bool:
    """Whether a combination of types takes these tensors.

    Its inputs may be more: attributes of ours, and what is optional. What it gives may be cast
    between the two float types.
    """
    row_inputs, row_outputs = (side.split(", ") for side in row.split(" -> "))
    if row_inputs[0] == "none":
        return True
    left = iter(row_inputs)
    return all(dtype in left for dtype in inputs) and _widened(outputs) <= _widened(row_outputs)


def _widened(types: Iterable[str]) -> Set[str]:
    return {"float32" if dtype == "float16" else dtype for dtype in types}


def runs_in_20(kernels: Kernels, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """AI_CORE, IN_HALF, AI_CPU, ...: the first that takes the types, as MindSpore 2.0 chooses."""
    if name in VIEWS:
        return RUNTIME
    if name in PASSES:
        on_core = [AI_CORE in kernels.get(part, {}) for part in PASSES[name][1]]
        return AI_CORE if all(on_core) else AI_CPU
    known = kernels.get(name, {})
    half = ["float16" if dtype == "float32" else dtype for dtype in inputs]
    if any(fits(row, inputs, outputs) for row in known.get(AI_CORE, [])):
        return AI_CORE
    if any(fits(row, half, outputs) for row in known.get(AI_CORE, [])):
        return IN_HALF
    whole = ["float32" if dtype == "float16" else dtype for dtype in inputs]
    if any(fits(row, whole, outputs) for row in known.get(AI_CORE, [])):
        return IN_FLOAT32
    if any(fits(row, inputs, outputs) for row in known.get(AI_CPU, [])):
        return AI_CPU
    return NOWHERE


def runs_in_210(classes: Dict[str, str], name: str, in_20: str) -> str:
    """ACLNN, or where CANN's own operator runs: where it does under 2.0, in types of its own."""
    if name in VIEWS:
        return RUNTIME
    where = AI_CORE if in_20 in (IN_HALF, IN_FLOAT32) else in_20
    return ACLNN if name in classes else f"CANN, {where}"


def find_package(version: str) -> Optional[Path]:
    """The folder `mindspore` of version 2.0 or 2.10, in the repository's environments."""
    for package in _ROOT.glob(".venv*/lib/python3*/site-packages/mindspore"):
        if (package / "version.py").is_file():
            text = (package / "version.py").read_text(encoding="utf-8")
            if re.search(rf"['\"]{re.escape(version)}\.\d+['\"]", text):
                return package
    return None


def read_wheels(operators: Iterable[str]) -> Optional[Registries]:
    """Of these operators, with types that our graphs may have; None: a wheel is not installed."""
    old, new = find_package("2.0"), find_package("2.10")
    if old is None or new is None:
        return None
    names = sorted({*operators, *(part for name in operators for part in _parts(name))})
    kernels, classes = registered_in_20(old), classes_in_210(new)
    return Registries(
        {
            name: {where: [*filter(_is_ours, rows)] for where, rows in kernels[name].items()}
            for name in names
            if name in kernels
        },
        passes_in_20(old),
        {
            name: classes[_ALIASES.get(name, name)]
            for name in names
            if _ALIASES.get(name, name) in classes
        },
    )


def _parts(name: str) -> Tuple[str, ...]:
    return PASSES[name][1] if name in PASSES else ()


def _is_ours(row: str) -> bool:
    return set(re.findall(r"\w+", row)) <= _KEPT


def read_stored() -> Registries:
    """`STORED`."""
    return Registries(**json.loads(STORED.read_text(encoding="utf-8")))


def write_stored(registries: Registries) -> None:
    """Into `STORED`."""
    text = json.dumps(registries._asdict(), indent=1, sort_keys=True)
    STORED.write_text(text + "\n", encoding="utf-8")
