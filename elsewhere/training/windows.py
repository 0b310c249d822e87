"""A faster forward pass: the first blocks run only where the object can change them.

On a canvas of constant background a feature map differs from the empty canvas's only in a window
around the object. Convolutions and poolings with which a network begins are therefore computed on
small tiles; the empty canvas runs along as one more image, and its map is filled in around the
tiles. What follows is the network's own forward pass, in which those first modules are passed by.

:func:`make_forward` takes this way only where it has proven itself: output and gradients are those
of the whole network on random scenes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

import torch
from torch import nn
from torch.nn import functional
from torch.utils._pytree import tree_map

from elsewhere.models import InputTransform
from elsewhere.models.proof import find_difference, undisturbed
from elsewhere.stimuli import Canvas
from elsewhere.training.pasting import Paster


@dataclass(frozen=True)
class Block:
    """Some 3x3 convolutions with ReLU, closed by a 2x2 max pooling.

    Parameters
    ----------
    convolutions
        The convolutions.
    modules
        All modules of the block, in the order in which they run; the last is the pooling.
    """

    convolutions: tuple[nn.Conv2d, ...]
    modules: tuple[nn.Module, ...]

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
                maps = maps * inside[number].to(maps.dtype)
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
        A network for which `find_blocks` finds some. Its own forward pass is run, with whatever
        it does before, between and after the blocks; only the blocks' modules pass on what was
        computed on tiles.
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
        pixel = torch.tensor(canvas.background_color(transform.mean), dtype=torch.uint8)
        self.background = transform.apply(pixel.reshape(1, 1, 1, 3)).reshape(3)
        blocks = find_blocks(network, _fill(self.background, canvas.size).contiguous())
        self.network, self.canvas, self.transform, self.grey = network, canvas, transform, grey
        self.depth = best_depth(blocks, canvas) if depth is None else depth
        windows = window_sides(blocks, canvas)
        self.window = windows[self.depth - 1] if self.depth else 0
        self.levels: list[Level] = []
        size = self.window
        for number in reversed(range(self.depth)):
            size = 2 * size + 2 * blocks[number].count
            self.levels.insert(0, Level(blocks[number], canvas.size >> number, size))
        self.skipped = [part for block in blocks[: self.depth] for part in block.modules]

    def __call__(self, patches: torch.Tensor, locations: torch.Tensor) -> Any:
        """Return what the network gives.

        Parameters
        ----------
        patches
            (n, pixel, 3), as :class:`elsewhere.training.pasting.Paster` loads them.
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
        ground = self.background.to(patches.dtype)
        empty = _fill(ground[:1] if self.grey else ground, self.canvas.size)
        for number, level in enumerate(self.levels):
            block, grey = level.block, self.grey and number == 0
            inside = [
                _inside(starts[number] + n, level.tile - 2 * n, level.side)
                for n in range(1, block.count)
            ]
            tiles, empty = block.run(tiles, inside, grey=grey), block.run(empty, None, grey=grey)
            if number + 1 < self.depth:
                after = self.levels[number + 1]
                tiles = tiles * _inside(starts[number + 1], after.tile, after.side).to(tiles.dtype)
        canvases = _fill(ground, self.canvas.size).expand(len(patches), -1, -1, -1)
        with self._passing(_fill_in(empty, tiles, cell)):
            return self.network(canvases)

    @contextmanager
    def _passing(self, maps: torch.Tensor) -> Iterator[None]:
        """While active, the blocks' modules do nothing, and the last of them gives `maps`."""
        try:
            for part in self.skipped[:-1]:
                vars(part)["forward"] = _pass_on
            vars(self.skipped[-1])["forward"] = lambda _: maps
            yield
        finally:
            for part in self.skipped:
                vars(part).pop("forward", None)

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
        ground = self.background[:channels].to(patches.dtype)
        if bool(ground.any()):
            inside = _inside(start, level.tile, level.side)
            pixels = inside.permute(0, 2, 3, 1).to(patches.dtype) * ground
        else:
            pixels = torch.zeros(n, level.tile, level.tile, channels, dtype=patches.dtype)
        box = torch.arange(side)
        rows = (torch.arange(n) * level.tile)[:, None] + offset[:, :1] + box
        places = rows[:, :, None] * level.tile + (offset[:, 1:] + box)[:, None, :]
        flat = pixels.reshape(-1, channels)
        flat.index_copy_(0, places.reshape(-1), patches[..., :channels].reshape(-1, channels))
        return flat.view(n, level.tile, level.tile, channels).permute(0, 3, 1, 2)


Forward: TypeAlias = Callable[[torch.Tensor, torch.Tensor], Any]
"""From patches (n, pixel, 3) and locations (n, 2) to what the network gives."""

WHOLE = "whole canvases"
SCENES = 4
"""Scenes on which windows prove themselves."""


@dataclass(frozen=True, eq=False)
class Way:
    """How a network is run on objects at locations.

    Parameters
    ----------
    forward
        What runs it.
    name
        ``windows``, or ``whole canvases`` and the reason.
    doubted
        Whether windows would have applied, but did not prove themselves.
    """

    forward: Forward
    name: str
    doubted: bool = False

    @property
    def notes(self) -> list[str]:
        """What a reader of results has to know of it."""
        return [f"the network ran on {self.name}"] if self.doubted else []


