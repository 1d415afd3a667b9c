"""What the product says to its users, collected from its source, and which programs say it."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import Dict, FrozenSet, Iterator, List, NamedTuple, Set

ROOT = Path(__file__).resolve().parent.parent
# What stands for a value that is known only when the program runs.
HOLE = "{}"
CPP_PROGRAM = "ascend310_infer/main"
_WORDS = re.compile(r"\S+\s+\S+")


class Message(NamedTuple):
    """Something that is said to the user.

    Attributes:
        place: `FILE:LINE`.
        text: with HOLE for each value, constants of the product put in.
        programs: those that can say it.
    """

    place: str
    text: str
    programs: FrozenSet[str]


def programs() -> List[str]:
    """Every Python program of the product, as a path below the root."""
    folders = (ROOT, ROOT / "scripts", ROOT / "benchmarks")
    found = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    return [str(path.relative_to(ROOT)) for path in found if path.name != "setup.py"]


def shell_scripts() -> List[str]:
    """Every shell script of the product."""
    return [
        str(path.relative_to(ROOT))
        for folder in ("scripts", "ascend310_infer")
        for path in sorted((ROOT / folder).glob("*.sh"))
    ]


def all_messages() -> List[Message]:
    """All there are: of Python, of the shell, of C++."""
    found: List[Message] = []
    for name in [*programs(), *_modules()]:
        found += python_messages((ROOT / name).read_text("utf-8"), name, _sayers(name))
    for name in shell_scripts():
        found += shell_messages((ROOT / name).read_text("utf-8"), name)
    for path in sorted((ROOT / "ascend310_infer" / "src").glob("*.cc")):
        found += cpp_messages(path.read_text("utf-8"), str(path.relative_to(ROOT)))
    return found


def _modules() -> List[str]:
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / "src").rglob("*.py"))]


# --- Python -----------------------------------------------------------------------------------


def python_messages(text: str, name: str, sayers: FrozenSet[str]) -> List[Message]:
    """Every string of two words or more, but for docstrings; of a program its own, which is help.

    A string is a whole expression: adjacent literals, f-strings and sums of them are one.
    """
    tree = ast.parse(text)
    left_out = _docstrings(tree, keeps_own=not name.startswith("src/")) | _split_into_words(tree)
    found = []
    for node in _strings(tree, left_out):
        said = _text_of(node, name)
        if _WORDS.search(said) and not _is_code(said):
            found.append(Message(f"{name}:{getattr(node, 'lineno', 0)}", said, sayers))
    return found


def _is_code(text: str) -> bool:
    """Another process's program, or how a page looks."""
    if ":root{" in text:
        return True
    return re.search(r"^(?:import|from) \w+", text, re.MULTILINE) is not None and "\n" in text


