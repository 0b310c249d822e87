r"""From pairs of locations to displacements, and distances between a code here and there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import InputError
from elsewhere.measures.geometry import GramTally, dissimilarities
from elsewhere.measures.stretches import Floats, Stretch, add_all
from elsewhere.measures.vectors import dot_products


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
        """Return the mean of a matrix over the pairs at each displacement, where it is defined.

        Parameters
        ----------
        matrix
            Shape (location, location).

        Returns
        -------
        float64 (displacement,)
        """
        chosen = (self.groups >= 0) & np.isfinite(matrix)
        n = len(self.values)
        totals = np.bincount(self.groups[chosen], matrix[chosen], n)
        counts = np.bincount(self.groups[chosen], minlength=n)
        found: Floats = np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
        return found


def mean_off_diagonal(matrix: Floats) -> float:
    """Return the mean over ordered pairs of different locations, where it is defined.

    Examples
    --------
    >>> mean_off_diagonal(np.array([[1.0, 0.2], [0.4, 1.0]])).__round__(6)
    0.3
    """
    chosen = ~np.eye(len(matrix), dtype=bool) & np.isfinite(matrix)
    return float(matrix[chosen].mean()) if chosen.any() else float("nan")


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
    defined = np.isfinite(matrix)
    size = len(dy) * len(dx)
    totals = np.bincount(flat[defined], matrix[defined], size)
    counts = np.bincount(flat[defined], minlength=size)
    values = np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
    return dy, dx, values.reshape(len(dy), len(dx))


class DistanceTally:
    """Sums squared distances of each object's code between all pairs of locations."""

    def __init__(self, codes: NDArray[np.int64], n_locations: int) -> None:
        n = len(codes)
        self._codes = codes
        self.squares = np.zeros((n, n_locations, n_locations))
        self._scale, self._rounding = np.zeros((n, n_locations)), 0.0
        self._objects = GramTally(n, n_locations)
        self._between: Floats | None = None

    def add(self, stretch: Stretch) -> None:
        """Add a stretch of units."""
        self._rounding = max(self._rounding, stretch.rounding)
        for number, rows in enumerate(stretch.values):
            exact = rows.astype(np.float64)
            self._scale[number] += np.einsum("lu,lu->l", exact, exact)
            centred = exact - exact.mean(axis=0)  # distances stay, rounding shrinks
            products = dot_products(centred, centred)
            squares = np.diag(products)
            self.squares[number] += squares[:, None] + squares[None, :] - 2 * products
        self._objects.add(stretch)

    def value(self, *, without: Sequence[int] | NDArray[np.int64] = ()) -> tuple[Floats, Floats]:
        """Return the normalised distances (reference, location), and what they are divided by.

        Objects can be left out.
        """
        kept = ~np.isin(np.arange(len(self._codes)), without)
        distances = np.zeros(self.squares.shape[1:])
        for number in np.flatnonzero(kept):
            squares, noise = self.squares[number], self._rounding**2 * self._scale[number]
            floor = noise[:, None] + noise[None, :]
            distances += np.sqrt(np.where(squares > floor, squares, 0.0))
        distances /= max(int(kept.sum()), 1)
        if self._between is None:
            self._between = dissimilarities(
                self._objects.cleaned(), "euclidean", floors=self._objects.floors()
            )
        first, second = np.triu_indices(len(self._codes), k=1)
        different = (self._codes[first] != self._codes[second]) & kept[first] & kept[second]
        if not different.any():
            return np.full(distances.shape, np.nan), np.full(len(distances), np.nan)
        unit = np.median(self._between[:, different], axis=1)
        safe = np.where(unit > 0, unit, np.nan)
        return distances / safe[:, None], safe


def distance_matrix(
    activations: ArrayLike, *, categories: Sequence[object] | None = None
) -> Floats:
    r"""Return normalised Euclidean distances of the same object between all pairs of locations.

    The mean over objects of :math:`|a(o, p) - a(o, r)|`, divided by the median distance of two
    objects of different categories that both stand at r: 1 means that a move changes the code as
    much as another object does.

    Parameters
    ----------
    activations
        Shape (object, location, unit), floating.
    categories
        One per object; by default every object is a category of its own.

    Returns
    -------
    float64 (location r, location p), at least 0
        NaN where there are no two categories, or where their objects have the same code.

    References
    ----------
    Kauderer-Abrams (2017), arXiv:1801.01450: a distance in units of that between classes. That
    the unit is a median over pairs at r is this package's choice.

    Examples
    --------
    >>> still = np.repeat(np.eye(3)[:, None], 2, axis=1)
    >>> distance_matrix(still)
    array([[0., 0.],
           [0., 0.]])
    """
    stretch = Stretch.whole(activations, categories)
    tally = DistanceTally(stretch.codes, stretch.shape[1])
    add_all(stretch, tally)
    return tally.value()[0]


def sensitivity_map(
    matrix: ArrayLike, locations: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Return the translation-sensitivity map: a measure between locations against displacement.

    Parameters
    ----------
    matrix
        Shape (location, location): normalised distances (:func:`distance_matrix`), or cosines.
    locations
        int (location, 2), y and x, px.

    Returns
    -------
    dy, dx, values
        As :func:`displacement_map`.

    References
    ----------
    Kauderer-Abrams (2017), arXiv:1801.01450, with distances; Myburgh, Mouton & Davel (2021),
    arXiv:2104.05997, with cosines.

    Examples
    --------
    >>> sensitivity_map([[0.0, 1.0], [1.0, 0.0]], [[0, 0], [2, 0]])[0]
    array([-2,  0,  2])
    """
    return displacement_map(np.asarray(matrix, dtype=np.float64), locations)
