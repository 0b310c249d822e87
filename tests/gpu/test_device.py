"""A GPU gives what the CPU gives; what was killed there goes on to the same end.

With ``ELSEWHERE_TEST_DEVICE=cpu`` all of it runs without a GPU.
"""

import copy
import dataclasses
import os

import h5py
import numpy as np
import pytest
import torch

from elsewhere import AttributionSettings, Sweep, attribute, measure, probe, record, similarity
from elsewhere.analyzer.accuracy import network_accuracy
from elsewhere.measures import landing
from elsewhere.measures.landing import Landing, Rows
from elsewhere.measures.vectors import to_numpy
from elsewhere.stimuli import Canvas
from elsewhere.training import Curriculum, Exemplars, Network, Phase, train
from elsewhere.training.checkpoints import final_card, list_checkpoints, read_weights

pytestmark = pytest.mark.gpu
DEVICE = os.environ.get("ELSEWHERE_TEST_DEVICE", "cuda")
CANVAS = Canvas(24, 8, background=(200, 40, 90))


@pytest.fixture(scope="module")
def pair(model, make_sweep):
    """Return a function that makes the same sweep on the CPU and on the device."""
    there = dataclasses.replace(model, module=copy.deepcopy(model.module)).to(torch.device(DEVICE))
    return lambda **options: (
        make_sweep(**options | {"engine": "dense"}),
        make_sweep(there, **options),
    )


def alike(ours, theirs, *, share=1e-5):
    """Assert that numbers differ by at most that share of the largest one."""
    ours, theirs = (np.asarray(each, np.float64) for each in (ours, theirs))
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    largest = np.nanmax(np.abs(theirs), initial=0.0)
    assert np.nanmax(np.abs(ours - theirs), initial=0.0) <= share * largest


@pytest.mark.parametrize("engine", ["dense", "incremental"])
def test_recordings_are_those_of_the_cpu(pair, tmp_path, engine):
    files = [
        record(sweep, tmp_path / f"{number}.h5")
        for number, sweep in enumerate(pair(engine=engine, grid="4x4"))
    ]
    with h5py.File(files[0]) as here, h5py.File(files[1]) as there:
        for layer in here["layers"]:
            alike(there["layers"][layer]["activation"][:], here["layers"][layer]["activation"][:])


def test_rows_come_to_the_host_as_they_were(monkeypatch):
    """Although what they lie in is written over while they are on their way."""
    monkeypatch.setattr(landing, "PIECE_BYTES", 2**20)
    way, found = Landing(), []
    with torch.inference_mode():
        rows = torch.empty(64, 3, 100, 100, device=DEVICE)
        for number in range(8):
            rows.copy_(torch.arange(rows.numel(), device=DEVICE).view(rows.shape) % 1000 + number)
            place = Rows("grid", str(number), np.arange(64), np.arange(64))
            way.bring(place, rows.mT, lambda _, values: found.append(to_numpy(values).copy()))
            rows.fill_(-1)
    way.drain()
    expected = (np.arange(64 * 30_000) % 1000).reshape(64, 3, 100, 100).swapaxes(2, 3)
    for number, values in enumerate(np.concatenate(found).reshape(8, *expected.shape)):
        np.testing.assert_array_equal(values, expected + number)


@pytest.mark.parametrize("engine", ["dense", "incremental"])
@pytest.mark.parametrize("metric", ["cosine", "evoked", "pearson", "centred"])
def test_cosines_are_those_of_the_cpu(pair, engine, metric):
    here, there = (similarity(sweep, metric=metric) for sweep in pair(engine=engine, per=2))
    # what is removed takes digits with it, of activations that are right within 1e-5
    digits = 1e-6 if metric == "cosine" else 1e-5
    for name in (f"{metric}_each", f"{metric}_baseline"):
        np.testing.assert_allclose(there[name], here[name], atol=digits)
    np.testing.assert_allclose(there[f"{metric}_G"], here[f"{metric}_G"], atol=10 * digits)


