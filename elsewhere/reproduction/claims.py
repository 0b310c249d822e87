"""From what the runs of all seeds gave to the claims, each with a verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray

from elsewhere.analyzer.training_facts import phase_facts
from elsewhere.measures.claims import (
    Direction,
    combine_all,
    combine_any,
    interval_over_seeds,
    verdict,
)
from elsewhere.measures.variables import described
from elsewhere.reproduction.conditions import (
    ALL_WEIGHTS,
    CELL,
    EQUAL,
    FIXED,
    FULL,
    HEADED,
    PRETRAINED,
    RANDOM,
)
from elsewhere.reproduction.gates import Results, SeedTable, SeedValues, join_notes
from elsewhere.reproduction.measurements import PARTS
from elsewhere.reproduction.scale import Scale
from elsewhere.reproduction.tasks import finite

STATEMENTS = {
    "C1": "trained at one location, a vanilla network is near chance elsewhere",
    "C2": "pretrained on ImageNet, it knows elsewhere what it learnt at one location",
    "C3": "so, sometimes, does one pretrained on a simpler, fully translated set",
    "C4": "training everywhere is not enough: each class tied to its place, none results",
    "C5": "convolutions are equivariant; invariance sits in the fully connected layers",
    "C6": "further training at one location destroys it",
}


@dataclass(frozen=True)
class Row:
    """A statistic of a claim, its threshold, and its value for each seed."""

    claim: str  # ``C1`` to ``C6``
    part: str  # the statistic, in words
    pair: str  # pretraining set and test set, or the test set
    exemplars: str  # ``same`` as trained on (the paper's measure), ``held-out``, or none
    threshold: float
    direction: Direction  # the claim holds where the value is above or below the threshold
    values: tuple[float, ...]  # one for each seed; empty where it was not run
    counts: bool = True  # whether it decides the claim; else it is reported beside it
    case: str = ""  # parts of one case must hold together; one case is enough (C3)
    system: str = ""  # what it was measured on
    note: str = ""  # why a seed could not be measured, or what the interval does not cover

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
    """Return the statistics of all claims, from what came out of each run of seeds that are
    done.
    """
    table = SeedTable(results)
    if scale.question == "imagenet":
        return [replace(row, system=scale.system) for row in _heads(scale, table)]
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
    asked = {row.claim for row in rows}
    for claim in filter(asked.__contains__, STATEMENTS):
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
        "scale": scale.name,
        "system": scale.system,
        "fingerprint": scale.fingerprint,
        "seeds": sorted(results),
        "tuned_on": list(scale.tuned_on),
        "development": bool({*scale.tuned_on} & {*results}),
        "summary": {
            claim: {
                "verdict": found,
                "statement": STATEMENTS[claim],
                "note": _notes(rows, claim),
                "parts": _parts(rows, claim),
            }
            for claim, found in summarise(rows).items()
        },
        "claims": [_plain(row) for row in rows],
        "reported": reported,
    }


def _parts(rows: Sequence[Row], claim: str) -> dict[str, str]:
    """Return the verdict of each lettered part of a claim (C5's a, b and c)."""
    found: dict[str, list[str]] = {}
    for row in rows:
        letter, colon, _ = row.part.partition(": ")
        if row.claim == claim and row.counts and colon and len(letter) == 1:
            found.setdefault(letter, []).append(row.verdict)
    return {letter: combine_all(verdicts) for letter, verdicts in found.items()}


def _notes(rows: Sequence[Row], claim: str) -> str:
    """Return what the rows that decide a claim add to its verdict."""
    return join_notes(*(row.note for row in rows if row.claim == claim and row.counts))


def to_dataset(scale: Scale, rows: Sequence[Row], results: Results) -> xarray.Dataset:
    """Return the rows as a result that can be drawn and stored.

    Returns
    -------
    xarray.Dataset
        Over ``claim``, the rows, with ``part``, ``system``, ``pair`` and ``exemplars``:
        ``value``, ``interval`` (bound), ``threshold``, ``direction``, ``verdict``, ``note``,
        ``n_seeds``, ``counts`` and ``seeds`` (seed), the value of each seed.
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
        "note": [row.note for row in rows],
        "n_seeds": [len(row.values) for row in rows],
        "counts": [int(row.counts) for row in rows],
    }
    coordinates = {
        name: ("claim", [getattr(row, name) for row in rows])
        for name in ("claim", "part", "system", "pair", "exemplars")
    }
    summary = summarise(rows)
    found = xarray.Dataset(
        {name: ("claim", column) for name, column in columns.items()}
        | {
            "interval": (
                ("claim", "bound"),
                np.array([row.interval for row in rows], float).reshape(-1, 2),
            ),
            "seeds": (("claim", "seed"), values),
        },
        coords={**coordinates, "bound": ["low", "high"], "seed": seeds},
        attrs={
            "kind": "claims",
            "scale": scale.name,
            "system": scale.system,
            "fingerprint": scale.fingerprint,
            "conditions": {name: phase_facts(scale.phases(name)) for name in scale.conditions},
            "level": 0.95,
            "summary": json.dumps(summary),
        },
    )
    return described(found)


def _exemplars() -> Iterator[tuple[str, bool]]:
    """Return the kinds of exemplars, and whether they decide: the paper's measure does."""
    yield "same", True
    yield "held-out", False


def _row(
    claim: str,
    part: str,
    pair: str,
    kind: str,
    direction: Direction,
    threshold: float,
    found: SeedValues,
    *,
    counts: bool = True,
    case: str = "",
) -> Row:
    return Row(
        claim, part, pair, kind, threshold, direction, found.values, counts, case, note=found.note
    )


def _vanilla(scale: Scale, table: SeedTable) -> Iterator[Row]:
    for phase in scale.learning:
        for kind, counts in _exemplars():
            found = table.index("vanilla", kind, phase.name)
            yield _row(
                "C1", "II_far, vanilla", phase.objects, kind, "<", 0.10, found, counts=counts
            )


ONE_NETWORK = (
    "of one pretrained network: the interval is over what is learnt after it, not over networks"
)


def _imagenet(scale: Scale, table: SeedTable) -> Iterator[Row]:
    for phase in scale.learning if table.has("imagenet") else scale.learning[:1]:
        for kind, counts in _exemplars():
            found = table.index("imagenet", kind, phase.name)
            pair, part = f"ImageNet → {phase.objects}", "II_far, ImageNet weights"
            row = _row("C2", part, pair, kind, ">", 0.80, found, counts=counts)
            note = join_notes(row.note, ONE_NETWORK if found.values else "")
            yield replace(row, system="vgg16 at 224 px", note=note)


def _heads(scale: Scale, table: SeedTable) -> Iterator[Row]:
    """Compare ImageNet weights with random ones, below three heads that are trained alike.

    Where layers are pooled, or ImageNet's own scores kept, elsewhere is a matter of the layers
    below. A head on the map as it is has weights of its own for each place: it can know an object
    at a place only where it learnt it. It is there to be told apart, and decides nothing.
    """
    heads = {"own": "own head", "logits": "head on kept scores", "flatten": "head on the map"}
    asked = [(kind, said, phase) for kind, said in heads.items() for phase in scale.learning]
    if table.has(ALL_WEIGHTS[0]):
        asked += [("all", "all weights", phase) for phase in scale.phases(ALL_WEIGHTS[0])]
    limits = scale.thresholds
    contrasts: tuple[tuple[str, Direction, float], ...] = (
        ("pretrained", ">", limits["pretrained"]),
        ("pretrained - random", ">", limits["difference"]),
        ("random", "<", limits["random"]),
    )
    for head, said, phase in asked:
        for kind, primary in _exemplars():
            known, blank = (
                table.index(f"{start}-{head}", kind, phase.name) for start in (PRETRAINED, RANDOM)
            )
            values = (known, known - blank, blank)
            for (name, direction, threshold), found in zip(contrasts, values, strict=True):
                part = f"II_far, {name}, {said}"
                pair = f"ImageNet → {phase.objects}"
                counts = primary and head in ("own", "logits") and name != "random"
                row = _row("C2", part, pair, kind, direction, threshold, found, counts=counts)
                note = join_notes(row.note, ONE_NETWORK if found.values else "")
                yield replace(row, note=note)


def _acquired(scale: Scale, table: SeedTable) -> Iterator[Row]:
    for number, pretraining in enumerate(scale.pretraining, start=1):
        run = "acquired" if number == 1 else f"acquired-{number}"
        for phase in scale.learning:
            pair = f"{pretraining.objects} → {phase.objects}"
            across = pretraining.objects != phase.objects
            for kind, primary in _exemplars():
                found = table.index(run, kind, phase.name)
                rise = found - table.index("vanilla", kind, phase.name)
                counts = primary and across
                for part, each in (
                    ("II_far, acquired", found),
                    ("II_far, acquired - vanilla", rise),
                ):
                    yield _row("C3", part, pair, kind, ">", 0.50, each, counts=counts, case=pair)
                if primary:
                    yield _row("C3", "near-complete", pair, kind, ">", 0.80, found, counts=False)


def _fixed(scale: Scale, table: SeedTable) -> Iterator[Row]:
    """Compare training everywhere with training that ties each class to a place.

    Classes share places, so that the task cannot be solved by place alone; and it must have been
    learnt. Beside it, each class in a cell of its own, where place alone is enough.
    """
    for phase in scale.learning:
        pair = f"{scale.pretraining[0].objects} → {phase.objects}"
        for kind, counts in _exemplars():
            full = table.index("acquired", kind, phase.name)
            fixed = table.index("fixed-learning", kind, phase.name)
            equal_full, equal_fixed = table.equal(kind, phase.name)
            for how, ours, theirs, learnt in (
                ("same steps", full, fixed, table.beyond_place(FIXED)),
                ("same accuracy", equal_full, equal_fixed, table.beyond_place(FIXED, equal=True)),
            ):
                reason = "the fixed pretraining taught little beyond the place in a seed"
                tied = theirs.only_where(learnt, reason)
                part = f"II_far, fixed, {how}"
                yield _row("C4", part, pair, kind, "<", 0.10, tied, counts=counts)
                part = f"II_far, full - fixed, {how}"
                yield _row("C4", part, pair, kind, ">", 0.50, ours - tied, counts=counts)
            cell = table.index("fixed-cell-learning", kind, phase.name)
            part = "II_far, each class in a cell of its own"
            yield _row("C4", part, pair, kind, "<", 0.10, cell, counts=False)
            part = "II_far, full - in a cell of its own"
            yield _row("C4", part, pair, kind, ">", 0.50, full - cell, counts=False)


def _inside(scale: Scale, table: SeedTable) -> Iterator[Row]:
    """Compare layers: the deepest convolution, the last pooling, the last hidden layer.

    At displacements of whole cells a convolution is equivariant by construction: that is a check
    of the measure and decides nothing. The claim is asked at all phases of the stride, off the
    border.
    """
    learnt = scale.compared
    seen = next(phase.objects for phase in scale.learning if phase.name == learnt)
    for phase in scale.unseen:
        name, pair = phase.name, f"{seen}; unseen {phase.name}"
        for shift, where, counts in (
            ("nearest", "inner", True),
            ("linear", "inner", True),
            ("nearest", "border", False),
            ("exact", "inner", False),
        ):
            for run in ("vanilla", "acquired"):
                found = table.compared(run, f"equivariance/{shift}/{where}/{name}", learnt)
                part = f"a: aligned G - G, {_PLACES[shift, where]}, {run}"
                yield _row("C5", part, pair, "", ">", 0.2, found, counts=counts)
        hidden = [
            table.compared(run, f"G/hidden/{name}", learnt, "hidden")
            for run in ("vanilla", "acquired")
        ]
        pooling = table.compared("acquired", f"G/pooling/{name}", learnt, "pooling")
        rise, step = hidden[1] - hidden[0], hidden[1] - pooling
        yield _row("C5", "b: G hidden, acquired - vanilla", pair, "", ">", 0.3, rise)
        yield _row("C5", "c: G hidden - G pooling", pair, "", ">", 0.2, step)


_PLACES = {
    ("nearest", "inner"): "deepest convolution, nearest cell",
    ("linear", "inner"): "deepest convolution, between cells",
    ("nearest", "border"): "at the border, nearest cell",
    ("exact", "inner"): "whole cells only",
}


def _interference(scale: Scale, table: SeedTable) -> Iterator[Row]:
    """Compare the end with the first checkpoint at which the new objects are learnt.

    What further training anywhere costs is not interference at one location: each loss must
    exceed the threshold itself, and by as much that of the control, which is trained on the same
    images everywhere. Neither may forget the new objects at the location. The control may gain.
    """
    pair = f"{scale.pretraining[0].objects} → {scale.phases('interference')[0].objects}"
    for kind, counts in _exemplars():
        for name, what in (("II_far", "II_far"), ("old_index", "the index of old objects")):
            lost = table.get("interference", f"{name}/{kind}/fall")
            control = table.get("translated", f"{name}/{kind}/fall")
            part = f"fall of {what}"
            yield _row("C6", part, pair, kind, ">", 0.2, lost, counts=counts)
            part = f"fall of {what}, less the control's"
            yield _row("C6", part, pair, kind, ">", 0.2, lost - control, counts=counts)
        for run, label in (("interference", ""), ("translated", ", translated control")):
            on = table.get(run, f"N_trained/{kind}/fall")
            part = f"fall of N on the location{label}"
            yield _row("C6", part, pair, kind, "<", 0.02, on, counts=counts)
        control = table.get("translated", f"II_far/{kind}/fall")
        part = "fall of II_far, translated control"
        yield _row("C6", part, pair, kind, "<", 0.1, control, counts=counts)


def report_beside(scale: Scale, results: Results) -> dict[str, Any]:
    """Return what is reported without a threshold, as plain values over seeds.

    The near-domain control, what the environments give away, how like the sets are, the starts
    of the comparison at equal accuracy, and the confounds.
    """
    table = SeedTable(results)
    groups: dict[str, dict[str, Any]] = {}

    def add(group: str, run: str, names: Sequence[str]) -> None:
        for name in names:
            values = table.get(run, name).values
            if values:
                groups.setdefault(group, {})[f"{run}: {name}"] = _over_seeds(values)

    moments = ("before", "end", "fall")
    for run in ("near", "interference", "translated"):
        far = [f"II_far/{kind}/{moment}" for kind, _ in _exemplars() for moment in moments]
        olds = [f"old_index/same/{moment}" for moment in ("known", *moments)]
        group = "near-domain control" if run == "near" else "interference"
        add(group, run, [*far, *olds, "criterion_step"])
    for run in (FULL, FIXED, CELL):
        add("pretraining", run, ["train_accuracy", "probe_accuracy", "place_only_accuracy"])
    for run in ("vanilla", "acquired"):
        for phase in scale.unseen:
            add("lost or hidden", run, [f"identification/{part}/{phase.name}" for part in PARTS])
    for run in ("interference", "translated"):
        for moment in ("before", "end"):
            add("lost or hidden", run, [f"identification/{part}/{moment}" for part in PARTS])
    for run in (*HEADED, *ALL_WEIGHTS):
        named = {name for runs in results.values() for name in runs.get(run, ())}
        for group, start in (("layers", "G/"), ("lost or hidden", "identification/")):
            if scale.question == "imagenet":
                add(group, run, sorted(name for name in named if name.startswith(start)))
        add("steps to the criterion", run, sorted(n for n in named if n.startswith("steps/")))
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
    {FULL, FIXED, CELL, EQUAL, "vanilla", "acquired", "fixed-learning", "fixed-cell-learning"}
    | {"imagenet", "interference", "translated", "near", *HEADED, *ALL_WEIGHTS}
)


def _confounds(results: Results) -> list[str]:
    names = dict.fromkeys(run for runs in results.values() for run in runs)
    return [name for name in names if name not in _MAIN]


def _over_seeds(values: tuple[float, ...]) -> dict[str, Any]:
    low, high = interval_over_seeds(values)
    return {
        "value": finite(float(np.mean(values))) if values else None,
        "interval": [finite(float(low)), finite(float(high))],
        "values": [finite(value) for value in values],
    }


def _plain(row: Row) -> dict[str, Any]:
    names = ("claim", "system", "pair", "exemplars", "threshold", "direction", "verdict", "note")
    return {
        **{name: getattr(row, name) for name in names},
        "statistic": row.part,
        "decides": row.counts,
        "n_seeds": len(row.values),
        **_over_seeds(row.values),
    }
