r"""Linear centred kernel alignment between locations: geometry preserved across the move."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from elsewhere.measures.catalogue import Measure, entry, measures
from elsewhere.measures.grams import NOISE, GramTally, gram_bytes, read_grams, row_cosines
from elsewhere.measures.tables import ALIKE, Reading, Table
from elsewhere.measures.unit_chunks import Floats, Stretch, add_all

FEW_OBJECTS = 20
"""CKA of fewer objects is noisy: a warning says so."""
MINIMAL_OBJECTS = 4
"""The unbiased CKA divides by n (n - 3)."""


def centre_grams(grams: ArrayLike, *, biased: bool = False) -> Floats:
    r"""Return Gram matrices (..., object, object) whose inner products are HSIC, up to a factor.

    Biased, :math:`HKH` with :math:`H = I - 11^T/n`. Unbiased, with the diagonal of K zeroed,
    :math:`K_{ij} - \frac{K_{i \cdot} + K_{\cdot j}}{n - 2} + \frac{K_{\cdot \cdot}}{(n-1)(n-2)}`
    off the diagonal and 0 on it: their inner product is :math:`tr(KL) + \frac{1^T K 1 \, 1^T L
    1}{(n-1)(n-2)} - \frac{2}{n-2} 1^T K L 1`. The unbiased form of fewer than 4 objects is NaN.

    References
    ----------
    Song et al. (2012), JMLR 13:1393-1434; Kornblith et al. (2019), ICML.
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
        As :meth:`elsewhere.measures.grams.GramTally.floors` gives them.

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
    return row_cosines(flat, floor)


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


def _read(table: Table, *, biased: bool = False) -> Reading:
    def compare(grams: Floats, floors: Floats) -> Floats:
        return cka_of_grams(grams, biased=biased, floors=floors)

    return read_grams("cka_biased" if biased else "cka", table, None, compare)


def _undefined(table: Table) -> str:
    return f"at all locations but one at most {ALIKE}" if table.n_objects > 1 else ""


def _too_few(table: Table) -> str:
    n = table.n_objects
    if n < MINIMAL_OBJECTS:
        return f"the unbiased CKA needs at least {MINIMAL_OBJECTS} objects, got {n}"
    return _undefined(table)


def _remarks(table: Table) -> list[str]:
    if not MINIMAL_OBJECTS <= table.n_objects < FEW_OBJECTS:
        return []
    return [f"cka: {table.n_objects} objects are few; below {FEW_OBJECTS} it is noisy"]


_FORMULA = "HSIC(K_p, K_q) / sqrt(HSIC(K_p, K_p) HSIC(K_q, K_q)), HSIC "
_CKA = Measure(
    linear_cka,
    f"{_FORMULA}unbiased",
    ("kornblith2019", "song2012"),
    literature={
        "kornblith2019": entry(
            "inproceedings",
            author="Kornblith, Simon and Norouzi, Mohammad and Lee, Honglak and Hinton, Geoffrey",
            title="Similarity of Neural Network Representations Revisited",
            booktitle="International Conference on Machine Learning",
            pages="3519--3529",
            year="2019",
        ),
        "song2012": entry(
            "article",
            author="Song, Le and Smola, Alex and Gretton, Arthur and Bedo, Justin and Borgwardt, "
            "Karsten",
            title="Feature Selection via Dependence Maximization",
            journal="Journal of Machine Learning Research",
            volume="13",
            pages="1393--1434",
            year="2012",
        ),
    },
    reading=_read,
    against=("all", "reference"),
    headline="cka_away",
    range="-1..1",
    direction="higher: the geometry of the objects is better preserved",
    chance="0",
    question="Do the objects lie to each other here as they do there?",
    can="It finds a geometry that is preserved across the move, whatever the units.",
    cannot="It cannot show invariance: a code that is only turned, or moves with the object, "
    "scores 1.",
    least=4,
    matrices=1,
    sketches=False,
    memory=gram_bytes,
    undefined=_too_few,
    remarks=_remarks,
)
measures.add("cka", _CKA, summary="linear CKA, unbiased: geometry preserved across the move")
measures.add(
    "cka-biased",
    replace(
        _CKA,
        formula=f"{_FORMULA}biased",
        sources=("kornblith2019",),
        reading=partial(_read, biased=True),
        headline="cka_biased_away",
        range="0..1",
        chance="above 0, and near 1 for few objects",
        can="It gives the number that many papers print.",
        cannot="It cannot show invariance, and with few objects it is near 1 for unrelated codes.",
        least=2,
        undefined=_undefined,
        remarks=lambda table: (),
    ),
    summary="linear CKA, biased (near 1 for few objects)",
)
