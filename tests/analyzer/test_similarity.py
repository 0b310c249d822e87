import itertools

import numpy as np
import pytest
import torch
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

import elsewhere
from elsewhere.analyzer import METRICS, SimilaritySink, dead_layers
from elsewhere.errors import InputError, LayerError, NumericsError, UnknownNameError
from elsewhere.measures.blocks import DenseBlock
from elsewhere.measures.intervals import jackknife_t
from elsewhere.models import InputTransform
from elsewhere.recording import record
from elsewhere.stimuli import ObjectSet
from elsewhere.storage import ArraySource, Keep, load_result, open_recording, save_result
from tests.roles import by_role, similarity

VALUES = {
    "similarity": "similarity_mean",
    "baseline_cross": "baseline_cross",
    "G": "G",
    "similarity_away": "similarity_away",
    "baseline_cross_away": "baseline_cross_away",
    "G_away": "G_away",
}


def source_of(values, **options):
    """Return a source for values of shape (object, y, x, unit)."""
    _, ny, nx, _ = values.shape
    return ArraySource({"layer": values}, y=list(range(ny)), x=list(range(nx)), **options)


def make_values(n=6, ny=2, nx=3, units=40, seed=0, shared=1.0):
    """Return activations with something shared by all, by places and by objects."""
    rng = np.random.default_rng(seed)
    values = shared * rng.normal(size=units) + 0.7 * rng.normal(size=(n, 1, 1, units))
    values = values + 0.5 * rng.normal(size=(1, ny, nx, units))
    return (values + 0.4 * rng.normal(size=(n, ny, nx, units))).astype(np.float32)


# --- against loops over pairs ---------------------------------------------------------------

CATEGORIES = [
    ["a", "b", "c", "d", "e", "f"],
    ["a", "a", "b", "b", "b", "c"],
    ["a", "b", "a", "c", "b", "a"],
]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("categories", CATEGORIES, ids=["own", "together", "mixed"])
def test_agrees_with_the_formulas(by_the_book, metric, categories):
    values = make_values()
    empty = np.random.default_rng(9).normal(size=40).astype(np.float32)
    source = source_of(values, categories=categories, reference=(1, 2), empty={"layer": empty})
    found = similarity(source, metric=metric).sel(layer="layer")
    flat = values.reshape(6, 6, 40)
    book = by_the_book(flat, flat[:, 5], categories, metric, empty, at=5)
    np.testing.assert_allclose(found["similarity"].values.reshape(6, 6), book.own(), atol=1e-6)
    expected = book.estimates(range(6))
    intervals = book.intervals()
    for name, variable in VALUES.items():
        shape = expected[name].shape
        np.testing.assert_allclose(
            found[variable].values.reshape(shape), expected[name], atol=5e-6, err_msg=name
        )
        np.testing.assert_allclose(
            found[f"{name}_interval"].values.reshape(*shape, 2),
            intervals[name],
            atol=5e-5,
            err_msg=name,
        )
    without = [float(book.estimates(kept)["G_away"]) for kept in book.left_out()]
    np.testing.assert_allclose(found["G_away_without"], without, atol=5e-6)
    same = book.baseline(range(6), cross=False)
    np.testing.assert_allclose(found["baseline_same"].values.ravel(), same, atol=1e-5)
    away = np.mean(same[:5])
    assert float(found["baseline_same_away"]) == pytest.approx(away, abs=1e-5)
    assert float(found["over_place_away"]) == pytest.approx(
        float(expected["similarity_away"]) - away, abs=1e-5
    )
    assert float(found["zero_share"]) == 0


