"""Run a list of systems: every claim of each of them, side by side, in as many processes as asked.

Each system's folder is what :func:`elsewhere.reproduction.reproduce` would leave there; one table
and one result of claims are of all of them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray

from elsewhere.errors import ElsewhereError, InputError, StorageError
from elsewhere.figures import plot_claims, save_figure
from elsewhere.logs import get_logger
from elsewhere.measures.variables import described
from elsewhere.models import find_device
from elsewhere.recording.workers import Workers, devices_of
from elsewhere.reproduction.claims import (
    STATEMENTS,
    Row,
    make_rows,
    report_beside,
    to_dataset,
    to_table,
)
from elsewhere.reproduction.conditions import Run, make_runs
from elsewhere.reproduction.costs import ReproductionPlan, plan_runs
from elsewhere.reproduction.gates import Results
from elsewhere.reproduction.layers import check_layers
from elsewhere.reproduction.measurements import Task, Values
from elsewhere.reproduction.run import (
    FIRST_SEED,
    VERSION,
    check_data,
    check_disk,
    make_tasks,
    open_directory,
    refuse_tuned,
    seed_numbers,
    seeds_in,
)
from elsewhere.reproduction.scale import Scale
from elsewhere.reproduction.systems import CONDITIONS, System, SystemList, load_systems
from elsewhere.reproduction.tasks import Event, Progress, perform, read_values, write_values
from elsewhere.reproduction.workers import choose_workers, perform_all
from elsewhere.storage import save_result
from elsewhere.storage.documents import write_document
from elsewhere.storage.files import make_inside
from elsewhere.storage.locks import locked

logger = get_logger(__name__)

FOLDER = "systems"


@dataclass(frozen=True)
class SystemsPlan:
    """What a list of systems would cost."""

    name: str
    seeds: int
    runs: int
    steps: int  # of training, at most
    workers: int
    systems: Mapping[str, ReproductionPlan]  # of each system, in one process
    seconds: float  # in all, about
    disk_bytes: int  # of the checkpoints, at most


@dataclass(frozen=True)
class _Chosen:
    """A system, its scale and runs as they are run, and its folder."""

    system: System
    scale: Scale
    runs: tuple[Run, ...]
    folder: Path


def plan_systems(
    listed: str | Path | SystemList,
    *,
    scale: str | Path | None = None,
    only: Collection[str] = (),
    seeds: int = 1,
    workers: Workers | None = None,
    device: str = "auto",
    max_steps: int | None = None,
    trust: Collection[str] = (),
) -> SystemsPlan:
    """Return what :func:`reproduce_systems` would cost; a few steps of each system are timed.

    Raises
    ------
    ElsewhereError
        As there.
    """
    place, found = find_device(device), _find(listed, scale, trust)
    found = found.only(only) if only else found
    count = len(seed_numbers(seeds, 0))
    plans = {
        each.system.name: plan_runs(each.scale, each.runs, count, workers=1, device=device)
        for each in _choose(found, Path(), max_steps)
    }
    runs = sum(each.runs for each in plans.values())
    spread = choose_workers(workers, str(place), runs)
    processes = len(devices_of(spread))
    n_devices = 1 if isinstance(spread, int) else len(set(spread))
    work = sum(each.seconds for each in plans.values())
    return SystemsPlan(
        name=found.name,
        seeds=count,
        runs=runs,
        steps=sum(each.steps for each in plans.values()),
        workers=processes,
        systems=plans,
        seconds=work / (processes if place.type == "cpu" else n_devices),
        disk_bytes=sum(each.disk_bytes for each in plans.values()),
    )


def reproduce_systems(
    listed: str | Path | SystemList,
    out: str | Path,
    *,
    scale: str | Path | None = None,
    only: Collection[str] = (),
    seeds: int = 1,
    first_seed: int = FIRST_SEED,
    development: bool = False,
    workers: Workers | None = None,
    device: str = "auto",
    data_dir: Path | None = None,
    max_steps: int | None = None,
    trust: Collection[str] = (),
    figures: bool = True,
    progress: Progress | None = None,
    command: str = "",
) -> Path:
    """Train and measure every system of a list, and give each claim a verdict for each system.

    `out` then holds ``claims.json`` and ``claims.nc`` of all systems, ``figures/``, and for each
    system ``systems/NAME/``, which is a directory of :func:`elsewhere.reproduction.reproduce`.
    Seeds come one after the other, of all systems; whenever a system's seed is done, the table is
    written anew. What is done already is not done again, interrupted training goes on where it
    stood, and seeds and systems can be added. A system that cannot be trained or measured is noted
    with the reason, and the others go on.

    Parameters
    ----------
    listed
        A name, such as ``slim``; a TOML file; or a list.
    out
        The directory; it is made where there is none.
    scale
        The scale in place of the one that the list names.
    only
        Names of systems of the list, by default all.
    seeds, first_seed, development, workers, device, data_dir, max_steps, trust, figures
    progress, command
        As for :func:`elsewhere.reproduction.reproduce`.

    Returns
    -------
    Path
        ``claims.json``.

    Raises
    ------
    ElsewhereError
        As there, before anything is trained; or the disk is full.
    """
    found = _find(listed, scale, trust)
    directory = Path(out)
    every = _choose(found, directory, max_steps)
    wanted = found.only(only).systems if only else found.systems
    chosen = [each for each in every if each.system in wanted]
    numbers = seed_numbers(seeds, first_seed)
    place = find_device(device)
    for each in chosen:
        if not development:
            refuse_tuned(each.scale, {*numbers, *seeds_in(each.folder)})
        check_layers(each.scale, each.runs[0])
    tasks = [
        task
        for seed in numbers
        for each in chosen
        for task in make_tasks(
            each.scale,
            each.runs,
            (seed,),
            each.folder,
            device=str(place),
            data_dir=data_dir,
            command=command,
        )
    ]
    check_data(tasks, data_dir)
    make_inside(directory.parent, directory.name)
    for each in chosen:
        make_inside(directory, FOLDER, each.system.name)
        open_directory(each.folder, each.scale)
    message = f"{directory} is being filled by another process; wait for it, or choose another one"
    with locked(directory, message):
        check_disk(directory, [task for task in tasks if not task.path.exists()])
        left = {task.key for task in tasks}

        def report(event: Event) -> None:
            if progress is not None:
                progress(event)
            if event.stage != "done":
                return
            left.discard((event.system, event.seed, event.run))
            if not any(key[:2] == (event.system, event.seed) for key in left):
                _conclude(found, every, directory, str(place), data_dir, command=command)

        perform_all(
            tasks,
            workers=choose_workers(workers, str(place), len(tasks)),
            progress=report,
            act=perform_or_note,
        )
        return _conclude(
            found, every, directory, str(place), data_dir, figures=figures, command=command
        )


def perform_or_note(task: Task, progress: Progress) -> None:
    """Perform a task; write down why where it, or one that it needs, cannot be trained or measured.

    A file or a disk that fails stops everything.
    """
    make_inside(task.folder.parent.parent, task.folder.parent.name, task.folder.name)
    for name in task.run.needs:
        before = _refusal(task.folder / f"{name}.json")
        if before is not None:
            write_values(task, {"refused": before})
            return
    try:
        perform(task, progress)
    except (StorageError, OSError, MemoryError):
        raise
    except Exception as error:  # one network of many must not stop what runs unattended
        known = isinstance(error, ElsewhereError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        logger.warning("%s, seed %d, %s: %s", *task.key, reason)
        write_values(task, {"refused": f"{task.run.name}: {reason}"})


def _refusal(path: Path) -> str | None:
    """Return why a task gave no numbers, None where it gave some."""
    values: dict[str, Any] = json.loads(path.read_bytes()).get("values", {})
    return str(values["refused"]) if "refused" in values else None


def _find(
    listed: str | Path | SystemList, scale: str | Path | None, trust: Collection[str]
) -> SystemList:
    if isinstance(listed, SystemList):
        return listed
    return load_systems(listed, scale=scale, trust=trust)


def _choose(found: SystemList, directory: Path, max_steps: int | None) -> list[_Chosen]:
    """Return what is run of each system."""
    if max_steps is not None and max_steps < 1:
        raise InputError(f"expected 1 step or more; got max_steps={max_steps}")
    chosen = []
    for system in found.systems:
        scale = found.scales[system.name]
        scale = scale if max_steps is None else scale.smoke(max_steps)
        runs = runs_of(scale, found.conditions)
        chosen.append(_Chosen(system, scale, runs, directory / FOLDER / system.name))
    return chosen


def runs_of(scale: Scale, conditions: Collection[str]) -> tuple[Run, ...]:
    """Return the runs of one seed that conditions of a list need, each after those it needs."""
    every = make_runs(scale)
    wanted = {name for condition in conditions for name in CONDITIONS[condition]}
    for run in reversed(every):
        if run.name in wanted:
            wanted.update(run.needs)
    return tuple(run for run in every if run.name in wanted)


def _conclude(
    found: SystemList,
    every: Sequence[_Chosen],
    directory: Path,
    device: str,
    data_dir: Path | None,
    *,
    figures: bool = False,
    command: str = "",
) -> Path:
    """Write the claims of every system's finished seeds, each system's and all together."""
    tables, results = list[dict[str, Any]](), []
    kept = {"command": command} if command else {}
    for each in every:
        values = _finished(each, device, data_dir)
        if not values:
            continue
        rows = [
            row
            for row in make_rows(each.scale, values)
            if row.claim in found.claims and (row.values or row.counts)
        ]
        reported = report_beside(each.scale, values)
        table = to_table(each.scale, rows, values, reported)
        result = _dataset(each, rows, values).assign_attrs(kept)
        save_result(result, each.folder / "claims.nc", overwrite=True)
        write_document(each.folder / "claims.json", table, encoding="claims", version=VERSION)
        tables.append(
            {
                "name": each.system.name,
                "what": each.system.summary,
                "source": each.system.source,
                "refused": _refusals(values),
                **table,
            }
        )
        results.append(result.assign_coords(system=("claim", [each.system.name] * len(rows))))
    path = directory / "claims.json"
    document = {
        "systems": tables,
        "list": found.name,
        "conditions": list(found.conditions),
        "statements": {claim: STATEMENTS[claim] for claim in found.claims},
    }
    write_document(path, document, encoding="claims of systems", version=VERSION)
    if results:
        joined = join_systems(results, found, tables).assign_attrs(kept)
        save_result(joined, directory / "claims.nc", overwrite=True)
        if figures:
            _draw(joined, directory)
    return path


def _draw(joined: xarray.Dataset, directory: Path) -> None:
    make_inside(directory, "figures")
    for claim in dict.fromkeys(joined["claim"].values.tolist()):
        rows = (joined["claim"].values == claim) & (joined["counts"].values > 0)
        drawn = plot_claims(joined.isel(claim=np.flatnonzero(rows)))
        save_figure(drawn, directory / "figures" / f"claims-{claim}.svg", overwrite=True)


def _finished(each: _Chosen, device: str, data_dir: Path | None) -> dict[int, dict[str, Values]]:
    """Return what came out of the seeds of which every run is done."""
    results: dict[int, dict[str, Values]] = {}
    for seed in seeds_in(each.folder):
        tasks = make_tasks(
            each.scale, each.runs, (seed,), each.folder, device=device, data_dir=data_dir
        )
        if all(task.path.exists() for task in tasks):
            values = {task.run.name: read_values(task) for task in tasks}
            results[seed] = {name: value for name, value in values.items() if value is not None}
    return results


def _refusals(values: Results) -> list[str]:
    return sorted(
        f"seed {seed}: {run['refused']}"
        for seed, runs in values.items()
        for run in runs.values()
        if "refused" in run
    )


def _dataset(each: _Chosen, rows: Sequence[Row], values: Results) -> xarray.Dataset:
    """Return a system's rows as a result, of the conditions that were run."""
    ran = {run.name: each.scale.conditions[run.name] for run in each.runs}
    scale = dataclasses.replace(each.scale, conditions=ran)
    return to_dataset(scale, rows, values)


def join_systems(
    results: Sequence[xarray.Dataset], found: SystemList, tables: Sequence[Mapping[str, Any]]
) -> xarray.Dataset:
    """Return the claims of several systems as one result, over ``claim``; ``system`` tells them.

    A seed that a system lacks is NaN.
    """
    joined = xarray.concat(
        results, dim="claim", join="outer", combine_attrs="drop", coords="minimal", compat="equals"
    )
    joined.attrs = {
        "kind": "claims",
        "scale": found.name,
        "level": 0.95,
        "conditions": json.dumps(list(found.conditions)),
        "systems": json.dumps(
            {
                str(table["name"]): {
                    "what": table["what"],
                    "source": table["source"],
                    "network": table["system"],
                    "summary": {claim: each["verdict"] for claim, each in table["summary"].items()},
                }
                for table in tables
            }
        ),
    }
    return described(joined)
