"""The pixels of every mode and depth that Pillow opens, transparency, and orientation."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from photographs import encoded, load_photographs
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from src.args import Config, DataConfig, from_saved_text, parse_args, to_yaml
from src.data.decode import BadImageError, Decoder
from src.data.image_formats import readable_formats
from src.data.sources import create_decoder
from src.errors import UserError

RED = (255, 0, 0)


@pytest.fixture(scope="module")
def photograph():
    return load_photographs()[0].resize((45, 30))


def png(width, height, depth, colour, raw, *chunks):
    """A PNG of the given bytes, as the standard has it: depths that Pillow does not write."""

    def chunk(kind, body):
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(width, height, bits, raw, *, photometric=1, sample_format=1, order="<"):
    """A grey TIFF, uncompressed, as the standard has it."""
    entries = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, len(raw)),
        (339, 3, sample_format),
    ]
    start = 8 + len(raw)
    packed = b"".join(
        struct.pack(f"{order}HHI", tag, kind, 1)
        + struct.pack(f"{order}I" if kind == 4 else f"{order}HH", *([v] if kind == 4 else [v, 0]))
        for tag, kind, v in entries
    )
    head = b"II*\0" if order == "<" else b"MM\0*"
    ifd = struct.pack(f"{order}H", len(entries)) + packed + bytes(4)
    return head + struct.pack(f"{order}I", start) + raw + ifd


def grey_of(data):
    pixels = Decoder().decode(data, "x")
    assert (pixels == pixels[:, :, :1]).all()
    return pixels[:, :, 0]


RAMP = np.array([[0, 1, 200, 255, 256, 257, 30_000, 65_535]], np.uint16)


@pytest.mark.parametrize(
    "data",
    [
        png(8, 1, 16, 0, b"\0" + RAMP.astype(">u2").tobytes()),
        encoded(Image.fromarray(RAMP), "PNG"),
        encoded(Image.fromarray(RAMP), "TIFF"),
        tiff(8, 1, 16, RAMP.astype("<u2").tobytes()),
        tiff(8, 1, 16, RAMP.astype(">u2").tobytes(), order=">"),
        tiff(8, 1, 16, (65_535 - RAMP).astype("<u2").tobytes(), photometric=0),
        b"P5 8 1 65535\n" + RAMP.astype(">u2").tobytes(),
    ],
    ids=["PNG", "Pillow's PNG", "Pillow's TIFF", "II", "MM", "white is zero", "PGM"],
)
def test_of_sixteen_bits_the_upper_eight(data):
    np.testing.assert_array_equal(grey_of(data), RAMP >> 8)


@pytest.mark.parametrize("top", [0, 200, 255, 256, 65_535])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_pixel_hangs_on_no_other(top, kind):
    grey = np.full((4, 4), 200, np.uint16)
    grey[0, 0] = top
    assert (grey_of(encoded(Image.fromarray(grey), kind))[1:] == 200 >> 8).all()


def test_of_twelve_bits_the_upper_eight():
    # Two values in three bytes.
    raw = bytes([0xFF, 0xF0, 0x10, 0x80, 0x0A, 0xBC])
    np.testing.assert_array_equal(grey_of(tiff(4, 1, 12, raw)), [[0xFF, 0x01, 0x80, 0xAB]])
    pgm = b"P5 2 1 4095\n" + struct.pack(">HH", 4095, 2048)
    np.testing.assert_array_equal(grey_of(pgm), [[255, 128]])


@pytest.mark.parametrize(("depth", "values"), [(1, [0, 255]), (2, [0, 85, 170, 255])])
def test_few_bits_are_spread(depth, values):
    raw = {1: 0b0100_0000, 2: 0b0001_1011}[depth]
    data = png(len(values), 1, depth, 0, bytes([0, raw]))
    np.testing.assert_array_equal(grey_of(data), [values])


@pytest.mark.parametrize("colour", [2, 4, 6])
def test_sixteen_bits_of_a_colour(colour):
    channels = {2: 3, 4: 2, 6: 4}[colour]
    values = np.arange(channels * 2, dtype=np.uint16) * 3000 + 200
    values.reshape(2, channels)[:, {2: 3, 4: 1, 6: 3}[colour] :] = 65_535
    pixels = Decoder().decode(png(2, 1, 16, colour, b"\0" + values.astype(">u2").tobytes()), "x")
    expected = values.reshape(1, 2, channels) >> 8
    expected = expected[:, :, :1] if colour == 4 else expected[:, :, :3]
    np.testing.assert_array_equal(pixels, np.broadcast_to(expected, (1, 2, 3)))


@pytest.mark.parametrize(
    ("bits", "sample_format", "said"),
    [
        (32, 3, "floating point pixels, of no known range"),
        (32, 1, "32-bit or signed pixels, of no known range"),
        (32, 2, "32-bit or signed pixels, of no known range"),
        (16, 2, "32-bit or signed pixels, of no known range"),
    ],
)
def test_numbers_without_a_range_are_refused(bits, sample_format, said):
    data = tiff(2, 1, bits, bytes(2 * bits // 8), sample_format=sample_format)
    with pytest.raises(BadImageError, match=f"{said}; convert them to 8 or 16 bits"):
        Decoder().decode(data, "x")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
@pytest.mark.parametrize("background", [None, RED])
def test_opaque_modes_have_the_pixels_of_pillow(photograph, mode, background):
    data = encoded(photograph.convert(mode), "TIFF")
    expected = Image.open(io.BytesIO(data))
    assert expected.mode == mode
    pixels = Decoder(background=background).decode(data, "x")
    np.testing.assert_array_equal(pixels, expected.convert("RGB"))


def test_lab_comes_back_to_the_colours_it_was_made_of(photograph):
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(photograph, *profiles, outputMode="LAB")
    pixels = Decoder().decode(encoded(lab, "TIFF"), "x")
    assert np.abs(pixels.astype(int) - np.asarray(photograph)).mean() < 2


def with_alpha(photograph):
    alpha = np.linspace(0, 255, 45 * 30).reshape(30, 45).astype(np.uint8)
    image = photograph.convert("RGBA")
    image.putalpha(Image.fromarray(alpha))
    return image


def over(image, background):
    """The definition, in float64: straight alpha over a background."""
    pixels = np.asarray(image.convert("RGBA"), np.float64)
    share = pixels[:, :, 3:] / 255
    return np.rint(pixels[:, :, :3] * share + np.array(background) * (1 - share))


@pytest.mark.parametrize("background", [(255, 255, 255), RED, (12, 34, 56)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "TGA", "LA", "PA", "palette", "ICO"])
def test_transparent_pixels_show_the_background(photograph, kind, background):
    image = with_alpha(photograph)
    if kind in ("LA", "PA"):
        # Of these two Pillow writes TIFF only.
        image = image.convert(kind) if kind == "LA" else image.quantize(40).convert("PA")
    if kind == "palette":
        image = image.quantize(40, Image.Quantize.FASTOCTREE)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    sizes = {"sizes": [(45, 30)]} if kind == "ICO" else {}
    container = {"LA": "TIFF", "PA": "TIFF", "palette": "PNG"}.get(kind, kind)
    data = encoded(image, container, **options, **sizes)
    pixels = Decoder(background=background).decode(data, "x")
    opened = Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(pixels, over(opened, background))
    # Pillow's own way rounds twice.
    canvas = Image.new("RGBA", opened.size, background)
    theirs = Image.alpha_composite(canvas, opened.convert("RGBA")).convert("RGB")
    assert np.abs(pixels.astype(int) - np.asarray(theirs)).max() <= 1
    dropped = Decoder(background=None).decode(data, "x")
    np.testing.assert_array_equal(dropped, np.asarray(opened.convert("RGBA"))[:, :, :3])


@pytest.mark.parametrize(("extra", "straight"), [(1, 200), (2, 100)])
def test_premultiplied_grey_is_divided(extra, straight):
    # Grey 100, half opaque: with associated alpha (1) the colour was 200.
    plain = encoded(Image.new("LA", (1, 1), (100, 128)), "TIFF")
    # The tag ExtraSamples, one SHORT.
    at = plain.index(struct.pack("<HHI", 338, 3, 1))
    data = plain[: at + 8] + struct.pack("<H", extra) + plain[at + 10 :]
    assert Decoder(background=None).decode(data, "x")[0, 0, 0] == pytest.approx(straight, abs=1)


@pytest.mark.parametrize(
    ("depth", "raw", "key", "values"),
    [
        (1, b"\0\x80", 1, [-1, 0]),
        (2, b"\0\xb0", 3, [170, -1]),
        (4, b"\0\xf3", 15, [-1, 51]),
        (8, b"\0\xf3\x02", 243, [-1, 2]),
        (16, b"\0" + struct.pack(">HH", 200, 201 << 8), 200, [-1, 201]),
    ],
)
def test_one_transparent_grey(depth, raw, key, values):
    """tRNS names a value of the file's own depth (PNG specification, 11.3.2.1); -1: transparent."""
    data = png(2, 1, depth, 0, raw, (b"tRNS", struct.pack(">H", key)))
    pixels = Decoder(background=RED).decode(data, "x")
    expected = [[list(RED) if value < 0 else [value] * 3 for value in values]]
    np.testing.assert_array_equal(pixels, expected)


