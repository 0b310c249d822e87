"""Maps and their measures at every checkpoint of a training run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xarray

from elsewhere.analyzer.attribution.cost import cost_of
from elsewhere.analyzer.attribution.driver import attribute, check_memory
from elsewhere.analyzer.attribution.objects import ObjectRun
from elsewhere.analyzer.attribution.settings import AttributionSettings
from elsewhere.analyzer.attribution.targets import ClassTarget, LinearTarget
from elsewhere.analyzer.checkpoints import (
    Kept,
    Report,
    choose_checkpoints,
    kept_results,
    notes_of_checkpoints,
    perform_checkpoints,
)
from elsewhere.analyzer.training_facts import training_facts
from elsewhere.errors import InputError
from elsewhere.measures.variables import described
from elsewhere.models import find_device
from elsewhere.recording import Sweep
from elsewhere.recording.workers import Workers
from elsewhere.stimuli import Grid, ObjectSet
from elsewhere.training import Card, load_checkpoint
from elsewhere.types import BatchDependent, Engine, Location, parse_bytes

_ONCE = ("patch", "mask", "category")


def attribute_checkpoints(
    directory: str | Path,
    settings: AttributionSettings | None = None,
    *,
    grid: str = "7x7",
    reference: Location | None = None,
    objects: ObjectSet | None = None,
    phases: Sequence[str] | None = None,
    device: str = "auto",
    max_memory: int | str = "2GiB",
    data_dir: Path | None = None,
    workers: Workers = 1,
    scheduler: str | None = None,
    engine: Engine = "auto",
    batch_dependent: BatchDependent = "refuse",
    chance_seed: int | None = None,
    trust: Collection[str] = (),
    out: Path | None = None,
    report: Report | None = None,
    announce: Callable[[str], None] | None = None,
) -> xarray.Dataset:
    """Return maps and measures at each checkpoint of a run; goes on where it was stopped.

    Parameters
    ----------
    directory
        What :func:`elsewhere.training.train` left.
    settings
        As for :func:`attribute`. A class can be attributed only in phases that know it; the
        similarity to the reference in all of them.
    grid
        Where objects are shown.
    reference
        By default the only trained location, else the grid's default.
    objects
        The same at all checkpoints; by default one trained exemplar of each class of the last one.
    phases
        Names of phases; by default all in which the target exists.
    device
        Where the network runs.
    max_memory
        Bytes that a pass may take, and that all maps together may.
    data_dir
        The folder of object sets that are not made here.
    workers
        Local processes that share the checkpoints; each may take up `max_memory`.
    scheduler
        Address of a Dask scheduler, whose workers share them instead; they see the same files.
    engine
        ``auto``, ``dense`` or ``incremental``, for methods that cover windows.
    batch_dependent, chance_seed
        See :class:`elsewhere.models.Model`.
    trust
        Factories (``package.module:factory``) that may be built where cards name them.
    out
        The file that the result will be written to, if its disk is to be looked at before.
    report
        Called as checkpoints are done.
    announce
        Called before anything is made, with what it costs in words.

    Returns
    -------
    xarray.Dataset
        As from :func:`attribute`, over ``checkpoint`` (with ``phase`` and ``step`` within it).

    Raises
    ------
    InputError
        No checkpoint, an unknown phase, or one without the target.
    """
    directory = Path(directory)
    settings = AttributionSettings() if settings is None else settings
    if isinstance(settings.target, LinearTarget) and settings.target.network:
        raise InputError(
            f"the target {settings.target.name} is fitted on one network, and {directory} holds "
            "one at each checkpoint; name the checkpoint it was fitted on, without --checkpoints"
        )
    cards = choose_checkpoints(directory, phases, trust=trust)
    if objects is None:
        objects, _ = cards[-1].test_objects(per_category=1, data_dir=data_dir)
        objects = objects.select(per_category=1)
    cards = _knowing(cards, objects, settings, explicit=phases is not None)
    default = Grid.parse(grid, cards[-1].canvas).default_reference
    (only,) = trained if len(trained := cards[-1].trained or ()) == 1 else (default,)
    place = only if reference is None else reference
    places = len(Grid.parse(grid, cards[-1].canvas))
    map_bytes = len(objects) * places * settings.map_bytes(cards[-1].canvas)
    needed, limit = 2 * len(cards) * map_bytes, parse_bytes(max_memory)
    check_memory(needed, limit, len(objects), places, len(cards))
    how = {"batch_dependent": batch_dependent, "chance_seed": chance_seed}
    fields = [_deciding(card, settings, objects, grid, place, engine) | how for card in cards]
    with kept_results(
        directory, "attribution", cards, fields, device=device, max_memory=max_memory
    ) as kept:
        job = CheckpointJob(
            tuple(cards), kept, objects, settings, grid, place, device, max_memory, engine,
            batch_dependent, chance_seed,
        )  # fmt: skip
        left = kept.left(cards, job.sweep)
        if announce is not None and left:
            run = ObjectRun(
                job.sweep(left[0]), settings, classes=cards[left[0]].categories,
                max_memory=limit,
            )  # fmt: skip
            announce(str(cost_of(run, len(objects) * places).times(len(left))))
        n_values = map_bytes // 32  # of 8 bytes; the maps compress to about a quarter
        perform_checkpoints(
            job, cards, left, workers=workers, scheduler=scheduler, report=report,
            paths=kept.paths, out=out, n_values=n_values,
        )  # fmt: skip
        if report is not None:
            report(len(cards), len(cards), "done")
        return _join(kept.load(), cards).assign_attrs(training_facts(directory))


@dataclass(frozen=True)
class CheckpointJob:
    """What a process needs to attribute checkpoints: each task is the number of one.

    Parameters
    ----------
    cards, kept
        The checkpoints, and where the maps of each go.
    objects, settings, grid, place, device, max_memory, engine, batch_dependent, chance_seed
        See :func:`attribute_checkpoints`.
    """

    cards: tuple[Card, ...]
    kept: Kept
    objects: ObjectSet
    settings: AttributionSettings
    grid: str
    place: Location
    device: str
    max_memory: int | str
    engine: Engine
    batch_dependent: BatchDependent = "refuse"
    chance_seed: int | None = None

    def on(self, device: str) -> CheckpointJob:
        """Return the job for another device."""
        return replace(self, device=device)

    def prepare(self) -> None:
        """Refuse another machine; each task reads its checkpoint itself."""
        self.kept.check_machine(self.device)

    def perform(self, number: int) -> None:
        """Attribute a checkpoint and save its maps."""
        attribute(
            self.sweep(number), self.settings, classes=self.cards[number].categories,
            path=self.kept.paths[number], overwrite=True, max_memory=self.max_memory,
        )  # fmt: skip

    def sweep(self, number: int) -> Sweep:
        """Return the sweep of a checkpoint."""
        card = self.cards[number]
        model = load_checkpoint(card).to(find_device(self.device))
        return Sweep(
            model.running(batch_dependent=self.batch_dependent, chance_seed=self.chance_seed),
            self.objects,
            canvas=card.canvas,
            grid=Grid.parse(self.grid, card.canvas),
            reference=self.place,
            engine=self.engine,
        )


def _knowing(
    cards: Sequence[Card], objects: ObjectSet, settings: AttributionSettings, *, explicit: bool
) -> list[Card]:
    """Return the checkpoints whose head has the target."""
    target = settings.resolve(known=True)
    if not isinstance(target, ClassTarget) or target.choice in ("predicted", "reference"):
        return list(cards)
    wanted = set(objects.categories) if target.choice == "true" else {target.choice}

    def knows(card: Card) -> bool:
        number = target.choice.isdigit() and int(target.choice) < len(card.categories)
        return wanted <= set(card.categories) or number

    found = [card for card in cards if knows(card)]
    if not found or (explicit and len(found) < len(cards)):
        without = ", ".join(dict.fromkeys(card.phase for card in cards if not knows(card)))
        raise InputError(
            f"the head of phase {without} does not know the classes of the target {target.name}; "
            "choose other phases, or the target similarity:LAYER, which needs no class"
        )
    return found


def _deciding(
    card: Card,
    settings: AttributionSettings,
    objects: ObjectSet,
    grid: str,
    place: Location,
    engine: Engine,
) -> dict[str, Any]:
    """Return what decides a checkpoint's maps beside itself."""
    return {
        "settings": settings.fields(card.canvas),
        "objects": objects.digest(),
        "grid": grid,
        "reference": list(place),
        "engine": engine,
    }


