"""What an engine starts from: windows of the network's input, and the image that they lie on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
import torch

from elsewhere.models import Model
from elsewhere.models.forward import send
from elsewhere.recording.incremental.geometry import AxisWindows, Interval, Numbers
from elsewhere.recording.incremental.operations import split_classes
from elsewhere.recording.incremental.windows import Axes, Maps, Tile
from elsewhere.stimuli import Canvas
from elsewhere.types import Color

Tensor: TypeAlias = torch.Tensor


class WindowSource(Protocol):
    """Windows of the input at the locations of a grid."""

    @property
    def ground(self) -> Tensor:
        """The input outside the windows, (1, channel, height, width)."""

    @property
    def axes(self) -> Axes:
        """The windows along y and x.

        Locations may share a class only where their windows hold equal values and the ground's
        rows (or columns) beneath them are equal.
        """

    @property
    def n_objects(self) -> int:
        """How many there are for each location."""

    def windows(self, tile: Tile) -> Maps:
        """Return the windows of a tile."""


class Pasted:
    """Objects on an empty canvas.

    `ys` and `xs` are the locations along each axis, px. `patches` are the objects as the network
    takes them, (object, channel, side, side): all of the first variant, of the second, ...
    """

    def __init__(
        self,
        model: Model,
        canvas: Canvas,
        color: Color,
        ys: Sequence[int],
        xs: Sequence[int],
        patches: Tensor,
        n_variants: int = 1,
    ) -> None:
        pixels = torch.from_numpy(canvas.empty(color)[None]).to(model.device)
        self.ground: Tensor = model.transform.apply(pixels)
        y, x = (
            AxisWindows.of_canvas(canvas.size, canvas.object_size, places) for places in (ys, xs)
        )
        self.axes: Axes = (y, x)
        self._patches = patches.permute(0, 2, 3, 1).contiguous()
        self._n_variants = n_variants

    @property
    def n_objects(self) -> int:
        """Number of objects of one variant."""
        return len(self._patches) // self._n_variants

    def windows(self, tile: Tile) -> Maps:
        """Return the objects themselves, the same everywhere."""
        chosen = send(torch.from_numpy(tile.objects), self._patches.device)
        one = np.zeros(1, dtype=np.int64)
        return Maps(self.axes, ([one], [one]), [[self._patches[chosen][None, None]]])


class Covered:
    """An image of which one rectangle at a time is replaced by the same part of another image.

    Both are as the network takes them, (1, channel, height, width). The rectangles are all pairs of
    `rows` and `columns`: first one and the one after the last, px. None is empty, and none extends
    beyond the image.
    """

    n_objects = 1

    def __init__(
        self,
        image: Tensor,
        cover: Tensor,
        rows: Sequence[Interval],
        columns: Sequence[Interval],
    ) -> None:
        self.ground = image
        self._cover = cover[0].permute(1, 2, 0).contiguous()
        y, x = (
            _axis(image[0], cover[0], dim, stretches)
            for dim, stretches in ((1, rows), (2, columns))
        )
        self.axes: Axes = (y, x)

    def windows(self, tile: Tile) -> Maps:
        """Return the cover's rectangles."""
        y, x = (
            split_classes(axis, places, axis.length, len(axis.start))
            for axis, places in zip(self.axes, (tile.ys, tile.xs), strict=True)
        )
        return Maps(self.axes, (y, x), [[self._cut(a, b) for b in x] for a in y])

    def _cut(self, y: Numbers, x: Numbers) -> Tensor:
        lines = (
            axis.start[axis.first[group], None] + np.arange(axis.length[axis.first[group[0]]])
            for axis, group in zip(self.axes, (y, x), strict=True)
        )
        rows, columns = (send(torch.from_numpy(each), self._cover.device) for each in lines)
        found = self._cover[rows][:, :, columns]
        return found.permute(0, 2, 1, 3, 4).unsqueeze(2).contiguous()


def _axis(image: Tensor, cover: Tensor, dim: int, stretches: Sequence[Interval]) -> AxisWindows:
    """Return the windows along one axis; they share a class where neither image varies."""
    start = np.array([first for first, _ in stretches], dtype=np.int64)
    length = np.array([last - first for first, last in stretches], dtype=np.int64)
    constant = longest_constant(image, dim)
    low, high = longest_constant(torch.cat([image, cover]), dim)
    numbers: dict[tuple[int, int | None], int] = {}
    classes = [
        numbers.setdefault((b - a, None if low <= a and b <= high else a), len(numbers))
        for a, b in stretches
    ]
    return AxisWindows(image.shape[dim], start, length, np.array(classes), constant)


def longest_constant(values: Tensor, dim: int) -> Interval:
    """Return the longest run of cells between which `values` do not vary along `dim`.

    Examples
    --------
    >>> longest_constant(torch.tensor([[3.0, 1, 1, 1, 2, 2]]), 1)
    (1, 4)
    """
    size = values.shape[dim]
    rest = [d for d in range(values.ndim) if d != dim]
    before, after = values.narrow(dim, 0, size - 1), values.narrow(dim, 1, size - 1)
    differs = (before != after).sum(rest).cpu().numpy() > 0
    edges = [0, *(np.flatnonzero(differs) + 1).tolist(), size]
    runs = list(itertools.pairwise(edges))
    return max(runs, key=lambda run: run[1] - run[0])
