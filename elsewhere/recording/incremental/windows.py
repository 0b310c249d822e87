"""Windows of feature maps: kept by class, and spread over whole maps again.

Windows lie in memory as (class along y, class along x, object, height, width, channel), so that
a row of cells is one contiguous stretch; as (n, channel, height, width) the same memory is in
channels-last order, in which convolutions run fastest on a CPU.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from elsewhere.models.forward import widened
from elsewhere.recording.incremental.geometry import AxisWindows, Numbers

Tensor: TypeAlias = torch.Tensor
Axes: TypeAlias = tuple[AxisWindows, AxisWindows]


@dataclass(frozen=True, eq=False)
class Tile:
    """Locations and objects that are worked on at a time.

    All are indices, those of locations along each axis.
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

    `values` are (height, width, channel).
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values.contiguous()
        self._padded: dict[tuple[int, int, int, int, float], Tensor] = {}
        self.known: dict[Hashable, Tensor] = {}

    @cached_property
    def wide(self) -> Ground:
        """This map in single precision at least: bfloat16 is widened, once."""
        values = widened(self.values)
        return self if values is self.values else Ground(values)

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

    @cached_property
    def squares(self) -> NDArray[np.float64]:
        """Sums of squares over all channels and the cells above and left."""
        values = torch.stack([(row.double() ** 2).sum(-1) for row in self.values])
        found: NDArray[np.float64] = _cumulated(values[..., None])[..., 0].cpu().numpy()
        return found

    @cached_property
    def table(self) -> Tensor:
        """Sums of each channel over the cells above and left, float64."""
        return _cumulated(self.values.double())


def _cumulated(values: Tensor) -> Tensor:
    height, width, depth = values.shape
    table = values.new_zeros(height + 1, width + 1, depth)
    table[1:, 1:] = values.cumsum(0).cumsum(1)
    return table


def measure_constants(values: Tensor) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the rows, and the columns, around the middle between which a map does not vary.

    `values` are (channel, height, width). Both come to the host together.
    """
    rows, columns = (
        (values == values.select(dim, values.shape[dim] // 2).unsqueeze(dim)).amin((0, 3 - dim))
        for dim in (1, 2)
    )
    same = torch.cat([rows, columns]).cpu().numpy()
    return _around(same[: len(rows)]), _around(same[len(rows) :])


def _around(same: NDArray[np.bool_]) -> tuple[int, int]:
    low = high = len(same) // 2
    while low > 0 and same[low - 1]:
        low -= 1
    while high < len(same) and same[high]:
        high += 1
    return low, high


@dataclass(eq=False)
class Maps:
    """The windows of a map for a tile of locations.

    `axes` are the windows of all locations along y and x, and `groups`, per axis, the classes that
    lie in one tensor, of one length. There is a tensor for each pair of groups: (class, class,
    object, height, width, channel).
    """

    axes: Axes
    groups: tuple[list[Numbers], list[Numbers]]
    tensors: list[list[Tensor]]

    @cached_property
    def places(self) -> list[dict[int, tuple[int, int]]]:
        """Per axis, class to its group and its row in it."""
        return [
            {int(c): (g, row) for g, group in enumerate(groups) for row, c in enumerate(group)}
            for groups in self.groups
        ]

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

    def widened(self) -> Maps:
        """Return the windows in single precision at least: bfloat16 is widened."""
        if all(tensor.dtype != torch.bfloat16 for row in self.tensors for tensor in row):
            return self
        return replace(self, tensors=[[widened(tensor) for tensor in row] for row in self.tensors])


def paste(out: Tensor, top: int, left: int, windows: Tensor, ground: Ground) -> None:
    """Write windows (row, h, w, channel) and the empty canvas around them into whole maps."""
    height, width = windows.shape[1:3]
    if (height, width) != ground.sides:
        out.copy_(ground.maps)
    out[:, :, top : top + height, left : left + width] = windows.permute(0, 3, 1, 2)
