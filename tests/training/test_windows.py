"""The pass on tiles gives what the pass on whole canvases gives, gradients included."""

import copy
import sys
import types
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from elsewhere.models import InputTransform, load_model
from elsewhere.models.forward import Paster
from elsewhere.stimuli import Canvas, load_objects
from elsewhere.training import Network, list_checkpoints, train, windows
from elsewhere.training.blocks import best_depth, find_blocks
from elsewhere.training.checkpoints import read_weights
from elsewhere.training.windows import WindowedForward, make_forward

CPU = torch.device("cpu")
NETWORKS = {
    "small-cnn": {"channels": "3-4-5", "hidden": 6},
    "vgg11-slim": {"width": 0.05, "hidden": 6},
    "vgg16-slim": {"width": 0.05, "hidden": 6},
}


def make_network(name, canvas, **arguments):
    arguments = {**NETWORKS[name], "num_classes": 4, "dropout": 0.0, "canvas": canvas} | arguments
    network = load_model(name, model_args=arguments).module
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:  # biases make the empty canvas visible
                parameter.normal_(0, 0.3, generator=generator)
    return network


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(list(NETWORKS)),
    size=st.sampled_from([32, 48, 64]),
    side=st.integers(3, 14),
    background=st.sampled_from([0, 80, (10, 200, 90)]),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_tiles_equal_the_whole(name, size, side, background, seed, data):
    network = make_network(name, size)
    blocks = find_blocks(network, torch.zeros(1, 3, size, size))
    canvas = Canvas(size, side, background)
    depth = data.draw(st.integers(1, min(3, len(blocks))))
    paster = Paster(canvas, InputTransform(gain=3.0), rows=9, device=CPU)
    patches = paster.load(load_objects("glyphs", size=side, categories=9, seed=seed))
    low, high = canvas.valid[0], canvas.valid[-1]
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(low, high + 1, (9, 2), generator=generator)
    places[:4] = torch.tensor([[low, low], [low, high], [high, low], [high, high]])
    whole = network(paster.paste(patches, places))
    expected = torch.autograd.grad(whole.pow(2).sum(), network.parameters())
    for grey in (False, True) if isinstance(background, int) else (False,):
        tiled = WindowedForward(network, canvas, paster.transform, grey=grey, depth=depth)
        if tiled.window > size >> depth:
            return
        logits = tiled(patches, places)
        assert torch.allclose(
            logits, whole, rtol=1e-4, atol=1e-4 * float(whole.detach().abs().max())
        )
        gradients = torch.autograd.grad(logits.pow(2).sum(), network.parameters())
        for mine, theirs in zip(gradients, expected, strict=True):
            assert (mine - theirs).abs().max() <= 1e-3 * theirs.abs().max() + 1e-5


def test_only_networks_that_begin_like_vgg_are_tiled():
    image = torch.zeros(1, 3, 48, 48)
    assert find_blocks(make_network("small-cnn", 48, batch_norm=True), image) == ()
    assert find_blocks(load_model("alexnet").module, torch.zeros(1, 3, 224, 224)) == ()
    assert find_blocks(load_model("resnet18").module, image) == ()
    blocks = find_blocks(make_network("small-cnn", 48), image)
    assert len(blocks) == 3
    assert best_depth(blocks, Canvas(48, 11)) == 2
    assert best_depth(blocks, Canvas(48, 44)) == 0  # the object fills the canvas
    assert best_depth(blocks, Canvas(47, 11)) == 0  # the last row and column are dropped


@pytest.mark.parametrize(("size", "tiled"), [(48, True), (47, False)])
def test_the_choice_keeps_the_answer(size, tiled):
    network = make_network("small-cnn", 48)
    canvas = Canvas(size, 11)
    paster = Paster(canvas, InputTransform(), rows=5, device=CPU)
    patches = paster.load(load_objects("glyphs", size=11, categories=3))
    way = make_forward(network, paster, patches, training=True)
    forward = way.forward
    assert isinstance(forward, WindowedForward) == tiled
    assert not way.notes
    places = torch.tensor([[5, 5], [20, 30], [40, 6]])
    expected = network(paster.paste(patches, places))[:3]
    assert torch.allclose(forward(patches, places), expected, atol=1e-5)


class Scaled(nn.Conv2d):
    """Convolves with other weights than those that it holds."""

    def forward(self, x):
        return functional.conv2d(x, 2 * self.weight, self.bias, self.stride, self.padding)


