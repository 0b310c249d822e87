"""What is a shortcut's own is seen in outputs and gradients, and nothing is left behind."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from elsewhere.models.proof import alike, find_difference, undisturbed

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Restless(nn.Module):
    """Draws, counts, keeps statistics, and changes an attribute in every pass."""

    def __init__(self):
        super().__init__()
        self.line, self.norm, self.calls = nn.Linear(4, 5), nn.BatchNorm1d(5), 0

    def forward(self, x):
        self.calls += 1
        noise = random.random() + np.random.rand() + float(torch.rand(()))  # noqa: NPY002
        return self.norm(self.line(x + noise)).tanh()


def make_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def test_nothing_is_left_behind():
    network = Restless()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pointers = [p.data_ptr() for p in network.parameters()]
    drawn = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    reason = find_difference(
        network, lambda: network(X.double()), lambda: network(X.double()),
        parameters=True, shaken=True, double=True,
    )  # fmt: skip
    assert reason == ""
    assert network.calls == 0
    assert pointers == [p.data_ptr() for p in network.parameters()]
    for name, value in network.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])
    assert random.getstate() == drawn[0]
    assert np.random.get_state()[1].tolist() == drawn[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), drawn[2])

    def fail():
        with undisturbed(network, shake=0.5):
            assert not torch.equal(network.line.weight, before["line.weight"])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(network.line.weight, before["line.weight"])


def test_differences_are_named():
    network = make_network()

    def compare(shortcut, **options):
        return find_difference(network, lambda: network(X), shortcut, **options)

    assert compare(lambda: network(X), parameters=True, shaken=True) == ""
    assert "its output" in compare(lambda: network(X) * 1.001)
    assert "shape (3, 1) instead of (3, 2)" in compare(lambda: network(X)[:, :1])
    assert "shortcut fails on random scenes (no" in compare(
        lambda: (_ for _ in ()).throw(OSError("no"))
    )
    # the same output, other gradients
    detached = lambda: network[2](network[1](network[0](X)).detach())  # noqa: E731
    assert compare(detached) == ""
    assert "gradient of 0.weight" in compare(detached, parameters=True)
    # equal as long as nothing is trained
    frozen = network(X).detach()
    assert compare(lambda: frozen) == ""
    assert "once the weights have changed" in compare(lambda: frozen, shaken=True)


def test_gradients_of_the_input():
    network, x = make_network(), X.clone().requires_grad_()
    assert find_difference(network, lambda: network(x), lambda: network(x), inputs=[x]) == ""
    straight = lambda: network(x.detach()) + 0 * x.sum()  # noqa: E731
    found = find_difference(network, lambda: network(x), straight, inputs=[x])
    assert "gradient of input 0" in found


def test_rounding_and_what_is_not_finite():
    values = torch.tensor([1.0, 100.0, torch.inf, torch.nan])
    assert alike(values + 1e-6 * torch.tensor([1, 1, 1, 1.0]), values)
    assert not alike(values + 0.01, values)
    assert not alike(torch.tensor([1.0, 100.0, 5.0, torch.nan]), values)
    assert not alike(values[:3], values)