@pytest.mark.parametrize("metric", METRICS)
def test_a_live_sweep_agrees_with_the_formulas(make_sweep, plain_forwards, by_the_book, metric):
    """From pixels to G, with a reference off the grid and several exemplars of a category."""
    sweep = make_sweep(n=3, per=2, grid="2x3", reference=(9, 14), layers="pool2,fc4,logits")
    result = similarity(sweep, metric=metric)
    for name, (grid, reference, empty) in plain_forwards(sweep).items():
        flat = grid.reshape(6, 6, -1)
        book = by_the_book(
            flat, reference.reshape(6, -1), sweep.objects.categories, metric, empty.ravel()
        )
        found = result.sel(layer=name)
        expected = book.estimates(range(6))
        np.testing.assert_allclose(found["similarity"].values.reshape(6, 6), book.own(), atol=1e-5)
        room = 1 - expected["baseline_cross"].max()
        for key, variable in VALUES.items():
            shape = expected[key].shape
            tolerance = 1e-5 if key.startswith(("sim", "base")) else 1e-5 / room
            np.testing.assert_allclose(
                found[variable].values.reshape(shape), expected[key], atol=tolerance, err_msg=key
            )


# --- networks and codes of which the answer is known ----------------------------------------


class Invariant(nn.Module):
    """Circular convolutions of stride 1 and a global average: invariant by construction."""

    def __init__(self):
        super().__init__()
        options = {"kernel_size": 3, "padding": 1, "padding_mode": "circular"}
        self.first, self.second = nn.Conv2d(3, 16, **options), nn.Conv2d(16, 32, **options)
        self.maps, self.average = nn.ReLU(), nn.AdaptiveAvgPool2d(1)

    def forward(self, values):
        maps = self.maps(self.second(torch.relu(self.first(values))))
        return self.average(maps).flatten(1)


@pytest.mark.parametrize("metric", METRICS)
def test_a_network_that_is_invariant_by_construction(make_sweep, wrap, disturb, metric):
    network = disturb(Invariant(), seed=3)
    for part in (network.first, network.second):  # a black canvas leaves nothing to be alike in
        nn.init.zeros_(part.bias)
    images = np.zeros((4, 8, 8, 3), np.uint8)
    images[0, :, :, 0] = images[1, ::2, :, 1] = images[2, :, ::2, 2] = images[3, 3:5, 3:5] = 255
    names = ("red", "green rows", "blue columns", "white dot")
    objects = ObjectSet("made", images, np.full((4, 8, 8), 255, np.uint8), names, names, {})
    sweep = make_sweep(
        wrap(network, transform=InputTransform()),
        objects=objects,
        background=0,
        grid="4x4",
        layers="average",
    )
    result = similarity(sweep, metric=metric)
    np.testing.assert_allclose(result["similarity"], 1, atol=1e-5)
    room = 1 - float(result["baseline_cross"].max())
    assert room > 0.02  # not for want of anything to tell apart
    g = result["G"].values
    assert np.isnan(g).sum() == 1  # at the reference
    np.testing.assert_allclose(g[~np.isnan(g)], 1, atol=1e-5 / room)
    np.testing.assert_allclose(result["G_away"], 1, atol=1e-5 / room)


def test_an_equivariant_code_has_a_g_near_zero():
    """One-hot in place, each object in its own way: another object is as alike as itself."""
    rng = np.random.default_rng(0)
    n, ny, nx = 12, 3, 4
    codes = rng.normal(size=(n, 30))
    values = np.zeros((n, ny, nx, ny * nx, 30))
    for o, y, x in itertools.product(range(n), range(ny), range(nx)):
        values[o, y, x, y * nx + x] = codes[o]
    result = similarity(source_of(values.reshape(n, ny, nx, -1))).sel(layer="layer")
    away = result["G"].values.ravel()
    at = 1 * nx + 0
    assert np.isnan(away[at])
    np.testing.assert_allclose(np.delete(away, at), 0, atol=1e-9)
    assert float(result["G_away"]) == pytest.approx(0, abs=1e-9)
    low, high = result["G_away_interval"].values
    assert low <= 0 <= high
    # with a bias that all places share it is alike everywhere, and still not invariant
    biased = similarity(source_of((values + 2.0).reshape(n, ny, nx, -1))).sel(layer="layer")
    assert float(biased["similarity_away"]) > 0.9
    assert abs(float(biased["G_away"])) < 0.05


