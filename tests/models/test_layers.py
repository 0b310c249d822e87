import sys
import types

import pytest
import torch
from torch import nn

from elsewhere.errors import InputError, LayerError, UnknownNameError
from elsewhere.forms import shortcuts
from elsewhere.models import (
    InputTransform,
    Layer,
    Model,
    list_layers,
    load_model,
    output_tensors,
    select_layers,
)
from elsewhere.models.aliases import aliases
from elsewhere.models.zoo import SlimVGG, small_cnn

SMALL = {"channels": "4-8", "canvas": 16, "hidden": 6}


def wrap(module, canvas_size=16):
    return Model("net", module, InputTransform(), aliases(module), "none", "", (), {}, canvas_size)


def hooks_of(module):
    return [hook for part in module.modules() for hook in part._forward_hooks.values()]


@pytest.mark.parametrize(
    ("name", "canvas_size"),
    [
        ("vgg16-slim", 64),
        ("vgg11-slim", 32),
        ("small-cnn", 48),
        ("resnet18", 33),
        ("googlenet", 33),
        ("densenet121", 33),
        ("alexnet", 63),
        ("mobilenet_v2", 33),
        ("shufflenet_v2_x0_5", 33),
    ],
)
def test_listing_agrees_with_hooks_of_its_own(name, canvas_size):
    """An independent run: every leaf's outputs, in order, with their shapes."""
    arguments = {"num_classes": 10} if name != "alexnet" else {"num_classes": 2}
    model = load_model(name, model_args=arguments)
    layers = list_layers(model, canvas_size)
    names = {part: label for label, part in model.module.named_modules()}
    seen = []
    handles = [
        part.register_forward_hook(
            lambda part, _, out: seen.append((names[part], type(part).__name__, out.shape[1:]))
        )
        for part in model.module.modules()
        if not list(part.children())
    ]
    with torch.no_grad():
        model.module(torch.zeros(1, 3, canvas_size, canvas_size))
    for handle in handles:
        handle.remove()
    assert [(layer.module, layer.kind, layer.shape) for layer in layers] == seen
    assert len({layer.name for layer in layers}) == len(layers)
    assert layers[-1].shape == (arguments["num_classes"],)


def test_names_calls_shapes_and_bytes():
    model = load_model("resnet18", model_args={"num_classes": 10})
    layers = {layer.name: layer for layer in list_layers(model, 64)}
    first = layers["layer1.0.relu:0"]
    assert (first.module, first.call, first.kind) == ("layer1.0.relu", 0, "ReLU")
    assert layers["layer1.0.relu:1"].call == 1
    assert "layer1.0.relu" not in layers
    assert layers["relu"].call == 0
    assert layers["logits"].module == "fc"
    assert layers["layer4.1.bn2"].shape == (512, 2, 2)
    assert layers["layer4.1.bn2"].bytes == 512 * 4 * 4
    assert layers["layer4.1.bn2"].is_map
    assert not layers["logits"].is_map
    assert layers["avgpool"].input_shape == (512, 2, 2)


def test_containers_follow_their_parts():
    model = load_model("small-cnn", model_args=SMALL)
    names = [layer.name for layer in list_layers(model, containers=True)]
    assert names[names.index("pool2") + 1] == "features"
    assert names[-2:] == ["logits", "classifier"]
    assert "features" not in [layer.name for layer in list_layers(model)]


def test_modes_are_restored_and_no_hook_stays():
    model = load_model("small-cnn", model_args=SMALL | {"batch_norm": True})
    model.module.train()
    model.module.features[1].eval()
    before = [part.training for part in model.module.modules()]
    state = {key: value.clone() for key, value in model.module.state_dict().items()}
    own = model.module.features[0].register_forward_hook(lambda *_: None)
    layers = list_layers(model)
    assert [part.training for part in model.module.modules()] == before
    assert len(hooks_of(model.module)) == 1
    own.remove()
    assert all(torch.equal(value, state[key]) for key, value in model.module.state_dict().items())
    assert layers == list_layers(model)


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 2, 3), nn.ReLU()

    def forward(self, values):
        self.second(self.first(values))
        raise RuntimeError("no\nluck")


def test_after_an_exception_modes_and_hooks_are_as_before():
    module = Failing().train()
    with pytest.raises(InputError, match=r"canvas of 16 px \(no luck\); canvases of .* fail as"):
        list_layers(wrap(module))
    assert all(part.training for part in module.modules())
    assert hooks_of(module) == []


