from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.figure import Figure

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures import plot_accuracy_displacement, plot_accuracy_maps
from elsewhere.figures.accuracy import distances, trained_locations


def panels(figure):
    return [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]


def bar(figure):
    (found,) = [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]
    return found


def mesh(ax):
    return next(item for item in ax.collections if isinstance(item, QuadMesh))


def mark(ax):
    return next(line for line in ax.lines if line.get_label() == "trained")


def line(ax, label):
    return next(item for item in ax.lines if item.get_label() == label)


def numbers(figure):
    return [ax.get_title(loc="right") for ax in panels(figure)]


def legend_labels(owner):
    return [text.get_text() for text in owner.get_texts()]


def render(figure):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO(), format="png", dpi=50)


@pytest.fixture
def conditions(make_accuracy):
    return {
        "vanilla": make_accuracy(0.05),
        "fixed": make_accuracy(0.1, seed=1),
        "acquired": make_accuracy(0.9, seed=2),
    }


def test_a_panel_for_each_condition_in_order_with_its_map(conditions):
    figure = plot_accuracy_maps(conditions)
    assert [ax.get_title(loc="left") for ax in panels(figure)] == list(conditions)
    for ax, result in zip(panels(figure), conditions.values(), strict=True):
        np.testing.assert_allclose(mesh(ax).get_array(), result.accuracy.sel(exemplars="held-out"))
        assert (ax.get_xlim(), ax.get_ylim()) == ((0, 48), (48, 0))
    render(figure)


def test_one_scale_from_chance_to_one_that_says_what_is_below(conditions):
    figure = plot_accuracy_maps(conditions)
    assert {(mesh(ax).norm.vmin, mesh(ax).norm.vmax) for ax in panels(figure)} == {(0.1, 1.0)}
    lowest = mesh(panels(figure)[0]).get_cmap()
    assert lowest(-1.0) == lowest(0.0)
    assert bar(figure).get_yticklabels()[0].get_text() == "≤ 0.1\nchance"
    assert bar(figure).get_ylabel() == "accuracy"


def test_conditions_of_other_class_counts_share_no_scale_of_accuracy(conditions):
    other = conditions["acquired"].assign_attrs(n_classes=4)
    del other.attrs["chance"]
    norm = mesh(panels(plot_accuracy_maps(other))[0]).norm
    assert norm.vmin == 0.25
    mixed = plot_accuracy_maps({**conditions, "four classes": other}, exemplars="same")
    assert {mesh(ax).norm.vmin for ax in panels(mixed)} == {0.0}
    last = panels(mixed)[-1]
    accuracy = other.accuracy.sel(exemplars="same").values
    np.testing.assert_allclose(mesh(last).get_array(), (accuracy - 0.25) / 0.75)
    assert last.get_title(loc="right").endswith("(chance 0.25)")
    assert "above chance" in mixed.axes[-1].get_ylabel()


def test_exemplars_are_those_asked_for_and_named(make_accuracy):
    result = make_accuracy()
    for which in ("same", "held-out"):
        figure = plot_accuracy_maps(result, exemplars=which)
        drawn = mesh(panels(figure)[0]).get_array()
        np.testing.assert_allclose(drawn, result.accuracy.sel(exemplars=which))
        assert f"accuracy, {which} exemplars" in figure.get_suptitle()
    none = plot_accuracy_maps(make_accuracy(held_out=False))
    assert "same exemplars" in none.get_suptitle()


def test_the_number_is_the_mean_off_the_trained_location(make_accuracy):
    result = make_accuracy(0.4)
    values = result.accuracy.sel(exemplars="same").values
    y, x = (result.y.values == 24).argmax(), (result.x.values == 5).argmax()
    expected = (values.sum() - values[y, x]) / (values.size - 1)
    assert numbers(plot_accuracy_maps(result, exemplars="same")) == [f"{expected:.2f}"]
    result["accuracy_at"] = (("exemplars", "where"), np.array([[0.9, 0.71, 0.1], [0.8, 0.3, 0.2]]))
    result = result.assign_coords(where=["on", "off", "far"])
    assert numbers(plot_accuracy_maps(result, exemplars="same")) == ["0.71"]


