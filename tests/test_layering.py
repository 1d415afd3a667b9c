"""The dependency directions of docs/design.md, read from the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(p for p in ROOT.rglob("*.py") if p.parts[len(ROOT.parts)] in ("src", "scripts"))
MODULES += sorted(ROOT.glob("*.py"))

# A folder of src/ -> what its modules must not import.
FORBIDDEN = {
    "src/configs": ("src.",),
    "src/settings": ("src.",),
    "src/launch": ("src.", "mindspore", "numpy", "yaml"),
    "src/runtime": tuple(
        f"src.{folder}" for folder in "checkpoints data launch models optim report runs".split()
    )
    + ("src.serving", "src.storage", "src.trainer"),
    "src/storage": ("src.data", "src.models", "src.optim", "src.checkpoints", "src.trainer"),
    "src/models/layers": ("src.",),
    "src/models": ("src.",),
    "src/data/augment": ("src.",),
    "src/data": ("src.models", "src.optim", "src.checkpoints", "src.trainer", "src.kernels"),
    "src/optim": ("src.data", "src.checkpoints", "src.trainer", "src.runs", "src.kernels"),
    "src/checkpoints": ("src.trainer", "src.runs", "src.serving", "src.kernels"),
    "src/runs": ("src.data", "src.models", "src.trainer", "src.kernels"),
    "src/trainer": ("src.serving", "src.kernels"),
    "src/serving": ("src.kernels",),
    "src/report": ("src.optim", "src.checkpoints", "src.serving", "src.storage", "src.kernels"),
    "src/kernels": ("src.args", "src.checkpoints", "src.trainer", "src.serving", "src.runtime"),
}
# create_model(pretrained=...) reads a file.
EXEMPT = {
    ("src/models/registry.py", "src.checkpoints.pretrained.build_from_file"),
}
# Beside the folder itself.
ALLOWED = {
    "src/configs": ("src.errors", "src.runtime.regular_files"),
    "src/models/layers": ("src.overrides",),
    "src/models": ("src.errors", "src.overrides"),
    "src/data/augment": ("src.errors", "src.overrides"),
    "src/settings": ("src.configs",),
    "src/launch": (
        "src.errors",
        *(
            f"src.runtime.{name}"
            for name in "files json_files npu_smi plain_numbers regular_files standard_streams "
            "stop_signal".split()
        ),
    ),
    "src/kernels": ("src.runtime.caches", "src.runtime.regular_files"),
}


# Nothing in src/ imports it: programs join it to the rest.
TOP = "src/report"


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    """Absolute names of everything a module imports, inside functions too."""
    package = list(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def uses(path: Path, *dotted: str) -> List[str]:
    """The dotted names (`sys.argv`) that a module's code mentions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [ast.unparse(n) for n in ast.walk(tree) if ast.unparse(n) in dotted]


def layering() -> Iterator[Tuple[str, Path]]:
    for folder in FORBIDDEN:
        yield from ((folder, path) for path in sorted((ROOT / folder).rglob("*.py")))


@pytest.mark.parametrize(("folder", "path"), list(layering()), ids=lambda value: str(value)[-30:])
def test_imports_follow_the_layers(folder: str, path: Path) -> None:
    within = (f"{folder.replace('/', '.')}.", *ALLOWED.get(folder, ()))
    wrong = [
        name
        for name in imports(path)
        if name.startswith(FORBIDDEN[folder])
        and not name.startswith(within)
        and (name_of(path), name) not in EXEMPT
    ]
    assert not wrong


def test_nothing_below_imports_the_reports() -> None:
    below = [p for p in (ROOT / "src").rglob("*.py") if not name_of(p).startswith(f"{TOP}/")]
    found = [name_of(p) for p in below for name in imports(p) if name.startswith("src.report")]
    assert found == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_one_place_each(path: Path) -> None:
    name = name_of(path)
    # Recipes' options and commands' options.
    if name not in ("src/args.py", "src/runtime/entry.py"):
        assert not uses(path, "sys.argv")
    if name not in ("src/runtime/device.py", "src/runtime/compat.py"):
        context = ("ms.set_context", "ms.set_device", "mindspore.set_context", "ms.set_seed")
        assert not uses(path, *context)
        # A launcher hands its environment on; where caches go is said in variables.
        if name not in ("scripts/launch.py", "src/launch/plans.py", "src/runtime/caches.py"):
            assert not uses(path, "os.environ", "os.getenv")
    # Those two tell it to the user.
    if name not in (
        "src/runtime/compat.py",
        "src/trainer/run_state.py",
        "src/trainer/announcement.py",
    ):
        assert not uses(path, "ms.__version__", "mindspore.__version__")
    if name != "src/storage/moxing_adapter.py":
        assert not [module for module in imports(path) if module.split(".")[0] == "moxing"]


SYS_PATH = "sys.path.insert(0, "

# Statements that may stand at the top of a module: nothing else happens when it is imported.
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
HARMLESS = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, *FUNCTIONS, ast.ClassDef)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_happens_at_import(path: Path) -> None:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_main = isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        is_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        # A program finds the package beside it.
        is_path = not name_of(path).startswith("src/") and ast.unparse(node).startswith(SYS_PATH)
        is_harmless = isinstance(node, HARMLESS) or is_docstring or is_main or is_types or is_path
        assert is_harmless, ast.unparse(node)


def test_graphs_hold_no_syntax_that_mindspore_2_0_refuses() -> None:
    wrong = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        if path.parent.name != "kernels"  # MindSpore 2.0 takes the standard cells
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef) and function.name in ("construct", "bprop")
        for node in ast.walk(function)
        if isinstance(node, (ast.Starred, ast.AnnAssign))
    ]
    assert wrong == []


def test_inference_alone_needs_no_compiler_of_the_pipeline() -> None:
    """Importing it would take 60 MB."""
    code = "import sys, src.trainer.build; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
