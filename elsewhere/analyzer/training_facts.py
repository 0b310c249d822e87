"""What a run was trained with, as facts that results carry, and in sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray

from elsewhere.errors import StorageError
from elsewhere.forms import near
from elsewhere.training import Card, Choice, Curriculum, Phase, list_checkpoints
from elsewhere.training.placements import make_placement
from elsewhere.training.seeds import draw_location
from elsewhere.types import Location

_SHARED = ("one", "centre", "places", "at")
"""Environments whose locations are the same for all classes, and few."""
_MORE = {
    "split": "part of the set",
    "axes": "axes drawn for each presentation",
    "momentum": "momentum",
    "warmup": "share of the steps in which the rate rises",
    "label_smoothing": "label smoothing",
    "clip": "largest norm of the gradient",
    "ema": "decay of the average of the weights",
    "augment": "changes of appearance",
    "precision": "precision",
    "batch_norm": "running statistics of normalisations",
    "freeze_affine": "weights and biases of frozen normalisations stay",
}
"""What else a phase says where it is not as by default, in words."""
_MOST_NAMED = 40


def training_facts(curriculum: Curriculum | str | Path) -> dict[str, Any]:
    """Return how a curriculum trains, as an attribute of results; nothing of checkpoints alone.

    Parameters
    ----------
    curriculum
        A curriculum, or a directory that training wrote.
    """
    if not isinstance(curriculum, Curriculum):
        try:
            curriculum = Curriculum.load_run(curriculum)
        except StorageError:
            return {}
    network, canvas = curriculum.network, curriculum.canvas
    drawn = draw_location(canvas, curriculum.seed)
    phases = phase_facts(curriculum.phases)
    for phase in phases:
        if phase["environment"].partition(":")[0] in _SHARED:
            found = make_placement(phase["environment"], canvas, n_classes=1, drawn=drawn)
            phase["trained"] = found.locations(0).tolist()
    return {
        "training": {
            "curriculum": curriculum.name,
            "seed": curriculum.seed,
            "network": network.name,
            "weights": network.weights,
            "phases": phases,
        }
    }


def of_run(directory: str | Path) -> xarray.Dataset:
    """Return what a run of training says of itself: a dataset of attributes alone.

    Raises
    ------
    StorageError
        The directory holds no run, or one without a checkpoint.
    """
    facts = training_facts(Curriculum.load_run(directory))
    cards = list_checkpoints(directory)
    last = cards[-1]
    ended = {card.phase: _ended(card) for card in cards}  # by the last card of each
    return xarray.Dataset(
        attrs={
            "kind": "run",
            "model": last.model,
            "model_arguments": dict(last.arguments),
            "weights": last.path.name,
            "weights_sha256": last.sha256,
            "mean": list(last.mean),
            "std": list(last.std),
            "gain": last.gain,
            **({} if last.batch_norm == "none" else {"batch_norm": last.batch_norm}),
            **({"noise": list(last.noise)} if last.noise else {}),
            **({"origin": last.origin} if last.origin else {}),
            "channels": last.channels,
            "background": list(last.canvas.background_color(last.mean)),
            "canvas": last.canvas.size,
            "object_size": last.canvas.object_size,
            "numerics": dict(last.numerics or {}),
            "n_checkpoints": len(cards),
            "checkpoint_sha256": [card.sha256 for card in cards],
            "ended": ended,
            "seed": last.seed,
            "notes": list(last.notes),
            **facts,
        }
    )


def _ended(card: Card) -> dict[str, Any]:
    """Return how far a phase came by a checkpoint."""
    return {"step": card.step, "final": card.final, "criterion_step": card.criterion_step}


def phase_facts(phases: Sequence[Phase]) -> list[dict[str, Any]]:
    """Return what phases show, and how they train."""
    defaults = {field.name: field.default for field in dataclasses.fields(Phase)}
    return [
        {
            "name": phase.name,
            "objects": phase.objects,
            "categories": _count(phase.categories),
            "skip": phase.categories.skip if isinstance(phase.categories, Choice) else 0,
            "same_categories_as": phase.same_categories_as,
            "train": phase.exemplars.train,
            "held_out": phase.exemplars.held_out,
            "environment": phase.environment,
            "steps": phase.steps,
            "epochs": phase.epochs,
            "batch": phase.batch,
            "optimiser": phase.optimiser,
            "learning_rate": phase.learning_rate,
            "schedule": phase.schedule,
            "weight_decay": phase.weight_decay,
            "criterion": None if phase.criterion is None else phase.criterion.accuracy,
            "window": None if phase.criterion is None else phase.criterion.window,
            "after": phase.after,
            "dropout": phase.dropout,
            "rates": dict(phase.rates),
            "trainable": list(phase.trainable),
            "new_head": phase.new_head,
            "named": list(phase.categories) if isinstance(phase.categories, tuple) else [],
            "more": {
                key: _plain(getattr(phase, key))
                for key in _MORE
                if getattr(phase, key) != defaults[key]
                or (key == "momentum" and phase.optimiser == "sgd")
            },
        }
        for phase in phases
    ]


def _plain(value: Any) -> Any:
    """Return a value as attributes of a result can hold it."""
    if isinstance(value, tuple):
        return list(value)
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]


def _count(categories: int | tuple[str, ...] | Choice | None) -> int | None:
    if isinstance(categories, Choice):
        return categories.count
    return len(categories) if isinstance(categories, tuple) else categories


def said_of_training(facts: Mapping[str, Any]) -> str:
    """Return in sentences how a network was trained, from the facts of its results."""
    training = facts.get("training")
    if not isinstance(training, Mapping):
        return ""
    weights = str(training["weights"])
    start = {"none": "weights drawn at random"}.get(weights, f"the weights '{near(weights)}'")
    first = (
        f"The network {near(str(training['network']))} was trained by the curriculum "
        f"'{training['curriculum']}' with seed {training['seed']}; training began with {start}. "
        "The loss was the cross-entropy of the classes' scores."
    )
    return " ".join([first, said_of_phases(training["phases"], facts.get("ended") or {})])


def said_of_phases(
    phases: Sequence[Mapping[str, Any]], ended: Mapping[str, Mapping[str, Any]] | None = None
) -> str:
    """Return phases in sentences; `ended` says how far they came."""
    return " ".join(_phase(phase, (ended or {}).get(phase["name"], {})) for phase in phases)


_PLACED = {
    "one": "at one location, the leftmost of the middle row",
    "one:seed": "at one location, which the seed draws",
    "centre": "at the middle of the canvas",
    "full": "at locations drawn anew for each presentation from all of the canvas",
    "fixed:point": "each class at a location of its own",
    "fixed:cell": "each class within a cell of its own of the canvas",
    "fixed:shared": "at locations that several classes share",
    "pinned": "each exemplar at a location of its own, so that each class covers the canvas",
}


def placed(environment: str, trained: Sequence[Location] = ()) -> str:
    """Return in words where an environment places objects, and where that is if that is known.

    Examples
    --------
    >>> placed("places:8"), placed("at:3,4;5,6")
    ('at 8 locations spread over the canvas', 'at (y, x) = (3, 4) and (5, 6)')
    >>> placed("one:seed", [[3, 4]])
    'at one location, which the seed draws, (y, x) = (3, 4)'
    """
    kind, _, rest = environment.partition(":")
    if trained and (environment in _PLACED or kind == "places"):
        there = " and ".join(f"({y}, {x})" for y, x in trained)
        return f"{placed(environment)}, (y, x) = {there}"
    if environment in _PLACED:
        return _PLACED[environment]
    if kind == "places":
        return f"at {rest} locations spread over the canvas"
    if kind in ("one", "at"):
        places = [f"({', '.join(place.split(','))})" for place in rest.split(";")]
        return f"at (y, x) = {' and '.join(places)}"
    return f"by the environment '{environment}'"


def _named(names: Sequence[str]) -> str:
    """Return the names of categories, or the first of very many."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f" ({', '.join(names[:_MOST_NAMED])}{more})" if names else ""


