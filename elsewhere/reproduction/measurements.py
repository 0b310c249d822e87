"""What is measured after each run: numbers for the claims, results for the figures."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import xarray

from elsewhere.errors import InputError, StorageError
from elsewhere.measures.accuracy import normalized_accuracy
from elsewhere.models import Model, find_device
from elsewhere.reproduction.comparisons import (
    compare_layers,
    compare_maps,
    largest_correlation,
    load_shown,
    load_unseen,
    measure_accuracy,
)
from elsewhere.reproduction.conditions import FULL, Run
from elsewhere.reproduction.identified import PARTS, identify
from elsewhere.reproduction.layers import NamedLayers, name_layers
from elsewhere.reproduction.old_objects import old_object_indices
from elsewhere.reproduction.scale import Scale
from elsewhere.stimuli import Canvas, Grid, ObjectSet
from elsewhere.storage import save_result
from elsewhere.training import (
    Card,
    list_checkpoints,
    load_checkpoint,
    make_placement,
    place_only_accuracy,
)
from elsewhere.types import Location

Values: TypeAlias = dict[str, float | str]
EXEMPLARS = ("same", "held-out")
SHIFTS = ("exact", "nearest", "linear")


@dataclass(frozen=True)
class Workplace:
    """Where a seed's runs and results lie, and on what they are measured.

    Parameters
    ----------
    scale, seed
        What is reproduced.
    folder
        Of the seed: a folder for each run, and its results beside it.
    device
        Where networks run.
    data_dir
        The folder of the object sets that are not made here.
    """

    scale: Scale
    seed: int
    folder: Path
    device: str = "cpu"
    data_dir: Path | None = None

    def cards(self, run: str) -> list[Card]:
        """Return the cards of a run's checkpoints."""
        return list_checkpoints(self.folder / run, trust={self.scale.network.name})

    def final(self, run: str, phase: str | None = None) -> Card:
        """Return the card with which a run, or a phase of it, ended."""
        cards = [card for card in self.cards(run) if phase in (None, card.phase) and card.final]
        if not cards:
            raise StorageError(
                f"{self.folder / run} lacks the final checkpoint of phase {phase!r}; delete that "
                "folder and start again"
            )
        return cards[-1]

    def unseen(self, run: Run, which: int = 0) -> ObjectSet:
        """Return objects that no run of this seed sees."""
        phase = self.scale.unseen[which]
        return load_unseen(phase, run.canvas, self.seed, data_dir=self.data_dir)

    def save(self, result: xarray.Dataset, name: str, run: Run) -> None:
        """Keep a result beside the seed's runs."""
        result = result.assign_attrs(run=run.name, seed=self.seed, scale=self.scale.name)
        save_result(result, self.folder / f"{name}.nc", overwrite=True)


def equal_accuracy_start(first: list[Card], second: list[Card]) -> tuple[Card, int]:
    """Return where the better of two runs was as good as the other one in the end.

    Parameters
    ----------
    first, second
        Cards of one phase each, by step.

    Returns
    -------
    card : Card
        The first checkpoint of the run that ended better whose training accuracy is at least
        that with which the other one ended.
    which : int
        0 or 1: whose it is.
    """
    ends = [cards[-1].train_accuracy or 0.0 for cards in (first, second)]
    which = int(ends[1] > ends[0])
    level = ends[1 - which]
    cards = (first, second)[which]
    return next(card for card in cards if (card.train_accuracy or 0.0) >= level), which


def start_of(run: Run, place: Workplace) -> tuple[Path | None, Values]:
    """Return the checkpoint that a run starts from, and what there is to say about it."""
    if run.start is None:
        return None, {}
    if run.rival is None:
        return place.final(run.start).path, {}
    card, which = equal_accuracy_start(place.cards(run.start), place.cards(run.rival))
    other = place.final((run.rival, run.start)[which])
    return card.path, {
        "reduced": (run.start, run.rival)[which],
        "start_step": float(card.step),
        "start_train_accuracy": _number(card.train_accuracy),
        "other_train_accuracy": _number(other.train_accuracy),
    }


def measure(run: Run, place: Workplace) -> Values:
    """Return the numbers that a finished run gives; its results are written beside it."""
    act = {"pretraining": _pretraining, "learning": _learning, "interference": _interference}
    return act[run.kind](run, place)


def _pretraining(run: Run, place: Workplace) -> Values:
    final, phase = place.final(run.name), run.phases[0]
    values: Values = {
        "train_accuracy": _number(final.train_accuracy),
        "probe_accuracy": _number(final.accuracy_on),
        "steps": float(final.step),
    }
    placement = make_placement(
        phase.environment,
        run.canvas,
        n_classes=len(final.categories),
        n_exemplars=phase.exemplars.train,
    )
    if len(final.categories) > 1:
        values["place_only_accuracy"] = place_only_accuracy(placement)
    if phase.environment == "full":
        shown, _ = final.load_objects(data_dir=place.data_dir)
        for number, new in enumerate(place.scale.learning):
            others = load_shown(new, run.canvas, place.seed, data_dir=place.data_dir)
            label = place.scale.learning[number].name
            values[f"largest_correlation/{label}"] = largest_correlation(shown, others)
            if new.objects == phase.objects:
                shared = sorted({*shown.category_names} & {*others.category_names})
                if shared:
                    raise InputError(
                        f"{run.name} and {label} share the classes {', '.join(shared)}; expected "
                        "none: skip more categories"
                    )
    if run.name == FULL:
        cards = _log_spaced(place.cards(run.name), place.scale.track_checkpoints)
        place.save(_follow(cards, run, place, trained=None), f"{run.name}-track", run)
    return values


