"""Engines that fail in the middle of a sweep: whole canvases take over, from the beginning."""

import logging

import numpy as np
import pytest
import torch
from torch import fx, nn

from elsewhere.analyzer import SimilaritySink, accuracy, measure, similarity
from elsewhere.analyzer.attribution import AttributionSettings, attribute
from elsewhere.analyzer.rdms import dissimilarity_matrices
from elsewhere.errors import EngineError, InputError
from elsewhere.measures.answers import AnswerSink
from elsewhere.models.transform import InputTransform
from elsewhere.probes import probe
from elsewhere.recording import Sweep, plan, record
from elsewhere.storage import open_recording
from elsewhere.storage.parts import begun_by, parts_folder

calls = []  # numbers of images, of passes of more than eight


def at_most_twice(values):
    """Fail at the third call with more than eight images, as windows make them; whole passes have
    eight, and so have the passes by which windows prove themselves."""
    if len(values) > 8:
        calls.append(len(values))
        if len(calls) > 2:
            raise ValueError("no room for a third")
    return values


def in_small_batches(values):
    """Fail with more than sixteen images at a time."""
    if len(values) > 16:
        raise RuntimeError("not enough memory: you tried to allocate 3 bytes")
    return values


fx.wrap("at_most_twice")
fx.wrap("in_small_batches")


class Failing(nn.Module):
    """A network whose head is not looked into, and takes what it was asked to take."""

    def __init__(self, check="at_most_twice", width=12):
        super().__init__()
        torch.manual_seed(1)
        layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4)]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(width, 2)
        self.check = check

    def forward(self, images):
        maps = self.body(images)
        if self.check == "at_most_twice":
            return self.head(at_most_twice(maps.mean((2, 3))))
        return self.head(in_small_batches(maps.mean((2, 3))))


@pytest.fixture
def make(wrap, make_objects):
    """Return a function that makes the same sweep of a network, by an engine."""

    def of(engine="auto", layers=("body.4", "logits"), check="at_most_twice", **how):
        calls.clear()
        model = wrap(Failing(check, **how).eval(), canvas_size=48)
        objects = make_objects(n=2, per=4, size=8)
        return Sweep(model, objects, grid="stride:8", layers=layers, engine=engine)

    return of


@pytest.fixture(autouse=True)
def one_line(caplog):
    caplog.set_level(logging.WARNING)


SAID = "the incremental engine failed in the middle of a sweep (no room for a third)"


def test_a_similarity_is_that_of_whole_canvases(make, caplog):
    said = SAID.replace("no room for a third", "not enough memory: you tried to allocate 3 bytes")
    sweep = make(check="in_small_batches")
    assert sweep.choice.name == "incremental"
    found = similarity(sweep)
    assert [r.getMessage() for r in caplog.records] == [
        f"{said}; everything is computed again by whole canvases"
    ]
    assert str(sweep.choice) == f"dense (auto: {said})"
    assert found.attrs["numerics"]["engine"] == "dense"
    expected = similarity(make("dense", check="in_small_batches"))
    assert found.drop_vars("left_out", errors="ignore").equals(
        expected.drop_vars("left_out", errors="ignore")
    )
    other = sweep.at((8, 8))  # what comes of the same sweep knows it
    assert other.choice.name == sweep.select([0, 1]).choice.name == "dense"


@pytest.mark.parametrize(
    "ask",
    [
        lambda sweep: measure(sweep, names="partition,normalized-variance", layers=["logits"]),
        lambda sweep: dissimilarity_matrices(sweep),
        lambda sweep: accuracy(sweep, layer="logits", classes=["o0", "o1"]),
        lambda sweep: probe(sweep, controls=(), layers=["logits"], held_out=0.25),
    ],
    ids=["measure", "rdm", "accuracy", "probe"],
)
def test_all_that_is_asked_of_a_sweep_begins_again(make, ask, caplog):
    sweep = make(check="in_small_batches")
    found = ask(sweep)
    assert "you tried to allocate" in caplog.text
    expected = ask(make("dense", check="in_small_batches"))
    for name in expected.data_vars:
        np.testing.assert_array_equal(found[name].values, expected[name].values)


