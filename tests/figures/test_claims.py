from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.patches import Rectangle

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures import plot_claims
from elsewhere.figures.claims import _VERDICTS


def marks(ax, label):
    return [item for item in ax.lines if item.get_label() == label]


def sides(ax):
    return [patch.get_bbox() for patch in ax.patches if isinstance(patch, Rectangle)]


def words(ax):
    return [text.get_text().replace("\n", " ") for text in ax.texts]


def legend_labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def render(figure):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO(), format="png", dpi=50)


def test_every_row_has_its_value_interval_and_seeds(make_claims):
    claims = make_claims()
    ax = plot_claims(claims).axes[0]
    measured = np.isfinite(claims.value.values)
    assert [item.get_xdata()[0] for item in marks(ax, "value")] == claims.value.values[
        measured
    ].tolist()
    spans = [item.get_xdata() for item in marks(ax, "interval")]
    np.testing.assert_allclose(spans, claims.interval.values[measured])
    dots = [item.get_xdata() for item in marks(ax, "seeds") if len(item.get_xdata())]
    np.testing.assert_allclose(dots, claims.seeds.values[measured])
    heights = [item.get_ydata()[0] for item in marks(ax, "value")]
    assert (np.diff(heights) > 0).all()
    assert ax.yaxis_inverted()


def test_the_side_that_counts_is_shaded_from_the_threshold_on(make_claims):
    claims = make_claims()
    ax = plot_claims(claims).axes[0]
    low, high = ax.get_xlim()
    ticks = [item.get_xdata()[0] for item in marks(ax, "threshold")]
    assert ticks == claims.threshold.values.tolist()
    for box, threshold, direction in zip(
        sides(ax), claims.threshold.values, claims.direction.values, strict=True
    ):
        expected = (threshold, high) if direction == ">" else (low, threshold)
        assert (box.x0, box.x1) == pytest.approx(expected)


def test_verdicts_are_words_with_symbols_of_their_own(make_claims):
    assert len({symbol for symbol, _ in _VERDICTS.values()}) == len(_VERDICTS)
    claims = make_claims()
    said = words(plot_claims(claims).axes[0])
    for verdict in set(claims.verdict.values):
        at = [place for place, text in enumerate(said) if text == verdict]
        assert at
        assert any(said[place - 1] == _VERDICTS[verdict][0] for place in at)


def test_rows_without_value_say_why(make_claims):
    ax = plot_claims(make_claims()).axes[0]
    assert words(ax).count("not run") == 2  # in the row and as its verdict
    assert words(ax).count("not measurable") == 2
    assert len(marks(ax, "value")) == 5


def test_claims_are_named_once_and_ruled_off(make_claims):
    claims = make_claims()
    ax = plot_claims(claims).axes[0]
    names = [text for text in words(ax) if text in claims.claim.values]
    assert names == ["C1", "C2", "C3", "C4", "C5", "C6"]
    assert len(marks(ax, "_rule")) == 5
    assert {"II_far, vanilla", "glyphs → digits"} <= set(words(ax))


def test_the_numbers_are_written(make_claims):
    said = words(plot_claims(make_claims()).axes[0])
    assert "0.70" in said
    assert "[0.67, 0.73]" in said
    assert "[0.00, 0.06]" in said


def test_rows_reported_beside_are_grey_or_left_out(make_claims):
    claims = make_claims()
    every, decisive = plot_claims(claims), plot_claims(claims, beside=False)
    values = marks(every.axes[0], "value")
    assert [item.get_markerfacecolor() == "white" for item in values] == [False, True, *[False] * 3]
    assert "reported beside" in legend_labels(every)
    assert len(marks(decisive.axes[0], "value")) == 4
    assert "reported beside" not in legend_labels(decisive)
    assert plot_claims(claims.drop_vars("counts")).axes
    with pytest.raises(InputError, match="no row decides"):
        plot_claims(claims.assign(counts=claims.counts * 0), beside=False)


def test_the_system_is_in_the_title_and_another_beside_its_row(make_claims):
    figure = plot_claims(make_claims())
    assert figure.texts[0].get_text() == "claims · 4 seeds · small-cnn"
    assert [text for text in words(figure.axes[0]) if "vgg16" in text] == ["vgg16"]
    assert not [text for text in words(figure.axes[0]) if "small-cnn" in text]


