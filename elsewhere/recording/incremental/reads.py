"""What an operation reads, gathered: windows of the map below, and the empty canvas around them."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    """Neighbouring classes of a group that are gathered alike, along one axis."""

    rows: tuple[int, int]  # of the group: first and number
    group: int  # of the source
    source: int  # the first row in it
    step: int  # rows from one class to the next
    ground: int  # the first cell that is read
    ground_step: int  # cells from one class to the next
    inside: tuple[int, int]  # where the source's window goes to: first cell, the one after the last
    skipped: int  # cells of the source's window in front of what is read


def _stretches(
    reading: AxisReading, places: dict[int, tuple[int, int]], locations: Numbers
) -> list[_Stretch]:
    """Return the stretches of a group of classes, each at a location of its own, along one axis."""
    found: list[_Stretch] = []
    axis = reading.source
    for row, location in enumerate(locations):
        source_group, source = places[int(axis.classes[location])]
        start, length = int(reading.start[location]), int(reading.length[location])
        offset = int(axis.start[location]) - start
        low, high = max(offset, 0), min(offset + int(axis.length[location]), length)
        low, high = (low, high) if low < high else (0, 0)
        one = _Stretch((row, 1), source_group, source, 0, start, 0, (low, high), max(-offset, 0))
        last = found[-1] if found else None
        if last is not None and _continues(last, one):
            count = last.rows[1]
            found[-1] = replace(
                last,
                rows=(last.rows[0], count + 1),
                step=(one.source - last.source) // count,
                ground_step=(one.ground - last.ground) // count,
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

    `maps` and `ground` are those below, and `fill` is the value beyond their edges. `axes` are the
    windows after the operation, which decide on classes.
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

    def gather(self, y: Numbers, x: Numbers, out: Tensor | None = None) -> tuple[Tensor, bool]:
        """Return what the classes `y` by `x`, of one length along each axis, read, and whether it
        is a copy.

        It is (class, class, object, height, width, channel), written to `out` where that is given,
        which may be a part of the channels; or the source's own memory.
        """
        each = list(zip(self._readings, self._axes, (y, x), strict=True))
        shape = [int(reading.length[axis.first[group[0]]]) for reading, axis, group in each]
        along_y, along_x = (
            _stretches(reading, places, axis.first[group])
            for (reading, axis, group), places in zip(each, self._maps.places, strict=True)
        )
        if out is None and (found := self._as_it_is(along_y, along_x, shape)) is not None:
            return found, False
        some = self._maps.tensors[0][0]
        if batched(some.device):
            taken = self._take(y, x, shape)
            return (taken if out is None else out.copy_(taken)), True
        if out is None:
            out = some.new_empty((len(y), len(x), some.shape[2], *shape, some.shape[5]))
        for one in along_y:
            for other in along_x:
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
        self, along_y: list[_Stretch], along_x: list[_Stretch], shape: list[int]
    ) -> Tensor | None:
        """Return the source's own tensor where exactly that is read."""
        if len(along_y) != 1 or len(along_x) != 1:
            return None
        y, x = along_y[0], along_x[0]
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
