"""Numbers by layer: what holds for all layers together, and which have no interval."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import scipy  # scipy.stats is imported when first used: it takes most of a second
import xarray
from numpy.typing import ArrayLike, NDArray

from elsewhere.forms import beside_main, layer_labels
from elsewhere.measures.intervals import (
    Bounded,
    Spread,
    correlation_of,
    jackknife_t,
    share_interval,
)

Floats = NDArray[np.float64]

LEAST_UNITS = 4
"""Of fewer objects or categories, how layers go together is not known."""
N_DRAWS = 2_000
NUMBERS_AT_ONCE = 2**20
"""Draws are made together, up to so many numbers."""
CONSTANT = 1e-12
"""A standard error below this share of the value is rounding: the layer does not vary."""


def interval_by_unit(
    value: ArrayLike, without: Floats, *, share: bool = False, level: float = 0.95
) -> Floats:
    """Return the interval of estimates from those without each unit in turn, (unit, ...).

    Student's t about the jackknife's error, or, for a `share`, which may be 1 throughout,
    :func:`elsewhere.measures.intervals.share_interval`.
    """
    if share:
        return share_interval(Spread.left_out(value, without), level=level)
    return jackknife_t(np.asarray(value), without, level=level)


def interval_between(
    more: ArrayLike,
    more_without: Floats,
    less: ArrayLike,
    less_without: Floats,
    *,
    level: float = 0.95,
) -> Floats:
    """Return the interval of one share less another, from both without each unit in turn.

    It is no point where both are 1 throughout: it is made from the arms of the intervals of both
    (:meth:`elsewhere.measures.intervals.Bounded.less`), and from how they go together.
    """
    one, other = Spread.left_out(more, more_without), Spread.left_out(less, less_without)
    apart = Spread.left_out(one.mean - other.mean, more_without - less_without)
    first, second = (Bounded(each.mean, share_interval(each, level=level)) for each in (one, other))
    return first.less(second, correlation_of(one, other, apart))


def layer_bands(
    value: ArrayLike,
    without: ArrayLike,
    *,
    share: bool = False,
    less: tuple[ArrayLike, ArrayLike] | None = None,
    beside: Collection[int] = (),
) -> dict[str, Floats]:
    """Return what holds for all layers of a number together, and its steps between layers.

    `value` is (layer,), `without` (unit, layer) the same without each unit in turn; `less` is
    another share, and it without each unit, that is taken off the share `value`. ``band`` is
    (layer, 2); ``step`` (layer,) each value less that of the layer before, NaN at first and for
    layers `beside` the main branch, over which steps go; ``step_interval`` and ``step_band`` are
    (layer, 2). Bands are pointwise intervals at the level at which they hold together
    (:func:`simultaneous_level`).

    Examples
    --------
    >>> units = np.random.default_rng(0).normal(size=(12, 5))
    >>> found = layer_bands(units.mean(axis=0), (units.sum(axis=0) - units) / 11)
    >>> [(key, found[key].shape) for key in found]
    [('band', (5, 2)), ('step', (5,)), ('step_interval', (5, 2)), ('step_band', (5, 2))]
    """
    more, more_rest = np.asarray(value, np.float64), np.asarray(without, np.float64)
    all_units, rest = more, more_rest
    if less is not None:
        fewer, fewer_rest = (np.asarray(each, np.float64) for each in less)
        all_units, rest = more - fewer, more_rest - fewer_rest
    step, steps = steps_of(all_units, beside), steps_of(rest, beside)
    main = _main(len(all_units), beside)

    def interval(level: float) -> Floats:
        if less is not None:
            return interval_between(more, more_rest, fewer, fewer_rest, level=level)
        return interval_by_unit(all_units, rest, share=share, level=level)

    def step_interval(level: float) -> Floats:
        if not share and less is None:
            return jackknife_t(step, steps, level=level)
        bounds = interval(level)
        here, there = main[1:], main[:-1]
        now = Spread.left_out(all_units[here], rest[:, here])
        before = Spread.left_out(all_units[there], rest[:, there])
        apart = Spread.left_out(step[here], steps[:, here])
        one, other = Bounded(now.mean, bounds[here]), Bounded(before.mean, bounds[there])
        found = np.full((len(step), 2), np.nan)
        found[here] = one.less(other, correlation_of(now, before, apart))
        return found

    level = simultaneous_level(all_units, rest)
    return {
        "band": interval(level),
        "step": step,
        "step_interval": step_interval(0.95),
        "step_band": step_interval(simultaneous_level(step, steps)),
    }


def band_notes(n_units: int, n_layers: int) -> list[str]:
    """Return why there are no bands, where there are none."""
    if n_layers < 2 or n_units >= LEAST_UNITS:
        return []
    return [
        f"fewer than {LEAST_UNITS} objects, or categories, were sampled: no band over layers (nan)"
    ]


def without_steps(result: xarray.Dataset) -> list[str]:
    """Return which layers have no step from the layer before, as they are beside it; often none."""
    labels, places = layer_labels(result), beside_main(result)
    if len(labels) < 2 or not places or not any(str(key).endswith("_step") for key in result):
        return []
    return [
        "steps go from one layer of the main branch to the next one; layers beside it, as "
        "shortcuts and gates are, have none (nan): " + ", ".join(labels[place] for place in places)
    ]


def step_of(name: str) -> str:
    """Return the name of a number's steps between layers: ``G_step`` of ``G_away``."""
    return f"{name.removesuffix('_away')}_step"


