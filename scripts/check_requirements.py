"""Check that everything required can be installed on another machine, such as an ARM server.

python scripts/check_requirements.py [FILE ...]

The package index is asked for a wheel of every requirement, and of what they require in turn, for a
processor and a Python that need not be those of this machine. Only metadata is downloaded. The exit
code is 1 when a wheel is missing. UV_DEFAULT_INDEX names an index other than PyPI. See
docs/aarch64.md.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List, Optional, Sequence

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.errors import UserError
from src.runtime.entry import CommandParser, run_command
from src.runtime.regular_files import RECIPE_BYTES, read_text

# What a user installs, and the Pythons it is for.
PYTHONS = {
    "requirements.txt": ("3.10", "3.11", "3.12"),
    "requirements-onnx.txt": ("3.9", "3.10", "3.11", "3.12"),
    "requirements-obs.txt": ("3.10", "3.11", "3.12"),
    "requirements-hub.txt": ("3.9", "3.10", "3.11", "3.12"),
    "requirements-ms20.txt": ("3.9",),
}
UNSATISFIABLE = 1  # uv's exit code; others are of what it could not do


def find_uv() -> str:
    """Path of uv, whose resolver knows other machines than this one."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise UserError("uv: not installed; python -m pip install uv")
    return found


def unsatisfied(text: str, *more: str, python: str, platform: str) -> Optional[str]:
    """Why requirements have no wheels that fit together; None: they have.

    Args:
        text: as in a requirements file.
        more: options of uv.
        platform: uv's word for processor and C library, e.g. aarch64-manylinux_2_28.

    Raises:
        UserError: the index cannot be reached, or uv knows no such Python or platform.
    """
    options = f"--quiet --system-certs --only-binary :all: --python-version {python}".split()
    # With an interpreter given, uv does not look at every other one of the machine.
    options += ["--python", sys.executable, "--python-platform", platform, *more]
    words = [find_uv(), "pip", "compile", *options, "-"]
    done = subprocess.run(words, input=text, cwd=ROOT, capture_output=True, text=True)
    said = " ".join(done.stderr.split())
    if done.returncode not in (0, UNSATISFIABLE):
        raise UserError(f"uv: {said.replace('error: ', '', 1)}")
    return said.partition("cause: ")[2].partition(" hint: ")[0] if done.returncode else None


def requirements(path: Path, *above: Path) -> List[str]:
    """The requirements of a file, one each, and of the files it includes.

    Args:
        above: those that include it.

    Raises:
        UserError: it includes itself, or is no text.
    """
    if path in above:
        raise UserError(f"{str(path)!r}: includes itself by -r")
    try:
        text = read_text(path, RECIPE_BYTES)
    except OSError as error:
        raise UserError(f"{str(path)!r}: {error.strerror}; give a requirements file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{str(path)!r}: is no text; give a requirements file") from error
    found: List[str] = []
    for line in text.splitlines():
        word = line.partition("#")[0].strip()
        if word.startswith("-r "):
            found += requirements(path.parent / word[3:].strip(), path, *above)
        elif word:
            found.append(word)
    return found


def missing(path: Path, *, python: str, platform: str) -> List[str]:
    """A line for each requirement of a file that has no wheel; empty: all can be installed."""
    wanted = requirements(path)
    reason = unsatisfied("\n".join(wanted), python=python, platform=platform)
    if reason is None:
        return []
    alone = [
        f"{each}: {why}"
        for each in wanted
        if (why := unsatisfied(each, "--no-deps", python=python, platform=platform))
    ]
    return alone or [f"each has a wheel, but not with what it requires: {reason}"]


def check(arguments: argparse.Namespace) -> int:
    """Prints a line for each file and Python, and what is missing below it."""
    is_complete = True
    for path in arguments.files or [ROOT / name for name in PYTHONS]:
        for python in arguments.python or PYTHONS.get(path.name, PYTHONS["requirements.txt"]):
            lacking = missing(path, python=python, platform=arguments.platform)
            verdict = "MISSING" if lacking else "ok     "
            print(f"{verdict} {path.name}, Python {python}, {arguments.platform}")
            print("".join(f"        {line}\n" for line in lacking), end="")
            is_complete = is_complete and not lacking
    return int(not is_complete)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("check_requirements.py", __doc__ or "")
    parser.add_argument(
        "files", type=Path, nargs="*", help="requirements files (default: all that a user installs)"
    )
    parser.add_argument(
        "--python", nargs="+", help="versions such as 3.10 3.11 (default: the file's own)"
    )
    parser.add_argument(
        "--platform",
        default="aarch64-manylinux_2_28",
        help="processor and C library, in uv's words (default: aarch64-manylinux_2_28)",
    )
    return run_command(check, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