@pytest.mark.parametrize("how", ["text", "list", "coordinates"])
def test_trained_locations_are_marked_however_they_are_given(make_accuracy, how):
    result = make_accuracy(trained=((24, 5), (42, 33)))
    if how == "list":
        result.attrs["trained"] = [[24, 5], [42, 33]]
    if how == "coordinates":
        del result.attrs["trained"]
        result = result.assign_coords(
            trained_y=("trained", [24, 42]), trained_x=("trained", [5, 33])
        )
    drawn = mark(panels(plot_accuracy_maps(result))[0])
    assert drawn.get_ydata().tolist() == [24, 42]
    assert drawn.get_xdata().tolist() == [5, 33]


def test_a_trained_location_off_the_grid_has_the_colour_and_the_point_of_its_own_accuracy(
    make_accuracy,
):
    result = make_accuracy(0.1, trained=((26, 7),))  # between locations of the grid
    result["accuracy_at"] = (("exemplars", "where"), np.array([[0.9, 0.1, 0.1], [0.8, 0.1, 0.1]]))
    result = result.assign_coords(where=["on", "off", "far"])
    figure = plot_accuracy_maps(result, exemplars="same")
    (ax,) = panels(figure)
    drawn = mesh(ax)
    assert mark(ax).get_markerfacecolor() == drawn.cmap(drawn.norm(0.9))
    assert any("off the grid" in text for text in legend_labels(figure.legends[0]))
    curve = line(plot_accuracy_displacement({"a": result}), "held-out:a")
    assert (curve.get_xdata()[0], curve.get_ydata()[0]) == (0, 0.8)
    there = make_accuracy(0.1)
    there["accuracy_at"] = result["accuracy_at"]
    on_it = plot_accuracy_maps(there, exemplars="same")
    assert mark(panels(on_it)[0]).get_markerfacecolor() == "none"
    assert not any("off the grid" in text for text in legend_labels(on_it.legends[0]))


def test_many_trained_locations_are_dots_and_none_no_mark(make_accuracy):
    many = tuple((y, x) for y in range(5, 43, 6) for x in range(5, 43, 6))
    few, dots = make_accuracy(), make_accuracy(trained=many)
    figure = plot_accuracy_maps({"one": few, "full": dots, "nowhere": make_accuracy(trained=())})
    one, full, nowhere = panels(figure)
    assert mark(one).get_markersize() > mark(full).get_markersize()
    assert not [item for item in nowhere.lines if item.get_label() == "trained"]
    labels = legend_labels(figure.legends[0])
    assert {"trained location", "trained locations"} <= set(labels)
    single = plot_accuracy_maps({"a": few, "b": few})
    assert "trained location (y 24, x 5)" in legend_labels(single.legends[0])
    render(figure)


def test_places_of_some_classes_only_are_said_to_be(make_accuracy):
    result = make_accuracy(trained=((24, 5), (24, 42)))
    whose = "trained location of some classes (colours: the mean over all)"
    for apart in (False, True):
        mine = [[True, not apart], [not apart, True]]
        figure = plot_accuracy_maps(result.assign(is_trained=(("of", "trained"), mine)))
        assert (whose in legend_labels(figure.legends[0])) == apart


def test_missing_values_are_hatched_and_left_out_of_the_mean(make_accuracy):
    result = make_accuracy()
    result["accuracy"][:, 0, 0] = np.nan
    figure = plot_accuracy_maps(result)
    found = [item for item in panels(figure)[0].collections if isinstance(item, PolyCollection)]
    assert any(item.get_hatch() for item in found)
    assert "no value" in legend_labels(figure.legends[0])
    assert numbers(figure) != ["–"]
    result["accuracy"][:] = np.nan
    assert numbers(plot_accuracy_maps(result)) == ["–"]


@pytest.mark.parametrize("count", [1, 5, 9])
def test_any_number_of_conditions_fits_the_page(make_accuracy, count):
    figure = plot_accuracy_maps({f"condition {idx}": make_accuracy() for idx in range(count)})
    assert len(panels(figure)) == count
    assert figure.get_size_inches()[0] <= 7.01
    render(figure)
    figure.draw_without_rendering()
    tight = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert min(tight.x0, tight.y0) > -0.02
    assert tight.x1 < width + 0.02
    assert tight.y1 < height + 0.02


def test_the_title_names_only_what_conditions_share(conditions):
    assert "small-cnn (weights: none)" in plot_accuracy_maps(conditions).get_suptitle()
    conditions["fixed"].attrs["model"] = "vgg16"
    assert "weights" not in plot_accuracy_maps(conditions).get_suptitle()