def banded(
    name: str,
    value: ArrayLike,
    without: ArrayLike,
    *,
    share: bool = False,
    less: tuple[ArrayLike, ArrayLike] | None = None,
    beside: Collection[int] = (),
) -> dict[str, Any]:
    """Return :func:`layer_bands` of the number `name` as variables of a result.

    Of ``G_away`` there come ``G_away_band`` and, less the value of the layer before, ``G_step``
    with ``G_step_interval`` and ``G_step_band``.
    """
    found = layer_bands(value, without, share=share, less=less, beside=beside)
    step = step_of(name)
    over = ("layer", "bound")
    return {
        f"{name}_band": (over, found["band"]),
        step: (over[:1], found["step"]),
        f"{step}_interval": (over, found["step_interval"]),
        f"{step}_band": (over, found["step_band"]),
    }


def without_intervals(
    result: xarray.Dataset, sampled: str, count: int, never: Collection[str] = ()
) -> list[str]:
    """Return which numbers have no interval although others of their kind have one.

    `sampled` is what is left out in turn: ``object`` or ``category``, of which there are `count`;
    those in `never` never have one.
    """
    found = []
    for name in map(str, result.data_vars):
        key = f"{name}_interval"
        bounds = result[key] if key in result.data_vars else None
        if result[name].dims != ("layer",) or name in never or name.endswith("_step"):
            continue
        if bounds is None and not name.endswith(("_away", "_corrected")):
            continue
        known = result[name].notnull()
        missing = known if bounds is None else known & bounds.isnull().any("bound")
        if bool(missing.any()):
            found.append(name)
    if not found:
        return []
    units = {"object": "objects", "category": "categories"}[sampled]
    return [
        f"no interval, or none in some layers: {', '.join(found)}; {count} {units} are left out in "
        "turn, and they are too few for it, or it has no value without one of them, or they are "
        "so many that it would cost more than the measure"
    ]


