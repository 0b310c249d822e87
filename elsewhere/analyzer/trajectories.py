"""Measures at every checkpoint of a training run: invariance acquired, and lost.

Each checkpoint is a unit of work with a file of its own under ``DIR/track``, named by all that
decides its values, so that an
interrupted run goes on; :func:`track` returns them as one result.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray

from elsewhere.analyzer.accuracy import network_accuracy
from elsewhere.analyzer.all_measures import measure
from elsewhere.analyzer.checkpoints import (
    Kept,
    Report,
    choose_checkpoints,
    kept_results,
    perform_checkpoints,
    tested_digest,
)
from elsewhere.analyzer.factors import factors_of
from elsewhere.analyzer.invariance import EXEMPLARS, UNDEFINED, object_accuracies
from elsewhere.analyzer.similarity import similarity
from elsewhere.analyzer.track_join import join_checkpoints
from elsewhere.analyzer.training_facts import training_facts
from elsewhere.errors import StorageError
from elsewhere.measures.catalogue import measures, measures_named
from elsewhere.measures.variables import described
from elsewhere.models import find_device
from elsewhere.models.identity import source_sha256
from elsewhere.notes import notes_of
from elsewhere.probes import probe_checkpoint
from elsewhere.recording import Sweep
from elsewhere.recording.workers import Workers
from elsewhere.stimuli import Grid, ObjectSet, load_objects
from elsewhere.stimuli.transformations import parse_axis
from elsewhere.tokens import TokenPart
from elsewhere.training import Card, Curriculum, load_checkpoint
from elsewhere.types import (
    WHERE,
    BatchDependent,
    Engine,
    Location,
    Metric,
    Precision,
    parse_bytes,
    stem_of,
)

_KEPT = (
    *(
        f"{name}{more}"
        for name in ("", "_baseline", "_G")
        for more in ("", "_away", "_away_interval")
    ),
    *(f"_G_{name}" for name in ("away_band", "step", "step_interval", "step_band", "away_without")),
    "_zero_share",
)
"""What is kept of a similarity: what follows the metric's name."""


@dataclass(frozen=True)
class TrackSettings:
    """What is measured at each checkpoint.

    Parameters
    ----------
    grid
        Where objects are shown, as ``Grid.parse`` reads it.
    layers
        Layer names or globs; by default the last pooling and everything after it.
    tokens
        Which tokens are taken of layers that give tokens; see :class:`elsewhere.recording.Sweep`.
    metric
        Of the similarity.
    objects, categories
        The objects that layers are compared with: a set, and how many of its categories or their
        names; by default one exemplar of each class of the last phase.
    per_category
        Exemplars of each class, trained on and held out, for the accuracy; with 0 none is tested,
        and what is known is the accuracy that training's own probe found on the location.
    trained
        The location that is compared with, and counts as trained; by default what cards say.
    axes
        Axes that change the objects as well, such as ``scale=0.5:2:5``.
    engine
        See :class:`elsewhere.recording.Sweep`.
    full
        Whether the similarity of each object at each location is kept as well.
    any_reference
        Whether a factor of the codes is kept at the first and the last checkpoint, from which a
        report forms cosines with any place as the reference.
    probes
        Whether a linear probe of each layer is trained at the reference as well.
    measures
        Names of measures that are taken of each layer as well, such as ``identification``, or
        ``package.module:name``, which other processes can import, too.
    batch_dependent, chance_seed, precision
        See :class:`elsewhere.models.Model`.
    """

    grid: str = "7x7"
    layers: tuple[str, ...] | None = None
    tokens: TokenPart = "all"
    metric: Metric = "cosine"
    objects: str | None = None
    categories: int | Sequence[str] | None = None
    per_category: int = 20
    trained: Location | None = None
    axes: tuple[str, ...] = ()
    engine: Engine = "auto"
    full: bool = True
    any_reference: bool = False
    probes: bool = False
    measures: tuple[str, ...] = ()
    batch_dependent: BatchDependent = "refuse"
    chance_seed: int | None = None
    precision: Precision = "float32"

    @property
    def how(self) -> dict[str, Any]:
        """How the networks are run."""
        return {n: getattr(self, n) for n in ("batch_dependent", "chance_seed", "precision")}


