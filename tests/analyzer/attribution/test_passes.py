"""How many images run through the network for a map: each as few times as its method needs."""

import sys

import numpy as np
import pytest
import torch

from elsewhere.analyzer.attribution import AttributionSettings, attribute, methods
from elsewhere.analyzer.attribution.objects import ObjectRun

OPTIONS = {
    "integrated-gradients": {"n_steps": 5, "tolerance": 1e9},
    "deep-lift": {"tolerance": 1e9},
    "gradient-shap": {"n_samples": 3},
    "occlusion": {"window": 4, "stride": 4},
    "feature-ablation": {"cell": 4},
}
OF_ITS_OWN = {"integrated-gradients": 0, "gradient-shap": 0}
"""Passes of an image as it is, where a method does not take one: its points lie before it."""


def settings(name, target, **more):
    layer = "conv2_1" if name == "grad-cam" else None
    return AttributionSettings(name, target, layer, options=OPTIONS.get(name, {}), **more)


class Passed:
    """The images that run through the copy, or its operations with rules, pass by pass."""

    def __init__(self, run):
        self.images, self.rows = [], []
        run.explainer.network.register_forward_pre_hook(lambda _, given: self.keep(given[0]))
        follow = run.explainer._follow
        run.explainer._follow = lambda images: self.keep(images) or follow(images)

    def keep(self, images):
        self.rows.append(len(images))
        self.images.append(images.detach().clone())

    def times(self, image):
        return int((torch.cat(self.images) == image).flatten(1).all(1).sum())


def made(sweep, name, target, **more):
    return ObjectRun(sweep, settings(name, target, **more), classes=None, max_memory=2**31)


@pytest.mark.parametrize("target", ["logit:predicted", "probability:1", "similarity:fc3"])
@pytest.mark.parametrize("name", list(methods))
def test_an_image_runs_twice(make_sweep, name, target):
    """Once for all that is told of it, and once for its map."""
    if methods.get(name).linear_target and not target.startswith("logit"):
        pytest.skip("sends relevance back from logits only")
    run = made(make_sweep(n=1, grid="2x4", engine="dense"), name, target)
    if target.startswith("similarity"):
        run._at_reference(0)
    passed = Passed(run)
    run.measure(0)
    corners = run.scenes.corners([(int(y), int(x)) for y, x in run.sweep.grid.locations])
    found = [passed.times(image) for image in run.scenes.images(0, corners)]
    assert found == [1 + OF_ITS_OWN.get(name, 1)] * 8
    # the one baseline of all was looked at before, but for the pairs of this method
    assert passed.times(run.scenes.empty[0]) == 8 * (name == "deep-lift")


@pytest.mark.parametrize("baseline", ["black", "blurred"])
def test_baselines_that_differ_are_looked_at(make_sweep, baseline):
    run = made(make_sweep(n=1, grid="2x4"), "integrated-gradients", "logit:1", baseline=baseline)
    passed = Passed(run)
    run.measure(0)
    assert sum(passed.rows) == 8 * (1 + 5 + (baseline == "blurred"))


def test_a_reference_off_the_grid_runs_beside_the_others(make_sweep):
    sweep = make_sweep(n=1, grid="1x7", reference=(5, 6))
    assert sweep.design.reference_index is None
    run = made(sweep, "saliency", "logit:reference")
    run._at_reference(0)
    passed = Passed(run)
    run.measure(0)
    assert passed.rows == [8, 8]


def test_objects_at_the_reference_run_together(make_sweep):
    run = made(make_sweep(n=8, grid="1x2"), "saliency", "similarity:fc3")
    passed = Passed(run)
    for number in range(8):
        run._at_reference(number)
    assert passed.rows == [8]
    alone = made(make_sweep(n=8, grid="1x2"), "saliency", "similarity:fc3")
    assert torch.equal(alone._at_reference(5), run._at_reference(5))


@pytest.mark.parametrize(("grid", "rows"), [("3x3", 16), ("6x6", 40), ("8x8", 64)])
def test_wide_passes_are_hardly_filled_up(make_sweep, monkeypatch, grid, rows):
    """As on a GPU, whose passes take up to 64 images; the maps are those of narrow ones."""
    sweep, asked = make_sweep(n=1, grid=grid), settings("saliency", "logit:1", dtype="float32")
    plain, explain = attribute(sweep, asked), sys.modules["elsewhere.analyzer.attribution.explain"]
    monkeypatch.setattr(explain, "most_rows", lambda device, memory: (64, memory))
    run = ObjectRun(sweep, asked, classes=None, max_memory=2**31)
    passed = Passed(run)
    run.measure(0)
    assert passed.rows == [rows, rows]
    found = attribute(sweep, asked)
    assert found.attrs["numerics"]["batch_rows"] == rows
    ours, theirs = ((each["attribution"] * each["scale"]).values for each in (found, plain))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.nanmax(np.abs(theirs)))


@pytest.mark.parametrize("name", ["occlusion", "feature-ablation"])
def test_windows_fill_passes(make_sweep, name):
    """Images that a batch lacks are not made up: windows of the next image take their place."""
    run = made(make_sweep(n=1, grid="1x3", engine="dense"), name, "logit:1")
    passed = Passed(run)
    run.measure(0)
    assert passed.rows == [8, 8, 8]  # one to look, and 3 * (1 + 4) scores
