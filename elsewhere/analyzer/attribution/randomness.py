"""Random numbers of an object, the same wherever it stands: noise that moves with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def frame_generator(seed: int, key: Sequence[int], *more: int) -> torch.Generator:
    """Return the generator of an object's random numbers.

    Parameters
    ----------
    seed
        Of the run.
    key
        Of an image: its object's number first; where the object stands plays no part.
    more
        What tells one use from another.

    Examples
    --------
    >>> here = torch.rand(1, generator=frame_generator(0, (3, 1)))
    >>> bool(here == torch.rand(1, generator=frame_generator(0, (3, 8))))
    True
    """
    word = np.random.SeedSequence([seed, key[0], *more]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(word))


def frame_noise(
    generator: torch.Generator,
    count: int,
    corner: tuple[int, int],
    size: int,
    *,
    uniform: bool = False,
) -> torch.Tensor:
    """Return noise that moves with the object over the canvas.

    Parameters
    ----------
    generator
        From :func:`frame_generator`.
    count
        Fields of noise.
    corner
        First row and column of the object's box, px, on the canvas.
    size
        Side of the canvas, px.
    uniform
        Whether it is uniform between -1 and 1, rather than standard normal.

    Returns
    -------
    float32 (count, 3, size, size)
        From fields twice as wide, of which the canvas shows the part around the object. They are
        drawn one by one, so that it does not matter how many are asked for at a time.
    """
    top, left = (size - place for place in corner)
    found = torch.empty(count, 3, size, size)
    for row in range(count):
        wide = torch.empty(3, 2 * size, 2 * size)
        if uniform:
            wide.uniform_(-1, 1, generator=generator)
        else:
            wide.normal_(generator=generator)
        found[row] = wide[:, top : top + size, left : left + size]
    return found
