"""Measures by name: the same from a recording, a live sweep and arrays, whole or in stretches."""

import json

import numpy as np
import pytest
import torch
import xarray
from torch import nn

from elsewhere import measure
from elsewhere.analyzer.measure_sink import MeasureSink
from elsewhere.errors import (
    InputError,
    LayerError,
    NumericsError,
    StorageError,
    UnknownNameError,
)
from elsewhere.measures import (
    Table,
    consistency,
    discrimination,
    distance_matrix,
    identification,
    linear_cka,
    location_cosines,
    measures,
    normalized_deviation,
    normalized_variance,
    partition,
    position_decoding,
    rsa,
)
from elsewhere.measures.unit_chunks import Stretch
from elsewhere.recording import record
from elsewhere.storage import ArraySource, load_result, open_recording, save_result
from tests.roles import similarity

UNITS = [name for name in measures if measures.get(name).taken == "units"]
ALL = [*UNITS, "aligned", "phase"]


def numbers(result):
    return {name: result[name].values for name in result.data_vars}


def assert_same(first, second, within):
    assert set(first.data_vars) == set(second.data_vars)
    assert first["layer"].values.tolist() == second["layer"].values.tolist()
    for name, values in numbers(first).items():
        other = second[name].values
        # What is divided by 1 - D, which is small after a ReLU, is as much less exact.
        bound = 100 * within if "G_" in name or name.endswith("_G") else within
        np.testing.assert_allclose(values, other, rtol=bound, atol=bound, err_msg=name)


@pytest.fixture(scope="module")
def sweep(make_sweep):
    return make_sweep(n=3, per=2, grid="3x3")


@pytest.fixture(scope="module")
def recording(sweep, tmp_path_factory):
    return open_recording(record(sweep, tmp_path_factory.mktemp("measured") / "run.h5"))


@pytest.fixture(scope="module")
def measured(recording):
    return measure(recording, names=ALL)


def test_recorded_and_live_agree(sweep, measured):
    assert_same(measure(sweep, names=ALL), measured, 1e-7)


def test_every_variable_is_what_the_pure_function_gives(recording, measured):
    design = recording.design
    categories = list(design.categories)
    places = design.positions
    for layer in ("pool2", "fc3", "logits"):
        values = recording[layer].values.reshape(6, 9, -1)
        row = measured.sel(layer=layer)

        def matrix(name, row=row):
            return row[name].values.reshape(9, 9)

        for metric in ("cosine", "centred", "evoked", "pearson"):
            empty = recording.tree[f"layers/{layer}"]["empty"].values
            found = location_cosines(values, metric=metric, categories=categories, empty=empty)
            np.testing.assert_allclose(matrix(metric), found.similarity, atol=2e-6)
            np.testing.assert_allclose(matrix(f"{metric}_baseline"), found.baseline, atol=2e-6)
            off = found.G[~np.eye(9, dtype=bool)]
            assert float(row[f"{metric}_G_away"]) == pytest.approx(off.mean(), abs=1e-5)
        np.testing.assert_allclose(matrix("rsa"), rsa(values), atol=1e-4)
        np.testing.assert_allclose(matrix("cka_biased"), linear_cka(values, biased=True), atol=1e-5)
        np.testing.assert_allclose(
            matrix("discrimination"), discrimination(values, categories=categories)
        )
        np.testing.assert_allclose(
            matrix("sensitivity_euclidean"),
            distance_matrix(values, categories=categories),
            atol=1e-5,
        )
        shares = partition(values).shares
        for place, part in enumerate(("object", "location", "interaction")):
            assert float(row[f"{part}_share"]) == pytest.approx(shares[place], abs=1e-6)
        variance, deviation = normalized_variance(values), normalized_deviation(values)
        assert float(row["normalized_variance"]) == pytest.approx(variance.median)
        assert float(row["normalized_deviation_ratio"]) == pytest.approx(deviation.ratio)
        decoded = position_decoding(values, locations=places, categories=categories)
        assert float(row["position_r2"]) == pytest.approx(decoded.r2, abs=1e-6)
        if layer != "pool2":
            chosen = consistency(values.argmax(axis=2), categories=categories)
            np.testing.assert_allclose(matrix("consistency"), chosen.matrix)
            assert float(row["consistency_chance"]) == pytest.approx(chosen.chance)


