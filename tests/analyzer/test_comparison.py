"""Results side by side: differences, their intervals against independent formulas, refusals."""

import numpy as np
import pytest
import xarray
from scipy import stats

from elsewhere.analyzer import compare, measure, network_accuracy, similarity
from elsewhere.errors import InputError
from elsewhere.models import load_model
from elsewhere.stimuli import Canvas, Grid, load_objects
from elsewhere.storage import ArraySource, load_result, save_result, tidy_table

LAYERS = ("conv", "pool", "fc")


def values_of(seed, n=6, units=12, shared=0.8):
    """Return activations (object, y, x, unit) of the same objects in another network."""
    rng = np.random.default_rng(seed)
    values = shared + rng.normal(size=(n, 1, 1, units)) + 0.5 * rng.normal(size=(1, 2, 3, units))
    return (values + 0.4 * rng.normal(size=(n, 2, 3, units))).astype(np.float32)


def alike(seed, layers=LAYERS, keep=None, **facts):
    """Return a similarity result of layers that differ by network and depth."""
    arrays = {name: values_of(100 * seed + depth) for depth, name in enumerate(layers)}
    if keep is not None:
        arrays = {name: values[keep] for name, values in arrays.items()}
    source = ArraySource(arrays, y=[0, 1], x=[0, 1, 2])
    return similarity(source).assign_attrs(object_digest="same", **facts)


@pytest.fixture(scope="module")
def first():
    return alike(1)


@pytest.fixture(scope="module")
def second():
    return alike(2)


def test_a_result_less_itself_is_zero_and_surely_so(first):
    found = compare([first, first], ["a", "b"])
    for key in ("cosine_away", "cosine_G_away"):
        np.testing.assert_array_equal(found[f"{key}_difference"], 0.0)
        np.testing.assert_array_equal(found[f"{key}_difference_interval"], 0.0)
        np.testing.assert_array_equal(found[key][0], first[key])
    assert {*first.attrs["notes"]} <= {*found.attrs["notes"]}


def test_the_same_numbers_twice_are_said(first, second):
    """Of copies with other facts, too; a single number that differs is a difference."""
    said = "holds the same numbers as a: all differences between them are 0"
    copied = first.copy(deep=True).assign_attrs(model="another")
    changed = first.copy(deep=True)
    changed["cosine_away"][0] += 1e-6
    notes = compare([first, second, copied, changed], list("abcd")).attrs["notes"]
    assert [note for note in notes if said in note] == [f"c {said}"]


@pytest.mark.parametrize("key", ["cosine_G_away", "cosine_away"])
def test_the_interval_of_a_difference_is_the_jackknife_over_shared_objects(first, second, key):
    found, n = compare([first, second]), 6
    left_out = []
    for gone in range(n):
        rest = [number for number in range(n) if number != gone]
        one, other = (alike(seed, keep=rest)[key].values for seed in (1, 2))
        left_out.append(other - one)
    apart = second[key].values - first[key].values
    spread = np.array(left_out)
    error = np.sqrt((n - 1) / n * ((spread - spread.mean(axis=0)) ** 2).sum(axis=0))
    half = stats.t.ppf(0.975, n - 1) * error
    np.testing.assert_allclose(found[f"{key}_difference"][0], apart, atol=1e-6)
    bounds = found[f"{key}_difference_interval"][0]
    np.testing.assert_allclose(bounds, np.stack([apart - half, apart + half], -1), atol=1e-5)
    own = [np.ptp(each[f"{key}_interval"].values, axis=-1) for each in (first, second)]
    assert not np.allclose(np.ptp(bounds.values, axis=-1), np.hypot(*own))


def test_layers_are_joined_by_name_or_by_depth(first):
    more = alike(1, layers=("conv", "other", "pool", "deep", "fc"))
    by_depth = compare([first, more], ["a", "b"])
    assert by_depth.attrs["joined_by"] == "depth"
    np.testing.assert_allclose(by_depth["depth"][0], [0, 0.5, 1, np.nan, np.nan])
    np.testing.assert_allclose(by_depth["depth"][1], np.linspace(0, 1, 5))
    assert by_depth["layer"].values[1].tolist() == ["conv", "other", "pool", "deep", "fc"]
    difference = by_depth["cosine_away_difference"][0].values
    np.testing.assert_allclose(
        difference, more["cosine_away"].values[[0, 2, 4]] - first["cosine_away"].values
    )
    between = compare([more, first])["cosine_away_difference"][0].values
    middle = first["cosine_away"].values[:2].mean() - more["cosine_away"].values[1]
    np.testing.assert_allclose(between[1], middle)
    by_name = compare([first, more], by="name")
    assert by_name["joined_layer"].values.tolist() == list(LAYERS)
    assert any("other" in note and "deep" in note for note in by_name.attrs["notes"])
    assert any("interpolated" in note for note in by_depth.attrs["notes"])


