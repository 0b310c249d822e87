from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures import plot_layerwise_change
from elsewhere.figures.results import variable_of

DRAWN = ("similarity", "baseline", "G")


def line(ax, label):
    return next(item for item in ax.lines if item.get_label() == label)


def legend_labels(ax):
    return [text.get_text().replace("\n", " ") for text in ax.get_legend().get_texts()]


def render(figure):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO(), format="png", dpi=50)


@pytest.fixture
def pair(deep_result):
    after = deep_result.copy(deep=True)
    after["cosine_G_away"] = after["cosine_G_away"] * 0.5 + 0.4
    return deep_result, after


@pytest.mark.parametrize("quantity", DRAWN)
def test_both_are_drawn_before_pale_and_open(pair, quantity):
    ax = plot_layerwise_change(*pair)
    before, after = (line(ax, f"{when}:{quantity}") for when in ("before", "after"))
    for drawn, result in zip((before, after), pair, strict=True):
        np.testing.assert_allclose(
            drawn.get_ydata(), result[variable_of(result, quantity, "_away")]
        )
    assert sum(to_rgb(before.get_color())) > sum(to_rgb(after.get_color()))
    assert before.get_markerfacecolor() == "white"
    assert before.get_marker() == after.get_marker()
    assert before.get_zorder() < after.get_zorder()
    render(ax.figure)


def test_few_layers_stand_side_by_side(result):
    ax = plot_layerwise_change(result, result, quantities=("G",))
    before, after = line(ax, "before:G").get_xdata(), line(ax, "after:G").get_xdata()
    assert (before < after).all()
    assert np.abs(before - np.arange(3)).max() < 0.2


def test_layers_are_matched_by_name(result):
    turned = result.isel(layer=[2, 0, 1])
    turned["cosine_G_away"] = turned["cosine_G_away"] - 0.1
    drawn = line(plot_layerwise_change(turned, result), "before:G").get_ydata()
    np.testing.assert_allclose(drawn, result["cosine_G_away"] - 0.1)


def test_the_legend_has_the_labels_and_stands_beside_the_data(pair):
    ax = plot_layerwise_change(*pair, labels=("vanilla", "acquired"), quantities=("G",))
    assert legend_labels(ax) == ["invariance (G)", "vanilla", "acquired"]
    assert "vanilla and acquired" in ax.get_title(loc="left")
    ax.figure.draw_without_rendering()
    assert not ax.get_legend().get_window_extent().overlaps(ax.get_window_extent())


def test_layers_without_value_or_often_zero_are_marked(pair):
    before, after = pair
    before["cosine_G_away"][1] = np.nan
    after["cosine_zero_share"][2] = 0.5
    ax = plot_layerwise_change(before, after)
    assert {"no value", "over 5 % zero vectors"} <= set(legend_labels(ax))
    assert line(ax, "_dead").get_xdata().tolist() == [2]


def test_it_draws_on_axes_that_are_given(result):
    ax = Figure().add_subplot()
    assert plot_layerwise_change(result, result, ax=ax) is ax


def test_what_cannot_be_drawn_is_refused(result, deep_result):
    with pytest.raises(
        InputError, match=r"before has 3 layers and after .*differ in: .*same layers"
    ):
        plot_layerwise_change(result, deep_result)
    with pytest.raises(InputError, match="no variable 'cosine_G_away'"):
        plot_layerwise_change(result.drop_vars("cosine_G_away"), result)
    with pytest.raises(UnknownNameError, match="nearest: similarity"):
        plot_layerwise_change(result, result, quantities=("similarty",))
    with pytest.raises(InputError, match="no quantities"):
        plot_layerwise_change(result, result, quantities=())
    with pytest.raises(InputError, match="1 labels"):
        plot_layerwise_change(result, result, labels=("one",))  # type: ignore[arg-type]
