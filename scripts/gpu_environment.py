"""Print the variables by which MindSpore finds the CUDA 11 of requirements-gpu.txt.

eval "$(python scripts/gpu_environment.py)"

First `pip install -r requirements-gpu.txt` into this environment. CUDA_HOME gets a bin/nvcc that
only tells its version, which is all that MindSpore asks of it; an nvcc that is there is kept.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
from pathlib import Path
from typing import List, Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.errors import UserError
from src.runtime.entry import CommandParser, run_command

_NVCC = "#!/bin/sh\necho 'Cuda compilation tools, release 11.8, V11.8.89'\n"


def library_folders() -> List[Path]:
    """The folders of NVIDIA's packages.

    Raises:
        UserError: they are not those of CUDA 11.
    """
    spec = importlib.util.find_spec("nvidia")
    roots = [] if spec is None else spec.submodule_search_locations or []
    folders = sorted(folder for root in roots for folder in Path(root).glob("*/lib"))
    if not any((folder / "libcudart.so.11.0").exists() for folder in folders):
        raise UserError(
            f"no CUDA 11 beside {sys.executable}; "
            f"{sys.executable} -m pip install -r requirements-gpu.txt"
        )
    return folders


def print_variables(_: argparse.Namespace) -> None:
    """As commands of a shell."""
    home, libraries = Path(sys.prefix) / "cuda", ":".join(map(str, library_folders()))
    nvcc = home / "bin" / "nvcc"
    if not nvcc.exists():
        nvcc.parent.mkdir(parents=True, exist_ok=True)
        nvcc.write_text(_NVCC, encoding="utf-8")
        nvcc.chmod(0o755)
    print(f"export CUDA_HOME={shlex.quote(str(home))}")
    inherited = "${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    print(f"export LD_LIBRARY_PATH={shlex.quote(libraries)}{inherited}")


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_command(print_variables, CommandParser("gpu_environment.py", __doc__ or ""), argv)


if __name__ == "__main__":
    sys.exit(main())
