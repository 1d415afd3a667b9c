"""Command lines that cannot be meant: one line, exit code 2, and nothing written."""

from __future__ import annotations

import itertools
import os
import typing
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, Iterator, List, Tuple

import pytest
from program_options import ROOT, Program, load, options_of
from remedies import programs

from src.configs.parser import declared_keys, keys_of

# By what an option takes: values that are none of it.
NO_NUMBER = ("", "x", "nan", "inf", "1e400", "数", "[1, 2]", "true", "9" * 400)
WRONG: Dict[Any, Tuple[str, ...]] = {
    int: (*NO_NUMBER, "1.5", "-99999999999999999999"),
    float: (*NO_NUMBER, "-nan", "--"),
    bool: ("", "2", "yes please", "nan"),
    str: ("", "[1, 2]", "true", "7", "a\nb"),
}


def of_keys(program: Program) -> Iterator[List[str]]:
    """Every key of a configuration with values it does not take."""
    assert program.config_type
    for key, annotation in keys_of(program.config_type).items():
        declared = declared_keys(program.config_type)[key]
        kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        kind = kinds[0] if typing.get_origin(annotation) is typing.Union else annotation
        for value in WRONG.get(kind, ("", "x", "nan", "数")):
            yield [f"--{key}={value}"]
        if kind is not bool:
            yield [f"--{key}"]
        if declared.choices:
            yield [f"--{key}", "nosuch"]
        if declared.range:
            yield [f"--{key}", "-1"]


def of_options(program: Program) -> Iterator[List[str]]:
    """Every option of a parser with values it does not take."""
    for action in program.actions:
        if not action.option_strings or action.dest in ("help", "debug", "job"):
            continue
        option = action.option_strings[-1]
        if action.nargs == 0:
            yield [f"{option}=x"]
            continue
        yield [option]
        if action.choices is not None:
            yield from ([option, value] for value in ("nosuch", "", "数"))
        if action.type not in (None, str, Path, str.lower):
            yield from ([f"{option}={value}"] for value in ("", "x", "nan", "数", "1e400"))


def nothing_known() -> List[List[str]]:
    """What no program takes."""
    return [["--nosuch"], ["--nosuch", "1"], ["-"], ["-Q"], ["--数", "1"], ["--no\nsuch"]]


# --- the words of each option -------------------------------------------------------------------

# Words beside which only the wrong ones are wrong.
BESIDE = {
    "predict.py": ["--input", "x"],
    "postprocess.py": ["--result_dir", "x", "--dataset_name", "digits"],
    "scripts/average_checkpoints.py": ["a.ckpt", "b.ckpt", "--output", "mean.ckpt"],
    "scripts/compare_reports.py": ["a", "b"],
    "scripts/convert_weights.py": [
        *("--arch", "cct_2_3x2_32", "--input", "a.npz", "--output", "b.ckpt")
    ],
    "scripts/knn.py": ["--weights", "a.ckpt", "--data_url", "images"],
    "scripts/pack_dataset.py": ["--data_url", "images", "--output", "packed"],
    "scripts/plot_runs.py": ["run"],
    "scripts/prepare_imagenet.py": ["--train", "a.tar", "--devkit", "b.tar.gz", "--output", "o"],
}