def track(
    directory: str | Path,
    *,
    settings: TrackSettings | None = None,
    phases: Sequence[str] | None = None,
    checkpoints: int | None = None,
    objects: ObjectSet | None = None,
    device: str = "auto",
    max_memory: int | str = "2GiB",
    data_dir: Path | None = None,
    workers: Workers = 1,
    scheduler: str | None = None,
    trust: Collection[str] = (),
    out: Path | None = None,
    report: Report | None = None,
) -> xarray.Dataset:
    """Return accuracy and cross-location similarity at every checkpoint of a run.

    Parameters
    ----------
    directory
        What :func:`elsewhere.training.train` left.
    settings
        What is measured.
    phases
        Names of phases; all by default.
    checkpoints
        At about so many of them, at steps that grow by a constant factor; all by default.
    objects
        What layers are compared with, instead of a set that the settings name.
    device
        Where the network runs.
    max_memory
        Bytes that activations may take up.
    data_dir
        The folder of object sets that are not made here.
    workers
        Local processes that share the checkpoints; each may take up `max_memory`.
    scheduler
        Address of a Dask scheduler, whose workers share them instead; they see the same files.
    trust
        Factories (``package.module:factory``) that may be built where cards name them.
    out
        The file that the result will be written to, if its disk is to be looked at before.
    report
        Called as checkpoints are done.

    Returns
    -------
    xarray.Dataset
        Over ``checkpoint`` (with ``phase`` and ``step`` within it): ``accuracy (exemplars, y, x)``,
        ``accuracy_on``, ``accuracy_off``, ``accuracy_far`` and ``II_far`` (exemplars);
        ``cosine_each (layer, object, y, x)``, ``cosine_away``, ``cosine_baseline_away``,
        ``cosine_G_away`` (layer, with intervals), ``cosine_G_away_without (layer, object)``,
        ``cosine_G_away_band`` and ``cosine_G_step`` as :func:`elsewhere.similarity` has them, with
        the metric's name where it is another; with probes
        ``probe_accuracy_at (layer, exemplars, where)`` and ``probe_II_far (layer, exemplars)``,
        with intervals: see :func:`elsewhere.probes.probe_checkpoint`; of further measures what
        there is for each layer; for any reference ``code_factor (code_factor_checkpoint, layer,
        object, y, x, rank)`` with its errors, at the first and the last checkpoint.

    Raises
    ------
    InputError
        No checkpoint, or an unknown phase.
    StorageError
        The results will not fit the disk.
    WeightsError
        A checkpoint is damaged.
    """
    directory = Path(directory)
    settings = TrackSettings() if settings is None else settings
    chosen = choose_checkpoints(directory, phases, count=checkpoints, trust=trust)
    objects = _compared_objects(chosen[-1], settings, data_dir) if objects is None else objects
    if settings.tokens != "all":  # refused before anything is opened
        _sweep(chosen[-1], objects, settings, device)
    fields = _deciding(chosen, objects, settings, data_dir)
    with kept_results(
        directory, "track", chosen, fields, device=device, max_memory=max_memory
    ) as kept:
        job = TrackJob(tuple(chosen), kept, objects, settings, device, max_memory, data_dir)
        left = kept.left(chosen, job.sweep)
        last = job.sweep(len(chosen) - 1) if left else None
        n_values = 0 if last is None else len(last.layers) * last.design.n_positions * len(objects)
        perform_checkpoints(
            job, chosen, left, workers=workers, scheduler=scheduler, report=report,
            paths=kept.paths, out=out, n_values=n_values,
        )  # fmt: skip
        found = kept.load()
    criteria = _criteria(directory)
    asked = {
        "metric": settings.metric,
        "trained": [list(place) for place in _trained(settings, chosen[-1])],
        "per_category": settings.per_category,
        **({} if criteria is None else {"criteria": criteria}),
        **({"names": measures_named(settings.measures)} if settings.measures else {}),
    }
    joined = join_checkpoints(found, chosen, asked)
    return joined.assign_attrs(training_facts(directory))


