"""Some objects of a source, as a source of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elsewhere.protocols import (
    Array,
    Block,
    Design,
    Layer,
    Need,
    Progress,
    Sink,
    Source,
    Stage,
    Vectors,
    moved,
)


class SelectedSource:
    """Some objects of a source: everywhere, or in one row, compared with its leftmost location.

    Parameters
    ----------
    source
        A source; with `row`, one whose grid holds that location.
    objects
        Which objects.
    row
        Which y; all by default.
    """

    def __init__(self, source: Source, objects: Sequence[int], row: int | None = None) -> None:
        self._source, self._chosen, self._row = source, objects, row
        full = source.design
        (y_name, ys), (x_name, xs) = axes = full.axes
        self.design = Design(
            objects=tuple(full.objects[i] for i in objects),
            categories=tuple(full.categories[i] for i in objects),
            axes=axes if row is None else ((y_name, (ys[row],)), (x_name, xs)),
            reference=full.reference if row is None else (ys[row], xs[0]),
        )
        self._new_object = np.full(len(full.objects), -1)
        self._new_object[list(objects)] = np.arange(len(objects))
        self._first = 0 if row is None else row * len(xs)
        self.layers = source.layers
        self.provenance: dict[str, Any] = source.provenance

    def stream(
        self, sinks: Sequence[Sink], *, max_memory: int, progress: Progress | None = None
    ) -> None:
        """Stream the source through a filter; the reference comes from the grid."""
        filters: list[Sink] = [_Filter(sink, self) for sink in sinks]
        with moved(self._source, self.design.reference) as source:
            source.stream(filters, max_memory=max_memory, progress=progress)

    def at(self, reference: tuple[int, ...]) -> SelectedSource:
        """Return these objects compared with another location."""
        other = SelectedSource(self._source, self._chosen, self._row)
        other.design = replace(self.design, reference=reference)
        return other

    def translate(self, block: Block) -> tuple[NDArray[np.int64], ...]:
        """Return the rows of `block` that are selected, with their new objects and positions."""
        objects, positions = block.objects.copy(), block.positions.copy()
        known = objects >= 0
        objects[known] = self._new_object[objects[known]]
        if block.stage == "grid":
            positions = positions - self._first
            inside = (positions >= 0) & (positions < self.design.n_positions)
        else:
            inside = np.ones(len(objects), dtype=bool)
        rows = np.flatnonzero(inside & ((objects >= 0) | ~known))
        return rows, objects[rows], positions[rows]


@dataclass(frozen=True)
class _SelectedBlock:
    """Some rows of a block, renumbered."""

    whole: Block
    rows: NDArray[np.int64]
    objects: NDArray[np.int64]
    positions: NDArray[np.int64]

    @property
    def stage(self) -> Stage:
        return self.whole.stage

    @property
    def layer(self) -> str:
        return self.whole.layer

    @property
    def kept(self) -> str:
        return getattr(self.whole, "kept", "full")

    @property
    def half(self) -> bool:
        return getattr(self.whole, "half", False)

    def full(self) -> Array:
        return self.whole.full()[self.rows]

    def mean(self) -> Array:
        return self.whole.mean()[self.rows]

    def sketch(self, size: int, seed: int) -> Array:
        return self.whole.sketch(size, seed)[self.rows]

    def vectors(self) -> Vectors:
        return self.whole.vectors().take(self.rows.tolist())


class _Filter:
    """A sink that hands another one the selected rows only."""

    def __init__(self, sink: Sink, selection: SelectedSource) -> None:
        self._sink, self._selection = sink, selection
        if hasattr(sink, "most_parts"):
            self.most_parts = sink.most_parts

    def needs(self, layer: Layer) -> tuple[Need, ...]:
        return tuple(replace(need) for need in self._sink.needs(layer))

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        return self._sink.held(layer, self._selection.design, parts)

    def begin(self, design: Design, layers: Sequence[Layer], part: int = 0, parts: int = 1) -> None:
        self._sink.begin(self._selection.design, layers, part, parts)

    def add(self, block: Block) -> None:
        rows, objects, positions = self._selection.translate(block)
        if len(rows):
            self._sink.add(_SelectedBlock(block, rows, objects, positions))

    def end(self) -> None:
        self._sink.end()
