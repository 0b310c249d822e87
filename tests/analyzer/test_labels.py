"""Labelled arrays are read by their labels, never by position."""

import numpy as np
import pandas
import pytest
import torch
import xarray

import elsewhere
from elsewhere.errors import InputError
from tests.roles import similarity

Y, X = [10, 20, 30], [10, 20, 30, 40]
LOCATIONS = [[y, x] for y in Y for x in X]


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    own = rng.normal(size=(5, 1, 1, 40))
    return own + rng.normal(size=(5, 3, 4, 40)) * (1 + np.arange(4))[:, None] / 2


@pytest.fixture(scope="module")
def array(values):
    return xarray.DataArray(
        values,
        dims=("object", "y", "x", "unit"),
        coords={
            "object": list("vwxyz"),
            "category": ("object", list("AABBC")),
            "y": Y,
            "x": X,
        },
    )


def away(values, reference):
    """Mean cosine with the reference and the baseline over all pairs, in plain NumPy."""
    rows = values.reshape(5, 12, -1)
    unit = rows / np.linalg.norm(rows, axis=2, keepdims=True)
    cosines = np.einsum("opu,ou->op", unit, unit[:, reference])
    return np.delete(cosines, reference, axis=1).mean()


def baseline(values):
    rows = values.reshape(5, 12, -1)
    unit = rows / np.linalg.norm(rows, axis=2, keepdims=True)
    products = np.einsum("apu,bqu->abpq", unit, unit)
    different = np.array(list("AABBC"))[:, None] != np.array(list("AABBC"))
    moved = ~np.eye(12, dtype=bool)
    return products[different].mean(0)[moved].mean()


def test_descending_coordinates(values, array):
    plain = elsewhere.ArraySource({"l": values[:, ::-1, ::-1]}, y=Y[::-1], x=X[::-1])
    assert plain.design.reference == (20, 10)
    found = similarity(plain)
    assert float(found["similarity_away"][0]) == pytest.approx(away(values, 4), abs=1e-6)
    for reordered in (array[:, ::-1, ::-1], array[:, [1, 2, 0], [3, 0, 2, 1]]):
        other = elsewhere.measure(reordered, names="cosine")
        assert (other.attrs["reference_y"], other.attrs["reference_x"]) == (20, 10)
        xarray.testing.assert_allclose(other, elsewhere.measure(array, names="cosine"))


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a[[4, 2, 0, 3, 1]],
        lambda a: a.transpose("x", "unit", "object", "y"),
        lambda a: a[[1, 0, 4, 3, 2], ::-1].transpose("unit", ...),
        lambda a: a.drop_vars("category")[::-1],
    ],
    ids=["objects", "dimensions", "both", "without categories"],
)
def test_a_second_layer_in_another_order(change, values, array):
    found = elsewhere.measure({"one": array, "two": change(array)}, names="cosine,discrimination")
    assert found["cosine_baseline_away"].values == pytest.approx(baseline(values), abs=1e-6)
    rows = values.transpose(1, 2, 0, 3)  # an independent check of the matrix of the second layer
    unit = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    wanted = np.einsum("abou,cdou->abcd", unit, unit) / 5
    np.testing.assert_allclose(found["cosine"].sel(layer="two"), wanted, atol=1e-6)


def test_maps_by_the_names_of_their_dimensions():
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(4, 3, 4, 6, 5, 5))
    coords = {"object": list("abcd"), "y": Y, "x": X}
    first = xarray.DataArray(
        maps, dims=("object", "y", "x", "channel", "height", "width"), coords=coords
    )
    last = first.transpose("height", "width", "channel", ...)
    from elsewhere.analyzer.arrays import array_source
    from elsewhere.probes.features import FeatureReading
    from elsewhere.storage import Keep

    source = array_source(last, None)
    assert source.layers[0].layout == ("height", "width", "channel")
    seen = np.full((4, 12, 6), np.nan)

    class Means:
        def needs(self, layer):
            return (FeatureReading(Keep("mean")).need("grid"),)

        held, begin, end = lambda *_: 0, lambda *_: None, lambda *_: None

        def add(self, block):
            seen[block.objects, block.positions] = block.mean()

    source.stream([Means()])
    np.testing.assert_allclose(seen, maps.mean((4, 5)).reshape(4, 12, 6), atol=1e-12)


def test_the_empty_canvas_by_its_labels(array):
    units = array.assign_coords(unit=np.arange(40))
    empty = xarray.DataArray(np.arange(40.0), dims="unit", coords={"unit": np.arange(40)})
    wanted = elsewhere.measure(units, names="evoked", empty=empty)
    found = elsewhere.measure(units, names="evoked", empty=empty[::-1])
    xarray.testing.assert_allclose(found, wanted)
    assert (
        abs(wanted["evoked_away"] - elsewhere.measure(units, names="cosine")["cosine_away"]) > 0.1
    )


