"""Figures of results with axes that change objects."""

import numpy as np
import pytest
import xarray as xr

from elsewhere.errors import ElsewhereError, InputError, UnknownNameError
from elsewhere.figures import draw, plot_along, slice_at

NAMES = ("scale", "y", "x")


@pytest.fixture
def result():
    rng = np.random.default_rng(0)
    shape = (2, 3, 2, 3)
    variables = {
        name: (("layer", *NAMES), rng.random(shape)) for name in ("cosine", "cosine_baseline")
    }
    coords = {"layer": ["pool2", "fc6"], "scale": [0.5, 1.0, 2.0], "y": [10, 20], "x": [5, 10, 15]}
    attrs = {
        "kind": "similarity", "canvas": 32, "object_size": 8, "metric": "cosine",
        "reference_scale": 1.0, "reference_y": 20, "reference_x": 5,
    }  # fmt: skip
    return xr.Dataset(variables, coords, attrs)


def test_one_value_of_each_axis_is_taken(result):
    np.testing.assert_array_equal(slice_at(result)["cosine"], result["cosine"].sel(scale=1.0))
    found = slice_at(result, {"scale": 2})
    np.testing.assert_array_equal(
        found["cosine_baseline"], result["cosine_baseline"].sel(scale=2.0)
    )
    assert found.attrs["shown_at"] == "scale 2"
    off = slice_at(result.assign_attrs(reference_scale=0.6))
    assert off.attrs["shown_at"] == "scale 0.5"
    plain = slice_at(result).drop_vars("scale", errors="ignore")
    assert slice_at(plain) is plain


def test_both_sides_of_a_matrix_are_taken_at_that_value(result):
    values = np.arange(36.0).reshape(3, 3, 2, 2)
    dims = ("reference_scale", "scale", "reference_y", "y")
    pairs = xr.Dataset(
        {"cka": (dims, values)},
        {"scale": [0.5, 1, 2], "reference_scale": [0.5, 1, 2], "y": [1, 2], "reference_y": [1, 2]},
        {"reference_scale": 1.0, "reference_y": 1},
    )
    np.testing.assert_array_equal(slice_at(pairs, {"scale": 2})["cka"], values[2, 2])


def test_a_figure_shows_the_reference_unless_told(result):
    for at, value in ((None, "scale 1"), ({"scale": 0.5}, "scale 0.5")):
        figure = draw(result, "displacement", at=at)
        assert value in figure.axes[0].get_title(loc="left")


def test_along_an_axis_are_means_over_the_other_locations(result):
    ax = plot_along(result, "scale")
    (line,) = (each for each in ax.lines if each.get_label() == "cosine:fc6")
    values = result["cosine"].sel(layer="fc6").values.reshape(3, 6)
    right = np.delete(values, 3, axis=1).mean(1)  # without y 20, x 5
    np.testing.assert_allclose(line.get_ydata(), right)
    np.testing.assert_array_equal(line.get_xdata(), [0.5, 1, 2])
    assert ax.get_xlabel() == "scale"


def test_what_a_result_does_not_hold_is_one_line(result):
    with pytest.raises(UnknownNameError, match="unknown axis of the result 'scal'; nearest: scale"):
        draw(result, along="scal")
    with pytest.raises(InputError, match=r"no scale 3; expected one of 0.5, 1, 2"):
        draw(result, at={"scale": 3})
    with pytest.raises(InputError, match="leave the kind out"):
        draw(result, "maps", along="scale")
    with pytest.raises(InputError, match="'measures' is not drawn along an axis"):
        draw(result.assign_attrs(kind="measures"), along="scale")


