"""A faster forward pass: the first blocks run only where the object can change them.

On a canvas of constant background a feature map differs from the empty canvas's only in a window
around the object. Convolutions and poolings with which a network begins are therefore computed on
small tiles; the empty canvas runs along as one more image, and its map is filled in around the
tiles. It is the network's own forward pass that runs: it is given a promise of its canvases
(:mod:`elsewhere.training.lazy_images`), which is kept where it does anything else with them.

:func:`make_forward` takes this way only where it has proven itself: output and gradients are those
of the whole network on random scenes and on the objects that stand out most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.utils._pytree import tree_map, tree_map_only

from elsewhere.models import InputTransform
from elsewhere.models.forward import Paster, harmed_by_channels_last
from elsewhere.models.proof import extremes, find_difference
from elsewhere.stimuli import Canvas
from elsewhere.training.blocks import ConvBlock, best_depth, find_blocks, run_block, window_sides
from elsewhere.training.lazy_images import Foreseen, Promise, Step


@dataclass(frozen=True)
class Level:
    """A windowed block: its tiles and the map that they lie on."""

    block: ConvBlock
    side: int  # of its input map, cells
    tile: int  # of its input tile, cells


class WindowedForward:
    """Runs a network on objects at locations, without ever making the canvases.

    Its own forward pass is run, with whatever it does before, between and after the blocks that
    `find_blocks` finds; only what it does with its image as the blocks do is computed on tiles,
    with the weights that it uses.

    Parameters
    ----------
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
        self.missed = False
        """Whether the latest pass went another way than through the blocks."""

    def __call__(
        self, patches: torch.Tensor, locations: torch.Tensor, *, blind: bool = False
    ) -> Any:
        """Return what the network gives.

        `patches` (n, pixel, 3) are as :class:`elsewhere.models.forward.Paster` loads them,
        `locations` int64 (n, 2), y and x, px. If `blind`, who looks at the canvases sees empty
        ones: for the proof that a network does not, as a rule.
        """
        n, size = len(patches), self.canvas.size

        def paste() -> torch.Tensor:
            if blind:
                return _fill(self.background.to(patches.dtype), size).repeat(n, 1, 1, 1)
            device, dtype = patches.device, patches.dtype
            paster = Paster(
                self.canvas, self.transform, rows=n, device=device, dtype=dtype, channels_last=True
            )
            return paster.paste(patches, locations)

        plan = [
            name
            for level in self.levels
            for name in (*("conv2d", "relu") * level.block.count, "max_pool2d")
        ]
        foreseen = Foreseen(plan, lambda steps: self._maps(patches, locations, steps))
        output = self.network(Promise.of(paste, (n, 3, size, size), patches.dtype, foreseen))
        self.missed = not foreseen.taken
        return tree_map_only(Promise, Promise.look, output)

    def _maps(
        self, patches: torch.Tensor, locations: torch.Tensor, steps: Sequence[Step]
    ) -> torch.Tensor:
        """Return what the last block gives, with these weights."""
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
            own, steps = steps[: block.count], steps[block.count :]
            inside = [
                _inside(starts[number] + n, level.tile - 2 * n, level.side)
                for n in range(1, block.count)
            ]
            tiles = run_block(tiles, own, inside, grey=grey)
            empty = run_block(empty, own, None, grey=grey)
            if number + 1 < self.depth:
                after = self.levels[number + 1]
                tiles = tiles * _inside(starts[number + 1], after.tile, after.side).to(tiles.dtype)
        return _fill_in(empty, tiles, cell)

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
    """How a network is run on objects at locations."""

    forward: Forward
    name: str  # ``windows``, or ``whole canvases`` and the reason
    doubted: bool = False  # whether windows would have applied, but did not prove themselves

    @property
    def notes(self) -> list[str]:
        """What a reader of results has to know of it."""
        return [f"the network ran on {self.name}"] if self.doubted else []


def make_forward(
    network: nn.Module, paster: Paster[Canvas], patches: torch.Tensor, *, training: bool
) -> Way:
    """Return the fastest way to run a network on objects at locations.

    Any network will do, in the mode in which it will run. Its attribute ``whole_canvases``, where
    it is true, keeps it from windows. `patches` are all objects that will be shown. If `training`,
    gradients are needed, and the weights will change.
    """
    whole = whole_forward(network, paster)
    if getattr(network, "whole_canvases", False):
        return Way(whole, f"{WHOLE}: the network asks for them")
    half = torch.is_autocast_enabled(paster.device.type)
    if paster.device.type != "cpu" or paster.dtype != torch.float32 or half:
        return Way(whole, f"{WHOLE}: windows are for float32 on a CPU")
    if training and (name := harmed_by_channels_last(network)):
        return Way(whole, f"{WHOLE}: torch has no safe gradients of {name} in the order of windows")
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


def prove_windows(windows: WindowedForward, patches: torch.Tensor, *, training: bool) -> str:
    """Return in what windows differ from whole canvases on a few scenes; nothing: in nothing.

    Scenes are noise within the range of the objects that will be shown, and those of them whose
    pixels add up to most and to least. If `training`, gradients are compared, in double precision,
    and with other weights too.
    """
    canvas, network = windows.canvas, windows.network
    generator = torch.Generator().manual_seed(canvas.size)
    dtype = torch.float64 if training else torch.float32
    shape = (SCENES - 2, patches.shape[1], 1 if windows.grey else 3)
    low, high = patches.amin((0, 1)), patches.amax((0, 1))
    noise = torch.rand(shape, generator=generator, dtype=dtype)
    noise = low + noise * (high - low).to(dtype)
    shown = torch.cat([noise, patches[extremes(patches)].to(dtype)])
    first, last = canvas.valid[0], canvas.valid[-1]
    places = torch.randint(first, last + 1, (SCENES, 2), generator=generator)
    places[0], places[1] = first, last
    paster = Paster(
        canvas,
        windows.transform,
        rows=SCENES,
        device=patches.device,
        dtype=dtype,
        channels_last=True,
    )
    return find_difference(
        network,
        lambda: network(paster.paste(shown, places)),
        lambda: windows(shown, places, blind=True),
        parameters=training,
        shaken=training,
        double=training,
    )


def whole_forward(network: nn.Module, paster: Paster[Canvas]) -> Forward:
    """Return the plain way: whole canvases through the network."""

    def forward(patches: torch.Tensor, locations: torch.Tensor) -> Any:
        n, output = len(patches), network(paster.paste(patches, locations))
        return output if n == paster.rows else tree_map(lambda values: values[:n], output)

    return forward


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
