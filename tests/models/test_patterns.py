"""Globs, character classes and depth over all that a network runs, containers included."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from elsewhere.errors import ElsewhereError, UnknownNameError
from elsewhere.models import list_layers, load_model, select_layers
from elsewhere.models.names import check_layers


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(6), nn.Linear(6, 6)
        self.rest = nn.Identity()

    def forward(self, values):
        return values + self.rest(self.fc(self.norm(values)))


class Stream(nn.Module):
    """As a transformer is: blocks that add to what they are given."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 4, stride=4)
        self.blocks = nn.Sequential(*(Block() for _ in range(12)))
        self.head = nn.Linear(6, 4)

    def forward(self, values):
        return self.head(self.blocks(self.patch(values).flatten(2).mT).mean(1))


@pytest.fixture(scope="module")
def stream():
    torch.manual_seed(0)
    model = load_model(Stream(), transform="unit")
    return model, list_layers(model, 16, containers=True)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("blocks.?", [f"blocks.{n}" for n in range(10)]),
        ("blocks.[0-2]", ["blocks.0", "blocks.1", "blocks.2"]),
        ("blocks.1[01]", ["blocks.10", "blocks.11"]),
        ("blocks.[!0-8]", ["blocks.9"]),
        ("depth:1", ["patch", "blocks", "logits"]),
        ("depth:2", [f"blocks.{n}" for n in range(12)]),
        ("blocks.3*", ["blocks.3.norm", "blocks.3.fc", "blocks.3"]),  # no Identity
        ("*.fc", [f"blocks.{n}.fc" for n in range(12)]),
        ("b*s", ["blocks"]),
        ("blocks.3.rest,depth:1", ["patch", "blocks.3.rest", "blocks", "logits"]),
        ("blocks.[0-1].fc", ["blocks.0.fc", "blocks.1.fc"]),
    ],
)
def test_patterns_take_all_that_is_listed(stream, wanted, expected):
    model, layers = stream
    assert [layer.name for layer in select_layers(layers, wanted, model)] == expected


@pytest.mark.parametrize("wanted", ["blocks.[x]", "depth:4", "depth:x", "blocks.[20]?"])
def test_a_pattern_that_fits_nothing_is_refused(stream, wanted):
    model, layers = stream
    with pytest.raises(ElsewhereError, match="layer"):
        select_layers(layers, wanted, model)


def test_what_a_module_and_its_last_part_give_in_common_is_taken_once():
    model = load_model(resnet18(num_classes=4), transform="unit")
    layers = list_layers(model, 32, containers=True)
    names = {layer.name for layer in select_layers(layers, "layer1.*", model)}
    assert "layer1.0.relu:1" in names
    assert "layer1.0" not in names  # the very same values
    chosen = [layer.name for layer in select_layers(layers, "layer[1-2].?", model)]
    assert chosen == ["layer1.0", "layer1.1", "layer2.0", "layer2.1"]


def test_networks_of_the_zoo_are_asked_without_torch():
    check_layers("vgg16", ["conv[45]_?", "depth:2", "relu*"])
    with pytest.raises(UnknownNameError):
        check_layers("vgg16", ["conv[89]_?"])
    with pytest.raises(UnknownNameError):
        check_layers("vgg16", ["depth:7"])
