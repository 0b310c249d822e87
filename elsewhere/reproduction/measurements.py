"""What is measured after each run: numbers for the claims, results for the figures."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import xarray

from elsewhere.analyzer.accuracy import network_accuracy
from elsewhere.analyzer.all_measures import measure as take
from elsewhere.analyzer.invariance import EXEMPLARS
from elsewhere.analyzer.trajectories import TrackSettings, track
from elsewhere.errors import InputError
from elsewhere.measures.accuracy import normalized_accuracy
from elsewhere.models import Model, find_device
from elsewhere.models.heads import HEAD
from elsewhere.models.readouts import kept_head
from elsewhere.recording import Sweep
from elsewhere.reproduction.comparisons import (
    SHIFTS,
    compare_layers,
    compare_maps,
    largest_correlation,
    load_phase,
)
from elsewhere.reproduction.conditions import FULL, Run
from elsewhere.reproduction.layers import NamedLayers, name_layers
from elsewhere.reproduction.old_objects import old_object_indices
from elsewhere.reproduction.scale import Scale
from elsewhere.stimuli import Grid, ObjectSet
from elsewhere.storage import save_result
from elsewhere.training import (
    Card,
    final_card,
    list_checkpoints,
    load_checkpoint,
    make_placement,
    place_only_accuracy,
)
from elsewhere.types import WHERE, Location

Values: TypeAlias = dict[str, float | str]
PARTS = {
    "raw": "raw_away",
    "mapped": "mapped_away",
    "ceiling": "ceiling",
    "lost": "lost",
    "hidden": "hidden",
    "null": "null_away",
    "chance": "chance",
}
"""What is lost by a move and what is hidden: names of values, and of variables of the measure
``identification``; NaN where that cannot be asked."""


@dataclass(frozen=True)
class Task:
    """A run of one seed: to be trained, and measured."""

    scale: Scale
    run: Run
    seed: int
    folder: Path  # of the seed: a folder for each run, and its results beside it
    device: str = "auto"
    data_dir: Path | None = None
    command: str = ""  # that results keep as the one that made them

    @property
    def key(self) -> tuple[str, int, str]:
        """Name of the scale, seed, and name of the run."""
        return self.scale.name, self.seed, self.run.name

    @property
    def path(self) -> Path:
        """The file of what came out; where it is, the task is done."""
        return self.folder / f"{self.run.name}.json"

    @property
    def trained(self) -> Location:
        """The location that objects are trained at; see :meth:`Run.trained`."""
        return self.run.trained(self.seed)

    @property
    def grid(self) -> Grid:
        """Where objects are tested."""
        return Grid.parse(self.scale.grid, self.run.canvas)

    @property
    def grid_through_trained(self) -> Grid:
        """The same with the row and the column of the trained location."""
        y, x = self.trained
        return Grid(tuple(sorted({*self.grid.y, y})), tuple(sorted({*self.grid.x, x})))

    def cards(self, run: str) -> list[Card]:
        """Return the cards of a run's checkpoints."""
        return list_checkpoints(self.folder / run, trust={self.scale.network.name})

    def final(self, run: str, phase: str | None = None) -> Card:
        """Return the card with which a run, or a phase of it, ended."""
        return final_card(self.cards(run), phase)

    def network(self, card: Card) -> Model:
        """Return the network of a checkpoint, on the device, in the precision of the scale."""
        model = load_checkpoint(card).to(find_device(self.device))
        return dataclasses.replace(model, precision=self.run.network.precision)

    def load(self, card: Card) -> tuple[Model, NamedLayers]:
        """Return the network of a checkpoint, in single precision, and the layers of the claims."""
        model = dataclasses.replace(self.network(card), precision="float32")
        return model, name_layers(model, self.run.canvas, self.scale.layers)

    def unseen(self, which: int = 0) -> ObjectSet:
        """Return objects that no run of this seed sees."""
        phase = self.scale.unseen[which]
        return load_phase(phase, self.run.canvas, self.seed, held_out=True, data_dir=self.data_dir)

    def save(self, result: xarray.Dataset, name: str) -> None:
        """Keep a result beside the seed's runs."""
        result = result.assign_attrs(run=self.run.name, seed=self.seed, scale=self.scale.name)
        if self.command:
            result.attrs["command"] = self.command
        save_result(result, self.folder / f"{self.run.name}-{name}.nc", overwrite=True)


def equal_accuracy_start(first: list[Card], second: list[Card]) -> tuple[Card, int]:
    """Return where the better of two runs was as good as the other one in the end, and which it is.

    That is the first checkpoint of the run that ended better whose training accuracy is at least
    that with which the other one ended. The cards are those of one phase each, by step.
    """
    ends = [cards[-1].train_accuracy or 0.0 for cards in (first, second)]
    which = int(ends[1] > ends[0])
    level = ends[1 - which]
    cards = (first, second)[which]
    return next(card for card in cards if (card.train_accuracy or 0.0) >= level), which


