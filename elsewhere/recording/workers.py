"""Tasks shared out to processes of this machine or to a Dask cluster; lost ones are done again."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import io
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol, TypeAlias

import torch

from elsewhere import errors
from elsewhere.errors import ElsewhereError, InputError, StorageError, reason_of
from elsewhere.registry import EXTENSIONS, import_extension

LOSSES = 3
"""How often a task may lose its process before it is given up."""

PATIENCE = 5.0
"""Seconds in which a process that let go of its connection has ended."""

Workers: TypeAlias = int | Sequence[str]
"""How many local processes share the work, or the devices that they compute on, one process each:
``("cuda:0", "cuda:1")``. What a process is sent lies on the first of them."""

Done = Callable[[Any, Any], None]
"""Called with each task and what it gave, in the process that asked."""


Told = Callable[[Any], None]
"""Called with what tasks tell while they go on, in the process that asked."""


class Job(Protocol):
    """What is sent to every process, once; tasks must give the same whoever performs them.

    Tensors come on the device on which the process computes; a job that names one has a method
    ``on(device)`` that returns it for another.
    """

    def prepare(self) -> None:
        """Get ready, or refuse, in the process."""

    def perform(self, task: Any) -> Any:
        """Perform a task; leave what is large in a file, and return what is small."""


@dataclass(frozen=True)
class Outcome:
    """What a task gave, or the error that it was refused with: class and message."""

    value: Any = None
    error: tuple[str, str] | None = None

    def get(self) -> Any:
        """Return the value, or raise the error."""
        if self.error is None:
            return self.value
        name, message = self.error
        kind = getattr(errors, name, ElsewhereError)
        raise (kind if kind is not errors.UnknownNameError else ElsewhereError)(message)


def perform(
    job: Job,
    tasks: Sequence[Any],
    *,
    workers: Workers = 1,
    scheduler: str | None = None,
    done: Done,
    ready: Callable[[Any], bool] | None = None,
    told: Told | None = None,
) -> None:
    """Perform all tasks, in any order, and call `done` with each as it is finished; see
    :func:`performed`.
    """
    found = performed(job, tasks, workers=workers, scheduler=scheduler, ready=ready, told=told)
    with contextlib.closing(found):
        for task, given in found:
            done(task, given)


def performed(
    job: Job,
    tasks: Sequence[Any],
    *,
    workers: Workers = 1,
    scheduler: str | None = None,
    ready: Callable[[Any], bool] | None = None,
    told: Told | None = None,
    in_order: bool = False,
) -> Generator[tuple[Any, Any]]:
    """Yield all tasks and what they gave, as they are finished.

    Parameters
    ----------
    job
        What each process needs; it must be possible to pickle it.
    tasks
        Small things that tell one task from another.
    workers
        Local processes, or their devices; with one, everything happens in this process.
    scheduler
        Address of a Dask scheduler, whose workers are used instead.
    ready
        Whether a task can begin, for tasks that need others, in local processes; they are given in
        an order in which each comes after those that it needs.
    told
        Called with what a task gives to :func:`tell`; a cluster's workers are not heard.
    in_order
        Whether tasks come in the order of `tasks`. Of local processes, no task is begun before all
        are there but as many before it as there are processes: what they give may be large.

    Raises
    ------
    ElsewhereError
        The first error of a task.
    StorageError
        A task lost its process again and again. One that dies is replaced, and its task performed
        again.
    """
    devices = devices_of(workers)
    if not tasks:
        return
    if scheduler is not None:
        yield from _cluster().performed_on_cluster(
            pack(job), tasks, scheduler=scheduler, in_order=in_order
        )
    elif len(devices) == 1:
        job.prepare()
        for task in tasks:
            with _heard_by(_ignore if told is None else told):
                given = job.perform(task)
            yield task, given
    else:
        told = _ignore if told is None else told
        ready = (lambda _: True) if ready is None else ready
        number, early, n_given = {task: at for at, task in enumerate(tasks)}, {}, 0
        if in_order:
            ready = lambda task: number[task] <= n_given + len(devices)  # noqa: E731
        with contextlib.closing(_Crew(pack(job), devices[: len(tasks)])) as crew:
            for task, given in crew.performed(tasks, ready, told):
                if not in_order:
                    yield task, given
                    continue
                early[task] = given
                while n_given < len(tasks) and tasks[n_given] in early:
                    n_given += 1
                    yield tasks[n_given - 1], early.pop(tasks[n_given - 1])


def devices_of(workers: Workers) -> list[str | None]:
    """Return the device of each process; None where it is that of what the process is sent.

    Raises
    ------
    InputError
        None.

    Examples
    --------
    >>> devices_of(2), devices_of(["cuda:0", "cuda:1"])
    ([None, None], ['cuda:0', 'cuda:1'])
    """
    found: list[str | None] = [None] * workers if isinstance(workers, int) else list(workers)
    if not found:
        raise InputError(f"expected 1 worker or more; got {workers}")
    return found


def tell(word: Any) -> None:
    """Say something to the process that asked for the task that this one performs."""
    _LISTENER[-1](word)


@contextlib.contextmanager
def _heard_by(listener: Told) -> Iterator[None]:
    _LISTENER.append(listener)
    try:
        yield
    finally:
        _LISTENER.pop()


def _ignore(word: Any) -> None:
    pass


_LISTENER: list[Told] = [_ignore]


def pack(job: Job) -> bytes:
    """Return a job as bytes that another process can unpack.

    Raises
    ------
    InputError
        The network's class is not in a module that can be imported.
    """
    data = io.BytesIO()
    try:
        torch.save(job, data, pickle_protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"the network cannot be sent to other processes ({reason_of(error)}); put "
            "its class and its functions into a module, or use one worker"
        ) from error
    return pickle.dumps((os.getcwd(), torch.get_num_threads(), EXTENSIONS, data.getvalue()))


def unpack(packed: bytes, device: str | None = None) -> Job:
    """Return a job that :func:`pack` packed, ready to perform tasks as the sender would.

    The sender's current directory becomes importable, and its number of threads is taken over. It
    computes on the sender's device, or on another `device` of that kind.
    """
    folder, threads, extensions, data = pickle.loads(packed)
    if os.path.isdir(folder) and folder not in sys.path:
        sys.path.append(folder)
    for name in extensions:  # what one that is missing here registers is unknown when asked for
        with contextlib.suppress(Exception):
            import_extension(name)
    torch.set_num_threads(threads)
    job: Job = torch.load(io.BytesIO(data), map_location=_places(device), weights_only=False)
    if device is not None and hasattr(job, "on"):
        job = job.on(device)
    job.prepare()
    return job


def _places(device: str | None) -> Callable[[Any, str], Any] | None:
    """Return what puts the sender's tensors on a device; those of its CPU stay on the CPU."""
    if device is None:
        return None
    restore: Any = torch.serialization.default_restore_location
    return lambda storage, place: restore(storage, place if place == "cpu" else device)


