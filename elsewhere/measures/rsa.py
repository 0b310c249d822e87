r"""Representational similarity between locations: geometry preserved across the move."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import scipy  # scipy.stats is imported when first used: it takes most of a second
from numpy.typing import ArrayLike

from elsewhere.errors import UnknownNameError
from elsewhere.measures.catalogue import Measure, entry, measures
from elsewhere.measures.grams import NOISE, GramTally, gram_bytes, read_grams, row_cosines
from elsewhere.measures.tables import ALIKE, Reading, Table
from elsewhere.measures.unit_chunks import Floats, Stretch, add_all

TIE = 1e-10
"""Dissimilarities that differ by less than this share of the largest have the same rank."""

Dissimilarity = Literal["correlation", "cosine", "euclidean"]
Comparison = Literal["spearman", "pearson", "cosine"]
DISSIMILARITIES: tuple[str, ...] = get_args(Dissimilarity)
COMPARISONS: tuple[str, ...] = get_args(Comparison)
PREPARED = {"correlation": "pearson", "cosine": "cosine"}
"""What is removed from vectors of length one whose products give the dissimilarity."""


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
        :class:`elsewhere.measures.grams.GramTally` has them; those that are no larger count as 0.

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
    """Return by how much rounding may change :func:`dissimilarities`, float64 (location, pair)."""
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
    return row_cosines(rows, NOISE * np.abs(rows).sum(axis=1))


def _ranks(rows: Floats, tie: Floats) -> Floats:
    """Return ranks along each row; values that lie within `tie` of their neighbour are equal."""
    order = np.argsort(rows, axis=1)
    steps = np.diff(np.take_along_axis(rows, order, axis=1), axis=1) > tie
    groups = np.zeros(rows.shape)
    groups[:, 1:] = np.cumsum(steps, axis=1)
    found = np.empty(rows.shape)
    np.put_along_axis(found, order, groups, axis=1)
    ranks: Floats = scipy.stats.rankdata(found, axis=1)
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


def _read(table: Table) -> Reading:
    def doubts(tally: GramTally) -> list[str]:
        values = dissimilarities(tally.cleaned(), floors=tally.floors())
        share = float((values == 0).mean()) if values.size else 0.0
        if not share:
            return []
        return [f"{share:.2g} of the dissimilarities are no larger than rounding, and tie at 0"]

    return read_grams("rsa", table, "pearson", rsa_of_grams, doubts)


def _undefined(table: Table) -> str:
    if table.n_objects < 3:
        return f"RSA needs at least 3 objects, got {table.n_objects}"
    return (
        f"at all locations but one at most {ALIKE}, or all objects are equally unlike each "
        "other: there is no order to compare"
    )


measures.add(
    "rsa",
    Measure(
        rsa,
        "Spearman correlation of the dissimilarities (1 - Pearson over units) of all pairs of "
        "objects at p and at q",
        ("kriegeskorte2008",),
        literature={
            "kriegeskorte2008": entry(
                "article",
                author="Kriegeskorte, Nikolaus and Mur, Marieke and Bandettini, Peter",
                title="Representational Similarity Analysis -- Connecting the Branches of Systems "
                "Neuroscience",
                journal="Frontiers in Systems Neuroscience",
                volume="2",
                pages="4",
                year="2008",
            ),
        },
        reading=_read,
        against=("all", "reference"),
        headline="rsa_away",
        range="-1..1",
        direction="higher: the geometry of the objects is better preserved",
        chance="0",
        question="Are the same pairs of objects alike here and there?",
        can="It compares with brains and behaviour, for only the ranks of dissimilarities count.",
        cannot="It cannot show invariance: a code that is only turned, or moves with the object, "
        "scores 1.",
        least=3,
        matrices=1,
        metric="pearson",
        sketches=False,
        memory=gram_bytes,
        undefined=_undefined,
    ),
    summary="RSA, 1 - Pearson compared by Spearman: geometry preserved across the move",
)
