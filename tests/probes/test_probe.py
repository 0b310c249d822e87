"""What a result of probes says, on sources whose answer is known."""

import dataclasses

import numpy as np
import pytest
import xarray

from elsewhere.errors import InputError
from elsewhere.measures.accuracy import unit_means
from elsewhere.measures.intervals import Spread, share_interval
from elsewhere.probes import probe, solved_shuffles
from elsewhere.probes.places import find_places
from elsewhere.probes.splits import deal_folds, divide, shuffle_labels
from elsewhere.probes.summary import Regions, Summary
from elsewhere.recording import record
from elsewhere.storage import ArraySource, load_result, open_recording, save_result
from elsewhere.training import trial_table


def test_an_invariant_code_is_read_everywhere_and_a_local_one_nowhere_else(make_source):
    invariant = probe(make_source(kind="invariant"), controls=("shuffled",))
    assert (invariant["accuracy"].values == 1).all()
    np.testing.assert_allclose(invariant["II_far"].values, 1)
    np.testing.assert_allclose(invariant["share_above"].values, 1)
    local = probe(make_source(kind="local", units=400), controls=("shuffled",))
    at = local["accuracy_at"].sel(layer="fc")
    np.testing.assert_allclose(at.sel(where="on").values, 1)
    assert (np.abs(local["II_far"].values) < 0.25).all()
    assert (at.sel(where="far").values < 0.45).all()
    np.testing.assert_allclose(
        local["on_minus_far"].values[0], (at.sel(where="on") - at.sel(where="far")).values
    )


def test_the_numbers_follow_from_the_trials(make_source):
    source = make_source(kind="mixed")
    result = probe(source, train_at=(13, 6), controls=())
    correct = result["correct"].values[0].astype(float)
    held_out = result["held_out"].values.astype(bool)
    ys, xs = np.meshgrid(result["y"], result["x"], indexing="ij")
    distance = np.maximum(np.abs(ys - 13), np.abs(xs - 6))
    regions = {"on": distance == 0, "off": distance > 0, "far": distance >= 8}
    for split, rows in (("same", ~held_out), ("held-out", held_out)):
        here = result.sel(layer="fc", exemplars=split)
        np.testing.assert_allclose(here["accuracy"].values, correct[rows].mean(axis=0))
        means = {name: correct[rows][:, mask].mean() for name, mask in regions.items()}
        for name, value in means.items():
            np.testing.assert_allclose(float(here["accuracy_at"].sel(where=name)), value)
        chance = 1 / 4
        index = (means["far"] - chance) / (means["on"] - chance)
        np.testing.assert_allclose(float(here["II_far"]), index)
        above = (correct[rows].mean(axis=0) > (1 + chance) / 2).mean()
        np.testing.assert_allclose(float(here["share_above"]), above)
        for step in result["displacement"].values:
            expected = correct[rows][:, distance == step].mean()
            found = float(here["accuracy_by_displacement"].sel(displacement=step))
            np.testing.assert_allclose(found, expected)
        low, high = here["accuracy_at_interval"].sel(where="far").values
        assert low <= means["far"] <= high
        assert high > low


def test_same_and_held_out_exemplars_never_mix(make_source):
    """Exemplars of pure noise: those trained on are known elsewhere, others are not."""
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=(32, 1, 1, 300)), 4, axis=1)
    values = np.repeat(values, 3, axis=2)
    categories = [f"c{i}" for i in range(4) for _ in range(8)]
    source = ArraySource({"fc": values}, y=[5, 13, 21, 29], x=[6, 14, 22], categories=categories)
    source.provenance["object_size"] = 8
    result = probe(source, strengths=[1.0], controls=("shuffled",))
    same, other = (result["accuracy"].sel(layer="fc", exemplars=s) for s in ("same", "held-out"))
    assert (same.values == 1).all()
    assert (other.values < 0.75).all()
    # labels mean nothing here, so the control task is as easy: the flag says so
    assert "fc (same)" in solved_shuffles(result)
    assert "fc (held-out)" not in solved_shuffles(result)
    np.testing.assert_allclose(
        result["selectivity_at"].sel(exemplars="same", where="off").values, 0, atol=1e-12
    )


