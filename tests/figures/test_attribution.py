"""Figures of attribution: what is drawn where, on one scale, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures import (
    page,
    plot_attribution_equivariance,
    plot_attribution_frame,
    plot_attribution_grid,
    plot_attribution_timeline,
    save_figure,
)
from elsewhere.figures.attribution import DIVERGING, OFF_CANVAS, diverging_scale


def titles(figure):
    return [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]


def test_the_grid_has_the_reference_first_and_the_correlations(make_attribution):
    result = make_attribution()
    figure = plot_attribution_grid(result, objects=["o2", "o0"], locations=[(5, 42), (24, 24)])
    panels, pictures = figure.axes[:6], figure.axes[6:8]
    assert titles(figure) == ["reference", "y 5, x 42", "y 24, x 24", "object"]
    assert [ax.get_ylabel() for ax in pictures] == ["o2", "o0"]
    patch = result["patch"].sel(object="o0").values / 255
    np.testing.assert_array_equal(pictures[1].images[0].get_array(), patch)
    value = float(result["equivariance"].sel(metric="pearson", object="o2", y=5, x=42))
    assert panels[1].texts[0].get_text() == f"{value:.2f}".replace("-", "−")
    assert len(panels[0].texts) == 0, "no number at the reference itself"
    shown = panels[2].images[-1].get_array()
    expected = result["attribution"].sel(object="o2", y=24, x=24).values.astype(float)
    assert shown.shape == (*expected.shape, 4)
    strong = np.unravel_index(np.abs(expected).argmax(), expected.shape)
    red, _, blue, _ = shown[strong]
    assert (red > blue) == (expected[strong] > 0), "red speaks for, blue against"
    assert all(ax.collections for ax in panels), "the object's outline is drawn"


def test_a_colour_of_a_map_is_the_colour_bars(make_attribution):
    result = make_attribution()
    figure = plot_attribution_grid(
        result, objects=["o1"], locations=[(24, 24)], photograph=False
    )  # fmt: skip
    figure.canvas.draw()
    bar = figure.axes[-1]._colorbar
    table = DIVERGING(np.linspace(0, 1, 4001))[:, :3]
    levels = np.linspace(bar.norm.vmin, bar.norm.vmax, 4001)
    shown = np.asarray(figure.axes[1].images[-1].get_array())
    assert set(shown[..., 3].ravel()) <= {0.0, 1.0}  # nothing shines through
    read = np.array(
        [levels[((table - c) ** 2).sum(1).argmin()] for c in shown[..., :3].reshape(-1, 3)]
    )
    maps = [
        (result[n].astype(float) * result[s]).sel(object="o1")
        for n, s in (("attribution", "scale"), ("reference_attribution", "reference_scale"))
    ]
    here = maps[0].sel(y=24, x=24).values
    true = here / max(np.nanmax(abs(here)), np.nanmax(abs(maps[1].values)))
    inside = np.isfinite(true) & (abs(true) < bar.norm.vmax)
    np.testing.assert_allclose(read[inside.ravel()], true[inside], atol=0.01)  # 256 colours


def test_the_photograph_lies_beneath_and_shows_where_a_map_says_little(make_attribution):
    result = make_attribution()
    result["patch"][1] = np.random.default_rng(0).integers(0, 256, (8, 8, 3))
    result.attrs["background"] = [200.0, 30.0, 90.0]
    figure = plot_attribution_grid(result, objects=["o1"], locations=[(24, 24)])
    beneath, above = (np.asarray(image.get_array()) for image in figure.axes[1].images)
    picture = np.broadcast_to(np.array([200, 30, 90.0]), (14, 14, 3)).copy()
    picture[3:11, 3:11] = result["patch"].values[1]
    grey = beneath[..., 0]
    assert (beneath[..., :3] == grey[..., None]).all(), "no hue but the map's"
    luminance = picture / 255 @ [0.2126, 0.7152, 0.0722]
    np.testing.assert_allclose(np.corrcoef(grey.ravel(), luminance.ravel())[0, 1], 1)
    assert grey.min() > to_rgb(OFF_CANVAS)[0] + 0.05, "light, and unlike what is off the canvas"
    values = (result["attribution"].astype(float) * result["scale"]).sel(object="o1", y=24, x=24)
    strong = np.abs(values.values) / np.abs(values.values).max() > 0.5
    assert (above[strong][:, 3] == 1).all(), "strong attributions cover it"
    assert above[..., 3].min() < 0.2, "it shines through where there is none"


def test_the_reference_is_drawn_once_unless_it_is_asked_for(make_attribution):
    result = make_attribution(ys=(5, 24))  # its reference, 24 and 5, is a corner
    figure = plot_attribution_grid(result, objects=["o1"])
    assert titles(figure) == ["reference", "y 5, x 5", "y 5, x 24", "y 24, x 24", "object"]
    asked = plot_attribution_grid(result, objects=["o1"], locations=[(24, 5)])
    assert titles(asked) == ["reference", "y 24, x 5", "object"]


def test_a_map_that_does_not_sum_is_marked(make_attribution):
    result = make_attribution().assign_attrs(tolerance=0.05)
    share = np.full((3, 3, 3), 0.01)
    share[1, 0, 2] = 0.2
    result["completeness_share"] = (("object", "y", "x"), share)
    result["reference_completeness_share"] = ("object", [0.01, 0.01, 0.3])
    figure = plot_attribution_grid(result, locations=[(5, 5), (5, 42)])
    marked = ["Σ" in [text.get_text() for text in ax.texts] for ax in figure.axes[:9]]
    assert marked == [False] * 5 + [True, True, False, False]
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "does not sum to the score's change" in said


@pytest.mark.parametrize("place", [3, 6, 8])
def test_the_ring_is_on_the_row_of_the_reference(make_attribution, place):
    ys = tuple(range(5, 43, 3))
    result = make_attribution(ys=ys).assign_attrs(reference_y=ys[place], reference_x=ys[-place])
    figure = plot_attribution_frame(result)
    figure.canvas.draw()
    ax = figure.axes[0]
    ring = next(patch for patch in ax.patches if patch.get_label() == "reference")
    for axis, start, length, wanted in (
        (ax.yaxis, ring.get_y(), ring.get_height(), ys[place]),
        (ax.xaxis, ring.get_x(), ring.get_width(), ys[-place]),
    ):
        at = np.abs(axis.get_majorticklocs() - start - length / 2).argmin()
        assert axis.get_ticklabels()[at].get_text() == str(wanted)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert f"reference (y {ys[place]}, x {ys[-place]})" in texts


def test_a_reference_off_the_grid_rings_nothing(make_attribution):
    figure = plot_attribution_frame(make_attribution().assign_attrs(reference_y=6))
    assert not [p for p in figure.axes[0].patches if p.get_label() == "reference"]
    assert any("not on this grid" in t.get_text() for t in figure.legends[0].get_texts())


def test_scales_are_centred_on_zero():
    for values in (np.array([0.0, 3.0, np.nan]), np.array([-5.0, 1.0]), np.zeros(4)):
        norm = diverging_scale(values)
        assert norm.vmin == -norm.vmax < 0
        middle = DIVERGING(norm(0.0))
        assert min(middle[:3]) > 0.95, to_hex(middle)


def test_frames_are_arranged_as_on_the_canvas(make_attribution):
    result = make_attribution()
    figure = plot_attribution_frame(result)
    ax = figure.axes[0]
    assert len(ax.images) == 9
    assert len({(image.norm.vmin, image.norm.vmax) for image in ax.images}) == 1, "one scale"
    extents = [image.get_extent() for image in ax.images]
    assert extents[1][0] > extents[0][1], "the next x to the right"
    assert extents[3][3] > extents[0][2], "the next y below"
    np.testing.assert_allclose(
        ax.images[5].get_array().filled(np.nan), result["frame_mean"][1, 2].values
    )
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    boxes = [p for p in ax.patches if not p.get_fill() and p.get_label() != "reference"]
    assert len(boxes) == 9
    assert boxes[0].get_width() == pytest.approx(8)
    ring = next(p for p in ax.patches if p.get_label() == "reference")
    assert ring.get_y() < extents[3][3] <= ring.get_y() + ring.get_height()
    assert ring.get_x() < extents[3][0] <= ring.get_x() + ring.get_width()


def test_many_locations_are_thinned_out(make_attribution):
    result = make_attribution(ys=tuple(range(4, 44, 2)))
    assert len(plot_attribution_frame(result).axes[0].images) == 81


def test_equivariance_has_its_baseline_beside_it(make_attribution):
    result = make_attribution()
    figure = plot_attribution_equivariance(result, metric="spearman")
    own, cross = figure.axes[:2]
    for ax, name in ((own, "equivariance_mean"), (cross, "equivariance_cross")):
        drawn = ax.collections[0].get_array()
        np.testing.assert_allclose(drawn, result[name].sel(metric="spearman").values)
        assert ax.collections[0].norm.vmin == -1
        assert ax.collections[0].norm.vmax == 1
    assert titles(figure) == ["same object elsewhere", "other object elsewhere"]
    values = result["equivariance_mean"].sel(metric="spearman").values.copy()
    values[1, 0] = np.nan
    assert own.get_title(loc="right") == f"{np.nanmean(values):.2f}"
    with pytest.raises(UnknownNameError, match="pearson"):
        plot_attribution_equivariance(result, metric="kendall")


def test_cells_without_a_value_are_hatched(make_attribution):
    result = make_attribution()
    result["equivariance_mean"][:, 0, 0] = np.nan
    figure = plot_attribution_equivariance(result)
    assert [p.get_hatch() for p in figure.axes[0].patches if p.get_hatch()]
    assert "no value" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_timeline_has_maps_above_their_steps(make_attribution):
    result = make_attribution(steps=(0, 3, 9, 40))
    figure = plot_attribution_timeline(result, location=(42, 42))
    above, below = figure.axes[:2]
    assert len(above.images) == 8
    assert [label.get_text() for label in below.get_xticklabels()] == ["0", "3", "9", "40"]
    middles = [np.mean(image.get_extent()[:2]) for image in above.images[:4]]
    np.testing.assert_allclose(middles, below.get_xticks())
    np.testing.assert_allclose(
        above.images[4].get_array().filled(np.nan),
        result["frame_mean"].sel(y=42, x=42)[0].values,
    )
    drawn = {line.get_label(): line.get_ydata() for line in below.lines}
    np.testing.assert_allclose(
        drawn["correlation with the reference's map"],
        result["equivariance_away"].sel(metric="pearson"),
    )
    np.testing.assert_allclose(drawn["accuracy"], result["accuracy"].mean(("y", "x")))


def test_many_checkpoints_keep_all_their_points(make_attribution):
    result = make_attribution(steps=tuple(range(0, 50, 2)))
    figure = plot_attribution_timeline(result)
    assert len(figure.axes[0].images) == 20
    assert len(figure.axes[1].lines[0].get_xdata()) == 25


def test_all_of_them_can_be_saved(make_attribution, tmp_path):
    result = make_attribution()
    for plot in (plot_attribution_grid, plot_attribution_frame, plot_attribution_equivariance):
        path = tmp_path / f"{plot.__name__}.png"
        save_figure(plot(result), path)
        assert path.stat().st_size > 5000


def test_what_cannot_be_drawn_is_refused(make_attribution):
    result = make_attribution()
    with pytest.raises(UnknownNameError, match="o9"):
        plot_attribution_grid(result, objects=["o9"])
    with pytest.raises(InputError, match="not on the result's grid"):
        plot_attribution_grid(result, locations=[(6, 6)])
    with pytest.raises(InputError, match="no locations"):
        plot_attribution_grid(result, locations=[])
    with pytest.raises(InputError, match="no objects"):
        plot_attribution_grid(result, objects=[])
    with pytest.raises(InputError, match="no dimension 'checkpoint'"):
        plot_attribution_timeline(result)
    with pytest.raises(InputError, match="not on the result's grid"):
        plot_attribution_timeline(make_attribution(steps=(0, 1)), location=(1, 1))
    with pytest.raises(InputError, match="no variable 'frame_mean'"):
        plot_attribution_frame(result.drop_vars("frame_mean"))


def test_names_of_objects_stand_whole_and_objects_left_out_are_said(make_attribution):
    result = make_attribution().isel(object=[0, 1, 2, 0, 1, 2])
    names = [f"a_rather_long_name_of_an_object_{k}.png" for k in range(6)]
    result = result.assign_coords(object=names)
    with page(width="85mm"):
        figure = plot_attribution_grid(result)
        asked = plot_attribution_grid(result, objects=names[:1])
    rows = [ax.get_ylabel().replace("\n", "") for ax in figure.axes if ax.get_ylabel()]
    assert rows[:4] == names[:4]
    (legend,) = figure.legends
    n_locations = result.sizes["y"] * result.sizes["x"]
    said = [text.get_text() for text in legend.get_texts()][-1]
    assert said.startswith("(4 of 6 objects")
    assert (f" of {n_locations} locations)" in said) == (n_locations > 4)
    assert "objects)" not in "".join(text.get_text() for text in asked.legends[0].get_texts())
