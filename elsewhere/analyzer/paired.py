"""Intervals of differences between two results of the same objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.analyzer.invariance import EXEMPLARS, object_accuracies
from elsewhere.measures.accuracy import balanced_mean, invariance_index
from elsewhere.measures.intervals import Bounded, Sampled, Spread, correlation_of, jackknife_t
from elsewhere.measures.tables import LEFT_OUT

Floats = NDArray[np.float64]
Joined = Callable[[Floats, int], Floats]
"""From a number's values, and which of two results they are of, to where differences are taken."""

_SHOWN = 4
"""Numbers that a note names."""


@dataclass(frozen=True)
class Pair:
    """Two results, of which differences are taken: the second less the first."""

    first: xarray.Dataset
    second: xarray.Dataset
    names: tuple[str, str]
    shared: bool  # whether they are of the same objects
    notes: list[str]
    unpaired: list[str]  # numbers whose differences have no interval

    @classmethod
    def of(cls, first: xarray.Dataset, second: xarray.Dataset, *names: str) -> Pair:
        """Return the pair, whose objects are the same where their digests, or names, are."""
        digests = {str(each.attrs.get("object_digest", "")) for each in (first, second)}
        alike = len(digests) == 1
        if alike and "object" in first.coords and "object" in second.coords:
            alike = first["object"].values.tolist() == second["object"].values.tolist()
        return cls(first, second, (names[0], names[1]), alike, [], [])


def paired_interval(key: str, dims: Sequence[str], pair: Pair, at: Joined) -> Floats:
    """Return the 95 % interval (..., bound) of a number's difference, NaN where there is none.

    Numbers that results keep without each object, or category, in turn are jackknifed together:
    the differences without each are the differences' own. Accuracies have trials: how much the two
    go together over exemplars within their classes is known, and intervals are made of the arms of
    both (:meth:`elsewhere.measures.intervals.Bounded.less`).
    """
    two = pair.first, pair.second
    values = [each[key].transpose(*dims).values.astype(np.float64) for each in two]
    difference = at(values[1], 1) - at(values[0], 0)
    nothing = np.full((*difference.shape, 2), np.nan)
    if not pair.shared:
        return nothing
    one, other = (_without(each, key, dims) for each in two)
    if one is not None and other is not None:
        if len(one) != len(other):
            pair.notes.append(f"{key}: other objects count in {pair.names[0]} and {pair.names[1]}")
            return nothing
        left = [np.stack([at(v, n) for v in each]) for n, each in enumerate((one, other))]
        return jackknife_t(difference, left[1] - left[0])
    if two[0].attrs.get("kind") == "accuracy" and all(_bounds(key) in each for each in two):
        return _of_trials(key, dims, two)
    pair.unpaired.append(key)
    return nothing


def unpaired_notes(pairs: Sequence[Pair]) -> list[str]:
    """Return which differences have no interval, in one line; nothing where all have."""
    keys = list(dict.fromkeys(key for pair in pairs for key in pair.unpaired))
    if not keys:
        return []
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return [
        f"{', '.join(keys[:_SHOWN])}{more}: differences have no interval (nan), for the results "
        "keep neither these numbers without each object nor trials"
    ]


def _without(result: xarray.Dataset, key: str, dims: Sequence[str]) -> Floats | None:
    """Return a number without each object in turn (left_out, ...), None where it is not kept."""
    name, each = f"{key}_without", f"{key.removesuffix('_away')}_each"
    if key.endswith("_away") and each in result and list(dims) == ["layer"]:
        return _without_each(result, key, result[each])
    if name not in result or {*result[name].dims} != {LEFT_OUT, *dims}:
        return None
    found = result[name].transpose(LEFT_OUT, *dims).values.astype(np.float64)
    return np.asarray(found)


def _without_each(result: xarray.Dataset, key: str, each: xarray.DataArray) -> Floats | None:
    """Return a mean over objects of their values away from the reference, without each in turn.

    None where the mean is not that of all objects, as some have no value.
    """
    names = [str(dim) for dim in each.dims if dim not in ("layer", "object")]
    here = np.ones([each.sizes[name] for name in names], bool)
    for name, values in zip(
        names, np.meshgrid(*(each[n] for n in names), indexing="ij"), strict=True
    ):
        here &= values == result.attrs.get(f"reference_{name}")
    away = each.transpose("object", "layer", *names).values[..., ~here].mean(axis=-1)
    if not np.allclose(away.mean(axis=0), result[key].values, atol=1e-6):
        return None
    codes = np.unique(result["category"].values, return_inverse=True)[1]
    return np.asarray(Sampled.of(codes).means_without(away.astype(np.float64)))


def _of_trials(key: str, dims: Sequence[str], two: tuple[xarray.Dataset, xarray.Dataset]) -> Floats:
    """Return the interval of a difference of accuracies, or of what is made of them."""
    if np.array_equal(two[0]["margin"].values, two[1]["margin"].values, equal_nan=True):
        values = two[0][key].transpose(*dims).values  # the same network, of which nothing differs
        return np.where(np.isnan(values), np.nan, 0.0)[..., None].repeat(2, axis=-1)
    held_out = two[0]["held_out"].values
    categories = two[0]["category"].values
    classes = np.unique(categories, return_inverse=True)[1]
    found = []
    for exemplars, mine in zip(EXEMPLARS, (~held_out, held_out), strict=True):
        first, second = (_influences(key, each, mine, classes[mine]) for each in two)
        spreads = [Spread.of(each, classes[mine]) for each in (second, first, second - first)]
        one, other = (
            Bounded(*(each[name].sel(exemplars=exemplars).values for name in (key, _bounds(key))))
            for each in two
        )
        found.append(other.less(one, correlation_of(*spreads)))
    return np.asarray(np.stack(found, axis=dims.index("exemplars")))


def _bounds(key: str) -> str:
    return f"{key}_interval"


def _influences(
    key: str, result: xarray.Dataset, mine: NDArray[np.bool_], classes: NDArray[np.int64]
) -> Floats:
    """Return how much each object of one kind of exemplars moves a number, up to a factor.

    Of a ratio it is the numerator less the ratio times the denominator, to the first order.
    """
    means = object_accuracies(result)[mine]
    if key in ("accuracy_at", "N_at"):
        return means
    on, off, far = np.moveaxis(means, 1, 0)
    elsewhere = off if key in ("II", "on_minus_off") else far
    if key.startswith("on_minus"):
        return np.asarray(on - elsewhere)
    ratio = invariance_index(
        balanced_mean(elsewhere, classes),
        balanced_mean(on, classes),
        int(result.attrs["n_classes"]),
    )
    return np.asarray(elsewhere - ratio * on)