def refusal(program: ModuleType, words: List[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a call is refused with."""
    capsys.readouterr()
    try:
        code = program.main(words)
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert (code, len(lines), said.out) == (2, 1, ""), (words, code, said)
    assert lines[0].startswith("error: "), words
    return lines[0]


def commands(name: str, program: Program) -> Iterator[List[str]]:
    """Whole command lines, each wrong in one word."""
    for words in [*nothing_known(), *of_options(program)]:
        if name == "scripts/launch.py":
            yield [*words, "--dry_run", "--", str(ROOT / "train.py")]
        elif name == "scripts/rank_table.py":
            command = "convert t.json --output o" if "timeout" in words[0] else "make --output o"
            yield [*command.split(), *words]
        else:
            yield [*BESIDE.get(name, []), *words]
    if program.config_type:
        # Four programs hand all words to one parser; of the others a part is enough.
        step = 1 if name in ("train.py", "eval.py", "export.py", "preprocess.py") else 9
        for words in itertools.islice(of_keys(program), 0, None, step):
            yield [*BESIDE.get(name, []), *words]


@pytest.mark.parametrize("name", programs())
def test_words_that_no_option_takes(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str((ROOT / name).parent))
    program = load(name)
    for words in commands(name, options_of(name)):
        refusal(program, words, capsys)
    assert os.listdir() == []


# --- files and folders ----------------------------------------------------------------------------

# FILE is a file of text, DIR a folder with another file in it, /proc takes no new file.
UNWRITABLE = ("FILE/x", "/proc/x", "/proc/x/y")
DATA = ["--data_url", "images", "--arch", "cct_2_3x2_32", "--batch_size", "2"]
DEVKIT = ["--devkit", "FILE"]
WRONG_FILES: Dict[str, List[List[str]]] = {
    "train.py": [
        *(["--config", given] for given in ("none.yaml", "DIR", "FILE", "binary", "")),
        *([*DATA, "--data_url", given] for given in ("FILE", "none", "empty", "\u6570/none")),
        *([*DATA, "--train_url", given] for given in (*UNWRITABLE, "FILE", "x" * 300)),
        *([*DATA, "--resume", given] for given in ("none.ckpt", "DIR", "FILE")),
        *([*DATA, *more] for more in (["--arch", "nosuch"], ["--num_classes", "9"])),
        [*DATA, "--batch_size", str(2**40)],
    ],
    "eval.py": [
        [],
        *(["--pretrained", given] for given in ("none.ckpt", "DIR", "FILE", "binary")),
        *(["--pretrained", given] for given in ("none.mindir", "FILE.mindir", "FILE.onnx")),
        *(["--pretrained", "FILE", "--report", given] for given in (*UNWRITABLE, "FILE")),
    ],
    "export.py": [
        [],
        *(["--pretrained", given] for given in ("none.ckpt", "DIR", "FILE", "/proc/version")),
        *(
            ["--pretrained", "FILE", "--output", f"{given}.mindir"]
            for given in (*UNWRITABLE, "DIR")
        ),
        ["--pretrained", "FILE", "--output", "x.onnx"],
        ["--pretrained", "s3://bucket/a.ckpt"],
    ],
    "preprocess.py": [
        *(["--for_mindir", given] for given in ("none.mindir", "DIR", "FILE.mindir")),
        *([*DATA, "--result_path", given] for given in (*UNWRITABLE, "FILE")),
        ["--data_path", "none"],
    ],
    "predict.py": [
        *(["--input", given] for given in ("none", "DIR", "ftp://x", "")),
        *(["--input", "images", "--pretrained", given] for given in ("none.ckpt", "DIR", "FILE")),
        *(["--input", "images", "--output_file", given] for given in (*UNWRITABLE, "DIR")),
        *(["--input", "images", "--save_pictures", given] for given in (*UNWRITABLE, "FILE")),
        *(["--input", "images", *more] for more in (["--heat_maps"], ["--top_k", "0"])),
        ["--input", "images", "--output", "parquet"],
    ],
    "postprocess.py": [
        ["--dataset_name", "digits", "--result_dir", given, "--label_file", "FILE"]
        for given in ("DIR", "none", "FILE")
    ],
    "scripts/average_checkpoints.py": [
        *(
            ["FILE", "FILE", "--output", given]
            for given in ("/proc/x.ckpt", "DIR.ckpt", "m.pth", "")
        ),
        *([given, "FILE", "--output", "m.ckpt"] for given in ("none", "DIR", "FILE")),
    ],
    "scripts/check_requirements.py": [["none.txt"], ["DIR"], ["binary"]],
    "scripts/compare_reports.py": [["DIR", "none"], ["DIR", "DIR"], ["FILE", "FILE"]],
    "scripts/convert_weights.py": [
        ["--arch", "cct_2_3x2_32", "--input", given, "--output", "c.ckpt"]
        for given in ("none.npz", "DIR", "FILE", "a.npz")
    ],
    "scripts/knn.py": [
        *(["--weights", given, "--data_url", "images"] for given in ("none.ckpt", "DIR", "FILE")),
        ["--weights", "FILE"],
        ["--weights", "FILE", "--data_url", "images", "--k", "0"],
    ],
    "scripts/launch.py": [
        [],
        ["--", "none.py"],
        *(["--logs", given, "--", "FILE"] for given in UNWRITABLE),
        *(
            ["--launcher", "rank_table", "--rank_table", given, "--", "FILE"]
            for given in ("none", "DIR", "FILE")
        ),
    ],
    "scripts/list_models.py": [["--filter", "nosuch"], ["--filter", ""]],
    "scripts/make_configuration_page.py": [["--folder", given] for given in (*UNWRITABLE, "DIR")],
    "scripts/make_digits_file.py": [["--output", f"{given}.npz"] for given in (*UNWRITABLE, "DIR")],
    "scripts/make_model_pages.py": [["--folder", given] for given in (*UNWRITABLE, "DIR")],
    "scripts/pack_dataset.py": [
        ["--data_url", "images"],
        *(["--verify", given] for given in ("none", "DIR", "FILE")),
        *(["--data_url", "images", "--output", given] for given in (*UNWRITABLE, "FILE")),
        *(["--data_url", given, "--output", "packed"] for given in ("none", "FILE", "empty")),
        ["--data_url", "images", "--output", "packed", "--quality", "0"],
    ],
    "scripts/plot_runs.py": [
        *([given] for given in ("none", "FILE", "DIR")),
        *(["DIR", "--output", given] for given in ("FILE/x.png", "/proc/x.png", "x.jpg")),
    ],
    "scripts/prepare_imagenet.py": [
        *([*DEVKIT, "--train", given, "--output", "o"] for given in ("none", "DIR", "FILE")),
        *([*DEVKIT, "--train", "FILE", "--output", given] for given in (*UNWRITABLE, "FILE")),
        [*DEVKIT, "--train", "FILE", "--output", "o", "--short_side", "256"],
        [*DEVKIT, "--train", "FILE", "--output", "o", "--pack", "--quality", "0"],
    ],
    "scripts/preview_augment.py": [
        [*DATA, "--data_url", "none"],
        *([*DATA, "--train_url", given] for given in (*UNWRITABLE, "FILE", "s3://bucket/run")),
    ],
    "scripts/rank_table.py": [
        *(["validate", given] for given in ("none", "DIR", "FILE", "binary")),
        ["make", "--server_id", "x", "--output", "t.json", "--hccn_tool", "none"],
    ],
    "scripts/replay_step.py": [[], ["--resume", "none"], ["--resume", "DIR"], ["--resume", "FILE"]],
    "scripts/verify_run.py": [["none"], ["DIR"], ["FILE"], ["DIR", "--steps", "0"]],
    "benchmarks/accuracy.py": [
        *(["--output", given] for given in (*UNWRITABLE, "FILE")),
        *(["--recipes", given] for given in ("none", "DIR", "FILE", "binary")),
    ],
    "benchmarks/cpu.py": [["--json", given] for given in (*UNWRITABLE, "DIR")],
    "benchmarks/cpu_ops.py": [["--json", given] for given in (*UNWRITABLE, "DIR")],
    "benchmarks/gpu.py": [["--json", given] for given in (*UNWRITABLE, "DIR")],
    "benchmarks/lite.py": [["--json", given] for given in (*UNWRITABLE, "DIR")],
    "benchmarks/run.py": [["--json", given] for given in (*UNWRITABLE, "DIR")],
    "benchmarks/scaling_model.py": [["--disk_mb_s", "0"], ["--global_batch", "-1"]],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for name in ("FILE", "FILE.mindir", "a.npz"):
        Path(name).write_text("text\n")
    Path("binary").write_bytes(bytes(range(256)))
    for name in ("DIR/sub", "DIR.mindir", "DIR.ckpt", "DIR.npz", "empty"):
        Path(name).mkdir(parents=True)
    Path("DIR/other").write_text("1")
    for name in ("train/ant", "train/bee", "val/ant", "val/bee"):
        Path("images", name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(Path("images", name, "0.png"))
    return tmp_path


@pytest.mark.parametrize("name", WRONG_FILES)
def test_files_that_cannot_be_meant(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str((ROOT / name).parent))
    program = load(name)
    there = sorted(folder.rglob("*"))
    for path in there:  # older than what may still be being written
        os.utime(path, (1, 1))
    for words in WRONG_FILES[name]:
        said = refusal(program, words, capsys)
        # What was given is named, unless it is missing altogether.
        assert not words or any(word.lstrip("-")[:60] in said for word in words if word), said
    # Beside them only indices of the data, for later starts.
    now = sorted(path for path in folder.rglob("*") if path.name != ".image_index.npz")
    assert now == there
