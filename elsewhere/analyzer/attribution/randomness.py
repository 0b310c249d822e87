"""Random numbers for what draws from global generators: seeded inside, untouched afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def seeded(seed: int, *keys: int) -> Iterator[None]:
    """Seed torch's and NumPy's global generators by `seed` and `keys`; put them back afterwards.

    Captum draws from both. What is drawn depends on nothing but the numbers given.

    Examples
    --------
    >>> with seeded(0, 3):
    ...     first = torch.rand(1)
    >>> with seeded(0, 3):
    ...     bool(first == torch.rand(1))
    True
    """
    words = np.random.SeedSequence([seed, *keys]).generate_state(4)
    before = np.random.get_state()  # noqa: NPY002
    on_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = [torch.cuda.current_device()] if on_gpu else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(words[0]) << 32 | int(words[1]))
        np.random.seed(words[2:])  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002