def test_measures_against_all_have_differences_and_say_that_intervals_are_missing():
    found = [
        measure(ArraySource({"fc": values_of(seed)}, y=[0, 1], x=[0, 1, 2]), names="cka")
        for seed in (1, 2)
    ]
    both = compare(found)
    key = "cka_away"
    apart = float(found[1][key][0] - found[0][key][0])
    np.testing.assert_allclose(both[f"{key}_difference"].values.ravel(), apart)
    if f"{key}_without" not in found[0]:
        assert both[f"{key}_difference_interval"].isnull().all()
        assert any("cka_away" in n and "have no interval" in n for n in both.attrs["notes"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"object_digest": "other"}, "other objects"),
        ({"canvas": 99}, "the canvas, px differs: None in a, 99 in b"),
        ({"metric": "evoked"}, "the metric differs: cosine in a, evoked in b"),
        ({"kind": "accuracy"}, "two kinds"),
        ({"kind": "readout"}, "two kinds"),
    ],
)
def test_other_stimuli_and_measures_are_refused_in_a_line(first, second, change, message):
    with pytest.raises(InputError, match=message) as error:
        compare([first, second.assign_attrs(change)], ["a", "b"])
    assert "\n" not in str(error.value)


def test_other_places_and_numbers_are_refused(first, second):
    with pytest.raises(InputError, match=r"locations \(x\) of a and b differ"):
        compare([first, second.assign_coords(x=[0, 1, 9])], ["a", "b"])
    with pytest.raises(InputError, match="the measures differ: b lacks cosine_G_away"):
        compare([first, second.drop_vars("cosine_G_away")], ["a", "b"])
    with pytest.raises(InputError, match="two results or more; got 1"):
        compare([first])
    with pytest.raises(InputError, match="called 'a'"):
        compare([first, second], ["a", "a"])
    with pytest.raises(InputError, match="3 names for 2"):
        compare([first, second], ["a", "b", "c"])
    with pytest.raises(InputError, match="no layer has the same name"):
        compare([first, alike(2, layers=("x", "y"))], by="name")


def test_seeds_may_have_other_objects_and_have_no_interval_then(first, second):
    found = compare(
        [first.assign_attrs(seed=1), second.assign_attrs(seed=2, object_digest="other")]
    )
    assert found["cosine_away_difference_interval"].isnull().all()
    assert any("seeds drew different objects" in note for note in found.attrs["notes"])
    assert found["result"].values.tolist() == ["arrays, seed 1", "arrays, seed 2"]


def test_a_comparison_is_stored_and_becomes_a_table(first, second, tmp_path):
    found = compare([first, second], ["a", "b"])
    save_result(found, tmp_path / "both.nc")
    back = load_result(tmp_path / "both.nc")
    xarray.testing.assert_equal(back["cosine_away"], found["cosine_away"])
    table = tidy_table(back, ["cosine_away"])
    row = table[(table["result"] == "b") & (table["layer"] == "fc")]
    np.testing.assert_allclose(row["value"], second["cosine_away"][-1])
    assert row["depth"].tolist() == [1.0]
    assert all(values.attrs["long_name"] for values in back.data_vars.values())


# --- accuracy -------------------------------------------------------------------------------

CANVAS = Canvas(16, 7)
OBJECTS = load_objects("glyphs", size=7, categories=4, per_category=4)


def answers_of(seed):
    arguments = {"channels": "4", "canvas": 16, "num_classes": 4}
    model = load_model("small-cnn", model_args=arguments, seed=seed)
    return network_accuracy(
        model, OBJECTS, CANVAS, Grid.parse("3x3", CANVAS), trained=[(8, 8)],
        classes=OBJECTS.category_names,
    )  # fmt: skip