@pytest.fixture
def measured(result):
    """A similarity with summaries over all values of its axis, as `elsewhere similarity` makes."""
    rng = np.random.default_rng(1)
    for name in ("cosine_baseline_same", "cosine_G"):
        result[name] = (("layer", *NAMES), rng.random((2, 3, 2, 3)))
    for name in ("cosine", "cosine_baseline", "cosine_baseline_same", "cosine_G"):
        result[f"{name}_away"] = ("layer", [0.9, 0.9])
        result[f"{name}_away_interval"] = (("layer", "bound"), [[0.8, 1.0]] * 2)
    return result.assign_coords(bound=["low", "high"])


def means(result, name):
    """Means over all locations but y 20, x 5, (layer, scale)."""
    return np.delete(result[name].values.reshape(2, 3, 6), 3, axis=2).mean(2)


def test_means_of_a_slice_are_those_of_its_locations(measured):
    found = slice_at(measured, {"scale": 0.5})
    for name in ("cosine", "cosine_baseline", "cosine_baseline_same", "cosine_G"):
        np.testing.assert_allclose(found[f"{name}_away"], means(measured, name)[:, 0])
    assert "cosine_away_interval" not in found  # it was one over all values
    figure = draw(measured, "maps", at={"scale": 2})
    shown = [ax.get_title(loc="right") for ax in figure.axes[:2]]
    assert shown == [f"{value:.2f}" for value in means(measured, "cosine_G")[:, 2]]


def test_a_summary_says_over_which_values_it_is_taken(measured):
    ax = draw(measured, "layerwise").axes[0]
    assert "scale 0.5 to 2" in ax.get_title(loc="left")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0.9, 0.9])


def test_probes_at_one_size_are_of_the_locations_at_that_size():
    accuracy = np.random.default_rng(0).random((1, 1, 2, 2, 3))
    variables = {
        "accuracy": (("layer", "exemplars", *NAMES), accuracy),
        "accuracy_at": (("layer", "exemplars", "where"), [[[1.0, 0.5, 0.5]]]),
        "II_far": (("layer", "exemplars"), [[0.5]]),
    }
    coords = {
        "layer": ["fc6"], "exemplars": ["same"], "scale": [1.0, 2.0],
        "y": [10, 20], "x": [5, 9, 15], "where": ["on", "off", "far"],
    }  # fmt: skip
    attrs = {
        "kind": "probe", "canvas": 32, "object_size": 8, "n_classes": 2, "trained": "[[20, 5]]",
        "reference_scale": 1.0, "reference_y": 20, "reference_x": 5,
    }  # fmt: skip
    probes = xr.Dataset(variables, coords, attrs)
    found = slice_at(probes, {"scale": 2})["accuracy_at"].sel(where=["on", "off", "far"])
    here = accuracy[0, 0, 1]
    off = np.delete(here.ravel(), 3)
    far = [here[0, 0], here[0, 1], here[0, 2], here[1, 2]]  # 8 px away, by the larger difference
    right = [here[1, 0], off.mean(), np.mean(far)]
    np.testing.assert_allclose(found.transpose("layer", "exemplars", "where")[0, 0], right)
    figure = draw(probes, "probe-layerwise", facet="scale")
    line = next(line for line in figure.axes[1].lines if line.get_label() == "same")
    np.testing.assert_allclose(line.get_ydata(), off.mean())


def test_curves_have_a_panel_for_each_value_on_one_scale(measured):
    figure = draw(measured, "layerwise", facet="scale")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["scale 0.5", "scale 1", "scale 2"]
    for number, ax in enumerate(figure.axes):
        (line,) = (each for each in ax.lines if each.get_label() == "G")
        np.testing.assert_allclose(line.get_ydata(), means(measured, "cosine_G")[:, number])
        assert ax.get_ylim() == figure.axes[0].get_ylim()
    assert sum(ax.get_legend() is not None for ax in figure.axes) == 1
    entries = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "invariance (G)" in entries
    assert "scale" not in figure.get_suptitle()


