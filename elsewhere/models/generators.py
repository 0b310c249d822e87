"""The generators that a network may draw from without being asked: torch's, NumPy's, Python's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")


@contextmanager
def own_generators(device: torch.device = CPU) -> Iterator[None]:
    """While active, what is drawn from the global generators leaves no trace afterwards."""
    devices: list[int] = []
    if device.type == "cuda":
        devices = [torch.cuda.current_device() if device.index is None else device.index]
    plain, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(arrays)  # noqa: NPY002


def seed_own_generators(seed: int, device: torch.device = CPU) -> None:
    """Seed the generators that networks draw from; only within :func:`own_generators`."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed([seed >> shift & 0xFFFFFFFF for shift in (0, 32)])  # noqa: NPY002
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


_DRAWING = {
    *("normal_", "uniform_", "trunc_normal_", "xavier_normal_", "xavier_uniform_"),
    *("kaiming_normal_", "kaiming_uniform_", "orthogonal_", "sparse_"),
}
"""What draws values into a tensor: methods of tensors, and functions of ``torch.nn.init``."""


class Undrawn(TorchFunctionMode):
    """While active, parameters that are drawn at random are zero instead.

    That is for networks whose parameters all come from a file: to draw those of VGG16 takes longer
    than to read them.

    Examples
    --------
    >>> with Undrawn():
    ...     linear = nn.Linear(2, 1)
    >>> linear.weight.tolist()
    [[0.0, 0.0]]
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Leave out what draws."""
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") in _DRAWING:
            drawn = args[0] if args else kwargs.get("tensor")
            if isinstance(drawn, nn.Parameter):
                with torch.no_grad():
                    return drawn.zero_()
        return function(*args, **kwargs)
