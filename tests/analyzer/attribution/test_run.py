"""Runs over sweeps: what comes out, killed runs, checkpoints, sanity."""

import dataclasses
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray
from scipy import stats
from torch import nn

from elsewhere.analyzer.attribution import (
    AttributionSettings,
    LinearTarget,
    attribute,
    attribute_checkpoints,
    join,
    maps_of,
    sanity,
)
from elsewhere.analyzer.attribution.copies import PlainNetwork
from elsewhere.analyzer.attribution.randomness import frame_generator, frame_noise
from elsewhere.analyzer.attribution.summaries import summarise
from elsewhere.analyzer.attribution.weights import Weights, randomise, weights_by_layer
from elsewhere.analyzer.methods import describe_methods
from elsewhere.errors import ExistsError, InputError
from elsewhere.models import load_model
from elsewhere.recording import Sweep
from elsewhere.stimuli import Canvas, Grid
from elsewhere.storage import load_result

SALIENCY = AttributionSettings(method="saliency", target="logit:1")
CLASSES = ("o0", "o1", "o2", "o3", "o4", "x", "y")


@pytest.fixture(scope="module")
def result(make_sweep):
    sweep = make_sweep(grid="2x3")
    settings = AttributionSettings(
        method="input-x-gradient", target="logit:predicted", canvas_maps=True, margin=3
    )
    return attribute(sweep, settings, classes=CLASSES), sweep


# --- the result ------------------------------------------------------------------------------


def test_maps_are_those_of_autograd_in_the_objects_frame(result, gradient):
    found, sweep = result
    from elsewhere.analyzer.attribution.frames import Scenes

    assert found["attribution"].dims == ("object", "y", "x", "height", "width")
    assert found["attribution"].dtype == np.float16
    assert found["height"].values.tolist() == list(range(-3, 11))
    scenes = Scenes(sweep.model, sweep.objects, sweep.canvas)
    maps, canvases = maps_of(found), maps_of(found, "canvas_attribution")
    for number in range(2):
        for y in sweep.grid.y:
            for x in sweep.grid.x:
                top, left = sweep.canvas.top_left((y, x))
                image = scenes.images(number, [(top, left)])
                column = int(sweep.model.module(image)[0].argmax())
                expected = (gradient(sweep.model, image, column) * image).sum(1)[0].numpy()
                limit = 2e-3 * np.abs(expected).max()
                at = {"object": sweep.objects.ids[number], "y": y, "x": x}
                assert int(found["target_class"].sel(at)) == column
                np.testing.assert_allclose(canvases.sel(at), expected, atol=limit)
                inside = maps.sel(at).values[3:11, 3:11]
                np.testing.assert_allclose(
                    inside, expected[top : top + 8, left : left + 8], atol=limit
                )
                mask = sweep.objects.masks[number] > 127
                box = np.abs(expected[top : top + 8, left : left + 8])
                share = box[mask].sum() / np.abs(expected).sum()
                np.testing.assert_allclose(found["mass_inside"].sel(at), share, rtol=1e-4)


def test_equivariance_is_the_correlation_with_the_reference(result):
    found, sweep = result
    maps, there = maps_of(found), maps_of(found, "reference_attribution")
    assert found.attrs["reference_y"] == sweep.reference[0]
    for number in (0, 3):
        for y, x in ((0, 1), (1, 2)):
            a, b = maps[number, y, x].values.ravel(), there[number].values.ravel()
            known = np.isfinite(a) & np.isfinite(b)
            cells = found["equivariance"][:, number, y, x]
            expected = stats.pearsonr(a[known], b[known]).statistic
            assert float(cells.sel(metric="pearson")) == pytest.approx(expected, abs=1e-4)
            expected = stats.spearmanr(abs(a[known]), abs(b[known])).statistic
            assert float(cells.sel(metric="spearman")) == pytest.approx(expected, abs=2e-3)
    at = found.sel(y=sweep.reference[0], x=sweep.reference[1])
    np.testing.assert_allclose(at["equivariance"], 1, atol=1e-9)
    away = found["equivariance"].where(
        (found["y"] != sweep.reference[0]) | (found["x"] != sweep.reference[1])
    )
    np.testing.assert_allclose(found["equivariance_away"], away.mean(("object", "y", "x")))


def test_what_is_recognised_is_told_apart(result):
    found, _ = result
    right = found["predicted"].values == np.arange(5)[:, None, None]
    np.testing.assert_array_equal(found["correct"].values, right)
    np.testing.assert_allclose(found["accuracy"], right.mean(0))
    uneven = found.assign_coords(category=("object", ["a", "a", "a", "b", "c"]))
    balanced = (right[:3].mean(0) + right[3] + right[4]) / 3
    np.testing.assert_allclose(summarise(uneven)["accuracy"], balanced)


