"""Scores of images of which one window after the other is covered, by the incremental engine.

A covered window is to its image what an object is to an empty canvas: it changes a window of each
feature map. The network is traced once; each image is a ground of its own, on which the windows
are placed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from elsewhere.analyzer.attribution.lattices import Interval, Lattice, spread_windows
from elsewhere.analyzer.attribution.targets import Scorer
from elsewhere.errors import EngineError, InputError
from elsewhere.measures.vectors import to_numpy
from elsewhere.models import Layer, Model, output_tensors
from elsewhere.models.forward import evaluating
from elsewhere.models.proof import find_difference
from elsewhere.recording.engines import EngineChoice, failing, not_worth, saving, weigh
from elsewhere.recording.engines.windows import TILE_BYTES
from elsewhere.recording.incremental import (
    Covered,
    Incremental,
    NotTraceable,
    Tile,
    WindowRows,
    following,
)
from elsewhere.recording.incremental.trace import Program
from elsewhere.recording.incremental.windows import Ground, Maps
from elsewhere.types import BATCH_ROWS, Engine, format_bytes

Taken = TypeVar("Taken")


@dataclass(frozen=True)
class CoveredImage:
    """An image, and what its windows are replaced by.

    Parameters
    ----------
    image, baseline
        As the network takes them, (1, 3, height, width).
    corner
        First row and column of the object's box, px.
    side
        Of the box, px.
    plain
        Whether the baseline equals the image outside the box.
    """

    image: torch.Tensor
    baseline: torch.Tensor
    corner: tuple[int, int]
    side: int
    plain: bool

    @property
    def size(self) -> int:
        """Side of the canvas, px."""
        return self.image.shape[-1]

    def stretch(self, first: int) -> tuple[int, int]:
        """Return the rows or columns in which the baseline may differ, of a box from `first` on."""
        return (first, first + self.side) if self.plain else (0, self.size)

    def windows(self, lattice: Lattice) -> tuple[list[Interval], list[Interval]]:
        """Return the lattice's windows along y and x, as far as they lie on the canvas.

        Those that cover nothing that differs from the baseline count in means, too.
        """
        y, x = (lattice.windows(first, self.size) for first in self.corner)
        return y, x

    def changing(
        self, stretches: tuple[list[Interval], list[Interval]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return which windows along y and x cover anything that the baseline changes."""
        differs = (self.image != self.baseline)[0].any(0)
        lines = to_numpy(torch.stack([differs.any(1), differs.any(0)]))
        y, x = (
            np.flatnonzero([bool(line[a:b].any()) for a, b in along])
            for along, line in zip(stretches, lines, strict=True)
        )
        return y, x


class Coverer:
    """A network, compiled for windows that cover parts of images.

    Parameters
    ----------
    model
        The network.
    scorer
        From activations to scores.
    layer
        What the scorer reads.
    program
        The traced network, as far as it leads to `layer`.
    max_bytes
        Bytes that windows may take.
    """

    def __init__(
        self, model: Model, scorer: Scorer, layer: Layer, program: Program | None, max_bytes: int
    ) -> None:
        self.model, self.scorer, self.layer = model, scorer, layer
        self.program, self.max_bytes = program, max_bytes

    def compile(
        self, scene: CoveredImage, rows: list[Interval], columns: list[Interval]
    ) -> Incremental:
        """Return the engine for an image; call it in evaluation mode.

        Raises
        ------
        NotTraceable
            The network cannot be followed.
        """
        source = Covered(scene.image, scene.baseline, rows, columns)
        return Incremental(self.model, source, program=self.program)

    def maps(
        self,
        scene: CoveredImage,
        lattice: Lattice,
        column: int,
        references: torch.Tensor | None,
        share: float = 1.0,
    ) -> NDArray[np.float64]:
        """Return the mean over the windows that cover a pixel of the score less that without them.

        Parameters
        ----------
        scene
            The image.
        lattice
            The windows.
        column
            The score.
        references
            What the similarity compares with, (1, unit).
        share
            Of the memory that windows may take.

        Returns
        -------
        float64 (height, width)
        """
        y, x = scene.windows(lattice)
        ys, xs = scene.changing((y, x))
        change = np.zeros((len(y), len(x)))
        if len(ys) and len(xs):
            extra = () if references is None else (references,)

            def score(values: torch.Tensor) -> torch.Tensor:
                more = (each.expand(len(values), -1) for each in extra)
                return self.scorer.score(values.flatten(1), *more)[:, column].double()

            with _failing_but_for_memory(), evaluating(self.model.module):
                engine = self.compile(scene, [y[i] for i in ys], [x[i] for i in xs])
                empty = engine.empty(self.layer)
                whole = score(empty.maps if isinstance(empty, Ground) else empty)
                found = self._covered(engine, (len(ys), len(xs)), score, share)
                changes = to_numpy(whole - torch.cat([each for _, each in found]))
            for tile, each in found:
                some, changes = changes[: len(each)], changes[len(each) :]
                places = np.ix_(ys[tile.ys], xs[tile.xs])
                change[places] = some.reshape(len(tile.ys), len(tile.xs))
        return spread_windows(change, y, x, scene.size)

    def _covered(
        self,
        engine: Incremental,
        shape: tuple[int, int],
        score: Callable[[torch.Tensor], torch.Tensor],
        share: float,
    ) -> list[tuple[Tile, torch.Tensor]]:
        """Return the scores without each window, tile by tile, on the device."""
        room = int(min(self.max_bytes, TILE_BYTES) * share)
        tiles = engine.tiles([self.layer], *map(np.arange, shape), max_bytes=room)
        return [(tile, torch.cat(_run(engine, self.layer, tile, score))) for tile in tiles]


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that the memory does not suffice, on any device."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "not enough memory" in text or "can't allocate memory" in text


