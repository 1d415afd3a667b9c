"""preprocess.py, postprocess.py and what is ours of the C++ program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Dict, List

import lite
import numpy as np
import pytest
from digits_run import failure, fill_disk, start, without_override
from PIL import Image
from test_data_idx import content, write_idx

import postprocess as postprocess_program
import preprocess as preprocess_program
from src.args import DataConfig, parse_args
from src.configs.parser import section_keys
from src.data.imagenet import create_dataset
from src.settings.programs import DATASET_NAMES

SIZES = ["--image_size", "24", "--num_classes", "2", "--crop_pct", "0.9"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Five images, validation only; both classes have a file of the same name."""
    rng = np.random.default_rng(1)
    for name in ("猫 a/x.png", "猫 a/y.png", "dog/x.png", "dog/z.png", "dog/w.jpg"):
        path = tmp_path / "my data" / "val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 31, 3), dtype=np.uint8)).save(path)
    return tmp_path / "my data"


def words(images: Path, result: Path, *more: str) -> List[str]:
    data = ["--dataset_name", "imagenet2012", "--data_path", str(images)]
    return [*SIZES, *data, "--result_path", str(result), *more]


def manifest(result: Path) -> Dict[str, List[List[str]]]:
    lines: Dict[str, List[List[str]]] = {}
    for line in (result / "manifest.tsv").read_text().splitlines():
        key, *values = line.split("\t")
        lines.setdefault(key, []).append(values)
    return lines


def test_inputs_are_the_batches_of_eval(images: Path, tmp_path: Path) -> None:
    result = tmp_path / "out"
    more = ["--input", "uint8_nhwc", "--batch_size", "2", "--mix_up", "0.8"]
    assert preprocess_program.main(words(images, result, *more)) == 0
    config = parse_args([*SIZES, "--data_url", str(images), "--batch_size", "5"])
    batch = next(create_dataset(config, False).batches())
    listed = manifest(result)
    assert listed["shape"] == [["2,24,24,3"]]
    assert listed["dtype"] == [["uint8"]]
    assert [int(count) for _, count, _ in listed["file"]] == [2, 2, 1]
    data = [(result / name).read_bytes() for name, _, _ in listed["file"]]
    assert [zlib.crc32(d) for d in data] == [int(crc, 16) for _, _, crc in listed["file"]]
    pixels = np.frombuffer(b"".join(data), np.uint8).reshape(6, 24, 24, 3)
    np.testing.assert_array_equal(pixels[:5], batch.image)
    assert not pixels[5].any()
    labels = json.loads((result / "label.json").read_text())["labels"]
    assert list(labels.values()) == batch.label.tolist()
    assert set(labels) >= {"猫 a/x.png", "dog/x.png"}


def test_inputs_of_fashion_mnist_are_its_test_images(tmp_path: Path) -> None:
    write_idx(tmp_path / "fashion")
    data = ["--dataset_name", "fashion_mnist", "--data_path", str(tmp_path / "fashion")]
    sizes = ["--image_size", "28", "--crop_pct", "1.0", "--input", "uint8_nhwc"]
    result = tmp_path / "out"
    assert preprocess_program.main([*data, *sizes, "--result_path", str(result)]) == 0
    images, labels = content("t10k")
    files = sorted((result / "input").iterdir())
    pixels = np.stack([np.fromfile(file, np.uint8).reshape(28, 28, 3) for file in files])
    np.testing.assert_array_equal(pixels, np.repeat(images[..., None], 3, axis=3))
    written = json.loads((result / "label.json").read_text())
    assert list(written["labels"].values()) == labels.tolist()
    assert (written["dataset_name"], written["num_classes"]) == ("FashionMNIST", 10)


def test_every_set_has_its_name_of_the_inference_scripts() -> None:
    assert {name.lower() for name in section_keys(DataConfig)["set"].choices} <= set(DATASET_NAMES)


def test_float_inputs_are_normalised_as_the_definition_says(images: Path, tmp_path: Path) -> None:
    for layout in ("uint8_nhwc", "float32_nchw"):
        assert preprocess_program.main(words(images, tmp_path / layout, "--input", layout)) == 0
    for file in sorted((tmp_path / "uint8_nhwc" / "input").iterdir()):
        pixels = np.fromfile(file, np.uint8).reshape(24, 24, 3).astype(np.float64)
        expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        found = np.fromfile(tmp_path / "float32_nchw" / "input" / file.name, np.float32)
        np.testing.assert_allclose(found.reshape(3, 24, 24), expected.transpose(2, 0, 1), atol=1e-6)


