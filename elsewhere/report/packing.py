"""Arrays as a page carries them: 16-bit integers with a scale, compressed, and their error."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

UNDEFINED = -32768
INFINITE = 32767
_MOST = 32766
"""Finite values are between minus this and this; infinite ones are plus or minus `INFINITE`."""


@dataclass(frozen=True)
class Packed:
    """An array as text.

    Parameters
    ----------
    shape
        Its shape.
    scale, offset
        A value is ``integer * scale + offset``.
    error
        By how much the farthest of the unpacked values is from the one that was packed.
    text
        Little-endian 16-bit integers in C order, compressed (zlib), in base64.
    """

    shape: tuple[int, ...]
    scale: float
    offset: float
    error: float
    text: str

    def facts(self) -> dict[str, Any]:
        """Return all but the text."""
        return {
            "shape": list(self.shape),
            "scale": self.scale,
            "offset": self.offset,
            "error": self.error,
        }


def pack(values: ArrayLike) -> Packed:
    """Return an array of numbers or truth values as text.

    Whole numbers and truth values with a range below 65,533 are kept as they are; of others the
    error is at most half a step, the range over 65,532. NaN and infinite values stay what they are.

    Examples
    --------
    >>> packed = pack([0.0, 0.5, 1.0, float("nan")])
    >>> packed.error < 1e-5
    True
    >>> unpack(packed).round(4)
    array([0. , 0.5, 1. , nan])
    >>> pack([True, False]).error
    0.0
    """
    array = np.asarray(values)
    exact = array.dtype.kind in "biu"
    array = array.astype(np.float64)
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if exact and high - low <= 2 * _MOST:
        scale, offset = 1.0, low + _MOST
    else:
        offset = low / 2 + high / 2
        scale = max(high / (2 * _MOST) - low / (2 * _MOST), np.finfo(float).tiny)
    steps = np.clip(np.rint((array - offset) / scale), -_MOST, _MOST)
    steps = np.where(np.isnan(array), UNDEFINED, steps)
    steps = np.where(np.isinf(array), np.sign(array) * INFINITE, steps)
    integers = steps.astype("<i2")
    back = integers[np.isfinite(array)] * scale + offset
    error = float(np.abs(back - finite).max()) if finite.size else 0.0
    text = base64.b64encode(zlib.compress(integers.tobytes(), 9)).decode()
    return Packed(array.shape, scale, offset, error, text)


def unpack(packed: Packed) -> NDArray[np.float64]:
    """Return the values of a packed array, float64."""
    data = zlib.decompress(base64.b64decode(packed.text))
    integers = np.frombuffer(data, "<i2").reshape(packed.shape)
    values: NDArray[np.float64] = integers * packed.scale + packed.offset
    values[integers == UNDEFINED] = np.nan
    for sign in (-1, 1):
        values[integers == sign * INFINITE] = sign * np.inf
    return values
