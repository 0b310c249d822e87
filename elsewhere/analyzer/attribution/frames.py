"""The object's frame: where a map lies on the canvas, and what of it moves with the object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from elsewhere.errors import InputError
from elsewhere.measures.vectors import upload
from elsewhere.models import Layer, Model
from elsewhere.models.forward import Paster, paste
from elsewhere.models.names import torchvision_part
from elsewhere.stimuli import Canvas, ObjectSet
from elsewhere.types import Location

BASELINES = ("empty", "black", "blurred", "blurred:SIGMA")
"""What a pixel is compared with: the empty canvas, black, or the blurred image (sigma in px)."""


@dataclass(frozen=True)
class Frame:
    """The object's box, widened by a margin on every side.

    Parameters
    ----------
    size
        Side of the box, px.
    margin
        px.

    Examples
    --------
    >>> Frame(10, 2).offsets.tolist()[:3], Frame(10, 2).side
    ([-2, -1, 0], 14)
    """

    size: int
    margin: int

    def __post_init__(self) -> None:
        if not isinstance(self.margin, int) or self.margin < 0:
            raise InputError(
                f"the margin is {self.margin!r}; expected a whole number of px, from 0"
            )

    @property
    def side(self) -> int:
        """Side of the frame, px."""
        return self.size + 2 * self.margin

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Rows or columns of the frame, counted from the box's first, px."""
        return np.arange(-self.margin, self.size + self.margin)

    def cut(
        self, maps: NDArray[np.float32], corners: Sequence[tuple[int, int]]
    ) -> NDArray[np.float32]:
        """Return the part of each map that lies in the object's frame, NaN off the canvas.

        Parameters
        ----------
        maps
            (n, height, width), over the canvas.
        corners
            The box's first row and column on each map.

        Returns
        -------
        float32 (n, side, side)
        """
        padded = np.pad(maps, ((0, 0), *((self.margin, self.margin),) * 2), constant_values=np.nan)
        return np.stack(
            [
                each[top : top + self.side, left : left + self.side]
                for each, (top, left) in zip(padded, corners, strict=True)
            ]
        ).astype(np.float32)


class Scenes:
    """Inputs of the network: objects at locations, and what they are compared with.

    Parameters
    ----------
    model
        The network: its device and its input.
    objects
        The objects.
    canvas
        The canvas.
    """

    def __init__(self, model: Model, objects: ObjectSet, canvas: Canvas) -> None:
        paster, black = (
            Paster(ground, model.transform, rows=1, device=model.device)
            for ground in (canvas, replace(canvas, background=0))
        )
        self.canvas, self.color = canvas, paster.color
        self._patches = paster.load(objects)
        self.empty, self.black = paster.empty(), black.empty()

    def images(self, number: int, corners: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Return an object with its box's first row and column at `corners`, (n, 3, y, x)."""
        found = self.empty.repeat(len(corners), 1, 1, 1)
        patches = self._patches[number : number + 1].expand(len(corners), -1, -1)
        paste(found, patches, upload(np.array(corners), found.device))
        return found

    def corners(self, locations: Sequence[Location]) -> list[tuple[int, int]]:
        """Return the box's first row and column for each location."""
        return [self.canvas.top_left(place) for place in locations]

    def baseline(self, name: str, found: torch.Tensor) -> torch.Tensor:
        """Return what the images `found` are compared with, of their shape."""
        kind, sigma = parse_baseline(name, self.canvas)
        if kind == "blurred":
            reach = min(2 * int(np.ceil(3 * sigma)) + 1, 2 * (self.canvas.size // 2) - 1)
            blur = torchvision_part("transforms.functional").gaussian_blur
            blurred: torch.Tensor = blur(found, [reach, reach], [sigma, sigma])
            return blurred
        plain = self.empty if kind == "empty" else self.black
        return plain.expand_as(found).clone()


def parse_baseline(name: str, canvas: Canvas) -> tuple[str, float]:
    """Return the kind of baseline and, of a blurred one, sigma in px.

    Raises
    ------
    InputError
        No such baseline.

    Examples
    --------
    >>> parse_baseline("blurred", Canvas(224, 50)), parse_baseline("blurred:3", Canvas(224, 50))
    (('blurred', 12.5), ('blurred', 3.0))
    """
    kind, separator, text = name.partition(":")
    if kind in ("empty", "black") and not separator:
        return kind, 0.0
    if kind == "blurred":
        try:
            sigma = float(text) if separator else canvas.object_size / 4
        except ValueError:
            sigma = 0.0
        if np.isfinite(sigma) and sigma > 0:
            return kind, sigma
    raise InputError(f"cannot read {name!r} as a baseline; expected one of {', '.join(BASELINES)}")


def upsample(maps: torch.Tensor, layer: Layer, size: int) -> torch.Tensor:
    """Return a layer's map at every pixel of the canvas, linearly between its cells' centres.

    Parameters
    ----------
    maps
        (n, channel, height, width).
    layer
        Its stride and offset say where the cells' receptive fields are centred; where they are
        not known the cells are taken to tile the canvas.
    size
        Side of the canvas, px.

    Returns
    -------
    (n, channel, size, size); beyond the outermost centres the value of the outermost cell.
    """
    for axis in (2, 3):
        count = maps.shape[axis]
        stride = size / count if layer.stride is None else float(layer.stride)
        offset = (stride - 1) / 2 if layer.offset is None else layer.offset
        at = ((torch.arange(size, dtype=torch.float64) - offset) / stride).clamp(0, count - 1)
        low = at.floor().long().clamp(max=max(count - 2, 0))
        share = (at - low).to(maps)
        shape = (1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)
        share, low = share.reshape(shape), low.to(maps.device)
        high = (low + 1).clamp(max=count - 1)
        before, after = maps.index_select(axis, low), maps.index_select(axis, high)
        maps = before + share * (after - before)  # equal neighbours stay as they are
    return maps
