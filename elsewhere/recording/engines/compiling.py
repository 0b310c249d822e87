"""Compiling a network for windows: what that saves, and the proof that it changes nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from elsewhere.models import Conduct, Layer, output_tensors
from elsewhere.models.forward import computing, evaluating
from elsewhere.models.proof import TOLERANCES, extremes, find_difference
from elsewhere.models.taps import Taps
from elsewhere.recording.engines.base import NotApplicable, why_alone
from elsewhere.recording.engines.timing import Times, time_engines
from elsewhere.recording.engines.windows import TILE_BYTES, WindowEngine
from elsewhere.recording.incremental import (
    Incremental,
    NotTraceable,
    Pasted,
    Tile,
    WindowRows,
    following,
)
from elsewhere.recording.incremental.windows import Maps
from elsewhere.recording.subject import Subject
from elsewhere.types import BATCH_ROWS

ADDS_PER_SECOND = 4e10
CALL_SECONDS = 1e-4
"""Round numbers of a core and of one call of an operation on windows; they only have to tell
networks whose arithmetic takes the time from those whose calls do."""

ADDS_ON_DEVICE = 1e13
CALL_ON_DEVICE = 3e-4
PASS_ON_DEVICE = 1e-5
ROWS_ON_DEVICE = 64
TILE_ON_DEVICE = 4 * 2**30
"""The same for a GPU in single precision: a call gathers first, which takes some launches."""

DOUBTFUL = 4
"""Windows whose estimated time on a GPU is more than so many times the dense one are not timed."""

WORTH = 0.8
"""The engine is taken where its estimated time is at most this share of the dense one."""


def compile_windows(subject: Subject, conduct: Conduct, *, asked: bool) -> WindowEngine:
    """Compile a network for windows, and compare it with whole passes.

    If `asked`, it is taken also where it does not pay.

    Raises
    ------
    NotApplicable
        The network cannot be followed, does something that its graph does not tell, or windows
        would not pay.
    """
    model, layers = subject.model, subject.layers
    design = subject.variants[0].design
    if conduct.alone:
        raise NotApplicable(why_alone(conduct))
    if model.device.type not in ("cpu", "cuda"):
        raise NotApplicable(f"device {model.device.type} has no double precision")
    places = tuple(  # each time the reference's last
        (*axis.values, place) for axis, place in zip(design.axes, design.reference, strict=True)
    )
    try:
        with following(), evaluating(model.module):
            compiled = _compile(subject, places)
            for layer in layers:
                compiled.source_of(layer)
            n_images = len(design.objects) * subject.design.n_positions
            n_y, n_x = design.shape
            sweeps = subject.design.n_positions // design.n_positions
            found = estimate(
                compiled, layers, (n_y, n_x), n_images, sweeps=sweeps, rows=subject.rows
            )
            worth = found.fast <= (DOUBTFUL if compiled.batched else WORTH) * found.slow
            if asked or worth:
                for variant in subject.variants:
                    _check(compiled, variant)
            if worth and not asked and compiled.batched:  # which it is, differs from card to card
                found = found.timed(time_engines(compiled, layers, found.tiles, subject, conduct))
                worth = found.fast <= found.slow
    except NotTraceable as error:
        raise NotApplicable(str(error)) from error
    if not asked and not worth:
        raise NotApplicable(not_worth(found.share))
    return WindowEngine(compiled, design, places, saving(found.share))


def _compile(subject: Subject, places: Sequence[tuple[int, ...]]) -> Incremental:
    model, canvas, n_variants = subject.model, subject.variants[0].canvas, len(subject.variants)
    color = canvas.background_color(model.transform.mean)
    patches = np.concatenate([each.objects.patches(color) for each in subject.variants])
    shown = model.transform.apply(torch.from_numpy(patches).to(model.device))
    ys, xs = places
    return Incremental(model, Pasted(model, canvas, color, ys, xs, shown, n_variants))


@dataclass(frozen=True)
class Estimate:
    """The work of a sweep by windows and by whole canvases, and about the seconds it takes.

    `calls` are those of windows; a pass of whole canvases takes `rows` images.
    """

    tiles: Sequence[Tile]
    windows: float  # multiply-adds
    whole: float  # multiply-adds
    calls: float
    n_images: int
    rows: int
    fast: float  # seconds by windows
    slow: float  # seconds by whole canvases

    @property
    def share(self) -> float:
        """The windows' share of the dense multiply-adds."""
        return self.windows / self.whole if self.whole else 0.0

    def timed(self, times: Times) -> Estimate:
        """Return the same with seconds that follow from what was timed."""
        fast = self.calls * times.call + self.windows * times.multiply_add
        slow = math.ceil(self.n_images / self.rows) * times.whole_pass
        return replace(self, fast=fast, slow=slow)