def test_the_row_of_the_reference_is_similarity(recording, measured):
    place = dict(zip(("reference_y", "reference_x"), recording.design.reference, strict=True))
    for metric in ("cosine", "evoked"):
        alone = similarity(recording, metric=metric)
        for ours, theirs in (
            (metric, "similarity_mean"),
            (f"{metric}_baseline", "baseline_cross"),
            (f"{metric}_G", "G"),
        ):
            row = measured[ours].sel(place)
            within = 1e-3 if theirs == "G" else 1e-5
            np.testing.assert_allclose(row.values, alone[theirs].values, atol=within)


@pytest.mark.parametrize("names", [["cka", "partition"], [n for n in UNITS if n != "consistency"]])
def test_stretches_of_units_give_the_same(recording, names, monkeypatch):
    # Without what the measures need beside it, so that small layers are cut as well.
    monkeypatch.setattr("elsewhere.analyzer.measure_sink.WORKING_BYTES", 0)
    layer = "conv2_1"
    whole = measure(recording, names=names, layers=[layer])
    sink = MeasureSink(names, layers=[layer])
    stored = recording.layer(layer)
    one = 4 * np.prod(stored.stored_shape)
    for parts in (4, 41):
        needed = sink.held(stored, recording.design, parts) * one
        seen = []
        begin = MeasureSink.begin

        def count(self, design, layers, part=0, parts=1, seen=seen, begin=begin):
            seen.append((part, parts))
            begin(self, design, layers, part, parts)

        with monkeypatch.context() as patched:
            patched.setattr(MeasureSink, "begin", count)
            patched.setattr("elsewhere.storage.recording.BLOCK_BYTES", one)
            working = recording.working_bytes(stored)
            cut = measure(
                recording, names=names, layers=[layer], max_memory=int(needed + working) + 1
            )
        assert seen[0][1] > 2
        assert len(seen) == seen[0][1]
        assert_same(cut, whole, 2e-5)


def test_what_does_not_fit_at_all_is_refused(recording):
    with pytest.raises(InputError, match="raise it, or leave the layer out"):
        measure(recording, names="cosine", layers=["conv1_1"], max_memory=1000)


def test_arrays_and_xarray_give_what_the_recording_gives(recording, measured):
    layers = ["pool2", "fc3"]
    empty = {name: recording.tree[f"layers/{name}"]["empty"].values for name in layers}
    arrays = {name: recording[name] for name in layers}
    wanted = measured.sel(layer=layers)
    # Plain arrays in any order of locations:
    order = np.random.default_rng(0).permutation(9)
    design = recording.design
    plain = measure(
        {name: a.values.reshape(6, 9, *a.shape[3:])[:, order] for name, a in arrays.items()},
        design.positions[order],
        names=UNITS,
        objects=design.objects,
        categories=design.categories,
        reference=design.reference,
        empty=empty,
    )
    labelled = measure(
        arrays,
        names=UNITS,
        categories=design.categories,
        reference=design.reference,
        empty=empty,
    )
    for found in (plain, labelled):
        for name in found.data_vars:
            if name.endswith("_band") or "_step" in name:  # of the layers that are measured
                assert name in wanted
                continue
            values = wanted[name].values
            np.testing.assert_allclose(found[name].values, values, atol=1e-5, err_msg=name)
    assert plain["y"].values.tolist() == list(design.axes["y"].values)


def test_results_are_stamped_and_survive_a_file(measured, tmp_path):
    short = measured.isel(layer=[0, -1])[[n for n in measured if "away" in n or "cka" in n]]
    short.attrs["headlines"] = {
        name: key for name, key in measured.attrs["headlines"].items() if key in short
    }
    assert_same(load_result(save_result(short, tmp_path / "m.nc")), short, 0)
    loaded = measured
    assert loaded.attrs["kind"] == "measures"
    assert loaded.attrs["names"] == ALL
    assert loaded.attrs["n_locations"] == 9
    assert loaded.attrs["identity"]
    assert load_result(tmp_path / "m.nc").attrs["names"] == ALL
    for name, key in loaded.attrs["headlines"].items():
        assert loaded[key].dims == ("layer",), name
    matrices = [n for n in ALL if measures.get(n).matrices]
    for name in matrices:
        found = loaded[name.replace("-", "_")]
        assert found.dims == ("layer", "reference_y", "reference_x", "y", "x")
        assert f"{name.replace('-', '_')}_displaced" in loaded


