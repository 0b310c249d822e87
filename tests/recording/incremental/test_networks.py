"""Both engines on small networks that do unusual things, and on random ones."""

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from elsewhere.recording.incremental import Incremental, Pointwise, window_rules
from elsewhere.stimuli import Grid


class Branches(nn.Module):
    """Sums, concatenations and differences of branches whose windows differ."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.wide = nn.Conv2d(4, 4, 5, padding=2)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.down = nn.Conv2d(8, 6, 3, stride=2, padding=1)
        self.skip = nn.Conv2d(8, 6, 1, stride=2)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(6, 5)

    def forward(self, values):
        values = self.act(self.stem(values))
        both = torch.cat([self.wide(values), self.pool(values)], dim=1)
        total = self.down(both)
        total += self.skip(both)
        total = self.act(total) - 0.25 * self.skip(both)
        doubled = total + total
        return self.head(doubled.mean([2, 3]))


class InPlace(nn.Module):
    """Overwrites what a hook has seen, its own input included."""

    def __init__(self):
        super().__init__()
        self.clip = nn.Hardtanh(-0.5, 0.4, inplace=True)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout()
        self.act = nn.ReLU(inplace=True)

    def forward(self, values):
        self.clip(values)
        first = self.drop(self.norm(self.conv(values)))
        second = functional.relu(first, inplace=True)
        first = first.mul_(2)  # the same memory as `second`
        return self.act(first - 1) + second.abs()


class Gated(nn.Module):
    """Scales channels by what is pooled over the map: whole activations from there on."""

    def __init__(self):
        super().__init__()
        self.conv, self.gate = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.pool, self.last = nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 5, 3, padding=1)

    def forward(self, values):
        values = self.conv(values)
        values = values * torch.sigmoid(self.gate(self.pool(values)))
        n, c, h, w = values.size()
        return self.last(values.view(n, 2, 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class Channels(nn.Module):
    """Rescales the input channel by channel, as GoogLeNet does with its own weights."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.scale = nn.Parameter(torch.rand(1, 4, 1, 1))

    def forward(self, values):
        parts = [torch.unsqueeze(values[:, c], 1) * (c + 0.5) - 0.1 for c in range(3)]
        values = self.conv(torch.cat(parts, 1)) * self.scale
        return torch.sigmoid(values[:, 1:3])


class Outputs(nn.Module):
    """A part that gives two tensors, and one that is used twice."""

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 3, 3), nn.Conv2d(4, 2, 3)

        def forward(self, values):
            return self.a(values), self.b(values)

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 4, 3), nn.ReLU()
        self.again = nn.Conv2d(4, 4, 3, padding=1)
        self.pair = self.Pair()

    def forward(self, values):
        values = self.act(self.again(self.act(self.again(self.conv(values)))))
        first, second = self.pair(values)
        return torch.cat([first, second], 1)


class Padded(nn.Sequential):
    """Paddings that are not zeros, and pooling that is told whether to count them."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 4, 3, padding="same", dilation=2),
            nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False),
            nn.AvgPool2d(2, stride=1, ceil_mode=True, padding=1),
            nn.AvgPool2d(2, stride=1, divisor_override=3),
            nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
            nn.ELU(inplace=True),
            nn.Conv2d(4, 4, 3, padding=(2, 0), stride=(1, 2), groups=2),
        )


class Stored(nn.Module):
    """Normalises by a function, with and without affine parameters."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.register_buffer("mean", torch.linspace(-0.2, 0.3, 4))
        self.register_buffer("variance", torch.linspace(0.5, 2, 4))
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 4))

    def forward(self, values):
        values = self.conv(values)
        values = functional.batch_norm(values, self.mean, self.variance, eps=0.1)
        return functional.batch_norm(
            values, self.mean, self.variance, self.scale, self.mean, False, 0.1, 1e-3
        )


NETWORKS = [Branches, InPlace, Gated, Channels, Outputs, Padded, Stored]


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("stride", [1, 7])
def test_networks_that_do_unusual_things(kind, stride, wrap, disturb, compare_engines, hooks_of):
    torch.manual_seed(3)
    network = disturb(kind())
    errors, signals = compare_engines(
        wrap(network, canvas_size=26), size=26, object_size=5, stride=stride,
        background=(200, 40, 90), n=2,
    )  # fmt: skip
    assert max(errors.values()) <= 1e-5
    assert min(signals.values()) > 1e-3
    assert hooks_of(network) == 0


@pytest.mark.parametrize("side", [40, 45])
def test_timms_padding_like_tensorflows_passes_windows(side, wrap, disturb, compare_engines):
    """Before the map as many cells as after it, or one fewer."""
    layers = pytest.importorskip("timm.layers", reason="timm pads as TensorFlow does")
    torch.manual_seed(4)
    network = disturb(
        nn.Sequential(
            layers.create_conv2d(3, 4, 3, stride=2, padding="same"),
            layers.BatchNormAct2d(4, act_layer=nn.ReLU6),
            layers.create_conv2d(4, 4, 5, stride=2, padding="same", depthwise=True),
            layers.create_conv2d(4, 6, (2, 4), stride=1, padding="same", dilation=2),
        )
    )
    errors, signals = compare_engines(
        wrap(network, canvas_size=side), size=side, object_size=7, stride=1, background=90
    )
    assert max(errors.values()) <= 1e-5
    assert min(signals.values()) > 1e-3


