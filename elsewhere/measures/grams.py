r"""Products between objects at each location, from which CKA and RSA are made.

Both compare how the *objects* lie to each other at two locations: *geometry preserved across the
move*. They ignore a common rotation or permutation of the units, so that a code that merely moves
with the object scores 1: they never say that the code is invariant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from elsewhere.measures.tables import JACKKNIFE_COST, Reading, Table, Variables, matrix_variables
from elsewhere.measures.unit_chunks import Floats, Stretch
from elsewhere.measures.vectors import dot_products, negligible

NOISE = 1e-12
"""A sum of squares below this share of another is rounding: nothing varies."""


class GramTally:
    """Sums dot products between all objects at each location over stretches of units.

    Whatever all objects share at a location is removed first, in double precision: distances stay
    what they are, and the rounding of a large common part does not reach them. `metric` is None for
    activations (what CKA and Euclidean distances need), else what is removed before vectors are
    brought to length one.
    """

    def __init__(self, n_objects: int, n_locations: int, metric: str | None = None) -> None:
        self.metric = metric
        self.grams = np.zeros((n_locations, n_objects, n_objects))
        self._squares = np.zeros((n_locations, n_objects))
        self._zero = np.zeros((n_locations, n_objects), dtype=bool)
        self._rounding = self._negligible = 0.0

    def add(self, stretch: Stretch) -> None:
        """Add a stretch of units."""
        self._rounding = max(self._rounding, stretch.rounding)
        self._negligible = max(self._negligible, negligible(stretch.values))
        for location, squares in enumerate(self._squares):
            rows = stretch.values[:, location].astype(np.float64)
            if self.metric is None:
                squares += np.einsum("ou,ou->o", rows, rows)
            else:
                inverse = stretch.lengths_of(self.metric).inverse[:, location]
                squares += np.einsum("ou,ou->o", rows, rows) * inverse**2
                self._zero[location] = inverse == 0
                rows = stretch.units_at(self.metric, location)
            rows = rows - rows.mean(axis=0)
            self.grams[location] += dot_products(rows, rows)

    def cleaned(self) -> Floats:
        """Return the Gram matrices, zero where what is left of the activations is rounding.

        Of vectors of length one, zero vectors get a direction of their own: their product with
        every other vector is 0.
        """
        if self.metric is None:
            scale = self._squares.sum(axis=1)
            traces = np.trace(self.grams, axis1=1, axis2=2)
            dead = traces <= self._negligible**2 * np.maximum(scale, np.finfo(float).tiny)
            return np.where(dead[:, None, None], 0.0, self.grams)
        return self.grams + self._zero[:, :, None] * np.eye(self.grams.shape[1])

    def floors(self) -> Floats:
        """Return squared differences that rounding may make, (location, object, object)."""
        noise = self._rounding**2 * self._squares
        found: Floats = noise[:, :, None] + noise[:, None, :]
        return found


def left_out(
    grams: Floats,
    measure: Callable[[Floats], Floats],
    members: Sequence[NDArray[np.int64]] | None = None,
) -> Floats:
    """Return `measure` of Gram matrices (location, object, object) without some objects in turn.

    `members` are left out together, each object by itself by default; the first dimension of what
    is returned is over these.

    Examples
    --------
    >>> left_out(np.ones((2, 3, 3)), lambda grams: grams.sum(axis=(1, 2)))
    array([[4., 4.],
           [4., 4.],
           [4., 4.]])
    """
    chosen = np.arange(grams.shape[1])[:, None] if members is None else members
    found = []
    for objects in chosen:
        rest = np.delete(np.delete(grams, objects, axis=1), objects, axis=2)
        found.append(measure(rest))
    return np.stack(found)


def row_cosines(rows: Floats, floor: Floats) -> Floats:
    """Return cosines between rows, NaN for those whose length is at most `floor`."""
    lengths = np.linalg.norm(rows, axis=1)
    dead = ~(lengths > np.maximum(floor, np.finfo(float).tiny))
    unit = np.where(dead[:, None], np.nan, rows / np.where(dead, 1.0, lengths)[:, None])
    found: Floats = unit @ unit.T
    return np.minimum(found, 1.0)


def read_grams(
    name: str,
    table: Table,
    metric: str | None,
    compare: Callable[[Floats, Floats], Floats],
    doubts: Callable[[GramTally], list[str]] = lambda tally: [],
) -> Reading:
    n, n_positions = table.n_objects, table.n_positions
    tally = GramTally(n, n_positions, metric)

    def compare_both(both: Floats) -> Floats:
        return compare(both[:n_positions], both[n_positions:])

    def read() -> Variables:
        both = np.concatenate([tally.cleaned(), tally.floors()])
        away = None
        units = table.sampled
        if len(units) < 2:  # nothing would be left
            away = np.full(len(units), np.nan)
        elif n**2 * len(units) * (n_positions + n_positions**2) <= JACKKNIFE_COST:
            away = left_out(
                both, lambda rest: np.asarray(table.away(compare_both(rest))), units.members
            )
        return matrix_variables(name, compare_both(both), table, away)

    return Reading(tally, read, doubts=lambda: doubts(tally))


def gram_bytes(table: Table) -> float:
    """Return the bytes of the sums of a measure of Gram matrices, and of its result."""
    n, p = table.n_objects, table.n_positions
    return 4 * 8.0 * p * n * n + 3 * 8.0 * p * p
