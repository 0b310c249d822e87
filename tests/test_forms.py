"""Layers are named with what was kept of them wherever their numbers are shown."""

import pytest
import xarray

import elsewhere
from elsewhere.analyzer import describe_methods, dissimilarity_matrices, similarity
from elsewhere.errors import UnknownNameError
from elsewhere.figures.results import describe
from elsewhere.forms import layer_forms, layer_labels, mean_note, network_name, weights_name
from elsewhere.kept import Keep
from elsewhere.probes import probe
from elsewhere.protocols import Layer
from elsewhere.recording import record
from elsewhere.stimuli import Canvas, load_objects
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


@pytest.mark.parametrize(
    ("model", "arguments", "weights", "title"),
    [
        ("vgg16", {"num_classes": 10}, "none", "vgg16 (weights: none)"),
        ("vgg16", {}, "imagenet", "vgg16 (weights: imagenet)"),
        ("own:make", {}, "none", "own:make (weights: as its factory makes them)"),
        ("own:make", {}, "net.pth", "own:make (weights: net.pth)"),
        (
            "timm:create_model",
            {"model_name": "vit_tiny_patch16_224", "pretrained": True},
            "none",
            "timm:vit_tiny_patch16_224 (weights: pretrained=True)",
        ),
        (
            "torchvision.models:get_model",
            {"name": "resnet18", "weights": "DEFAULT"},
            "none",
            "resnet18 (torchvision.models) (weights: weights=DEFAULT)",
        ),
    ],
)
def test_titles_name_the_network_and_its_weights(model, arguments, weights, title):
    facts = {"model": model, "model_arguments": arguments, "weights": weights}
    assert describe(xarray.Dataset(attrs=facts), "G") == f"G · {title}"
    assert title == f"{network_name(facts)} (weights: {weights_name(facts)})"


def test_two_networks_of_one_factory_have_two_titles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "many.py").write_text(
        "from torch import nn\n"
        "def make(arch):\n"
        "    n = int(arch[3:])\n"
        "    return nn.Sequential(nn.Conv2d(3, n, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    titles = set()
    for arch in ("net4", "net5"):
        model = elsewhere.load_model("many:make", model_args={"arch": arch})
        objects = load_objects("glyphs", size=8, categories=2, per_category=1)
        sweep = elsewhere.Sweep(model, objects, canvas=Canvas(24, 8), grid="1x2", layers="0")
        titles.add(describe(similarity(sweep), "G"))
    assert titles == {
        f"G · net{n} (many) (weights: as its factory makes them) · 2 objects" for n in (4, 5)
    }


@pytest.mark.parametrize(
    ("pattern", "nearest"),
    [("conv1_?_", "conv1_1"), ("blocks.?", ""), ("conv2_?1", "conv2_1")],
)
def test_a_pattern_that_matches_nothing_says_so(make_sweep, pattern, nearest):
    with pytest.raises(UnknownNameError) as error:
        make_sweep(layers=pattern)
    assert f"unknown layer '{pattern}', a pattern that none matches; " in str(error.value)
    assert nearest in error.value.nearest or not nearest
    assert UnknownNameError("layer", "blocks.?", ["blocks.6", "blocks.61"]).nearest == ["blocks.61"]


def test_notes_of_similarity_name_a_layer_with_its_form():
    import xarray

    from elsewhere.measures.similarity import below_zero

    ends = [[-0.2, -0.1], [-0.2, 0.2]]
    result = xarray.Dataset(
        {
            "cosine_G_away": ("layer", [-0.1, 0.0]),
            "cosine_G_away_interval": (("layer", "bound"), ends),
        },
        coords={
            "layer": ["conv5", "fc6"], "bound": ["low", "high"], "kept": ("layer", ["mean", "full"])
        },
    )  # fmt: skip
    (note,) = below_zero(result)
    assert note.startswith("G lies wholly below 0 in conv5 (mean): ")
