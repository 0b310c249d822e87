"""When something is acquired, and how much of it later training leaves."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import InputError
from elsewhere.measures.intervals import jackknife_t

RETAINED_GATE = 0.1
"""A share of what was there is undefined unless the lower bound of that exceeds this."""


def onset_step(steps: ArrayLike, values: ArrayLike, *, threshold: float) -> float:
    """Return the first step from which on all values (checkpoint,) are above a threshold.

    It is NaN where the last value is not above it.

    Examples
    --------
    >>> onset_step([0, 1, 10, 100], [0.0, 0.3, 0.1, 0.8], threshold=0.2)
    100.0
    """
    steps, values = _check(steps, values)
    above = values > threshold
    if not len(above) or not above[-1]:
        return float("nan")
    below = np.flatnonzero(~above)
    return float(steps[below[-1] + 1] if len(below) else steps[0])


def halfway_step(steps: ArrayLike, values: ArrayLike, *, least: float = 0.0) -> float:
    """Return the step at which values first are half-way from the first to the last one.

    Between checkpoints it is interpolated linearly in ``log(1 + step)``, as checkpoints are spaced.
    It is NaN for fewer than two, and where the last value exceeds the first by no more than
    `least`.

    Examples
    --------
    >>> round(halfway_step([0, 9, 99], [0.0, 0.0, 1.0]), 2)
    30.62
    """
    steps, values = _check(steps, values)
    if len(values) < 2 or not values[-1] - values[0] > least:
        return float("nan")
    half = (values[0] + values[-1]) / 2
    place = int(np.argmax(values >= half))
    times = np.log1p(steps)
    share = (half - values[place - 1]) / (values[place] - values[place - 1])
    return float(np.expm1(times[place - 1] + share * (times[place] - times[place - 1])))


def loss_since(values: ArrayLike, start: int) -> float:
    """Return how much a value (checkpoint,) has fallen at the end since checkpoint `start`.

    That is the first one that reaches the criterion. Not the maximum: that of noisy values is
    biased upwards, and before the criterion a new head is still being learnt.

    Examples
    --------
    >>> round(loss_since([0.1, 0.9, 0.95, 0.4], 1), 2)
    0.5
    """
    found = np.asarray(values, dtype=float)
    return float(found[start] - found[-1])


def retained_share(
    before: float, after: float, *, before_without: ArrayLike, after_without: ArrayLike
) -> tuple[float, NDArray[np.float64]]:
    """Return what share of a measure is left, with a jackknife-t interval over what was sampled.

    `before` is at the first checkpoint that reaches the criterion, `after` at the end, and those
    ``*_without`` (unit,) leave out each object, or category, in turn: NaN where it does not count
    in the measure. A share of nearly nothing is a ratio of noise, and its interval covers nothing:
    both are NaN unless the lower bound of `before` exceeds 0.1.

    Examples
    --------
    >>> share, interval = retained_share(
    ...     0.8, 0.4, before_without=[0.8, 0.8, 0.8], after_without=[0.4, 0.41, 0.39]
    ... )
    >>> share, bool(interval[0] < share < interval[1])
    (0.5, True)
    """
    first, last = (np.asarray(each, dtype=float) for each in (before_without, after_without))
    low = jackknife_t(np.asarray(before), first[np.isfinite(first)])[0]
    if not low > RETAINED_GATE:
        return float("nan"), np.full(2, np.nan)
    share = after / before
    counts = np.isfinite(first) | np.isfinite(last)
    # Without a unit that does not count, a measure is what it is.
    first = np.where(np.isfinite(first), first, before)[counts]
    last = np.where(np.isfinite(last), last, after)[counts]
    return float(share), jackknife_t(np.asarray(share), last / first)


def _check(steps: ArrayLike, values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or (np.diff(x) <= 0).any():
        raise InputError(
            f"steps {x.shape} and values {y.shape} must be rows of one length, steps rising"
        )
    return x, y
