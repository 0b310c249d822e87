"""Other heads on the same layers: with weights for each place, or on the scores that are kept."""

import pytest
import torch
from torch import nn

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.models import load_model, state_sha256
from elsewhere.models.heads import find_head
from elsewhere.models.readouts import give_readout

CANVAS = 64


def images():
    return torch.rand((2, 3, CANVAS, CANVAS), generator=torch.Generator().manual_seed(3))


def plain_map(network, shown):
    """Return the last map of torchvision's ResNet-18, layer by layer."""
    shown = network.maxpool(network.relu(network.bn1(network.conv1(shown))))
    for part in (network.layer1, network.layer2, network.layer3, network.layer4):
        shown = part(shown)
    return shown


@pytest.mark.parametrize("kind", ["own", "flatten", "logits"])
def test_a_readout_gives_what_plain_torch_gives(kind):
    size = {"num_classes": 7} if kind == "own" else {}
    base = load_model("resnet18", model_args=size, seed=5).module
    model = load_model(
        "resnet18", model_args={"readout": kind, "canvas": CANVAS, "num_classes": 7}, seed=5
    )
    name, head = find_head(model)
    with torch.inference_mode():
        maps = plain_map(base, images())
        inputs = {
            "own": maps.mean((2, 3)),
            "flatten": maps.flatten(1),
            "logits": base.fc(maps.mean((2, 3))),
        }[kind]
        expected = nn.functional.linear(inputs, head.weight, head.bias)
        torch.testing.assert_close(model.module(images()), expected, rtol=1e-5, atol=1e-5)
    assert expected.shape == (2, 7)
    assert model.aliases["logits"] == name
    assert set(model.random_keys) == (
        set() if kind == "own" else {f"{name}.weight", f"{name}.bias"}
    )
    again = load_model("resnet18", model_args=model.arguments, seed=5)
    assert state_sha256(again.module.state_dict()) == state_sha256(model.module.state_dict())


def test_weights_of_a_file_are_those_of_the_network_itself(tmp_path):
    torch.save(load_model("resnet18", seed=9).module.state_dict(), tmp_path / "w.pth")
    model = load_model(
        "resnet18",
        weights=str(tmp_path / "w.pth"),
        model_args={"readout": "logits", "canvas": CANVAS},
    )
    kept = load_model("resnet18", seed=9).module
    assert torch.equal(model.module.fc.kept.weight, kept.fc.weight)
    assert model.module.fc.new.in_features == 1000


def test_bad_input_is_told_in_one_line():
    def give(kind, **keys):
        plain = load_model("small-cnn", model_args={"channels": "4-8", "canvas": 16})
        return give_readout(plain, kind, seed=0, **keys)

    with pytest.raises(UnknownNameError, match=r"unknown readout 'pooled'.*own, flatten, logits"):
        give("pooled")
    with pytest.raises(InputError, match="no module that pools its last map globally"):
        give("flatten")
    with pytest.raises(InputError, match="canvas must be an integer above 0; got '64'"):
        give("flatten", canvas="64")
    with pytest.raises(InputError, match="num_classes must be an integer above 0; got 0"):
        give("logits", n_classes=0)
