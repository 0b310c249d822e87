"""What is classified: which objects were held out, and how many canvases at a time."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import InputError
from elsewhere.models import Model, list_layers
from elsewhere.stimuli import Canvas, ObjectSet
from elsewhere.training.placements import Placement
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


def draw_locations(
    placement: Placement,
    category: torch.Tensor,
    exemplar: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return a location for each presentation.

    Parameters
    ----------
    placement
        Where objects may stand.
    category, exemplar
        int64 (n,), on the generator's device: the class of each, and its number in the class.
    generator
        Three numbers are drawn for each presentation, whatever the environment.

    Returns
    -------
    torch.Tensor
        int64 (n, 2), y and x, px.
    """
    device = generator.device
    boxes = torch.from_numpy(placement.boxes).to(device)
    drawn = torch.rand((len(category), 3), generator=generator, dtype=torch.float64, device=device)
    choice = (drawn[:, 0] * boxes.shape[2]).long()
    box = boxes[category % boxes.shape[0], exemplar % boxes.shape[1], choice]
    first, last = box[:, ::2], box[:, 1::2]
    return first + (drawn[:, 1:] * (last - first + 1)).long()
