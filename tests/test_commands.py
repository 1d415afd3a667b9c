"""Every program and script behind one shell: what it refuses, and how it says so."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Dict, List, Optional

import pytest
from test_rank_table import table_of

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = [
    str(path.relative_to(ROOT))
    for folder in (ROOT, ROOT / "scripts", ROOT / "benchmarks")
    for path in sorted(folder.glob("*.py"))
    if path.name != "setup.py"  # pip's, not a user's
]
SCRIPTS = [name for name in PROGRAMS if name.startswith("scripts/")]
# It measures what it imports.
IMPORTS_MINDSPORE = ("benchmarks/training.py",)
# Without them an option that nobody knows could not be told from a key of the recipe.
NEEDED = {
    "predict.py": ["--input", "x"],
    "scripts/knn.py": ["--weights", "x"],
    "scripts/verify_run.py": ["x"],
}
# Words with which only the place of the output, which begins with FILE/, is wrong. None: no output.
OUTPUTS: Dict[str, Optional[List[str]]] = {
    "scripts/average_checkpoints.py": ["a.ckpt", "b.ckpt", "--output", "FILE/mean.ckpt"],
    "scripts/check_bundle.py": None,
    "scripts/check_requirements.py": None,
    "scripts/compare_reports.py": None,
    "scripts/convert_weights.py": [
        *("--arch", "cct_2_3x2_32", "--input", "a.npz", "--output", "FILE/b.ckpt")
    ],
    "scripts/doctor.py": None,
    "scripts/gpu_environment.py": None,
    "scripts/knn.py": ["--weights", "a.ckpt", "--data_url", "x", "--output", "FILE/table.csv"],
    "scripts/launch.py": ["--logs", "FILE/logs", "--", "program.py"],
    "scripts/list_models.py": None,
    "scripts/make_configuration_page.py": ["--folder", "FILE/docs"],
    "scripts/make_digits_file.py": ["--output", "FILE/digits.npz"],
    "scripts/make_model_pages.py": ["--folder", "FILE/docs"],
    "scripts/pack_dataset.py": ["--data_url", "images", "--output", "FILE/packed"],
    "scripts/plot_runs.py": ["run", "--output", "FILE/runs.png"],
    "scripts/prepare_imagenet.py": [
        *("--train", "a.tar", "--devkit", "a.tar.gz", "--output", "FILE/imagenet")
    ],
    "scripts/preview_augment.py": None,  # tests/test_preview_augment.py
    "scripts/rank_table.py": ["merge", "table.json", "--output", "FILE/both.json"],
    "scripts/replay_step.py": None,
    "scripts/verify_run.py": None,
}


def run(
    program: str, *words: str, flags: str = "", cwd: Path = ROOT, **environ: str
) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *flags.split(), str(ROOT / program), *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environ},
        timeout=120,
    )


def refusal(ended: subprocess.CompletedProcess) -> str:
    """The one line on stderr of a call that was refused."""
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("import time:")]
    assert (ended.returncode, len(lines)) == (2, 1), ended.stderr[-2000:]
    assert lines[0].startswith("error: ")
    assert ended.stdout == ""
    return lines[0]


@pytest.mark.parametrize("program", [name for name in PROGRAMS if "/" not in name] + SCRIPTS[-2:])
def test_started_from_elsewhere_by_a_python_that_is_safe(program: str, tmp_path: Path) -> None:
    """`-I` includes what `-P` does from Python 3.11 on: the program's folder is not on the path."""
    ended = run(program, "--help", flags="-I", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_started_in_a_folder_that_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    command = [sys.executable, str(ROOT / "scripts/list_models.py")]
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, preexec_fn=folder.rmdir
    )
    assert refusal(ended) == "error: the current folder has been deleted; cd to one that exists"


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_option_that_nobody_knows(program: str) -> None:
    words = [*NEEDED.get(program, []), "--nonsense"]
    ended = run(program, *words, PYTHONPROFILEIMPORTTIME="1")
    assert "--nonsense" in refusal(ended)
    modules = [line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()]
    assert ("mindspore" in modules) == (program in IMPORTS_MINDSPORE)


