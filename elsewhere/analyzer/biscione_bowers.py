"""The authors' protocol, for comparison with published figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.analyzer.similarity import SimilaritySink, finish
from elsewhere.errors import LayerError
from elsewhere.protocols import (
    Array,
    Block,
    Design,
    LayerLike,
    Need,
    Progress,
    Sink,
    Source,
    Stage,
    Vectors,
    moved,
)
from elsewhere.recording import Sweep
from elsewhere.stimuli import Grid
from elsewhere.types import parse_bytes

PROTOCOL = "biscione-bowers"


def similarity_biscione_bowers(
    source: Source,
    *,
    layers: Sequence[str] | None = None,
    seed: int = 0,
    max_memory: int | str = "2GiB",
    progress: Progress | None = None,
) -> xarray.Dataset:
    """Return similarity as the authors' released code measures it.

    One random exemplar of each category, uncentred cosine, along the middle row from the leftmost
    location, which counts in the means. Their hooks kept outputs that an in-place ReLU then
    changed: the values after the ReLU, hence the ReLU layers here.

    Parameters
    ----------
    source
        A recording, or a live sweep.
    layers
        Names of layers; by default the ReLU layers.
    seed
        Draws the exemplars.
    max_memory, progress
        As for :func:`elsewhere.analyzer.similarity`.

    Returns
    -------
    xarray.Dataset
        As :func:`elsewhere.analyzer.similarity`, on a grid of one row.

    Raises
    ------
    LayerError
        No layer is named and the source has no ReLU layer.

    References
    ----------
    Biscione & Bowers (2021), Journal of Machine Learning Research 22(229).
    """
    design = source.design
    rng = np.random.default_rng(seed)
    codes = design.category_codes
    chosen = [int(rng.choice(np.flatnonzero(codes == code))) for code in range(codes.max() + 1)]
    if layers is None:
        layers = [layer.name for layer in source.layers if _kind(layer) == "ReLU"]
        if not layers:
            raise LayerError(
                f"--protocol {PROTOCOL} compares ReLU layers, and there is none among "
                f"{', '.join(layer.name for layer in source.layers)}; name layers with --layers"
            )
    (_, ys), (_, xs) = design.axes
    middle = len(ys) // 2
    narrowed: Source
    if isinstance(source, Sweep):
        narrowed = Sweep(
            source.model,
            source.objects.subset(chosen),
            canvas=source.canvas,
            grid=Grid(y=(ys[middle],), x=xs),
            reference=(ys[middle], xs[0]),
            layers=layers,
            engine=source.engine,
        )
    else:
        narrowed = SelectedSource(source, chosen, middle)
    sink = SimilaritySink(layers=layers, include_reference=True)
    narrowed.stream([sink], max_memory=parse_bytes(max_memory), progress=progress)
    order = [layer.name for layer in source.layers]
    return finish(sink.result(order), narrowed, metric="cosine", protocol=PROTOCOL)


def _kind(layer: LayerLike) -> str:
    return str(getattr(layer, "kind", getattr(layer, "type", "")))


class SelectedSource:
    """Some objects of a source, at the middle row, compared with its leftmost location.

    Parameters
    ----------
    source
        A source whose grid holds that location.
    objects
        Which objects.
    row
        Which y.
    """

    def __init__(self, source: Source, objects: Sequence[int], row: int) -> None:
        self._source, self._chosen, self._row = source, objects, row
        full = source.design
        (y_name, ys), (x_name, xs) = full.axes
        self.design = Design(
            objects=tuple(full.objects[i] for i in objects),
            categories=tuple(full.categories[i] for i in objects),
            axes=((y_name, (ys[row],)), (x_name, xs)),
            reference=(ys[row], xs[0]),
        )
        self._new_object = np.full(len(full.objects), -1)
        self._new_object[list(objects)] = np.arange(len(objects))
        self._first = row * len(xs)
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
        """Return these objects compared with another location of the row."""
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

    def needs(self, layer: LayerLike) -> tuple[Need, ...]:
        return tuple(replace(need) for need in self._sink.needs(layer))

    def held(self, layer: LayerLike, design: Design, parts: int = 1) -> float:
        return self._sink.held(layer, self._selection.design, parts)

    def begin(
        self, design: Design, layers: Sequence[LayerLike], part: int = 0, parts: int = 1
    ) -> None:
        self._sink.begin(self._selection.design, layers, part, parts)

    def add(self, block: Block) -> None:
        rows, objects, positions = self._selection.translate(block)
        if len(rows):
            self._sink.add(_SelectedBlock(block, rows, objects, positions))

    def end(self) -> None:
        self._sink.end()
