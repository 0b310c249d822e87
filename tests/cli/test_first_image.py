"""What `record` does before its first image, counted: nothing is done twice."""

import hashlib
import importlib
from collections import Counter

import pytest
import torch
from torch import nn

from elsewhere.models import caches, load_model, loading, pretrained
from elsewhere.models.generators import Undrawn
from elsewhere.models.weights import state_sha256
from elsewhere.recording.sweep import Sweep
from tests.counting import counting

NET = "squeezenet1_1"
"""Of torchvision's the one with the fewest weights."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of a file, with no key missing."""
    path = tmp_path_factory.mktemp("weights") / "net.pth"
    torch.save(load_model(NET, seed=5).module.state_dict(), path)
    return path


@pytest.fixture
def counted(monkeypatch):
    """What is counted until the sweep begins: passes, their images, headers, bytes hashed."""
    found, plain, begun = Counter(), hashlib.sha256, []
    call, feed = nn.Module.__call__, Sweep._feed

    class Hash:
        def __init__(self, data=b""):
            self.hash = plain()
            self.update(data)

        def update(self, data):
            if not begun:
                found["hashed"] += memoryview(data).nbytes
            self.hash.update(data)

        def __getattr__(self, name):
            return getattr(self.hash, name)

    def count(module, *args, **kwargs):
        if type(module).__name__ == "SqueezeNet" and not begun:
            found["passes"] += 1
            found["images"] += len(args[0])
        return call(module, *args, **kwargs)

    def begin(sweep, cut):
        begun.append(True)
        return feed(sweep, cut)

    monkeypatch.setattr(hashlib, "sha256", Hash)
    monkeypatch.setattr(nn.Module, "__call__", count)
    monkeypatch.setattr(Sweep, "_feed", begin)
    recording = importlib.import_module("elsewhere.recording.record")
    planning = importlib.import_module("elsewhere.recording.planning")
    package = importlib.import_module("elsewhere.recording")
    make_header = recording.make_header

    def header(*args, **kwargs):
        found["headers"] += 1
        return make_header(*args, **kwargs)

    for module in (recording, planning, package):
        monkeypatch.setattr(module, "make_header", header)
    digest = caches.file_sha256

    def file_digest(path):
        found["files"] += 1
        return digest(path)

    for module in (loading, pretrained):
        monkeypatch.setattr(module, "file_sha256", file_digest)
    return found


def test_before_the_first_image(run, weights, counted):
    run(
        "record", NET, "--weights", weights, "--input", "unit", "--objects", "novel",
        "--categories", "2", "--grid", "2x2", "--canvas", "48", "--layers", "features.12",
        "--engine", "dense", "--out", "run.h5",
    )  # fmt: skip
    state = sum(t.numel() * t.element_size() for t in torch.load(weights).values())
    assert state <= counted["hashed"] <= 1.02 * state  # once, beside small things
    assert counted["files"] == 1
    assert counted["headers"] == 1
    # two for a head and one for the layers, thirteen to see how it has to be run, and the plan's
    assert counted["passes"] <= 20
    assert counted["images"] <= 54


def test_weights_that_are_read_are_not_drawn_before(weights):
    plain = load_model(NET, seed=5)
    with counting() as found:
        loaded = load_model(NET, weights=str(weights), transform=plain.transform)
    assert not {"normal_", "uniform_"} & set(found.launches)
    assert loaded.weights_sha256 == plain.weights_sha256 == state_sha256(loaded.module.state_dict())
    with counting() as found:
        load_model(NET, seed=5)
    assert {"normal_", "uniform_"} & set(found.launches)


def test_what_a_file_leaves_out_is_drawn(weights, tmp_path):
    few = {k: v for k, v in torch.load(weights).items() if not k.startswith("classifier")}
    torch.save(few, tmp_path / "few.pth")
    plain = load_model(NET, seed=3)
    loaded = load_model(
        NET, weights=str(tmp_path / "few.pth"), partial_weights=True, seed=3,
        transform=plain.transform,
    )  # fmt: skip
    assert loaded.random_keys
    for key in loaded.random_keys:
        assert torch.equal(loaded.module.state_dict()[key], plain.module.state_dict()[key])


def test_only_parameters_that_are_drawn_are_zero():
    with Undrawn():
        norm, linear = nn.BatchNorm2d(2), nn.Linear(2, 2)
        drawn = torch.empty(3).normal_()
        nn.init.constant_(linear.bias, 2.0)
    assert norm.weight.tolist() == [1.0, 1.0]
    assert linear.weight.abs().sum() == 0
    assert linear.bias.tolist() == [2.0, 2.0]
    assert drawn.abs().sum() > 0
