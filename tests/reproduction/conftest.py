"""A scale so small that all of it runs in seconds."""

import dataclasses

import pytest

from elsewhere.reproduction.scale import LAPTOP
from elsewhere.stimuli import Canvas
from elsewhere.training import Choice, Criterion, Exemplars, Network

NETWORK = Network("small-cnn", arguments={"channels": "4-8", "hidden": 16}, gain=6.0)


def shrink(phase, steps, **more):
    return dataclasses.replace(
        phase, steps=steps, batch=8, exemplars=Exemplars(4, 2), checkpoints=2, **more
    )


def interfere(phases, categories):
    learn, further = phases
    return (
        shrink(learn, 8, categories=categories, criterion=Criterion(0.9, window=4)),
        dataclasses.replace(shrink(further, 6), checkpoints=(0, 6)),
    )


@pytest.fixture(scope="session")
def tiny():
    """Return a scale of a few steps on 20 px."""
    learning = tuple(
        shrink(phase, 6, categories=Choice(3, phase.categories.skip), criterion=None)
        for phase in LAPTOP.learning[:2]
    )
    return dataclasses.replace(
        LAPTOP,
        name="tiny",
        network=NETWORK,
        canvas=Canvas(20, 5),
        pretraining=(shrink(LAPTOP.pretraining[0], 12, categories=6),),
        learning=learning,
        interference=interfere(LAPTOP.interference, Choice(3)),
        near=interfere(LAPTOP.near, Choice(3, 310)),
        unseen=tuple(
            dataclasses.replace(phase, categories=Choice(6, phase.categories.skip))
            for phase in LAPTOP.unseen[1:]  # rendering solids takes seconds
        ),
        grid="3x3",
        per_category=2,
        old_categories=3,
        old_exemplars=2,
        track_checkpoints=2,
        tuned_on=(),
    )