def attempt(get_job: Callable[[], Job], task: Any) -> Outcome:
    """Return what a task gives; errors of this package travel as their text."""
    try:
        return Outcome(_begun(get_job).perform(task))
    except ElsewhereError as error:
        return Outcome(error=(type(error).__name__, str(error)))


def _begun(get_job: Callable[[], Job]) -> Job:
    """Return the job; what keeps a process from taking it up, such as a device, is told."""
    try:
        return get_job()
    except ElsewhereError:
        raise
    except Exception as error:  # any module, any device
        raise InputError(
            f"a worker process cannot begin its work ({reason_of(error)}): it needs the modules "
            "and the kind of device of the process that asks; use one worker, or another --device"
        ) from error


def die_with(parent: int) -> None:
    """End this process, wherever it is, as soon as its `parent` (a number) ends, however that ends.

    On Linux the kernel does it, elsewhere a thread that looks twice a second.
    """
    if sys.platform == "linux":
        set_signal, value = 1, ctypes.c_ulong(signal.SIGKILL)  # PR_SET_PDEATHSIG
        if ctypes.CDLL(None).prctl(set_signal, value) == 0:
            if os.getppid() != parent:  # it ended before that
                os._exit(1)
            return
    threading.Thread(target=_die_without, args=(parent,), daemon=True).start()


