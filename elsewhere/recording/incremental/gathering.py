"""Windows gathered on a GPU, where calls cost more than what they move.

All windows of a map lie in one matrix of cells, and after them the empty canvas's map. What is
read, of whichever windows and around them, is then one selection of rows of that matrix.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch

from elsewhere.measures.vectors import sums
from elsewhere.models.forward import send
from elsewhere.recording.incremental.geometry import AxisWindows, Numbers
from elsewhere.recording.incremental.windows import Ground, Maps, Tile, paste

Tensor: TypeAlias = torch.Tensor


MOST_PLACES = 2**22
"""Cells of selections from a map whose places are kept, at most: 16 MiB."""


def batched(device: torch.device) -> bool:
    """Return whether windows are gathered in few large calls, as a GPU wants it."""
    return device.type != "cpu"


@dataclass(frozen=True, eq=False)
class Lines:
    """What is read along one axis at each of some locations.

    `group` and `row` are those of the location's window. `cells` are the cells of the window,
    (location, cell), -1 beyond it, and `ground` the same as lines of the empty canvas's map within
    its frame.
    """

    group: Numbers
    row: Numbers
    cells: Numbers
    ground: Numbers

    @classmethod
    def of(
        cls, axis: AxisWindows, groups: Sequence[Numbers], locations: Numbers, start: Numbers,
        length: int, before: int = 0,
    ) -> Lines:  # fmt: skip
        """Return what `locations` read from `start` on, `before` being the frame's width."""
        group, row = np.zeros((2, int(axis.classes.max()) + 1), dtype=np.int64)
        for number, classes in enumerate(groups):
            group[classes], row[classes] = number, np.arange(len(classes))
        classes = axis.classes[locations]
        lines = start[:, None] + np.arange(length)
        cells = lines - axis.start[locations, None]
        cells[(cells < 0) | (cells >= axis.length[locations, None])] = -1
        return cls(group[classes], row[classes], cells, lines + before)