def estimate(
    engine: Incremental,
    layers: Sequence[Layer],
    shape: tuple[int, int],
    n_images: int,
    *,
    passes: int = 0,
    sweeps: int = 1,
    rows: int = ROWS_ON_DEVICE,
) -> Estimate:
    """Return what a sweep takes by windows and by whole canvases, by round numbers.

    `shape` are the locations along y and x, through which the engine goes `sweeps` times, and
    `passes` the whole passes that it takes besides. A dense sweep takes `n_images` instead, `rows`
    of them a pass.
    """
    ys, xs = map(np.arange, shape)
    on_device = engine.batched
    most = TILE_ON_DEVICE if on_device else TILE_BYTES
    tiles = engine.tiles(layers, ys, xs, max_bytes=most) * sweeps
    one, n_steps = engine.dense_multiply_adds(layers), len(engine.needed(layers))
    windows, whole = engine.multiply_adds(tiles, layers) + passes * one, n_images * one
    calls = engine.n_calls(tiles, layers)
    if on_device:
        dense_calls: float = math.ceil(n_images / ROWS_ON_DEVICE) * n_steps
        fast = windows / ADDS_ON_DEVICE + calls * CALL_ON_DEVICE
        slow = whole / ADDS_ON_DEVICE + dense_calls * PASS_ON_DEVICE
    else:
        calls += sum(len(t.ys) * len(t.xs) for t in tiles)
        dense_calls = math.ceil(n_images / BATCH_ROWS) * n_steps / 4
        fast = windows / ADDS_PER_SECOND + calls * CALL_SECONDS
        slow = whole / ADDS_PER_SECOND + dense_calls * CALL_SECONDS
    return Estimate(tiles, windows, whole, calls, n_images, rows, fast, slow)


def weigh(
    engine: Incremental,
    layers: Sequence[Layer],
    shape: tuple[int, int],
    n_images: int,
    *,
    passes: int = 0,
) -> tuple[float, bool]:
    """Return the engine's share of the dense multiply-adds, and whether it is worth its calls.

    By the round numbers of :func:`estimate`.
    """
    found = estimate(engine, layers, shape, n_images, passes=passes)
    return found.share, found.fast <= WORTH * found.slow


def saving(share: float) -> str:
    """Return in words what an engine saves that takes a `share` of the dense multiply-adds."""
    return f"{1 / share:.1f} times fewer multiply-adds than dense" if share else "no arithmetic"


def not_worth(share: float) -> str:
    """Return in words why windows are not taken that need a `share` of the dense multiply-adds.

    Examples
    --------
    >>> not_worth(0.9)
    'windows would not pay: they need 90 % of the multiply-adds of whole passes'
    """
    if not share:
        return "windows would not pay: there is no arithmetic to save"
    if share > WORTH:
        much = f"{100 * share:.0f} % of the multiply-adds of whole passes"
        return f"windows would not pay: they need {much}"
    return (
        f"windows would not pay: they need {1 / share:.1f} times fewer multiply-adds, but so many "
        "more and smaller calls that they would take longer"
    )


def _check(engine: Incremental, subject: Subject) -> None:
    """Compare the engine with whole passes: noise and the brightest object, in opposite corners.

    The engine computes them among other images, the whole passes do it alone.

    Raises
    ------
    NotTraceable
        They differ, in float32 or in the precision that is asked for: the network does something
        that its graph does not tell, or its images depend on each other.
    """
    model, canvas, layers = subject.model, subject.canvas, subject.layers
    ys, xs = subject.design.axes.values
    color = canvas.background_color(model.transform.mean)
    side = canvas.object_size
    noise = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    own = subject.objects.patches(color)
    patches = np.concatenate([noise, own[extremes(torch.from_numpy(own))[:1]]])
    shown = model.transform.apply(torch.from_numpy(patches).to(model.device))
    source = Pasted(model, canvas, color, ys, xs, shown)
    edges_y, edges_x = (np.unique([0, len(places) - 1]) for places in (ys, xs))
    tile = Tile(edges_y, edges_x, np.arange(2))
    rows = np.array([tile.n_rows - 2, 1])  # noise at the last location, the object at the first
    pasted = canvas.paste(patches, [(ys[-1], xs[-1]), (ys[0], xs[0])], color)
    images = model.transform.apply(torch.from_numpy(pasted).to(model.device))
    for precision in sorted({model.precision, "float32"}, reverse=True):
        with computing(model.device, precision):
            prover = Incremental(model, source, program=engine.program(layers))
            reason = find_difference(
                model.module,
                lambda: _whole(model.module, images, layers),
                partial(_windowed, prover, tile, rows, layers),
                tolerance=TOLERANCES[precision],
            )
        if reason:
            raise NotTraceable(reason)


def _windowed(
    engine: Incremental, tile: Tile, rows: NDArray[np.int64], layers: Sequence[Layer]
) -> dict[str, torch.Tensor]:
    """Return what the engine gives for some rows of a tile, by layer."""
    found: dict[str, torch.Tensor] = {}

    def receive(name: str, value: Maps | torch.Tensor) -> None:
        if isinstance(value, Maps):
            value = WindowRows(value, engine.ground(name), tile).full(rows)
        elif len(value) == tile.n_rows:
            value = value[rows]
        found[name] = value.clone()

    for _ in engine.run(tile, layers, receive):
        pass
    return {f"layer {layer.name!r}": found[engine.source_of(layer)] for layer in layers}


def _whole(
    network: nn.Module, images: torch.Tensor, layers: Sequence[Layer]
) -> dict[str, torch.Tensor]:
    """Return what whole passes give, one image after the other, by layer."""
    found: dict[str, list[torch.Tensor]] = {layer.name: [] for layer in layers}

    def receive(module: str, call: int, _: object, output: object) -> None:
        tensors = output_tensors(output)
        for layer in layers:
            if (layer.module, layer.call) == (module, call) and layer.output in tensors:
                found[layer.name].append(tensors[layer.output].clone())

    with Taps(network, {layer.module for layer in layers}, receive):
        for image in images:
            network(image[None])
    return {f"layer {name!r}": torch.cat(values) for name, values in found.items() if values}
