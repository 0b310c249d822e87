"""What a user registers in a module is taken by name on the command line, by workers as well."""

from dataclasses import replace

import numpy as np
import pytest

from elsewhere.figures import figure_kinds
from elsewhere.models import load_model
from elsewhere.recording import Sweep, record
from elsewhere.recording.engines import engines
from elsewhere.stimuli import Canvas, load_objects, object_sets
from elsewhere.stimuli.transformations import transformations
from elsewhere.storage import load_result, open_recording

OWN = """
import numpy as np
from matplotlib.figure import Figure
from torch import nn
from elsewhere.figures import figure_kinds
from elsewhere.recording.engines import DenseEngine, NotApplicable, engines
from elsewhere.stimuli import load_objects, object_sets
from elsewhere.stimuli.transformations import register_axis

@register_axis("own-mirror", neutral=0, summary="left and right are exchanged at 1")
def mirror(patch, value):
    return np.ascontiguousarray(patch[:, ::-1]) if value else patch

@object_sets.register("own-set", summary="three of the novel objects")
def three(request):
    return load_objects("novel", size=request.size, categories=3)

@figure_kinds.register("own-kind", summary="share of zero vectors")
def plot(result):
    ax = Figure().subplots()
    ax.plot(result["cosine_zero_share"].values)
    return ax

def third(subject, conduct, *, asked=True):
    if not asked:
        raise NotApplicable("only where it is asked for")
    return DenseEngine(subject, conduct)

engines.add("own-engine", third, summary="dense by another name")

def tiny():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.Flatten(), nn.Linear(576, 3))
    network.canvas_size = 48
    return network
"""
SHOWN = ("--objects", "novel", "--categories", "3", "--canvas", "48", "--object-size", "12",
         "--grid", "2x2")  # fmt: skip


@pytest.fixture
def own(here, monkeypatch, request):
    """The name of a module of the current directory; what it registers is forgotten afterwards."""
    for registry in (engines, figure_kinds, object_sets, transformations):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    name = f"own_{request.node.name[:40]}"
    (here / f"{name}.py").write_text(OWN)
    return name


def test_an_axis_of_a_module_changes_the_objects(run, own):
    run("record", "small-cnn", *SHOWN, "--axis", f"{own}:own-mirror=0,1", "--layers", "logits",
        "--out", "run.h5")  # fmt: skip
    objects = load_objects("novel", size=12, categories=3)
    turned = replace(
        objects,
        images=np.ascontiguousarray(objects.images[:, :, ::-1]),
        masks=np.ascontiguousarray(objects.masks[:, :, ::-1]),
    )
    plain = Sweep(
        load_model("small-cnn"), turned, canvas=Canvas(48, 12), grid="2x2", layers="logits"
    )
    record(plain, "turned.h5")
    with open_recording("run.h5") as a, open_recording("turned.h5") as b:
        found, right = a["logits"].values, b["logits"].values
    np.testing.assert_allclose(found[:, 1], right, atol=1e-5 * np.abs(right).max())
    assert np.abs(found[:, 0] - right).max() > 1e-3


def test_a_factory_that_registers_an_axis_is_asked_first(run, refuse, own):
    run("similarity", f"{own}:tiny", *SHOWN, "--axis", "own-mirror=0,1", "--out", "s.nc")
    assert load_result("s.nc").sizes["own-mirror"] == 2
    refuse("similarity", f"{own}:tiny", *SHOWN, "--axis", "own-miror=0", "--out", "t.nc",
           says="unknown axis 'own-miror'; nearest: own-mirror")  # fmt: skip


def test_sets_and_figures_of_a_module(run, own):
    shown = ("--objects", f"{own}:own-set", *SHOWN[4:])
    run("similarity", "small-cnn", *shown, "--layers", "fc*", "--out", "s.nc")
    assert load_result("s.nc").attrs["n_objects"] == 3
    run("figure", "s.nc", "--kind", f"{own}:own-kind", "--out", "s.png")
    assert "3 objects" in run("objects", f"{own}:own-set", "--object-size", "12").out


def test_attribution_refuses_an_engine_that_it_has_no_use_for(refuse, own):
    refuse("attribute", "small-cnn", *SHOWN, "--engine", f"{own}:own-engine", "--method",
           "occlusion", "--out", "a.nc", says="unknown engine of maps 'own-engine'")  # fmt: skip


def test_pixels_of_an_unknown_axis_are_left_out_of_probes(run, own, monkeypatch):
    run("record", "small-cnn", *SHOWN, "--per-category", "2", "--axis",
        f"{own}:own-mirror=0,1", "--layers", "fc6", "--out", "run.h5")  # fmt: skip
    known = {k: v for k, v in transformations._entries.items() if k != "own-mirror"}
    monkeypatch.setattr(transformations, "_entries", known)  # as in a process of its own
    said = run("probe", "run.h5", "--train-at", "left", "--controls", "pixels", "--out", "p.nc")
    assert "unknown axis 'own-mirror'" in said.err
    assert bool(np.isfinite(load_result("p.nc")["accuracy_at"]).any())


@pytest.mark.long
def test_workers_know_what_a_module_registered(run, own):
    common = ("similarity", "small-cnn", *SHOWN, "--axis", f"{own}:own-mirror=0,1", "--engine",
              f"{own}:own-engine", "--layers", "fc*")  # fmt: skip
    run(*common, "--out", "one.nc")
    run(*common, "--workers", "2", "--out", "two.nc")
    one, two = load_result("one.nc"), load_result("two.nc")
    np.testing.assert_allclose(two["cosine_each"], one["cosine_each"], atol=1e-7)
