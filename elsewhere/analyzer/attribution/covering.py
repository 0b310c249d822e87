"""Scores of images of which one window after the other is covered, by the incremental engine.

A covered window is to its image what an object is to an empty canvas: it changes a window of each
feature map. The network is traced once; each image is a ground of its own, on which the windows
are placed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from elsewhere.analyzer.attribution.lattices import Interval, Lattice, spread_windows
from elsewhere.analyzer.attribution.targets import Scorer
from elsewhere.errors import EngineError, InputError
from elsewhere.measures.vectors import to_numpy, upload
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
from elsewhere.recording.incremental.sources import Runs, constant_runs
from elsewhere.recording.incremental.trace import Program
from elsewhere.recording.incremental.windows import Ground, Maps
from elsewhere.types import BATCH_ROWS, Engine, format_bytes

Taken = TypeVar("Taken")
Stretches: TypeAlias = tuple[list[Interval], list[Interval]]


class CoverLike(Protocol):
    """A batch of images with what they are compared with."""

    @property
    def images(self) -> torch.Tensor:
        """(n, 3, height, width), as the network takes them."""

    @property
    def baselines(self) -> torch.Tensor:
        """Of the same shape."""

    @property
    def corners(self) -> Sequence[tuple[int, int]]:
        """First row and column of each object's box, px."""

    @property
    def plain(self) -> bool:
        """Whether the baselines equal the images outside the boxes."""


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
    lines
        Rows, and columns, in which the baseline is not the image.
    runs
        Where they do not vary, see :class:`elsewhere.recording.incremental.Covered`.
    """

    image: torch.Tensor
    baseline: torch.Tensor
    corner: tuple[int, int]
    side: int
    plain: bool
    lines: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    runs: Runs

    @property
    def size(self) -> int:
        """Side of the canvas, px."""
        return self.image.shape[-1]

    def windows(self, lattice: Lattice) -> Stretches:
        """Return the lattice's windows along y and x, as far as they lie on the canvas.

        Those that cover nothing that differs from the baseline count in means, too.
        """
        y, x = (lattice.windows(first, self.size) for first in self.corner)
        return y, x

    def changing(self, stretches: Stretches) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return which windows along y and x cover anything that the baseline changes."""
        y, x = (
            np.flatnonzero([bool(line[a:b].any()) for a, b in along])
            for along, line in zip(stretches, self.lines, strict=True)
        )
        return y, x


def cover_images(batch: CoverLike, side: int) -> list[CoveredImage]:
    """Return the images of a batch as what is covered; the device is waited for once, for all.

    Parameters
    ----------
    batch
        The images.
    side
        Of the object's box, px.
    """
    images, baselines = batch.images.detach(), batch.baselines.detach()
    differs = (images != baselines).any(1)
    lines = to_numpy(torch.stack([differs.any(2), differs.any(1)], 1))
    return [
        CoveredImage(image[None], baseline[None], corner, side, batch.plain, (*both,), runs)
        for image, baseline, corner, both, runs in zip(
            images, baselines, batch.corners, lines, constant_runs(images, baselines), strict=True
        )
    ]


@dataclass(frozen=True)
class Windows:
    """The windows of a lattice on an image, and which of them change anything.

    Parameters
    ----------
    scene
        The image.
    y, x
        Along both axes, px.
    ys, xs
        Which of them change anything.
    """

    scene: CoveredImage
    y: list[Interval]
    x: list[Interval]
    ys: NDArray[np.int64]
    xs: NDArray[np.int64]

    @classmethod
    def of(cls, scene: CoveredImage, lattice: Lattice) -> Windows:
        """Return the windows of a lattice on an image."""
        stretches = scene.windows(lattice)
        return cls(scene, *stretches, *scene.changing(stretches))

    @property
    def shape(self) -> tuple[int, int]:
        """How many change anything, along both axes."""
        return len(self.ys), len(self.xs)

    @property
    def n_scores(self) -> int:
        """Scores that make the map: one without a window, and one of each; 0 where none changes."""
        return math.prod(self.shape) + bool(math.prod(self.shape))

    @property
    def boxes(self) -> NDArray[np.int64]:
        """First and last rows, and columns, of an empty one and of all that change anything."""
        if not self.n_scores:
            return np.zeros((0, 4), np.int64)
        pairs = [(*self.y[a], *self.x[b]) for a in self.ys for b in self.xs]
        return np.array([(0, 0, 0, 0), *pairs], np.int64)

    def spread(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean over the windows that cover a pixel of the score less that without them.

        `scores` are those of :attr:`boxes`; the map is (height, width).
        """
        change = np.zeros((len(self.y), len(self.x)))
        if len(scores):
            change[np.ix_(self.ys, self.xs)] = (scores[0] - scores[1:]).reshape(self.shape)
        return spread_windows(change, self.y, self.x, self.scene.size)


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
        source = Covered(scene.image, scene.baseline, rows, columns, scene.runs)
        return Incremental(self.model, source, program=self.program)

    def scores(
        self,
        windows: Windows,
        column: int,
        references: torch.Tensor | None,
        share: float = 1.0,
    ) -> torch.Tensor:
        """Return the score without a window, and with each that changes anything.

        Parameters
        ----------
        windows
            The image and its windows; some change something.
        column
            The score.
        references
            What the similarity compares with, (1, unit).
        share
            Of the memory that windows may take.

        Returns
        -------
        float64 (score,), on the device, for which nobody waits
        """
        extra = () if references is None else (references,)

        def score(values: torch.Tensor) -> torch.Tensor:
            more = (each.expand(len(values), -1) for each in extra)
            return self.scorer.score(values.flatten(1), *more)[:, column].double()

        with _failing_but_for_memory(), evaluating(self.model.module):
            rows = [windows.y[i] for i in windows.ys]
            columns = [windows.x[i] for i in windows.xs]
            engine = self.compile(windows.scene, rows, columns)
            empty = engine.empty(self.layer)
            whole = score(empty.maps if isinstance(empty, Ground) else empty)
            found = self._covered(engine, windows.shape, score, share)
            places = np.arange(math.prod(windows.shape)).reshape(windows.shape)
            order = np.concatenate([places[np.ix_(tile.ys, tile.xs)].ravel() for tile, _ in found])
            back = upload(np.argsort(order), whole.device)
            return torch.cat([whole, torch.cat([each for _, each in found])[back]])

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
    shape = len(rows), len(columns)
    share, worth = weigh(engine, [layer], shape, math.prod(shape), passes=1)
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
