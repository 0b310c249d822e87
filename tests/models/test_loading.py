import warnings

import pytest
import torch
from torch import nn

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.models import load_model
from elsewhere.models.model import unwrap

SMALL = {"channels": "4-8", "canvas": 16, "hidden": 6}
FACTORIES = """
import torch
from torch import nn

number = 3

def net(width=4, canvas=20):
    module = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Flatten())
    module.canvas_size = canvas
    return module

def parallel():
    return nn.DataParallel(net())

def single():
    return nn.Conv2d(3, 2, 3)

def lazy():
    return nn.Sequential(nn.LazyLinear(3))

def broken():
    raise RuntimeError("no such\\nluck")

def text():
    return "network"

class Nested:
    @staticmethod
    def build():
        return net()
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    (tmp_path / "my_factories.py").write_text(FACTORIES)
    (tmp_path / "my_broken.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "my_syntax.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)
    yield "my_factories"
    import sys

    for name in ("my_factories", "my_broken", "my_syntax"):
        sys.modules.pop(name, None)


def test_seed_decides_and_the_global_generator_is_untouched():
    before = torch.random.get_rng_state()
    models = [load_model("small-cnn", model_args=SMALL, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    digests = [model.weights_sha256 for model in models]
    assert digests[0] == digests[1] != digests[2]
    torch.rand(3)
    assert load_model("small-cnn", model_args=SMALL, seed=1).weights_sha256 == digests[0]


def test_model_is_in_evaluation_mode_and_described():
    model = load_model("small-cnn", model_args=SMALL)
    assert not any(part.training for part in model.module.modules())
    assert (model.name, model.weights, model.random_keys) == ("small-cnn", "none", ())
    assert (model.arguments, model.canvas_size) == (SMALL, 16)
    assert model.to("cpu") is model
    assert model.device == torch.device("cpu")
    assert load_model("resnet18", model_args={"num_classes": 3}).canvas_size == 224


def test_torchvision_networks_outside_the_zoo_load():
    model = load_model("squeezenet1_1", model_args={"num_classes": 5})
    assert model.module(torch.zeros(1, 3, 64, 64)).shape == (1, 5)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_random_logits_depend_on_the_input_without_warnings(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_model(name, model_args={"num_classes": 20})
    rng = torch.Generator().manual_seed(0)
    colors = torch.randint(0, 256, (4, 1, 1, 3), generator=rng, dtype=torch.uint8)
    pixels = colors.expand(4, 80, 80, 3).contiguous()
    pixels[:, 20:50, 20:50] = 255 - pixels[:, 20:50, 20:50]
    with torch.inference_mode():
        logits = model.module(model.transform.apply(pixels))
    assert logits.std(0).mean() > 0.1 * logits.std()
    assert logits.std() > 0.01


@pytest.mark.parametrize("name", ["vgg166", "resnet", "small_cnn", ""])
def test_unknown_names(name):
    with pytest.raises(UnknownNameError) as caught:
        load_model(name)
    assert "package.module:factory" in str(caught.value)
    if name:
        assert caught.value.nearest


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("small-cnn", {"depth": 3}, "accepted: channels, hidden, canvas, num_classes"),
        ("resnet18", {"classes": 3}, "accepted: num_classes"),
        ("mobilenet_v3_small", {"classes": 3}, "no model argument 'classes'"),
        ("resnet18", {"num_classes": "ten"}, "cannot build resnet18 with num_classes='ten'"),
        ("resnet18", {"num_classes": -2}, "cannot build resnet18"),
        ("resnet18", {"block": 3}, "cannot build resnet18 with block=3"),
        ("resnet18", {"weights": "DEFAULT"}, "choose with --weights"),
        ("small-cnn", {"dropout": "x"}, "cannot build small-cnn"),
    ],
)
def test_model_arguments_that_are_refused(name, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        load_model(name, model_args=arguments)
    assert "\n" not in str(caught.value)


def test_bad_seed():
    for seed in (-1, 2**63):
        with pytest.raises(InputError, match="seed must be"):
            load_model("small-cnn", seed=seed)


def test_factory_from_the_current_directory(factories, monkeypatch):
    import sys

    # A process started elsewhere would not have the current directory on its path.
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = list(sys.path)
    model = load_model(f"{factories}:net", model_args={"width": 6}, seed=4)
    assert model.module[0].out_channels == 6
    assert model.canvas_size == 20
    assert sys.path == before
    again = load_model(f"{factories}:Nested.build", seed=4)
    assert again.module[0].out_channels == 4
    assert not isinstance(load_model(f"{factories}:parallel").module, nn.DataParallel)
    assert list(load_model(f"{factories}:single").module.state_dict()) == ["0.weight", "0.bias"]


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("no_such_module:net", {}, InputError, "no module 'no_such_module'"),
        ("my_broken:net", {}, InputError, "not_installed_anywhere"),
        ("my_syntax:net", {}, InputError, "SyntaxError"),
        ("my_factories:nett", {}, UnknownNameError, "nearest: net"),
        ("my_factories:number", {}, InputError, "is a int; expected a function"),
        ("my_factories:net", {"depth": 2}, InputError, "accepted: width, canvas"),
        ("my_factories:broken", {}, InputError, "RuntimeError: no such luck"),
        ("my_factories:text", {}, InputError, "returned a str; expected a torch.nn.Module"),
        ("my_factories:lazy", {}, InputError, "lazy layers"),
        ("my_factories:", {}, InputError, "expected package.module:factory"),
        (":net", {}, InputError, "expected package.module:factory"),
    ],
)
def test_factories_that_fail(factories, name, arguments, error, message):
    with pytest.raises(error) as caught:
        load_model(name, model_args=arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unwrap():
    inner = nn.ReLU()
    assert unwrap(nn.DataParallel(nn.DataParallel(inner))) is inner
    assert unwrap(inner) is inner
