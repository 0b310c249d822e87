"""`elsewhere attribute` and `elsewhere sanity`, as they are typed."""

from pathlib import Path

import numpy as np
import pytest
import xarray

from elsewhere.models import load_model
from elsewhere.probes import load_readout
from elsewhere.storage import load_result, open_recording

NETWORK = ("small-cnn", "--model-arg", "channels=4-8", "--model-arg", "canvas=16")
SMALL = (*NETWORK, "--objects", "novel", "--categories", "2", "--grid", "1x2")


def test_without_a_model_the_methods_are_listed(run):
    listed = {row["method"]: row for row in run("attribute", "--json").json}
    assert "n_steps" in listed["integrated-gradients"]["options"]
    assert {"occlusion", "grad-cam", "saliency", "input-x-gradient"} <= set(listed)
    assert "feature-ablation" in run("attribute").out


def test_maps_are_made_and_drawn(run):
    outcome = run(
        "attribute", *SMALL, "--method", "grad-cam", "--layer", "conv2_1",
        "--option", "relu_attributions=true", "--out", "cam.nc", "--json",
    )  # fmt: skip
    (row,) = outcome.json
    result = load_result("cam.nc")
    assert result.attrs["method"] == "grad-cam"
    assert result.attrs["target"] == "logit:predicted"
    assert row["equivariance"] == pytest.approx(float(result["equivariance_away"][0]), nan_ok=True)
    assert float(result["attribution"].min()) >= 0
    run("figure", "cam.nc", "--kind", "attribution-frame", "--out", "frame.png")
    assert (
        "warning: guided-backprop"
        in run("attribute", *SMALL, "--method", "guided-backprop", "--out", "guided.nc").err
    )


def test_maps_that_do_not_sum_are_made_said_and_marked(run):
    outcome = run(
        "attribute", *SMALL, "--baseline", "black", "--background", "200", "--option", "n_steps=2",
        "--option", "most_steps=4", "--option", "method=riemann_left", "--option",
        "tolerance=0.001", "--out", "few.nc",
    )  # fmt: skip
    result = load_result("few.nc")
    off = (result["completeness_share"] > 0.001).any(("y", "x"))
    assert bool(off.any())
    (note,) = [text for text in result.attrs["notes"] if "do not sum" in text]
    assert all(name in note for name in result["object"].values[off.values])
    assert note in outcome.err
    assert "steps were raised from 2, up to 4" in outcome.err
    assert set(np.unique(result["n_steps"])) <= {2, 4}
    cost = outcome.err.index("4 maps: about ")
    assert cost < outcome.err.index("do not sum"), "the cost is said first"
    run("figure", "few.nc", "--out", "few.svg", "--width", "85mm")
    assert "does not sum" in Path("few.svg").read_text()


def test_other_results_are_joined(run):
    run("similarity", *SMALL, "--layers", "fc3", "--out", "sim.nc")
    run(
        "attribute", *SMALL, "--target", "similarity:fc3", "--method", "occlusion",
        "--option", "window=4", "--join", "sim.nc", "--out", "attr.nc",
    )  # fmt: skip
    result = load_result("attr.nc")
    assert result["joined_map"].values.tolist() == ["cosine[fc3]", "cosine_G[fc3]"]
    expected = load_result("sim.nc")["cosine"].sel(layer="fc3")
    np.testing.assert_allclose(result["joined"].sel(joined_map="cosine[fc3]"), expected)
    np.testing.assert_allclose(  # the target is the similarity itself
        result["score_mean"], expected, atol=1e-5
    )


SOME = (*NETWORK, "--objects", "novel", "--categories", "3", "--grid", "1x3")
PROBE = (*SOME, "--per-category", "3", "--layers", "fc3", "--controls", "pixels,untrained")


