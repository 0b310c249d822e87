"""What of a network determines its outputs, beside its state."""

import importlib
import sys

import numpy as np
import pytest
import torch
from torch import nn

from elsewhere.models import describe_code, load_model
from elsewhere.models.identity import own_classes, source_sha256

SOURCE = """
import torch
from torch import nn

class Base(nn.Module):
    def scale(self):
        return {scale}

class Own(Base):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, values):
        return self.layer(values) * self.scale()
"""


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Return a function that imports a module of the same name and another source."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(source):
        (tmp_path / "own_network.py").write_text(source)
        sys.modules.pop("own_network", None)
        importlib.invalidate_caches()
        import linecache

        linecache.clearcache()
        return importlib.import_module("own_network")

    yield load
    sys.modules.pop("own_network", None)


def test_the_source_of_own_classes_and_their_bases_counts(imported):
    torch.manual_seed(0)
    first = describe_code(imported(SOURCE.format(scale=1)).Own())
    same = describe_code(imported(SOURCE.format(scale=1)).Own())
    other = describe_code(imported(SOURCE.format(scale=2)).Own())
    assert set(first["source"]) == {"own_network.Own", "own_network.Base"}
    assert first == same
    assert first["architecture"] == other["architecture"]
    assert first["source"]["own_network.Own"] == other["source"]["own_network.Own"]
    assert first["source"]["own_network.Base"] != other["source"]["own_network.Base"]


def test_classes_of_torch_and_torchvision_are_named_by_their_version():
    described = describe_code(load_model("resnet18").module)
    assert described["source"] == {}
    assert described["torchvision"].startswith("0.")
    named = [
        f"{cls.__module__}.{cls.__qualname__}"
        for cls in own_classes(load_model("small-cnn").module)
    ]
    assert named == ["elsewhere.models.zoo.SlimVGG"]


def test_what_repr_does_not_show_counts():
    def network(**settings):
        torch.manual_seed(0)
        made = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        for name, value in settings.items():
            setattr(made[1], name, value)
        return describe_code(made)

    plain = network()
    assert network() == plain
    seen = [plain["settings"]]
    for settings in (
        {"scale": 2.0}, {"scale": 3.0}, {"mode": "wrap"}, {"table": torch.ones(3)},
        {"table": torch.ones(3, dtype=torch.float64)}, {"table": torch.tensor([1.0, 1, 2])},
        {"sizes": [1, 2]}, {"sizes": (1, 2)}, {"by": {"a": 1}}, {"array": np.arange(3)},
        {"act": lambda values: values + 1}, {"act": lambda values: values + 2},
        {"act": torch.relu}, {"act": torch.tanh},
    ):  # fmt: skip
        described = network(**settings)
        assert described["architecture"] == plain["architecture"]
        seen.append(described["settings"])
    assert len(set(seen)) == len(seen)


def test_the_mode_and_private_attributes_do_not_count():
    network = nn.Sequential(nn.Linear(3, 2), nn.Dropout())
    before = describe_code(network)
    network.eval()
    network[0]._cache = 3
    assert describe_code(network) == before


def test_hooks_count():
    network = nn.Sequential(nn.Linear(3, 2))
    before = describe_code(network)["settings"]
    handle = network[0].register_forward_hook(lambda module, inputs, output: output * 2)
    assert describe_code(network)["settings"] != before
    handle.remove()
    assert describe_code(network)["settings"] == before


def test_classes_without_source_are_told_apart_by_their_code():
    scope = {}
    exec("class Made:\n    def f(self):\n        return {1, 2} and 'a'", scope)
    one = source_sha256(scope["Made"])
    exec("class Made:\n    def f(self):\n        return {1, 2} and 'a'", scope)
    assert source_sha256(scope["Made"]) == one
    exec("class Made:\n    def f(self):\n        return {1, 2} and 'b'", scope)
    assert source_sha256(scope["Made"]) != one


def test_versions_of_a_checkout_that_is_not_installed(monkeypatch):
    import elsewhere
    from elsewhere.models.machine import importlib, versions_of

    def missing(name):
        if name == "elsewhere":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.2"

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert versions_of("elsewhere", "numpy") == {"elsewhere": elsewhere.__version__, "numpy": "1.2"}