@pytest.mark.parametrize("metric", ["cosine", "evoked", "pearson"])
def test_objects_never_pair_with_themselves(metric):
    """Codes of which different objects have nothing in common: baselines are exactly zero."""
    n = 5
    values = np.zeros((n, 2, 2, 4 * n))
    for o in range(n):
        values[o, ..., 4 * o : 4 * o + 2] = 1.0
        values[o, ..., 4 * o + 2 : 4 * o + 4] = -1.0
    empty = {"layer": np.zeros(4 * n)}
    result = similarity(source_of(values, empty=empty), metric=metric)
    for name in ("baseline_cross", "baseline_same"):
        np.testing.assert_allclose(result[name], 0, atol=1e-6)
    g = result["G"].values
    np.testing.assert_allclose(g[~np.isnan(g)], [1, 1, 1], atol=1e-6)
    centred = similarity(source_of(values), metric="centred")
    np.testing.assert_allclose(centred["baseline_cross"], -1 / (n - 1), atol=1e-6)


def test_exemplars_of_a_category_are_not_a_baseline():
    code = np.eye(3)[[0, 0, 1, 1, 2]]
    values = np.broadcast_to(code[:, None, None], (5, 2, 2, 3)).copy()
    result = similarity(source_of(values, categories=["a", "a", "b", "b", "c"]))
    np.testing.assert_allclose(result["baseline_cross"], 0, atol=1e-9)
    np.testing.assert_allclose(result["baseline_same"], 0, atol=1e-6)
    assert result.attrs["n_cross_pairs"] == 2 * (4 + 2 + 2)


def test_zero_vectors_count_as_zero_and_are_reported(by_the_book):
    values = make_values(n=4, ny=1, nx=5)
    values[1, 0, 3] = 0
    values[2] = 0  # at the reference, too
    result = similarity(source_of(values)).sel(layer="layer")
    own = result["similarity"].values.reshape(4, 5)
    assert own[1, 3] == 0
    assert np.isnan(own[2]).all()  # no response at all: left out, and named
    assert any("nothing in layer, " in note and "object2" in note for note in result.attrs["notes"])
    assert (own[[0, 1, 3]][:, 0] > 0.999).all()
    assert float(result["zero_share"]) == pytest.approx(6 / 20)
    rest = values[[0, 1, 3]].reshape(3, 5, -1)
    book = by_the_book(rest, rest[:, 0], list("abd"))
    np.testing.assert_allclose(
        result["baseline_same"].values.ravel(), book.baseline(range(3), cross=False), atol=1e-6
    )
    both = elsewhere.similarity(
        ArraySource({"alive": values[:2], "dead": values[2:]}, y=[0], x=[0, 1, 2, 3, 4])
    )
    assert dead_layers(both) == ["alive", "dead"]
    assert dead_layers(elsewhere.similarity(source_of(make_values()))) == []


@pytest.mark.parametrize("metric", ["pearson", "evoked", "centred"])
def test_what_is_nothing_once_the_metric_has_removed_it_counts_as_zero(metric):
    """Constant vectors for pearson, the empty canvas's for evoked, all alike for centred."""
    rng = np.random.default_rng(0)
    if metric == "pearson":
        values = np.broadcast_to(rng.uniform(1, 50, size=(4, 2, 3, 1)), (4, 2, 3, 9_001))
        values = values.copy()
    else:
        values = np.broadcast_to(rng.normal(size=9_001) + 3, (4, 2, 3, 9_001)).copy()
    empty = {"layer": values[0, 0, 0]} if metric == "evoked" else None
    result = similarity(source_of(values, empty=empty), metric=metric)
    assert float(result["zero_share"][0]) == 1
    if metric == "evoked":  # no object changes anything: nothing is measured
        assert result["similarity"].isnull().all()
        assert "no object changes anything in layer" in result.attrs["notes"][0]
        return
    assert (result["similarity"] == 0).all()
    assert (result["baseline_cross"] == 0).all()
    assert any("no larger than rounding once" in note for note in result.attrs["notes"])
    assert not any("dead" in note for note in result.attrs["notes"])


