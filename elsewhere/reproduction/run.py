"""`reproduce`: all conditions, several seeds, every claim with a verdict; `plan` says the cost."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from elsewhere.errors import ExistsError, InputError, StorageError
from elsewhere.logs import get_logger
from elsewhere.models import find_device
from elsewhere.recording.workers import Workers
from elsewhere.reproduction.claims import make_rows, report_beside, to_dataset, to_table
from elsewhere.reproduction.conditions import Run, make_runs
from elsewhere.reproduction.disk import disk_bytes
from elsewhere.reproduction.drawing import draw_figures
from elsewhere.reproduction.layers import check_layers
from elsewhere.reproduction.measurements import Task, Values
from elsewhere.reproduction.scale import Scale, load_scale
from elsewhere.reproduction.tasks import Progress, finite, read_values
from elsewhere.reproduction.workers import choose_workers, perform_all
from elsewhere.stimuli import load_objects
from elsewhere.stimuli.sets import WITH_PARTS
from elsewhere.storage import save_result, write_atomically
from elsewhere.storage.documents import read_document, tell_unsealed, write_document
from elsewhere.storage.files import check_room, refuse_link, storage_errors
from elsewhere.storage.locks import locked

logger = get_logger(__name__)

ENCODING = "reproduction"
VERSION = "0.2"
FIRST_SEED = 100
"""The first seed by default: scales are tuned on smaller ones."""


@dataclass(frozen=True)
class Options:
    """What is run beside the conditions that every claim needs; see :func:`reproduce`."""

    confounds: bool = False
    imagenet_weights: str | None = None
    max_steps: int | None = None
    state_key: str | None = None

    def apply(self, scale: Scale) -> tuple[Scale, tuple[Run, ...]]:
        """Return the scale as it is run, and the runs of each seed."""
        if self.max_steps is not None:
            if self.max_steps < 1:
                raise InputError(f"expected 1 step or more; got max_steps={self.max_steps}")
            scale = scale.smoke(self.max_steps)
        runs = make_runs(
            scale,
            confounds=self.confounds,
            imagenet_weights=self.imagenet_weights,
            state_key=self.state_key,
        )
        return scale, runs


def reproduce(
    scale: str | Path | Scale,
    out: str | Path,
    *,
    seeds: int = 1,
    first_seed: int = FIRST_SEED,
    development: bool = False,
    workers: Workers | None = None,
    device: str = "auto",
    data_dir: Path | None = None,
    confounds: bool = False,
    imagenet_weights: str | None = None,
    state_key: str | None = None,
    max_steps: int | None = None,
    trust: Collection[str] = (),
    figures: bool = True,
    progress: Progress | None = None,
    command: str = "",
) -> Path:
    """Train all conditions, measure them, and give each of the paper's claims a verdict.

    `out` then holds ``claims.json``, ``claims.nc``, ``figures/`` and for each seed
    ``seeds/SEED/`` with a folder of checkpoints for each run, results (``.nc``) and
    ``measurements.json``. What is done already is not done again, interrupted training goes on,
    and more seeds can be added: the claims are of all seeds that are finished there.

    Parameters
    ----------
    scale
        ``quick``, ``laptop``, ``slim``, ``vgg16`` or ``paper``; a folder of curricula like theirs;
        or a scale.
    out
        The directory; it is made where there is none.
    seeds, first_seed
        How many seeds, and the first one. One seed gives no verdict.
    development
        Whether seeds that the scale was tuned on may be run: the table then says so, and is not
        for reporting.
    workers
        Processes, of one thread each, or their devices; by default as many as there are cores, on a
        GPU as many as its memory has room for, see
        :func:`elsewhere.reproduction.workers.choose_workers`.
    device
        ``auto``, ``cpu``, ``cuda``, ...
    data_dir
        The folder of the object sets that are not made here.
    confounds
        Whether other explanations are run as conditions of their own.
    imagenet_weights
        ``imagenet`` or a state file of VGG16, for C2.
    state_key
        Which state of that file, if it holds several.
    max_steps
        At most so many steps of each phase, with few objects: only to see that it runs.
    trust
        Factories (``package.module:factory``) that may be built where a folder names them.
    figures
        Whether figures are drawn.
    progress
        Called with each :class:`Event`.
    command
        The command line that runs it, which results keep.

    Returns
    -------
    Path
        ``claims.json``.

    Raises
    ------
    UnknownNameError
        No such scale, or a layer that its network lacks.
    InputError
        Seeds that the scale was tuned on, without `development`; a network without a head.
    ExistsError
        `out` holds another reproduction.
    ElsewhereError
        What training or measuring refuses; the checkpoints will not fit the disk.
    """
    chosen = find_scale(scale, trust)
    options = Options(confounds, imagenet_weights, max_steps, state_key)
    chosen, runs = options.apply(chosen)
    numbers = seed_numbers(seeds, first_seed)
    place = find_device(device)
    directory = Path(out)
    if not development:
        refuse_tuned(chosen, {*numbers, *seeds_in(directory)})
    check_layers(chosen, runs[0])
    given: dict[str, Any] = {"device": str(place), "data_dir": data_dir, "command": command}
    tasks = make_tasks(chosen, runs, numbers, directory, **given)
    check_data(tasks, data_dir)
    open_directory(directory, chosen)
    message = f"{directory} is being filled by another process; wait for it, or choose another one"
    with locked(directory, message):
        check_disk(directory, [task for task in tasks if not task.path.exists()])
        perform_all(
            tasks, workers=choose_workers(workers, str(place), len(tasks)), progress=progress
        )
        earlier = tuple(seed for seed in seeds_in(directory) if seed not in numbers)
        others = make_tasks(chosen, runs, earlier, directory, **given)
        missing = {task.seed for task in others if not task.path.exists()}
        tasks += tuple(task for task in others if task.seed not in missing)
        return conclude(chosen, tasks, directory, figures=figures, command=command)


def check_data(tasks: Sequence[Task], data_dir: Path | None) -> None:
    """Refuse tasks that are to be done whose pictures are missing or damaged, before any begins.

    Raises
    ------
    ObjectSetError
        Naming the files, and where they come from.
    """
    left = [task.run for task in tasks if not task.path.exists()]
    asked = dict.fromkeys((each.objects, each.split) for run in left for each in run.phases)
    for spec, split in asked:
        if spec in WITH_PARTS:
            load_objects(spec, size=8, categories=1, data_dir=data_dir, split=split)


def check_disk(directory: Path, left: Sequence[Task]) -> None:
    """Refuse tasks whose checkpoints do not fit the disk."""
    there = sum(
        path.stat().st_size
        for task in left
        for path in (task.folder / task.run.name / "checkpoints").glob("*.safetensors")
    )
    check_room(directory, disk_bytes([task.run for task in left]) - there)


def conclude(
    scale: Scale,
    tasks: tuple[Task, ...],
    directory: Path,
    *,
    figures: bool = True,
    command: str = "",
) -> Path:
    """Write the claims and draw the figures from what finished tasks left."""
    results: dict[int, dict[str, Values]] = {}
    for task in tasks:
        values = read_values(task)
        if values is None:
            raise StorageError(f"{task.path} is missing; run the same command again")
        results.setdefault(task.seed, {})[task.run.name] = values
    for seed, runs in results.items():
        path = directory / "seeds" / str(seed) / "measurements.json"
        plain = {run: {key: finite(each) for key, each in runs[run].items()} for run in runs}
        write_atomically(path, json.dumps(plain, indent=1, allow_nan=False).encode())
    rows = make_rows(scale, results)
    table = to_table(scale, rows, results, report_beside(scale, results))
    claims = to_dataset(scale, rows, results)
    if command:
        claims.attrs["command"] = command
    save_result(claims, directory / "claims.nc", overwrite=True)
    path = directory / "claims.json"
    write_document(path, table, encoding="claims", version=VERSION)
    if figures:
        folders = [directory / "seeds" / str(seed) for seed in sorted(results)]
        drawn = draw_figures(scale, folders, directory / "figures", claims)
        logger.info("%d figures in %s", len(drawn), directory / "figures")
    return path


def make_tasks(
    scale: Scale,
    runs: tuple[Run, ...],
    seeds: tuple[int, ...],
    directory: Path,
    *,
    device: str = "cpu",
    data_dir: Path | None = None,
    command: str = "",
) -> tuple[Task, ...]:
    """Return the tasks of all seeds, each after those that it needs."""
    return tuple(
        Task(scale, run, seed, directory / "seeds" / str(seed), device, data_dir, command)
        for seed in seeds
        for run in runs
    )


def seeds_in(directory: Path) -> tuple[int, ...]:
    """Return the numbers of the seeds of which a directory holds something."""
    names = (path.name for path in (directory / "seeds").glob("*"))
    return tuple(sorted(int(name) for name in names if name.isdecimal()))


def find_scale(scale: str | Path | Scale, trust: Collection[str] = ()) -> Scale:
    """Return the scale of that name, or in that folder."""
    return scale if isinstance(scale, Scale) else load_scale(scale, trust=trust)


def seed_numbers(seeds: int, first_seed: int) -> tuple[int, ...]:
    """Return the numbers of the seeds."""
    if seeds < 1 or first_seed < 0:
        raise InputError(f"expected 1 seed or more, from 0 on; got {seeds} from {first_seed}")
    return tuple(range(first_seed, first_seed + seeds))


def refuse_tuned(scale: Scale, seeds: set[int]) -> None:
    """Refuse seeds that a scale was tuned on."""
    tuned = sorted(seeds & {*scale.tuned_on})
    if tuned:
        raise InputError(
            f"the scale {scale.name} was tuned on the seeds {', '.join(map(str, scale.tuned_on))}; "
            f"a table with {', '.join(map(str, tuned))} cannot be reported: choose others "
            f"(--first-seed {FIRST_SEED}) and a directory without them, or say --development"
        )


def open_directory(directory: Path, scale: Scale) -> None:
    """Make the directory, or refuse that of another reproduction."""
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    path = directory / "reproduction.json"
    table = {
        "scale": scale.name,
        "fingerprint": scale.fingerprint,
        "torch": str(torch.__version__),
    }
    if not path.exists():
        write_document(path, table, encoding=ENCODING, version=VERSION)
        return
    refuse_link(path)
    held, sealed = read_document(path, encoding=ENCODING, expected="what a reproduction is of")
    if not sealed:
        tell_unsealed(path)
    name, other = str(held.get("scale")), str(held.get("fingerprint"))
    if other != scale.fingerprint:
        raise ExistsError(
            f"{directory} holds another reproduction: {name} {other[:12]}, not {scale.name} "
            f"{scale.fingerprint[:12]}; choose another directory"
        )
