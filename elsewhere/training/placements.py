"""Environments: where a phase of training places its objects.

:func:`make_placement` turns a name such as ``one``, ``full`` or ``places:8`` into a
:class:`Placement`, which knows for each class and exemplar where it may stand;
:func:`place_only_accuracy` says how much of the class the place gives away. Imports no torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.registry import Registry
from elsewhere.stimuli import Canvas, parse_location
from elsewhere.types import Location

Boxes: TypeAlias = NDArray[np.int64]
"""(class, exemplar, choice, 4): rectangles of locations, first and last y, first and last x, px."""


@dataclass(frozen=True)
class EnvironmentRequest:
    """What an environment is asked for."""

    argument: str  # what follows the environment's name and a colon; empty where nothing does
    canvas: Canvas
    n_classes: int
    n_exemplars: int  # of each class
    seed: int  # of what is drawn once for a whole phase
    drawn: Location | None = None  # by the curriculum's seed, for all its phases


EnvironmentBuilder: TypeAlias = Callable[[EnvironmentRequest], Boxes]
environments: Registry[EnvironmentBuilder] = Registry("environment")


@dataclass(frozen=True, eq=False)
class Placement:
    """Where objects may stand: a choice of rectangles for each class and exemplar.

    At each presentation one of the rectangles is drawn, then a location within it, both uniformly.
    `boxes` are int64 (class, exemplar, choice, 4), px: first and last y, first and last x. The
    first two axes may have length 1 where classes or exemplars do not differ.

    Raises
    ------
    CanvasError
        A location is off the canvas.
    """

    spec: str
    canvas: Canvas
    n_classes: int
    boxes: Boxes

    def __post_init__(self) -> None:
        for corners in (self.boxes[..., ::2], self.boxes[..., 1::2]):
            rows = corners.reshape(-1, 2)
            for corner in (rows[rows.min(1).argmin()], rows[rows.max(1).argmax()]):
                self.canvas.check(corner.tolist())

    @property
    def same_for_classes(self) -> bool:
        """Whether every class may stand at the same places."""
        return len(self.boxes) == 1

    def density(self, category: int) -> NDArray[np.float64]:
        """Return how likely each location is for a class, over its exemplars.

        Returns
        -------
        float64 (y, x)
            Over the valid coordinates of the canvas; sums to 1.

        Examples
        --------
        >>> make_placement("full", Canvas(4, 2), n_classes=3).density(0)[0].round(3).tolist()
        [0.111, 0.111, 0.111]
        """
        side, low = len(self.canvas.valid), self.canvas.valid[0]
        shares = np.zeros((side, side))
        rows = self.boxes[category if len(self.boxes) > 1 else 0].reshape(-1, 4) - low
        for y0, y1, x0, x1 in rows:
            shares[y0 : y1 + 1, x0 : x1 + 1] += 1 / ((y1 - y0 + 1) * (x1 - x0 + 1))
        return np.asarray(shares / len(rows))

    def support(self, category: int) -> NDArray[np.bool_]:
        """Return at which locations a class may stand: bool (y, x) over the valid coordinates."""
        return np.asarray(self.density(category) > 0)

    def locations(self, category: int) -> NDArray[np.int64]:
        """Return where a class may stand: int64 (n, 2), y and x, px, in row-major order."""
        return np.argwhere(self.support(category)) + self.canvas.valid[0]


def make_placement(
    spec: str,
    canvas: Canvas,
    *,
    n_classes: int,
    n_exemplars: int = 1,
    seed: int = 0,
    drawn: Location | None = None,
) -> Placement:
    """Return the placement of the environment that `spec` names.

    It is a name in `environments`; ``places:N``, ``one:y,x``, ``one:seed`` and ``at:y,x;y,x`` take
    an argument. The seed draws which class, or exemplar, stands where; `drawn` is the location of
    ``one:seed``.

    Raises
    ------
    UnknownNameError
        No such environment.
    InputError
        An argument that is missing, not wanted or cannot be read, or more places than there are.
    CanvasError
        A location is off the canvas.

    Examples
    --------
    >>> make_placement("places:2", Canvas(20, 5), n_classes=10).locations(0).tolist()
    [[10, 2], [10, 17]]
    """
    name, _, argument = spec.strip().partition(":")
    if spec.strip() in environments:
        name, argument = spec.strip(), ""
    if name not in environments:
        raise UnknownNameError("environment", spec, environments)
    request = EnvironmentRequest(argument.strip(), canvas, n_classes, n_exemplars, seed, drawn)
    return Placement(spec, canvas, n_classes, environments.get(name)(request))


def place_only_accuracy(placement: Placement) -> float:
    """Return the accuracy of the best classifier that sees the location and nothing else.

    With equally frequent classes it is the sum over locations of the largest
    ``p(class) p(location | class)``; chance where every class stands everywhere, 1 where no two
    classes share a place.

    Examples
    --------
    >>> canvas = Canvas(20, 5)
    >>> place_only_accuracy(make_placement("fixed:point", canvas, n_classes=9))
    1.0
    >>> place_only_accuracy(make_placement("full", canvas, n_classes=8))
    0.125
    """
    best = placement.density(0)
    for category in range(1, 1 if placement.same_for_classes else placement.n_classes):
        best = np.maximum(best, placement.density(category))
    return round(float(best.sum() / placement.n_classes), 12)


@environments.register(
    "one", summary="one location: the left edge of the middle row, one:y,x, or one:seed: drawn"
)
def _one(request: EnvironmentRequest) -> Boxes:
    if request.argument == "seed":
        if request.drawn is None:
            raise InputError("one:seed needs the seed of a curriculum; name a location: one:y,x")
        return _points([request.drawn])
    return _points([parse_location(request.argument or "left", request.canvas)])


@environments.register("centre", summary="the middle of the canvas")
def _centre(request: EnvironmentRequest) -> Boxes:
    _refuse_argument("centre", request)
    return _points([request.canvas.centre])


@environments.register("places", summary="places:N, N places spread over the canvas")
def _places(request: EnvironmentRequest) -> Boxes:
    if not request.argument.isdecimal() or int(request.argument) < 1:
        raise InputError(
            f"the environment places:{request.argument} does not say how many; expected for "
            "example places:8"
        )
    count = int(request.argument)
    valid = request.canvas.valid
    rows = _shares(count, max(1, round(math.sqrt(count))))
    if max(len(rows), *rows) > len(valid):
        raise InputError(
            f"places:{count} does not fit: the canvas has {len(valid)} x {len(valid)} locations"
        )
    places = [
        (y, x)
        for y, columns in zip(_spread(valid, len(rows)), rows, strict=True)
        for x in _spread(valid, columns)
    ]
    return _points(places)


@environments.register("at", summary="at:y,x;y,x, places of your own")
def _at(request: EnvironmentRequest) -> Boxes:
    parts = [part for part in request.argument.split(";") if part.strip()]
    if not parts:
        raise InputError(
            "the environment at: names no location; expected for example at:24,5;24,42"
        )
    return _points([parse_location(part, request.canvas) for part in parts])


@environments.register("full", summary="everywhere: all valid locations are equally likely")
def _full(request: EnvironmentRequest) -> Boxes:
    _refuse_argument("full", request)
    low, high = request.canvas.valid[0], request.canvas.valid[-1]
    return np.array([[[[low, high, low, high]]]], np.int64)


@environments.register("fixed:point", summary="each class at a place of its own")
def _fixed_point(request: EnvironmentRequest) -> Boxes:
    places = _lattice(request.canvas, request.n_classes, "fixed:point")
    rng = np.random.default_rng(request.seed)
    chosen = places[rng.permutation(len(places))[: request.n_classes]]
    return _as_boxes(chosen[:, None, None])


@environments.register("fixed:cell", summary="each class within a cell of its own; they tile")
def _fixed_cell(request: EnvironmentRequest) -> Boxes:
    count, valid = request.n_classes, request.canvas.valid
    rows = _shares(count, max(1, round(math.sqrt(count))))
    if max(len(rows), *rows) > len(valid):
        raise InputError(
            f"fixed:cell has no cell for each of {count} classes: the canvas has {len(valid)} x "
            f"{len(valid)} locations; take fewer classes or a larger canvas"
        )
    # rows are as high as they have cells, so that all cells are about equally large
    tops = np.round(np.cumsum([0, *rows]) / count * len(valid)).astype(int)
    tops = np.maximum(tops, np.arange(len(tops)))
    tops = np.minimum(tops, len(valid) - np.arange(len(tops))[::-1])
    cells = []
    for row, columns in enumerate(rows):
        lefts = np.round(np.linspace(0, len(valid), columns + 1)).astype(int)
        for left, right in itertools.pairwise(lefts):
            cells.append((tops[row], tops[row + 1] - 1, left, right - 1))
    order = np.random.default_rng(request.seed).permutation(count)
    boxes = np.array(cells, np.int64)[order] + valid[0]
    return np.asarray(boxes[:, None, None])


SHARING = 4
"""At least so many classes share a place in ``fixed:shared``."""


@environments.register("fixed:shared", summary="four classes or more share a place")
def _fixed_shared(request: EnvironmentRequest) -> Boxes:
    if request.n_classes < SHARING:
        raise InputError(
            f"fixed:shared lets {SHARING} classes or more share a place; got "
            f"{request.n_classes}; take more classes or another environment"
        )
    count = request.n_classes // SHARING
    places = _lattice(request.canvas, count, "fixed:shared")
    rng = np.random.default_rng(request.seed)
    places = places[rng.permutation(len(places))[:count]]
    group = np.empty(request.n_classes, np.int64)
    group[rng.permutation(request.n_classes)] = np.arange(request.n_classes) % count
    return _as_boxes(places[group][:, None, None])


@environments.register("pinned", summary="each exemplar at its place; the class covers the canvas")
def _pinned(request: EnvironmentRequest) -> Boxes:
    places = _lattice(request.canvas, request.n_exemplars, "pinned")
    rng = np.random.default_rng(request.seed)
    orders = [rng.permutation(len(places))[: request.n_exemplars] for _ in range(request.n_classes)]
    return _as_boxes(places[np.stack(orders)][:, :, None])


def _refuse_argument(name: str, request: EnvironmentRequest) -> None:
    if request.argument:
        raise InputError(
            f"the environment {name} takes no argument; got {name}:{request.argument}; "
            f"write {name}, or one:y,x for a location of your own"
        )


def _points(places: list[tuple[int, int]]) -> Boxes:
    return _as_boxes(np.array(places, np.int64)[None, None])


def _as_boxes(places: NDArray[np.int64]) -> Boxes:
    return np.asarray(np.repeat(places, 2, axis=-1), np.int64)


def _lattice(canvas: Canvas, count: int, name: str) -> NDArray[np.int64]:
    """Return at least `count` places of a square lattice from edge to edge, (n, 2)."""
    side = math.ceil(math.sqrt(count))
    if side > len(canvas.valid):
        raise InputError(
            f"{name} needs {count} places: the canvas has {len(canvas.valid)} x "
            f"{len(canvas.valid)} locations; take fewer classes or exemplars, or a larger canvas"
        )
    axis = _spread(canvas.valid, side)
    return np.array([(y, x) for y in axis for x in axis], np.int64)


def _spread(valid: range, count: int) -> list[int]:
    if count == 1:
        return [(valid[0] + valid[-1] + 1) // 2]
    return [int(value) for value in np.floor(np.linspace(valid[0], valid[-1], count) + 0.5)]


def _shares(count: int, parts: int) -> list[int]:
    """Return `count` divided among `parts` as evenly as can be, larger shares first."""
    return [count // parts + (part < count % parts) for part in range(parts)]
