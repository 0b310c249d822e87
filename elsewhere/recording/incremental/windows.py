"""Windows of feature maps: kept by class, gathered, run, spread over whole maps again.

Windows lie in memory as (class along y, class along x, object, height, width, channel), so that
a row of cells is one contiguous stretch; as (n, channel, height, width) the same memory is in
channels-last order, in which convolutions run fastest on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch

from elsewhere.recording.incremental.geometry import Axis, Numbers, Reading
from elsewhere.recording.incremental.rules import Global, Sliding, Together

Tensor: TypeAlias = torch.Tensor
Axes: TypeAlias = tuple[Axis, Axis]
Readings: TypeAlias = tuple[Reading, Reading]

GATHER_BYTES = 24 * 2**20
"""What is gathered for one call of an operation, about: enough rows, and little memory."""


@dataclass(frozen=True, eq=False)
class Tile:
    """Locations and objects that are worked on at a time.

    Parameters
    ----------
    ys, xs
        Indices of locations along each axis.
    objects
        Indices of objects.
    """

    ys: Numbers
    xs: Numbers
    objects: Numbers

    @property
    def shape(self) -> tuple[int, int, int]:
        """Locations along y and x, and objects."""
        return len(self.ys), len(self.xs), len(self.objects)

    @property
    def n_rows(self) -> int:
        """Number of images."""
        return len(self.ys) * len(self.xs) * len(self.objects)


class Ground:
    """The empty canvas's map, which windows are filled from, with its sums over rectangles.

    Parameters
    ----------
    values
        Shape (height, width, channel).
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values.contiguous()
        self._padded: dict[tuple[int, int, int, int, float], Tensor] = {}
        self._squares: Tensor | None = None
        self._sums: Tensor | None = None

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.values.shape[2]

    @property
    def maps(self) -> Tensor:
        """The same as a map of one row: (1, channel, height, width)."""
        return self.values.permute(2, 0, 1)[None]

    def padded(self, top: int, bottom: int, left: int, right: int, fill: float) -> Tensor:
        """Return the map within a frame of `fill`."""
        key = (top, bottom, left, right, fill)
        if not any(key[:4]):
            return self.values
        if key not in self._padded:
            height, width, channels = self.values.shape
            shape = (height + top + bottom, width + left + right, channels)
            framed = self.values.new_full(shape, fill)
            framed[top : top + height, left : left + width] = self.values
            self._padded[key] = framed
        return self._padded[key]

    @property
    def squares(self) -> Tensor:
        """Sums of squares over all channels and the cells above and left, float64, on the CPU."""
        if self._squares is None:
            values = torch.stack([(row.double() ** 2).sum(-1) for row in self.values])
            self._squares = _cumulated(values[..., None])[..., 0]
        return self._squares

    @property
    def sums(self) -> Tensor:
        """Sums of each channel over the cells above and left, float64, on the CPU."""
        if self._sums is None:
            self._sums = _cumulated(self.values.double())
        return self._sums


def _cumulated(values: Tensor) -> Tensor:
    height, width, depth = values.shape
    table = torch.zeros(height + 1, width + 1, depth, dtype=torch.float64)
    table[1:, 1:] = values.cumsum(0).cumsum(1).cpu()
    return table


def measure_constant(values: Tensor, dim: int) -> tuple[int, int]:
    """Return the cells around the middle between which `values` do not vary along `dim`."""
    size, middle = values.shape[dim], values.shape[dim] // 2
    other = values.select(dim, middle).unsqueeze(dim)
    rest = [d for d in range(values.ndim) if d != dim]
    same = (values == other).amin(dim=rest).cpu().numpy()
    low = high = middle
    while low > 0 and same[low - 1]:
        low -= 1
    while high < size and same[high]:
        high += 1
    return low, high


@dataclass(eq=False)
class Maps:
    """The windows of a map for a tile of locations.

    Parameters
    ----------
    axes
        Windows of all locations along y and x.
    groups
        Per axis, classes that lie in one tensor; they have one length.
    tensors
        For each pair of groups: (class, class, object, height, width, channel).
    """

    axes: Axes
    groups: tuple[list[Numbers], list[Numbers]]
    tensors: list[list[Tensor]]
    _places: list[dict[int, tuple[int, int]]] = field(default_factory=list)

    @property
    def places(self) -> list[dict[int, tuple[int, int]]]:
        """Per axis, class to its group and its row in it."""
        if not self._places:
            self._places = [
                {int(c): (g, row) for g, group in enumerate(groups) for row, c in enumerate(group)}
                for groups in self.groups
            ]
        return self._places

    def find(self, y: int, x: int) -> tuple[int, int, int, int]:
        """Return groups along y and x, and rows in them, of locations `y` and `x`."""
        gy, ry = self.places[0][int(self.axes[0].classes[y])]
        gx, rx = self.places[1][int(self.axes[1].classes[x])]
        return gy, gx, ry, rx

    def window(self, y: int, x: int) -> tuple[int, int, Tensor]:
        """Return the first cell along y and x, and all objects' windows (object, h, w, channel)."""
        gy, gx, ry, rx = self.find(y, x)
        top, left = int(self.axes[0].start[y]), int(self.axes[1].start[x])
        return top, left, self.tensors[gy][gx][ry, rx]

    @property
    def bytes(self) -> int:
        """Bytes of all windows."""
        return sum(t.numel() * t.element_size() for row in self.tensors for t in row)


