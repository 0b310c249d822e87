"""Measures of attribution maps: do they move with the object, where do they lie, how spread out."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
import scipy  # scipy.stats is imported when first used: it takes most of a second
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import UnknownNameError
from elsewhere.measures.intervals import Sampled, known_mean

MapMetric: TypeAlias = Literal["pearson", "cosine", "spearman"]
MAP_METRICS: tuple[str, ...] = get_args(MapMetric)

VANISHING = 1e-4
"""A map with less than this share of the absolute mass that maps have elsewhere is no map."""


def unit_maps(maps: NDArray[np.floating], metric: MapMetric) -> NDArray[np.float64]:
    r"""Return maps (..., pixel) as vectors whose dot products are the metric.

    ``cosine``: :math:`m / |m|`; ``pearson``: the same of :math:`m - \bar m`; ``spearman``: the same
    of the ranks of :math:`|m|` (ties share their mean rank), as Adebayo et al. (2018) compare maps.
    They are NaN for a map without any variation (pearson, spearman) or length.

    Examples
    --------
    >>> a, b = unit_maps(np.array([[1.0, -2.0, 3.0], [-1.0, 4.0, -9.0]]), "spearman")
    >>> round(float(a @ b), 12)
    1.0
    """
    if metric not in MAP_METRICS:
        raise UnknownNameError("metric of maps", metric, MAP_METRICS)
    values = np.asarray(maps, np.float64)
    if metric == "spearman":
        values = scipy.stats.rankdata(np.abs(values), axis=-1)
    largest = np.abs(values).max(axis=-1, keepdims=True, initial=0.0)
    values = values / np.where(largest > 0, largest, np.nan)
    if metric != "cosine":
        values = values - values.mean(axis=-1, keepdims=True)
    length = np.sqrt((values * values).sum(axis=-1, keepdims=True))
    floor = 1e-9 * np.sqrt(values.shape[-1])
    return np.asarray(values / np.where(length > floor, length, np.nan))


def equivariance(
    maps: NDArray[np.floating],
    references: NDArray[np.floating],
    categories: NDArray[np.integer],
    metric: MapMetric,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how alike objects' maps here are to those at the reference, and to other objects'.

    Both are in the object's frame, (object, pixel), so that a map that moves with the object scores
    1 with its own; pixels that are NaN in any map are left out. The second, the mean over pairs of
    objects of different categories, tells how alike maps are whatever the object; the first is to
    be read beside it. Both are (object,), NaN where a map has nothing to compare with.

    Examples
    --------
    >>> maps = np.array([[1.0, 0.0, 2.0], [3.0, 1.0, 0.0]])
    >>> equivariance(2 * maps, maps, np.array([0, 1]), "pearson")[0]
    array([1., 1.])
    """
    table = likeness_table(maps, references, metric)
    return np.diagonal(table).copy(), cross_means(table, categories)


def likeness_table(
    maps: NDArray[np.floating], references: NDArray[np.floating], metric: MapMetric
) -> NDArray[np.float64]:
    """Return how alike each map here is to each at the reference, (object, object there).

    Pixels that are NaN in any map are left out; rows and columns of empty maps are NaN.
    """
    known = np.isfinite(maps).all(axis=0) & np.isfinite(references).all(axis=0)
    if not known.any():
        return np.full((len(maps), len(references)), np.nan)
    return unit_maps(maps[:, known], metric) @ unit_maps(references[:, known], metric).T