def load(program: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program as a module, with its own folder on the path as when it is started."""
    path = ROOT / program
    monkeypatch.syspath_prepend(str(path.parent))
    name = f"program_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_and_a_shortened_option(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load(program, monkeypatch)
    main, does = module.main, re.split("[:\\n]", module.__doc__ or "")[0]
    with pytest.raises(SystemExit) as ended:
        main(["-h"])
    helped = capsys.readouterr()
    assert ended.value.code in (None, 0)
    assert helped.err == ""
    assert "--debug" in helped.out
    assert len(does) > 10
    assert does in helped.out.partition("  -h, --help")[0], "what it does comes first"
    with pytest.raises(SystemExit) as ended:
        main([*NEEDED.get(program, []), "--debu"])
    refused = capsys.readouterr()
    assert ended.value.code == 2
    assert re.fullmatch("error: .*--debu[ :;].*\n", refused.err)
    assert refused.out == ""


def test_every_script_says_what_it_writes() -> None:
    assert sorted(OUTPUTS) == SCRIPTS


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands of OUTPUTS read, and a file FILE."""
    root = tmp_path_factory.mktemp("inputs")
    for name in ("FILE", "a.ckpt", "b.ckpt", "a.npz", "program.py"):
        (root / name).touch()
    for name in ("images/train/ant", "images/val/ant", "run"):
        (root / name).mkdir(parents=True)
    (root / "table.json").write_text(json.dumps(table_of(1, 1)))
    columns = ("step", "epoch", "loss", "lr", "val_loss", "top1")
    (root / "run" / "metrics.csv").write_text(f"{','.join(columns)}\n1,1,1,1,1,1\n")
    from PIL import Image

    for split in ("train", "val"):
        Image.new("RGB", (8, 8)).save(root / "images" / split / "ant" / "0.png")
    return root


@pytest.mark.parametrize("program", [name for name, words in OUTPUTS.items() if words])
def test_an_output_that_cannot_be_written(program: str, inputs: Path) -> None:
    before = sorted(inputs.rglob("[!.]*"))
    said = refusal(run(program, *(OUTPUTS[program] or []), cwd=inputs))
    assert "FILE" in said
    assert sorted(inputs.rglob("[!.]*")) == before


QUICK = ["train.py --help", "eval.py --nonsense", "scripts/list_models.py", "scripts/launch.py -h"]


@functools.cache
def ended_as_usual(command: str) -> subprocess.CompletedProcess:
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True)


@pytest.mark.parametrize("call", QUICK)
@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_exit_code(call: str, closed: str, tmp_path: Path) -> None:
    command = f"{sys.executable} {ROOT}/{call}"
    expected = ended_as_usual(command)
    ended = subprocess.run(
        ["sh", "-c", f"{command} {closed}"], capture_output=True, text=True, cwd=tmp_path
    )
    assert ended.returncode == expected.returncode
    assert ended.stdout == ("" if ">&-" in closed.replace("2>&-", "") else expected.stdout)
    assert ended.stderr == ("" if "2>&-" in closed else expected.stderr)


@pytest.mark.parametrize("call", ["train.py --help", "scripts/list_models.py", "predict.py -h"])
def test_a_reader_that_has_seen_enough(call: str) -> None:
    """Quiet, as POSIX's utilities are: the code is 0, or that of SIGPIPE."""
    words = f"{sys.executable} {ROOT}/{call}".split()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait() in (0, 141)


@pytest.mark.parametrize("program", ["scripts/launch.py", "scripts/rank_table.py"])
def test_a_host_without_packages_starts(program: str) -> None:
    assert run(program, "-h", flags="-S").returncode == 0


def test_all_that_is_wrong_with_a_call_is_said() -> None:
    said = refusal(run("scripts/convert_weights.py", "--arch", "x", "--inptu", "y"))
    assert "unrecognized arguments: --inptu; the following arguments are required: --input" in said
    assert "unrecognized" not in refusal(run("scripts/convert_weights.py", "--arch", "x"))


def test_debug_shows_the_traceback_before_and_after_a_subcommand(tmp_path: Path) -> None:
    call = ["validate", str(tmp_path / "no.json")]
    for words in (["--debug", *call], [call[0], "--debug", call[1]]):
        assert "Traceback" in run("scripts/rank_table.py", *words).stderr
    assert "no such file" in refusal(run("scripts/rank_table.py", *call))
