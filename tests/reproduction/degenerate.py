"""Networks that know nothing of objects, each in its way: what no claim may take for a finding."""

import torch
from torch import nn

from elsewhere.models import load_model


class Nothing(nn.Module):
    """Gives the same whatever comes in."""

    def forward(self, values):
        return values * 0 + 1


class Quadrant(nn.Module):
    """Leaves of an image only in which quarter of the canvas most of it lies."""

    def forward(self, images):
        mass = nn.functional.adaptive_avg_pool2d(images.abs().sum(1, keepdim=True), 2)
        strongest = mass.flatten(1).argmax(1)
        shown = nn.functional.one_hot(strongest, 4).float().reshape(-1, 1, 2, 2)
        shown = shown * (mass.sum((1, 2, 3), keepdim=True) > 0)
        full = nn.functional.interpolate(shown, size=images.shape[-2:], mode="nearest")
        return full.expand(-1, 3, -1, -1) + images * 0


def untrained(num_classes: int = 10) -> nn.Module:
    """Return a network as it is drawn; its phases must not train it."""
    arguments = {"channels": "4-8", "hidden": 16, "canvas": 20, "num_classes": num_classes}
    return load_model("small-cnn", model_args=arguments, seed=int(torch.randint(99, ()))).module


def constant(num_classes: int = 10) -> nn.Module:
    """Return a network whose hidden layers see the same whatever is shown."""
    network = untrained(num_classes)
    network.classifier = nn.Sequential(Nothing(), *network.classifier)
    return network


def place_only(num_classes: int = 10) -> nn.Module:
    """Return a network that sees roughly where an object is, and nothing of what it is."""
    network = untrained(num_classes)
    network.features = nn.Sequential(Quadrant(), *network.features)
    return network


def dead(num_classes: int = 10) -> nn.Module:
    """Return a network whose units never fire."""
    network = untrained(num_classes)
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, nn.Conv2d):
                part.weight.zero_()
                part.bias.fill_(-1.0)
    return network
