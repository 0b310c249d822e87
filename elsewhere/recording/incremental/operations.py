"""Operations on windows: each group of windows of one size is gathered and run at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch

from elsewhere.models.forward import send
from elsewhere.recording.incremental.gathering import Whole, batched
from elsewhere.recording.incremental.geometry import AxisReading, AxisWindows, Numbers
from elsewhere.recording.incremental.reads import Gatherer, Readings
from elsewhere.recording.incremental.treatments import Global, Sliding, Together
from elsewhere.recording.incremental.windows import Axes, Ground, Maps, Tile

Tensor: TypeAlias = torch.Tensor

GATHER_BYTES = 24 * 2**20
"""What is gathered for one call of an operation, about: enough rows, and little memory."""

GATHER_BYTES_ON_DEVICE = 2**30
"""The same on a GPU."""


def split_classes(
    axis: AxisWindows, locations: Numbers, lengths: Numbers, limit: int
) -> list[Numbers]:
    """Return the classes of `locations`, grouped by length and at most `limit` in a group.

    `locations` are indices of the tile's; `lengths` are those to group by, of every location of the
    axis.
    """
    chosen = np.array(list(dict.fromkeys(axis.classes[locations].tolist())), dtype=np.int64)
    by_length = lengths[axis.first[chosen]]
    groups = []
    for length in dict.fromkeys(by_length.tolist()):
        found = chosen[by_length == length]
        count = -(-len(found) // max(1, limit))
        groups += [part for part in np.array_split(found, count) if len(part)]
    return groups


def as_batch(windows: Tensor) -> Tensor:
    """Return windows as (n, channel, height, width), in channels-last order, without a copy."""
    return windows.reshape(-1, *windows.shape[3:]).permute(0, 3, 1, 2)


def from_batch(batch: Tensor, like: Tensor) -> Tensor:
    """Return a batch as windows of as many classes and objects as `like`."""
    values = batch.permute(0, 2, 3, 1).contiguous()
    return values.view(*like.shape[:3], *values.shape[1:])


def run_sliding(
    treatment: Sliding, maps: Maps, readings: Readings, ground: Ground, axes: Axes, tile: Tile
) -> Maps:
    """Return the windows after a sliding operation."""
    gatherer = Gatherer(maps, readings, ground, treatment.fill, axes)
    groups = _sliding_groups(maps, readings, axes, tile)
    tensors = []
    for y in groups[0]:
        row = []
        for x in groups[1]:
            whole = [
                _reads_all(axis, reading, group)
                for axis, reading, group in zip(axes, readings, (y, x), strict=True)
            ]
            if all(whole):
                inner = _only_map(readings)
                windows, _ = Gatherer(maps, inner, ground, treatment.fill, axes).gather(y, x)
                result = from_batch(treatment.whole(as_batch(windows)), windows)
            else:
                windows, _ = gatherer.gather(y, x)
                result = from_batch(treatment.run(as_batch(windows)), windows)
                if treatment.divisor is not None:
                    _divide(result, treatment.divisor, axes, (y, x))
            row.append(result)
        tensors.append(row)
    return Maps(axes, groups, tensors)


def _sliding_groups(
    maps: Maps, readings: Readings, axes: Axes, tile: Tile
) -> tuple[list[Numbers], list[Numbers]]:
    some = maps.tensors[0][0]
    longest = [int(reading.length.max()) for reading in readings]
    one = longest[0] * longest[1] * some.shape[2] * some.shape[5] * some.element_size()
    most = GATHER_BYTES_ON_DEVICE if batched(some.device) else GATHER_BYTES
    room = max(1, most // one)
    x = split_classes(axes[1], tile.xs, readings[1].length, room)
    beside = max(1, room // max(map(len, x)))
    return split_classes(axes[0], tile.ys, readings[0].length, beside), x


def _reads_all(axis: AxisWindows, reading: AxisReading, group: Numbers) -> bool:
    """Return whether classes read the whole map, and their windows there are the whole map."""
    locations = axis.first[group]
    both = (axis, reading.source)
    return all(bool((each.length[locations] == each.size).all()) for each in both)


def _only_map(readings: Readings) -> Readings:
    y, x = (
        AxisReading(r.source, np.zeros_like(r.start), np.full_like(r.length, r.source.size))
        for r in readings
    )
    return y, x


def _divide(
    windows: Tensor, divisor: tuple[Tensor, Tensor], axes: Axes, groups: tuple[Numbers, Numbers]
) -> None:
    """Divide windows by what belongs to each cell of the map."""
    parts = []
    for counts, axis, group in zip(divisor, axes, groups, strict=True):
        cells = [
            counts[int(axis.start[i]) : int(axis.start[i] + axis.length[i])]
            for i in axis.first[group]
        ]
        parts.append(send(torch.stack(cells), windows.device))
    y, x = parts
    windows /= (y[:, None, :, None] * x[None, :, None, :])[:, :, None, :, :, None]


def run_together(
    treatment: Together,
    operands: Sequence[tuple[Maps, Readings, Ground, bool]],
    axes: Axes,
    tile: Tile,
) -> Maps:
    """Return the windows after an operation on several maps.

    `operands` are each map's windows, what is read of it, its ground, and whether it may be
    overwritten; `axes` are the windows after the operation.
    """
    groups = _together_groups(operands, axes, tile)
    gatherers = [Gatherer(m, r, g, 0.0, axes) for m, r, g, _ in operands]
    tensors = []
    for y in groups[0]:
        row = []
        for x in groups[1]:
            if treatment.stacks:
                row.append(_stack(operands, gatherers, y, x))
                continue
            parts, copied = zip(*(g.gather(y, x) for g in gatherers), strict=True)
            first = parts[0] if copied[0] or operands[0][3] else parts[0].clone()
            batch = treatment.run(as_batch(first), *map(as_batch, parts[1:]))
            row.append(from_batch(batch, first))
        tensors.append(row)
    return Maps(axes, groups, tensors)


def _stack(
    operands: Sequence[tuple[Maps, Readings, Ground, bool]],
    gatherers: Sequence[Gatherer],
    y: Numbers,
    x: Numbers,
) -> Tensor:
    """Gather maps side by side, channel by channel."""
    some = operands[0][0].tensors[0][0]
    sides = [
        int(reading.length[axis.first[group[0]]])
        for reading, axis, group in zip(operands[0][1], gatherers[0]._axes, (y, x), strict=True)
    ]
    channels = [ground.channels for _, _, ground, _ in operands]
    out = some.new_empty((len(y), len(x), some.shape[2], *sides, sum(channels)))
    first = 0
    for gatherer, count in zip(gatherers, channels, strict=True):
        gatherer.gather(y, x, out[..., first : first + count])
        first += count
    return out


def _together_groups(
    operands: Sequence[tuple[Maps, Readings, Ground, bool]], axes: Axes, tile: Tile
) -> tuple[list[Numbers], list[Numbers]]:
    """Return the groups of an operand that already has the result's windows, or new ones."""
    for maps, readings, _, _ in operands:
        same = all(
            reading.is_window and np.array_equal(axis.classes, maps_axis.classes)
            for reading, axis, maps_axis in zip(readings, axes, maps.axes, strict=True)
        )
        if same:
            return maps.groups
    y, x = (
        split_classes(axis, locations, axis.length, len(axis.start))
        for axis, locations in zip(axes, (tile.ys, tile.xs), strict=True)
    )
    return y, x


def run_global(treatment: Global, maps: Maps, ground: Ground, tile: Tile) -> Tensor:
    """Return means over the map as whole activations."""
    values = Whole(maps, ground, tile).means()
    return values[:, :, None, None] if treatment.keeps else values


def run_pointwise(run: Callable[[Tensor], Tensor], maps: Maps, axes: Axes) -> Maps:
    """Return the windows after an operation cell by cell."""
    tensors = [
        [from_batch(run(as_batch(windows)), windows) for windows in row] for row in maps.tensors
    ]
    return Maps(axes, maps.groups, tensors)
