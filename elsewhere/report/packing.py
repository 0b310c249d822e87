"""Arrays as a page carries them: 16-bit integers with a scale, compressed, and their error.

Maps in the object's frame, which are looked at and not read off, have 8 bits.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

BITS = 16
INDEX = "index.html"
"""What a page is called in a folder."""


def _signs(bits: int) -> tuple[int, int, int]:
    """Return the integers of NaN and of infinity, and the largest of a finite value."""
    half = 1 << (bits - 1)
    return -half, half - 1, half - 2


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
        Little-endian integers in C order, compressed (zlib), in base64.
    bits
        Of an integer.
    """

    shape: tuple[int, ...]
    scale: float
    offset: float
    error: float
    text: str
    bits: int = BITS

    def facts(self) -> dict[str, Any]:
        """Return all but the text."""
        return {
            "shape": list(self.shape),
            "scale": self.scale,
            "offset": self.offset,
            "error": self.error,
            **({} if self.bits == BITS else {"bits": self.bits}),
        }

    def some(self, axis: int, places: Sequence[int]) -> Packed:
        """Return some places of an axis; the values stay what they are.

        Examples
        --------
        >>> unpack(pack([[1, 2, 3], [4, 5, 6]]).some(1, [0, 2]))
        array([[1., 3.],
               [4., 6.]])
        """
        integers = _integers(self).take(places, axis)
        return replace(self, shape=integers.shape, text=_text(integers))


def pack(values: ArrayLike, bits: int = BITS) -> Packed:
    """Return an array of numbers or truth values as text.

    Whole numbers and truth values with a range below 65,533 are kept as they are; of others the
    error is at most half a step, the range over 65,532. NaN and infinite values stay what they are.
    With 8 bits, these are 253 and 252.

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
    undefined, infinite, most = _signs(bits)
    array = np.asarray(values)
    exact = array.dtype.kind in "biu"
    array = array.astype(np.float64)
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if exact and high - low <= 2 * most:
        scale, offset = 1.0, low + most
    else:
        offset = low / 2 + high / 2
        scale = max(high / (2 * most) - low / (2 * most), np.finfo(float).tiny)
    steps = np.clip(np.rint((array - offset) / scale), -most, most)
    steps = np.where(np.isnan(array), undefined, steps)
    steps = np.where(np.isinf(array), np.sign(array) * infinite, steps)
    integers = steps.astype(f"<i{bits // 8}")
    back = integers[np.isfinite(array)] * scale + offset
    error = float(np.abs(back - finite).max()) if finite.size else 0.0
    return Packed(array.shape, scale, offset, error, _text(integers), bits)


def _text(integers: NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(integers.tobytes(), 9)).decode()


def _integers(packed: Packed) -> NDArray[Any]:
    data = zlib.decompress(base64.b64decode(packed.text))
    return np.frombuffer(data, f"<i{packed.bits // 8}").reshape(packed.shape)


def unpack(packed: Packed) -> NDArray[np.float64]:
    """Return the values of a packed array, float64."""
    integers, (undefined, infinite, _) = _integers(packed), _signs(packed.bits)
    values: NDArray[np.float64] = integers * packed.scale + packed.offset
    values[integers == undefined] = np.nan
    for sign in (-1, 1):
        values[integers == sign * infinite] = sign * np.inf
    return values


# --- a report in a folder ---------------------------------------------------------------------


def data_name(number: int) -> str:
    """Return the name of a file of data in a report's folder."""
    return f"data/{number}.js"


def data_script(number: int, blocks: Mapping[int, str]) -> str:
    """Return a script that hands over the arrays of a file.

    Examples
    --------
    >>> read_data(data_script(3, {7: "eJw="}), 3)
    {'block-7': 'eJw='}
    """
    return f"{_begin(number)}{json.dumps(blocks)}{_END}"


def read_data(script: str, number: int) -> dict[str, str]:
    """Return the arrays in such a script, by the names that they have in a page of one file.

    Raises
    ------
    ValueError
        It is no such script.
    """
    begin = _begin(number)
    if not (script.startswith(begin) and script.endswith(_END)):
        raise ValueError(f"{data_name(number)} holds no data of a report")
    held = json.loads(script[len(begin) : -len(_END)])
    return {f"block-{int(block)}": str(text) for block, text in held.items()}


_END = ");\n"


def _begin(number: int) -> str:
    return f"takeData({number}, "
