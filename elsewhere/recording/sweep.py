"""Sweeps: every object at every position through a network, as a source for sinks."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from elsewhere.errors import CanvasError, LayerError, UnknownNameError
from elsewhere.measures.blocks import DenseBlock
from elsewhere.models import (
    Conduct,
    Layer,
    Model,
    list_layers,
    output_tensors,
    select_layers,
    untouched,
)
from elsewhere.models.forward import evaluating, exact
from elsewhere.models.heads import name_head
from elsewhere.protocols import STAGES, Design, Need, Progress, Sink, Stage, stages_of
from elsewhere.recording.engines import Choice, numerics
from elsewhere.recording.findings import Findings, watch_again
from elsewhere.recording.hooks import Taps
from elsewhere.recording.images import Batch, Images, batches_of
from elsewhere.recording.incremental.streaming import SINK_SHARE, TileStream, memory_for, room_of
from elsewhere.stimuli import Canvas, Grid, ObjectSet
from elsewhere.storage.recording import DEFAULT_MEMORY, n_parts
from elsewhere.storage.units import Units
from elsewhere.types import BATCH_ROWS, Color, Engine, Location, format_bytes


class _Enough(Exception):
    """Raised inside the last hook that is needed: the rest of the pass would be wasted."""


@dataclass(frozen=True)
class Group:
    """Layers that are taken in one sweep, and in how many parts.

    Parameters
    ----------
    layers
        The layers.
    parts
        Sweeps over these layers; more than one only for a single layer.
    held
        Bytes that the sinks hold meanwhile.
    tile
        Objects, rows and columns of a tile, where a recording's units are computed together.
    """

    layers: tuple[Layer, ...]
    parts: int
    held: float
    tile: tuple[int, ...] | None = None


class Sweep:
    """A network, objects, a canvas and a grid: what can be recorded or measured.

    Parameters
    ----------
    model
        The network; it stays on the device it is on.
    objects
        The objects, rendered at the canvas's object size; those that cannot be seen on the
        background are left out, with a note.
    canvas
        Canvas, object size and background.
    grid
        Where the objects go; ``stride:7`` by default.
    reference
        The location to compare with; by default the leftmost of the grid's middle row.
    layers
        Names, aliases or globs; by default the last pooling and everything after it.
    engine
        ``dense`` runs whole canvases, ``incremental`` the windows that an object changes (same
        values up to rounding), ``auto`` the latter where it applies and pays.

    Raises
    ------
    CanvasError
        Objects, canvas, grid and reference do not fit together.
    UnknownNameError, LayerError
        A layer is not known, or does not fire.
    InputError
        The network does not take a canvas of that size, or its images depend on each other, on
        chance, or on what was shown before (see :func:`elsewhere.models.observe`).
    """

    def __init__(
        self,
        model: Model,
        objects: ObjectSet,
        *,
        canvas: Canvas | None = None,
        grid: Grid | None = None,
        reference: Location | None = None,
        layers: str | Sequence[str] | None = None,
        engine: Engine = "auto",
    ) -> None:
        if engine not in get_args(Engine):
            raise UnknownNameError("engine", engine, get_args(Engine))
        self.model, self.engine = model, engine
        self.canvas = Canvas(model.canvas_size, objects.size) if canvas is None else canvas
        if objects.size != self.canvas.object_size:
            raise CanvasError(
                f"objects of {objects.size} px for a canvas whose object size is "
                f"{self.canvas.object_size} px; load the objects at that size"
            )
        self.objects = objects = objects.seen_on(self.color)
        self.grid = (Grid.default(self.canvas) if grid is None else grid).check(self.canvas)
        place = self.grid.default_reference if reference is None else reference
        self.reference = self.canvas.check(place)
        self.model = model = name_head(model, self.canvas.size)
        every = list_layers(model, self.canvas.size, containers=True)
        self.layers: tuple[Layer, ...] = select_layers(every, layers, model)
        self.design = Design(
            objects=objects.ids,
            categories=objects.categories,
            axes=tuple(self.grid.axes.items()),
            reference=self.reference,
        )
        self._findings = Findings(model, objects, self.canvas, self.design, self.layers, engine)
        self._findings.refuse()

    @property
    def conduct(self) -> Conduct:
        """How the network has to be run, and how it behaves; found out once."""
        return self._findings.conduct

    @property
    def choice(self) -> Choice:
        """The engine that runs this sweep, and why; found out once."""
        return self._findings.choice

    @property
    def rows(self) -> int:
        """How many images a whole pass takes."""
        return 1 if self.conduct.alone else BATCH_ROWS

    @property
    def windows(self) -> TileStream | None:
        """The stages by windows, where they are taken."""
        return self._findings.windows

    def at(self, reference: tuple[int, ...]) -> Sweep:
        """Return a sweep of its own with another reference.

        Raises
        ------
        CanvasError
            The object would not lie on the canvas.
        """
        other = self._alike(self.model, self.engine)
        y, x = reference
        other.reference = self.canvas.check((y, x))
        other.design = replace(self.design, reference=other.reference)
        other._findings = self._findings.current().at(other.design)
        return other

    def using(self, engine: Engine) -> Sweep:
        """Return the same sweep by another engine."""
        return self._alike(self.model, engine)

    def of(self, model: Model) -> Sweep:
        """Return the same sweep of another network, which has the same layers."""
        return self._alike(model, self.engine)

    def _alike(self, model: Model, engine: Engine) -> Sweep:
        """Return a sweep of the same things about which nothing has been found out yet."""
        other = object.__new__(type(self))
        other.model, other.objects = model, self.objects
        other.canvas, other.grid, other.reference = self.canvas, self.grid, self.reference
        other.engine, other.layers, other.design = engine, self.layers, self.design
        other._findings = self._findings.current().of(other.model, other.engine)
        return other

    @property
    def color(self) -> Color:
        """The background's colour."""
        return self.canvas.background_color(self.model.transform.mean)

    @property
    def numerics(self) -> dict[str, Any]:
        """What decides the last bits of a result."""
        rows = self.rows if self.choice.name == "dense" else None
        return numerics(self.choice.name, self.model.device, rows)

    @property
    def notes(self) -> list[str]:
        """Doubts about everything that this sweep gives."""
        return [*self.model.doubts, *self.objects.notes, *self.conduct.notes]

    @property
    def provenance(self) -> dict[str, Any]:
        """Attributes that recordings and results carry."""
        model, transform = self.model, self.model.transform
        return {
            "model": model.name,
            "model_arguments": dict(model.arguments),
            "weights": model.weights,
            "weights_sha256": model.weights_sha256,
            "random_keys": list(model.random_keys),
            "canvas": self.canvas.size,
            "object_size": self.canvas.object_size,
            "background": list(self.color),
            "mean": list(transform.mean),
            "std": list(transform.std),
            "gain": transform.gain,
            "object_set": self.objects.name,
            "object_source": dict(self.objects.source),
            "notes": self.notes,
            "behaviour": self.conduct.output_at(self.canvas.size),
        }

    # --- streaming --------------------------------------------------------------------------

    def stream(
        self,
        sinks: Sequence[Sink],
        *,
        max_memory: int = DEFAULT_MEMORY,
        progress: Progress | None = None,
        units: Units | None = None,
        skip: Collection[int] = (),
        tile: Sequence[int] | None = None,
    ) -> None:
        """Run the network over all images and give `sinks` their blocks.

        Parameters
        ----------
        sinks
            What takes the blocks; several share one sweep.
        max_memory
            Bytes that the sinks may hold: layers are swept in groups that fit.
        progress
            Called with the number of images done and of all.
        units
            How the sweep is cut; by default into units of about 64 images.
        skip
            Numbers of units that are not needed again. Only of use to sinks that kept them, and
            that take no notice if they come again.
        tile
            What :meth:`tile_shape` gave, for sinks that keep units.

        Raises
        ------
        NumericsError
            A sink met NaN or infinity.
        LayerError
            A layer did not fire.
        """
        self._findings = self._findings.current()
        units = Units.cut(self.design) if units is None else units
        groups = self.groups(sinks, max_memory=max_memory, tile=tile)
        counts = {stage: self._n_images(stage, units, skip) for stage in STAGES}
        total = sum(
            group.parts * sum(counts[stage] for stage in self.stages(group, sinks))
            for group in groups
        )
        done = 0
        module = self.model.module
        with untouched(module), evaluating(module), exact(self.model.device):
            images = Images(self.model, self.objects, self.canvas, self.rows)
            for group in groups:
                for part in range(group.parts):
                    takers = [sink for sink in sinks if any(map(sink.needs, group.layers))]
                    for sink in takers:
                        wanted = [layer for layer in group.layers if sink.needs(layer)]
                        sink.begin(self.design, wanted, part, group.parts)
                    for stage in self.stages(group, sinks):
                        for count in self._run_stage(
                            stage, group, takers, images, units, skip, max_memory
                        ):
                            done += count
                            if progress is not None:
                                progress(done, total)
                    for sink in takers:
                        sink.end()
            if self.windows is None:
                watch_again(
                    self.conduct, self.model, self.objects, self.canvas, self.design, self.layers
                )

    def _run_stage(
        self,
        stage: Stage,
        group: Group,
        sinks: Sequence[Sink],
        images: Images,
        units: Units,
        skip: Collection[int],
        max_memory: int,
    ) -> Iterator[int]:
        """Go through a stage with the sweep's engine; yield numbers of images."""
        if self.windows is None:
            batches = batches_of(stage, self.design, units, skip, rows=self.rows)
            return self.run(batches, group, sinks, images)
        room = room_of(max_memory)
        return self.windows.run(
            stage, group.layers, sinks, units=units, skip=skip, max_bytes=room, shape=group.tile
        )

    def tile_shape(
        self, sinks: Sequence[Sink], *, units: Units, max_memory: int = DEFAULT_MEMORY
    ) -> tuple[int, ...] | None:
        """Return objects, rows and columns of the tiles in which `units` are computed together.

        It is part of a recording's numerics. None where each unit is computed by itself.
        """
        if self.windows is None:
            return None
        group = self.groups(sinks, max_memory=max_memory)[0]
        room = room_of(max_memory)
        return self.windows.shape(group.layers, sinks, units, room)

    def tasks(
        self, units: Units, tile: Sequence[int] | None, skip: Collection[int] = ()
    ) -> list[tuple[int, ...]]:
        """Return the numbers of the units that are to be computed, those of a tile together."""
        every: Iterable[Iterable[int]] = ([unit.number] for unit in units)
        if self.windows is not None and tile is not None:
            tiles = self.windows.tiles("grid", (), (), 0, tile)
            every = (self.windows.numbers(one, units).tolist() for one in tiles)
        left = (tuple(number for number in numbers if number not in skip) for numbers in every)
        return [numbers for numbers in left if numbers]

    def _n_images(self, stage: Stage, units: Units, skip: Collection[int]) -> int:
        if stage in ("empty", "reference"):
            return 1 if stage == "empty" else len(self.objects)
        return sum(math.prod(unit.shape) for unit in units if unit.number not in skip)

    def groups(
        self,
        sinks: Sequence[Sink],
        *,
        max_memory: int = DEFAULT_MEMORY,
        tile: Sequence[int] | None = None,
    ) -> list[Group]:
        """Return the layers in groups for which what `sinks` hold fits the memory.

        What no sink holds anything of comes first, in one group, with `tile` for its tiles; a
        layer that does not fit alone is swept in several parts.
        """

        whole: Callable[[float], float] = float
        if self.windows is not None:  # which take their share, too
            max_memory, whole = room_of(max_memory) // SINK_SHARE, memory_for

        def held(layer: Layer) -> float:
            each = self._held_bytes(layer, takers(layer))
            return sum(sink.held(layer, self.design) for sink in takers(layer)) * each

        def takers(layer: Layer) -> list[Sink]:
            return [sink for sink in sinks if sink.needs(layer)]

        wanted = [layer for layer in self.layers if takers(layer)]
        shared = [
            layer for layer in wanted if any(s.held(layer, self.design) == 0 for s in takers(layer))
        ]
        groups: list[Group] = []
        current: list[Layer] = list(shared)
        used = sum(map(held, shared))
        if used > max_memory and shared:
            raise LayerError(
                f"the layers to keep and to measure in one sweep need {format_bytes(whole(used))} "
                f"of memory, more than --max-memory {format_bytes(whole(max_memory))}; raise it, "
                "or keep fewer layers"
            )
        for layer in [layer for layer in wanted if layer not in shared]:
            if current and used + held(layer) > max_memory:
                groups.append(self._group(current, 1, used))
                current, used = [], 0.0
            if held(layer) > max_memory:
                each = self._held_bytes(layer, takers(layer))
                parts = n_parts(layer, each, self.design, takers(layer), max_memory, 0, whole)
                groups.append(self._group([layer], parts, float(max_memory)))
                continue
            current.append(layer)
            used += held(layer)
        if current:
            groups.append(self._group(current, 1, used))
        if tile is not None:
            groups[:1] = [replace(group, tile=tuple(tile)) for group in groups[:1]]
        return groups

    def _held_bytes(self, layer: Layer, sinks: Sequence[Sink]) -> int:
        """Return the bytes of one activation as sinks hold it."""
        return layer.bytes if self.windows is None else self.windows.held_bytes(layer, sinks)

    def window_bytes(
        self, group: Group, sinks: Sequence[Sink], *, max_memory: int = DEFAULT_MEMORY
    ) -> int:
        """Return about what the windows of a tile take, and the empty canvas; 0 where dense."""
        if self.windows is None:
            return 0
        room = room_of(max_memory)
        return self.windows.peak_bytes("grid", group.layers, sinks, room, group.tile)

    def multiply_adds(
        self, group: Group, sinks: Sequence[Sink], *, max_memory: int = DEFAULT_MEMORY
    ) -> int:
        """Return the multiply-adds of the sweeps over a group; 0 where they are not counted."""
        if self.windows is None:
            return 0
        room = room_of(max_memory)
        every = sum(
            self.windows.engine.multiply_adds(
                self.windows.tiles(stage, group.layers, sinks, room, group.tile), group.layers
            )
            for stage in self.stages(group, sinks)
            if stage != "empty"
        )
        return group.parts * every

    def _group(self, layers: Sequence[Layer], parts: int, held: float) -> Group:
        order = {layer.name: place for place, layer in enumerate(self.layers)}
        return Group(tuple(sorted(layers, key=lambda layer: order[layer.name])), parts, held)

    @staticmethod
    def stages(group: Group, sinks: Sequence[Sink]) -> tuple[Stage, ...]:
        """Return the stages that `sinks` need of a group, in order."""
        needs = [need for sink in sinks for layer in group.layers for need in sink.needs(layer)]
        return stages_of(needs)

    def run(
        self, batches: Iterable[Batch], group: Group, sinks: Sequence[Sink], images: Images
    ) -> Iterator[int]:
        """Run the network over `batches`; yield the number of images of each."""
        by_module: dict[str, list[tuple[Layer, list[tuple[Sink, tuple[Need, ...]]]]]] = {}
        for layer in group.layers:
            takers = [(sink, sink.needs(layer)) for sink in sinks if sink.needs(layer)]
            by_module.setdefault(layer.module, []).append((layer, takers))
        pending: set[str] = set()
        rows, conduct = self.rows, self.conduct
        current: Batch

        def receive(module: str, call: int, output: object) -> None:
            tensors = output_tensors(output)
            for layer, takers in by_module[module]:
                if layer.call != call:
                    continue
                tensor = tensors.get(layer.output)
                if tensor is None or tuple(tensor.shape) != (rows, *layer.shape):
                    came = "nothing" if tensor is None else f"shape {tuple(tensor.shape)}"
                    raise LayerError(
                        f"layer {layer.name!r} gives {came} for {rows} images; expected "
                        f"{(rows, *layer.shape)}, one row per image: record another layer"
                    )
                tensor = tensor[: len(current.objects)]
                for sink, needs in takers:
                    if any(current.stage in need.stages for need in needs):
                        sink.add(
                            DenseBlock(
                                current.stage,
                                layer.name,
                                current.objects,
                                current.positions,
                                tensor,
                                layout=layer.layout,
                            )
                        )
                pending.discard(layer.name)
            if not pending:
                raise _Enough

        with Taps(self.model.module, by_module, receive):
            for current in batches:
                pending.update(layer.name for layer in group.layers)
                with contextlib.suppress(_Enough), conduct.a_pass(self.model.module):
                    self.model.module(images.build(current))
                if pending:
                    raise LayerError(
                        f"layer {min(pending)!r} did not run in a forward pass although it ran in "
                        "the first one; the network must do the same for every input"
                    )
                yield len(current.objects)
