"""Bands over layers beside pointwise intervals: which is which can be seen and read."""

import numpy as np
import pytest

from elsewhere.analyzer.similarity import similarity
from elsewhere.figures import plot_layerwise
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
    pointwise, together = result["G_away_interval"].values, result["G_away_band"].values
    assert (together[:, 0] < pointwise[:, 0]).all()
    assert (together[:, 1] > pointwise[:, 1]).all()
    ax = plot_layerwise(result)
    edges = [line for line in ax.lines if line.get_label() == "_simultaneous"]
    drawn = np.stack([line.get_ydata() for line in edges], axis=-1)
    np.testing.assert_allclose(drawn, together)
    said = [text.get_text() for text in ax.get_legend().get_texts()]
    assert said[-2:] == ["95 % pointwise", "95 % simultaneous\nover layers"]
    bare = plot_layerwise(result.drop_vars("G_away_band"))
    assert len(bare.get_legend().get_texts()) == len(said) - 2


def test_steps_are_the_differences_of_neighbours_with_the_jackknife_of_them():
    result = result_of(4)
    value, without = result["G_away"].values, result["G_away_without"].values
    np.testing.assert_allclose(result["G_step"][1:], np.diff(value))
    assert np.isnan(result["G_step"][0])
    each = np.diff(without, axis=0)
    error = np.sqrt(7 / 8 * ((each - each.mean(axis=1, keepdims=True)) ** 2).sum(axis=1))
    half = np.ptp(result["G_step_interval"].values[1:], axis=1) / 2
    np.testing.assert_allclose(half, 2.364624 * error, rtol=1e-5)
    few = result_of(4, n=3)
    assert np.isnan(few["G_away_band"]).all()
    assert any("no band over layers" in note for note in few.attrs["notes"])