def test_unequal_categories_give_noise_no_selectivity_and_no_flag():
    """Noise, anew at each place: nothing can be read off the trained one, by no labels."""
    rng = np.random.default_rng(4)
    categories = ["a"] * 30 + ["b"] * 3 + ["c"] * 3
    source = ArraySource(
        {"fc": rng.normal(size=(36, 8, 8, 60))},
        y=range(0, 64, 8), x=range(0, 64, 8), categories=categories,
    )  # fmt: skip
    source.provenance["object_size"] = 8
    result = probe(source, kind="nearest-centroid", controls=("shuffled",), n_shuffles=20)
    same = result.sel(layer="fc", exemplars="same", where="off")
    assert abs(float(same["selectivity_at"])) < 0.05
    assert abs(float(same["shuffled_accuracy_at"]) - 1 / 3) < 0.04
    assert solved_shuffles(result) == []
    other = result.sel(layer="fc", exemplars="held-out")
    assert np.isnan(other["selectivity_at"].values).all()
    np.testing.assert_allclose(other["above_chance_at"], other["accuracy_at"] - 1 / 3)


def test_the_control_task_is_balanced_over_its_own_classes():
    """By hand: each shuffle's accuracy is the mean over its classes of means over exemplars."""
    rng = np.random.default_rng(7)
    categories = ["a"] * 9 + ["b"] * 3
    values = rng.normal(size=(12, 1, 2, 5))
    source = ArraySource({"fc": values}, y=[8], x=[8, 40], categories=categories)
    source.provenance["object_size"] = 8
    result = probe(
        source, train_at=(8, 8), split="same", kind="nearest-centroid", controls=("shuffled",),
        n_shuffles=6,
    )  # fmt: skip
    exemplars = divide(source.design, "same", seed=0)
    expected = []
    here = (values[:, 0, 0] - values[:, 0, 0].mean(0)) / values[:, 0, 0].std(0)
    there = (values[:, 0, 1] - values[:, 0, 0].mean(0)) / values[:, 0, 0].std(0)
    for labels in shuffle_labels(exemplars, 6, seed=0):
        centroids = np.stack([here[labels == code].mean(0) for code in (0, 1)])
        choice = ((there[:, None] - centroids) ** 2).sum(-1).argmin(1)
        expected.append(np.mean([(choice[labels == code] == code).mean() for code in (0, 1)]))
    found = float(result["shuffled_accuracy_at"].sel(layer="fc", exemplars="same", where="off"))
    assert found == pytest.approx(np.mean(expected), abs=1e-6)


def test_one_exemplar_a_category_has_no_control_task():
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=(6, 1, 1, 30)), 4, axis=2)  # an invariant code
    source = ArraySource({"fc": values}, y=[8], x=[8, 24, 40, 56], categories=list("abcdef"))
    source.provenance["object_size"] = 8
    result = probe(source, train_at=(8, 8), strengths=[1.0], controls=("shuffled",))
    assert float(result["accuracy_at"].sel(layer="fc", exemplars="same", where="off")) == 1
    assert np.isnan(result["selectivity_at"].values).all()
    assert solved_shuffles(result) == []
    assert "other names for the same task" in result.attrs["reason"]


def test_strength_is_chosen_at_the_trained_place_only_and_ties_go_to_the_strongest(make_source):
    easy = probe(make_source(kind="invariant", noise=0.1), controls=())
    assert (easy["cross_validated"].values[0] == 1).all()
    assert float(easy["strength"][0]) == 1e-4
    ridge = probe(make_source(kind="invariant", noise=0.1), kind="ridge", controls=())
    assert float(ridge["strength"][0]) == 1e6
    source = make_source(kind="mixed")
    before = probe(source, train_at=(5, 6), controls=())
    ruined = make_source(kind="mixed")
    ruined._arrays["fc"] = ruined._arrays["fc"].copy()
    ruined._arrays["fc"][:, 1:] = 0
    after = probe(ruined, train_at=(5, 6), controls=())
    np.testing.assert_array_equal(before["cross_validated"].values, after["cross_validated"].values)
    scores = before["cross_validated"].values[0]
    assert float(before["strength"][0]) == before["strengths"].values[int(np.argmax(scores))]


