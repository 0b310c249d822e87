"""What a run was trained with, as facts that results carry, and in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray

from elsewhere.errors import StorageError
from elsewhere.training import Choice, Curriculum, Phase, list_checkpoints


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
    network = curriculum.network
    return {
        "training": {
            "curriculum": curriculum.name,
            "seed": curriculum.seed,
            "network": network.name,
            "weights": network.weights,
            "phases": phase_facts(curriculum.phases),
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
            "canvas": last.canvas.size,
            "object_size": last.canvas.object_size,
            "numerics": dict(last.numerics or {}),
            "n_checkpoints": len(cards),
            "seed": last.seed,
            "notes": list(last.notes),
            **facts,
        }
    )


def phase_facts(phases: Sequence[Phase]) -> list[dict[str, Any]]:
    """Return what phases show, and how they train."""
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
            "after": phase.after,
            "dropout": phase.dropout,
            "rates": dict(phase.rates),
            "trainable": list(phase.trainable),
            "new_head": phase.new_head,
        }
        for phase in phases
    ]


def _count(categories: int | tuple[str, ...] | Choice | None) -> int | None:
    if isinstance(categories, Choice):
        return categories.count
    return len(categories) if isinstance(categories, tuple) else categories


def said_of_training(facts: Mapping[str, Any]) -> str:
    """Return in sentences how a network was trained, from the facts of its results."""
    training = facts.get("training")
    if not isinstance(training, Mapping):
        return ""
    start = {"none": "weights drawn at random"}.get(
        str(training["weights"]), f"the weights '{training['weights']}'"
    )
    first = (
        f"The network {training['network']} was trained by the curriculum "
        f"'{training['curriculum']}' with seed {training['seed']}; training began with {start}."
    )
    return " ".join([first, said_of_phases(training["phases"])])


def said_of_phases(phases: Sequence[Mapping[str, Any]]) -> str:
    """Return phases in sentences."""
    return " ".join(map(_phase, phases))


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


def placed(environment: str) -> str:
    """Return in words where an environment places objects.

    Examples
    --------
    >>> placed("places:8"), placed("at:3,4;5,6")
    ('at 8 locations spread over the canvas', 'at (y, x) = (3, 4) and (5, 6)')
    """
    kind, _, rest = environment.partition(":")
    if environment in _PLACED:
        return _PLACED[environment]
    if kind == "places":
        return f"at {rest} locations spread over the canvas"
    if kind in ("one", "at"):
        places = [f"({', '.join(place.split(','))})" for place in rest.split(";")]
        return f"at (y, x) = {' and '.join(places)}"
    return f"by the environment '{environment}'"


def _phase(phase: Mapping[str, Any]) -> str:
    count, skip, same = phase["categories"], phase.get("skip"), phase.get("same_categories_as")
    every = "all categories" if "skip" in phase else "categories"  # older results do not say
    known = f"{count} categories" if count else every
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
    ]
    trainable = [name for name in phase.get("trainable") or () if name != "all"]
    after = {None: "", "none": " It began with the network's first weights."}.get(
        phase["after"], f" It went on from phase '{phase['after']}'."
    )
    return (
        f"Phase '{phase['name']}' trained {known} of '{objects_said(phase['objects'])}' with "
        f"{phase['train']} exemplars each ({phase['held_out']} more were held out), placed "
        f"{placed(phase['environment'])}, for up to {lasted} of {phase['batch']} images with "
        f"{phase['optimiser']} ({', '.join(how)}).{after}"
        + (" Its last layer was new." if phase.get("new_head") else "")
        + (f" Only {', '.join(trainable)} learnt." if trainable else "")
        + (
            f" Its criterion was a training accuracy of {phase['criterion']:g}."
            if phase["criterion"] is not None
            else ""
        )
    )


def objects_said(objects: str) -> str:
    """Return the name of a set of objects: of a folder, without the way to it.

    Examples
    --------
    >>> objects_said("glyphs"), objects_said("folder:/data/white")
    ('glyphs', 'white')
    """
    kind, _, path = objects.partition(":")
    return (Path(path).name or objects) if kind == "folder" else objects
