"""Maps of attribution in the object's frame, which the explorer lays over the object."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.report.fields import PLACE
from elsewhere.report.material import Item

PIXELS = ("height", "width")
"""Dimensions of a map in the object's frame, px from the first of the object's box."""
MAPS = "attribution"
MAPS_AT_REFERENCE = "reference_attribution"
_MOST_CELLS = 32
"""A map has so many rows and columns in the page, at most: means over squares of pixels."""


@dataclass(frozen=True)
class Frames:
    """The maps of a result.

    Parameters
    ----------
    dims
        Of `values`; places and then pixels are the last ones.
    values
        As a share of each map's largest value, -1..1, NaN off the canvas.
    reference
        The maps at the reference, without places, where they are known.
    block
        Side of the squares of pixels that means are over, px.
    first
        The first row and column of a map, px from those of the object's box.
    of
        Method and target, in words.
    """

    dims: tuple[str, ...]
    values: NDArray[np.float64]
    reference: NDArray[np.float64] | None
    block: int
    first: tuple[int, int]
    of: str

    @property
    def note(self) -> str:
        """What a reader has to know of them."""
        squares = f", and means over squares of {self.block} px" if self.block > 1 else ""
        return f"maps over the object are shares of their own largest value, in 8 bits{squares}"


def frames_of(item: Item) -> Iterator[Frames]:
    """Yield the maps in the object's frame that a result has, if it has any."""
    result = item.result
    if MAPS not in result or not {"object", *PLACE, *PIXELS} <= set(result[MAPS].dims):
        return
    maps = result[MAPS].transpose(..., *PLACE, *PIXELS)
    block = max(1, math.ceil(max(maps.sizes[dim] for dim in PIXELS) / _MOST_CELLS))
    lead = [dim for dim in maps.dims if dim not in (*PLACE, *PIXELS)]
    reference = None
    if MAPS_AT_REFERENCE in result and set(result[MAPS_AT_REFERENCE].dims) == {*lead, *PIXELS}:
        reference = in_squares(result[MAPS_AT_REFERENCE].transpose(*lead, *PIXELS).values, block)
    first = tuple(int(result[dim].values[0]) if dim in result.coords else 0 for dim in PIXELS)
    dims = tuple(map(str, maps.dims))
    said = f"{item.attributes.get('method', MAPS)} of {item.attributes.get('target', 'the target')}"
    values = in_squares(maps.values, block)
    yield Frames(dims, values, reference, block, (first[0], first[1]), said)


def in_squares(maps: NDArray[np.floating], block: int) -> NDArray[np.float64]:
    """Return the means over squares of pixels, of what is defined in each; maps are the last axes.

    Examples
    --------
    >>> in_squares(np.array([[1.0, 3.0, 5.0], [np.nan, 2.0, 7.0]]), 2)
    array([[2., 6.]])
    """
    if block == 1:
        return maps.astype(np.float64)
    more = [-size % block for size in maps.shape[-2:]]
    lead = [(0, 0)] * (maps.ndim - 2)
    padded = np.pad(
        maps.astype(np.float64), [*lead, (0, more[0]), (0, more[1])], constant_values=np.nan
    )
    rows, columns = (size // block for size in padded.shape[-2:])
    squares = padded.reshape(*maps.shape[:-2], rows, block, columns, block)
    known = np.isfinite(squares)
    total = np.where(known, squares, 0.0).sum((-3, -1))
    count = known.sum((-3, -1))
    found: NDArray[np.float64] = np.full(count.shape, np.nan)
    np.divide(total, count, out=found, where=count > 0)
    return found


def pixel(result: xarray.Dataset, name: str, at: Mapping[str, int], block: int) -> float:
    """Return from a result a value of a page's maps, whose pixels are squares of the result's."""
    place = {dim: index for dim, index in at.items() if dim not in PIXELS}
    row, column = (at[dim] for dim in PIXELS)
    maps = result[name].isel(place).transpose(*PIXELS)
    return float(in_squares(maps.values, block)[row, column])
