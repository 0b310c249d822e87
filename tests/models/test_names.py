import subprocess
import sys

import pytest
import torch

from elsewhere.errors import InputError
from elsewhere.models import aliases as aliases_module
from elsewhere.models import load_model
from elsewhere.models.aliases import aliases
from elsewhere.models.heads import name_head
from elsewhere.models.names import model_names, model_registry, parse_model_args
from elsewhere.models.zoo import small_cnn, vgg16_slim

VGG16_ALIASES = """
conv1_1 features.0, relu1_1 features.1, conv1_2 features.2, relu1_2 features.3, pool1 features.4,
conv2_1 features.5, relu2_1 features.6, conv2_2 features.7, relu2_2 features.8, pool2 features.9,
conv3_1 features.10, relu3_1 features.11, conv3_2 features.12, relu3_2 features.13,
conv3_3 features.14, relu3_3 features.15, pool3 features.16,
conv4_1 features.17, relu4_1 features.18, conv4_2 features.19, relu4_2 features.20,
conv4_3 features.21, relu4_3 features.22, pool4 features.23,
conv5_1 features.24, relu5_1 features.25, conv5_2 features.26, relu5_2 features.27,
conv5_3 features.28, relu5_3 features.29, pool5 features.30,
fc6 classifier.0, relu6 classifier.1, drop6 classifier.2,
fc7 classifier.3, relu7 classifier.4, drop7 classifier.5, logits classifier.6
"""


def on_meta(name, **arguments):
    with torch.device("meta"):
        return model_registry.get(name)(**arguments)


def test_names_are_listed_without_torch():
    program = (
        "import sys; from elsewhere.models.names import model_names; import elsewhere.models; "
        "print(len(model_names()), 'torch' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert out == [str(len(model_names())), "False"]


def test_the_package_exports_what_it_says():
    import elsewhere.models

    assert len(set(elsewhere.models.__all__)) == len(elsewhere.models.__all__)  # ruff sorts them
    for name in elsewhere.models.__all__:
        assert getattr(elsewhere.models, name) is not None
    with pytest.raises(AttributeError, match="no_such"):
        elsewhere.models.no_such  # noqa: B018
    assert aliases_module.aliases is aliases


@pytest.mark.parametrize("name", model_names())
def test_every_model_of_the_zoo_has_a_summary_and_logits(name):
    arguments = {"init_weights": False} if name == "googlenet" else {}
    module = on_meta(name, **arguments)
    found = aliases(module)
    assert model_registry.summary(name)
    if not found:  # a pass tells
        model = load_model(name)
        side = 33 if model.canvas_size > 64 else None
        heads = ("fc", "classifier", "classifier.2", "heads.head", "head")
        assert name_head(model, side).aliases["logits"] in heads
        return
    assert list(found)[-1] == "logits"
    modules = list(dict(module.named_modules()))
    places = [modules.index(target) for target in found.values()]
    assert places == sorted(set(places))
    assert not set(found) & set(modules)


def test_vgg16_aliases_by_hand():
    expected = [tuple(pair.split()) for pair in VGG16_ALIASES.replace("\n", " ").split(",")]
    assert list(aliases(on_meta("vgg16")).items()) == expected


def test_slim_networks_have_the_names_of_the_large_ones():
    for depth in (11, 13, 16, 19):
        large, slim = on_meta(f"vgg{depth}"), on_meta(f"vgg{depth}-slim")
        assert [name for name, _ in large.named_modules()] == [
            name for name, _ in slim.named_modules()
        ]
        assert list(large.state_dict()) == list(slim.state_dict())
        assert aliases(large) == aliases(slim)
    assert aliases(on_meta("vgg16_bn")) == aliases(on_meta("vgg16-slim", batch_norm=True))


def test_batch_norm_alexnet_and_small_aliases():
    batch_norm = aliases(on_meta("vgg16_bn"))
    assert batch_norm["conv1_1"] == "features.0"
    assert batch_norm["bn1_1"] == "features.1"
    assert batch_norm["relu5_3"] == "features.42"
    alexnet = on_meta("alexnet")
    kinds = {alias: type(alexnet.get_submodule(name)) for alias, name in aliases(alexnet).items()}
    for alias, kind in kinds.items():
        stem = alias.rstrip("0123456789")
        expected = {"conv": "Conv2d", "relu": "ReLU", "pool": "MaxPool2d"}.get(stem, "Linear")
        assert kind.__name__ == expected, alias
    assert [alias for alias in aliases(small_cnn()) if alias[:2] in ("po", "fc")] == (
        ["pool1", "pool2", "pool3", "pool4", "fc5", "fc6"]
    )


def test_logits_only_where_they_are_unambiguous():
    nn = torch.nn

    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.what, self.where = nn.Linear(4, 2), nn.Linear(4, 2)

    class OneHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

    assert aliases(TwoHeads()) == {}
    assert aliases(OneHead()) == {}  # a pass tells, see test_layers.py
    assert aliases(nn.Sequential(nn.Linear(4, 4), nn.Conv2d(1, 1, 1))) == {}
    assert aliases(nn.ModuleDict({"logits": nn.Linear(1, 1)})) == {}


def test_slim_network_has_the_size_asked_for():
    module = vgg16_slim(width=0.25, hidden=32, canvas=96, num_classes=7)
    widths = [part.out_channels for part in module.features if hasattr(part, "out_channels")]
    assert widths == [16, 16, 32, 32, *[64] * 3, *[128] * 6]
    assert module.classifier[0].in_features == 128 * 3 * 3
    for side in (96, 64, 128):
        assert module(torch.zeros(2, 3, side, side)).shape == (2, 7)
    assert small_cnn()(torch.zeros(1, 3, 48, 48)).shape == (1, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width must lie above 0"),
        ({"canvas": 31}, "too small for 5 poolings"),
        ({"hidden": 0}, "hidden must be an integer above 0"),
        ({"num_classes": "ten"}, "num_classes must be"),
        ({"dropout": 1.5}, "dropout must lie in 0..1"),
    ],
)
def test_slim_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        vgg16_slim(**arguments)


@pytest.mark.parametrize("channels", ["8-x", "", "8-0", (), None])
def test_small_cnn_refuses_channels(channels):
    with pytest.raises(InputError, match="channels="):
        small_cnn(channels=channels)


def test_parse_model_args():
    texts = ["a=1", "b=-2.5", "c=TRUE", "d=false", "e=x=y", "f=", "g=1e3"]
    parsed = parse_model_args(texts)
    expected = {"a": 1, "b": -2.5, "c": True, "d": False, "e": "x=y", "f": "", "g": 1e3}
    assert parsed == expected
    assert [type(value) for value in parsed.values()] == [type(v) for v in expected.values()]


@pytest.mark.parametrize("texts", [["a"], ["=1"], ["a b=1"], ["a=1", "a=2"]])
def test_parse_model_args_refuses(texts):
    with pytest.raises(InputError):
        parse_model_args(texts)
