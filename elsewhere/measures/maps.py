"""Feature maps with a place on the canvas, less what the empty canvas evokes: a sink for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from elsewhere.errors import LayerError, NumericsError
from elsewhere.measures.blocks import maps_from
from elsewhere.measures.landing import Landing, Rows
from elsewhere.measures.sinks import LayerSink
from elsewhere.measures.tables import Variables
from elsewhere.measures.vectors import negligible, to_numpy
from elsewhere.protocols import Array, Block, Design, Layer, Need

Window = tuple[slice, slice]
WHOLE: Window = (slice(None), slice(None))


@dataclass
class MapState:
    """Sums of one layer, shape (sum, object, position), and its maps while they are needed."""

    layer: Layer
    sums: NDArray[np.float64]
    empty: NDArray[np.floating] | None = None
    references: dict[int, NDArray[np.float32]] = field(default_factory=dict)


class MapSink(LayerSink):
    """Compares the evoked maps of objects with those at the reference."""

    n_sums: ClassVar[int]
    precision: ClassVar[type[np.float32] | None] = None
    """In which the empty canvas's map is taken off; that of the map by default."""

    def __init__(self, layers: Sequence[str] | None = None) -> None:
        super().__init__(layers)
        self._states: dict[str, MapState] = {}
        self._landing = Landing()

    def needed(self, layer: Layer) -> tuple[Need, ...]:
        """Return whole maps at every stage, of layers whose cells have a place."""
        if not has_place(layer):
            return ()
        return (Need("full", frozenset({"empty", "reference", "grid"})),)

    def begin(self, design: Design, layers: Sequence[Layer], part: int = 0, parts: int = 1) -> None:
        """Prepare for a group of layers; in part i of n only a share of the objects is taken."""
        super().begin(design, layers, part, parts)
        n = len(design.objects)
        size = math.ceil(n / parts)
        self._chosen = range(part * size, min(n, (part + 1) * size))
        for layer in layers if part == 0 else ():
            sums = np.zeros((self.n_sums, n, design.n_positions))
            self._states[layer.name] = MapState(layer, sums)

    def add(self, block: Block) -> None:
        """Take a block; of a device, later."""
        values = maps_of(block, self._states[block.layer].layer)
        self._landing.bring(Rows.of(block), values, self._take)

    def _take(self, block: Rows, values: Array) -> None:
        state = self._states[block.layer]
        if block.stage == "empty":
            state.empty = np.array(to_numpy(values[0]), dtype=self.precision)
        elif state.empty is None:
            raise LayerError(f"layer {block.layer!r} came without the empty canvas's map")
        elif block.stage == "reference":
            for row, number in enumerate(block.objects.tolist()):
                if number in self._chosen:
                    window = self.window(state.layer)
                    state.references[number] = self.evoked(state, number, values[row], window)
        else:
            self.compare(state, block, values)

    def end(self) -> None:
        """Forget the maps; read the layers once the last part is through."""
        self._landing.drain()
        for name in list(self._states):
            self._states[name].references = {}
            if self._part == self._parts - 1:
                self.variables[name] = self.read(self._states.pop(name))

    def evoked(
        self, state: MapState, number: int, values: Array, window: Window
    ) -> NDArray[np.float32]:
        """Return what an object evokes in some cells of its map (channel, height, width)."""
        rows, columns = window
        here = to_numpy(values[:, rows, columns])
        here = here if self.precision is None else here.astype(self.precision)
        evoked = here - np.asarray(state.empty)[:, rows, columns]
        if not np.isfinite(evoked).all():
            raise NumericsError(
                f"layer {state.layer.name!r} gives NaN or infinity for object "
                f"{self.design.objects[number]!r}; check the weights and the input"
            )
        rounding = np.linalg.norm(evoked) <= negligible(here) * np.linalg.norm(here)
        return np.asarray(0 * evoked if rounding else evoked, np.float32)

    def window(self, layer: Layer) -> Window:
        """Return the cells that are kept of maps at the reference."""
        return WHOLE

    def compare(self, state: MapState, block: Rows, values: Array) -> None:
        """Compare maps (row, channel, height, width) of a block with those at the reference."""
        raise NotImplementedError

    def read(self, state: MapState) -> Variables:
        """Return a layer's variables."""
        raise NotImplementedError


def has_place(layer: Layer) -> bool:
    """Return whether a layer is a feature map whose cells have a place on the canvas."""
    return layer.is_map and layer.stride is not None


def without_place(layers: Sequence[Layer]) -> str:
    """Return why none of `layers` is a feature map with a place on the canvas, and what to do."""
    maps = [layer.name for layer in layers if layer.is_map]
    if not maps:
        names = ", ".join(layer.name for layer in layers)
        return (
            f"none of {names} is one (known to have channels, height and width); name convolution "
            "or pooling layers"
        )
    return (
        f"{', '.join(maps)}: where the cells look on the canvas is not known, for their answers do "
        "not move along with the object (what comes before them resizes, mirrors or mixes places); "
        "name other layers, or do that to the images before they are shown"
    )


def maps_of(block: Block, layer: Layer) -> Array:
    """Return a block's whole maps as (row, channel, height, width), whatever their layout."""
    return maps_from(block.full(), layer)


def plane_of(layer: Layer) -> tuple[int, int]:
    """Return the height and the width of a map, cells."""
    if layer.tokens is not None and layer.has_grid:
        return layer.tokens.height, layer.tokens.width
    layout = layer.layout
    return layer.shape[layout.index("height")], layer.shape[layout.index("width")]
