"""Centred codes for the similarity with one reference, while a layer's units stream by.

What is removed depends on all objects, and is another mean when one of them is left out. So a
stretch of units of all objects at all locations is held, as for the other measures, and only
products between objects are kept of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from elsewhere.measures.blocks import check_finite, rows_needed, rows_of
from elsewhere.measures.centring import CentredCosines, CentredTally
from elsewhere.measures.unit_chunks import Floats, Values
from elsewhere.measures.vectors import to_numpy
from elsewhere.protocols import Block, Design, Layer, Need

PIECE = 2**18
"""Numbers that are taken in double precision at a time, about."""


@dataclass
class _State:
    n_units: int
    places: slice = field(default_factory=lambda: slice(0))
    units: slice = field(default_factory=lambda: slice(0))
    through: bool = False
    means: Floats | None = None
    values: Values | None = None
    tally: CentredTally | None = None
    found: list[CentredCosines] = field(default_factory=list)


class CentredRows:
    """Takes the part of a sink for the metrics that remove a mean over objects.

    Where a layer does not fit the memory it is swept several times: a few locations at a time,
    whose products are kept, and for each of these a stretch of units at a time.
    """

    most_parts = 4_096
    """Sweeps into which a layer may be cut."""

    def __init__(self, metric: str) -> None:
        self._metric = metric
        self._states: dict[str, _State] = {}

    @staticmethod
    def needs(layer: Layer) -> tuple[Need, ...]:
        """Return whole rows, at the reference and over the grid."""
        return (rows_needed(layer, ("reference", "grid")),)

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        """Return a stretch of units of all objects, and the sums of products."""
        n, n_units = len(design.objects), layer.n_units
        places, stretches = self._cut(layer, design, parts)
        n_locations = math.ceil(design.n_positions / places) + 1
        rows = n * (n_locations + 2) / stretches  # the means are in double precision
        working = min(6 * rows, 6 * PIECE / n_units)
        return rows + working + self._sums(n, n_locations) / (4 * n_units) + 1

    def _sums(self, n: int, n_locations: int) -> float:
        return CentredTally.bytes_of(self._metric, n, n_locations, 1)

    def _cut(self, layer: Layer, design: Design, parts: int) -> tuple[int, int]:
        """Return into how many groups of locations, and stretches of units, a layer is cut."""
        n, n_positions = len(design.objects), design.n_positions
        rows = 4.0 * n * (n_positions + 1) * layer.n_units
        wanted = math.sqrt(parts * self._sums(n, n_positions) / rows)
        most = min(n_positions, max(1, int(wanted)))
        places = max(size for size in range(1, most + 1) if parts % size == 0)
        return places, parts // places

    def begin(self, design: Design, layers: Sequence[Layer], part: int, parts: int) -> None:
        """Prepare for a sweep over layers, of which part i of n takes a share."""
        self._design, self._last = design, part == parts - 1
        for layer in layers:
            if part == 0:
                self._states[layer.name] = _State(layer.n_units)
            state = self._states[layer.name]
            places, stretches = self._cut(layer, design, parts)
            size, wide = (
                math.ceil(whole / cuts)
                for whole, cuts in ((design.n_positions, places), (state.n_units, stretches))
            )
            first, start = part // stretches * size, part % stretches * wide
            state.places = slice(first, min(first + size, design.n_positions))
            state.units = slice(start, start + wide)
            state.through = part % stretches == stretches - 1

    def add(self, block: Block) -> None:
        """Take a block."""
        state, design = self._states[block.layer], self._design
        n, n_places = len(design.objects), state.places.stop - state.places.start
        if n_places < 1:
            return
        part = to_numpy(rows_of(block)[:, state.units])
        check_finite(design, block, part)
        if state.values is None or state.means is None:
            dtype = np.float64 if part.dtype == np.float64 else np.float32
            state.values = np.empty((n, n_places + 1, part.shape[1]), dtype)
            state.means = np.zeros((n, part.shape[1]))
        if block.stage == "reference":
            state.values[block.objects, -1] = part
            return
        if self._metric == "centred":
            for number in np.unique(block.objects):
                rows = part[block.objects == number]
                state.means[number] += rows.sum(axis=0, dtype=np.float64) / design.n_positions
        places = block.positions - state.places.start
        chosen = (places >= 0) & (places < n_places)
        state.values[block.objects[chosen], places[chosen]] = part[chosen]

    def end(self) -> Iterator[tuple[str, CentredCosines]]:
        """Sum over a stretch; yield the layers and their cosines once the last one is through."""
        for name in list(self._states):
            state = self._states[name]
            if state.values is not None and state.means is not None:
                self._sum(state, state.values, state.means)
            if state.through and state.tally is not None:
                everything = np.ones(len(self._design.objects), dtype=bool)
                state.found.append(state.tally.value(everything))
                state.tally = None
            if self._last:
                yield name, join_cosines(self._states.pop(name).found)

    def _sum(self, state: _State, values: Values, means: Floats) -> None:
        n, n_locations, n_units = values.shape
        if state.tally is None:
            codes, home = self._design.category_codes, n_locations - 1
            state.tally = CentredTally(self._metric, codes, n_locations, [home])
        width = max(1, PIECE // (n * n_locations))
        for start in range(0, n_units, width):
            piece = slice(start, start + width)
            state.tally.add_rows(values[:, :, piece], means[:, piece])
        state.values = state.means = None


def join_cosines(found: Sequence[CentredCosines]) -> CentredCosines:
    """Return the cosines of all groups of locations, less the reference's own, which ends each."""
    return replace(
        found[0],
        **{
            name: np.concatenate(
                [np.delete(getattr(part, name), -1, axis=axis) for part in found], axis=axis
            )
            for name, axis in (
                ("own", 1),
                ("mean", 0),
                ("mean_without", 1),
                ("cross", 0),
                ("cross_without", 1),
                ("same", 0),
                ("same_without", 1),
                ("zero", 1),
                ("dead", 1),
            )
        },
    )
