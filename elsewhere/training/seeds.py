"""Seeds of what is drawn, each its own: no draw depends on how much was drawn before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, *names: object) -> int:
    """Return a seed that depends on `seed` and `names` only.

    Examples
    --------
    >>> derive_seed(0, "order", 1) == derive_seed(0, "order", 2)
    False
    """
    text = "\0".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def make_generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator of its own, seeded."""
    generator = torch.Generator(device)
    generator.manual_seed(seed)
    return generator


@contextmanager
def own_generators(device: torch.device) -> Iterator[None]:
    """While active, what is drawn from torch's own generators leaves no trace afterwards."""
    devices: list[int] = []
    if device.type == "cuda":
        devices = [torch.cuda.current_device() if device.index is None else device.index]
    with torch.random.fork_rng(devices=devices):
        yield


def seed_own_generators(seed: int, device: torch.device) -> None:
    """Seed the generators dropout draws from; only within :func:`own_generators`."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
