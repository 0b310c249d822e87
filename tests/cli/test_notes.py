"""Doubts travel: from the sweep through recordings and results to what commands print."""

import numpy as np
import pytest

import elsewhere
from elsewhere.protocols import notes_of
from elsewhere.recording import Sweep
from elsewhere.storage import load_result, save_result

DOUBT = "the images depend on each other, or so this test says"


@pytest.fixture
def doubtful(monkeypatch):
    monkeypatch.setattr(Sweep, "notes", property(lambda sweep: [DOUBT]))


def test_every_command_prints_and_keeps_the_notes_of_a_live_sweep(run, small, doubtful):
    one = (*small, "--layers", "logits")
    exemplars = ("small-cnn", "--objects", "digits", "--categories", "3,8", "--per-category", 4,
                 "--grid", "1x3", "--layers", "logits", "--controls", "none")  # fmt: skip
    maps = (*small, "--method", "saliency", "--target", "logit:0")
    for number, words in enumerate((
        ("similarity", *one),
        ("measure", *one, "--names", "cosine"),
        ("probe", *exemplars),
        ("attribute", *maps),
        ("sanity", *maps),
    )):  # fmt: skip
        out = f"{number}.nc"
        printed = run(*words, "--out", out, "--json")
        assert f"note: {DOUBT}" in printed.err
        rows = printed.json if isinstance(printed.json, list) else [printed.json]
        assert all(DOUBT in row["notes"] for row in rows)
        assert DOUBT in load_result(out).attrs["notes"]


def test_a_recording_keeps_the_notes_of_its_sweep(run, small, doubtful, monkeypatch):
    assert f"note: {DOUBT}" in run("record", *small, "--layers", "logits", "--out", "a.h5").err
    monkeypatch.setattr(Sweep, "notes", [])  # the recording itself knows
    assert run("inspect", "a.h5", "--json").json["notes"] == [DOUBT]
    assert f"note: {DOUBT}" in run("inspect", "a.h5").err
    assert f"note: {DOUBT}" in run("similarity", "a.h5", "--out", "a.nc").err
    assert DOUBT in load_result("a.nc").attrs["notes"]
    assert f"note: {DOUBT}" in run("figure", "a.nc", "--out", "a.png").err
    assert DOUBT in run("methods", "a.nc").out


def test_notes_are_joined_once_and_survive_a_file(tmp_path):
    class Sink:
        notes = ("a", "b")

    arrays = elsewhere.ArraySource({"fc": np.ones((2, 1, 2, 3))}, y=[5], x=[5, 9])
    arrays.provenance["notes"] = ["c", "a"]
    assert notes_of(arrays, Sink(), "d") == ["c", "a", "b", "d"]
    result = elsewhere.similarity(arrays)
    assert result.attrs["notes"][:2] == ["c", "a"]
    save_result(result, tmp_path / "a.nc")
    assert load_result(tmp_path / "a.nc").attrs["notes"] == result.attrs["notes"]
    plain = elsewhere.similarity(elsewhere.ArraySource({"fc": np.eye(4).reshape(2, 1, 2, 4)},
                                                       y=[5], x=[5, 9]))  # fmt: skip
    assert plain.attrs["notes"] == []


def test_dead_layers_are_a_note():
    activations = np.ones((2, 1, 4, 3))
    activations[:, :, 1] = 0
    dead = elsewhere.similarity(elsewhere.ArraySource({"fc": activations}, y=[5], x=[5, 6, 7, 8]))
    assert dead.attrs["notes"] == ["more than 5 % zero vectors (dead, not 'not invariant'): fc"]
