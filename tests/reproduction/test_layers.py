"""The layers of the claims: found in networks of several kinds, named, or missing with a reason."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from elsewhere.errors import ElsewhereError, InputError, UnknownNameError
from elsewhere.models import list_layers, load_model
from elsewhere.reproduction import ClaimLayers, load_scale, plan, reproduce
from elsewhere.reproduction.conditions import make_runs
from elsewhere.reproduction.layers import name_layers
from elsewhere.reproduction.run import make_tasks
from elsewhere.reproduction.tasks import read_values
from elsewhere.reproduction.workers import perform_all
from elsewhere.stimuli import Canvas
from elsewhere.training import Network

NETWORKS = '''
import torch
from torch import nn


class Same(nn.Conv2d):
    """A convolution with another name."""


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(outputs), nn.ReLU()
        self.conv2 = Same(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.down = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x):
        shortcut = self.down(x)
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + shortcut)


class Residual(nn.Module):
    """A network like ResNet: its head takes what the last pooling gives."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.stem, self.pool = nn.Conv2d(3, 4, 3, 1, 1), nn.MaxPool2d(2)
        self.layer1, self.layer2 = Block(4, 4, 1), Block(4, 8, 2)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, num_classes)
        self.canvas_size = 20

    def forward(self, x):
        x = self.layer2(self.layer1(self.pool(self.stem(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Squeezed(nn.Module):
    """A fully connected layer that weights channels comes last, and the mean is no module."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()
        self.pool, self.gate = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 8)
        self.head = nn.Linear(8, num_classes)
        self.canvas_size = 20

    def forward(self, x):
        x = self.relu(self.conv(x))
        gate = torch.sigmoid(self.gate(self.pool(x).flatten(1)))
        return self.head((x * gate[:, :, None, None]).mean((2, 3)))


class Averaged(nn.Module):
    """Mean pooling; the activation after the hidden layer is a function."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 4, 3, 1, 1), nn.AvgPool2d(4)
        self.hidden, self.out = nn.Linear(100, 12), nn.Linear(12, num_classes)
        self.canvas_size = 20

    def forward(self, x):
        x = self.pool(torch.relu(self.conv(x))).flatten(1)
        return self.out(torch.relu(self.hidden(x)))


class Flat(nn.Sequential):
    """Neither convolutions, nor poolings, nor hidden layers."""

    def __init__(self, num_classes=10):
        super().__init__(nn.Flatten(), nn.Linear(1200, num_classes))
        self.canvas_size = 20


class Headless(nn.Sequential):
    def __init__(self, num_classes=10):
        super().__init__(nn.Conv2d(3, num_classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.canvas_size = 20


class Drawn(Flat):
    """Another network each time."""

    def __init__(self, num_classes=10):
        super().__init__(num_classes)
        generator = torch.Generator()
        generator.seed()
        self[1].weight.data.normal_(generator=generator)
'''
CANVAS = Canvas(20, 5)


@pytest.fixture(autouse=True)
def networks(tmp_path, monkeypatch):
    (tmp_path / "claimnets.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)


def load(name):
    return load_model(f"claimnets:{name}")


@pytest.mark.parametrize(
    ("network", "canvas", "pooling", "hidden"),
    [
        ("small-cnn", Canvas(48, 11), "pool4", "fc6"),
        ("vgg16-slim", Canvas(64, 15), "pool5", "fc7"),
    ],
)
def test_the_layers_of_the_scales_are_what_they_were(network, canvas, pooling, hidden):
    found = name_layers(load_model(network), canvas)
    listed = list_layers(load_model(network), canvas.size)
    kinds = {kind: [each.name for each in listed if each.kind == kind] for kind in
             ("Conv2d", "MaxPool2d", "Linear")}  # fmt: skip
    assert found.pooling == kinds["MaxPool2d"][-1] == pooling
    assert found.hidden == kinds["Linear"][-2] == hidden
    assert list(found.convolutions) == kinds["Conv2d"]
    assert found.missing == {}


def earlier_fingerprint(scale):
    """Return the fingerprint that a scale had when its numbers stood in Python."""

    def plain(phases):
        found = [dataclasses.asdict(phase) for phase in phases]
        for phase in found:
            phase["environment"] = phase["environment"].replace("one:seed", "one")
            assert phase.pop("axes") == ()  # which there was none of
            for key in ("precision", "batch_norm", "freeze_affine"):
                assert phase.pop(key) is None
        return found

    table = dataclasses.asdict(scale)
    for key in ("layers", "conditions"):
        del table[key]
    assert [table.pop(key) for key in ("question", "called", "thresholds")] == ["paper", "", {}]
    assert table["network"].pop("precision") == "float32"
    for key in ("state_key", "batch_norm", "freeze_affine", "input"):
        assert table["network"].pop(key) is None
    conditions = {"pretraining": "full", "learning": "vanilla", "interference": "interference"}
    table |= {key: plain(scale.phases(name)) for key, name in conditions.items()}
    table |= {"near": plain(scale.phases("near")), "unseen": plain(scale.unseen)}
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def test_the_numbers_of_the_scales_are_what_they_were():
    known = {"laptop": "55bdca481da2", "quick": "3f50d72e5c48", "slim": "e83d6b863ffc",
             "paper": "7b93a571ab81"}  # fmt: skip
    assert {name: earlier_fingerprint(load_scale(name))[:12] for name in known} == known
    now = {"laptop": "1a1b2edce5c2", "quick": "7f427e546f7e", "slim": "87c95f9083e8",
           "paper": "a734d36cf228"}  # fmt: skip
    assert {name: load_scale(name).fingerprint[:12] for name in now} == now
    named = dataclasses.replace(load_scale("quick"), layers=ClaimLayers(hidden="fc5"))
    assert named.fingerprint[:12] != now["quick"]


def test_layers_are_found_by_what_the_network_is():
    residual = name_layers(load("Residual"), CANVAS)
    assert residual.hidden == "avgpool"
    assert residual.pooling is None
    assert "avgpool is the last pooling and the head's input" in residual.missing["pooling"]
    assert residual.convolutions == (
        "stem", "layer1.down", "layer1.conv1", "layer1.conv2", "layer2.down", "layer2.conv1",
        "layer2.conv2",
    )  # fmt: skip
    averaged = name_layers(load("Averaged"), CANVAS)
    assert (averaged.pooling, averaged.hidden, averaged.missing) == ("pool", "hidden", {})
    # what weights channels is no hidden layer: the output knows of the image by another way too
    squeezed = name_layers(load("Squeezed"), CANVAS)
    assert squeezed.hidden is None
    assert "what the head head takes (8 values)" in squeezed.missing["hidden"]
    flat = name_layers(load("Flat"), CANVAS)
    assert (flat.convolutions, flat.pooling, flat.hidden) == ((), None, None)
    assert set(flat.missing) == {"convolutions", "pooling", "hidden"}


def test_layers_are_named():
    named = ClaimLayers(pooling="pool", hidden="layer2", convolutions=("stem", "layer1.conv*"))
    found = name_layers(load("Residual"), CANVAS, named)
    assert (found.pooling, found.hidden, found.missing) == ("pool", "layer2", {})
    assert found.convolutions == ("stem", "layer1.conv1", "layer1.conv2")
    with pytest.raises(UnknownNameError, match="lyaer2"):
        name_layers(load("Residual"), CANVAS, ClaimLayers(hidden="lyaer2"))
    with pytest.raises(InputError, match=r"'layer1.relu' stands for 2 layers .*name it with"):
        name_layers(load("Residual"), CANVAS, ClaimLayers(hidden="layer1.relu"))


@pytest.fixture
def of(tiny, with_network):
    """Return a function that gives the scale another network, which has no dropout."""

    def plain(phase):
        return dataclasses.replace(phase, dropout=None)

    def change(name, **layers):
        changed = with_network(tiny, Network(f"claimnets:{name}", gain=6.0)).with_phases(plain)
        return dataclasses.replace(changed, layers=ClaimLayers(**layers))

    return change


def go(scale, out, figures=False):
    reproduce(scale, out, first_seed=0, workers=1, figures=figures, device="cpu")
    rows = json.loads((out / "claims.json").read_text())["claims"]
    values = json.loads((out / "seeds" / "0" / "measurements.json").read_text())
    return {(row["claim"], row["statistic"]): row for row in rows}, values


def test_a_residual_network_is_reproduced(of, tmp_path):
    rows, values = go(of("Residual"), tmp_path / "out")
    vanilla = values["vanilla"]
    assert np.isfinite(vanilla["G/hidden/glyphs"])
    assert "G/pooling/glyphs" not in vanilla
    step = rows["C5", "c: G hidden - G pooling"]
    assert step["verdict"] == "not measurable"
    assert "avgpool is the last pooling and the head's input in one" in step["note"]
    assert any(name.startswith("equivariance/") for name in vanilla)


def test_named_layers_are_measured(of, tmp_path):
    scale = of("Residual", pooling="pool", hidden="avgpool")
    vanilla = tuple(run for run in make_runs(scale) if run.name == "vanilla")
    (task,) = make_tasks(scale, vanilla, (0,), tmp_path / "out", device="cpu")
    perform_all((task,), workers=1)
    values = read_values(task)
    assert np.isfinite(values["G/pooling/glyphs"])
    assert values["G/pooling/glyphs"] != values["G/hidden/glyphs"]


def test_a_network_without_the_layers_says_so_in_its_rows(of, tmp_path):
    rows, values = go(of("Flat"), tmp_path / "out", figures=True)
    for statistic, reason in (
        ("b: G hidden, acquired - vanilla", "no hidden layer gives what the head"),
        ("c: G hidden - G pooling", "the network has no pooling and no map"),
        ("a: aligned G - G, deepest convolution, nearest cell, vanilla", "no convolution"),
    ):
        row = rows["C5", statistic]
        assert row["verdict"] == "not measurable", statistic
        assert reason in row["note"]
    row = rows["C6", "fall of the index of old objects"]
    assert row["verdict"] == "not measurable"
    assert "no hidden layer" in row["note"]
    assert np.isfinite(values["vanilla"]["accuracy_on/same/glyphs"])


@pytest.mark.parametrize(
    ("name", "layers", "says"),
    [
        ("Headless", {}, "no linear layer"),
        ("Residual", {"pooling": "pol"}, "pol"),
        ("Drawn", {}, r"another network each time it is called, whatever the seed \(1.weight\)"),
    ],
)
def test_what_cannot_be_run_is_refused_before_training(of, tmp_path, name, layers, says):
    out = tmp_path / "out"
    with pytest.raises(ElsewhereError, match=says) as caught:
        reproduce(of(name, **layers), out, first_seed=0, workers=1, device="cpu")
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_a_factory_that_a_folder_names_is_built_only_where_the_user_names_it(tmp_path, monkeypatch):
    folder = tmp_path / "strange"
    folder.mkdir()
    text = 'like = "laptop"\n[network]\nname = "touching:build"\n'
    (folder / "scale.toml").write_text(text)
    (tmp_path / "touching.py").write_text("open('touched', 'w')\ndef build(): pass\n")
    monkeypatch.chdir(tmp_path)
    for attempt in (reproduce, lambda scale, out: plan(scale)):
        with pytest.raises(InputError, match="add --trust-factory touching:build"):
            attempt(folder, tmp_path / "out")
    assert not (tmp_path / "touched").exists()
    assert not (tmp_path / "out").exists()
    # nor one that a single curriculum of it names
    (folder / "scale.toml").write_text('like = "laptop"\n')
    (folder / "near.toml").write_text('phases = "vanilla"\n[network]\nname = "touching:build"\n')
    with pytest.raises(InputError, match="add --trust-factory touching:build"):
        load_scale(folder)
    assert load_scale(folder, trust=["touching:build"]).conditions["near"].start is None
