"""The incremental engine: runs a network on the windows that objects change, and only there."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from elsewhere.errors import LayerError, reason_of
from elsewhere.models import Layer, Model
from elsewhere.recording.incremental.gathering import batched, spread
from elsewhere.recording.incremental.geometry import merge, slide
from elsewhere.recording.incremental.operations import (
    run_global,
    run_pointwise,
    run_sliding,
    run_together,
)
from elsewhere.recording.incremental.reads import Readings
from elsewhere.recording.incremental.rules import find_treatment
from elsewhere.recording.incremental.sources import WindowSource
from elsewhere.recording.incremental.tiling import choose_tiles
from elsewhere.recording.incremental.trace import NotTraceable, Program, Step, trace
from elsewhere.recording.incremental.treatments import (
    Call,
    Global,
    Map,
    Pointwise,
    Sliding,
    Treatment,
)
from elsewhere.recording.incremental.windows import (
    Axes,
    Ground,
    Maps,
    Tile,
    measure_constants,
)

Tensor: TypeAlias = torch.Tensor
Kind: TypeAlias = Literal["plain", "maps", "rows"]
"""The same in every pass; windows of a map; whole activations, a row per image."""

TILE_WORK = 1_500_000_000_000
"""Multiply-adds of a tile, at most: about half a minute, which is lost when a sweep is killed."""

TILE_WORK_ON_DEVICE = 20 * TILE_WORK
"""The same on a GPU: a second or two."""

_SHAPES = frozenset({"size", "dim", "ndimension", "getattr", "len"})
"""What asks for a map's shape only."""


@dataclass(frozen=True)
class StepCost:
    """What a step takes for one image."""

    weights: int  # multiply-adds per cell of its output, over all channels
    bytes: int  # of its output
    cells: int  # of its output: height times width, or 1


@dataclass(frozen=True, eq=False)
class Compiled:
    """A step with how it is executed."""

    step: Step
    kind: Kind  # of its value
    treatment: Treatment | None  # how windows pass; None for whole activations
    maps: tuple[str, ...]  # names of the operands that are maps, in order
    axes: Axes | None  # windows after it
    readings: tuple[Readings, ...]  # what it reads of each operand
    cost: StepCost


