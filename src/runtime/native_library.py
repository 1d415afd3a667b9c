"""C++ compiled for this machine, once: the library is kept in the user's cache."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import List, Mapping, Optional, Sequence, Tuple

from ..errors import UserError
from .caches import cache_folders
from .regular_files import CODE_BYTES, read_regular

COMPILERS = ("g++", "clang++", "c++")
_LOAD = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"


def find_compiler(environment: Mapping[str, str]) -> Optional[List[str]]:
    """Words that start a C++ compiler: those of CXX if set, else the first of `COMPILERS`.

    CXX may be a path with spaces, or a command such as `ccache g++`. None: there is none.
    """
    given = environment.get("CXX")
    for command in _commands(given) if given else [[name] for name in COMPILERS]:
        path = shutil.which(command[0], path=environment.get("PATH"))
        if path:
            return [path, *command[1:]]
    return None


def _commands(given: str) -> List[List[str]]:
    """What CXX may mean: a path, or a command with arguments."""
    commands = [[given]]
    with contextlib.suppress(ValueError):  # a quotation that does not end
        commands.append(shlex.split(given))
    return [command for command in commands if command]


@dataclass(frozen=True)
class NativeLibrary:
    """Sources that become a shared library.

    Attributes:
        name: of its folder among the caches, and how its files begin.
        sources: folder of *.cc and what they include.
        flags: of the compiler.
    """

    name: str
    sources: Path
    flags: Tuple[str, ...]

    def path(self, environment: Optional[Mapping[str, str]] = None) -> Path:
        """Of the compiled library, which loads, after compiling it if this machine has none yet.

        Its name holds what it was compiled for, and a digest of its content: one that was cut off,
        or comes from another machine, is never loaded, which could kill the process.

        Raises:
            UserError: no compiler, one that fails, no folder, or a library that cannot be loaded.
        """
        environment = os.environ if environment is None else environment
        compiler = find_compiler(environment)
        if compiler is None:
            names = environment.get("CXX") or f"{', '.join(COMPILERS)}, or CXX"
            raise UserError(f"no C++ compiler ({names}) on this machine")
        stem = self.stem(compiler)
        reason = "no folder for the compiled library can be written"
        found: Optional[Path] = None
        for folder in cache_folders(self.name, environment):
            # Folders may be full, or forbid to execute what is in them: there may be another.
            try:
                found = whole(folder, stem) or self._keep(folder, stem, found, compiler)
                ctypes.CDLL(str(found))
                return found
            except subprocess.SubprocessError as error:
                said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
                reason = f"{shlex.join(compiler)} fails: {said[0] if said else error}"
            except OSError as error:
                reason = f"the compiled library cannot be kept or loaded ({error})"
        raise UserError(reason)

    def stem(self, compiler: Sequence[str]) -> str:
        """The name without `-DIGEST.so` at its end; DIGEST: 16 digits of the content's SHA-256.

        Args:
            compiler: words of the command.
        """
        return f"{self.name}-{self._fingerprint(compiler)}"

    def _keep(
        self, folder: Path, stem: str, found: Optional[Path], compiler: Sequence[str]
    ) -> Path:
        """Copies the library `found`, or compiles one, into the folder.

        Processes that do so at the same time write files of their own, and rename them last.
        """
        handle, name = tempfile.mkstemp(prefix=f".{stem}-", suffix=".so", dir=folder)
        os.close(handle)
        try:
            if found is None:
                self.compile(compiler, self.flags, Path(name))
            else:
                shutil.copyfile(found, name)
            path = folder / f"{stem}-{_digest(Path(name))}.so"
            os.replace(name, path)
            return path
        finally:
            Path(name).unlink(missing_ok=True)

    def compile(self, compiler: Sequence[str], flags: Sequence[str], path: Path) -> None:
        """Compiles every source into `path`, and loads it in a process that may die of it.

        Args:
            compiler: words of the command.

        Raises:
            subprocess.SubprocessError: the compiler fails, or takes more than five minutes; or what
                it made kills a process.
        """
        sources = [str(source) for source in sorted(self.sources.glob("*.cc"))]
        command = [*compiler, *flags, "-o", str(path), *sources]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        tried = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _LOAD, str(path)], capture_output=True
        )
        if tried.returncode < 0:
            raise subprocess.SubprocessError(f"what it made ends with signal {-tried.returncode}")

    def _fingerprint(self, compiler: Sequence[str]) -> str:
        try:
            processor = identity(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
        except OSError:
            processor = platform.processor()
        machine = [platform.machine(), processor, _c_library(), _version(compiler)]
        parts = [os.fsencode(word) for word in [*compiler, *self.flags, *machine]]
        parts += [source.read_bytes() for source in sorted(self.sources.iterdir())]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def whole(folder: Path, stem: str) -> Optional[Path]:
    """The library with this stem whose content is as its name says."""
    for path in folder.glob(f"{stem}-*.so"):
        with contextlib.suppress(OSError):
            if path.name == f"{stem}-{_digest(path)}.so":
                return path
    return None


def _digest(path: Path) -> str:
    return hashlib.sha256(read_regular(path, CODE_BYTES)).hexdigest()[:16]


def _c_library() -> str:
    """Such as `glibc 2.31`: a library made with a newer one does not load with an older."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    return ""


def _version(compiler: Sequence[str]) -> str:
    """Of the files of the command: asking them would take longer than all the rest."""
    files = [path for word in compiler if (path := shutil.which(word))]
    return " ".join(f"{s.st_size} {s.st_mtime_ns}" for s in map(os.stat, files))


def identity(cpuinfo: str) -> str:
    """Model and instruction sets: a home folder may be shared by different machines.

    Linux on ARM gives no name, but numbers: of the designer, the core and its revision.
    """
    said = ("model name", "flags", "Features", "CPU implementer", "CPU variant", "CPU part")
    return "\n".join(sorted({line for line in cpuinfo.splitlines() if line.startswith(said)}))