def features(convolution=nn.Conv2d):
    return nn.Sequential(
        convolution(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    )  # fmt: skip


class Net(nn.Module):
    """Looks like a VGG by its children; `act` says what else it does."""

    def __init__(self, act="", convolution=nn.Conv2d):
        super().__init__()
        self.features, self.avgpool = features(convolution), nn.AdaptiveAvgPool2d(4)
        self.classifier, self.act = nn.Linear(128, 4), act
        self.scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        if self.act == "standardise":
            x = (x - 0.5) / 0.25
        if self.act == "only in training" and self.training:
            x = x * 0.5
        maps = self.features(x)
        if self.act == "stop":
            maps = maps.detach()
        if self.act == "later":  # nothing as long as `scale` is 0
            maps = maps + self.scale * x.mean((1, 2, 3), keepdim=True)
        if self.act == "skip":
            maps = maps + functional.max_pool2d(self.features[0](x), 4)
        if self.act == "noise":
            maps = maps + torch.rand_like(x[:, :1, ::4, ::4])
        return self.classifier(self.avgpool(maps).flatten(1))


class Renamed(nn.Module):
    """The same layers under names of its own."""

    def __init__(self):
        super().__init__()
        self.eye, self.brain = features(), nn.Sequential(nn.Flatten(), nn.Linear(1152, 4))

    def forward(self, image):
        return self.brain(self.eye(image))


def hooked(kind):
    net = Net()
    if kind == "output":
        net.features[0].register_forward_hook(lambda part, given, out: out + 1)
    elif kind == "container":
        net.features.register_forward_pre_hook(lambda part, given: (given[0] * 2,))
    elif kind == "root":
        net.register_forward_hook(lambda part, given, out: out * 3)
    elif kind == "gradient":
        net.features[0].weight.register_hook(lambda gradient: gradient * 0)
    elif kind == "method":
        net.features[0].forward = lambda x: functional.conv2d(
            x, net.features[0].weight * 3, padding=1
        )
    return net


def changed(change):
    net = Net()
    change(net.features[0])
    return net


ODD = {
    "standardise": lambda: Net("standardise"),
    "only in training": lambda: Net("only in training"),
    "stop": lambda: Net("stop"),
    "later": lambda: Net("later"),
    "skip": lambda: Net("skip"),
    "noise": lambda: Net("noise"),
    "subclass": lambda: Net(convolution=Scaled),
    "plain": Net,
    "renamed": Renamed,
    **{f"hook {kind}": lambda kind=kind: hooked(kind)
       for kind in ("output", "container", "root", "gradient", "method")},
    "pruned": lambda: changed(lambda c: prune.l1_unstructured(c, "weight", 0.5)),
    "weight norm": lambda: changed(parametrizations.weight_norm),
    "weight norm by hooks": lambda: changed(old_weight_norm),
    "spectral norm": lambda: changed(parametrizations.spectral_norm),
    "spectral norm by hooks": lambda: changed(nn.utils.spectral_norm),
    "strides": lambda: changed(lambda c: setattr(c, "padding_mode", "reflect")),
}  # fmt: skip
DOUBTED = {"only in training", "later"}
"""Networks whose first modules are plain, but which do something else with the image."""
WINDOWED = {"plain", "renamed", "stop", "noise", "hook gradient", "hook root"}
"""Networks that do something else too, but nothing that windows change."""


def old_weight_norm(part):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(part)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", list(ODD))
def test_whatever_it_is_it_is_the_network_that_runs(name, training):
    torch.manual_seed(0)
    network = ODD[name]().train(training)
    canvas = Canvas(48, 11, 30)
    paster = Paster(canvas, InputTransform(), rows=6, device=CPU)
    patches = paster.load(load_objects("glyphs", size=11, categories=6))
    way = make_forward(network, paster, patches, training=training)
    forward = way.forward
    places = torch.tensor([[5, 5], [20, 30], [40, 6], [42, 42], [11, 20], [30, 5]])
    for _ in range(3 if training else 1):  # weights change, and both move alike
        state = copy.deepcopy(network.state_dict())
        results = []
        for run in (
            lambda: network(paster.paste(patches, places)),
            lambda: forward(patches, places),
        ):
            network.load_state_dict(state)
            torch.manual_seed(1)
            output = run()
            wanted = [p for p in network.parameters() if p.requires_grad]
            gradients = torch.autograd.grad(output.pow(2).sum(), wanted, allow_unused=True)
            results.append((output, gradients))
        (output, gradients), (found, others) = results
        assert torch.allclose(found, output, rtol=1e-4, atol=1e-5)
        for mine, theirs in zip(others, gradients, strict=True) if training else ():
            assert (mine is None) == (theirs is None)
            assert mine is None or torch.allclose(mine, theirs, rtol=1e-3, atol=1e-4)
        with torch.no_grad():
            for parameter, gradient in zip(wanted, gradients, strict=True):
                parameter.sub_(0.01 * gradient if gradient is not None else 0)
    unseen = name in ("later", "only in training") and not training
    assert isinstance(forward, WindowedForward) == (name in WINDOWED or unseen), way.name
    assert ("whole canvases" in way.name) != isinstance(forward, WindowedForward)
    assert bool(way.notes) == (name in DOUBTED and not unseen)


class Turning(Net):
    """Does something else from its 20th pass in training on."""

    calls = 0

    def forward(self, x):
        self.calls += self.training
        return super().forward(x if self.calls < 20 else 1 - x)


class Scheduled(Turning):
    """The same by a schedule in a buffer, and for part of its maps only."""

    def forward(self, x):
        with torch.no_grad():
            self.seen += self.training
        maps = self.features(x)
        if self.seen >= 20:
            maps = maps + functional.max_pool2d(self.features[1](self.features[0](x)), 4)
        return self.classifier(self.avgpool(maps).flatten(1))


@pytest.mark.parametrize("kind", [Turning, Scheduled])
def test_windows_that_hold_no_longer_are_given_up_at_that_step(
    kind, monkeypatch, tmp_path, make_curriculum, make_phase
):
    """The right weights are those of a run that never takes windows."""
    module = types.ModuleType("turning_nets")
    module.build = kind
    monkeypatch.setitem(sys.modules, "turning_nets", module)
    phase = make_phase(
        categories=4, steps=30, batch=4, checkpoints=(0, 30), optimiser="sgd", learning_rate=0.01
    )
    network = Network("turning_nets:build")
    curriculum = make_curriculum(phase, network=network, canvas=Canvas(48, 11))
    train(curriculum, tmp_path / "windows", device="cpu")
    monkeypatch.setattr(windows, "best_depth", lambda *_: 0)
    train(curriculum, tmp_path / "whole", device="cpu")
    cards, plain = (list_checkpoints(tmp_path / name) for name in ("windows", "whole"))
    assert (cards[0].passes, cards[0].notes) == ("windows", ())
    assert "whole canvases: windows would" in plain[-1].passes
    found, right = read_weights(cards[-1]), read_weights(plain[-1])
    for name, values in right.items():
        assert torch.allclose(found[name], values, rtol=1e-3, atol=1e-5), name
    assert not torch.equal(right["features.0.weight"], read_weights(plain[0])["features.0.weight"])
    if kind is Turning:
        assert "windows up to step 19, then on whole canvases" in cards[-1].notes[0]


SWITCH = {"on": False}


class Switched(Net):
    """Looks at a switch outside, of which nothing in it tells."""

    def forward(self, x):
        return super().forward(x.clamp(max=0.3) if SWITCH["on"] else x)


class InPlace(Net):
    """Overwrites its image, after its first convolution, for bright images only."""

    def forward(self, x):
        maps = self.features[0](x)
        if SWITCH["on"]:
            x.mul_(2)
        maps = self.features[2](self.features[1](maps)) + 0 * len(x)
        maps = self.features[3:](maps)
        if SWITCH["on"]:
            maps = maps + x.mean((1, 2, 3), keepdim=True)
        return self.classifier(self.avgpool(maps).flatten(1))


def clamp_weights(net):
    """Keep weights in their range when the network runs, as max-norm constraints do."""

    def hook(part, given):
        part.features[0].weight.data.clamp_(-0.05, 0.05)

    net.register_forward_pre_hook(hook)


def quietly(x):
    """As a function in C++ does, past torch's Python functions."""
    with torch._C.DisableTorchFunctionSubclass():
        return bool((x > 0.5).any())


class Peeking(Net):
    """Looks, once it is told how, at its image or at the first map."""

    look, at_map = None, False

    def forward(self, x):
        if self.at_map:
            quietly(self.features[0](x))
        seen = self.look is not None and self.look(x)
        return super().forward(x) * (2.0 if seen else 1.0)


TURNS = {
    "past functions": (Peeking, lambda net: setattr(net, "look", quietly)),
    "switch": (Switched, lambda net: SWITCH.update(on=True)),
    "image overwritten": (InPlace, lambda net: SWITCH.update(on=True)),
    "padding": (Net, lambda net: setattr(net.features[3], "padding_mode", "reflect")
                or setattr(net.features[3], "_reversed_padding_repeated_twice", [1] * 4)),
    "hook": (Net, lambda net: net.features[0].register_forward_hook(lambda p, x, out: out - 0.2)),
    "forward": (Net, lambda net: setattr(net.features[1], "forward", functional.gelu)),
    "module": (Net, lambda net: net.features.__setitem__(2, nn.AvgPool2d(2))),
    "constraint": (Net, clamp_weights),
    "subclass": (Net, lambda net: setattr(net.features[0], "__class__", Scaled)),
}  # fmt: skip


@pytest.mark.parametrize("turn", list(TURNS))
def test_whatever_changes_later_is_seen_in_that_pass(turn):
    torch.manual_seed(0)
    build, change = TURNS[turn]
    network = build()
    canvas = Canvas(48, 11, 30)
    paster = Paster(canvas, InputTransform(), rows=3, device=CPU)
    patches = paster.load(load_objects("glyphs", size=11, categories=3))
    way = make_forward(network, paster, patches, training=True)
    assert way.name == "windows"
    places = torch.tensor([[5, 5], [20, 30], [42, 42]])
    before = network(paster.paste(patches, places))
    try:
        change(network)
        twin = copy.deepcopy(network)
        found = way.forward(patches, places)
        right = twin(paster.paste(patches, places))
    finally:
        SWITCH.update(on=False)
    assert torch.allclose(found, right, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, right, rtol=1e-3, atol=1e-3)
    if build is InPlace:  # torch itself has no gradient of it
        return
    own, others = (
        torch.autograd.grad(out.pow(2).sum(), list(net.parameters())[1:], allow_unused=True)
        for out, net in ((found, network), (right, twin))
    )
    for mine, theirs in zip(own, others, strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or torch.allclose(mine, theirs, rtol=1e-3, atol=1e-5)


def test_a_map_that_is_looked_at_past_functions_is_an_error():
    network, canvas = Peeking(), Canvas(48, 11, 30)
    paster = Paster(canvas, InputTransform(), rows=3, device=CPU)
    patches = paster.load(load_objects("glyphs", size=11, categories=3))
    way = make_forward(network, paster, patches, training=True)
    network.at_map = True
    with pytest.raises(RuntimeError, match="past torch's Python functions.*whole_canvases = True"):
        way.forward(patches, torch.tensor([[5, 5], [20, 30], [42, 42]]))
    network.whole_canvases = True
    assert make_forward(network, paster, patches, training=True).name.startswith("whole canvases")


def test_the_brightest_object_is_tried_before_windows_are_trusted():
    """Noise is half as bright as a full square: a threshold between the two is crossed by it."""

    class Dazzled(Net):
        def forward(self, x):
            maps = self.features(x)
            return self.classifier(self.avgpool(maps * (x.mean() < 0.03)).flatten(1))

    class Noticing(Net):  # the values are right even where no proof sees it
        def forward(self, x):
            bright = x.mean((1, 2, 3)) > 0.04
            maps = self.features(x) * torch.where(bright, 0.0, 1.0)[:, None, None, None]
            return self.classifier(self.avgpool(maps).flatten(1))

    canvas = Canvas(48, 11)
    paster = Paster(canvas, InputTransform(), rows=3, device=CPU)
    patches = torch.rand(3, 121, 1, generator=torch.Generator().manual_seed(0)).repeat(1, 1, 3)
    patches[1] = 1.0
    places = torch.tensor([[5, 5], [20, 30], [42, 42]])
    for kind in (Dazzled, Noticing):
        torch.manual_seed(0)
        network = kind().eval()
        way = make_forward(network, paster, patches, training=False)
        found = way.forward(patches, places)
        assert torch.allclose(found, network(paster.paste(patches, places)), atol=1e-5)
    assert "not on windows" in way.name