def test_an_unfinished_folder_is_gone_on_with(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "out"
    assert preprocess_program.main(words(images, result)) == 0
    whole = {p.relative_to(result): p.read_bytes() for p in result.rglob("*") if p.is_file()}
    for name in ("manifest.tsv", "input/000003.bin", "input/000004.bin"):
        (result / name).unlink()
    times = {n: (result / "input" / n).stat().st_mtime_ns for n in os.listdir(result / "input")}
    assert preprocess_program.main(words(images, result)) == 0
    assert {
        p.relative_to(result): p.read_bytes() for p in result.rglob("*") if p.is_file()
    } == whole
    assert all((result / "input" / n).stat().st_mtime_ns == at for n, at in times.items())
    message = failure(capsys, preprocess_program, words(images, result, "--crop_pct", "0.8"))
    assert "--result_path" in message


def test_what_cannot_be_made_inputs(
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = tmp_path / "out"
    assert "no such folder" in failure(capsys, preprocess_program, words(tmp_path / "x", result))
    (tmp_path / "file").write_text("")
    assert "cannot be written" in failure(
        capsys, preprocess_program, words(images, tmp_path / "file" / "out")
    )
    (result / "input").mkdir(parents=True)
    fill_disk(monkeypatch, result / "input" / "000001.bin")
    assert "No space left" in failure(capsys, preprocess_program, words(images, result))
    assert [path.name for path in (result / "input").iterdir()] == ["000000.bin"]
    (images / "val" / "dog" / "z.png").write_text("no image")
    assert "z.png" in failure(capsys, preprocess_program, words(images, result))
    assert not (result / "manifest.tsv").exists()
    skipping = words(images, tmp_path / "skipped", "--on_bad_image", "skip")
    assert "1 of 5 images" in failure(capsys, preprocess_program, skipping)
    shutil.rmtree(images / "val" / "dog")
    (images / "val" / "dog").mkdir()
    assert "no images" in failure(capsys, preprocess_program, words(images, result))


def write_results(folder: Path, labels: np.ndarray, *, batch: int, classes: int) -> np.ndarray:
    logits = np.random.default_rng(3).normal(size=(-(-len(labels) // batch) * batch, classes))
    folder.mkdir()
    for number, part in enumerate(np.split(logits.astype(np.float32), len(logits) // batch)):
        part.tofile(folder / f"{number:06d}_0.bin")
    text = {f"c/{i}.png": int(label) for i, label in enumerate(labels)}
    whole = {"dataset_name": "Digits", "num_classes": classes, "batch_size": batch, "labels": text}
    (folder.parent / "label.json").write_text(json.dumps(whole))
    return logits[: len(labels)]


def test_scores_are_those_of_the_definition(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.random.default_rng(2).integers(0, 8, 50)
    logits = write_results(tmp_path / "out", labels, batch=4, classes=8)
    options = ["--result_dir", str(tmp_path / "out"), "--dataset_name", "digits"]
    options += ["--label_file", str(tmp_path / "label.json")]
    assert postprocess_program.main(options) == 0
    best = [set(np.argpartition(-logits, k - 1, axis=1)[i, :k]) for k in (1, 5) for i in range(50)]
    hits = [label in chosen for chosen, label in zip(best, [*labels, *labels])]
    top1, top5 = sum(hits[:50]) / 50, sum(hits[50:]) / 50
    assert capsys.readouterr().out == f"Top1 acc: {top1:.5f}\nTop5 acc: {top5:.5f}\n"
    report = json.loads((tmp_path / "out" / "inference_scores.json").read_text())
    assert report["top1"] == pytest.approx(100 * top1)

    (tmp_path / "out" / "000002_0.bin").unlink()
    (tmp_path / "out" / "000099_0.bin").write_bytes(b"")
    (tmp_path / "out" / "000005_0.bin").write_bytes(b"1234")
    message = failure(capsys, postprocess_program, options)
    assert "missing: 000002_0.bin" in message
    assert "surplus: 000099_0.bin" in message
    assert "bytes: 000005_0.bin" in message


def labels_with(**values: object) -> str:
    whole = {"dataset_name": "Digits", "num_classes": 8, "batch_size": 2, "labels": {"a": 0}}
    return json.dumps({**whole, **values})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("", "Expecting value"),
        ("[" * 100_000, "nested too deep"),
        ('{"labels": {"a": 1, "a": 2}}', "'a' is given twice"),
        (labels_with(labels={"a": 2**32}), "'a' has 4294967296"),
        (labels_with(labels={"a": 0.9}), "got `float`"),
        (labels_with(labels={"a": True}), "got `bool`"),
        (labels_with(labels={"a": "1"}), "got `str`"),
        (labels_with(labels={"a": -2}), "Expected `int` >= -1"),
        (labels_with(labels={"x": 1, "a": 8}), "below num_classes 8, 'a' has 8"),
        (labels_with(labels={}), "there are none"),
        (labels_with(labels=[1]), "got `array` - at `$.labels`"),
        (labels_with(num_classes="8"), "got `str` - at `$.num_classes`"),
        (labels_with(batch_size=0), "Expected `int` >= 1 - at `$.batch_size`"),
        (labels_with(batch_size=1_000_000, num_classes=1_000_000), "smaller --batch_size"),
        (labels_with(batch_size=int("9" * 30)), "batch_size"),
        (labels_with(dataset_name=None), "got `null`"),
    ],
)
def test_damaged_labels_are_refused(
    text: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "label.json"
    if text is not None:
        path.write_text(text)
    options = ["--result_dir", str(tmp_path), "--dataset_name", "digits", "--label_file", str(path)]
    message = failure(capsys, postprocess_program, options)
    assert "label.json" in message
    assert said in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_results_that_are_no_numbers_are_refused(
    value: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "out"
    write_results(results, np.zeros(4, int), batch=2, classes=8)
    logits = np.fromfile(results / "000001_0.bin", np.float32)
    logits[8 + 3] = value
    logits.tofile(results / "000001_0.bin")
    options = ["--result_dir", str(results), "--dataset_name", "digits"]
    options += ["--label_file", str(tmp_path / "label.json")]
    message = failure(capsys, postprocess_program, options)
    assert f"000001_0.bin is no result (logit 3 of image 1 is {value}, no finite number" in message
    assert not (results / "inference_scores.json").exists()


def test_labels_of_another_dataset_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(tmp_path / "out", np.zeros(4, int), batch=4, classes=8)
    options = ["--result_dir", str(tmp_path / "out"), "--dataset_name", "cifar10"]
    options += ["--label_file", str(tmp_path / "label.json")]
    assert "--dataset_name digits" in failure(capsys, postprocess_program, options)
    options[1] = str(tmp_path / "none")
    options[3] = "digits"
    assert "no such folder" in failure(capsys, postprocess_program, options)


def test_a_score_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "out"
    write_results(results, np.zeros(4, int), batch=4, classes=8)
    fill_disk(monkeypatch, results / "inference_scores.json")
    options = ["--result_dir", str(results), "--dataset_name", "digits"]
    options += ["--label_file", str(tmp_path / "label.json")]
    assert "No space left" in failure(capsys, postprocess_program, options)
    assert os.listdir(results) == ["000000_0.bin"]


@pytest.mark.parametrize("program", ["export.py", "preprocess.py", "postprocess.py"])
def test_a_folder_that_may_not_be_read_is_named(program: str, images: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    write_results(closed, np.zeros(4, int), batch=4, classes=8)
    labels = ["--label_file", str(tmp_path / "label.json")]
    arguments = {
        "export.py": ["--arch", "convnext_tiny", "--pretrained", str(closed / "net.ckpt")],
        "preprocess.py": words(closed, tmp_path / "inputs"),
        "postprocess.py": ["--result_dir", str(closed), "--dataset_name", "digits", *labels],
    }
    closed.chmod(0)
    try:
        process = start(arguments[program], program, before=without_override)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("root, and its right to read everything cannot be dropped here")
    messages = process.communicate(timeout=300)[1].strip().splitlines()
    closed.chmod(0o755)
    assert process.returncode == 2, messages
    assert messages[-1].startswith("error: ")
    assert str(closed) in messages[-1]
    assert "Traceback" not in "".join(messages)
    assert not (tmp_path / "inputs" / "manifest.tsv").exists()


_READERS = ("manifest", "bundle", "arguments", "logits", "image")
_INFER = lite.ROOT / "ascend310_infer"


def test_parts_of_the_cpp_program_under_sanitizers() -> None:
    lite.need_compiler()
    build = lite.ROOT / "build" / "tests" / "parts"
    environment = {**os.environ, "BUILD_DIR": str(build)}
    command = ["bash", str(_INFER / "build.sh"), "--test"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all passed\n")
    for reader in _READERS:
        corpus = sorted((_INFER / "fuzz" / "corpus" / reader).iterdir())
        replay = [str(build / f"fuzz_{reader}"), *map(str, corpus)]
        done = subprocess.run(replay, capture_output=True, text=True)
        assert done.stdout == f"replayed {len(corpus)}\n", (reader, done.stderr)
        assert len(corpus) > 5


@pytest.mark.slow
def test_readers_of_the_cpp_program_take_any_bytes(tmp_path: Path) -> None:
    """With libFuzzer, of Debian's packages clang and libclang-rt-14-dev."""
    lite.need_compiler()
    (tmp_path / "empty.cc").write_text('extern "C" int LLVMFuzzerTestOneInput() { return 0; }')
    probe = ["clang++", "-fsanitize=fuzzer,address", "empty.cc", "-o", "probe"]
    if not shutil.which("clang++") or subprocess.run(probe, cwd=tmp_path).returncode != 0:
        pytest.skip("no clang++ with libFuzzer: apt-get install clang libclang-rt-14-dev")
    options = ["-DFUZZ=ON", "-DSANITIZE=ON", "-DLITE_HOME=", "-DCMAKE_BUILD_TYPE=Debug"]
    compiler = {**os.environ, "CXX": "clang++"}
    for command in (["-S", str(_INFER), "-B", "build", *options], ["--build", "build"]):
        subprocess.run(["cmake", *command], cwd=tmp_path, env=compiler, check=True)
    for reader in _READERS:
        (tmp_path / reader).mkdir()
        fuzz = [
            f"build/fuzz_{reader}",
            "-max_total_time=30",
            "-max_len=4096",
            "-malloc_limit_mb=64",
        ]
        places = [reader, str(_INFER / "fuzz" / "corpus" / reader)]
        done = subprocess.run([*fuzz, *places], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]


def test_cpp_is_formatted() -> None:
    tool = Path(sys.executable).with_name("clang-format")
    if not tool.exists():
        pytest.skip("clang-format is not installed")
    sources = sorted((lite.ROOT / "ascend310_infer").glob("*/*.[ch]*"))
    assert len(sources) > 8
    done = subprocess.run([tool, "--dry-run", "-Werror", *sources], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        ([], {}, "usage"),
        (["a.mindir", "digits", "data"], {}, "a.mindir"),
        (["a.mindir", "digits", "data"], {"DEVICE_TARGET": "GPU"}, "GPU"),
        (["-pipe", "digits", "data"], {"DEVICE_TARGET": "CPU"}, "/-pipe': no regular file"),
        (["b.mindir", "digits", "data"], {"DEVICE_TARGET": "CPU"}, "b.mindir.json': no regular"),
    ],
)
def test_the_script_refuses_what_it_cannot_run(
    arguments: List[str], environment: Dict[str, str], said: str, tmp_path: Path
) -> None:
    if environment:
        (tmp_path / "a.mindir").write_text("")
        (tmp_path / "b.mindir").write_text("")
        os.mkfifo(tmp_path / "-pipe")
        os.mkfifo(tmp_path / "b.mindir.json")
    done = subprocess.run(
        ["bash", str(lite.ROOT / "scripts" / "run_infer_310.sh"), *arguments],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert not (tmp_path / "infer_310").exists()


def test_another_file_than_that_of_pypi_is_not_unpacked(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f"#!/bin/sh\ntouch {tmp_path}/mindspore_lite-2.0.0-cp37-none-any.whl\n")
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", str(lite.ROOT / "scripts" / "get_lite.sh"), str(tmp_path)],
        env={**os.environ, "VENV": str(tmp_path), "MACHINE": "aarch64"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "is not the file that PyPI has" in done.stderr
    assert os.listdir(tmp_path) == ["bin"]


@pytest.mark.parametrize(
    ("written", "lite_is_there"), [("2.10.0", True), ("2.10.0", False), ("2.0.0", True)]
)
def test_the_script_reads_who_wrote_a_file_before_it_builds(
    written: str, lite_is_there: bool, tmp_path: Path
) -> None:
    (tmp_path / "a.mindir").touch()
    (tmp_path / "a.mindir.json").write_text(
        json.dumps({"mindspore": written, "arch": "x"}, indent=2)
    )
    environment = {**os.environ, "DEVICE_TARGET": "CPU", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment.pop("LITE_HOME", None)
    (tmp_path / "cmake").write_text("#!/bin/sh\nexit 7\n")  # nothing is built
    (tmp_path / "cmake").chmod(0o755)
    environment["VENV"] = str(tmp_path / "none")
    if lite_is_there:
        (tmp_path / "mindspore-lite-2.0.0-linux-x64" / "runtime" / "lib").mkdir(parents=True)
        environment["LITE_HOME"] = str(tmp_path / "mindspore-lite-2.0.0-linux-x64")
    script = lite.ROOT / "scripts" / "run_infer_310.sh"
    command = ["bash", str(script), "a.mindir", "digits", "data"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    said = "written by MindSpore 2.10.0, and MindSpore Lite 2.0.0 reads files of 2.0 only"
    assert (said in done.stderr) == (written != "2.0.0")
    assert (tmp_path / "infer_310").exists() == (written == "2.0.0")