def test_displacement_takes_means_over_locations_at_one_distance(make_accuracy):
    result = make_accuracy(0.4)
    ax = plot_accuracy_displacement({"acquired": result})
    drawn = line(ax, "same:acquired")
    ys, xs = np.meshgrid(result.y, result.x, indexing="ij")
    far = np.maximum(abs(ys - 24), abs(xs - 5))
    assert drawn.get_xdata().tolist() == np.unique(far).tolist()
    values = result.accuracy.sel(exemplars="same").values
    assert drawn.get_ydata()[0] == pytest.approx(0.99)
    assert drawn.get_ydata()[-1] == pytest.approx(values[far == far.max()].mean())
    assert drawn.get_linestyle() == "-"
    assert line(ax, "held-out:acquired").get_linestyle() == "--"
    assert line(ax, "chance").get_ydata()[0] == 0.1
    render(ax.figure)


def test_displacement_prefers_what_the_result_has(make_accuracy):
    result = make_accuracy(held_out=False)
    curve = np.array([[0.9, 0.4, 0.2], [np.nan] * 3])
    result["accuracy_by_displacement"] = (("exemplars", "displacement"), curve)
    result = result.assign_coords(displacement=[0, 9, 19])
    ax = plot_accuracy_displacement({"a": result})
    np.testing.assert_array_equal(line(ax, "same:a").get_ydata(), curve[0])
    assert line(ax, "same:a").get_xdata().tolist() == [0, 9, 19]
    labels = legend_labels(ax.get_legend())
    assert "same exemplars" in labels
    assert "held-out exemplars" not in labels


def test_displacement_draws_on_axes_that_are_given(conditions):
    ax = Figure().add_subplot()
    assert plot_accuracy_displacement(conditions, ax=ax) is ax
    labels = legend_labels(ax.get_legend())
    assert labels == [*conditions, "same exemplars", "held-out exemplars", "chance"]


@given(
    st.lists(st.tuples(st.integers(0, 47), st.integers(0, 47)), min_size=1, max_size=6),
    st.integers(1, 6),
)
@settings(max_examples=40, deadline=None)
def test_distances_are_to_the_nearest_trained_location(places, side):
    import xarray as xr

    grid = np.linspace(0, 47, side).astype(int)
    result = xr.Dataset(coords={"y": grid, "x": grid}, attrs={"trained": places})
    trained = trained_locations(result)
    assert sorted(map(tuple, trained.tolist())) == sorted(set(places))
    found = distances(result, trained)
    for row, y in enumerate(grid):
        for column, x in enumerate(grid):
            assert found[row, column] == min(max(abs(y - a), abs(x - b)) for a, b in places)


def test_what_cannot_be_drawn_is_refused(make_accuracy):
    result = make_accuracy()
    with pytest.raises(InputError, match="no result of accuracy"):
        plot_accuracy_maps({})
    with pytest.raises(InputError, match="got int"):
        plot_accuracy_maps({"a": 3})  # type: ignore[dict-item]
    with pytest.raises(InputError, match=r"no variable 'accuracy'"):
        plot_accuracy_maps({"a": result, "b": result.drop_vars("accuracy")})
    with pytest.raises(UnknownNameError, match=r"exemplars 'held'; nearest: held-out"):
        plot_accuracy_maps(result, exemplars="held")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no held-out exemplars; it has: same"):
        plot_accuracy_maps(result.sel(exemplars=["same"]), exemplars="held-out")
    with pytest.raises(InputError, match="columns is 0"):
        plot_accuracy_maps(result, columns=0)
    with pytest.raises(InputError, match="no location"):
        plot_accuracy_maps(result.isel(y=slice(0, 0)))
    with pytest.raises(InputError, match="attribute 'chance' is 2"):
        plot_accuracy_maps(result.assign_attrs(chance=2))
    with pytest.raises(InputError, match="at least 2"):
        plot_accuracy_maps(result.drop_attrs().assign_attrs(canvas=48, object_size=11, n_classes=1))
    with pytest.raises(InputError, match="'chance' and 'n_classes'.*it has: canvas"):
        plot_accuracy_maps(result.drop_attrs().assign_attrs(canvas=48, object_size=11))
    for wrong in ("left", [[1, 2, 3]], 7, {"a": 1}):
        with pytest.raises(InputError, match=r"'trained' is .*expected pairs of y and x") as caught:
            plot_accuracy_maps(result.assign_attrs(trained=wrong))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="names no trained location"):
        plot_accuracy_displacement(result.assign_attrs(trained=[]))
