"""The same answer here and there: consistency of the largest unit across locations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import InputError
from elsewhere.measures.catalogue import Measure, measures
from elsewhere.measures.similarity import n_cross_pairs
from elsewhere.measures.tables import (
    JACKKNIFE_COST,
    Reading,
    Table,
    Variables,
    estimated,
    matrix_variables,
    scalar,
)
from elsewhere.measures.unit_chunks import Floats, Stretch, add_all


@dataclass(frozen=True)
class Consistency:
    """How often the strongest output is the same at two locations.

    `value` is the share of the pairs of locations p < q of the same object with the same strongest
    output, `matrix` (location, location) that of objects. `chance` is the share of equal outputs
    among pairs of objects of different categories at different locations, NaN where there are none,
    and `corrected` is ``(value - chance) / (1 - chance)``; NaN where a single output is always the
    strongest, and where there is no chance.
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


def _consistency(table: Table) -> Reading:
    tally = ChoiceTally(table.n_objects, table.n_positions)

    def read() -> Variables:
        choices, codes = tally.choices, table.codes
        found = consistency(choices, categories=codes.tolist())
        variables = matrix_variables("consistency", found.matrix, table)
        variables["consistency_chance"] = scalar(found.chance)
        variables["consistency_corrected"] = scalar(found.corrected)
        n, units = len(choices), table.sampled
        if len(units) > 2 and n * len(units) * table.n_positions**2 <= JACKKNIFE_COST:
            left = [np.setdiff1d(np.arange(n), members) for members in units.members]
            without = np.array(
                [consistency(choices[m], categories=codes[m].tolist()).corrected for m in left]
            )
            variables |= estimated("consistency_corrected", found.corrected, without)
        return variables

    def doubts() -> list[str]:
        share = tally.tied_share
        if not share:
            return []
        return [f"{share:.2g} of the vectors have several largest units: the first is taken"]

    return Reading(tally, read, doubts=doubts)


def _undefined(table: Table) -> str:
    if len(set(table.codes.tolist())) < 2:
        return "all objects are of one category: chance is that of objects of other ones"
    return "a single unit is always the largest"


measures.add(
    "consistency",
    Measure(
        strongest_consistency,
        "share of pairs p < q with the same argmax; (value - chance) / (1 - chance), chance being "
        "the share of equal pairs among objects of different categories at p != q",
        ("zhang2019",),
        reading=_consistency,
        against=("all", "reference"),
        headline="consistency_corrected",
        range="up to 1",
        direction="higher: the choice survives the move more often",
        chance="0",
        question="Does the strongest output stay the same when the object moves?",
        can="It needs no labels, and can be taken of any layer of single units.",
        cannot="It cannot tell whether the choice that stays is the right one.",
        least=2,
        matrices=1,
        vectors=True,
        sketches=False,
        memory=lambda table: table.n_objects * table.n_positions * (16.0 + table.n_positions),
        undefined=_undefined,
        no_interval=("consistency_away",),
    ),
    summary="same largest unit at two locations, with chance (vectors only)",
)
