"""The object told among a few others by the largest cosine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import comb

from elsewhere.errors import InputError
from elsewhere.measures.catalogue import Measure, measures
from elsewhere.measures.tables import (
    Reading,
    Table,
    Variables,
    estimated,
    fit,
    matrix_variables,
)
from elsewhere.measures.unit_chunks import Floats, Stretch, add_all
from elsewhere.measures.vectors import dot_products

N_CANDIDATES = 5
WORKING = 2**18
"""Numbers of an intermediate array, about: references are gone through a few at a time."""


def _shares(
    scores: Floats, codes: NDArray[np.int64], number: int, candidates: int, tie: Floats
) -> tuple[Floats, Floats]:
    r"""Return how often one object is told, and the same without each category of distractors.

    With the shares b and l of a category's exemplars that score below the object itself and as
    high, k distractors of different categories leave it first, or let it win the draw among equals,
    with the probability :math:`\int_0^1 e_k(b + l t)\,dt / \binom{m}{k}`: e is the elementary
    symmetric polynomial over the m other categories, and j equals in a product give :math:`\int t^j
    dt = 1 / (1 + j)`. Gauss-Legendre nodes give the integral exactly.

    Scores are (..., candidate object), those that differ by no more than `tie` (...) are equal, and
    there are `candidates`, the right one among them; distractors are one exemplar each of different
    other categories, so that chance is one over `candidates` however alike exemplars are. The
    shapes are (...) and (category, ...); without its own category, an object has no value.
    """
    n_categories, n_drawn = int(codes.max()) + 1, candidates - 1
    missing = np.full(scores.shape[:-1], np.nan)
    without = np.full((n_categories, *missing.shape), np.nan)
    others = np.delete(np.arange(n_categories), codes[number])
    if not 1 <= n_drawn <= len(others):
        return missing, without
    right, width = scores[..., number, None], tie[..., None]
    exemplars = codes[:, None] == others
    member = exemplars / exemplars.sum(axis=0)
    below, level = scores < right - width, np.abs(scores - right) <= width
    nodes, weights = np.polynomial.legendre.leggauss(n_drawn // 2 + 1)
    steps = (nodes + 1) / 2
    factors = np.moveaxis((below @ member)[..., None] + (level @ member)[..., None] * steps, -2, 0)
    after = np.zeros((len(others) + 1, n_drawn + 1, *factors.shape[1:]))  # of later categories
    after[-1, 0] = 1.0
    for place in reversed(range(len(others))):
        after[place] = after[place + 1]
        after[place, 1:] += factors[place] * after[place + 1, :-1]

    def integral(products: Floats) -> Floats:  # exact where they do not differ: no ties
        one = products[..., 0]
        return np.asarray(one + (products - one[..., None]) @ weights / 2)

    share = integral(after[0, -1]) / comb(len(others), n_drawn)
    if len(others) > n_drawn:
        before = np.zeros_like(after[0])
        before[0] = 1.0
        for place, other in enumerate(others):
            rest = (before * after[place + 1, ::-1]).sum(axis=0)
            without[other] = integral(rest) / comb(len(others) - 1, n_drawn)
            before[1:] += factors[place] * before[:-1]  # the right side is taken first
    return share, without


class DiscriminationTally:
    """Sums distances of everything to all objects at some locations, over stretches of units.

    Of vectors of length one, half the squared distance is one minus the cosine. It is taken less
    the mean over objects and locations, in double precision: cosines of codes that share a large
    common part differ by less than the rounding of 1.
    """

    def __init__(
        self, codes: NDArray[np.int64], n_locations: int, references: Sequence[int]
    ) -> None:
        n = len(codes)
        self._codes, self.references = codes, list(references)
        self._products = np.zeros((len(self.references), n, n_locations, n))
        self._squares = np.zeros((n, n_locations))
        self._zero = np.zeros((n, n_locations), dtype=bool)
        self._rounding = 0.0

    def add(self, stretch: Stretch) -> None:
        """Add a stretch of units."""
        n, n_locations, _ = stretch.shape
        self._rounding = max(self._rounding, stretch.rounding)
        inverse = stretch.lengths_of("cosine").inverse
        self._zero = inverse == 0
        mean = np.zeros(stretch.shape[2])
        for values, scale in zip(stretch.values, inverse, strict=True):
            mean += scale @ values
        mean /= n * n_locations

        def centred(number: int, locations: Sequence[int]) -> Floats:
            rows = stretch.values[number, locations] * inverse[number, locations][:, None]
            return np.asarray(rows - mean, dtype=np.float64)

        every = range(n_locations)
        for number in range(n):
            here = centred(number, every)
            self._squares[number] += np.einsum("lu,lu->l", here, here)
            for other in range(n):
                there = centred(other, self.references)
                self._products[:, number, :, other] += dot_products(there, here)

    def value(self, *, candidates: int = N_CANDIDATES) -> tuple[Floats, Floats]:
        """Return the share of right choices, and its mean without each category in turn.

        The shapes are (reference, object, location) and (category, reference, location). A category
        that is left out is neither asked nor among the candidates.
        """
        codes = self._codes
        n, n_categories = len(codes), int(codes.max()) + 1
        found = np.full(self._products.shape[:3], np.nan)
        without = np.zeros((n_categories, len(found), found.shape[2]))
        left = n - np.bincount(codes, minlength=n_categories)
        step = max(1, WORKING // (n_categories * candidates**2 * found.shape[2]))
        for number in range(n):
            for first in range(0, len(found), step):
                chosen = slice(first, first + step)
                places = self.references[chosen]
                products = self._products[chosen, number]
                squares = self._squares[number][:, None] + self._squares[:, places].T[:, None]
                distances = np.maximum(squares - 2 * products, 0.0) / 2
                zero = self._zero[number][:, None] | self._zero[:, places].T[:, None]
                distances[zero] = 1.0
                right = distances[:, :, number]
                tie = self._rounding * (2 * np.sqrt(right) + self._rounding)
                share, rest = _shares(-distances, codes, number, candidates, tie)
                found[chosen, number] = share
                kept = np.arange(n_categories) != codes[number]
                without[kept, chosen] += rest[kept]
        return found, without / np.maximum(left, 1)[:, None, None]


def discrimination(
    activations: ArrayLike,
    *,
    categories: Sequence[object] | None = None,
    candidates: int = N_CANDIDATES,
) -> Floats:
    """Return how often an object there is told among `candidates` objects here, by the cosine.

    Parameters
    ----------
    activations
        Shape (object, location, unit), floating.
    categories
        One per object; distractors are of other categories, one of each.
    candidates
        Objects to choose from; chance is one over it.

    Returns
    -------
    float64 (location of the candidates, location of the object), 0..1
        Exact over all draws of distractors; NaN with too few other categories.

    Raises
    ------
    InputError
        Fewer than two candidates.

    Examples
    --------
    >>> still = np.eye(5)[:, None].repeat(2, axis=1)
    >>> discrimination(still)
    array([[1., 1.],
           [1., 1.]])
    """
    if candidates < 2:
        raise InputError(f"{candidates} candidates leave no choice; expected at least 2")
    stretch = Stretch.whole(activations, categories)
    n_locations = stretch.shape[1]
    tally = DiscriminationTally(stretch.codes, n_locations, range(n_locations))
    add_all(stretch, tally)
    return np.asarray(tally.value(candidates=candidates)[0].mean(axis=1))


def _references(table: Table) -> Sequence[int]:
    """Return the locations that candidates stand at: all, or the reference if too many."""
    if table.against == "all" and fit((table.n_objects * table.n_positions) ** 2):
        return range(table.n_positions)
    return [] if table.reference is None else [table.reference]


def _discrimination(table: Table) -> Reading:
    references = list(_references(table))
    tally = DiscriminationTally(table.codes, table.n_positions, references)

    def read() -> Variables:
        shares, rest = tally.value(candidates=N_CANDIDATES)
        matrices = np.full((1 + len(rest), table.n_positions, table.n_positions), np.nan)
        matrices[0, references] = shares.mean(axis=1)
        matrices[1:, references] = rest
        own, *without = map(table.away, matrices)
        return matrix_variables("discrimination", matrices[0], table) | estimated(
            "discrimination_away", own, np.array(without), share=True
        )

    return Reading(tally, read)


def _memory(table: Table) -> float:
    n, p = table.n_objects, table.n_positions
    return 8.0 * len(_references(table)) * n * p * n * 2 + 8.0 * n * p * p


def _undefined(table: Table) -> str:
    if not len(_references(table)):
        return "the reference, where the candidates stand, is no location of the grid"
    return (
        f"an object has fewer than {N_CANDIDATES - 1} others of other categories, each of a "
        "different one"
    )


def _remarks(table: Table) -> list[str]:
    if table.against == "reference" or len(_references(table)) == table.n_positions:
        return []
    return ["discrimination: candidates stand at the reference only: too many for all"]


measures.add(
    "discrimination",
    Measure(
        discrimination,
        "share of objects at p whose largest cosine with 5 candidates at r (four others, each of "
        "another category, averaged over all draws) is that with themselves",
        reading=_discrimination,
        against=("all", "reference"),
        headline="discrimination_away",
        range="0..1",
        direction="higher: the object is told from others more often",
        chance="0.2",
        question="Can the object be told among five by the nearest code?",
        can="It answers in shares correct, as an observer does who chooses among five.",
        cannot="It cannot tell how the network itself would decide: the choice is by cosine.",
        least=5,
        matrices=1,
        metric="cosine",
        sketches=False,
        memory=_memory,
        undefined=_undefined,
        remarks=_remarks,
        interval="95 % interval over {units}",
    ),
    summary="the object told among five by the largest cosine",
)
