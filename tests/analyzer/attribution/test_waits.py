"""How often the host waits for a device: so often for a pass, whatever the images."""

import sys

import numpy as np
import pytest

from elsewhere.analyzer.attribution import AttributionSettings, attribute, methods
from elsewhere.analyzer.attribution.explain import Explainer
from elsewhere.analyzer.attribution.objects import ObjectRun
from tests.counting import counting

ROOM = "elsewhere.analyzer.attribution"
OPTIONS = {
    "integrated-gradients": {"n_steps": 7, "tolerance": 9.0},
    "deep-lift": {"tolerance": 9.0},
    "gradient-shap": {"n_samples": 3, "stdevs": 0.1},
    "occlusion": {"window": 4, "stride": 4},
    "feature-ablation": {"cell": 4},
}
MOST = 20
"""Waits for an object whose images are one pass: for maps, scores, and what is told of them."""


@pytest.fixture
def wide(on_device, monkeypatch):
    """Let the CPU run as many rows a pass as a GPU does, and in its way."""
    for name in ("methods", "batches"):
        monkeypatch.setattr(sys.modules[f"{ROOM}.{name}"], "in_full_batches", lambda images: True)
    most = lambda device, memory: (64, memory)  # noqa: E731
    monkeypatch.setattr(sys.modules[f"{ROOM}.explain"], "most_rows", most)


def settings(name, **more):
    given = {"target": "logit:1", "options": OPTIONS.get(name, {}), "dtype": "float32"} | more
    layer = "conv2_1" if name == "grad-cam" else None
    return AttributionSettings(method=name, layer=layer, **given)


def waits(make_sweep, grid, engine="dense", **asked):
    run = ObjectRun(
        make_sweep(n=1, grid=grid, engine=engine), settings(**asked), classes=None,
        max_memory=2**31,
    )  # fmt: skip
    run.measure(0)  # what is found out once
    with counting() as counted:
        run.measure(0)
    return counted


@pytest.mark.parametrize("name", list(methods))
def test_waits_do_not_grow_with_images(make_sweep, wide, name):
    few, many = (waits(make_sweep, grid, name=name) for grid in ("3x4", "4x6"))
    assert few.n_waits == many.n_waits, few.lines - many.lines
    assert few.n_waits <= MOST, few.lines


def test_waits_of_extras_do_not_grow_with_images(make_sweep, wide):
    asked = {"name": "saliency", "extras": ("sensitivity", "infidelity"), "n_perturbations": 2}
    few, many = (waits(make_sweep, grid, **asked) for grid in ("2x2", "2x4"))
    assert few.n_waits == many.n_waits, many.lines - few.lines


@pytest.mark.parametrize("baseline", ["empty", "blurred:1"])
@pytest.mark.parametrize("engine", ["dense", "incremental"])
def test_covered_windows_wait_no_more_for_more_images_or_windows(
    make_sweep, wide, engine, baseline
):
    """Of all images together it is asked where they differ, and what the scores are."""
    asked = {"name": "occlusion", "target": "similarity:conv2_1", "baseline": baseline}
    few, more, narrow = (
        waits(make_sweep, grid, engine, options={"window": 4, "stride": stride}, **asked)
        for grid, stride in (("1x2", 4), ("2x3", 4), ("1x2", 2))
    )
    assert few.n_waits == more.n_waits == narrow.n_waits <= MOST, more.lines - few.lines


@pytest.mark.parametrize("name", ["lrp", "occlusion", "gradient-shap"])
def test_maps_of_wide_passes_are_those_of_narrow_ones(make_sweep, request, name):
    plain = attribute(make_sweep(n=1, grid="2x3"), settings(name))
    request.getfixturevalue("wide")
    found = attribute(make_sweep(n=1, grid="2x3"), settings(name))
    ours, theirs = ((each["attribution"] * each["scale"]).values for each in (found, plain))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.nanmax(np.abs(theirs)))
    if name == "lrp":  # what biases and the stabiliser keep
        np.testing.assert_allclose(found["kept_relevance"], plain["kept_relevance"], atol=1e-4)


def test_a_wait_for_each_image_is_seen(make_sweep, wide, monkeypatch):
    """The counting sees what these tests are there for."""
    plain = Explainer.look

    def look(explainer, images, *more):
        for image in images:
            image.sum().item()
        return plain(explainer, images, *more)

    monkeypatch.setattr(Explainer, "look", look)
    few, many = (waits(make_sweep, grid, name="saliency") for grid in ("3x4", "4x6"))
    assert many.n_waits - few.n_waits == 4 * 6 - 3 * 4