class Cells:
    """The cells of a map's windows and of the empty canvas's map, as rows of one matrix.

    `ground` is the empty canvas's map, or that within a frame: (height, width, channel). In `known`
    the places of what was read are kept: what is read likewise in another tile takes no transfer.
    """

    def __init__(
        self, maps: Maps, ground: Tensor, known: dict[Hashable, Tensor] | None = None
    ) -> None:
        self._known = {} if known is None else known
        self._maps, self._width = maps, ground.shape[1]
        tensors = [tensor for row in maps.tensors for tensor in row]
        self._channels = ground.shape[2]
        self.values = torch.cat([t.reshape(-1, self._channels) for t in (*tensors, ground)])
        ends = np.cumsum([tensor.numel() // self._channels for tensor in tensors])
        self._end = int(ends[-1])
        shape = len(maps.tensors), len(maps.tensors[0])
        self._first = np.concatenate([[0], ends[:-1]]).reshape(shape)
        self._n_objects = tensors[0].shape[2]
        self._heights = np.array([row[0].shape[3] for row in maps.tensors])
        self._widths = np.array([tensor.shape[4] for tensor in maps.tensors[0]])
        self._columns = np.array([tensor.shape[1] for tensor in maps.tensors[0]])

    def take(self, y: Lines, x: Lines, rows: tuple[Numbers, Numbers, Numbers]) -> Tensor:
        """Return what some rows read, (row, height, width, channel), a copy.

        `rows` are, of each row, its place in `y` and in `x`, and its object in the tile, (row,)
        each.
        """
        along_y, along_x, objects = rows
        gy, gx = y.group[along_y], x.group[along_x]
        area = self._heights[gy] * self._widths[gx]
        windows = y.row[along_y] * self._columns[gx] + x.row[along_x]
        first = self._first[gy, gx] + (windows * self._n_objects + objects) * area
        ground = self._end + y.ground * self._width
        parts = first, self._widths[gx], along_y, along_x, y.cells, ground, x.cells, x.ground
        packed = np.concatenate([part.ravel() for part in parts])
        key = (packed.tobytes(), y.cells.shape, x.cells.shape)
        index = self._known.get(key)
        if index is None:
            index = self._places(parts, packed)
            if sum(map(Tensor.numel, self._known.values())) + index.numel() > MOST_PLACES:
                self._known.clear()
            if index.numel() <= MOST_PLACES:
                self._known[key] = index
        taken = self.values.index_select(0, index.view(-1))
        return taken.view(*index.shape, self._channels)

    def _places(self, parts: Sequence[Numbers], packed: Numbers) -> Tensor:
        """Return which cells are read, (row, height, width), formed on the device."""
        kind = torch.int32 if len(self.values) < 2**31 else torch.int64
        sent = send(torch.from_numpy(packed).to(kind), self.values.device)
        found = torch.split(sent, [part.size for part in parts])
        start, width, iy, ix = found[:4]
        cells_y, lines_y, cells_x, lines_x = (
            each.view(part.shape).index_select(0, rows)
            for each, part, rows in zip(found[4:], parts[4:], (iy, iy, ix, ix), strict=True)
        )
        inside = (cells_y >= 0)[:, :, None] & (cells_x >= 0)[:, None]
        cells_y = start[:, None] + width[:, None] * cells_y
        return torch.where(
            inside,
            cells_y[:, :, None] + cells_x[:, None],
            lines_y[:, :, None] + lines_x[:, None],
        )


@dataclass(eq=False)
class Whole:
    """Whole maps, of any rows of a tile: position by position, then objects."""

    maps: Maps
    ground: Ground
    tile: Tile

    @cached_property
    def _cells(self) -> Cells:
        return Cells(self.maps, self.ground.values, self.ground.known)

    @cached_property
    def _lines(self) -> tuple[Lines, Lines]:
        y, x = (
            Lines.of(axis, groups, locations, np.zeros_like(locations), size)
            for axis, groups, locations, size in zip(
                self.maps.axes,
                self.maps.groups,
                (self.tile.ys, self.tile.xs),
                self.ground.sides,
                strict=True,
            )
        )
        return y, x

    def take(self, rows: Numbers) -> Tensor:
        """Return some rows, (row, height, width, channel)."""
        _, n_x, n_objects = self.tile.shape
        places, objects = np.divmod(rows, n_objects)
        y, x = np.divmod(places, n_x)
        return self._cells.take(*self._lines, (y, x, objects))

    def means(self) -> Tensor:
        """Return each channel's mean over the map for every row, (row, channel)."""
        y, x = self._lines
        windowed = [
            torch.as_tensor(sums(windows, (3, 4))) for row in self.maps.tensors for windows in row
        ]  # (class, class, object, channel) each
        ends = np.cumsum([t.shape[0] * t.shape[1] for t in windowed])
        first = np.concatenate([[0], ends[:-1]]).reshape(len(self.maps.tensors), -1)
        columns = np.array([t.shape[1] for t in self.maps.tensors[0]])
        gy, gx = y.group[:, None], x.group[None]
        windows = first[gy, gx] + y.row[:, None] * columns[gx] + x.row[None]
        edges = []
        for axis, locations in zip(self.maps.axes, (self.tile.ys, self.tile.xs), strict=True):
            start = axis.start[locations]
            edges.append((start, start + axis.length[locations]))
        (top, bottom), (left, right) = edges
        width = self.ground.sides[1] + 1
        corners = [a[:, None] * width + b for a in (top, bottom) for b in (left, right)]
        index = send(torch.from_numpy(np.stack([windows, *corners])), self.ground.values.device)
        every = torch.cat([t.flatten(0, 1) for t in windowed]).index_select(0, index[0].view(-1))
        table = self.ground.table.flatten(0, 1)
        a, b, c, d = table.index_select(0, index[1:].view(-1)).view(4, -1, table.shape[1])
        outside = table[-1] - (d - b - c + a)
        total: Tensor = (outside[:, None] + every).flatten(0, 1)
        return (total / math.prod(self.ground.sides)).to(self.ground.values.dtype)


def spread(maps: Maps, ground: Ground, tile: Tile) -> Tensor:
    """Return whole maps, (row, channel, height, width), position by position, then objects."""
    n_y, n_x, n_objects = tile.shape
    if batched(ground.values.device):
        taken = Whole(maps, ground, tile).take(np.arange(tile.n_rows))
        return taken.permute(0, 3, 1, 2).contiguous()
    out = ground.values.new_empty((n_y, n_x, n_objects, ground.channels, *ground.sides))
    for row, y in enumerate(tile.ys):
        for column, x in enumerate(tile.xs):
            paste(out[row, column], *maps.window(y, x), ground)
    return out.view(-1, ground.channels, *ground.sides)
