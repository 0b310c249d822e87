"""Rows of a device on their way to the host: the device goes on meanwhile.

A piece of rows is copied on the device, from there into pinned memory on a stream of its own, and
taken by the host when its room is needed, or in the end: by then it has long been there.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elsewhere.measures.vectors import on_host, to_numpy, torch_of
from elsewhere.protocols import Array, Block, Stage

PIECE_BYTES = 2**25
"""What a piece has at most, but for a single row: copies of this size run at full speed."""

PIECES = 4
"""Pieces that may be on their way."""


@dataclass(frozen=True)
class Rows:
    """Which rows of a layer some values are."""

    stage: Stage
    layer: str
    objects: NDArray[np.int64]
    positions: NDArray[np.int64]

    @classmethod
    def of(cls, block: Block) -> Rows:
        """Return those of a block."""
        return cls(block.stage, block.layer, block.objects, block.positions)

    def part(self, first: int, n: int) -> Rows:
        """Return `n` of them."""
        chosen = slice(first, first + n)
        return Rows(self.stage, self.layer, self.objects[chosen], self.positions[chosen])


Take = Callable[[Rows, Any], None]
"""Called with the rows of a piece, and their values, on the host."""


class Lane:
    """Room for a piece on a device, and on the host."""

    def __init__(self, like: Array, size: int) -> None:
        torch = torch_of(like)
        self.size, self._device = size, like.device
        with torch.inference_mode(False):  # they are written in and out of it
            self.there = torch.empty(size, dtype=torch.uint8, device=like.device)
            self.here = self._make_here(torch)

    def _make_here(self, torch: Any) -> Any:
        return self.there

    def start(self, n: int) -> None:
        """Begin to bring the first `n` bytes, which were just written there, to the host."""
        self.here = self.there[:n]

    def wait(self) -> Array:
        """Return the bytes, as soon as they are on the host."""
        return self.here.cpu()


class CudaLane(Lane):
    """The same with pinned memory and a stream beside that of the computation."""

    def _make_here(self, torch: Any) -> Any:
        self._cuda = torch.cuda
        self._side = torch.cuda.Stream(self._device)
        return torch.empty(self.size, dtype=torch.uint8, pin_memory=True)

    def start(self, n: int) -> None:
        """Begin to bring the first `n` bytes, which were just written there, to the host."""
        self._side.wait_stream(self._cuda.current_stream(self._device))
        with self._cuda.stream(self._side):
            self.here[:n].copy_(self.there[:n], non_blocking=True)

    def wait(self) -> Array:
        """Return the bytes, as soon as they are on the host."""
        self._side.synchronize()
        return self.here


def open_lane(like: Array, size: int) -> Lane:
    """Return room for pieces on the device of a tensor."""
    return (CudaLane if like.device.type == "cuda" else Lane)(like, size)


@dataclass
class _Piece:
    lane: Lane
    shape: tuple[int, ...]
    dtype: Any
    rows: Rows
    take: Take


class Landing:
    """Brings rows of a device to the host, piece by piece, in the order in which they come."""

    def __init__(self) -> None:
        self._flying: deque[_Piece] = deque()
        self._free: list[Lane] = []

    def bring(self, rows: Rows, values: Array, take: Take) -> None:
        """Begin to bring values, shape (row, ...), to the host, where `take` gets them later.

        What they are a view of may be written over at once. Those that are there are taken after
        what is on its way.
        """
        if on_host(values):
            self._land_all()
            take(rows, values)
            return
        row_bytes = max(1, math.prod(values.shape[1:]) * values.dtype.itemsize)
        n_rows = max(1, PIECE_BYTES // row_bytes)
        for first in range(0, len(values), n_rows):
            part = values[first : first + n_rows]
            n_bytes = len(part) * row_bytes
            lane = self._lane(part, n_bytes)
            lane.there[:n_bytes].view(part.dtype).view(part.shape).copy_(part)
            lane.start(n_bytes)
            chosen = rows.part(first, len(part))
            self._flying.append(_Piece(lane, tuple(part.shape), part.dtype, chosen, take))

    def _lane(self, like: Array, n_bytes: int) -> Lane:
        if not self._free and len(self._flying) >= PIECES:
            self._land()
        lane = self._free.pop() if self._free else None
        if lane is None or lane.size < n_bytes or lane.there.device != like.device:
            lane = open_lane(like, max(PIECE_BYTES, n_bytes))
        return lane

    def _land(self) -> None:
        """Take the piece that was sent first."""
        piece = self._flying.popleft()
        n_bytes = math.prod(piece.shape) * piece.dtype.itemsize
        found = piece.lane.wait()[:n_bytes].view(piece.dtype).view(piece.shape)
        try:
            piece.take(piece.rows, to_numpy(found))
        finally:
            self._free.append(piece.lane)

    def drain(self) -> None:
        """Take all that is on its way, and let go of the room."""
        self._land_all()
        self._free.clear()

    def _land_all(self) -> None:
        while self._flying:
            self._land()

    def drop(self) -> None:
        """Forget what is on its way."""
        self._flying.clear()
        self._free.clear()
