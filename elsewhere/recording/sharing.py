"""Sweeps by several processes: a portion is done by whichever process has it."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from elsewhere.errors import InputError, StorageError
from elsewhere.measures.blocks import DenseBlock
from elsewhere.measures.vectors import to_numpy
from elsewhere.protocols import Block, Design, Layer, Need, Progress, Sink, Stage
from elsewhere.recording.engines import Cut
from elsewhere.recording.subject import watch
from elsewhere.recording.sweep import Sweep
from elsewhere.recording.workers import Job, Workers, devices_of, perform, performed
from elsewhere.sources import Feed, Group, Takers
from elsewhere.storage import Header, PortionWriter, RecordingWriter
from elsewhere.storage.locks import Claim
from elsewhere.storage.parts import (
    changed_behaviour,
    differing,
    mark_of,
    read_manifest,
    write_portion,
)
from elsewhere.storage.portions import Portions

PORTION_SHARE = 8
"""What a process hands over at a time takes one of so many parts of --max-memory."""


@dataclass(frozen=True)
class PortionJob:
    """What a process needs to record portions; see :class:`elsewhere.recording.workers.Job`."""

    sweep: Sweep
    header: Header
    folder: Path  # of the parts; every process sees it under this name
    claim: Claim | None = None  # of the run that asks: what outlives it writes nothing more

    def prepare(self) -> None:
        """Refuse to compute what would not be the same as elsewhere."""
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise StorageError(
                f"{self.folder} has no manifest here; every worker must see the same files"
            )
        tile = self.header.tile
        given = {} if tile is None else {"tile": list(tile)}  # decided where all of it is known
        own = self.header.with_numerics(self.sweep.numerics | given).numerics
        _refuse_others(self.sweep, own, manifest["numerics"], manifest.get("behaviour"))

    def perform(self, numbers: Sequence[int]) -> int:
        """Record portions that are computed together, and return how many images they have."""
        mark = mark_of(read_manifest(self.folder) or {})
        portions = self.header.portions.choose(numbers)
        writer = PortionWriter(
            self.header, portions, partial(write_portion, self.folder, mark=mark, claim=self.claim)
        )
        with contextlib.closing(writer):
            self.sweep.stream([writer], portions=portions, tile=self.header.tile)
        return sum(math.prod(portion.shape) for portion in portions)


def _refuse_others(
    sweep: Sweep, own: dict[str, Any], numerics: dict[str, Any], behaviour: Any
) -> None:
    """Refuse a process whose numerics or network are not those of the one that asks."""
    if names := differing(numerics, own):
        each = ", ".join(
            f"{name} {own.get(name)} instead of {numerics.get(name)}" for name in names
        )
        raise InputError(
            f"a worker has other numerics ({each}), which change the last bits; use machines "
            "of one kind and one version of torch"
        )
    now = watch(sweep.subject)
    if names := changed_behaviour({"behaviour": behaviour}, now.behaviour):
        raise InputError(
            f"a worker's network does something else in {', '.join(names)} than that of the "
            "process that began: something of it was set there only; set it in its module"
        )


class _Copies(Sink):
    """A sink that hands on copies of the blocks of some layers, as whole activations."""

    def __init__(
        self, layers: Sequence[Layer], give: Callable[[DenseBlock], None], stage: Stage = "grid"
    ) -> None:
        self._layers = {layer.name: layer for layer in layers}
        self._give, self._stages = give, frozenset({stage})

    def needs(self, layer: Layer) -> tuple[Need, ...]:
        return (Need("full", self._stages),) if layer.name in self._layers else ()

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        return 0.0

    def add(self, block: Block) -> None:
        where = (block.stage, block.layer, block.objects.copy(), block.positions.copy())
        values = np.array(to_numpy(block.full()))
        layer = self._layers[block.layer]
        self._give(DenseBlock(*where, values, layout=layer.layout, tokens=layer.tokens))


@dataclass(frozen=True)
class BlockJob:
    """What a process needs to compute the blocks of some portions of a sweep."""

    sweep: Sweep
    max_memory: int
    numerics: dict[str, Any]  # of the process that asks
    behaviour: Any  # likewise

    def prepare(self) -> None:
        """Refuse to compute what would not be the same as elsewhere."""
        _refuse_others(self.sweep, self.sweep.numerics, self.numerics, self.behaviour)

    def perform(self, task: tuple[Any, ...]) -> tuple[str, list[DenseBlock]]:
        """Return who computed the portions of a task, and the blocks of some layers."""
        numbers, layers, tile, n_objects, n_cells = task
        portions = Portions(self.sweep.design, n_objects, n_cells, numbers)
        blocks: list[DenseBlock] = []
        wanted = [layer for layer in self.sweep.layers if layer.name in layers]
        sink = _Copies(wanted, blocks.append)
        self.sweep.stream([sink], portions=portions, tile=tile, max_memory=self.max_memory)
        return f"{platform.node()}:{os.getpid()}", blocks


class SharedSweep(Sweep):
    """A sweep whose grid local processes, or the workers of a Dask scheduler, go through.

    What they compute comes back in the order of the sweep, for the same sinks as without them: no
    sink has to know how to be joined to another. The empty canvas and the reference are computed in
    the process that asks.

    Attributes
    ----------
    work
        How many images each process computed in this sweep's last :meth:`stream`, by its host and
        number.

    Raises
    ------
    InputError
        In :meth:`stream`: the network cannot be sent to other processes, or a worker has other
        numerics.
    """

    def __init__(self, sweep: Sweep, *, workers: Workers = 1, scheduler: str | None = None) -> None:
        vars(self).update(vars(sweep))
        self._shared = workers, scheduler
        self.work = Counter[str]()

    def _feed(self, cut: Cut) -> Feed:
        engine, alone = self.choice, super()._feed(cut)
        if cut.skip or cut.portions.chosen is not None:
            return alone
        self.work = Counter()
        plain = object.__new__(Sweep)
        vars(plain).update(vars(self))
        plain = plain.using(engine.name)  # without what this process compiled
        job = BlockJob(plain, cut.max_memory, self.numerics, self.conduct.behaviour)

        def feed(stage: Stage, group: Group, takers: Takers) -> Iterator[int]:
            layers = [layer for layer in group.layers if takers.of(layer.name, stage)]
            copies = _Copies(layers, takers.give, stage)
            if stage != "grid":  # vectors of windows and of whole activations do not go together
                own = Takers(layers, [copies])
                yield from alone(stage, replace(group, layers=tuple(layers)), own)
                return
            portions = Portions.cut(
                self.design,
                bytes_per_image=sum(layer.bytes for layer in layers),
                portion_bytes=cut.max_memory // PORTION_SHARE,
                rows=self._rows,
            )
            tile = engine.tile(layers, [copies], portions, cut.max_memory)
            names = tuple(layer.name for layer in layers)
            how = names, tile, portions.n_objects, portions.n_cells
            tasks = [(tuple(numbers), *how) for numbers in engine.tasks(portions, tile)]
            workers, scheduler = self._shared
            found = performed(job, tasks, workers=workers, scheduler=scheduler, in_order=True)
            with contextlib.closing(found):
                for (numbers, *_), (who, blocks) in found:
                    for block in blocks:
                        takers.give(block)
                    images = sum(math.prod(portions.portion(each).shape) for each in numbers)
                    self.work[who] += images
                    yield images

        return feed


def are_alone(workers: Workers, scheduler: str | None) -> bool:
    """Return whether one process, this one, does all of the work."""
    return len(devices_of(workers)) == 1 and scheduler is None


def share_out(sweep: Sweep, workers: Workers, scheduler: str | None) -> Sweep:
    """Return a sweep as several processes go through it; as it is where one is to do all of it."""
    if are_alone(workers, scheduler):
        return sweep
    return SharedSweep(sweep, workers=workers, scheduler=scheduler)


def record_shared(
    sweep: Sweep,
    writer: RecordingWriter,
    workers: Workers,
    scheduler: str | None,
    progress: Progress | None,
) -> None:
    """Record all portions that are not there yet; :meth:`RecordingWriter.finish` is left to do.

    The writer is entered, and holds the lock; the rest is as for :func:`elsewhere.record`.

    Raises
    ------
    InputError
        The network cannot be sent to other processes, or a worker has other numerics.
    StorageError
        Portions were lost again and again, or the scheduler does not answer.
    """
    header = writer.header
    nothing = writer.portions.choose(())  # but the empty canvas and the reference
    sweep.stream([writer], portions=nothing, tile=header.tile)
    writer.write_header()
    left = sweep.tasks(writer.portions, header.tile, writer.done)
    portions = map(writer.portions.portion, itertools.chain(*left))
    total = sum(math.prod(portion.shape) for portion in portions)
    done = 0

    def note(_: Any, images: Any) -> None:
        nonlocal done
        done += images
        if progress is not None:
            progress(done, total)

    # Without what this process compiled; which engine it is, is settled.
    alike = sweep.using(sweep.choice.name)
    parts = writer.parts
    folder = parts.folder.resolve()
    job: Job = PortionJob(alike, header, folder, replace(parts.claim, folder=folder))
    perform(job, left, workers=workers, scheduler=scheduler, done=note)
