from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.patches import Rectangle

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures import plot_similarity_maps
from elsewhere.figures.results import cell_edges


def panels(figure):
    return [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]


def mesh(ax):
    return next(item for item in ax.collections if isinstance(item, QuadMesh))


def hatched(ax):
    return [
        item for item in ax.collections if isinstance(item, PolyCollection) and item.get_hatch()
    ]


def ring(ax):
    return next(line for line in ax.lines if line.get_label() == "reference")


def render(figure):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO(), format="png", dpi=50)


def test_a_panel_for_each_layer_in_order(deep_result):
    figure = plot_similarity_maps(deep_result)
    assert [ax.get_title(loc="left") for ax in panels(figure)] == list(deep_result.layer.values)
    assert figure.get_size_inches()[0] <= 7.01
    render(figure)


def test_values_and_cells_stand_where_they_were_measured(result):
    ax = panels(plot_similarity_maps(result, quantities="similarity"))[2]
    drawn = mesh(ax)
    np.testing.assert_allclose(drawn.get_array(), result["cosine"][1])
    corners = drawn.get_coordinates()
    assert corners[0, 0].tolist() == [25 - 21.5, 25 - 21.5]
    assert corners[0, 1, 0] == (25 + 68) / 2
    assert corners[2, 0, 1] == (68 + 112) / 2


def test_axes_are_the_canvas_with_y_downwards(result):
    for ax in panels(plot_similarity_maps(result)):
        assert ax.get_xlim() == (0, 224)
        assert ax.get_ylim() == (224, 0)
        assert ax.get_aspect() == 1


def test_descending_coordinates_give_the_same_picture(result):
    flipped = result.isel(y=slice(None, None, -1), x=slice(None, None, -1))
    first, second = panels(plot_similarity_maps(result)), panels(plot_similarity_maps(flipped))
    np.testing.assert_array_equal(mesh(first[0]).get_array(), mesh(second[0]).get_array())


def test_reference_is_ringed_and_the_object_outlined_once(result):
    figure = plot_similarity_maps(result)
    for ax in panels(figure):
        assert (*ring(ax).get_xdata(), *ring(ax).get_ydata()) == (25, 112)
        assert ring(ax).get_markerfacecolor() == "none"
    boxes = [patch for ax in panels(figure) for patch in ax.patches if isinstance(patch, Rectangle)]
    assert [box.get_bbox().bounds for box in boxes] == [(0, 87, 50, 50)]


def test_all_panels_share_one_scale_and_one_bar(result):
    figure = plot_similarity_maps(result)
    norms = {(mesh(ax).norm.vmin, mesh(ax).norm.vmax) for ax in panels(figure)}
    assert norms == {(0.0, 1.0)}
    assert len(figure.axes) - len(panels(figure)) == 1
    assert mesh(panels(figure)[0]).get_cmap().name == "viridis"


def test_scale_reaches_down_to_negative_values_but_not_below_minus_one(result):
    result["cosine_G"] = result.cosine_G - 0.75
    low = mesh(panels(plot_similarity_maps(result, quantities="G"))[0]).norm.vmin
    assert -1 < low <= float(result.cosine_G.min()) < low + 0.1 + 1e-9
    result["cosine_G"] = result.cosine_G - 50
    assert mesh(panels(plot_similarity_maps(result, quantities="G"))[0]).norm.vmin == -1
    chosen = mesh(panels(plot_similarity_maps(result, vmin=0.5, vmax=0.9))[0]).norm
    assert (chosen.vmin, chosen.vmax) == (0.5, 0.9)


@pytest.mark.parametrize(
    ("quantity", "words"),
    [
        ("similarity", ["same object elsewhere", "other object elsewhere"]),
        (["baseline", "baseline_same"], ["other object elsewhere", "other object, same place"]),
        (
            ["similarity", "G"],
            ["same object elsewhere", "other object elsewhere", "invariance (G)"],
        ),
    ],
)
def test_columns_say_what_is_drawn_and_no_raw_similarity_stands_alone(result, quantity, words):
    figure = plot_similarity_maps(result, quantities=quantity)
    title = figure.get_suptitle().replace("\n", " ")
    for part in ("cosine", "vgg16", "imagenet", "3 objects"):
        assert part in title
    heads = [text.get_text().replace("\n", " ") for ax in figure.axes for text in ax.texts]
    assert heads == words
    assert len(panels(figure)) == len(words) * result.sizes["layer"]


def test_the_default_is_g(result):
    figure = plot_similarity_maps(result)
    assert figure.get_suptitle().startswith("invariance (G), cosine")
    np.testing.assert_allclose(mesh(panels(figure)[1]).get_array(), result["cosine_G"][1])


def test_g_is_not_missing_at_the_reference_which_it_leaves_out(result):
    result["cosine_G"][:, 2, 0] = np.nan
    figure = plot_similarity_maps(result)
    assert not any(hatched(ax) for ax in panels(figure))
    assert all(text.get_text() != "no value" for text in figure.legends[0].get_texts())


def test_g_has_no_colour_at_the_reference_in_files_of_earlier_versions_either(result):
    result["cosine_G"].loc[{"y": 112, "x": 25}] = 1.0
    result["cosine_G"].loc[{"y": 112, "x": 68}] = 1.0
    (mesh,) = plot_similarity_maps(result, layers=["fc7"]).axes[0].collections
    hidden = np.ma.getmaskarray(mesh.get_array()).reshape(5, 5)
    assert np.argwhere(hidden).tolist() == [[2, 0]]


