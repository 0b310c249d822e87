"""Changes of appearance, drawn anew at each presentation, on the device."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from elsewhere.training.curriculum import Augment

_COARSE = 4


def change_appearance(
    patches: torch.Tensor,
    background: torch.Tensor,
    augment: Augment,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return objects with changed contrast, shading, sharpness and texture.

    `patches` are float32 (n, pixel, 3): square objects over the `background`, (3,), as network
    input. What equals the background stays so, but for the blur. The generator may be on any
    device.
    """
    n, side = len(patches), math.isqrt(patches.shape[1])
    device = patches.device

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(n, *shape, generator=generator, device=generator.device).to(device)

    figure = patches - background
    if augment.blur:
        share = augment.blur * draw(1, 1)
        figure = figure + share * (_blurred(figure, side) - figure)
    keep = torch.ones((n, 1), device=device)
    if augment.contrast:
        keep = keep * (1 - augment.contrast * draw(1))
    if augment.shading:
        angle, depth = 2 * math.pi * draw(1), augment.shading * draw(1)
        across = torch.linspace(-1, 1, side, device=device) / math.sqrt(2)
        y, x = across.repeat_interleave(side), across.repeat(side)
        ramp = (torch.cos(angle) * y + torch.sin(angle) * x + 1) / 2
        keep = keep * (1 - depth * ramp)
    if augment.texture:
        pattern = functional.interpolate(
            draw(1, _COARSE, _COARSE), size=(side, side), mode="bilinear", align_corners=True
        )
        keep = keep * (1 - augment.texture * draw(1) * pattern.flatten(1))
    return background + figure * keep[:, :, None]


def _blurred(figure: torch.Tensor, side: int) -> torch.Tensor:
    images = figure.transpose(1, 2).reshape(-1, 1, side, side)
    # made on the device: a copy from the host would wait for it
    across = 2 - torch.arange(-1, 2, device=figure.device, dtype=figure.dtype).abs()
    kernel = across[:, None] * across / 16
    smooth = functional.conv2d(images, kernel[None, None], padding=1)
    return smooth.reshape(len(figure), 3, -1).transpose(1, 2)
