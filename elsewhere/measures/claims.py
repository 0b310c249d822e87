"""From values over seeds to a verdict: intervals, thresholds, and how parts make a claim.

Pure functions of arrays. The replicate is the seed; a single one gives no verdict, only what was
shown in this run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import scipy  # scipy.stats is imported when first used: it takes most of a second
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import InputError, UnknownNameError

Direction: TypeAlias = Literal["<", ">"]
DIRECTIONS: tuple[Direction, ...] = ("<", ">")

HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"
SHOWN, NOT_SHOWN = "shown in this run", "not shown in this run"
NOT_MEASURABLE, NOT_RUN = "not measurable", "not run"
VERDICTS = (HOLDS, FAILS, UNDECIDED, SHOWN, NOT_SHOWN, NOT_MEASURABLE, NOT_RUN)

_WEAKEST_FIRST = (FAILS, NOT_SHOWN, NOT_MEASURABLE, NOT_RUN, UNDECIDED, SHOWN, HOLDS)
_STRONGEST_FIRST = (HOLDS, SHOWN, UNDECIDED, NOT_MEASURABLE, FAILS, NOT_SHOWN, NOT_RUN)


def interval_over_seeds(values: ArrayLike, *, level: float = 0.95) -> NDArray[np.float64]:
    """Return Student's t interval (2,) of the mean over seeds (seed,), or of paired differences.

    A percentile bootstrap over 3 to 5 seeds covers only 74 to 83 %; t is exact for normal values.
    It is NaN where there are fewer than two seeds, or one of them has no value; an ``InputError``
    refuses more dimensions than one, and a `level` that is no share.

    References
    ----------
    Student (1908), The probable error of a mean, Biometrika 6(1).

    Examples
    --------
    >>> interval_over_seeds([1.0, 2.0, 3.0, 4.0]).round(3)
    array([0.446, 4.554])
    """
    values = _as_seeds(values)
    if not 0 < level < 1:
        raise InputError(f"the level of an interval must lie between 0 and 1; got {level!r}")
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return np.full(2, np.nan)
    half = scipy.stats.t.ppf(0.5 + level / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return np.asarray([values.mean() - half, values.mean() + half])


def verdict(
    values: ArrayLike, threshold: float, direction: Direction, *, level: float = 0.95
) -> str:
    """Return what values over seeds (seed,) say about a threshold: one of `VERDICTS`.

    ``holds`` or ``fails`` only where the whole interval lies on one side of the threshold, else
    ``undecided``. One seed only shows something in this run. Where a seed's value cannot be
    measured (NaN), neither can the claim: leaving that seed out would choose among the seeds. No
    value at all means that it was not run. The claim is that the value lies above (``>``) or below
    (``<``).

    Examples
    --------
    >>> verdict([0.01, 0.02, 0.03], 0.10, "<"), verdict([0.01, 0.02, 0.30], 0.10, "<")
    ('holds', 'undecided')
    >>> verdict([0.7], 0.5, ">"), verdict([0.7, float("nan")], 0.5, ">"), verdict([], 0.5, ">")
    ('shown in this run', 'not measurable', 'not run')
    """
    values = _as_seeds(values)
    if direction not in DIRECTIONS:
        raise UnknownNameError("direction of a claim", direction, DIRECTIONS)
    if not len(values):
        return NOT_RUN
    if not np.isfinite(values).all():
        return NOT_MEASURABLE
    if len(values) == 1:
        above = values[0] > threshold
        below = values[0] < threshold
        return SHOWN if (above if direction == ">" else below) else NOT_SHOWN
    low, high = interval_over_seeds(values, level=level)
    if low > threshold:
        return HOLDS if direction == ">" else FAILS
    if high < threshold:
        return HOLDS if direction == "<" else FAILS
    return UNDECIDED


def combine_all(verdicts: Sequence[str]) -> str:
    """Return the verdict of a claim of which every part must hold: that of its weakest part.

    Any part that fails makes it fail; then what is not measurable, not run or undecided counts.

    Examples
    --------
    >>> combine_all(["holds", "holds"]), combine_all(["holds", "undecided", "fails"])
    ('holds', 'fails')
    """
    return _first(verdicts, _WEAKEST_FIRST)


def combine_any(verdicts: Sequence[str]) -> str:
    """Return the verdict of a claim of which one case must hold: that of its strongest case.

    It fails only where every case fails; a case that is undecided or not measurable leaves it so.

    Examples
    --------
    >>> combine_any(["fails", "holds"]), combine_any(["fails", "undecided"])
    ('holds', 'undecided')
    >>> combine_any([])
    'not run'
    """
    return _first(verdicts, _STRONGEST_FIRST)


def _as_seeds(values: ArrayLike) -> NDArray[np.float64]:
    found = np.asarray(values, np.float64)
    if found.ndim != 1:
        raise InputError(
            f"values over seeds must have one dimension, one value a seed; got shape {found.shape}"
        )
    return found


def _first(verdicts: Sequence[str], order: Sequence[str]) -> str:
    for name in verdicts:
        if name not in VERDICTS:
            raise UnknownNameError("verdict", name, VERDICTS)
    return next((name for name in order if name in verdicts), NOT_RUN)
