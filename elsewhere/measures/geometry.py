r"""Geometry preserved across the move: linear CKA and RSA between locations.

Both compare how the *objects* lie to each other at two locations. They ignore a common rotation or
permutation of the units, so that a code that merely moves with the object scores 1: they say that
the geometry is preserved, never that the code is invariant.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from elsewhere.errors import UnknownNameError
from elsewhere.measures.stretches import Floats, Stretch, add_all
from elsewhere.measures.vectors import dot_products

FEW_OBJECTS = 20
"""CKA of fewer objects is noisy: a warning says so."""
MINIMAL_OBJECTS = 4
"""The unbiased CKA divides by n (n - 3)."""
NOISE = 1e-12
"""A sum of squares below this share of another is rounding: nothing varies."""
TIE = 1e-10
"""Dissimilarities that differ by less than this share of the largest have the same rank."""

Dissimilarity = Literal["correlation", "cosine", "euclidean"]
Comparison = Literal["spearman", "pearson", "cosine"]
DISSIMILARITIES: tuple[str, ...] = get_args(Dissimilarity)
COMPARISONS: tuple[str, ...] = get_args(Comparison)
PREPARED = {"correlation": "pearson", "cosine": "cosine"}
"""What is removed from vectors of length one whose products give the dissimilarity."""


class GramTally:
    """Sums dot products between all objects at each location over stretches of units.

    Whatever all objects share at a location is removed first, in double precision: distances stay
    what they are, and the rounding of a large common part does not reach them.

    Parameters
    ----------
    n_objects, n_locations
        How many.
    metric
        None for activations (what CKA and Euclidean distances need); else what is removed before
        vectors are brought to length one.
    """

    def __init__(self, n_objects: int, n_locations: int, metric: str | None = None) -> None:
        self.metric = metric
        self.grams = np.zeros((n_locations, n_objects, n_objects))
        self._squares = np.zeros((n_locations, n_objects))
        self._zero = np.zeros((n_locations, n_objects), dtype=bool)
        self._rounding = 0.0

    def add(self, stretch: Stretch) -> None:
        """Add a stretch of units."""
        self._rounding = max(self._rounding, stretch.rounding)
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
            dead = traces <= NOISE * np.maximum(scale, np.finfo(float).tiny)
            return np.where(dead[:, None, None], 0.0, self.grams)
        return self.grams + self._zero[:, :, None] * np.eye(self.grams.shape[1])

    def floors(self) -> Floats:
        """Return the squared difference of each two vectors that rounding alone may make.

        Returns
        -------
        float64 (location, object, object)
        """
        noise = self._rounding**2 * self._squares
        found: Floats = noise[:, :, None] + noise[:, None, :]
        return found


def centre_grams(grams: ArrayLike, *, biased: bool = False) -> Floats:
    r"""Return Gram matrices whose inner products are HSIC, up to a factor.

    Biased, :math:`HKH` with :math:`H = I - 11^T/n`. Unbiased, with the diagonal of K zeroed,
    :math:`K_{ij} - \frac{K_{i \cdot} + K_{\cdot j}}{n - 2} + \frac{K_{\cdot \cdot}}{(n-1)(n-2)}`
    off the diagonal and 0 on it: their inner product is
    :math:`tr(KL) + \frac{1^T K 1 \, 1^T L 1}{(n-1)(n-2)} - \frac{2}{n-2} 1^T K L 1`.

    Parameters
    ----------
    grams
        Shape (..., object, object), symmetric.
    biased
        Which of the two.

    Returns
    -------
    float64, as `grams`; NaN for the unbiased form of fewer than 4 objects

    References
    ----------
    Song et al. (2012), JMLR 13:1393-1434; Kornblith et al. (2019), ICML.

    Examples
    --------
    >>> bool(abs(centre_grams(np.ones((5, 5)))).max() < 1e-12)
    True
    """
    kernel = np.array(grams, dtype=np.float64)
    n = kernel.shape[-1]
    if biased:
        kernel -= kernel.mean(axis=-1, keepdims=True)
        kernel -= kernel.mean(axis=-2, keepdims=True)
        return kernel
    if n < MINIMAL_OBJECTS:
        return np.full(kernel.shape, np.nan)
    diagonal = np.arange(n)
    kernel[..., diagonal, diagonal] = 0
    rows = kernel.sum(axis=-1)
    total = rows.sum(axis=-1)
    kernel -= (rows[..., :, None] + rows[..., None, :]) / (n - 2)
    kernel += (total / ((n - 1) * (n - 2)))[..., None, None]
    kernel[..., diagonal, diagonal] = 0
    return kernel


def cka_of_grams(
    grams: ArrayLike, *, biased: bool = False, floors: ArrayLike | None = None
) -> Floats:
    """Return linear CKA between all pairs of Gram matrices.

    Parameters
    ----------
    grams
        Shape (location, object, object).
    biased
        Whether the biased estimate is wanted.
    floors
        As :meth:`GramTally.floors` gives them.

    Returns
    -------
    float64 (location, location)
        At most 1; the unbiased one can be negative. NaN where all objects have the same code or,
        for the unbiased one, codes equally far apart, up to rounding; and for the unbiased one of
        fewer than 4 objects.

    Examples
    --------
    >>> rows = np.random.default_rng(0).normal(size=(6, 3))
    >>> cka_of_grams([rows @ rows.T, 4 * rows @ rows.T]).round(6)
    array([[1., 1.],
           [1., 1.]])
    """
    kernel = np.asarray(grams, np.float64)
    centred = centre_grams(kernel, biased=biased)
    flat = centred.reshape(len(centred), -1)
    floor = NOISE * np.abs(kernel).reshape(len(flat), -1).sum(axis=1)
    if floors is not None:  # a product of two rows changes by the noise of one times the other
        squares = np.asarray(floors, np.float64) * np.trace(kernel, axis1=1, axis2=2)[:, None, None]
        floor = np.maximum(floor, np.sqrt(squares.mean(axis=(1, 2))))
    return _cosines(flat, floor)


def _cosines(rows: Floats, floor: Floats) -> Floats:
    """Return cosines between rows, NaN for those whose length is at most `floor`."""
    lengths = np.linalg.norm(rows, axis=1)
    dead = ~(lengths > np.maximum(floor, np.finfo(float).tiny))
    unit = np.where(dead[:, None], np.nan, rows / np.where(dead, 1.0, lengths)[:, None])
    found: Floats = unit @ unit.T
    return np.minimum(found, 1.0)


def linear_cka(
    activations: ArrayLike,
    *,
    biased: bool = False,
) -> Floats:
    r"""Return linear centred kernel alignment between all pairs of locations.

    :math:`CKA(p, q) = HSIC(K_p, K_q) / \sqrt{HSIC(K_p, K_p) HSIC(K_q, K_q)}` with
    :math:`K_p = A_p A_p^T` over objects: *geometry preserved across the move*, not invariance.

    Parameters
    ----------
    activations
        Shape (object, location, unit), floating.
    biased
        The unbiased estimate of HSIC by default: with few objects and many units the biased one
        is near 1 for independent features (.998 for 10 objects and 4,096 units).

    Returns
    -------
    float64 (location, location), at most 1
        NaN where all objects have the same code, and, unbiased, below 4 objects.

    Warns
    -----
    UserWarning
        Fewer than 20 objects.

    References
    ----------
    Kornblith et al. (2019), ICML; Song et al. (2012), JMLR 13, for the unbiased HSIC.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> here = rng.normal(size=(30, 5))
    >>> rotation, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    >>> both = np.stack([here, 3 * here @ rotation], axis=1)
    >>> float(linear_cka(both)[0, 1].round(6))
    1.0
    """
    stretch = Stretch.whole(activations)
    n, n_locations, _ = stretch.shape
    if n < FEW_OBJECTS and not biased:
        warnings.warn(
            f"CKA of {n} objects is noisy; take {FEW_OBJECTS} or more", UserWarning, stacklevel=2
        )
    tally = GramTally(n, n_locations)
    add_all(stretch, tally)
    return cka_of_grams(tally.cleaned(), biased=biased, floors=tally.floors())


def dissimilarities(
    grams: ArrayLike,
    dissimilarity: Dissimilarity = "correlation",
    *,
    floors: ArrayLike | None = None,
) -> Floats:
    """Return representational dissimilarities of all pairs of objects at each location.

    Parameters
    ----------
    grams
        Shape (location, object, object): products of vectors of length one (less their mean over
        units for ``correlation``), or, for ``euclidean``, of the activations; in both cases less
        anything that all objects share, or not.
    dissimilarity
        ``correlation`` and ``cosine`` are one minus the product of the vectors of length one,
        taken as half their squared distance; ``euclidean`` is the distance.
    floors
        Shape (location, object, object): squared distances that rounding alone may make, as
        :meth:`GramTally.floors` gives them; those that are no larger count as 0.

    Returns
    -------
    float64 (location, pair)
        The upper triangle, row by row.

    Examples
    --------
    >>> dissimilarities([[[1.0, 0.25], [0.25, 1.0]]])
    array([[0.75]])
    """
    if dissimilarity not in DISSIMILARITIES:
        raise UnknownNameError("dissimilarity", dissimilarity, DISSIMILARITIES)
    products = np.asarray(grams, dtype=np.float64)
    first, second = np.triu_indices(products.shape[-1], k=1)
    squares = products[:, first, first] + products[:, second, second]
    squares = np.maximum(squares - 2 * products[:, first, second], 0.0)
    if floors is not None:
        squares[squares <= np.asarray(floors)[:, first, second]] = 0.0
    distances: Floats = np.sqrt(squares) if dissimilarity == "euclidean" else squares / 2
    return distances


def doubts(
    values: ArrayLike, floors: ArrayLike, dissimilarity: Dissimilarity = "correlation"
) -> Floats:
    """Return by how much rounding may change dissimilarities, float64 (location, pair).

    Parameters
    ----------
    values, floors, dissimilarity
        As :func:`dissimilarities` gave and took them.
    """
    noise = np.asarray(floors, np.float64)
    noise = noise[:, *np.triu_indices(noise.shape[-1], k=1)]
    if dissimilarity == "euclidean":
        return np.sqrt(noise)
    found: Floats = np.sqrt(2 * np.asarray(values) * noise) + noise / 2
    return found


def compare_dissimilarities(
    values: ArrayLike, comparison: Comparison = "spearman", *, rounding: ArrayLike | None = None
) -> Floats:
    """Return how alike dissimilarities are between all pairs of locations.

    Parameters
    ----------
    values
        Shape (location, pair).
    comparison
        ``spearman`` and ``pearson`` correlate, ``cosine`` does not subtract the mean.
    rounding
        By how much each of the values may be off by rounding; a millionth of the largest by
        default.

    Returns
    -------
    float64 (location, location), -1..1
        NaN where the dissimilarities of a location do not vary beyond rounding, or there are fewer
        than 2 pairs.

    Examples
    --------
    >>> float(compare_dissimilarities([[1.0, 2.0, 3.0], [1.0, 4.0, 9.0]])[0, 1].round(6))
    1.0
    """
    if comparison not in COMPARISONS:
        raise UnknownNameError("comparison", comparison, COMPARISONS)
    rows = np.asarray(values, dtype=np.float64)
    if rows.shape[1] < 2:
        return np.full((len(rows), len(rows)), np.nan)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    within = 1e-6 * largest if rounding is None else np.asarray(rounding) + TIE * largest
    flat = (np.abs(rows - np.median(rows, axis=1, keepdims=True)) <= within).all(axis=1)
    if comparison == "spearman":
        rows = _ranks(rows, TIE * largest)
    if comparison != "cosine":
        rows = rows - rows.mean(axis=1, keepdims=True)
        rows = np.where(flat[:, None], 0.0, rows)
    return _cosines(rows, NOISE * np.abs(rows).sum(axis=1))


def _ranks(rows: Floats, tie: Floats) -> Floats:
    """Return ranks along each row; values that lie within `tie` of their neighbour are equal."""
    order = np.argsort(rows, axis=1)
    steps = np.diff(np.take_along_axis(rows, order, axis=1), axis=1) > tie
    groups = np.zeros(rows.shape)
    groups[:, 1:] = np.cumsum(steps, axis=1)
    found = np.empty(rows.shape)
    np.put_along_axis(found, order, groups, axis=1)
    ranks: Floats = stats.rankdata(found, axis=1)
    return ranks


def rsa(
    activations: ArrayLike,
    *,
    dissimilarity: Dissimilarity = "correlation",
    comparison: Comparison = "spearman",
) -> Floats:
    """Return representational similarity between all pairs of locations.

    The dissimilarities of all pairs of objects at one location are compared with those at the
    other: *geometry preserved across the move*, not invariance.

    Parameters
    ----------
    activations
        Shape (object, location, unit), floating.
    dissimilarity
        ``correlation`` (1 - Pearson over units), ``cosine`` or ``euclidean``.
    comparison
        ``spearman``, ``pearson`` or ``cosine``.

    Returns
    -------
    float64 (location, location), -1..1
        NaN below 3 objects, and where all dissimilarities are equal up to rounding.

    References
    ----------
    Kriegeskorte, Mur & Bandettini (2008), Frontiers in Systems Neuroscience 2:4.

    Examples
    --------
    >>> here = np.random.default_rng(0).normal(size=(8, 20))
    >>> both = np.stack([here, here[:, ::-1]], axis=1)     # the units in another order
    >>> float(rsa(both)[0, 1].round(6))
    1.0
    """
    if dissimilarity not in DISSIMILARITIES:
        raise UnknownNameError("dissimilarity", dissimilarity, DISSIMILARITIES)
    stretch = Stretch.whole(activations)
    tally = GramTally(stretch.shape[0], stretch.shape[1], PREPARED.get(dissimilarity))
    add_all(stretch, tally)
    return rsa_of_grams(tally.cleaned(), tally.floors(), dissimilarity, comparison)


def rsa_of_grams(
    grams: Floats,
    floors: Floats,
    dissimilarity: Dissimilarity = "correlation",
    comparison: Comparison = "spearman",
) -> Floats:
    """Return :func:`rsa` from what a :class:`GramTally` summed, both (location, object, object)."""
    values = dissimilarities(grams, dissimilarity, floors=floors)
    rounding = doubts(values, floors, dissimilarity)
    return compare_dissimilarities(values, comparison, rounding=rounding)


def left_out(
    grams: Floats,
    measure: Callable[[Floats], Floats],
    members: Sequence[NDArray[np.int64]] | None = None,
) -> Floats:
    """Return `measure` of Gram matrices without some objects in turn, shape (unit, ...).

    Parameters
    ----------
    grams
        Shape (location, object, object).
    measure
        From Gram matrices to anything.
    members
        The objects that are left out together; each one by itself by default.

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
