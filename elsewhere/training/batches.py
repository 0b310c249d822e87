"""Batches of presentations: where each of them is shown."""

from __future__ import annotations

import torch

from elsewhere.training.placements import Placement


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
