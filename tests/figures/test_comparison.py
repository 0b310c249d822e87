"""The figure of several results: what is drawn of each, and where."""

import numpy as np
import pytest
import xarray as xr

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures import draw, plot_comparison


def layered():
    """Return a comparison of two networks of three and two layers."""
    values = np.array([[0.2, 0.4, 0.6], [0.5, 0.7, np.nan]])
    return xr.Dataset(
        {
            "cosine_G_away": (("result", "place"), values),
            "cosine_G_away_interval": (
                ("result", "place", "bound"),
                np.stack([values - 0.1, values + 0.1], -1),
            ),
            "cosine_G_away_difference": (("other", "joined"), [[0.3, 0.2, 0.1]]),
            "cosine_G_away_difference_interval": (
                ("other", "joined", "bound"),
                [[[0.2, 0.4], [0.1, 0.3], [0.0, 0.2]]],
            ),
        },
        coords={
            "result": ["vgg16", "vit"],
            "other": ["vit"],
            "bound": ["low", "high"],
            "depth": (("result", "place"), [[0.0, 0.5, 1.0], [0.0, 1.0, np.nan]]),
            "joined_depth": ("joined", [0.0, 0.5, 1.0]),
        },
        attrs={"kind": "comparison", "compared": "similarity"},
    )


def claimed():
    """Return a comparison of two systems by two statistics, of which one decides."""
    return xr.Dataset(
        {
            "value": (("result", "claim"), [[0.05, 0.3], [0.8, np.nan]]),
            "value_interval": (
                ("result", "claim", "bound"),
                [[[0.0, 0.09], [0.2, 0.4]], [[0.7, 0.9], [np.nan, np.nan]]],
            ),
            "verdict": (("result", "claim"), [["holds", "fails"], ["fails", "not run"]]),
            "value_difference": (("other", "claim"), [[0.75, np.nan]]),
            "value_difference_interval": (
                ("other", "claim", "bound"),
                [[[0.6, 0.9], [np.nan, np.nan]]],
            ),
            "threshold": ("claim", [0.1, 0.5]),
            "direction": ("claim", ["<", ">"]),
            "counts": ("claim", [1, 0]),
        },
        coords={
            "result": ["plain", "gap"],
            "other": ["gap"],
            "bound": ["low", "high"],
            "claim": ["C1", "C3"],
            "part": ("claim", ["II_far, vanilla", "II_far, acquired"]),
        },
        attrs={"kind": "comparison", "compared": "claims"},
    )


def test_each_network_is_a_curve_against_relative_depth():
    (ax,) = draw(layered()).axes
    curves = [line.get_xydata().tolist() for line in ax.lines]
    assert curves == [[[0.0, 0.2], [0.5, 0.4], [1.0, 0.6]], [[0.0, 0.5], [1.0, 0.7]]]
    assert ax.get_xlabel() == "relative depth"
    (legend,) = ax.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["vgg16", "vit"]


def test_differences_are_those_of_the_others_from_the_first():
    (ax,) = plot_comparison(layered(), differences=True).axes
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 0.3], [0.5, 0.2], [1, 0.1]])


def test_claims_have_a_panel_for_each_statistic_that_decides_and_a_row_for_each_system():
    (ax,) = draw(claimed()).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["plain", "gap"]
    points = [tuple(line.get_xydata()[0]) for line in ax.lines if len(line.get_xdata()) == 1]
    assert points == [(0.05, 0.0), (0.8, 1.0)]
    threshold = [line for line in ax.lines if line.get_color() == "#0072B2"]
    assert threshold[0].get_xdata()[0] == 0.1
    low, high = ax.patches[0].get_bbox().intervalx
    assert low < 0.1 == pytest.approx(high)
    assert len(plot_comparison(claimed(), quantities=["C3"]).axes) == 1


