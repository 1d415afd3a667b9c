"""One command and no YAML: fine-tuning on a folder of one's own, then eval.py and predict.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, List, Tuple

import numpy as np
import pytest
from digits_run import failure
from PIL import Image

import eval as eval_program
import predict as predict_program
import train as train_program
from src.args import from_yaml_text, parse_args
from src.checkpoints.checkpoint import read_checkpoint, save_checkpoint
from src.checkpoints.complete_config import complete_by_checkpoint, complete_by_data
from src.checkpoints.saved_record import SavedRecord
from src.models.registry import create_model, default_image_size, list_models

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ["--config", str(ROOT / "src" / "configs" / "finetune.yaml")]
ARCH = "cct_2_3x2_32"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of eight images for training, two for validation."""
    root = tmp_path_factory.mktemp("pets")
    rng = np.random.default_rng(0)
    for split, count in (("train", 32), ("val", 4)):
        for number, name in enumerate(("cat", "dog", "fox")):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 60, (40, 40, 3)) + 70 * np.eye(3)[number]
                path = root / split / name / f"{index}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As scripts/convert_weights.py writes them: ten classes."""
    path = tmp_path_factory.mktemp("weights") / "cct.ckpt"
    save_checkpoint(path, create_model(ARCH).get_parameters(), {"arch": ARCH, "num_classes": 10})
    return path


