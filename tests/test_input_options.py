"""Every option of every program that names something to read, given what is no file to read.

Which options there are is asked of the programs (`program_options`): a new one is tried too, until
it is listed here as one that names no input.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import typing
from pathlib import Path
from types import ModuleType
from typing import Callable, Dict, Iterator, List, Tuple

import pytest
from imagenet_archives import devkit_files, devkit_of
from program_options import ROOT, Program, load, options_of
from remedies import programs

from src.configs.parser import declared_keys, keys_of

# Options and keys that take words, but no paths.
WORDS = {
    *("arch", "auto_augment", "dataset_name", "device_id", "devices", "filter", "freeze"),
    *("hccn_tool", "key", "master_addr", "master_port", "model_args", "obs_endpoint"),
    *("platform", "prefix"),
    *("program", "python", "server_id", "teacher_arch"),
}
# ... and that name what is written.
WRITTEN = {
    *("bundle", "cache_dir", "folder", "logs", "output", "output_file", "report", "result_path"),
    *("results_file",),
    *("save_pictures", "train_url"),
}
# Keys that all configurations have, but not all programs read.
DATA_KEYS = {"data_url", "train_list", "val_list"}
OF_TRAINING = {"resume", "teacher_pretrained", "class_weights"}
UNREAD = {
    "eval.py": OF_TRAINING,
    "export.py": {*DATA_KEYS, *OF_TRAINING},
    "predict.py": {*DATA_KEYS, *OF_TRAINING},
    "preprocess.py": OF_TRAINING,
    "scripts/knn.py": {"pretrained", *OF_TRAINING},
    "scripts/preview_augment.py": {"val_list", "pretrained", *OF_TRAINING},
    "scripts/replay_step.py": {*DATA_KEYS, "pretrained", *(OF_TRAINING - {"resume"})},
    # Read once there is a run to repeat: tests/test_verify_run.py.
    "scripts/verify_run.py": {*DATA_KEYS, "checkpoint", "pretrained", *OF_TRAINING},
}

# --- the words around an option: IT stands for what is to be read --------------------------------

DATA = ["--data_url", "images", "--arch", "cct_2_3x2_32", "--batch_size", "2"]
# Of a program; of one of its options, where that needs others.
AROUND: Dict[str, List[str]] = {
    "train.py": DATA,
    "eval.py": [*DATA, "--report", "report"],
    "preprocess.py": DATA,
    "predict.py": ["--input", "images", "--pretrained", "good.ckpt"],
    "postprocess.py": ["--dataset_name", "digits", "--label_file", "label.json"],
    "scripts/average_checkpoints.py": ["IT", "good.ckpt", "--output", "mean.ckpt"],
    "scripts/compare_reports.py": ["IT", "IT"],
    "scripts/convert_weights.py": [
        *("--arch", "cct_2_3x2_32", "--input", "good.safetensors", "--output", "new.ckpt")
    ],
    "scripts/knn.py": ["--weights", "good.ckpt", "--data_url", "images"],
    "scripts/launch.py": ["--launcher", "rank_table", "--dry_run"],
    "scripts/preview_augment.py": DATA,
}
OF_OPTION: Dict[Tuple[str, str], List[str]] = {
    ("train.py", "teacher_pretrained"): [
        *(*DATA, "--distillation_type", "soft", "--teacher_arch", "cct_2_3x2_32"),
        *("--arch", "deit_tiny_distilled_patch16_224"),
    ],
    ("eval.py", "real_labels"): [*DATA, "--report", "report", "--pretrained", "good.ckpt"],
    ("eval.py", "data_url"): ["--pretrained", "good.ckpt"],
    ("eval.py", "class_subset"): [*DATA, "--pretrained", "good.ckpt"],
    ("eval.py", "train_list"): [*DATA, "--pretrained", "good.ckpt", "--val_share", "0.5"],
    ("eval.py", "val_list"): [*DATA, "--pretrained", "good.ckpt"],
    ("postprocess.py", "label_file"): ["--dataset_name", "digits", "--result_dir", "images"],
    ("preprocess.py", "pretrained"): ["--data_url", "images"],
    ("predict.py", "input"): ["--pretrained", "good.ckpt"],
    ("scripts/verify_run.py", "config"): ["images"],
    ("scripts/convert_weights.py", "input"): [*("--arch", "cct_2_3x2_32", "--output", "new.ckpt")],
    ("scripts/pack_dataset.py", "data_url"): ["--output", "packed"],
    **{
        ("scripts/pack_dataset.py", key): ["--data_url", "images", "--output", "packed"]
        for key in ("train_list", "val_list")
    },
    **{
        ("scripts/prepare_imagenet.py", split): [
            *("--devkit", "devkit.tar.gz", "--allow_partial", "--output", "prepared")
        ]
        for split in ("train", "val")
    },
    ("scripts/prepare_imagenet.py", "devkit"): ["--train", "label.json", "--output", "prepared"],
    ("scripts/rank_table.py", "hccn_conf"): [
        *("make", "--server_id", "x", "--output", "new.json", "--hccn_tool", "none")
    ],
    ("scripts/rank_table.py", "table"): ["validate", "IT"],
    ("scripts/rank_table.py", "tables"): ["merge", "IT", "IT", "--output", "new.json"],
}
# Behind an option that takes the rest of the line.
BEHIND = {"scripts/launch.py": ["--", str(ROOT / "train.py")]}
# What a file of this kind ends in; others are refused by their name.
ENDINGS = {
    "config": ".yaml",
    "input": ".png",
    "label_file": ".json",
    "for_mindir": ".mindir",
    "pretrained": ".ckpt",
    "resume": ".ckpt",
    "teacher_pretrained": ".ckpt",
    "checkpoints": ".ckpt",
    "weights": ".ckpt",
}
MORE_ENDINGS: Dict[Tuple[str, str], List[str]] = {
    **{(name, "pretrained"): [".ckpt", ".onnx", ".mindir"] for name in ("eval.py", "predict.py")},
    ("predict.py", "labels"): [".txt", ".json"],
    ("scripts/convert_weights.py", "input"): [
        *(".npz", ".safetensors", ".pth", ".ckpt", ".safetensors.index.json")
    ],
    ("scripts/convert_weights.py", "class_names"): [".txt", ".json"],
    ("scripts/plot_runs.py", "runs"): ["", ".csv"],
}
# Words, and where in the folder FOLDER that they name a file stands.
WITHIN: List[Tuple[str, List[str], str]] = [
    ("train.py", [*DATA, "--config", "FOLDER/recipe.yaml"], "base.yaml"),
    ("train.py", ["--set", "CIFAR10", "--data_url", "FOLDER"], "cifar-10-python.tar.gz"),
    ("train.py", ["--set", "MindRecord", "--data_url", "FOLDER"], "train/manifest.json"),
    ("scripts/compare_reports.py", ["FOLDER", "FOLDER"], "images.csv"),
    ("scripts/pack_dataset.py", ["--verify", "FOLDER"], "train/manifest.json"),
    ("scripts/plot_runs.py", ["FOLDER"], "metrics.csv"),
    ("scripts/launch.py", ["--launcher", "rank_table", "--rank_table", "FOLDER"], "a.json"),
]


def inputs(name: str, program: Program) -> Iterator[Tuple[str, bool]]:
    """(name, whether it is an option) of what a program reads."""
    others = WORDS | WRITTEN | UNREAD.get(name, set())
    for action in program.actions:
        is_text = action.nargs != 0 and action.choices is None and action.type in (None, str, Path)
        if is_text and action.dest not in {*others, "help", "debug"}:
            yield action.dest, bool(action.option_strings)
    if program.config_type:
        yield "config", True
        for key, kind in keys_of(program.config_type).items():
            is_text = str in (kind, *typing.get_args(kind))
            is_free = not declared_keys(program.config_type)[key].choices
            if is_text and is_free and key not in others:
                yield key, True


def commands(name: str, program: Program) -> Iterator[Tuple[List[str], str]]:
    """Command lines with IT in the place of what is read, and the ending it needs there."""
    for option, is_option in dict.fromkeys(inputs(name, program)):
        words = list(OF_OPTION.get((name, option), AROUND.get(name, [])))
        if is_option:
            words += [f"--{option}", "IT"]
        elif "IT" not in words:
            words.append("IT")
        endings = MORE_ENDINGS.get((name, option), [ENDINGS.get(option, "")])
        yield from ((words + BEHIND.get(name, []), ending) for ending in endings)


# --- what stands there ---------------------------------------------------------------------------


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(path.parent)  # a long path is none of a socket
        listening.bind(path.name)
        os.chdir(here)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(60 * 10**9)


KINDS: Dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "socket": _socket,
    "folder": os.mkdir,
    "sparse": _sparse,
    "dead": lambda path: path.symlink_to("nowhere"),
    "round": lambda path: path.symlink_to(path.name),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for at in ("train/ant", "train/bee", "val/ant", "val/bee"):
        Path("images", at).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(Path("images", at, "0.png"))
    labels = {"dataset_name": "Digits", "num_classes": 2, "batch_size": 1, "labels": {"0": 1}}
    Path("label.json").write_text(json.dumps(labels))
    Path("devkit.tar.gz").write_bytes(devkit_of(devkit_files()))
    return tmp_path


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good.ckpt, and good.safetensors of the same network."""
    from src.checkpoints.checkpoint import save_checkpoint
    from src.models.registry import create_model

    folder = tmp_path_factory.mktemp("weights")
    network = create_model("cct_2_3x2_32", num_classes=2)
    meta = {"arch": "cct_2_3x2_32", "num_classes": 2}
    save_checkpoint(folder / "good.ckpt", network.get_parameters(), meta)
    words = ["--arch", "cct_2_3x2_32", "--to", "torch", "--input", str(folder / "good.ckpt")]
    program = load("scripts/convert_weights.py")
    assert program.main([*words, "--output", str(folder / "good.safetensors")]) == 0
    return folder


