"""Rectangles of cells, and sums over windows that many rows share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from elsewhere.measures.vectors import dot_products, squared_norms, sums, to_numpy
from elsewhere.recording.incremental.windows import Ground

Tensor: TypeAlias = torch.Tensor
Floats: TypeAlias = NDArray[np.float64]

MAPS_BYTES = 64 * 2**20
"""What whole maps may take that are built to save passes over windows."""


class Region(NamedTuple):
    """A rectangle of cells: first row and column, and those after the last."""

    top: int
    left: int
    bottom: int
    right: int

    def meet(self, other: Region) -> Region | None:
        """Return the overlap, or None."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Region(top, left, bottom, right) if top < bottom and left < right else None

    def join(self, other: Region) -> Region:
        """Return the smallest rectangle around both."""
        return Region(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )

    def cut(self, values: Tensor, of: Region) -> Tensor:
        """Return this part of `values` that cover `of`: (..., height, width, channel)."""
        rows = slice(self.top - of.top, self.bottom - of.top)
        columns = slice(self.left - of.left, self.right - of.left)
        return values[..., rows, columns, :]


def sum_over(table: Any, corners: Any) -> Any:
    """Return sums over rectangles, (rectangle, 4) or one, from a table of cumulated sums."""
    top, left, bottom, right = np.asarray(corners).T
    with np.errstate(invalid="ignore"):  # infinite values are told of by who measures
        inside = table[bottom, right] - table[top, right] - table[bottom, left]
        return inside + table[top, left]


class RegionChange:
    """What rows with one window differ by from the empty canvas's map, weighted.

    `values` are the rows' windows in `region`, (row, height, width, channel), `weights` those of
    the map, (row,).
    """

    def __init__(self, values: Tensor, region: Region, weights: Floats, ground: Ground) -> None:
        self.region = region
        self._weights, self._ground, self._windows = weights, ground, values
        below = region.cut(ground.values, whole(ground)).to(values.dtype)
        factors = torch.as_tensor(weights, dtype=values.dtype, device=values.device)
        self.values = values - factors[:, None, None, None] * below if weights.any() else values
        rows, columns = values.shape[1:3]
        self.products = np.zeros((rows + 1, columns + 1, len(weights)))
        for row, one in enumerate(self.values):
            each = (one * below).sum(-1, dtype=torch.float64).cumsum(0).cumsum(1)
            self.products[1:, 1:, row] = to_numpy(each)

    @property
    def fits(self) -> bool:
        """Whether whole maps of all rows take little memory."""
        whole_map = self._ground.values.numel() * self._windows.element_size()
        return len(self._windows) * whole_map <= MAPS_BYTES

    def maps(self) -> Tensor:
        """Return the rows as whole maps, shape (row, height, width, channel)."""
        factors = torch.as_tensor(self._weights, dtype=self._windows.dtype)
        below = self._ground.values.to(self._windows.dtype)
        maps = factors.to(below.device)[:, None, None, None] * below
        self.region.cut(maps, whole(self._ground)).copy_(self._windows)
        return maps

    def dots(self, piece: Piece, region: Region) -> Floats:
        """Return products of a piece's rows with the changes over a rectangle in both."""
        ours = region.cut(piece.values, piece.region)
        theirs = region.cut(self.values, self.region)
        return to_numpy(dot_products(flat(ours), flat(theirs)))

    def meet(self, corners: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the overlaps of rectangles (rectangle, 4) with this one, maybe without cells."""
        low = np.maximum(corners[:, :2], self.region[:2])
        high = np.minimum(corners[:, 2:], self.region[2:])
        return np.concatenate([low, np.maximum(low, high)], axis=1)

    def over(self, meeting: NDArray[np.int64]) -> Floats:
        """Return products with the map over overlaps, shape (rectangle, row)."""
        origin = np.array(self.region[:2] * 2)
        size = np.array(self.region[2:] * 2) - origin
        found: Floats = sum_over(self.products, np.clip(meeting - origin, 0, size))
        return found


@dataclass(frozen=True, eq=False)
class GroupSquares:
    """Squared lengths of windows of one size, taken in one call.

    `values` are (class along y, class along x, object, height, width, channel).
    """

    values: Tensor

    @cached_property
    def squares(self) -> Floats:
        """The lengths, (class along y, class along x, object)."""
        shape = self.values.shape[:3]
        rows = self.values.reshape(math.prod(shape), -1)
        return to_numpy(squared_norms(rows)).reshape(shape)


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over windows that many rows share, taken once.

    `values` are (row, height, width, channel); they lie in `region`, at one of the locations that
    share them. `place` is theirs in `group`, the lengths of many windows.
    """

    values: Tensor
    region: Region
    ground: Ground
    group: GroupSquares | None = None
    place: tuple[int, int] = (0, 0)

    @cached_property
    def squares(self) -> Floats:
        """Squared lengths of the windows, shape (row,)."""
        if self.group is not None:
            found: Floats = self.group.squares[self.place]
            return found
        return to_numpy(squared_norms(flat(self.values)))

    @cached_property
    def products(self) -> Floats:
        """Products with the empty canvas's map, shape (row,)."""
        below = self.region.cut(self.ground.values, whole(self.ground))
        return to_numpy(dot_products(flat(self.values), flat(below[None])))[:, 0]

    @cached_property
    def totals(self) -> Floats:
        """Sums of the windows, shape (row,)."""
        return to_numpy(sums(flat(self.values), (1,)))


def whole(ground: Ground) -> Region:
    """Return the rectangle of the whole map."""
    return Region(0, 0, *ground.sides)


def flat(values: Tensor) -> Tensor:
    """Return windows as rows (row, unit)."""
    return values.reshape(len(values), -1)


@dataclass(eq=False)
class Piece:
    """Rows whose windows, (row, height, width, channel), cover the same cells.

    Of `sums` that more rows share, `chosen` are those of these.
    """

    rows: NDArray[np.int64]
    region: Region
    values: Tensor
    sums: Sums
    chosen: NDArray[np.int64] | None = None

    def _own(self, values: Floats) -> Floats:
        return values if self.chosen is None else values[self.chosen]

    @property
    def squares(self) -> Floats:
        """Squared lengths of the windows, shape (row,)."""
        return self._own(self.sums.squares)

    @property
    def products(self) -> Floats:
        """Products with the empty canvas's map, shape (row,)."""
        return self._own(self.sums.products)

    @property
    def totals(self) -> Floats:
        """Sums of the windows, shape (row,)."""
        return self._own(self.sums.totals)
