"""Intervals of differences between two results of the same objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.analyzer.invariance import (
    EXEMPLARS,
    TRIAL_NUMBERS,
    object_accuracies,
    trial_bounds,
)
from elsewhere.measures.accuracy import balanced_mean, invariance_index
from elsewhere.measures.bands import interval_between
from elsewhere.measures.intervals import Bounded, Sampled, Spread, correlation_of, jackknife_t
from elsewhere.measures.tables import LEFT_OUT
from elsewhere.types import WHERE

Floats = NDArray[np.float64]
Joined = Callable[[Floats, int], Floats]
"""From a number's values, and which of two results they are of, to where differences are taken."""

_BY_CLASS = "accuracy_at_class"
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

    Numbers that are known without each object, category or class in turn are jackknifed together:
    the differences without each are the differences' own. Shares of answers may be 1 throughout:
    theirs are made of the arms of both intervals
    (:func:`elsewhere.measures.bands.interval_between`), as are those of accuracies, of which trials
    of exemplars within their classes are known.
    """
    two = pair.first, pair.second
    values = [each[key].transpose(*dims).values.astype(np.float64) for each in two]
    joined = [at(each, number) for number, each in enumerate(values)]
    nothing = np.full((*joined[0].shape, 2), np.nan)
    if not pair.shared:
        return nothing
    left = [_left_out(each, key, dims) for each in two]
    if left[0] is not None and left[1] is not None:
        if len(left[0].without) != len(left[1].without):
            pair.notes.append(f"{key}: other objects count in {pair.names[0]} and {pair.names[1]}")
            return nothing
        return _jackknifed(joined, [each.at(at, n) for n, each in enumerate(left) if each])
    found = _of_trials(key, dims, pair, values)
    if found is not None:
        return found
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
        "keep neither these numbers without each object, or class, nor trials"
    ]


# --- what numbers are without each object, category or class


@dataclass(frozen=True)
class _Left:
    """A number without each unit in turn, (unit, ...), and whether the unit counts in it.

    ``share`` says that it is a mean of shares.
    """

    without: Floats
    counts: NDArray[np.bool_]
    share: bool = False

    @classmethod
    def of(cls, values: Floats, units: Sampled, *, share: bool = False) -> _Left:
        """Return the mean over objects (object, ...) without each unit; NaN are none."""
        known = np.isfinite(values)
        sums, counts = units.sums(np.where(known, values, 0.0)), units.sums(known.astype(float))
        rest = counts.sum(axis=0) - counts
        without = (sums.sum(axis=0) - sums) / np.where(rest > 0, rest, np.nan)
        return cls(without, counts > 0, share)

    def at(self, joined: Joined, number: int) -> _Left:
        """Return the same where differences are taken."""
        without, counts = (
            np.stack([joined(each, number) for each in values])
            for values in (self.without, self.counts.astype(np.float64))
        )
        return _Left(without, counts > 0, self.share)


def _jackknifed(values: Sequence[Floats], left: Sequence[_Left]) -> Floats:
    """Return the interval of the second's values less the first's, of the units of either."""
    one, other = left
    counts = (one.counts | other.counts).reshape(len(one.counts), -1)
    without = [each.without.reshape(counts.shape) for each in left]
    first, second = (each.ravel() for each in values)
    found = np.full((counts.shape[1], 2), np.nan)
    kinds, inverse = np.unique(counts, axis=1, return_inverse=True)
    for number, units in enumerate(kinds.T):  # of most results there is one kind
        mine = np.flatnonzero(inverse.reshape(-1) == number)
        less, more = (each[np.ix_(units, mine)] for each in without)
        if not units.any():
            continue
        if one.share:
            found[mine] = interval_between(more.mean(axis=0), more, less.mean(axis=0), less)
        else:
            found[mine] = jackknife_t(second[mine] - first[mine], more - less)
    return found.reshape(*values[0].shape, 2)


def _left_out(result: xarray.Dataset, key: str, dims: Sequence[str]) -> _Left | None:
    """Return a number without each object or class in turn, None where it is not known."""
    name = f"{key}_without"
    if name in result and {*result[name].dims} == {LEFT_OUT, *dims}:
        kept = result[name].transpose(LEFT_OUT, *dims).values.astype(np.float64)
        counts = np.isfinite(kept)  # without a unit that does not count, the number is what it is
        whole = result[key].transpose(*dims).values.astype(np.float64)
        return _Left(np.where(counts, kept, whole), counts)
    return _of_objects(result, key, dims) or _of_classes(result, key, dims)


def _of_objects(result: xarray.Dataset, key: str, dims: Sequence[str]) -> _Left | None:
    """Return a mean over objects of their values away from the reference, without each in turn.

    None where the mean is another one, such as with the reference.
    """
    stem = key.removesuffix("_away")
    each = next((result[n] for n in (f"{stem}_each", stem) if n in result), None)
    if not key.endswith("_away") or each is None or not {"object", *dims} <= {*each.dims}:
        return None
    places = [dim for dim in each.dims if dim not in ("object", *dims)]
    here = xarray.DataArray(True)
    for place in places:
        here = here & (result[place] == result.attrs.get(f"reference_{place}"))
    away = each.where(~here).mean(places).transpose("object", *dims).values.astype(np.float64)
    known = np.isfinite(away)
    mean = np.where(known, away, 0.0).sum(axis=0) / np.where(known.any(0), known.sum(0), np.nan)
    if not np.allclose(mean, result[key].transpose(*dims), atol=1e-6, equal_nan=True):
        return None
    codes = np.unique(result["category"].values.astype(str), return_inverse=True)[1]
    return _Left.of(away, Sampled.of(codes))


def _of_classes(result: xarray.Dataset, key: str, dims: Sequence[str]) -> _Left | None:
    """Return what probes got right without each class in turn, or what is made of that."""
    prefix = "" if f"probe_{_BY_CLASS}" not in result else "probe_"
    name, number = f"{prefix}{_BY_CLASS}", key.removeprefix(prefix)
    made = ("accuracy_at", "above_chance_at", "on_minus_far", "II_far")
    if name not in result or not key.startswith(prefix) or number not in made:
        return None
    over = [*(dim for dim in dims if dim != "where"), "where"]
    at = result[name].transpose("class", *over).values.astype(np.float64)
    left = _Left.of(at, Sampled.of(np.arange(len(at))), share=True)
    if over == list(dims):
        return left
    on, far, counts = left.without[..., 0], left.without[..., 2], left.counts[..., 0]
    if number == "on_minus_far":
        return _Left(on - far, counts)
    kinds = over.index("exemplars")  # a ratio of N, in which only chance is left of K
    chance = 1 / np.maximum(counts.sum(axis=0).max(axis=kinds, keepdims=True), 1)
    known = on - chance > 1e-12
    return _Left((far - chance) / np.where(known, on - chance, np.nan), counts)


# --- trials


@dataclass(frozen=True)
class _Tested:
    """Accuracies of exemplars that a network was tested with: ``means`` (object, where)."""

    means: Floats
    classes: NDArray[np.integer]
    held_out: NDArray[np.bool_]
    n_classes: int
    network: str
    pictures: str

    def of(self, held_out: bool) -> tuple[Floats, NDArray[np.integer]]:
        """Return the accuracies of one kind of exemplars, and their classes."""
        mine = self.held_out == held_out
        return self.means[mine], self.classes[mine]


def _tested(result: xarray.Dataset) -> list[_Tested]:
    """Return what the networks of a result were tested with; nothing where no trials are kept."""
    if result.attrs.get("kind") == "accuracy":
        classes = np.unique(result["category"].values, return_inverse=True)[1]
        held_out = np.asarray(result["held_out"].values, bool)
        return [
            _Tested(
                object_accuracies(result),
                classes,
                held_out,
                int(result.attrs["n_classes"]),
                result["margin"].values.tobytes().hex(),
                held_out.tobytes().hex(),
            )
        ]
    if "tested_accuracy" not in result:
        return []
    found = []
    for number, (network, pictures) in enumerate(
        zip(result.attrs["checkpoint_sha256"], result.attrs["tested_digests"], strict=True)
    ):
        row = result.isel(checkpoint=number)
        there = row["tested_class"].values >= 0
        means = row["tested_accuracy"].transpose("tested", "where").values[there]
        found.append(
            _Tested(
                means.astype(np.float64),
                row["tested_class"].values[there],
                row["tested_held_out"].values[there] > 0,
                int(row["n_classes"]),
                network,
                pictures,
            )
        )
    return found


def _named(result: xarray.Dataset, key: str) -> tuple[str, int | None]:
    """Return what a number is called where trials are summarised, and which of several it is."""
    names = [f"accuracy_{where}" for where in WHERE]
    if result.attrs.get("kind") == "track" and key in names:
        return "accuracy_at", names.index(key)
    return key, None


def _of_trials(
    key: str, dims: Sequence[str], pair: Pair, values: Sequence[Floats]
) -> Floats | None:
    """Return the interval of a difference of accuracies, or of what is made of them."""
    name, where = _named(pair.first, key)
    one, other = _tested(pair.first), _tested(pair.second)
    if name not in TRIAL_NUMBERS or not one or not other:
        return None
    axes = tuple(dims.index(dim) for dim in ("checkpoint", "exemplars") if dim in dims)
    first, second = (np.moveaxis(each, axes, range(len(axes))) for each in values)
    found = np.full((*first.shape, 2), np.nan)
    for number, (less, more) in enumerate(zip(one, other, strict=True)):
        if less.pictures != more.pictures:
            said = f"other exemplars were tested in {pair.names[0]} and {pair.names[1]}"
            if said not in pair.notes:
                pair.notes.append(f"{said}: differences of accuracy have no interval (nan)")
            continue
        for kind in range(len(EXEMPLARS)):
            at = (number, kind) if "checkpoint" in dims else (kind,)
            if less.network == more.network:  # of which nothing differs
                found[at] = np.where(np.isnan(first[at]), np.nan, 0.0)[..., None]
                continue
            ends = [trial_bounds(name, *each.of(kind > 0), each.n_classes) for each in (less, more)]
            moved = [_influences(name, *each.of(kind > 0), each.n_classes) for each in (less, more)]
            classes = less.of(kind > 0)[1]
            if where is not None:
                ends, moved = [e[where] for e in ends], [m[:, where] for m in moved]
            spreads = [Spread.of(each, classes) for each in (*moved[::-1], moved[1] - moved[0])]
            mine, theirs = (
                Bounded(value[at], end) for value, end in zip((first, second), ends, strict=True)
            )
            found[at] = theirs.less(mine, correlation_of(*spreads))
    return np.moveaxis(found, range(len(axes)), axes)


def _influences(key: str, means: Floats, classes: NDArray[np.integer], n_classes: int) -> Floats:
    """Return how much each object of one kind of exemplars moves a number, up to a factor.

    Of a ratio it is the numerator less the ratio times the denominator, to the first order.
    """
    if key in ("accuracy_at", "N_at"):
        return means
    on, off, far = np.moveaxis(means, 1, 0)
    elsewhere = off if key in ("II", "on_minus_off") else far
    if key.startswith("on_minus"):
        return np.asarray(on - elsewhere)
    ratio = invariance_index(
        balanced_mean(elsewhere, classes), balanced_mean(on, classes), n_classes
    )
    return np.asarray(elsewhere - ratio * on)
