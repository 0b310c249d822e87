from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import FillBetweenPolyCollection, LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures import draw, plot_displacement, plot_layerwise
from elsewhere.figures.curves import _bin_index, _binned
from elsewhere.figures.page import page
from elsewhere.figures.results import layer_groups, variable_of
from elsewhere.figures.style import MARKS

ALL = ("similarity", "baseline", "baseline_same", "G")


def line(ax, label):
    return next(item for item in ax.lines if item.get_label() == label)


def render(figure):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO(), format="png", dpi=60)


def legend_labels(ax):
    return [text.get_text().replace("\n", " ") for text in ax.get_legend().get_texts()]


def overlap(ax):
    """Whether the legend covers any of the axes, once the layout is made."""
    figure = ax.figure
    figure.draw_without_rendering()
    return ax.get_legend().get_window_extent().overlaps(ax.get_window_extent())


@pytest.mark.parametrize("quantity", ALL)
def test_layerwise_draws_the_means_in_order(deep_result, quantity):
    ax = plot_layerwise(deep_result)
    drawn = line(ax, quantity)
    np.testing.assert_allclose(
        drawn.get_ydata(), deep_result[variable_of(deep_result, quantity, "_away")]
    )
    np.testing.assert_array_equal(drawn.get_xdata(), np.arange(deep_result.sizes["layer"]))


def test_layerwise_series_differ_without_colour(result):
    ax = plot_layerwise(result)
    drawn = [line(ax, name) for name in ALL]
    assert len({item.get_marker() for item in drawn}) == 4
    assert len({str(item._unscaled_dash_pattern) for item in drawn}) == 4
    assert len({to_hex(item.get_color()) for item in drawn}) == 4


def test_layerwise_intervals_are_bars_over_few_layers_and_bands_over_many(result, deep_result):
    few, many = plot_layerwise(result), plot_layerwise(deep_result)
    bars = [item for item in few.collections if isinstance(item, LineCollection)]
    spans = [segment[:, 1] for segment in bars[0].get_segments()]
    np.testing.assert_allclose(spans, result.cosine_away_interval)
    bands = [item for item in many.collections if isinstance(item, FillBetweenPolyCollection)]
    assert len(bands) == 4
    heights = bands[0].get_paths()[0].vertices[:, 1]
    assert heights.max() == pytest.approx(float(deep_result.cosine_away_interval.max()))
    assert heights.min() == pytest.approx(float(deep_result.cosine_away_interval.min()))


def test_layerwise_names_all_of_few_layers_and_some_of_many(result, deep_result):
    few, many = plot_layerwise(result), plot_layerwise(deep_result)
    assert [text.get_text() for text in few.get_xticklabels()] == list(result.layer.values)
    names = [text.get_text() for text in many.get_xticklabels()]
    assert len(names) <= 25
    assert names[-1] == "logits"
    assert [deep_result.layer.values[int(tick)] for tick in many.get_xticks()] == names


def test_layerwise_groups_are_written_and_shaded(deep_result):
    ax = plot_layerwise(deep_result)
    assert {"conv1", "conv5", "fc"} <= {text.get_text() for text in ax.texts}
    assert len(ax.patches) == 4  # every other one of conv1..conv5, avgpool, fc


@pytest.mark.parametrize("function", [plot_layerwise, plot_displacement])
def test_legend_stands_beside_the_data(result, deep_result, function):
    for each in (result, deep_result):
        ax = function(each)
        assert not overlap(ax)
        assert ax.get_legend().get_window_extent().x1 <= ax.figure.bbox.x1 + 1


@pytest.mark.parametrize("function", [plot_layerwise, plot_displacement])
def test_nothing_is_clipped(make_result, function):
    ax = function(make_result([f"features.{i}.a_rather_long_name" for i in range(9)]))
    ax.figure.draw_without_rendering()
    tight = ax.figure.get_tightbbox()
    width, height = ax.figure.get_size_inches()
    assert min(tight.x0, tight.y0) > -0.02
    assert tight.x1 < width + 0.02
    assert tight.y1 < height + 0.02


