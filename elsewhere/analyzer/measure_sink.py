"""A sink that holds a stretch of a layer's units, for all objects at all locations.

Where a layer does not fit the memory, it is swept several times, a stretch of its units each time.
What needs whole vectors first (their mean, their lengths) takes sweeps of its own then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from elsewhere.errors import LayerError
from elsewhere.measures.blocks import check_finite, rows_needed, rows_of
from elsewhere.measures.catalogue import measures
from elsewhere.measures.landing import Landing, Rows
from elsewhere.measures.similarity import zero_vectors
from elsewhere.measures.sinks import LayerSink
from elsewhere.measures.tables import Against, Reading, Table, Variables
from elsewhere.measures.unit_chunks import (
    BY_PLACE,
    WORKING_BYTES,
    Lengths,
    Stretch,
    Values,
    add_all,
)
from elsewhere.measures.vectors import to_numpy
from elsewhere.protocols import Array, Block, Design, Layer, Need, Stage


@dataclass
class _State:
    """What is known of a layer while it streams by."""

    table: Table
    readings: dict[str, Reading]
    lengths: dict[str, Lengths] = field(default_factory=dict)
    empty: Values | None = None
    mean: NDArray[np.float64] | None = None
    values: Values | None = None
    half: bool = False


class MeasureSink(LayerSink):
    """Takes measures of units of every layer, by their names in ``elsewhere.measures.measures``.

    `seed` is that of choices, such as of the rows from which position is decoded; pairs of ``all``
    locations are compared, or each with the ``reference``.
    """

    most_parts = 4_096
    """Sweeps into which a layer may be cut."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        layers: Sequence[str] | None = None,
        seed: int = 0,
        against: Against = "all",
    ) -> None:
        super().__init__(layers)
        self.names, self._seed, self._against = list(names), seed, against
        self._states: dict[str, _State] = {}
        self._tables: dict[tuple[str, Design], Table] = {}
        self._landing = Landing()

    # --- a sink -----------------------------------------------------------------------------

    def needed(self, layer: Layer) -> tuple[Need, ...]:
        """Return the activations over the grid, as they are kept."""
        names = self._names_for(layer)
        if not names:
            return ()
        refused = [name for name in names if not measures.get(name).sketches]
        if layer.keep.kind == "sketch" and refused:
            raise LayerError(
                f"layer {layer.name!r} was kept as a sketch, from which {refused[0]!r} cannot be "
                f"had; record it with --keep {layer.name}=full, or leave the layer or measure out"
            )
        stages: set[Stage] = {"grid"}
        if any(measures.get(name).empty for name in self.names):
            stages.add("empty")
        return (rows_needed(layer, stages),)

    def _names_for(self, layer: Layer) -> list[str]:
        vector = len(layer.shape) == 1
        return [name for name in self.names if vector or not measures.get(name).vectors]

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        """Return a stretch of units of all objects at all locations, and the measures' sums."""
        table = self._table(layer, design)
        rows = table.n_objects * table.n_positions
        metrics = self._metrics(table)
        if (
            BY_PLACE in metrics
        ):  # the means over objects at all places fit beside whole vectors only
            parts = 1
        stretches = max(1, parts - self._prepasses(table, parts))
        sums = sum(measures.get(name).memory(table) for name in self._names_for(layer))
        sums += 16.0 * rows * len(metrics) + WORKING_BYTES
        return rows / stretches + 4 + sums / (4 * table.n_units)

    def _readings(self, layer: Layer, table: Table) -> dict[str, Reading]:
        found = {name: measures.get(name).reading for name in self._names_for(layer)}
        return {name: make(table) for name, make in found.items() if make is not None}

    def _metrics(self, table: Table) -> list[str]:
        """Return what is removed from vectors whose lengths are needed before their products."""
        return sorted({measures.get(name).lengths_in(table) for name in self.names} - {""})

    def _prepasses(self, table: Table, parts: int) -> int:
        """Return the sweeps that go before those that hold stretches."""
        if parts == 1:
            return 0
        metrics = self._metrics(table)
        return int("centred" in metrics) + int(bool(metrics))

    def _table(self, layer: Layer, design: Design) -> Table:
        key = (layer.name, design)
        if key not in self._tables:
            self._tables[key] = Table(
                codes=design.category_codes,
                places=design.locations,
                reference=design.reference_index,
                n_units=layer.n_units,
                vector=len(layer.shape) == 1,
                seed=self._seed,
                against=self._against,
            )
        return self._tables[key]

    def begin(self, design: Design, layers: Sequence[Layer], part: int = 0, parts: int = 1) -> None:
        """Prepare for a sweep over layers."""
        super().begin(design, layers, part, parts)
        for layer in layers:
            if part > 0:
                continue
            table = self._table(layer, design)
            state = _State(table, self._readings(layer, table))
            if parts > 1:
                n, n_positions = table.n_objects, table.n_positions
                state.lengths = {m: Lengths.empty(n, n_positions) for m in self._metrics(table)}
            self._states[layer.name] = state

    def add(self, block: Block) -> None:
        """Take a block."""
        state = self._states[block.layer]
        rows = rows_of(block)
        if block.stage == "empty":
            if self._part == 0:
                state.empty = np.array(to_numpy(rows)[0])
            return
        if self._part < self._prepasses(state.table, self._parts):
            whole = to_numpy(rows)
            if "centred" in state.lengths and self._part == 0:
                check_finite(self.design, block, whole)
                n = len(self.design.objects)
                if state.mean is None:
                    state.mean = np.zeros(whole.shape[1])
                state.mean += whole.sum(axis=0, dtype=np.float64) / (n * self.design.n_positions)
                return
            for metric, lengths in state.lengths.items():
                check_finite(self.design, block, whole)
                origin = {"centred": state.mean, "evoked": state.empty}.get(metric)
                lengths.fill(block.objects, block.positions, whole, metric, origin)
            return
        state.half |= block.half
        self._landing.bring(Rows.of(block), rows[:, self._units(state)], self._keep)

    def _keep(self, block: Rows, values: Array) -> None:
        state, part = self._states[block.layer], to_numpy(values)
        check_finite(self.design, block, part)
        if state.values is None:
            n, n_positions = state.table.n_objects, state.table.n_positions
            dtype = np.float64 if part.dtype == np.float64 else np.float32
            state.values = np.empty((n, n_positions, part.shape[1]), dtype)
        state.values[block.objects, block.positions] = part

    def end(self) -> None:
        """Sum over a stretch; read the measures once the last one is through."""
        self._landing.drain()
        for name in list(self._states):
            state = self._states[name]
            if state.values is not None:
                chosen = self._units(state)
                stretch = Stretch(
                    state.values,
                    state.table.codes,
                    first=chosen.start,
                    empty=None if state.empty is None else state.empty[chosen],
                    lengths=state.lengths,
                    half=state.half,
                )
                if state.mean is not None:
                    stretch.origins["centred"] = state.mean[chosen]
                for metric in self._metrics(state.table):
                    stretch.lengths_of(metric)
                add_all(stretch, *(reading.tally for reading in state.readings.values()))
                del stretch
                state.values = None
            if self._part == self._parts - 1:
                self._read(name, self._states.pop(name))

    # --- what it consists of ----------------------------------------------------------------

    def _units(self, state: _State) -> slice:
        """Return the units that this sweep holds."""
        ahead = self._prepasses(state.table, self._parts)
        size = math.ceil(state.table.n_units / (self._parts - ahead))
        start = min((self._part - ahead) * size, state.table.n_units)
        return slice(start, min(start + size, state.table.n_units))

    def _read(self, layer: str, state: _State) -> None:
        """Turn a layer's sums into variables and notes."""
        found: Variables = {}
        for name, reading in state.readings.items():
            variables = reading.read()
            found |= variables
            self.notes += [f"{name}: layer {layer}: {doubt}" for doubt in reading.doubts()]
            entry = measures.get(name)
            self.made_by |= dict.fromkeys(variables, name)
            if entry.headline in variables and np.isnan(variables[entry.headline][1]).all():
                reason = entry.undefined_because(state.table)
                self.notes.append(f"{name}: layer {layer}: NaN, for {reason}")
            for remark in entry.remarks(state.table):
                if remark not in self.notes:
                    self.notes.append(remark)
        for metric, lengths in state.lengths.items():
            share = lengths.zero_share
            key = f"{metric.replace('-', '_')}_zero_share"
            found[key] = ((), np.asarray(share))
            owners = [name for name in self.names if measures.get(name).metric == metric]
            self.made_by[key] = [*owners, self.names[0]][0]
            if told := zero_vectors(metric, share, float(lengths.dead.mean())):
                self.notes.append(f"{metric}: layer {layer}: {told}")
        self.variables[layer] = found
