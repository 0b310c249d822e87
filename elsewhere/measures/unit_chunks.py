"""Activations in stretches of units: what every measure over all locations is summed from.

A whole layer of all objects at all locations need not fit the memory. All measures here are sums
over units (dot products, squared distances, sums of squares) or belong to one unit each (variance),
so that they can be taken one stretch of units after the other. The pure functions of this package
take one stretch that is everything; the analyses, as many as the memory asks for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import InputError, NumericsError, UnknownNameError
from elsewhere.measures.vectors import as_recorded, means, negligible, squared_norms
from elsewhere.protocols import Array

ROUNDING = {"half": 5e-4, "single": 3e-7, "double": 1e-12}
"""What rounding may change of a vector, as a share of its length, by the precision of its values:
a few units in the last place, or half a unit where only storing rounds. Differences below it are
none."""
COLUMN_BYTES = 2**22
"""What :meth:`Stretch.columns` converts to double precision at a time."""
PIECE_BYTES = 2**22
"""What of one object, or of one location, a piece of a stretch takes in double precision, about."""
WORKING_BYTES = 4 * PIECE_BYTES + 6 * COLUMN_BYTES
"""What the measures take up beside a stretch and their own sums, about."""
REMOVALS = ("cosine", "centred", "centred-by-place", "evoked", "pearson")
BY_PLACE = "centred-by-place"
CENTRED = ("centred", BY_PLACE)
"""Metrics that remove a mean over objects. Silent objects, all zero at all locations, are left out
of it and of every mean: less a mean they would be alike everywhere."""

Floats = NDArray[np.float64]
Values = NDArray[np.floating]


def precision_of(values: Array, half: bool) -> str:
    """Return in which precision values are known; `half`, if they were stored in that."""
    return "half" if half else "double" if values.dtype.itemsize == 8 else "single"


def check_activations(activations: ArrayLike) -> Values:
    """Return activations as float32 or float64 of shape (object, location, unit).

    They come as (object, location, ...), numbers; what comes after is taken as units. An
    ``InputError`` refuses fewer than three dimensions, or none of something; a ``NumericsError``
    NaN and infinity.

    Examples
    --------
    >>> check_activations(np.zeros((2, 3, 4, 5, 5), "float16")).shape
    (2, 3, 100)
    """
    values = as_recorded(np.asarray(activations))
    if values.ndim < 3 or 0 in values.shape or values.dtype.kind not in "fiub":
        raise InputError(
            f"activations have shape {values.shape} and type {values.dtype}; expected numbers of "
            "shape (object, location, unit), at least one of each"
        )
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    values = values.reshape(*values.shape[:2], -1)
    if not np.isfinite(values).all():
        where = np.argwhere(~np.isfinite(values))[0]
        raise NumericsError(
            f"activations hold NaN or infinity, first for object {where[0]} at location "
            f"{where[1]}; leave that object or location out, or record again"
        )
    return values


@dataclass
class Lengths:
    """One over the length of every vector after something is removed, shape (object, location).

    `inverse` is 0 where the vector is zero, and `offsets` are the means over units that ``pearson``
    removes. `dead` vectors were zero before anything was removed, and `nothing` marks those of
    metrics that remove a mean over objects.
    """

    inverse: Floats
    offsets: Floats
    nothing: NDArray[np.bool_]
    dead: NDArray[np.bool_]

    @classmethod
    def empty(cls, n_objects: int, n_locations: int) -> Lengths:
        """Return lengths to be filled in."""
        shape = (n_objects, n_locations)
        nowhere = (np.zeros(shape, dtype=bool) for _ in range(2))
        return cls(np.zeros(shape), np.zeros(shape), *nowhere)

    @property
    def living(self) -> NDArray[np.bool_]:
        """The objects that are not silent; all of them where none is left."""
        return living_of(self.nothing)

    def leave_out_silent(self) -> None:
        """Take vectors of silent objects as zero, once all are filled in."""
        self.inverse[~self.living] = 0.0

    @property
    def zero_share(self) -> float:
        """Share of zero vectors."""
        return float(((self.inverse == 0) | self.nothing).mean())

    def fill(
        self,
        objects: NDArray[np.int64],
        locations: NDArray[np.int64],
        rows: Values,
        metric: str,
        origin: Values | None,
        width: int = COLUMN_BYTES,
    ) -> None:
        """Take some whole vectors, shape (row, unit), `width` units at a time."""
        raw = np.sqrt(squared_norms(rows))
        if not np.isfinite(raw).all():
            raise NumericsError(
                "activations hold NaN or infinity, or values above 1e19; check the weights and "
                "the input"
            )
        lengths, offsets = raw, np.zeros(len(rows))
        if metric == "pearson":
            offsets = means(rows)
        if metric != "cosine":
            squares = np.zeros(len(rows))
            for start in range(0, rows.shape[1], width):
                chosen = slice(start, start + width)
                less = None if origin is None else origin[..., chosen]
                squares += squared_norms(remove(rows[:, chosen], less, offsets))
            lengths = np.sqrt(squares)
        self.dead[objects, locations] = raw == 0
        zero = lengths <= negligible(rows) * raw
        self.inverse[objects, locations] = np.where(zero, 0.0, 1 / np.where(zero, 1.0, lengths))
        self.offsets[objects, locations] = offsets
        self.nothing[objects, locations] = (raw == 0) & (metric in CENTRED)


def living_of(nothing: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which objects have some vector that is not zero, or all where none has.

    Examples
    --------
    >>> living_of(np.array([[True, False], [True, True]]))
    array([ True, False])
    """
    living: NDArray[np.bool_] = np.logical_not(nothing.all(axis=1))
    return living | (not living.any())


