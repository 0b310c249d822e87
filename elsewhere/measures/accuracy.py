"""Accuracy over locations: normalised accuracy, invariance indices.

Pure functions of arrays. Rows are objects, columns are locations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.measures.catalogue import Measure, measures
from elsewhere.measures.intervals import known_mean

FAR_GATE = 0.9
"""``II_far`` is not measurable where normalised accuracy on the location is below it."""
INDEX_GATE = 0.5
"""``II`` is not measurable unless the lower bound of that accuracy exceeds it."""


def normalized_accuracy(accuracy: ArrayLike, n_classes: int) -> NDArray[np.float64]:
    """Return accuracy as a share of the way from chance to 1.

    ``N = (accuracy - 1/K) / (1 - 1/K)`` for K classes that could be chosen; 0 at chance, 1 without
    an error, negative below chance, NaN with one class. Accuracies, 0..1, have any shape.

    Examples
    --------
    >>> normalized_accuracy([0.1, 0.55, 1.0], 10)
    array([0. , 0.5, 1. ])
    """
    chance = 1 / n_classes
    if n_classes < 2:
        return np.full(np.shape(accuracy), np.nan)
    return np.asarray((np.asarray(accuracy, np.float64) - chance) / (1 - chance))


def invariance_index(elsewhere: ArrayLike, on: ArrayLike, n_classes: int) -> NDArray[np.float64]:
    """Return normalised accuracy elsewhere as a share of that on the trained location.

    ``N(elsewhere) / N(on)``: a ratio of means, not clamped, NaN where N(on) is not above 0. N is
    linear in accuracy, so that N of the mean accuracy over locations is the mean of N over
    locations. Shapes broadcast.

    Examples
    --------
    >>> invariance_index(0.55, 1.0, 10), invariance_index(0.5, 0.1, 10)
    (array(0.5), array(nan))
    """
    above, below = normalized_accuracy(elsewhere, n_classes), normalized_accuracy(on, n_classes)
    above, below = np.broadcast_arrays(above, below)
    ratio = np.full(above.shape, np.nan)
    np.divide(above, below, out=ratio, where=below > 1e-12)
    return ratio


def displacements(locations: ArrayLike, trained: ArrayLike) -> NDArray[np.int64]:
    """Return the Chebyshev distance of each location from the nearest trained one, (n,), px.

    Both are int (n, 2), y and x, px; there is a trained one at least.

    Examples
    --------
    >>> displacements([[5, 5], [7, 9]], [[5, 5], [9, 9]])
    array([0, 2])
    """
    here, there = np.asarray(locations, np.int64), np.asarray(trained, np.int64)
    return np.asarray(np.abs(here[:, None] - there[None]).max(axis=2).min(axis=1), np.int64)


def balanced_mean(values: ArrayLike, classes: ArrayLike, *, axis: int = 0) -> NDArray[np.float64]:
    """Return the mean over classes of the means over their exemplars: each class counts alike.

    Exactly 1 where all values are, and ``1/K`` where one of K classes is right throughout and all
    others are wrong, however many exemplars each has. Objects lie along `axis`; NaN where there is
    none.

    Examples
    --------
    >>> balanced_mean([1, 1, 1, 0], [0, 0, 0, 1]), np.mean([1, 1, 1, 0])
    (array(0.5), np.float64(0.75))
    """
    values = np.moveaxis(np.asarray(values, np.float64), axis, 0)
    if not len(values):
        return np.full(values.shape[1:], np.nan)
    return np.asarray(unit_means(values, classes).mean(axis=0))


def unit_means(values: ArrayLike, units: ArrayLike) -> NDArray[np.float64]:
    """Return the mean over the objects of each unit, such as a category: (unit, ...).

    Examples
    --------
    >>> unit_means([1.0, 2.0, 4.0], [7, 9, 9])
    array([1., 3.])
    """
    values, units = np.asarray(values, np.float64), np.asarray(units)
    return np.stack([values[units == unit].mean(axis=0) for unit in np.unique(units)])


def masked_means(values: ArrayLike, mask: ArrayLike) -> NDArray[np.float64]:
    """Return each row's mean over the columns that its row of the mask names; NaN for none.

    Values are (object, location), the mask likewise, or (1, location) where it is the same for all.

    Examples
    --------
    >>> masked_means([[1, 0, 1], [0, 0, 1]], [[True, True, False]])
    array([0.5, 0. ])
    """
    return known_mean(np.where(np.asarray(mask, bool), np.asarray(values, np.float64), np.nan))


measures.add(
    "accuracy-map",
    Measure(
        normalized_accuracy,
        "(accuracy - 1/K) / (1 - 1/K)",
        ("biscione2021",),
        comes_with="accuracy",
        range="up to 1",
        direction="higher: more objects are recognised",
        chance="0",
        question="Does the trained network recognise the object here?",
        can="It tells where on the canvas a trained head is right, as a share of the way from "
        "chance to 1.",
        cannot="It cannot tell at which layer the knowledge is lost, nor anything of classes "
        "without a score.",
        least=1,
    ),
    summary="share of the way from chance to 1, per location",
)
measures.add(
    "invariance-index",
    Measure(
        invariance_index,
        "N(elsewhere) / N(trained)",
        ("biscione2021",),
        comes_with="accuracy",
        range="any number",
        direction="higher: more of what is known where trained is known elsewhere",
        chance="0",
        question="How much of what is known at the trained location is known elsewhere?",
        can="It compares networks of different accuracy, and it decides on the claims.",
        cannot="It is undefined where the network does not know the objects at the trained "
        "location.",
        least=1,
    ),
    summary="accuracy elsewhere over accuracy where trained",
)
