"""Keys of a phase that do nothing are refused; what is frozen stays; the unseen is said."""

import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from elsewhere.errors import CurriculumError, ElsewhereError
from elsewhere.stimuli import Canvas
from elsewhere.training import Augment, Exemplars, Network, list_checkpoints, train
from elsewhere.training.checkpoints import load_checkpoint, read_weights
from elsewhere.training.curriculum import Criterion


class Functional(nn.Module):
    """Normalises by a function, with statistics of its own; a dropout that may rest."""

    def __init__(self, width=6, drop="never", *, classes=4):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, width, 3, stride=2), nn.Linear(9 * width, classes)
        self.drop, self.dropout = drop, nn.Dropout(0.5)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, x):
        maps = functional.relu(self.conv(x))
        if self.drop == "in training" and self.training:
            maps = self.dropout(maps)
        maps = functional.batch_norm(maps, self.mean, self.variance, training=self.training)
        return self.head(functional.adaptive_avg_pool2d(maps, 3).flatten(1))


class Heedless(nn.Module):
    """Takes off a running mean that goes on running in evaluation."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(6, 1, 1))

    def forward(self, maps):
        self.mean.mul_(0.9).add_(0.1 * maps.detach().mean((0, 2, 3))[:, None, None])
        return maps - self.mean


def heedless():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), Heedless(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(54, 4)
    )


def instances():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.InstanceNorm2d(6, track_running_stats=True),
        nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(54, 4),
    )  # fmt: skip


class Rooted(nn.Module):
    """The root gathers means, by arithmetic of its own, of a frozen or of a trained layer."""

    def __init__(self, how="in place"):
        super().__init__()
        self.conv, self.head, self.how = nn.Conv2d(3, 6, 3), nn.Linear(6, 4), how
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("table", torch.ones(6))

    def forward(self, x):
        maps = self.conv(x)
        if self.training:
            with torch.no_grad():
                now = maps.mean((0, 2, 3))
                if self.how == "in place":
                    self.mean.mul_(0.9).add_(0.1 * now)
                elif self.how == "anew":
                    self.mean = 0.9 * self.mean + 0.1 * now
                else:  # of the image, or the same each time
                    self.mean += 0.1 * x.mean()
                    self.table.copy_(self.conv.weight.mean((1, 2, 3)) * 0 + 1)
        return self.head((maps - self.mean[:, None, None]).relu().mean((2, 3)))


def trunk():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.Dropout(0.3), nn.Conv2d(6, 6, 3), nn.AdaptiveAvgPool2d(3),
        nn.Flatten(), nn.Linear(54, 4),
    )  # fmt: skip


@pytest.fixture
def run(monkeypatch, make_curriculum, make_phase, tmp_path):
    module = types.ModuleType("key_nets")
    module.functional, module.trunk = Functional, trunk
    module.heedless, module.instances, module.rooted = heedless, instances, Rooted
    monkeypatch.setitem(sys.modules, "key_nets", module)

    def run(name, out="run", objects="glyphs", *, network=None, **options):
        defaults = {"categories": 4, "steps": 3, "exemplars": Exemplars(6, 2), "checkpoints": (0,)}
        phase = make_phase(objects=objects, **defaults | options)
        built = Network(f"key_nets:{name}", **(network or {}))
        train(
            make_curriculum(phase, network=built, canvas=Canvas(16, 7)), tmp_path / out,
            device="cpu",
        )  # fmt: skip
        return list_checkpoints(tmp_path / out)

    return run


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("trunk", {"dropout": 0.4, "trainable": ("5",)}, "dropout: no dropout layer .* at work"),
        ("functional", {"dropout": 0.4}, "dropout: no dropout layer .* at work"),
        ("trunk", {"criterion": Criterion(0.9, 4)}, "criterion: its window of 4 steps is longer"),
        ("trunk", {"schedule": "one-cycle", "warmup": 0.9}, "warmup: 0.9 of 3 steps leaves none"),
        ("trunk", {"categories": 1, "label_smoothing": 0.1}, "label_smoothing: does nothing"),
        ("functional", {"trainable": ("head",)}, "trainable: .* gathers statistics of frozen"),
        ("heedless", {"trainable": ("4",)}, "trainable: .* gathers statistics of frozen"),
        ("rooted", {"trainable": ("head",)}, "trainable: .* gathers statistics of frozen"),
        ("rooted", {"trainable": ("head",), "network": {"arguments": {"how": "anew"}}}, "gathers"),
    ],
)
def test_what_does_nothing_is_refused(run, tmp_path, name, options, words):
    with pytest.raises(ElsewhereError, match=words):
        run(name, **options)
    assert not (tmp_path / "run").exists()


def test_statistics_of_what_is_trained_or_of_images_are_no_frozen_ones(run):
    run("rooted")
    image = {"arguments": {"how": "image"}}
    assert run("rooted", out="image", trainable=("head",), network=image)[-1].step == 3


def test_keys_of_another_optimiser_are_refused(make_phase):
    with pytest.raises(CurriculumError, match="momentum: does nothing with optimiser = 'adam'"):
        make_phase(momentum=0.5)
    assert make_phase(momentum=0.5, optimiser="sgd").momentum == 0.5
    with pytest.raises(CurriculumError, match="augment: changes nothing"):
        make_phase(augment=Augment())


def test_what_does_something_is_taken(run):
    run("trunk", dropout=0.4, trainable=("2", "5"))
    run("functional", "b", network={"arguments": {"drop": "in training"}}, dropout=0.4)
    run("heedless", "d", steps=5)
    first, last = run("instances", "e", trainable=("4",), steps=5)
    assert torch.equal(read_weights(first)["1.running_mean"], read_weights(last)["1.running_mean"])
    first, last = run("functional", "c", trainable=("conv", "head"), steps=5)
    assert not torch.equal(read_weights(first)["mean"], read_weights(last)["mean"])


def test_arguments_that_are_the_default_are_the_checkpoint_s(run):
    old = run("functional")[-1]
    same = {"weights": str(old.path), "arguments": {"width": 6, "classes": 4}}
    new = run("functional", "b", network=same, new_head=True, categories=4)[-1]
    assert load_checkpoint(new.path).module.conv.out_channels == 6
    for arguments, words in (
        ({"width": 7}, "has width = 6; got 7"),
        ({"depth": 1}, "built without depth"),
    ):
        other = {"weights": str(old.path), "arguments": arguments}
        with pytest.raises(ElsewhereError, match=words):
            run("functional", "c", network=other)


@pytest.mark.parametrize("dark", [1, 4])
def test_objects_that_cannot_be_seen_are_said_or_refused(run, tmp_path, dark):
    """Black on black: one class of four in every card; all four are refused."""
    for number, name in enumerate("abcd"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for exemplar in range(8):
            level = 0 if number < dark else 40 + 20 * number + exemplar
            pixels = np.zeros((7, 7, 4), np.uint8)
            pixels[1:6, 1:6] = (level, level, level, 255)
            pixels[2, 2 + exemplar % 4, 3] = 255 - 9 * exemplar
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{exemplar}.png")
    spec = f"folder:{tmp_path / 'pictures'}"
    options = {"objects": spec, "categories": None, "exemplars": Exemplars(6, 0)}
    if dark == 4:
        with pytest.raises(ElsewhereError, match="no object of .* can be seen"):
            run("trunk", **options)
        assert not (tmp_path / "run").exists()
        return
    for card in run("trunk", **options):
        assert "6 of 24 objects, which cannot be seen on the background 0,0,0" in card.notes[0]
