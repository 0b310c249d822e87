"""A factory that makes another network for the same seed is told apart from one that does not."""

import datetime
import os
import random
import sys
import time
import types
import uuid

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from elsewhere.models import load_model
from elsewhere.recording import Sweep
from elsewhere.stimuli import Canvas, Grid, load_objects
from elsewhere.training import Exemplars, Network, list_checkpoints, train
from elsewhere.training.curriculum import Curriculum, Phase

COUNT = 4 * 3 * 9


def net(weights=None, **more):
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(16, 2),
    )  # fmt: skip
    if weights is not None:
        with torch.no_grad():
            drawn = torch.as_tensor(np.asarray(weights)).float()
            module[0].weight.copy_(drawn.reshape(module[0].weight.shape))
    for key, value in more.items():
        setattr(module, key, value)
    return module


def seeded_by(function):
    def build():
        torch.manual_seed(int(function()))
        return net()

    return build


def own_seed():
    generator = torch.Generator()
    generator.seed()
    return net(torch.randn(COUNT, generator=generator))


def plain_buffer():
    module = net()
    drawn = torch.from_numpy(np.random.default_rng().random(4)).float()
    module.register_buffer("mask", drawn, persistent=False)
    return module


VARYING = {
    "default_rng": (lambda: net(np.random.default_rng().normal(size=COUNT)), "0.weight"),
    "generator_seed": (own_seed, "0.weight"),
    "random_random": (lambda: net([random.Random().random() for _ in range(COUNT)]), "0.weight"),
    "urandom": (lambda: net(np.frombuffer(os.urandom(COUNT), np.uint8) / 255), "0.weight"),
    "torch_seed": (lambda: torch.seed() and net(), "0.weight"),
    "clock": (seeded_by(time.time), "0.weight"),
    "date": (seeded_by(lambda: datetime.datetime.now().timestamp()), "0.weight"),
    "buffer": (plain_buffer, "mask"),
    "number": (lambda: net(scale=random.SystemRandom().random()), "scale"),
    "generator": (lambda: net(rng=np.random.default_rng()), "rng"),
    "hash": (seeded_by(lambda: hash("network") % 2**31), "hash()"),
    "process": (seeded_by(os.getpid), "getpid()"),
}
SAME = {
    "plain": net,
    "torch": lambda: net(torch.randn(COUNT)),
    "numpy": lambda: net(np.random.normal(size=COUNT)),  # noqa: NPY002
    "python": lambda: net([random.random() for _ in range(COUNT)]),
    "fixed": lambda: net(np.random.default_rng(4).normal(size=COUNT), name=uuid.uuid4().hex),
}


@pytest.fixture(autouse=True)
def nets(monkeypatch):
    module = types.ModuleType("varying_nets")
    for name, builder in {**SAME, **{name: each for name, (each, _) in VARYING.items()}}.items():
        setattr(module, name, builder)
    monkeypatch.setitem(sys.modules, "varying_nets", module)


@pytest.mark.parametrize("name", VARYING)
def test_another_network_each_time_is_said(name):
    found = load_model(f"varying_nets:{name}")
    assert any(VARYING[name][1] in each for each in found.unrepeated)
    assert VARYING[name][1] in found.doubts[-1]


@pytest.mark.parametrize("name", SAME)
def test_the_same_network_has_no_doubt(name):
    one, other = (load_model(f"varying_nets:{name}", seed=3, transform="unit") for _ in range(2))
    assert not one.doubts
    for key, value in one.module.state_dict().items():
        assert torch.equal(value, other.module.state_dict()[key])


def test_weights_of_a_file_take_the_place_of_what_varies(tmp_path):
    save_file(net().state_dict(), tmp_path / "w.safetensors")
    names = ("default_rng", "buffer")
    found = [
        load_model(f"varying_nets:{n}", weights=str(tmp_path / "w.safetensors")) for n in names
    ]
    assert [each.unrepeated for each in found] == [(), ("mask",)]


def test_a_factory_that_fails_the_second_time_is_said(monkeypatch):
    calls = iter([net()])
    monkeypatch.setattr(sys.modules["varying_nets"], "once", lambda: next(calls), raising=False)
    assert "StopIteration" in load_model("varying_nets:once").doubts[-1]


def test_cards_and_results_say_it(tmp_path):
    phase = Phase(
        "p", "glyphs", categories=2, exemplars=Exemplars(4, 2), environment="one", steps=2, batch=4
    )
    network = Network("varying_nets:default_rng")
    train(Curriculum("t", network, Canvas(16, 7), (phase,)), tmp_path / "run", device="cpu")
    card = list_checkpoints(tmp_path / "run")[-1]
    assert any("makes another network each time" in note for note in card.notes)
    canvas, objects = Canvas(16, 7), load_objects("glyphs", size=7, categories=2)
    model = load_model("varying_nets:buffer")
    sweep = Sweep(model, objects, canvas=canvas, grid=Grid.parse("2x2", canvas))
    assert any("(mask)" in note for note in sweep.provenance["notes"])