def test_a_probes_score_is_attributed(run):
    run("record", *PROBE[:-2], "--out", "run.h5")
    run("probe", "run.h5", "--layers", "fc3", "--controls", "none", "--out", "p.nc",
        "--readout", "r.nc")  # fmt: skip
    run("probe", *PROBE[:-2], "--controls", "none", "--out", "live.nc", "--readout", "s.nc")
    run("attribute", *SOME, "--target", "probe:r.nc", "--out", "a.nc")
    recorded = open_recording("run.h5")["fc3"].values  # (object, y, x, unit)
    probe, result, told = load_readout("r.nc"), load_result("a.nc"), load_result("p.nc")
    np.testing.assert_allclose(load_readout("s.nc").coef, probe.coef, rtol=1e-3, atol=1e-6)
    scores = probe.scores(recorded.reshape(-1, recorded.shape[-1]))
    scores = scores.reshape(*recorded.shape[:3], 3)
    choice = told["choice"].sel(layer="fc3").transpose("object", "y", "x").values
    names = [str(name) for name in told["class"].values] if "class" in told.coords else None
    np.testing.assert_array_equal(scores.argmax(-1), choice)  # the probe that was measured
    assert names is None or names == list(probe.classes)
    first = [told["object"].values.tolist().index(name) for name in result["object"].values]
    own = scores[first, :, :, [probe.classes.index(c) for c in result["category"].values]]
    np.testing.assert_allclose(result["score"], own, atol=1e-5)
    np.testing.assert_array_equal(result["predicted"], choice[first])
    share = result["completeness_share"].values
    assert float(share.max()) < 0.05
    assert result.attrs["target"] == "probe:fc3:true"
    run("attribute", *SOME, "--target", "probe:r.nc:1", "--method", "lrp", "--out", "b.nc")
    np.testing.assert_allclose(load_result("b.nc")["score"], scores[first][..., 1], atol=1e-5)


def test_probes_are_joined_without_their_controls(run):
    run("probe", *PROBE, "--out", "p.nc")
    run("similarity", *SOME, "--layers", "fc3", "--out", "sim.nc")
    run("attribute", *SOME, "--method", "saliency", "--join", "p.nc", "--join", "sim.nc",
        "--out", "a.nc")  # fmt: skip
    result, told = load_result("a.nc"), load_result("p.nc")
    names = ["probe[fc3,same]", "probe[fc3,held-out]", "cosine[fc3]", "cosine_G[fc3]"]
    assert result["joined_map"].values.tolist() == names
    for split in ("same", "held-out"):
        expected = told["accuracy"].sel(layer="fc3", exemplars=split).transpose("y", "x")
        found = result["joined"].sel(joined_map=f"probe[fc3,{split}]")
        np.testing.assert_array_equal(found, expected)


def test_files_open_in_plain_xarray(run):
    run("attribute", *SMALL, "--method", "saliency", "--canvas-maps", "--out", "half.nc")
    run("attribute", *SMALL, "--method", "saliency", "--dtype", "float32", "--out", "single.nc")
    single = xarray.open_dataset("single.nc", engine="netcdf4").load()
    half = xarray.open_dataset("half.nc", engine="netcdf4").load()
    xarray.testing.assert_equal(xarray.open_dataset("half.nc", engine="h5netcdf"), half)
    assert load_result("half.nc")["attribution"].dtype == np.float16
    assert half["attribution"].dims == ("object", "y", "x", "height", "width")
    np.testing.assert_allclose(half["attribution"], single["attribution"], atol=1e-3)


def test_engines_give_the_same_maps_and_say_which_ran(run):
    common = ("attribute", *SMALL, "--method", "occlusion", "--option", "window=4")
    for engine in ("dense", "incremental"):
        said = run(*common, "--engine", engine, "--out", f"{engine}.nc").err
        assert ("engine incremental (" in said) == (engine == "incremental")
        assert load_result(f"{engine}.nc").attrs["engine"] == engine
    dense, windows = (load_result(f"{name}.nc") for name in ("dense", "incremental"))
    np.testing.assert_allclose(windows["scale"], dense["scale"], rtol=1e-3)
    np.testing.assert_allclose(windows["attribution"], dense["attribution"], atol=2e-3)
    told = run(*common, "--out", "auto.nc").err
    assert f"engine {load_result('auto.nc').attrs['engine']}" in told


def test_sanity_reports_every_layer(run):
    outcome = run(
        "sanity", *SMALL, "--method", "saliency", "--target", "logit:3", "--out", "s.nc", "--json"
    )
    assert [row["randomised"] for row in outcome.json["stages"]] == [
        "(none)", "logits", "fc4", "fc3", "conv2_1", "conv1_1",
    ]  # fmt: skip
    assert outcome.json["stages"][0]["spearman"] == pytest.approx(1)
    run("figure", "s.nc", "--out", "one.svg")
    run("figure", "s.nc", "s.nc", "--out", "two.svg")
    one, two = (Path(name).read_text() for name in ("one.svg", "two.svg"))
    assert (one.count("saliency"), two.count("saliency")) == (1, 2)