def test_a_gap_that_nothing_can_tell_has_a_reason(result):
    found = result[0].assign_attrs(notes=[])
    number = np.arange(5)[:, None, None]
    half = np.broadcast_to(number, found["correct"].shape) < 2
    by_place = np.broadcast_to(np.arange(3) < 1, found["correct"].shape)
    mixed = np.indices(found["correct"].shape).sum(0) % 2 > 0
    for predicted, correct, why in (
        (0, number + 0 * half == 0, "the network gives one answer only"),
        (number, half | True, "all of the objects are recognised"),
        (number + 1, half & False, "none of the objects are recognised"),
        (number + mixed, half, "no place has objects"),
        (number + mixed, by_place, "no place has objects"),
        (number + mixed, mixed, ""),
    ):
        answers = found["predicted"].dims, predicted + np.zeros(half.shape, int)
        changed = found.assign(predicted=answers, correct=(found["correct"].dims, correct))
        after = summarise(changed)
        notes = [note for note in after.attrs["notes"] if note.startswith("recognition_gap")]
        assert bool(after["recognition_gap"].isnull().all()) == bool(why)
        assert len(notes) == bool(why)
        assert all(why in note for note in notes)
        both = after["by_recognition_matched"].values
        np.testing.assert_allclose(both[:, 0] - both[:, 1], after["recognition_gap"], atol=1e-12)


def test_results_are_the_same_from_the_file(make_sweep, tmp_path):
    sweep, path = make_sweep(n=2, grid="1x2"), tmp_path / "attr.nc"
    kept = attribute(sweep, SALIENCY, path=path)
    assert not path.with_name("attr.nc.parts").exists()
    with xarray.open_dataset(path, engine="h5netcdf") as opened:
        assert opened["attribution"].dims == ("object", "y", "x", "height", "width")
        xarray.testing.assert_identical(opened["attribution"].load(), kept["attribution"])
    loaded = load_result(path)
    for name in kept.data_vars:
        np.testing.assert_array_equal(loaded[name], kept[name], err_msg=name)
    xarray.testing.assert_identical(attribute(sweep, SALIENCY, path=path), loaded)
    with pytest.raises(ExistsError):
        attribute(sweep, dataclasses.replace(SALIENCY, target="logit:2"), path=path)


def test_a_reference_off_the_grid_is_computed_in_addition(make_sweep):
    on = attribute(make_sweep(n=2, grid="at:5,5;5,9", reference=(5, 9)), SALIENCY)
    off = attribute(make_sweep(n=2, grid="at:5,5", reference=(5, 9)), SALIENCY)
    found, expected = off["reference_attribution"].values, on["reference_attribution"].values
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.nanmax(abs(expected)))
    np.testing.assert_allclose(off["equivariance"][..., 0], on["equivariance"][..., 0], rtol=1e-4)


# --- equivariance by construction ------------------------------------------------------------


class Rolling(nn.Module):
    """Circular padding, stride 1, a global mean: what it says moves with the object."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular")
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(6, 6, 5, padding=2, padding_mode="circular")
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(6, 4)

    def forward(self, values):
        values = torch.tanh(self.second(self.relu(self.first(values))))
        return self.head(self.pool(values).flatten(1))


@pytest.mark.parametrize(
    ("method", "target", "baseline"),
    [
        ("saliency", "logit:1", "empty"),
        ("input-x-gradient", "probability:predicted", "empty"),
        ("integrated-gradients", "logit:1", "empty"),
        ("integrated-gradients", "similarity:head", "black"),
        ("occlusion", "logit:1", "empty"),
        ("occlusion", "logit:1", "black"),
        ("feature-ablation", "logit:1", "empty"),
        ("grad-cam", "logit:1", "empty"),
        ("guided-backprop", "logit:1", "empty"),
    ],
)
def test_maps_of_an_equivariant_network_move_with_the_object(
    method, target, baseline, wrap, disturb, make_sweep
):
    network = wrap(disturb(Rolling(), 2))
    sweep = make_sweep(network, n=3, grid="at:8,8;8,15;13,8;13,15", background=(90, 120, 30))
    settings = AttributionSettings(
        method=method,
        target=target,
        baseline=baseline,
        margin=3,
        layer="second" if method == "grad-cam" else None,
        options={
            "integrated-gradients": {"tolerance": 1e9, "n_steps": 16},
            "occlusion": {"window": 4, "stride": 2 if baseline == "empty" else 4},
            "feature-ablation": {"cell": 2},
        }.get(method, {}),
    )
    found = attribute(sweep, settings)
    if target.startswith("similarity"):  # the reference's own path is flat: compare elsewhere
        maps = maps_of(found).values.reshape(3, 4, -1)
        for one in maps[:, 1:]:
            np.testing.assert_allclose(one[0], one[1], atol=1e-3 * np.abs(one).max())
    np.testing.assert_allclose(found["equivariance"], 1, atol=1e-4)
    assert (found["equivariance_cross"].sel(metric="pearson") < 0.99).all()
    if (method, baseline) != ("occlusion", "black"):  # whose windows the canvas's edge cuts
        np.testing.assert_allclose(found["mass_ratio"], 1, atol=1e-3)
    if method == "occlusion" and baseline == "empty":  # nothing beyond the object's surroundings
        for name in ("centre_y", "centre_x", "entropy", "mass_inside"):
            np.testing.assert_allclose(found[name].std(("y", "x")), 0, atol=1e-3)


class Faint(nn.Module):
    """Sees the right half of the canvas a millionth as well as the left one."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 4)
        gain = torch.ones(1, 1, 24, 24)
        gain[..., 13:] = 1e-6
        self.register_buffer("gain", gain)

    def forward(self, values):
        return self.head((self.conv(values).relu() * self.gain).mean((2, 3)))


