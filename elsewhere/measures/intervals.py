"""Intervals: every one that the package reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


def jackknife_t(
    estimate: NDArray[np.float64], left_out: NDArray[np.float64], *, level: float = 0.95
) -> NDArray[np.float64]:
    r"""Delete-one jackknife interval with Student's t.

    The standard error is :math:`\sqrt{\frac{n-1}{n} \sum_k (\theta_{(k)} - \bar\theta)^2}`
    with :math:`\bar\theta` the mean of the :math:`n` estimates that each leave one unit out
    (Efron & Tibshirani 1993, chapter 11); the interval is the estimate plus or minus that times
    the quantile of t with n - 1 degrees of freedom.

    Parameters
    ----------
    estimate
        Estimates from all objects, any shape.
    left_out
        Shape (unit, *estimate shape): the estimates without each object, or each category, in turn.
    level
        Coverage of the interval.

    Returns
    -------
    ndarray
        Shape (*estimate shape, 2): low and high. NaN where any of the estimates is NaN, and
        where there are fewer than two units.

    Examples
    --------
    >>> values = np.array([1.0, 2.0, 3.0, 4.0])
    >>> left_out = np.array([np.delete(values, k).mean() for k in range(4)])
    >>> jackknife_t(values.mean(), left_out).round(3)   # the t interval of a mean
    array([0.446, 4.554])
    """
    estimate = np.asarray(estimate, dtype=np.float64)
    n = len(left_out)
    if n < 2:
        return np.full((*estimate.shape, 2), np.nan)
    deviations = left_out - left_out.mean(axis=0)
    error = np.sqrt((n - 1) / n * (deviations**2).sum(axis=0))
    half = stats.t.ppf(0.5 + level / 2, n - 1) * error
    return np.stack([estimate - half, estimate + half], axis=-1)


@dataclass(frozen=True)
class Sampled:
    """What was sampled, and so is left out in turn: objects, or categories with their exemplars.

    Exemplars of a category are not drawn independently of each other: where any category has two,
    whole categories are left out, and copies of exemplars change nothing.

    Parameters
    ----------
    unit
        ``object`` or ``category``.
    labels
        int (object,): the unit that each object belongs to, from 0 on.

    Examples
    --------
    >>> Sampled.of([0, 1, 2]).unit, Sampled.of([0, 0, 1, 2]).unit, Sampled.of([0, 0, 0]).unit
    ('object', 'category', 'object')
    """

    unit: Literal["object", "category"]
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, codes: ArrayLike) -> Sampled:
        """Return what to leave out of objects of these categories, int (object,).

        Objects of one category only are drawn from it independently: they are the unit.
        """
        found, labels, counts = np.unique(
            np.asarray(codes), return_inverse=True, return_counts=True
        )
        if len(found) > 1 and counts.max() > 1:
            return cls("category", np.asarray(labels, np.int64))
        return cls("object", np.arange(len(labels)))

    def __len__(self) -> int:
        return int(self.labels.max(initial=-1)) + 1

    @property
    def members(self) -> list[NDArray[np.int64]]:
        """The objects of each unit."""
        return [np.flatnonzero(self.labels == unit) for unit in range(len(self))]

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum over each unit's objects of `values` (object, ...): (unit, ...)."""
        found = np.zeros((len(self), *values.shape[1:]))
        np.add.at(found, self.labels, values)
        return found

    def means_without(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean over objects of `values` (object, ...) without each unit: (unit, ...).

        Empty, shape (0, ...), where there is a single unit.

        Examples
        --------
        >>> Sampled.of([0, 0, 1]).means_without(np.array([1.0, 3.0, 5.0]))
        array([5., 2.])
        """
        if len(self) < 2:
            return values[:0]
        left = len(self.labels) - np.bincount(self.labels)
        without = values.sum(axis=0) - self.sums(values)
        return np.asarray(without / left.reshape(-1, *[1] * (values.ndim - 1)))