def test_held_out_exemplars_do_not_touch_the_probe(make_source):
    source = make_source(kind="mixed")
    mask = np.arange(24) % 6 == 2
    first = probe(source, held_out=mask, controls=())
    changed = make_source(kind="mixed")
    changed._arrays["fc"] = changed._arrays["fc"].copy()
    changed._arrays["fc"][mask] *= -3
    second = probe(changed, held_out=mask, controls=())
    for name in ("strength", "cross_validated"):
        np.testing.assert_array_equal(first[name].values, second[name].values)
    same = {"exemplars": "same"}
    np.testing.assert_array_equal(
        first["accuracy"].sel(same).values, second["accuracy"].sel(same).values
    )
    assert not np.array_equal(first["choice"].values, second["choice"].values)


def test_folds_split_exemplars_and_keep_classes_even():
    labels = np.repeat([0, 1, 2], [7, 9, 5])
    folds = deal_folds(labels, 5, seed=0)
    for fold in range(5):
        counts = np.bincount(labels[folds == fold], minlength=3)
        assert (counts >= 1).all()
        assert counts.max() <= 2
    np.testing.assert_array_equal(folds, deal_folds(labels, 5, seed=0))
    assert not np.array_equal(folds, deal_folds(labels, 5, seed=1))


def test_shuffled_labels_are_a_permutation_within_each_side(make_source):
    exemplars = divide(make_source().design, "both", seed=3)
    shuffled = shuffle_labels(exemplars, 5, seed=0)
    for row in shuffled:
        for mask in (exemplars.held_out, ~exemplars.held_out):
            np.testing.assert_array_equal(np.sort(row[mask]), np.sort(exemplars.labels[mask]))
    assert len({tuple(row) for row in shuffled}) == 5


def test_the_interval_is_over_the_means_of_categories(make_source):
    """Copies of exemplars change nothing, and neither does what varies within a category only."""
    exemplars = divide(make_source().design, "same")
    rng = np.random.default_rng(0)
    correct = rng.random((1, len(exemplars.labels), 9)) < 0.7
    regions = Regions(np.ones((3, 1, 9), bool), np.zeros((1, 9), int))
    found = Summary(exemplars, regions, threshold=0.5).numbers(correct)
    means = unit_means(correct[0].mean(axis=1), exemplars.labels)
    np.testing.assert_allclose(
        found["accuracy_at_interval"][0, 0], share_interval(Spread.of(means))
    )
    order = np.tile(np.arange(len(exemplars.labels)), 6)
    copied = dataclasses.replace(
        exemplars, labels=exemplars.labels[order], held_out=exemplars.held_out[order]
    )
    six = Summary(copied, regions, threshold=0.5).numbers(correct[:, order])
    for name in found:
        np.testing.assert_allclose(six[name], found[name], atol=1e-12, err_msg=name)


@pytest.fixture(scope="module")
def two_sources(make_sweep, tmp_path_factory):
    sweep = make_sweep(n=3, per=4, grid="3x3")
    path = record(sweep, tmp_path_factory.mktemp("probes") / "run.h5")
    return sweep, path


def test_a_recording_and_a_live_sweep_agree_and_hold_all_controls(two_sources, hooks_of):
    sweep, path = two_sources
    chosen = ["conv1_1", "pool2", "fc3", "logits"]
    known = [layer.name for layer in sweep.layers]
    chosen = [name for name in chosen if name in known]
    assert len(chosen) >= 3
    live = probe(sweep, layers=chosen)
    assert hooks_of(sweep.model.module) == 0
    with open_recording(path) as recording:
        stored = probe(recording, layers=chosen)
    for name in live.data_vars:
        np.testing.assert_allclose(
            live[name].values, stored[name].values, atol=1e-6, err_msg=str(name)
        )
    for control in ("pixels", "untrained", "shuffled"):
        assert np.isfinite(live[f"{control}_accuracy"].values).all(), control
    assert "reason" not in live.attrs
    # the fixture's weights were changed after they had been drawn with seed 0
    assert "seed 0" in live.attrs["untrained_network"]
    assert live.attrs["untrained_network"] == stored.attrs["untrained_network"]
    assert live["accuracy"].dims == ("layer", "exemplars", "y", "x")
    assert live.attrs["kind"] == "probe"


