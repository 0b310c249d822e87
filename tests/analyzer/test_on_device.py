"""Measures of tensors of a device: the same numbers, and the host does not wait for them."""

import copy
import os

import numpy as np
import pytest
import torch

from elsewhere import measure
from elsewhere.analyzer import METRICS, SimilaritySink
from elsewhere.errors import NumericsError
from elsewhere.measures import landing, measures, vectors
from elsewhere.measures.answers import AnswerSink
from elsewhere.models import load_model
from tests.counting import counting


def result_of(sweep, **options):
    sink = SimilaritySink(**options)
    sweep.stream([sink])
    return sink.result()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("per", [1, 2])
def test_similarity_of_a_device_is_that_of_the_cpu(make_sweep, monkeypatch, request, metric, per):
    sweep = make_sweep(n=3, per=per, grid="2x3", reference=(9, 14), layers="relu1_1,pool2,logits")
    expected = result_of(sweep, metric=metric)
    request.getfixturevalue("on_device")
    for doubles in (True, False):
        monkeypatch.setattr(vectors, "has_doubles", lambda tensor, kind=doubles: kind)
        monkeypatch.setattr(vectors, "HELD_ON_DEVICE", 2**11)  # several stretches, and a rest
        monkeypatch.setattr(vectors, "LONG", 256)
        found = result_of(sweep, metric=metric)
        room = 1e-9 if doubles else 1e-6
        for name in expected:
            scale = 100 if "G" in name or name.endswith(("interval", "band")) else 1
            np.testing.assert_allclose(
                found[name], expected[name], rtol=0, atol=scale * room, err_msg=name
            )
        assert found.attrs["notes"] == expected.attrs["notes"]


@pytest.mark.parametrize("metric", METRICS)
def test_windows_of_a_device_are_those_of_the_cpu(make_sweep, request, metric):
    options = {"n": 3, "per": 2, "grid": "3x3", "layers": "relu1_1,pool2", "engine": "incremental"}
    expected = result_of(make_sweep(**options), metric=metric)
    request.getfixturevalue("on_device")
    found = result_of(make_sweep(**options), metric=metric)  # compiled for a device
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("engine", ["dense", "incremental"])
def test_a_sweep_crosses_once(make_sweep, on_device, engine):
    sweep = make_sweep(n=4, grid="4x4", layers="relu1_1,pool2,logits", engine=engine)
    sink = SimilaritySink()
    sweep.stream([SimilaritySink()])  # what is found out once
    with counting() as counted:
        sweep.stream([sink])
    ours = {line: n for line, n in counted.lines.items() if "measures/" in line}
    assert sum(ours.values()) == 1, ours


def test_answers_of_a_device_cross_once(make_sweep, on_device, monkeypatch):
    sweep = make_sweep(n=4, grid="4x4", layers="logits")
    labels, stages = np.arange(4) % 3, ("reference", "grid")
    sink = AnswerSink("logits", labels, stages)
    sweep.stream([sink])
    with counting() as counted:
        sweep.stream([sink := AnswerSink("logits", labels, stages)])
    ours = {line: n for line, n in counted.lines.items() if "measures/" in line}
    assert sum(ours.values()) == 1, ours
    monkeypatch.setattr(vectors, "HOST", ("cpu",))
    sweep.stream([expected := AnswerSink("logits", labels, stages)])
    for stage in stages:
        pairs = zip(sink.answers(stage, 16), expected.answers(stage, 16), strict=True)
        for one, other in pairs:
            np.testing.assert_array_equal(one, other)


def test_nan_on_a_device_is_named(make_sweep, model, on_device):
    broken = copy.deepcopy(model)
    sweep = make_sweep(broken, n=2, grid="1x2", layers="logits")
    with torch.no_grad():
        dict(broken.module.named_modules())[sweep.layers[0].module].bias[0] = float("nan")
    with pytest.raises(NumericsError, match="'logits' gives NaN or infinity for object 'o0-0'"):
        sweep.stream([SimilaritySink()])


@pytest.mark.parametrize(
    "name",
    [each for each in measures if measures.get(each).comes_with != "accuracy"],
)
def test_a_measure_waits_once_a_block_or_less(make_sweep, late, name):
    """And not for each image, object or location."""
    layers, network = "pool1,relu2_1,logits", None
    if measures.get(name).kind:  # of a layer that says where it looks
        arguments = {"channels": "4-8", "hidden": 8, "canvas": 24}
        layers, network = "window.place", load_model("small-cnn-stn", model_args=arguments)
    sweep = make_sweep(network, n=6, per=2, grid="3x4", layers=layers)
    with counting() as counted:
        measure(sweep, names=[name])
    ours = {
        line: n for line, n in counted.lines.items() if " measures/" in line or " analyzer/" in line
    }
    n_blocks = len(sweep.layers) * (12 * 12 // 8 + 1 + 2)  # of eight images, empty and reference
    assert sum(ours.values()) <= n_blocks, ours
    assert late.count("wait") <= n_blocks


@pytest.mark.parametrize("name", ["aligned", "phase"])
def test_maps_that_come_late_are_those_of_the_cpu(make_sweep, request, monkeypatch, name):
    sweep = make_sweep(n=4, per=2, grid="3x4", reference=(9, 14), layers="pool1,relu2_1")
    expected = measure(sweep, names=[name])
    assert not request.getfixturevalue("late")
    monkeypatch.setattr(landing, "PIECE_BYTES", 2**13)  # a few rows
    found = measure(sweep, names=[name])
    assert request.getfixturevalue("late")
    for key in expected.data_vars:
        if expected[key].dtype.kind == "f":
            np.testing.assert_allclose(found[key], expected[key], rtol=1e-5, atol=1e-6, err_msg=key)


@pytest.mark.gpu
def test_products_of_a_gpu(on_device):
    device = os.environ.get("ELSEWHERE_TEST_DEVICE", "cuda")
    rows = torch.randn(20, 100_001, generator=torch.Generator().manual_seed(0)) + 1
    expected = rows.double() @ rows.double().T
    for kind in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vectors, "has_doubles", lambda tensor, kind=kind: kind)
            on = vectors.DenseVectors(rows.to(device))
            found, pairs = on.compare(on, [np.arange(20)])
            scale = expected.diagonal().sqrt()
            scale = scale[:, None] * scale
            for each in (found, pairs[0][1], on.dots(on)):
                assert float(((each.cpu() - expected) / scale).abs().max()) < (1e-9, 1e-6)[not kind]
            fresh = vectors.DenseVectors(rows.to(device))
            np.testing.assert_allclose(fresh.norms().cpu(), expected.diagonal().sqrt(), rtol=1e-6)