def make_forward(
    network: nn.Module, paster: Paster, patches: torch.Tensor, *, training: bool
) -> Way:
    """Return the fastest way to run a network on objects at locations.

    Parameters
    ----------
    network
        Any network, in the mode in which it will run.
    paster
        Places the objects, where the network's first blocks cannot run on tiles.
    patches
        All objects that will be shown.
    training
        Whether gradients are needed, and the weights will change.

    """
    whole = whole_forward(network, paster)
    if paster.device.type != "cpu" or paster.dtype != torch.float32:
        return Way(whole, f"{WHOLE}: windows are for float32 on a CPU")
    blocks = find_blocks(network, _fill(paster.background, paster.canvas.size).contiguous())
    if not blocks:
        return Way(
            whole,
            f"{WHOLE}: the image does not go straight through plain 3x3 convolutions, ReLUs and "
            "2x2 poolings first",
        )
    if not best_depth(blocks, paster.canvas):
        return Way(whole, f"{WHOLE}: windows would save nothing")
    grey = all(
        torch.equal(values[..., channel], values[..., 0])
        for values in (patches, paster.background)
        for channel in (1, 2)
    )
    windows = WindowedForward(network, paster.canvas, paster.transform, grey=grey)
    reason = prove_windows(windows, patches, training=training)
    if reason:
        return Way(whole, f"{WHOLE}, not on windows: {reason}", doubted=True)
    return Way(windows, "windows")


def prove_windows(
    windows: WindowedForward, patches: torch.Tensor, *, training: bool, shaken: bool = True
) -> str:
    """Return in what windows differ from whole canvases on random scenes; nothing: in nothing.

    Parameters
    ----------
    windows
        The way on tiles.
    patches
        The objects that will be shown; scenes are noise within their range.
    training
        Whether gradients are compared, in double precision.
    shaken
        Whether that is done with other weights too.
    """
    canvas, network = windows.canvas, windows.network
    generator = torch.Generator().manual_seed(canvas.size)
    dtype = torch.float64 if training else torch.float32
    shape = (SCENES, patches.shape[1], 1 if windows.grey else 3)
    low, high = patches.amin((0, 1)), patches.amax((0, 1))
    noise = torch.rand(shape, generator=generator, dtype=dtype)
    noise = low + noise * (high - low).to(dtype)
    first, last = canvas.valid[0], canvas.valid[-1]
    places = torch.randint(first, last + 1, (SCENES, 2), generator=generator)
    places[0], places[1] = first, last
    paster = Paster(canvas, windows.transform, rows=SCENES, device=patches.device, dtype=dtype)
    return find_difference(
        network,
        lambda: network(paster.paste(noise, places)),
        lambda: windows(noise, places),
        parameters=training,
        shaken=training and shaken,
        double=training,
    )


def whole_forward(network: nn.Module, paster: Paster) -> Forward:
    """Return the plain way: whole canvases through the network."""

    def forward(patches: torch.Tensor, locations: torch.Tensor) -> Any:
        n, output = len(patches), network(paster.paste(patches, locations))
        return output if n == paster.rows else tree_map(lambda values: values[:n], output)

    return forward


def find_blocks(network: nn.Module, image: torch.Tensor) -> tuple[Block, ...]:
    """Return the blocks at the start of a network that can run on tiles; none where it is another.

    They are what a VGG begins with: 3x3 convolutions, padded by zeros, each followed by a ReLU and
    nothing else, and a 2x2 max pooling. They are found by what one pass does: which module is
    given the image, which one is given its output, and so on. Modules that have hooks or a forward
    pass of their own, or that run more than once, end the search.

    Parameters
    ----------
    network
        Any network; it is left as it was.
    image
        An empty canvas, (1, 3, height, width).

    Examples
    --------
    >>> from elsewhere.models.zoo import vgg16_slim
    >>> [block.count for block in find_blocks(vgg16_slim(), torch.zeros(1, 3, 224, 224))]
    [2, 2, 3, 3, 3]
    """
    blocks: list[Block] = []
    convolutions: list[nn.Conv2d] = []
    modules: list[nn.Module] = []
    parts = _first_modules(network, image)
    place = 0
    while place < len(parts):
        part, following = parts[place], parts[place + 1 : place + 2]
        if _is_pooling(part) and convolutions:
            modules.append(part)
            blocks.append(Block(tuple(convolutions), tuple(modules)))
            convolutions, modules = [], []
            place += 1
        elif _is_convolution(part) and following and type(following[0]) is nn.ReLU:
            convolutions.append(part)
            modules += [part, *following]
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


def window_sides(blocks: Sequence[Block], canvas: Canvas) -> list[int]:
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


def best_depth(blocks: Sequence[Block], canvas: Canvas) -> int:
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


def _work(block: Block, side: int) -> int:
    # an output's share of memory traffic counts like some multiplications
    return sum(
        side**2 * (9 * part.in_channels + 30) * part.out_channels for part in block.convolutions
    )


def _is_convolution(part: nn.Module) -> TypeGuard[nn.Conv2d]:
    return (
        type(part) is nn.Conv2d
        and part.kernel_size == (3, 3)
        and part.padding == (1, 1)
        and part.padding_mode == "zeros"
        and (part.stride, part.dilation, part.groups) == ((1, 1), (1, 1), 1)
    )


def _is_pooling(part: nn.Module) -> bool:
    return (
        type(part) is nn.MaxPool2d
        and part.kernel_size in (2, (2, 2))
        and part.stride in (2, (2, 2))
        and part.padding in (0, (0, 0))
        and part.dilation in (1, (1, 1))
        and not part.return_indices
    )


def _pass_on(values: torch.Tensor) -> torch.Tensor:
    return values


def _fill(pixel: torch.Tensor, size: int) -> torch.Tensor:
    """Return a canvas of one colour, (1, channel, size, size)."""
    return pixel.clone().reshape(1, -1, 1, 1).expand(-1, -1, size, size)


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
