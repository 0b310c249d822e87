"""Values over seeds, undefined where a network could pass for another reason.

Each statistic of a claim is asked of networks that have learnt what they were trained on, with
layers that live and with pretraining that taught more than places: no network that answers always
the same, knows places only, was never trained or is dead may make a claim hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from elsewhere.measures.accuracy import FAR_GATE, INDEX_GATE
from elsewhere.measures.similarity import DEAD_SHARE
from elsewhere.reproduction.conditions import EQUAL, FULL
from elsewhere.reproduction.measurements import Values

Results = Mapping[int, Mapping[str, Values]]
"""Seed to run to what came out of it."""


@dataclass(frozen=True)
class SeedValues:
    """A value for each seed, none where it was not run, and why a seed has none."""

    values: tuple[float, ...] = ()
    note: str = ""

    def __sub__(self, other: SeedValues) -> SeedValues:
        if not (self.values and other.values):
            return SeedValues()
        values = tuple(a - b for a, b in zip(self.values, other.values, strict=True))
        return SeedValues(values, join_notes(self.note, other.note))

    def only_where(self, known: SeedValues, reason: str) -> SeedValues:
        """Return the same, undefined for seeds of which `known` is below 0 or undefined."""
        if not self.values:
            return self
        fits = [value >= 0 for value in known.values] or [False] * len(self.values)
        values = tuple(
            value if fit else math.nan for value, fit in zip(self.values, fits, strict=True)
        )
        return SeedValues(values, self.note if all(fits) else join_notes(self.note, reason))


def join_notes(*notes: str) -> str:
    """Return what is said, each thing once."""
    said = (part for note in notes for part in note.split("; ") if part)
    return "; ".join(dict.fromkeys(said))


class SeedTable:
    """Values over seeds, by run and name.

    Parameters
    ----------
    results
        What came out of each run of each seed.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self.seeds = sorted(results)

    def has(self, run: str) -> bool:
        """Return whether every seed has the run."""
        return bool(self.seeds) and all(run in self.results[seed] for seed in self.seeds)

    def get(self, run: str, name: str) -> SeedValues:
        """Return a value for each seed; none where the run was not done."""
        if not self.has(run):
            return SeedValues()
        values = tuple(float(self.results[seed][run].get(name, math.nan)) for seed in self.seeds)
        unknown = not all(map(math.isfinite, values))
        note = f"{run}: {name.rpartition('/')[0]} is undefined in a seed" if unknown else ""
        each = [self.results[seed][run] for seed in self.seeds]
        reasons = {str(found.get(f"why/{name}", found.get("refused", ""))) for found in each}
        return SeedValues(values, join_notes(*sorted(reasons)) or note)

    def margin(self, run: str, name: str, gate: float, *, below: bool = False) -> SeedValues:
        """Return by how much a value passes a gate; below 0 where it does not."""
        values = self.get(run, name).values
        return SeedValues(tuple((gate - value) if below else (value - gate) for value in values))

    def index(self, run: str, kind: str, phase: str) -> SeedValues:
        """Return ``II_far``; undefined where the objects were not learnt at the location."""
        name = f"{kind}/{phase}"
        found = self.get(run, f"II_far/{name}")
        reason = f"{run}: N at the trained location is below {FAR_GATE} in a seed"
        return found.only_where(self.margin(run, f"N_on/{name}", FAR_GATE), reason)

    def compared(self, run: str, name: str, phase: str, *layers: str) -> SeedValues:
        """Return a comparison of layers: of a network that has learnt, with layers that live.

        A layer of which more than 5 % of the vectors are zero has similarities of 0 that mean
        nothing; G is a ratio that is undefined where all objects look alike.
        """
        found = self.get(run, name).only_where(
            self.margin(run, f"N_on/same/{phase}", FAR_GATE),
            f"{run}: N at the trained location is below {FAR_GATE} in a seed",
        )
        unseen = name.rsplit("/", 1)[-1]
        for layer in layers if any(map(math.isfinite, found.values)) else ():
            share = f"zero_share/{layer}/{unseen}"
            found = found.only_where(
                self.margin(run, share, DEAD_SHARE, below=True),
                f"{run}: more than {DEAD_SHARE:.0%} of the vectors of the {layer} layer are zero",
            )
        return found

    def beyond_place(self, run: str, *, equal: bool = False) -> SeedValues:
        """Return by how much a pretraining taught more than where things stand.

        Its accuracy, from that of the best classifier that sees the place only (0) to 1, less
        0.5; undefined where the place says it all.
        """
        places = self.get(run, "place_only_accuracy").values
        known = list(self.get(run, "train_accuracy").values)
        if equal:  # the better of the two runs was taken where it was as good as the other one
            for number, seed in enumerate(self.seeds if self.has(EQUAL) else ()):
                if self.results[seed][EQUAL]["reduced"] == run:
                    value = self.results[seed][EQUAL].get("start_train_accuracy", math.nan)
                    known[number] = float(value)
        shares = (
            (value - place) / (1 - place) if place < 1 else math.nan
            for value, place in zip(known, places, strict=True)
        )
        return SeedValues(tuple(share - INDEX_GATE for share in shares))

    def equal(self, kind: str, phase: str) -> tuple[SeedValues, SeedValues]:
        """Return indices of ``full`` and of ``fixed`` at the same pretraining accuracy."""
        if not self.has(EQUAL):
            return SeedValues(), SeedValues()
        found = [self.index(run, kind, phase) for run in ("acquired", "fixed-learning")]
        full, fixed = (list(each.values) for each in found)
        other = self.index(EQUAL, kind, phase)
        for place, (seed, value) in enumerate(zip(self.seeds, other.values, strict=True)):
            reduced = self.results[seed][EQUAL]["reduced"]
            (full if reduced == FULL else fixed)[place] = value
        return (
            SeedValues(tuple(full), join_notes(found[0].note, other.note)),
            SeedValues(tuple(fixed), join_notes(found[1].note, other.note)),
        )
