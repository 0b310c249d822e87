"""The blocks at the start of a network that can run on tiles: found by what a pass does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.nn import functional

from elsewhere.models.proof import undisturbed
from elsewhere.stimuli import Canvas
from elsewhere.training.lazy_images import Step, is_plain_convolution, is_plain_pooling


@dataclass(frozen=True)
class ConvBlock:
    """Some 3x3 convolutions with ReLU, closed by a 2x2 max pooling."""

    convolutions: tuple[nn.Conv2d, ...]

    @property
    def count(self) -> int:
        """The number of convolutions."""
        return len(self.convolutions)


def run_block(
    maps: torch.Tensor,
    steps: Sequence[Step],
    inside: Sequence[torch.Tensor] | None,
    *,
    grey: bool = False,
) -> torch.Tensor:
    """Return what a block gives for whole maps, or for tiles with a margin of one cell for each
    convolution.

    `steps` are weight and bias of each convolution. `inside` is None for whole maps; for tiles,
    after each convolution but the last: 1 where a cell is on the map, 0 where the next
    convolution's padding belongs. If `grey`, `maps` is one channel that stands for three equal
    ones.
    """
    padding = 1 if inside is None else 0
    for number, (weight, bias) in enumerate(steps):
        if grey and number == 0:
            weight = weight.sum(1, keepdim=True)
        maps = functional.conv2d(maps, weight, bias, padding=padding).relu_()
        if inside is not None and number < len(steps) - 1:
            maps = maps * inside[number].to(maps.dtype)
    return functional.max_pool2d(maps, 2)


def find_blocks(network: nn.Module, image: torch.Tensor) -> tuple[ConvBlock, ...]:
    """Return the blocks at the start of a network that can run on tiles; none where it is another.

    They are what a VGG begins with: 3x3 convolutions, padded by zeros, each followed by a ReLU and
    nothing else, and a 2x2 max pooling. They are found by what one pass does: which module is
    given the image, an empty canvas, which one is given its output, and so on. Modules that have
    hooks or a forward pass of their own, or that run more than once, end the search.

    Examples
    --------
    >>> from elsewhere.models.zoo import vgg16_slim
    >>> [block.count for block in find_blocks(vgg16_slim(), torch.zeros(1, 3, 224, 224))]
    [2, 2, 3, 3, 3]
    """
    blocks: list[ConvBlock] = []
    convolutions: list[nn.Conv2d] = []
    parts = _first_modules(network, image)
    place = 0
    while place < len(parts):
        part, following = parts[place], parts[place + 1 : place + 2]
        if _is_pooling(part) and convolutions:
            blocks.append(ConvBlock(tuple(convolutions)))
            convolutions = []
            place += 1
        elif _is_convolution(part) and following and type(following[0]) is nn.ReLU:
            convolutions.append(part)
            place += 2
        else:
            break
    return tuple(blocks)


def _first_modules(network: nn.Module, image: torch.Tensor) -> list[nn.Module]:
    """Return the plain modules through which the image goes first, one after the other."""
    calls: list[tuple[nn.Module, Any, Any]] = []
    counts: Counter[nn.Module] = Counter()
    plain = [part for part in network.modules() if _is_plain(part)]
    if not any(map(_is_convolution, plain)):
        return []
    with undisturbed(network), torch.no_grad():
        network.eval()
        handles = [
            part.register_forward_hook(
                lambda part, given, output: calls.append(
                    (part, given[0] if given else None, output)
                )
            )
            for part in plain
        ]
        try:
            network(image)
        except Exception:  # whoever runs it says so
            return []
        finally:
            for handle in handles:
                handle.remove()
    counts.update(part for part, _, _ in calls)
    found: list[nn.Module] = []
    tensor: Any = image
    for part, given, output in calls:
        if given is not tensor or counts[part] > 1:
            break
        found.append(part)
        tensor = output
    return found


def _is_plain(part: nn.Module) -> bool:
    """Return whether a module is one of torch's own that windows know, and nothing is added."""
    hooks = (
        part._forward_hooks,
        part._forward_pre_hooks,
        part._backward_hooks,
        part._backward_pre_hooks,
    )
    known = type(part) in (nn.Conv2d, nn.ReLU, nn.MaxPool2d)
    return known and not any(map(len, hooks)) and "forward" not in vars(part)


def window_sides(blocks: Sequence[ConvBlock], canvas: Canvas) -> list[int]:
    """Return the largest side of what the object can change after each block, cells.

    Examples
    --------
    >>> from elsewhere.models.zoo import small_cnn
    >>> window_sides(find_blocks(small_cnn(), torch.zeros(1, 3, 48, 48)), Canvas(48, 11))
    [7, 5, 4, 4]
    """
    sides, side = [], canvas.object_size
    for block in blocks:
        side = (side + 2 * block.count) // 2 + 1
        sides.append(side)
    return sides


def best_depth(blocks: Sequence[ConvBlock], canvas: Canvas) -> int:
    """Return for how many blocks tiles save most multiplications; 0 where they save none.

    Examples
    --------
    >>> from elsewhere.models.zoo import small_cnn
    >>> best_depth(find_blocks(small_cnn(), torch.zeros(1, 3, 48, 48)), Canvas(48, 11))
    2
    """
    windows = window_sides(blocks, canvas)
    costs = []
    for depth in range(len(blocks) + 1):
        if canvas.size % 2**depth or (depth and windows[depth - 1] > canvas.size >> depth):
            break
        sides = [canvas.size >> number for number in range(len(blocks))]
        tile = windows[depth - 1] if depth else 0
        for number in reversed(range(depth)):
            tile = 2 * tile + 2 * blocks[number].count
            sides[number] = tile
        costs.append(sum(_work(block, side) for block, side in zip(blocks, sides, strict=True)))
    best = costs.index(min(costs))
    return best if costs[best] < 0.95 * costs[0] else 0


def _work(block: ConvBlock, side: int) -> int:
    # an output's share of memory traffic counts like some multiplications
    return sum(
        side**2 * (9 * part.in_channels + 30) * part.out_channels for part in block.convolutions
    )


def _is_convolution(part: nn.Module) -> TypeGuard[nn.Conv2d]:
    if type(part) is not nn.Conv2d or part.padding_mode != "zeros":
        return False
    names = ("weight", "stride", "padding", "dilation", "groups")
    return is_plain_convolution({name: getattr(part, name) for name in names}, part.in_channels)


def _is_pooling(part: nn.Module) -> bool:
    names = ("kernel_size", "stride", "padding", "dilation", "return_indices")
    plain = type(part) is nn.MaxPool2d
    return plain and is_plain_pooling({name: getattr(part, name) for name in names})