def test_layerwise_marks_layers_without_value(result):
    result["cosine_G_away"][1] = np.nan
    ax = plot_layerwise(result)
    (crosses,) = [item for item in ax.lines if item.get_label() == "_no value"]
    assert crosses.get_xdata().tolist() == [1]
    assert "no value" in legend_labels(ax)
    height = ax.transAxes.inverted().transform(crosses.get_transform().transform([1, 0]))[1]
    assert height == 0, "on the edge of the axes, and on no value of the scale"
    assert crosses.get_ydata().tolist() == [0]
    assert crosses.get_color() not in {mark.color for mark in MARKS.values()}
    render(ax.figure)


def test_layerwise_flags_dead_layers(result):
    assert not [item for item in plot_layerwise(result).lines if item.get_label() == "_dead"]
    result["cosine_zero_share"][:] = [0.5, 0.05, 0.051]
    ax = plot_layerwise(result)
    (flags,) = [item for item in ax.lines if item.get_label() == "_dead"]
    assert flags.get_xdata().tolist() == [0, 2]
    assert "over 5 % zero vectors" in legend_labels(ax)


@pytest.mark.parametrize("function", [plot_layerwise, plot_displacement])
def test_all_missing_is_drawn(result, function):
    for name in result.data_vars:
        result[name] = result[name].astype(float) * np.nan
    render(function(result).figure)


def test_layerwise_shows_zero_to_one_and_negative_values(result):
    low, high = plot_layerwise(result).get_ylim()
    assert low < 0
    assert high > 1
    result["cosine_G_away"] = result.cosine_G_away - 0.7
    assert plot_layerwise(result).get_ylim()[0] < float(result.cosine_G_away.min())
    result["cosine_G_away"] = result.cosine_G_away - 100
    assert plot_layerwise(result).get_ylim()[0] > -1.2


def test_layerwise_draws_what_is_asked_for(result):
    only = result[["cosine_G_away"]]  # no interval, no zero_share, nothing else
    ax = plot_layerwise(only, quantities=("G",))
    assert [item.get_label() for item in ax.lines if item.get_label() in ALL] == ["G"]
    render(ax.figure)


def test_curves_draw_on_axes_that_are_given(result):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plot_layerwise(result, ax=left) is left
    assert plot_displacement(result, ax=right) is right
    assert len(figure.axes) == 2


@pytest.mark.parametrize("function", [plot_layerwise, plot_displacement])
@pytest.mark.parametrize("n_layers", [1, 2, 60])
def test_any_number_of_layers(make_result, function, n_layers):
    ax = function(make_result([f"block{i // 4}.{i % 4}.conv" for i in range(n_layers)]))
    assert ax.lines
    render(ax.figure)


def test_displacement_means_over_locations_at_one_distance(make_result):
    result = make_result(["fc7"], ys=(50, 100, 150), xs=(50, 100, 150), reference=(100, 50))
    ax = plot_displacement(result)
    same, other = line(ax, "similarity:fc7"), line(ax, "baseline:fc7")
    expected = np.unique([0, 50, 100, 50 * 2**0.5, 50 * 5**0.5])
    np.testing.assert_allclose(same.get_xdata(), expected)
    values = result["cosine"][0].values
    assert same.get_ydata()[0] == values[1, 0]
    assert same.get_ydata()[1] == pytest.approx((values[0, 0] + values[2, 0] + values[1, 1]) / 3)
    assert other.get_ydata()[0] == pytest.approx(float(result.cosine_baseline[0, 1, 0]))
    assert (same.get_linestyle(), other.get_linestyle()) == ("-", "--")
    assert ax.get_xlabel().endswith("(px)")


def test_displacement_spreads_over_depth_or_draws_what_is_asked_for(deep_result):
    spread = [item.get_label() for item in plot_displacement(deep_result).lines]
    layers = [label.split(":")[1] for label in spread if label.startswith("similarity")]
    assert len(layers) == 6
    assert (layers[0], layers[-1]) == ("conv1_1", "logits")
    ax = plot_displacement(deep_result, layers=["fc7"])
    assert line(ax, "similarity:fc7")
    assert len([item for item in ax.lines if ":" in str(item.get_label())]) == 2


