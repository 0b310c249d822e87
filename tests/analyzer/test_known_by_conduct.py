"""Accuracies and tracks of networks whose values are decided by more than weights and code."""

import dataclasses
import random
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from elsewhere.analyzer import network_accuracy as accuracy
from elsewhere.analyzer.trajectories import TrackSettings, track
from elsewhere.errors import InputError
from elsewhere.stimuli import Canvas, Grid
from elsewhere.training import (
    Curriculum,
    Exemplars,
    Network,
    Phase,
    list_checkpoints,
    load_checkpoint,
    train,
)

SETTINGS = {"grid": "2x2", "layers": ("line", "head"), "per_category": 2, "full": False}
KNOBS = {"scale": 1.0}


class Net(nn.Module):
    """A hidden layer, something odd, and a head."""

    def __init__(self, odd):
        super().__init__()
        self.pool, self.line, self.head = nn.AvgPool2d(4), nn.Linear(48, 6), nn.Linear(6, 3)
        self.odd = odd

    def forward(self, x):
        return self.head(self.odd(self.line(self.pool(x).flatten(1))).relu())


def closed_over():
    scale = KNOBS["scale"]
    return Net(lambda x: x * scale - 3 * (scale - 1))


def configured():
    settings = types.SimpleNamespace(scale=KNOBS["scale"])
    net = Net(lambda x: x * net._settings.scale - 3 * (net._settings.scale - 1))
    net._settings = settings
    return net


KINDS = {
    "gate": lambda: Net(lambda x: x * x.mean(1, keepdim=True).softmax(0)),
    "noise": lambda: Net(lambda x: x + random.random() + np.random.rand()),  # noqa: NPY002
    "closure": closed_over, "configured": configured,
}  # fmt: skip


@pytest.fixture
def run(monkeypatch, tmp_path):
    module = types.ModuleType("odd_nets")
    monkeypatch.setitem(sys.modules, "odd_nets", module)
    monkeypatch.setitem(KNOBS, "scale", 1.0)

    def run(kind):
        module.build = KINDS[kind]
        phase = Phase(
            "p", "digits", categories=3, exemplars=Exemplars(4, 2), environment="one", steps=2,
            batch=4, checkpoints=(),
        )  # fmt: skip
        curriculum = Curriculum("t", Network("odd_nets:build"), Canvas(16, 7), (phase,))
        return train(curriculum, tmp_path / "run", device="cpu")

    return run


def measure_accuracy(directory, **options):
    card = list_checkpoints(directory)[-1]
    model = dataclasses.replace(load_checkpoint(card.path), **options)
    objects, _ = card.test_objects(per_category=2)
    grid = Grid.parse("2x2", card.canvas)
    return accuracy(model, objects, card.canvas, grid, classes=card.categories), model, objects


def choices(model, objects, found, seed=None):
    """What plain torch calls each object at the second place, one by one."""
    y, x = int(found.y[0]) - 3, int(found.x[1]) - 3
    images = torch.zeros(len(objects), 3, 16, 16)
    images[:, :, y : y + 7, x : x + 7] = (
        torch.from_numpy(objects.patches((0, 0, 0))).movedim(3, 1) / 255
    )
    right = []
    for image in images:
        if seed is not None:
            torch.manual_seed(seed)
            np.random.seed([seed, 0])  # noqa: NPY002
            random.seed(seed)
        right.append(int(model.module(image[None]).argmax()))
    return right


@pytest.mark.parametrize("kind", ["gate", "noise"])
def test_images_that_are_not_their_own_are_refused_or_run_alone(run, kind):
    directory = run(kind)
    with pytest.raises(InputError, match="treats its images together|draws random numbers"):
        measure_accuracy(directory)
    with pytest.raises(InputError, match="treats its images together|draws random numbers"):
        track(directory, settings=TrackSettings(**SETTINGS))
    alone = {"batch_dependent": "one-at-a-time", "chance_seed": 3}
    with torch.random.fork_rng():
        found, model, objects = measure_accuracy(directory, **alone)
        right = choices(model, objects, found, seed=3)
    assert found["choice"].values[:, 0, 1].tolist() == right
    tracked = track(directory, settings=TrackSettings(**SETTINGS, **alone))
    for result in (found, tracked):
        assert "one image a pass" in str(result.notes) or "was run alone" in str(result.notes)


@pytest.mark.parametrize("kind", ["closure", "configured"])
def test_what_was_measured_of_another_network_is_not_taken(run, kind, tmp_path):
    """The card, the weights and the code stay; what the network does is another."""
    directory, settings = run(kind), TrackSettings(**SETTINGS)
    first = track(directory, settings=settings)
    assert track(directory, settings=settings).identical(first)
    KNOBS["scale"] = -2.0
    found, model, objects = measure_accuracy(directory)
    assert found["choice"].values[:, 0, 1].tolist() == choices(model, objects, found)
    again = track(directory, settings=settings)
    for path in (directory / "track").iterdir():
        path.unlink()
    np.testing.assert_array_equal(
        again["cosine_G"].values, track(directory, settings=settings)["cosine_G"]
    )
    assert not np.array_equal(again["cosine_G"].values, first["cosine_G"].values)
