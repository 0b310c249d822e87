"""Windows along one axis: which cells of a map an object can change, for every location.

An object at a location changes a stretch of cells along each axis of a feature map; outside, the
map equals the empty canvas's. The axes are independent, so all of this is arithmetic on one axis.
Locations whose windows must hold equal values are of one *class*: their windows come from one
class in the map below, lie alike within what is read around them, and what is read besides them
lies where the empty canvas's map is constant.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

LENGTHS = 5
"""Windows that are widened have lengths that are multiples of one of so many parts of the longest:
a border cuts them at most by half."""

Numbers: TypeAlias = NDArray[np.int64]
Interval: TypeAlias = tuple[int, int]
"""First cell and the one after the last."""


@dataclass(frozen=True, eq=False)
class AxisWindows:
    """The windows of all locations along one axis of a map, in cells.

    Each window lies on the map and has at least one cell. The windows of a class have one length
    and equal values.
    """

    size: int  # of the map
    start: Numbers
    length: Numbers
    classes: Numbers
    constant: Interval  # where the empty canvas's map does not vary

    @classmethod
    def of_canvas(cls, size: int, object_size: int, locations: Sequence[int]) -> AxisWindows:
        """Return the windows of the objects themselves, on a canvas of `size` px.

        Examples
        --------
        >>> AxisWindows.of_canvas(24, 8, [4, 12]).start.tolist()
        [0, 8]
        """
        start = np.asarray(locations, dtype=np.int64) - object_size // 2
        length = np.full_like(start, object_size)
        return cls(size, start, length, np.zeros_like(start), (0, size))

    @cached_property
    def first(self) -> Numbers:
        """A location of each class, shape (class,)."""
        return np.unique(self.classes, return_index=True)[1]

    def class_lengths(self, chosen: Numbers) -> Numbers:
        """Return the window length of each of the `chosen` classes."""
        lengths: Numbers = self.length[self.first[chosen]]
        return lengths

    def widened(self, constant: Interval) -> AxisWindows:
        """Return the axis with the longer one of two constant intervals."""
        longer = max(self.constant, constant, key=lambda interval: interval[1] - interval[0])
        return replace(self, constant=longer)


@dataclass(frozen=True)
class Slide:
    """How a sliding operation runs along one axis.

    One output cell reads `extent` cells, ``dilation * (kernel - 1) + 1`` from the first to the
    last; there are `size` of them, and `pad` cells in front of the map.

    Examples
    --------
    >>> Slide(3, 2, 1, 12).reads(0, 2)
    (-1, 4)
    """

    extent: int
    stride: int
    pad: int
    size: int

    def reads(self, start: Any, stop: Any) -> tuple[Any, Any]:
        """Return the input cells that the output cells from `start` to `stop` read."""
        first = start * self.stride - self.pad
        return first, (stop - 1) * self.stride - self.pad + self.extent

    def changes(self, start: int, stop: int) -> Interval:
        """Return the output cells that read any of the input cells from `start` to `stop`.

        Where none does, the nearest one is returned, so that a window is never without cells.
        """
        first = max(0, -((self.extent - 1 + (-start) - self.pad) // self.stride))
        last = min(self.size - 1, (stop - 1 + self.pad) // self.stride)
        if first > last:
            first = last = min(max(last, 0), self.size - 1)
        return first, last + 1

    def constant(self, interval: Interval) -> Interval:
        """Return the output cells that read cells of a constant `interval` only."""
        low, high = interval
        first = max(0, -((-low - self.pad) // self.stride))
        last = min(self.size - 1, (high - self.extent + self.pad) // self.stride)
        middle = self.size // 2
        return (first, last + 1) if first <= last else (middle, middle)


@dataclass(frozen=True, eq=False)
class AxisReading:
    """What each location reads of a map below, along one axis.

    The cells that are read may lie beyond the map, where the operation pads.
    """

    source: AxisWindows
    start: Numbers
    length: Numbers

    @property
    def is_window(self) -> bool:
        """Whether every location reads exactly its window."""
        same = self.start is self.source.start or np.array_equal(self.start, self.source.start)
        return same and np.array_equal(self.length, self.source.length)


def slide(
    axis: AxisWindows, along: Slide, *, even: bool = False
) -> tuple[AxisWindows, AxisReading]:
    """Return the windows after a sliding operation, and what they read.

    If `even`, windows are widened to few lengths (:func:`_widen`).

    Examples
    --------
    >>> before = AxisWindows.of_canvas(24, 8, [4, 8, 12, 20])
    >>> after, reading = slide(before, Slide(extent=3, stride=1, pad=1, size=24))
    >>> after.start.tolist(), after.length.tolist(), after.classes.tolist()
    ([0, 3, 7, 15], [9, 10, 10, 9], [0, 1, 1, 2])
    """
    stops = axis.start + axis.length
    changed = [along.changes(int(a), int(b)) for a, b in zip(axis.start, stops, strict=True)]
    start, stop = np.array(changed, dtype=np.int64).T
    length = stop - start
    if even:
        start, length = _widen(start, length, along.size)
    first, last = along.reads(start, start + length)
    reading = AxisReading(axis, first, last - first)
    classes, constant = _number(_keys(reading)), along.constant(axis.constant)
    return AxisWindows(along.size, start, length, classes, constant), reading


def merge(
    axes: Sequence[AxisWindows], *, even: bool = False
) -> tuple[AxisWindows, tuple[AxisReading, ...]]:
    """Return the windows of a sum or a concatenation of maps of one size, and what is read of each.

    `even` is as for :func:`slide`.

    Examples
    --------
    >>> small = AxisWindows.of_canvas(24, 8, [4, 12])
    >>> large, _ = slide(small, Slide(3, 1, 1, 24))
    >>> union, _ = merge([small, large])
    >>> union.start.tolist(), union.length.tolist()
    ([0, 7], [9, 10])
    """
    start = np.min([axis.start for axis in axes], axis=0)
    length = np.max([axis.start + axis.length for axis in axes], axis=0) - start
    if even:
        start, length = _widen(start, length, axes[0].size)
    readings = tuple(AxisReading(axis, start, length) for axis in axes)
    low = max(axis.constant[0] for axis in axes)
    high = min(axis.constant[1] for axis in axes)
    constant = (low, high) if low < high else (axes[0].size // 2,) * 2
    keys = list(zip(*map(_keys, readings), strict=True))
    return AxisWindows(axes[0].size, start, length, _number(keys), constant), readings


def _widen(start: Numbers, length: Numbers, size: int) -> tuple[Numbers, Numbers]:
    """Return windows of about five lengths at most: some more cells, and far fewer calls.

    Examples
    --------
    >>> _widen(np.array([0, 3, 19]), np.array([11, 14, 9]), 28)
    (array([ 0,  3, 19]), array([12, 14,  9]))
    """
    longest = int(length.max())
    step = max(1, round(longest / LENGTHS))
    length = np.minimum(-(-length // step) * step, longest)
    return np.minimum(start, size - length), length


def _keys(reading: AxisReading) -> list[Hashable]:
    """Return what decides on the values that each location reads."""
    axis, keys = reading.source, []
    low, high = axis.constant
    for place, (start, length) in enumerate(zip(reading.start, reading.length, strict=True)):
        window, stop = int(axis.start[place]), int(axis.start[place] + axis.length[place])
        alike = low <= start and start + length <= high
        # what is read is all window: nothing of the empty canvas takes part
        alike = alike or (window <= start and start + length <= stop)
        position = None if alike else int(start)
        keys.append((int(axis.classes[place]), window - int(start), int(length), position))
    return list(keys)


def _number(keys: Sequence[Hashable]) -> Numbers:
    """Return consecutive numbers that are equal where keys are."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