@pytest.mark.parametrize(
    "method", ["saliency", "integrated-gradients", "occlusion", "grad-cam", "deep-lift", "lrp"]
)
def test_maps_far_weaker_than_others_are_none(method, wrap, disturb, make_sweep):
    """By any method: there is nothing to compare, and no place that they have."""
    sweep = make_sweep(
        wrap(disturb(Faint(), 3)), n=3, grid="at:12,5;12,19", reference=(12, 5),
        background=(60, 60, 60),
    )  # fmt: skip
    layer = "conv" if method == "grad-cam" else None
    found = attribute(sweep, AttributionSettings(method, "logit:1", layer=layer))
    if method in ("lrp", "grad-cam"):  # which see the background on the other half, too
        assert found.attrs["n_vanishing"] == 0
        return
    assert found.attrs["n_vanishing"] == 3
    assert found["vanishing"].values.tolist() == [[[False, True]]] * 3
    for name in ("equivariance", "mass_inside", "centre_distance", "entropy"):
        assert bool(found[name].isel(x=1).isnull().all()), name
        assert bool(found[name].isel(x=0).notnull().all()), name
    assert any("3 of 6 maps vanish" in note for note in found.attrs["notes"])


@pytest.mark.parametrize("method", ["saliency", "input-x-gradient", "gradient-shap", "occlusion"])
def test_what_is_nothing_but_rounding_has_no_correlation(method, wrap, make_sweep):
    """The logit is 1000 and some 1e-6 of the image: all that a map explains is rounding."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 576, 3))
    network[1].weight.data.mul_(1e-6)
    network[1].bias.data.fill_(1000.0)
    found = attribute(
        make_sweep(wrap(network), n=2, grid="1x3"), AttributionSettings(method, "logit:1")
    )
    assert found.attrs["n_vanishing"] == 6
    assert bool(found["equivariance"].isnull().all())


def test_an_invariant_code_has_a_map_by_occlusion_only(wrap, disturb, make_sweep):
    """Away from the edges the pooled code is the same everywhere, and so is what covering does."""
    network = wrap(disturb(Rolling(), 2))
    sweep = make_sweep(network, n=3, grid="at:8,8;8,15", background=(90, 120, 30))
    found = {
        method: attribute(sweep, AttributionSettings(method, "similarity:pool"))
        for method in ("occlusion", "saliency")
    }
    np.testing.assert_allclose(found["occlusion"]["equivariance"], 1, atol=1e-4)
    assert found["occlusion"].attrs["n_vanishing"] == 0
    assert found["saliency"].attrs["n_vanishing"] == 6
    assert bool(found["saliency"]["equivariance"].isnull().all())
    assert any(
        "take integrated-gradients or occlusion" in n for n in found["saliency"].attrs["notes"]
    )


def test_random_numbers_move_with_the_object(wrap, disturb, make_sweep):
    """An equivariant network's maps agree although they are drawn; other objects draw others."""
    network = wrap(disturb(Rolling(), 2))
    sweep = make_sweep(network, n=3, grid="at:8,8;8,15;13,8;13,15", background=(90, 120, 30))
    settings = AttributionSettings(
        "gradient-shap", "logit:1", options={"stdevs": 0.5, "n_samples": 4}, extras=("infidelity",)
    )
    found = attribute(sweep, settings)
    assert float(found["equivariance"].sel(metric="pearson").min()) > 0.98
    assert float(found["equivariance_cross_away"].sel(metric="pearson")) < 0.8


@pytest.mark.parametrize("method", ["integrated-gradients", "input-x-gradient", "deep-lift", "lrp"])
def test_infidelity_of_maps_that_carry_the_input(method, linear, make_sweep):
    """On a linear network any map that shares the score out stands for the right slopes."""
    settings = AttributionSettings(method, "logit:1", extras=("infidelity",), n_perturbations=6)
    found = attribute(make_sweep(linear, n=1, grid="1x2"), settings)
    np.testing.assert_allclose(found["infidelity"], 0, atol=1e-6)


def test_infidelity_is_refused_where_maps_stand_for_no_slopes():
    with pytest.raises(InputError, match="a map of occlusion stands for no slopes"):
        AttributionSettings("occlusion", extras=("infidelity",))


