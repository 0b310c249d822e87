"""Bands over layers: intervals that hold for all layers together, not for each by itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]

LEAST_UNITS = 4
"""Of fewer objects or categories, how layers go together is not known."""
N_DRAWS = 2_000
CONSTANT = 1e-12
"""A standard error below this share of the value is rounding: the layer does not vary."""


def simultaneous_band(
    values: ArrayLike, left_out: ArrayLike, *, level: float = 0.95, seed: int = 0
) -> Floats:
    r"""Return intervals that all hold at once in 95 % of data sets: max-t over layers.

    With the pseudo-values :math:`\phi_{kl} = n \theta_l - (n - 1) \theta_{(k) l}` of layer l, the
    band is :math:`\theta_l \pm c \, s_l` with the jackknife's standard error s and c the quantile
    of the largest :math:`|t_l|` over layers. It is found by a multiplier bootstrap: each draw makes
    n new units, each a sum of the pseudo-values' deviations with Gaussian multipliers, so that
    layers go together as they do in the data, and takes their t statistics anew, with their
    own standard errors. (A single sum with multipliers, as is common for many units, covers .91 in
    place of .95 with 8 units and 16 layers.)

    Parameters
    ----------
    values
        Shape (layer,): estimates from all units.
    left_out
        Shape (unit, layer): the estimates without each unit in turn.
    level
        Coverage of all layers together.
    seed
        Of the draws.

    Returns
    -------
    float64 (layer, 2)
        Low and high. NaN with fewer than 4 units, and for a layer without a value; such a layer is
        left out of the maximum.

    References
    ----------
    Westfall & Young (1993), Resampling-based multiple testing, Wiley, for the maximum;
    Chernozhukov, Chetverikov & Kato (2013), Annals of Statistics 41, for multipliers.

    Examples
    --------
    >>> units = np.random.default_rng(0).normal(size=(12, 5))
    >>> left = np.array([np.delete(units, k, axis=0).mean(axis=0) for k in range(12)])
    >>> band = simultaneous_band(units.mean(axis=0), left)
    >>> error = units.std(axis=0, ddof=1) / np.sqrt(12)
    >>> width = (band[:, 1] - band[:, 0]) / 2 / error          # the same for all, and above t's
    >>> bool(np.ptp(width) < 1e-9 and 2.8 < width[0] < 3.6), round(float(stats.t.ppf(0.975, 11)), 2)
    (True, 2.2)
    """
    theta = np.asarray(values, np.float64)
    without = np.asarray(left_out, np.float64)
    n = len(without)
    band = np.full((len(theta), 2), np.nan)
    known = np.isfinite(theta)
    if n < LEAST_UNITS:
        return band
    known &= np.isfinite(without).all(axis=0)
    deviations = (n - 1) * (without.mean(axis=0) - without)
    error = np.sqrt((deviations**2).sum(axis=0) / (n * (n - 1)))
    varies = known & (error > CONSTANT * np.abs(theta))
    half = np.zeros(len(theta))
    if varies.any():
        unit = deviations[:, varies] / np.linalg.norm(deviations[:, varies], axis=0)
        _, sizes, axes = np.linalg.svd(unit, full_matrices=False)
        root = (sizes[:, None] * axes)[: min(n - 1, len(sizes))]
        half[varies] = error[varies] * _largest_t(root, n, level, seed)
    band[known] = np.stack([theta - half, theta + half], axis=-1)[known]
    return band


def _largest_t(root: Floats, n: int, level: float, seed: int) -> float:
    """Return the quantile of the largest |t| of n units whose layers go together as in `root`."""
    if root.shape[1] == 1:
        return float(stats.t.ppf(0.5 + level / 2, n - 1))
    rng = np.random.default_rng(seed)
    largest = np.empty(N_DRAWS)
    for draw in range(N_DRAWS):
        units = rng.standard_normal((n, len(root))) @ root
        mean = units.mean(axis=0)
        error = np.sqrt(((units - mean) ** 2).sum(axis=0) / (n * (n - 1)))
        largest[draw] = np.abs(mean / error).max()
    # With few units the correlations are hardly known; no band is narrower than a single interval.
    return max(float(np.quantile(largest, level)), float(stats.t.ppf(0.5 + level / 2, n - 1)))


def steps_of(values: ArrayLike) -> Floats:
    """Return each layer's value less that of the layer before, along the last axis, NaN at first.

    Examples
    --------
    >>> steps_of([0.1, 0.4, 0.3]).round(3)
    array([ nan,  0.3, -0.1])
    """
    found = np.asarray(values, np.float64)
    steps: Floats = np.diff(found, axis=-1, prepend=np.nan)
    return steps
