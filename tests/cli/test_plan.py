"""What a plan costs itself: less than the smallest job of the same command."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from elsewhere.stimuli import glyphs, sets

SMALL = ["small-cnn", "--objects", "glyphs", "--categories", "12"]


class Convolutions(TorchDispatchMode):
    """Counts convolutions and the values that they give."""

    def __init__(self):
        super().__init__()
        self.counted = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = func(*args, **kwargs or {})
        if "conv" in func.__name__ and torch.is_tensor(given):
            self.counted["calls"] += 1
            self.counted["values"] += given.numel()
        return given


@pytest.fixture
def work(run, monkeypatch):
    """Return a function that runs a command: convolutions, values, objects rendered."""
    drawn = []
    draw = glyphs.draw
    monkeypatch.setattr(glyphs, "draw", lambda *a, **k: drawn.append(0) or draw(*a, **k))

    def count(*words):
        drawn.clear()
        sets._drawn.clear()  # as in a process of its own
        with Convolutions() as mode:
            run(*words)
        return mode.counted["calls"], mode.counted["values"], len(drawn)

    return count


@pytest.mark.parametrize("engine", ["dense", "incremental", "auto"])
def test_a_plan_does_less_than_the_smallest_job(engine, work):
    smallest = work("record", *SMALL, "--grid", "1x2", "--engine", engine, "--out", "r.h5")
    passes, values, rendered = work("plan", *SMALL, "--grid", "1x2", "--engine", engine)
    assert 0 < passes < smallest[0]
    assert 0 < values < smallest[1]
    assert rendered == smallest[2] == 12


def test_a_plan_costs_the_same_for_a_large_job(work):
    small = work("plan", *SMALL, "--grid", "5x5", "--engine", "dense")
    large = work("plan", *SMALL, "--grid", "stride:1", "--engine", "dense")
    assert large == small
    assert 0 not in small
