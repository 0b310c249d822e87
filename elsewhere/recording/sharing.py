"""Recording by several processes: a unit of work is written by whichever process has it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from elsewhere.errors import InputError, StorageError
from elsewhere.protocols import Progress
from elsewhere.recording.crew import Job, perform
from elsewhere.recording.findings import Subject, watch
from elsewhere.recording.sweep import Sweep
from elsewhere.storage import Header, RecordingWriter, UnitWriter
from elsewhere.storage.locks import Claim
from elsewhere.storage.parts import (
    changed_behaviour,
    differing,
    mark_of,
    read_manifest,
    write_unit,
)


@dataclass(frozen=True)
class UnitJob:
    """What a process needs to record units; see :class:`elsewhere.recording.crew.Job`.

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
        if names := differing(manifest["numerics"], own):
            each = ", ".join(
                f"{name} {own.get(name)} instead of {manifest['numerics'].get(name)}"
                for name in names
            )
            raise InputError(
                f"a worker has other numerics ({each}), which change the last bits; use machines "
                "of one kind and one version of torch"
            )

        sweep = self.sweep
        now = watch(Subject(sweep.model, sweep.objects, sweep.canvas, sweep.design, sweep.layers))
        if names := changed_behaviour(manifest, now.behaviour):
            raise InputError(
                f"a worker's network does something else in {', '.join(names)} than that of the "
                "process that began: something of it was set there only; set it in its module"
            )

    def perform(self, numbers: Sequence[int]) -> int:
        """Record units that are computed together, and return how many images they have."""
        mark = mark_of(read_manifest(self.folder) or {})
        units = self.header.units.choose(numbers)
        writer = UnitWriter(
            self.header, units, partial(write_unit, self.folder, mark=mark, claim=self.claim)
        )
        self.sweep.stream([writer], units=units, tile=self.header.tile)
        return sum(math.prod(unit.shape) for unit in units)


def record_shared(
    sweep: Sweep,
    writer: RecordingWriter,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Record all units that are not there yet; :meth:`RecordingWriter.finish` is left to do.

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
        Units were lost again and again, or the scheduler does not answer.
    """
    header = writer.header
    nothing = writer.units.choose(())  # but the empty canvas and the reference
    sweep.stream([writer], units=nothing, tile=header.tile)
    writer.write_header()
    left = sweep.tasks(writer.units, header.tile, writer.done)
    units = map(writer.units.unit, itertools.chain(*left))
    total = sum(math.prod(unit.shape) for unit in units)
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
    job: Job = UnitJob(alike, header, folder, replace(parts.claim, folder=folder))
    perform(job, left, workers=workers, scheduler=scheduler, done=note)