def _learning(run: Run, place: Workplace) -> Values:
    values: Values = {}
    grid = Grid.parse(place.scale.grid, run.canvas)
    for phase in run.phases:
        card = place.final(run.name, phase.name)
        result = _accuracy(card, grid, run.trained(place.seed), place)
        place.save(result, f"{run.name}-{phase.name}-accuracy", run)
        values |= _read_accuracy(result, phase.name)
        values[f"steps/{phase.name}"] = float(card.step)
        values[f"criterion_met/{phase.name}"] = float(card.criterion_step is not None)
    if run.compare:
        values |= _compare(run, place, grid)
    return values


def _compare(run: Run, place: Workplace, grid: Grid) -> Values:
    """Compare layers across places, with objects that neither network has seen."""
    card = place.final(run.name, place.scale.compared)
    model = load_checkpoint(card).to(find_device(place.device))
    layers, canvas = name_layers(model, run.canvas, place.scale.layers), run.canvas
    reference = run.trained(place.seed)
    pairs = (("hidden", layers.hidden), ("pooling", layers.pooling))
    also = [layer for _, layer in pairs if layer is not None]
    values: Values = {}
    for number, phase in enumerate(place.scale.unseen):
        objects = place.unseen(run, number)
        alike = compare_layers(model, objects, canvas, grid, reference, also=also)
        place.save(alike, f"{run.name}-{phase.name}-similarity", run)
        for name, layer in pairs:
            if layer is None:
                values[f"why/G/{name}/{phase.name}"] = layers.missing[name]
                continue
            here = alike.sel(layer=layer)
            values[f"G/{name}/{phase.name}"] = float(here["cosine_G_away"])
            values[f"zero_share/{name}/{phase.name}"] = float(here["cosine_zero_share"])
        values |= _identify(model, objects, canvas, grid, reference, layers, phase.name)
        equivariance = [
            f"equivariance/{shift}/{where}/{phase.name}"
            for shift in SHIFTS
            for where in ("inner", "border")
        ]
        if not layers.convolutions:
            values |= {f"why/{name}": layers.missing["convolutions"] for name in equivariance}
            continue
        deepest = layers.convolutions[-1]
        moved = compare_maps(model, objects, canvas, layer=deepest)
        if moved is None:
            reason = f"the cells of {deepest} have no known place on the canvas"
            values |= {f"why/{name}": reason for name in equivariance}
            continue
        place.save(moved.plain, f"{run.name}-{phase.name}-evoked", run)
        for shift, aligned in moved.aligned.items():
            place.save(aligned, f"{run.name}-{phase.name}-aligned-{shift}", run)
            for where in ("inner", "border"):
                gain = moved.gain(shift, where)
                values[f"equivariance/{shift}/{where}/{phase.name}"] = gain
    return values


def _identify(
    model: Model,
    objects: ObjectSet,
    canvas: Canvas,
    grid: Grid,
    reference: Location,
    layers: NamedLayers,
    label: str,
) -> Values:
    """Return what the hidden layer identifies, or why that cannot be asked."""
    if layers.hidden is None:
        return {f"why/identification/{name}/{label}": layers.missing["hidden"] for name in PARTS}
    told = identify(model, objects, canvas, grid, reference, layers.hidden)
    return {f"identification/{name}/{label}": found for name, found in told.items()}


def _interference(run: Run, place: Workplace) -> Values:
    """Measure before and after further training: from when the new objects were learnt."""
    trained = run.trained(place.seed)
    learn, further = run.phases
    cards = [card for card in place.cards(run.name) if card.phase == further.name]
    followed = _follow(cards, run, place, trained=trained)
    place.save(followed, f"{run.name}-track", run)
    learnt = place.final(run.name, learn.name)
    values: Values = {"criterion_step": _number(learnt.criterion_step)}
    for exemplars in EXEMPLARS:
        chosen = followed.sel(exemplars=exemplars)
        on = normalized_accuracy(chosen["accuracy_trained"], int(followed.attrs["n_classes"]))
        for name, series in (("II_far", chosen["II_far"].values), ("N_trained", on)):
            values |= _fall(f"{name}/{exemplars}", float(series[0]), float(series[-1]))
    for moment, card in (("before", cards[0]), ("end", cards[-1])):
        model = load_checkpoint(card).to(find_device(place.device))
        layers = name_layers(model, run.canvas, place.scale.layers)
        grid = Grid.parse(place.scale.grid, run.canvas)
        objects = place.unseen(run)
        values |= _identify(model, objects, run.canvas, grid, trained, layers, moment)
    if run.start is not None:
        values |= _old_objects(run, place, place.final(run.start), cards)
    return values