def test_displaced_means_and_maps(measured):
    row = measured.sel(layer="fc3")
    matrix = row["sensitivity_cosine"].values.reshape(9, 9)
    np.testing.assert_allclose(row["cosine"].values.reshape(9, 9), matrix)
    apart = measured["displacement"].values
    places = np.array([[y, x] for y in measured["y"].values for x in measured["x"].values])
    distance = np.abs(places[:, None] - places[None]).max(axis=2)
    for value in apart:
        found = float(row["sensitivity_cosine_displaced"].sel(displacement=value))
        assert found == pytest.approx(matrix[distance == value].mean())
    middle = row["sensitivity_cosine_map"].sel(displacement_y=0, displacement_x=0)
    assert float(middle) == pytest.approx(1, abs=1e-6)


# --- networks with known answers -----------------------------------------------------------------


class Circular(nn.Sequential):
    """Stride-1 convolutions that go round the canvas; then pooling over all of it, or none."""

    def __init__(self, head):
        torch.manual_seed(0)
        layers = [
            nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular"),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, padding=1, padding_mode="circular"),
        ]
        pools = {
            "invariant": [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)],
            "equivariant": [nn.ReLU(), nn.Flatten()],
            "neither": [nn.Flatten(), nn.Linear(8 * 24 * 24, 40)],
        }
        super().__init__(*layers, *pools[head])


@pytest.fixture(scope="module")
def answers(make_sweep, wrap):
    """Measures of the last layer of the three networks, of 20 objects at 3 x 3 locations."""

    found = {}
    with torch.random.fork_rng():
        for head in ("invariant", "equivariant", "neither"):
            network = wrap(Circular(head))
            last = {"invariant": "5", "equivariant": "4", "neither": "4"}[head]
            sweep = make_sweep(network, n=20, grid="3x3", layers=last)
            found[head] = measure(sweep, names=UNITS).isel(layer=0)
    return found


def test_an_invariant_network(answers):
    found = answers["invariant"]
    for metric in ("cosine", "centred", "evoked", "pearson"):
        assert float(found[f"{metric}_away"]) == pytest.approx(1, abs=1e-5)
    assert float(found["centred_G_away"]) == pytest.approx(1, abs=1e-3)
    for name in ("cka_away", "rsa_away", "consistency_away"):
        assert float(found[name]) == pytest.approx(1, abs=1e-3)
    told = np.diag(found["discrimination"].values.reshape(9, 9)).mean()  # in one place
    assert float(found["discrimination_away"]) == pytest.approx(told, abs=0.02)
    assert float(found["sensitivity_euclidean_away"]) < 1e-3
    assert float(found["normalized_variance"]) < 1e-6
    assert float(found["object_share"]) == pytest.approx(1, abs=1e-6)
    assert float(found["position_r2"]) < 0.3


def test_an_equivariant_network_keeps_its_geometry_and_nothing_else(answers):
    found = answers["equivariant"]
    assert float(found["cka_away"]) == pytest.approx(1, abs=1e-4)
    assert float(found["rsa_away"]) == pytest.approx(1, abs=1e-3)
    assert float(found["evoked_G_away"]) < 0.3
    assert float(found["centred_G_away"]) < 0.3
    assert float(found["sensitivity_euclidean_away"]) > 0.7
    assert float(found["position_r2"]) > 0.9
    assert float(found["location_share"]) > float(found["location_share_null"])


def test_a_network_that_is_neither(answers):
    found = answers["neither"]
    assert float(found["cka_away"]) < 0.9
    assert float(found["evoked_G_away"]) < 0.5
    assert float(found["discrimination_away"]) < 0.9
    assert float(found["position_r2"]) > 0.5


def test_maps_of_a_circular_network_only_shift(make_sweep, wrap):
    with torch.random.fork_rng():
        sweep = make_sweep(
            wrap(Circular("equivariant")), n=4, grid="at:10,10;10,12;13,10;13,12", layers=["0", "2"]
        )
    found = measure(sweep, names=["phase", "aligned"])
    # Evoked maps reach one and two px round the object, which stays far enough from the edge.
    np.testing.assert_allclose(found["shift_share_in_phase"], 1, atol=1e-6)
    np.testing.assert_allclose(found["aligned_G_away"], 1, atol=1e-6)
    assert np.isnan(found["shift_share_out_of_phase"]).all()
    assert "every location lies a whole number of strides" in found.attrs["notes"][-1]


