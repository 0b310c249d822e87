"""Blocks of a sweep that hold windows, and build whole maps only where they are asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from elsewhere.kept import Kept
from elsewhere.measures.blocks import spatial_mean
from elsewhere.measures.sketch import sketch
from elsewhere.measures.vectors import DenseVectors
from elsewhere.models.forward import send
from elsewhere.protocols import Stage
from elsewhere.recording.incremental.gathering import Whole, batched
from elsewhere.recording.incremental.rectangles import GroupSquares, Piece, Region, Sums
from elsewhere.recording.incremental.vectors import WindowVectors
from elsewhere.recording.incremental.windows import Ground, Maps, Tile, paste

Tensor = torch.Tensor


@dataclass(eq=False)
class WindowRows:
    """A layer's windows over a tile, row by row: position by position, then objects.

    Parameters
    ----------
    maps, ground, tile
        The windows, the empty canvas's map, and where they belong.
    """

    maps: Maps
    ground: Ground
    tile: Tile
    _sums: dict[tuple[int, int, int, int], Sums] = field(default_factory=dict)
    _groups: dict[tuple[int, int], GroupSquares] = field(default_factory=dict)
    _means: Tensor | None = None
    _buffer: Tensor | None = None

    @cached_property
    def _whole(self) -> Whole | None:
        """What gives whole maps on a GPU, in few calls."""
        if not batched(self.ground.values.device):
            return None
        return Whole(self.maps, self.ground, self.tile)

    def _split(self, rows: NDArray[np.int64]) -> list[tuple[int, int, slice, slice]]:
        """Return locations along y and x, objects, and places among `rows` of each position."""
        _, n_x, n_objects = self.tile.shape
        cells, objects = np.divmod(rows, n_objects)
        edges = np.flatnonzero((np.diff(cells) != 0) | (np.diff(objects) != 1)) + 1
        found = []
        for start, stop in zip([0, *edges], [*edges, len(rows)], strict=True):
            y, x = divmod(int(cells[start]), n_x)
            chosen = slice(int(objects[start]), int(objects[stop - 1]) + 1)
            place = int(self.tile.ys[y]), int(self.tile.xs[x])
            found.append((*place, chosen, slice(int(start), int(stop))))
        return found

    def vectors(self, rows: NDArray[np.int64]) -> WindowVectors | DenseVectors:
        """Return some rows as vectors; on a GPU whole ones, cell by cell."""
        if self._whole is not None:
            return DenseVectors(self._whole.take(rows).flatten(1))
        result = WindowVectors(self.ground, np.ones(len(rows)))
        for y, x, objects, places in self._split(rows):
            top, left, values = self.maps.window(y, x)
            region = Region(top, left, top + values.shape[1], left + values.shape[2])
            key = self.maps.find(y, x)
            if key not in self._sums:
                group = self._group(key[0], key[1])
                self._sums[key] = Sums(values, region, self.ground, group, key[2:])
            which = np.arange(places.start, places.stop)
            chosen = np.arange(objects.start, objects.stop)
            result.pieces.append(
                Piece(which, region, values[objects], self._sums[key], chosen)
            )  # fmt: skip
        return result

    def _group(self, y: int, x: int) -> GroupSquares:
        """Return the squared lengths of the windows of a pair of groups."""
        if (y, x) not in self._groups:
            self._groups[y, x] = GroupSquares(self.maps.tensors[y][x])
        return self._groups[y, x]

    def full(self, rows: NDArray[np.int64]) -> Tensor:
        """Return some rows as whole maps, in memory that the next call may use again."""
        if self._whole is not None:
            return self._whole.take(rows).permute(0, 3, 1, 2).contiguous()
        shape = (len(rows), self.ground.channels, *self.ground.sides)
        if self._buffer is None or len(self._buffer) < len(rows):
            self._buffer = self.ground.values.new_empty(shape)
        out = self._buffer[: len(rows)]
        for y, x, objects, places in self._split(rows):
            top, left, values = self.maps.window(y, x)
            paste(out[places], top, left, values[objects], self.ground)
        return out

    def means(self, rows: NDArray[np.int64]) -> Tensor:
        """Return some rows' means over space, (row, channel)."""
        if self._means is None:
            self._means = Whole(self.maps, self.ground, self.tile).means()
        return self._means[send(torch.from_numpy(rows), self._means.device)]


@dataclass(frozen=True, eq=False)
class GroundRow:
    """The empty canvas's map as the only row of a block."""

    ground: Ground

    def vectors(self, rows: NDArray[np.int64]) -> WindowVectors | DenseVectors:
        """Return the row as a vector."""
        if batched(self.ground.values.device):
            return DenseVectors(self.ground.values.reshape(1, -1))
        return WindowVectors(self.ground, np.ones(1))

    def full(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the whole map, shape (1, channel, height, width)."""
        return self.ground.maps.contiguous()

    def means(self, rows: NDArray[np.int64]) -> Tensor:
        """Return means over space, shape (1, channel)."""
        found: Tensor = spatial_mean(self.ground.maps)
        return found


@dataclass(frozen=True, eq=False)
class WindowBlock:
    """Rows of one layer; see :class:`elsewhere.protocols.Block`.

    Parameters
    ----------
    stage, layer, objects, positions
        As there.
    source
        The windows.
    rows
        Which of the source's rows.
    """

    stage: Stage
    layer: str
    objects: NDArray[np.int64]
    positions: NDArray[np.int64]
    source: WindowRows | GroundRow
    rows: NDArray[np.int64]
    kept: ClassVar[Kept] = "full"
    half: ClassVar[bool] = False

    def full(self) -> Tensor:
        """Return whole maps, shape (row, channel, height, width)."""
        return self.source.full(self.rows)

    def mean(self) -> Tensor:
        """Return means over space, shape (row, channel), for which no map is built."""
        return self.source.means(self.rows)

    def sketch(self, size: int, seed: int) -> Tensor:
        """Return seeded sparse random projections, shape (row, size)."""
        result: Tensor = sketch(self.full().flatten(1), size, seed=seed)
        return result

    def vectors(self) -> WindowVectors | DenseVectors:
        """Return the rows as vectors, for which no map is built on a CPU."""
        return self.source.vectors(self.rows)