def simultaneous_level(
    values: ArrayLike, left_out: ArrayLike, *, level: float = 0.95, seed: int = 0
) -> float:
    r"""Return the level of each interval at which those of all layers hold at once: max-t.

    With the pseudo-values :math:`\phi_{kl} = n \theta_l - (n - 1) \theta_{(k) l}` of layer l, the
    band is :math:`\theta_l \pm c \, s_l` with the jackknife's standard error s and c the quantile
    of the largest :math:`|t_l|` over layers. It is found by a multiplier bootstrap: each draw makes
    n new units, each a sum of the pseudo-values' deviations with Gaussian multipliers, so that
    layers go together as they do in the data, and takes their t statistics anew, with their own
    standard errors. (A single sum with multipliers, as is common for many units, covers .91 in
    place of .95 with 8 units and 16 layers.)

    Values are (layer,), and `left_out` (unit, layer) without each unit in turn. What is returned is
    at least `level`; NaN with fewer than 4 units. Layers without a value, and those that do not
    vary, are left out of the maximum.

    References
    ----------
    Westfall & Young (1993), Resampling-based multiple testing, Wiley, for the maximum;
    Chernozhukov, Chetverikov & Kato (2013), Annals of Statistics 41, for multipliers.
    """
    theta = np.asarray(values, np.float64)
    without = np.asarray(left_out, np.float64)
    n = len(without)
    if n < LEAST_UNITS:
        return float("nan")
    known = np.isfinite(theta) & np.isfinite(without).all(axis=0)
    theta, without = theta[known], without[:, known]
    deviations = without.mean(axis=0) - without
    error = np.sqrt((n - 1) / n * (deviations**2).sum(axis=0))
    unit = deviations[:, error > CONSTANT * np.abs(theta)]
    if unit.shape[1] < 2:
        return level
    unit = unit / np.linalg.norm(unit, axis=0)
    # With few units the correlations are hardly known; no band is narrower than a single interval.
    return max(float(2 * scipy.stats.t.cdf(_largest_t(unit, level, seed), n - 1) - 1), level)


def _largest_t(unit: Floats, level: float, seed: int) -> float:
    """Return the quantile of the largest |t| of n new units whose layers go together as in `unit`.

    Of n Gaussian units the mean is Gaussian, and their sums of squares about it are Wishart's with
    n - 1 degrees of freedom. With more units than layers they are drawn by its triangular factor
    (Bartlett 1933), whatever n is. Both ways are continuous in `unit`, shape (unit, layer): the
    same draws serve numbers that differ by rounding.
    """
    rng = np.random.default_rng(seed)
    n, n_layers = unit.shape
    many = n - 1 > n_layers
    root = _square_root(unit.T @ unit) if many else unit
    size = len(root)
    largest: list[float] = []
    together = max(1, NUMBERS_AT_ONCE // (size * max(size, n_layers)))
    while len(largest) < N_DRAWS:
        count = min(together, N_DRAWS - len(largest))
        if many:
            factor = np.triu(rng.standard_normal((count, size, size)), 1)
            freedom = n - 1 - np.arange(size)
            factor[:, range(size), range(size)] = np.sqrt(rng.chisquare(freedom, (count, size)))
        else:
            factor = rng.standard_normal((count, n - 1, size))
        squares = ((factor @ root) ** 2).sum(axis=1)
        means = rng.standard_normal((count, size)) @ root
        largest += np.abs(means / np.sqrt(squares / (n - 1))).max(axis=1).tolist()
    return float(np.quantile(largest, level))


def _square_root(matrix: Floats) -> Floats:
    """Return the symmetric square root of a positive semi-definite matrix: there is one only."""
    sizes, axes = np.linalg.eigh(matrix)
    root: Floats = (axes * np.sqrt(sizes.clip(min=0))) @ axes.T
    return root


def steps_of(values: ArrayLike, beside: Collection[int] = ()) -> Floats:
    """Return each layer's value less that of the layer before, along the last axis, NaN at first.

    Layers `beside` the main branch, by their places, have none, and come before no other.

    Examples
    --------
    >>> steps_of([0.1, 0.4, 0.3]).round(3)
    array([ nan,  0.3, -0.1])
    >>> steps_of([0.1, 0.4, 0.3], beside=[1]).round(3)
    array([nan, nan, 0.2])
    """
    found = np.asarray(values, np.float64)
    main, steps = _main(found.shape[-1], beside), np.full(found.shape, np.nan)
    steps[..., main[1:]] = np.diff(found[..., main], axis=-1)
    return steps


def _main(n_layers: int, beside: Collection[int]) -> NDArray[np.intp]:
    return np.setdiff1d(np.arange(n_layers), list(beside))
