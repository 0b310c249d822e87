"""One task: train a run of one seed, measure it, and write down what came out."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

from elsewhere.errors import StorageError
from elsewhere.logs import get_logger
from elsewhere.models import find_device
from elsewhere.models.machine import code_version, describe_machine, using_threads
from elsewhere.reproduction.measurements import Task, Values, measure, start_of
from elsewhere.storage.documents import read_document, tell_unsealed, write_document
from elsewhere.storage.files import make_inside, refuse_link
from elsewhere.training import Report, train

logger = get_logger(__name__)


ENCODING = "measurements"
VERSION = "0.2"
"""Since 0.2 the file is sealed."""


@dataclass(frozen=True)
class Event:
    """How a task stands."""

    seed: int
    run: str
    stage: str  # ``training``, ``measuring``, ``done`` or ``skipped`` (it was done before)
    phase: str = ""  # of the training, where it trains
    step: int = 0
    steps: int = 0
    accuracy: float | None = None  # on what is trained
    finished: int = 0  # tasks that are done
    total: int = 0
    system: str = ""  # the name of the scale


Progress: TypeAlias = Callable[[Event], None]


def perform(task: Task, progress: Progress) -> None:
    """Train, measure and write; training that was interrupted goes on where it stood.

    Raises
    ------
    ElsewhereError
        What training or measuring refuses.
    """
    began, cpu = time.perf_counter(), time.process_time()
    seed, run = task.seed, task.run
    make_inside(task.folder.parent.parent, task.folder.parent.name, task.folder.name)
    refuse_link(task.folder / run.name)

    def report(found: Report) -> None:
        stage, accuracy = "training", found.train_accuracy
        counts = (found.phase, found.step, found.steps, accuracy)
        progress(Event(seed, run.name, stage, *counts, system=task.scale.name))

    # results depend on their number on a CPU, and seeds run side by side
    threads = 1 if find_device(task.device).type == "cpu" else torch.get_num_threads()
    with using_threads(threads):
        weights, values = start_of(task)
        train(
            run.curriculum(seed, weights),
            task.folder / run.name,
            device=task.device,
            progress=report,
            data_dir=task.data_dir,
        )
        trained = time.perf_counter()
        progress(Event(seed, run.name, "measuring", system=task.scale.name))
        values |= measure(task)
    done = time.perf_counter()
    values |= {"seconds_training": trained - began, "seconds_measuring": done - trained}
    values["seconds_cpu"] = time.process_time() - cpu
    write_values(task, values)


def finite(value: float | str) -> float | str | None:
    """Return a value for JSON, which has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_values(task: Task, values: Values) -> None:
    """Write what came out of a task; NaN is written as null."""
    table = {
        "fingerprint": fingerprint(task),
        "measured_with": measured_with(task),
        "seed": task.seed,
        "run": task.run.name,
        "values": {name: finite(value) for name, value in values.items()},
    }
    write_document(task.path, table, encoding=ENCODING, version=VERSION)


def read_values(task: Task, *, current: bool = False) -> Values | None:
    """Return what came out of a task; None where it is not done.

    If it must be `current`, it counts as not done unless it came from the code, the machine and the
    files that are here now. Training that is complete is not repeated.

    Raises
    ------
    StorageError
        The file is damaged or of another task.
    """
    if not task.path.exists():
        return None
    refuse_link(task.path)
    table, sealed = read_document(task.path, encoding=ENCODING, expected="what a task gave")
    if not sealed:
        tell_unsealed(task.path)
    try:
        stamp, values = str(table["fingerprint"]), table["values"]
        made = table.get("measured_with")
        found = {name: math.nan if value is None else value for name, value in values.items()}
        if odd := [n for n, value in found.items() if not isinstance(value, int | float | str)]:
            raise TypeError(f"{odd[0]} is neither a number nor a word")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"{task.path} is damaged ({type(error).__name__}: {error}); delete it, and it is "
            "measured again"
        ) from error
    if stamp != fingerprint(task):
        raise StorageError(
            f"{task.path} was measured in another way ({stamp[:12]}, now "
            f"{fingerprint(task)[:12]}); choose another directory, or delete {task.folder}"
        )
    if made != measured_with(task):
        if current:
            logger.info("%s is of other code, files or another machine: measured again", task.path)
            return None
        logger.warning("%s was measured by other code, files or on another machine", task.path)
    return found


def measured_with(task: Task) -> dict[str, Any]:
    """Return what decides the numbers of a task beside its fingerprint: code, machine, files."""
    machine = describe_machine(find_device(task.device))
    del machine["threads"]  # always one
    data, weights = task.data_dir, Path(task.run.network.weights)
    files = [] if data is None else sorted(path for path in data.rglob("*") if path.is_file())
    listed = [[str(path), *_stamp(path)] for path in [*files, weights] if path.is_file()]
    return {
        "code": code_version(),
        **machine,
        "files": hashlib.sha256(json.dumps(listed).encode()).hexdigest(),
    }


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def fingerprint(task: Task) -> str:
    """Return a digest over all that decides what comes out of a task but the machine."""
    text = f"{task.scale.fingerprint}:{task.seed}:{task.run!r}"
    return hashlib.sha256(text.encode()).hexdigest()
