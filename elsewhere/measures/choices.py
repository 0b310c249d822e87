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
        The sum of squared shares of the outputs, over all objects and locations.
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
    """Keeps each vector's largest unit over stretches of units."""

    def __init__(self, n_objects: int, n_locations: int) -> None:
        self._best = np.full((n_objects, n_locations), -np.inf)
        self.choices = np.zeros((n_objects, n_locations), dtype=np.int64)

    def add(self, stretch: Stretch) -> None:
        """Add a stretch of units."""
        for number, rows in enumerate(stretch.values):
            places = rows.argmax(axis=1)
            largest = rows[np.arange(len(rows)), places].astype(np.float64)
            better = (largest > self._best[number]) | (
                (largest == self._best[number]) & (places + stretch.first < self.choices[number])
            )
            self.choices[number][better] = places[better] + stretch.first
            self._best[number][better] = largest[better]


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
    (0.667, 0.556, 0.25)
    """
    chosen = np.asarray(choices)
    if chosen.ndim != 2 or 0 in chosen.shape:
        raise InputError(f"choices have shape {chosen.shape}; expected (object, location)")
    same = chosen[:, :, None] == chosen[:, None, :]
    matrix = same.mean(axis=0)
    first, second = np.triu_indices(chosen.shape[1], k=1)
    value = float(matrix[first, second].mean()) if len(first) else float("nan")
    shares = np.unique(chosen, return_counts=True)[1] / chosen.size
    chance = float((shares**2).sum())
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
    cosines: ArrayLike, codes: NDArray[np.int64], *, candidates: int = N_CANDIDATES
) -> Floats:
    """Return how often each object is told from distractors by the largest cosine.

    Parameters
    ----------
    cosines
        Shape (object, ..., candidate object): of each object here with all objects there, in the
        same order.
    codes
        int (object,): categories; distractors are of other categories.
    candidates
        Objects to choose from, the right one among them.

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
    for number in range(len(found)):
        other = codes != codes[number]
        total = int(other.sum())
        if n_drawn < 1 or total < n_drawn:
            continue
        right = found[number][..., number, None]
        rivals = found[number][..., other]
        above = (rivals > right + TIE).sum(axis=-1)
        level = (np.abs(rivals - right) <= TIE).sum(axis=-1)
        below = total - above - level
        chance = np.zeros(above.shape)
        for ties in range(n_drawn + 1):
            chance += comb(level, ties) * comb(below, n_drawn - ties) / (1 + ties)
        shares[number] = chance / comb(total, n_drawn)
    return shares


class DiscriminationTally:
    """Sums cosines of everything with all objects at some locations, over stretches of units.

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
        self._cosines = np.zeros((len(self.references), n, n_locations, n))

    def add(self, stretch: Stretch) -> None:
        """Add a stretch of units."""
        n = len(self._codes)
        if len(self.references) == 1:
            candidates = stretch.units_at("cosine", self.references[0])
            for number in range(n):
                self._cosines[0, number] += dot_products(
                    stretch.units("cosine", number), candidates
                )
            return
        for number in range(n):
            here = stretch.units("cosine", number)
            for other in range(n):
                there = stretch.units("cosine", other)[self.references]
                self._cosines[:, number, :, other] += dot_products(there, here)

    def value(self, *, candidates: int = N_CANDIDATES) -> Floats:
        """Return the share of right choices, shape (reference, object, location)."""
        return np.stack(
            [share_correct(found, self._codes, candidates=candidates) for found in self._cosines]
        )


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