def test_sub_sampling_breaks_the_shift_out_of_phase_only(make_sweep, wrap):
    torch_state = torch.random.get_rng_state()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4))
    torch.random.set_rng_state(torch_state)
    sweep = make_sweep(
        wrap(network), n=4, grid="at:8,8;8,11;8,12;8,16;12,8;12,11;12,12;12,16", layers=["1", "2"]
    )
    found = measure(sweep, names="phase")
    pooled, whole = found.sel(layer="2"), found.sel(layer="1")
    assert float(pooled["map_stride"]) == 4
    reference = (int(found.attrs["reference_y"]), int(found.attrs["reference_x"]))
    expected = [
        [(y - reference[0]) % 4 == 0 and (x - reference[1]) % 4 == 0 for x in found["x"].values]
        for y in found["y"].values
    ]
    np.testing.assert_array_equal(pooled["in_phase"], expected)
    assert whole["in_phase"].all()
    assert float(pooled["rest_share_in_phase"]) == pytest.approx(0, abs=1e-9)
    assert float(pooled["phase_share"]) > 0.05
    assert float(pooled["shift_share_out_of_phase"]) < float(pooled["shift_share_in_phase"]) - 0.05
    total = sum(pooled[f"{part}_share"] for part in ("shift", "border", "rest"))
    np.testing.assert_allclose(total.values[np.isfinite(total.values)], 1)


# --- what is kept --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reduced(sweep, tmp_path_factory):
    path = tmp_path_factory.mktemp("reduced") / "run.h5"
    keep = {"pool1": "mean", "conv2_1": "sketch:64"}
    from elsewhere.storage import Keep

    kept = {name: Keep.parse(text) for name, text in keep.items()}
    wanted = [layer for layer in sweep.layers if layer.name in {*keep, "fc3", "relu1_1"}]
    return open_recording(record(sweep, path, layers=wanted, keep=kept))


def test_means_have_their_own_name(reduced, recording):
    found = measure(reduced, names=["cosine", "partition"], layers=["pool1"])
    means = recording["pool1"].values.mean(axis=(-2, -1)).reshape(6, 9, -1)
    np.testing.assert_allclose(
        found["cosine"].values.reshape(9, 9), location_cosines(means).similarity, atol=1e-5
    )
    assert found["kept"].values.tolist() == ["mean"]
    assert found.attrs["notes"] == [
        "pool1 (mean): a mean over space hardly changes when the object moves, so such a layer "
        "looks invariant by construction; keep it in full to tell whether it is",
        "cosine: layer pool1: G is NaN, for different objects look alike "
        "(1 - baseline below 0.001)",
    ]


def test_sketches_estimate_and_are_refused_for_units(reduced, measured):
    found = measure(reduced, names=["cosine"], layers=["conv2_1"])
    exact = measured.sel(layer=["conv2_1"])
    assert np.abs(found["cosine"].values - exact["cosine"].values).max() < 4 / 64**0.5
    refused = ("pearson", "rsa", "normalized-variance", "cka", "cka-biased")
    for name in (*refused, "discrimination", "identification"):
        with pytest.raises(LayerError, match=r"--keep conv2_1=full"):
            measure(reduced, names=name, layers=["conv2_1"])


def test_a_mean_has_no_map(reduced, monkeypatch):
    monkeypatch.setattr(type(reduced), "stream", lambda *a, **k: pytest.fail("work had begun"))
    for name in ("aligned", "phase"):
        with pytest.raises(LayerError, match="'pool1' was kept as mean; record it with --keep"):
            measure(reduced, names=name)
        with pytest.raises(LayerError, match="none of fc3 is one"):
            measure(reduced, names=name, layers=["fc3"])


# --- bad input -----------------------------------------------------------------------------------


def test_a_constant_code_says_that_it_has_no_g():
    found = measure(np.full((6, 2, 8), 1.5), [[5, 1], [5, 2]], names="cosine,normalized-variance")
    assert float(found["cosine_away"][0]) == pytest.approx(1)
    assert any("G is NaN, for different objects look alike" in n for n in found.attrs["notes"])
    assert np.isnan(found["normalized_variance_ratio"]).all()