REFUSED = {
    "no output": (NETWORK, "--out is missing"),
    "a model and a run": (
        (*NETWORK, "--checkpoints", ".", "--out", "a.nc"), "not both",
    ),
    "a phase of no run": (
        (*SMALL, "--phase", "learn", "--out", "a.nc"), "belongs to --checkpoints",
    ),
    "an unknown method": (
        (*SMALL, "--method", "gradients", "--out", "a.nc"), ("gradients", "nearest"),
    ),
    "an unknown option": (
        (*SMALL, "--option", "steps=3", "--out", "a.nc"),
        ("steps", "n_steps, method, most_steps, tolerance"),
    ),
    "an unreadable target": ((*SMALL, "--target", "logits", "--out", "a.nc"), "similarity:LAYER"),
    "an unknown engine": (
        (*SMALL, "--method", "occlusion", "--engine", "fats", "--out", "a.nc"), ("fats", "auto"),
    ),
    "an unreadable memory": ((*SMALL, "--max-memory", "lots", "--out", "a.nc"), "2GiB"),
    "a missing folder": ((*SMALL, "--out", "nowhere/a.nc"), "nowhere"),
    "a missing readout": ((*SMALL, "--target", "probe:r.nc:2", "--out", "a.nc"), "r.nc does not"),
    "a missing run": (("--checkpoints", "nowhere", "--out", "a.nc"), "no checkpoint"),
}  # fmt: skip

AXIS = ("--axis", "scale=1,2")
REFUSED |= {
    "an axis": (("small-cnn", *AXIS, "--out", "a.nc"), ("attribute takes no --axis", "folder:")),
    "an axis of checkpoints": (("--checkpoints", "run", "--axis=blur=0,2"), "takes no --axis"),
}

LATE = {
    "no layer": (("--method", "grad-cam"), ("needs a layer", "conv2_1")),
    "a layer that is no map": (("--method", "grad-cam", "--layer", "fc3"), "a Linear"),
    "a class out of range": (("--target", "logit:10"), "from 0 to 9"),
    "true classes that are not known": (("--target", "logit:true"), "logit:predicted"),
    "an unknown layer": (("--target", "similarity:fc9"), ("fc9", "nearest: fc")),
    "a window above the canvas": (
        ("--method", "occlusion", "--option", "window=17"), ("window", "canvas"),
    ),
    "a silent baseline": (("--target", "similarity:fc3"), ("silent", "--baseline blurred")),
    "an engine that covers windows only": (
        ("--method", "saliency", "--engine", "incremental"), "--engine auto or dense",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused(case, refuse):
    arguments, says = REFUSED[case]
    refuse("attribute", *arguments, says=says)


@pytest.mark.parametrize("case", LATE)
def test_what_only_shows_in_the_network_is_refused(case, refuse):
    arguments, says = LATE[case]
    refuse("attribute", *SMALL, *arguments, "--out", "a.nc", says=says, late=True)


def test_a_readout_of_another_network_is_refused(run, refuse):
    run("probe", *PROBE[:-2], "--controls", "none", "--out", "p.nc", "--readout", "r.nc")
    given = ("--target", "probe:r.nc", "--out", "a.nc")
    sha = load_model("small-cnn", model_args={"channels": "4-8", "canvas": 16}, seed=1)
    refuse("attribute", *SOME, "--seed", "1", *given, late=True,
           says=("'fc3'", "was fitted on small-cnn", sha.weights_sha256[:12]))  # fmt: skip
    refuse("attribute", *SOME, "--gain", "2", *given, late=True, says="gain 1.0")
    refuse("attribute", *SOME, "--categories", "4", *given, late=True, says="the readout has")
    refuse("attribute", *SOME, "--target", "probe:p.nc", "--out", "a.nc",
           says=("'probe'", "--readout FILE"))  # fmt: skip
    refuse("attribute", *SOME, "--target", "probe:r.nc:3", "--out", "a.nc", late=True,
           says="from 0 to 2")  # fmt: skip
    refuse("attribute", *SOME, "--seed", "1", "--join", "p.nc", "--out", "a.nc", late=True,
           says=("another network", "kind 'probe'"))  # fmt: skip
    refuse("attribute", *SOME, "--join", "r.nc", "--out", "a.nc", says="no numbers over y and x")
    several = (*SOME, "--layers", "fc3,logits", "--out", "q.nc", "--readout", "s.nc")
    refuse("probe", *several, late=True, says=("one layer", "there are 2"))
    refuse("probe", *PROBE, "--train-at", "each", "--out", "q.nc", "--readout", "s.nc",
           says="name a place")  # fmt: skip
    refuse("probe", *PROBE, "--out", "q.nc", "--readout", "r.nc", says="exists already")
    refuse("probe", *PROBE, "--out", "q.nc", "--readout", "q.nc", says="two files")


def test_sanity_says_what_to_do_about_an_axis(refuse):
    refuse("sanity", "small-cnn", *AXIS, "--out", "a.nc", says="sanity takes no --axis")