def test_one_transparent_colour():
    data = png(2, 1, 8, 2, b"\0\1\2\3\4\5\6", (b"tRNS", struct.pack(">HHH", 1, 2, 3)))
    np.testing.assert_array_equal(Decoder(background=RED).decode(data, "x"), [[RED, (4, 5, 6)]])


def xmp_of(orientation):
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description '
        f'tiff:Orientation="{orientation}"/></rdf:RDF></x:xmpmeta>'
    )


def oriented(image, place, orientation):
    """The image with its orientation in one of the places where Pillow looks."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    if place == "PNG, XMP":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp_of(orientation))
        return encoded(image, "PNG", pnginfo=text)
    if place == "PNG, raw profile":
        text = PngImagePlugin.PngInfo()
        block = exif.tobytes()
        text.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=True)
        return encoded(image, "PNG", pnginfo=text)
    if place in ("JPEG, XMP", "WEBP, XMP"):
        return encoded(image, place[:4], xmp=xmp_of(orientation).encode(), quality=95)
    if place == "JPEG, far behind":
        # Three blocks of 64 kB stand before the EXIF block.
        plain = encoded(image, "JPEG", exif=exif)
        filling = b"\xff\xe2\xff\xff" + bytes(65_533)
        return plain[:2] + 3 * filling + plain[2:]
    if place == "TIFF":
        return encoded(image, "TIFF", tiffinfo={0x0112: orientation})
    return encoded(image, place, exif=exif)


PLACES = ["JPEG", "JPEG, far behind", "JPEG, XMP", "PNG", "PNG, XMP", "PNG, raw profile"]
PLACES += ["WEBP", "WEBP, XMP", "TIFF", "AVIF"]


@pytest.mark.parametrize("place", PLACES)
def test_orientation_is_that_of_pillow_wherever_it_stands(photograph, place):
    if place.split(",")[0] not in readable_formats():
        pytest.skip(f"this Pillow reads no {place}")
    shapes = set()
    for orientation in range(1, 9):
        data = oriented(photograph, place, orientation)
        turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        pixels = Decoder(turns=True).decode(data, "x")
        np.testing.assert_array_equal(pixels, turned)
        shapes.add(pixels.shape[:2])
    # The test itself: something is turned.
    assert shapes == {(30, 45), (45, 30)}


def test_no_other_program_is_started(tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    for name in ("gs", "gswin32c"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {ran}\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(BadImageError, match=r"not a readable image \(PostScript\)"):
        Decoder().decode(data, "b.png")
    assert not ran.exists()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (struct.pack(">I", 24) + b"ftypheic" + bytes(40), "HEIC; convert it to JPEG"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"something else", "unknown format"),
    ],
)
def test_what_is_no_image_is_named(data, kind):
    with pytest.raises(BadImageError, match=kind):
        Decoder().decode(data, "x.jpg")


def test_the_recipe_says_how_images_are_read():
    assert create_decoder(Config()) == Decoder()
    config = parse_args(["--background", "[1, 2, 3]", "--exif_orientation", "True"])
    assert create_decoder(config) == Decoder(turns=True, background=(1, 2, 3))
    assert create_decoder(parse_args(["--background", "null"])).background is None
    assert from_saved_text(to_yaml(config), "saved").data == config.data
    # A checkpoint from before the key: its images had their transparency dropped.
    before = "\n".join(line for line in to_yaml(config).splitlines() if "background" not in line)
    assert from_saved_text(before, "saved").data.background is None


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (
            ["--mean", "[123.675, 116.28, 103.53]", "--std", "[58.395, 57.12, 57.375]"],
            "mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225]",
        ),
        (["--std", "[255, 255, 255]"], "std [1.0, 1.0, 1.0]"),
        (
            ["--mean", "[103.53, 116.28, 123.675]", "--std", "[1, 1, 1]"],
            "mean [0.406, 0.456, 0.485], std [0.0039, 0.0039, 0.0039]",
        ),
        (["--mean", "[123.675, 116.28, 103.53]"], "divided by 255: mean [0.485, 0.456, 0.406]"),
    ],
)
def test_means_of_0_to_255_are_refused_with_the_right_ones(words, right):
    with pytest.raises(UserError) as caught:
        parse_args([*words, "--debug"])
    assert str(caught.value).endswith(right)
    assert words[0] in str(caught.value)
    assert "\n" not in str(caught.value)
    DataConfig(mean=(0.5, 0.5, 1.0), std=(1, 1, 1))
