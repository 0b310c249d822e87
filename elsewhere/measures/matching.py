"""A difference between two kinds of trials of which one lies farther away: matched on place.

Objects are mostly recognised near the trained place. Whatever falls with the distance is then
larger where they are recognised, whether or not recognition has anything to do with it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg

from elsewhere.measures.intervals import Sampled, jackknife_t

Floats = NDArray[np.float64]
MINIMAL_VARIATION = 1e-9
"""Below this sum of squares there is no place at which some objects are of either kind."""


def matched_gap(values: ArrayLike, kind: ArrayLike, codes: ArrayLike) -> tuple[float, Floats]:
    r"""Return how much larger values are where `kind` holds, at the same places, and the interval.

    The difference :math:`\gamma` in :math:`v_{op} = \alpha_o + \beta_p + \gamma k_{op}`, by least
    squares: whatever an object has at all places, and whatever a place (a displacement from the
    reference) does to all objects, is not part of it. `values` and `kind` are (object, place), NaN
    where there is none; `codes` are categories. The gap is NaN where no place has objects of both
    kinds beyond what objects and places explain; its interval is delete-one jackknife-t over
    objects, or categories where one has several exemplars.

    Examples
    --------
    >>> fall = np.array([1.0, 0.5, 0.25])                     # with the distance, for all objects
    >>> recognised = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]], bool)
    >>> gap, _ = matched_gap(np.tile(fall, (3, 1)), recognised, [0, 1, 2])
    >>> abs(round(gap, 9))
    0.0
    >>> gap, _ = matched_gap(fall + 0.2 * recognised, recognised, [0, 1, 2])
    >>> round(gap, 9)
    0.2
    """
    found, held = np.asarray(values, np.float64), np.asarray(kind, bool)
    units = Sampled.of(codes)
    left = [
        _gap(np.delete(found, members, axis=0), np.delete(held, members, axis=0))
        for members in (units.members if len(units) > 1 else [])
    ]
    gap = _gap(found, held)
    return gap, jackknife_t(np.asarray(gap), np.array(left))


def _gap(values: Floats, kind: NDArray[np.bool_]) -> float:
    there = np.isfinite(values)
    counted = there.astype(np.float64)
    rest = _without_levels(np.where(there, kind, 0.0), counted)
    size = float((rest**2).sum())
    if size <= MINIMAL_VARIATION:
        return float("nan")
    return float((rest * np.where(there, values, 0.0)).sum() / size)


def _without_levels(values: Floats, counted: Floats) -> Floats:
    """Return values less what objects and places explain by themselves, 0 where there is none."""
    at_place = np.maximum(counted.sum(axis=0), 1.0)
    shared = counted / at_place
    system = np.diag(counted.sum(axis=1)) - shared @ counted.T
    right = (values * counted).sum(axis=1) - shared @ (values * counted).sum(axis=0)
    objects = linalg.lstsq(system, right, lapack_driver="gelsy")[0]  # defined up to a constant
    places = ((values - objects[:, None]) * counted).sum(axis=0) / at_place
    return np.asarray((values - objects[:, None] - places) * counted)
