"""What was computed on a device, on its way to the host: many numbers in one transfer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from elsewhere.measures.vectors import to_numpy, torch_of
from elsewhere.protocols import Array

MOST = 2**20
"""Numbers that wait on a device at most, about: 8 MiB."""

Use = Callable[..., None]


@dataclass
class Crossing:
    """Hands arrays to functions: those of the host at once, those of a device when many have come.

    Functions are called in the order in which they were given, with NumPy arrays, float64.

    Examples
    --------
    >>> crossing = Crossing()
    >>> crossing.take(lambda found: print(found.sum()), np.ones(3))
    3.0
    """

    _waiting: list[tuple[Use, tuple[Array, ...]]] = field(default_factory=list)
    _size: int = 0

    def take(self, use: Use, *arrays: Array) -> None:
        """Call `use` with the arrays, at once or when they have crossed."""
        tensors = [each for each in arrays if not isinstance(each, np.ndarray)]
        if not tensors and not self._waiting:
            use(*arrays)
            return
        self._waiting.append((use, arrays))
        self._size += sum(math.prod(each.shape) for each in tensors)
        if self._size > MOST:
            self.flush()

    def flush(self) -> None:
        """Let everything cross that waits, in one transfer, and use it."""
        waiting, self._waiting, self._size = self._waiting, [], 0
        every = [each for _, arrays in waiting for each in arrays]
        tensors = [each.reshape(-1).double() for each in every if not isinstance(each, np.ndarray)]
        numbers: Any = to_numpy(torch_of(tensors[0]).cat(tensors)) if tensors else None
        start = 0
        for use, arrays in waiting:
            here = []
            for each in arrays:
                if not isinstance(each, np.ndarray):
                    stop = start + math.prod(each.shape)
                    each, start = numbers[start:stop].reshape(each.shape), stop
                here.append(each)
            use(*here)
