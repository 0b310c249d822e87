"""A run that is killed ends as one that is not, whatever the network remembers; or says so."""

import functools
import itertools
import os
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from elsewhere.models.memory import Memory
from elsewhere.stimuli import Canvas
from elsewhere.training import Network, list_checkpoints, train
from elsewhere.training.checkpoints import read_weights


class Net(nn.Module):
    """A linear network; `shift` says what it adds in training."""

    def __init__(self):
        super().__init__()
        self.flat, self.line = nn.Sequential(nn.AvgPool2d(4), nn.Flatten()), nn.Linear(48, 5)
        self.prepare()

    def prepare(self):
        """Make what it remembers."""

    def shift(self):
        return 0.0

    def forward(self, x):
        return self.line(self.flat(x)) + (self.shift() if self.training else 0.0)


class Drawing(Net):
    def prepare(self):
        self.rng = np.random.default_rng(3)

    def shift(self):
        return torch.from_numpy(self.rng.normal(size=5).astype(np.float32))


class Configured(Net):
    """Generators in a list in an object, and of torch."""

    class Noise:
        pass

    def prepare(self):
        self.noise = self.Noise()
        self.noise.sources = [torch.Generator().manual_seed(5), np.random.RandomState(4)]

    def shift(self):
        first, second = self.noise.sources
        return torch.rand(5, generator=first) + float(second.rand())


class Counting(Net):
    def prepare(self):
        self.flat.calls, self.history = 0, []
        self.settings = types.SimpleNamespace(rate=1.0)

    def shift(self):
        self.flat.calls += 1
        self.settings.rate *= 0.98
        self.history.append(float(self.line.weight.detach().abs().mean()))
        return torch.arange(5.0) * (self.flat.calls % 7) * self.settings.rate + sum(self.history)


class Buffered(Net):
    """Statistics in a buffer that is not saved, and in a plain tensor."""

    def prepare(self):
        self.register_buffer("mean", torch.zeros(5), persistent=False)
        self.last = torch.zeros(5)

    def shift(self):
        self.mean = 0.9 * self.mean + 0.1 * self.line.bias.detach()
        self.last = self.last * 0.5 + self.mean + 0.1
        return self.last + self.mean


class Hooked(Net):
    def prepare(self):
        counts = [0]

        def hook(step, part, given, output):
            counts[0] += step
            return output * (1 + counts[0] % 5)

        self.flat.register_forward_hook(functools.partial(hook, 1))


class Streaming(Net):
    """An iterator, which nothing can copy."""

    def prepare(self):
        self.stream = (float(n % 3) for n in itertools.count())

    def shift(self):
        return torch.arange(5.0) * next(self.stream)


CALLS = 0


class Outside(Net):
    def shift(self):
        global CALLS
        CALLS += 1
        return torch.arange(5.0) * (CALLS % 3)


class Chaotic(Net):
    def shift(self):
        return torch.arange(5.0) * (os.urandom(1)[0] / 255)


@pytest.fixture
def of(monkeypatch, make_curriculum, make_phase):
    """A curriculum of two phases for a network."""
    module = types.ModuleType("memory_nets")
    monkeypatch.setitem(sys.modules, "memory_nets", module)

    def make(kind, more=60):
        module.build = kind
        first = make_phase(steps=60, batch=4, checkpoints=(0, 55))
        second = make_phase("more", steps=more, batch=4, new_head=True, checkpoints=(0,))
        network = Network("memory_nets:build")
        return make_curriculum(first, second, network=network, canvas=Canvas(16, 7))

    return make


class Stop(Exception):
    pass


def train_with_breaks(curriculum, out, *breaks):
    """Train, and begin again from the last state at these phases and steps."""
    for phase, step in breaks:

        def stop(report, at=(phase, step)):
            if (report.phase, report.step) == at:
                raise Stop

        with pytest.raises(Stop):
            train(curriculum, out, device="cpu", progress=stop, save_every=0)
    train(curriculum, out, device="cpu", save_every=0)
    return list_checkpoints(out)


@pytest.mark.parametrize("kind", [Drawing, Configured, Counting, Buffered, Hooked])
def test_what_it_remembers_is_kept_and_given_back(kind, of, tmp_path):
    curriculum = of(kind)
    whole = train_with_breaks(curriculum, tmp_path / "whole")
    broken = train_with_breaks(curriculum, tmp_path / "broken", ("learn", 60), ("more", 60))
    for one, other in zip(whole, broken, strict=True):
        assert one.notes == other.notes
        assert one.sha256 == other.sha256, (one.phase, one.step)
    plain = train_with_breaks(of(Net), tmp_path / "plain")
    assert whole[-1].sha256 != plain[-1].sha256


def test_a_phase_starts_from_weights_alone(of, tmp_path):
    """As a checkpoint holds nothing else: the right counts begin anew in the second phase."""
    seen = []

    class Watched(Counting):
        def shift(self):
            found = super().shift()
            seen.append(self.flat.calls)
            return found

    train_with_breaks(of(Watched, 40), tmp_path)
    assert (max(seen), seen[-1]) == (60, 40)


def test_what_cannot_be_kept_is_said_for_good(of, tmp_path):
    whole = train_with_breaks(of(Streaming), tmp_path / "whole")
    assert not any("went on without" in note for card in whole for note in card.notes)
    broken = train_with_breaks(of(Streaming), tmp_path / "broken", ("learn", 60))
    assert broken[-1].sha256 != whole[-1].sha256
    for card in broken[2:]:  # the second phase's as well
        assert any("the run went on without stream" in note for note in card.notes)


@pytest.mark.parametrize(
    ("kind", "words"), [(Outside, "CALLS, outside itself"), (Chaotic, "no seed reaches")]
)
def test_what_lies_outside_is_said(kind, words, of, tmp_path):
    cards = train_with_breaks(of(kind), tmp_path)
    assert any(words in note for note in cards[-1].notes)


def test_what_checkpoints_do_not_hold_is_said(of, tmp_path):
    class Lasting(Buffered):
        def forward(self, x):
            return super().forward(x) + self.mean * torch.arange(5.0)

    cards = train_with_breaks(of(Lasting), tmp_path)
    assert cards[0].notes == ()
    assert "remembers mean, last outside its state_dict" in cards[-1].notes[0]
    assert train_with_breaks(of(Counting), tmp_path / "counting")[-1].notes == ()


def test_a_memory_gives_back_what_it_was():
    network = Configured()
    memory = Memory(network)
    before = [network.shift().tolist() for _ in range(2)]
    kept = memory.changed()
    assert list(kept) == ["noise"]
    after = network.shift().tolist()
    memory.restore()
    assert [network.shift().tolist() for _ in range(2)] == before
    memory.restore(kept)
    assert network.shift().tolist() == after
    other = Configured()  # another process
    Memory(other).restore(kept)
    assert other.shift().tolist() == after
    assert Memory(Net()).changed() == {}


def test_weights_are_what_is_compared(of, tmp_path):
    cards = train_with_breaks(of(Net), tmp_path)
    first, last = read_weights(cards[0]), read_weights(cards[2])
    assert not torch.equal(first["line.weight"], last["line.weight"])
    assert all(card.notes == () for card in cards)
