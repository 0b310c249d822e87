"""A scale so small that all of it runs in seconds, and changes of scales."""

import dataclasses
from pathlib import Path

import pytest

from elsewhere.reproduction import load_scale


@pytest.fixture(scope="session")
def tiny_folder():
    """Return the folder of a scale of a few steps on 20 px."""
    return Path(__file__).parent / "tiny"


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    """Return that scale."""
    return load_scale(tiny_folder)


@pytest.fixture(scope="session")
def with_network():
    """Return a function that gives a scale another network, as if its folder had named it."""

    def change(scale, network, canvas=None):
        canvas = canvas or scale.canvas
        conditions = {
            name: dataclasses.replace(
                part,
                curriculum=dataclasses.replace(part.curriculum, network=network, canvas=canvas),
            )
            for name, part in scale.conditions.items()
        }
        return dataclasses.replace(scale, network=network, canvas=canvas, conditions=conditions)

    return change


@pytest.fixture(scope="session")
def with_phases():
    """Return a function that gives a condition of a scale other phases."""

    def change(scale, name, *phases):
        part = scale.conditions[name]
        changed = dataclasses.replace(
            part, curriculum=dataclasses.replace(part.curriculum, phases=phases)
        )
        return dataclasses.replace(scale, conditions={**scale.conditions, name: changed})

    return change