def test_displacement_leaves_out_missing_locations(make_result):
    result = make_result(["fc7"], ys=(50, 100, 150), xs=(50,), reference=(100, 50))
    result["cosine"][0, 0, 0] = np.nan
    drawn = line(plot_displacement(result), "similarity:fc7").get_ydata()
    assert drawn[1] == float(result["cosine"][0, 2, 0])


@given(st.lists(st.floats(0, 300), min_size=1, max_size=80))
@settings(max_examples=60, deadline=None)
def test_bins_keep_the_mean_and_the_order(distances):
    distances = np.array(distances)
    bins = _bin_index(distances)
    at, means = _binned(distances, distances, bins)
    assert len(at) <= 14
    assert (np.diff(at) > 0).all()
    np.testing.assert_allclose(at, means)
    counts = np.array([(bins == number).sum() for number in np.unique(bins)])
    assert (at * counts).sum() == pytest.approx(distances.sum())


@given(st.lists(st.text("abfcpol.0123_", max_size=9), max_size=12))
@settings(max_examples=50, deadline=None)
def test_groups_cover_all_layers_once(names):
    covered = [i for _, first, last in layer_groups(names) for i in range(first, last + 1)]
    assert covered == list(range(len(names)))


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["pool", "head", "logits"], ["pool", "head", "logits"]),
        (["relu5_3", "pool5", "logits"], ["", "logits"]),
        (["body.0", "body.1", "head"], ["body", "head"]),
        (["pool5", "fc6", "relu6", "logits"], ["", "fc"]),
        (["classifier.0", "classifier.3"], ["classifier"]),
    ],
)
def test_a_group_is_called_what_its_layers_are(names, groups):
    assert [group for group, _, _ in layer_groups(names)] == groups


def test_layers_are_chosen_by_patterns_as_everywhere(make_result):
    result = make_result(["stem", "body.0", "body.1", "body.2", "body.2.fc", "head"])
    for wanted, found in (
        (["body.*"], ["body.0", "body.1", "body.2", "body.2.fc"]),
        (["head", "body.[0-1]"], ["head", "body.0", "body.1"]),
        (["depth:2", "body.0"], ["body.0", "body.1", "body.2"]),
    ):
        drawn = draw(result, layers=wanted).axes[0]
        assert [text.get_text() for text in drawn.get_xticklabels()] == found
    with pytest.raises(UnknownNameError, match=r"layer 'body\.\[7-9\]'"):
        draw(result, layers=["body.[7-9]"])


def test_curves_refuse_what_they_cannot_draw(result):
    with pytest.raises(InputError, match=r"no variable 'cosine_G_away'.*holds: cosine, "):
        plot_layerwise(result.drop_vars("cosine_G_away"))
    with pytest.raises(UnknownNameError, match="nearest: similarity"):
        plot_layerwise(result, quantities=("similarty",))
    with pytest.raises(InputError, match="no quantities"):
        plot_layerwise(result, quantities=())
    with pytest.raises(InputError, match="no variable 'cosine_baseline'"):
        plot_displacement(result.drop_vars("cosine_baseline"))
    with pytest.raises(UnknownNameError, match="unknown layer"):
        plot_displacement(result, layers=["fc9"])
    with pytest.raises(InputError, match="no location"):
        plot_displacement(result.isel(x=slice(0, 0)))
    with pytest.raises(InputError, match="ax is a Figure"):
        plot_layerwise(result, ax=Figure())  # type: ignore[arg-type]


def test_a_single_layer_does_not_take_a_whole_page(result, deep_result):
    one = plot_layerwise(result.isel(layer=[0])).figure
    many = plot_layerwise(deep_result).figure
    assert one.get_size_inches()[0] < 0.7 * many.get_size_inches()[0]
    with page(width="170mm"):
        asked = plot_layerwise(result.isel(layer=[0])).figure
    assert asked.get_size_inches()[0] == pytest.approx(170 / 25.4)
    render(one)
