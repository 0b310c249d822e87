"""Figures of measures with depth: what is drawn, and that it is said when there is nothing."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from elsewhere.errors import InputError
from elsewhere.figures import (
    plot_equivariance,
    plot_identification,
    plot_measures,
    plot_partition,
    plot_phase,
    save_figure,
)

DRAWN = {
    plot_identification: [
        "identification_ceiling",
        "identification_mapped_away",
        "identification_raw_away",
    ],
    plot_equivariance: ["aligned_G_away", "plain_G_away"],
    plot_partition: ["object_share", "location_share", "interaction_share"],
    plot_phase: ["shift_share_in_phase", "shift_share_out_of_phase", "border_share_in_phase"],
}


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


@pytest.mark.parametrize("plot", list(DRAWN))
def test_the_lines_are_the_values(plot, make_measures):
    result = make_measures()
    ax = plot(result)
    drawn = lines(ax)
    names = result["layer"].values.tolist()
    if plot is plot_phase:  # maps only
        names = names[:4]
    for name in DRAWN[plot]:
        values = result[name].sel(layer=names).values
        np.testing.assert_array_equal(drawn[name].get_ydata(), values)
    assert len({to_hex(drawn[name].get_color()) for name in DRAWN[plot]}) == len(DRAWN[plot])
    assert [text.get_text() for text in ax.get_xticklabels()] == names
    assert ax.get_ylabel()
    assert "vgg16" in ax.get_title(loc="left")
    low, high = ax.get_ylim()
    for name in DRAWN[plot]:
        finite = result[name].values[np.isfinite(result[name].values)]
        assert low <= finite.min()
        assert finite.max() <= high


@pytest.mark.parametrize("plot", list(DRAWN))
def test_each_quantity_has_its_legend(plot, make_measures):
    legend = plot(make_measures()).get_legend()
    texts = [text.get_text() for text in legend.get_texts()]
    assert len(texts) == len(set(texts)) >= len(DRAWN[plot])


@pytest.mark.parametrize("plot", [*DRAWN, plot_measures])
def test_what_is_missing_is_named(plot, make_measures):
    result = make_measures().drop_vars(DRAWN.get(plot, ["cka_away"])[-1])
    with pytest.raises(InputError, match="no variable"):
        plot(result)
    with pytest.raises(InputError, match=r"no variable|expected a result"):
        plot(result.drop_vars(list(result.data_vars)).assign_attrs(headlines={}))


def test_a_layer_without_an_aligned_value_is_marked_only_if_it_is_a_map(make_measures):
    result = make_measures()
    assert "_no value" not in lines(plot_equivariance(result))  # fc6, fc7 are no maps
    result["aligned_G_away"][1] = np.nan
    marks = lines(plot_equivariance(result))["_no value"]
    np.testing.assert_array_equal(marks.get_xdata(), [1])


def test_shuffled_rows_are_lines_of_the_same_colour(make_measures):
    drawn = lines(plot_partition(make_measures()))
    for part, null in (("object", 0.1), ("location", 0.15), ("interaction", 0.75)):
        line = drawn[f"_{part}_share_null"]
        np.testing.assert_allclose(line.get_ydata(), null)
        assert line.get_color() == drawn[f"{part}_share"].get_color()


def test_the_band_is_what_sub_sampling_breaks(make_measures):
    result = make_measures()
    ax = plot_phase(result)
    (band,) = [c for c in ax.collections if c.get_label() == "_broken by sub-sampling"]
    heights = band.get_paths()[0].vertices[:, 1]
    within = result["shift_share_in_phase"].values[1:4]
    beyond = result["shift_share_out_of_phase"].values[1:4]
    assert set(np.round(heights, 9)) == set(np.round(np.concatenate([within, beyond]), 9))


def test_the_overview_has_a_panel_for_each_measure_and_a_key(make_measures):
    figure = plot_measures(make_measures())
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["aligned: G", "", "cka", "partition: object share"]
    texts = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert texts == ["95 % interval", "95 % simultaneous\nover layers", "no value"]
    wide = make_measures()
    wide["cka_away_interval"][:] = [-50, 50]
    low, high = plot_measures(wide).axes[2].get_ylim()
    assert high - low < 2


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_overview_has_one_key_however_many_panels_there_are(make_measures, count):
    result = make_measures()
    result.attrs["headlines"] = dict(list(result.attrs["headlines"].items())[:count])
    figure = plot_measures(result)
    keys = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
    assert len(keys) == 1
    labels = [text.get_text() for text in keys[0].get_texts()]
    assert (labels[0], labels[-1]) == ("95 % interval", "no value")
    figure.draw_without_rendering()
    boxes = [ax.get_tightbbox() for ax in figure.axes if ax.axison]
    box = keys[0].get_window_extent()
    assert not any(box.overlaps(other) for other in boxes)


@pytest.mark.parametrize("plot", [*DRAWN, plot_measures])
def test_many_layers_are_drawn_and_saved(plot, make_measures, tmp_path):
    layers = [f"conv{block}_{i}" for block in range(1, 8) for i in range(1, 6)] + ["fc6"]
    drawn = plot(make_measures(layers))
    figure = drawn if plot is plot_measures else drawn.figure
    assert save_figure(figure, tmp_path / "many.png").stat().st_size > 10_000


def test_constant_layers_leave_no_line_but_a_cross(make_measures):
    result = make_measures()
    for name in result.data_vars:
        if name != "cells":
            result[name] = result[name] * np.nan
    for plot in DRAWN:
        ax = plot(result)
        assert np.isfinite(ax.get_ylim()).all()
    assert plot_measures(result).axes


def test_intervals_of_a_measure_of_any_range_are_shown(make_measures):
    result = make_measures()
    name, key = next(iter(result.attrs["headlines"].items()))
    values = np.linspace(7.1, 5, result.sizes["layer"])
    result[key] = ("layer", values)
    result[f"{key}_interval"] = (("layer", "bound"), np.stack([values - 0.4, values + 0.4], 1))
    (ax,) = (ax for ax in plot_measures(result).axes if ax.get_title(loc="left").startswith(name))
    low, high = ax.get_ylim()
    assert 3.5 < low < 4.6
    assert 7.5 < high < 9


def test_a_mark_that_is_not_drawn_is_not_explained(make_measures):
    result = make_measures()
    keys = list(result.attrs["headlines"].values())
    whole = result.assign({key: result[key].fillna(0.5) for key in keys})
    (legend,) = [ax.get_legend() for ax in plot_measures(whole).axes if ax.get_legend()]
    assert "no value" not in [text.get_text() for text in legend.get_texts()]
