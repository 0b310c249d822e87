"""Networks that are awkward on purpose, and batches of one object on them."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from elsewhere.analyzer.attribution.batches import Batch
from elsewhere.analyzer.attribution.explain import Explainer
from elsewhere.analyzer.attribution.frames import Scenes
from elsewhere.analyzer.attribution.methods import methods
from elsewhere.analyzer.attribution.targets import parse_target
from elsewhere.stimuli import Canvas

CANVAS = Canvas(24, 8, background=(200, 40, 90))


class Awkward(nn.Module):
    """Reuses one in-place ReLU, calls functions, adds in place, pools with overlapping windows."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.head = nn.Linear(6, 5)
        self.canvas_size = 24

    def forward(self, values):
        values = self.relu(self.first(values))
        values = self.pool(values)
        after = self.second(values)
        after += values
        after = self.relu(after)
        after = functional.relu(self.second(after) + after, inplace=True)
        return self.head(after.mean((2, 3)))


class Residual(nn.Module):
    """Without biases, and each layer once: relevance has a closed form."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.second = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.keep = nn.Identity()
        self.head = nn.Linear(6, 5, bias=False)

    def forward(self, values):
        values = self.relu(self.first(values))
        after = self.second(values)
        after += values
        after = functional.max_pool2d(self.relu(after), 2)
        return self.head(self.keep(after).mean((2, 3)))


class Linear(nn.Module):
    """A convolution and a linear layer, nothing that bends."""

    def __init__(self, bias=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=bias)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(4 * 24 * 24, 5, bias=bias)

    def forward(self, values):
        return self.head(self.flatten(self.conv(values)))


@pytest.fixture(scope="session")
def awkward(wrap, disturb):
    return wrap(disturb(Awkward(), 3))


@pytest.fixture(scope="session")
def residual(wrap, disturb):
    return wrap(disturb(Residual(), 4))


@pytest.fixture(scope="session")
def linear(wrap, disturb):
    return wrap(disturb(Linear(), 5))


@pytest.fixture(scope="session")
def make_explainer():
    """Return a function that binds a method to a network; grad-cam gets the layer it needs."""

    def make(network, method, /, target="logit:2", *, layer=None, canvas=CANVAS, **options):
        parsed = parse_target(target) if isinstance(target, str) else target
        return Explainer(
            network,
            canvas_size=canvas.size,
            object_size=canvas.object_size,
            method=method,
            target=parsed,
            layer=layer,
            options=options,
        )

    return make


@pytest.fixture(scope="session")
def make_batch(make_objects):
    """Return a function that shows the first random object at some locations."""

    def make(network, places=((5, 5), (12, 13), (19, 6)), *, baseline="empty", classes=2, n=None):
        objects = make_objects(n or 1, size=CANVAS.object_size)
        scenes = Scenes(network, objects, CANVAS)
        corners = scenes.corners(places)
        images = scenes.images(0, corners)
        keys = [(0, place) for place in range(len(places))]
        compared = scenes.baseline(baseline, images)
        batch = Batch(
            images, compared, corners, [classes] * len(places), None, keys, baseline == "empty"
        )
        return SimpleNamespace(batch=batch, scenes=scenes, objects=objects)

    return make


@pytest.fixture(scope="session")
def gradient():
    """Return a function that computes the gradient of a network's output, by autograd alone."""

    def compute(network, images, column=2, score=None):
        images = images.clone().requires_grad_(True)
        found = network.module(images)[:, column] if score is None else score(images)
        return torch.autograd.grad(found.sum(), images)[0]

    return compute


@pytest.fixture(params=list(methods))
def every_method(request):
    return request.param
