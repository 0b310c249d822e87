"""Pictures of every depth and mode that PIL writes: right, or refused with mode and file."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from elsewhere.errors import ObjectSetError
from elsewhere.stimuli import load_objects

RAMP = np.tile(np.arange(20) * 10, (20, 1)).astype(np.uint8)
LA = np.dstack([RAMP, np.where(RAMP < 100, 0, 255).astype(np.uint8)])


def png(path, rows, *, depth, color, clear):
    """Write a PNG with a transparent colour (tRNS) by hand."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width = len(rows), 20
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    packed = b"".join(b"\0" + row for row in rows)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"tRNS", clear)
        + chunk(b"IDAT", zlib.compress(packed))
        + chunk(b"IEND", b"")
    )


def pack(levels, depth):
    bits = "".join(format(int(level), f"0{depth}b") for level in levels)
    bits = bits.ljust(-(-len(bits) // 8) * 8, "0")
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def read(path):
    objects = load_objects(f"folder:{path.parent}", size=20)
    return objects.images[0], objects.masks[0]


def deep(path):
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(path)


def big_endian(path):
    Image.fromarray((RAMP.astype(np.uint16) * 257).astype(">u2")).save(path)


def white_is_zero(path):
    Image.fromarray(65535 - RAMP.astype(np.uint16) * 257).save(path, tiffinfo={262: 0})


def white_is_zero_8(path):
    image = Image.fromarray(RAMP)
    image.save(path, tiffinfo={262: 0})


def inverted_cmyk(path):
    Image.fromarray(np.dstack([RAMP] * 3)).convert("CMYK").save(path)


def turned(path):
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned: rows are columns
    Image.fromarray(np.rot90(RAMP)).save(path, exif=exif)


GREY = {
    "deep.png": deep,
    "deep.tif": deep,
    "big.tif": big_endian,
    "white.tif": white_is_zero,
    "white8.tif": white_is_zero_8,
    "cmyk.tif": inverted_cmyk,
    "turned.png": turned,
    "grey.png": lambda path: Image.fromarray(RAMP).save(path),
    "palette.png": lambda path: Image.fromarray(RAMP).convert("P").save(path),
    "ycbcr.tif": lambda path: Image.fromarray(np.dstack([RAMP] * 3)).convert("YCbCr").save(path),
}


@pytest.mark.parametrize("name", GREY)
def test_levels_are_kept(name, tmp_path):
    GREY[name](tmp_path / name)
    image, mask = read(tmp_path / name)
    np.testing.assert_array_less(abs(image.astype(int) - RAMP[..., None]), 2)
    assert (mask == 255).all()


def grey_trns(depth, level):
    def write(path):
        top = 2**depth - 1
        levels = np.round(np.arange(20) / 19 * top).astype(int)
        clear = struct.pack(">H", levels[level])
        png(path, [pack(levels, depth)] * 20, depth=depth, color=0, clear=clear)
        return levels == levels[level], np.rint(levels / top * 255)

    return write


def rgb_trns(path):
    colors = np.stack([np.arange(20) * 10, np.full(20, 7), np.full(20, 9)], axis=1)
    png(path, [bytes(colors.astype(np.uint8).ravel())] * 20, depth=8, color=2,
        clear=struct.pack(">HHH", 50, 7, 9))  # fmt: skip
    return np.arange(20) == 5, colors[:, 0]


@pytest.mark.parametrize(
    "write",
    [
        grey_trns(1, 0),
        grey_trns(2, 8),
        grey_trns(4, 3),
        grey_trns(8, 6),
        grey_trns(16, 6),
        rgb_trns,
    ],
    ids=["1 bit", "2 bits", "4 bits", "8 bits", "16 bits", "rgb"],
)
def test_a_transparent_colour_is_transparent(write, tmp_path):
    clear, levels = write(tmp_path / "a.png")
    image, mask = read(tmp_path / "a.png")
    assert 0 < clear.sum() < 20
    np.testing.assert_array_equal(mask, np.tile(np.where(clear, 0, 255), (20, 1)))
    np.testing.assert_array_less(abs(image[0, ~clear, 0] - levels[~clear]), 2)


@pytest.mark.parametrize("name", ["la.png", "la.tif"])
def test_grey_with_alpha(name, tmp_path):
    Image.fromarray(LA, "LA").save(tmp_path / name)
    _, mask = read(tmp_path / name)
    np.testing.assert_array_equal(mask, LA[..., 1])


def test_one_bit(tmp_path):
    Image.fromarray(RAMP > 100).save(tmp_path / "a.png")
    image, _ = read(tmp_path / "a.png")
    np.testing.assert_array_equal(image[..., 0], np.where(RAMP > 100, 255, 0))


def rgb16_trns(path):
    row = b"".join(struct.pack(">HHH", 300 * i, 5, 7) for i in range(20))
    png(path, [row] * 20, depth=16, color=2, clear=struct.pack(">HHH", 1500, 5, 7))


def animated(path):
    frames = [Image.fromarray(RAMP), Image.fromarray(255 - RAMP)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


REFUSED = {
    "int.tif": (lambda p: Image.fromarray((RAMP.astype("i4")) * 257).save(p), "mode is I "),
    "float.tif": (lambda p: Image.fromarray(RAMP.astype("f4") / 255).save(p), "mode is F "),
    "lab.tif": (
        lambda p: Image.frombytes("LAB", (20, 20), bytes(1200)).save(p),
        "mode is LAB",
    ),
    "deep.png": (rgb16_trns, "mode is RGB of 16 bits with a transparent colour"),
    "moving.gif": (animated, "holds 2 frames"),
    "moving.webp": (animated, "holds 2 frames"),
    "pages.tif": (animated, "holds 2 frames"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_is_refused(name, tmp_path):
    write, says = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(ObjectSetError, match=rf"{name}: .*{says}"):
        read(tmp_path / name)
