"""A faster, exact forward pass: the first blocks run only where the object can change them.

On a canvas of constant background a feature map differs from the empty canvas's only in a window
around the object. The first blocks of a VGG-like network are therefore computed on small tiles;
the empty canvas runs along as one more image, and its map is filled in around the tiles. Output
and gradients are those of the whole pass, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import torch
from torch import nn
from torch.nn import functional

from elsewhere.models import InputTransform
from elsewhere.stimuli import Canvas
from elsewhere.training.pasting import Paster


@dataclass(frozen=True)
class Block:
    """Some 3x3 convolutions with ReLU, closed by a 2x2 max pooling."""

    convolutions: tuple[nn.Conv2d, ...]

    @property
    def count(self) -> int:
        """The number of convolutions."""
        return len(self.convolutions)

    def run(
        self, maps: torch.Tensor, inside: Sequence[torch.Tensor] | None, *, grey: bool = False
    ) -> torch.Tensor:
        """Return the block's output.

        Parameters
        ----------
        maps
            Whole maps, or tiles with a margin of one cell for each convolution.
        inside
            None for whole maps; for tiles, after each convolution but the last: 1 where a cell is
            on the map, 0 where the next convolution's padding belongs.
        grey
            Whether `maps` is one channel that stands for three equal ones.
        """
        for number, convolution in enumerate(self.convolutions):
            padding = 1 if inside is None else 0
            weight = convolution.weight
            if grey and number == 0:
                weight = weight.sum(1, keepdim=True)
            maps = functional.conv2d(maps, weight, convolution.bias, padding=padding).relu_()
            if inside is not None and number < self.count - 1:
                maps = maps * inside[number]
        return functional.max_pool2d(maps, 2)


@dataclass(frozen=True)
class Level:
    """A windowed block: its tiles and the map that they lie on.

    Parameters
    ----------
    side
        Of the block's input map, cells.
    tile
        Of the block's input tile, cells.
    """

    block: Block
    side: int
    tile: int


class WindowedForward:
    """Runs a network on objects at locations, without ever making the canvases.

    Parameters
    ----------
    network
        A network for which `find_blocks` finds some.
    canvas, transform
        The canvas and the network's input.
    grey
        Whether the three channels of all objects and of the background are equal: the first
        convolution's weights are then summed over them.
    depth
        How many blocks run on tiles; by default as many as save most.
    """

    def __init__(
        self,
        network: nn.Module,
        canvas: Canvas,
        transform: InputTransform,
        *,
        grey: bool = False,
        depth: int | None = None,
    ) -> None:
        blocks = find_blocks(network)
        self.network, self.canvas, self.grey = network, canvas, grey
        self.depth = best_depth(blocks, canvas) if depth is None else depth
        windows = window_sides(blocks, canvas)
        self.window = windows[self.depth - 1] if self.depth else 0
        self.levels: list[Level] = []
        size = self.window
        for number in reversed(range(self.depth)):
            size = 2 * size + 2 * blocks[number].count
            self.levels.insert(0, Level(blocks[number], canvas.size >> number, size))
        features = cast(nn.Sequential, network.get_submodule("features"))
        skipped = sum(2 * block.count + 1 for block in blocks[: self.depth])
        self.rest = features[skipped:]
        pixel = torch.tensor(canvas.background_color(transform.mean), dtype=torch.uint8)
        self.background = transform.apply(pixel.reshape(1, 1, 1, 3)).reshape(3)

    def __call__(self, patches: torch.Tensor, locations: torch.Tensor) -> torch.Tensor:
        """Return the logits.

        Parameters
        ----------
        patches
            float32 (n, pixel, 3), as :class:`elsewhere.training.pasting.Paster` loads them.
        locations
            int64 (n, 2), y and x, px.
        """
        first = locations - self.canvas.object_size // 2
        cell = first
        for level in self.levels:
            cell = torch.div(cell - level.block.count, 2, rounding_mode="floor")
        last = (self.canvas.size >> self.depth) - self.window
        cell = cell.clamp(0, last)
        starts = self._starts(cell)
        tiles = self._tiles(patches, first - starts[0], starts[0])
        empty = self._empty()
        for number, level in enumerate(self.levels):
            block, grey = level.block, self.grey and number == 0
            inside = [
                _inside(starts[number] + n, level.tile - 2 * n, level.side)
                for n in range(1, block.count)
            ]
            tiles, empty = block.run(tiles, inside, grey=grey), block.run(empty, None, grey=grey)
            if number + 1 < self.depth:
                after = self.levels[number + 1]
                tiles = tiles * _inside(starts[number + 1], after.tile, after.side)
        maps = self.rest(_fill_in(empty, tiles, cell))
        pooled = self.network.get_submodule("avgpool")(maps)
        logits: torch.Tensor = self.network.get_submodule("classifier")(torch.flatten(pooled, 1))
        return logits

    def _starts(self, cell: torch.Tensor) -> list[torch.Tensor]:
        """Return the first cell of each level's input tile, (n, 2), outermost level first."""
        starts: list[torch.Tensor] = []
        for level in reversed(self.levels):
            cell = 2 * cell - level.block.count
            starts.insert(0, cell)
        return starts

    def _tiles(
        self, patches: torch.Tensor, offset: torch.Tensor, start: torch.Tensor
    ) -> torch.Tensor:
        """Return the pixels of the first tiles; beyond the canvas they are 0, as padding is."""
        level, side, n = self.levels[0], self.canvas.object_size, len(patches)
        channels = 1 if self.grey else 3
        ground = self.background[:channels]
        if bool(ground.any()):
            inside = _inside(start, level.tile, level.side)
            pixels = inside.permute(0, 2, 3, 1) * ground
        else:
            pixels = torch.zeros(n, level.tile, level.tile, channels)
        box = torch.arange(side)
        rows = (torch.arange(n) * level.tile)[:, None] + offset[:, :1] + box
        places = rows[:, :, None] * level.tile + (offset[:, 1:] + box)[:, None, :]
        flat = pixels.reshape(-1, channels)
        flat.index_copy_(0, places.reshape(-1), patches[..., :channels].reshape(-1, channels))
        return flat.view(n, level.tile, level.tile, channels).permute(0, 3, 1, 2)

    def _empty(self) -> torch.Tensor:
        ground = self.background[:1] if self.grey else self.background
        size = self.canvas.size
        return ground.reshape(1, -1, 1, 1).expand(-1, -1, size, size)