def start_of(task: Task) -> tuple[Path | None, Values]:
    """Return the checkpoint that a run starts from, and what there is to say about it."""
    if task.run.start is None:
        return None, {}
    if task.run.rival is None:
        return task.final(task.run.start).path, {}
    card, which = equal_accuracy_start(task.cards(task.run.start), task.cards(task.run.rival))
    other = task.final((task.run.rival, task.run.start)[which])
    return card.path, {
        "reduced": (task.run.start, task.run.rival)[which],
        "start_step": float(card.step),
        "start_train_accuracy": _number(card.train_accuracy),
        "other_train_accuracy": _number(other.train_accuracy),
    }


def measure(task: Task) -> Values:
    """Return the numbers that a finished run gives; its results are written beside it."""
    act = {"pretraining": _pretraining, "learning": _learning, "interference": _interference}
    return act[task.run.kind](task)


def _pretraining(task: Task) -> Values:
    run, phase, final = task.run, task.run.phases[0], task.final(task.run.name)
    values: Values = {
        "train_accuracy": _number(final.train_accuracy),
        "probe_accuracy": _number(final.accuracy_on),
        "steps": float(final.step),
    }
    n_classes, n_exemplars = len(final.categories), phase.exemplars.train
    if n_classes > 1:
        placement = make_placement(
            phase.environment, run.canvas, n_classes=n_classes, n_exemplars=n_exemplars
        )
        values["place_only_accuracy"] = place_only_accuracy(placement)
    if phase.environment == "full":
        shown, _ = final.load_objects(data_dir=task.data_dir)
        for new in task.scale.learning:
            others = load_phase(new, run.canvas, task.seed, held_out=False, data_dir=task.data_dir)
            values[f"largest_correlation/{new.name}"] = largest_correlation(shown, others)
            shared = sorted({*shown.category_names} & {*others.category_names})
            if shared and new.objects == phase.objects:
                raise InputError(
                    f"{run.name} and {new.name} share the classes {', '.join(shared)}; expected "
                    "none: skip more categories"
                )
    if run.name == FULL:
        _follow(task, checkpoints=task.scale.track_checkpoints, per_category=0)
    return values


def _learning(task: Task) -> Values:
    values: Values = {}
    for phase in task.run.phases:
        card = task.final(task.run.name, phase.name)
        result = _accuracy(task, card)
        task.save(result, f"{phase.name}-accuracy")
        for exemplars in EXEMPLARS:
            chosen, label = result.sel(exemplars=exemplars), f"{exemplars}/{phase.name}"
            values[f"II_far/{label}"] = float(chosen["II_far"])
            for where in WHERE:
                here = chosen.sel(where=where)
                values[f"accuracy_{where}/{label}"] = float(here["accuracy_at"])
                values[f"N_{where}/{label}"] = float(here["N_at"])
        values[f"steps/{phase.name}"] = float(card.step)
        values[f"criterion_met/{phase.name}"] = float(card.criterion_step is not None)
    if task.run.compare:
        asked = task.scale.question == "imagenet"
        for number, phase in enumerate(task.scale.unseen):
            if asked:
                values |= _compare_depth(task, task.unseen(number), phase.name)
                continue
            values |= _compare(task, task.unseen(number), phase.name)
    return values


def _accuracy(task: Task, card: Card) -> xarray.Dataset:
    objects, held_out = card.test_objects(
        per_category=task.scale.per_category, data_dir=task.data_dir
    )
    return network_accuracy(
        task.network(card),
        objects,
        card.canvas,
        task.grid,
        trained=(task.trained,),
        held_out=held_out,
        classes=card.categories,
        attributes={"seed": card.seed, "phase": card.phase, "step": card.step},
    )


def _compare(task: Task, objects: ObjectSet, label: str) -> Values:
    """Compare layers across places, with objects that the network has not seen."""
    model, layers = task.load(task.final(task.run.name, task.scale.compared))
    pairs = {"hidden": layers.hidden, "pooling": layers.pooling}
    alike = compare_layers(
        model,
        objects,
        task.run.canvas,
        task.grid,
        task.trained,
        also=[layer for layer in pairs.values() if layer is not None],
    )
    task.save(alike, f"{label}-similarity")
    values: Values = {}
    for name, layer in pairs.items():
        if layer is None:
            values[f"why/G/{name}/{label}"] = layers.missing[name]
            continue
        here = alike.sel(layer=layer)
        values[f"G/{name}/{label}"] = float(here["cosine_G_away"])
        values[f"zero_share/{name}/{label}"] = float(here["cosine_zero_share"])
    values |= _identify(task, model, objects, layers, label)
    reason, moved = layers.missing.get("convolutions", ""), None
    if not reason:
        deepest = layers.convolutions[-1]
        moved = compare_maps(model, objects, task.run.canvas, layer=deepest)
        reason = f"the cells of {deepest} have no known place on the canvas"
    if moved is not None:
        task.save(moved.plain, f"{label}-evoked")
    for shift in SHIFTS:
        if moved is not None:
            task.save(moved.aligned[shift], f"{label}-aligned-{shift}")
        for where in ("inner", "border"):
            name = f"equivariance/{shift}/{where}/{label}"
            if moved is None:
                values[f"why/{name}"] = reason
            else:
                values[name] = moved.gain(shift, where)
    return values


