"""Seeds of what is drawn, each its own: no draw depends on how much was drawn before."""

from __future__ import annotations

import hashlib

import torch

from elsewhere.models.generators import own_generators, seed_own_generators

__all__ = ["derive_seed", "make_generator", "own_generators", "seed_own_generators"]


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