def test_a_value_that_is_not_measurable_is_seen_and_one_that_is_missing_is_no_mark():
    found = claimed()
    found["verdict"][:, 0] = ["not measurable", "holds"]
    (ax,) = draw(found).axes
    (mark,) = [line for line in ax.lines if line.get_marker() == "x"]
    assert mark.get_xydata().tolist() == [[0.05, 0.0]]
    assert mark.get_markeredgecolor() == mark.get_color() != "white"
    found["value"][0, 0] = np.nan
    (ax,) = draw(found).axes
    assert not [line for line in ax.lines if line.get_marker() == "x"]
    assert [text.get_text() for text in ax.texts] == ["no value"]


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(UnknownNameError, match="cosine_G_away"):
        plot_comparison(layered(), quantities=["cosine_away"])
    with pytest.raises(UnknownNameError, match="C1"):
        plot_comparison(claimed(), quantities=["C9"])
    with pytest.raises(InputError, match="elsewhere compare"):
        plot_comparison(layered().assign_attrs(kind="similarity"))


def test_tracks_are_drawn_of_the_last_layer_over_the_steps_of_all_phases():
    values = np.arange(24.0).reshape(2, 4, 3) / 24  # result, checkpoint, place
    values[1, :, 2] = np.nan
    found = xr.Dataset(
        {
            "cosine_G_away": (("result", "checkpoint", "place"), values),
            "cosine_G_away_difference": (("other", "checkpoint", "joined"), values[1:, :, :2]),
            "cosine_G_away_difference_interval": (
                ("other", "checkpoint", "joined", "bound"),
                np.stack([values[1:, :, :2] - 0.1, values[1:, :, :2] + 0.1], -1),
            ),
        },
        coords={
            "result": ["a", "b"],
            "other": ["b"],
            "bound": ["low", "high"],
            "phase": ("checkpoint", ["one", "one", "two", "two"]),
            "step": ("checkpoint", [0, 10, 0, 5]),
            "depth": (("result", "place"), [[0.0, 0.5, 1.0], [0.0, 1.0, np.nan]]),
            "joined_depth": ("joined", [0.0, 1.0]),
        },
        attrs={"kind": "comparison", "compared": "track"},
    )
    ax = plot_comparison(found).axes[0]
    first, *_, last = sorted(line.get_xdata().tolist() for line in ax.lines[:4])
    assert first[0] < first[1] < last[0] < last[1], "phases follow each other, and are not joined"
    for line, row, place, phase in zip(
        ax.lines, (0, 0, 1, 1), (2, 2, 1, 1), (0, 1) * 2, strict=False
    ):
        expected = values[row, 2 * phase : 2 * phase + 2, place]
        np.testing.assert_allclose(line.get_ydata(), expected)
    assert {"one", "two"} <= {text.get_text() for text in ax.texts}
    assert ax.get_title(loc="left").endswith("last layer")
    apart = plot_comparison(found, differences=True).axes[0]
    np.testing.assert_allclose(apart.lines[0].get_ydata(), values[1, :2, 1])


def test_steps_that_grow_geometrically_stand_equally_far_apart():
    steps = [0, 1, 10, 100, 1000, 10000]
    values = np.linspace(0, 1, 12).reshape(2, 6)
    found = xr.Dataset(
        {
            "loss": (("result", "checkpoint"), values),
            "loss_difference": (("other", "checkpoint"), values[1:]),
            "loss_difference_interval": (
                ("other", "checkpoint", "bound"),
                np.stack([values[1:] - 0.1, values[1:] + 0.1], -1),
            ),
        },
        coords={
            "result": ["a", "b"],
            "other": ["b"],
            "bound": ["low", "high"],
            "phase": ("checkpoint", ["one"] * 6),
            "step": ("checkpoint", steps),
        },
        attrs={"kind": "comparison", "compared": "track"},
    )
    ax = plot_comparison(found).axes[0]
    at = np.asarray(ax.lines[0].get_xdata())
    np.testing.assert_allclose(np.diff(at)[1:], np.diff(at)[1])
    assert 0 < at[1] - at[0] < at[2] - at[1], "step 0 has its own place"
    shown = [label.get_text() for label in ax.get_xticklabels()]
    assert shown == ["0", "1", "10", "100", "1k", "10k"]