@dataclass(frozen=True)
class TrackJob:
    """What a process needs to measure checkpoints; each task is the number of one."""

    cards: tuple[Card, ...]
    kept: Kept
    objects: ObjectSet
    settings: TrackSettings
    device: str
    max_memory: int | str
    data_dir: Path | None

    def on(self, device: str) -> TrackJob:
        """Return the job for another device."""
        return replace(self, device=device)

    def prepare(self) -> None:
        """Refuse another machine; each task reads its checkpoint itself."""
        self.kept.check_machine(self.device)

    def sweep(self, number: int) -> Sweep:
        """Return the sweep of a checkpoint."""
        return _sweep(self.cards[number], self.objects, self.settings, self.device)

    def perform(self, number: int) -> None:
        """Measure a checkpoint and save what was found."""
        result = measure_checkpoint(
            self.cards[number],
            self.objects,
            settings=self.settings,
            device=self.device,
            max_memory=self.max_memory,
            data_dir=self.data_dir,
            factors=self.settings.any_reference and number in _ends(self.cards),
        )
        self.kept.save(number, result)


def measure_checkpoint(
    card: Card,
    objects: ObjectSet,
    *,
    settings: TrackSettings,
    device: str = "auto",
    max_memory: int | str = "2GiB",
    data_dir: Path | None = None,
    factors: bool = False,
) -> xarray.Dataset:
    """Return accuracy and similarity at one checkpoint, and `factors`; see :func:`track`."""
    sweep = _sweep(card, objects, settings, device)
    alike = similarity(sweep, metric=settings.metric, max_memory=max_memory)
    stem = stem_of(alike.attrs)
    result = alike[[f"{stem}{name}" for name in (*_KEPT, *(["_each"] if settings.full else []))]]
    right = _accuracy(card, sweep, settings, data_dir, max_memory)
    result = result.merge(right, join="exact", compat="no_conflicts")
    others = [right]
    if factors:
        kept = factors_of(sweep, max_memory=parse_bytes(max_memory))
        result = result.merge(kept, join="left", compat="no_conflicts")
        others.append(kept)
    if settings.probes:
        tested, held_out = card.test_objects(per_category=settings.per_category, data_dir=data_dir)
        shown = Sweep(
            sweep.model, tested, canvas=card.canvas, grid=sweep.grid,
            axes=[*sweep.design.axes.changing], layers=settings.layers, tokens=settings.tokens,
            engine=settings.engine,
        )  # fmt: skip
        readable = probe_checkpoint(
            shown,
            at=sweep.design.reference,
            held_out=held_out,
            seed=card.seed,
            max_memory=max_memory,
        )
        result = result.merge(readable, join="exact", compat="no_conflicts")
        others.append(readable)
    known = (settings.metric, *measures.get(settings.metric).parts)
    if others_named := [name for name in measures_named(settings.measures) if name not in known]:
        found = measure(sweep, names=others_named, max_memory=max_memory)
        whole = {"layer", "bound", *sweep.design.names}
        taken = [key for key in found.data_vars if set(found[key].dims) <= whole]
        result = result.merge(found[taken], join="exact", compat="no_conflicts")
        others.append(found)
    result.attrs = {
        **alike.attrs,
        "kind": "checkpoint measures",
        "checkpoint_sha256": card.sha256,
        "phase": card.phase,
        "step": card.step,
        "seed": card.seed,
        "tested_digest": right.attrs.get("tested_digest", []),
        "notes": notes_of(alike, *others),
    }
    return described(result)


def _sweep(card: Card, objects: ObjectSet, settings: TrackSettings, device: str) -> Sweep:
    """Return the sweep of a checkpoint over the objects that are compared."""
    model = load_checkpoint(card).to(find_device(device))
    sweep = Sweep(
        model.running(**settings.how),
        objects,
        canvas=card.canvas,
        grid=settings.grid,
        axes=[parse_axis(text) for text in settings.axes],
        layers=settings.layers,
        tokens=settings.tokens,
        engine=settings.engine,
    )
    return sweep.at(_reference(settings, card, sweep.grid))


