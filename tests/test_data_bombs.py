"""Images that ask for more memory or time than they look like: refused, or decoded in turn."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from photographs import encoded, load_photographs
from PIL import Image, ImageCms, PngImagePlugin
from test_data_damaged import JPEGS

from src.data import decode
from src.data.decode import BadImageError, Decoder, read_image_file
from src.data.image_bombs import count_jpeg_scans
from src.data.image_formats import readable_formats
from src.data.pixel_budget import (
    BUDGET_PIXELS,
    FREE_PIXELS,
    PixelsInFlight,
    Share,
    budget_file,
)

HALF = BUDGET_PIXELS // 2
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.fixture(scope="module")
def photograph():
    return load_photographs()[0].resize((90, 61))


def lab_of(image):
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(image, *profiles, outputMode="LAB")


def png(size, depth=8, colour=2, body=b"", after=b""):
    """A PNG of this size whose pixels may be missing."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + body + pixels + after + chunk(b"IEND", b"")


def icon(kind, png_data):
    """An icon of 256x256 whose picture is another."""
    if kind == "ICO":
        entry = struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(png_data), 22)
        return struct.pack("<HHH", 0, 1, 1) + entry + png_data
    size = struct.pack(">I", len(png_data) + 8)
    return b"icns" + struct.pack(">I", len(png_data) + 16) + b"ic08" + size + png_data


def many_scans(image, times, **options):
    """A JPEG whose last scan is there many times."""
    data = encoded(image, "JPEG", **options)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * times + data[-2:]


def tiff_of_overlapping_tags(count, size):
    """Tags that all name the same bytes."""
    entries = b"".join(
        struct.pack("<HHII", 33_000 + i, 1, size, 8 + 6 + 12 * count) for i in range(count)
    )
    ifd = struct.pack("<H", count) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + ifd + bytes(size)


def tiff_of_large_tiles(side):
    tags = [(256, 64), (257, 64), (258, 8), (259, 8), (262, 1), (277, 1), (322, side), (323, side)]
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags]
    body = zlib.compress(bytes(side * 64))
    at = 8 + 2 + 12 * 10 + 4
    entries += [struct.pack("<HHII", 324, 4, 1, at), struct.pack("<HHII", 325, 4, 1, len(body))]
    ifd = struct.pack("<H", 10) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + ifd + body


HUGE = (70_000, 70_000)
# What is refused, and what the refusal says.
BOMBS = {
    "PNG": (partial(png, HUGE), "max_image_pixels|bomb"),
    "PNG of 100,000,000 pixels": (partial(png, (10_000, 10_000)), "--max_image_pixels 100000000"),
    "PPM": (lambda: b"P6 70000 70000 255\n" + bytes(100), "max_image_pixels|bomb"),
    "BMP, RLE": (
        lambda: b"BM" + struct.pack("<IIIIiiHHIIiiII", 99, 0, 54, 40, *HUGE, 1, 8, 1, *[0] * 5),
        "max_image_pixels|bomb",
    ),
    "GIF": (
        lambda: b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(99),
        "pixels|identify|format",
    ),
    "QOI": (lambda: b"qoif" + struct.pack(">II", 5000, 5000) + b"\x03\x00" + bytes(99), "20 times"),
    "JPEG header": (
        lambda: encoded(Image.new("RGB", (8, 8)), "JPEG").replace(
            b"\x00\x08\x00\x08\x03", b"\xff\xdc\xff\xdc\x03"
        ),
        "65500x65500 pixels, more than max_image_pixels",
    ),
    "ICO": (lambda: icon("ICO", png((12_000, 12_000))), "12000x12000 pixels"),
    "ICO, bitmap": (
        lambda: icon("ICO", struct.pack("<IiiHHI", 40, 30_000, 60_000, 1, 8, 1) + bytes(99)),
        "30000x60000 pixels",
    ),
    "ICNS": (lambda: icon("ICNS", png((12_000, 12_000))), "12000x12000 pixels"),
    "TIFF, tiles": (partial(tiff_of_large_tiles, 30_000), "30000x30000 pixels"),
    "TIFF, tags": (partial(tiff_of_overlapping_tags, 3_000, 100_000), "not a readable image"),
    "PNG, empty chunks": (
        lambda: png(
            (8, 8), body=(bytes(4) + b"teSt" + struct.pack(">I", zlib.crc32(b"teSt"))) * 100_000
        ),
        "too many",
    ),
    "PNG, text": (
        lambda: encoded(Image.new("RGB", (8, 8)), "PNG", pnginfo=compressed_text(5_000_000)),
        "[Dd]ecompressed data too large",
    ),
    "JPEG, scans": (
        lambda: many_scans(load_photographs()[0], 3_000, progressive=True),
        r"JPEG of \d+ scans",
    ),
}


