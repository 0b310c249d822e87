"""Which engine runs a sweep, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from elsewhere.errors import InputError
from elsewhere.models import Layer, Model, output_tensors
from elsewhere.protocols import Design
from elsewhere.recording.hooks import Taps, evaluating
from elsewhere.recording.incremental import Incremental, NotTraceable, Pasted, Tile, WindowRows
from elsewhere.recording.incremental.streaming import TILE_BYTES
from elsewhere.recording.incremental.windows import Maps
from elsewhere.stimuli import Canvas, ObjectSet
from elsewhere.types import BATCH_ROWS, Engine

TOLERANCE = 1e-5
"""By how much engines may differ, as a share of a layer's largest activation."""

ADDS_PER_SECOND = 4e10
CALL_SECONDS = 1e-4
"""Round numbers of a core and of one call of an operation on windows; they only have to tell
networks whose arithmetic takes the time from those whose calls do."""

WORTH = 0.8
"""The engine is taken where its estimated time is at most this share of the dense one."""


@dataclass(frozen=True, eq=False)
class Choice:
    """An engine and the reason for it.

    Parameters
    ----------
    name
        ``dense`` or ``incremental``.
    reason
        In a few words.
    engine
        The compiled network, for the incremental one.
    """

    name: str
    reason: str
    engine: Incremental | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})" if self.reason else self.name


def choose_engine(
    wanted: Engine,
    model: Model,
    objects: ObjectSet,
    canvas: Canvas,
    design: Design,
    layers: Sequence[Layer],
) -> Choice:
    """Return the engine for a sweep.

    Parameters
    ----------
    wanted
        ``dense``, ``incremental``, or ``auto``: the incremental one where it applies and pays.
    model, objects, canvas, design, layers
        What is swept.

    Raises
    ------
    InputError
        The incremental engine is asked for by name and does not apply.
    """
    if wanted == "dense":
        return Choice("dense", "")
    try:
        if model.device.type not in ("cpu", "cuda"):
            raise NotTraceable(f"device {model.device.type} has no double precision")
        with evaluating(model.module):
            engine = _compile(model, objects, canvas, design)
            for layer in layers:
                engine.source_of(layer)
            share, worth = _weigh(engine, design, layers)
            if wanted == "incremental" or worth:
                _check(engine, model, canvas, objects, design, layers)
    except NotTraceable as error:
        if wanted == "incremental":
            raise InputError(
                f"--engine incremental does not apply to {model.name}: {error}; "
                "take --engine auto or dense"
            ) from error
        return Choice("dense", f"auto: {error}")
    if wanted == "auto" and not worth:
        return Choice("dense", f"auto: windows would not pay, {saving(share)}")
    return Choice("incremental", saving(share), engine)


def _compile(model: Model, objects: ObjectSet, canvas: Canvas, design: Design) -> Incremental:
    color = canvas.background_color(model.transform.mean)
    patches = torch.from_numpy(objects.patches(color)).to(model.device)
    (_, ys), (_, xs) = design.axes
    source = Pasted(
        model,
        canvas,
        color,
        [*ys, design.reference[0]],
        [*xs, design.reference[1]],
        model.transform.apply(patches),
    )
    return Incremental(model, source)


def _weigh(engine: Incremental, design: Design, layers: Sequence[Layer]) -> tuple[float, bool]:
    """Return the engine's share of the dense multiply-adds, and whether it is worth its calls."""
    n_y, n_x = (len(values) for _, values in design.axes)
    return weigh(engine, layers, (n_y, n_x), len(design.objects) * design.n_positions)


def weigh(
    engine: Incremental,
    layers: Sequence[Layer],
    shape: tuple[int, int],
    n_images: int,
    *,
    passes: int = 0,
) -> tuple[float, bool]:
    """Return the engine's share of the dense multiply-adds, and whether it is worth its calls.

    Parameters
    ----------
    engine
        The compiled network.
    layers
        The layers that are wanted.
    shape
        Number of locations along y and x.
    n_images
        Images that a dense sweep takes instead.
    passes
        Whole passes that the engine takes besides its windows.
    """
    ys, xs = map(np.arange, shape)
    tiles = engine.tiles(layers, ys, xs, max_bytes=TILE_BYTES)
    one = engine.dense_multiply_adds(layers)
    windows, whole = engine.multiply_adds(tiles, layers) + passes * one, n_images * one
    calls = engine.n_calls(tiles, layers) + sum(len(t.ys) * len(t.xs) for t in tiles)
    batches = math.ceil(n_images / BATCH_ROWS) * len(engine.needed(layers)) / 4
    fast = windows / ADDS_PER_SECOND + calls * CALL_SECONDS
    slow = whole / ADDS_PER_SECOND + batches * CALL_SECONDS
    return windows / whole if whole else 0.0, fast <= WORTH * slow


def saving(share: float) -> str:
    """Return in words what an engine saves that takes a `share` of the dense multiply-adds."""
    return f"{1 / share:.1f} times fewer multiply-adds than dense" if share else "no arithmetic"


def numerics(engine: str, device: torch.device, batch_rows: int | None = None) -> dict[str, Any]:
    """Return what decides the last bits of a result."""
    return {
        "engine": engine,
        **({} if batch_rows is None else {"batch_rows": batch_rows}),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def _check(
    engine: Incremental,
    model: Model,
    canvas: Canvas,
    objects: ObjectSet,
    design: Design,
    layers: Sequence[Layer],
) -> None:
    """Compare the engine with one whole pass: an object in the canvas's last corner.

    The engine computes it among other images, the whole pass does it alone.

    Raises
    ------
    NotTraceable
        They differ: the network does something that its graph does not tell, or its images
        depend on each other.
    """
    (_, ys), (_, xs) = design.axes
    edges_y, edges_x = (np.unique([0, len(places) - 1]) for places in (ys, xs))
    tile = Tile(edges_y, edges_x, np.arange(min(2, len(design.objects))))
    row = np.array([tile.n_rows - len(tile.objects)])
    found: dict[str, torch.Tensor] = {}

    def receive(name: str, value: Maps | torch.Tensor) -> None:
        if isinstance(value, Maps):
            value = WindowRows(value, engine.ground(name), tile).full(row)
        elif len(value) == tile.n_rows:
            value = value[row]
        found[name] = value.clone()

    for _ in engine.run(tile, layers, receive):
        pass
    color = canvas.background_color(model.transform.mean)
    image = canvas.paste(objects.patches(color)[:1], [(ys[-1], xs[-1])], color)
    values = model.transform.apply(torch.from_numpy(image).to(model.device))
    by_module: dict[str, list[Layer]] = {}
    for layer in layers:
        by_module.setdefault(layer.module, []).append(layer)
    differing: list[str] = []
    seen: set[str] = set()

    def compare(module: str, call: int, output: object) -> None:
        tensors = output_tensors(output)
        for layer in by_module[module]:
            if layer.call == call and layer.output in tensors:
                seen.add(layer.name)
                if not alike(found[engine.source_of(layer)], tensors[layer.output]):
                    differing.append(layer.name)

    with Taps(model.module, by_module, compare):
        model.module(values)
    if differing or len(seen) < len(layers):
        names = differing or [layer.name for layer in layers if layer.name not in seen]
        raise NotTraceable(f"layer {names[0]!r} comes out otherwise than in a whole pass")


def alike(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Return whether two activations are equal up to rounding."""
    if found.shape != expected.shape:
        return False
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    if not np.isfinite(largest):
        return True  # sinks say so, and of which object
    return float((found - expected).abs().max()) <= TOLERANCE * max(largest, 1e-30)
