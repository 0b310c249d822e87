"""A head trained alone takes what the frozen layers give it from a table, and learns the same."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from elsewhere.training import Exemplars, Network, frozen_trunk, list_checkpoints, stage, train
from elsewhere.training.batches import Presentations
from elsewhere.training.statistics import untouched

PASSES = []


class Counted(nn.Module):
    """Convolutions with normalisation, pooled, a dropout and a head; its passes are counted."""

    def __init__(self, num_classes=5, dropout=0.0, noise=0.0):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 8, 3, padding=1)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(8 * 16, num_classes)
        self.noise = noise

    def forward(self, images):
        PASSES.append(len(images))
        maps = self.second(self.norm(self.first(images)).relu()).relu()
        if self.noise and self.training:
            maps = maps + self.noise * torch.rand_like(maps)
        return self.fc(self.drop(nn.functional.adaptive_avg_pool2d(maps, 4).flatten(1)))


def built(num_classes=5, dropout=0.0, noise=0.0):
    return Counted(num_classes, dropout, noise)


NAME = f"{__name__}:built"


def head_only(make_curriculum, make_phase, arguments=None, **keys):
    phase = make_phase(
        **{"environment": "one", "trainable": ("fc",), "new_head": True, "steps": 30, **keys}
    )
    network = Network(NAME, arguments=arguments or {}, gain=4.0)
    return make_curriculum(phase, network=network)


def last(out):
    return load_file(list_checkpoints(out, trust={NAME})[-1].path)


def without_table(monkeypatch):
    monkeypatch.setattr(frozen_trunk, "LARGEST", 0)


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        ({}, {}),
        ({"dropout": 0.3}, {"optimiser": "sgd", "learning_rate": 0.1}),
        ({}, {"environment": "pinned", "ema": 0.9, "label_smoothing": 0.1}),
    ],
)
def test_a_table_gives_the_weights_of_training_with_the_trunk(
    make_curriculum, make_phase, tmp_path, monkeypatch, arguments, keys
):
    curriculum = head_only(make_curriculum, make_phase, arguments, **keys)
    PASSES.clear()
    train(curriculum, tmp_path / "table", device="cpu", trust={NAME})
    short = len(PASSES)
    cards = list_checkpoints(tmp_path / "table", trust={NAME})
    assert {card.passes for card in cards} == {frozen_trunk.TABLE}
    without_table(monkeypatch)
    PASSES.clear()
    train(curriculum, tmp_path / "whole", device="cpu", trust={NAME})
    others = list_checkpoints(tmp_path / "whole", trust={NAME})
    assert len(PASSES) >= short + 25  # each step of the 30 is a pass but for the table's own
    found, expected = last(tmp_path / "table"), last(tmp_path / "whole")
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=0, atol=1e-6)
    assert [c.accuracy_on for c in cards] == [c.accuracy_on for c in others]
    assert [c.accuracy_off for c in cards] == [c.accuracy_off for c in others]


def test_the_head_learns_what_plain_torch_learns(
    make_curriculum, make_phase, tmp_path, monkeypatch
):
    """The same batches, shown to the whole network in a loop of plain torch."""
    kept = {}
    draw = Presentations.draw

    def listen(self, first, count):
        kept["it"] = self
        return draw(self, first, count)

    monkeypatch.setattr(Presentations, "draw", listen)
    curriculum = head_only(make_curriculum, make_phase, checkpoints=(0,))
    train(curriculum, tmp_path, device="cpu", trust={NAME})
    shown = kept["it"]
    network = built()
    start = list_checkpoints(tmp_path, trust={NAME})[0]
    network.load_state_dict(load_file(start.path))
    network.eval()
    optimiser = torch.optim.Adam(network.fc.parameters(), 1e-3)
    rows, places = draw(shown, 0, 30)
    for step in range(30):
        images = shown._paster.paste(shown.patches[rows[step]], places[step])
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(network(images), shown.labels[rows[step]])
        loss.backward()
        optimiser.step()
    torch.testing.assert_close(
        last(tmp_path)["fc.weight"], network.fc.weight.detach(), rtol=0, atol=1e-6
    )


def test_what_changes_from_one_presentation_to_the_next_has_no_table(
    make_curriculum, make_phase, tmp_path
):
    cases = {
        "everywhere": ({}, {"environment": "full"}),
        "all": ({}, {"trainable": ("second", "fc")}),
        "noisy": ({"noise": 0.1}, {}),
        "few": ({}, {"steps": 1, "batch": 2, "exemplars": Exemplars(6, 0)}),
    }
    for name, (arguments, keys) in cases.items():
        curriculum = head_only(make_curriculum, make_phase, arguments, **keys)
        train(curriculum, tmp_path / name, device="cpu", trust={NAME})
        card = list_checkpoints(tmp_path / name, trust={NAME})[-1]
        assert card.passes != frozen_trunk.TABLE, name


def test_a_killed_run_goes_on_alike(make_curriculum, make_phase, tmp_path, monkeypatch):
    curriculum = head_only(make_curriculum, make_phase, steps=120)
    train(curriculum, tmp_path / "whole", device="cpu", trust={NAME})
    run = stage.Stage._block

    def stop(self, first):
        if first == 100:
            raise KeyboardInterrupt
        return run(self, first)

    monkeypatch.setattr(stage.Stage, "_block", stop)
    with pytest.raises(KeyboardInterrupt):
        train(curriculum, tmp_path / "cut", device="cpu", trust={NAME}, save_every=0)
    monkeypatch.setattr(stage.Stage, "_block", run)
    train(curriculum, tmp_path / "cut", device="cpu", trust={NAME})
    found, expected = last(tmp_path / "cut"), last(tmp_path / "whole")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_statistics_of_a_random_trunk_are_measured_once(make_curriculum, make_phase, tmp_path):
    curriculum = head_only(make_curriculum, make_phase, checkpoints=(0, 30))
    train(curriculum, tmp_path, device="cpu", trust={NAME})
    cards = list_checkpoints(tmp_path, trust={NAME})
    assert [card.batch_norm for card in cards] == ["recalibrated"] * 2
    assert not any("nothing has gathered" in note for card in cards for note in card.notes)
    first, end = (load_file(card.path) for card in cards)
    assert torch.equal(first["norm.running_mean"], end["norm.running_mean"])
    assert first["norm.running_mean"].abs().max() > 0
    # by the book: the mean of what comes in, over the presentations
    network = built()
    network.load_state_dict(end)
    assert not untouched(network)
    frozen = dataclasses.replace(
        curriculum, network=dataclasses.replace(curriculum.network, batch_norm="frozen")
    )
    train(frozen, tmp_path / "frozen", device="cpu", trust={NAME})
    card = list_checkpoints(tmp_path / "frozen", trust={NAME})[-1]
    assert any("nothing has gathered" in note for note in card.notes)