def refused():
    yield (
        "places differ",
        lambda a: {"a": a, "b": a.assign_coords(x=[50, 60, 70, 80])},
        "b' lacks the x 10, 20, 30, 40 and alone has the x 50",
    )
    yield "more places", lambda a: {"a": a, "b": a[:, :2]}, "layer 'b' lacks the y 30; select"
    yield (
        "objects differ",
        lambda a: {"a": a, "b": a.assign_coords(object=list("vwxyq"))},
        "lacks the object z and alone has the object q",
    )
    yield "objects unsaid", lambda a: {"a": a, "b": a.drop_vars("object")}, "which objects"
    yield "places unsaid", lambda a: {"a": a.drop_vars("x")}, "no coordinates along x"
    yield "a place twice", lambda a: {"a": a.assign_coords(y=[10, 10, 30])}, "y 10 comes 2 times"
    yield "an object twice", lambda a: {"a": a.assign_coords(object=list("vvxyz"))}, "'v' comes 2"
    yield (
        "a category missing",
        lambda a: {"a": a.assign_coords(category=("object", np.array([None, *"ABBC"], object)))},
        "category of layer 'a' is missing",
    )
    yield (
        "an object missing",
        lambda a: {"a": a.assign_coords(object=np.array([None, *"wxyz"], object))},
        "object of layer 'a' is missing",
    )
    yield "places are names", lambda a: {"a": a.assign_coords(x=list("abcd"))}, "whole px"
    yield "complex", lambda a: {"a": a + 5j * a}, "complex"
    yield (
        "other categories",
        lambda a: {"a": a, "b": a.assign_coords(category=("object", list("ABBBC")))},
        "'w' is of category 'B'",
    )


@pytest.mark.parametrize(
    ("make", "says"), [pytest.param(*rest, id=name) for name, *rest in refused()]
)
def test_what_does_not_fit_is_refused(make, says, array):
    with pytest.raises(InputError, match=says):
        elsewhere.measure(make(array), names="cosine")


def test_masked_and_complex_arrays_are_refused(values):
    rows = values.reshape(5, 12, 40)
    masked = np.ma.masked_greater(rows, 1)
    for given, says in ((masked, "masked"), (rows + 1j, "complex"), (rows.astype(str), "type <U")):
        with pytest.raises(InputError, match=says):
            elsewhere.measure(given, LOCATIONS, names="cosine")
        with pytest.raises(InputError, match=says):
            elsewhere.ArraySource({"l": given.reshape(5, 3, 4, 40)}, y=Y, x=X)
        with pytest.raises(InputError, match=says):
            elsewhere.measure(rows, LOCATIONS, names="evoked", empty=given[0, 0])
    unmasked = np.ma.masked_greater(rows, 1e9)
    found = elsewhere.measure(unmasked, LOCATIONS, names="cosine")
    assert np.isfinite(found["cosine_away"])


@pytest.mark.parametrize(("y", "x", "says"), [([10, 10, 30], X, "y 10"), (Y, [1, 2, 2, 3], "x 2")])
def test_repeated_places_are_refused(y, x, says, values):
    with pytest.raises(InputError, match=f"{says} comes 2 times"):
        elsewhere.ArraySource({"l": values}, y=y, x=x)


def test_places_between_pixels_are_refused(values):
    with pytest.raises(InputError, match="whole px"):
        elsewhere.ArraySource({"l": values}, y=[10.2, 10.7, 11.9], x=X)


def test_tables_are_read_by_their_names(values):
    rows = values.reshape(5, 12, 40)
    places = pandas.DataFrame(LOCATIONS, columns=["y", "x"])
    kinds = pandas.Series(list("AABBC"), index=list("vwxyz"))
    wanted = elsewhere.measure(rows, LOCATIONS, names="cosine", categories=list("AABBC"))
    found = elsewhere.measure(
        rows, places[["x", "y"]], names="cosine", objects=list("vwxyz"), categories=kinds[::-1]
    )
    assert float(found["cosine_baseline_away"][0]) == pytest.approx(baseline(values), abs=1e-6)
    for name in ("cosine", "cosine_baseline_away"):
        np.testing.assert_array_equal(found[name], wanted[name])
    with pytest.raises(InputError, match="same labels"):
        elsewhere.measure(rows, places, names="cosine", objects=list("abcde"), categories=kinds)
    masked = np.ma.masked_greater(np.array(LOCATIONS), 35)
    with pytest.raises(InputError, match="masked"):
        elsewhere.measure(rows, masked, names="cosine")


@pytest.mark.parametrize("how", ["gradients", "negative", "bfloat16"])
def test_tensors_that_numpy_does_not_take(how, values):
    rows = torch.tensor(values.reshape(5, 12, 40))
    if how == "gradients":
        given = rows.clone().requires_grad_()
    elif how == "negative":
        given = torch.complex(rows, -rows).conj().imag
    else:
        given, rows = rows.bfloat16(), rows.bfloat16().double()
    found = elsewhere.measure(given, LOCATIONS, names="cosine")
    wanted = elsewhere.measure(rows.numpy(), LOCATIONS, names="cosine")
    np.testing.assert_allclose(found["cosine"], wanted["cosine"], atol=1e-6)
