"""The generators that a network may draw from without being asked: torch's, NumPy's, Python's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

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