def test_differences_of_accuracy_are_paired_over_trials():
    one, other = answers_of(0), answers_of(3)
    same = compare([one, one], ["a", "b"])
    key = "accuracy_at"
    for name in (key, "N_at", "on_minus_far"):
        held = same[f"{name}_difference_interval"].sel(exemplars="same")
        known = np.isfinite(one[name].sel(exemplars="same").values)
        np.testing.assert_array_equal(held.values[0][known], 0.0)
    assert not np.array_equal(one["correct"], other["correct"])
    found = compare([one, other])[f"{key}_difference_interval"].sel(exemplars="same")[0]
    # the same, by hand: arms of both intervals, and the correlation of what each object adds
    where = 1
    codes = OBJECTS.category_index
    right = [
        np.where(
            (each["y"].values[:, None] == 8) & (each["x"].values[None] == 8),
            np.nan,
            each["correct"].values.astype(float),
        )
        for each in (one, other)
    ]
    at = np.stack([np.nanmean(each, axis=(1, 2)) for each in right])
    within = at - np.stack([at[:, codes == c].mean(axis=1) for c in codes], axis=1)
    r = (within[0] * within[1]).sum() / np.sqrt((within[0] ** 2).sum() * (within[1] ** 2).sum())
    means = at.mean(axis=1)
    ends = [each[f"{key}_interval"].sel(exemplars="same").values[where] for each in (one, other)]
    low = [m - e[0] for m, e in zip(means, ends, strict=True)]
    high = [e[1] - m for m, e in zip(means, ends, strict=True)]
    apart = means[1] - means[0]
    down = np.sqrt(low[1] ** 2 + high[0] ** 2 - 2 * r * low[1] * high[0])
    up = np.sqrt(high[1] ** 2 + low[0] ** 2 - 2 * r * high[1] * low[0])
    np.testing.assert_allclose(found.values[where], [apart - down, apart + up], atol=1e-9)


# --- claims ---------------------------------------------------------------------------------


def claims(name, values, threshold=0.1, seeds=(100, 101, 102)):
    """Return a table of one claim of one system."""
    values = np.asarray(values, float)
    return xarray.Dataset(
        {
            "value": ("claim", [values.mean()]),
            "threshold": ("claim", [threshold]),
            "direction": ("claim", ["<"]),
            "verdict": ("claim", ["holds" if values.max() < threshold else "fails"]),
            "counts": ("claim", [1]),
            "interval": (("claim", "bound"), [[0.0, 1.0]]),
            "seeds": (("claim", "seed"), values[None]),
        },
        coords={
            "claim": ["C1"],
            "part": ("claim", ["II_far, vanilla"]),
            "pair": ("claim", ["digits"]),
            "exemplars": ("claim", ["same"]),
            "system": ("claim", [name]),
            "seed": list(seeds),
            "bound": ["low", "high"],
        },
        attrs={"kind": "claims", "system": name},
    )


def test_claims_are_paired_over_seeds():
    plain, gap = claims("plain", [0.0, 0.02, 0.01]), claims("gap", [0.8, 0.9, 0.85])
    found = compare([plain, gap])
    assert found["result"].values.tolist() == ["plain", "gap"]
    assert found["verdict"].values.ravel().tolist() == ["holds", "fails"]
    apart = np.array([0.8, 0.88, 0.84])
    expected = stats.t.interval(0.95, 2, apart.mean(), stats.sem(apart))
    np.testing.assert_allclose(found["value_difference_interval"].values.ravel(), expected)
    with pytest.raises(InputError, match=r"the threshold of C1.*differs: 0.1 in plain, 0.2 in b"):
        compare([plain, claims("b", [0.0, 0.0, 0.1], threshold=0.2)])


def test_seeds_that_one_lacks_count_in_no_difference_and_a_list_is_taken_apart():
    plain = claims("plain", [0.0, 0.02], seeds=(100, 101))
    gap = claims("gap", [0.8, 0.9, 0.85])
    found = compare([plain, gap])
    np.testing.assert_allclose(found["value_difference"].values.ravel(), [0.84])
    both = xarray.concat([plain, gap], dim="claim", join="outer", combine_attrs="drop")
    listed = both.assign_attrs(kind="claims", systems="{}")
    xarray.testing.assert_equal(compare([listed])["value"], found["value"])
