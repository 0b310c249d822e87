"""Training at some locations and testing at all, for all layers of a source in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elsewhere.errors import InputError
from elsewhere.measures.vectors import dot_products
from elsewhere.probes.features import FeatureReading, Rows, ScoreSink, Units, gather
from elsewhere.probes.selection import Fit, FitTask, fit_all
from elsewhere.probes.span import STRETCH, Span, find_span, moments, raw_weights
from elsewhere.protocols import Layer, Progress, Source
from elsewhere.sources import restarting
from elsewhere.types import Location, format_bytes


@dataclass(frozen=True)
class FitPlan:
    """What is trained and tested.

    `places` are the locations of each training set, `objects` the indices of those trained on,
    `folds` int (trained object,). `labels` and `balance` (1 + shuffle, object) are the classes,
    then those of the control tasks, and what each object counts. `jobs` processes fit; for the
    others see :class:`elsewhere.probes.selection.FitTask`.
    """

    places: tuple[tuple[Location, ...], ...]
    objects: NDArray[np.int64]
    labels: NDArray[np.int64]
    balance: NDArray[np.float64]
    folds: NDArray[np.int64] | None
    kind: Any
    n_classes: int
    strengths: tuple[float, ...] | None = None
    jobs: int = 1
    linear: bool = True

    def samples(self, number: int) -> int:
        """Return the number of training samples of a training set."""
        return len(self.places[number]) * len(self.objects)

    def read_out(self, number: int) -> int:
        """Return at most how many rows of weights a training set's probes have."""
        rows = len(self.labels) * self.n_classes
        return rows if self.linear else max(rows, self.samples(number))

    def task(self, number: int, span: Span) -> FitTask:
        """Return the fit of a training set."""
        times = len(self.places[number])
        labels = np.tile(self.labels[:, self.objects], (1, times))
        folds = None if self.folds is None else np.tile(self.folds, times)
        return FitTask(span.coordinates, labels, folds, self.kind, self.n_classes, self.strengths)


@dataclass
class FitOutcome:
    """What the probes of one layer got right.

    `correct` (bool), `shuffled` and `choice` are (training set, object, position); `shuffled` is
    the share of control tasks whose label was got, times what the object counts in a mean that is
    balanced over that task's classes. `strengths`, `ranks` (dimensions of the span) and `scores`
    (by strength) are by training set. `reason` says why there is nothing; `left_out` are the
    objects that the layer does not respond to.
    """

    correct: NDArray[np.bool_]
    shuffled: NDArray[np.float32]
    choice: NDArray[np.int16]
    strengths: NDArray[np.float64]
    scores: list[NDArray[np.float64]]
    n_units: int
    ranks: NDArray[np.int64]
    reason: str = ""
    left_out: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(frozen=True)
class _Readout:
    """A fitted probe: where its rows of weights stand, and what is added to their products."""

    fit: Fit
    combination: NDArray[np.float64]
    rows: slice


@dataclass
class _Weights:
    """Weights of one layer for raw units, of all training sets of a pass.

    `values` are (row, unit), `centre` (unit,) the mean over the training sets of the units' means,
    `at_mean` (row,) the products of weights and means, which standardising takes off, and `share`
    is one over the number of training sets.
    """

    values: NDArray[np.float32]
    centre: NDArray[np.float64]
    at_mean: NDArray[np.float64]
    share: float


@restarting
def run(
    source: Source,
    readings: Mapping[str, FeatureReading],
    plan: FitPlan,
    *,
    max_memory: int,
    progress: Progress | None = None,
) -> dict[str, FitOutcome]:
    """Train and test the probes of all layers; return the outcome of each.

    `max_memory` bounds the bytes of activations, weights and what is made of them; `progress` is
    called with thousandths of layers.

    Raises
    ------
    InputError
        The memory does not suffice for a single layer and location.
    NumericsError
        NaN or infinite activations.
    """
    layers = {layer.name: layer for layer in source.layers if layer.name in readings}
    found: dict[str, FitOutcome] = {}
    for names in _packs(source, layers, readings, plan, max_memory):
        engine = _Engine(
            source,
            {name: readings[name] for name in names},
            {name: readings[name].units(layers[name]) for name in names},
            plan,
            max_memory,
            max(layers[name].itemsize for name in names),
        )
        done, share = len(found), len(names)

        def report(part: float, done: int = done, share: int = share) -> None:
            if progress is not None:
                progress(int(1000 * (done + part * share)), 1000 * len(layers))

        found |= engine.run(report)
        report(1.0)
    return found