def test_one_command_fine_tunes(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    data = ["--data_url", str(folder), "--train_url", str(run), "--epochs", "2"]
    assert train_program.main([*RECIPE, "--pretrained", str(weights), *data]) == 0
    model = from_yaml_text((run / "config.yaml").read_text(), "config.yaml").model
    assert (model.arch, model.num_classes, model.image_size) == (ARCH, 3, 32)
    best = str(run / "best.ckpt")
    assert read_checkpoint(Path(best)).record.class_names == ["cat", "dog", "fox"]
    capsys.readouterr()
    assert eval_program.main(["--pretrained", best, "--data_url", str(folder)]) == 0
    assert "images 12  cct_2_3x2_32" in capsys.readouterr().out
    assert predict_program.main(["--pretrained", best, "--input", str(folder / "val")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert all(name in lines[0] for name in ("cat", "dog", "fox"))


@pytest.mark.slow
def test_class_folders_alone_are_split_and_the_split_is_kept(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # No train/, no val/: a fifth of the 32 images of each class is set aside.
    data = ["--data_url", str(folder / "train"), "--train_url", str(tmp_path)]
    more = ["--epochs", "1", "--warmup_length", "0"]
    assert train_program.main([*RECIPE, "--pretrained", str(weights), *data, *more]) == 0
    capsys.readouterr()
    assert eval_program.main(["--pretrained", str(tmp_path / "last.ckpt"), *data]) == 0
    assert "images 18  cct_2_3x2_32" in capsys.readouterr().out


def completed(words: List[str]) -> Any:
    return complete_by_data(parse_args(words)).model


def test_what_is_given_goes_before_what_is_found(folder: Path, weights: Path) -> None:
    data = ["--data_url", str(folder), "--pretrained", str(weights)]
    assert (
        completed([*RECIPE, *data, "--num_classes", "5", "--image_size", "64"])
        == parse_args([*data, "--arch", ARCH, "--num_classes", "5", "--image_size", "64"]).model
    )
    other = completed([*RECIPE, *data, "--arch", "deit_tiny_patch16_384"])
    assert (other.arch, other.num_classes, other.image_size) == ("deit_tiny_patch16_384", 3, 384)


def test_every_architecture_has_a_size() -> None:
    for arch in list_models():
        parts = [int(part) for part in arch.split("_") if part in ("32", "224", "384")]
        # convmixer_768_32 has 32 blocks.
        due = 224 if arch.startswith("convmixer") or not parts else parts[-1]
        due = 32 if arch == "convmixer_256_8" else 160 if arch.startswith("test") else due
        assert default_image_size(arch) == due, arch


def test_weights_that_say_more_are_believed(tmp_path: Path) -> None:
    config = parse_args(["--arch", ARCH, "--num_classes", "7", "--image_size", "48"])
    from src.args import replace, to_yaml

    trained = replace(config, crop_pct=0.5, mean=(0.1, 0.2, 0.3))
    record = SavedRecord(arch=ARCH, num_classes=7, config=to_yaml(trained))
    found = complete_by_checkpoint(parse_args(["--crop_pct", "1.0"]), record, path="x.ckpt")
    assert (found.model.arch, found.model.num_classes, found.model.image_size) == (ARCH, 7, 48)
    assert (found.data.crop_pct, found.data.mean) == (1.0, (0.1, 0.2, 0.3))


def test_no_classes_and_no_weights_are_refused(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*RECIPE, "--pretrained", str(weights), "--data_url", str(tmp_path)]
    assert f"{tmp_path}: no class folders" in failure(capsys, train_program, words)
    words = [*RECIPE, "--pretrained", "nowhere.ckpt", "--data_url", str(folder)]
    assert "nowhere" in failure(capsys, train_program, words)


# In another folder than the repository, so that nothing it writes stays.
def tutorial(place: Path, folder: Path, weights: Path, *more: str) -> subprocess.CompletedProcess:
    """docs/tutorial.py with these folders, and more options of train.py."""
    text = (ROOT / "docs" / "tutorial.py").read_text()
    names = re.search(r"^FOLDER, WEIGHTS, RUN = .*$", text, re.MULTILINE)
    assert names is not None
    paths = tuple(map(str, (folder, weights, place / "run")))
    text = text.replace(names[0], f"FOLDER, WEIGHTS, RUN = {paths}")
    short = [*more, "--epochs", "1", "--warmup_length", "0"]
    text = text.replace('"--resume", "auto"]', f'"--resume", "auto", *{short}]')
    path = place / "tutorial.py"
    path.write_text(text)
    command = [sys.executable, str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(
    "more", [("--python_multiprocessing",), pytest.param((), marks=pytest.mark.slow)]
)
def test_the_tutorial_runs_with_threads_and_with_processes(
    folder: Path, weights: Path, tmp_path: Path, more: Tuple[str, ...]
) -> None:
    done = tutorial(tmp_path, folder, weights, *more)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report" / "report.html").is_file()
    assert list((tmp_path / "run" / "pictures").iterdir())
    assert done.stderr.count("training and 12 validation images") == 1  # no worker trained too


UNGUARDED = """
import sys
sys.path.insert(0, {root!r})
from src.data.imagenet import create_dataset
from src.args import parse_args
config = parse_args(sys.argv[1:])
{before}for batch in create_dataset(config, training=True).batches():
{before}    print("batch", batch.image.shape)
{before}    break
"""


@pytest.mark.parametrize("guard", ["", "if __name__ == '__main__':\n"])
def test_a_script_without_a_guard_is_refused_in_one_line(
    folder: Path, tmp_path: Path, guard: str
) -> None:
    code = UNGUARDED.format(root=str(ROOT), before="    " if guard else "")
    if guard:
        code = code.replace("    for batch", f"{guard}    for batch", 1)
    path = tmp_path / "script.py"
    path.write_text(code)
    words = ["--data_url", str(folder), "--num_classes", "3", "--image_size", "16"]
    words += ["--batch_size", "8", "--python_multiprocessing", "--num_parallel_workers", "1"]
    command = [sys.executable, str(path), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if guard:
        assert done.stdout == "batch (8, 16, 16, 3)\n", done.stderr
        return
    last = done.stderr.strip().splitlines()[-1]
    assert f"python_multiprocessing: {path}, line 7, would run again in every process" in last
    assert 'under `if __name__ == "__main__":`' in last
    assert "bootstrapping" not in done.stderr
    assert done.stdout == ""
