"""Choices that a code supports: the same answer here and there, the object told among others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import comb

from elsewhere.errors import InputError
from elsewhere.measures.similarity import n_cross_pairs
from elsewhere.measures.stretches import Floats, Stretch, add_all
from elsewhere.measures.vectors import dot_products

N_CANDIDATES = 5
TIE = 1e-6
"""Cosines that differ by less are equal: rounding must not decide."""
WORKING = 2**18
"""Numbers of an intermediate array, about: references are gone through a few at a time."""


@dataclass(frozen=True)
class Consistency:
    """How often the strongest output is the same at two locations.

    Parameters
    ----------
    value
        Share of the pairs of locations p < q of the same object with the same strongest output.
    chance
        Share of equal outputs among pairs of objects of different categories at different
        locations, NaN where there are none.
    corrected
        ``(value - chance) / (1 - chance)``; NaN where a single output is always the strongest, and
        where there is no chance.
    matrix
        float64 (location, location): the share of objects.
    """

    value: float
    chance: float
    corrected: float
    matrix: Floats


class ChoiceTally:
    """Keeps each vector's largest unit over stretches of units, which come in their order.

    Units that lie below the largest one by no more than rounding are its equals: the first of
    them is taken.
    """

    def __init__(self, n_objects: int, n_locations: int) -> None:
        self._best = np.full((n_objects, n_locations), -np.inf)
        self._tied = np.zeros((n_objects, n_locations), dtype=bool)
        self.choices = np.zeros((n_objects, n_locations), dtype=np.int64)

    @property
    def tied_share(self) -> float:
        """Share of the vectors in which several units are the largest, up to rounding."""
        return float(self._tied.mean())

    def add(self, stretch: Stretch) -> None:
        """Add a stretch of units."""
        rounding = stretch.rounding
        for number, rows in enumerate(stretch.values):
            largest = rows.max(axis=1).astype(np.float64)
            level = rows >= (largest - rounding * np.abs(largest))[:, None]
            places, several = level.argmax(axis=1), level.sum(axis=1) > 1
            best = self._best[number]
            margin = rounding * np.where(np.isfinite(best), np.abs(best), 0.0)
            better, equal = largest > best + margin, np.abs(largest - best) <= margin
            self.choices[number][better] = places[better] + stretch.first
            self._tied[number] = np.where(better, several, self._tied[number] | equal)
            self._best[number] = np.maximum(best, largest)


def consistency(choices: ArrayLike, *, categories: Sequence[object] | None = None) -> Consistency:
    """Return the consistency of choices across locations, with chance and the corrected value.

    Parameters
    ----------
    choices
        int (object, location): the class that was chosen, for example the largest logit.
    categories
        One per object, each its own by default. Chance is that of *another* object *elsewhere*:
        copies of an exemplar, and what a place alone makes of all objects, are no chance.

    Returns
    -------
    Consistency
        A constant output has the value 1 and the chance 1: the corrected value is NaN.

    Raises
    ------
    InputError
        Choices are no matrix, or there is not one category for each object.

    References
    ----------
    Zhang (2019), ICML, for the consistency; the correction is as Cohen's (1960) kappa.

    Examples
    --------
    >>> found = consistency([[0, 0, 1], [1, 1, 1]])
    >>> round(found.value, 3), round(found.chance, 3), round(found.corrected, 3)
    (0.667, 0.333, 0.5)
    """
    chosen = np.asarray(choices)
    if chosen.ndim != 2 or 0 in chosen.shape:
        raise InputError(f"choices have shape {chosen.shape}; expected (object, location)")
    names = list(range(len(chosen))) if categories is None else list(categories)
    if len(names) != len(chosen):
        raise InputError(f"{len(names)} categories for {len(chosen)} objects; give one for each")
    order = {name: number for number, name in enumerate(dict.fromkeys(names))}
    codes = np.array([order[name] for name in names], dtype=np.int64)
    same = chosen[:, :, None] == chosen[:, None, :]
    matrix = same.mean(axis=0)
    n_locations = chosen.shape[1]
    first, second = np.triu_indices(n_locations, k=1)
    value = float(matrix[first, second].mean()) if len(first) else float("nan")
    found = np.unique(chosen, return_inverse=True)[1].reshape(chosen.shape)
    equal = _equal_elsewhere(found) - _equal_elsewhere(found + chosen.size * codes[:, None])
    pairs = n_cross_pairs(codes) * n_locations * (n_locations - 1)
    chance = equal / pairs if pairs else float("nan")
    corrected = (value - chance) / (1 - chance) if chance < 1 else float("nan")
    return Consistency(value, chance, corrected, matrix)


def _equal_elsewhere(keys: NDArray[np.int64]) -> float:
    """Return how many ordered pairs at different locations have equal keys, (object, location)."""
    found, numbers = np.unique(keys, return_inverse=True)
    counts = np.zeros((len(found), keys.shape[1]))
    np.add.at(counts, (numbers.reshape(keys.shape), np.arange(keys.shape[1])), 1.0)
    return float((counts.sum(axis=1) ** 2).sum() - (counts**2).sum())


def strongest_consistency(
    activations: ArrayLike, *, categories: Sequence[object] | None = None
) -> Consistency:
    """Return the :func:`consistency` of the largest unit of each vector, such as the logits.

    Parameters
    ----------
    activations
        Shape (object, location, unit), floating.
    categories
        One per object, each its own by default.

    Examples
    --------
    >>> strongest_consistency(np.eye(3)[:, None].repeat(2, axis=1)).corrected
    1.0
    """
    stretch = Stretch.whole(activations, categories)
    tally = ChoiceTally(*stretch.shape[:2])
    add_all(stretch, tally)
    return consistency(tally.choices, categories=stretch.codes.tolist())


def share_correct(
    cosines: ArrayLike,
    codes: NDArray[np.int64],
    *,
    candidates: int = N_CANDIDATES,
    tie: ArrayLike = TIE,
) -> Floats:
    """Return how often each object is told from distractors by the largest cosine.

    Parameters
    ----------
    cosines
        Shape (object, ..., candidate object): of each object here with all objects there, in the
        same order, or anything else that is largest for the most alike.
    codes
        int (object,): categories. Distractors are of other categories and of different ones, one
        exemplar of each: chance is one over `candidates` however alike the exemplars are.
    candidates
        Objects to choose from, the right one among them.
    tie
        Cosines that differ by no more are equal; a number, or shape (object, ...).

    Returns
    -------
    float64 (object, ...), 0..1
        The expectation over all draws of distractors, ties broken at random: exact, nothing is
        drawn. NaN where there are fewer other categories than distractors.

    Examples
    --------
    >>> share_correct(np.eye(3), np.arange(3), candidates=3)
    array([1., 1., 1.])
    >>> share_correct(np.zeros((3, 3)), np.arange(3), candidates=3).round(3)    # all alike
    array([0.333, 0.333, 0.333])
    >>> alike = np.zeros((4, 4))
    >>> share_correct(alike, np.array([0, 1, 1, 2]), candidates=3).round(3)     # copies change none
    array([0.333, 0.333, 0.333, 0.333])
    """
    found = np.asarray(cosines, dtype=np.float64)
    ties = np.broadcast_to(np.asarray(tie, dtype=np.float64), found.shape[:-1])
    return np.stack([_shares(row, codes, o, candidates, ties[o])[0] for o, row in enumerate(found)])


def _shares(
    scores: Floats, codes: NDArray[np.int64], number: int, candidates: int, tie: Floats
) -> tuple[Floats, Floats]:
    r"""Return how often one object is told, and the same without each category of distractors.

    With the shares b and l of a category's exemplars that score below the object itself and as
    high, k distractors of different categories leave it first, or let it win the draw among
    equals, with the probability :math:`\int_0^1 e_k(b + l t)\,dt / \binom{m}{k}`: e is the
    elementary symmetric polynomial over the m other categories, and j equals in a product give
    :math:`\int t^j dt = 1 / (1 + j)`. Gauss-Legendre nodes give the integral exactly.

    Parameters
    ----------
    scores
        Shape (..., candidate object).
    codes
        int (object,), from 0 on.
    number
        The object.
    candidates, tie
        As for :func:`share_correct`; `tie` has the shape (...).

    Returns
    -------
    ndarray
        Shapes (...) and (category, ...); without its own category, an object has no value.
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

    Parameters
    ----------
    codes
        int (object,), categories.
    n_locations
        How many.
    references
        Numbers of the locations that are compared with.
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

        Returns
        -------
        ndarray
            Shapes (reference, object, location) and (category, reference, location). A category
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
