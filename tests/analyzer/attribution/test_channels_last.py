"""Grad-CAM of maps whose channels come last."""

import numpy as np
import pytest
import torch
from torch import nn


class ChannelsLast(nn.Module):
    """A stem, then a layer in channels-last order."""

    def __init__(self):
        super().__init__()
        self.stem, self.mix, self.act = nn.Conv2d(3, 7, 4, stride=4), nn.Linear(7, 5), nn.GELU()
        self.head = nn.Linear(5, 3)

    def forward(self, values):
        maps = self.act(self.mix(self.stem(values).permute(0, 2, 3, 1)))
        return self.head(maps.square().mean((1, 2)))


@pytest.mark.parametrize("rectified", [True, False])
def test_grad_cam_sums_over_channels(rectified, wrap, make_explainer, make_batch):
    torch.manual_seed(0)
    model = wrap(ChannelsLast())
    batch = make_batch(model).batch
    explainer = make_explainer(model, "grad-cam", layer="act", relu_attributions=rectified)
    found = np.asarray(explainer.maps(batch)).sum(axis=1)

    network = model.module
    maps = network.act(network.mix(network.stem(batch.images).permute(0, 2, 3, 1))).detach()
    maps.requires_grad_()
    network.head(maps.square().mean((1, 2)))[:, 2].sum().backward()
    cam = (maps.grad.mean((1, 2), keepdim=True) * maps).sum(-1).detach().numpy()
    cam = np.maximum(cam, 0) if rectified else cam
    centres, pixels = 1.5 + 4 * np.arange(6), np.arange(24)
    rows = np.apply_along_axis(lambda line: np.interp(pixels, centres, line), 2, cam)
    expected = np.apply_along_axis(lambda line: np.interp(pixels, centres, line), 1, rows)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-6)