def test_each_panel_states_its_mean_away_from_the_reference(result):
    right = [ax.get_title(loc="right") for ax in panels(plot_similarity_maps(result))]
    assert right == [f"{value:.2f}" for value in result.cosine_G_away.values]
    # Without the result's own means the reference is still left out.
    bare = result.drop_vars("cosine_G_away")
    assert [ax.get_title(loc="right") for ax in panels(plot_similarity_maps(bare))] == right


def test_numbers_stand_only_at_the_left_and_the_bottom(make_result):
    result = make_result(list("abcdefg"))
    figure = plot_similarity_maps(result, columns=3)
    render(figure)
    shown = [
        (
            any(t.get_visible() and t.get_text() for t in ax.get_yticklabels()),
            any(t.get_visible() and t.get_text() for t in ax.get_xticklabels()),
        )
        for ax in panels(figure)
    ]
    assert [left for left, _ in shown] == [True, False, False] * 2 + [True]
    assert [bottom for _, bottom in shown] == [False] * 4 + [True] * 3


def test_missing_values_are_hatched(result):
    result["cosine_G"][0, 1, 2] = np.nan
    result["cosine_G"][2] = np.inf
    figure = plot_similarity_maps(result)
    first, second, third = panels(figure)
    (box,) = hatched(first)[0].get_paths()
    assert box.get_extents().bounds == pytest.approx((90, 46.5, 43.5, 43.5))
    assert not hatched(second)
    assert len(hatched(third)[0].get_paths()) == 24  # all but the reference
    assert any(text.get_text() == "no value" for text in figure.legends[0].get_texts())
    render(figure)


def test_nothing_but_missing_values(result):
    result["cosine_G"][:] = np.nan
    render(plot_similarity_maps(result.drop_vars("cosine_G_away")))


def test_dead_layers_are_flagged(result):
    result["cosine_zero_share"][1] = 0.06
    figure = plot_similarity_maps(result)
    flagged = ["†" in ax.get_title(loc="left") for ax in panels(figure)]
    assert flagged == [False, True, False]


@pytest.mark.parametrize(("ny", "nx"), [(1, 1), (1, 9), (9, 1), (2, 2), (49, 49)])
def test_any_grid(make_result, ny, nx):
    ys, xs = (tuple(range(25, 200, 174 // n)[:n]) for n in (ny, nx))
    figure = plot_similarity_maps(make_result(["fc6", "fc7"], ys=ys, xs=xs))
    assert mesh(panels(figure)[0]).get_array().shape == (ny, nx)
    render(figure)


def test_layers_are_chosen_in_the_order_given(result):
    figure = plot_similarity_maps(result, layers=["fc7", "conv1_1"])
    assert [ax.get_title(loc="left") for ax in panels(figure)] == ["fc7", "conv1_1"]
    np.testing.assert_allclose(mesh(panels(figure)[0]).get_array(), result["cosine_G"][2])


def test_strange_names_are_drawn_literally(make_result):
    figure = plot_similarity_maps(make_result(["$x^{", "layer.가", "a" * 200]))
    assert panels(figure)[0].get_title(loc="left") == "$x^{"
    assert panels(figure)[2].get_title(loc="left").startswith("…a")
    render(figure)


@given(
    st.lists(st.integers(5, 95), min_size=1, max_size=12, unique=True).map(sorted),
    st.integers(1, 10),
)
@settings(max_examples=40, deadline=None)
def test_each_location_lies_in_its_own_cell(places, width):
    edges = cell_edges(np.array(places), 100, width)
    assert len(edges) == len(places) + 1
    assert (edges[:-1] < places).all()
    assert (places < edges[1:]).all()
    assert edges.min() >= 0
    assert edges.max() <= 100


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"quantities": "colour"}, UnknownNameError, "similarity"),
        ({"layers": ["fc8"]}, UnknownNameError, "nearest: fc7"),
        ({"layers": []}, InputError, "empty"),
        ({"columns": 0}, InputError, "at least 1"),
        ({"vmin": 1.0}, InputError, "vmin below vmax"),
        ({"vmin": float("nan")}, InputError, "vmin below vmax"),
    ],
)
def test_options_that_cannot_be_used(result, options, error, words):
    with pytest.raises(error, match=words):
        plot_similarity_maps(result, **options)


def test_a_missing_variable_is_named_with_those_present(result):
    with pytest.raises(InputError, match=r"no variable 'cosine_G'.*holds: .*cosine") as caught:
        plot_similarity_maps(result.drop_vars("cosine_G"), quantities="G")
    assert "\n" not in str(caught.value)


def test_other_results_that_cannot_be_drawn(result):
    bare = result.copy()
    del bare.attrs["canvas"]
    with pytest.raises(InputError, match=r"attribute 'canvas'.*it has: kind"):
        plot_similarity_maps(bare)
    with pytest.raises(InputError, match="expected a number of px"):
        plot_similarity_maps(result.assign_attrs(canvas="wide"))
    with pytest.raises(InputError, match="got DataArray"):
        plot_similarity_maps(result.cosine_G)
    with pytest.raises(InputError, match=r"runs over \(layer, x\)"):
        plot_similarity_maps(
            result.assign(cosine_G=result.cosine_G.isel(y=0, drop=True)), quantities="G"
        )
    with pytest.raises(InputError, match="no coordinate 'y'"):
        plot_similarity_maps(result.drop_vars("y"))
    with pytest.raises(InputError, match="no location"):
        plot_similarity_maps(result.isel(y=slice(0, 0)))
    with pytest.raises(InputError, match="no layer"):
        plot_similarity_maps(result.isel(layer=slice(0, 0)))
