"""Intervals: every one that the package reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy  # scipy.stats is imported when first used: it takes most of a second
from numpy.typing import ArrayLike, NDArray


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
    half = scipy.stats.t.ppf(0.5 + level / 2, n - 1) * error
    return np.stack([estimate - half, estimate + half], axis=-1)


def known_mean(values: NDArray[np.float64], *, axis: int = -1) -> NDArray[np.float64]:
    """Return the mean over an axis of the values that are finite, NaN where none is.

    Examples
    --------
    >>> known_mean(np.array([[1.0, np.nan, 4.0], [np.nan, np.nan, np.nan]]))
    array([2.5, nan])
    """
    known = np.isfinite(values)
    counts = known.sum(axis=axis)
    sums = np.where(known, values, 0.0).sum(axis=axis)
    return np.asarray(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))


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


LEAST_SAMPLED = 3
"""A spread is not estimated from fewer: exemplars of a class, or categories."""


@dataclass(frozen=True)
class Spread:
    """A mean over strata of the means over their units, and how far it may be off.

    `mean`, `variance` (of the mean) and `freedom` (Satterthwaite's, 1946) have one shape: the
    strata count alike, however many units each has, and the variance is NaN where one has fewer
    than three. `n` is the number of units that would give a plain mean of independent values the
    same weight.
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    freedom: NDArray[np.float64]
    n: float

    @classmethod
    def of(cls, values: ArrayLike, strata: ArrayLike | None = None) -> Spread:
        """Return the spread of `values` (unit, ...), whose `strata` int (unit,) are fixed.

        Examples
        --------
        >>> found = Spread.of([1.0, 2.0, 3.0, 1.0, 1.0, 1.0], [0, 0, 0, 1, 1, 1])
        >>> float(found.mean), round(float(found.variance), 4), float(found.freedom), found.n
        (1.5, 0.0833, 2.0, 6.0)
        """
        values = np.asarray(values, np.float64)
        nothing = np.full(values.shape[1:], np.nan)
        if not len(values):
            return cls(nothing, nothing, nothing, 0.0)
        labels = np.zeros(len(values)) if strata is None else np.asarray(strata)
        parts = [values[labels == label] for label in np.unique(labels)]
        sizes = np.array([len(part) for part in parts])
        mean = np.mean([part.mean(axis=0) for part in parts], axis=0)
        n = float(len(parts) ** 2 / (1 / sizes).sum())
        if sizes.min() < LEAST_SAMPLED:
            return cls(mean, nothing, nothing, n)
        each = np.array([part.var(axis=0, ddof=1) / len(part) for part in parts]) / len(parts) ** 2
        variance = each.sum(axis=0)
        freer = np.tensordot(1 / (sizes - 1.0), each**2, axes=1)
        known = variance**2 > 0
        freedom = np.where(known, variance**2 / np.where(known, freer, 1.0), (sizes - 1.0).sum())
        return cls(mean, variance, freedom, n)

    @classmethod
    def left_out(cls, mean: ArrayLike, without: NDArray[np.float64]) -> Spread:
        """Return the jackknife's spread, of a mean and the means without each unit (unit, ...).

        Examples
        --------
        >>> values = np.array([0.0, 1.0, 0.5, 1.0])
        >>> one = Spread.left_out(values.mean(), (values.sum() - values) / 3)
        >>> bool(np.isclose(one.variance, Spread.of(values).variance))
        True
        """
        mean, n = np.asarray(mean, np.float64), len(without)
        if n < LEAST_SAMPLED:
            return cls(mean, np.full(mean.shape, np.nan), np.full(mean.shape, np.nan), float(n))
        squares = ((without - without.mean(axis=0)) ** 2).sum(axis=0)
        return cls(mean, (n - 1) / n * squares, np.full(mean.shape, n - 1.0), float(n))


def shared_fits(n_folds: int) -> float:
    """Return by how much the variance of a cross-validated mean exceeds that of its units.

    Folds share what they were fitted to (Nadeau & Bengio 2003, Inference for the generalization
    error, Machine Learning 52): 1 + k / (k - 1) of k folds.

    Examples
    --------
    >>> shared_fits(5)
    2.25
    """
    return 1 + n_folds / (n_folds - 1)


def share_interval(spread: Spread, *, level: float = 0.95) -> NDArray[np.float64]:
    r"""Return the interval (..., 2) of a mean of shares, which lie between 0 and 1.

    Wilson's (1927) interval with an effective number of independent answers, :math:`m = A (1 - A) /
    V` for the mean A and its variance V (as Korn & Graubard 1998 take it), and Student's t. Where
    few units differ from the others, V is hardly known; it is therefore drawn towards that of n
    independent answers, :math:`B = A (1 - A) / n`, by the weight :math:`w = 1 / (1 + 4 n A (1 -
    A))`, only upwards. At 0 and 1 it is Wilson's interval for n; it is NaN where the variance is.

    References
    ----------
    Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22.
    Korn & Graubard (1998), Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data, Survey Methodology 24. The weight is ours, chosen
    in simulation.

    Examples
    --------
    >>> share_interval(Spread.of(np.ones(9))).round(3)
    array([0.701, 1.   ])
    """
    mean = np.clip(spread.mean, 0.0, 1.0)
    binomial = mean * (1 - mean)
    weight = 1 / (1 + 4 * spread.n * binomial)
    independent = binomial / max(spread.n, 1.0)
    drawn = spread.variance < independent
    own = np.where(drawn, 1 - weight, 1.0) * spread.variance
    variance = own + np.where(drawn, weight * independent, 0.0)
    estimated = own > 1e-15  # else all of it is the binomial's, and its freedom is no question
    safe = np.where(estimated, own, 1.0)
    freedom = np.where(estimated, spread.freedom * (variance / safe) ** 2, np.inf)
    quantile = scipy.stats.t.ppf(0.5 + level / 2, freedom)
    inside = (variance > 1e-15) & (binomial > 1e-15)
    count = np.where(inside, binomial / np.where(inside, variance, 1.0), spread.n)
    room = quantile**2 / np.where(count > 0, count, np.nan)  # no unit, no count
    middle = (mean + room / 2) / (1 + room)
    half = np.sqrt(room * binomial + room**2 / 4) / (1 + room)
    bounds = np.clip(np.stack([middle - half, middle + half], axis=-1), 0.0, 1.0)
    return np.where(np.isfinite(spread.variance)[..., None], bounds, np.nan)


@dataclass(frozen=True)
class Bounded:
    """A value with its interval, from which those of differences and ratios are made.

    Zou & Donner's (2008) method of variance estimates recovery: an interval's two arms say how far
    the value may be off on either side, so that an interval which is not symmetric (near an edge)
    keeps its coverage in a difference or a ratio.

    Parameters
    ----------
    value
        Any shape.
    interval
        (*value shape, 2).

    References
    ----------
    Zou & Donner (2008), Construction of confidence limits about effect measures: a general
    approach, Statistics in Medicine 27. Donner & Zou (2012), Closed-form confidence intervals for
    functions of the normal mean and standard deviation, Statistical Methods in Medical Research 21.
    """

    value: NDArray[np.float64]
    interval: NDArray[np.float64]

    @property
    def arms(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How far the value lies above the lower bound, and below the upper one."""
        return self.value - self.interval[..., 0], self.interval[..., 1] - self.value

    def less(self, other: Bounded, correlation: ArrayLike = 0.0) -> NDArray[np.float64]:
        """Return the interval of this value less another.

        Examples
        --------
        >>> one = Bounded(np.array(0.9), np.array([0.8, 1.0]))
        >>> one.less(one).round(3), one.less(one, 1.0)
        (array([-0.141,  0.141]), array([0., 0.]))
        """
        r = np.asarray(correlation)
        (low, high), (other_low, other_high) = self.arms, other.arms
        difference = self.value - other.value
        below = low**2 + other_high**2 - 2 * r * low * other_high
        above = high**2 + other_low**2 - 2 * r * high * other_low
        halves = (np.sqrt(np.maximum(square, 0.0)) for square in (below, above))
        down, up = halves
        return np.stack([difference - down, difference + up], axis=-1)

    def over(self, other: Bounded, correlation: ArrayLike = 0.0) -> NDArray[np.float64]:
        """Return the interval of this value over another; NaN unless that is surely positive.

        Examples
        --------
        >>> one = Bounded(np.array(0.9), np.array([0.8, 1.0]))
        >>> one.over(one).round(3), one.over(Bounded(np.array(0.1), np.array([-0.1, 0.2])))
        (array([0.854, 1.171]), array([nan, nan]))
        """
        r = np.asarray(correlation)
        (low, high), (other_low, other_high) = self.arms, other.arms
        limits = []
        for arm, positive, sign in (
            (low, self.interval[..., 0] > 0, -1.0),
            (high, self.interval[..., 1] > 0, 1.0),
        ):
            # a - R b = 0 at its own limit; which arm of b counts depends on the sign of R
            outward = (sign > 0) == positive
            across = np.where(outward, other_low, other_high)
            square = other.value**2 - across**2
            half = self.value * other.value - r * arm * across
            root = np.sqrt(np.maximum(half**2 - square * (self.value**2 - arm**2), 0.0))
            known = (other.interval[..., 0] > 0) & (square > 1e-12)
            limits.append(
                np.where(known, (half + sign * root) / np.where(known, square, 1), np.nan)
            )
        return np.stack(limits, axis=-1)


def correlation_of(first: Spread, second: Spread, difference: Spread) -> NDArray[np.float64]:
    """Return the correlation of two means from the variances of both and of their difference.

    0 where one of them does not vary.

    Examples
    --------
    >>> a, b = np.array([1.0, 2.0, 3.0]), np.array([3.0, 5.0, 7.0])
    >>> round(float(correlation_of(Spread.of(a), Spread.of(b), Spread.of(a - b))), 6)
    1.0
    """
    product = np.sqrt(first.variance * second.variance)
    shared = (first.variance + second.variance - difference.variance) / 2
    varies = product > 1e-15
    return np.clip(np.where(varies, shared / np.where(varies, product, 1.0), 0.0), -1.0, 1.0)