class Incremental:
    """A network in evaluation mode, compiled for windows of its input at the locations of a grid.

    Parameters
    ----------
    program
        The traced network, where it is at hand: that of another engine, or part of it.

    Raises
    ------
    NotTraceable
        The network cannot be followed.
    """

    def __init__(
        self, model: Model, source: WindowSource, *, program: Program | None = None
    ) -> None:
        self.model, self.source = model, source
        self.batched = batched(source.ground.device)
        self._program = trace(model.module) if program is None else program
        self._kinds: dict[str, Kind] = {self._program.source: "maps"}
        self._empty: dict[str, Any] = {self._program.source: source.ground}
        self._axes: dict[str, Axes] = {self._program.source: source.axes}
        self._grounds: dict[str, Ground] = {}
        self.steps: dict[str, Compiled] = {}
        for step in self._program.steps:
            self.steps[step.node] = self._compile(step)
        self._sources = self._program.find(self._empty)
        self._mark_memory()

    # --- compiling --------------------------------------------------------------------------

    def _compile(self, step: Step) -> Compiled:
        value = self._run_empty(step)
        self._empty[step.node] = value
        kinds = {self._kinds[name] for name in step.inputs}
        output = _as_map(value)
        treatment = None
        names = tuple(name for name in step.inputs if self._kinds[name] == "maps")
        if names and "rows" not in kinds:
            treatment = find_treatment(self._call(step, output))
        kind: Kind = "rows" if kinds - {"plain"} else "plain"
        axes: Axes | None = None
        readings: tuple[Readings, ...] = ()
        if isinstance(treatment, Global):
            pass
        elif treatment is not None and output is not None:
            kind = "maps"
            axes, readings = self._geometry(treatment, names)
            if tuple(axis.size for axis in axes) != output.sides:
                raise NotTraceable(f"the rule for {step.name!r} gives maps of another size")
            if self.source.measured:
                axes = self._widened(axes, value)
            self._axes[step.node] = axes
        else:
            treatment = None
        self._kinds[step.node] = kind
        cost = StepCost(
            weights=_count_weights(step, value, lambda name: self._empty[name]),
            bytes=_bytes(value) if isinstance(value, Tensor) and kind != "plain" else 0,
            cells=math.prod(output.sides) if output is not None else 1,
        )
        return Compiled(step, kind, treatment, names, axes, readings, cost)

    def _run_empty(self, step: Step) -> Any:
        """Return a step's value on the empty canvas; stored values are not overwritten."""
        args, kwargs = step.fill(lambda name: self._empty[name])
        if step.mutates and args and isinstance(args[0], Tensor):
            args = (args[0].clone(), *args[1:])
        try:
            return step.function(*args, **kwargs)
        except Exception as error:  # any operation, any complaint
            reason = reason_of(error)
            raise NotTraceable(f"its {step.name!r} cannot be repeated ({reason})") from error

    def _call(self, step: Step, output: Map | None) -> Call:
        def look_up(name: str) -> Any:
            value = self._empty[name]
            return _as_map(value) if self._kinds[name] == "maps" else value

        args, kwargs = step.fill(look_up)
        return Call(step.name, step.module, step.function, args, kwargs, output)

    def _geometry(
        self, treatment: Treatment, names: Sequence[str]
    ) -> tuple[Axes, tuple[Readings, ...]]:
        before = [self._axes[name] for name in names]
        if isinstance(treatment, Pointwise):
            return before[0], ()
        if isinstance(treatment, Sliding):
            y, read_y = slide(before[0][0], treatment.slides[0], even=self.batched)
            x, read_x = slide(before[0][1], treatment.slides[1], even=self.batched)
            return (y, x), ((read_y, read_x),)
        y, reads_y = merge([axes[0] for axes in before], even=self.batched)
        x, reads_x = merge([axes[1] for axes in before], even=self.batched)
        return (y, x), tuple(zip(reads_y, reads_x, strict=True))

    @staticmethod
    def _widened(axes: Axes, value: Tensor) -> Axes:
        """Return axes whose constant interval is what the empty canvas's map shows, if longer."""
        rows, columns = measure_constants(value[0])
        return axes[0].widened(rows), axes[1].widened(columns)

    def _mark_memory(self) -> None:
        """Find the values that lie in the memory of another."""
        self._roots: dict[str, str] = {}
        for name, one in self.steps.items():
            same = isinstance(one.treatment, Pointwise) and (
                one.treatment.run is one.treatment.overwrite
            )
            self._roots[name] = self._root(one.maps[0]) if same else name

    def _root(self, name: str) -> str:
        return self._roots.get(name, name)

    # --- what there is ----------------------------------------------------------------------

    def source_of(self, layer: Layer) -> str:
        """Return the step that gives a layer's activation.

        Raises
        ------
        NotTraceable
            The layer lies within a module that is not looked into.
        """
        key = (layer.module, layer.call, layer.output)
        if (
            key not in self._sources
            or tuple(self._empty[self._sources[key]].shape[1:]) != layer.given_shape
        ):
            raise NotTraceable(f"layer {layer.name!r} lies within a module that is not looked into")
        return self._sources[key]

    def program(self, layers: Collection[Layer]) -> Program:
        """Return the traced network as far as it leads to `layers`."""
        return self._program.leading([self.source_of(layer) for layer in layers])

    def held_bytes(self, layer: Layer) -> int:
        """Return the bytes that one activation of a layer takes as vectors: its largest window."""
        name = self.source_of(layer)
        if self._kinds[name] != "maps":
            return layer.bytes
        y, x = self._axes[name]
        return int(y.length.max()) * int(x.length.max()) * layer.shape[0] * 4

    def ground(self, name: str) -> Ground:
        """Return the empty canvas's map after a step."""
        if name not in self._grounds:
            self._grounds[name] = Ground(self._empty[name][0].permute(1, 2, 0))
            self._empty[name] = self._grounds[name].maps  # one memory for both
        return self._grounds[name]

    def empty(self, layer: Layer) -> Ground | Tensor:
        """Return the empty canvas's activation of a layer."""
        name = self.source_of(layer)
        if self._kinds[name] == "maps":
            return self.ground(name)
        value: Tensor = self._empty[name]
        return value

    def needed(self, layers: Collection[Layer]) -> list[Compiled]:
        """Return the steps that lead to `layers`, in order."""
        wanted = {self.source_of(layer) for layer in layers}
        chosen: list[Compiled] = []
        for name, one in reversed(self.steps.items()):
            if name in wanted and one.kind != "plain":
                chosen.append(one)
                wanted |= set(one.step.inputs)
        return chosen[::-1]

    # --- running ----------------------------------------------------------------------------

    def run(
        self,
        tile: Tile,
        layers: Collection[Layer],
        receive: Callable[[str, Maps | Tensor], None],
    ) -> Iterator[Compiled]:
        """Run the steps that lead to `layers` for a tile, and yield each when it is through.

        `receive` is called with a step's name and value where it gives one of the layers; the value
        is valid only then.
        """
        steps = self.needed(layers)
        wanted = {self.source_of(layer) for layer in layers}
        last = self._last_uses(steps)
        values: dict[str, Any] = {self._program.source: self.source.windows(tile)}
        if self._program.source in wanted:
            receive(self._program.source, values[self._program.source])
        for number, one in enumerate(steps):
            dying = {root for root, use in last.items() if use <= number}
            value = self._execute(one, values, tile, dying)
            name = one.step.node
            values[name] = value
            if name in wanted:
                receive(name, value)
            for held in [held for held in values if self._root(held) in dying]:
                del values[held]
            yield one

    def _last_uses(self, steps: Sequence[Compiled]) -> dict[str, int]:
        """Return for each memory the number of the last step that reads it."""
        last: dict[str, int] = {}
        for number, one in enumerate(steps):
            for name in (*one.step.inputs, one.step.node):
                last[self._root(name)] = number
        return last

    def _execute(
        self, one: Compiled, values: Mapping[str, Any], tile: Tile, dying: Collection[str]
    ) -> Any:
        treatment, axes = one.treatment, one.axes
        if treatment is None:
            return self._run_rows(one, values, tile)
        maps = [values[name] for name in one.maps]
        if isinstance(treatment, Global):
            return run_global(treatment, maps[0], self.ground(one.maps[0]), tile)
        if axes is None:
            raise LayerError(f"no windows are known after {one.step.name!r}")
        if isinstance(treatment, Pointwise):
            free = self._root(one.maps[0]) in dying
            run = treatment.overwrite if free and treatment.overwrite else treatment.run
            return run_pointwise(run, maps[0], axes)
        if isinstance(treatment, Sliding):
            ground = self.ground(one.maps[0])
            return run_sliding(treatment, maps[0], one.readings[0], ground, axes, tile)
        operands = [
            (value, reading, self.ground(name), self._root(name) in dying)
            for value, reading, name in zip(maps, one.readings, one.maps, strict=True)
        ]
        return run_together(treatment, operands, axes, tile)

    def _run_rows(self, one: Compiled, values: Mapping[str, Any], tile: Tile) -> Any:
        """Run an operation on whole activations."""
        shapes_only = one.step.name in _SHAPES

        def look_up(name: str) -> Any:
            kind = self._kinds[name]
            if kind == "plain":
                return self._empty[name]
            if kind == "rows":
                return values[name]
            if shapes_only:
                return self._empty[name].expand(tile.n_rows, -1, -1, -1)
            return spread(values[name], self.ground(name), tile)

        args, kwargs = one.step.fill(look_up)
        return one.step.function(*args, **kwargs)

    # --- costs ------------------------------------------------------------------------------

    def tiles(
        self,
        layers: Collection[Layer],
        ys: NDArray[np.int64],
        xs: NDArray[np.int64],
        *,
        max_bytes: int,
        kept_bytes: int = 0,
    ) -> list[Tile]:
        """Return locations and objects in tiles whose windows fit `max_bytes`, about.

        `ys` and `xs` are indices of locations, `kept_bytes` what sinks keep of an image while its
        tile is open.
        """

        def fits(tile: Tile) -> bool:
            held = self.peak_bytes(tile, layers) + kept_bytes * tile.n_rows
            work = TILE_WORK_ON_DEVICE if self.batched else TILE_WORK
            return held <= max_bytes and self.multiply_adds([tile], layers) <= work

        return choose_tiles(fits, ys, xs, np.arange(self.source.n_objects))

    @property
    def empty_bytes(self) -> int:
        """Bytes of the empty canvas's activations, once as they are and once padded."""
        return 2 * sum(_bytes(v) for v in self._empty.values() if isinstance(v, Tensor))

    def peak_bytes(self, tile: Tile, layers: Collection[Layer]) -> int:
        """Return about how much memory the windows of a tile take at most."""
        steps = self.needed(layers)
        last = self._last_uses(steps)
        live: dict[str, int] = {}
        peak = 0
        for number, one in enumerate(steps):
            size = self._bytes_of(one, tile)
            reads = 0
            if one.treatment is None:
                reads = sum(
                    _bytes(self._empty[name]) * tile.n_rows
                    for name in one.maps
                    if one.step.name not in _SHAPES
                )
            root = self._root(one.step.node)
            live[root] = max(live.get(root, 0), size)
            peak = max(peak, sum(live.values()) + reads)
            for name in [name for name in live if last.get(name, number) <= number]:
                del live[name]
        return peak

    def _bytes_of(self, one: Compiled, tile: Tile) -> int:
        if one.axes is None:
            return one.cost.bytes * tile.n_rows
        return int(one.cost.bytes / one.cost.cells * self._cells(one, tile)) * len(tile.objects)

    @staticmethod
    def _cells(one: Compiled, tile: Tile) -> int:
        """Return how many cells of one object a step computes."""
        if one.axes is None:
            return one.cost.cells * len(tile.ys) * len(tile.xs)
        counts = [
            int(axis.class_lengths(np.unique(axis.classes[chosen])).sum())
            for axis, chosen in zip(one.axes, (tile.ys, tile.xs), strict=True)
        ]
        return math.prod(counts)

    def multiply_adds_of(self, one: Compiled, tile: Tile) -> int:
        """Return the multiply-adds of a step over a tile."""
        return one.cost.weights * self._cells(one, tile) * len(tile.objects)

    def multiply_adds(self, tiles: Sequence[Tile], layers: Collection[Layer]) -> int:
        """Return the multiply-adds of convolutions and linear layers over `tiles`."""
        return sum(
            self.multiply_adds_of(one, tile)
            for one in self.needed(layers)
            for tile in tiles
            if one.cost.weights
        )

    def dense_multiply_adds(self, layers: Collection[Layer]) -> int:
        """Return the multiply-adds of one whole pass."""
        return sum(one.cost.weights * one.cost.cells for one in self.needed(layers))

    def n_calls(self, tiles: Sequence[Tile], layers: Collection[Layer]) -> int:
        """Return about how many times operations are called."""
        steps = self.needed(layers)
        return sum(
            1 if one.axes is None else math.prod(
                len(set(axis.class_lengths(np.unique(axis.classes[chosen])).tolist()))
                for axis, chosen in zip(one.axes, (tile.ys, tile.xs), strict=True)
            )
            for tile in tiles
            for one in steps
        )  # fmt: skip


def _count_weights(step: Step, value: Any, look_up: Callable[[str], Any]) -> int:
    """Return the multiply-adds per output cell of a convolution or linear layer, else 0.

    `value` is the step's output for one image; `look_up` returns the value of a step by name.
    """
    weight: Any = None
    if isinstance(step.module, nn.Conv2d | nn.Linear):
        weight = step.module.weight
    elif step.name in ("conv2d", "linear"):
        args, kwargs = step.fill(look_up)
        weight = kwargs.get("weight", args[1] if len(args) > 1 else None)
    if not isinstance(weight, torch.Tensor) or not isinstance(value, torch.Tensor):
        return 0
    if value.ndim == 4 and weight.ndim == 4:
        return weight.numel()
    return weight.numel() * math.prod(value.shape[1:-1])


def _as_map(value: Any) -> Map | None:
    """Return what stands for a map, where `value` is one of one row."""
    if isinstance(value, Tensor) and value.ndim == 4 and value.shape[0] == 1:
        return Map(*value.shape[1:]) if value.is_floating_point() else None
    return None


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()