def test_chance_counts_categories_alike_as_identification_does():
    rng = np.random.default_rng(0)
    names = ["many"] * 30 + [f"one{k}" for k in range(9)]
    found = [
        measure(
            rng.normal(size=(39, 3, 40)),
            [[5, 1], [5, 2], [5, 3]],
            names="identification",
            categories=names,
            seed=seed,
        )
        for seed in range(4)
    ]
    chance = np.mean([float(each["identification_chance"][0]) for each in found])
    for key in ("raw", "centred", "null"):
        values = [float(each[f"identification_{key}_away"][0]) for each in found]
        assert np.mean(values) == pytest.approx(chance, abs=0.03), key  # over objects: .18
    assert not any("candidates" in note for each in found for note in each.attrs["notes"])
    copies = rng.normal(size=(7, 1, 20)).repeat(3, axis=0) + np.zeros((21, 2, 20))
    doubts = notes_of(copies, "identification", categories=np.repeat(range(7), 3).tolist())
    assert any("candidates of one category look alike" in note for note in doubts)


def notes_of(values, names, **more):
    places = [[5, x] for x in range(values.shape[1])]
    return measure(values, places, names=names, **more).attrs["notes"]


def test_constant_features_are_undefined_for_a_reason():
    dead = np.full((20, 3, 8), 1.5)
    names = ["centred", "cka", "rsa", "partition", "position", "sensitivity-euclidean"]
    found = measure(dead, [[5, 1], [5, 2], [5, 3]], names=names)
    for name in ("cka_away", "rsa_away", "object_share", "position_r2"):
        assert np.isnan(found[name]).all()
    notes = "\n".join(found.attrs["notes"])
    for name in ("partition", "position"):
        assert f"{name}: layer activations: NaN, for its activations are the same for all" in notes
    place = np.random.default_rng(0).normal(size=(1, 3, 8)).repeat(20, axis=0)
    telling = notes_of(place, [*names, "identification"])
    for name in ("cka", "rsa", "sensitivity-euclidean"):  # not constant where it tells the place
        for said in (notes, "\n".join(telling)):
            assert f"{name}: layer activations: NaN, for at " in said
            assert "all objects have the same code" in said
    assert not any("activations are constant" in note for note in telling)
    assert any(
        note.startswith("centred: layer activations: 100% of the vectors are no larger than")
        for note in found.attrs["notes"]
    )


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("cka", (3, 2, 5), "the unbiased CKA needs at least 4 objects, got 3"),
        ("rsa", (2, 2, 5), "RSA needs at least 3 objects, got 2"),
        ("cosine", (5, 1, 5), "there is one location, so nothing moves"),
        ("position", (1, 4, 5), "there is one object"),
        ("discrimination", (4, 2, 5), "fewer than 4 others of other categories"),
        ("identification", (5, 2, 5), "it takes at least 6"),
        ("identification", (8, 1, 5), "there is one location, so nothing moves"),
        ("cka", (10, 2, 5), "10 objects are few; below 20 it is noisy"),
    ],
)
def test_what_is_undefined_says_why(name, shape, says):
    values = np.random.default_rng(0).normal(size=shape)
    assert any(says in note for note in notes_of(values, name))


def test_identification_tells_what_is_lost_from_what_is_hidden():
    rng = np.random.default_rng(0)
    here = rng.normal(size=(40, 8)) @ rng.normal(size=(8, 60))
    turn, _ = np.linalg.qr(rng.normal(size=(60, 60)))
    noise = rng.normal(size=here.shape)
    arrays = {"turned": np.stack([here, here @ turn], 1), "lost": np.stack([here, noise], 1)}
    places = [[5, 1], [5, 9]]
    found = measure(arrays, places, names="identification")
    chance = found["identification_chance"].values
    hidden, lost = (found[f"identification_{key}"].values for key in ("hidden", "lost"))
    np.testing.assert_allclose(lost, [0, 1 - chance[1]], atol=0.1)
    np.testing.assert_allclose(hidden, [1 - chance[0], 0], atol=0.1)
    low, high = found["identification_lost_interval"].values[1]
    assert low < lost[1] < high
    assert found["identification_mapped"].dims == ("layer", "y", "x")
    pure = identification(arrays["lost"], seed=0)
    np.testing.assert_allclose(
        found["identification_mapped"][1].values.ravel(), pure.mapped.mean(axis=0)
    )