def _docstrings(tree: ast.Module, *, keeps_own: bool) -> Set[int]:
    owners = [node for node in ast.walk(tree) if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    bodies = [owner.body for owner in owners] + ([] if keeps_own else [tree.body])
    firsts = [body[0] for body in bodies if body]
    values = [first.value for first in firsts if isinstance(first, ast.Expr)]
    return {id(value) for value in values if isinstance(value, ast.Constant)}


def _split_into_words(tree: ast.Module) -> Set[int]:
    """`"a b".split()` is a list of words, and says nothing."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("split", "splitlines")
    }


def _strings(node: ast.AST, left_out: Set[int]) -> Iterator[ast.AST]:
    """The outermost strings, and those inside the holes of f-strings."""
    if id(node) in left_out:
        return
    if _is_string(node):
        yield node
        parts = [part for part in ast.walk(node) if isinstance(part, ast.FormattedValue)]
        children: List[ast.AST] = [part.value for part in parts]
    else:
        children = list(ast.iter_child_nodes(node))
    for child in children:
        yield from _strings(child, left_out)


def _is_string(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_string(node.left) if isinstance(node.op, ast.Mod) else _is_sum(node)
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _is_sum(node: ast.BinOp) -> bool:
    return isinstance(node.op, ast.Add) and (_is_string(node.left) or _is_string(node.right))


def _text_of(node: ast.AST, module: str) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text_of(part, module) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        value = node.value
        name = getattr(value, "id", getattr(value, "attr", ""))
        return {**_public_constants(), **_constants(module)}.get(name, HOLE)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text_of(node.left, module) + _text_of(node.right, module)
    return _text_of(node.left, module) if isinstance(node, ast.BinOp) else HOLE


@functools.cache
def _constants(module: str) -> Dict[str, str]:
    """Name -> text of every string constant of a module, such as `PIP`."""
    found: Dict[str, str] = {}
    path = ROOT / module
    for node in ast.parse(path.read_text("utf-8")).body if path.is_file() else []:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            constant = node.targets[0].id
            if constant.isupper() and isinstance(node.value, (ast.Constant, ast.JoinedStr)):
                text = ast.unparse(node.value) if isinstance(node.value, ast.JoinedStr) else ""
                plain = re.sub(r"\{[^}]*\}", HOLE, text[2:-1])
                found[constant] = plain or str(ast.literal_eval(node.value))
    return found


@functools.cache
def _public_constants() -> Dict[str, str]:
    """Those of all modules that others may import."""
    modules = [*programs(), *_modules()]
    return {
        constant: text
        for module in modules
        for constant, text in _constants(module).items()
        if not constant.startswith("_")
    }


# --- which program says what a module says ----------------------------------------------------


@functools.cache
def _imports_of(name: str) -> FrozenSet[str]:
    """Modules of `src` that a file imports, anywhere in it."""
    found: Set[str] = set()
    folder = Path(name).parent.parts
    for node in ast.walk(ast.parse((ROOT / name).read_text("utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        base = folder[: len(folder) - node.level + 1] if node.level else ()
        package = [*base, *(node.module or "").split(".")]
        parts = [part for part in package if part]
        for candidate in [parts, *([*parts, alias.name] for alias in node.names)]:
            path = Path(*candidate) if candidate else Path()
            found |= {str(file) for file in (path.with_suffix(".py"), path / "__init__.py")}
    return frozenset(file for file in found if file.startswith("src") and (ROOT / file).is_file())


@functools.cache
def _reached_by(program: str) -> FrozenSet[str]:
    reached: Set[str] = set()
    waiting = [program]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += _imports_of(name)
    return frozenset(reached)


def _sayers(name: str) -> FrozenSet[str]:
    """Programs that import the file, directly or not; those of `src` which none does: all."""
    found = frozenset(program for program in programs() if name in _reached_by(program))
    return found or frozenset(programs())


# --- the shell and C++ ------------------------------------------------------------------------


def shell_messages(text: str, name: str) -> List[Message]:
    """What a script echoes: the quoted words of `echo` and `die`, and here-documents."""
    found = []
    document = re.compile(r"<<-?'?EOF'?\n(.*?)\nEOF", re.DOTALL)
    spoken = re.compile(r"""(?:echo|die|step)\s+(?:"((?:[^"\\]|\\.)*)"|'([^']*)')""", re.DOTALL)
    for match in [*document.finditer(text), *spoken.finditer(text)]:
        said = next(group for group in match.groups() if group is not None)
        said = re.sub(r"\$\{[^}]*\}|\$\([^)]*\)|\$\w+|\$#", HOLE, said)
        line = text.count("\n", 0, match.start()) + 1
        found.append(Message(f"{name}:{line}", said, frozenset({name})))
    return found


# --- the documentation ------------------------------------------------------------------------


def page_messages(text: str, name: str) -> List[Message]:
    """Code of a page, inline and in blocks: a command that goes on in the next line is one."""
    anything = frozenset([*programs(), *shell_scripts(), CPP_PROGRAM])
    blocks = re.compile(r"^ *```(?:bash|shell)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
    found = []
    for block in blocks.finditer(text):
        lines = block[1].replace("\\\n", " ").splitlines()
        found += [(block.start(), re.split(r"(?:^|\s)#", line)[0]) for line in lines]
    without = re.sub(r"^ *```.*?^ *```", lambda b: "\n" * b[0].count("\n"), text, flags=re.M | re.S)
    found += [(code.start(), code[1]) for code in re.finditer(r"`([^`]+)`", without)]
    return [
        Message(f"{name}:{text.count(chr(10), 0, at) + 1}", " ".join(said.split()), anything)
        for at, said in found
    ]


_LITERAL = re.compile(r'R"\((.*?)\)"|"((?:[^"\\]|\\.)*)"', re.DOTALL)


def cpp_messages(text: str, name: str) -> List[Message]:
    """The literals of each statement, with HOLE between those that something stands between."""
    found, said, start, end = [], "", 0, 0
    for match in _LITERAL.finditer(text):
        between = text[end : match.start()]
        if ";" in between or "{" in between or not said:
            found.append((start, said))
            said, start = "", match.start()
        elif between.strip():
            said += HOLE if re.search(r"\w", between) else ""
        said += match[1] if match[1] is not None else match[2].replace("\\n", "\n")
        end = match.end()
    found.append((start, said))
    return [
        Message(f"{name}:{text.count(chr(10), 0, at) + 1}", said, frozenset({CPP_PROGRAM}))
        for at, said in found
        if _WORDS.search(said)
    ]
