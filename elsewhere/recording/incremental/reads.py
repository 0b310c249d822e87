"""What an operation reads, gathered: windows of the map below, and the empty canvas around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from elsewhere.recording.incremental.gathering import Cells, Lines, batched
from elsewhere.recording.incremental.geometry import AxisReading, Numbers
from elsewhere.recording.incremental.windows import Axes, Ground, Maps

Tensor: TypeAlias = torch.Tensor
Readings: TypeAlias = tuple[AxisReading, AxisReading]


@dataclass(frozen=True)
class _Stretch:
    """Neighbouring classes of a group that are gathered alike, along one axis.

    Parameters
    ----------
    rows
        Which of the group's rows: first and number.
    group, source, step
        The source's group, first row in it, and the rows from one class to the next.
    ground, ground_step
        The first cell that is read, and the cells from one class to the next.
    inside
        Where the source's window goes to: first cell and the one after the last.
    skipped
        Cells of the source's window in front of what is read.
    """

    rows: tuple[int, int]
    group: int
    source: int
    step: int
    ground: int
    ground_step: int
    inside: tuple[int, int]
    skipped: int


def _stretches(
    reading: AxisReading, places: dict[int, tuple[int, int]], group: Numbers, first: Numbers
) -> list[_Stretch]:
    """Return the stretches of one axis's group of classes."""
    found: list[_Stretch] = []
    axis = reading.source
    for row, location in enumerate(first[group]):
        source_group, source = places[int(axis.classes[location])]
        start, length = int(reading.start[location]), int(reading.length[location])
        offset = int(axis.start[location]) - start
        low, high = max(offset, 0), min(offset + int(axis.length[location]), length)
        low, high = (low, high) if low < high else (0, 0)
        one = _Stretch((row, 1), source_group, source, 0, start, 0, (low, high), max(-offset, 0))
        last = found[-1] if found else None
        if last is not None and _continues(last, one):
            count = last.rows[1] + 1
            steps = (
                (one.source - last.source) // (count - 1),
                (one.ground - last.ground) // (count - 1),
            )
            found[-1] = _Stretch(
                (last.rows[0], count),
                last.group,
                last.source,
                steps[0],
                last.ground,
                steps[1],
                last.inside,
                last.skipped,
            )
        else:
            found.append(one)
    return found


def _continues(last: _Stretch, one: _Stretch) -> bool:
    alike = (last.group, last.inside, last.skipped) == (one.group, one.inside, one.skipped)
    if not alike:
        return False
    count = last.rows[1]
    if count == 1:
        return one.source >= last.source and one.ground >= last.ground
    return (one.source, one.ground) == (
        last.source + count * last.step,
        last.ground + count * last.ground_step,
    )


