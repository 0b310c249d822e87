"""Several networks on one axes: no point stands above another layer's name."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from elsewhere.figures import plot_layerwise, plot_partition
from elsewhere.figures.layer_axis import _merged
from elsewhere.forms import with_forms
from elsewhere.models import list_layers, load_model, select_layers
from elsewhere.protocols import Layer
from elsewhere.storage import load_result, save_result
from tests.figures.conftest import measures_result, similarity_result


def names_of(ax):
    return {
        float(at): text.get_text()
        for at, text in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)
    }


def drawn(ax, label):
    return [line for line in ax.lines if line.get_label() == label]


def check_points(ax, label, results, key):
    """Every point of every network stands above its own layer's name, at its own value."""
    names = names_of(ax)
    for line, result in zip(drawn(ax, label), results, strict=True):
        at, values = line.get_xdata(), line.get_ydata()
        known = np.isfinite(at)
        shown = [names[float(round(x))] for x in at[known]]
        assert shown == [str(name) for name in result["layer"].values]
        np.testing.assert_allclose(values[known], result[key].values)


@pytest.mark.parametrize("ours", [True, False])
def test_networks_of_one_family_share_their_layers(ours):
    first = similarity_result(["conv1", "conv3", "fc6", "logits"])
    second = similarity_result(["conv1", "conv2", "fc6", "fc7", "logits"])
    second.attrs["model"] = "vgg11"
    ax = plot_layerwise(first, ax=None if ours else Figure().add_subplot())
    plot_layerwise(second, ax=ax)
    assert list(names_of(ax).values()) == ["conv1", "conv3", "conv2", "fc6", "fc7", "logits"]
    check_points(ax, "G", (first, second), "cosine_G_away")
    check_points(ax, "similarity", (first, second), "cosine_away")
    spans = [path.vertices for bars in ax.collections for path in bars.get_paths()]
    drawn_at = {round(float(span[0, 0])) for span in spans if np.isfinite(span).all()}
    assert drawn_at == {0, 1, 2, 3, 4, 5}
    said = [text.get_text().replace("\n", " ") for text in ax.get_legend().get_texts()]
    assert "vgg16 (imagenet)" in said
    assert "vgg11 (imagenet)" in said
    assert "vgg" not in ax.get_title(loc="left"), "the title names no single network"


def test_architectures_that_share_little_stand_side_by_side():
    first = similarity_result(["conv1", "conv2", "fc6", "logits"])
    second = similarity_result(["layer1", "layer2", "layer3", "logits"])
    ax = plot_layerwise(second, ax=plot_layerwise(first))
    check_points(ax, "baseline", (first, second), "cosine_baseline_away")
    assert list(names_of(ax)) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert "side by side" in ax.get_xlabel()
    assert [line.get_xdata()[0] for line in drawn(ax, "_between")] == [4]


def test_three_networks_and_other_figures():
    results = [
        measures_result(["conv1", "fc7"]),
        measures_result(["conv1", "pool1", "fc7"]),
        measures_result(["pool1", "conv2", "fc7"]),
    ]
    ax = None
    for result in results:
        ax = plot_partition(result, ax=ax)
    assert list(names_of(ax).values()) == ["conv1", "pool1", "conv2", "fc7"]
    check_points(ax, "object_share", results, "object_share")


def test_the_same_network_twice_moves_nothing():
    result = similarity_result(["conv1", "fc6", "logits"])
    ax = plot_layerwise(result, ax=plot_layerwise(result))
    check_points(ax, "G", (result, result), "cosine_G_away")
    said = [text.get_text() for text in ax.get_legend().get_texts()]
    assert any(text.endswith("#2") for text in said)


def test_forms_stand_in_names_and_no_line_joins_them():
    result = similarity_result(["conv1", "conv2", "fc6", "fc7"])
    result = result.assign_coords(kept=("layer", ["mean", "mean", "full", "sketch:8"]))
    ax = plot_layerwise(result)
    assert list(names_of(ax).values()) == ["conv1 (mean)", "conv2 (mean)", "fc6", "fc7 (sketch:8)"]
    (line,) = drawn(ax, "G")
    broken = np.isnan(line.get_xdata())
    assert broken.tolist() == [False, False, True, False, True, False]
    assert any("invariant by itself" in text.get_text().replace("\n", " ")
               for text in ax.get_legend().get_texts())  # fmt: skip


def test_merging_keeps_both_orders():
    rng = np.random.default_rng(0)
    for _ in range(50):
        names = [f"l{k}" for k in range(8)]
        first, second = ([n for n in names if rng.random() < 0.6] for _ in range(2))
        found = _merged(first, second)
        assert sorted(found) == sorted({*first, *second})
        for each in (first, second):
            assert [name for name in found if name in each] == each


def test_no_line_joins_the_shortcuts_of_a_residual_network(make_result, tmp_path):
    model = load_model("resnet18")
    wanted = "layer2.0.conv2,layer2.0.bn2,layer2.0.downsample.*,layer2.0.relu,layer2.1.conv1,fc"
    layers = select_layers(list_layers(model), wanted, model)
    names = [layer.name for layer in layers]
    result = with_forms(make_result(names), layers)
    aside = ["layer2.0.downsample.0", "layer2.0.downsample.1"]
    save_result(result, tmp_path / "a.nc")
    result = load_result(tmp_path / "a.nc")
    assert list(result["kept"].attrs["shortcuts"]) == aside
    ax = plot_layerwise(result)
    (line,) = [each for each in ax.lines if each.get_label() == "G"]
    values = np.asarray(line.get_ydata())
    cut = int(np.flatnonzero(np.isnan(values))[0])
    away = result["cosine_G_away"]
    main = [name for name in names if name not in aside]
    np.testing.assert_array_equal(values[:cut], away.sel(layer=main).values)
    expected = np.insert(away.sel(layer=aside).values.astype(float), [0, 1], np.nan)
    np.testing.assert_array_equal(values[cut:], expected)
    said = [text.get_text().replace("\n", " ") for text in ax.get_legend().get_texts()]
    assert "not joined: beside the main branch" in said
    vgg = with_forms(make_result(["fc7"]), [Layer("fc7", "fc7", "Linear", (4,))])
    assert "shortcuts" not in vgg["kept"].attrs
