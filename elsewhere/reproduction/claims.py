"""From what the runs of all seeds gave to the claims, each with a verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray

from elsewhere.measures.claims import (
    Direction,
    combine_all,
    combine_any,
    interval_over_seeds,
    verdict,
)
from elsewhere.reproduction.conditions import EQUAL, FIXED, FULL
from elsewhere.reproduction.identified import PARTS
from elsewhere.reproduction.measurements import Values
from elsewhere.reproduction.scale import Scale

STATEMENTS = {
    "C1": "trained at one location, a vanilla network is near chance elsewhere",
    "C2": "pretrained on ImageNet, it knows elsewhere what it learnt at one location",
    "C3": "so, sometimes, does one pretrained on a simpler, fully translated set",
    "C4": "training everywhere is not enough: each class tied to its place, none results",
    "C5": "convolutions are equivariant; invariance sits in the fully connected layers",
    "C6": "further training at one location destroys it",
}
Results = Mapping[int, Mapping[str, Values]]
"""Seed to run to what came out of it."""


@dataclass(frozen=True)
class Row:
    """A statistic of a claim, its threshold, and its value for each seed.

    Parameters
    ----------
    claim
        ``C1`` to ``C6``.
    part
        The statistic, in words.
    pair
        Pretraining set and test set, or the test set.
    exemplars
        ``same`` as trained on (the paper's measure), ``held-out``, or none.
    threshold, direction
        The claim holds where the value is above or below it.
    values
        One for each seed; empty where it was not run.
    counts
        Whether it decides the claim; else it is reported beside it.
    case
        Parts of one case must hold together; one case is enough (C3).
    system
        What it was measured on.
    """

    claim: str
    part: str
    pair: str
    exemplars: str
    threshold: float
    direction: Direction
    values: tuple[float, ...]
    counts: bool = True
    case: str = ""
    system: str = ""

    @property
    def verdict(self) -> str:
        """What the values say; see :func:`elsewhere.measures.claims.verdict`."""
        return verdict(self.values, self.threshold, self.direction)

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return float(np.mean(self.values)) if self.values else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Student's t, 95 %, over seeds."""
        low, high = interval_over_seeds(self.values)
        return float(low), float(high)


def make_rows(scale: Scale, results: Results) -> list[Row]:
    """Return the statistics of all claims.

    Parameters
    ----------
    scale
        What was reproduced.
    results
        What came out of each run of each seed, for seeds of which all runs are done.
    """
    table = _Table(results)
    rows = [
        *_vanilla(scale, table),
        *_imagenet(scale, table),
        *_acquired(scale, table),
        *_fixed(scale, table),
        *_inside(scale, table),
        *_interference(scale, table),
    ]
    return [row if row.system else replace(row, system=scale.system) for row in rows]


def summarise(rows: Sequence[Row]) -> dict[str, str]:
    """Return the verdict of each claim.

    All parts must hold, and any that fails makes the claim fail; of C3's pairs across domains,
    one is enough.
    """
    verdicts = {}
    for claim in STATEMENTS:
        counted = [row for row in rows if row.claim == claim and row.counts]
        cases = [
            combine_all([row.verdict for row in counted if row.case == case])
            for case in dict.fromkeys(row.case for row in counted)
        ]
        verdicts[claim] = combine_any(cases)
    return verdicts


def to_table(
    scale: Scale, rows: Sequence[Row], results: Results, reported: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all of it as plain values for ``claims.json``; NaN becomes None."""
    return {
        "elsewhere_encoding": "claims",
        "encoding_version": "0.1",
        "scale": scale.name,
        "system": scale.system,
        "fingerprint": scale.fingerprint,
        "seeds": sorted(results),
        "summary": {
            claim: {"verdict": found, "statement": STATEMENTS[claim]}
            for claim, found in summarise(rows).items()
        },
        "claims": [_plain(row) for row in rows],
        "reported": reported,
    }


def to_dataset(scale: Scale, rows: Sequence[Row], results: Results) -> xarray.Dataset:
    """Return the rows as a result that can be drawn and stored.

    Returns
    -------
    xarray.Dataset
        Over ``claim``, the rows, with ``part``, ``system``, ``pair`` and ``exemplars``:
        ``value``, ``interval`` (bound), ``threshold``, ``direction``, ``verdict``, ``n_seeds``,
        ``counts`` and ``seeds`` (seed), the value of each seed.
    """
    seeds = sorted(results)
    values = np.full((len(rows), len(seeds)), np.nan)
    for place, row in enumerate(rows):
        if row.values:
            values[place] = row.values
    columns = {
        "value": [row.value for row in rows],
        "threshold": [row.threshold for row in rows],
        "direction": [row.direction for row in rows],
        "verdict": [row.verdict for row in rows],
        "n_seeds": [len(row.values) for row in rows],
        "counts": [int(row.counts) for row in rows],
    }
    coordinates = {
        name: ("claim", [getattr(row, name) for row in rows])
        for name in ("claim", "part", "system", "pair", "exemplars")
    }
    summary = summarise(rows)
    return xarray.Dataset(
        {name: ("claim", column) for name, column in columns.items()}
        | {
            "interval": (("claim", "bound"), np.array([row.interval for row in rows])),
            "seeds": (("claim", "seed"), values),
        },
        coords={**coordinates, "bound": ["low", "high"], "seed": seeds},
        attrs={
            "kind": "claims",
            "scale": scale.name,
            "system": scale.system,
            "level": 0.95,
            "summary": json.dumps(summary),
        },
    )


class _Table:
    """Values over seeds, by run and name."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.seeds = sorted(results)

    def has(self, run: str) -> bool:
        return bool(self.seeds) and all(run in self.results[seed] for seed in self.seeds)

    def get(self, run: str, name: str) -> tuple[float, ...]:
        """Return a value for each seed; none where the run was not done."""
        if not self.has(run):
            return ()
        return tuple(float(self.results[seed][run].get(name, math.nan)) for seed in self.seeds)

    def minus(self, first: tuple[str, str], second: tuple[str, str]) -> tuple[float, ...]:
        return _minus(self.get(*first), self.get(*second))

    def equal(self, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return a value of ``full`` and of ``fixed`` at the same pretraining accuracy."""
        full, fixed = list(self.get("acquired", name)), list(self.get("fixed-learning", name))
        if not self.has(EQUAL):
            return (), ()
        for place, (seed, value) in enumerate(zip(self.seeds, self.get(EQUAL, name), strict=True)):
            reduced = self.results[seed][EQUAL]["reduced"]
            (full if reduced == FULL else fixed)[place] = value
        return tuple(full), tuple(fixed)


def _minus(first: tuple[float, ...], second: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(a - b for a, b in zip(first, second, strict=True)) if first and second else ()


def _exemplars() -> Iterator[tuple[str, bool]]:
    """Return the kinds of exemplars, and whether they decide: the paper's measure does."""
    yield "same", True
    yield "held-out", False


def _vanilla(scale: Scale, table: _Table) -> Iterator[Row]:
    for phase in scale.learning:
        for kind, counts in _exemplars():
            values = table.get("vanilla", f"II_far/{kind}/{phase.name}")
            yield Row("C1", "II_far, vanilla", phase.objects, kind, 0.10, "<", values, counts)


def _imagenet(scale: Scale, table: _Table) -> Iterator[Row]:
    for phase in scale.learning if table.has("imagenet") else scale.learning[:1]:
        for kind, counts in _exemplars():
            values = table.get("imagenet", f"II_far/{kind}/{phase.name}")
            pair = f"ImageNet → {phase.objects}"
            part, system = "II_far, ImageNet weights", "vgg16 at 224 px"
            yield Row("C2", part, pair, kind, 0.80, ">", values, counts, system=system)


def _acquired(scale: Scale, table: _Table) -> Iterator[Row]:
    for number, pretraining in enumerate(scale.pretraining, start=1):
        run = "acquired" if number == 1 else f"acquired-{number}"
        for phase in scale.learning:
            pair = f"{pretraining.objects} → {phase.objects}"
            across = pretraining.objects != phase.objects
            for kind, primary in _exemplars():
                name = f"II_far/{kind}/{phase.name}"
                values = table.get(run, name)
                rise = table.minus((run, name), ("vanilla", name))
                counts = primary and across
                row = Row("C3", "II_far, acquired", pair, kind, 0.50, ">", values, counts, pair)
                yield row
                yield replace(row, part="II_far, acquired - vanilla", values=rise)
                if primary:
                    yield replace(row, part="near-complete", threshold=0.80, counts=False)


def _fixed(scale: Scale, table: _Table) -> Iterator[Row]:
    for phase in scale.learning:
        pair = f"{scale.pretraining[0].objects} → {phase.objects}"
        for kind, counts in _exemplars():
            name = f"II_far/{kind}/{phase.name}"
            full, fixed = table.get("acquired", name), table.get("fixed-learning", name)
            equal_full, equal_fixed = table.equal(name)
            for how, ours, theirs in (
                ("same steps", full, fixed),
                ("same accuracy", equal_full, equal_fixed),
            ):
                row = Row("C4", f"II_far, fixed, {how}", pair, kind, 0.10, "<", theirs, counts)
                yield row
                difference = _minus(ours, theirs)
                part = f"II_far, full - fixed, {how}"
                yield replace(row, part=part, threshold=0.50, direction=">", values=difference)


def _inside(scale: Scale, table: _Table) -> Iterator[Row]:
    seen = next(phase.objects for phase in scale.learning if phase.name == scale.compared)
    for phase in scale.unseen:
        pair = f"{seen}; unseen {phase.name}"
        for run in ("vanilla", "acquired"):
            values = table.get(run, f"equivariance/{phase.name}")
            yield Row("C5", f"a: aligned G - G, {run}", pair, "", 0.2, ">", values)
        hidden, pooling = f"G/hidden/{phase.name}", f"G/pooling/{phase.name}"
        rise = table.minus(("acquired", hidden), ("vanilla", hidden))
        yield Row("C5", "b: G hidden, acquired - vanilla", pair, "", 0.3, ">", rise)
        step = table.minus(("acquired", hidden), ("acquired", pooling))
        yield Row("C5", "c: G hidden - G pooling", pair, "", 0.2, ">", step)


def _interference(scale: Scale, table: _Table) -> Iterator[Row]:
    """Compare the end with the first checkpoint at which the new objects are learnt.

    The control may gain, since it is trained everywhere: it must not lose.
    """
    pair = f"{scale.pretraining[0].objects} → {scale.interference[0].objects}"
    for kind, counts in _exemplars():
        row = Row("C6", "fall of II_far", pair, kind, 0.2, ">", (), counts)
        yield replace(row, values=table.get("interference", f"II_far/{kind}/fall"))
        on = table.get("interference", f"accuracy_trained/{kind}/fall")
        part = "fall of accuracy on the location"
        yield replace(row, part=part, values=on, threshold=0.02, direction="<")
        old = table.get("interference", f"old_index/{kind}/fall")
        yield replace(row, part="fall of the index of old objects", values=old)
        control = table.get("translated", f"II_far/{kind}/fall")
        part = "fall of II_far, translated control"
        yield replace(row, part=part, values=control, threshold=0.1, direction="<")


def report_beside(scale: Scale, results: Results) -> dict[str, Any]:
    """Return what is reported without a threshold, as plain values over seeds.

    The near-domain control, what the environments give away, how like the sets are, the starts
    of the comparison at equal accuracy, and the confounds.
    """
    table = _Table(results)
    groups: dict[str, dict[str, Any]] = {}

    def add(group: str, run: str, names: Sequence[str]) -> None:
        for name in names:
            values = table.get(run, name)
            if values:
                groups.setdefault(group, {})[f"{run}: {name}"] = _over_seeds(values)

    moments = ("before", "end", "fall")
    for run in ("near", "interference", "translated"):
        far = [f"II_far/{kind}/{moment}" for kind, _ in _exemplars() for moment in moments]
        olds = [f"old_index/same/{moment}" for moment in ("known", *moments)]
        group = "near-domain control" if run == "near" else "interference"
        add(group, run, [*far, *olds, "criterion_step"])
    for run in (FULL, FIXED):
        add("pretraining", run, ["train_accuracy", "probe_accuracy", "place_only_accuracy"])
    for run in ("vanilla", "acquired"):
        for phase in scale.unseen:
            add("lost or hidden", run, [f"identification/{part}/{phase.name}" for part in PARTS])
    for run in ("interference", "translated"):
        for moment in ("before", "end"):
            add("lost or hidden", run, [f"identification/{part}/{moment}" for part in PARTS])
    tests = [phase.name for phase in scale.learning]
    add("largest correlation of pixels", FULL, [f"largest_correlation/{name}" for name in tests])
    starts = ["start_step", "start_train_accuracy", "other_train_accuracy"]
    add("equal accuracy", EQUAL, starts)
    for run in _confounds(results):
        add(
            "confounds",
            run,
            [f"II_far/{kind}/{name}" for name in tests for kind, _ in _exemplars()],
        )
        add("confounds", run, ["train_accuracy", "place_only_accuracy"])
    return groups


_MAIN = frozenset(
    {FULL, FIXED, EQUAL, "vanilla", "acquired", "fixed-learning", "imagenet"}
    | {"interference", "translated", "near"}
)


def _confounds(results: Results) -> list[str]:
    names = dict.fromkeys(run for runs in results.values() for run in runs)
    return [name for name in names if name not in _MAIN]


def _over_seeds(values: tuple[float, ...]) -> dict[str, Any]:
    low, high = interval_over_seeds(values)
    return {
        "value": _finite(float(np.mean(values))) if values else None,
        "interval": [_finite(float(low)), _finite(float(high))],
        "values": [_finite(value) for value in values],
    }


def _plain(row: Row) -> dict[str, Any]:
    names = ("claim", "system", "pair", "exemplars", "threshold", "direction", "verdict")
    return {
        **{name: getattr(row, name) for name in names},
        "statistic": row.part,
        "decides": row.counts,
        "n_seeds": len(row.values),
        **_over_seeds(row.values),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
