"""Arrays as a page carries them: 16-bit integers with a scale, compressed, and their error.

Maps in the object's frame, which are looked at and not read off, have 8 bits. Arrays whose largest
values are so large that 16 bits would leave little of the others are sent as floats.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

BITS = 16
LOST = 1e-3
"""Of the values' median size an error may be so much; where 16 bits lose more, floats are sent."""
_HUGE = 1e300
"""Sums and ranges of larger values may be infinite."""
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
        By how much the farthest of the unpacked values is from the one that was packed; of floats
        as a share of each value.
    text
        Little-endian numbers in C order, compressed (zlib), in base64.
    bits
        Of a number: up to 16 of an integer, 32 and 64 of a float.
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
        numbers = _numbers(self).take(places, axis)
        return replace(self, shape=numbers.shape, text=_text(numbers))


def pack(values: ArrayLike, bits: int = BITS, *, lost: float = math.inf) -> Packed:
    """Return an array of numbers or truth values as text.

    Whole numbers and truth values with a range below 65,533 are kept as they are; of others the
    error is at most half a step, the range over 65,532. NaN and infinite values stay what they are.
    With 8 bits, these are 253 and 252. Where the error were a larger share than `lost` of the
    median size of the values that are not zero, they are sent as floats.

    Examples
    --------
    >>> packed = pack([0.0, 0.5, 1.0, float("nan")])
    >>> packed.error < 1e-5
    True
    >>> unpack(packed).round(4)
    array([0. , 0.5, 1. , nan])
    >>> pack([True, False]).error
    0.0
    >>> one_large = [0.1, 0.2, 0.3, 1e30]
    >>> unpack(pack(one_large))[:3].round(3), unpack(pack(one_large, lost=1e-3))[:3].round(3)
    (array([0., 0., 0.]), array([0.1, 0.2, 0.3]))
    """
    undefined, infinite, most = _signs(bits)
    array = np.asarray(values)
    exact = array.dtype.kind in "biu"
    array = array.astype(np.float64)
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if lost < math.inf and max(abs(low), abs(high)) > _HUGE:
        return _floats(array)
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
    if error > 0 and error > lost * float(np.median(np.abs(finite[finite != 0]))):
        return _floats(array)
    return Packed(array.shape, scale, offset, error, _text(integers), bits)


def _floats(array: NDArray[np.float64]) -> Packed:
    """Return an array as floats: of 32 bits where none loses more than their rounding, else 64."""
    with np.errstate(over="ignore", invalid="ignore"):
        single = array.astype("<f4")
        off = np.abs(single.astype(np.float64) - array)
    rounding = 2.0**-24
    if (off[np.isfinite(array)] <= rounding * np.abs(array[np.isfinite(array)])).all():
        return Packed(array.shape, 1.0, 0.0, rounding, _text(single), 32)
    return Packed(array.shape, 1.0, 0.0, 0.0, _text(array.astype("<f8")), 64)


def error_at(facts: Mapping[str, Any], value: float) -> float:
    """Return by how much a value of a packed array may be off."""
    share = facts.get("bits", BITS) > BITS
    return float(facts["error"]) * (abs(value) if share and math.isfinite(value) else 1.0)


def _text(numbers: NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(numbers.tobytes(), 9)).decode()


def _numbers(packed: Packed) -> NDArray[Any]:
    data = zlib.decompress(base64.b64decode(packed.text))
    kind = "f" if packed.bits > BITS else "i"
    return np.frombuffer(data, f"<{kind}{packed.bits // 8}").reshape(packed.shape)


def unpack(packed: Packed) -> NDArray[np.float64]:
    """Return the values of a packed array, float64."""
    numbers = _numbers(packed)
    if packed.bits > BITS:
        return numbers.astype(np.float64)
    integers, (undefined, infinite, _) = numbers, _signs(packed.bits)
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
