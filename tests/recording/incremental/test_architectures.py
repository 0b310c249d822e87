"""Both engines on the networks of the literature, at the canvas's corners, edges and interior."""

from functools import partial

import pytest
import torch
import torchvision
from torch import nn

CASES = [
    # network, canvas, object, stride, background
    ("vgg11", 64, 14, 1, (200, 40, 90)),
    ("vgg11_bn", 64, 14, 7, 0),
    ("vgg13", 64, 17, 3, 128),
    ("vgg13_bn", 64, 14, 8, (10, 250, 30)),
    ("vgg16", 80, 14, 8, 255),
    ("vgg16_bn", 64, 14, 1, 77),
    ("vgg19", 64, 14, 7, (1, 2, 3)),
    ("vgg19_bn", 64, 14, 3, 200),
    ("alexnet", 96, 21, 3, (200, 40, 90)),
    ("resnet18", 96, 14, 8, 0),
    ("resnet50", 64, 14, 7, (200, 40, 90)),
    ("googlenet", 80, 14, 8, 60),
    ("densenet121", 64, 14, 3, (200, 40, 90)),
]


NARROW = {  # a quarter of the channels of most layers
    "resnet50": partial(torchvision.models.resnet50, width_per_group=16),
    "densenet121": partial(torchvision.models.DenseNet, 8, (6, 12, 24, 16), 16),
}


def narrow(network):
    """Give every convolution of a VGG a quarter of its channels: all else is as it was."""
    for number, part in enumerate(network.features):
        if isinstance(part, nn.Conv2d):
            inputs = part.in_channels // 4 if part.in_channels > 3 else 3
            network.features[number] = nn.Conv2d(inputs, part.out_channels // 4, 3, padding=1)
        elif isinstance(part, nn.BatchNorm2d):
            network.features[number] = nn.BatchNorm2d(part.num_features // 4)
    linear = network.classifier[0]
    network.classifier[0] = nn.Linear(linear.in_features // 4, linear.out_features)


def build(name, disturb, *, wide=True):
    """Return a network with a small head, and weights that keep the signal."""
    arguments = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    make = getattr(torchvision.models, name)
    with torch.device("meta"):
        network = (make if wide else NARROW.get(name, make))(num_classes=11, **arguments)
        if not wide and name.startswith("vgg"):
            narrow(network)
    if hasattr(network, "classifier") and isinstance(network.classifier, nn.Sequential):
        linear = [n for n, part in enumerate(network.classifier) if isinstance(part, nn.Linear)]
        sizes = [network.classifier[linear[0]].in_features, 24, 24, 11]
        for place, number in enumerate(linear):
            network.classifier[number] = nn.Linear(sizes[place], sizes[place + 1])
    return disturb(network.to_empty(device="cpu")).eval()


@pytest.mark.parametrize(("name", "size", "side", "stride", "background"), CASES)
def test_every_layer_equals_the_dense_sweep(
    name, size, side, stride, background, wrap, disturb, compare_engines
):
    # two of eight VGGs have all their channels here, and other networks at their natural size below
    wide = name not in NARROW and (not name.startswith("vgg") or name in ("vgg11_bn", "vgg16"))
    model = wrap(build(name, disturb, wide=wide), canvas_size=size)
    errors, signals = compare_engines(
        model, size=size, object_size=side, stride=stride, background=background
    )
    assert len(errors) >= 20
    assert max(errors.values()) <= 1e-5
    assert min(signals.values()) > 0.01  # every layer sees the object


@pytest.mark.long
@pytest.mark.parametrize("stride", [1, 3, 7, 8])
@pytest.mark.parametrize("name", ["vgg16", "resnet50", "googlenet", "densenet121"])
def test_every_stride_at_the_natural_size(name, stride, wrap, disturb, compare_engines):
    model = wrap(build(name, disturb), canvas_size=224)
    errors, signals = compare_engines(
        model, size=224, object_size=50, stride=stride, background=(200, 40, 90), layers=None
    )
    assert max(errors.values()) <= 1e-5
    assert min(signals.values()) > 0.01
