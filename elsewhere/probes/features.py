"""Reading features from any source: training samples at one location, scores everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from elsewhere.errors import NumericsError
from elsewhere.measures.blocks import rows_of
from elsewhere.measures.crossing import Crossing
from elsewhere.measures.vectors import dot_products, on_host, to_numpy, upload
from elsewhere.protocols import Array, Block, Design, Layer, Need, Sink, Source
from elsewhere.storage import Keep
from elsewhere.storage.schema import StoredLayer
from elsewhere.types import Location

Rows = NDArray[np.floating]
Units = tuple[int, int]
"""The first unit and the one after the last."""


@dataclass(frozen=True)
class FeatureReading:
    """What is read of a layer: whole activations, or what another source kept of them.

    Parameters
    ----------
    keep, seed
        As in a recording.
    """

    keep: Keep = field(default_factory=Keep)
    seed: int = 0

    @classmethod
    def of(cls, layer: Layer) -> FeatureReading:
        """Return what a source has of `layer`."""
        return cls(layer.keep, layer.seed)

    def need(self, *stages: Literal["reference", "grid"]) -> Need:
        """Return the need of a sink that reads this."""
        return Need(self.keep.kind, frozenset(stages), self.keep.size, self.seed)

    def units(self, layer: Layer) -> int:
        """Return the number of units of a layer of a source that may have more of it."""
        if layer.keep.kind != "full" or self.keep.kind == "full":
            return layer.n_units
        if self.keep.kind == "sketch":
            return self.keep.size
        return math.prod(StoredLayer.of(layer, keep=self.keep, seed=self.seed).stored_shape)

    def rows(self, block: Block) -> Array:
        """Return the rows of a block, (row, unit), where they lie."""
        if block.kept != "full":
            return rows_of(block)
        values: Array
        if self.keep.kind == "full":
            values = block.full()
        elif self.keep.kind == "mean":
            values = block.mean()
        else:
            values = block.sketch(self.keep.size, self.seed)
        return values.reshape(len(values), -1)


class GatherSink(Sink):
    """Keeps the activations of some objects at the reference, (object, unit) per layer.

    They are float32, or float64 where the source gives that; of `units` only, the same of all
    layers.
    """

    def __init__(
        self,
        readings: Mapping[str, FeatureReading],
        objects: NDArray[np.int64],
        *,
        units: Units | None = None,
    ) -> None:
        self._readings, self._units = readings, units
        self._row = {int(number): row for row, number in enumerate(objects)}
        self.rows: dict[str, Rows] = {}

    def needs(self, layer: Layer) -> tuple[Need, ...]:
        """Return the activations at the reference."""
        reading = self._readings.get(layer.name)
        return () if reading is None else (reading.need("reference"),)

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        """Return the kept share of the activations."""
        first, last = self._span(layer)
        return len(self._row) * (last - first) * layer.itemsize / max(layer.bytes, 1)

    def _span(self, layer: Layer) -> Units:
        if self._units is not None:
            return self._units
        return 0, self._readings[layer.name].units(layer)

    def begin(self, design: Design, layers: Sequence[Layer], part: int = 0, parts: int = 1) -> None:
        """Make room."""
        self._design = design
        for layer in layers:
            first, last = self._span(layer)
            if part == 0:
                dtype = np.float64 if layer.itemsize == 8 else np.float32
                self.rows[layer.name] = np.empty((len(self._row), last - first), dtype)

    def add(self, block: Block) -> None:
        """Keep the rows of a block that are wanted; NaN and infinity are refused."""
        wanted = [
            (row, self._row[number])
            for row, number in enumerate(block.objects.tolist())
            if number in self._row
        ]
        if not wanted:
            return
        values = to_numpy(self._readings[block.layer].rows(block))
        first, last = (0, values.shape[1]) if self._units is None else self._units
        for row, place in wanted:
            kept = self.rows[block.layer][place]
            kept[:] = values[row, first:last]
            if not np.isfinite(kept).all():
                refuse(block.layer, self._design.objects[block.objects[row]])


Take = Callable[[str, NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]], None]
"""Called with layer, scores (row, score), objects and positions."""


class ScoreSink(Sink):
    """Hands to `take` the products of all activations with their layer's `weights` (score, unit).

    The layer's centre (unit,) is subtracted before: activations lie near it, so that products keep
    their digits where a unit hardly varies. `units` are those that the weights are of. Activations
    of a device are multiplied there, and their products cross together.
    """

    def __init__(
        self,
        readings: Mapping[str, FeatureReading],
        weights: Mapping[str, NDArray[np.float32]],
        centres: Mapping[str, NDArray[np.float32]],
        take: Take,
        *,
        units: Units | None = None,
    ) -> None:
        self._readings, self._weights, self._centres = readings, weights, centres
        self._take, self._units = take, units
        self._there: dict[str, tuple[Array, Array]] = {}
        self._crossing = Crossing()

    def needs(self, layer: Layer) -> tuple[Need, ...]:
        """Return the activations over the grid."""
        return (self._readings[layer.name].need("grid"),) if layer.name in self._weights else ()

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        """Return the weights and the centre, as activations."""
        rows, units = self._weights[layer.name].shape
        return float((rows + 1) * units / max(layer.n_units, 1))

    def begin(self, design: Design, layers: Sequence[Layer], part: int = 0, parts: int = 1) -> None:
        """Remember the design."""
        self._design = design

    def add(self, block: Block) -> None:
        """Hand on the products of a block."""
        values = self._readings[block.layer].rows(block)
        values = to_numpy(values) if on_host(values) else values
        weights, centre = self._matching(block.layer, values)
        first = 0 if self._units is None else self._units[0]
        scores = dot_products(values[:, first : first + len(centre)] - centre, weights)
        where = block.layer, block.objects.copy(), block.positions.copy()
        self._crossing.take(partial(self._hand_on, *where), scores)

    def _matching(self, layer: str, values: Array) -> tuple[Array, Array]:
        """Return the weights and the centre where the values lie."""
        found = self._weights[layer], self._centres[layer]
        if isinstance(values, np.ndarray):
            return found
        if layer not in self._there:
            weights, centre = (upload(each, values.device) for each in found)
            self._there[layer] = weights, centre
        return self._there[layer]

    def _hand_on(
        self,
        layer: str,
        objects: NDArray[np.int64],
        positions: NDArray[np.int64],
        scores: NDArray[np.float64],
    ) -> None:
        finite = np.isfinite(scores).all(axis=1)
        if not finite.all():
            refuse(layer, self._design.objects[objects[int(np.argmin(finite))]])
        self._take(layer, scores, objects, positions)

    def end(self) -> None:
        """Hand on what is still on a device."""
        self._crossing.flush()


def refuse(layer: str, name: str) -> None:
    """Refuse NaN and infinity."""
    raise NumericsError(
        f"layer {layer!r} gives NaN or infinity for object {name!r}, or above 1e38; check the "
        "weights and the input, or leave the layer out"
    )


def gather(
    source: Source,
    readings: Mapping[str, FeatureReading],
    objects: NDArray[np.int64],
    places: Sequence[Location],
    *,
    max_memory: int,
    units: Units | None = None,
) -> dict[str, Rows]:
    """Return the activations of some objects at some locations of the grid.

    Per layer (place * object, unit), place by place, float32, or float64 where that is given; of
    `units` only, if they are named.
    """
    found: list[dict[str, Rows]] = []
    for place in places:
        with source.at(place) as there:
            sink = GatherSink(readings, objects, units=units)
            there.stream([sink], max_memory=max_memory)
            found.append(sink.rows)
    if len(found) == 1:
        return found[0]
    return {name: np.concatenate([rows.pop(name) for rows in found]) for name in readings}
