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
from numpy.typing import ArrayLike
from scipy import stats

from elsewhere.errors import UnknownNameError
from elsewhere.measures.stretches import Floats, Stretch, Values, add_all
from elsewhere.measures.vectors import dot_products

FEW_OBJECTS = 20
"""CKA of fewer objects is noisy: a warning says so."""
MINIMAL_OBJECTS = 4
"""The unbiased CKA divides by n (n - 3)."""
NOISE = 1e-12
"""A sum of squares below this share of another is rounding: nothing varies."""

Dissimilarity = Literal["correlation", "cosine", "euclidean"]
Comparison = Literal["spearman", "pearson", "cosine"]
DISSIMILARITIES: tuple[str, ...] = get_args(Dissimilarity)
COMPARISONS: tuple[str, ...] = get_args(Comparison)
PREPARED = {"correlation": "pearson", "cosine": "cosine"}
"""What is removed from vectors of length one whose products give the dissimilarity."""


class GramTally:
    """Sums dot products between all objects at each location over stretches of units.

    Parameters
    ----------
    n_objects, n_locations
        How many.
    metric
        None for activations less their mean over objects (what CKA and Euclidean distances need);
        else what is removed before vectors are brought to length one.
    """

    def __init__(self, n_objects: int, n_locations: int, metric: str | None = None) -> None:
        self.metric = metric
        self.grams = np.zeros((n_locations, n_objects, n_objects))
        self.scale = np.zeros(n_locations)

    def add(self, stretch: Stretch) -> None:
        """Add a stretch of units."""
        for location in range(len(self.grams)):
            rows: Values
            if self.metric is None:
                raw = stretch.values[:, location]
                self.scale[location] += float((raw * raw).sum(dtype=np.float64))
                mean = raw.mean(axis=0, dtype=np.float64)
                rows = raw - mean.astype(raw.dtype)
            else:
                rows = stretch.units_at(self.metric, location)
            self.grams[location] += dot_products(rows, rows)

    def cleaned(self) -> Floats:
        """Return the Gram matrices, zero where what is left of the activations is rounding."""
        traces = np.trace(self.grams, axis1=1, axis2=2)
        dead = traces <= NOISE * np.maximum(self.scale, np.finfo(float).tiny)
        return np.where(dead[:, None, None], 0.0, self.grams)


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


def cka_of_grams(grams: ArrayLike, *, biased: bool = False) -> Floats:
    """Return linear CKA between all pairs of Gram matrices.

    Parameters
    ----------
    grams
        Shape (location, object, object).
    biased
        Whether the biased estimate is wanted.

    Returns
    -------
    float64 (location, location)
        At most 1; the unbiased one can be negative. NaN where all objects have the same code, and
        for the unbiased one of fewer than 4 objects.

    Examples
    --------
    >>> rows = np.random.default_rng(0).normal(size=(6, 3))
    >>> cka_of_grams([rows @ rows.T, 4 * rows @ rows.T]).round(6)
    array([[1., 1.],
           [1., 1.]])
    """
    centred = centre_grams(grams, biased=biased)
    flat = centred.reshape(len(centred), -1)
    return _cosines(flat, np.abs(np.asarray(grams, np.float64)).reshape(len(centred), -1).sum(1))


def _cosines(rows: Floats, scale: Floats) -> Floats:
    """Return cosines between rows, NaN for those that are zero up to rounding."""
    lengths = np.linalg.norm(rows, axis=1)
    dead = ~(lengths > NOISE * np.maximum(scale, np.finfo(float).tiny))
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
    return cka_of_grams(tally.cleaned(), biased=biased)


def dissimilarities(grams: ArrayLike, dissimilarity: Dissimilarity = "correlation") -> Floats:
    """Return representational dissimilarities of all pairs of objects at each location.

    Parameters
    ----------
    grams
        Shape (location, object, object): products of vectors of length one (less their mean over
        units for ``correlation``), or, for ``euclidean``, of the activations.
    dissimilarity
        ``correlation`` and ``cosine`` are one minus the product, ``euclidean`` the distance.

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
    pairs = products[:, first, second]
    if dissimilarity != "euclidean":
        return 1.0 - pairs
    squares = products[:, first, first] + products[:, second, second] - 2 * pairs
    distances: Floats = np.sqrt(np.maximum(squares, 0.0))
    return distances


def compare_dissimilarities(values: ArrayLike, comparison: Comparison = "spearman") -> Floats:
    """Return how alike dissimilarities are between all pairs of locations.

    Parameters
    ----------
    values
        Shape (location, pair).
    comparison
        ``spearman`` and ``pearson`` correlate, ``cosine`` does not subtract the mean.

    Returns
    -------
    float64 (location, location), -1..1
        NaN where the dissimilarities of a location do not vary, or there are fewer than 2 pairs.

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
    spread = np.ptp(rows, axis=1)
    flat = spread <= 1e-6 * np.abs(rows).max(axis=1, initial=0.0)
    if comparison == "spearman":
        rows = stats.rankdata(rows, axis=1)
    if comparison != "cosine":
        rows = rows - rows.mean(axis=1, keepdims=True)
        rows = np.where(flat[:, None], 0.0, rows)
    return _cosines(rows, np.abs(rows).sum(axis=1))


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
        NaN below 3 objects, and where all dissimilarities are equal.

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
    return compare_dissimilarities(dissimilarities(tally.grams, dissimilarity), comparison)


def left_out(
    grams: Floats, measure: Callable[[Floats], Floats], objects: Sequence[int] | None = None
) -> Floats:
    """Return `measure` of Gram matrices without each object in turn, shape (object, ...).

    Parameters
    ----------
    grams
        Shape (location, object, object).
    measure
        From Gram matrices to anything.
    objects
        Which objects are left out in turn; all by default.

    Examples
    --------
    >>> left_out(np.ones((2, 3, 3)), lambda grams: grams.sum(axis=(1, 2)))
    array([[4., 4.],
           [4., 4.],
           [4., 4.]])
    """
    chosen = range(grams.shape[1]) if objects is None else objects
    found = []
    for number in chosen:
        rest = np.delete(np.delete(grams, number, axis=1), number, axis=2)
        found.append(measure(rest))
    return np.stack(found)
