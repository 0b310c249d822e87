"""Tasks that need each other, in parallel processes: each starts when what it needs is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch

from elsewhere.errors import ElsewhereError, InputError, TrainingError
from elsewhere.recording.workers import Workers, tell
from elsewhere.recording.workers import perform as perform_tasks
from elsewhere.reproduction.measurements import Task
from elsewhere.reproduction.tasks import Event, Progress, perform, read_values

Key: TypeAlias = tuple[str, int, str]
_SHARE, _CORES = 24 * 2**30, 4
"""Bytes of a GPU's memory, and cores beside it, for each process: VGG16 in batches of 128 fits."""


def choose_workers(wanted: Workers | None, device: str, n_tasks: int) -> Workers:
    """Return how many processes to use: not more than there are cores, few on a GPU.

    Where their devices are said, there is one for each. Otherwise a GPU is shared by as many as its
    memory and the cores have room for, by default: while one trains, another reads its checkpoint
    or writes it.

    Raises
    ------
    InputError
        Fewer than one are wanted.

    Examples
    --------
    >>> choose_workers(1, "cpu", 10), choose_workers(None, "cuda", 10)
    (1, 1)
    >>> choose_workers(["cuda:0", "cuda:1"], "cuda:0", 1)
    ['cuda:0']
    """
    if wanted is not None and not isinstance(wanted, int):
        return wanted[: max(1, n_tasks)]
    if wanted is not None and wanted < 1:
        raise InputError(f"expected 1 worker or more; got {wanted}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    default = cores or 1
    if not device.startswith("cpu"):
        default = max(1, min(_memory(device) // _SHARE, default // _CORES))
    return max(1, min(default if wanted is None else wanted, cores or 1, n_tasks))


def _memory(device: str) -> int:
    """Return the bytes of a device's memory; 0 where they are not known."""
    place = torch.device(device)
    if place.type != "cuda" or not torch.cuda.is_available():
        return 0
    return int(torch.cuda.get_device_properties(place).total_memory)


@dataclass(frozen=True)
class ReproductionJob:
    """What a process needs to perform tasks; see :class:`elsewhere.recording.workers.Job`."""

    tasks: Mapping[Key, Task]
    act: Callable[[Task, Progress], None]

    def on(self, device: str) -> ReproductionJob:
        """Return the job for another device."""
        tasks = {key: replace(task, device=device) for key, task in self.tasks.items()}
        return replace(self, tasks=tasks)

    def prepare(self) -> None:
        """Do nothing: each task loads what it needs."""

    def perform(self, key: Key) -> None:
        """Perform a task, unless a process that was lost has written it; an error says which."""
        task = self.tasks[key]
        try:
            if read_values(task, current=True) is None:
                self.act(task, tell)
        except Exception as error:  # anything else would end the process without a word
            known = isinstance(error, ElsewhereError)
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            raise TrainingError(f"seed {task.seed}, {task.run.name}: {reason}") from error


def perform_all(
    tasks: Sequence[Task],
    *,
    workers: Workers,
    progress: Progress | None = None,
    act: Callable[[Task, Progress], None] = perform,
) -> None:
    """Perform tasks, those of what they need first; what is done already is skipped.

    They come in an order in which each is after those it needs, and `act` performs one. With one
    worker, everything happens in this process.

    Raises
    ------
    ElsewhereError
        The first error of a task; the others are stopped.
    """
    total = len(tasks)
    done = {task.key for task in tasks if read_values(task, current=True) is not None}
    left = {task.key: task for task in tasks if task.key not in done}

    def report(event: Event) -> None:
        if progress is not None:
            progress(replace(event, finished=len(done), total=total))

    def is_ready(key: Key) -> bool:
        return all((*key[:2], name) in done for name in left[key].run.needs)

    def finish(key: Key, _: Any) -> None:
        done.add(key)
        report(_event(key, "done"))

    for number, key in enumerate(sorted(done), start=1):
        if progress is not None:
            progress(_event(key, "skipped", finished=number, total=total))
    perform_tasks(
        ReproductionJob(left, act),
        list(left),
        workers=workers if len(left) > 1 else 1,
        done=finish,
        ready=is_ready,
        told=report,
    )


def _event(key: Key, stage: str, *, finished: int = 0, total: int = 0) -> Event:
    system, seed, run = key
    return Event(seed, run, stage, finished=finished, total=total, system=system)
