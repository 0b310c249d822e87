"""Hands what the engine computes to sinks, tile by tile."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from elsewhere.errors import LayerError
from elsewhere.measures.blocks import DenseBlock
from elsewhere.models import Layer
from elsewhere.protocols import Design, Sink, Stage
from elsewhere.recording.incremental.blocks import EmptyBlock, WindowBlock, WindowRows
from elsewhere.recording.incremental.engine import TILE_WORK, Incremental
from elsewhere.recording.incremental.tiling import (
    LEAST_WORK,
    TILE_SHARE,
    choose_shape,
    cut_tiles,
)
from elsewhere.recording.incremental.windows import Maps, Tile
from elsewhere.storage.units import Units
from elsewhere.types import BATCH_ROWS

TILE_BYTES = 2**30
"""What the windows of a tile may take at most: larger tiles share hardly more."""

LEAST_BYTES = 2**20
"""What they may take at least, however little --max-memory leaves."""

WINDOW_SHARE = 8
"""One of so many parts of --max-memory goes to the windows of a tile, by their estimate: what an
operation needs beside its operands, and what the allocator keeps, comes on top."""

BLOCK_BYTES = 64 * 2**20
"""What the rows of one block take at most, about, where whole maps are built of them."""

SINK_SHARE = 4
"""Likewise for what sinks hold."""

COMPILED_BYTES = 48 * 2**20
"""What a network takes that was compiled for windows, about: it comes out of --max-memory first."""

BLOCK_SHARE = 32
"""They take one of so many parts of --max-memory: sinks make copies of them."""


class TileStream:
    """The stages of a sweep, by an :class:`Incremental` engine.

    Parameters
    ----------
    engine
        The engine.
    design
        What is swept.
    places
        The coordinates along y and x that the engine is compiled for: those of the design, and
        then others, of which one is the reference's.
    """

    def __init__(
        self, engine: Incremental, design: Design, places: Sequence[Sequence[int]]
    ) -> None:
        self.engine, self.design = engine, design
        (_, ys), (_, xs) = design.axes
        self._n_y, self._n_x = len(ys), len(xs)
        self._block_bytes = BLOCK_BYTES
        self._reference = [
            np.array([len(known) - 1 - list(known)[::-1].index(place)])
            for known, place in zip(places, design.reference, strict=True)
        ]

    def tiles(
        self,
        stage: Stage,
        layers: Sequence[Layer],
        sinks: Sequence[Sink],
        max_bytes: int,
        shape: Sequence[int] | None = None,
    ) -> list[Tile]:
        """Return the tiles of a stage; of a recording, those of `shape`."""
        ys, xs = np.arange(self._n_y), np.arange(self._n_x)
        if stage == "reference":
            ys, xs = self._reference
        if shape is not None and stage == "grid":
            return cut_tiles(shape, self.design)
        if shape is not None and stage == "reference":
            n = len(self.design.objects)
            starts = range(0, n, shape[0])
            return [Tile(ys, xs, np.arange(i, min(i + shape[0], n))) for i in starts]
        kept = sum(layer.bytes for layer in layers if _keeps_whole(layer, sinks))
        room = max(LEAST_BYTES, min(TILE_BYTES, max_bytes // WINDOW_SHARE))
        return self.engine.tiles(layers, ys, xs, max_bytes=room, kept_bytes=kept)

    def shape(
        self, layers: Sequence[Layer], sinks: Sequence[Sink], units: Units, max_bytes: int
    ) -> tuple[int, int, int]:
        """Return objects, rows and columns of a recording's tiles, which are whole units."""
        every = Tile(
            np.arange(self._n_y), np.arange(self._n_x), np.arange(len(self.design.objects))
        )
        share = self.engine.multiply_adds([every], layers) // TILE_SHARE
        work = min(TILE_WORK, max(LEAST_WORK, share))
        kept = sum(layer.bytes for layer in layers if _keeps_whole(layer, sinks))
        room = max(LEAST_BYTES, min(TILE_BYTES, max_bytes // WINDOW_SHARE))

        def fits(tile: Tile) -> bool:
            held = self.engine.peak_bytes(tile, layers) + kept * tile.n_rows
            return held <= room and self.engine.multiply_adds([tile], layers) <= work

        return choose_shape(fits, units, together=len(sinks) > 1)

    def numbers(self, tile: Tile, units: Units) -> NDArray[np.int64]:
        """Return the numbers of the units in a tile."""
        _, objects, positions = self._rows("grid", tile)
        return np.unique(units.locate(objects, positions))

    def peak_bytes(
        self,
        stage: Stage,
        layers: Sequence[Layer],
        sinks: Sequence[Sink],
        max_bytes: int,
        shape: Sequence[int] | None = None,
    ) -> int:
        """Return about what the largest tile of a stage takes, and the empty canvas's maps."""
        tiles = self.tiles(stage, layers, sinks, max_bytes, shape)
        largest = max(tiles, key=lambda tile: tile.n_rows)
        return self.engine.peak_bytes(largest, layers) + self.engine.empty_bytes

    def held_bytes(self, layer: Layer, sinks: Sequence[Sink]) -> int:
        """Return the bytes of one activation as `sinks` hold it: a window, or all."""
        needs = [need for sink in sinks for need in sink.needs(layer)]
        windows = all(need.kind == "vectors" for need in needs)
        return self.engine.held_bytes(layer) if windows else layer.bytes

    def run(
        self,
        stage: Stage,
        layers: Sequence[Layer],
        sinks: Sequence[Sink],
        *,
        units: Units,
        skip: Collection[int] = (),
        max_bytes: int,
        shape: Sequence[int] | None = None,
        tiles: Sequence[Tile] | None = None,
    ) -> Iterator[int]:
        """Go through a stage; yield numbers of images, as work on them advances.

        A tile is computed whole and handed on whole, in the same blocks, whatever is skipped: a
        block's values may depend on its other rows in their last bits.

        Parameters
        ----------
        stage
            The stage.
        layers, sinks
            What is wanted, by whom.
        units, skip
            Units of the grid, and the numbers of those that are not needed again: tiles of
            which none is needed are left out.
        max_bytes
            Bytes for windows.
        shape
            Of a recording's tiles.
        tiles
            The tiles to go through, in place of all.
        """
        wanted = [
            layer
            for layer in layers
            if any(stage in need.stages for sink in sinks for need in sink.needs(layer))
        ]
        if stage == "empty":
            self._give_empty(wanted, sinks)
            yield 1
            return
        if tiles is None:
            tiles = self.tiles(stage, wanted, sinks, max_bytes, shape)
        self._block_bytes = max(LEAST_BYTES, min(BLOCK_BYTES, max_bytes // BLOCK_SHARE))
        for tile in tiles:
            rows, objects, positions = self._rows(stage, tile)
            count = len(rows)
            if stage != "reference" and (skip or units.chosen is not None):
                count = _count(units.locate(objects, positions), units, skip)
            if count:
                yield from self._run_tile(
                    stage, tile, wanted, sinks, rows, objects, positions, count
                )  # fmt: skip

    def _rows(
        self, stage: Stage, tile: Tile
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of a tile, their objects and their flat positions."""
        n_positions = len(tile.ys) * len(tile.xs)
        objects = np.tile(tile.objects, n_positions)
        rows = np.arange(len(objects))
        if stage == "reference":
            return rows, objects, np.full(len(rows), -1)
        cells = (tile.ys[:, None] * self._n_x + tile.xs[None, :]).ravel()
        return rows, objects, np.repeat(cells, len(tile.objects))

    def _run_tile(
        self,
        stage: Stage,
        tile: Tile,
        layers: Sequence[Layer],
        sinks: Sequence[Sink],
        rows: NDArray[np.int64],
        objects: NDArray[np.int64],
        positions: NDArray[np.int64],
        count: int,
    ) -> Iterator[int]:
        by_source: dict[str, list[Layer]] = {}
        for layer in layers:
            by_source.setdefault(self.engine.source_of(layer), []).append(layer)

        def receive(name: str, value: Maps | torch.Tensor) -> None:
            source: WindowRows | torch.Tensor
            if isinstance(value, Maps):
                source = WindowRows(value, self.engine.ground(name), tile)
            else:
                source = value
            for layer in by_source[name]:
                _check_rows(layer, value, tile)
                for sink in sinks:
                    if any(stage in need.stages for need in sink.needs(layer)):
                        step = self._block_rows(layer, sink)
                        for first in range(0, len(rows), step):
                            part = slice(first, first + step)
                            sink.add(
                                _block(
                                    stage,
                                    layer,
                                    objects[part],
                                    positions[part],
                                    source,
                                    rows[part],
                                )
                            )
                            if isinstance(source, WindowRows):
                                source.ground.settle()

        work = max(1, self.engine.multiply_adds([tile], layers))
        done, counted = 0, 0
        for one in self.engine.run(tile, layers, receive):
            done += self.engine.multiply_adds_of(one, tile)
            share = min(count, count * done // work)
            if share > counted:
                yield share - counted
                counted = share
        yield count - counted

    def _block_rows(self, layer: Layer, sink: Sink) -> int:
        """Return how many rows one block has."""
        each = self.held_bytes(layer, [sink])
        return max(BATCH_ROWS, self._block_bytes // each)

    def _give_empty(self, layers: Sequence[Layer], sinks: Sequence[Sink]) -> None:
        nowhere = np.array([-1])
        for layer in layers:
            value = self.engine.empty(layer)
            for sink in sinks:
                if not any("empty" in need.stages for need in sink.needs(layer)):
                    continue
                if isinstance(value, torch.Tensor):
                    block = DenseBlock(
                        "empty", layer.name, nowhere, nowhere, value, layout=layer.layout
                    )
                    sink.add(block)
                else:
                    sink.add(EmptyBlock(layer.name, value))


def _count(numbers: NDArray[np.int64], units: Units, skip: Collection[int]) -> int:
    """Return how many images lie in units that are to be gone through and not to be skipped."""
    wanted = ~np.isin(numbers, list(skip))
    if units.chosen is not None:
        wanted &= np.isin(numbers, units.chosen)
    return int(wanted.sum())


def _keeps_whole(layer: Layer, sinks: Sequence[Sink]) -> bool:
    return any(need.kind == "full" for sink in sinks for need in sink.needs(layer))


def _check_rows(layer: Layer, value: Maps | torch.Tensor, tile: Tile) -> None:
    if isinstance(value, Maps):
        return
    if tuple(value.shape) != (tile.n_rows, *layer.shape):
        raise LayerError(
            f"layer {layer.name!r} gives shape {tuple(value.shape)} for {tile.n_rows} images; "
            f"expected {(tile.n_rows, *layer.shape)}, one row per image: record another layer"
        )


def _block(
    stage: Stage,
    layer: Layer,
    objects: NDArray[np.int64],
    positions: NDArray[np.int64],
    source: WindowRows | torch.Tensor,
    rows: NDArray[np.int64],
) -> DenseBlock | WindowBlock:
    if isinstance(source, WindowRows):
        return WindowBlock(stage, layer.name, objects, positions, source, rows)
    first, n = int(rows[0]), len(rows)
    if np.array_equal(rows, np.arange(first, first + n)):
        values = source[first : first + n]
    else:
        values = source[torch.from_numpy(rows).to(source.device)]
    return DenseBlock(stage, layer.name, objects, positions, values, layout=layer.layout)


def room_of(max_memory: int) -> int:
    """Return what of the memory is left for windows and sinks, beside the compiled network."""
    return max(max_memory - COMPILED_BYTES, max_memory // 4)


def memory_for(held: float) -> float:
    """Return the --max-memory of which sinks may hold so many bytes beside windows."""
    room = SINK_SHARE * held
    return min(room + COMPILED_BYTES, 4 * room)


def sample_tile(design: Design, n_positions: int = 6) -> Tile:
    """Return a tile to try: some locations of the middle row, all objects."""
    (_, ys), (_, xs) = design.axes
    middle = len(ys) // 2
    first = max(0, (len(xs) - n_positions) // 2)
    columns = np.arange(first, min(len(xs), first + n_positions))
    return Tile(np.array([middle]), columns, np.arange(len(design.objects)))


def cells_of(tiles: Sequence[Tile]) -> int:
    """Return the images of tiles."""
    return sum(math.prod(tile.shape) for tile in tiles)
