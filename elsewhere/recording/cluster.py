"""Tasks shared out to a Dask cluster; needs the extra ``distributed``.

Only :mod:`elsewhere.recording.workers` imports this, when a scheduler is named.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from asyncio import CancelledError
from collections.abc import Iterator, Sequence
from typing import Any

import dask
from distributed import Client, as_completed, get_worker
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.scheduler import KilledWorker

from elsewhere.errors import ElsewhereError, InputError, StorageError, reason_of
from elsewhere.recording.workers import Job, Outcome, attempt, unpack

connect: Any = Client
finished: Any = as_completed  # distributed is typed only in part

_LOST = (CommClosedError, CancelledError, FutureCancelledError, OSError)
"""What is raised where a scheduler goes away; TimeoutError is an OSError."""

PATIENCE = 20.0
"""Seconds within which a scheduler must answer."""


class JobPlugin(WorkerPlugin):
    """Holds the job on every worker, also on those that join later; unpacks it when needed."""

    def __init__(self, name: str, packed: bytes) -> None:
        self.name, self._packed = name, packed

    def setup(self, worker: Any) -> None:
        """Get ready on a worker."""
        self._job: Job | None = None
        self._lock = threading.Lock()

    def perform(self, task: Any) -> Outcome:
        """Perform a task; one at a time, because hooks belong to a network, not to a thread."""
        with self._lock, dask.config.set(scheduler="synchronous"):  # no locks of the cluster's
            return attempt(self._get_job, task)

    def _get_job(self) -> Job:
        if self._job is None:
            self._job = unpack(self._packed)
        return self._job


def perform_task(name: str, task: Any) -> Outcome:
    """Perform a task of the job called `name`, on a worker."""
    plugin: Any = get_worker().plugins[name]
    outcome: Outcome = plugin.perform(task)
    return outcome


def performed_on_cluster(
    packed: bytes, tasks: Sequence[Any], *, scheduler: str, in_order: bool
) -> Iterator[tuple[Any, Any]]:
    """Perform tasks on the workers of a Dask scheduler; see :mod:`elsewhere.recording.workers`.

    Raises
    ------
    InputError
        No scheduler answers there.
    StorageError
        The scheduler was lost, or a task lost its worker again and again.
    """
    try:
        client: Any = connect(scheduler, timeout=PATIENCE, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {scheduler!r} ({reason_of(error)}); start one "
            "with `dask scheduler`, or leave --scheduler out"
        ) from error
    # what concerns the user is raised; a client that is closed while it looks for its lost
    # scheduler writes tracebacks
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    name = f"elsewhere-{uuid.uuid4().hex}"
    try:
        client.register_plugin(JobPlugin(name, packed), name=name)
        futures = client.map(perform_task, [name] * len(tasks), tasks, pure=False)
        task_of = dict(zip((future.key for future in futures), tasks, strict=True))
        try:
            for future in futures if in_order else finished(futures, loop=client.loop):
                yield task_of[future.key], _outcome(future, scheduler).get()
                future.release()
        finally:
            with contextlib.suppress(*_LOST):
                client.cancel(futures)
                client.unregister_worker_plugin(name)
    except ElsewhereError:
        raise
    except _LOST as error:
        raise _lost(scheduler) from error
    finally:
        with contextlib.suppress(*_LOST):
            client.close()


def _lost(scheduler: str) -> StorageError:
    return StorageError(
        f"the Dask scheduler at {scheduler} was lost; what is done is kept: run the same command "
        "again to go on"
    )


def _outcome(future: Any, scheduler: str) -> Outcome:
    if future.status == "cancelled":
        raise _lost(scheduler)
    try:
        outcome: Outcome = future.result()
    except KilledWorker as error:
        raise StorageError(
            f"workers ended again and again at the same task ({reason_of(error)}); what "
            "is done is kept: give them more memory, then run the same command again"
        ) from error
    return outcome
