"""What is frozen stays to the bit, and the order of rates does not matter."""

import dataclasses
import sys
import types

import pytest
import torch
from torch import nn

from elsewhere.models import load_model
from elsewhere.training.optimisation import find_factors, freeze


class Custom(nn.Module):
    """A parameter of its own, frozen, above parts that are trained."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.ones(3, 1, 1))
        self.norm = nn.BatchNorm2d(3)
        self.line = nn.Linear(3, 2)

    def forward(self, x):
        return self.line(self.norm(x * self.token).mean((2, 3)))


def build_fixed():
    net = build_norm()
    net[0].requires_grad_(False)
    return net


def build_resting():
    net = build_norm(affine=True)
    net[1].eval()
    return net


def build_norm(affine=False):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=affine), nn.Dropout2d(0.5), nn.Conv2d(4, 4, 3),
        nn.InstanceNorm2d(4, track_running_stats=True), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


def build_spectral():
    net = build_norm()
    nn.utils.parametrizations.spectral_norm(net[3])
    return net


@pytest.fixture
def build(monkeypatch):
    module = types.ModuleType("freeze_nets")
    kinds = (Custom, build_fixed, build_resting, build_norm, build_spectral)
    vars(module).update({kind.__name__: kind for kind in kinds})
    monkeypatch.setitem(sys.modules, "freeze_nets", module)

    def build(name):
        return dataclasses.replace(load_model(f"freeze_nets:{name}"), canvas_size=12)

    return build


def steps(model, trainable):
    """Return what plain torch moves in three steps, by name."""
    names = freeze(model, trainable)
    network = model.module
    before = {name: value.clone() for name, value in network.state_dict().items()}
    named = dict(network.named_parameters())
    optimiser = torch.optim.SGD([named[name] for name in names], 0.1)
    torch.manual_seed(0)
    for _ in range(3):
        optimiser.zero_grad()
        network(torch.rand(4, 3, 12, 12)).pow(2).sum().backward()
        optimiser.step()
    return {
        name for name, value in network.state_dict().items() if not torch.equal(value, before[name])
    }


def training(model):
    return {name for name, part in model.module.named_modules() if part.training}


def test_everything_moves_under_all(build):
    model = build("build_norm")
    uncounted = {"4.num_batches_tracked"}  # torch does not count for normalisations of instances
    assert steps(model, ("all",)) == set(model.module.state_dict()) - uncounted
    assert training(model) == {name for name, _ in model.module.named_modules()}


@pytest.mark.parametrize(
    ("trainable", "moving", "asleep"),
    [
        (("8",), {"8"}, "01234"),
        # a dropout between frozen and trained layers belongs to the trained ones
        (("3", "8"), {"3", "4", "8"}, "01"),
        (("0",), {"0", "1"}, "345678"),
    ],
)
def test_what_is_frozen_stays_to_the_bit(build, trainable, moving, asleep):
    model = build("build_norm")
    assert {name.partition(".")[0] for name in steps(model, trainable)} == moving
    assert not training(model) & set(asleep)


def test_what_the_author_froze_stays_unless_it_is_named(build):
    assert "0.weight" not in steps(build("build_fixed"), ("all",))
    assert "1.running_mean" not in steps(build("build_fixed"), ("all",))
    assert "0.weight" in steps(build("build_fixed"), ("all", "0"))
    assert "1.running_mean" not in steps(build("build_resting"), ("all",))
    assert "1.running_mean" in steps(build("build_resting"), ("all", "1"))


def test_a_frozen_parameter_of_a_container_does_not_freeze_its_parts(build):
    model = build("Custom")
    moved = steps(model, ("norm", "line"))
    assert moved == set(model.module.state_dict()) - {"token"}


def test_power_iterations_of_a_frozen_layer_rest(build):
    moved = steps(build("build_spectral"), ("8",))
    assert {name.partition(".")[0] for name in moved} == {"8"}


def test_the_most_specific_rate_counts_in_any_order(build):
    model = build("build_norm")
    names = [name for name, _ in model.module.named_parameters()]
    rates = {"all": 0.5, "3": 2.0, "3.bias": 7.0, "8": 3.0}
    right = {"0": 0.5, "3": 2.0, "8": 3.0}
    for order in (list(rates), list(reversed(rates))):
        found = find_factors(model, {key: rates[key] for key in order}, names)
        assert found.pop("3.bias") == 7.0
        assert all(factor == right[name[0]] for name, factor in found.items())


def test_what_makes_a_frozen_modules_weights_stays_with_it(wrap):
    torch.manual_seed(0)
    norm = nn.utils.parametrizations.spectral_norm
    network = nn.Sequential(
        norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 484, 3)
    )
    model = wrap(network)
    freeze(model, ["3"])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weight = network[0].weight.clone()
    for _ in range(3):
        network(torch.rand(2, 3, 24, 24))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(network[0].weight, weight)
    freeze(model, ["0", "3"])
    assert network[0].parametrizations.weight[0].training
