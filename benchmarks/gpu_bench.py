"""What the rows of :mod:`benchmarks.gpu` share: networks, sizes, and what was measured already."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks.device import bare_passes, profiled, synchronise
from elsewhere import similarity
from elsewhere.models import Model, list_layers, load_model
from elsewhere.recording import Sweep
from elsewhere.stimuli import Canvas, load_objects


@dataclass(frozen=True)
class Scale:
    """The networks, the canvas and how much of everything."""

    canvas: Canvas
    vgg16: tuple[str, dict[str, Any]]
    others: dict[str, tuple[str, dict[str, Any]]]
    grids: tuple[str, ...]
    batches: tuple[int, ...]
    batch: int
    n_steps: int
    runs: int


FULL = Scale(
    Canvas(224, 50),
    ("vgg16", {}),
    {name: (name, {}) for name in ("resnet50", "alexnet", "densenet121")},
    ("stride:8", "stride:16", "5x5", "3x3"),
    (8, 64, 256),
    batch=128,
    n_steps=50,
    runs=3,
)
_SLIM = {"canvas": 48, "hidden": 32, "num_classes": 10}
TINY = Scale(
    Canvas(48, 11),
    ("vgg16-slim", _SLIM),
    {"small-cnn": ("small-cnn", _SLIM), "vgg11-slim": ("vgg11-slim", _SLIM)},
    ("7x7", "3x3"),
    (8, 64),
    batch=16,
    n_steps=4,
    runs=1,
)


@dataclass
class Found:
    """A row of the table: what was found, against what, and the goal."""

    row: str
    work: str
    ratio: float | None
    goal: str
    met: bool | None
    details: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        ratio = "-" if self.ratio is None else f"{self.ratio:.2f}"
        met = {True: "met", False: "missed", None: "-"}[self.met]
        details = ", ".join(f"{key} {_short(value)}" for key, value in self.details.items())
        return f"| {self.row} | {self.work} | {ratio} | {self.goal} | {met} | {details} |"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class Bench:
    """What the rows share: the scale, the device, and what was measured already."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.scale = TINY if options.tiny else FULL
        self.device = torch.device(options.device)
        self.profile, self.precision = options.profile, options.precision
        self.end = time.perf_counter()  # of the row that runs
        self.profiles: list[str] = []
        self._sweeps: dict[tuple[str, str, str, int], tuple[float, Sweep]] = {}

    @property
    def left(self) -> float:
        """Seconds that the row has left."""
        return self.end - time.perf_counter()

    @cached_property
    def folder(self) -> Path:
        """A folder for weights, recordings and runs, removed in the end."""
        self._temporary = tempfile.TemporaryDirectory()
        return Path(self._temporary.name)

    @cache  # noqa: B019  (there is one bench)
    def model(self, name: str) -> Model:
        """Return a network on the device."""
        known = {"vgg16": self.scale.vgg16} | self.scale.others
        loaded, arguments = known[name]
        return load_model(loaded, model_args=arguments).to(self.device)

    @cache  # noqa: B019
    def forward(self, name: str) -> dict[int, float]:
        """Return images a second of bare forward passes, by their rows."""
        canvas, batches = self.scale.canvas.size, self.scale.batches
        return bare_passes(self.model(name), canvas, batches, precision=self.precision)

    def sweep(self, name: str, engine: str, grid: str, n_objects: int) -> Sweep:
        """Return a sweep of all ReLU layers."""
        model = self.model(name)
        layers = [each.name for each in list_layers(model, self.scale.canvas.size)
                  if each.kind == "ReLU"]  # fmt: skip
        size = self.scale.canvas.object_size
        return Sweep(
            model,
            load_objects("glyphs", size=size, categories=n_objects),
            canvas=self.scale.canvas,
            grid=grid,
            layers=layers,
            engine=engine,  # type: ignore[arg-type]
            precision=self.precision,
        )

    def swept(
        self, name: str, engine: str, grids: Sequence[str], n_objects: int, seconds: float
    ) -> tuple[str, float, Sweep]:
        """Return the largest grid that a sweep finishes in about `seconds`, and how long it took.

        The smallest grid comes first, and is not counted where a larger one fits.
        """
        small, grid, rate = grids[-1], "", 0.0
        began = time.perf_counter()
        for grid in (small, *grids):
            if (name, engine, grid, n_objects) in self._sweeps:
                return grid, *self._sweeps[name, engine, grid, n_objects]
            sweep = self.sweep(name, engine, grid, n_objects)
            n_images = sweep.design.n_positions * n_objects
            left = seconds - (time.perf_counter() - began)
            if rate and grid != small and n_images / rate > left:
                continue
            synchronise(self.device)
            first = time.perf_counter()
            similarity(sweep)
            synchronise(self.device)
            taken = time.perf_counter() - first
            if rate:  # not the first, which warms up
                self._sweeps[name, engine, grid, n_objects] = taken, sweep
                break
            rate = n_images / taken
        return grid, taken, sweep

    def watch(self, row: str, run: Callable[[], object], n_images: int) -> None:
        """Profile a short stretch, if that is asked for."""
        if self.profile and self.left > 0:
            self.profiles.append(profiled(row, run, n_images, self.device))
