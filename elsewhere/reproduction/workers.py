"""Tasks that need each other, in parallel processes: each starts when what it needs is done."""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.context import SpawnProcess
from typing import Any, TypeAlias

from elsewhere.errors import ElsewhereError, InputError, TrainingError
from elsewhere.recording.crew import die_with
from elsewhere.reproduction.tasks import Event, Progress, Task, perform, read_values

Key: TypeAlias = tuple[int, str]
_PATIENCE = 1.0  # s between looks at whether all workers are alive


def count_workers(wanted: int | None, device: str, n_tasks: int) -> int:
    """Return how many processes to use: not more than there are cores, one on a GPU.

    Raises
    ------
    InputError
        Fewer than one are wanted.

    Examples
    --------
    >>> count_workers(1, "cpu", 10), count_workers(None, "cuda", 10)
    (1, 1)
    """
    if wanted is not None and wanted < 1:
        raise InputError(f"expected 1 worker or more; got {wanted}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    default = 1 if not device.startswith("cpu") else (cores or 1)
    return max(1, min(default if wanted is None else wanted, cores or 1, n_tasks))


def perform_all(
    tasks: Sequence[Task],
    *,
    workers: int,
    progress: Progress | None = None,
    act: Callable[[Task, Progress], None] = perform,
) -> None:
    """Perform tasks, those of what they need first; what is done already is skipped.

    Parameters
    ----------
    tasks
        In an order in which each comes after those it needs.
    workers
        Processes; with one, everything happens in this one.
    progress
        Called with each event, in this process.
    act
        What a task is performed by.

    Raises
    ------
    ElsewhereError
        The first error of a task; the others are stopped.
    """
    tell = _ignore if progress is None else progress
    total, done = (
        len(tasks),
        {task.key for task in tasks if read_values(task, current=True) is not None},
    )
    for number, key in enumerate(sorted(done), start=1):
        tell(Event(*key, "skipped", finished=number, total=total))
    left = [task for task in tasks if task.key not in done]
    if not left:
        return
    if workers == 1 or len(left) == 1:
        for task in left:
            act(task, lambda event: tell(replace(event, finished=len(done), total=total)))
            done.add(task.key)
            tell(Event(*task.key, "done", finished=len(done), total=total))
        return
    _Crew(min(workers, len(left)), act).perform(left, done, total, tell)


class _Crew:
    """Processes that take tasks from a queue and answer on another one."""

    def __init__(self, count: int, act: Callable[[Task, Progress], None]) -> None:
        context = multiprocessing.get_context("spawn")
        self._inbox: Any = context.Queue()
        self._outbox: Any = context.Queue()
        given = (self._inbox, self._outbox, act, os.getpid())
        self._processes: list[SpawnProcess] = [
            context.Process(target=_work, args=given, daemon=True) for _ in range(count)
        ]

    def perform(self, left: list[Task], done: set[Key], total: int, tell: Progress) -> None:
        waiting, running = list(left), 0
        for process in self._processes:
            process.start()
        try:
            while waiting or running:
                ready = [task for task in waiting if _is_ready(task, done)]
                for task in ready[: len(self._processes) - running]:
                    waiting.remove(task)
                    self._inbox.put(task)
                    running += 1
                event = self._receive()
                if event.stage == "done":
                    done.add((event.seed, event.run))
                    running -= 1
                tell(replace(event, finished=len(done), total=total))
        finally:
            self._stop()

    def _receive(self) -> Event:
        while True:
            try:
                found = self._outbox.get(timeout=_PATIENCE)
            except queue.Empty:
                for process in self._processes:
                    if not process.is_alive():
                        raise TrainingError(
                            f"a worker process ended unexpectedly (exit code {process.exitcode}); "
                            "run the same command again to go on, with fewer workers if memory "
                            "was short"
                        ) from None
                continue
            if isinstance(found, Event):
                return found
            raise TrainingError(str(found))

    def _stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
        for channel in (self._inbox, self._outbox):
            channel.cancel_join_thread()
            channel.close()


def _is_ready(task: Task, done: set[Key]) -> bool:
    return all((task.seed, name) in done for name in task.run.needs)


def _work(inbox: Any, outbox: Any, act: Callable[[Task, Progress], None], parent: int) -> None:
    die_with(parent)
    _serve(inbox, outbox, act)


def _serve(inbox: Any, outbox: Any, act: Callable[[Task, Progress], None]) -> None:
    """Perform tasks until the process is ended; errors travel as their text."""
    while True:
        task = inbox.get()
        try:
            act(task, outbox.put)
        except ElsewhereError as error:
            outbox.put(f"seed {task.seed}, {task.run.name}: {error}")
            return
        except Exception as error:  # anything else would end the process without a word
            outbox.put(f"seed {task.seed}, {task.run.name}: {type(error).__name__}: {error}")
            raise
        outbox.put(Event(task.seed, task.run.name, "done"))


def _ignore(event: Event) -> None:
    pass