_OF_THE_LAST = ("weights", "weights_sha256", "identity")


def _join(found: Sequence[xarray.Dataset], cards: Sequence[Card]) -> xarray.Dataset:
    common = set.intersection(*(set(map(str, each.data_vars)) for each in found))
    once = found[-1][[name for name in _ONCE if name in found[-1].data_vars]]
    varying = [
        each[sorted(common - set(_ONCE))].drop_vars("measure", errors="ignore") for each in found
    ]
    measures = [each["measure"].values.tolist() for each in found if "measure" in each.coords]
    same = len(measures) == len(found) and all(names == measures[0] for names in measures)
    if not same:
        varying = [each.drop_dims("measure", errors="ignore") for each in varying]
    joined = xarray.concat(varying, dim="checkpoint", join="exact", combine_attrs="drop")
    joined = joined.merge(once, join="exact", compat="no_conflicts")
    joined = joined.assign_coords(
        phase=("checkpoint", [card.phase for card in cards]),
        step=("checkpoint", [card.step for card in cards]),
    )
    if same:
        joined = joined.assign_coords(measure=measures[0])
    for name in joined.data_vars:
        joined[name].attrs = dict(found[-1][name].attrs)
    attributes: dict[str, Any] = {
        key: value
        for key, value in found[-1].attrs.items()
        if key not in (*_OF_THE_LAST, "elsewhere_encoding", "encoding_version")
    }
    last = cards[-1]
    joined.attrs = attributes | {
        "kind": "attribution timeline",
        "curriculum": last.curriculum,
        "fingerprint": last.fingerprint,
        "n_classes": len(last.categories),
        "checkpoint_sha256": [card.sha256 for card in cards],
        "training_seed": last.seed,
        "notes": notes_of_checkpoints(found, cards),
    }
    return described(joined)