def compressed_text(length):
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a" * length, zip=True)
    return info


@pytest.mark.filterwarnings("ignore::UserWarning")  # the product silences them
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_at_once(name):
    make, said = BOMBS[name]
    data = make()
    before, held = time.process_time(), peak()
    with pytest.raises(BadImageError, match=said) as caught:
        Decoder().decode(data, "some/name.png")
    assert str(caught.value).startswith("some/name.png: ")
    assert "\n" not in str(caught.value)
    assert time.process_time() - before < 5
    assert peak() - held < 300e6


def peak():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.parametrize("name", JPEGS)
def test_scans_of_a_jpeg_are_counted(photograph, name):
    data = encoded(photograph, "JPEG", **JPEGS[name])
    assert count_jpeg_scans(data) == (10 if name == "progressive" else 1)
    # Whatever it is cut to, counting ends.
    for length in range(2, len(data), 101):
        assert count_jpeg_scans(data[:length]) <= 10


def test_no_program_is_started(tmp_path, monkeypatch):
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(BadImageError, match="PostScript"):
        Decoder().decode(EPS, "b.png")
    assert not (tmp_path / "ran").exists()


def test_only_what_is_documented_is_opened():
    """Each format that Pillow writes is read as it reads it, or not at all."""
    Image.init()
    read = set()
    for kind in Image.SAVE:
        data = io.BytesIO()
        try:
            Image.new("RGB", (16, 16), "red").save(data, kind)
            expected = Image.open(io.BytesIO(data.getvalue()))
            if expected.format in readable_formats():
                expected.load()
                pixels = Decoder().decode(data.getvalue(), "x")
                assert pixels.shape[:2] == expected.size[::-1]
                read.add(expected.format)
                continue
        except (OSError, ValueError, TypeError, KeyError):
            continue  # not written, or not read by Pillow itself
        with pytest.raises(BadImageError):
            Decoder().decode(data.getvalue(), "x")
    assert {"JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO"} <= read


BANDED = {
    "1": {"mode": "1", "kind": "PNG"},
    "L": {"mode": "L", "kind": "PNG"},
    "L, key": {"mode": "L", "kind": "PNG", "transparency": 100},
    "RGB, key": {"mode": "RGB", "kind": "PNG", "transparency": (0, 0, 0)},
    "LA": {"mode": "LA", "kind": "PNG"},
    "P": {"mode": "P", "kind": "PNG"},
    "P, key": {"mode": "P", "kind": "PNG", "transparency": 3},
    "RGBA": {"mode": "RGBA", "kind": "PNG"},
    "CMYK": {"mode": "CMYK", "kind": "JPEG"},
    "LAB": {"mode": "LAB", "kind": "TIFF"},
    "I;16": {"mode": "I;16", "kind": "PNG"},
}


@pytest.mark.parametrize("name", BANDED)
def test_bands_have_the_pixels_of_the_whole(photograph, name, monkeypatch):
    options = dict(BANDED[name])
    mode, kind = options.pop("mode"), options.pop("kind")
    image = lab_of(photograph) if mode == "LAB" else photograph.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(photograph.convert("L"))
    data = encoded(image, kind, **options)
    whole = Decoder().decode(data, "x")
    monkeypatch.setattr(decode, "_BAND_PIXELS", 7 * 90)
    np.testing.assert_array_equal(Decoder().decode(data, "x"), whole)


def in_flight(pixels, budget, began, ended):
    with PixelsInFlight() as share:
        share.take(budget, pixels)
        began.release()
        ended.wait(20)