class StillWaiting(BaseException):
    """A program has not ended in time."""


@contextlib.contextmanager
def limit(seconds: int) -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise StillWaiting

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refusal(program: ModuleType, words: List[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a call is refused with, within seconds."""
    capsys.readouterr()
    try:
        with limit(30):  # one that waits does so for ever
            code = program.main(words)
    except SystemExit as ended:
        code = ended.code
    except StillWaiting:
        pytest.fail(f"waits: {words}")
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert (code, len(lines), said.out) == (2, 1, ""), (words, code, said)
    assert lines[0].startswith("error: "), words
    return lines[0]


def try_all(name: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    program = load(name)
    for number, (words, ending) in enumerate(commands(name, options_of(name))):
        path = Path(f"it{number}{ending}")
        KINDS[kind](path)
        said = refusal(program, [path.name if word == "IT" else word for word in words], capsys)
        assert path.name in said, (words, said)


PROGRAMS = [name for name in programs() if not name.startswith("benchmarks/")]


# A pipe is what was waited for; the others are tried with the slow tests.
SOME = [kind if kind == "pipe" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]


@pytest.mark.parametrize("kind", SOME)
@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_no_file_to_read_is_refused(
    name: str,
    kind: str,
    folder: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str((ROOT / name).parent))
    for path in weights.iterdir():
        (folder / path.name).symlink_to(path)
    try_all(name, kind, capsys)


@pytest.mark.parametrize("kind", SOME)
@pytest.mark.parametrize(("name", "words", "place"), WITHIN)
def test_what_stands_within_a_folder(
    name: str,
    words: List[str],
    place: str,
    kind: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str((ROOT / name).parent))
    path = folder / "FOLDER" / place
    path.parent.mkdir(parents=True)
    (folder / "FOLDER" / "recipe.yaml").write_text("base: base.yaml\n")
    KINDS[kind](path)
    refusal(load(name), [*words, *BEHIND.get(name, [])], capsys)


def test_every_list_is_of_options_that_there_are() -> None:
    """So that a renamed option is not left untried."""
    tables = {name: options_of(name) for name in PROGRAMS}
    known = {"config"}
    for program in tables.values():
        known |= {action.dest for action in program.actions}
        known |= set(keys_of(program.config_type)) if program.config_type else set()
    listed = WORDS | WRITTEN | set(ENDINGS) | {option for _, option in {*OF_OPTION, *MORE_ENDINGS}}
    assert listed <= known
    found = {name: [option for option, _ in inputs(name, tables[name])] for name in PROGRAMS}
    assert all(option in found[name] for name, option in {*OF_OPTION, *MORE_ENDINGS})
    assert {name for name in PROGRAMS if not found[name]} == {
        "scripts/check_bundle.py",  # a folder: tests/test_bundle.py
        *("scripts/doctor.py", "scripts/gpu_environment.py", "scripts/list_models.py"),
        *("scripts/make_configuration_page.py", "scripts/make_digits_file.py"),
        "scripts/make_model_pages.py",
    }
