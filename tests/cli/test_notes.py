"""Doubts travel: from the sweep through recordings and results to what commands print."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

import elsewhere
from elsewhere.models import load_model
from elsewhere.notes import notes_of
from elsewhere.recording import Sweep
from elsewhere.storage import load_result, save_result
from elsewhere.terminal import VisibleFormatter, print_notes

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
    plain = elsewhere.similarity(elsewhere.ArraySource({"fc": np.eye(6).reshape(3, 1, 2, 6)},
                                                       y=[5], x=[5, 9]))  # fmt: skip
    assert plain.attrs["notes"] == []


def test_dead_layers_are_a_note():
    activations = np.ones((3, 1, 4, 3))
    activations[:, :, 1] = 0
    dead = elsewhere.similarity(elsewhere.ArraySource({"fc": activations}, y=[5], x=[5, 6, 7, 8]))
    assert dead.attrs["notes"][1:] == ["more than 5 % zero vectors (dead, not 'not invariant'): fc"]
    assert "the same code at the reference for all 3 objects" in dead.attrs["notes"][0]


def test_an_input_that_is_assumed_is_said(run, here):
    model = load_model("small-cnn", model_args={"channels": "4-8", "canvas": 24})
    torch.save(model.module.state_dict(), "mine.pth")
    shown = ("small-cnn", "--weights", "mine.pth", "--model-arg", "channels=4-8",
             "--model-arg", "canvas=24", "--objects", "glyphs", "--categories", "3",
             "--grid", "2x2", "--canvas", "24", "--object-size", "7")  # fmt: skip
    said = "mine.pth do not state their input"
    maps = ("--method", "saliency", "--target", "logit:0")
    for words in (
        ("similarity", *shown, "--layers", "logits", "--out", "s.nc"),
        ("record", *shown, "--layers", "logits", "--out", "r.h5"),
        ("attribute", *shown, *maps, "--out", "a.nc"),
        ("inspect", "r.h5"),
    ):
        assert said in run(*words).err, words[0]
    stated = ("similarity", *shown, "--layers", "logits", "--gain", "1", "--out", "t.nc")
    assert said not in run(*stated).err


def test_a_run_from_a_file_says_which_input_is_assumed(run, here):
    model = load_model("small-cnn", model_args={"channels": "4-8", "canvas": 24, "num_classes": 3})
    torch.save(model.module.state_dict(), "mine.pth")
    Path("c.toml").write_text(
        """
        name = "c"
        canvas = { size = 24, object_size = 7 }
        [network]
        name = "small-cnn"
        weights = "mine.pth"
        arguments = { channels = "4-8", num_classes = 3 }
        [[phase]]
        name = "learn"
        objects = "glyphs"
        categories = 3
        exemplars = { train = 2, held_out = 1 }
        environment = "one"
        steps = 1
        """
    )
    said = "mine.pth do not state their input"
    assert said in run("train", "c.toml", "--out", "run").err
    checkpoint = sorted(Path("run/checkpoints").glob("*.safetensors"))[-1]
    told = run("accuracy", checkpoint, "--grid", "2x2", "--out", "acc.nc")
    assert said in told.err
    assert any(said in note for note in load_result("acc.nc").attrs["notes"])


def test_how_weights_were_read_is_said_once_and_kept(run, small, here):
    state = load_model("small-cnn").module.state_dict()
    torch.save({"state_dict": {f"net.{name}": value for name, value in state.items()}}, "w.ckpt")
    said = "of w.ckpt the state 'state_dict.net' was taken"
    layers = ("--layers", "logits")
    weights = ("--weights", "w.ckpt", "--input", "unit", *layers)
    assert said in run("record", *small, *weights, "--out", "w.h5").err
    assert said in run("similarity", *small, *weights, "--out", "live.nc").err
    for command in (
        ("similarity", "w.h5", "--out", "w.nc"),
        ("measure", "w.h5", "--names", "cka", "--out", "m.nc"),
        ("figure", "w.nc", "--out", "w.svg"),
    ):
        assert said not in run(*command).err, command
    for name in ("live.nc", "w.nc", "m.nc"):
        assert any(said in note for note in load_result(name).attrs["notes"])
    assert said in run("inspect", "w.h5").err


def test_what_the_log_has_said_is_not_said_again(capsys):
    record = logging.LogRecord("a", logging.WARNING, "a.py", 1, "%s", ("a doubt",), None)
    assert VisibleFormatter("%(levelname)s: %(message)s").format(record) == "WARNING: a doubt"
    print_notes(["a doubt", "another"])
    assert capsys.readouterr().err == "note: another\n"