def test_a_single_seed_has_no_interval_and_no_verdict(make_claims):
    figure = plot_claims(make_claims(1))
    ax = figure.axes[0]
    assert not marks(ax, "interval")
    assert not marks(ax, "seeds") or all(not len(item.get_xdata()) for item in marks(ax, "seeds"))
    assert "shown in this run" in words(ax)
    assert "1 seed ·" in figure.texts[0].get_text()
    assert "95 % t interval over seeds" not in legend_labels(figure)
    render(figure)


def test_the_summary_stands_by_the_claim(make_claims):
    claims = make_claims()
    said = words(plot_claims(claims).axes[0])
    assert said[said.index("C1") + 1] == "✔"
    assert said[said.index("C6") + 1] == "?"
    assert said[said.index("C2") + 1] != "–"
    del claims.attrs["summary"]
    bare = words(plot_claims(claims).axes[0])
    assert bare.count("?") == said.count("?") - 1


def test_values_beyond_the_axis_are_arrows_at_its_end(make_claims):
    claims = make_claims()
    claims["value"][3], claims["value"][5] = 7.0, -5.0
    ax = plot_claims(claims).axes[0]
    low, high = ax.get_xlim()
    assert -1.1 < low < 0
    assert 1 < high < 1.6
    found = {item.get_marker(): item.get_xdata()[0] for item in marks(ax, "value")}
    assert found[">"] == pytest.approx(high)
    assert found["<"] == pytest.approx(low)
    render(ax.figure)


@pytest.mark.parametrize("count", [1, 7, 40])
def test_texts_stay_within_the_figure_and_apart(make_claims, count):
    claims = xr.concat([make_claims()] * 6, dim="claim", data_vars="minimal").isel(
        claim=slice(0, count)
    )
    parts = [
        f"{text} of a rather long statistic that needs many words" for text in claims.part.values
    ]
    claims = claims.assign_coords(part=("claim", parts))
    figure = plot_claims(claims)
    figure.draw_without_rendering()
    ax = figure.axes[0]
    width, height = figure.bbox.width, figure.bbox.height
    boxes = [text.get_window_extent() for text in ax.texts]
    boxes.append(figure.legends[0].get_window_extent())
    boxes.append(figure.texts[0].get_window_extent())
    for box in boxes:
        assert box.x0 >= 0
        assert box.x1 <= width
        assert box.y0 >= 0
        assert box.y1 <= height
    left = [box for box in boxes if box.x1 < ax.get_window_extent().x0 + 1]
    for place, box in enumerate(left):
        assert not any(box.overlaps(other) for other in left[:place])


@given(st.lists(st.sampled_from(sorted(_VERDICTS)), min_size=1, max_size=5), st.floats(-3, 3))
@settings(max_examples=15, deadline=None)
def test_any_verdict_and_value_is_drawn(verdicts, value):
    count = len(verdicts)
    claims = xr.Dataset(
        {
            "value": ("claim", np.full(count, value)),
            "interval": (("claim", "bound"), np.tile([value - 1, value + 1], (count, 1))),
            "threshold": ("claim", np.linspace(-2, 2, count)),
            "direction": ("claim", ["<"] * count),
            "verdict": ("claim", verdicts),
        },
        coords={"claim": [f"C{idx}" for idx in range(count)], "bound": ["low", "high"]},
    )
    ax = plot_claims(claims).axes[0]
    low, high = ax.get_xlim()
    for box in sides(ax):
        assert low <= box.x0 <= box.x1 <= high
    assert set(verdicts) <= set(words(ax))


def test_what_cannot_be_drawn_is_refused(make_claims):
    claims = make_claims()
    with pytest.raises(InputError, match="no variable 'verdict'"):
        plot_claims(claims.drop_vars("verdict"))
    with pytest.raises(InputError, match=r"'interval' runs over \(claim\)"):
        plot_claims(claims.assign(interval=claims.value))
    with pytest.raises(InputError, match="holds no claim"):
        plot_claims(claims.isel(claim=slice(0, 0)))
    with pytest.raises(UnknownNameError, match=r"verdict 'hold'; nearest: holds"):
        plot_claims(claims.assign(verdict=("claim", ["hold"] * 7)))
    with pytest.raises(UnknownNameError, match="direction '>='"):
        plot_claims(claims.assign(direction=("claim", [">="] * 7)))
    with pytest.raises(UnknownNameError, match="verdict 'maybe'"):
        plot_claims(claims.assign_attrs(summary={"C1": "maybe"}))
    with pytest.raises(InputError, match=r"'seeds' runs over \(claim\)"):
        plot_claims(claims.assign(seeds=claims.value))
    with pytest.raises(InputError, match="got list"):
        plot_claims([])  # type: ignore[arg-type]
