"""From pairs of locations to displacements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import InputError
from elsewhere.measures.intervals import known_mean
from elsewhere.measures.unit_chunks import Floats


@dataclass(frozen=True)
class Displacements:
    """Pairs of locations by how far they lie apart.

    Parameters
    ----------
    values
        int64 (displacement,), px, rising: Chebyshev distances, 0 left out.
    groups
        int64 (location, location): index into `values` of each pair, -1 on the diagonal.
    """

    values: NDArray[np.int64]
    groups: NDArray[np.int64]

    @classmethod
    def between(cls, locations: ArrayLike) -> Displacements:
        """Return the displacements between all pairs of `locations`, int (location, axis), px.

        Examples
        --------
        >>> Displacements.between([[5, 5], [5, 9], [7, 7]]).values
        array([2, 4])
        """
        places = np.asarray(locations, dtype=np.int64)
        if places.ndim != 2:
            raise InputError(
                f"locations have shape {places.shape}; expected (location, 2), y and x in px"
            )
        apart = np.abs(places[:, None] - places[None]).max(axis=2)
        values = np.unique(apart[apart > 0])
        groups = np.searchsorted(values, apart)
        return cls(values, np.where(apart > 0, groups, -1).astype(np.int64))

    def means(self, matrix: Floats) -> Floats:
        """Return a matrix's mean over the pairs at each displacement, where it is defined."""
        return _means_by(self.groups, matrix, len(self.values))


def _means_by(groups: NDArray[np.int64], matrix: Floats, n: int) -> Floats:
    """Return the mean of a matrix over each of `n` groups of pairs, where it is defined."""
    chosen = (groups >= 0) & np.isfinite(matrix)
    totals = np.bincount(groups[chosen], matrix[chosen], n)
    counts = np.bincount(groups[chosen], minlength=n)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def mean_off_diagonal(matrix: Floats) -> float:
    """Return the mean over ordered pairs of different locations, where it is defined.

    Examples
    --------
    >>> mean_off_diagonal(np.array([[1.0, 0.2], [0.4, 1.0]])).__round__(6)
    0.3
    """
    return float(known_mean(matrix[~np.eye(len(matrix), dtype=bool)]))


def displacement_map(
    matrix: Floats, locations: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Return a matrix over pairs of locations as a map over displacements.

    Parameters
    ----------
    matrix
        Shape (location, location); rows are where the object was, columns where it went.
    locations
        int (location, 2), y and x, px.

    Returns
    -------
    dy, dx : int64, px, rising
    values : float64 (dy, dx)
        The mean over all pairs that lie so far apart; NaN where there is none.

    Examples
    --------
    >>> dy, dx, values = displacement_map(np.array([[0.0, 1.0], [2.0, 0.0]]), [[5, 5], [5, 8]])
    >>> dx, values
    (array([-3,  0,  3]), array([[2., 0., 1.]]))
    """
    places = np.asarray(locations, dtype=np.int64)
    moved = places[None] - places[:, None]
    dy, rows = np.unique(moved[..., 0], return_inverse=True)
    dx, columns = np.unique(moved[..., 1], return_inverse=True)
    flat = rows.reshape(matrix.shape) * len(dx) + columns.reshape(matrix.shape)
    return dy, dx, _means_by(flat, matrix, len(dy) * len(dx)).reshape(len(dy), len(dx))