def _accuracy(
    card: Card, sweep: Sweep, settings: TrackSettings, data_dir: Path | None, max_memory: int | str
) -> xarray.Dataset:
    if not settings.per_category:
        known = np.full((3, len(EXEMPLARS)), np.nan)
        if card.accuracy_on is not None:
            known[0, int(card.exemplars.held_out > 0)] = card.accuracy_on
        names = [f"accuracy_{where}" for where in WHERE]
        return xarray.Dataset(
            {name: ("exemplars", row) for name, row in zip(names, known, strict=True)},
            coords={"exemplars": list(EXEMPLARS)},
            attrs={"notes": list(card.notes)},
        )
    tested, held_out = card.test_objects(per_category=settings.per_category, data_dir=data_dir)
    found = network_accuracy(
        sweep.model,
        tested,
        card.canvas,
        sweep.grid,
        axes=[*sweep.design.axes.changing],
        trained=(
            card.trained_locations(data_dir=data_dir)
            if settings.trained is None
            else (settings.trained,)
        ),
        engine=settings.engine,
        held_out=held_out,
        classes=card.categories,
        max_memory=max_memory,
    )
    at = found["accuracy_at"]
    classes = [card.categories.index(name) for name in found["category"].values.tolist()]
    variables: dict[str, Any] = {
        "accuracy": found["accuracy"],
        "II_far": found["II_far"],
        "tested_accuracy": (("tested", "where"), object_accuracies(found).astype(np.float32)),
        "tested_class": ("tested", np.array(classes, np.int16)),
        "tested_held_out": ("tested", found["held_out"].values.astype(np.int8)),
    }
    for where in WHERE:
        variables[f"accuracy_{where}"] = at.sel(where=where, drop=True)
    notes = [note for note in notes_of(found, card.notes) if UNDEFINED not in note]
    result = xarray.Dataset(variables, coords={"where": list(WHERE)}, attrs={"notes": notes})
    kept = (*result["accuracy"].dims, "where")
    result.attrs["tested_digest"] = tested_digest(tested, held_out)
    return result.drop_vars([c for c in result.coords if c not in kept])


def _compared_objects(card: Card, settings: TrackSettings, data_dir: Path | None) -> ObjectSet:
    """Return the objects that are compared across locations, the same at all checkpoints."""
    if settings.objects is not None:
        return load_objects(
            settings.objects,
            size=card.canvas.object_size,
            categories=settings.categories,
            seed=card.seed,
            data_dir=data_dir,
        )
    objects, _ = card.test_objects(per_category=1, data_dir=data_dir)
    return objects.select(settings.categories, 1)


def _trained(settings: TrackSettings, card: Card) -> tuple[Location, ...]:
    return (card.trained or ()) if settings.trained is None else (settings.trained,)


def _reference(settings: TrackSettings, card: Card, grid: Grid) -> Location:
    """Return the trained location (the nearest of several to the grid's default), else the default.

    One that is not on the grid is computed in addition.
    """
    y, x = grid.default_reference
    return min(
        _trained(settings, card) or ((y, x),),
        key=lambda place: (abs(place[0] - y) + abs(place[1] - x), place),
    )


def _deciding(
    cards: Sequence[Card], objects: ObjectSet, settings: TrackSettings, data_dir: Path | None
) -> list[dict[str, Any]]:
    """Return what decides the numbers of each checkpoint beside itself: settings and pictures."""
    tested: dict[int, list[str]] = {}
    for card in cards:
        if settings.per_category and card.phase_index not in tested:
            shown = card.test_objects(per_category=settings.per_category, data_dir=data_dir)
            tested[card.phase_index] = tested_digest(*shown)
    functions = [measures.get(name).function for name in measures_named(settings.measures)]
    own = [each for each in functions if not each.__module__.startswith("elsewhere.")]
    common = {"settings": asdict(settings), "objects": objects.digest()}
    ends = _ends(cards) if settings.any_reference else ()
    if own:  # the code of a user's own measures decides their values, too
        common["measures"] = [source_sha256(sys.modules[each.__module__]) for each in own]
    return [
        common | {"tested": tested.get(card.phase_index), "factors": number in ends}
        for number, card in enumerate(cards)
    ]


def _ends(cards: Sequence[Card]) -> tuple[int, ...]:
    """Return the numbers of the checkpoints whose codes are kept as factors."""
    return tuple(dict.fromkeys((0, len(cards) - 1)))


def _criteria(directory: Path) -> dict[str, float] | None:
    """Return the criteria that a run's phases have; None where it does not say what it trained."""
    try:
        phases = Curriculum.load_run(directory).phases
    except StorageError:  # checkpoints alone
        return None
    return {phase.name: phase.criterion.accuracy for phase in phases if phase.criterion}