Forward: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From patches (n, pixel, 3) and locations (n, 2) to the network's output."""


def make_forward(network: nn.Module, paster: Paster, patches: torch.Tensor) -> Forward:
    """Return the fastest way to run a network on objects at locations.

    Parameters
    ----------
    network
        Any network.
    paster
        Places the objects, where the network's first blocks cannot run on tiles.
    patches
        All objects that will be shown.
    """
    blocks = find_blocks(network) if paster.device.type == "cpu" else ()
    if blocks and best_depth(blocks, paster.canvas):
        grey = all(
            torch.equal(values[..., channel], values[..., 0])
            for values in (patches, paster.background)
            for channel in (1, 2)
        )
        return WindowedForward(network, paster.canvas, paster.transform, grey=grey)

    def forward(some: torch.Tensor, locations: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = network(paster.paste(some, locations))
        return output[: len(some)]

    return forward


def find_blocks(network: nn.Module) -> tuple[Block, ...]:
    """Return the blocks at the start of a network that can run on tiles; none where it is another.

    They are what a VGG begins with: 3x3 convolutions, padded by zeros, each followed by a ReLU and
    nothing else, and a 2x2 max pooling.

    Examples
    --------
    >>> from elsewhere.models.zoo import vgg16_slim
    >>> [block.count for block in find_blocks(vgg16_slim())]
    [2, 2, 3, 3, 3]
    """
    names = [name for name, _ in network.named_children()]
    features = getattr(network, "features", None)
    if names != ["features", "avgpool", "classifier"] or not isinstance(features, nn.Sequential):
        return ()
    blocks: list[Block] = []
    convolutions: list[nn.Conv2d] = []
    parts = list(features)
    place = 0
    while place < len(parts):
        part = parts[place]
        if _is_pooling(part) and convolutions:
            blocks.append(Block(tuple(convolutions)))
            convolutions = []
            place += 1
        elif _is_convolution(part) and isinstance(parts[min(place + 1, len(parts) - 1)], nn.ReLU):
            convolutions.append(cast(nn.Conv2d, part))
            place += 2
        else:
            break
    return tuple(blocks)


def window_sides(blocks: Sequence[Block], canvas: Canvas) -> list[int]:
    """Return the largest side of what the object can change after each block, cells.

    Examples
    --------
    >>> from elsewhere.models.zoo import small_cnn
    >>> window_sides(find_blocks(small_cnn()), Canvas(48, 11))
    [7, 5, 4, 4]
    """
    sides, side = [], canvas.object_size
    for block in blocks:
        side = (side + 2 * block.count) // 2 + 1
        sides.append(side)
    return sides


def best_depth(blocks: Sequence[Block], canvas: Canvas) -> int:
    """Return for how many blocks tiles save most multiplications; 0 where they save none.

    Examples
    --------
    >>> from elsewhere.models.zoo import small_cnn
    >>> best_depth(find_blocks(small_cnn()), Canvas(48, 11))
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


def _work(block: Block, side: int) -> int:
    # an output's share of memory traffic counts like some multiplications
    return sum(
        side**2 * (9 * part.in_channels + 30) * part.out_channels for part in block.convolutions
    )


def _is_convolution(part: nn.Module) -> bool:
    return (
        isinstance(part, nn.Conv2d)
        and part.kernel_size == (3, 3)
        and part.padding == (1, 1)
        and part.padding_mode == "zeros"
        and (part.stride, part.dilation, part.groups) == ((1, 1), (1, 1), 1)
    )


def _is_pooling(part: nn.Module) -> bool:
    return (
        isinstance(part, nn.MaxPool2d)
        and part.kernel_size in (2, (2, 2))
        and part.stride in (2, (2, 2))
        and part.padding in (0, (0, 0))
        and part.dilation in (1, (1, 1))
        and not part.return_indices
    )


def _inside(start: torch.Tensor, tile: int, side: int) -> torch.Tensor:
    """Return 1 where a tile's cells are on the map, else 0: (n, 1, tile, tile)."""
    cells = start[:, :, None] + torch.arange(tile)
    on = ((cells >= 0) & (cells < side)).float()
    return (on[:, 0, :, None] * on[:, 1, None, :])[:, None]


def _fill_in(empty: torch.Tensor, tiles: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Return the empty canvas's map with a tile for each image, (n, channel, side, side)."""
    n, channels, tile = tiles.shape[:3]
    side = empty.shape[-1]
    whole = empty.permute(0, 2, 3, 1).expand(n, -1, -1, -1).reshape(-1, channels)
    cells = start[:, :, None] + torch.arange(tile)
    rows = (torch.arange(n) * side)[:, None] + cells[:, 0]
    places = (rows[:, :, None] * side + cells[:, 1][:, None, :]).reshape(-1)
    flat = tiles.permute(0, 2, 3, 1).reshape(-1, channels)
    return whole.index_copy(0, places, flat).view(n, side, side, channels).permute(0, 3, 1, 2)
