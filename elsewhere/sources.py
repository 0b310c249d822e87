"""What all sources have in common: the only loop that feeds sinks, groups of layers, selections.

`drive` feeds sinks, `Group` and `group_layers` say which layers a sweep takes together, `Takers`
which sinks take what. A `BlockSource` has its activations already, layer by layer: recordings,
arrays, and whatever else is to be measured.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from elsewhere.axes import Axes
from elsewhere.displays import ShownSource
from elsewhere.errors import EngineError, InputError, LayerError, MemoryLimitError
from elsewhere.logs import get_logger
from elsewhere.measures.blocks import DenseBlock
from elsewhere.protocols import (
    STAGES,
    Block,
    Design,
    Layer,
    Need,
    Progress,
    Sink,
    Source,
    Stage,
)
from elsewhere.types import format_bytes

logger = get_logger(__name__)

DEFAULT_MEMORY = 2 * 2**30
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Group:
    """Layers that are taken in one sweep, and in how many parts.

    `tile` are the objects, rows and columns of a tile, where a recording's portions are computed
    together.
    """

    layers: tuple[Layer, ...]
    parts: int = 1  # sweeps over these layers; more than one only for a single layer
    held: float = 0.0  # bytes that the sinks hold meanwhile
    tile: tuple[int, ...] | None = None


class Takers:
    """The sinks that take something of some layers, and what each needs of them.

    `has` says whether the source has anything of a layer in a stage: what is optional is left out
    else.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        sinks: Sequence[Sink],
        has: Callable[[Layer, Stage], bool] = lambda layer, stage: True,
    ) -> None:
        self.layers = tuple(layers)
        self.needs: dict[str, list[tuple[Sink, tuple[Need, ...]]]] = {}
        self.sinks = [sink for sink in sinks if any(map(sink.needs, layers))]
        self._stages: dict[str, list[tuple[Sink, set[Stage]]]] = {}
        for layer in self.layers:
            needs = [(sink, tuple(sink.needs(layer))) for sink in self.sinks]
            self.needs[layer.name] = [(sink, found) for sink, found in needs if found]
            missing = {stage for stage in STAGES if not has(layer, stage)}
            self._stages[layer.name] = [
                (sink, {s for n in found for s in n.stages - (missing if n.optional else set())})
                for sink, found in self.needs[layer.name]
            ]

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that are needed, in order."""
        wanted = {s for takers in self._stages.values() for _, stages in takers for s in stages}
        return tuple(stage for stage in STAGES if stage in wanted)

    def of(self, layer: str, stage: Stage) -> list[Sink]:
        """Return the sinks that take a layer's blocks of a stage."""
        return [sink for sink, stages in self._stages[layer] if stage in stages]

    def begin(self, design: Design, part: int, parts: int) -> None:
        """Prepare the sinks for a sweep over the layers that they want."""
        for sink in self.sinks:
            wanted = [
                layer for layer in self.layers if any(s is sink for s, _ in self.needs[layer.name])
            ]
            sink.begin(design, wanted, part, parts)

    def give(self, block: Block) -> None:
        """Hand a block to the sinks that take it."""
        for sink in self.of(block.layer, block.stage):
            sink.add(block)

    def end(self) -> None:
        """Finish the sweep."""
        for sink in self.sinks:
            sink.end()