def test_a_class_whose_name_is_a_number_is_taken_by_its_name(make_sweep):
    names = ("5", "6", "7", "8", "9", "x", "y")
    sweep = make_sweep(n=1, grid="1x1")
    found = attribute(sweep, dataclasses.replace(SALIENCY, target="logit:7"), classes=names)
    assert found["target_class"].item() == 2
    with pytest.raises(InputError, match="'logit:2'|logit:2 is ambiguous.*5, 6, 7, 8"):
        attribute(sweep, dataclasses.replace(SALIENCY, target="logit:2"), classes=names)


def test_the_methods_text_says_what_was_done(make_sweep):
    from elsewhere.analyzer import describe_methods

    sweep = make_sweep(n=2, grid="1x2")
    settings = AttributionSettings(
        "integrated-gradients", "logit:1", options={"n_steps": 12, "tolerance": 1}
    )
    text = describe_methods(attribute(sweep, settings))
    for word in (
        "2 objects", "The logit of class '1' was", "integrated-gradients [sundararajan2017]",
        "n_steps = 12",
        "the empty canvas", "captum", "torch", "@inproceedings{sundararajan2017",
    ):  # fmt: skip
        assert word in text, word
    text = describe_methods(sanity(sweep, AttributionSettings("lrp", "logit:1")))
    for word in ("[bach2015]", "[adebayo2018]", "epsilon: convolution (2)", "weights, all that"):
        assert word in text, word


def test_a_similarity_has_no_gradient_at_the_reference(make_sweep):
    sweep = make_sweep(n=2, grid="1x3")
    found = attribute(sweep, AttributionSettings(method="saliency", target="similarity:fc3"))
    assert found.attrs["n_vanishing"] == 2
    assert bool(found["equivariance"].isnull().all())
    settings = AttributionSettings(
        method="integrated-gradients", target="similarity:fc3", options={"tolerance": 1}
    )
    found = attribute(sweep, settings)
    assert found.attrs["n_vanishing"] == 0
    assert bool(found["equivariance"].notnull().all())
    np.testing.assert_allclose(found["reference_score"], 1, atol=1e-5)


# --- killed runs, memory, bad input ----------------------------------------------------------

RUN = """
import os, signal, sys
import numpy as np
from elsewhere import Canvas, Grid, ObjectSet, Sweep, load_model
from elsewhere.analyzer.attribution import AttributionSettings, attribute

rng = np.random.default_rng(0)
names = ("a", "b", "c")
objects = ObjectSet(
    "random", rng.integers(0, 256, (3, 5, 5, 3), dtype=np.uint8),
    np.full((3, 5, 5), 255, np.uint8), names, names,
)
model = load_model("small-cnn", model_args={"channels": "4-8", "canvas": 16, "num_classes": 3})
canvas = Canvas(16, 5)
sweep = Sweep(model, objects, canvas=canvas, grid=Grid.parse("2x2", canvas))
settings = AttributionSettings(
    method="gradient-shap", target="logit:1", options={"n_samples": 4, "stdevs": 0.3}
)
"""

KILLED = """
def progress(done, total):
    if done > 4:  # the first object's 4 locations are through
        os.kill(os.getpid(), signal.SIGKILL)

attribute(sweep, settings, path="killed.nc", progress=progress)
"""


def test_a_killed_run_goes_on_and_gives_the_same(tmp_path, monkeypatch):
    killed = subprocess.run(
        [sys.executable, "-c", RUN + KILLED],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(os.path.abspath(p) for p in sys.path if p),
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
        },
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    parts = tmp_path / "killed.nc.parts"
    assert not (tmp_path / "killed.nc").exists()
    assert [path.name for path in parts.glob("unit-*.h5")] == ["unit-0000000.h5"]
    monkeypatch.chdir(tmp_path)
    made: dict = {}
    exec(RUN, made)
    seen = []
    attribute(
        made["sweep"], made["settings"], path="killed.nc", progress=lambda *now: seen.append(now)
    )
    assert seen == [(8, 12), (12, 12)], "the first object was computed again"
    assert not parts.exists()
    attribute(made["sweep"], made["settings"], path="whole.nc")
    xarray.testing.assert_identical(load_result("killed.nc"), load_result("whole.nc"))


def test_parts_of_another_run_are_refused(make_sweep, tmp_path):
    sweep, path = make_sweep(n=2, grid="1x2"), tmp_path / "attr.nc"

    def interrupt(done, total):
        if done > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attribute(sweep, SALIENCY, path=path, progress=interrupt)
    other = dataclasses.replace(SALIENCY, target="logit:2")
    with pytest.raises(ExistsError, match="parts of another recording"):
        attribute(sweep, other, path=path)
    attribute(sweep, other, path=path, overwrite=True)
    assert load_result(path).attrs["target"] == "logit:2"


def test_maps_that_do_not_fit_the_memory_are_refused_first(make_sweep):
    with pytest.raises(InputError, match=r"above --max-memory 1\.0 KiB"):
        attribute(make_sweep(n=2, grid="1x2"), SALIENCY, max_memory="1KiB")


