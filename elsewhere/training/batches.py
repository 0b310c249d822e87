"""What is classified: which objects were held out, and how many canvases at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import InputError
from elsewhere.models import Model, list_layers
from elsewhere.stimuli import Canvas, ObjectSet
from elsewhere.types import format_bytes

ROWS = 64
"""Canvases in every forward pass: results depend on the batch size in the last digits."""
LEAST_ROWS = 8
"""As many where memory is short; how many there were stands in the result's numerics."""


def fitting_rows(
    model: Model, objects: ObjectSet, canvas: Canvas, n_places: int, max_memory: int
) -> int:
    """Return how many canvases are run at a time so that everything fits the memory.

    Raises
    ------
    InputError
        Not even the fewest fit; the message says what they would take.
    """
    sizes = sorted(layer.bytes for layer in list_layers(model, canvas.size))
    patches = (
        len(objects) * canvas.object_size**2 * 4 * 8
    )  # as they are, and as the device has them
    trials = len(objects) * n_places * 64  # choices and margins, and what is made of them
    each = 3 * 12 * canvas.size**2 + sum(sizes[-4:])
    rows = ROWS
    while rows > LEAST_ROWS and patches + trials + rows * each > max_memory:
        rows //= 2
    if (needed := patches + trials + rows * each) > max_memory:
        raise InputError(
            f"{len(objects)} objects at {n_places} locations take about {format_bytes(needed)}, "
            f"{rows} canvases at a time, above --max-memory {format_bytes(max_memory)}; take a "
            "coarser grid, fewer exemplars, or more memory"
        )
    return rows


def check_held_out(held_out: ArrayLike | None, objects: ObjectSet) -> NDArray[np.bool_]:
    """Return which objects were held out, bool (object,); none of them by default."""
    if held_out is None:
        return np.zeros(len(objects), bool)
    mask = np.asarray(held_out)
    if mask.dtype != bool or mask.shape != (len(objects),):
        raise InputError(
            f"held_out must be bool of shape ({len(objects)},), one for each object; got "
            f"{mask.dtype} {mask.shape}"
        )
    return mask