def remove(rows: Values, origin: Values | None, offsets: Floats) -> Floats:
    """Return rows less an origin (unit,), or one each, and an offset each, in double precision."""
    if origin is None:
        return np.subtract(rows, offsets[:, None], dtype=np.float64)
    found: Floats = np.subtract(rows, origin, dtype=np.float64)
    if offsets.any():
        found -= offsets[:, None]
    return found


@dataclass
class Stretch:
    """Some units of all objects at all locations.

    Parameters
    ----------
    values
        Shape (object, location, unit), float32 or float64, as they were recorded.
    codes
        int (object,), the category of each.
    first
        The first unit's number.
    empty
        The empty canvas's activation of these units, shape (unit,).
    lengths
        By what is removed: the vectors' lengths over *all* units. Those that are missing are taken
        from `values`, which then hold all units.
    half
        Whether the values were stored in half precision.

    Examples
    --------
    >>> stretch = Stretch(np.array([[[3.0, 4.0], [0.0, 2.0]]]), codes=np.array([0]))
    >>> stretch.units("cosine", 0)
    array([[0.6, 0.8],
           [0. , 1. ]])
    """

    values: Values
    codes: NDArray[np.int64]
    first: int = 0
    empty: Values | None = None
    lengths: dict[str, Lengths] = field(default_factory=dict)
    origins: dict[str, Values | None] = field(default_factory=dict)
    half: bool = False
    _parent: Stretch | None = None

    @property
    def rounding(self) -> float:
        """The share of a vector's length that rounding may change."""
        return ROUNDING[precision_of(self.values, self.half)]

    @classmethod
    def whole(
        cls,
        activations: ArrayLike,
        categories: Sequence[object] | None = None,
        empty: ArrayLike | None = None,
    ) -> Stretch:
        """Return one stretch that holds everything, checked."""
        values = check_activations(activations)
        n = len(values)
        names = list(range(n)) if categories is None else list(categories)
        if len(names) != n:
            raise InputError(f"{len(names)} categories for {n} objects; give one for each")
        order = list(dict.fromkeys(names))
        codes = np.array([order.index(name) for name in names], dtype=np.int64)
        background = None
        if empty is not None:
            background = np.asarray(empty, dtype=values.dtype).ravel()
            if background.shape != values.shape[2:]:
                raise InputError(
                    f"the empty canvas's activation has {background.size} units; expected "
                    f"{values.shape[2]}, as the activations have"
                )
        half = getattr(activations, "dtype", None) == np.float16
        return cls(values, codes, empty=background, half=half)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Objects, locations, units."""
        n, n_locations, n_units = self.values.shape
        return n, n_locations, n_units

    def origin(self, metric: str) -> Values | None:
        """Return what `metric` removes, shape (unit,), or (location, unit), or None."""
        if metric not in REMOVALS:
            raise UnknownNameError("metric", metric, REMOVALS)
        if metric not in self.origins and self._parent is not None:
            whole = self._parent.origin(metric)
            start = self.first - self._parent.first
            stop = start + self.values.shape[2]
            self.origins[metric] = None if whole is None else whole[..., start:stop]
        if metric not in self.origins:
            found: Values | None = None
            if metric == "evoked":
                if self.empty is None:
                    raise InputError(
                        "metric 'evoked' needs the empty canvas's activation; give `empty`"
                    )
                found = self.empty
            elif metric in CENTRED:
                n_living = max(1, sum(bool(rows.any()) for rows in self.values))
                if metric == BY_PLACE:
                    found = self.values.sum(axis=0, dtype=np.float64) / n_living
                else:
                    total = np.zeros(self.values.shape[2])
                    for rows in self.values:
                        total += rows.sum(axis=0, dtype=np.float64)
                    found = total / (n_living * self.values.shape[1])
            self.origins[metric] = found
        return self.origins[metric]

    def lengths_of(self, metric: str) -> Lengths:
        """Return the vectors' lengths after what `metric` removes."""
        if metric not in self.lengths:
            if self._parent is not None:
                return self._parent.lengths_of(metric)
            n, n_locations, _ = self.values.shape
            every, origin = np.arange(n_locations), self.origin(metric)
            found = Lengths.empty(n, n_locations)
            for number, rows in enumerate(self.values):
                objects = np.full(n_locations, number)
                found.fill(objects, every, rows, metric, origin, width=self._width)
            found.leave_out_silent()
            self.lengths[metric] = found
        return self.lengths[metric]

    @property
    def _width(self) -> int:
        """Units of a piece."""
        n, n_locations, _ = self.values.shape
        width: int = PIECE_BYTES // (8 * max(n, n_locations))
        return max(128, width)

    def pieces(self) -> Iterator[Stretch]:
        """Yield narrow stretches one after the other, views that know the whole lengths."""
        for start in range(0, self.values.shape[2], self._width):
            chosen = slice(start, start + self._width)
            yield Stretch(
                self.values[:, :, chosen],
                self.codes,
                first=self.first + start,
                empty=None if self.empty is None else self.empty[chosen],
                lengths=self.lengths,
                half=self.half,
                _parent=self,
            )

    def units(self, metric: str, number: int) -> Floats:
        """Return one object's vectors of length one, shape (location, unit); zero ones stay."""
        found = self.lengths_of(metric)
        offsets, inverse = found.offsets[number], found.inverse[number]
        return self._scaled(self.origin(metric), self.values[number], offsets, inverse)

    def units_at(self, metric: str, location: int) -> Floats:
        """Return all objects' vectors of length one at a location, shape (object, unit)."""
        found = self.lengths_of(metric)
        offsets, inverse = found.offsets[:, location], found.inverse[:, location]
        origin = self.origin(metric)
        if origin is not None and origin.ndim > 1:
            origin = origin[location]
        return self._scaled(origin, self.values[:, location], offsets, inverse)

    @staticmethod
    def _scaled(origin: Values | None, rows: Values, offsets: Floats, inverse: Floats) -> Floats:
        """Return rows of length one, in double precision: 1 - cosine keeps its digits."""
        if origin is None and not offsets.any():
            return np.multiply(rows, inverse[:, None], dtype=np.float64)
        units = remove(rows, origin, offsets)
        units *= inverse[:, None]
        return units

    def columns(self) -> Iterator[tuple[slice, Floats]]:
        """Yield a few units after the other in double precision, shape (object, location, few)."""
        n, n_locations, n_units = self.values.shape
        step = max(1, COLUMN_BYTES // (8 * n * n_locations))
        for start in range(0, n_units, step):
            chosen = slice(start, min(start + step, n_units))
            yield chosen, self.values[:, :, chosen].astype(np.float64)


class Tally(Protocol):
    """Sums something over stretches of units."""

    def add(self, stretch: Stretch) -> None:
        """Add a stretch of units."""


def add_all(stretch: Stretch, *tallies: Tally) -> None:
    """Give a stretch to `tallies`, one narrow piece after the other."""
    for piece in stretch.pieces():
        for tally in tallies:
            tally.add(piece)