def _die_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _cluster() -> Any:
    try:
        return importlib.import_module("elsewhere.recording.cluster")
    except ImportError as error:
        raise InputError(
            f"a scheduler needs Dask's distributed ({error}); pip install 'elsewhere[distributed]'"
        ) from error


class _Worker:
    """A process and the task that it has.

    The job goes through the connection, which tells when the process is gone; what a process is
    started with goes through a pipe of which both ends are open here until all is read.
    """

    def __init__(self, packed: bytes, device: str | None) -> None:
        self.device, self._unsent = device, packed
        context = multiprocessing.get_context("spawn")
        own, other = context.Pipe()
        self.connection: Connection[Any, Any] = own
        self.task: Any = None
        self.busy = False
        self.process: SpawnProcess = context.Process(
            target=_work, args=(other, os.getpid(), device), daemon=True
        )
        try:
            self.process.start()
        except OSError as error:
            own.close()
            raise StorageError(
                f"cannot start a worker process ({reason_of(error)}); use fewer workers"
            ) from error
        finally:
            other.close()

    def give(self, task: Any) -> None:
        self.task, self.busy = task, True
        with contextlib.suppress(OSError):  # it is dead: its connection says so when it is read
            if self._unsent:
                self.connection.send_bytes(self._unsent)
                self._unsent = b""
            self.connection.send(task)

    def close(self) -> None:
        self.process.terminate()
        self.process.join()
        self.connection.close()


class _Crew:
    """Processes that are given one task after the other."""

    def __init__(self, packed: bytes, devices: Sequence[str | None]) -> None:
        self._packed, self._workers = packed, list[_Worker]()
        try:
            for device in devices:
                self._workers.append(_Worker(packed, device))
        except BaseException:
            self.close()
            raise

    def performed(
        self, tasks: Sequence[Any], ready: Callable[[Any], bool], told: Told
    ) -> Iterator[tuple[Any, Any]]:
        waiting, losses = deque(tasks), Counter[Any]()
        while waiting or any(worker.busy for worker in self._workers):
            for worker in self._workers:
                task = None if worker.busy else next(filter(ready, waiting), None)
                if task is not None:
                    waiting.remove(task)
                    worker.give(task)
            busy = {worker.connection: worker for worker in self._workers if worker.busy}
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                try:
                    outcome = worker.connection.recv()
                except (EOFError, OSError):
                    waiting.appendleft(worker.task)
                    losses[worker.task] += 1
                    self._replace(worker, losses[worker.task])
                    continue
                if isinstance(outcome, Outcome):
                    worker.busy = False
                    yield worker.task, outcome.get()
                else:
                    told(outcome)

    def _replace(self, worker: _Worker, losses: int) -> None:
        worker.process.join(PATIENCE)  # it is ending: its own exit code says why
        worker.close()
        if losses >= LOSSES:
            raise StorageError(
                f"worker processes ended {losses} times at the same task (exit code "
                f"{worker.process.exitcode}): if memory was short, use fewer; a script must begin "
                "its work under if __name__ == '__main__'; what is done is kept"
            )
        self._workers[self._workers.index(worker)] = _Worker(self._packed, worker.device)

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


def _work(connection: Connection[Any, Any], parent: int, device: str | None) -> None:
    """Perform tasks until the connection or the asking process ends."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the asking process ends this one
    with contextlib.suppress(EOFError, OSError), _heard_by(connection.send):
        packed = connection.recv_bytes()
        get_job = functools.cache(lambda: unpack(packed, device))
        while True:
            task = connection.recv()
            connection.send(attempt(get_job, task))