def test_one_object_or_one_category_has_no_baseline(recwarn):
    one = similarity(source_of(make_values(n=1)))
    assert np.isfinite(one["similarity"]).all()
    assert np.isfinite(one["similarity_away"]).all()
    for name in ("baseline_cross", "baseline_same", "G", "G_away", "similarity_interval"):
        assert np.isnan(one[name]).all(), name
    alike = similarity(source_of(make_values(n=3), categories=["a"] * 3))
    assert np.isfinite(alike["similarity_interval"]).all()
    for name in ("baseline_cross", "baseline_same", "G", "G_away", "G_interval"):
        assert np.isnan(alike[name]).all(), name
    two = similarity(source_of(make_values(n=2)))
    assert np.isfinite(two["G"]).sum() == two["G"].size - 1  # not at the reference
    assert np.isnan(two["G_interval"]).all()
    point = similarity(source_of(make_values(ny=1, nx=1)))  # the reference only
    assert np.isnan(point["similarity_away"]).all()
    assert not recwarn.list


def test_where_nothing_can_be_told_apart_g_is_undefined():
    values = np.ones((3, 2, 2, 5)) + 1e-6 * np.arange(3)[:, None, None, None]
    result = similarity(source_of(values))
    assert np.isnan(result["G"]).all()
    assert (result["baseline_cross"] > 0.999).all()
    assert any("G is undefined (nan)" in note for note in result.attrs["notes"])


def test_two_categories_have_no_interval_of_g_and_say_so():
    values = np.random.default_rng(0).normal(size=(6, 2, 2, 5))
    result = similarity(source_of(values, categories=["a"] * 4 + ["b"] * 2))
    assert np.isfinite(result["G_away"]).all()
    assert np.isnan(result["G_away_interval"]).all()
    assert any("no interval" in note and "G_away" in note for note in result.attrs["notes"])


# --- properties -----------------------------------------------------------------------------