@pytest.mark.parametrize("name", ["identification", "discrimination"])
def test_candidates_at_a_reference_off_the_grid_are_not_those_of_another_place(
    make_sweep, name, monkeypatch
):
    monkeypatch.setattr("elsewhere.measures.tables.ALL_REFERENCES", 0)  # too many for all
    sweep = make_sweep(n=12, grid="2x2", layers="fc3", reference=(11, 9))
    found = measure(sweep, names=name)
    assert np.isnan(found[measures.get(name).headline]).all()
    assert any("is no location of the grid" in note for note in found.attrs["notes"])


def test_identification_is_the_same_live_recorded_and_in_stretches(
    make_sweep, tmp_path, monkeypatch
):
    sweep = make_sweep(n=10, grid="2x3", layers="conv2_1,fc3")
    recording = open_recording(record(sweep, tmp_path / "run.h5"))
    found = measure(recording, names="identification")
    assert np.isfinite(found["identification_mapped_away"]).all()
    assert_same(measure(sweep, names="identification"), found, 1e-7)
    monkeypatch.setattr("elsewhere.analyzer.measure_sink.WORKING_BYTES", 0)
    begun = []
    begin = MeasureSink.begin
    monkeypatch.setattr(MeasureSink, "begin", lambda *args: begun.append(args[-1]) or begin(*args))
    few = measure(recording, names="identification", layers=["conv2_1"], max_memory="280KiB")
    assert min(begun) > 1
    for name in ("identification_mapped", "identification_raw"):
        np.testing.assert_allclose(few[name], found[name][:1], atol=1e-6)


def test_a_single_category_has_no_baseline_and_says_so():
    values = np.random.default_rng(0).normal(size=(6, 2, 9))
    notes = notes_of(values, ["cosine", "sensitivity-euclidean"], categories=["a"] * 6)
    assert "cosine: all objects are of one category: no baseline and no G (NaN)" in notes
    assert any("all objects are of one category: there is no distance" in note for note in notes)


def test_nan_is_refused_with_its_place(make_sweep):
    values = np.random.default_rng(0).normal(size=(4, 3, 9))
    values[2, 1, 0] = np.nan
    for names in ("cosine", "partition", "cka"):
        with pytest.raises(NumericsError, match="'activations' gives NaN or infinity for object"):
            measure(values, [[0, 0], [0, 1], [0, 2]], names=names)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"names": "cosin"}, UnknownNameError, "nearest: cosine"),
        ({"names": "accuracy-map"}, InputError, "elsewhere accuracy"),
        ({"names": "evoked"}, InputError, "needs the empty canvas's activation"),
        ({"names": "aligned"}, LayerError, "none of activations is one"),
        ({"layers": ["fc9"]}, UnknownNameError, "known: activations"),
        ({"locations": [[0, 0], [0, 1], [1, 0]]}, InputError, "make no full grid of 4"),
        ({"locations": [[0, 0.5], [0, 1], [0, 2]]}, InputError, "whole px"),
        ({"locations": [[0, 0], [0, 1]]}, InputError, r"expected \(object, 2, unit\)"),
        ({"locations": None}, InputError, "need locations"),
        ({"reference": (5, 5)}, InputError, "not among the locations"),
        ({"categories": ["a"]}, InputError, "1 categories for 4"),
        ({"max_memory": "much"}, InputError, "cannot read 'much'"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments, error, says):
    values = np.random.default_rng(0).normal(size=(4, 3, 9))
    given = {"locations": [[0, 0], [0, 1], [0, 2]], "names": "cosine"} | arguments
    with pytest.raises(error, match=says) as caught:
        measure(values, given.pop("locations"), **given)
    assert "\n" not in str(caught.value)


def test_a_source_knows_its_own_locations(recording):
    with pytest.raises(InputError, match="leave locations, objects"):
        measure(recording, [[0, 0]])
    with pytest.raises(StorageError, match="expected a recording such as run.h5"):
        measure("run.h5", names="cosine")
    with pytest.raises(InputError, match=r"dimensions \('a', 'b'\)"):
        measure(xarray.DataArray(np.ones((2, 2)), dims=("a", "b")))