def test_raw_pixels_in_the_trained_box_are_those_of_whole_canvases(two_sources):
    from elsewhere.probes.controls import ControlScene

    sweep, _ = two_sources
    scene = ControlScene.of(sweep)
    patches = scene.objects.patches(scene.color)
    places = sweep.design.positions.tolist()
    whole = np.stack(
        [scene.canvas.paste(patches, [tuple(p)] * 12, scene.color) for p in places], axis=1
    )
    arrays = ArraySource(
        {"whole": whole.reshape(12, 3, 3, -1) / np.float32(255)},
        y=sweep.grid.y,
        x=sweep.grid.x,
        categories=sweep.design.categories,
    )
    expected = probe(arrays, controls=(), split="both")
    found = probe(sweep, layers=["logits"], controls=("pixels",), split="both")
    np.testing.assert_allclose(
        found["pixels_accuracy"].values, expected["accuracy"].values[0], atol=1e-12
    )


def test_the_untrained_network_is_another_draw(two_sources):
    from elsewhere.models import load_model, state_sha256
    from elsewhere.probes.controls import untrained

    sweep, path = two_sources
    other, told = untrained(sweep, seed=0)
    assert other.model.weights_sha256 != state_sha256(sweep.model.module.state_dict())
    assert other.design.axes == sweep.design.axes
    again, told_again = untrained(other, seed=0)
    assert again.model.weights_sha256 != other.model.weights_sha256
    assert told != told_again
    with open_recording(path) as recording:
        of_file, _ = untrained(recording, seed=0)
    assert of_file.model.weights_sha256 == other.model.weights_sha256
    assert of_file.model.transform == sweep.model.transform
    model = load_model("small-cnn", model_args=dict(sweep.model.arguments), seed=1)
    assert again.model.weights_sha256 == model.weights_sha256


def test_kept_means_are_probed_under_their_own_name(make_sweep, tmp_path):
    from elsewhere.storage import Keep

    sweep = make_sweep(n=3, per=3, grid="2x3", layers=["pool2", "logits"])
    path = record(sweep, tmp_path / "mean.h5", keep={"pool2": Keep("mean")})
    with open_recording(path) as recording:
        result = probe(recording, kind="nearest-centroid")
    assert result["measure"].values.tolist() == ["nearest-centroid(mean)", "nearest-centroid"]
    assert result["n_units"].values.tolist() == [6, 7]
    assert np.isfinite(result["untrained_accuracy"].values).all()


def test_results_are_written_and_read(make_source, tmp_path):
    for train_at in ("left", "each"):
        result = probe(make_source(units=20, per=3), train_at=train_at, kind="nearest-centroid")
        again = load_result(save_result(result, tmp_path / f"{train_at}.nc"))
        xarray.testing.assert_equal(result, again)
        assert again.attrs["kind"] == ("probe-each" if train_at == "each" else "probe")
        for name, variable in result.data_vars.items():
            assert variable.dims, name


def test_one_exemplar_of_each_is_the_paper_s_case(make_source):
    result = probe(make_source(kind="invariant", per=1, n=6), controls=())
    assert result["exemplars"].values.tolist() == ["same", "held-out"]
    assert (result["accuracy"].sel(exemplars="same").values == 1).all()
    assert np.isnan(result["accuracy"].sel(exemplars="held-out").values).all()
    assert float(result["strength"][0]) == 1.0
    assert "has one exemplar" in result.attrs["reason"]
    assert "nothing to cross-validate" in result.attrs["reason"]


