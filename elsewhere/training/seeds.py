"""Seeds of what is drawn, each its own: no draw depends on how much was drawn before."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from elsewhere.models.generators import own_generators, seed_own_generators
from elsewhere.stimuli import Canvas
from elsewhere.types import Location

__all__ = [
    "derive_seed",
    "draw_location",
    "make_generator",
    "own_generators",
    "seed_own_generators",
]


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


def draw_location(canvas: Canvas, seed: int) -> Location:
    """Return the location that a seed draws of all valid ones, the same in all of its phases.

    Examples
    --------
    >>> draw_location(Canvas(48, 11), 100) == draw_location(Canvas(48, 11), 101)
    False
    """
    rng = np.random.default_rng(derive_seed(seed, "trained location"))
    y, x = rng.choice(canvas.valid, 2).tolist()
    return y, x
