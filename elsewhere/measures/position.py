"""Can the location be read from a layer? Ridge regression in the space of the samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import InputError
from elsewhere.measures.stretches import Floats, Stretch, add_all, rounding_of
from elsewhere.measures.vectors import dot_products, squared_norms

MAXIMAL_ROWS = 1_000
"""Of more rows than this a seeded choice of locations is taken: the cost grows as their cube."""
N_FOLDS = 5
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
    """

    r2: float
    per_axis: Floats
    strength: float
    n_rows: int


class PositionTally:
    """Sums dot products between some rows over stretches of units.

    Parameters
    ----------
    n_objects
        How many.
    locations
        int (location, axis), px.
    maximal_rows
        Of more rows, a choice of locations is taken, and of objects if need be.
    seed
        Of that choice.
    """

    def __init__(
        self,
        n_objects: int,
        locations: ArrayLike,
        *,
        maximal_rows: int = MAXIMAL_ROWS,
        seed: int = 0,
    ) -> None:
        places = np.asarray(locations)
        rng = np.random.default_rng(seed)
        n_chosen = min(n_objects, max(maximal_rows // 4, 2))
        self._objects = np.sort(rng.permutation(n_objects)[:n_chosen])
        room = max(maximal_rows // n_chosen, 1)
        self._locations = np.sort(rng.permutation(len(places))[:room])
        self._targets = places[self._locations].astype(np.float64)
        n_rows = n_chosen * len(self._locations)
        self._gram = np.zeros((n_rows, n_rows))
        self._scale = self._rounding = 0.0

    @property
    def n_rows(self) -> int:
        """Rows that are used."""
        return len(self._gram)

    def add(self, stretch: Stretch) -> None:
        """Add a stretch of units."""
        rows = stretch.values[np.ix_(self._objects, self._locations)]
        rows = rows.reshape(self.n_rows, -1)
        self._scale += float(squared_norms(rows).sum())
        self._rounding = max(self._rounding, rounding_of(rows))
        centred = rows - rows.mean(axis=0, dtype=np.float64)
        self._gram += dot_products(centred, centred)

    def value(self) -> PositionDecoding:
        """Return the cross-validated fit, once all stretches are in."""
        n, n_places = len(self._objects), len(self._locations)
        targets = np.tile(self._targets, (n, 1))
        nothing = PositionDecoding(np.nan, np.full(targets.shape[1], np.nan), np.nan, self.n_rows)
        flat = float(np.trace(self._gram)) <= 1e-12 * self._scale
        if n < 2 or n_places < 2 or flat:
            return nothing
        objects = np.repeat(np.arange(n), n_places)
        folds = objects % min(N_FOLDS, n)
        noise = self._rounding**2 * self._scale / self.n_rows
        predicted = np.empty_like(targets)
        strengths = []
        for fold in range(min(N_FOLDS, n)):
            test = folds == fold
            predicted[test], strength = _ridge(self._gram, targets, ~test, test, noise)
            strengths.append(strength)
        varies = np.ptp(targets, axis=0) > 0
        errors = ((targets - predicted) ** 2).sum(axis=0)
        spread = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
        per_axis = np.where(varies, 1 - errors / np.where(varies, spread, 1.0), np.nan)
        return PositionDecoding(
            float(per_axis[varies].mean()), per_axis, float(np.median(strengths)), self.n_rows
        )


def _ridge(
    gram: Floats,
    targets: Floats,
    train: NDArray[np.bool_],
    test: NDArray[np.bool_],
    noise: float = 0.0,
) -> tuple[Floats, float]:
    """Return predictions for the test rows, and the penalty chosen on the training rows.

    Generalised cross-validation in the eigenvectors of the centred training rows. From directions
    that vary by no more than `noise`, the square of what rounding makes of a row, nothing is read.
    """
    kernel = gram[np.ix_(train, train)]
    means = kernel.mean(axis=0)
    centred = kernel - means[None] - means[:, None] + means.mean()
    cross = gram[np.ix_(test, train)]
    cross = cross - cross.mean(axis=1, keepdims=True) - means[None] + means.mean()
    offset = targets[train].mean(axis=0)
    values, vectors = np.linalg.eigh(centred)
    values = np.where(values > noise, values, 0.0)
    rotated = vectors.T @ (targets[train] - offset)
    n = len(values)
    unit = values.mean()
    best, chosen = np.inf, float(STRENGTHS[-1])
    for strength in STRENGTHS[::-1]:  # of equal ones the strongest
        shrunk = strength * unit / (values + strength * unit)
        residual = float(((shrunk[:, None] * rotated) ** 2).sum()) / n
        freedom = float(shrunk.sum() - 1) / n  # one for the mean
        score = residual / max(freedom, 1e-12) ** 2
        if score < best * (1 - 1e-9):
            best, chosen = score, float(strength)
    scaled = np.where(values > 0, 1 / (values + chosen * unit), 0.0)
    weights = vectors @ (rotated * scaled[:, None])
    return offset + cross @ weights, chosen


def position_decoding(
    activations: ArrayLike,
    *,
    locations: ArrayLike,
    maximal_rows: int = MAXIMAL_ROWS,
    seed: int = 0,
) -> PositionDecoding:
    """Return how well a ridge regression reads the location from a layer.

    Trained on some objects at all locations and tested on the others, in five folds of objects (or
    as many as there are). The penalty is chosen within the training objects by generalised
    cross-validation. The solution lies in the span of the training rows, so that dot products
    between rows suffice, exactly.

    Parameters
    ----------
    activations
        Shape (object, location, unit), floating.
    locations
        Shape (location, axis), y and x in px.
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
    Hong et al. (2016), Nature Neuroscience 19:613-622, for the question; Golub, Heath & Wahba
    (1979), Technometrics 21:215-223, for the penalty.

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
    stretch = Stretch.whole(activations)
    places = np.asarray(locations)
    if places.ndim != 2 or len(places) != stretch.shape[1]:
        raise InputError(
            f"locations have shape {places.shape}; expected ({stretch.shape[1]}, 2), one row for "
            "each location"
        )
    tally = PositionTally(stretch.shape[0], places, maximal_rows=maximal_rows, seed=seed)
    add_all(stretch, tally)
    return tally.value()