def _phase(phase: Mapping[str, Any], ended: Mapping[str, Any]) -> str:
    count, skip, same = phase["categories"], phase.get("skip"), phase.get("same_categories_as")
    every = "all categories" if "skip" in phase else "categories"  # older results do not say
    known = f"{count} {'category' if count == 1 else 'categories'}" if count else every
    known += _named(phase.get("named") or ())
    known = f"the categories of phase '{same}'" if same else known
    known += f" (in their drawn order, behind the first {skip})" if skip else ""
    lasted = f"{phase['steps']} steps" if phase["steps"] else f"{phase['epochs']:g} epochs"
    rates = (phase.get("rates") or {}).items()
    how = [
        f"learning rate {phase['learning_rate']:g}",
        *(f"that of {name} times {factor:g}" for name, factor in rates),
        f"schedule {phase['schedule']}",
        *([f"weight decay {phase['weight_decay']:g}"] if phase["weight_decay"] else ()),
        *([f"dropout {phase['dropout']:g}"] if phase.get("dropout") is not None else ()),
        *(f"{_MORE[key]} {_value(value)}" for key, value in (phase.get("more") or {}).items()),
    ]
    trainable = [name for name in phase.get("trainable") or () if name != "all"]
    after = {None: "", "none": " It began with the network's first weights."}.get(
        phase["after"], f" It went on from phase '{phase['after']}'."
    )
    return (
        f"Phase '{phase['name']}' trained {known} of '{objects_said(phase['objects'])}' with "
        f"{phase['train']} exemplars each ({phase['held_out']} more were held out), placed "
        f"{placed(phase['environment'], phase.get('trained') or ())}, for "
        f"{'' if phase['criterion'] is None else 'up to '}{lasted} of {phase['batch']} images with "
        f"{phase['optimiser']} ({', '.join(how)}).{after}"
        + (" Its last layer was new." if phase.get("new_head") else "")
        + (f" Only {', '.join(trainable)} learnt." if trainable else "")
        + (
            f" Its criterion was a training accuracy of {phase['criterion']:g} over the last "
            f"{phase['window']} steps."
            if phase["criterion"] is not None
            else ""
        )
        + _end(phase, ended)
    )


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return " and ".join(f"{key} {each:g}" for key, each in value.items() if each)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _end(phase: Mapping[str, Any], ended: Mapping[str, Any]) -> str:
    """Return how far a phase came, if that is known."""
    if not ended:
        return ""
    step, reached = ended["step"], ended["criterion_step"]
    said = f" It ended at step {step}" if ended["final"] else f" It had come to step {step}"
    if phase["criterion"] is None:
        return f"{said}."
    met = "not reached" if reached is None else f"reached at step {reached}"
    return f"{said}; the criterion was {met}."


def objects_said(objects: str) -> str:
    """Return the name of a set of objects, without the way to a folder or font.

    Examples
    --------
    >>> objects_said("glyphs"), objects_said("folder:/data/white"), objects_said("hangul:/a.ttf")
    ('glyphs', 'white', 'hangul')
    """
    kind, _, path = objects.partition(":")
    return (Path(path).name or objects) if kind == "folder" else kind
