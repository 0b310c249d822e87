"""Layers are named with what was kept of them wherever their numbers are shown."""

import pytest
import xarray

import elsewhere
from elsewhere.analyzer import describe_methods, dissimilarity_matrices, similarity
from elsewhere.forms import layer_forms, layer_labels, mean_note
from elsewhere.probes import probe
from elsewhere.protocols import Keep, Layer
from elsewhere.recording import record
from elsewhere.storage import open_recording, tidy_table
from elsewhere.terminal import print_similarity

KEEP = {"pool2": Keep("mean"), "relu2_1": Keep("sketch", 32), "fc3": Keep("mean")}
LABELS = {"relu2_1": "relu2_1 (sketch:32)", "pool2": "pool2 (mean)", "fc3": "fc3"}


@pytest.fixture(scope="module")
def reduced(make_sweep, tmp_path_factory):
    layers = ["pool1", *KEEP]
    path = tmp_path_factory.mktemp("forms") / "run.h5"
    with open_recording(record(make_sweep(layers=layers), path, keep=KEEP)) as recording:
        yield recording


@pytest.mark.parametrize(
    "take",
    [
        similarity,
        lambda source: elsewhere.measure(source, names="cosine"),
        lambda source: probe(source, kind="nearest-centroid"),
        lambda source: dissimilarity_matrices(source, layers=["pool2", "fc3"]),
    ],
)
def test_every_kind_of_result_says_what_was_kept(reduced, take):
    result = take(reduced)
    assert layer_labels(result) == [LABELS.get(n, n) for n in result["layer"].values]
    rows = tidy_table(result, [next(iter(result.data_vars))])
    assert set(rows["kept"]) == {"mean", "full"} | set(result["kept"].values)
    said = [note for note in result.attrs["notes"] if "by construction" in note]
    assert len(said) == 1
    assert said[0].startswith("pool2 (mean): ")  # a mean of the vector fc3 is all of it


def test_tables_and_words_name_the_form(reduced, capsys):
    result = similarity(reduced)
    print_similarity(result, as_json=False)
    printed = capsys.readouterr().out
    assert printed.count("pool2 (mean)") == printed.count("relu2_1 (sketch:32)") == 2
    assert "pool2 (mean)" in describe_methods(result)
    assert mean_note(similarity(reduced, layers=["pool1"])) == []


@pytest.mark.parametrize("metric", ["cosine", "centred-by-place", "nearest-centroid"])
def test_results_of_earlier_versions_say_it_too(metric):
    measured = [f"{metric}(mean)", metric, f"{metric}(sketch:8)"]
    old = xarray.Dataset(coords={"layer": ["a", "b", "c"], "measure": ("layer", measured)})
    assert layer_forms(old) == ["mean", "full", "sketch:8"]
    assert layer_labels(old.drop_vars("measure")) == ["a", "b", "c"]
    assert layer_labels(old.isel(layer=0)) == ["a (mean)"]


@pytest.mark.parametrize(
    ("shape", "keep", "form"),
    [
        ((4, 3, 3), "mean", "mean"),
        ((4, 1, 1), "mean", "full"),
        ((5, 7), "mean", "mean"),  # over tokens
        ((9,), "mean", "full"),
        ((9,), "sketch:9", "sketch:9"),
    ],
)
def test_a_mean_without_space_is_the_layer(shape, keep, form):
    assert Layer("a", "a", "Conv2d", shape, Keep.parse(keep)).form == form
