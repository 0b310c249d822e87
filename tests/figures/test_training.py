from __future__ import annotations

import io
import json
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.collections import FillBetweenPolyCollection
from scipy import stats

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures import plot_acquisition, plot_interference
from elsewhere.figures.steps import stretches
from elsewhere.figures.training import over_seeds


def lines(ax, label):
    return [item for item in ax.lines if item.get_label() == label]


def bands(ax):
    return [item for item in ax.collections if isinstance(item, FillBetweenPolyCollection)]


def legend_labels(ax):
    return [text.get_text().replace("\n", " ") for text in ax.get_legend().get_texts()]


def ticks(ax):
    return [text.get_text() for text in ax.get_xticklabels()]


def render(figure):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO(), format="png", dpi=50)


def test_accuracy_above_and_every_layer_below_phase_by_phase(make_track):
    track = make_track()
    figure = plot_acquisition(track)
    upper, lower = figure.axes
    for where in ("on", "off"):
        drawn = [item.get_ydata() for item in lines(upper, f"accuracy_{where}")]
        assert [len(each) for each in drawn] == [5, 4]
        expected = track[f"accuracy_{where}"].sel(exemplars="held-out")
        np.testing.assert_allclose(np.concatenate(drawn), expected)
    assert not lines(upper, "accuracy_far")
    for layer in track.layer.values:
        drawn = np.concatenate([item.get_ydata() for item in lines(lower, f"G:{layer}")])
        np.testing.assert_allclose(drawn, track.cosine_G_away.sel(layer=layer))
    assert not bands(upper)
    render(figure)


def test_steps_are_logarithmic_with_a_place_for_zero(make_track):
    track = make_track(phases={"only": [0, 1, 10, 100, 1000]})
    upper, lower = plot_acquisition(track).axes
    (drawn,) = lines(upper, "accuracy_off")
    at = drawn.get_xdata()
    np.testing.assert_allclose(np.diff(at)[1:], 1.0)  # decades
    assert 0 < at[1] - at[0] < 1
    assert ticks(lower) == ["0", "1", "10", "100", "1k"]
    np.testing.assert_allclose(lower.get_xticks(), at)
    assert upper.get_shared_x_axes().joined(upper, lower)


def test_each_phase_has_its_zero_name_and_rule(make_track):
    figure = plot_acquisition(make_track())
    upper, lower = figure.axes
    assert ticks(lower).count("0") == 2
    assert [text.get_text() for text in upper.texts] == ["pretraining", "digits"]
    first, second = lines(upper, "accuracy_off")
    for ax in (upper, lower):
        (rule,) = lines(ax, "_phase")
        assert first.get_xdata()[-1] < rule.get_xdata()[0] < second.get_xdata()[0]


def test_phases_layers_and_places_are_those_asked_for(make_track):
    track = make_track()
    upper, lower = plot_acquisition(
        track, phase="digits", layers=["fc2"], quantities=("off", "far", "G"), exemplars="same"
    ).axes
    assert len(lines(upper, "accuracy_far")) == 1
    assert not lines(upper, "accuracy_on")
    assert not lines(upper, "_phase")
    assert legend_labels(lower) == ["fc2"]
    (drawn,) = lines(upper, "accuracy_off")
    expected = track.accuracy_off.sel(exemplars="same")[track.phase == "digits"]
    np.testing.assert_allclose(drawn.get_ydata(), expected)


def test_many_layers_are_thinned(make_track):
    track = make_track(layers=tuple(f"conv{idx}" for idx in range(20)))
    names = legend_labels(plot_acquisition(track).axes[1])
    assert (names[0], *names[-2:]) == ("conv0", "conv19", "(8 of 20 layers; --layers: others)")
    assert len(names) == 9
    few = make_track(layers=tuple(f"conv{idx}" for idx in range(7)))
    assert legend_labels(plot_acquisition(few).axes[1]) == few.layer.values.tolist()
    asked = plot_acquisition(track, layers=["conv3", "conv4"])
    assert legend_labels(asked.axes[1]) == ["conv3", "conv4"]


def test_a_title_names_the_run_and_not_one_of_its_checkpoints(make_track):
    track = make_track()
    last = {"model": "small-cnn", "weights": "digits-000060.safetensors", "curriculum": "mine"}
    track.attrs |= last
    assert "small-cnn (run 'mine', 9 checkpoints)" in plot_acquisition(track).axes[0].get_title(
        loc="left"
    ).replace("\n", " ")


def test_a_phase_trained_everywhere_has_a_curve(make_track):
    """Nothing is off its locations: held-out exemplars are drawn where they are known."""
    track = make_track()
    track["accuracy_off"][:] = np.nan
    upper = plot_acquisition(track).axes[0]
    drawn = np.concatenate([item.get_ydata() for item in lines(upper, "accuracy_on")])
    np.testing.assert_allclose(drawn, track.accuracy_on.sel(exemplars="held-out"))


