"""Tiles: locations and objects that are computed together; a recording's are whole portions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from elsewhere.protocols import Design
from elsewhere.recording.incremental.windows import Tile
from elsewhere.storage.portions import Portions

T = TypeVar("T")

TILE_SHARE = 4
"""A tile has at most one of so many parts of a recording's arithmetic, or that of a second."""

LEAST_WORK = 50_000_000_000
"""Multiply-adds up to which a tile is not cut further for that: about a second."""


def choose_shape(
    fits: Callable[[Tile], bool], portions: Portions, *, together: bool = False
) -> tuple[int, int, int]:
    """Return how many objects, rows and columns of locations a tile of whole portions has.

    It depends on the design, the network and the rule, not on who computes or what is there.
    Locations stay together if they can, since they share windows; or, if `together`, the objects of
    a location, as sinks that compare them want.
    """
    design = portions.design
    (n_y, n_x), n = design.shape, len(design.objects)
    order = (0, 1, 2) if together else (2, 0, 1)
    most = [n_y, math.ceil(n_x / portions.n_cells), math.ceil(n / portions.n_objects)]

    def whole(shape: Sequence[int]) -> tuple[int, int, int]:
        return (
            min(n, shape[2] * portions.n_objects),
            shape[0],
            min(n_x, shape[1] * portions.n_cells),
        )

    return whole(
        _halved(most, order, lambda shape: all(map(fits, _some_tiles(whole(shape), design))))
    )


def choose_tiles(
    fits: Callable[[Tile], bool],
    ys: NDArray[np.int64],
    xs: NDArray[np.int64],
    objects: NDArray[np.int64],
) -> list[Tile]:
    """Return tiles of locations and objects that fit, or the smallest there are.

    All objects of a position stay together if they can, since sinks close a position when they have
    seen all of them; then rows are kept whole, since locations of one tile share windows.
    """

    def all_fit(shape: Sequence[int]) -> bool:
        some = itertools.product(_some(_cut(ys, shape[0])), _some(_cut(xs, shape[1])))
        return all(fits(Tile(y, x, objects[: shape[2]])) for y, x in some)

    n_y, n_x, n_objects = _halved([len(ys), len(xs), len(objects)], (0, 1, 2), all_fit)
    return [
        Tile(y, x, chosen)
        for y in _cut(ys, n_y)
        for x in _cut(xs, n_x)
        for chosen in _cut(objects, n_objects)
    ]


def _halved(
    shape: Sequence[int], order: Sequence[int], fits: Callable[[Sequence[int]], bool]
) -> Sequence[int]:
    """Return the first shape that fits, halved along one axis in `order` after the other."""
    shape = list(shape)
    while not fits(shape):
        place = next((place for place in order if shape[place] > 1), None)
        if place is None:
            break
        shape[place] = math.ceil(shape[place] / 2)
    return shape


def _cut(values: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Return parts of nearly equal size, of at most `size`."""
    return list(np.array_split(values, math.ceil(len(values) / size)))


def _some(parts: Sequence[T]) -> list[T]:
    """Return the first, the middle and the last part."""
    return [parts[place] for place in sorted({0, len(parts) // 2, len(parts) - 1})]


def cut_tiles(shape: Sequence[int], design: Design) -> list[Tile]:
    """Return all tiles of a recording, `shape` (objects, rows, columns) but for the last ones.

    Examples
    --------
    >>> from elsewhere.axes import Axes
    >>> design = Design(("a",), ("a",), Axes.of(y=(4, 5, 6), x=(4, 5)), (4, 4))
    >>> [tile.shape for tile in cut_tiles((1, 2, 2), design)]
    [(2, 2, 1), (1, 2, 1)]
    """
    return [
        Tile(np.arange(*rows), np.arange(*columns), np.arange(*objects))
        for rows, columns, objects in itertools.product(*_parts(shape, design))
    ]


def _some_tiles(shape: Sequence[int], design: Design) -> list[Tile]:
    """Return tiles at corners, edges and in the middle, of the first objects."""
    rows, columns, objects = _parts(shape, design)
    return [
        Tile(np.arange(*y), np.arange(*x), np.arange(*objects[0]))
        for y, x in itertools.product(_some(rows), _some(columns))
    ]


def _parts(shape: Sequence[int], design: Design) -> list[list[tuple[int, int]]]:
    """Return first and last (excluded) row, column and object of each part."""
    n_objects, n_y, n_x = shape
    lengths = (*design.shape, len(design.objects))
    return [
        [(first, min(first + size, length)) for first in range(0, length, size)]
        for size, length in zip((n_y, n_x, n_objects), lengths, strict=True)
    ]
