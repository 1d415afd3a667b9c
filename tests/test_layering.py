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
    "src/data/augment": ("src.errors", "src.overrides", "src.runtime.plain_numbers"),
    "src/settings": ("src.configs",),
    "src/launch": (
        "src.errors",
        *(
            f"src.runtime.{name}"
            for name in "files json_files npu_smi plain_numbers regular_files standard_streams "
            "stop_signal".split()
        ),
    ),
    "src/kernels": ("src.runtime.native_library",),
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
        # A launcher hands its environment on; variables say where caches go, and the compiler.
        if name not in (
            "scripts/launch.py",
            "src/launch/plans.py",
            "src/runtime/caches.py",
            "src/runtime/native_library.py",
        ):
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


# Read what is not of the project by `src/runtime/regular_files.py`: a named pipe lets all others
# wait for ever, and a device has no end. Names of calls that open a file by its path.
OPENS = ("open", "io.open", "os.open", "os.fdopen", "codecs.open", "gzip.open", "bz2.open")
OPENS += ("lzma.open", "tarfile.open", "zipfile.ZipFile", "Image.open", "sqlite3.connect")
OPENS += ("np.load", "np.fromfile", "np.memmap", "np.loadtxt", "np.genfromtxt", "mmap.mmap")
OPENS += ("torch.load", "onnx.load", "ms.load", "ms.load_checkpoint", "FT2Font")
OPENS += ("shutil.copy", "shutil.copy2", "shutil.copyfile", "shutil.copytree", "shutil.move")
OPENS += ("onnxruntime.InferenceSession", "safetensors.safe_open", "safe_open")
OPENERS = ("open_regular", "open_descriptor", "require_regular")
# Module -> functions that open something by themselves, by what it is.
OPENS_ITSELF = {
    # of the kernel: /proc, /sys, /dev
    "src/data/pixel_budget.py": ("_locked",),
    "src/data/worker_processes.py": ("_shared_memory",),
    "src/launch/addresses.py": ("_listener_on",),
    "src/launch/cores.py": ("_node", "_cores_of"),
    "src/launch/supervisor.py": ("_is_rank", "descendants"),
    "src/runtime/memory.py": ("host_allowance", "_container_limits", "host_peak"),
    "src/runtime/standard_streams.py": ("open_standard_streams", "_point_at_nothing"),
    # of the project, or of an installed package
    "src/data/digits.py": ("read_digits", "_write_folder"),
    "src/doctor/host.py": ("check_line_endings",),
    "src/doctor/machine.py": ("cann_of_mindspore", "cpu_flags"),
    "src/models/catalogue.py": ("read_catalogue",),
    "src/models/published.py": ("read_published",),
    "src/data/imagenet_names.py": ("imagenet_names", "imagenet_subsets"),
    # in memory, opened before, or a connection
    "src/data/decode.py": ("_decode_with_pillow",),
    "src/data/tar_members.py": ("list_members",),
    "src/storage/http_files.py": ("_get",),
    "src/runtime/zip_files.py": ("open_zip",),
    # what this process has just written, or compared with its digest
    "src/data/jpeg_parts.py": ("_check",),
    "src/data/packing.py": ("write",),
    "src/runs/folder.py": ("_publish",),
    "src/runs/records.py": ("_append_anew",),
    "src/runtime/files.py": ("_flush",),
    "src/runtime/native_library.py": ("_keep", "_fingerprint"),  # /proc and sources too
    "src/runtime/owner.py": ("_start_of", "_place", "_create", "_keep"),  # /proc too
    "src/runtime/regular_files.py": ("open_descriptor",),
    "src/serving/export.py": ("_write_draft", "predict"),
    "src/serving/exported_network.py": ("load_mindir",),
    "src/serving/onnx_export.py": ("_export",),
    "src/serving/onnx_network.py": ("load_onnx",),
}


def is_write(call: ast.Call, name: str) -> bool:
    """Whether an `open` makes or appends to a file."""
    modes = [word.value for word in call.keywords if word.arg == "mode"]
    modes += call.args[1 if name in ("open", "io.open") else 0 :][:1]
    mode = modes[0].value if modes and isinstance(modes[0], ast.Constant) else "r"
    return isinstance(mode, str) and mode[:1] in ("w", "a", "x")


def opens(call: ast.Call) -> str:
    """What a call opens a file to read by; empty: it opens none."""
    name = ast.unparse(call.func)
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    # Of pathlib by the number of their arguments.
    if (method, len(call.args)) in (("read_bytes", 0), ("read_text", 0), ("read_text", 1)):
        return method
    is_open = name in OPENS or (method == "open" and not name.startswith(("archive.", "tar.")))
    return name if is_open and not is_write(call, name) else ""


def opened(path: Path) -> Iterator[Tuple[str, str]]:
    """(function, call) of what a module opens but not by an opener in the same function."""
    functions = [f for f in ast.walk(ast.parse(path.read_text("utf-8"))) if is_function(f)]
    for function in functions:
        inner = {
            n
            for f in ast.walk(function)
            if f is not function and is_function(f)
            for n in ast.walk(f)
        }
        calls = [n for n in ast.walk(function) if isinstance(n, ast.Call) and n not in inner]
        names = {ast.unparse(call.func).rpartition(".")[2] for call in calls}
        if not names & set(OPENERS):
            yield from ((function.name, opens(call)) for call in calls if opens(call))


def is_function(node: ast.AST) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_regular_files_are_opened(path: Path) -> None:
    allowed = OPENS_ITSELF.get(name_of(path), ())
    found = [f"{call} in {function}" for function, call in opened(path) if function not in allowed]
    assert not found, "use open_regular, read_regular or read_text of src/runtime/regular_files.py"


def test_the_list_of_those_that_open_by_themselves_is_true() -> None:
    listed = [(name, function) for name, all_of in OPENS_ITSELF.items() for function in all_of]
    found = [(name, function) for name in OPENS_ITSELF for function, _ in opened(ROOT / name)]
    assert [entry for entry in listed if entry not in found] == []


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
