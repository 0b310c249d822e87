"""Grids: the locations at which every object is shown, as a product of named axes."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.axes import Axes
from elsewhere.errors import CanvasError
from elsewhere.stimuli.canvas import Canvas
from elsewhere.types import Location

FORMS = "stride:K, NxM, all, at:y,x;y,x;..."


@dataclass(frozen=True)
class Grid:
    """The product of ordered, named axes of coordinates; positions count in row-major order.

    Parameters
    ----------
    y, x
        Strictly ascending coordinates of the locations, px.

    Raises
    ------
    CanvasError
        An axis is empty or not strictly ascending.

    Examples
    --------
    >>> grid = Grid(y=(3, 5), x=(1, 2, 4))
    >>> grid.shape, len(grid), grid.locations[3].tolist()
    ((2, 3), 6, [5, 1])
    """

    y: tuple[int, ...]
    x: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, values in (("y", self.y), ("x", self.x)):
            if not values:
                raise CanvasError(
                    f"the grid has no location along {name}; give at least one ({FORMS})"
                )
            if any(later <= earlier for earlier, later in itertools.pairwise(values)):
                raise CanvasError(
                    f"the grid's axis {name} must ascend strictly; got {list(values)}"
                )

    @property
    def axes(self) -> Axes:
        """Its two axes."""
        return Axes.of(y=self.y, x=self.x)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of coordinates along y and x."""
        return len(self.y), len(self.x)

    def __len__(self) -> int:
        return len(self.y) * len(self.x)

    @property
    def locations(self) -> NDArray[np.int64]:
        """All locations in row-major order: int64 (n, 2), px."""
        return self.axes.positions

    @property
    def spec(self) -> str:
        """The grid as ``at:y,x;...``, which `parse` reads back."""
        return "at:" + ";".join(",".join(map(str, place)) for place in self.locations.tolist())

    @property
    def default_reference(self) -> Location:
        """The leftmost location of the middle row (row ``n // 2``)."""
        return self.y[len(self.y) // 2], self.x[0]

    def far_from(self, trained: ArrayLike, distance: float) -> NDArray[np.bool_]:
        """Return which locations are at least `distance` (Chebyshev) from every trained one.

        Parameters
        ----------
        trained
            Locations (m, 2), px.
        distance
            In px.

        Returns
        -------
        bool (n,)

        Examples
        --------
        >>> Grid((0,), (0, 5, 10)).far_from([(0, 0)], 5).tolist()
        [False, True, True]
        """
        gaps = [self.axes.distance(place) for place in np.asarray(trained).reshape(-1, 2)]
        return np.asarray((np.array(gaps).reshape(-1, len(self)) >= distance).all(axis=0))

    def check(self, canvas: Canvas) -> Grid:
        """Return the grid itself.

        Raises
        ------
        CanvasError
            A location is off the canvas.
        """
        for place in itertools.product((self.y[0], self.y[-1]), (self.x[0], self.x[-1])):
            canvas.check(place)
        return self

    @classmethod
    def parse(cls, spec: str, canvas: Canvas) -> Grid:
        """Return the grid that `spec` describes on `canvas`.

        Parameters
        ----------
        spec
            ``stride:K`` (every K px from the first valid location on, and always the last),
            ``NxM`` (N along y, M along x: ``floor(linspace(first, last, N) + 0.5)``; one stands in
            the middle), ``all``, or ``at:y,x;y,x;...``, which must form a full product.
        canvas
            What the locations must lie on.

        Raises
        ------
        CanvasError
            `spec` cannot be read, is empty, or has a location off the canvas.

        Examples
        --------
        >>> Grid.parse("stride:4", Canvas(20, 5)).y
        (2, 6, 10, 14, 17)
        >>> Grid.parse("1x3", Canvas(20, 5))
        Grid(y=(10,), x=(2, 10, 17))
        """
        spec = spec.strip()
        valid = canvas.valid
        if spec == "all":
            return cls(tuple(valid), tuple(valid))
        if match := re.fullmatch(r"stride:(\d+)", spec):
            axis = _strided(valid, int(match.group(1)))
            return cls(axis, axis)
        if match := re.fullmatch(r"(\d+)x(\d+)", spec):
            return cls(*(_spread(valid, int(count), spec) for count in match.groups()))
        if spec.startswith("at:"):
            return _product(spec[len("at:") :], canvas)
        raise CanvasError(f"cannot read {spec!r} as a grid; expected one of {FORMS}")


def parse_location(text: str, canvas: Canvas, grid: Grid | None = None) -> Location:
    """Return the location that `text` names.

    Parameters
    ----------
    text
        ``y,x``, ``centre``, or ``left``: the grid's default reference, or without a grid the
        leftmost location of the canvas's middle row.
    canvas
        What the location must lie on.
    grid
        The grid that ``left`` refers to.

    Raises
    ------
    CanvasError
        `text` cannot be read, or the location is off the canvas.

    Examples
    --------
    >>> parse_location("left", Canvas(20, 5)), parse_location("4,6", Canvas(20, 5))
    ((10, 2), (4, 6))
    """
    text = text.strip()
    if text in ("centre", "center"):
        return canvas.centre
    if text == "left":
        return (canvas.centre[0], canvas.valid[0]) if grid is None else grid.default_reference
    return canvas.check(_coordinates(text))


def _coordinates(text: str) -> Location:
    match = re.fullmatch(r"\s*(-?\d+)\s*,\s*(-?\d+)\s*", text)
    if match is None:
        raise CanvasError(f"cannot read {text!r} as a location; expected y,x or left or centre")
    return int(match.group(1)), int(match.group(2))


def _strided(valid: range, stride: int) -> tuple[int, ...]:
    if stride < 1:
        raise CanvasError("the grid stride:0 is empty; expected a stride of 1 px or more")
    return tuple(sorted({*valid[::stride], valid[-1]}))


def _spread(valid: range, count: int, spec: str) -> tuple[int, ...]:
    if count > len(valid):
        raise CanvasError(
            f"the grid {spec!r} asks for {count} locations along an axis that has {len(valid)}; "
            "ask for fewer, or all"
        )
    if count == 1:
        return ((valid[0] + valid[-1] + 1) // 2,)
    spaced = np.floor(np.linspace(valid[0], valid[-1], count) + 0.5)
    return tuple(int(value) for value in spaced)


def _product(text: str, canvas: Canvas) -> Grid:
    given = {canvas.check(_coordinates(part)) for part in text.split(";") if part.strip()}
    grid = Grid(*(tuple(sorted({place[axis] for place in given})) for axis in range(2)))
    for place in itertools.product(grid.y, grid.x):
        if place not in given:
            raise CanvasError(
                f"the grid at:{text} is no full product of y and x: {place[0]},{place[1]} is "
                "missing; add it, or run the locations apart"
            )
    return grid