def test_maps_have_a_row_of_panels_for_each_layer(measured):
    figure = draw(measured, "maps", facet="scale")
    *panels, bar = figure.axes
    names = [f"{layer}, scale {value}" for layer in ("pool2", "fc6") for value in ("0.5", "1", "2")]
    assert [ax.get_title(loc="left") for ax in panels] == names
    grid = panels[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == (2, 3)
    assert (
        len({(each.collections[0].norm.vmin, each.collections[0].norm.vmax) for each in panels})
        == 1
    )
    drawn = [each.collections[0].get_array().reshape(2, 3) for each in panels]
    order = measured["cosine_G"].sortby(["y", "x"]).transpose("layer", "scale", "y", "x").values
    np.testing.assert_allclose(np.stack(drawn).reshape(order.shape), order)
    assert bar.get_ylabel().replace("\n", " ") == "G (0: as another object, 1: invariant)"


def test_accuracy_has_a_panel_for_each_value():
    rng = np.random.default_rng(0)
    accuracy = rng.random((1, 3, 2, 2))
    variables = {
        "accuracy": (("exemplars", *NAMES), accuracy),
        "accuracy_at": (("exemplars", "where"), [[0.1]]),
    }
    coords = {
        "exemplars": ["same"], "scale": [0.5, 1, 2], "y": [8, 20], "x": [8, 20], "where": ["off"],
    }  # fmt: skip
    attrs = {
        "kind": "accuracy", "canvas": 32, "object_size": 8, "n_classes": 4, "trained": [[8, 8]],
        "reference_scale": 1.0, "reference_y": 8, "reference_x": 8,
    }  # fmt: skip
    found = xr.Dataset(variables, coords, attrs)
    panels = draw(found, facet="scale").axes[:3]
    assert [ax.get_title(loc="left") for ax in panels] == ["scale 0.5", "scale 1", "scale 2"]
    off = accuracy.reshape(3, 4)[:, 1:].mean(1)
    assert [ax.get_title(loc="right") for ax in panels] == [f"{value:.2f}" for value in off]
    assert "scale 2" in draw(found, at={"scale": 2}).get_suptitle()
    assert len(draw(found, "accuracy-displacement", facet="scale").axes) == 3


def test_one_axis_along_and_another_in_panels(measured):
    both = xr.concat([measured, measured + 1], "blur").assign_coords(blur=[0.0, 2.0])
    both = both.assign_attrs(measured.attrs | {"reference_blur": 0.0})
    figure = draw(both, along="scale", facet="blur")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["blur 0", "blur 2"]
    (line,) = (each for each in figure.axes[1].lines if each.get_label() == "cosine:fc6")
    np.testing.assert_allclose(line.get_ydata(), means(measured, "cosine")[1] + 1)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("measures", {"facet": "scale"}, "all values of the axes together"),
        ("measures", {"at": {"scale": 1}}, "all values of the axes together"),
        ("claims", {"facet": "scale"}, "'claims' has no panels for values of an axis"),
        ("maps", {"facet": "size"}, "unknown axis of the result 'size'"),
        ("maps", {"facet": "scale", "at": {"scale": 1}}, "name another axis"),
        (None, {"facet": "scale", "along": "scale"}, "name another axis"),
    ],
)
def test_what_has_no_panels_is_one_line(measured, kind, options, said):
    with pytest.raises(ElsewhereError, match=said):
        draw(measured, kind, **options)


def test_a_result_without_axes_says_how_to_make_one(measured):
    with pytest.raises(UnknownNameError, match="--axis"):
        draw(slice_at(measured).drop_vars("scale", errors="ignore"), "maps", facet="scale")


def test_the_object_is_outlined_as_large_as_it_is_shown(result):
    def boxes(figure):
        patches = [patch for ax in figure.axes for patch in ax.patches]
        return [patch.get_width() for patch in patches if patch.get_label() == "object"]

    assert boxes(draw(result, "maps")) == [8]
    assert boxes(draw(result, "maps", at={"scale": 2})) == [16]
    assert boxes(draw(result, "maps", facet="scale")) == [4, 8, 16]