BAD = {
    "a class out of range": ({"target": "logit:7"}, "out of range: there are 7 classes"),
    "a true class that is not known": ({"target": "logit:true"}, "logit:predicted"),
    "an unknown class": ({"target": "logit:cat"}, "cat"),
    "an unknown layer": ({"target": "similarity:fc9"}, "fc9"),
    "several layers": ({"target": "similarity:conv*"}, "means 2 layers"),
    "a readout of another size": (
        {"target": LinearTarget("fc3", np.ones((2, 5)), choice="1")}, "has 5 units, the layer 12",
    ),
    "a negative margin": ({"margin": -1}, "margin"),
    "an unknown baseline": ({"baseline": "white"}, "empty, black, blurred"),
    "an unknown dtype": ({"dtype": "int8"}, "float16"),
    "an unknown extra": ({"extras": ("beauty",)}, "sensitivity"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_line(case, make_sweep):
    arguments, says = BAD[case]
    with pytest.raises(Exception, match=says) as caught:
        attribute(
            make_sweep(n=1, grid="1x1"), AttributionSettings(**{"target": "logit:1"} | arguments)
        )
    from elsewhere.errors import ElsewhereError

    assert isinstance(caught.value, ElsewhereError)
    assert "\n" not in str(caught.value)


def test_extras_repeat(make_sweep):
    settings = AttributionSettings(
        method="saliency", target="logit:1", options={"abs": "false"},
        extras=("sensitivity", "infidelity"), n_perturbations=4,
    )  # fmt: skip
    sweep = make_sweep(n=1, grid="1x2")
    first, again = (attribute(sweep, settings) for _ in range(2))
    assert (first["sensitivity"] > 0).all()
    assert (first["infidelity"] >= 0).all()
    np.testing.assert_array_equal(first["infidelity"], again["infidelity"])


@pytest.mark.parametrize("method", ["saliency", "integrated-gradients"])
def test_infidelity_is_captums(method, make_sweep, monkeypatch):
    """Of the same noise, image by image; a map that shares the score out divides by the change."""
    from captum.metrics import infidelity

    given, module = [], sys.modules["elsewhere.analyzer.attribution.objects"]
    plain = module.extras_of
    monkeypatch.setattr(module, "extras_of", lambda *each: given.append(each) or plain(*each))
    options = {"abs": "false"} if method == "saliency" else {"n_steps": 4, "tolerance": 9}
    settings = AttributionSettings(
        method, "logit:1", options=options, extras=("infidelity",), n_perturbations=4
    )
    found = attribute(make_sweep(n=1, grid="1x3"), settings)["infidelity"].values.ravel()
    ((explainer, _, batch, explained),) = given
    unit = 0.1 * explainer.model.transform.gain / np.mean(explainer.model.transform.std)
    for row, (key, corner) in enumerate(zip(batch.keys, batch.corners, strict=True)):
        one = batch.take(slice(row, row + 1))
        noise = unit * frame_noise(frame_generator(0, key, 2), 4, corner, 24)
        slopes = explained.maps[row : row + 1]
        if method != "saliency":
            shown = one.images - one.baselines
            noise = noise * (shown != 0)
            slopes = torch.where(shown != 0, slopes / torch.where(shown != 0, shown, 1), 0)
        with torch.no_grad():
            expected = infidelity(
                explainer.scorer, lambda images, noise=noise: (noise, images - noise), one.images,
                slopes, target=1, n_perturb_samples=4, normalize=True,
            )  # fmt: skip
        assert found[row] == pytest.approx(float(expected[0]), rel=1e-3)
        assert found[row] > 0


def test_a_linear_network_has_neither_sensitivity_nor_infidelity(linear, make_sweep):
    settings = AttributionSettings(
        method="saliency", target="logit:1", options={"abs": "false"},
        extras=("sensitivity", "infidelity"), n_perturbations=4,
    )  # fmt: skip
    found = attribute(make_sweep(linear, n=1, grid="1x2"), settings)
    np.testing.assert_allclose(found["sensitivity"], 0, atol=1e-5)
    np.testing.assert_allclose(found["infidelity"], 0, atol=1e-3)


# --- joins -----------------------------------------------------------------------------------


def test_other_results_are_joined_at_the_same_locations(result):
    found, _ = result
    y, x = (found[dim].values for dim in ("y", "x"))
    own = found["mass_inside_mean"].values
    accuracy = xarray.Dataset(
        {"accuracy": (("exemplars", "y", "x"), np.stack([own, -own])),
         "margin": (("object", "y", "x"), np.zeros((1, *own.shape)))},
        coords={"exemplars": ["same", "held-out"], "y": y, "x": x},
        attrs={"kind": "accuracy"},
    )  # fmt: skip
    some = xarray.Dataset(
        {"cosine_G": (("layer", "y", "x"), own[None, :, :2])},
        coords={"layer": ["fc3"], "y": y, "x": x[:2]},
        attrs={"kind": "similarity"},
    )
    joined = join(found, [accuracy, some])
    assert joined["joined_map"].values.tolist() == [
        "accuracy[same]",
        "accuracy[held-out]",
        "cosine_G[fc3]",
    ]
    table = joined["association"].sel(measure_map="mass_inside").values
    np.testing.assert_allclose(table, [1, -1, 1])
    assert np.isnan(joined["joined"].sel(joined_map="cosine_G[fc3]").values[:, 2]).all()
    nothing = xarray.concat([some, some * np.nan], "layer").assign_coords(layer=["fc3", "fc4"])
    assert (
        "cosine_G[fc4]" not in join(found, [nothing.assign_attrs(some.attrs)])["joined_map"].values
    )
    with pytest.raises(InputError, match="another network"):
        join(found, [some.assign_attrs(weights_sha256="0" * 64)])
    with pytest.raises(InputError, match="on a canvas of 99 px"):
        join(found, [some.assign_attrs(canvas=99)])
    with pytest.raises(InputError, match="none of the locations"):
        join(found, [some.assign_coords(x=x[:2] + 1)])
    with pytest.raises(InputError, match="no numbers over y and x"):
        join(found, [some.drop_vars("cosine_G")])


# --- sanity ----------------------------------------------------------------------------------


def test_layers_are_randomised_from_the_output_down(model):
    network = PlainNetwork(model)
    empty = torch.zeros(1, 3, 24, 24)
    names = [
        "classifier.6", "classifier.3", "classifier.0", "features.3", "features.0",
    ]  # fmt: skip
    found = weights_by_layer(network.network, lambda: network(empty))
    assert list(found) == names
    assert sum(each.size for each in found.values()) == sum(
        parameter.numel() for parameter in model.module.parameters()
    )
    found = weights_by_layer(network.network, lambda: network.until(empty, "features.3", 0, None))
    assert list(found) == ["features.3", "features.0"]  # nothing behind it
    layer = nn.Linear(20, 10)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    randomise(layer, Weights(("weight", "bias")), seed=0)
    for name, value in layer.state_dict().items():
        assert not torch.equal(value, before[name])
        assert torch.equal(value.flatten().sort()[0], before[name].flatten().sort()[0])


class Mixed(nn.Module):
    """Weights that no leaf module holds: normed, of an attention, bare, a slope of one value."""

    canvas_size = 24

    def __init__(self):
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.conv, self.slope = norm(nn.Conv2d(3, 8, 3, stride=4)), nn.PReLU(1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.token, self.head = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(4, 8))
        self.never = nn.Linear(3, 3)

    def forward(self, values):
        values = self.slope(self.conv(values)).flatten(2).transpose(1, 2)
        values = torch.cat([self.token.expand(len(values), -1, -1), values], 1)
        values = values + self.attention(values, values, values, need_weights=False)[0]
        return values[:, 0] @ self.head.T


def test_every_weight_is_randomised_and_counted(wrap, make_sweep):
    """Seen from within: which values the network has had at the last stage."""
    torch.manual_seed(0)
    inner, seen = Mixed(), []
    first = {name: value.detach().clone() for name, value in inner.named_parameters()}

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, values):
            found = self.inner(values)
            every = self.inner.named_parameters()
            seen.append({n: p.detach().clone() for n, p in every if not n.startswith("never")})
            return found

    found = sanity(make_sweep(wrap(Watched()), n=1, grid="1x1"), SALIENCY)
    used = {name: value for name, value in first.items() if not name.startswith("never")}
    assert found.attrs["n_weights"] == sum(value.numel() for value in used.values())
    left = [name for name, value in used.items() if torch.equal(seen[-1][name], value)]
    assert left == ["attention.in_proj_bias", "attention.out_proj.bias"], "which are all 0"
    shares, last = found["randomised"].values, 0.0
    assert (shares[0], shares[-1]) == (0, 1)
    assert found["stage"].values.tolist() == [
        "(none)", "inner", "inner.attention", "inner.slope", "inner.conv",
    ]  # fmt: skip
    sizes = {name: value.numel() for name, value in used.items()}
    for stage, part in zip(found["stage"].values[1:], shares[1:], strict=True):
        at = stage.removeprefix("inner").removeprefix(".")
        own = [n for n in sizes if (n.startswith(at) if at else n in ("token", "head"))]
        last += sum(sizes[name] for name in own) / sum(sizes.values())
        assert part == pytest.approx(last)


class Block(nn.Module):
    """Is given its own weights, as a view that was made before."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, values, weight):
        return torch.tanh(values @ weight)


class Views(nn.Module):
    """All weights are read at once, the last ones first; `low` is used again behind the head."""

    def __init__(self, how):
        super().__init__()
        self.how, self.stem = how, nn.Conv2d(3, 4, 3)
        self.low, self.high, self.head = Block(), Block(), nn.Linear(4, 4)
        self.kept = self.high.weight.detach().view(2, 8)  # the same memory

    def forward(self, values):
        high, low = self.high.weight.t() * 1.0, self.low.weight.view(16).view(4, 4)
        if self.how == "memory":
            high = self.kept.view(4, 4)
        values = self.stem(values).mean((2, 3))
        values = self.head(self.high(self.low(values, low), high))
        return nn.functional.linear(values, self.low.weight) if self.how == "tied" else values


@pytest.mark.parametrize(
    ("how", "order"),
    [
        ("views", ["head", "high", "low", "stem"]),
        ("memory", ["head", "high", "low", "stem"]),
        ("tied", ["low", "head", "high", "stem"]),
    ],
)
def test_weights_are_randomised_where_they_are_used(how, order):
    """Not where they are read: at each stage all that lies behind a layer is random."""
    network = Views(how)
    found = weights_by_layer(network, lambda: network(torch.rand(1, 3, 8, 8)))
    assert list(found) == order
    assert sum(each.size for each in found.values()) == sum(p.numel() for p in network.parameters())


FILTERS = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(5))


class Box(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("filters", torch.full((6, 1, 3, 3), 1 / 9), persistent=False)

    def forward(self, x):
        return nn.functional.conv2d(x, self.filters, groups=6)


class Fixed(nn.Module):
    """Filters that are no parameters: a buffer, plain tensors, a global."""

    canvas_size = 24

    def __init__(self, outside=False):
        super().__init__()
        self.outside = outside
        self.register_buffer("bank", torch.randn(6, 3, 5, 5))
        self.box, self.norm = Box(), nn.BatchNorm2d(5)
        self.more, self.unused = {"last": [torch.randn(5, 6, 3, 3)]}, torch.randn(99)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = nn.functional.conv2d(x, FILTERS if self.outside else self.bank)
        x = self.norm(nn.functional.conv2d(self.box(x), self.more["last"][0]))
        return self.head(torch.relu(x).mean((2, 3)))


def test_fixed_filters_are_randomised_and_counted():
    torch.manual_seed(0)
    network = Fixed()
    weights = weights_by_layer(network, lambda: network.eval()(torch.rand(1, 3, 24, 24)))
    assert list(weights) == ["head", "norm", "", "box"]
    count = 450 + 54 + 270 + 4 * 5 + 18  # bank, box, more, normalisation, head
    assert sum(each.size for each in weights.values()) == count
    before = {"bank": network.bank, "box": network.box.filters, "more": network.more["last"][0]}
    before = {name: value.clone() for name, value in before.items()}
    for each in weights.values():
        randomise(network, each, seed=0)
    after = {"bank": network.bank, "box": network.box.filters, "more": network.more["last"][0]}
    for name, value in before.items():
        assert (after[name] != value).float().mean() > 0.9, name
    assert (network.box.filters >= 0).all()
    assert torch.equal(network.norm.running_var, torch.ones(5))  # would be nan if multiplied


def test_what_cannot_be_randomised_is_said(wrap, make_sweep):
    torch.manual_seed(0)
    network = Fixed(outside=True).eval()
    found = sanity(make_sweep(wrap(network), n=1, grid="1x1"), SALIENCY)
    random = 54 + 270 + 4 * 5 + 18
    assert found.attrs["n_weights"] == random
    assert found.attrs["not_randomised"] == {"(conv2d: 6 x 3 x 5 x 5)": 450}
    assert found["randomised"][-1] == pytest.approx(random / (random + 450))
    assert any("55.4% of the values" in note and "conv2d" in note for note in found.attrs["notes"])
    said = describe_methods(found)
    assert "but for (conv2d: 6 x 3 x 5 x 5) (450 values)" in said


def test_objects_without_a_map_do_not_acquit(make_objects):
    """Red objects have none in a network that is blind to red; what is said of others stays."""
    network = load_model("vgg11-slim", model_args={"canvas": 32, "num_classes": 10})
    network.module.features[0].weight.data[:, 0] = 0
    canvas, objects = Canvas(32, 12), make_objects(4, size=12)
    images = objects.images.copy()
    images[1:, ..., 1:] = 0
    red = dataclasses.replace(objects, images=images)
    few = {"n_steps": 6}
    settings = AttributionSettings(method="integrated-gradients", target="logit:1", options=few)
    found = [
        sanity(Sweep(network, each, canvas=canvas, grid=Grid.parse("1x2", canvas)), settings)
        for each in (objects.select([objects.category_names[0]]), red)
    ]
    np.testing.assert_allclose(found[0]["likeness"], found[1]["likeness"], atol=1e-6)
    assert found[1].attrs["n_vanishing"] == 6
    assert any("6 of 8 maps" in note and "left out" in note for note in found[1].attrs["notes"])


def test_empty_maps_of_randomised_networks_are_counted(make_sweep, wrap):
    """A bias of one value is multiplied by a random number: where that is negative, all is dead."""
    network = nn.Sequential(nn.Conv2d(3, 1, 3), nn.ReLU(), nn.Flatten(), nn.Linear(22 * 22, 3))
    torch.nn.init.constant_(network[0].bias, 99.0)
    sweep, counts = make_sweep(wrap(network), n=2, grid="1x1"), set()
    for seed in range(4):
        found = sanity(sweep, dataclasses.replace(SALIENCY, target="logit:1", seed=seed))
        counts.add(dead := found["n_empty"].values.tolist()[-1])
        assert found["n_empty"].values.tolist()[:2] == [0, 0]
        said = any("0 randomised last: 2 of 2) and count as" in n for n in found.attrs["notes"])
        assert said == (dead == 2)
        assert (found["likeness"][-1] == 0).all() == (dead == 2)
    assert counts == {0, 2}


def test_guided_backprop_is_flagged_and_the_gradient_is_not(make_objects):
    network = load_model("vgg11-slim", model_args={"canvas": 32, "num_classes": 10})
    canvas = Canvas(32, 12)
    sweep = Sweep(network, make_objects(3, size=12), canvas=canvas, grid=Grid.parse("1x2", canvas))
    state = {name: value.clone() for name, value in network.module.state_dict().items()}
    found = {
        method: sanity(sweep, AttributionSettings(method=method, target="logit:predicted"))
        for method in ("saliency", "guided-backprop")
    }
    for result in found.values():
        assert result.sizes["stage"] == 12
        assert result["stage"].values[[0, 1, -1]].tolist() == ["(none)", "logits", "conv1_1"]
        np.testing.assert_allclose(result["likeness"][0], 1, atol=1e-6)
    assert found["guided-backprop"].attrs["unchanged"] is True
    assert found["saliency"].attrs["unchanged"] is False
    after = network.module.state_dict()
    assert all(torch.equal(state[name], after[name]) for name in state), "the network was changed"


# --- over training ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from elsewhere.training import Curriculum, Exemplars, Network, Phase, train

    phases = [
        Phase(name, objects="glyphs", categories=count, exemplars=Exemplars(train=4, held_out=2),
              environment="one", steps=6, batch=8, checkpoints=2, new_head=True)
        for name, count in (("first", 4), ("second", 3))
    ]  # fmt: skip
    folder = tmp_path_factory.mktemp("trained") / "run"
    network = Network("small-cnn", arguments={"channels": "4-8", "hidden": 12}, gain=4.0)
    train(
        Curriculum(name="tiny", network=network, canvas=Canvas(16, 7), phases=tuple(phases)), folder
    )
    return folder


def test_checkpoints_follow_each_other(trained, tmp_path):
    from elsewhere.training import list_checkpoints, load_checkpoint

    settings = AttributionSettings(method="saliency", target="similarity:fc3", margin=2)
    seen = []
    found = attribute_checkpoints(
        trained, settings, grid="1x3", report=lambda *now: seen.append(now)
    )
    cards = list_checkpoints(trained)
    assert found.sizes["checkpoint"] == len(cards)
    assert found["phase"].values.tolist() == [card.phase for card in cards]
    assert found["attribution"].dims == ("checkpoint", "object", "y", "x", "height", "width")
    assert seen[-1][2] == "done"
    card, objects = cards[0], None
    objects, _ = cards[-1].test_objects(per_category=1)
    sweep = Sweep(
        load_checkpoint(card.path), objects.select(per_category=1), canvas=card.canvas,
        grid=Grid.parse("1x3", card.canvas), reference=cards[-1].trained[0],
    )  # fmt: skip
    alone = attribute(sweep, settings, classes=card.categories)
    xarray.testing.assert_equal(
        found["attribution"][0].drop_vars(["phase", "step"]), alone["attribution"]
    )
    files = list((trained / "attribution").rglob("*.nc"))
    stamps = {file: file.stat().st_mtime_ns for file in files}
    attribute_checkpoints(trained, settings, grid="1x3")
    assert {file: file.stat().st_mtime_ns for file in files} == stamps, "computed again"


def test_a_class_is_attributed_where_the_head_knows_it(trained):
    settings = AttributionSettings(method="saliency", margin=2)
    found = attribute_checkpoints(trained, settings, grid="1x2", phases=["second"])
    assert set(found["phase"].values.tolist()) == {"second"}
    assert found.attrs["target"] == "logit:true"
    assert "accuracy" in found
    with pytest.raises(InputError, match="has no phase 'third'"):
        attribute_checkpoints(trained, settings, phases=["third"])


@pytest.mark.parametrize("method", ["saliency", "occlusion"])
def test_weights_that_hooks_have_made_are_copied(make_sweep, wrap, method):
    torch.manual_seed(0)
    old, new = torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm
    maps = []
    for norm in (old, new):
        torch.manual_seed(0)
        first = norm(torch.nn.Conv2d(3, 4, 3))
        network = torch.nn.Sequential(
            first, torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 484, 3)
        )
        sweep = make_sweep(wrap(network), n=2, grid="1x2", layers="*")
        found = attribute(sweep, AttributionSettings(method, "logit:1"))
        maps.append(found["attribution"].values.astype(float))
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-4 * np.nanmax(abs(maps[1])))