def test_a_canvas_that_does_not_fit_names_the_natural_one():
    model = load_model("vgg16-slim")
    with pytest.raises(InputError, match=r"canvas of 16 px .* such as its own 64") as caught:
        list_layers(model, 16)
    assert "\n" not in str(caught.value)
    assert hooks_of(model.module) == []
    with pytest.raises(InputError, match="at least 1 px"):
        list_layers(model, 0)


def test_transformers_give_tokens_and_need_their_own_canvas():
    model = load_model("vit_b_32", model_args={"image_size": 64, "num_classes": 4})
    assert model.canvas_size == 64
    layers = {layer.name: layer for layer in list_layers(model)}
    assert layers["conv_proj"].shape == (768, 2, 2)
    assert (layers["conv_proj"].stride, layers["conv_proj"].receptive_field) == (32, 32)
    assert layers["encoder.ln"].shape == (5, 768)
    assert layers["encoder.ln"].stride == 32  # of its tokens, which have places
    assert (layers["encoder.ln"].tokens.height, layers["encoder.ln"].tokens.first) == (2, 1)
    attention = {layer.name for layer in list_layers(model, containers=True)}
    assert "encoder.layers.encoder_layer_0.self_attention" in attention
    with pytest.raises(InputError, match="such as its own 64"):
        list_layers(model, 96)


class Several(nn.Module):
    class Pair(nn.Module):
        def forward(self, values):
            return values, values.mean((2, 3))

    class Named(nn.Module):
        def forward(self, values):
            return {"left": values, "right": values + 1, "none": None}

    class Rows(nn.Module):
        def forward(self, values):
            return values.flatten(0, 1)

    class Count(nn.Module):
        def forward(self, values):
            return torch.ones(1, 2, dtype=torch.int64)

    def __init__(self):
        super().__init__()
        self.pair, self.named, self.rows, self.count = (
            self.Pair(),
            self.Named(),
            self.Rows(),
            self.Count(),
        )
        self.recurrent = nn.LSTM(16, 5, batch_first=True)
        self.silent = nn.ReLU()

    def forward(self, values):
        maps, means = self.pair(values)
        self.named(maps)
        self.named(maps)
        self.rows(maps)
        self.count(maps)
        self.recurrent(values[:, 0])
        return means


def test_outputs_with_several_tensors():
    layers = list_layers(wrap(Several()))
    assert [(layer.name, layer.shape) for layer in layers] == [
        ("pair[0]", (3, 16, 16)),
        ("pair[1]", (3,)),
        ("named:0[left]", (3, 16, 16)),
        ("named:0[right]", (3, 16, 16)),
        ("named:1[left]", (3, 16, 16)),
        ("named:1[right]", (3, 16, 16)),
        ("recurrent", (16, 5)),
    ]
    assert [layer.output for layer in layers][:3] == [0, 1, "left"]
    assert output_tensors(3) == {}


def test_layers_are_values():
    layer = Layer("a", "a", "ReLU", (2, 3, 4))
    assert layer == Layer("a", "a", "ReLU", (2, 3, 4))
    assert layer.bytes == 96
    assert len({layer, layer}) == 1


class Heads(nn.Module):
    """Its output is made by `what`; `spare` is defined last, `where` runs last."""

    def __init__(self, output="what"):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.what, self.where, self.spare = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(4, 3)
        self.output, self.canvas_size = output, 12

    def forward(self, x):
        h = self.body(x)
        what, where = self.what(h), self.where(h)
        return {"what": what, "scaled": 2 * what.relu(), "both": what + where}[self.output]


@pytest.mark.parametrize(("output", "head"), [("what", "what"), ("scaled", "what"), ("both", None)])
def test_logits_are_what_makes_the_output(output, head, monkeypatch):
    nets = types.ModuleType("head_nets")
    nets.net = lambda: Heads(output)
    monkeypatch.setitem(sys.modules, "head_nets", nets)
    found = load_model("head_nets:net")
    assert found.aliases == ({} if head is None else {"logits": head})
    layers = list_layers(found)
    assert [layer.module for layer in layers if layer.name == "logits"] == [*filter(None, [head])]
    if head is None:
        with pytest.raises(UnknownNameError, match="no linear layer makes the network's output"):
            select_layers(layers, "logits", found)


