"""Intervals: every one that the package reports."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats


def jackknife_t(
    estimate: NDArray[np.float64], left_out: NDArray[np.float64], *, level: float = 0.95
) -> NDArray[np.float64]:
    r"""Delete-one jackknife interval with Student's t.

    The standard error is :math:`\sqrt{\frac{n-1}{n} \sum_k (\theta_{(k)} - \bar\theta)^2}`
    with :math:`\bar\theta` the mean of the :math:`n` estimates that each leave one object out
    (Efron & Tibshirani 1993, chapter 11); the interval is the estimate plus or minus that times
    the quantile of t with n - 1 degrees of freedom.

    Parameters
    ----------
    estimate
        Estimates from all objects, any shape.
    left_out
        Shape (object, *estimate shape): the estimates without each object in turn.
    level
        Coverage of the interval.

    Returns
    -------
    ndarray
        Shape (*estimate shape, 2): low and high. NaN where any of the estimates is NaN, and
        where there are fewer than two objects.

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