def test_pixels_in_flight_are_bounded():
    """Two halves fit, a third waits; whatever is free is enough for small images."""
    began, ended = threading.Semaphore(0), threading.Event()
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            pool.submit(in_flight, HALF - BUDGET_PIXELS // 64, budget_file(), began, ended)
        try:
            assert [began.acquire(timeout=10) for _ in range(2)] == [True, True]
            assert not began.acquire(timeout=0.3)
            pool.submit(in_flight, FREE_PIXELS, budget_file(), began, ended)
            assert began.acquire(timeout=10)
        finally:
            ended.set()
        assert began.acquire(timeout=10)


@pytest.mark.parametrize(("options", "counts"), [({}, 1 / 3), ({"progressive": True}, 1)])
def test_a_jpeg_of_one_scan_counts_a_third(monkeypatch, options, counts):
    """It takes 3 bytes a pixel, with coefficients of all pixels 9; `benchmarks/image_memory.py`."""
    taken = []
    monkeypatch.setattr(Share, "take", lambda *_, image=0: taken.append((_[2], image)))
    data = encoded(Image.new("RGB", (300, 200)), "JPEG", **options)
    Decoder().decode(data, "x")
    assert taken == [(60_000 * counts, 60_000)]
    taken.clear()
    Decoder().decode_part(data, "x", lambda height, width: (20, 30, 90, 120))
    if options or Decoder().parts is None:  # of several scans no part is decoded
        assert (60_000 * counts, 60_000) in taken
    else:
        assert taken == [(3_600, 60_000)]


def test_an_image_larger_than_the_budget_goes_alone():
    began, ended = threading.Semaphore(0), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            pool.submit(in_flight, 2 * BUDGET_PIXELS, budget_file(), began, ended)
        try:
            assert began.acquire(timeout=10)
            assert not began.acquire(timeout=0.3)
        finally:
            ended.set()
        assert began.acquire(timeout=10)


def test_a_share_lasts_to_the_end_of_the_block(photograph):
    """Pixels are there while they are transformed; a sample's second image gets its own."""
    began, ended = threading.Semaphore(0), threading.Event()
    ended.set()
    with ThreadPoolExecutor(1) as pool:
        with PixelsInFlight():
            with PixelsInFlight() as share:
                share.take(budget_file(), HALF)
            with PixelsInFlight() as share:
                share.take(budget_file(), BUDGET_PIXELS)
            pool.submit(in_flight, HALF, budget_file(), began, ended)
            assert not began.acquire(timeout=0.3)
        assert began.acquire(timeout=10)


def test_what_fails_gives_its_share_back(photograph):
    data = png((9_000, 9_000))
    for _ in range(3):  # would wait for ever
        with pytest.raises(BadImageError, match="not a readable image"):
            Decoder().decode(data, "x")


def hold_the_budget(budget, pipe):
    with PixelsInFlight() as share:
        share.take(budget, BUDGET_PIXELS)
        pipe.send("has it")
        time.sleep(60)


def test_processes_share_one_budget_and_one_that_dies_gives_its_share_back():
    budget = pickle.loads(pickle.dumps(Decoder())).budget
    here, there = multiprocessing.Pipe()
    began, ended = threading.Semaphore(0), threading.Event()
    ended.set()
    process = multiprocessing.get_context("spawn").Process(
        target=hold_the_budget, args=(budget, there)
    )
    process.start()
    try:
        assert here.poll(60)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(in_flight, HALF, budget, began, ended)
            assert not began.acquire(timeout=0.3)
            process.kill()
            assert began.acquire(timeout=10)
    finally:
        process.kill()
        process.join()


def test_without_proc_large_images_go_one_at_a_time():
    began, ended = threading.Semaphore(0), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            pool.submit(in_flight, HALF // 2, "/no/such/file", began, ended)
        try:
            assert began.acquire(timeout=10)
            assert not began.acquire(timeout=0.3)
        finally:
            ended.set()
        assert began.acquire(timeout=10)


def test_large_files_are_read_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(bytes(1000))
    monkeypatch.setattr(decode, "_FREE_FILE_BYTES", 999)
    began, ended = threading.Semaphore(0), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        try:
            pool.submit(in_flight, HALF, budget_file(), began, ended)
            assert began.acquire(timeout=10)
            reading = pool.submit(read_image_file, str(path), budget_file())
            time.sleep(0.3)
            assert not reading.done()
        finally:
            ended.set()
        assert len(reading.result(10)) == 1000
    with open(path, "r+b") as file:
        file.truncate(60 << 30)
    with pytest.raises(BadImageError, match="more than the 357,913,941 allowed"):
        read_image_file(str(path))
