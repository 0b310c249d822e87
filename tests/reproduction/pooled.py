"""A tiny network with normalisation that ends in global pooling, as the scales' own does."""

from collections import OrderedDict

import torch
from torch import nn

from elsewhere.models import load_model

NAME = "tests.reproduction.pooled:build"


def build(num_classes=12, dropout=0.0, stochastic_depth_prob=0.0):
    """Return the network."""
    return nn.Sequential(
        OrderedDict(
            first=nn.Conv2d(3, 8, 3, stride=2, padding=1),
            norm=nn.BatchNorm2d(8),
            relu=nn.ReLU(),
            second=nn.Conv2d(8, 16, 3, padding=1),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            head=nn.Linear(16, num_classes),
        )
    )


def write_weights(path):
    """Write weights whose statistics are not those of a new network; return the file."""
    network = load_model(NAME, seed=7).module
    network.train()
    shown = torch.rand((16, 3, 24, 24), generator=torch.Generator().manual_seed(0))
    for _ in range(50):
        network(4 * shown)
    torch.save(network.state_dict(), path)
    return path
