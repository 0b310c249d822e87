"""Curricula that train in a second: a tiny network, 16 px, 7 px glyphs."""

import dataclasses

import pytest

from elsewhere.stimuli import Canvas
from elsewhere.training import Curriculum, Exemplars, Network, Phase

TINY = {"channels": "4-8", "hidden": 12, "dropout": 0.2}


def build_phase(name="learn", **options):
    defaults = {
        "objects": "glyphs",
        "categories": 5,
        "exemplars": Exemplars(train=6, held_out=3),
        "environment": "full",
        "steps": 60,
        "batch": 8,
        "checkpoints": 3,
    }
    return Phase(name=name, **defaults | options)


def build_curriculum(*phases, **options):
    curriculum = Curriculum(
        name="tiny",
        network=Network("small-cnn", arguments=TINY, gain=4.0),
        canvas=Canvas(16, 7),
        phases=phases or (build_phase(),),
    )
    return dataclasses.replace(curriculum, **options)


@pytest.fixture(scope="session")
def make_phase():
    return build_phase


@pytest.fixture(scope="session")
def make_curriculum():
    return build_curriculum


@pytest.fixture
def curriculum():
    return build_curriculum()


@pytest.fixture(scope="session")
def two_phases():
    """Pretraining everywhere with batch norm, averages and augmentation, then new classes."""
    first = build_phase(
        "pretrain", steps=120, schedule="one-cycle", ema=0.9, clip=1.0, label_smoothing=0.1
    )
    second = build_phase(
        "learn", environment="one", steps=55, new_head=True, rates={"features.*": 0.5}, dropout=0.0
    )
    network = Network("small-cnn", arguments=TINY | {"batch_norm": True}, gain=4.0)
    return build_curriculum(first, second, network=network)