def test_hooks_are_gone_after_success_and_failure(sweep, hooks_of):
    measure(sweep, names="cosine", layers=["fc3"])
    assert hooks_of(sweep.model.module) == 0
    before = sweep.model.module.training
    broken = sweep.model.module.get_parameter(
        next(n for n, _ in sweep.model.module.named_parameters())
    )
    kept = broken.detach().clone()
    with torch.no_grad():
        broken.fill_(float("nan"))
    try:
        with pytest.raises(NumericsError, match="gives NaN"):
            measure(sweep, names="cosine", layers=["fc3"])
    finally:
        with torch.no_grad():
            broken.copy_(kept)
    assert hooks_of(sweep.model.module) == 0
    assert sweep.model.module.training is before


def test_a_float16_recording_is_within_a_thousandth(sweep, measured, tmp_path):
    short = record(sweep, tmp_path / "half.h5", dtype="float16")
    found = measure(open_recording(short), names=["cosine", "centred", "pearson", "evoked"])
    for metric in ("cosine", "centred", "pearson", "evoked"):
        within = 1e-3 if metric == "cosine" else 5e-3  # what is left after a removal is smaller
        assert np.abs(found[metric].values - measured[metric].values).max() < within


def test_the_interval_of_the_mean_cosine_covers_it():
    """Objects are drawn anew, locations stay: 95 % +- what 200 runs allow."""
    rng = np.random.default_rng(11)
    places = np.array([[0, 0], [0, 1], [0, 2]])

    def draw():
        code = rng.normal(size=(10, 1, 30))
        own = rng.gamma(2, 0.5, (10, 1, 1))
        return code + own * rng.normal(size=(10, 3, 30))

    truth = np.mean([location_cosines(draw()).similarity[0, 1] for _ in range(1000)])
    hits = []
    for _ in range(200):
        stretch = Stretch.whole(draw())
        reading = measures.get("cosine").reading(Table(stretch.codes, places, 0, 30, True))
        reading.tally.add(stretch)
        low, high = reading.read()["cosine_away_interval"][1]
        hits.append(low <= truth <= high)
    assert 0.89 < np.mean(hits) < 0.995


def test_attributes_are_plain(measured):
    assert json.dumps(measured.attrs)


def test_what_half_precision_has_rounded_away_is_undefined(wrap, make_sweep, tmp_path):
    """Codes that differ by some millionths of their size keep that in float32 only."""
    head = nn.Linear(288, 64)
    network = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.Tanh(), nn.Flatten(), head)
    with torch.no_grad():
        head.bias.normal_(0, 3e3, generator=torch.Generator().manual_seed(0))
    sweep = make_sweep(wrap(network), n=8, grid="1x3", layers="3", engine="dense")
    found = {}
    for dtype in ("float32", "float16"):
        path = record(sweep, tmp_path / f"{dtype}.h5", dtype=dtype)
        with open_recording(path) as recording:
            found[dtype] = measure(recording, names=["rsa", "cka"])
    assert np.isfinite(found["float32"]["rsa_away"]).all()
    assert np.isnan(found["float16"]["rsa_away"]).all()
    assert any("rsa" in note and "NaN" in note for note in found["float16"].attrs["notes"])
    assert not any("rsa" in note and "NaN" in note for note in found["float32"].attrs["notes"])
    for metric in ("evoked", "centred", "cosine"):
        with open_recording(tmp_path / "float16.h5") as recording:
            notes = similarity(recording, metric=metric).attrs["notes"]
        assert any("float16 rounds these by up to" in note for note in notes)


def test_each_layer_without_a_value_has_its_reason_in_one_line():
    rng = np.random.default_rng(0)
    layers = {
        "map": rng.normal(size=(3, 1, 2, 2, 4, 4)),
        "one": rng.normal(size=(3, 1, 2, 5)),
        "two": rng.normal(size=(3, 1, 2, 5)),
    }
    source = ArraySource(layers, y=[3], x=[3, 5], categories=list("abc"))
    found = measure(source, names=["cka", "consistency"])
    notes = found.attrs["notes"]
    assert (
        "cka: layers map, one, two: NaN, for the unbiased CKA needs at least 4 objects, got 3"
        in notes
    )
    assert (
        "consistency: layer map: NaN, for it does not consist of single units, as logits do"
        in notes
    )
    assert np.isnan(found["consistency"].sel(layer="map")).all()
    assert np.isfinite(found["consistency"].sel(layer=["one", "two"])).all()
