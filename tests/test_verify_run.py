"""A run is repeated from its own checkpoints: what has changed since is found and named."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import pytest
import xxhash
from digits_run import ROOT, words
from PIL import Image
from test_checkpoint import parameters

import train as train_program
from src.args import parse_args, replace, to_yaml
from src.checkpoints.checkpoint import read_checkpoint
from src.checkpoints.examined import differences, examine, salvage
from src.checkpoints.saved_record import SavedRecord
from src.checkpoints.tensor_file import write_tensors
from src.checkpoints.weights_digest import digest_of
from src.data.image_sums import ImageSums, find_changed, from_text, image_digest, to_text
from src.errors import UserError
from src.runs.evidence import contradictions, plan_repetition, read_evidence
from src.runs.folder import CheckpointFolder
from src.runs.records import Records, read_records

sys.path.insert(0, str(ROOT / "scripts"))

import verify_run

BATCH = 240  # 5 steps an epoch, which leave 237 of the 1,437 images out
STEPS = 5


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Tuple[Path, Path]:
    """Images, and the folder of a run of two epochs on them."""
    folder = tmp_path_factory.mktemp("verified")
    more = ["--save_every", "1", "--batch_size", str(BATCH), "--log_interval", "2"]
    more += ["--model_args", "{num_layers: 1, n_conv_layers: 1}", "--num_parallel_workers", "1"]
    more += ["--eval_every", "0"]
    assert train_program.main(words(folder / "digits", folder / "run", *more)) == 0
    return folder / "digits", folder / "run"


def copies(trained: Tuple[Path, Path], folder: Path) -> Tuple[Path, Path]:
    """Of images and run, which may be changed; names of one file stay names of one file."""
    images, run = folder / "digits", folder / "run"
    shutil.copytree(trained[0], images)
    run.mkdir()
    first: Dict[int, Path] = {}
    for path in sorted(trained[1].iterdir()):
        node = path.stat().st_ino
        if node in first:
            os.link(first[node], run / path.name)
        else:
            first[node] = Path(shutil.copy(path, run / path.name))
    return images, run


def verified(
    capsys: pytest.CaptureFixture[str], images: Path, run: Path, *more: str
) -> Tuple[int, List[str]]:
    """The exit code, and what was found."""
    capsys.readouterr()
    code = verify_run.main([str(run), "--data_url", str(images), *more])
    lines = capsys.readouterr().out.splitlines()
    found = [line[len("FOUND ") :] for line in lines if line.startswith("FOUND ")]
    assert lines[-1] == (f"{len(found)} finding(s)" if found else "all agrees")
    return code, found


def flip_a_weight(path: Path, place: int = -90) -> None:
    """One bit, under all names of the file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def change_an_image(images: Path) -> List[str]:
    """One bit of one pixel of an image; where there is a choice, one that an epoch leaves out."""
    path = sorted((images / "train" / "3").iterdir())[5]
    with Image.open(path) as image:
        pixels = np.array(image)
    pixels[4, 4] ^= 1
    Image.fromarray(pixels).save(path)
    return [f"3/{path.name}"]


def change_a_key(run: Path) -> None:
    text = (run / "config.yaml").read_text()
    assert "\nbase_lr: 0.002 " in text
    (run / "config.yaml").write_text(text.replace("\nbase_lr: 0.002 ", "\nbase_lr: 0.0021 "))


