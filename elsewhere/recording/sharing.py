"""Sweeps by several processes: a portion is done by whichever process has it."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from elsewhere.errors import InputError, StorageError
from elsewhere.protocols import Progress, Sink, Stage
from elsewhere.recording.subject import watch
from elsewhere.recording.sweep import Sweep
from elsewhere.recording.workers import Job, perform
from elsewhere.sources import DEFAULT_MEMORY
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


@dataclass(frozen=True)
class PortionJob:
    """What a process needs to record portions; see :class:`elsewhere.recording.workers.Job`.

    Parameters
    ----------
    sweep
        What is recorded.
    header
        Of the recording.
    folder
        Of the parts; every process sees it under this name.
    claim
        Of the run that asks: what outlives it writes nothing more.
    """

    sweep: Sweep
    header: Header
    folder: Path
    claim: Claim | None = None

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


class Collecting(Sink, Protocol):
    """A sink that keeps what it takes in a list, so that parts of a sweep can be joined."""

    stages: frozenset[Stage]
    found: list[Any]


@dataclass(frozen=True)
class SinkJob:
    """What a process needs to fill a sink with some portions of a sweep.

    Parameters
    ----------
    sweep, sink
        What is swept, and the sink, which has not taken anything.
    tile, max_memory
        As for :meth:`elsewhere.recording.Sweep.stream`.
    numerics, behaviour
        Of the process that asks.
    """

    sweep: Sweep
    sink: Collecting
    tile: tuple[int, ...] | None
    max_memory: int
    numerics: dict[str, Any]
    behaviour: Any

    def prepare(self) -> None:
        """Refuse to compute what would not be the same as elsewhere."""
        _refuse_others(self.sweep, self.sweep.numerics, self.numerics, self.behaviour)

    def perform(self, numbers: Sequence[int]) -> list[Any]:
        """Return what the sink takes of portions that are computed together."""
        sink = copy.copy(self.sink)
        sink.found = []
        portions = Portions.cut(self.sweep.design).choose(numbers)
        self.sweep.stream([sink], portions=portions, tile=self.tile, max_memory=self.max_memory)
        return sink.found


def stream_shared(
    sweep: Sweep,
    sink: Collecting,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    max_memory: int = DEFAULT_MEMORY,
    progress: Progress | None = None,
) -> None:
    """Fill a sink with a sweep, by several processes.

    Parameters
    ----------
    sweep
        What is swept.
    sink
        Its ``found`` gets what each process took.
    workers, scheduler
        Local processes, or the address of a Dask scheduler whose workers are used instead.
    max_memory
        Bytes that a process may hold.
    progress
        Called with images done and in all.

    Raises
    ------
    InputError
        The network cannot be sent to other processes, or a worker has other numerics.
    """
    portions = Portions.cut(sweep.design)
    tile = sweep.tile_shape([sink], portions=portions, max_memory=max_memory)
    sweep.stream([sink], portions=portions.choose(()), tile=tile, max_memory=max_memory)
    alike = sweep.using("dense" if tile is None else "incremental")
    alone = copy.copy(sink)
    alone.stages, alone.found = frozenset({"grid"}), []
    job = SinkJob(alike, alone, tile, max_memory, sweep.numerics, sweep.conduct.behaviour)
    done, total = 0, math.prod((len(sweep.design.objects), *sweep.design.shape))

    def take(numbers: Any, found: Any) -> None:
        nonlocal done
        sink.found += found
        done += sum(math.prod(portions.portion(number).shape) for number in numbers)
        if progress is not None:
            progress(done, total)

    tasks = sweep.tasks(portions, tile)
    perform(job, tasks, workers=workers, scheduler=scheduler, done=take)


def sharing(sweep: Sweep, workers: int, scheduler: str | None) -> Callable[..., None] | None:
    """Return :func:`stream_shared` of a sweep, or None where one process is to do all of it."""
    if workers == 1 and scheduler is None:
        return None
    return partial(stream_shared, sweep, workers=workers, scheduler=scheduler)


def record_shared(
    sweep: Sweep,
    writer: RecordingWriter,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Record all portions that are not there yet; :meth:`RecordingWriter.finish` is left to do.

    Parameters
    ----------
    sweep
        What is recorded.
    writer
        An entered writer, which holds the lock.
    workers
        Local processes.
    scheduler
        Address of a Dask scheduler, whose workers are used instead.
    progress
        Called with images done and in all.

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
    alike = sweep.using("dense" if header.tile is None else "incremental")
    parts = writer.parts
    folder = parts.folder.resolve()
    job: Job = PortionJob(alike, header, folder, replace(parts.claim, folder=folder))
    perform(job, left, workers=workers, scheduler=scheduler, done=note)