def _compare_depth(task: Task, objects: ObjectSet, label: str) -> Values:
    """Compare layers from the input to the scores, by G and by what is lost and what is hidden."""
    model, layers = task.load(task.final(task.run.name, task.scale.compared))
    names = (*layers.convolutions, layers.pooling, layers.hidden, kept_head(model), HEAD)
    wanted = [name for name in names if name is not None]
    sweep = Sweep(
        model,
        objects,
        canvas=task.run.canvas,
        grid=task.grid_through_trained,
        reference=task.trained,
        layers=wanted,
    )
    found = take(sweep, names=("cosine", "identification"))
    task.save(found, f"{label}-similarity")
    values: Values = {}
    for place, layer in enumerate(found["layer"].values.tolist()):
        here = found.isel(layer=place)
        values[f"G/{layer}/{label}"] = float(here["cosine_G_away"])
        values[f"zero_share/{layer}/{label}"] = float(here["cosine_zero_share"])
        for name, key in PARTS.items():
            values[f"identification/{name}/{layer}/{label}"] = float(here[f"identification_{key}"])
    return values


def _identify(
    task: Task, model: Model, objects: ObjectSet, layers: NamedLayers, label: str
) -> Values:
    """Return how often the hidden layer's code identifies objects elsewhere, or why not.

    The objects are new to the network; candidates stand at the trained location, whose row and
    column are added to the grid.
    """
    if layers.hidden is None:
        return {f"why/identification/{name}/{label}": layers.missing["hidden"] for name in PARTS}
    sweep = Sweep(
        model,
        objects,
        canvas=task.run.canvas,
        grid=task.grid_through_trained,
        reference=task.trained,
        layers=[layers.hidden],
    )
    found = take(sweep, names="identification")
    return {
        f"identification/{name}/{label}": float(found[f"identification_{key}"][0])
        for name, key in PARTS.items()
    }


def _interference(task: Task) -> Values:
    """Measure before and after further training: from when the new objects were learnt."""
    run = task.run
    learn, further = run.phases
    cards = [card for card in task.cards(run.name) if card.phase == further.name]
    followed = _follow(task, phases=[further.name])
    values: Values = {"criterion_step": _number(task.final(run.name, learn.name).criterion_step)}
    for exemplars in EXEMPLARS:
        chosen = followed.sel(exemplars=exemplars)
        on = normalized_accuracy(chosen["accuracy_on"], int(followed.attrs["n_classes"]))
        for name, series in (("II_far", chosen["II_far"].values), ("N_trained", on)):
            values |= _fall(f"{name}/{exemplars}", float(series[0]), float(series[-1]))
    for moment, card in (("before", cards[0]), ("end", cards[-1])):
        model, layers = task.load(card)
        values |= _identify(task, model, task.unseen(), layers, moment)
    if run.start is not None:
        values |= _old_objects(task, task.final(run.start), cards)
    return values


def _old_objects(task: Task, known: Card, cards: list[Card]) -> Values:
    """Look for classes of the pretraining after it, and before and after further training."""
    few = dataclasses.replace(known, categories=known.categories[: task.scale.old_categories])
    objects, held_out = few.test_objects(
        per_category=task.scale.old_exemplars, data_dir=task.data_dir
    )
    found = {}
    for moment, card in (("known", known), ("before", cards[0]), ("end", cards[-1])):
        model, layers = task.load(card)
        if layers.hidden is None:
            return {
                f"why/old_index/{kind}/{when}": layers.missing["hidden"]
                for kind in EXEMPLARS
                for when in ("known", "before", "end", "fall")
            }
        found[moment] = old_object_indices(
            model,
            objects,
            held_out,
            canvas=task.run.canvas,
            grid=Grid.parse(task.scale.old_grid, task.run.canvas),
            trained=task.trained,
            layer=layers.hidden,
        )
    values: Values = {f"old_{name}/known": value for name, value in found["known"].items()}
    for name, value in found["before"].items():
        values |= _fall(f"old_{name}", value, found["end"][name])
    return values


def _fall(name: str, before: float, end: float) -> Values:
    return {f"{name}/before": before, f"{name}/end": end, f"{name}/fall": before - end}


def _follow(task: Task, *, per_category: int | None = None, **which: Any) -> xarray.Dataset:
    """Track a run's checkpoints, from the location that its seed draws; keep what was found."""
    settings = TrackSettings(
        grid=task.scale.grid,
        per_category=task.scale.per_category if per_category is None else per_category,
        trained=task.trained,
        full=False,
        any_reference=task.run.name in (FULL, "interference"),  # not of controls
        precision=task.run.network.precision,
    )
    found = track(
        task.folder / task.run.name,
        settings=settings,
        objects=task.unseen(),
        device=task.device,
        data_dir=task.data_dir,
        trust={task.scale.network.name},
        **which,
    )
    task.save(found, "track")
    return found


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
