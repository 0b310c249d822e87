"""How long each engine takes on a device: both are timed on a part of the sweep.

What a call costs beside its arithmetic is not the same on any two devices, nor is the rate at which
windows, which are small, are multiplied. So windows are run for two tiles of different size, whose
times give the seconds of a call and of a multiply-add, and whole canvases for one pass.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np
import torch

from elsewhere.models import Conduct, Layer
from elsewhere.models.forward import computing, evaluating
from elsewhere.models.taps import Taps
from elsewhere.recording.engines.base import wait_for
from elsewhere.recording.images import Images, batches_of
from elsewhere.recording.incremental import Incremental, Tile, WindowRows
from elsewhere.recording.incremental.windows import Maps
from elsewhere.recording.subject import Subject
from elsewhere.storage.portions import Portions

SAMPLE_WORK = 2_000_000_000_000
"""Multiply-adds of the larger tile that is timed, at most, about: a tenth of a second."""

SAMPLE_SHARE = 8
"""The smaller one has one of so many parts of them."""

SAMPLE_BYTES = 2**30
"""Whole maps that are formed of windows at a time, as for sinks."""


@dataclass(frozen=True)
class Times:
    """Seconds that a call and a multiply-add of windows take, and a pass of whole canvases."""

    call: float
    multiply_add: float
    whole_pass: float


@dataclass(frozen=True)
class _Case:
    """What is timed; cases of one key take the same time."""

    key: tuple[object, ...]
    measure: Callable[[], Times] = field(compare=False)


@lru_cache(maxsize=64)
def _measured(case: _Case) -> Times:
    return case.measure()


def time_engines(
    engine: Incremental,
    layers: Sequence[Layer],
    tiles: Sequence[Tile],
    subject: Subject,
    conduct: Conduct,
) -> Times:
    """Return what windows and whole canvases take on the device on which the network is.

    A network of the same structure at the same locations is not timed again in this process.

    Parameters
    ----------
    engine, layers, tiles
        The network compiled for windows, what is wanted of it, and how its sweep is cut.
    subject, conduct
        The sweep, and how its network is run.
    """
    first = subject.variants[0]
    key = (
        str(subject.model.device), subject.model.precision, repr(subject.model.module),
        first.canvas, first.design.axes, len(first.design.objects), subject.rows,
        tuple(layer.name for layer in layers),
    )  # fmt: skip
    return _measured(_Case(key, lambda: _measure(engine, layers, tiles, first, conduct)))


def _measure(
    engine: Incremental,
    layers: Sequence[Layer],
    tiles: Sequence[Tile],
    subject: Subject,
    conduct: Conduct,
) -> Times:
    device, found = subject.model.device, []
    with evaluating(subject.model.module), computing(device, subject.model.precision):
        largest = max(tiles, key=lambda tile: tile.n_rows)
        for most in (SAMPLE_WORK // SAMPLE_SHARE, SAMPLE_WORK):
            tile = _smaller(largest, most, lambda one: engine.multiply_adds([one], layers))
            seconds = _seconds(partial(_run, engine, tile, layers), device)
            work = engine.n_calls([tile], layers), engine.multiply_adds([tile], layers)
            found.append((*work, seconds))
        whole = _seconds(_make_pass(subject, conduct, layers), device)
    return Times(*fit(*found), whole)


def fit(
    small: tuple[float, float, float], large: tuple[float, float, float]
) -> tuple[float, float]:
    """Return the seconds of a call and of a multiply-add, neither below zero.

    `small` and `large` are calls, multiply-adds and seconds of two runs. Where these do not tell
    the two apart, or one of the results would be negative, the larger run decides.

    Examples
    --------
    >>> [round(float(each), 9) for each in fit((10, 100, 0.3), (10, 1000, 1.2))]
    [0.02, 0.001]
    >>> fit((10, 100, 0.3), (10, 100, 0.2))
    (0.02, 0.0)
    """
    table = np.array([small[:2], large[:2]], dtype=float)
    calls, adds, seconds = large
    if np.linalg.matrix_rank(table / table.max(axis=0).clip(1)) < 2:
        return seconds / max(calls, 1), 0.0
    call, add = np.linalg.solve(table, [small[2], seconds])
    if add < 0:
        return seconds / max(calls, 1), 0.0
    if call < 0:
        return 0.0, seconds / max(adds, 1)
    return float(call), float(add)


def _smaller(tile: Tile, most: int, work: Callable[[Tile], int]) -> Tile:
    """Return a part of a tile that takes at most so much work, or one location and object."""
    parts = [tile.ys, tile.xs, tile.objects]
    while work(Tile(*parts)) > most and max(map(len, parts)) > 1:
        longest = max(range(3), key=lambda number: len(parts[number]))
        parts[longest] = parts[longest][: math.ceil(len(parts[longest]) / 2)]
    return Tile(*parts)


def _run(engine: Incremental, tile: Tile, layers: Sequence[Layer]) -> None:
    """Run a tile, and form the whole maps that sinks take."""

    def receive(name: str, value: Maps | torch.Tensor) -> None:
        if isinstance(value, Maps):
            source = WindowRows(value.widened(), engine.ground(name).wide, tile)
            row_bytes = engine.ground(name).values.numel() * 4
            step = max(1, SAMPLE_BYTES // row_bytes)
            for first in range(0, tile.n_rows, step):
                source.full(np.arange(first, min(first + step, tile.n_rows)))

    for _ in engine.run(tile, layers, receive):
        pass


def _make_pass(subject: Subject, conduct: Conduct, layers: Sequence[Layer]) -> Callable[[], None]:
    """Return what runs the first batch of whole canvases."""
    model, design, rows = subject.model, subject.design, subject.rows
    images = Images(model, subject.objects, subject.canvas, rows)
    batch = next(batches_of("grid", design, Portions.cut(design, rows=rows), rows=rows))

    def run() -> None:
        taps = Taps(model.module, {layer.module for layer in layers}, lambda *_: None)
        with taps, conduct.a_pass(model.module):
            model.module(images.build(batch))

    return run


def _seconds(act: Callable[[], None], device: torch.device) -> float:
    """Return how long something takes, after a first time that is not counted."""
    taken = []
    for _ in range(3):
        wait_for(device)
        began = time.perf_counter()
        act()
        wait_for(device)
        taken.append(time.perf_counter() - began)
    return min(taken[1:])