@pytest.mark.parametrize(("n_seeds", "thin"), [(2, 4), (3, 6), (4, 0)])
def test_seeds_have_a_mean_a_band_and_if_few_thin_lines(make_track, n_seeds, thin):
    track = make_track(n_seeds, phases={"only": [0, 1, 10, 100]})
    upper, _ = plot_acquisition(track).axes
    (drawn,) = lines(upper, "accuracy_off")
    values = track.accuracy_off.sel(exemplars="held-out").values
    np.testing.assert_allclose(drawn.get_ydata(), values.mean(axis=0))
    low, high = stats.t.interval(0.95, n_seeds - 1, values.mean(0), stats.sem(values, axis=0))
    heights = bands(upper)[1].get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(low.min())
    assert heights.max() == pytest.approx(high.max())
    assert len(lines(upper, "_seed")) == thin
    assert f"95 % t interval, {n_seeds} seeds" in legend_labels(upper)
    assert ("each seed" in legend_labels(upper)) == bool(thin)


def test_a_mean_stands_only_where_all_seeds_have_a_value(make_track):
    track = make_track(4, phases={"only": [0, 1, 10, 100]})
    track["accuracy_off"][2, -1] = np.nan
    upper, _ = plot_acquisition(track).axes
    assert len(lines(upper, "accuracy_off")[0].get_ydata()) == 3
    assert sorted(len(item.get_ydata()) for item in lines(upper, "_seed")) == [3, 4, 4, 4]
    track["accuracy_off"][2] = np.nan  # a seed that was never measured
    upper, _ = plot_acquisition(track).axes
    assert len(lines(upper, "accuracy_off")[0].get_ydata()) == 4
    render(upper.figure)


def test_chance_is_drawn_where_it_is_known(make_track):
    track = make_track()
    upper, _ = plot_acquisition(track).axes
    (dots,) = lines(upper, "chance")  # of the last phase, of which the attribute speaks
    assert list(dots.get_ydata()) == [0.1, 0.1]
    assert dots.get_xdata()[0] == lines(upper, "accuracy_off")[1].get_xdata()[0]
    by_phase = track.assign_coords(chance=("checkpoint", [0.01] * 5 + [0.1] * 4))
    upper, _ = plot_acquisition(by_phase).axes
    assert [item.get_ydata()[0] for item in lines(upper, "chance")] == [0.01, 0.1]
    by_classes = track.assign_coords(n_classes=("checkpoint", [8] * 5 + [2] * 4))  # as track has it
    upper, _ = plot_acquisition(by_classes).axes
    assert [item.get_ydata()[0] for item in lines(upper, "chance")] == [0.125, 0.5]
    del track.attrs["n_classes"]
    assert not lines(plot_acquisition(track).axes[0], "chance")


@pytest.mark.parametrize("form", ["number", "seeds", "phases", "text", "coordinate"])
def test_interference_rules_the_criterion(make_track, form):
    track = make_track()
    given = {"number": 20, "seeds": [20.0, np.nan], "phases": {"digits": 20}}
    given["text"] = json.dumps(given["phases"])
    if form == "coordinate":
        track = track.assign_coords(criterion_step=20)
    else:
        track.attrs["criterion_step"] = given[form]
    figure = plot_interference(track)
    for ax in figure.axes:
        (rule,) = lines(ax, "criterion")
        assert rule.get_xdata()[0] == pytest.approx(_place(figure, 2))
    assert "criterion reached" in legend_labels(figure.axes[0])
    assert not lines(plot_acquisition(track).axes[0], "criterion")


def _place(figure, checkpoint):
    return lines(figure.axes[0], "accuracy_off")[-1].get_xdata()[checkpoint]


@pytest.mark.parametrize("given", [None, np.nan, 5_000, {"pretraining": None}])
def test_a_criterion_that_was_not_reached_is_not_ruled(make_track, given):
    track = make_track()
    if given is not None:
        track.attrs["criterion_step"] = given
    figure = plot_interference(track)
    assert not lines(figure.axes[0], "criterion")
    assert "criterion reached" not in legend_labels(figure.axes[0])


def test_the_control_runs_dashed_along_the_last_phase(make_track):
    track = make_track(2)
    control = make_track(2, phases={"pretraining": [0, 1], "shown everywhere": [0, 2, 2000]})
    figure = plot_interference(track, control)
    upper, lower = figure.axes
    (drawn,) = lines(upper, "control:accuracy_off")
    assert drawn.get_linestyle() == "--"
    assert drawn.get_markerfacecolor() == "white"
    np.testing.assert_allclose(drawn.get_xdata()[:2], _place(figure, slice(0, 2)))
    assert drawn.get_xdata()[2] < lower.get_xlim()[1]
    expected = control.accuracy_off.sel(exemplars="held-out").mean("seed")[2:]
    np.testing.assert_allclose(drawn.get_ydata(), expected)
    assert len(lines(lower, "control:G:fc2")) == 1
    assert "control" in legend_labels(upper)
    render(figure)