def split_classes(axis: Axis, locations: Numbers, lengths: Numbers, limit: int) -> list[Numbers]:
    """Return the classes of `locations`, grouped by length and at most `limit` in a group.

    Parameters
    ----------
    axis
        The windows.
    locations
        Indices of the tile's locations.
    lengths
        For every location of the axis, the length to group by.
    limit
        Classes in a group.
    """
    chosen = np.array(list(dict.fromkeys(axis.classes[locations].tolist())), dtype=np.int64)
    by_length = lengths[axis.first[chosen]]
    groups = []
    for length in dict.fromkeys(by_length.tolist()):
        found = chosen[by_length == length]
        count = -(-len(found) // max(1, limit))
        groups += [part for part in np.array_split(found, count) if len(part)]
    return groups


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
    reading: Reading, places: dict[int, tuple[int, int]], group: Numbers, first: Numbers
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
        self._axes = axes

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
        if out is None:
            if (found := self._as_it_is(along, shape)) is not None:
                return found, False
            some = self._maps.tensors[0][0]
            out = some.new_empty((len(y), len(x), some.shape[2], *shape, some.shape[5]))
        for one in along[0]:
            for other in along[1]:
                self._fill(out, one, other)
        return out, True

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
    room = max(1, GATHER_BYTES // one)
    x = split_classes(axes[1], tile.xs, readings[1].length, room)
    y = split_classes(
        axes[0], tile.ys, readings[0].length, max(1, room // max(map(len, x)))
    )  # fmt: skip
    return y, x


def _reads_all(axis: Axis, reading: Reading, group: Numbers) -> bool:
    """Return whether classes read the whole map, and their windows there are the whole map."""
    locations = axis.first[group]
    before, source = axis.length[locations], reading.source
    return bool(
        (before == axis.size).all() and (source.length[locations] == source.size).all()
    )  # fmt: skip


def _only_map(readings: Readings) -> Readings:
    y, x = (
        Reading(r.source, np.zeros_like(r.start), np.full_like(r.length, r.source.size))
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
        parts.append(torch.stack(cells).to(windows.device))
    y, x = parts
    windows /= (y[:, None, :, None] * x[None, :, None, :])[:, :, None, :, :, None]


def run_together(
    treatment: Together,
    operands: Sequence[tuple[Maps, Readings, Ground, bool]],
    axes: Axes,
    tile: Tile,
) -> Maps:
    """Return the windows after an operation on several maps.

    Parameters
    ----------
    treatment
        The operation.
    operands
        Each map's windows, what is read of it, its ground, and whether it may be overwritten.
    axes
        Windows after the operation.
    tile
        The tile.
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


def spread(maps: Maps, ground: Ground, tile: Tile) -> Tensor:
    """Return whole maps, (row, channel, height, width), position by position, then objects."""
    n_y, n_x, n_objects = tile.shape
    out = ground.values.new_empty((n_y, n_x, n_objects, ground.channels, *ground.sides))
    for row, y in enumerate(tile.ys):
        for column, x in enumerate(tile.xs):
            paste(out[row, column], *maps.window(y, x), ground)
    return out.view(-1, ground.channels, *ground.sides)


def paste(out: Tensor, top: int, left: int, windows: Tensor, ground: Ground) -> None:
    """Write windows (row, h, w, channel) and the empty canvas around them into whole maps."""
    height, width = windows.shape[1:3]
    if (height, width) != ground.sides:
        out.copy_(ground.maps)
    out[:, :, top : top + height, left : left + width] = windows.permute(0, 3, 1, 2)


def class_sums(maps: Maps) -> Iterator[tuple[int, int, Tensor]]:
    """Yield each pair of groups with the sums of each channel over its windows, float64."""
    for gy, tensors in enumerate(maps.tensors):
        for gx, tensor in enumerate(tensors):
            yield gy, gx, tensor.sum((3, 4)).double()


def map_means(maps: Maps, ground: Ground, tile: Tile) -> Tensor:
    """Return each channel's mean over the map, shape (row, channel), without whole maps."""
    sums = {(gy, gx): values for gy, gx, values in class_sums(maps)}
    table = ground.sums
    whole = table[-1, -1]
    n_y, n_x, n_objects = tile.shape
    out = torch.empty((n_y, n_x, n_objects, ground.channels), dtype=torch.float64)
    for row, y in enumerate(tile.ys):
        for column, x in enumerate(tile.xs):
            gy, gx, ry, rx = maps.find(y, x)
            top, left = int(maps.axes[0].start[y]), int(maps.axes[1].start[x])
            bottom, right = top + int(maps.axes[0].length[y]), left + int(maps.axes[1].length[x])
            inside = table[bottom, right] - table[top, right] - table[bottom, left]
            outside = whole - (inside + table[top, left])
            out[row, column] = outside + sums[gy, gx][ry, rx].cpu()
    height, width = ground.sides
    out /= height * width
    return out.view(-1, ground.channels).float().to(ground.values.device)


def run_global(treatment: Global, maps: Maps, ground: Ground, tile: Tile) -> Tensor:
    """Return means over the map as whole activations."""
    values = map_means(maps, ground, tile)
    return values[:, :, None, None] if treatment.keeps else values
