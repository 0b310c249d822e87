"""Figures of results with axes that change objects."""

import numpy as np
import pytest
import xarray as xr

from elsewhere.errors import InputError, UnknownNameError
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