def test_other_measures_are_those_of_the_cpu(pair):
    names = ["cka", "normalized-variance", "identification", "aligned", "rsa"]
    here, there = (measure(sweep, names=names) for sweep in pair(n=6, engine="auto"))
    compared = [name for name in here.data_vars if here[name].dtype.kind == "f"]
    assert len(compared) > 10
    for name in compared:
        np.testing.assert_allclose(there[name], here[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_probes_are_those_of_the_cpu(pair):
    here, there = (
        probe(sweep, layers=["fc3", "logits"], controls=(), strengths=[1.0])
        for sweep in pair(n=3, per=3, engine="auto")
    )
    np.testing.assert_allclose(there["accuracy"], here["accuracy"], atol=1e-6)


def test_accuracy_is_that_of_the_cpu(pair, make_objects):
    here, there = (
        network_accuracy(sweep.model, make_objects(7, 2), CANVAS, "4x4", trained=((12, 4),))
        for sweep in pair()
    )
    np.testing.assert_array_equal(there["choice"], here["choice"])
    alike(there["margin"], here["margin"])


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("integrated-gradients", {"options": {"n_steps": 20, "tolerance": 1.0}}),
        ("grad-cam", {"layer": "conv2_1"}),
        ("occlusion", {}),
    ],
)
def test_maps_are_those_of_the_cpu(pair, method, given):
    settings = AttributionSettings(method, target="logit:3", dtype="float32", **given)
    here, there = (attribute(sweep, settings) for sweep in pair(n=2, grid="2x3", engine="dense"))
    for name in ("score", "scale", "attribution", "mass_inside"):
        alike(there[name], here[name], share=1e-4)


# --- training


def curriculum(**options):
    phase = Phase(
        "learn", "glyphs", categories=3, exemplars=Exemplars(train=4, held_out=2), steps=60,
        batch=8, environment="full", learning_rate=1e-3, checkpoints=(0, 60), **options,
    )  # fmt: skip
    network = Network("small-cnn", arguments={"channels": "4-8", "hidden": 12, "dropout": 0.0})
    return Curriculum("tiny", network, Canvas(16, 7), (phase,))


def weights(folder):
    return read_weights(final_card(list_checkpoints(folder), "learn"))


def test_training_starts_as_on_the_cpu(tmp_path):
    few = dataclasses.replace(
        curriculum(), phases=(dataclasses.replace(curriculum().phases[0], steps=5, checkpoints=1),)
    )
    here, there = (
        weights(train(few, tmp_path / name, device=device))
        for name, device in (("here", "cpu"), ("there", DEVICE))
    )
    for name, value in here.items():
        alike(there[name].cpu(), value.cpu(), share=1e-3)


class Killed(BaseException):
    """Nobody catches it."""


def test_training_that_was_killed_ends_with_the_same_weights(tmp_path):
    whole = weights(train(curriculum(), tmp_path / "whole", device=DEVICE))

    def kill(report):
        if report.step == 50:
            raise Killed

    with pytest.raises(Killed):
        train(curriculum(), tmp_path / "run", device=DEVICE, progress=kill, save_every=0)
    resumed = weights(train(curriculum(), tmp_path / "run", device=DEVICE, save_every=0))
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name


@pytest.mark.parametrize("engine", ["dense", "incremental"])
def test_a_recording_that_was_killed_ends_with_the_same_bits(pair, tmp_path, contents_of, engine):
    options = {"n": 12, "grid": "4x4", "engine": engine}
    whole = record(pair(**options)[1], tmp_path / "whole.h5")
    seen = []

    def kill(done, total):
        seen.append(done)
        if 0 < done < total:
            raise Killed

    with pytest.raises(Killed):
        record(pair(**options)[1], tmp_path / "run.h5", progress=kill)
    assert not (tmp_path / "run.h5").exists()
    resumed = record(pair(**options)[1], tmp_path / "run.h5")
    assert contents_of(resumed) == contents_of(whole)


@pytest.mark.parametrize(("precision", "share"), [("tf32", 5e-3), ("bfloat16", 5e-2)])
def test_lower_precisions_stay_near(model, make_objects, precision, share):
    if precision == "tf32" and not DEVICE.startswith("cuda"):
        pytest.skip("TF32 is of CUDA devices")
    there = dataclasses.replace(model, module=copy.deepcopy(model.module)).to(torch.device(DEVICE))
    options = {"canvas": CANVAS, "grid": "3x4", "engine": "dense", "layers": ["relu1_1", "logits"]}
    plain, low = (
        similarity(Sweep(there, make_objects(5), precision=each, **options))
        for each in ("float32", precision)
    )
    np.testing.assert_allclose(low["cosine_each"], plain["cosine_each"], atol=share)
    if precision == "bfloat16":
        assert np.abs(low["cosine_each"] - plain["cosine_each"]).max() > 0
