"""Engines on the command line: the same results, and one line that says which and why."""

import numpy as np
import pytest
import xarray

from elsewhere.storage import open_recording

BRANCHING = """
from torch import nn

class Branching(nn.Module):
    canvas_size = 32

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, values):
        return self.conv(values if values.mean() > -99 else -values)
"""

COMMON = ("small-cnn", "--objects", "novel", "--categories", "3", "--background", "90,120,30")


@pytest.fixture
def branching(here, monkeypatch):
    """A network that cannot be traced."""
    (here / "branching.py").write_text(BRANCHING)
    monkeypatch.syspath_prepend(str(here))
    return "branching:Branching"


def test_similarity_is_the_same_with_either(run):
    for engine in ("dense", "incremental"):
        outcome = run(
            "similarity", *COMMON, "--grid", "5x4", "--layers", "*", "--engine", engine,
            "--out", f"{engine}.nc",
        )  # fmt: skip
        assert f"engine {engine}" in outcome.err
    with xarray.open_dataset("dense.nc") as a, xarray.open_dataset("incremental.nc") as b:
        np.testing.assert_allclose(a["cosine_each"], b["cosine_each"], atol=1e-5)
        assert float(a["cosine_each"].std()) > 0.01


def test_recordings_are_the_same_with_either(run):
    for engine in ("dense", "incremental"):
        outcome = run(
            "record", *COMMON, "--grid", "3x3", "--layers", "pool*,logits", "--engine", engine,
            "--similarity", f"{engine}.nc", "--out", f"{engine}.h5",
        )  # fmt: skip
        assert f"engine {engine}" in outcome.err
    with open_recording("dense.h5") as a, open_recording("incremental.h5") as b:
        assert a.attributes["identity"] == b.attributes["identity"]
        assert b.attributes["numerics"]["engine"] == "incremental"
        for layer in a.layers:
            expected = a[layer.name].values
            np.testing.assert_allclose(
                b[layer.name].values, expected, rtol=0, atol=1e-5 * np.abs(expected).max()
            )
    run("inspect", "incremental.h5")


def test_plan_counts_multiply_adds(run):
    common = ("plan", *COMMON, "--grid", "stride:4")
    dense = run(*common, "--engine", "dense", "--json").json
    windows = run(*common, "--engine", "incremental", "--json").json
    assert (dense["engine"], dense["multiply_adds"]) == ("dense", 0)
    assert windows["engine"] == "incremental"
    assert windows["multiply_adds"] > 10**6
    assert "multiply-adds: " in run(*common, "--engine", "incremental").out


def test_auto_says_why_it_runs_densely(run, refuse, branching):
    common = (branching, "--objects", "novel", "--categories", "2", "--grid", "2x2")
    outcome = run("similarity", *common, "--layers", "conv", "--out", "a.nc")
    told = [line for line in outcome.err.splitlines() if "engine dense" in line]
    assert len(told) == 1
    assert "torch.fx cannot trace it" in told[0]
    refuse(
        "similarity", *common, "--layers", "conv", "--engine", "incremental", "--out", "b.nc",
        says=("incremental does not apply to branching:Branching", "--engine auto or dense"),
    )  # fmt: skip


def test_engines_that_cannot_be(run, refuse, made):
    refuse("similarity", *COMMON, "--engine", "fats", "--out", "a.nc", says=("fats", "auto"))
    refuse(
        "similarity", made[0], "--engine", "incremental", "--out", "a.nc",
        says=("is a file", "--engine"),
    )  # fmt: skip