def _old_objects(run: Run, place: Workplace, known: Card, cards: list[Card]) -> Values:
    """Look for classes of the pretraining after it, and before and after further training."""
    few = dataclasses.replace(known, categories=known.categories[: place.scale.old_categories])
    objects, held_out = few.test_objects(
        per_category=place.scale.old_exemplars, data_dir=place.data_dir
    )
    grid = Grid.parse(place.scale.old_grid, run.canvas)
    found = {}
    for moment, card in (("known", known), ("before", cards[0]), ("end", cards[-1])):
        model = load_checkpoint(card).to(find_device(place.device))
        layers = name_layers(model, run.canvas, place.scale.layers)
        if layers.hidden is None:
            names = [f"old_index/{each}" for each in EXEMPLARS]
            return {
                f"why/{name}/{when}": layers.missing["hidden"]
                for name in names
                for when in ("known", "before", "end", "fall")
            }
        found[moment] = old_object_indices(
            model,
            objects,
            held_out,
            canvas=run.canvas,
            grid=grid,
            trained=run.trained(place.seed),
            layer=layers.hidden,
        )
    values: Values = {f"old_{name}/known": value for name, value in found["known"].items()}
    for name, value in found["before"].items():
        values |= _fall(f"old_{name}", value, found["end"][name])
    return values


def _fall(name: str, before: float, end: float) -> Values:
    return {f"{name}/before": before, f"{name}/end": end, f"{name}/fall": before - end}


def _follow(
    cards: list[Card], run: Run, place: Workplace, *, trained: Location | None
) -> xarray.Dataset:
    """Return accuracy and similarity at each checkpoint, as tracking gives them."""
    objects, grid = place.unseen(run), Grid.parse(place.scale.grid, run.canvas)
    reference = run.trained(place.seed) if trained is None else trained
    found = []
    for card in cards:
        model = load_checkpoint(card).to(find_device(place.device))
        alike = compare_layers(model, objects, run.canvas, grid, reference)
        result = alike[["cosine_G_away", "cosine_away", "cosine_baseline_away"]]
        result = result.assign_coords(exemplars=list(EXEMPLARS))
        if trained is None:  # shown everywhere: what there is to know was measured in training
            means = np.array([np.nan, _number(card.accuracy_on)])
            nothing = np.full(2, np.nan)
            shown = {"trained": means, "off": nothing, "far": nothing}
            result = result.assign(
                {f"accuracy_{name}": ("exemplars", value) for name, value in shown.items()}
            )
        else:
            right = _accuracy(card, grid, trained, place)
            for name, where in (("trained", "on"), ("off", "off"), ("far", "far")):
                at = right["accuracy_at"].sel(where=where)
                result[f"accuracy_{name}"] = ("exemplars", at.values)
            result["II_far"] = ("exemplars", right["II_far"].values)
        found.append(result.reset_coords(drop=True))
    joined = xarray.concat(found, dim="checkpoint", join="exact", combine_attrs="drop")
    joined = joined.assign_coords(
        phase=("checkpoint", [card.phase for card in cards]),
        step=("checkpoint", [card.step for card in cards]),
    )
    last = cards[-1]
    return joined.assign_attrs(
        kind="track",
        metric="cosine",
        model=last.model,
        canvas=run.canvas.size,
        object_size=run.canvas.object_size,
        n_classes=len(last.categories),
        chance=1 / len(last.categories),
        reference_y=reference[0],
        reference_x=reference[1],
        trained=[list(reference)] if trained is not None else [],
    )


def _accuracy(card: Card, grid: Grid, trained: Location, place: Workplace) -> xarray.Dataset:
    return measure_accuracy(
        card,
        grid=grid,
        trained=trained,
        per_category=place.scale.per_category,
        device=str(find_device(place.device)),
        data_dir=place.data_dir,
    )


def _read_accuracy(result: xarray.Dataset, label: str) -> Values:
    values: Values = {}
    for exemplars in EXEMPLARS:
        chosen = result.sel(exemplars=exemplars)
        values[f"II_far/{exemplars}/{label}"] = float(chosen["II_far"])
        for where in ("on", "off", "far"):
            here = chosen.sel(where=where)
            values[f"accuracy_{where}/{exemplars}/{label}"] = float(here["accuracy_at"])
            values[f"N_{where}/{exemplars}/{label}"] = float(here["N_at"])
    return values


def _log_spaced(cards: list[Card], count: int) -> list[Card]:
    """Return about `count` of the cards, at steps that grow by a constant factor up to the last.

    They begin at a hundredth of the steps: earlier, next to nothing happens.
    """
    steps = np.array([max(card.step, 1) for card in cards], np.float64)
    wanted = np.geomspace(steps[-1] / 100, steps[-1], count) if count > 1 else steps[-1:]
    chosen = {int(np.abs(np.log(steps / step)).argmin()) for step in wanted}
    return [cards[place] for place in sorted(chosen)]


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
