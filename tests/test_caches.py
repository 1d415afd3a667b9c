"""Caches: where they go, and that no missing, damaged or foreign one ends a program."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest

from src.data.augment.compiled import compiled
from src.errors import UserError
from src.kernels import build
from src.runtime import caches, native_library

NAME = "mindspore-vision-classifiers"
NEEDS_COMPILER = pytest.mark.skipif(
    native_library.find_compiler(os.environ) is None, reason="no C++ compiler"
)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def unknown(uid: int) -> Any:
    raise KeyError(f"getpwuid(): uid not found: {uid}")


def blocked(tmp_path: Path) -> Path:
    """A path below which not even root makes a folder."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "home"


@pytest.mark.parametrize("home", [None, "", "nonsense", "blocked"])
def test_without_a_home_caches_are_private_and_temporary(
    home: Any, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    given = str(blocked(tmp_path)) if home == "blocked" else home
    environment = {} if given is None else {"HOME": given}
    (folder,) = caches.cache_folders("kind", environment)
    assert folder == temporary / f"{NAME}-{os.getuid()}" / NAME / "kind"
    assert stat.S_IMODE(folder.parents[1].stat().st_mode) == 0o700


def test_the_users_folder_comes_first(tmp_path: Path, temporary: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    assert next(caches.cache_folders("k", {"HOME": str(home)})) == home / ".cache" / NAME / "k"
    chosen = {"HOME": str(home), "XDG_CACHE_HOME": str(other)}
    assert next(caches.cache_folders("k", chosen)) == other / NAME / "k"
    # XDG Base Directory Specification: "all paths must be absolute ... ignore it".
    chosen["XDG_CACHE_HOME"] = "relative"
    assert next(caches.cache_folders("k", chosen)) == home / ".cache" / NAME / "k"


def test_a_temporary_folder_that_others_can_write_is_not_used(
    tmp_path: Path, temporary: Path
) -> None:
    place = temporary / f"{NAME}-{os.getuid()}"
    place.mkdir()
    place.chmod(0o777)
    environment = {"HOME": str(blocked(tmp_path))}
    assert list(caches.cache_folders("kind", environment)) == []
    place.rmdir()
    place.symlink_to(tmp_path)
    assert list(caches.cache_folders("kind", environment)) == []


def test_a_full_disk_is_no_place_for_caches(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of what is compiled would be kept there, after it took all the time."""
    usage = shutil.disk_usage

    def is_full(path: Path) -> Any:
        total, used, free = usage(path)
        return type(usage(path))(total, used, 0 if tmp_path / "home" in path.parents else free)

    monkeypatch.setattr(shutil, "disk_usage", is_full)
    (folder,) = caches.cache_folders("kind", {"HOME": str(tmp_path / "home")})
    assert temporary in folder.parents


def test_the_current_folder_is_no_place_for_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert list(caches.cache_folders("kind", {"HOME": str(blocked(tmp_path))})) == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_it_is_said_in_one_line(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    home = blocked(tmp_path)
    monkeypatch.setenv("HOME", str(home))
    with caplog.at_level("INFO"):
        caches.use_cache_folders.__wrapped__()
    place = temporary / f"{NAME}-{os.getuid()}"
    assert [record.message for record in caplog.records] == [
        f"caches: {home}/.cache cannot be written or is full; kept in {place}, "
        "set XDG_CACHE_HOME for another"
    ]
    assert os.environ["XDG_CACHE_HOME"] == str(place)
    assert os.environ["MPLCONFIGDIR"] == str(place / "matplotlib")


def added(a: np.ndarray) -> np.ndarray:
    return a + 1


@pytest.mark.parametrize("damage", ["empty index", "half an index", "empty", "half", "no folder"])
def test_damage_to_what_numba_kept_costs_time_only(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from numba.core import config

    place = tmp_path / "numba"
    monkeypatch.setattr(config, "CACHE_DIR", str(place))
    one = np.ones(3, np.uint8)
    compiled(added)(one)
    ending = "*.nbi" if "index" in damage else "*.nbc"
    (file,) = place.rglob(ending)
    whole = file.read_bytes()
    if damage == "no folder":
        shutil.rmtree(place)
        place.write_text("")
        monkeypatch.setattr(config, "CACHE_DIR", str(place / "below"))
    else:
        file.write_bytes(whole[: len(whole) // 2] if "half" in damage else b"")
    assert compiled(added)(one).tolist() == [2, 2, 2]
    if damage != "no folder":
        compiled(added)(one)
        last = compiled(added)
        last(one)
        assert sum(last.stats.cache_hits.values()) == 1  # the damaged file has been made anew


CALLEE = """
from .compiled import compiled

@compiled
def inner(x):
    return x + {}
"""
CALLER = """
from .callee import inner
from .compiled import compiled

@compiled
def outer(x):
    return inner(x)

print(outer(1))
"""


def test_what_numba_kept_of_a_caller_ends_with_its_callee(tmp_path: Path) -> None:
    """An upgrade may change one file of two, and what is compiled holds both."""
    package = tmp_path / "package"
    package.mkdir()
    shutil.copy(sys.modules[compiled.__module__].__file__ or "", package / "compiled.py")
    (package / "caller.py").write_text(CALLER)
    said = []
    for number in (1, 20):
        (package / "callee.py").write_text(CALLEE.format(number))
        command = [sys.executable, "-m", "package.caller"]
        said.append(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout)
    assert said == ["2\n", "21\n"]


@pytest.fixture
def compiler(tmp_path: Path) -> Path:
    """A compiler for which every library is the one that this machine has; it counts them."""
    copied, script = build.KERNELS.path(os.environ), tmp_path / "with spaces" / "g++"
    script.parent.mkdir()
    script.write_text(
        f"""#!/bin/sh
echo "$@" >>'{tmp_path}/calls'
while [ "$1" != -o ]; do shift; done
cp '{copied}' "$2"
"""
    )
    script.chmod(0o755)
    return script


@pytest.fixture
def environment(compiler: Path, tmp_path: Path, temporary: Path) -> Dict[str, str]:
    return {**os.environ, "CXX": str(compiler), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def calls(tmp_path: Path) -> List[str]:
    return (tmp_path / "calls").read_text().splitlines()


@NEEDS_COMPILER
@pytest.mark.parametrize("size", [0, 20_000])
def test_a_library_that_is_not_whole_is_made_anew(
    size: int, tmp_path: Path, environment: Dict[str, str]
) -> None:
    """Mapping it would kill the process: POSIX has SIGBUS for pages beyond a file's end."""
    path = build.KERNELS.path(environment)
    whole = path.read_bytes()
    assert build.KERNELS.path(environment) == path
    assert len(calls(tmp_path)) == 1
    os.truncate(path, size)
    assert build.KERNELS.path(environment).read_bytes() == whole
    assert len(calls(tmp_path)) == 2


@NEEDS_COMPILER
@pytest.mark.parametrize("other", ["processor", "C library", "compiler"])
def test_a_library_of_another_machine_is_passed_over(
    other: str,
    tmp_path: Path,
    compiler: Path,
    environment: Dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = build.KERNELS.path(environment)
    if other == "processor":
        monkeypatch.setattr(native_library, "identity", lambda _: "another")
    elif other == "C library":
        monkeypatch.setattr(os, "confstr", lambda _: "glibc 2.99")
    else:
        os.utime(compiler, (1, 1))
    assert build.KERNELS.path(environment) != first
    assert len(calls(tmp_path)) == 2


@NEEDS_COMPILER
def test_where_libraries_may_not_be_executed_another_folder_is_taken(
    tmp_path: Path, temporary: Path, environment: Dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = ctypes.CDLL

    def not_there(path: str) -> Any:
        if path.startswith(str(tmp_path / "cache")):
            raise OSError(f"{path}: failed to map segment from shared object")
        return load(path)

    monkeypatch.setattr(ctypes, "CDLL", not_there)
    assert temporary in build.KERNELS.path(environment).parents
    assert temporary in build.KERNELS.path(environment).parents
    assert len(calls(tmp_path)) == 1  # copied, not compiled a second time
    shutil.rmtree(temporary)
    with pytest.raises(UserError, match=r"cannot be kept or loaded .*failed to map segment"):
        build.KERNELS.path(environment)


@NEEDS_COMPILER
def test_a_library_that_kills_is_tried_by_another_process(
    tmp_path: Path, compiler: Path, environment: Dict[str, str]
) -> None:
    source = tmp_path / "kills.c"
    source.write_text(
        "#include <signal.h>\n__attribute__((constructor)) void f(void) { raise(SIGILL); }\n"
    )
    command = [*(native_library.find_compiler(os.environ) or []), "-shared", "-fPIC", "-x", "c"]
    subprocess.run([*command, str(source), "-o", str(tmp_path / "kills.so")], check=True)
    compiler.write_text(compiler.read_text().replace("cp '", f"cp '{tmp_path}/kills.so' \"$2\" #"))
    with pytest.raises(UserError, match="g\\+\\+' fails: what it made ends with signal 4"):
        build.KERNELS.path(environment)
    assert not list((tmp_path / "cache").rglob("*.so"))


@NEEDS_COMPILER
def test_cxx_is_a_path_or_words(
    tmp_path: Path, compiler: Path, environment: Dict[str, str]
) -> None:
    """As GNU make and autoconf take it; a path with spaces is one word where it is a file."""
    assert native_library.find_compiler(environment) == [str(compiler)]
    wrapper = tmp_path / "ccache"
    wrapper.write_text('#!/bin/sh\nexec "$@"\n')
    wrapper.chmod(0o755)
    for words in (f"{wrapper} '{compiler}'", f"{wrapper} '{compiler}' -g"):
        build.KERNELS.path({**environment, "CXX": words})
    assert [said.startswith("-g ") for said in calls(tmp_path)] == [False, True]
    for nothing in ("no-such-compiler -g", "'unended", " "):
        assert native_library.find_compiler({**environment, "CXX": nothing}) is None


@NEEDS_COMPILER
def test_processes_that_build_at_once(tmp_path: Path, environment: Dict[str, str]) -> None:
    code = "import os; from src.kernels import build; print(build.KERNELS.path(os.environ))"
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    found = {process.communicate()[0].decode().strip() for process in started}
    assert len(found) == 1
    assert [str(path) for path in (tmp_path / "cache").rglob("*.so")] == list(found)
