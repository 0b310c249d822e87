"""Sweeps: every object at every position through a network, as a source for sinks."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from elsewhere.axes import Axes, Axis, Coordinate
from elsewhere.displays import ShownSource
from elsewhere.errors import CanvasError, UnknownNameError
from elsewhere.models import (
    OUTPUT,
    Conduct,
    Layer,
    Model,
    list_layers,
    select_layers,
    state_sha256,
    untouched,
)
from elsewhere.models.forward import check_precision, computing, evaluating
from elsewhere.models.heads import name_head
from elsewhere.models.loading import as_model
from elsewhere.models.selection import take_tokens, unknown_layouts
from elsewhere.protocols import Design, Progress, Sink, Source, Stage
from elsewhere.recording.engines import (
    Cut,
    Subject,
    SweepEngine,
    engines,
    numerics,
)
from elsewhere.recording.engines.base import memory_on
from elsewhere.recording.findings import Findings
from elsewhere.recording.images import rows_for
from elsewhere.registry import Registry
from elsewhere.sources import (
    DEFAULT_MEMORY,
    Feed,
    Group,
    Takers,
    drive,
    group_layers,
    select_design,
)
from elsewhere.stimuli import Canvas, Grid, ObjectSet, parse_location
from elsewhere.stimuli.transformations import check_seen, transformations, vary, window_of
from elsewhere.storage.portions import Portions
from elsewhere.tokens import TokenPart
from elsewhere.types import BATCH_ROWS, Color, Engine, Precision

MOST_ROWS = 64
"""Images of a whole pass, at most: larger batches save nothing more on a processor."""

MOST_ROWS_ON_DEVICE = 256
"""The same on a GPU, where all sweeps take as many as suit design and memory."""


_REGISTRIES: dict[str, Registry[Any]] = {each.kind: each for each in (engines, transformations)}
"""Of what a sweep has by name."""


class Sweep(ShownSource, Source):
    """A network, objects, a canvas and a grid: what can be recorded or measured.

    Parameters
    ----------
    model
        The network, loaded or in memory (see :func:`elsewhere.models.load_model`, which also states
        its input); it stays on the device it is on.
    objects
        The objects, rendered at the canvas's object size; those that cannot be seen on the
        background are left out, with a note.
    canvas
        Canvas, object size and background.
    grid
        Where the objects go, or a text that :meth:`elsewhere.stimuli.Grid.parse` reads; by default
        ``stride:7``.
    axes
        Axes that change objects (:mod:`elsewhere.stimuli.transformations`): each object is shown
        at each of their values at each location. They come before ``y`` and ``x``.
    reference
        The location to compare with, px, or a text (:func:`elsewhere.stimuli.parse_location`), or a
        value along each axis; by default the leftmost of the grid's middle row, and the value that
        leaves objects as they are.
    layers
        Names, aliases or globs; by default the last pooling and everything after it.
    engine
        ``dense`` runs whole canvases, ``incremental`` the windows that an object changes (same
        values up to rounding), ``auto`` the latter where it applies and pays.
    precision
        What the network computes in, ``float32``, ``tf32`` (CUDA) or ``bfloat16``; by default what
        `model` says.
    tokens
        Which tokens are taken of layers that give tokens: ``all``, their ``grid`` (a map), the
        ``class`` token (a vector) or the ``registers``.

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

    together: ClassVar[bool] = True

    def __init__(
        self,
        model: Model | nn.Module,
        objects: ObjectSet,
        *,
        canvas: Canvas | None = None,
        grid: Grid | str | None = None,
        axes: Sequence[Axis] = (),
        reference: tuple[Coordinate, ...] | str | None = None,
        layers: str | Sequence[str] | None = None,
        engine: Engine = "auto",
        precision: Precision | None = None,
        tokens: TokenPart = "all",
    ) -> None:
        model = as_model(model)
        if precision is not None:
            model = model.running(precision=precision)
        check_precision(model.device, model.precision)
        if engine not in (known := ("auto", *engines)):
            raise UnknownNameError("engine", engine, known)
        self.model, self.engine = model, engine
        self.canvas = Canvas(model.canvas_size, objects.size) if canvas is None else canvas
        if objects.size != self.canvas.object_size:
            raise CanvasError(
                f"objects of {objects.size} px for a canvas whose object size is "
                f"{self.canvas.object_size} px; load the objects at that size"
            )
        self.objects = objects = objects.seen_on(self.color)
        changing = Axes(tuple(axes))
        here = tuple(transformations.get(axis.name).neutral for axis in changing)
        if isinstance(reference, tuple) and len(reference) > 2:
            here, reference = reference[:-2], reference[-2:]
        values = changing.with_reference(here)
        varied = vary(objects, changing.names, values)
        check_seen(varied, changing.names, values, self.color)
        self.window = window_of(varied, self.canvas, changing.names)
        if not isinstance(grid, Grid):
            grid = Grid.parse("stride:7" if grid is None else grid, self.window)
        self.grid = grid.check(self.window)
        if isinstance(reference, str):
            reference = parse_location(reference, self.window, grid)
        self.reference = self.window.check(
            grid.default_reference if reference is None else reference
        )
        self.model = model = name_head(model, self.canvas.size)
        asked = OUTPUT in "".join(layers or ())
        every = list_layers(model, self.canvas.size, containers=True, output=asked)
        sizes = sorted(layer.bytes for layer in every)
        self._image_bytes = 24 * self.canvas.size**2 + sum(sizes[-3:])
        self._rows = BATCH_ROWS
        self.layers: tuple[Layer, ...] = take_tokens(select_layers(every, layers, model), tokens)
        self.design = Design(
            objects=objects.ids,
            categories=objects.categories,
            axes=Axes((*changing, *self.grid.axes)),
            reference=(*here, *self.reference),
        )
        if model.device.type == "cuda":
            room = memory_on(model.device, 0) // 4 // self._image_bytes
            self._rows = rows_for(self.design, min(MOST_ROWS_ON_DEVICE, room))
        self._findings = Findings(self.subject, engine)
        _ = self.conduct  # refuses a network whose values are not an image's own

    @property
    def subject(self) -> Subject:
        """What is swept, as engines take it."""
        each = self.model, self.objects, self.canvas, self.design, self.layers
        return Subject(*each, rows=self._rows, image_bytes=self._image_bytes)

    @property
    def conduct(self) -> Conduct:
        """How the network has to be run, and how it behaves; found out once."""
        return self._findings.conduct

    @property
    def choice(self) -> SweepEngine:
        """The engine that runs this sweep; its ``reason`` says why. Found out once."""
        return self._findings.choice

    @property
    def aside(self) -> Sequence[str]:
        """The reasons for which ``auto`` takes whole canvases; none where that is not settled."""
        return self._findings.aside if self.engine == "auto" else ()

    def step_aside(self, reason: str) -> bool:
        """Take whole canvases from now on, if ``auto`` left the choice; return whether that is new.

        It holds for all sweeps that come of the same one.
        """
        if self.engine != "auto" or self._findings.aside:
            return False
        self._findings.aside.append(reason)
        return True

    def go_on_by(self, engine: str) -> None:
        """Take an engine that began what is gone on with, where ``auto`` left the choice."""
        if self.engine == "auto":
            self._findings.go_on_by(engine)

    @property
    def rows(self) -> int:
        """How many images a whole pass takes."""
        return 1 if self.conduct.alone else self._rows

    def at(self, reference: tuple[int, ...]) -> Sweep:
        """Return a sweep of its own with another reference.

        Raises
        ------
        CanvasError
            The object would not lie on the canvas.
        """
        place = self.window.check(reference[-2:])
        design = self.design.at((*reference[:-2], *place))
        other = self._with(reference=place, design=design)
        other._findings = self._findings.current().at(other.subject)
        return other

    def select(
        self, objects: Sequence[int] | None = None, positions: Sequence[int] | None = None
    ) -> Sweep:
        """Return a sweep of its own of some objects at some positions: it runs nothing else.

        Raises
        ------
        InputError
            The positions are no full grid.
        """
        design = select_design(self.design, objects, positions)
        chosen = self.objects if objects is None else self.objects.subset(objects)
        return self._with(
            objects=chosen.seen_on(self.color), grid=Grid(*design.axes.moving.values), design=design
        )

    def in_batches(self, max_memory: int) -> Sweep:
        """Return the same sweep with larger batches: for what is not kept, and many images.

        A whole pass takes up to 64 images, as a quarter of `max_memory` has room for them; on a
        GPU every sweep takes as many as suit it.
        """
        if self.model.device.type == "cuda":
            return self
        room = max_memory // 4 // self._image_bytes
        images = -(-len(self.objects) * self.design.n_positions // BATCH_ROWS) * BATCH_ROWS
        rows = min(MOST_ROWS, images, room // BATCH_ROWS * BATCH_ROWS)
        return self._with(_rows=max(BATCH_ROWS, rows))

    def using(self, engine: Engine) -> Sweep:
        """Return the same sweep by another engine."""
        return self._with(engine=engine)

    def of(self, model: Model) -> Sweep:
        """Return the same sweep of another network, which has the same layers."""
        return self._with(model=model.running(precision=self.model.precision))

    def __getstate__(self) -> dict[str, Any]:
        named = [("engine", self.engine)] * (self.engine != "auto")
        named += [("axis", name) for name in self.design.axes.changing.names]
        return vars(self) | {
            "_named": [(*each, _REGISTRIES[each[0]].get(each[1])) for each in named]
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        for kind, name, thing in state.pop("_named"):
            if name not in _REGISTRIES[kind]:  # a user's, registered where this was sent from
                _REGISTRIES[kind].add(name, thing, summary="")
        vars(self).update(state)

    def _with(self, **changed: Any) -> Sweep:
        """Return a sweep in which that is another; of what was found out, only what holds there."""
        other = object.__new__(type(self))
        vars(other).update(vars(self) | changed)
        other._findings = self._findings.current().of(other.subject, other.engine)
        return other

    @property
    def color(self) -> Color:
        """The background's colour."""
        return self.canvas.background_color(self.model.transform.mean)

    @property
    def numerics(self) -> dict[str, Any]:
        """What decides the last bits of a result."""
        engine = self.choice
        return numerics(engine.name, self.model) | engine.numerics

    @property
    def notes(self) -> list[str]:
        """Doubts about everything that this sweep gives."""
        unknown = unknown_layouts(self.layers)
        return [*self.model.doubts, *self.objects.notes, *self.conduct.notes, *unknown]

    @property
    def provenance(self) -> dict[str, Any]:
        """Attributes that recordings and results carry."""
        model = self.model
        return {
            "model": model.name,
            "model_arguments": dict(model.arguments),
            "weights": model.weights,
            "weights_sha256": model.weights_sha256,
            "random_keys": list(model.random_keys),
            **({} if model.seed is None else {"weights_seed": model.seed}),
            "canvas": self.canvas.size,
            "object_size": self.canvas.object_size,
            "background": list(self.color),
            **model.transform.facts,
            "object_set": self.objects.name,
            "object_source": dict(self.objects.source),
            "object_digest": self.objects.digest(),
            "notes": self.notes,
            "behaviour": self.conduct.output_at(self.canvas.size),
            **({} if model.precision == "float32" else {"precision": model.precision}),
            **({"origin": model.origin} if model.origin else {}),
            **({"batch_norm": model.batch_norm} if model.batch_norm else {}),
            **({"noise": list(model.noise)} if model.noise else {}),
        }

    @property
    def origin(self) -> dict[str, Any]:
        """What is known of the network, as it is now, and of what it is shown."""
        state = state_sha256(self.model.module.state_dict())
        return self.provenance | {
            "weights_sha256": state,
            "device": str(self.model.device),
            "classes": list(self.model.classes),
        }

    def variants_digest(self) -> str | None:
        """Return a SHA-256 of the objects as axes change them; None where none does."""
        if not self.design.axes.changing.each:
            return None
        digests = [each.objects.digest() for each in self._findings.subject.variants]
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def pictures(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the objects' images and masks."""
        return self.objects.images, self.objects.masks

    # --- streaming --------------------------------------------------------------------------

    def stream(
        self,
        sinks: Sequence[Sink],
        *,
        max_memory: int = DEFAULT_MEMORY,
        progress: Progress | None = None,
        portions: Portions | None = None,
        skip: Collection[int] = (),
        tile: Sequence[int] | None = None,
    ) -> None:
        """Run the network over all images and give `sinks` their blocks.

        They may hold `max_memory` bytes: layers are swept in groups that fit.

        Parameters
        ----------
        portions
            How the sweep is cut; by default into portions of about 64 images.
        skip
            Numbers of portions that are not needed again. Only of use to sinks that kept them, and
            that take no notice if they come again.
        tile
            What :meth:`tile_shape` gave, for sinks that keep portions.

        Raises
        ------
        NumericsError
            A sink met NaN or infinity.
        LayerError
            A layer did not fire.
        """
        self._findings = self._findings.current()
        portions = Portions.cut(self.design, rows=self._rows) if portions is None else portions
        cut, engine = Cut(portions, skip, max_memory), self.choice
        groups = self.groups(sinks, max_memory=max_memory, tile=tile)
        counts: dict[Stage, int] = {"empty": 1, "reference": len(self.objects)}
        counts["grid"] = sum(
            math.prod(portion.shape) for portion in portions if portion.number not in skip
        )
        takers = [(group, Takers(group.layers, sinks)) for group in groups]
        with self.running():
            feed = self._feed(cut)
            drive(self.design, takers, feed, counts.__getitem__, progress)
            engine.finish()

    def _feed(self, cut: Cut) -> Feed:
        """Return what goes through the stages."""
        return partial(self.choice.run, cut=cut)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run the network as it is meant to be measured; afterwards it is as before."""
        module = self.model.module
        precisely = computing(self.model.device, self.model.precision)
        with untouched(module), evaluating(module), precisely:
            yield

    def groups(
        self,
        sinks: Sequence[Sink],
        *,
        max_memory: int = DEFAULT_MEMORY,
        tile: Sequence[int] | None = None,
    ) -> list[Group]:
        """Return the layers in groups for which what `sinks` hold fits the memory.

        The first one, with what no sink holds anything of, has `tile` for its tiles.
        """
        engine = self.choice
        groups = group_layers(
            self.layers,
            self.design,
            sinks,
            engine.sink_room(max_memory),
            held_bytes=engine.held_bytes,
            whole=engine.memory_for,
        )
        if tile is not None:
            groups[:1] = [replace(group, tile=tuple(tile)) for group in groups[:1]]
        return groups

    def tile_shape(
        self, sinks: Sequence[Sink], *, portions: Portions, max_memory: int = DEFAULT_MEMORY
    ) -> tuple[int, ...] | None:
        """Return objects, rows and columns of the tiles in which `portions` are computed together.

        It is part of a recording's numerics. None where each portion is computed by itself.
        """
        layers = self.groups(sinks, max_memory=max_memory)[0].layers
        return self.choice.tile(layers, sinks, portions, max_memory)

    def tasks(
        self, portions: Portions, tile: Sequence[int] | None, skip: Collection[int] = ()
    ) -> list[tuple[int, ...]]:
        """Return the numbers of the portions that are to be computed, those of a tile together."""
        every = self.choice.tasks(portions, tile)
        left = (tuple(number for number in numbers if number not in skip) for numbers in every)
        return [numbers for numbers in left if numbers]
