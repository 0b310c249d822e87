"""How often the 95 % intervals hold the truth, for every measure that has one.

    python -m benchmarks.coverage [--sets 200] [--answers 4000] [--categories 4,8,24]
                                  [--exemplars 1,3,6] [--layers 16]

Data are drawn again and again from one population of categories and exemplars, shown at the same
places to the same network. The truth of accuracies, indices and probes is known; that of the other
measures is their mean over all data sets of the same size. The last line of a table's head has the
error of a coverage of .95. It makes the table in docs/measures.md. With --layers it asks instead
how often all layers of a network are covered together, for each number of categories.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from elsewhere.analyzer import measure, similarity
from elsewhere.measures.accuracy import normalized_accuracy, unit_means
from elsewhere.measures.attribution import (
    cross_means,
    cross_without,
    likeness_table,
    mean_over_objects,
)
from elsewhere.measures.bands import layer_bands
from elsewhere.measures.catalogue import measures
from elsewhere.measures.intervals import (
    Bounded,
    Sampled,
    Spread,
    correlation_of,
    jackknife_t,
    share_interval,
)
from elsewhere.measures.phase import change_shares
from elsewhere.measures.trajectories import retained_share
from elsewhere.storage import ArraySource

Floats = NDArray[np.float64]
Found = Iterator[tuple[str, float, Floats]]
"""Name, value and interval of each measure of one data set."""

UNITS, PLACES = 24, 3
LEVELS = (0.3, 0.85, 0.98)
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(41)


def draw(rng: np.random.Generator, codes: NDArray[np.int64]) -> Floats:
    """Return codes (object, place, unit): of categories, some of which survive a move better."""
    network = np.random.default_rng(0)
    shared, places = network.normal(size=UNITS), network.normal(size=(1, PLACES, UNITS))
    n = codes.max() + 1
    kinds = rng.normal(size=(n, 1, UNITS)) + shared
    strength = rng.gamma(3.0, 0.25, size=(n, 1, 1))
    own = 0.4 * rng.normal(size=(len(codes), 1, UNITS))
    moved = rng.normal(size=(n, PLACES, UNITS))[codes]
    moved = moved + 0.5 * rng.normal(size=moved.shape)
    return kinds[codes] + own + 0.6 * places + (strength * 0.8)[codes] * moved


def of_catalogue(rng: np.random.Generator, codes: NDArray[np.int64]) -> Found:
    """Every measure of units that has an interval, and those of `similarity`."""
    values = draw(rng, codes)
    names = [str(code) for code in codes]
    taken = [name for name in measures if measures.get(name).taken == "units" and name != "evoked"]
    places = [[5, 5 + 4 * place] for place in range(PLACES)]
    found = measure(values, places, names=taken, categories=names)
    source = ArraySource(
        {"array": values[:, None]}, y=[5], x=[x for _, x in places], categories=names
    )
    for result, prefix in ((found, ""), (similarity(source), "similarity: ")):
        for name in result.data_vars:
            stem = str(name).removesuffix("_interval")
            if stem.endswith("_step") or stem == name:  # there is one layer
                continue
            if result[name].dims == ("layer", "bound"):
                yield prefix + stem, float(result[stem][0]), result[name].values[0]


def of_means(rng: np.random.Generator, codes: NDArray[np.int64]) -> Found:
    """Means over objects of attributions, shares of a change, and what a phase retains."""
    n = codes.max() + 1
    kind, own = rng.gamma(2.0, 1.0, size=n)[codes], rng.gamma(2.0, 0.5, size=len(codes))
    value, interval = mean_over_objects(kind + own, codes=codes)
    yield "attribution: mean of skewed values", float(value), interval
    units = Sampled.of(codes)
    there = rng.normal(size=(n, 30))[codes] + 0.5 * rng.normal(size=(len(codes), 30)) + 1
    strength = rng.gamma(3.0, 0.3, size=(n, 1))[codes]
    table = likeness_table(there + strength * rng.normal(size=there.shape), there, "pearson")
    over = np.diagonal(table).mean() - cross_means(table, codes).mean()
    rest = units.means_without(np.diagonal(table)) - cross_without(table, codes, units)
    yield "attribution: equivariance over cross", float(over), jackknife_t(np.asarray(over), rest)
    total = (kind + own)[:, None] * np.ones((1, PLACES))
    part = total * rng.beta(2, 4, size=n)[codes][:, None]
    found = change_shares(total, 0.2 * part, part, total, codes=codes)
    yield "phase: share of the rest", float(found.shares[2]), found.intervals[2]
    before = 0.5 + 0.1 * rng.normal(size=n)[codes] + 0.05 * rng.normal(size=len(codes))
    after = 0.6 * before + 0.1 * rng.normal(size=n)[codes]
    share, bounds = retained_share(
        before.mean(), after.mean(),
        before_without=units.means_without(before), after_without=units.means_without(after),
    )  # fmt: skip
    yield "track: retained share", share, bounds


def offset_for(accuracy: float, spread: float, classes: Floats) -> float:
    """Return what to add to logits so that the mean over classes and exemplars is `accuracy`."""
    low, high = -40.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        each = _logistic(middle + classes[:, None] + spread * NODES) @ WEIGHTS / WEIGHTS.sum()
        low, high = (middle, high) if each.mean() < accuracy else (low, middle)
    return low


def _logistic(values: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-values)))


def answers(
    rng: np.random.Generator, codes: NDArray[np.int64], level: float, n_sets: int, *, sampled: bool
) -> tuple[Floats, Floats]:
    """Return shares of places at which objects are known, here and far, (object, data set).

    Classes are `sampled`, or the same in all data sets. One that is hard here is hard there.
    """
    n = int(codes.max()) + 1
    classes = np.zeros(1) if sampled else np.linspace(-1.2, 1.2, n)
    spread = float(np.hypot(1.5, 1.2)) if sampled else 1.2
    kinds = 1.5 * rng.normal(size=(n, n_sets)) if sampled else np.tile(classes[:, None], n_sets)
    hard = kinds[codes] + 1.2 * rng.normal(size=(len(codes), n_sets))
    shares = []
    for wanted, places in ((0.95, 2), (level, 12)):
        chance = _logistic(offset_for(wanted, spread, classes) + hard)
        shares.append(rng.binomial(places, chance) / places)
    return shares[0], shares[1]


def covers_answers(
    rng: np.random.Generator, codes: NDArray[np.int64], n_sets: int
) -> dict[str, float]:
    """Return the coverage of accuracies, of what follows from them, and of probes."""
    covered: dict[str, float] = {}
    n_classes = int(codes.max()) + 1
    for level in LEVELS:
        for what in ("accuracy", "probes"):
            sampled = what == "probes"
            both = answers(rng, codes, level, n_sets, sampled=sampled)
            strata = None if sampled else codes
            if sampled:
                both = (unit_means(both[0], codes), unit_means(both[1], codes))
            on, far = (Spread.of(values, strata) for values in both)
            correlation = correlation_of(on, far, Spread.of(both[0] - both[1], strata))
            here, there = (Bounded(each.mean, share_interval(each)) for each in (on, far))
            shares = [
                Bounded(*(normalized_accuracy(v, n_classes) for v in (one.value, one.interval)))
                for one in (there, here)
            ]
            index = normalized_accuracy(level, n_classes) / normalized_accuracy(0.95, n_classes)
            for name, interval, truth in (
                (f"accuracy (and N) of {level}", there.interval, level),
                (f"on - far, .95 - {level}", here.less(there, correlation), 0.95 - level),
                (f"index, N({level}) / N(.95)", shares[0].over(shares[1], correlation), index),
            ):
                covered[f"{what}: {name}"] = _covered(interval, np.asarray(truth))
    return covered


def _covered(intervals: Floats, truth: Floats) -> float:
    """Return how often intervals that are none NaN hold the truth, NaN where all are none."""
    known = np.isfinite(intervals).all(axis=-1)
    inside = (intervals[..., 0] <= truth + 1e-9) & (truth - 1e-9 <= intervals[..., 1])
    return float(inside[known].mean()) if known.mean() > 0.5 else float("nan")


def covers_measures(
    rng: np.random.Generator,
    codes: NDArray[np.int64],
    n_sets: int,
    of: Callable[[np.random.Generator, NDArray[np.int64]], Found],
) -> dict[str, float]:
    """Return the coverage of the mean over all data sets of this size."""
    values, intervals = defaultdict(list), defaultdict(list)
    for _ in range(n_sets):
        for name, value, interval in of(rng, codes):
            values[name].append(value)
            intervals[name].append(interval)
    return {
        name: _covered(np.array(intervals[name]), np.asarray(np.nanmean(values[name])))
        if np.isfinite(values[name]).any()
        else float("nan")
        for name in values
    }


def covers_layers(
    rng: np.random.Generator, n: int, n_layers: int, n_sets: int, neighbours: float, *, skewed: bool
) -> list[float]:
    """Return how often bands, steps' bands and pointwise intervals cover all layers of a set.

    Values of `n` units are normal, or chi-square of 4 degrees of freedom; those of neighbouring
    layers correlate by `neighbours`.
    """
    apart = np.abs(np.subtract.outer(np.arange(n_layers), np.arange(n_layers)))
    root = np.linalg.cholesky(neighbours**apart)
    truth = np.linspace(0, 1, n_layers)
    hits = np.zeros(3)
    for _ in range(n_sets):
        values = rng.normal(size=(n, n_layers))
        if skewed:
            values = (rng.chisquare(4, size=(n, n_layers)) - 4) / np.sqrt(8)
        units = truth + values @ root.T
        mean, without = units.mean(axis=0), (units.sum(axis=0) - units) / (n - 1)
        found = layer_bands(mean, without)
        for place, (bounds, known) in enumerate(
            (
                (found["band"], truth),
                (found["step_band"][1:], np.diff(truth)),
                (jackknife_t(mean, without), truth),
            )
        ):
            hits[place] += bool(((bounds[:, 0] <= known) & (known <= bounds[:, 1])).all())
    return (hits / n_sets).tolist()


def print_layers(sizes: list[int], n_layers: int, n_sets: int) -> None:
    """Print how often all layers are covered together."""
    error = np.sqrt(0.95 * 0.05 / n_sets)
    print(f"{n_sets} data sets of {n_layers} layers (error {error:.3f} of .95)\n")
    print("| units | values | neighbours correlate by | bands | bands of steps | pointwise |")
    print("| --- " * 6 + "|")
    for n in sizes:
        for skewed in (False, True):
            for neighbours in (0.5, 0.9):
                rng = np.random.default_rng([n, skewed, int(10 * neighbours)])
                found = covers_layers(rng, n, n_layers, n_sets, neighbours, skewed=skewed)
                said = " | ".join(f"{share:.3f}".removeprefix("0") for share in found)
                words = "skewed" if skewed else "normal"
                print(f"| {n} | {words} | {neighbours} | {said} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--answers", type=int, default=4000)
    parser.add_argument("--categories", default="4,8,24")
    parser.add_argument("--exemplars", default="1,3,6")
    parser.add_argument("--layers", type=int)
    asked = parser.parse_args()
    if asked.layers:
        units = [int(n) for n in asked.categories.split(",")]
        print_layers(units, asked.layers, 10 * asked.sets)
        return
    sizes = [
        (int(n), int(each))
        for n in asked.categories.split(",")
        for each in asked.exemplars.split(",")
    ]
    rows: dict[str, dict[tuple[int, int], float]] = defaultdict(dict)
    for n, each in sizes:
        codes, rng = np.repeat(np.arange(n), each), np.random.default_rng([n, each])
        found = covers_answers(rng, codes, asked.answers)
        found |= covers_measures(rng, codes, 10 * asked.sets, of_means)
        found |= covers_measures(rng, codes, asked.sets, of_catalogue)
        for name, value in found.items():
            rows[name][n, each] = value
    errors = [np.sqrt(0.95 * 0.05 / n) for n in (asked.answers, 10 * asked.sets, asked.sets)]
    print(
        f"{asked.answers} data sets for accuracies and probes (error {errors[0]:.3f}), "
        f"{10 * asked.sets} for attribution, phase and track ({errors[1]:.3f}), {asked.sets} for "
        f"the others ({errors[2]:.3f}); categories x exemplars of each; - where there is none.\n"
    )
    print("| | " + " | ".join(f"{n}x{each}" for n, each in sizes) + " |")
    print("| --- " * (len(sizes) + 1) + "|")
    for name, row in rows.items():
        shown = [row.get(size, float("nan")) for size in sizes]
        said = [f"{value:.2f}".removeprefix("0") if value == value else "-" for value in shown]
        print(f"| {name} | {' | '.join(said)} |", flush=True)


if __name__ == "__main__":
    main()
