"""What a run was trained with, as facts that results carry, and in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray

from elsewhere.errors import StorageError
from elsewhere.training import Curriculum, Phase, list_checkpoints


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
            "categories": phase.categories if isinstance(phase.categories, int) else None,
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
        }
        for phase in phases
    ]


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
        f"'{training['curriculum']}' with seed {training['seed']}, from {start}."
    )
    return " ".join([first, said_of_phases(training["phases"])])


def said_of_phases(phases: Sequence[Mapping[str, Any]]) -> str:
    """Return phases in sentences."""
    return " ".join(map(_phase, phases))


def _phase(phase: Mapping[str, Any]) -> str:
    count = phase["categories"]
    known = f"{count} categories" if count else "the categories"
    lasted = f"{phase['steps']} steps" if phase["steps"] else f"{phase['epochs']:g} epochs"
    decay = f", weight decay {phase['weight_decay']:g}" if phase["weight_decay"] else ""
    after = f" It went on from phase '{phase['after']}'." if phase["after"] else ""
    criterion = (
        f" Its criterion was a training accuracy of {phase['criterion']:g}."
        if phase["criterion"] is not None
        else ""
    )
    return (
        f"Phase '{phase['name']}' trained {known} of '{phase['objects']}' with {phase['train']} "
        f"exemplars each ({phase['held_out']} more were held out), placed by the environment "
        f"'{phase['environment']}', for up to {lasted} of {phase['batch']} images with "
        f"{phase['optimiser']} (learning rate {phase['learning_rate']:g}, schedule "
        f"{phase['schedule']}{decay}).{after}{criterion}"
    )