def test_one_bit_one_image_and_one_key_are_named(
    trained: Tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, run = copies(trained, tmp_path)
    flip_a_weight(run / "last.ckpt", (run / "last.ckpt").stat().st_size // 2)
    change_a_key(run)
    (name,) = change_an_image(images)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    code, found = verified(capsys, images, run)
    assert code == 1
    names = ", ".join(sorted(p.name for p in run.glob("*.ckpt") if p.samefile(run / "last.ckpt")))
    assert found[0] == f"{names}: damaged (its digest says that it was another file)"
    assert found[1] == "base_lr: 0.0021 in config.yaml, and 0.002 in epoch_001.ckpt"
    assert found[2].startswith("images of steps 6 to 10: 1 is not what the run saw: " + name)
    # The pixel is too little to be seen at half the size, so the weights are repeated to the bit.
    assert found[3].startswith(f"{names}: changed since it was saved, in 1 tensor(s): train.mom")
    assert "(1 of " in found[3]
    assert len(found) == 4
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


IMPORTED = """
import importlib, os, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "mindspore":
            print("GLOG_v", os.environ.get("GLOG_v"))
            raise SystemExit
sys.meta_path.insert(0, Finder())
program = importlib.import_module(sys.argv[1])
program.stage_weights = lambda config: importlib.import_module("mindspore")
program.main(sys.argv[2:])
"""


@pytest.mark.parametrize(
    ("program", "level"), [(["scripts.verify_run", "outputs"], 3), (["train"], 2)]
)
def test_mindspore_is_quiet_from_its_import_on(program: List[str], level: int) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GLOG_v"}
    words = [sys.executable, "-c", IMPORTED, *program]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == f"GLOG_v {level}\n", done.stderr


@pytest.mark.slow  # the fast suite has all of them at once
def test_an_untouched_run_agrees(
    trained: Tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert verified(capsys, *trained) == (0, [])
    assert verified(capsys, *trained, "--steps", "7", "--num_parallel_workers", "2") == (0, [])
    first = str(trained[1] / "epoch_001.ckpt")
    assert verified(capsys, *trained, "--checkpoint", first) == (0, [])


def swap_two_labels(images: Path, run: Path) -> None:
    """Two files change places, so that no class has more or fewer images."""
    pair = [sorted((images / "train" / label).iterdir())[3] for label in ("1", "7")]
    contents = [path.read_bytes() for path in pair]
    for path, content in zip(pair, reversed(contents)):
        path.write_bytes(content)


def darken_an_image(images: Path, run: Path) -> None:
    path = sorted((images / "train" / "3").iterdir())[5]
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(path)


def spoil_an_image(images: Path, run: Path) -> None:
    sorted((images / "train" / "3").iterdir())[5].write_bytes(b"no image")


def change_all_images(images: Path, run: Path) -> None:
    for path in (images / "train").glob("*/*.png"):
        with Image.open(path) as image:
            Image.fromarray(255 - np.array(image)).save(path)


def change_a_row(column: str) -> Callable[[Path, Path], None]:
    def change(images: Path, run: Path) -> None:
        rows = read_records(run / "metrics.csv")
        (row,) = (row for row in rows if row["step"] == "10" and row[column])
        wrong = "0" * 32 if column == "weights" else "0.125"
        text = (run / "metrics.csv").read_text()
        (run / "metrics.csv").write_text(text.replace(row[column], wrong))

    return change


def change_a_weight(name: str) -> Callable[[Path, Path], None]:
    """As a program would: the file has a digest, and a right one."""

    def change(images: Path, run: Path) -> None:
        path = run / name
        held = read_checkpoint(path)
        arrays = {name: tensor.asnumpy().copy() for name, tensor in held.tensors.items()}
        arrays["classifier.fc.bias"].view(np.int32)[2] ^= 1
        with path.open("wb") as file:
            write_tensors(file, json.dumps(held.record.as_json()).encode(), arrays.items())

    return change


CHANGES = {
    "two labels": (swap_two_labels, [r"images of steps 6 to 10: ", "step 10: other weights"]),
    "an image": (darken_an_image, ["1 is not what the run saw: 3/", "step 10: other weights"]),
    "no image": (spoil_an_image, ["images: .*3/.*not a readable image"]),
    "all images": (change_all_images, ["more are others than can be told apart", "step 10"]),
    "a digest": (change_a_row("weights"), ["last.ckpt: its weights have", "that row was changed"]),
    "a loss": (change_a_row("loss"), ["rows: the first that differs is step 10, loss 0.125 "]),
    "a weight": (
        change_a_weight("last.ckpt"),
        ["last.ckpt: its weights have the digest", r"1 tensor.*classifier.fc.bias\[2\]"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", CHANGES)
def test_what_changed_is_named(
    what: str, trained: Tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, run = copies(trained, tmp_path)
    change, said = CHANGES[what]
    change(images, run)
    code, found = verified(capsys, images, run)
    assert code == 1
    for line, pattern in zip(found, said):
        assert re.search(pattern, line), found
    extra = [line for line in found[len(said) :] if not line.startswith("rows: ")]
    assert not extra, found


def recipe() -> str:
    return to_yaml(replace(parse_args([]), num_classes=2))


def a_run(folder: Path, epochs: int = 3) -> CheckpointFolder:
    """Checkpoints of four steps each, and their rows, without any training."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(recipe())
    checkpoints = CheckpointFolder(folder, save_every=1, keep_max=5)
    records = Records(folder / "metrics.csv", first_step=0)
    for epoch in range(1, epochs + 1):
        step = 4 * epoch
        record = SavedRecord(step=step, steps_per_epoch=4, config=recipe())

        def write(digest: str, step: int = step) -> None:
            records.write(step=step, epoch=step / 4, weights=digest)

        values = parameters(epoch)
        checkpoints.save(values, record, epoch=epoch, is_best=epoch == 1, on_digest=write)
    records.close()
    return checkpoints


def test_what_is_repeated(tmp_path: Path) -> None:
    a_run(tmp_path, epochs=4)
    evidence = read_evidence(tmp_path)
    shown = [str(checkpoint) for checkpoint in evidence.checkpoints]
    assert shown[:2] == ["best.ckpt, epoch_001.ckpt", "epoch_002.ckpt"]
    assert shown[2:] == ["epoch_003.ckpt", "epoch_004.ckpt, last.ckpt"]
    assert contradictions(evidence) == []

    def planned(**more: Any) -> Tuple[int, List[int]]:
        given = {"steps": None, "checkpoint": None, **more}
        plan = plan_repetition(read_evidence(tmp_path), **given)
        assert plan is not None
        return plan.start.step or 0, plan.steps

    assert planned() == (12, [16])
    assert planned(checkpoint=tmp_path / "best.ckpt") == (4, [8])
    assert planned(checkpoint=tmp_path / "best.ckpt", steps=9) == (4, [8, 12])
    with pytest.raises(UserError, match=r"--steps 3: .* of step 16; give --steps 4 or more"):
        planned(steps=3)
    with pytest.raises(UserError, match=r"no digest comes after epoch_004.ckpt, last.ckpt"):
        planned(checkpoint=tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"--checkpoint .*give one of best.ckpt, epoch_001.ckpt"):
        planned(checkpoint=tmp_path / "epoch_009.ckpt")
    # A file in doubt is what the repetition has to end with.
    flip_a_weight(tmp_path / "epoch_002.ckpt")
    assert planned() == (4, [8])
    assert planned(checkpoint=tmp_path / "epoch_001.ckpt") == (4, [8])
    with_doubt = read_evidence(tmp_path)
    plan = plan_repetition(with_doubt, steps=None, checkpoint=tmp_path / "epoch_002.ckpt")
    assert plan is None


def test_files_that_contradict_each_other(tmp_path: Path) -> None:
    a_run(tmp_path)
    other = a_run(tmp_path / "other", epochs=2)
    (tmp_path / "epoch_003.ckpt").unlink()
    shutil.copy(other.folder / "epoch_001.ckpt", tmp_path / "epoch_003.ckpt")
    record = dataclasses.replace(read_checkpoint(tmp_path / "epoch_003.ckpt").record, step=12)
    CheckpointFolder(tmp_path / "other", save_every=0, keep_max=1).save(
        parameters(9.0), record, epoch=None, is_best=False
    )
    shutil.copy(tmp_path / "other/last.ckpt", tmp_path / "epoch_003.ckpt")
    (tmp_path / "config.yaml").write_text(recipe().replace("\nbatch_size: ", "\nbatch_size: 1"))
    evidence = read_evidence(tmp_path)
    found = contradictions(evidence)
    due = read_records(tmp_path / "metrics.csv")[-1]["weights"]
    held = examine(tmp_path / "epoch_003.ckpt", ["epoch_003.ckpt"]).weights
    assert found[0] == (
        f"epoch_003.ckpt: its weights have the digest {held}, and by metrics.csv those of step 12 "
        f"had {due}"
    )
    assert [line.partition(":")[0] for line in found[1:]] == ["batch_size"]
    assert held != due


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: (run / "metrics.csv").unlink(), "has no metrics.csv; give the folder of a"),
        (lambda run: (run / "config.yaml").unlink(), "has no config.yaml; give the folder of a"),
        (lambda run: (run / "metrics.csv").write_text("step,loss\n4,1.0\n"), "holds no digest"),
        (lambda run: (run / "metrics.csv").write_text("step,weights\n4,x\n"), "line 2: weights"),
        (lambda run: [p.unlink() for p in run.glob("epoch_00[12].ckpt")], "--save_every 1"),
    ],
)
def test_what_cannot_be_repeated_is_said_in_a_line(
    spoil: Callable[[Path], Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    a_run(run)
    (run / "best.ckpt").unlink()
    spoil(run)
    assert verify_run.main([str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: run ")
    assert said in line


def test_an_older_runs_rows_stay_and_get_the_new_columns(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,epoch,loss\r\n4,1.0,0.5\r\n8,2.0,0.25\r\n", newline="")
    records = Records(path, first_step=4)
    records.write(step=8, epoch=2.0, weights="ab" * 16, images=f"4:{to_text(np.zeros((6, 32)))}")
    records.close()
    before, now = read_records(path)
    assert (before["step"], before["loss"], before["weights"]) == ("4", "0.5", "")
    assert (now["step"], now["weights"]) == ("8", "ab" * 16)


def test_the_digest_is_what_the_page_says(tmp_path: Path) -> None:
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array(7, np.int32)}
    parts = [
        xxhash.xxh3_128(b"a int32 \n" + arrays["a"].tobytes()),
        xxhash.xxh3_128(b"b float32 2,3\n" + arrays["b"].tobytes()),
    ]
    due = xxhash.xxh3_128(b"".join(part.digest() for part in parts)).hexdigest()
    assert digest_of(arrays.items()) == digest_of(reversed(arrays.items())) == due
    with (tmp_path / "x.ckpt").open("wb") as file:
        assert write_tensors(file, b"{}", arrays.items()) == due
    assert examine(tmp_path / "x.ckpt", ["x.ckpt"]).weights == due
    for name, array in arrays.items():
        other = {**arrays, name: array + 1}
        assert digest_of(other.items()) != due


def test_a_damaged_files_tensors_are_compared(tmp_path: Path) -> None:
    path = a_run(tmp_path, epochs=1).last
    due = salvage(path)
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(1.0).tobytes()) + 2] ^= 0x80
    path.write_bytes(content)
    assert examine(path, ["last.ckpt"]).damage == "its digest says that it was another file"
    (found,) = differences(salvage(path), due)
    assert (found.name, found.differing, found.size) == ("fc.weight", 1, 6)
    assert found.first == "fc.weight[0, 0] is 0.5 and should be 1.0"
    assert found.relative == 0.5


def summed(digests: np.ndarray, *, batch: int, world_size: int = 1, first: int = 0) -> np.ndarray:
    """(6, 32) of the digests of all ranks, in the order of the run."""
    total = np.zeros((6, 32), np.uint32)
    for rank in range(world_size):
        sums = ImageSums(batch, rank, world_size)
        own = digests[rank::world_size].reshape(-1, batch)
        for number, part in enumerate(own, first):
            sums.add(number, part)
        total ^= sums.take()
        assert not sums.take().any()
    return total


def test_few_changed_images_follow_from_the_sums() -> None:
    rng = np.random.default_rng(5)
    digests = rng.integers(0, 2**32, 200_000, dtype=np.uint32)
    before = summed(digests, batch=100, first=7)
    assert find_changed(before, before, (700, 200_700)) == ([], True)
    for count in (1, 3):
        places = np.sort(rng.choice(len(digests), count, replace=False))
        other = digests.copy()
        other[places] ^= rng.integers(1, 2**32, count, dtype=np.uint32)
        found = find_changed(before, summed(other, batch=100, first=7), (700, 200_700))
        assert found == ((700 + places).tolist(), True)
    other = rng.integers(0, 2**32, len(digests), dtype=np.uint32)
    assert not find_changed(before, summed(other, batch=100, first=7), (700, 200_700)).are_all


def test_ranks_together_have_the_sums_of_one() -> None:
    digests = np.random.default_rng(6).integers(0, 2**32, 240, dtype=np.uint32)
    alone = summed(digests, batch=24)
    assert (summed(digests, batch=12, world_size=2) == alone).all()
    assert (summed(digests, batch=3, world_size=8) == alone).all()
    # Images that change places are others too.
    swapped = digests.copy()
    swapped[[3, 77]] = swapped[[77, 3]]
    assert find_changed(alone, summed(swapped, batch=24), (0, 240)) == ([3, 77], True)


def test_sums_as_text() -> None:
    sums = np.random.default_rng(7).integers(0, 2**32, (6, 32), dtype=np.uint32)
    text = to_text(sums)
    assert len(text) == 1024
    assert (from_text(text) == sums).all()
    for wrong in (text[4:], text[:-1] + "!", ""):
        with pytest.raises(ValueError, match=r"bytes|base64"):
            from_text(wrong)
    labels = {image_digest(0x1234567890ABCDEF, label) for label in range(-1, 1000)}
    assert len(labels) == 1001
