"""From a checkpoint to scores on every path: MindSpore, MINDIR, ONNX, C++ on MindSpore Lite."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Dict, List

import lite
import mindspore as ms
import numpy as np
import onnxruntime
import pytest
from digits_run import without_override
from model_parity import load_rule_weights
from photographs import load_photographs
from small_networks import ARGUMENTS, words, write_checkpoint

import eval as eval_program
import export as export_program
import postprocess as postprocess_program
import preprocess as preprocess_program
from src.models.registry import create_model
from src.trainer.metrics import EvalTotals

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 7  # does not divide the 360 images
# Convolutions and running statistics; attention. Normalised images; pixels.
QUICK = ("convmixer_768_32", "deit_tiny_patch16_224")
INPUTS = {arch: "uint8_nhwc" if i % 2 else "float32_nchw" for i, arch in enumerate(ARGUMENTS)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("with space 数")


@pytest.fixture(scope="module")
def checkpoints(folder: Path) -> Dict[str, Path]:
    return {arch: write_checkpoint(arch, folder / f"{arch}.ckpt") for arch in ARGUMENTS}


class Mindirs(Dict[str, Path]):
    """Files of MindSpore 2.0.0, which Lite 2.0 reads: the quick ones at once, each other one when
    it is asked for.
    """

    def __init__(self, checkpoints: Dict[str, Path]) -> None:
        self._checkpoints = checkpoints
        self._export(*QUICK)

    def __missing__(self, arch: str) -> Path:
        self._export(arch)
        return self[arch]

    def _export(self, *archs: str) -> None:
        paths = {arch: self._checkpoints[arch].with_suffix(".mindir") for arch in archs}
        lite.export_with_ms20(
            *([*export_words(a, self._checkpoints[a]), "--output", str(paths[a])] for a in archs)
        )
        self.update(paths)


@pytest.fixture(scope="module")
def mindirs(checkpoints: Dict[str, Path]) -> Dict[str, Path]:
    return Mindirs(checkpoints)


def export_words(arch: str, checkpoint: Path) -> List[str]:
    sizes = ["--input", INPUTS[arch], "--batch_size", str(BATCH)]
    return [*words(arch), "--pretrained", str(checkpoint), *sizes]


def evaluate(arch: str, folder: Path, *source: str) -> Dict[str, float]:
    paths = ["--data_url", str(folder / "digits"), "--train_url", str(folder / "run")]
    assert eval_program.main([*words(arch), *paths, "--batch_size", "45", *source]) == 0
    (path,) = (folder / "run").glob("eval_*.json")
    content: Dict[str, float] = json.loads(path.read_text())
    path.unlink()
    return content


def write_inputs(folder: Path, mindir: Path, inputs: Path) -> None:
    data = ["--dataset_name", "digits", "--data_path", str(folder / "digits")]
    result = ["--result_path", str(inputs), "--for_mindir", str(mindir)]
    assert preprocess_program.main([*data, *result]) == 0


def onnx_logits(path: Path, folder: Path) -> np.ndarray:
    """Of all images, from float32 inputs of a batch of 1 that preprocess.py writes."""
    inputs = folder / f"{path.stem} for onnx"
    arch = ["--image_size", "32", "--crop_pct", "1.0", "--num_classes", "10"]
    data = ["--dataset_name", "digits", "--data_path", str(folder / "digits")]
    assert preprocess_program.main([*arch, *data, "--result_path", str(inputs)]) == 0
    files = sorted((inputs / "input").iterdir())
    batch = np.stack([np.fromfile(file, np.float32) for file in files]).reshape(-1, 3, 32, 32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": batch})[0]


@pytest.mark.parametrize(
    "arch", [pytest.param(a, marks=() if a in QUICK else pytest.mark.slow) for a in ARGUMENTS]
)
def test_every_path_gives_the_scores_of_eval(
    arch: str,
    folder: Path,
    checkpoints: Dict[str, Path],
    mindirs: Dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = evaluate(arch, folder, "--pretrained", str(checkpoints[arch]))
    mindir, onnx = folder / "2.10" / f"{arch}.mindir", folder / f"{arch}.onnx"
    mindir.parent.mkdir(exist_ok=True)
    export = export_words(arch, checkpoints[arch])
    assert export_program.main([*export, "--output", str(mindir)]) == 0
    served = evaluate(arch, folder, "--pretrained", str(mindir))
    plain = [*words(arch), "--pretrained", str(checkpoints[arch]), "--dynamic_batch"]
    assert export_program.main([*plain, "--file_format", "ONNX", "--output", str(onnx)]) == 0

    by_onnx = evaluate(arch, folder, "--pretrained", str(onnx))

    inputs, results = folder / f"{arch} in", folder / f"{arch} out"
    write_inputs(folder, mindirs[arch], inputs)
    done = lite.infer(mindirs[arch], inputs, results)
    assert done.returncode == 0, done.stderr
    capsys.readouterr()
    options = ["--result_dir", str(results), "--dataset_name", "digits"]
    options += ["--label_file", str(inputs / "label.json")]
    assert postprocess_program.main(options) == 0
    printed = capsys.readouterr().out.splitlines()
    cpp = json.loads((results / "inference_scores.json").read_text())
    assert printed[0] == f"Top1 acc: {expected['top1'] / 100:.5f}"

    theirs = onnx_logits(onnx, folder)
    labels = list(json.loads((inputs / "label.json").read_text())["labels"].values())
    totals = EvalTotals(10)
    totals.update(theirs, np.array(labels))
    mine = np.concatenate([np.fromfile(f, np.float32) for f in sorted(results.glob("*_0.bin"))])
    difference = np.abs(mine.reshape(-1, 10)[:360] - theirs).max()
    assert difference <= 1e-4 * max(1.0, np.abs(theirs).max())
    for found in (served, by_onnx, cpp, vars(totals.result())):
        assert [found[key] for key in ("images", "top1", "top5")] == [
            expected[key] for key in ("images", "top1", "top5")
        ]
        assert found["loss"] == pytest.approx(expected["loss"], abs=1e-4)
    times = json.loads((folder / f"{arch} out-time" / "times.json").read_text())
    assert (times["images"], times["predictions"], times["failures"]) == (360, 52, 0)


@pytest.fixture(scope="module")
def small(folder: Path, mindirs: Dict[str, Path]) -> Path:
    """Inputs of the smallest network."""
    inputs = folder / "small inputs"
    write_inputs(folder, mindirs["convmixer_768_32"], inputs)
    return inputs


def refused(done: subprocess.CompletedProcess, part: str, code: int = 2) -> None:
    lines = done.stderr.strip().splitlines()
    assert done.returncode == code
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert part in lines[0]


def test_mindir_files_that_lite_cannot_take(
    small: Path, mindirs: Dict[str, Path], checkpoints: Dict[str, Path], tmp_path: Path
) -> None:
    arch = "convmixer_768_32"
    whole = mindirs[arch].read_bytes()
    for size in (0, len(whole) // 2, len(whole) - 9):
        (tmp_path / "cut.mindir").write_bytes(whole[:size])
        refused(lite.infer(tmp_path / "cut.mindir", small, tmp_path / "out"), "cut.mindir")
    new = tmp_path / "new.mindir"
    assert export_program.main([*export_words(arch, checkpoints[arch]), "--output", str(new)]) == 0
    refused(lite.infer(new, small, tmp_path / "out"), "by MindSpore 2.0")
    refused(lite.infer(tmp_path / "none.mindir", small, tmp_path / "out"), "none.mindir")
    other = mindirs["deit_tiny_patch16_224"]
    refused(lite.infer(other, small, tmp_path / "out"), "takes uint8 7x32x32x3, the inputs are")
    refused(lite.infer(mindirs[arch], small, tmp_path / "out", "--batch_size=2"), "--batch_size 2")
    assert not (tmp_path / "out").exists()


def test_inputs_that_are_damaged(small: Path, mindirs: Dict[str, Path], tmp_path: Path) -> None:
    mindir = mindirs["convmixer_768_32"]
    refused(lite.infer(mindir, tmp_path / "none", tmp_path / "out"), "preprocess.py")
    (tmp_path / "empty").mkdir()
    refused(lite.infer(mindir, tmp_path / "empty", tmp_path / "out"), "manifest.tsv")
    inputs = tmp_path / "in"
    shutil.copytree(small, inputs)
    damaged = inputs / "input" / "000003.bin"
    data = bytearray(damaged.read_bytes())
    data[100] ^= 1
    damaged.write_bytes(bytes(data))
    refused(lite.infer(mindir, inputs, tmp_path / "stopped"), "000003.bin")
    assert len(list((tmp_path / "stopped").glob("*_0.bin"))) == 3
    refused(lite.infer(mindir, inputs, tmp_path / "counted", "--on_error=count"), "000003.bin", 1)
    assert len(list((tmp_path / "counted").glob("*"))) == 51
    times = json.loads((tmp_path / "counted-time" / "times.json").read_text())
    assert (times["images"], times["failures"]) == (353, 1)
    refused(lite.infer(mindir, small, tmp_path / "counted"), "earlier run")


def test_a_write_that_fails_leaves_no_half_result(
    small: Path, mindirs: Dict[str, Path], tmp_path: Path
) -> None:
    output, mine = tmp_path / "out", tmp_path / "mine"
    output.mkdir()
    mine.write_text("not theirs")
    (output / "000000_0.bin.part").symlink_to(mine)  # what others planted is not written through
    size = BATCH * 10 * 4

    def allow_half() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    done = lite.infer(mindirs["convmixer_768_32"], small, output, before=allow_half)
    refused(done, "000000_0.bin': cannot be written (File too large)")
    assert list(output.iterdir()) == []
    assert mine.read_text() == "not theirs"


@pytest.mark.parametrize(
    ("part", "other", "said"),
    [
        ("version\t1\n", "", "does not begin with its version"),
        ("input/000003", "../000003", "'../000003.bin', which is not below its folder"),
        ("input/000003", "other/000002", "whose results would have one name"),
        ("\t7\t", "\t4294967303\t", "4294967303 images in 'input/000000.bin', not 1 to 7"),
        ("shape\t7,", "shape\t18446744073709551615,", "bad number '18446744073709551615'"),
        ("dtype\tuint8", "dtype\t\x1b[2J\r", "bad line 'dtype\\x09\\x1B[2J\\x0D'"),
    ],
)
def test_manifests_of_others(
    part: str, other: str, said: str, mindirs: Dict[str, Path], folder: Path, tmp_path: Path
) -> None:
    inputs = folder / "pixels"
    if not inputs.exists():
        write_inputs(folder, mindirs["deit_tiny_patch16_224"], inputs)
    text = (inputs / "manifest.tsv").read_text()
    assert part in text
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "manifest.tsv").write_text(text.replace(part, other, 1), newline="")
    refused(lite.infer(mindirs["deit_tiny_patch16_224"], tmp_path / "in", tmp_path / "out"), said)
    assert not (tmp_path / "out").exists()


def test_only_regular_files_and_other_folders(
    small: Path, mindirs: Dict[str, Path], tmp_path: Path
) -> None:
    mindir, pipe = mindirs["convmixer_768_32"], tmp_path / "pipe"
    os.mkfifo(pipe)
    refused(lite.infer(pipe, small, tmp_path / "out"), "pipe': a named pipe, no regular file")
    refused(lite.infer(Path("/dev/zero"), small, tmp_path / "out"), "a device, no regular file")
    refused(lite.infer(mindir, small, small / "input"), "lies in the inputs' folder")
    refused(lite.infer(mindir, small, tmp_path / "out", "--threads", " 1"), "--threads ' 1'")
    assert sorted(os.listdir(tmp_path)) == ["pipe"]


def test_folders_that_are_closed_are_named(
    small: Path, mindirs: Dict[str, Path], tmp_path: Path
) -> None:
    mindir, closed = mindirs["convmixer_768_32"], tmp_path / "closed"
    shutil.copytree(small, closed)
    closed.chmod(0)
    for inputs, output in ((closed, tmp_path / "out"), (small, closed / "out")):
        try:
            done = lite.infer(mindir, inputs, output, before=without_override)
        except (OSError, subprocess.SubprocessError):
            pytest.skip("root, and its right to read everything cannot be dropped here")
        refused(done, str(closed))
    closed.chmod(0o755)
    assert not (tmp_path / "out").exists()
    assert not (closed / "out").exists()


def test_an_interrupt_ends_after_the_current_input(
    small: Path, mindirs: Dict[str, Path], tmp_path: Path
) -> None:
    inputs, output = tmp_path / "in", tmp_path / "out"
    repeat_inputs(small, inputs, 20_000)
    process = start(mindirs["convmixer_768_32"], inputs, output)
    wait_for(output / "000001_0.bin", process)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 128 + signal.SIGINT
    count = json.loads((tmp_path / "out-time" / "times.json").read_text())["predictions"]
    files = list(output.iterdir())
    assert 2 <= count == len(files) < 20_000
    assert {file.stat().st_size for file in files} == {BATCH * 10 * 4}


def start(mindir: Path, inputs: Path, output: Path) -> subprocess.Popen:
    command = [str(lite.program()), *lite.arguments(mindir, inputs, output)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while process.poll() is None and not path.exists():
        time.sleep(0.01)
    assert path.exists()


def repeat_inputs(source: Path, inputs: Path, count: int) -> None:
    """A folder of `count` inputs that are all the first of `source`."""
    (inputs / "input").mkdir(parents=True)
    lines = (source / "manifest.tsv").read_text().splitlines()
    head = [line for line in lines if not line.startswith(("file", "end", "images"))]
    _, name, images, crc = next(line for line in lines if line.startswith("file")).split("\t")
    names = [f"input/{number:06d}.bin" for number in range(count)]
    for name_of_copy in names:
        os.link(source / name, inputs / name_of_copy)
    head += [f"images\t{count * int(images)}"]
    head += [f"file\t{name}\t{images}\t{crc}" for name in names]
    (inputs / "manifest.tsv").write_text("\n".join([*head, f"end\t{count}"]) + "\n")


def test_the_script_runs_the_whole_chain(
    folder: Path, mindirs: Dict[str, Path], tmp_path: Path
) -> None:
    mindir, work = mindirs["convmixer_768_32"], tmp_path / "work here"
    done = run_script(str(mindir), "digits", str(folder / "digits"), work=work)
    assert done.returncode == 0, done.stderr
    # test_every_path... compares these scores with eval.py's.
    report = json.loads((work / "result_Files" / "inference_scores.json").read_text())
    top1, top5 = report["top1"] / 100, report["top5"] / 100
    lines = done.stdout.splitlines()
    assert lines[0].startswith("NN inference cost average time: ")
    assert lines[1:] == [f"Top1 acc: {top1:.5f}", f"Top5 acc: {top5:.5f}"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("no digits")
    refused(run_script(str(mindir), "digits", str(tmp_path / "other"), work=work), "Digits")
    assert "Digits" in (work / "log" / "preprocess.log").read_text()
    assert not (work / "result_Files").exists()


def run_script(*words: str, work: Path) -> subprocess.CompletedProcess:
    places = {"LITE_HOME": str(lite.lite_home()), "BUILD_DIR": str(lite.program().parent)}
    settings = {"DEVICE_TARGET": "CPU", "WORK_DIR": str(work), "INFER_PYTHON": sys.executable}
    script = str(lite.ROOT / "scripts" / "run_infer_310.sh")
    environment = {**os.environ, **places, **settings}
    return subprocess.run(["bash", script, *words], env=environment, capture_output=True, text=True)


HEADLINES = [
    "convmixer_1536_20",
    "convnext_tiny",
    "cct_14_7x2_224",
    "deit_small_patch16_224",
    "pcpvt_small_v0",
]


@pytest.mark.slow
@pytest.mark.parametrize("arch", HEADLINES)
def test_headline_networks_run_at_224(arch: str, tmp_path: Path) -> None:
    checkpoint, mindir = tmp_path / "net.ckpt", tmp_path / "net.mindir"
    network = load_rule_weights(create_model(arch, num_classes=1000, img_size=224))
    ms.save_checkpoint(network, str(checkpoint))
    sizes = ["--arch", arch, "--image_size", "224", "--num_classes", "1000", "--batch_size", "2"]
    weights = ["--pretrained", str(checkpoint), "--output", str(mindir)]
    lite.export_with_ms20([*sizes, *weights, "--input", "uint8_nhwc"])
    photographs = [image.resize((224, 224)) for image in load_photographs()[:2]]
    pixels = np.stack([np.asarray(image.convert("RGB")) for image in photographs])
    write_batch(tmp_path / "in", pixels)
    done = lite.infer(mindir, tmp_path / "in", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = np.fromfile(tmp_path / "out" / "0_0.bin", np.float32).reshape(2, 1000)
    normalised = (pixels / 255.0 - MEAN) / STD  # (B, H, W, 3)
    image = ms.Tensor(normalised.transpose(0, 3, 1, 2).astype(np.float32))
    expected = network.set_train(False)(image).asnumpy()
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def write_batch(inputs: Path, pixels: np.ndarray) -> None:
    """One input of one batch."""
    inputs.mkdir()
    (inputs / "0.bin").write_bytes(pixels.tobytes())
    shape = ",".join(map(str, pixels.shape))
    head = f"version\t1\ndtype\tuint8\nshape\t{shape}\nimages\t{len(pixels)}\n"
    checksum = zlib.crc32(pixels.tobytes())
    (inputs / "manifest.tsv").write_text(
        f"{head}file\t0.bin\t{len(pixels)}\t{checksum:08x}\nend\t1\n"
    )


@pytest.mark.slow
def test_the_program_is_clean_under_sanitizers(
    small: Path, mindirs: Dict[str, Path], tmp_path: Path
) -> None:
    lite.need_compiler()
    build, source = tmp_path / "build", lite.ROOT / "ascend310_infer"
    options = ["-DSANITIZE=ON", "-DCMAKE_BUILD_TYPE=Debug", f"-DLITE_HOME={lite.lite_home()}"]
    subprocess.run(["cmake", "-S", source, "-B", build, *options], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", build], check=True, capture_output=True)
    words = lite.arguments(mindirs["convmixer_768_32"], small, tmp_path / "out")
    # Lite leaves 3 KiB of its own behind; test_memory_is_flat... is about what grows.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([build / "main", *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(list((tmp_path / "out").glob("*_0.bin"))) == 52


@pytest.mark.slow
def test_memory_is_flat_over_10000_images(folder: Path, mindirs: Dict[str, Path]) -> None:
    arch = "cct_2_3x2_32"
    small, inputs, output = folder / "cct inputs", folder / "many", folder / "many out"
    write_inputs(folder, mindirs[arch], small)
    repeat_inputs(small, inputs, 10_000 // BATCH)
    process = start(mindirs[arch], inputs, output)
    memory = []
    for number in (1_000 // BATCH, 9_900 // BATCH):
        wait_for(output / f"{number:06d}_0.bin", process)
        status = Path(f"/proc/{process.pid}/status").read_text()
        memory.append(int(status.split("VmRSS:")[1].split()[0]))
    assert process.wait() == 0
    assert memory[1] <= 1.02 * memory[0], memory
