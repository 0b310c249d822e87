"""From pixels to what a network takes: ``(pixel / 255 - mean) / std * gain``."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from elsewhere.errors import InputError


@dataclass(frozen=True)
class InputTransform:
    """The input of a network, ``(pixel / 255 - mean) / std * gain``.

    Parameters
    ----------
    mean, std
        Per channel (red, green, blue), in units of the whole range 0..1; `std` is above 0.
    gain
        A factor for all channels, not 0.

    Raises
    ------
    InputError
        Not three finite numbers, a `std` that is not positive, or a `gain` of 0.

    Examples
    --------
    >>> import torch
    >>> pixels = torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)
    >>> InputTransform(mean=(0.5, 0.5, 0.5), gain=2.0).apply(pixels)[0, 0]
    tensor([[1., 1.],
            [1., 1.]])
    """

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gain: float = 1.0

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = _three_numbers(name, getattr(self, name))
            object.__setattr__(self, name, values)
        if min(self.std) <= 0:
            raise InputError(f"std must be above 0 in every channel; got {self.std}")
        if not math.isfinite(self.gain) or self.gain == 0:
            raise InputError(f"gain must be a finite number other than 0; got {self.gain!r}")
        object.__setattr__(self, "gain", float(self.gain))

    def apply(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the network's input for `pixels`, on their device.

        Every operation is elementwise and rounded on its own, so that a row is bit for bit the
        same in any batch and on any device.

        Parameters
        ----------
        pixels
            uint8, shape (n, height, width, 3), 0..255.

        Returns
        -------
        torch.Tensor
            float32, shape (n, 3, height, width), contiguous.

        Raises
        ------
        InputError
            Another dtype or shape.
        """
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3:
            raise InputError(
                "pixels must be uint8 of shape (n, height, width, 3); "
                f"got {pixels.dtype} of shape {tuple(pixels.shape)}"
            )
        values = pixels.permute(0, 3, 1, 2).contiguous().to(torch.float32)

        # Divisors are tensors: CUDA turns division by a Python number into a multiplication.
        def constant(*numbers: float) -> torch.Tensor:
            return torch.tensor(numbers, device=values.device).reshape(1, -1, 1, 1)

        values.div_(constant(255.0))
        if any(self.mean):
            values.sub_(constant(*self.mean))
        if self.std != (1.0, 1.0, 1.0):
            values.div_(constant(*self.std))
        if self.gain != 1.0:
            values.mul_(constant(self.gain))
        return values


def _three_numbers(name: str, given: object) -> tuple[float, float, float]:
    try:
        values = tuple(float(value) for value in given)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        values = ()
    if len(values) != 3 or not all(map(math.isfinite, values)):
        raise InputError(f"{name} must be three finite numbers (red, green, blue); got {given!r}")
    return values[0], values[1], values[2]


IMAGENET = InputTransform(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What most of torchvision's ImageNet weights were trained with."""