@contextlib.contextmanager
def _failing_but_for_memory() -> Iterator[None]:
    """Turn what fails into an EngineError, but for want of memory: whoever runs halves the work."""
    try:
        with failing():
            yield
    except EngineError as error:
        if error.__cause__ is not None and is_out_of_memory(error.__cause__):
            raise error.__cause__ from None
        raise


def _run(
    engine: Incremental, layer: Layer, tile: Tile, take: Callable[[torch.Tensor], Taken]
) -> list[Taken]:
    """Run a tile and return what `take` makes of a layer's activations, some rows at a time."""
    found: list[Taken] = []

    def receive(name: str, value: Maps | torch.Tensor) -> None:
        if isinstance(value, torch.Tensor):
            found.append(take(value))
            return
        source = WindowRows(value, engine.ground(name), tile)
        for first in range(0, tile.n_rows, BATCH_ROWS):
            rows = np.arange(first, min(first + BATCH_ROWS, tile.n_rows))
            found.append(take(source.full(rows)))

    for _ in engine.run(tile, [layer], receive):
        pass
    return found


def choose_coverer(
    wanted: Engine,
    model: Model,
    scorer: Scorer,
    scene: CoveredImage,
    lattice: Lattice,
    max_memory: int,
) -> tuple[EngineChoice, Coverer | None]:
    """Return the engine that covers windows, and why; None for whole passes.

    Parameters
    ----------
    wanted
        ``dense``, ``incremental``, or ``auto``: the incremental one where it applies and pays.
    model, scorer
        The network, and its scores.
    scene
        A typical image.
    lattice
        The windows.
    max_memory
        Bytes that the windows of an image and its activations may take.

    Raises
    ------
    InputError
        The incremental engine is asked for by name and does not apply.
    """
    if wanted == "dense":
        return EngineChoice("dense", ""), None
    try:
        with following(), evaluating(model.module):
            coverer, share, worth = _try(model, scorer, scene, lattice, max_memory)
    except NotTraceable as error:
        if wanted == "incremental":
            raise InputError(
                f"--engine incremental does not apply to {model.name}: {error}; "
                "take --engine auto or dense"
            ) from error
        return EngineChoice("dense", f"auto: {error}"), None
    if wanted == "auto" and not worth:
        return EngineChoice("dense", f"auto: {not_worth(share)}"), None
    return EngineChoice("incremental", saving(share)), coverer


def _try(
    model: Model, scorer: Scorer, scene: CoveredImage, lattice: Lattice, max_memory: int
) -> tuple[Coverer, float, bool]:
    """Return what covers windows, its share of the multiply-adds, and whether it pays.

    Raises
    ------
    NotTraceable
        The network cannot be followed, one window comes out otherwise than in a whole pass, or
        an image's activations do not fit the memory.
    """
    if model.device.type not in ("cpu", "cuda"):
        raise NotTraceable(f"device {model.device.type} has no double precision")
    y, x = scene.windows(lattice)
    ys, xs = scene.changing((y, x))
    if not (len(ys) and len(xs)):  # an object that is not to be seen
        ys, xs = (np.flatnonzero([a < b for a, b in along]) for along in (y, x))
    rows, columns = [y[i] for i in ys], [x[i] for i in xs]
    layer = _scored_layer(scorer, scene.image)
    first = Coverer(model, scorer, layer, None, max_memory).compile(scene, rows, columns)
    program = first.program([layer])
    engine = Incremental(model, first.source, program=program)
    place = len(rows) // 2, len(columns) // 2
    one = Tile(*(np.array([number]) for number in (*place, 0)))
    room = max_memory - engine.empty_bytes
    if room < engine.peak_bytes(one, [layer]):
        needed = engine.empty_bytes + engine.peak_bytes(one, [layer])
        raise NotTraceable(
            f"an image's activations take about {format_bytes(needed)}, above --max-memory "
            f"{format_bytes(max_memory)}"
        )
    _check(engine, scorer, scene, layer, one, (rows[place[0]], columns[place[1]]))
    shape, (top, left) = (len(rows), len(columns)), scene.corner
    dense = [len(lattice.touching(first, *scene.stretch(first))) for first in (top, left)]
    share, worth = weigh(engine, [layer], shape, math.prod(dense), passes=1)
    return Coverer(model, scorer, layer, program, room), share, worth


def _scored_layer(scorer: Scorer, image: torch.Tensor) -> Layer:
    """Return the layer that scores are made of; what the network gives counts as one."""
    if scorer.layer is not None:
        return scorer.layer
    tensors = output_tensors(scorer.network(image))
    if not tensors:
        raise NotTraceable("it gives no tensor")
    key, value = next(iter(tensors.items()))
    return Layer("output", "", "output", tuple(value.shape[1:]), layout=(), output=key)


def _check(
    engine: Incremental,
    scorer: Scorer,
    scene: CoveredImage,
    layer: Layer,
    tile: Tile,
    window: tuple[Interval, Interval],
) -> None:
    """Compare one window with a whole pass.

    Raises
    ------
    NotTraceable
        They differ: the network does something that its graph does not tell.
    """
    covered = scene.image.clone()
    area = (..., slice(*window[0]), slice(*window[1]))
    covered[area] = scene.baseline[area]
    name = f"layer {layer.name!r}"
    reason = find_difference(
        scorer.network,
        lambda: {name: scorer.activations(covered)},
        lambda: {name: torch.cat(_run(engine, layer, tile, lambda v: v.flatten(1).clone()))},
    )
    if reason:
        raise NotTraceable(reason)