def restarting(function: Function) -> Function:
    """Return a function of a source that begins again where the source's engine fails.

    It makes its sinks itself, so that nothing of what the engine gave before is left: a result has
    one engine.
    """

    @wraps(function)
    def whole(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except EngineError as error:
            sources = [each for each in (*args, *kwargs.values()) if isinstance(each, Source)]
            if not any(source.step_aside(error.reason) for source in sources):
                raise
            logger.warning("%s; everything is computed again by whole canvases", error.reason)
        return function(*args, **kwargs)

    return cast(Function, whole)


Feed = Callable[[Stage, Group, Takers], Iterable[int]]
"""Goes through a stage of a group; gives the takers blocks, and yields numbers of images."""


def drive(
    design: Design,
    takers: Sequence[tuple[Group, Takers]],
    feed: Feed,
    count: Callable[[Stage], int],
    progress: Progress | None = None,
) -> None:
    """Go through groups of layers, their parts and stages: the only loop that feeds sinks.

    `takers` are the groups, each with the sinks that take something of it; `count` says how many
    images `feed` yields in a stage.
    """
    total = sum(group.parts * sum(map(count, each.stages)) for group, each in takers)
    done = 0
    for group, each in takers:
        for part in range(group.parts):
            each.begin(design, part, group.parts)
            for stage in each.stages:
                for images in feed(stage, group, each):
                    done += images
                    if images and progress is not None:
                        progress(done, total)
            each.end()


def group_layers(
    layers: Sequence[Layer],
    design: Design,
    sinks: Sequence[Sink],
    max_memory: int,
    *,
    held_bytes: Callable[[Layer, Sequence[Sink]], int],
    whole: Callable[[float], float] = float,
) -> list[Group]:
    """Return layers in groups for which what `sinks` hold fits the memory.

    What a sink holds nothing of comes first, in one group; a layer that does not fit alone is
    swept in several parts.

    `held_bytes` gives those of one activation as sinks hold it, `whole` the --max-memory of which
    so many bytes for sinks are a part.

    Raises
    ------
    LayerError
        The layers of which a sink holds nothing have to be taken together, and do not fit.
    MemoryLimitError
        Not even one object of a layer fits.
    """
    takers = {layer.name: [sink for sink in sinks if sink.needs(layer)] for layer in layers}
    wanted = [layer for layer in layers if takers[layer.name]]
    held, shared = {}, []
    for layer in wanted:
        each = [sink.held(layer, design) for sink in takers[layer.name]]
        held[layer.name] = sum(each) * held_bytes(layer, takers[layer.name])
        if not all(each):
            shared.append(layer)
    groups: list[Group] = []
    current: list[Layer] = list(shared)
    used = sum(held[layer.name] for layer in shared)
    if used > max_memory and shared:
        raise LayerError(
            f"the layers to keep and to measure in one sweep need {format_bytes(whole(used))} "
            f"of memory, more than --max-memory {format_bytes(whole(max_memory))}; raise it, "
            "or keep fewer layers"
        )

    def close() -> None:
        groups.append(Group(tuple(layer for layer in layers if layer in current), 1, used))

    for layer in [layer for layer in wanted if layer not in shared]:
        own = held[layer.name]
        if current and used + own > max_memory:
            close()
            current, used = [], 0.0
        if own > max_memory:
            some = takers[layer.name]
            each_bytes = held_bytes(layer, some)
            parts = count_parts(layer, each_bytes, design, some, max_memory, whole=whole)
            groups.append(Group((layer,), parts, float(max_memory)))
            continue
        current.append(layer)
        used += own
    if current:
        close()
    return groups


def count_parts(
    layer: Layer,
    bytes_each: int,
    design: Design,
    sinks: Sequence[Sink],
    max_memory: int,
    *,
    working: int = 0,
    whole: Callable[[float], float] = float,
) -> int:
    """Return in how many sweeps a layer has to be taken so that what sinks hold fits the memory.

    `bytes_each` are those of one activation as sinks hold it, `working` what the source itself
    holds, and `whole` gives the --max-memory of which so many bytes for sinks are a part.

    Raises
    ------
    MemoryLimitError
        Not even one object at a time fits.
    """
    n = len(design.objects)
    needed = 0.0
    # Sinks cut a layer by objects, unless they all say into how many parts they can cut it.
    by_objects = not all(hasattr(sink, "most_parts") for sink in sinks)
    most = min((getattr(sink, "most_parts", n) for sink in sinks), default=n)
    for parts in range(1, most + 1):
        if by_objects and parts > 1 and math.ceil(n / parts) == math.ceil(n / (parts - 1)):
            continue
        needed = sum(sink.held(layer, design, parts) for sink in sinks) * bytes_each + working
        if needed <= max_memory:
            return parts
    raise MemoryLimitError(
        f"layer {layer.name!r} needs at least {format_bytes(whole(needed))} of memory, more than "
        f"--max-memory {format_bytes(whole(max_memory))}; raise it, or leave the layer out"
    )


class BlockSource(ShownSource, Source):
    """A source that has its activations already, and goes through them layer by layer.

    A class of one's own gives ``design``, ``layers``, ``provenance``, :meth:`blocks` and
    :meth:`at`; the rest follows.
    """

    @abstractmethod
    def at(self, reference: tuple[int, ...]) -> BlockSource:
        """Return a source of its own with another reference."""

    @abstractmethod
    def blocks(self, layer: Layer, stage: Stage) -> Iterable[DenseBlock]:
        """Return the blocks of a layer in a stage, each valid until the next one is taken."""

    def has(self, layer: Layer, stage: Stage) -> bool:
        """Return whether there is anything of a layer in a stage."""
        return True

    def select(
        self, objects: Sequence[int] | None = None, positions: Sequence[int] | None = None
    ) -> BlockSource:
        """Return some objects at some positions as a source of their own."""
        return Selection(self, objects, positions)

    def stream(
        self,
        sinks: Sequence[Sink],
        *,
        max_memory: int = DEFAULT_MEMORY,
        progress: Progress | None = None,
    ) -> None:
        """Go through the stages, one layer after the other, and give `sinks` their blocks.

        Blocks and what the sinks hold may take `max_memory` bytes together. Progress counts
        (object, position, layer).

        Raises
        ------
        MemoryLimitError
            The memory does not suffice for a single layer.
        """
        groups = []
        for layer in self.layers:
            takers = Takers([layer], sinks, self.has)
            if some := [sink for sink, _ in takers.needs[layer.name]]:
                working = self.working_bytes(layer)
                parts = count_parts(
                    layer, layer.bytes, self.design, some, max_memory, working=working
                )
                groups.append((Group((layer,), parts), takers))
        n_images = len(self.design.objects) * self.design.n_positions
        drive(
            self.design,
            groups,
            self._feed,
            lambda stage: n_images if stage == "grid" else 0,
            progress,
        )

    def _feed(self, stage: Stage, group: Group, takers: Takers) -> Iterator[int]:
        (layer,) = group.layers
        for block in self.blocks(layer, stage):
            takers.give(block)
            yield len(block.objects) if stage == "grid" else 0


class Selection(BlockSource):
    """Some objects of a source at some of its positions, all by default, by their indices.

    Raises
    ------
    InputError
        The positions are no full grid of some coordinates of each axis.
    """

    def __init__(
        self,
        source: BlockSource,
        objects: Sequence[int] | None = None,
        positions: Sequence[int] | None = None,
        *,
        owns: bool = False,
    ) -> None:
        self._source, self._chosen, self._owns = source, (objects, positions), owns
        self.design = select_design(source.design, objects, positions)
        self._objects = _numbering(len(source.design.objects), objects)
        self._positions = _numbering(source.design.n_positions, positions)
        self.layers = source.layers

    @property
    def provenance(self) -> dict[str, Any]:
        """That of the source."""
        return self._source.provenance

    @property
    def origin(self) -> dict[str, Any]:
        """That of the source."""
        return self._source.origin

    def at(self, reference: tuple[int, ...]) -> Selection:
        """Return the same selection of the source with another reference."""
        return Selection(self._source.at(reference), *self._chosen, owns=True)

    def close(self) -> None:
        """Close the source, if it was opened for this selection."""
        if self._owns:
            self._source.close()

    def has(self, layer: Layer, stage: Stage) -> bool:
        """Return whether the source has it."""
        return self._source.has(layer, stage)

    def working_bytes(self, layer: Layer) -> int:
        """Return those of the source."""
        return self._source.working_bytes(layer)

    def pictures(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
        """Return the images and masks of the objects that were selected."""
        found = self._source.pictures()
        if found is None or self._chosen[0] is None:
            return found
        images, masks = (values[list(self._chosen[0])] for values in found)
        return images, masks

    def blocks(self, layer: Layer, stage: Stage) -> Iterator[DenseBlock]:
        """Yield the selected rows of the source's blocks, renumbered."""
        for block in self._source.blocks(layer, stage):
            objects = np.where(block.objects < 0, -1, self._objects[block.objects])
            positions = np.where(block.positions < 0, -1, self._positions[block.positions])
            inside = ((objects < 0) == (block.objects < 0)) & (
                (positions < 0) == (block.positions < 0)
            )
            if inside.any():
                yield replace(
                    block,
                    objects=objects[inside],
                    positions=positions[inside],
                    values=block.values[inside],
                )


def select_design(
    design: Design, objects: Sequence[int] | None, positions: Sequence[int] | None
) -> Design:
    """Return the design of some objects at some positions.

    Raises
    ------
    InputError
        The positions are no full grid.
    """
    if objects is not None:
        design = replace(
            design,
            objects=tuple(design.objects[i] for i in objects),
            categories=tuple(design.categories[i] for i in objects),
        )
    if positions is not None:
        places = design.positions[list(positions)]
        axes = tuple(  # with the axis's own values: beside scales, places would be floats
            replace(axis, values=tuple(v for v in axis.values if v in places[:, number]))
            for number, axis in enumerate(design.axes)
        )
        found = replace(design, axes=Axes(axes))
        if not np.array_equal(found.positions, places):
            raise InputError(
                f"{len(places)} positions are no full grid in order; expected all combinations of "
                "some coordinates of each axis, row by row"
            )
        design = found
    return design


def _numbering(n: int, chosen: Sequence[int] | None) -> NDArray[np.int64]:
    """Return the new number of each of `n` things, -1 for those that are not chosen."""
    numbers = np.full(n, -1)
    chosen = range(n) if chosen is None else chosen
    numbers[list(chosen)] = np.arange(len(chosen))
    return numbers


def numerics_of(source: Source) -> dict[str, Any]:
    """Return what decides the last bits of what a live sweep gives; a recording has it stored."""
    found = getattr(source, "numerics", None)
    return {} if found is None else {"numerics": found}
