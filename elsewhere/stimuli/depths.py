"""Pictures of any depth and mode as 8-bit colours with alpha, or refused: never clipped or lost."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from elsewhere.stimuli.arrays import ByteArray

PLAIN = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
"""Modes of 8 bits or fewer per channel, which PIL converts by their meaning."""
BITS, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
"""Tags of TIFF: bits per channel, what the numbers mean, and that 0 means white."""


def read_pixels(opened: Image.Image) -> ByteArray:
    """Return a picture's colours and alpha, uint8 (height, width, 4), turned upright.

    PIL has opened it, and not loaded it yet.

    Raises
    ------
    ValueError
        Its mode has no range that says what white is (32-bit integers, floating point), it holds
        several frames, or a part of it cannot be told.
    """
    frames = int(getattr(opened, "n_frames", 1))
    if frames > 1 and opened.format != "MPO":  # whose other frames are previews
        raise ValueError(f"it holds {frames} frames; save the one that is meant")
    raw = _raw_mode(opened)
    picture = ImageOps.exif_transpose(opened)
    clear = opened.info.get("transparency")
    if picture.mode.startswith("I;16"):
        return _deep(opened, picture, clear)
    if picture.mode not in PLAIN:
        raise ValueError(
            f"its mode is {picture.mode} ({_MEANING.get(picture.mode, 'unknown')}), which does not "
            "say what is white; save it with 8 or 16 bits per channel"
        )
    if isinstance(clear, tuple) and "16" in raw:
        raise ValueError(
            f"its mode is {picture.mode} of 16 bits with a transparent colour, of which half the "
            "bits are lost; save it with an alpha channel"
        )
    if isinstance(clear, int) and picture.mode in ("1", "L"):  # counted in the file's own levels
        levels = {"1": 1, "L;2": 3, "L;4": 15}.get(raw, 255)
        return _with_clear(np.asarray(picture.convert("L")), round(clear * 255 / levels))
    return np.asarray(picture.convert("RGBA"))


_MEANING = {"I": "32-bit integers", "F": "floating point", "LAB": "CIE L*a*b*"}


def _raw_mode(opened: Image.Image) -> str:
    """Return the mode in which the file holds the pixels, as PIL's decoder is told."""
    tiles = getattr(opened, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return str(first)


def _deep(opened: Image.Image, picture: Image.Image, clear: object) -> ByteArray:
    """Return a grey picture of more than 8 bits, scaled by its own depth."""
    tags = getattr(opened, "tag_v2", {})
    bits = tags.get(BITS, 16)
    full = 2 ** int(bits[0] if isinstance(bits, tuple) else bits) - 1
    levels = np.asarray(picture).astype(np.float64)
    grey = np.rint(np.clip(levels / full, 0, 1) * 255).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        grey = 255 - grey
    alpha = np.full_like(grey, 255)
    if isinstance(clear, int):
        alpha[levels == clear] = 0
    return np.dstack([grey, grey, grey, alpha])


def _with_clear(grey: ByteArray, clear: int) -> ByteArray:
    """Return a grey picture of which one level is transparent."""
    alpha = np.where(grey == clear, 0, 255).astype(np.uint8)
    return np.dstack([grey, grey, grey, alpha])
