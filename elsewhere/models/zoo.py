"""Networks of our own: VGG's topology with fewer channels, and a small one for laptops."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from elsewhere.errors import InputError

_BLOCKS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""Convolutions in each block (Simonyan & Zisserman 2015, table 1, columns A, B, D and E)."""
_CHANNELS = (64, 128, 256, 512, 512)


class SlimVGG(nn.Module):
    """Blocks of 3x3 convolutions, each closed by a 2x2 max pooling, and a flattening head.

    The modules have the names that torchvision gives to VGG's, so that layers, aliases and
    curricula mean the same in both. `blocks` are the convolutions' channels, block by block. On a
    canvas of that side, px, the last pooling's map has ``canvas // 2 ** len(blocks)`` cells a side;
    other canvases are pooled to that. There are two fully connected layers of `hidden` units before
    the head.
    """

    def __init__(
        self,
        blocks: Sequence[Sequence[int]],
        *,
        canvas: int,
        hidden: int,
        num_classes: int,
        dropout: float,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        _check_counts(canvas=canvas, hidden=hidden, num_classes=num_classes)
        if not 0 <= dropout <= 1:
            raise InputError(f"dropout must lie in 0..1; got {dropout!r}")
        side = canvas // 2 ** len(blocks)
        if side < 1:
            raise InputError(
                f"canvas={canvas} is too small for {len(blocks)} poolings; "
                f"expected at least {2 ** len(blocks)}"
            )
        self.canvas_size = canvas
        self.features = nn.Sequential(*_convolutions(blocks, batch_norm))
        self.avgpool = nn.AdaptiveAvgPool2d((side, side))
        self.classifier = nn.Sequential(
            nn.Linear(blocks[-1][-1] * side * side, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(p=dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(p=dropout),
            nn.Linear(hidden, num_classes),
        )
        initialize(self)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the logits, shape (n, num_classes), of `values`, shape (n, 3, height, width)."""
        maps = self.avgpool(self.features(values))
        logits: torch.Tensor = self.classifier(torch.flatten(maps, 1))
        return logits


def initialize(module: nn.Module) -> None:
    """Draw Kaiming-normal weights and zero biases for every convolution and linear layer.

    The scale, ``sqrt(2 / fan_in)``, keeps the variance of a signal through ReLU layers (He et
    al. 2015, equation 10).
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def small_cnn(
    *,
    channels: str | Sequence[int] = (8, 16, 32, 64),
    hidden: int = 256,
    canvas: int = 48,
    num_classes: int = 10,
    dropout: float = 0.5,
    batch_norm: bool = False,
) -> SlimVGG:
    """Return one convolution and one pooling per entry of `channels`, and a flattening head.

    Parameters
    ----------
    channels
        Integers, or a text such as ``8-16-32-64``.

    Examples
    --------
    >>> small_cnn(channels="4-8", canvas=16).features[3]
    Conv2d(4, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    """
    blocks = [(count,) for count in _parse_channels(channels)]
    return SlimVGG(
        blocks,
        canvas=canvas,
        hidden=hidden,
        num_classes=num_classes,
        dropout=dropout,
        batch_norm=batch_norm,
    )


def _make_slim(depth: int) -> Callable[..., SlimVGG]:
    def build(
        *,
        width: float = 0.125,
        hidden: int = 256,
        canvas: int = 64,
        num_classes: int = 1000,
        dropout: float = 0.5,
        batch_norm: bool = False,
    ) -> SlimVGG:
        if not 0 < width <= 4:
            raise InputError(f"width must lie above 0 and up to 4; got {width!r}")
        blocks = [
            (max(1, round(count * width)),) * repeats
            for count, repeats in zip(_CHANNELS, _BLOCKS[depth], strict=True)
        ]
        return SlimVGG(
            blocks,
            canvas=canvas,
            hidden=hidden,
            num_classes=num_classes,
            dropout=dropout,
            batch_norm=batch_norm,
        )

    build.__name__ = build.__qualname__ = f"vgg{depth}_slim"
    build.__doc__ = f"Return VGG{depth}'s topology with `width` times its channels."
    return build


vgg11_slim, vgg13_slim, vgg16_slim, vgg19_slim = map(_make_slim, (11, 13, 16, 19))


def _convolutions(blocks: Sequence[Sequence[int]], batch_norm: bool) -> list[nn.Module]:
    parts: list[nn.Module] = []
    before = 3
    for block in blocks:
        for count in block:
            parts.append(nn.Conv2d(before, count, kernel_size=3, padding=1))
            if batch_norm:
                parts.append(nn.BatchNorm2d(count))
            parts.append(nn.ReLU(inplace=True))
            before = count
        parts.append(nn.MaxPool2d(kernel_size=2, stride=2))
    return parts


def _parse_channels(channels: str | Sequence[int]) -> tuple[int, ...]:
    parts = channels.replace(",", "-").split("-") if isinstance(channels, str) else channels
    try:
        counts = tuple(int(part) for part in parts)
    except (TypeError, ValueError):
        counts = ()
    if not counts or min(counts) < 1:
        raise InputError(
            f"cannot read channels={channels!r}; expected integers above 0 such as 8-16-32-64"
        )
    return counts


def _check_counts(**counts: object) -> None:
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise InputError(f"{name} must be an integer above 0; got {count!r}")
