"""Recording by several processes: each unit of work is written by whichever process has it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from elsewhere.errors import InputError, StorageError
from elsewhere.protocols import Progress
from elsewhere.recording.crew import Job, perform
from elsewhere.recording.sweep import Sweep
from elsewhere.storage import Header, RecordingWriter, UnitWriter
from elsewhere.storage.parts import differing, mark_of, read_manifest, write_unit


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
    """

    sweep: Sweep
    header: Header
    folder: Path

    def prepare(self) -> None:
        """Refuse to compute what would not be the same as elsewhere."""
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise StorageError(
                f"{self.folder} has no manifest here; every worker must see the same files"
            )
        own = replace(
            self.header, provenance=self.header.provenance | {"numerics": self.sweep.numerics}
        ).numerics
        if names := differing(manifest["numerics"], own):
            each = ", ".join(
                f"{name} {own.get(name)} instead of {manifest['numerics'].get(name)}"
                for name in names
            )
            raise InputError(
                f"a worker has other numerics ({each}), which change the last bits; use machines "
                "of one kind and one version of torch"
            )

    def perform(self, number: int) -> int:
        """Record a unit and return how many images it has."""
        mark = mark_of(read_manifest(self.folder) or {})
        units = self.header.units.choose([number])
        writer = UnitWriter(self.header, units, partial(write_unit, self.folder, mark=mark))
        self.sweep.stream([writer], units=units)
        return math.prod(units.unit(number).shape)


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
    sweep.stream([writer], units=writer.units.choose(()))  # the empty canvas, the reference
    writer.write_header()
    left = [number for number in range(len(writer.units)) if number not in writer.done]
    total = sum(math.prod(writer.units.unit(number).shape) for number in left)
    done = 0

    def note(number: int, images: Any) -> None:
        nonlocal done
        done += images
        if progress is not None:
            progress(done, total)

    job: Job = UnitJob(sweep, writer.header, writer.parts.folder.resolve())
    perform(job, left, workers=workers, scheduler=scheduler, done=note)
