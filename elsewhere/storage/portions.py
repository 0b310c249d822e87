"""Portions and chunks: how a sweep is cut into pieces, and those into what is compressed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from elsewhere.protocols import Design
from elsewhere.types import BATCH_ROWS

CHUNK_BYTES = 2**20
"""Raw size of a chunk: enough to compress well, little enough to read one object or location."""

PORTION_ROWS = 64
"""Images in a portion, about: what a killed recording computes again at most."""

PORTION_BYTES = 256 * 2**20
"""Raw bytes that a portion may keep, unless a single batch keeps more."""


@dataclass(frozen=True)
class Portion:
    """A block of objects and positions, with its place in the order of the sweep.

    `objects`, and `cells` along each axis, are the first and the last (excluded).
    """

    number: int
    objects: tuple[int, int]
    cells: tuple[tuple[int, int], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of objects, then of coordinates along each axis."""
        return tuple(stop - start for start, stop in (self.objects, *self.cells))

    @property
    def start(self) -> tuple[int, ...]:
        """First object and first index along each axis."""
        return (self.objects[0], *(start for start, _ in self.cells))

    @property
    def slices(self) -> tuple[slice, ...]:
        """Slices of the object dimension and of each axis."""
        return tuple(slice(start, stop) for start, stop in (self.objects, *self.cells))

    def rows(self, design: Design) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return each image's object and flat position, position by position."""
        ranges = [np.arange(start, stop) for start, stop in self.cells]
        cells = np.meshgrid(*ranges, indexing="ij")
        flat = np.ravel_multi_index([cell.ravel() for cell in cells], design.shape)
        objects = np.arange(*self.objects)
        return np.tile(objects, len(flat)), np.repeat(flat, len(objects)).astype(np.int64)


@dataclass(frozen=True)
class Portions:
    """A design cut into portions of `n_objects` objects by `n_cells` cells of its last axis.

    Gone through are those whose numbers are `chosen`, all by default.
    """

    design: Design
    n_objects: int
    n_cells: int
    chosen: tuple[int, ...] | None = None

    @classmethod
    def cut(
        cls,
        design: Design,
        *,
        bytes_per_image: int = 0,
        portion_bytes: int = PORTION_BYTES,
        rows: int = BATCH_ROWS,
    ) -> Portions:
        """Return the portions for a sweep that keeps `bytes_per_image` raw bytes of each image.

        A portion keeps at most `portion_bytes`, unless a single batch keeps more.

        A portion holds about 64 images, or eight larger batches: as many objects as there are, and
        as many neighbouring positions along the last axis as fill batches of `rows` images with
        the least padding.
        """
        n, n_last = len(design.objects), design.shape[-1]
        limit = PORTION_ROWS if rows <= BATCH_ROWS else 8 * rows
        if bytes_per_image:
            limit = min(limit, max(rows, portion_bytes // bytes_per_image))
        if n >= limit:
            return cls(design, max(rows, limit // rows * rows), 1)

        def padding(cells: int) -> float:
            return -cells * n % rows / (cells * n)

        cells = min(range(1, min(n_last, limit // n) + 1), key=lambda k: (padding(k), -k))
        return cls(design, n, cells)

    def __len__(self) -> int:
        return self.n_all if self.chosen is None else len(self.chosen)

    def __iter__(self) -> Iterator[Portion]:
        return map(self.portion, range(self.n_all) if self.chosen is None else self.chosen)

    @property
    def n_all(self) -> int:
        """Number of portions of the whole design."""
        *outer, last = self.design.shape
        blocks = math.ceil(len(self.design.objects) / self.n_objects)
        return math.prod(outer) * math.ceil(last / self.n_cells) * blocks

    def choose(self, numbers: Iterable[int]) -> Portions:
        """Return the same portions, of which only some are gone through."""
        return replace(self, chosen=tuple(numbers))

    def portion(self, number: int) -> Portion:
        """Return the portion of that number: cells in row-major order, for each all its objects."""
        *outer, last = self.design.shape
        n = len(self.design.objects)
        rest, block = divmod(number, math.ceil(n / self.n_objects))
        line, piece = divmod(rest, math.ceil(last / self.n_cells))
        start, first = piece * self.n_cells, block * self.n_objects
        cell = np.unravel_index(line, tuple(outer)) if outer else ()
        cells = (
            *((int(i), int(i) + 1) for i in cell),
            (start, min(start + self.n_cells, last)),
        )
        return Portion(number, (first, min(first + self.n_objects, n)), cells)

    def locate(self, objects: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the portion in which each image lies, shape (row,)."""
        last = self.design.shape[-1]
        n_blocks = math.ceil(len(self.design.objects) / self.n_objects)
        per_line = math.ceil(last / self.n_cells)
        line, cell = np.divmod(positions, last)
        block = line * per_line + cell // self.n_cells
        located: NDArray[np.int64] = block * n_blocks + objects // self.n_objects
        return located

    def chunk(self, shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
        """Return the chunk of a layer: whole chunks make a portion, a chunk is about 1 MiB.

        `shape` is that of what is stored of one activation, `itemsize` the bytes per value. There
        are objects, cells of each axis, then `shape` (the first of its dimensions cut, if a single
        activation is larger than a chunk).
        """
        outer = (1,) * (len(self.design.shape) - 1)
        size = math.prod(shape) * itemsize
        if size > CHUNK_BYTES:
            plane = math.prod(shape[1:]) * itemsize
            first = min(shape[0], max(1, CHUNK_BYTES // plane))
            return (1, *outer, 1, first, *shape[1:])
        room = CHUNK_BYTES // max(size, 1)
        choices = [
            (objects, cells)
            for objects in _divisors(min(self.n_objects, len(self.design.objects)))
            for cells in _divisors(self.n_cells)
            if objects * cells <= room
        ]
        objects, cells = max(choices, key=lambda c: (c[0] * c[1], -abs(c[0] - c[1])))
        return (objects, *outer, cells, *shape)


def _divisors(number: int) -> list[int]:
    return [k for k in range(1, number + 1) if number % k == 0]
