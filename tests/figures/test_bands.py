"""Bands over layers beside pointwise intervals: which is which can be seen and read."""

import numpy as np
import pytest

from elsewhere.analyzer.similarity import similarity
from elsewhere.errors import InputError
from elsewhere.figures import (
    plot_layerwise,
    plot_measures,
    plot_partition,
    plot_probe_layerwise,
    plot_steps,
)
from elsewhere.storage import ArraySource


def result_of(n_layers, n=8):
    rng = np.random.default_rng(0)
    own, layers = rng.normal(size=(n, 1, 1, 40)), {}
    for place in range(n_layers):
        weight = place / n_layers
        values = weight * own + (1 - weight) * rng.normal(size=(n, 1, 3, 40)) + 0.5
        layers[f"conv{place // 3 + 1}_{place % 3 + 1}"] = np.maximum(values, 0)
    return similarity(ArraySource(layers, y=[5], x=[5, 15, 25]))


@pytest.mark.parametrize("n_layers", [4, 14])
def test_the_band_is_drawn_dotted_beside_the_intervals(n_layers):
    result = result_of(n_layers)
    pointwise, together = (
        result["cosine_G_away_interval"].values,
        result["cosine_G_away_band"].values,
    )
    assert (together[:, 0] < pointwise[:, 0]).all()
    assert (together[:, 1] > pointwise[:, 1]).all()
    ax = plot_layerwise(result)
    edges = [line for line in ax.lines if line.get_label() == "_simultaneous"]
    drawn = np.stack([line.get_ydata() for line in edges], axis=-1)
    np.testing.assert_allclose(drawn, together)
    said = [text.get_text() for text in ax.get_legend().get_texts()]
    assert said[-2:] == ["95 % pointwise", "95 % simultaneous\nover layers"]
    bare = plot_layerwise(result.drop_vars("cosine_G_away_band"))
    assert len(bare.get_legend().get_texts()) == len(said) - 2


def test_steps_are_the_differences_of_neighbours_with_the_jackknife_of_them():
    result = result_of(4)
    value, without = result["cosine_G_away"].values, result["cosine_G_away_without"].values
    np.testing.assert_allclose(result["cosine_G_step"][1:], np.diff(value))
    assert np.isnan(result["cosine_G_step"][0])
    each = np.diff(without, axis=0)
    error = np.sqrt(7 / 8 * ((each - each.mean(axis=1, keepdims=True)) ** 2).sum(axis=1))
    half = np.ptp(result["cosine_G_step_interval"].values[1:], axis=1) / 2
    np.testing.assert_allclose(half, 2.364624 * error, rtol=1e-5)
    few = result_of(4, n=3)
    assert np.isnan(few["cosine_G_away_band"]).all()
    assert any("no band over layers" in note for note in few.attrs["notes"])


def test_figures_of_measures_show_the_band_and_say_so(make_measures):
    result = make_measures()
    panels = plot_measures(result).axes
    edges = [line for line in panels[2].lines if line.get_label() == "_simultaneous"]
    drawn = np.stack([line.get_ydata() for line in edges], axis=-1)
    np.testing.assert_allclose(drawn, result["cka_away_band"].values)
    assert not [line for line in panels[0].lines if line.get_label() == "_simultaneous"]
    said = [text.get_text() for text in panels[1].get_legend().get_texts()]
    assert said == ["95 % interval", "95 % simultaneous\nover layers", "no value"]
    result["object_share_band"] = result["object_share_interval"]
    said = [text.get_text() for text in plot_partition(result).get_legend().get_texts()]
    assert said[-2:] == ["95 % pointwise", "95 % simultaneous\nover layers"]


def test_steps_are_filled_where_their_band_excludes_zero(make_measures):
    result = make_measures()
    (ax,) = plot_steps(result).axes
    lines = {line.get_label(): line for line in ax.lines}
    band, step = result["cka_step_band"].values, result["cka_step"].values
    sure = np.flatnonzero((band[:, 0] > 0) | (band[:, 1] < 0))
    assert sure.tolist() == [2]
    np.testing.assert_array_equal(lines["sure"].get_xdata(), sure)
    np.testing.assert_array_equal(lines["sure"].get_ydata(), step[sure])
    assert lines["open"].get_markerfacecolor() == "white"
    for label, key in (("_simultaneous", "band"), ("_pointwise", "interval")):
        (drawn,) = [c for c in ax.collections if c.get_label() == label]
        ends = np.array([path.vertices[:, 1] for path in drawn.get_paths()])
        np.testing.assert_allclose(ends, result[f"cka_step_{key}"].values)
    with pytest.raises(InputError, match="one layer, so there is no step"):
        plot_steps(result.isel(layer=[0]))
    assert plot_steps(result_of(4)).axes[0].get_title(loc="left") == "G"


def test_probes_show_the_band_of_accuracies(make_probe):
    result = make_probe(controls=False, held_out=False)
    result["accuracy_at_band"] = result["accuracy_at_interval"] + [-0.04, 0.04]
    ax = plot_probe_layerwise(result, quantity="off")
    edges = [line for line in ax.lines if line.get_label() == "_simultaneous"]
    drawn = np.stack([line.get_ydata() for line in edges], axis=-1)
    np.testing.assert_allclose(
        drawn, result["accuracy_at_band"].sel(exemplars="same", where="off").values
    )
    said = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "95 % simultaneous\nover layers" in said
