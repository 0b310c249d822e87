"""Named axes along which an object is shown: where it stands, and what else about it changes.

``y`` and ``x`` *move the window* in which an object is pasted; every other axis (scale, rotation,
contrast, one of a user's own) *changes the object* before it is pasted, by a registered function
(:mod:`elsewhere.stimuli.transformations`). A position is a flat index into the axes, the last one
running fastest. Distances and displacements run over the axes that move.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import InputError

Coordinate: TypeAlias = Any
"""A whole number of px along axes that move the window, any number along others."""


@dataclass(frozen=True)
class Axis:
    """An axis and its coordinates, which ascend strictly.

    Its unit is such as ``px`` or ``degree``; ``1`` for ratios. It moves the window in which the
    object stands, or else changes the object.

    Raises
    ------
    InputError
        There are no values, or they do not ascend strictly, or are not finite.

    Examples
    --------
    >>> len(Axis("x", (5, 7, 9)))
    3
    """

    name: str
    values: tuple[Coordinate, ...]
    unit: str = "px"
    moves: bool = True

    def __post_init__(self) -> None:
        if not self.values:
            raise InputError(f"the axis {self.name} has no values; give at least one")
        if not all(map(math.isfinite, self.values)):
            raise InputError(f"the axis {self.name} has values that are not finite: {self.spec}")
        if any(later <= earlier for earlier, later in itertools.pairwise(self.values)):
            raise InputError(f"the axis {self.name} must ascend strictly; got {self.spec}")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def spec(self) -> str:
        """The values with commas between, as :meth:`parse` reads them."""
        return ",".join(f"{value:g}" for value in self.values)

    @classmethod
    def parse(cls, text: str, unit: str = "1") -> Axis:
        """Return the axis that changes objects as `text` says.

        It is ``scale=0.5:2:5`` (five values from .5 to 2, evenly spaced) or ``scale=0.5,1,2``.

        Raises
        ------
        InputError
            The text cannot be read.

        Examples
        --------
        >>> Axis.parse("scale=0.5:2:4").values
        (0.5, 1.0, 1.5, 2.0)
        """
        name, equals, given = (part.strip() for part in text.partition("="))
        number = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
        values: Iterable[float]
        if match := re.fullmatch(rf"({number}):({number}):(\d{{1,6}})", given):
            first, last, count = float(match[1]), float(match[2]), int(match[3])
            values = np.linspace(first, last, count).round(12).tolist()
        elif name and equals and re.fullmatch(rf"{number}(?:\s*,\s*{number})*", given):
            values = sorted(map(float, given.split(",")))
        else:
            raise InputError(
                f"cannot read {text!r} as an axis; expected NAME=FIRST:LAST:COUNT or "
                "NAME=VALUE,VALUE,..., such as scale=0.5:2:5"
            )
        return cls(name, tuple(values), unit, moves=False)


@dataclass(frozen=True)
class Axes:
    """An ordered product of axes, outermost first; positions count in row-major order.

    Raises
    ------
    InputError
        Two axes share a name.

    Examples
    --------
    >>> axes = Axes.of(y=(5, 9), x=(5, 7, 9))
    >>> axes.shape, axes.index((9, 7)), axes.nearest((6, 8))
    ((2, 3), 4, (5, 7))
    """

    each: tuple[Axis, ...]

    def __post_init__(self) -> None:
        for name in self.names:
            if self.names.count(name) > 1:
                raise InputError(f"the axis {name} is given twice; give all its values at once")

    @classmethod
    def of(cls, **values: Sequence[Coordinate]) -> Axes:
        """Return axes that move the window, px: ``Axes.of(y=(5, 9), x=(5, 7, 9))``."""
        return cls(tuple(Axis(name, tuple(each)) for name, each in values.items()))

    @classmethod
    def read(cls, fields: Iterable[Sequence[Any]]) -> Axes:
        """Return axes from what :attr:`fields` gave; a unit is told of those that do not move."""
        return cls(
            tuple(
                Axis(str(name), tuple(values), unit=str(unit[0]) if unit else "px", moves=not unit)
                for name, values, *unit in fields
            )
        )

    @property
    def fields(self) -> list[list[Any]]:
        """The axes in plain words, for files and digests: name, values, unit unless it moves."""
        return [
            [axis.name, list(axis.values), *([] if axis.moves else [axis.unit])] for axis in self
        ]

    def __iter__(self) -> Iterator[Axis]:
        return iter(self.each)

    def __getitem__(self, name: str) -> Axis:
        return self.each[self.names.index(name)]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the axes."""
        return tuple(axis.name for axis in self.each)

    @property
    def values(self) -> tuple[tuple[Any, ...], ...]:
        """Coordinates along each axis."""
        return tuple(axis.values for axis in self.each)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of coordinates along each axis."""
        return tuple(map(len, self.each))

    @property
    def n_positions(self) -> int:
        """Number of positions; 1 where there is no axis."""
        return math.prod(self.shape)

    @property
    def moving(self) -> Axes:
        """The axes that move the window."""
        return Axes(tuple(axis for axis in self.each if axis.moves))

    @property
    def changing(self) -> Axes:
        """The axes that change the object."""
        return Axes(tuple(axis for axis in self.each if not axis.moves))

    @property
    def positions(self) -> NDArray[Any]:
        """Coordinates of all positions, shape (position, axis): int64 where all are integers."""
        return np.array(list(itertools.product(*self.values))).reshape(
            self.n_positions, len(self.each)
        )

    def with_reference(self, reference: Sequence[Coordinate]) -> list[tuple[Coordinate, ...]]:
        """Return all positions in order, and after them the reference where it is on none."""
        found = list(itertools.product(*self.values))
        return found if tuple(reference) in found else [*found, tuple(reference)]

    def coordinates(self, prefix: str = "") -> dict[str, Any]:
        """Return the axes as coordinates of a ``xarray.Dataset``, with their units."""
        return {
            prefix + axis.name: (prefix + axis.name, list(axis.values), {"units": axis.unit})
            for axis in self
        }

    def index(self, position: Sequence[Coordinate]) -> int | None:
        """Return the flat index of a position, or None where it is not on the axes."""
        if len(position) != len(self.each):
            return None
        found = []
        for axis, value in zip(self.each, position, strict=True):
            if value not in axis.values:
                return None
            found.append(axis.values.index(value))
        return int(np.ravel_multi_index(found, self.shape))

    def nearest(self, position: Sequence[Coordinate]) -> tuple[Coordinate, ...]:
        """Return the nearest position on the axes; of two equally near, the first."""
        return tuple(
            min(axis.values, key=lambda value: abs(value - wanted))
            for axis, wanted in zip(self.each, position, strict=True)
        )

    def distance(self, position: ArrayLike) -> NDArray[np.float64]:
        """Return how far all positions are from one (Chebyshev, px), over the axes that move.

        Examples
        --------
        >>> Axes.of(y=(0,), x=(0, 5)).distance((0, 1)).tolist()
        [1.0, 4.0]
        """
        moving = [number for number, axis in enumerate(self.each) if axis.moves]
        steps = self.positions[:, moving] - np.asarray(position, np.float64)[moving]
        return np.asarray(np.abs(steps).max(axis=1, initial=0.0), np.float64)