@pytest.mark.parametrize("steps", [[0], [7], [0, 5], [3, 4, 5], [0, 500, 650, 1_000_000]])
def test_any_steps(make_track, steps):
    figure = plot_interference(make_track(phases={"a": steps, "b": steps, "c": [0, 1]}))
    render(figure)
    tight = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert min(tight.x0, tight.y0) > -0.02
    assert tight.x1 < width + 0.02
    assert tight.y1 < height + 0.02


def test_numbers_on_the_axis_do_not_touch(make_track):
    steps = [0, *(10**power for power in range(7))]
    figure = plot_acquisition(make_track(phases=dict.fromkeys(("a", "b", "c"), steps)))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[1].get_xticklabels()]
    assert len(boxes) > 6
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_legends_stand_beside_the_data(make_track):
    track = make_track(3)
    track.attrs["criterion_step"] = 20
    figure = plot_interference(track, track)
    figure.draw_without_rendering()
    for ax in figure.axes:
        box = ax.get_legend().get_window_extent()
        assert not box.overlaps(ax.get_window_extent())
        assert box.x1 <= figure.bbox.x1 + 1
    upper, lower = (ax.get_legend().get_window_extent() for ax in figure.axes)
    assert not upper.overlaps(lower)


def test_all_missing_is_drawn(make_track):
    track = make_track(2)
    for name in track.data_vars:
        track[name] = track[name] * np.nan
    render(plot_interference(track, track))


@given(
    arrays(np.float64, st.tuples(st.integers(2, 6), st.integers(1, 4)), elements=st.floats(0, 1))
)
@settings(max_examples=40, deadline=None)
def test_means_and_intervals_are_those_of_student(values):
    mean, low, high = over_seeds(values)
    np.testing.assert_allclose(mean, values.mean(axis=0), atol=1e-12)
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values, axis=0)
    np.testing.assert_allclose(high - mean, half, atol=1e-12)
    np.testing.assert_allclose(mean - low, half, atol=1e-12)


@given(st.lists(st.sets(st.integers(0, 10_000), min_size=1, max_size=8), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_steps_keep_their_order_along_the_axis(phases):
    import xarray as xr

    steps = [sorted(each) for each in phases]
    track = xr.Dataset(
        coords={
            "phase": ("checkpoint", [str(i) for i, each in enumerate(steps) for _ in each]),
            "step": ("checkpoint", [step for each in steps for step in each]),
            "checkpoint": np.arange(sum(map(len, steps))),
        }
    )
    laid = stretches(track, None)
    at = [stretch.at(np.array(each, float)) for stretch, each in zip(laid, steps, strict=True)]
    assert (np.diff(np.concatenate(at)) > 0).all()


def test_what_cannot_be_drawn_is_refused(make_track):
    track = make_track()
    with pytest.raises(UnknownNameError, match=r"phase 'digit'; nearest: digits"):
        plot_acquisition(track, phase="digit")
    with pytest.raises(UnknownNameError, match="layer 'fc9'"):
        plot_acquisition(track, layers=["fc9"])
    with pytest.raises(UnknownNameError, match="quantity 'of'"):
        plot_acquisition(track, quantities=("of",))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no quantities to draw"):
        plot_acquisition(track, quantities=())
    with pytest.raises(InputError, match="no phase to draw"):
        plot_acquisition(track, phase=[])
    with pytest.raises(InputError, match="no variable 'accuracy_off'"):
        plot_acquisition(track.drop_vars("accuracy_off"))
    with pytest.raises(InputError, match="no coordinate 'step'"):
        plot_acquisition(track.drop_vars("step"))
    with pytest.raises(InputError, match="no checkpoint"):
        plot_acquisition(track.isel(checkpoint=slice(0, 0)))
    with pytest.raises(
        InputError, match=r"steps of phase 'digits' are 200, 20, 2, 0; expected .*rising"
    ):
        plot_acquisition(track.isel(checkpoint=slice(None, None, -1)))
    with pytest.raises(InputError, match="got str"):
        plot_interference(track, "control")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="layer of the control 'fc2'"):
        plot_interference(track, make_track(layers=("pool4", "fc1")))
    with pytest.raises(InputError, match="criterion_step is soon; expected a step"):
        plot_interference(track.assign_attrs(criterion_step="soon"))