class Gatherer:
    """Gathers what an operation reads: windows of the map below, and the empty canvas around them.

    Parameters
    ----------
    maps
        The map below.
    readings
        What each location reads, along y and x.
    ground
        The empty canvas's map below.
    fill
        The value beyond its edges.
    axes
        Windows after the operation, which decide on classes.
    """

    def __init__(
        self, maps: Maps, readings: Readings, ground: Ground, fill: float, axes: Axes
    ) -> None:
        self._maps, self._readings = maps, readings
        before = [max(0, -int(r.start.min())) for r in readings]
        after = [max(0, int((r.start + r.length).max()) - r.source.size) for r in readings]
        self._before = before
        self._ground = ground.padded(before[0], after[0], before[1], after[1], fill)
        self._axes, self._known = axes, ground.known
        self._cells: Cells | None = None

    def stretches(self, axis: int, group: Numbers) -> list[_Stretch]:
        """Return how a group of classes along `axis` is gathered."""
        return _stretches(
            self._readings[axis], self._maps.places[axis], group, self._axes[axis].first
        )

    def gather(self, y: Numbers, x: Numbers, out: Tensor | None = None) -> tuple[Tensor, bool]:
        """Return what the classes `y` by `x` read, and whether it is a copy.

        Parameters
        ----------
        y, x
            Classes of one length along each axis.
        out
            Where to write it; may be a part of the channels.

        Returns
        -------
        Tensor
            (class, class, object, height, width, channel).
        bool
            False for the source's own memory.
        """
        along = self.stretches(0, y), self.stretches(1, x)
        shape = [int(r.length[a.first[g[0]]]) for r, a, g in zip(
            self._readings, self._axes, (y, x), strict=True
        )]  # fmt: skip
        if out is None and (found := self._as_it_is(along, shape)) is not None:
            return found, False
        some = self._maps.tensors[0][0]
        if batched(some.device):
            taken = self._take(y, x, shape)
            return (taken if out is None else out.copy_(taken)), True
        if out is None:
            out = some.new_empty((len(y), len(x), some.shape[2], *shape, some.shape[5]))
        for one in along[0]:
            for other in along[1]:
                self._fill(out, one, other)
        return out, True

    def _take(self, y: Numbers, x: Numbers, shape: list[int]) -> Tensor:
        """Return what the classes read, in few calls."""
        if self._cells is None:
            self._cells = Cells(self._maps, self._ground, self._known)
        lines = []
        for number, (group, reading) in enumerate(zip((y, x), self._readings, strict=True)):
            at = self._axes[number].first[group]
            groups, before = self._maps.groups[number], self._before[number]
            start = reading.start[at]
            lines.append(Lines.of(reading.source, groups, at, start, shape[number], before))
        n_objects = self._maps.tensors[0][0].shape[2]
        rows = np.indices((len(y), len(x), n_objects)).reshape(3, -1)
        taken = self._cells.take(lines[0], lines[1], (rows[0], rows[1], rows[2]))
        return taken.view(len(y), len(x), n_objects, *taken.shape[1:])

    def _as_it_is(
        self, along: tuple[list[_Stretch], list[_Stretch]], shape: list[int]
    ) -> Tensor | None:
        """Return the source's own tensor where exactly that is read."""
        if any(len(stretches) != 1 for stretches in along):
            return None
        y, x = along[0][0], along[1][0]
        tensor = self._maps.tensors[y.group][x.group]
        for one, size, cells, sides in zip(
            (y, x), tensor.shape[:2], tensor.shape[3:5], shape, strict=True
        ):
            whole = one.source == 0 and one.rows[1] == size and (one.step == 1 or size == 1)
            if not whole or one.skipped or one.inside != (0, sides) or cells != sides:
                return None
        return tensor

    def _fill(self, out: Tensor, y: _Stretch, x: _Stretch) -> None:
        part = out[y.rows[0] : sum(y.rows), x.rows[0] : sum(x.rows)]
        height, width = part.shape[3:5]
        (top, bottom), (left, right) = y.inside, x.inside
        if top < bottom and left < right:
            tensor = self._maps.tensors[y.group][x.group]
            size = (y.rows[1], x.rows[1], tensor.shape[2], bottom - top, right - left)
            strides = list(tensor.stride())
            offset = y.source * strides[0] + x.source * strides[1]
            offset += y.skipped * strides[3] + x.skipped * strides[4]
            strides[0], strides[1] = strides[0] * y.step, strides[1] * x.step
            view = tensor.as_strided(
                (*size, tensor.shape[5]), strides, tensor.storage_offset() + offset
            )
            part[:, :, :, top:bottom, left:right].copy_(view)
        else:
            top = bottom = height
            left = right = width
        for rows, columns in (
            ((0, top), (0, width)),
            ((bottom, height), (0, width)),
            ((top, bottom), (0, left)),
            ((top, bottom), (right, width)),
        ):
            if rows[0] < rows[1] and columns[0] < columns[1]:
                view = self._ground_view(y, x, part.shape[2], rows, columns)
                part[:, :, :, slice(*rows), slice(*columns)].copy_(view)

    def _ground_view(
        self,
        y: _Stretch,
        x: _Stretch,
        n_objects: int,
        rows: tuple[int, int],
        columns: tuple[int, int],
    ) -> Tensor:
        row, column, unit = self._ground.stride()
        first = y.ground + self._before[0] + rows[0], x.ground + self._before[1] + columns[0]
        size = (
            y.rows[1],
            x.rows[1],
            n_objects,
            rows[1] - rows[0],
            columns[1] - columns[0],
            self._ground.shape[2],
        )
        strides = (row * y.ground_step, column * x.ground_step, 0, row, column, unit)
        offset = self._ground.storage_offset() + first[0] * row + first[1] * column
        return self._ground.as_strided(size, strides, offset)