def cross_means(table: NDArray[np.float64], categories: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return each object's mean likeness with reference maps of other categories, (object,)."""
    return known_mean(np.where(categories[:, None] != categories[None, :], table, np.nan))


def cross_without(
    table: NDArray[np.float64], categories: NDArray[np.integer], units: Sampled
) -> NDArray[np.float64]:
    """Return the mean of :func:`cross_means` without each unit, here and there: (unit,)."""
    found = np.full(len(units), np.nan)
    for number, members in enumerate(units.members):
        left = np.delete(np.arange(len(table)), members)
        found[number] = known_mean(cross_means(table[np.ix_(left, left)], categories[left]))
    return found


def absolute_mass(maps: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the sum of absolute values of maps (..., height, width).

    Examples
    --------
    >>> absolute_mass(np.array([[1.0, -2.0]]))
    array(3.)
    """
    return np.asarray(np.abs(np.asarray(maps, np.float64)).sum(axis=(-2, -1)))


def share_inside(maps: NDArray[np.floating], masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the share, 0..1, of the absolute mass of maps (..., height, width) within masks.

    Examples
    --------
    >>> share_inside(np.array([[1.0, -3.0]]), np.array([[False, True]]))
    array(0.75)
    """
    mass, size = np.abs(np.asarray(maps, np.float64)), absolute_mass(maps)
    inside = np.where(masks, mass, 0.0).sum(axis=(-2, -1))
    return np.asarray(inside / np.where(size > 0, size, np.nan))


def centre_of_mass(maps: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return row and column (..., 2), px, of the centre of mass of maps (..., height, width).

    Examples
    --------
    >>> centre_of_mass(np.array([[0.0, 0.0, 0.0], [1.0, 0.0, -1.0]]))
    array([1., 1.])
    """
    mass, size = np.abs(np.asarray(maps, np.float64)), absolute_mass(maps)
    size = np.where(size > 0, size, np.nan)
    rows, columns = (np.arange(length, dtype=np.float64) for length in mass.shape[-2:])
    return np.stack(
        [(mass.sum(-1) * rows).sum(-1) / size, (mass.sum(-2) * columns).sum(-1) / size], axis=-1
    )


def entropy(maps: NDArray[np.floating]) -> NDArray[np.float64]:
    r"""Return the entropy of the absolute mass of maps (..., height, width), bits.

    :math:`-\sum p \log_2 p` with :math:`p = |m| / \sum |m|`: 0 for a single pixel, :math:`\log_2 n`
    for n equal ones, NaN for an empty map.

    Examples
    --------
    >>> entropy(np.array([[1.0, -1.0, 0.0], [2.0, 2.0, 2.0]])[:, None]).round(3)
    array([1.   , 1.585])
    """
    size = absolute_mass(maps)[..., None, None]
    shares = np.abs(np.asarray(maps, np.float64)) / np.where(size > 0, size, np.nan)
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(-(shares * logs).sum(axis=(-2, -1)))


def mean_over_objects(
    values: NDArray[np.floating], *, codes: ArrayLike | None = None, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean over objects (object, ...) and its delete-one jackknife-t interval (..., 2).

    Of a plain mean that interval is Student's: the mean plus or minus t times the standard
    deviation over the root of the number of objects. Objects without a value, NaN, are left out.
    Where a category has several exemplars, by `codes`, categories are left out in turn instead of
    objects. With fewer than two there is no interval.

    Examples
    --------
    >>> mean, interval = mean_over_objects(np.array([1.0, 2.0, 3.0, 4.0, np.nan]))
    >>> float(mean), interval.round(3)
    (2.5, array([0.446, 4.554]))
    """
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    n = known.sum(axis=0)
    total = np.where(known, values, 0).sum(axis=0)
    mean = total / np.where(n > 0, n, np.nan)
    units = Sampled.of(np.arange(len(values)) if codes is None else codes)
    held = units.sums(known.astype(np.float64))
    used = (held > 0) & (held < n)  # units whose removal changes something and leaves something
    count = np.where(used.sum(axis=0) > 1, used.sum(axis=0), np.nan)
    left = np.where(used, n - held, 1.0)
    without = np.where(used, (total - units.sums(np.where(known, values, 0))) / left, 0.0)
    middle = without.sum(axis=0) / count
    squares = np.where(used, (without - middle) ** 2, 0.0).sum(axis=0)
    error = np.sqrt((count - 1) / count * squares)
    half = scipy.stats.t.ppf(0.5 + level / 2, count - 1) * error
    return np.asarray(mean), np.stack([mean - half, mean + half], axis=-1)


def association(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Return Spearman's correlation of two maps over the canvas, where both have a value.

    It is NaN for fewer than three locations, or where one of them does not vary.

    Examples
    --------
    >>> association(np.array([[1.0, 2.0], [3.0, np.nan]]), np.array([[5.0, 7.0], [9.0, 1.0]]))
    1.0
    """
    known = np.isfinite(first) & np.isfinite(second)
    a, b = scipy.stats.rankdata(first[known]), scipy.stats.rankdata(second[known])
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    return float((a @ b) / np.sqrt((a @ a) * (b @ b)))
