"""The C++ program on bundles: `--check` finds what differs, `--images` sees and says what
predict.py does."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import resource
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Callable, Dict, List, Optional

import lite
import numpy as np
import pytest
from photographs import encoded, load_photographs
from PIL import Image, PngImagePlugin
from small_networks import words, write_checkpoint
from test_bundle import sealed, text_of

import predict as predict_program
from src.args import Config, PredictRun, replace
from src.data.decode import BadImageError
from src.data.sources import create_decoder
from src.serving.bundle import prepared
from src.serving.export_record import read_record

ARCH = "convmixer_768_32"
FORMS = {
    "float32": ["--batch_size", "2", "--exif_orientation", "True", "--crop_pct", "0.8"],
    "uint8": ["--batch_size", "3", "--input", "uint8_nhwc", "--interpolation", "bilinear"],
}
FORMS["uint8"] += ["--background", "null", "--crop_mode", "squash"]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Path]:
    """Of MindSpore 2.0.0, whose files Lite 2.0 reads."""
    folder = tmp_path_factory.mktemp("bundles 数")
    checkpoint = write_checkpoint(ARCH, folder / "net.ckpt")
    given = [*words(ARCH), "--pretrained", str(checkpoint)]
    lite.export_with_ms20(
        *([*given, *more, "--bundle", str(folder / name)] for name, more in FORMS.items())
    )
    return {name: folder / name for name in FORMS}


def run(
    *more: str, before: Optional[Callable[[], None]] = None, cwd: Optional[Path] = None
) -> subprocess.CompletedProcess:
    command = [str(lite.program()), "--device_target=CPU", *more]
    environment = {name: value for name, value in os.environ.items() if name != "GLOG_v"}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, preexec_fn=before, cwd=cwd
    )


def error(done: subprocess.CompletedProcess, code: int = 2) -> str:
    """The one line of an error."""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert (done.returncode, len(lines)) == (code, 1), done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def copied(bundles: Dict[str, Path], form: str, tmp_path: Path) -> Path:
    folder = tmp_path / "a bundle"
    shutil.copytree(bundles[form], folder)
    return folder


@pytest.mark.parametrize("form", list(FORMS))
def test_a_copy_agrees(form: str, bundles: Dict[str, Path], tmp_path: Path) -> None:
    folder = copied(bundles, form, tmp_path)
    done = run("--check", str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    # The Pillow beside MindSpore 2.0.0 may be one that makes the passes of a resize in turn.
    agreed = re.compile(r"golden/\S+: pixels [01] of 255 \(allowed 1\), logits .*, ok")
    assert all(agreed.fullmatch(line) for line in lines[:5]), lines
    assert lines[5].startswith("5 images agree, logits within ")
    assert done.stdout.count("golden/") == 5


def test_a_changed_byte_is_found(bundles: Dict[str, Path], tmp_path: Path) -> None:
    folder = copied(bundles, "float32", tmp_path)
    rng = np.random.default_rng(0)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        whole = path.read_bytes()
        changed = bytearray(whole)
        changed[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(changed))
        assert path.name in error(run("--check", str(folder)))
        path.write_bytes(whole)
    assert run("--check", str(folder)).returncode == 0


def rounded_to_half(bundle: Path, folder: Path) -> Path:
    """Its network with weights of half precision, a file of MindSpore 2.0.0."""
    half = folder / "half.mindir"
    script = (
        "import sys; sys.path[:0] = ['tests']\n"
        "import numpy as np, mindspore as ms, export\n"
        "from small_networks import words\n"
        "weights = ms.load_checkpoint(sys.argv[1])\n"
        "half = [{'name': n, 'data': ms.Tensor(p.asnumpy().astype(np.float16).astype(np.float32))}"
        " for n, p in weights.items()]\n"
        "ms.save_checkpoint(half, sys.argv[2] + '.ckpt')\n"
        f"sys.exit(export.main([*words({ARCH!r}), '--pretrained', sys.argv[2] + '.ckpt',"
        " '--output', sys.argv[2], '--batch_size', '2']))\n"
    )
    command = [lite.python_of_ms20(), "-c", script, str(bundle.parent / "net.ckpt"), str(half)]
    done = subprocess.run(command, cwd=lite.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return half


def test_a_wrong_precision_is_found(bundles: Dict[str, Path], tmp_path: Path) -> None:
    half = rounded_to_half(bundles["float32"], tmp_path)
    done = run("--check", str(bundles["float32"]), "--mindir_path", str(half))
    said = error(done, code=1)
    assert "of 5 images differ; logits by up to" in said
    assert "another precision" in said
    assert "DIFFERS" in done.stdout
    more = ["--tolerance", "0.1"]
    assert run("--check", str(bundles["float32"]), f"--mindir_path={half}", *more).returncode == 0
    # The network of another input.
    other = bundles["uint8"] / "network.mindir"
    done = run("--check", str(bundles["float32"]), "--mindir_path", str(other))
    assert "give the bundle that the file is of" in error(done)


@pytest.mark.parametrize("form", list(FORMS))
def test_swapped_channels_are_found(form: str, bundles: Dict[str, Path], tmp_path: Path) -> None:
    folder = copied(bundles, form, tmp_path)
    lines = (folder / "manifest.tsv").read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("file\t"):
            _, name, count, _ = line.split("\t")
            pixels = np.fromfile(folder / name, np.uint8).reshape(-1, 3)[:, ::-1].tobytes()
            (folder / name).write_bytes(pixels)
            lines[number] = f"file\t{name}\t{count}\t{zlib.crc32(pixels):08x}"
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    sealed(folder)
    said = error(run("--check", str(folder)), code=1)
    assert "5 of 5 images differ; pixels by up to" in said
    assert "red and blue are swapped; logits by up to" in said


@pytest.mark.parametrize(
    ("form", "changes", "said"),
    [
        ("float32", {"crop_pct": "0.875"}, "the transform or the decoder"),
        ("float32", {"crop_mode": "squash"}, "the transform or the decoder"),
        ("float32", {"interpolation": "bilinear"}, "the transform or the decoder"),
        ("float32", {"exif_orientation": "false"}, "1 of 5 images differ; pixels by up to"),
        ("float32", {"background": "null"}, "1 of 5 images differ; pixels by up to"),
        ("uint8", {"background": "255,255,255"}, "1 of 5 images differ; pixels by up to"),
        ("uint8", {"interpolation": "bicubic"}, "the transform or the decoder"),
        ("float32", {"mean": "0.485,0.456,0.5"}, "images differ; logits by up to"),
        ("float32", {"std": "0.229,0.224,0.226"}, "images differ; logits by up to"),
    ],
)
def test_a_wrong_transform_is_found(
    form: str, changes: Dict[str, str], said: str, bundles: Dict[str, Path], tmp_path: Path
) -> None:
    folder = copied(bundles, form, tmp_path)
    assert all(f"{key}\t{value}\n" not in text_of(folder) for key, value in changes.items())
    sealed(folder, **changes)
    assert said in error(run("--check", str(folder)), code=1)


def test_what_is_no_bundle_for_this_program(bundles: Dict[str, Path], tmp_path: Path) -> None:
    folder = copied(bundles, "float32", tmp_path)
    assert "export.py --bundle makes such folders" in error(run("--check", str(tmp_path)))
    (folder / "network.mindir").rename(folder / "network.onnx")
    text = text_of(folder).replace("network.mindir\t", "network.onnx\t")
    (folder / "bundle.tsv").write_text(text)
    sealed(folder, network="network.onnx")
    assert "scripts/check_bundle.py runs it" in error(run("--check", str(folder)))
    pipe = folder / "labels.txt"
    pipe.unlink()
    os.mkfifo(pipe)
    assert "a named pipe" in error(run("--check", str(folder)))


# --- images -------------------------------------------------------------------------------------


def variants(count: int) -> Dict[str, bytes]:
    """Photographs in files of every kind that JPEG and PNG have, by name."""
    photographs, rng = load_photographs(), np.random.default_rng(1)
    files = {}
    for number in range(count):
        image = photographs[number % len(photographs)]
        width, height = (int(side) for side in rng.integers(1, 160, 2) + (number > 3) * 9)
        left, top = (int(rng.integers(side // 2)) for side in image.size)
        image = image.crop((left, top, *image.size)).resize((width, height))
        kinds = _KINDS if number >= len(_KINDS) else [_KINDS[number]]
        name, content = kinds[int(rng.integers(len(kinds)))](image, rng)
        files[f"{number:04d}{name}"] = content
    return files


def _jpeg(image: Image.Image, rng: np.random.Generator) -> tuple:
    quality, samples = int(rng.integers(30, 100)), int(rng.integers(3))
    return ".jpg", encoded(image, "JPEG", quality=quality, subsampling=samples)


def _progressive(image: Image.Image, rng: np.random.Generator) -> tuple:
    return ".JPEG", encoded(image, "JPEG", progressive=True, quality=int(rng.integers(60, 99)))


def _turned(image: Image.Image, rng: np.random.Generator) -> tuple:
    exif = Image.Exif()
    exif[274] = int(rng.integers(1, 9))
    kind = ("JPEG", ".jpg") if rng.integers(2) else ("PNG", ".png")
    return kind[1], encoded(image, kind[0], exif=exif)


def _in_mode(mode: str, kind: str) -> Callable:
    def encode(image: Image.Image, _: np.random.Generator) -> tuple:
        return (".jpg" if kind == "JPEG" else ".png"), encoded(image.convert(mode), kind)

    return encode


def _transparent(mode: str) -> Callable:
    def encode(image: Image.Image, rng: np.random.Generator) -> tuple:
        alpha = rng.integers(0, 256, (image.height, image.width), dtype=np.uint8)
        image = image.convert(mode)
        image.putalpha(Image.fromarray(alpha))
        return ".png", encoded(image, "PNG")

    return encode


def _keyed(mode: str, key: object) -> Callable:
    def encode(image: Image.Image, _: np.random.Generator) -> tuple:
        return ".png", encoded(image.convert(mode), "PNG", transparency=key)

    return encode


def _sixteen_bits(image: Image.Image, rng: np.random.Generator) -> tuple:
    wide = np.asarray(image.convert("L")).astype(np.uint16) * 257 - rng.integers(0, 90)
    return ".png", encoded(Image.fromarray(wide), "PNG")


def _wrong_ending(image: Image.Image, _: np.random.Generator) -> tuple:
    return ".jpg", encoded(image, "PNG")


def _xmp(image: Image.Image, _: np.random.Generator) -> tuple:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    return ".png", encoded(image, "PNG", pnginfo=info)


def _cut_behind_the_pixels(image: Image.Image, _: np.random.Generator) -> tuple:
    return ".png", encoded(image, "PNG")[:-12]  # without IEND


def _text_of_a_wrong_sum(image: Image.Image, _: np.random.Generator) -> tuple:
    content = encoded(image, "PNG")
    return ".png", content[:-12] + b"\0\0\0\3tEXta\0b\0\0\0\0" + content[-12:]


_KINDS: List[Callable] = [
    *(_jpeg, _progressive, _turned, _in_mode("L", "JPEG"), _in_mode("CMYK", "JPEG")),
    *(_in_mode("RGB", "PNG"), _in_mode("P", "PNG"), _in_mode("1", "PNG"), _in_mode("L", "PNG")),
    *(_transparent("RGB"), _transparent("L"), _keyed("P", b"\0\x80\xff" * 20), _keyed("L", 200)),
    *(_keyed("RGB", (255, 255, 255)), _keyed("1", 1), _sixteen_bits, _wrong_ending, _xmp),
    *(_cut_behind_the_pixels, _text_of_a_wrong_sum),
    *(_turned, _turned, _turned, _jpeg),
]


def config_of(bundle: Path) -> Config:
    record = read_record(bundle / "network.mindir")
    return replace(PredictRun(), **record.transform, image_size=32, num_classes=10)


def with_golden(bundle: Path, files: Dict[str, bytes], folder: Path) -> Path:
    """The bundle with other golden images, their pixels as eval.py makes them, no logits."""
    shutil.copytree(bundle, folder)
    for name in ("golden", "input", "result"):
        shutil.rmtree(folder / name)
        (folder / name).mkdir()
    config = config_of(bundle)
    decoder = create_decoder(config)
    table = ["version\t1", "dtype\tuint8", "shape\t1,32,32,3", f"images\t{len(files)}"]
    kept = text_of(folder).splitlines()[:-1]
    lines = [line for line in kept if "\tgolden/" not in line and "/0000" not in line]
    for number, (name, content) in enumerate(files.items()):
        (folder / "golden" / name).write_bytes(content)
        pixels = prepared(config, decoder, folder / "golden" / name).tobytes()
        (folder / f"input/{number:06d}.bin").write_bytes(pixels)
        np.zeros(10, np.float32).tofile(folder / f"result/{number:06d}_0.bin")
        table.append(f"file\tinput/{number:06d}.bin\t1\t{zlib.crc32(pixels):08x}")
        lines.append(f"golden\tgolden/{name}")
    (folder / "manifest.tsv").write_text("\n".join([*table, f"end\t{len(files)}"]) + "\n")
    for path in (*folder.glob("golden/*"), *folder.glob("input/*"), *folder.glob("result/*")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(f"file\t{path.relative_to(folder)}\t{path.stat().st_size}\t{digest}")
    (folder / "bundle.tsv").write_text("\n".join([*lines, "end\t0"]) + "\n")
    sealed(folder)
    return folder


def pixels_agree(bundle: Path, count: int, tmp_path: Path) -> None:
    files = variants(count)
    folder = with_golden(bundle, files, tmp_path / f"golden of {bundle.name}")
    done = run("--check", str(folder), "--tolerance", "1e9")
    wrong = [line for line in done.stdout.splitlines() if "pixels 0 of 255" not in line]
    assert done.returncode == 0, [done.stderr, wrong]
    # All of them equal, where Pillow makes the passes of a resize in the same order.
    assert wrong == [f"{count} images agree, logits within {wrong[-1].split()[-1]}"]


@pytest.mark.parametrize("form", list(FORMS))
def test_pixels_of_each_kind_of_file_are_those_of_eval(
    form: str, bundles: Dict[str, Path], tmp_path: Path
) -> None:
    pixels_agree(bundles[form], len(_KINDS) + 2, tmp_path)


def labels(text: str) -> Dict[str, List[str]]:
    """Image -> labels, best first, of a CSV of predictions."""
    found: Dict[str, List[str]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        found.setdefault(row["image"], []).append(row["label"])
    return found


def predictions_agree(bundle: Path, count: int, tmp_path: Path) -> None:
    images = tmp_path / "images"
    (images / "a" / "b").mkdir(parents=True)
    for number, (name, content) in enumerate(variants(count).items()):
        (images / ("a/b" if number % 3 else ".") / name).write_bytes(content)
    output, mine = tmp_path / "out", tmp_path / "mine.csv"
    done = run("--images", str(images), "--bundle", str(bundle), "--output_path", str(output))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{count} images predicted, 0 left out; ")
    # MindSpore 2.10 reads no file of 2.0 that takes pixels, so of the checkpoint itself.
    options = FORMS[bundle.name]
    transform = [
        word
        for key, value in zip(options[::2], options[1::2])
        for word in (key, value)
        if key not in ("--batch_size", "--input")
    ]
    given = [*words(ARCH), *transform, "--pretrained", str(bundle.parent / "net.ckpt")]
    given += ["--input", str(images)]
    assert predict_program.main([*given, "--output", "csv", "--output_file", str(mine)]) == 0
    theirs, ours = (output / "predictions.csv").read_text(), mine.read_text()
    assert [row[0] for row in csv.reader(io.StringIO(theirs))] == [
        row[0] for row in csv.reader(io.StringIO(ours))
    ]
    found, expected = labels(theirs), labels(ours)
    assert len(expected) == count
    assert [image for image in expected if found[image][0] != expected[image][0]] == []
    shares = [
        [float(row["probability"]) for row in csv.DictReader(io.StringIO(text))]
        for text in (theirs, ours)
    ]
    np.testing.assert_allclose(*shares, atol=1e-5)


@pytest.mark.parametrize("form", list(FORMS))
def test_predictions_of_twenty_images_are_those_of_predict(
    form: str, bundles: Dict[str, Path], tmp_path: Path
) -> None:
    predictions_agree(bundles[form], 20, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("form", list(FORMS))
def test_a_thousand_images_have_the_pixels_and_classes_of_eval(
    form: str, bundles: Dict[str, Path], tmp_path: Path
) -> None:
    pixels_agree(bundles[form], 1000, tmp_path)
    predictions_agree(bundles[form], 1000, tmp_path)


def damaged() -> Dict[str, bytes]:
    """Files that predict.py cannot read."""
    photograph = load_photographs()[0].resize((60, 50))
    jpeg, png = encoded(photograph, "JPEG"), encoded(photograph, "PNG")
    changed = bytearray(png)
    changed[len(png) // 2] ^= 1
    return {
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.png": png[: len(png) // 2],
        "chunk.png": png[:33] + b"\x7f\0\0\0tEXta\0" + png[33:],
        "chunk_behind.png": png[:-12] + b"\x7f\0\0\0tEXta\0b",
        "empty.png": b"",
        "header.jpg": jpeg[:20],
        "noise.jpg": b"\xff\xd8\xff" + bytes(range(256)),
        "sum.png": bytes(changed),
        "text.png": b"no image",
        # 30,000 x 30,000 pixels, said by the header.
        "vast.png": png[:16] + (30_000).to_bytes(4, "big") * 2 + png[24:29] + sum_of_vast(png),
    }


def sum_of_vast(png: bytes) -> bytes:
    head = b"IHDR" + (30_000).to_bytes(4, "big") * 2 + png[24:29]
    return zlib.crc32(head).to_bytes(4, "big") + png[33:]


def test_files_that_cannot_be_read_are_left_out_as_predict_leaves_them(
    bundles: Dict[str, Path], tmp_path: Path
) -> None:
    images, bundle = tmp_path / "images", bundles["float32"]
    images.mkdir()
    for name, content in damaged().items():
        (images / name).write_bytes(content)
        with pytest.raises(BadImageError):
            prepared(config_of(bundle), create_decoder(config_of(bundle)), images / name)
    given = ["--images", str(images), "--bundle", str(bundle), "--output_path"]
    done = run(*given, str(tmp_path / "none"))
    assert "none of 10 images can be read" in error(done)
    left_out = [line for line in done.stderr.splitlines() if line.startswith("warning: left out: ")]
    assert [Path(line.split("'")[1]).name for line in left_out] == sorted(damaged())
    assert "more than the 89478485 allowed" in left_out[-1]
    assert list((tmp_path / "none").iterdir()) == []
    (images / "=good.png").write_bytes(encoded(load_photographs()[1].resize((40, 40)), "PNG"))
    (images / "notes.txt").write_text("")
    (images / ".hidden.png").write_bytes(b"")
    os.mkfifo(images / "pipe.png")
    (images / "loop").symlink_to(".")
    (images / "gone.jpg").symlink_to("nowhere")
    done = run(*given, str(tmp_path / "out"))
    assert done.returncode == 0
    assert done.stdout.startswith("1 images predicted, 10 left out; ")
    said = "4 left out, not JPEG or PNG files: 1 .txt, 1 dead link, 1 link to a folder it is in, 1 "
    assert f"{said}pipe, socket or device" in done.stderr
    rows = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert len(rows) == 6
    # Predicted from its own folder, its name is a formula.
    done = run("--images=.", f"--bundle={bundle}", f"--output_path={tmp_path / 'o'}", cwd=images)
    assert done.returncode == 0
    assert [p.name for p in (tmp_path / "o").iterdir()] == ["predictions.csv"]


def test_what_images_needs(bundles: Dict[str, Path], tmp_path: Path) -> None:
    bundle = str(bundles["float32"])
    assert "--images needs the folder" in error(run("--images", str(tmp_path)))
    given = ["--images", str(tmp_path), "--bundle"]
    assert "no JPEG or PNG images in it" in error(run(*given, bundle))
    assert "cannot be listed" in error(run("--images", str(tmp_path / "x"), "--bundle", bundle))
    (tmp_path / "a.png").write_bytes(encoded(load_photographs()[1].resize((40, 40)), "PNG"))
    assert "export.py --bundle makes" in error(run(*given, str(tmp_path)))
    output = tmp_path / "out"
    assert "lies in the inputs' folder" in error(run(*given, bundle, f"--output_path={output}"))

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))

    elsewhere = f"--output_path={tmp_path.parent / 'full'}"
    assert "File too large" in error(run(*given, bundle, elsewhere, before=small_files))
    assert list((tmp_path.parent / "full").iterdir()) == []


def test_without_the_libraries_a_file_is_refused(tmp_path: Path) -> None:
    lite.need_compiler()
    (tmp_path / "main.cc").write_text(
        '#include "errors.h"\n#include "image_file.h"\n#include <iostream>\n'
        'int main() { try { infer::ReadPrepared("main.cc", {}); } '
        "catch (const infer::UserError& error) { std::cout << error.what(); } }"
    )
    source = lite.ROOT / "ascend310_infer" / "src"
    parts = ("image", "image_file", "no_image_file", "regular_file", "text")
    files = [str(source / f"{name}.cc") for name in parts]
    command = ["c++", "-std=c++17", f"-I{source}", "main.cc", *files, "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run(["./main"], cwd=tmp_path, capture_output=True, text=True)
    assert "apt-get install libjpeg-dev libpng-dev, and build it again" in done.stdout


@pytest.mark.slow
def test_without_the_libraries_images_are_refused_and_bundles_checked(
    bundles: Dict[str, Path], tmp_path: Path
) -> None:
    lite.need_compiler()
    build = lite.ROOT / "build" / "tests" / "infer without images"
    options = ["-DIMAGES=OFF", f"-DLITE_HOME={lite.lite_home()}"]
    source = lite.ROOT / "ascend310_infer"
    for command in (["-S", source, "-B", build, *options], ["--build", build, "--target", "main"]):
        subprocess.run(["cmake", *command], check=True, capture_output=True)
    main = [str(build / "main"), "--device_target=CPU"]
    checked = subprocess.run(
        [*main, "--check", str(bundles["uint8"])], capture_output=True, text=True
    )
    assert checked.returncode == 0
    assert "golden/wide.jpg: logits" in checked.stdout
    assert "built without libjpeg and libpng" in checked.stderr
    (tmp_path / "a.png").write_bytes(b"")
    more = ["--images", str(tmp_path), "--bundle", str(bundles["uint8"])]
    done = subprocess.run([*main, *more], capture_output=True, text=True)
    assert "apt-get install libjpeg-dev libpng-dev" in error(done)
