"""The span of the training samples: standardise, rotate into it, and come back as weights.

The solution of a linear model with an L2 penalty is a combination of its training samples
(Kimeldorf & Wahba 1971), so that nothing is lost by fitting in an orthonormal basis of their span:
``n`` numbers for each sample instead of one for each unit. Units come in stretches; no more than
their products is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

STRETCH = 2_048
"""Units that are standardised in double precision at a time."""

NULL = 1e-12
"""Eigenvalues of the Gram matrix below this share of the largest are rounding."""

UNSURE = 1e-8
"""Between `NULL` and this share a Gram matrix has lost too many digits: triangles are used."""

ROUNDING = {
    4: 4 * float(np.finfo(np.float32).eps),
    8: 64 * float(np.finfo(np.float64).eps),
}
"""A unit is constant where its deviation is below this share of its mean: mere rounding, by the
bytes of a number."""

Rows = NDArray[np.floating]
Slices = Callable[[], Iterable[Rows]]
"""Called as often as needed, it goes through the units: arrays (sample, some units)."""


@dataclass(frozen=True)
class Span:
    """Training samples in an orthonormal basis of their span.

    `coordinates` (sample, rank) are the standardised samples in that basis, `back` (sample, rank)
    the basis as combinations of these samples.
    """

    coordinates: NDArray[np.float64]
    back: NDArray[np.float64]

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return int(self.coordinates.shape[1])


def moments(rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and the deviation (unit,) of each unit over training samples (sample, unit).

    The deviation has n in its denominator, as in scikit-learn's ``StandardScaler``, and is 1 for a
    constant unit.

    Examples
    --------
    >>> moments(np.array([[1, 5], [3, 5]], np.float32))
    (array([2., 5.]), array([1., 1.]))
    """
    n, units = rows.shape
    mean, deviation = np.empty(units), np.empty(units)
    for start in range(0, units, STRETCH):
        piece = rows[:, start : start + STRETCH].astype(np.float64)
        middle = piece.mean(axis=0)
        piece -= middle
        spread = np.sqrt(np.einsum("ij,ij->j", piece, piece) / n)
        spread[spread <= ROUNDING[rows.itemsize] * np.abs(middle)] = 1.0
        mean[start : start + STRETCH], deviation[start : start + STRETCH] = middle, spread
    return mean, deviation


def standardised(rows: Rows) -> Iterator[NDArray[np.float64]]:
    """Yield the standardised samples in stretches of units, constant units as zeros."""
    for start in range(0, rows.shape[1], STRETCH):
        piece = rows[:, start : start + STRETCH].astype(np.float64)
        middle = piece.mean(axis=0)
        piece -= middle
        spread = np.sqrt(np.einsum("ij,ij->j", piece, piece) / len(piece))
        constant = spread <= ROUNDING[rows.itemsize] * np.abs(middle)
        piece[:, constant] = 0.0
        spread[constant] = 1.0
        piece /= spread
        yield piece


def find_span(slices: Slices, n_samples: int) -> Span:
    """Return the span of standardised training samples, of rank 0 where all units are constant.

    The Gram matrix, summed in double precision, squares the singular values: those below 1e-4 of
    the largest would lose digits. Where there are some, triangular factors of the stretches are
    stacked and factored again instead (tall and skinny QR: Demmel et al. 2012), which loses none.

    Examples
    --------
    >>> rows = np.random.default_rng(0).normal(size=(5, 300)).astype(np.float32)
    >>> span = find_span(lambda: [rows], 5)
    >>> span.rank
    4
    """
    gram = np.zeros((n_samples, n_samples))
    for rows in slices():
        for piece in standardised(rows):
            gram += piece @ piece.T
    values, vectors = linalg.eigh(gram, check_finite=False)
    top = float(values[-1])
    if not top > 0:
        nothing = np.zeros((n_samples, 0))
        return Span(nothing, nothing)
    shares = values / top
    if not ((shares > NULL) & (shares < UNSURE)).any():
        kept = shares >= UNSURE
        lengths, basis = np.sqrt(values[kept]), vectors[:, kept]
    else:
        basis, lengths = _by_triangles(slices, n_samples)
    # from the longest to the shortest
    basis, lengths = basis[:, ::-1], lengths[::-1]
    return Span(np.ascontiguousarray(basis * lengths), np.ascontiguousarray(basis / lengths))


def _by_triangles(
    slices: Slices, n_samples: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    triangle = np.zeros((0, n_samples))
    for rows in slices():
        for piece in standardised(rows):
            stacked = np.concatenate([triangle, piece.T])
            (triangle,) = linalg.qr(stacked, mode="r", overwrite_a=True, check_finite=False)
            triangle = triangle[:n_samples]
    basis, lengths, _ = linalg.svd(triangle.T, full_matrices=False, check_finite=False)
    kept = lengths > lengths[0] * np.finfo(np.float64).eps * max(n_samples, 8)
    return basis[:, kept][:, ::-1], lengths[kept][::-1]


def raw_weights(
    rows: Rows,
    combination: NDArray[np.float64],
    found: tuple[NDArray[np.float64], NDArray[np.float64]],
    into: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Write a combination (sample, row) of the standardised samples as weights for raw units.

    `rows` (sample, unit) are the training samples, `found` their :func:`moments`; `into` (row,
    unit) is overwritten. Returned are the weights' products with the units' means, (row,), which
    standardising takes off.
    """
    at_mean = np.zeros(combination.shape[1])
    mean, deviation = found
    start = 0
    for piece in standardised(rows):
        stop = start + piece.shape[1]
        into[:, start:stop] = (combination.T @ piece) / deviation[start:stop]
        at_mean += into[:, start:stop].astype(np.float64) @ mean[start:stop]
        start = stop
    return at_mean
