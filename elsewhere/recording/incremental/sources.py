"""What an engine starts from: windows of the network's input, and the image that they lie on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

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

    @property
    def measured(self) -> bool:
        """Whether maps are looked at for where they do not vary, for which a device is waited."""

    def windows(self, tile: Tile) -> Maps:
        """Return the windows of a tile."""


class Pasted:
    """Objects on an empty canvas.

    `ys` and `xs` are the locations along each axis, px. `patches` are the objects as the network
    takes them, (object, channel, side, side): all of the first variant, of the second, ...
    """

    measured = True

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
    beyond the image. `runs` are what :func:`constant_runs` says of them, where that is at hand.
    """

    n_objects = 1
    measured = False  # each image would be waited for, and little of it does not vary

    def __init__(
        self,
        image: Tensor,
        cover: Tensor,
        rows: Sequence[Interval],
        columns: Sequence[Interval],
        runs: Runs | None = None,
    ) -> None:
        self.ground = image
        self._cover = cover[0].permute(1, 2, 0).contiguous()
        runs = constant_runs(image, cover)[0] if runs is None else runs
        y, x = (
            _axis(size, stretches, *known)
            for size, stretches, known in zip(image.shape[2:], (rows, columns), runs, strict=True)
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


def _axis(
    size: int, stretches: Sequence[Interval], constant: Interval, both: Interval
) -> AxisWindows:
    """Return the windows along one axis; they share a class where neither image varies."""
    start = np.array([first for first, _ in stretches], dtype=np.int64)
    length = np.array([last - first for first, last in stretches], dtype=np.int64)
    low, high = both
    numbers: dict[tuple[int, int | None], int] = {}
    classes = [
        numbers.setdefault((b - a, None if low <= a and b <= high else a), len(numbers))
        for a, b in stretches
    ]
    return AxisWindows(size, start, length, np.array(classes), constant)


Runs: TypeAlias = tuple[tuple[Interval, Interval], tuple[Interval, Interval]]
"""Along y and x, where an image does not vary, and where neither it nor its cover does."""


def constant_runs(images: Tensor, covers: Tensor) -> list[Runs]:
    """Return of each image where it does not vary, and where neither it nor its cover does.

    Both are (n, channel, height, width). A device is waited for once.

    Examples
    --------
    >>> image = torch.tensor([[[[3.0, 1, 1, 1, 2, 2]]]])
    >>> constant_runs(image, torch.zeros_like(image))
    [(((0, 1), (0, 1)), ((1, 4), (1, 4)))]
    """
    found = []
    for axis in (2, 3):
        size, rest = images.shape[axis], (1, 5 - axis)
        image, cover = (
            (each.narrow(axis, 0, size - 1) != each.narrow(axis, 1, size - 1)).sum(rest) > 0
            for each in (images, covers)
        )
        found.append(torch.stack([image, image | cover], 1))
    differs = torch.cat(found, 2).cpu().numpy()
    cut = images.shape[2] - 1
    return [
        (
            (_longest(one[0, :cut]), _longest(one[1, :cut])),
            (_longest(one[0, cut:]), _longest(one[1, cut:])),
        )
        for one in differs
    ]


def _longest(differs: NDArray[np.bool_]) -> Interval:
    """Return the longest run of cells that equal the one before."""
    edges = [0, *(np.flatnonzero(differs) + 1).tolist(), len(differs) + 1]
    return max(itertools.pairwise(edges), key=lambda run: run[1] - run[0])
