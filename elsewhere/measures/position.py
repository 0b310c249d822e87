"""Can the location be read from a layer? Ridge regression in the space of the samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import InputError
from elsewhere.measures.catalogue import Measure, measures
from elsewhere.measures.intervals import Sampled, jackknife_t, shared_fits
from elsewhere.measures.tables import Reading, Table, Variables, estimated, scalar
from elsewhere.measures.unit_chunks import Floats, Stretch, add_all
from elsewhere.measures.vectors import dot_products, negligible, squared_norms

MAXIMAL_ROWS = 1_000
"""Of more rows than this a seeded choice of locations is taken: the cost grows as their cube."""
N_FOLDS = 5
INNER_FOLDS = 4
FEWEST_FOR_INTERVAL = 8
"""Objects (or categories) that were tested: with four, intervals cover .7 to .9."""
N_SHUFFLES = 5
"""Decodings of shuffled locations, for the null."""
STRENGTHS = np.logspace(-6, 3, 19)
"""Ridge penalties that are tried, as shares of the mean eigenvalue of the training rows."""


@dataclass(frozen=True)
class PositionDecoding:
    """How well the location is read from the code of an object that was not trained on.

    Parameters
    ----------
    r2
        Cross-validated R², the mean over the axes whose coordinates vary.
    per_axis
        float64 (axis,), NaN where all coordinates are equal.
    strength
        Median over folds of the chosen penalty, as a share of the mean eigenvalue.
    n_rows
        Rows that were used.
    interval
        float64 (2,): jackknife-t of `r2` over the objects that were tested (over categories where
        one has several exemplars), wider by what folds that share training objects bring (Nadeau &
        Bengio 2003).
    null
        The same R² where each object's locations are shuffled.
    without
        float64 (unit,): `r2` without each of what was tested in turn, apart by as much as the
        interval is wider.
    """

    r2: float
    per_axis: Floats
    strength: float
    n_rows: int
    interval: Floats
    null: float
    without: Floats


class PositionTally:
    """Sums dot products between some rows over stretches of units.

    `codes` are categories, int (object,), `locations` int (location, axis), px. Of more rows than
    `maximal_rows` a choice of locations is taken, and of objects if need be; `seed` is that of this
    choice, and of the shuffles of the null.
    """

    def __init__(
        self,
        codes: NDArray[np.int64],
        locations: ArrayLike,
        *,
        maximal_rows: int = MAXIMAL_ROWS,
        seed: int = 0,
    ) -> None:
        places = np.asarray(locations)
        rng = np.random.default_rng(seed)
        n_objects = len(codes)
        n_chosen = min(n_objects, max(maximal_rows // 4, 2))
        self._objects = np.sort(rng.permutation(n_objects)[:n_chosen])
        room = max(maximal_rows // n_chosen, 1)
        self._locations = np.sort(rng.permutation(len(places))[:room])
        self._codes, self._seed = codes[self._objects], seed
        self._targets = places[self._locations].astype(np.float64)
        n_rows = n_chosen * len(self._locations)
        self._gram = np.zeros((n_rows, n_rows))
        self._scale = self._rounding = self._negligible = 0.0

    @property
    def n_rows(self) -> int:
        """Rows that are used."""
        return len(self._gram)

    def add(self, stretch: Stretch) -> None:
        """Add a stretch of units."""
        self._rounding = max(self._rounding, stretch.rounding)
        self._negligible = max(self._negligible, negligible(stretch.values))
        for _, values in stretch.columns():
            rows = values[np.ix_(self._objects, self._locations)].reshape(self.n_rows, -1)
            self._scale += float(squared_norms(rows).sum())
            rows -= rows.mean(axis=0)
            self._gram += dot_products(rows, rows)

    def value(self) -> PositionDecoding:
        """Return the cross-validated fit, once all stretches are in."""
        n, n_places = len(self._objects), len(self._locations)
        axes = self._targets.shape[1]
        units = Sampled.of(self._codes)
        none = np.full(len(units), np.nan)
        nothing = PositionDecoding(
            np.nan, np.full(axes, np.nan), np.nan, self.n_rows, np.full(2, np.nan), np.nan, none
        )
        flat = float(np.trace(self._gram)) <= self._negligible**2 * self._scale
        if len(units) < 2 or n_places < 2 or flat:
            return nothing
        rng = np.random.default_rng(self._seed)
        each = self._targets[None].repeat(n, axis=0)  # (object, location, axis)
        sets = [each, *(rng.permuted(each, axis=1) for _ in range(N_SHUFFLES))]
        targets = np.stack(sets, axis=-1).reshape(self.n_rows, axes, -1)
        labels = np.repeat(units.labels, n_places)
        noise = self._rounding**2 * self._scale / self.n_rows
        predicted = np.empty_like(targets)
        strengths = []
        for test in _folds(labels, N_FOLDS):
            inner = _folds(np.where(test, -1, labels), INNER_FOLDS)
            if len(inner) > 1:
                found = [_ridge(self._gram, targets, ~test & ~held, held, noise) for held in inner]
                errors = sum(
                    ((targets[held] - tried) ** 2).sum(axis=(1, 2))
                    for held, tried in zip(inner, found, strict=True)
                )
                chosen = len(STRENGTHS) - 1 - errors[::-1].argmin(axis=0)  # of equal, the strongest
            else:  # one object is left to fit: nothing to choose by
                chosen = np.full(targets.shape[2], len(STRENGTHS) // 2)
            every = _ridge(self._gram, targets, ~test, test, noise)
            predicted[test] = every[chosen, ..., np.arange(targets.shape[2])].transpose(1, 2, 0)
            strengths.append(STRENGTHS[chosen[0]])
        varies = np.ptp(self._targets, axis=0) > 0
        squares = ((targets - predicted) ** 2).reshape(n, n_places, axes, -1).sum(axis=1)
        spread = ((each - self._targets.mean(axis=0)) ** 2).sum(axis=1)[..., None]
        safe = np.where(varies, spread.sum(axis=0)[:, 0], 1.0)[:, None]
        per_axis = np.where(varies[:, None], 1 - squares.sum(axis=0) / safe, np.nan)
        means = per_axis[varies].mean(axis=0)
        wrong, there = squares[:, varies, 0], spread[:, varies, 0]
        left = units.means_without(wrong) / units.means_without(there)
        few = len(units) < FEWEST_FOR_INTERVAL
        wider = np.nan if few else np.sqrt(shared_fits(min(N_FOLDS, len(units))))
        without = means[0] + wider * (1 - left.mean(axis=1) - means[0])
        return PositionDecoding(
            float(means[0]),
            per_axis[:, 0],
            float(np.median(strengths)),
            self.n_rows,
            jackknife_t(means[0], without),
            float(means[1:].mean()),
            without,
        )


def _folds(labels: NDArray[np.int64], n_folds: int) -> list[NDArray[np.bool_]]:
    """Return which rows each fold tests: units dealt out in turn; a label below 0 is in none."""
    known = np.unique(labels[labels >= 0])
    n_folds = min(n_folds, len(known))
    return [np.isin(labels, known[fold::n_folds]) for fold in range(n_folds)]


def _ridge(
    gram: Floats,
    targets: Floats,
    train: NDArray[np.bool_],
    test: NDArray[np.bool_],
    noise: float = 0.0,
) -> Floats:
    """Return predictions for the test rows with every penalty, (penalty, row, axis, set).

    From directions that vary by no more than `noise`, the square of what rounding makes of a row,
    nothing is read.
    """
    kernel = gram[np.ix_(train, train)]
    means = kernel.mean(axis=0)
    centred = kernel - means[None] - means[:, None] + means.mean()
    cross = gram[np.ix_(test, train)]
    cross = cross - cross.mean(axis=1, keepdims=True) - means[None] + means.mean()
    known = targets[train].reshape(len(kernel), -1)
    offset = known.mean(axis=0)
    values, vectors = np.linalg.eigh(centred)
    read = values > noise
    values = np.where(read, values, 0.0)
    rotated = vectors.T @ (known - offset)
    along = cross @ vectors
    unit = max(float(values.mean()), np.finfo(float).tiny)
    found = [
        offset + (along * np.where(read, 1 / (values + strength * unit), 0.0)) @ rotated
        for strength in STRENGTHS
    ]
    return np.stack(found).reshape(len(STRENGTHS), len(cross), *targets.shape[1:])


def position_decoding(
    activations: ArrayLike,
    *,
    locations: ArrayLike,
    categories: Sequence[object] | None = None,
    maximal_rows: int = MAXIMAL_ROWS,
    seed: int = 0,
) -> PositionDecoding:
    """Return how well a ridge regression reads the location from a layer.

    Trained on some objects at all locations and tested on the others, in five folds of objects (of
    categories where one has several exemplars; or as many as there are). The penalty is chosen by
    further folds of objects within those of the fit: rows of one object are no replicates, so that
    criteria over rows, such as generalised cross-validation, choose too weak a penalty. The
    solution lies in the span of the training rows, so that dot products between rows suffice.

    Parameters
    ----------
    activations
        Shape (object, location, unit), floating.
    locations
        Shape (location, axis), y and x in px.
    categories
        One per object; each its own by default.
    maximal_rows
        Of more (object, location) a choice of locations is taken.
    seed
        Of that choice.

    Returns
    -------
    PositionDecoding
        1: the location is there to be read; 0 or below: it is not. NaN with fewer than two objects
        or locations, and where nothing varies.

    References
    ----------
    Hong et al. (2016), Nature Neuroscience 19:613-622.

    Examples
    --------
    >>> places = np.array([[y, x] for y in range(4) for x in range(4)])
    >>> rng = np.random.default_rng(0)
    >>> tells = places[None] + 0.01 * rng.normal(size=(6, 16, 2))
    >>> position_decoding(tells, locations=places).r2 > 0.99
    True
    >>> position_decoding(rng.normal(size=(6, 16, 5)), locations=places).r2 < 0.2
    True
    """
    stretch = Stretch.whole(activations, categories)
    places = np.asarray(locations)
    if places.ndim != 2 or len(places) != stretch.shape[1]:
        raise InputError(
            f"locations have shape {places.shape}; expected ({stretch.shape[1]}, 2), one row for "
            "each location"
        )
    tally = PositionTally(stretch.codes, places, maximal_rows=maximal_rows, seed=seed)
    add_all(stretch, tally)
    return tally.value()


def _position(table: Table) -> Reading:
    tally = PositionTally(table.codes, table.places, seed=table.seed)

    def read() -> Variables:
        found = tally.value()
        return estimated("position_r2", found.r2, found.without) | {
            "position_r2_null": scalar(found.null),
            "position_r2_by_axis": (("axis",), found.per_axis),
            "position_strength": scalar(found.strength),
            "position_rows": scalar(found.n_rows),
        }

    return Reading(tally, read)


def _memory(table: Table) -> float:
    rows = min(table.n_objects * table.n_positions, MAXIMAL_ROWS)
    return 6 * 8.0 * rows * rows


def _remarks(table: Table) -> list[str]:
    if table.n_objects * table.n_positions <= MAXIMAL_ROWS:
        return []
    return [f"position: at most {MAXIMAL_ROWS} rows, locations drawn by the seed"]


measures.add(
    "position",
    Measure(
        position_decoding,
        "R2 of (y, x) read by ridge regression from objects that were not trained on",
        ("hong2016",),
        reading=_position,
        headline="position_r2",
        range="up to 1",
        direction="higher: the location can be read better",
        chance="0",
        question="Can the object's place be read from the code?",
        can="It finds place that is there to be read linearly, whatever the object.",
        cannot="It cannot tell whether the object can be read, too, nor what nonlinear readers "
        "would find.",
        least=2,
        memory=_memory,
        remarks=_remarks,
    ),
    summary="cross-validated R2 of a ridge regression of (y, x)",
)