def _packs(
    source: Source,
    layers: Mapping[str, Layer],
    readings: Mapping[str, FeatureReading],
    plan: FitPlan,
    max_memory: int,
) -> Iterator[list[str]]:
    """Yield the layers that are taken together: one from a file, as many as fit of a network."""
    if not source.together:
        yield from ([name] for name in layers)
        return
    pack: list[str] = []
    used = 0.0
    every = range(len(plan.places))
    rows = max(map(plan.samples, every)) + sum(map(plan.read_out, every))
    for name, layer in layers.items():
        need = float(layer.itemsize) * rows * readings[name].units(layer)
        if pack and used + need > max_memory / 2:
            yield pack
            pack, used = [], 0.0
        pack.append(name)
        used += need
    if pack:
        yield pack


class _Engine:
    """Probes of some layers that are taken together."""

    def __init__(
        self,
        source: Source,
        readings: Mapping[str, FeatureReading],
        units: dict[str, int],
        plan: FitPlan,
        max_memory: int,
        itemsize: int = 4,
    ) -> None:
        self.source, self.readings, self.units, self.plan = source, readings, units, plan
        self.max_memory = max_memory
        every = range(len(plan.places))
        samples = max(map(plan.samples, every))
        self.fixed = max(
            source.working_bytes(each) for each in source.layers if each.name in readings
        )
        self.fixed += 8 * (4 * samples**2 + 4 * samples * STRETCH)
        self.room = max_memory - self.fixed
        self.total, self.single = sum(units.values()), len(units) == 1
        self.sample_bytes = itemsize * samples + 32
        # one half for training samples, one for weights: both are there when weights are made
        self.step = self._fitting(self.sample_bytes)
        self.width = self._fitting(4 * min(map(plan.read_out, every)) + 32)
        self.groups = self._divide(min(self.width, self.total))

    def _fitting(self, bytes_per_unit: int) -> int:
        """Return how many units fit half of the memory: all, or a stretch or more of one layer."""
        fits = max(self.room, 0) // (2 * bytes_per_unit)
        if fits >= self.total:
            return self.total
        least = min(STRETCH, self.total) if self.single else self.total
        if fits < least:
            needed = self.fixed + 2 * least * bytes_per_unit
            raise InputError(
                f"probes of {', '.join(self.readings)} need at least {format_bytes(needed)} of "
                f"memory, more than --max-memory {format_bytes(self.max_memory)}; raise it, or "
                "leave layers out"
            )
        return fits

    def _divide(self, units: int) -> list[list[int]]:
        """Return the training sets in groups whose weights fit half of the memory."""
        groups: list[list[int]] = []
        used = 0.0
        for number in range(len(self.plan.places)):
            each = 4 * self.plan.read_out(number) * units
            if not groups or used + each > self.room / 2:
                groups.append([])
                used = 32.0 * units
            groups[-1].append(number)
            used += each
        return groups

    def run(self, report: Callable[[float], None]) -> dict[str, FitOutcome]:
        """Return the outcome of each layer."""
        design, n_sets = self.source.design, len(self.plan.places)
        shape = (n_sets, len(design.objects), design.n_positions)
        self.outcomes = {
            name: FitOutcome(
                correct=np.zeros(shape, bool),
                shuffled=np.zeros(shape, np.float32),
                choice=np.full(shape, -1, np.int16),
                strengths=np.full(n_sets, np.nan),
                scores=[np.empty(0)] * n_sets,
                n_units=self.units[name],
                ranks=np.zeros(n_sets, np.int64),
            )
            for name in self.readings
        }
        done = 0
        for group in self.groups:
            begin, share = done / n_sets, len(group) / n_sets

            def trained(part: float, begin: float = begin, share: float = share) -> None:
                report(begin + share * 0.5 * part)

            def scored(now: int, of: int, begin: float = begin, share: float = share) -> None:
                report(begin + share * (0.5 + 0.5 * now / max(of, 1)))

            self._run_group(group, trained, scored)
            done += len(group)
        return self.outcomes

    def _run_group(
        self, group: list[int], trained: Callable[[float], None], progress: Progress
    ) -> None:
        starts = np.cumsum([0, *(self.plan.read_out(number) for number in group)])
        firsts = dict(zip(group, starts.tolist(), strict=False))
        readouts: dict[str, dict[int, _Readout]] = {name: {} for name in self.readings}
        weights: dict[str, _Weights] = {}
        whole = self.width >= self.total
        if whole:
            weights = self._blank(int(starts[-1]), len(group), None)
        for batch in self._batches(group):
            held = self._train(batch, firsts, readouts)
            if whole:
                for number in batch:
                    self._add_weights(weights, number, readouts, None, held.pop(number, None))
            trained((group.index(batch[-1]) + 1) / len(group))
        if not any(readouts.values()):
            return
        if whole:
            self._score(weights, readouts, None, None, progress)
            return
        (name,) = self.readings
        design = self.source.design
        partial = np.zeros((len(design.objects), design.n_positions, int(starts[-1])))
        pieces = list(_ranges(0, self.total, self.width))
        for place, units in enumerate(pieces):
            weights = self._blank(int(starts[-1]), len(group), units)
            for number in readouts[name]:
                self._add_weights(weights, number, readouts, units, None)

            def part(now: int, of: int, place: int = place) -> None:
                progress(place * of + now, of * len(pieces))

            self._score(weights, readouts, units, partial, part)
        for position in range(design.n_positions):
            objects = np.arange(len(design.objects))
            places = np.full(len(objects), position)
            self._decide(name, readouts[name], partial[:, position], objects, places)

    def _batches(self, group: list[int]) -> Iterator[list[int]]:
        """Yield training sets whose samples are held at the same time, for parallel fits."""
        size = 1
        if self.plan.jobs > 1 and self.step >= self.total:
            size = max(1, int(self.room / 2 / (self.sample_bytes * self.total)))
        for start in range(0, len(group), size):
            yield group[start : start + size]

    def _gather(self, number: int, units: Units | None) -> dict[str, Rows]:
        return gather(
            self.source,
            self.readings,
            self.plan.objects,
            self.plan.places[number],
            max_memory=self.max_memory,
            units=units,
        )

    def _slices(self, number: int, units: Units) -> Iterator[tuple[Units, Rows]]:
        """Yield the training samples of the only layer in as many units as fit."""
        (name,) = self.readings
        for piece in _ranges(*units, self.step):
            yield piece, self._gather(number, piece)[name]

    def _train(
        self,
        batch: list[int],
        firsts: Mapping[int, int],
        readouts: dict[str, dict[int, _Readout]],
    ) -> dict[int, dict[str, Rows]]:
        """Fit the probes of some training sets; return their samples where they are held."""
        held: dict[int, dict[str, Rows]] = {}
        spans: dict[tuple[str, int], Span] = {}
        for number in batch:
            if self.step >= self.total:
                held[number] = self._gather(number, None)
            for name, units in self.units.items():

                def slices(name: str = name, n: int = number, units: int = units) -> Iterator[Rows]:
                    if n in held:
                        yield held[n][name]
                    else:
                        yield from (rows for _, rows in self._slices(n, (0, units)))

                spans[name, number] = find_span(slices, self.plan.samples(number))
        ready = [key for key, span in spans.items() if span.rank > 0]
        tasks = [self.plan.task(number, spans[name, number]) for name, number in ready]
        for (name, number), fit in zip(ready, fit_all(tasks, jobs=self.plan.jobs), strict=True):
            combination = fit.rows(spans[name, number])
            first = firsts[number]
            rows = slice(first, first + combination.shape[1])
            readouts[name][number] = _Readout(fit, combination, rows)
        for (name, number), span in spans.items():
            outcome = self.outcomes[name]
            outcome.ranks[number] = span.rank
            if number in readouts[name]:
                fit = readouts[name][number].fit
                outcome.strengths[number], outcome.scores[number] = fit.strength, fit.scores
            else:
                where = ",".join(map(str, self.plan.places[number][0]))
                outcome.reason = (
                    f"all its {self.units[name]} units are the same for all objects at {where}, "
                    "where the probe is trained"
                )
        return held

    def _blank(self, n_rows: int, n_sets: int, units: Units | None) -> dict[str, _Weights]:
        """Return weights of zero, of some units of the only layer or of all units."""
        sizes = self.units if units is None else dict.fromkeys(self.units, units[1] - units[0])
        return {
            name: _Weights(
                np.zeros((n_rows, size), np.float32), np.zeros(size), np.zeros(n_rows), 1 / n_sets
            )
            for name, size in sizes.items()
        }

    def _add_weights(
        self,
        weights: dict[str, _Weights],
        number: int,
        readouts: dict[str, dict[int, _Readout]],
        units: Units | None,
        held: dict[str, Rows] | None,
    ) -> None:
        """Fill in the weights of a training set, from its samples held or read again."""
        for name, into in weights.items():
            if number not in readouts[name]:
                continue
            readout = readouts[name][number]
            first, last = (0, self.units[name]) if units is None else units
            if held is not None:
                pieces: Any = [((first, last), held[name])]
            else:
                pieces = self._slices(number, (first, last))
            for (start, stop), rows in pieces:
                here = slice(start - first, stop - first)
                found = moments(rows)
                into.at_mean[readout.rows] += raw_weights(
                    rows, readout.combination, found, into.values[readout.rows, here]
                )
                into.centre[here] += found[0] * into.share

    def _score(
        self,
        weights: dict[str, _Weights],
        readouts: dict[str, dict[int, _Readout]],
        units: Units | None,
        partial: NDArray[np.float64] | None,
        progress: Progress,
    ) -> None:
        """Go over the grid; decide, or add up what the units so far give."""
        centres = {name: each.centre.astype(np.float32) for name, each in weights.items()}
        offsets = {
            name: dot_products(each.values, centres[name][None])[:, 0] - each.at_mean
            for name, each in weights.items()
        }

        def take(
            name: str,
            scores: NDArray[np.float64],
            objects: NDArray[np.int64],
            positions: NDArray[np.int64],
        ) -> None:
            scores += offsets[name]
            if partial is None:
                self._decide(name, readouts[name], scores, objects, positions)
            else:
                partial[objects, positions] += scores

        used = {name: weights[name].values for name, found in readouts.items() if found}
        sink = ScoreSink(self.readings, used, centres, take, units=units)
        self.source.stream([sink], max_memory=self.max_memory, progress=progress)

    def _decide(
        self,
        name: str,
        readouts: dict[int, _Readout],
        scores: NDArray[np.float64],
        objects: NDArray[np.int64],
        positions: NDArray[np.int64],
    ) -> None:
        """Note what the probes of all training sets choose."""
        outcome, labels = self.outcomes[name], self.plan.labels
        for number, readout in readouts.items():
            own = scores[:, readout.rows] + readout.fit.intercepts
            choice = readout.fit.choose(own)
            right = choice == labels[:, objects]
            outcome.choice[number, objects, positions] = choice[0]
            outcome.correct[number, objects, positions] = right[0]
            if len(right) > 1:
                balanced = (right * self.plan.balance[:, objects])[1:].mean(axis=0)
                outcome.shuffled[number, objects, positions] = balanced


def _ranges(first: int, last: int, step: int) -> Iterator[Units]:
    for start in range(first, last, step):
        yield start, min(start + step, last)
