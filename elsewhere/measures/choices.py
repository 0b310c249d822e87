r"""Choices that a code supports: the same answer here and there, the object told among others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import comb

from elsewhere.errors import InputError
from elsewhere.measures.stretches import Floats, Stretch, add_all
from elsewhere.measures.vectors import dot_products

N_CANDIDATES = 5
TIE = 1e-6
"""Cosines that differ by less are equal: rounding must not decide."""


@dataclass(frozen=True)
class Consistency:
    """How often the strongest output is the same at two locations.

    Parameters
    ----------
    value
        Share of the pairs of locations p < q of the same object with the same strongest output.
    chance
        Share of equal outputs among all pairs of two different vectors.
    corrected
        ``(value - chance) / (1 - chance)``; NaN where a single output is always the strongest.
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


def consistency(choices: ArrayLike) -> Consistency:
    """Return the consistency of choices across locations, with chance and the corrected value.

    Parameters
    ----------
    choices
        int (object, location): the class that was chosen, for example the largest logit.

    Returns
    -------
    Consistency
        A constant output has the value 1 and the chance 1: the corrected value is NaN.

    References
    ----------
    Zhang (2019), ICML, for the consistency; the correction is Cohen's (1960) kappa with pooled
    shares.

    Examples
    --------
    >>> found = consistency([[0, 0, 1], [1, 1, 1]])
    >>> round(found.value, 3), round(found.chance, 3), round(found.corrected, 3)
    (0.667, 0.467, 0.375)
    """
    chosen = np.asarray(choices)
    if chosen.ndim != 2 or 0 in chosen.shape:
        raise InputError(f"choices have shape {chosen.shape}; expected (object, location)")
    same = chosen[:, :, None] == chosen[:, None, :]
    matrix = same.mean(axis=0)
    first, second = np.triu_indices(chosen.shape[1], k=1)
    value = float(matrix[first, second].mean()) if len(first) else float("nan")
    counts = np.unique(chosen, return_counts=True)[1].astype(np.float64)
    pairs = chosen.size * (chosen.size - 1)  # none of a choice with itself
    chance = float((counts * (counts - 1)).sum() / pairs) if pairs else float("nan")
    corrected = (value - chance) / (1 - chance) if chance < 1 else float("nan")
    return Consistency(value, chance, corrected, matrix)


def strongest_consistency(activations: ArrayLike) -> Consistency:
    """Return the :func:`consistency` of the largest unit of each vector, such as the logits.

    Parameters
    ----------
    activations
        Shape (object, location, unit), floating.

    Examples
    --------
    >>> strongest_consistency(np.eye(3)[:, None].repeat(2, axis=1)).corrected
    1.0
    """
    stretch = Stretch.whole(activations)
    tally = ChoiceTally(*stretch.shape[:2])
    add_all(stretch, tally)
    return consistency(tally.choices)


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
        int (object,): categories; distractors are of other categories.
    candidates
        Objects to choose from, the right one among them.
    tie
        Cosines that differ by no more are equal; a number, or shape (object, ...).

    Returns
    -------
    float64 (object, ...), 0..1
        The expectation over all draws of distractors, ties broken at random: exact, nothing is
        drawn. NaN where there are fewer distractors than asked for.

    Examples
    --------
    >>> share_correct(np.eye(3), np.arange(3), candidates=3)
    array([1., 1., 1.])
    >>> share_correct(np.zeros((3, 3)), np.arange(3), candidates=3).round(3)    # all alike
    array([0.333, 0.333, 0.333])
    """
    found = np.asarray(cosines, dtype=np.float64)
    n_drawn = candidates - 1
    shares = np.full(found.shape[:-1], np.nan)
    ties = np.broadcast_to(np.asarray(tie, dtype=np.float64), shares.shape)
    for number in range(len(found)):
        other = codes != codes[number]
        total = int(other.sum())
        if n_drawn < 1 or total < n_drawn:
            continue
        right = found[number][..., number, None]
        rivals = found[number][..., other]
        width = ties[number][..., None]
        above = (rivals > right + width).sum(axis=-1)
        level = (np.abs(rivals - right) <= width).sum(axis=-1)
        below = total - above - level
        chance = np.zeros(above.shape)
        for equal in range(n_drawn + 1):
            chance += comb(level, equal) * comb(below, n_drawn - equal) / (1 + equal)
        shares[number] = chance / comb(total, n_drawn)
    return shares


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

    def value(self, *, candidates: int = N_CANDIDATES) -> Floats:
        """Return the share of right choices, shape (reference, object, location)."""
        objects = np.arange(len(self._codes))
        found = np.full(self._products.shape[:3], np.nan)
        for number, place in enumerate(self.references):
            products = self._products[number]
            squares = self._squares[:, :, None] + self._squares[:, place]
            distances = np.maximum(squares - 2 * products, 0.0) / 2
            distances[self._zero[:, :, None] | self._zero[:, place]] = 1.0
            right = distances[objects, :, objects]
            tie = self._rounding * (2 * np.sqrt(right) + self._rounding)
            found[number] = share_correct(-distances, self._codes, candidates=candidates, tie=tie)
        return found


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
        One per object; distractors are of other categories.
    candidates
        Objects to choose from; chance is one over it.

    Returns
    -------
    float64 (location of the candidates, location of the object), 0..1
        Exact over all draws of distractors; NaN with too few of them.

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
    return np.asarray(tally.value(candidates=candidates).mean(axis=1))
