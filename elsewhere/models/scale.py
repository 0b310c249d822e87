"""Whether the scale of an input suits a network, by what its layers make of images.

`listening`, `Heard`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from elsewhere.models.model import Model
from elsewhere.models.transform import STATE_IT

OBSERVED = 3
"""Images of the first pass of :func:`elsewhere.models.observe`."""
FEEBLE = 0.01
"""An image that changes what a layer gives by less than so much of its size leaves every cosine
above 0.99995."""
FAR = 20.0
"""Standard deviations of the activations that a batch normalisation has learnt, which a known input
keeps within a few: pixels in 0..255 instead of 0..1 are 255 times as large."""
FLAT = 0.05
"""Of the deviation that a batch normalisation has learnt: a picture that varies by less is dull to
it."""
DROWNED = 0.1
"""A picture over the whole canvas that changes the first weights' output by less than so much of
their biases is drowned by them: the right input changes it by half of them or more, pixels in 0..1
instead of 0..255 by a hundredth."""
HUGE = 500.0
"""Outputs of a classifier beyond this are no logits of an input that it knows."""

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Heard:
    """What the modules of a network give for the fixed image and the empty canvas."""

    def __init__(self) -> None:
        self._done: set[int] = set()
        self._changes: list[float] = []
        self._norm: tuple[str, float, float] | None = None
        self._bias: tuple[str, float] | None = None
        self._largest = 0.0

    def take(self, name: str, part: nn.Module, given: tuple[Any, ...], output: object) -> None:
        """Look at the first call of a module, where it has all images in its rows."""
        if id(part) in self._done or not isinstance(output, torch.Tensor):
            return
        if output.shape[:1] != (OBSERVED,) or not output.is_floating_point():
            return
        self._done.add(id(part))
        values = output.detach().reshape(OBSERVED, -1).float()
        fixed, empty = values[0], values[1]
        whole = not name or not any(True for _ in part.children())
        if whole and (level := float(empty.norm())) > 0:
            self._changes.append(float((fixed - empty).norm()) / level)
        if not name and output.ndim == 2:  # a map or an embedding in tokens is no classifier's
            self._largest = float(values.abs().max())
        if self._bias is None and isinstance(part, nn.Conv2d | nn.Linear):
            biases = 0.0 if part.bias is None else float(part.bias.detach().square().mean())
            change = float((fixed - empty).square().mean())
            self._bias = name, math.inf if biases == 0 else math.sqrt(change / biases)
        first = given[0] if given else None
        if self._norm is None and isinstance(first, torch.Tensor) and _has_learnt(part):
            self._norm = name, *_deviations(part, first[0])

    def notes(self, model: Model) -> list[str]:
        """Return the doubts about the input's scale, in whole sentences."""
        transform, found = model.transform, []
        feeble = [change for change in self._changes if change < FEEBLE]
        outside = [value for value in transform.mean if not 0 <= value <= 1]
        if outside:
            found.append(
                f"a mean of {outside[0]:g} lies outside 0..1, and pixels are divided by 255 before "
                f"it is taken off: {outside[0]:g} / 255 is {outside[0] / 255:.3g}"
            )
        if 2 * len(feeble) > len(self._changes):
            found.append(
                f"a picture over the whole canvas changes what {len(feeble)} of "
                f"{len(self._changes)} layers give by less than {FEEBLE:.0%} of its size "
                f"(at least {min(feeble):.2g}), so that all images look alike to them"
            )
        name, ratio = self._bias or ("", math.inf)
        if ratio < DROWNED:
            found.append(
                f"a picture over the whole canvas changes what layer {name!r} gives by "
                f"{ratio:.1%} of its biases, which drown it"
            )
        name, away, spread = self._norm or ("", 0.0, 1.0)
        if away > FAR:
            found.append(
                f"what reaches layer {name!r} lies {away:.0f} standard deviations away from what "
                "it has learnt"
            )
        elif spread < FLAT:
            found.append(
                f"what reaches layer {name!r} varies over a picture by {spread:.2g} of the "
                "standard deviation that it has learnt"
            )
        elif self._largest > HUGE:
            found.append(f"outputs reach {self._largest:.3g}, and are not logits of a known input")
        if not found:
            return []
        return [
            f"the SCALE of the input may be wrong: {'; '.join(found)}; the input is {transform}; "
            f"if that is not what the weights were trained with, {STATE_IT}"
        ]


@contextlib.contextmanager
def listening(module: nn.Module) -> Iterator[Heard]:
    """Hear the first pass of :func:`elsewhere.models.observe`; no hook stays behind."""
    heard = Heard()

    def hook(name: str) -> Any:
        return lambda part, given, output: heard.take(name, part, given, output)

    handles = [
        part.register_forward_hook(hook(name))
        for name, part in module.named_modules()
        if not name or isinstance(part, _NORMS) or not any(True for _ in part.children())
    ]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _has_learnt(part: nn.Module) -> bool:
    """Return whether a batch normalisation has statistics other than those that it begins with."""
    if not isinstance(part, _NORMS) or part.running_mean is None or part.running_var is None:
        return False
    return bool(part.running_mean.any()) or not bool((part.running_var == 1).all())


def _deviations(part: Any, image: torch.Tensor) -> tuple[float, float]:
    """Return how an image's activations compare with what a normalisation has learnt.

    Both in its standard deviations, root mean square over channels: how far they are from its
    mean, and how much they vary over the image.
    """
    flat = image.detach().float().reshape(image.shape[0], -1)
    mean, deviation = part.running_mean.float(), (part.running_var.float() + part.eps).sqrt()
    away = (flat - mean[:, None]) / deviation[:, None]
    spread = flat.std(1, correction=0) / deviation
    if flat.shape[1] == 1:  # a vector has no spread
        spread = torch.ones(1)
    return float(away.square().mean().sqrt()), float(spread.square().mean().sqrt())