REFUSED = {
    "one exemplar": ({"per": 1}, {"split": "held-out"}, "'c0' has one exemplar"),
    "one category": ({"n": 1}, {}, "one category 'c0'"),
    "off the grid": ({}, {"train_at": (12, 7)}, "12,7 to train at is not on the grid.*13,6"),
    "off the grid, of several": ({}, {"train_at": "5,6;5,7"}, "5,7 .* nearest: 5,6"),
    "unreadable place": ({}, {"train_at": "there"}, "'there'.*left, centre, each"),
    "three numbers": ({}, {"train_at": (1, 2, 3)}, "where to train"),
    "no place": ({}, {"train_at": []}, "no location"),
    "missing category": ({}, {"held_out": np.arange(24) < 6}, "'c0' is missing at training"),
    "mask of another length": ({}, {"held_out": np.zeros(3, bool)}, r"shape \(24,\)"),
    "all held out": ({}, {"held_out": 1.5}, "1.5"),
    "unknown kind": ({}, {"kind": "logistics"}, "'logistics'; nearest: logistic"),
    "no classifier": ({}, {"kind": 3}, "int.*scikit-learn classifier"),
    "unknown split": ({}, {"split": "other"}, "unknown split 'other'"),
    "unknown control": ({}, {"controls": ("pixel",)}, "nearest: pixels"),
    "unknown layer": ({}, {"layers": ["fd"]}, "unknown layer 'fd'"),
    "no strength": ({}, {"kind": "nearest-centroid", "strengths": [1]}, "no strength"),
    "negative strength": ({}, {"strengths": [-1]}, "above 0"),
    "no folds": ({}, {"n_folds": 0}, "n_folds is 0"),
    "threshold": ({}, {"threshold": 3}, "threshold is 3"),
    "memory": ({}, {"max_memory": "1 KiB"}, "probes of fc need at least .* 1.0 KiB"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(case, make_source):
    from elsewhere.errors import ElsewhereError

    made, asked, says = REFUSED[case]
    with pytest.raises(ElsewhereError, match=says) as caught:
        probe(make_source(**made), **asked)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 2])
def test_nan_and_infinity_are_refused_by_layer_and_object(bad, place, make_source):
    from elsewhere.errors import NumericsError

    source = make_source()
    source._arrays["fc"] = source._arrays["fc"].copy()
    source._arrays["fc"][3, 1, place, 7] = bad
    with pytest.raises(NumericsError, match="layer 'fc'.*'object3'"):
        probe(source, split="same", controls=())


def test_progress_ends_where_a_control_is_left_out(make_source):
    seen = []
    controls = ("untrained",)
    result = probe(make_source(), controls=controls, progress=lambda *each: seen.append(each))
    assert "untrained" in result.attrs["reason"]
    assert seen[-1][0] == seen[-1][1]


def test_constant_features_are_answered_nan_with_a_reason(make_source):
    source = make_source()
    n = len(source.design.objects)
    dead = ArraySource(
        {"fc": source._arrays["fc"], "dead": np.zeros((n, 3, 4, 9))},
        y=(5, 13, 21), x=(6, 14, 22, 30), categories=source.design.categories,
    )  # fmt: skip
    result = probe(dead, controls=("shuffled",))
    assert np.isnan(result["accuracy"].sel(layer="dead").values).all()
    assert np.isnan(result["II_far"].sel(layer="dead").values).all()
    assert np.isfinite(result["accuracy"].sel(layer="fc").values).all()
    assert "dead: all its 9 units are the same for all objects" in result.attrs["reason"]
    assert "\n" not in result.attrs["reason"]


def test_places_by_name(make_source):
    design = make_source().design
    assert find_places("left", design) == (((13, 6),),)
    assert find_places("centre", design) == (((13, 22),),)
    assert find_places([(5, 6), (5, 6), (21, 30)], design) == (((5, 6), (21, 30)),)
    assert find_places(np.array([5, 14]), design) == (((5, 14),),)
    assert len(find_places("each", design)) == 12


