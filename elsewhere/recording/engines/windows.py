"""The incremental engine: only the windows that an object changes, handed on tile by tile."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from elsewhere.errors import LayerError
from elsewhere.measures.blocks import DenseBlock
from elsewhere.models import Layer
from elsewhere.models.forward import widened
from elsewhere.protocols import Block, Design, Sink, Stage
from elsewhere.recording.engines.base import Cut, SweepEngine, failing, memory_on, wait_for
from elsewhere.recording.incremental.blocks import GroundRow, WindowBlock, WindowRows
from elsewhere.recording.incremental.engine import TILE_WORK, TILE_WORK_ON_DEVICE, Incremental
from elsewhere.recording.incremental.tiling import (
    LEAST_WORK,
    TILE_SHARE,
    choose_shape,
    cut_tiles,
)
from elsewhere.recording.incremental.windows import Maps, Tile
from elsewhere.recording.subject import Subject
from elsewhere.sources import Group, Takers
from elsewhere.storage.portions import Portions
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

BLOCK_BYTES_ON_DEVICE = 2**30
"""The same on a GPU."""

KEPT_BYTES = 2**29
"""What the host holds at most of a tile that a GPU computes, to write it."""

SINK_SHARE = 4
"""Likewise for what sinks hold."""

COMPILED_BYTES = 48 * 2**20
"""What a network takes that was compiled for windows, about: it comes out of --max-memory first."""

BLOCK_SHARE = 32
"""They take one of so many parts of --max-memory: sinks make copies of them."""


class WindowEngine(SweepEngine):
    """The stages of a sweep, by a network that was compiled for windows.

    `places` are the coordinates along y and x that it is compiled for: those of the design, and
    then others, of which one is the reference's. `first` is the number of its first object among
    those that it is compiled with, where axes change objects.
    """

    name = "incremental"

    def __init__(
        self,
        compiled: Incremental,
        design: Design,
        places: Sequence[Sequence[int]],
        reason: str = "",
        first: int = 0,
    ) -> None:
        self.compiled, self.design, self.reason, self._first = compiled, design, reason, first
        self._places = places
        self._n_y, self._n_x = design.shape
        self._block_bytes = BLOCK_BYTES
        self._reference = [
            np.array([len(known) - 1 - list(known)[::-1].index(place)])
            for known, place in zip(places, design.reference, strict=True)
        ]

    def at(self, subject: Subject) -> WindowEngine | None:
        """Return the engine for another reference, if it is compiled for its coordinates."""
        design = subject.variants[0].design
        pairs = zip(design.reference, self._places, strict=True)
        if not all(place in places for place, places in pairs):
            return None
        return WindowEngine(self.compiled, design, self._places, self.reason)

    def variant(self, number: int) -> WindowEngine:
        """Return the engine for a variant."""
        first = number * len(self.design.objects)
        return WindowEngine(self.compiled, self.design, self._places, self.reason, first)

    def _room(self, max_memory: int) -> int:
        """Return what of the memory is left for windows and sinks, beside the compiled network."""
        return room_of(memory_on(self.compiled.model.device, max_memory))

    def _shares(
        self, layers: Sequence[Layer], sinks: Sequence[Sink], max_bytes: int
    ) -> tuple[int, int]:
        """Return bytes of an image that are kept whole, and those that a tile may take."""
        kept = sum(
            layer.bytes
            for layer in layers
            if any(need.kind == "full" for sink in sinks for need in sink.needs(layer))
        )
        if not self.compiled.batched:
            return kept, max(LEAST_BYTES, min(TILE_BYTES, max_bytes // WINDOW_SHARE))
        room = max(LEAST_BYTES, max_bytes // WINDOW_SHARE)
        return math.ceil(kept * room / KEPT_BYTES), room  # what is kept is held by the host

    def sink_room(self, max_memory: int) -> int:
        """Return the bytes that sinks may hold beside windows, which take their share, too."""
        return self._room(max_memory) // SINK_SHARE

    def memory_for(self, held: float) -> float:
        """Return the --max-memory of which sinks may hold so many bytes beside windows."""
        room = SINK_SHARE * held
        return min(room + COMPILED_BYTES, 4 * room)

    def tasks(self, portions: Portions, tile: Sequence[int] | None) -> Iterable[Sequence[int]]:
        """Return the numbers of the portions, those of a tile in one sequence."""
        if tile is None:
            return super().tasks(portions, tile)
        return (self.numbers(one, portions).tolist() for one in cut_tiles(tile, self.design))

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
        kept, room = self._shares(layers, sinks, max_bytes)
        return self.compiled.tiles(layers, ys, xs, max_bytes=room, kept_bytes=kept)

    def tile(
        self, layers: Sequence[Layer], sinks: Sequence[Sink], portions: Portions, max_memory: int
    ) -> tuple[int, ...]:
        """Return objects, rows and columns of a recording's tiles, which are whole portions."""
        every = Tile(
            np.arange(self._n_y), np.arange(self._n_x), np.arange(len(self.design.objects))
        )
        most, least = TILE_WORK, LEAST_WORK
        if self.compiled.batched:
            most, least = TILE_WORK_ON_DEVICE, TILE_WORK
        share = self.compiled.multiply_adds([every], layers) // TILE_SHARE
        work = min(most, max(least, share))
        kept, room = self._shares(layers, sinks, self._room(max_memory))

        def fits(tile: Tile) -> bool:
            held = self.compiled.peak_bytes(tile, layers) + kept * tile.n_rows
            return held <= room and self.compiled.multiply_adds([tile], layers) <= work

        return choose_shape(fits, portions, together=len(sinks) > 1)

    def numbers(self, tile: Tile, portions: Portions) -> NDArray[np.int64]:
        """Return the numbers of the portions in a tile."""
        return np.unique(portions.locate(*self._rows("grid", tile)))

    def peak_bytes(self, group: Group, sinks: Sequence[Sink], max_memory: int) -> int:
        """Return about what the largest tile takes, and the empty canvas's maps."""
        tiles = self.tiles("grid", group.layers, sinks, self._room(max_memory), group.tile)
        largest = max(tiles, key=lambda tile: tile.n_rows)
        return self.compiled.peak_bytes(largest, group.layers) + self.compiled.empty_bytes

    def multiply_adds(
        self, group: Group, takers: Takers, max_memory: int, stages: Sequence[Stage]
    ) -> int:
        """Return the multiply-adds of some stages of a sweep over a group, the empty one free."""
        room = self._room(max_memory)
        return sum(
            self.compiled.multiply_adds(
                self.tiles(stage, group.layers, takers.sinks, room, group.tile), group.layers
            )
            for stage in stages
            if stage != "empty"
        )

    def held_bytes(self, layer: Layer, sinks: Sequence[Sink]) -> int:
        """Return the bytes of one activation as `sinks` hold it: a window, or all."""
        needs = [need for sink in sinks for need in sink.needs(layer)]
        windows = all(need.kind == "vectors" for need in needs) and not self.compiled.batched
        return self.compiled.held_bytes(layer) if windows else layer.bytes

    def rehearse(self, group: Group, takers: Takers, cut: Cut) -> float:
        """Run a few locations of the middle row; return the seconds of one image of the grid."""
        tile, seconds, layers = sample_tile(self.design), 0.0, group.layers
        for stage in takers.stages:
            begin = time.perf_counter()
            for _ in self.run(stage, group, takers, cut, [tile] if stage == "grid" else None):
                pass
            wait_for(self.compiled.model.device)
            seconds = time.perf_counter() - begin
        every = self.tiles("grid", layers, takers.sinks, self._room(cut.max_memory), group.tile)
        work = [self.compiled.multiply_adds(tiles, layers) for tiles in ([tile], every)]
        n_rows = sum(each.n_rows for each in every)
        ratio = work[1] / work[0] if work[0] else n_rows / tile.n_rows
        return seconds * ratio / n_rows

    def run(
        self,
        stage: Stage,
        group: Group,
        takers: Takers,
        cut: Cut,
        tiles: Sequence[Tile] | None = None,
    ) -> Iterator[int]:
        """Go through a stage, or some `tiles`; yield numbers of images, as work on them advances.

        A tile is computed whole and handed on whole, in the same blocks, whatever is skipped: a
        block's values may depend on its other rows in their last bits.
        """
        wanted = [layer for layer in group.layers if takers.of(layer.name, stage)]
        if stage == "empty":
            self._give_empty(wanted, takers)
            yield 1
            return
        room, portions, skip = self._room(cut.max_memory), cut.portions, cut.skip
        if tiles is None:
            tiles = self.tiles(stage, wanted, takers.sinks, room, group.tile)
        most = BLOCK_BYTES_ON_DEVICE if self.compiled.batched else BLOCK_BYTES
        self._block_bytes = max(LEAST_BYTES, min(most, room // BLOCK_SHARE))
        for tile in tiles:
            count = tile.n_rows
            if stage != "reference" and (skip or portions.chosen is not None):
                count = _count(portions.locate(*self._rows(stage, tile)), portions, skip)
            if count:
                with failing() as complaints:
                    yield from self._run_tile(stage, tile, wanted, takers, count, complaints)

    def _rows(self, stage: Stage, tile: Tile) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the objects and the flat positions of a tile's rows."""
        cells = (tile.ys[:, None] * self._n_x + tile.xs[None, :]).ravel()
        if stage == "reference":
            cells = np.full_like(cells, -1)
        return np.tile(tile.objects, len(cells)), np.repeat(cells, len(tile.objects))

    def _run_tile(
        self,
        stage: Stage,
        tile: Tile,
        layers: Sequence[Layer],
        takers: Takers,
        count: int,
        complaints: list[Exception],
    ) -> Iterator[int]:
        objects, positions = self._rows(stage, tile)
        by_source: dict[str, list[Layer]] = {}
        for layer in layers:
            by_source.setdefault(self.compiled.source_of(layer), []).append(layer)

        def receive(name: str, value: Maps | torch.Tensor) -> None:
            source: WindowRows | torch.Tensor
            if isinstance(value, Maps):
                source = WindowRows(value.widened(), self.compiled.ground(name).wide, tile)
            else:
                source = widened(value)
            for layer in by_source[name]:
                given: WindowRows | torch.Tensor = source
                if isinstance(source, torch.Tensor):
                    _check_rows(layer, source, tile)
                    given = layer.take(source)
                for sink in takers.of(layer.name, stage):
                    step = self._block_rows(layer, sink)
                    for first in range(0, len(objects), step):
                        part = slice(first, first + step)
                        where = stage, layer.name, objects[part], positions[part]
                        block: Block = (
                            DenseBlock(
                                *where, given[part], layout=layer.layout, tokens=layer.tokens
                            )
                            if isinstance(given, torch.Tensor)
                            else WindowBlock(*where, given, np.arange(len(objects))[part])
                        )
                        try:
                            sink.add(block)
                        except Exception as error:
                            complaints.append(error)
                            raise

        work = max(1, self.compiled.multiply_adds([tile], layers))
        done, counted = 0, 0
        shown = replace(tile, objects=tile.objects + self._first)
        for one in self.compiled.run(shown, layers, receive):
            done += self.compiled.multiply_adds_of(one, tile)
            share = min(count, count * done // work)
            if share > counted:
                yield share - counted
                counted = share
        yield count - counted

    def _block_rows(self, layer: Layer, sink: Sink) -> int:
        """Return how many rows one block has."""
        each = self.held_bytes(layer, [sink])
        return max(BATCH_ROWS, self._block_bytes // each)

    def _give_empty(self, layers: Sequence[Layer], takers: Takers) -> None:
        nowhere = np.array([-1])
        for layer in layers:
            value = self.compiled.empty(layer)
            where: tuple[Stage, str, Any, Any] = ("empty", layer.name, nowhere, nowhere)
            if isinstance(value, torch.Tensor):
                values = layer.take(widened(value))
                takers.give(DenseBlock(*where, values, layout=layer.layout, tokens=layer.tokens))
            else:
                takers.give(WindowBlock(*where, GroundRow(value.wide), np.array([0])))


def _count(numbers: NDArray[np.int64], portions: Portions, skip: Collection[int]) -> int:
    """Return how many images lie in portions that are to be gone through and not to be skipped."""
    wanted = ~np.isin(numbers, list(skip))
    if portions.chosen is not None:
        wanted &= np.isin(numbers, portions.chosen)
    return int(wanted.sum())


def _check_rows(layer: Layer, value: torch.Tensor, tile: Tile) -> None:
    if tuple(value.shape) != (tile.n_rows, *layer.given_shape):
        raise LayerError(
            f"layer {layer.name!r} gives shape {tuple(value.shape)} for {tile.n_rows} images; "
            f"expected {(tile.n_rows, *layer.given_shape)}, one row per image: record another layer"
        )


def room_of(max_memory: int) -> int:
    """Return what is left of so many bytes beside a compiled network."""
    return max(max_memory - COMPILED_BYTES, max_memory // 4)


def sample_tile(design: Design, n_positions: int = 6) -> Tile:
    """Return a tile to try: some locations of the middle row, all objects."""
    n_y, n_x = design.shape
    middle = n_y // 2
    first = max(0, (n_x - n_positions) // 2)
    columns = np.arange(first, min(n_x, first + n_positions))
    return Tile(np.array([middle]), columns, np.arange(len(design.objects)))