def layers_of(draw, channels):
    """Draw an operation; return it and its number of channels."""
    kernel = draw(st.integers(1, 4))
    kind = draw(st.sampled_from(["conv", "conv", "max", "mean", "norm", "relu", "sum", "cat"]))
    if kind == "conv":
        groups = draw(st.sampled_from([1, 2]))
        conv = nn.Conv2d(
            channels, channels, kernel,
            stride=draw(st.integers(1, 3)),
            padding=draw(st.integers(0, 3)),
            dilation=draw(st.integers(1, 2)),
            groups=groups,
        )  # fmt: skip
        return conv, channels
    if kind == "max":
        ceil, pad = draw(st.booleans()), draw(st.integers(0, kernel // 2))
        return nn.MaxPool2d(kernel, draw(st.integers(1, 3)), pad, ceil_mode=ceil), channels
    if kind == "mean":
        ceil, pad = draw(st.booleans()), draw(st.integers(0, kernel // 2))
        stride, counted = draw(st.integers(1, 3)), draw(st.booleans())
        return nn.AvgPool2d(kernel, stride, pad, ceil, counted), channels
    if kind == "norm":
        return nn.BatchNorm2d(channels), channels
    if kind == "relu":
        return nn.ReLU(inplace=draw(st.booleans())), channels
    parts = [nn.Conv2d(channels, channels, k, padding=k // 2) for k in (1, 3)]
    return Beside(parts, kind), channels if kind == "sum" else 2 * channels


class Beside(nn.Module):
    def __init__(self, parts, kind):
        super().__init__()
        self.parts, self.kind = nn.ModuleList(parts), kind

    def forward(self, values):
        first, second = (part(values) for part in self.parts)
        return first + second if self.kind == "sum" else torch.cat([first, second], 1)


@settings(
    max_examples=40, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(data=st.data())
def test_random_networks(data, wrap, disturb, compare_engines):
    draw = data.draw
    channels, parts = 4, [nn.Conv2d(3, 4, draw(st.integers(1, 3)), padding=draw(st.integers(0, 2)))]
    for _ in range(draw(st.integers(1, 5))):
        part, channels = layers_of(draw, channels)
        parts.append(part)
    parts.append(draw(st.sampled_from([nn.Flatten(), nn.AdaptiveAvgPool2d(1), nn.Identity()])))
    size, side = draw(st.integers(10, 28)), draw(st.integers(1, 9))
    network = disturb(nn.Sequential(*parts), seed=draw(st.integers(0, 9)))
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, size, size))
    except RuntimeError:  # the maps became too small
        assume(False)
    color = draw(st.tuples(*[st.integers(0, 255)] * 3))
    first, last = side // 2, size - side + side // 2
    places = st.lists(st.integers(first, last), min_size=1, max_size=4, unique=True)
    grid = Grid(y=tuple(sorted(draw(places))), x=tuple(sorted(draw(places))))
    errors, _ = compare_engines(
        wrap(network, canvas_size=size), size=size, object_size=side, background=color, grid=grid,
        n=draw(st.integers(1, 2)),
    )  # fmt: skip
    assert max(errors.values()) <= 1e-5


def test_a_rule_of_ones_own(wrap, disturb, compare_engines, monkeypatch):
    """A module that tracing cannot look into passes windows once it has a rule."""

    class Steep(nn.Module):
        def forward(self, values):
            return values * 2 if values.sum() == values.sum() else values  # no symbolic trace

    network = disturb(nn.Sequential(nn.Conv2d(3, 4, 3), Steep(), nn.Conv2d(4, 4, 3)))
    monkeypatch.setattr(window_rules, "_entries", dict(window_rules._entries))
    name = f"{Steep.__module__}.{Steep.__qualname__}"

    @window_rules.register(name, summary="twice the values")
    def steep(call):
        return Pointwise(call.module)

    errors, _ = compare_engines(wrap(network), size=24, object_size=6, stride=3)
    assert max(errors.values()) <= 1e-5


@pytest.mark.parametrize("name", list(window_rules))
def test_every_rule_says_what_it_is_for(name):
    assert window_rules.summary(name)
    assert callable(window_rules.get(name))


def test_early_layers_are_shared(model, make_sweep):
    """On a dense grid the first convolution is computed for a handful of windows only."""
    sweep = make_sweep(n=1, grid="all", layers="*", engine="incremental")
    engine = sweep.choice.compiled
    assert isinstance(engine, Incremental)
    first = next(iter(engine.steps.values()))
    assert len(set(first.axes[0].classes[:-1])) <= 5
    assert len(sweep.grid.y) == 17
