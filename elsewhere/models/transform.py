"""From pixels to what a network takes: ``(pixel / 255 - mean) / std * gain``, RGB or BGR.

`InputTransform`, `CONVENTIONS`, `own_transform`, `named_transform`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import nn

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.types import Channels, Convention

STATE_IT = (
    f"state it with --input ({', '.join(get_args(Convention))}), or with --input-mean, "
    "--input-std, --gain and --channels; in Python with transform="
)
"""What a user can do about an input that is assumed."""


@dataclass(frozen=True)
class InputTransform:
    """The input of a network, ``(pixel / 255 - mean) / std * gain``.

    Parameters
    ----------
    mean, std
        Per channel (red, green, blue), in units of the whole range 0..1; `std` is above 0.
    gain
        A factor for all channels, not 0.
    channels
        The order in which the network takes them, ``rgb`` or ``bgr``; `mean` and `std` are in the
        order red, green, blue all the same.

    Raises
    ------
    InputError
        Not three finite numbers, a `std` that is not positive, a `gain` of 0, or another order.

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
    channels: Channels = "rgb"

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = _three_numbers(name, getattr(self, name))
            object.__setattr__(self, name, values)
        if min(self.std) <= 0:
            raise InputError(f"std must be above 0 in every channel; got {self.std}")
        if not math.isfinite(self.gain) or self.gain == 0:
            raise InputError(f"gain must be a finite number other than 0; got {self.gain!r}")
        object.__setattr__(self, "gain", float(self.gain))
        if self.channels not in get_args(Channels):
            raise UnknownNameError("order of channels", self.channels, get_args(Channels))

    def __str__(self) -> str:
        mean, std = (", ".join(f"{v:.4g}" for v in values) for values in (self.mean, self.std))
        said = f"mean {mean}; std {std}; gain {self.gain:g}; {self.channels.upper()}"
        name = next((name for name, each in CONVENTIONS.items() if each == self), None)
        return said if name is None else f"{name} ({said})"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> InputTransform:
        """Return the input that `facts` of a file tell; without ``channels`` they are RGB."""
        return cls(
            facts["mean"], facts["std"], facts["gain"], facts.get("channels", "rgb")
        )  # fmt: skip

    @property
    def facts(self) -> dict[str, Any]:
        """The input as files hold it: ``mean``, ``std``, ``gain``, and ``channels`` if not RGB."""
        found = {"mean": list(self.mean), "std": list(self.std), "gain": self.gain}
        return found if self.channels == "rgb" else found | {"channels": self.channels}

    @property
    def rounded(self) -> tuple[object, ...]:
        """The input with mean and deviation at three decimals, as people write them."""
        numbers = [round(value, 3) for value in (*self.mean, *self.std)]
        return (*numbers, self.gain, self.channels)

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
        return values if self.channels == "rgb" else values.flip(1)


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

CONVENTIONS: dict[str, InputTransform] = {
    "imagenet": IMAGENET,
    "caffe-bgr": InputTransform(
        mean=(123.68 / 255, 116.779 / 255, 103.939 / 255), gain=255.0, channels="bgr"
    ),
    "inception": InputTransform(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "unit": InputTransform(),
}
"""Inputs by name: torchvision's; pixels 0..255 less the mean, BGR, of Caffe's networks (Simonyan &
Zisserman 2015); -1..1 of Inception and many of timm's; 0..1. ``timm`` is the network's own."""


def own_transform(module: nn.Module) -> InputTransform | None:
    """Return the input that a network's ``pretrained_cfg`` states, as timm's networks do.

    None where it states none.
    """
    facts = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if not isinstance(facts, Mapping) or not {"mean", "std"} <= facts.keys():
        return None
    return InputTransform(facts["mean"], facts["std"])


def named_transform(name: str, module: nn.Module, network: str) -> InputTransform:
    """Return the input called `name`; ``timm`` is that of the network, or of a part of it.

    Parameters
    ----------
    name
        A key of `CONVENTIONS`, or ``timm``.
    module, network
        The network, and what it is called.

    Raises
    ------
    UnknownNameError
        No such convention.
    InputError
        The network states no input, or several.
    """
    if name in CONVENTIONS:
        return CONVENTIONS[name]
    if name != "timm":
        raise UnknownNameError("input", name, get_args(Convention))
    found = own_transform(module)
    stated = {found} if found else {own_transform(part) for part in module.modules()} - {None}
    if len(stated) != 1 or None in stated:
        raise InputError(
            f"--input timm: {network} has {'several' if stated else 'no'} pretrained_cfg with mean "
            "and std, as timm's networks have; name another convention, or give --input-mean and "
            "--input-std"
        )
    (transform,) = stated
    assert transform is not None
    return transform