def test_a_recording_has_one_engine(make, tmp_path, caplog):
    sweep, sink = make(), SimilaritySink()
    path = record(sweep, tmp_path / "run.h5", also=[sink], max_memory="4MiB")
    assert caplog.text.count(SAID) == 1
    alone = SimilaritySink()
    other = record(make("dense"), tmp_path / "other.h5", also=[alone], max_memory="4MiB")
    with open_recording(path) as one, open_recording(other) as two:
        assert one.attributes["numerics"]["engine"] == "dense"
        for name in ("body.4", "logits"):
            assert np.array_equal(one[name].values, two[name].values)
    mine, theirs = sink.result(), alone.result()
    assert mine.attrs["notes"] == theirs.attrs["notes"]
    assert mine.equals(theirs)
    assert not parts_folder(path).exists()


def test_a_recording_goes_on_as_it_was_begun(make, tmp_path):
    class Stop(Exception):
        pass

    seen = []

    def interrupt(done, total):
        seen.append(done)
        if len(seen) > 2 and done < seen[-2] + 9 and begun_by(path) == "dense" and done > 100:
            raise Stop

    path = tmp_path / "run.h5"
    with pytest.raises(Stop):
        record(make(), path, max_memory="4MiB", progress=interrupt)
    assert begun_by(path) == "dense"
    assert list(parts_folder(path).glob("unit-*"))
    calls.clear()
    again = make()
    record(again, path, max_memory="4MiB")
    assert not calls  # windows were not tried
    assert "were begun by whole canvases" in str(again.choice)
    with open_recording(path) as one:
        expected = open_recording(record(make("dense"), tmp_path / "other.h5"))
        assert np.array_equal(one["logits"].values, expected["logits"].values)


def test_who_asks_for_windows_is_told(make, tmp_path):
    sweep = make("incremental")
    with pytest.raises(EngineError, match=r"failed in the middle .* third\).*--engine dense"):
        record(sweep, tmp_path / "run.h5", max_memory="4MiB")
    assert begun_by(tmp_path / "run.h5") == "incremental"  # parts stay
    with pytest.raises(EngineError, match="not enough memory"):
        similarity(make("incremental", check="in_small_batches"))


def test_a_plan_and_sinks_of_ones_own(make, caplog):
    sweep = make(check="in_small_batches")
    assert plan(sweep).engine == "dense"
    assert "not enough memory" in caplog.text
    sink = AnswerSink("logits", np.zeros(8, int), ["grid"])
    with pytest.raises(EngineError, match="what it gave is not complete"):
        make(check="in_small_batches").stream([sink])


def test_what_a_sink_complains_of_is_its_own(make):
    class Picky(AnswerSink):
        def add(self, block):
            raise KeyError("not these")

    with pytest.raises(KeyError, match="not these"):
        make().stream([Picky("logits", np.zeros(8, int), ["grid"])])


@pytest.mark.long
def test_covered_windows_step_aside(make, tmp_path, caplog):
    settings = AttributionSettings(
        method="occlusion", target="logit:o1", options={"window": 6, "stride": 2}
    )

    def ask(engine, path=None):
        sweep = make(engine, layers=["logits"], check="in_small_batches", width=40)
        sweep = sweep.select([0], [0, 1])
        return attribute(sweep, settings, classes=("o0", "o1"), path=path)

    found = ask("auto", tmp_path / "a.nc")
    assert "you tried to allocate" in caplog.text
    expected = ask("dense")
    np.testing.assert_array_equal(found["attribution"].values, expected["attribution"].values)
    assert found.attrs["engine"] == "dense"
    assert "does not fit the memory" in found.attrs["engine_reason"]
    caplog.clear()
    ask("auto", tmp_path / "a.nc")  # complete
    assert not caplog.records
    with pytest.raises(InputError, match="take --engine dense"):
        ask("incremental")


def test_a_network_that_fails_on_an_object_is_named_with_it(wrap, make_objects):
    """Whole canvases cannot do what the network refuses: one line, no traceback."""

    class Shy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 2, 3)

        def forward(self, images):
            colour = torch.tensor([130.0, 128.0, 126.0]).view(3, 1, 1)
            if ((images * 255).round() == colour).all(1).any():
                raise ZeroDivisionError("too grey")
            return self.body(images)

    model = wrap(Shy(), transform=InputTransform())
    objects = make_objects(n=1, size=8)
    objects.images[0] = (130, 128, 126)
    with pytest.raises(InputError, match=r"net fails on some of the images .*too grey"):
        Sweep(model, objects, grid="2x2", layers=["body"])  # it is among those that are tried
    objects = make_objects(n=9, size=8)
    objects.images[3] = (130, 128, 126)
    sweep = Sweep(model, objects, grid="3x3", layers=["body"], engine="dense")
    with pytest.raises(InputError, match=r"net fails in a pass .*object 'o\d-0' at y=.*too grey"):
        similarity(sweep)