def test_bands_hold_for_all_layers_over_the_means_of_categories(make_source):
    """The band of one layer is its interval; of several it is wider, and no point at 1."""
    exemplars = divide(make_source(n=8, per=3).design, "same")
    n = len(exemplars.labels)
    rng = np.random.default_rng(0)
    regions = Regions(np.ones((3, 1, 9), bool), np.zeros((1, 9), int))
    summary = Summary(exemplars, regions, threshold=0.5)
    layers = [rng.random((1, n, 9)) < level for level in (0.3, 0.6, 0.8)]
    layers.append(np.ones((1, n, 9), bool))
    intervals = np.stack([summary.numbers(each)["accuracy_at_interval"] for each in layers])
    values = np.stack([summary.numbers(each)["accuracy_at"] for each in layers])
    by_class = np.stack([summary.by_class(each) for each in layers])
    found = summary.bands(by_class)
    assert found["band"].shape == (4, 2, 3, 2)
    assert (found["band"][:, 0, :, 0] < intervals[:, 0, :, 0]).all()
    assert (found["band"][:3, 0, :, 1] > intervals[:3, 0, :, 1]).all()
    assert (found["band"][3, 0, :, 1] == 1).all()
    np.testing.assert_allclose(found["step"][1:, 0], np.diff(values[:, 0], axis=0))
    assert np.isnan(found["band"][:, 1]).all()  # nothing is held out
    alone = summary.bands(by_class[:1])
    np.testing.assert_allclose(alone["band"][:, 0], intervals[:1, 0])


def test_few_categories_have_no_band_and_say_so(make_source):
    source = make_source(n=3, per=4)
    two = ArraySource(
        {"a": source._arrays["fc"], "b": source._arrays["fc"]},
        y=source.design.axes["y"].values,
        x=source.design.axes["x"].values,
        categories=list(source.design.categories),
    )
    result = probe(two, controls=())
    assert np.isfinite(result["accuracy_at_interval"].sel(where="on", exemplars="same")).all()
    assert np.isnan(result["accuracy_at_band"]).all()
    assert any("no band over layers" in note for note in result.attrs["notes"])


def test_trials_of_probes_are_rows_that_give_its_accuracies():
    """The means of a trial table, by its own words, are the numbers of the result."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(12, 1, 4, 6)) + rng.normal(size=(12, 1, 1, 6))
    empty = np.zeros(6)
    saturated = values.copy()
    saturated[5] = empty
    source = ArraySource(
        {"one": values, "two": saturated}, y=[3], x=[3, 5, 9, 20],
        categories=list("abc") * 4, empty={"one": empty, "two": empty},
    )  # fmt: skip
    result = probe(source, train_at=(3, 5), controls=(), seed=1)
    result.attrs["object_size"] = 6
    table = trial_table(result)
    assert len(table) == 12 * 4 + 11 * 4
    assert table["distance_px"].tolist() == abs(table["x"] - 5).tolist()
    assert set(table["condition"]) == set(table["network"]) != {"unknown"}
    np.testing.assert_allclose(table["distance_sizes"], abs(table["x"] - 5) / 6)
    assert set(table["chance"]) == {1 / 3}
    assert table.loc[(table["object"] == "object11") & (table["x"] == 3), "exemplar"].tolist() == [
        3, 3,
    ]  # fmt: skip
    assert (table["correct"] == (table["choice"] == table["category"])).all()
    means = table.groupby(["layer", "split", "category"])["correct"].mean()
    means = means.groupby(["layer", "split"]).mean()
    assert set(table.loc[table["x"] == 20, "split"]) == {
        "far from the trained location, held-out exemplars",
        "far from the trained location, trained exemplars",
    }
    for layer in ("one", "two"):
        for split, which in (("same", "trained"), ("held-out", "held-out")):
            found = result["accuracy"].sel(layer=layer, exemplars=split, y=3)
            at = means[layer, f"trained location, {which} exemplars"]
            far = means[layer, f"far from the trained location, {which} exemplars"]
            assert at == pytest.approx(float(found.sel(x=5)))
            assert far == pytest.approx(float(found.sel(x=20)))
    each = probe(source, train_at="each", controls=(), layers=["one"])
    with pytest.raises(InputError, match="a probe-each has no trials"):
        trial_table(each)


def test_where_every_location_is_trained_the_reason_is_said():
    values = np.random.default_rng(0).normal(size=(12, 1, 1, 6))
    source = ArraySource({"one": values}, y=[3], x=[3], categories=list("abc") * 4)
    result = probe(source, controls=())
    assert np.isnan(result["accuracy_at"].sel(where=["off", "far"])).all()
    said = [note for note in result.attrs["notes"] if "locations of the grid are trained" in note]
    assert said == ["off, far: all locations of the grid are trained ones"]
