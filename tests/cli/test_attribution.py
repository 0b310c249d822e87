"""`elsewhere attribute` and `elsewhere sanity`, as they are typed."""

import numpy as np
import pytest

from elsewhere.storage import load_result

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


def test_other_results_are_joined(run):
    run("similarity", *SMALL, "--layers", "fc3", "--out", "sim.nc")
    run(
        "attribute", *SMALL, "--target", "similarity:fc3", "--method", "occlusion",
        "--option", "window=4", "--join", "sim.nc", "--out", "attr.nc",
    )  # fmt: skip
    result = load_result("attr.nc")
    assert result["joined_map"].values.tolist() == ["similarity_mean[fc3]", "G[fc3]"]
    expected = load_result("sim.nc")["similarity_mean"].sel(layer="fc3")
    np.testing.assert_allclose(result["joined"].sel(joined_map="similarity_mean[fc3]"), expected)
    np.testing.assert_allclose(  # the target is the similarity itself
        result["score_mean"], expected, atol=1e-5
    )


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
        (*SMALL, "--option", "steps=3", "--out", "a.nc"), ("steps", "n_steps, method, tolerance"),
    ),
    "an unreadable target": ((*SMALL, "--target", "logits", "--out", "a.nc"), "similarity:LAYER"),
    "an unknown engine": (
        (*SMALL, "--method", "occlusion", "--engine", "fats", "--out", "a.nc"), ("fats", "auto"),
    ),
    "an unreadable memory": ((*SMALL, "--max-memory", "lots", "--out", "a.nc"), "2GiB"),
    "a missing folder": ((*SMALL, "--out", "nowhere/a.nc"), "nowhere"),
    "a missing run": (("--checkpoints", "nowhere", "--out", "a.nc"), "no checkpoint"),
}  # fmt: skip

LATE = {
    "no layer": (("--method", "grad-cam"), ("needs a layer", "conv2_1")),
    "a layer that is no map": (("--method", "grad-cam", "--layer", "fc3"), "a Linear"),
    "a class out of range": (("--target", "logit:10"), "from 0 to 9"),
    "true classes that are not known": (("--target", "logit:true"), "logit:predicted"),
    "an unknown layer": (("--target", "similarity:fc9"), ("fc9", "nearest: fc")),
    "an engine that covers windows only": (
        ("--method", "saliency", "--engine", "incremental"), "--engine auto or dense",
    ),
    "too few steps": (
        ("--baseline", "black", "--background", "200", "--option", "n_steps=2",
         "--option", "method=riemann_left", "--option", "tolerance=0.001"),
        "raise the steps",
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