shapes = st.tuples(st.integers(2, 5), st.integers(1, 2), st.integers(2, 3), st.integers(2, 12))


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(0, 2**32), st.sampled_from(["cosine", "centred", "evoked"]))
def test_a_rotation_of_the_units_changes_nothing(shape, seed, metric):
    n, ny, nx, units = shape
    values = make_values(n, ny, nx, units, seed)
    rotation = stats.ortho_group.rvs(units, random_state=np.random.default_rng(seed))
    empty = values[0, 0, 0] * 0.3
    before = similarity(source_of(values, empty={"layer": empty}), metric=metric)
    after = similarity(
        source_of(values @ rotation, empty={"layer": empty @ rotation}), metric=metric
    )
    for name in ("similarity", "baseline_cross", "baseline_same"):
        np.testing.assert_allclose(after[name], before[name], atol=2e-5)


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(0, 2**32), st.floats(-6, 6), st.sampled_from(METRICS))
def test_scaling_changes_nothing(shape, seed, exponent, metric):
    values = make_values(*shape, seed)
    empty = values[0, 0, 0] * 0.3
    factor = 10**exponent
    before = similarity(source_of(values, empty={"layer": empty}), metric=metric)
    after = similarity(source_of(values * factor, empty={"layer": empty * factor}), metric=metric)
    for name in ("similarity", "baseline_cross", "baseline_same", "zero_share"):
        np.testing.assert_allclose(after[name], before[name], atol=2e-5)


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(6)), st.sampled_from(METRICS), st.integers(0, 99))
def test_the_order_of_objects_does_not_matter(order, metric, seed):
    values, categories = make_values(seed=seed), ["a", "a", "b", "c", "c", "c"]
    empty = {"layer": values[0, 0, 0] * 0.3}
    before = similarity(source_of(values, categories=categories, empty=empty), metric=metric)
    shuffled = [categories[i] for i in order]
    after = similarity(source_of(values[order], categories=shuffled, empty=empty), metric=metric)
    for name, values in before.data_vars.items():
        wanted = values.isel(object=order) if "object" in values.dims else values
        if "left_out" in values.dims:
            wanted = values.sel(left_out=after["left_out"].values)
        np.testing.assert_allclose(after[name].values, wanted.values, atol=1e-4, err_msg=name)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_the_order_and_size_of_blocks_do_not_matter(data):
    metric = data.draw(st.sampled_from(METRICS))
    parts = data.draw(st.sampled_from([1, 2, 3]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    categories = list(rng.choice(list("abc"), 6))
    values = make_values(seed=int(rng.integers(99))).reshape(6, 6, 40)
    empty = values[0, 0] * 0.3
    source = source_of(values.reshape(6, 2, 3, 40), categories=categories, empty={"layer": empty})
    expected = similarity(source, metric=metric)
    sink, design = SimilaritySink(metric=metric), source.design
    pairs = np.array(list(itertools.product(range(6), range(6))))
    none = np.array([-1])
    for part in range(parts):
        sink.begin(design, source.layers, part, parts)
        for stage in ("empty", "reference", "grid"):
            if stage not in sink.needs(source.layers[0])[0].stages:
                continue
            if stage == "empty":
                sink.add(DenseBlock(stage, "layer", none, none, empty[None].copy()))
                continue
            rows = pairs if stage != "reference" else np.array([[o, 3] for o in range(6)])
            rows = rng.permutation(rows)
            cuts = np.sort(rng.integers(0, len(rows) + 1, 5))
            for block in np.split(rows, cuts):
                if not len(block):
                    continue
                memory = values[block[:, 0], block[:, 1]]
                places = block[:, 1] if stage != "reference" else np.full(len(block), -1)
                sink.add(DenseBlock(stage, "layer", block[:, 0], places, memory))
                memory[...] = np.nan  # a block is valid only while it is taken
        sink.end()
    found = by_role(sink.result(), metric)
    for name in found.data_vars:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4, err_msg=name)
        if name in ("similarity", "baseline_cross", "baseline_same"):
            np.testing.assert_allclose(found[name], expected[name], atol=3e-6, err_msg=name)


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(0, 2**32), st.sampled_from(["cosine", "pearson", "centred"]))
def test_bounds(shape, seed, metric):
    result = similarity(source_of(make_values(*shape, seed)), metric=metric)
    for name in ("similarity", "baseline_cross", "baseline_same"):
        assert (np.abs(result[name]) <= 1 + 1e-5).all()
    n, ny, _, _ = shape
    at = result["similarity"].values[0, :, ny // 2, 0]
    np.testing.assert_allclose(at[at != 0], 1, atol=1e-5)  # with itself, at the reference
    low, high = result["similarity_interval"].values[0, ..., 0], result["similarity_interval"]
    assert (low <= high.values[0, ..., 1] + 1e-12).all() or n < 2


# --- accuracy -------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float16, 1e-3)])
@pytest.mark.parametrize("metric", METRICS)
def test_a_million_units_are_as_exact_as_in_double_precision(by_the_book, dtype, tolerance, metric):
    """Sparse and positive, as after a ReLU, where single precision adds up a bias."""
    rng = np.random.default_rng(0)
    values = np.maximum(rng.standard_normal((3, 1, 2, 1_000_003), np.float32) - 1, 0)
    values += np.maximum(rng.standard_normal(1_000_003, np.float32) - 1, 0)
    empty = values[0, 0, 0] * 0.3
    source = source_of(values.astype(dtype), empty={"layer": empty.astype(dtype)})
    found = similarity(source, metric=metric).sel(layer="layer")
    flat = values[:, 0]
    book = by_the_book(flat, flat[:, 0], list("abc"), metric, empty.astype(np.float64), at=0)
    np.testing.assert_allclose(found["similarity"][:, 0], book.own(), atol=tolerance)
    for name, cross in (("baseline_cross", True), ("baseline_same", False)):
        expected = book.baseline(range(3), cross=cross)
        np.testing.assert_allclose(found[name].values[0], expected, atol=tolerance)


# --- the result, the source, refusals -------------------------------------------------------


def test_the_result_is_labelled_and_can_be_saved(recorded, tmp_path):
    path, sweep = recorded
    with open_recording(path) as recording:
        result = similarity(recording, metric="evoked", layers=["relu3", "conv1_1"])
    assert list(result["layer"].values) == ["conv1_1", "relu3"]  # in the network's order
    assert result["similarity"].dims == ("layer", "object", "y", "x")
    assert result["G_interval"].dims == ("layer", "y", "x", "bound")
    assert list(result["bound"].values) == ["low", "high"]
    assert result["y"].attrs["units"] == "px"
    assert list(result["category"].values) == list(sweep.objects.categories)
    expected = {
        "kind": "similarity",
        "metric": "evoked",
        "n_objects": 8,
        "n_categories": 4,
        "n_cross_pairs": 48,
        "reference_y": 12,
        "reference_x": 4,
        "model": "small-cnn",
        "recording": "run.h5",
    }
    assert {key: result.attrs[key] for key in expected} == expected
    loaded = load_result(save_result(result, tmp_path / "sim.nc"))
    xarray.testing.assert_equal(loaded, result)
    live = similarity(sweep)
    assert load_result(save_result(live, tmp_path / "live.nc")).attrs["background"] == [200, 40, 90]
    for name in ("similarity", "G", "zero_share"):
        assert result[name].attrs["long_name"]


def test_what_was_kept_gives_the_measure_its_name(make_sweep, tmp_path):
    sweep = make_sweep(layers="conv1_1,pool2,logits")
    keep = {"conv1_1": Keep("sketch", 200), "pool2": Keep("mean")}
    path = record(sweep, tmp_path / "run.h5", keep=keep)
    with open_recording(path) as recording:
        result = similarity(recording)
    assert list(result["measure"].values) == ["cosine(sketch:200)", "cosine(mean)", "cosine"]
    np.testing.assert_allclose(result["error"], [0.1, 0, 0])
    assert result.attrs["metric"] == "cosine"
    live = similarity(sweep)
    assert set(live["measure"].values) == {"cosine"}
    xarray.testing.assert_allclose(
        result["similarity"].sel(layer="logits"), live["similarity"].sel(layer="logits"), atol=1e-5
    )
    exact, rough = (r["similarity"].sel(layer="conv1_1") for r in (live, result))
    assert np.abs(exact - rough).max() < 6 * 0.1
    assert not np.allclose(exact, rough, atol=1e-6)
    other = result["similarity"].sel(layer="pool2") - live["similarity"].sel(layer="pool2")
    assert np.abs(other).max() > 1e-3


def test_another_reference_of_a_recording(recorded, make_sweep):
    path, sweep = recorded
    place = (sweep.grid.y[-1], sweep.grid.x[2])
    with open_recording(path) as recording, recording.at(place) as other:
        found = similarity(other, layers=["fc4"])
    expected = similarity(make_sweep(n=4, per=2, reference=place, layers="fc4"))
    xarray.testing.assert_allclose(found["similarity"], expected["similarity"], atol=1e-5)
    assert found.attrs["reference_x"] == place[1]
    np.testing.assert_allclose(found["similarity"].sel(y=place[0], x=place[1]), 1, atol=1e-5)


def test_small_memory_gives_the_same_from_a_recording(recorded):
    path, _ = recorded
    with open_recording(path) as recording:
        whole = similarity(recording, layers=["conv1_1"])
        working = recording.working_bytes(recording.layer("conv1_1"))
        some = similarity(recording, layers=["conv1_1"], max_memory=working + 7 * 4 * 24 * 24 * 4)
    xarray.testing.assert_allclose(some, whole, rtol=0, atol=1e-6)


def test_unknown_names_are_refused(recorded):
    path, _ = recorded
    with open_recording(path) as recording:
        with pytest.raises(UnknownNameError, match=r"metric 'cosin'; nearest: cosine"):
            similarity(recording, metric="cosin")
        with pytest.raises(UnknownNameError, match=r"layer 'fc5'; nearest: fc"):
            similarity(recording, layers=["fc5"])
        with pytest.raises(LayerError, match="no layer was measured"):
            similarity(recording, layers=[])
    with pytest.raises(InputError, match="needs the empty canvas's activation of layer 'layer'"):
        similarity(source_of(make_values()), metric="evoked")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_named_by_layer_and_object(metric, value):
    values = make_values()
    values[3, 1, 1, 7] = value
    source = source_of(values, empty={"layer": values[0, 0, 0]})
    with pytest.raises(NumericsError, match="layer 'layer' gives NaN or infinity for object"):
        similarity(source, metric=metric)
    with pytest.raises(NumericsError, match="for the empty canvas"):
        similarity(source_of(make_values(), empty={"layer": values[3, 1, 1]}), metric="evoked")


def test_g_covers_the_truth_about_95_times_in_100():
    """Objects drawn anew each time: the interval holds the mean over very many objects."""
    rng = np.random.default_rng(2)
    units, n, trials = 60, 12, 150
    shared, shift = rng.normal(size=units), 0.6 * rng.normal(size=units)

    def draw(count):
        here = shared + rng.normal(size=(count, units))
        there = here * 0.6 + shift + 0.5 * rng.normal(size=(count, units))
        return np.stack([here, there], axis=1)[:, None].astype(np.float32)

    truth = float(similarity(source_of(draw(1_500)))["G_away"][0])
    covered = []
    for _ in range(trials):
        low, high = similarity(source_of(draw(n)))["G_away_interval"].values[0]
        covered.append(low <= truth <= high)
    assert 0.88 <= np.mean(covered) <= 0.995


def test_objects_pair_by_category_whatever_their_ids(make_sweep, model):
    sweep = make_sweep(n=2, per=2, layers="logits")
    assert isinstance(sweep.objects, ObjectSet)
    result = similarity(sweep)
    assert result.attrs["n_cross_pairs"] == 8
    assert result.attrs["n_categories"] == 2


# --- another object in the same place --------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "pearson", "evoked"])
@pytest.mark.parametrize("counts", [[1] * 6, [3, 1, 2, 2]])
def test_its_intervals_are_the_jackknife_of_the_whole_computation(metric, counts):
    names = np.repeat([f"c{i}" for i in range(len(counts))], counts)
    values = make_values(n=len(names), units=30, seed=3).astype(np.float64)
    empty = {"layer": values[0, 0, 0] * 0.3}

    def of(chosen):
        return similarity(
            source_of(values[chosen], categories=list(names[chosen]), empty=empty), metric=metric
        )

    whole = of(np.arange(len(names)))
    left = [of(np.flatnonzero(names != name)) for name in dict.fromkeys(names)]
    for name in ("baseline_same", "baseline_same_away", "over_place_away"):
        without = np.stack([each[name].values for each in left])
        np.testing.assert_allclose(
            whole[f"{name}_interval"].values,
            jackknife_t(whole[name].values, without),
            atol=1e-9,
            err_msg=name,
        )
        assert np.isfinite(whole[f"{name}_interval"]).all()


def test_it_holds_one_position_at_a_time():
    """Of 5 objects in blocks of 2, what waits for the others is never more than one position."""
    sink, held = SimilaritySink(), []
    values = make_values(n=5, units=8)
    source = source_of(values, categories=list("aabbc"))
    sink.begin(source.design, source.layers)
    flat = values.reshape(5, -1, 8)
    every, nowhere = np.arange(5), np.full(5, -1)
    sink.add(DenseBlock("reference", "layer", every, nowhere, flat[:, 0].copy()))
    pairs = np.array([(o, p) for p in range(flat.shape[1]) for o in range(5)])
    for first in range(0, len(pairs), 2):
        objects, positions = pairs[first : first + 2].T
        sink.add(DenseBlock("grid", "layer", objects, positions, flat[objects, positions]))
        (state,) = sink._states.values()
        held.append(sum(len(rows) for each in state.open.values() for rows, _, _ in each.rows))
    assert max(held) == 4
    assert held[-1] == 0
    assert sink.held(source.layers[0], source.design) >= 5 + max(held)
