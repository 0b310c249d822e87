"""How often training waits for a device where it reports, keeps and measures statistics."""

from collections import Counter

import pytest
import torch
from torch import nn

from elsewhere.training import batches, list_checkpoints, probe, statistics, train
from elsewhere.training.curriculum import Network
from elsewhere.training.stage import Stage
from elsewhere.training.statistics import measure_statistics, untouched
from tests.counting import counting

HERE = ("training/", "models/forward")
SMALL = {"channels": "4-8", "hidden": 12, "batch_norm": True}


@pytest.fixture
def reports(monkeypatch):
    """The waits of each test, report and checkpoint, by their lines."""
    found = []
    plain = Stage._reach

    def reach(stage, *given, **more):
        with counting() as counted:
            plain(stage, *given, **more)
        found.append(Counter({line: n for line, n in counted.lines.items()
                              if line.split()[1].startswith(HERE)}))  # fmt: skip

    monkeypatch.setattr(Stage, "_reach", reach)
    return found


def show(monkeypatch, times):
    """Let statistics, modes and tests be measured on so many times the images."""
    for module, name in ((batches, "PRESENTATIONS"), (probe, "LEAST"), (probe, "MOST")):
        monkeypatch.setattr(module, name, 64 * times)


@pytest.mark.parametrize("batch_norm", ["batch", "recalibrated", "frozen"])
def test_reports_wait_as_often_whatever_they_measure(
    make_curriculum, make_phase, tmp_path, reports, monkeypatch, batch_norm
):
    network = Network("small-cnn", arguments=SMALL, gain=4.0, batch_norm=batch_norm)
    for times in (1, 3):
        show(monkeypatch, times)
        phase = make_phase(steps=60, ema=0.9, checkpoints=(60,), environment="one")
        train(make_curriculum(phase, network=network), tmp_path / str(times), device="cpu")
    half = len(reports) // 2
    assert half > 1
    assert reports[:half] == reports[half:]
    states = len(list_checkpoints(tmp_path / "1")) * 60  # a tensor each of what is kept
    for each in reports:
        tensors = sum(n for line, n in each.items() if "checkpoints.py" in line)
        assert each.total() - tensors <= 12, each
        assert tensors <= states


def test_further_training_waits_no_more_than_training(
    make_curriculum, make_phase, tmp_path, monkeypatch
):
    found = Counter()
    plain, between = Stage._block, Stage._reach

    def block(stage, first):
        with counting() as counted:
            ended = plain(stage, first)
        found[stage.phase.name] += counted.n_waits
        return ended

    def reach(stage, *given, **more):
        with counting() as counted:
            between(stage, *given, **more)
        found[stage.phase.name] -= counted.n_waits

    monkeypatch.setattr(Stage, "_block", block)
    monkeypatch.setattr(Stage, "_reach", reach)
    phases = [
        make_phase(
            name, steps=100, checkpoints=(100,), environment=environment, batch_norm=mode,
            new_head=True,
        )
        for name, environment, mode in (
            ("learn", "full", "batch"), ("on", "one", "recalibrated"), ("rest", "one", "frozen"),
        )
    ]  # fmt: skip
    network = Network("small-cnn", arguments=SMALL, gain=4.0)
    train(make_curriculum(*phases, network=network), tmp_path, device="cpu")
    assert set(found) == {"learn", "on", "rest"}
    assert max(found.values()) <= 12, found  # in 100 steps


def test_statistics_wait_for_nothing_and_are_looked_at_once():
    network = nn.Sequential(*(nn.BatchNorm2d(3) for _ in range(9)))
    images = [torch.rand(4, 3, 5, 5) for _ in range(7)]
    with counting() as counted:
        measure_statistics(network.train(), images)
    assert counted.n_waits == 0
    for changed in ((), (8,)):
        fresh = nn.Sequential(*(nn.BatchNorm2d(3) for _ in range(9)))
        for number in changed:
            fresh[number].running_var[1] = 2.0
        with counting() as counted:
            assert untouched(fresh) == (not changed)
        assert counted.n_waits == 1


def test_a_wait_for_each_batch_is_seen(monkeypatch):
    network, plain = nn.Sequential(nn.BatchNorm2d(3)).train(), nn.BatchNorm2d.forward

    def forward(norm, values):
        values.mean().item()
        return plain(norm, values)

    monkeypatch.setattr(nn.BatchNorm2d, "forward", forward)
    with counting() as counted:
        statistics.measure_statistics(network, [torch.rand(4, 3, 5, 5) for _ in range(7)])
    assert counted.n_waits == 7
