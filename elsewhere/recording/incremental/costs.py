"""What the engine's work costs: multiply-adds, memory, and how it is cut into tiles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from elsewhere.recording.incremental.trace import Step
from elsewhere.recording.incremental.windows import Tile


@dataclass(frozen=True)
class StepCost:
    """What a step takes for one image."""

    weights: int  # multiply-adds per cell of its output, over all channels
    bytes: int  # of its output
    cells: int  # of its output: height times width, or 1


def count_weights(step: Step, value: Any, look_up: Callable[[str], Any]) -> int:
    """Return the multiply-adds per output cell of a convolution or linear layer, else 0.

    `value` is the step's output for one image; `look_up` returns the value of a step by name.
    """
    weight: Any = None
    if isinstance(step.module, nn.Conv2d | nn.Linear):
        weight = step.module.weight
    elif step.name in ("conv2d", "linear"):
        args, kwargs = step.fill(look_up)
        weight = kwargs.get("weight", args[1] if len(args) > 1 else None)
    if not isinstance(weight, torch.Tensor) or not isinstance(value, torch.Tensor):
        return 0
    if value.ndim == 4 and weight.ndim == 4:
        return weight.numel()
    return weight.numel() * math.prod(value.shape[1:-1])


def choose_tiles(
    fits: Callable[[Tile], bool],
    ys: NDArray[np.int64],
    xs: NDArray[np.int64],
    objects: NDArray[np.int64],
) -> list[Tile]:
    """Return tiles of locations and objects that fit, or the smallest there are.

    All objects of a position stay together if they can, since sinks close a position when they have
    seen all of them; then rows are kept whole, since locations of one tile share windows.
    """

    def all_fit(n_y: int, n_x: int, n_objects: int) -> bool:
        some = itertools.product(_some(_cut(ys, n_y)), _some(_cut(xs, n_x)))
        return all(fits(Tile(y, x, objects[:n_objects])) for y, x in some)

    n_y, n_x, n_objects = len(ys), len(xs), len(objects)
    while not all_fit(n_y, n_x, n_objects):
        if n_y > 1:
            n_y = math.ceil(n_y / 2)
        elif n_x > 1:
            n_x = math.ceil(n_x / 2)
        elif n_objects > 1:
            n_objects = math.ceil(n_objects / 2)
        else:
            break
    return [
        Tile(y, x, chosen)
        for y in _cut(ys, n_y)
        for x in _cut(xs, n_x)
        for chosen in _cut(objects, n_objects)
    ]


def _cut(values: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Return parts of nearly equal size, of at most `size`."""
    return list(np.array_split(values, math.ceil(len(values) / size)))


def _some(parts: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Return the first, the middle and the last part."""
    return [parts[place] for place in sorted({0, len(parts) // 2, len(parts) - 1})]