def test_logits_are_found_on_the_canvas_that_is_used():
    """A network that does not take its own canvas, which is a guess, takes the one asked for."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4), nn.Softmax(1))
    layers = list_layers(wrap(network, 224), 8)
    assert [layer.name for layer in layers] == ["0", "logits", "2"]


def test_a_vgg_with_a_way_of_its_own_is_looked_at():
    class Own(SlimVGG):
        def forward(self, x):
            return self.classifier[0](self.avgpool(self.features(x)).flatten(1))

    network = small_cnn(**SMALL)
    assert aliases(network)["logits"] == "classifier.6"
    network.__class__ = Own
    assert "logits" not in aliases(network)
    names = {layer.name: layer.module for layer in list_layers(wrap(network))}
    assert names["logits"] == "classifier.0"


class _Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.squeeze = nn.Conv2d(4, 2, 1)
        self.excite = nn.Conv2d(2, 4, 1)

    def forward(self, maps):
        return maps * self.excite(self.squeeze(maps.mean((2, 3), keepdim=True)).relu()).sigmoid()


class _Spot(nn.Module):
    """A gate that is a map of one channel, by attention to places."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, maps):
        both = torch.cat([maps.mean(1, keepdim=True), maps.amax(1, keepdim=True)], 1)
        return maps * self.conv(both).sigmoid()


class _Block(nn.Module):
    def __init__(self, *, early):
        super().__init__()
        self.shortcut = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.main = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.gate, self.spot = _Gate(), _Spot()
        self.early = early

    def forward(self, maps):
        if self.early:
            beside = self.shortcut(maps)
            return self.spot(self.gate(self.main(maps))) + beside
        found = self.spot(self.gate(self.main(maps)))
        return found.add_(self.shortcut(maps))


@pytest.mark.parametrize("early", [True, False])
def test_what_lies_beside_the_longest_way_is_known_by_what_is_computed_from_what(early):
    """Shortcuts before and after the branch that they pass by, and gates, which have no field."""
    network = nn.Sequential(
        _Block(early=early), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    layers = list_layers(wrap(network, 16), containers=True)
    beside = {layer.module for layer in layers if layer.beside}
    inner = {"0.shortcut.0", "0.shortcut.1", "0.shortcut", "0.spot.conv"}
    assert beside == inner | {"0.gate.squeeze", "0.gate.excite"}
    assert set(shortcuts(layers)) == {layer.name for layer in layers if layer.beside}
    assert all(layer.beside is False for layer in layers if layer.module not in beside)


def test_a_network_whose_ways_cannot_be_followed_says_nothing():
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 2, 3), nn.Linear(2, 2)

        def forward(self, images):
            means = self.conv(images).mean((2, 3)).tolist()
            return self.head(torch.tensor(means))

    layers = list_layers(wrap(Detached(), 8))
    assert [layer.beside for layer in layers] == [None, None]


class _Tabled(nn.Module):
    """A table of places through layers, as Swin v2's biases: one row, whatever the images."""

    def __init__(self, *, tracked=True):
        super().__init__()
        self.bias, self.act, self.conv = nn.Linear(2, 3), nn.GELU(), nn.Conv2d(3, 3, 1)
        self.rows, self.tracked = nn.Linear(3, 2), tracked

    def forward(self, images):
        maps = self.conv(images) + self.act(self.bias(torch.ones(1, 4, 2))).mean(1)[..., None, None]
        means = maps.mean((2, 3))
        return self.rows(means if self.tracked else torch.tensor(means.tolist()))


@pytest.mark.parametrize("tracked", [True, False])
def test_layers_that_hold_no_activation_of_an_image_are_not_listed(tracked):
    """What is computed without the images is left out; what they lead to by ways unknown is not."""
    model = wrap(_Tabled(tracked=tracked), 8)
    assert [layer.name for layer in list_layers(model)] == ["conv", "logits"]
    with pytest.raises(LayerError, match="'bias' .* a row per image"):
        select_layers(list_layers(model), ["bias"], model)


def test_a_module_that_also_gives_a_number_is_asked_like_others():
    class Pair(nn.Linear):
        def forward(self, table):
            return super().forward(table), table.sum()

    model = wrap(_Tabled(), 8)
    model.module.bias = Pair(2, 3)
    model.module.act = nn.Sequential(_First(), nn.GELU())
    assert [layer.name for layer in list_layers(model)] == ["conv", "logits"]


class _First(nn.Module):
    def forward(self, several):
        return several[0]


def test_a_network_that_takes_one_image_only_is_listed_whole():
    class Single(_Tabled):
        def forward(self, images):
            return super().forward(images.reshape(1, 3, 8, 8))

    assert len(list_layers(wrap(Single(), 8))) == 4
