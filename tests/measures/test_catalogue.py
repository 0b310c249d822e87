"""Every measure in the catalogue: it says where it is from, and runs on arrays."""

import inspect

import numpy as np
import pytest
import xarray

from elsewhere.analyzer.bibliography import to_bibtex
from elsewhere.errors import InputError, UnknownNameError
from elsewhere.measures import DEFAULT_MEASURES, measures, measures_named
from elsewhere.measures.variables import described

ISSUED = {
    "cosine", "centred", "evoked", "pearson", "G", "aligned", "cka", "rsa", "normalized-variance",
    "normalized-deviation", "position", "partition", "sensitivity-euclidean", "sensitivity-cosine",
    "consistency", "accuracy-map", "invariance-index", "discrimination", "phase",
}  # fmt: skip


def test_all_that_was_asked_for_is_there():
    assert set(measures) >= ISSUED
    assert set(DEFAULT_MEASURES) <= set(measures)
    for name in measures:
        found = measures.get(name)
        assert bool(found.reading or found.sinks) != bool(found.comes_with)
        assert found.taken in {"units", "maps", "cosine", "accuracy", "WindowPlace"}


@pytest.mark.parametrize("name", list(measures))
def test_every_measure_says_what_it_is(name):
    measure = measures.get(name)
    assert measures.summary(name)
    assert measure.formula
    assert to_bibtex(measure.sources).count("@") == len(measure.sources)
    doc = inspect.getdoc(measure.function)
    assert ">>>" in doc


@pytest.mark.parametrize("name", [n for n in measures if measures.get(n).taken == "units"])
def test_every_measure_of_units_is_a_pure_function_that_refuses_nan(name):
    function = measures.get(name).function
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 4, 6))
    more = {
        "evoked": {"empty": np.zeros(6)},
        "position": {"locations": [[y, x] for y in (0, 9) for x in (0, 9)]},
    }.get(name, {})
    if name == "sensitivity-cosine":
        assert function(np.eye(2), [[0, 0], [0, 5]])[1].tolist() == [-5, 0, 5]
        return
    before = values.copy()
    first, second = function(values, **more), function(values, **more)
    np.testing.assert_array_equal(values, before)
    assert str(first) == str(second)
    values[3, 1, 2] = np.inf
    with pytest.raises(InputError, match="NaN or infinity, first for object 3 at location 1"):
        function(values, **more)


def test_names_come_as_texts_and_lists():
    assert measures_named("cka,rsa , cka") == ["cka", "rsa"]
    assert measures_named(["cka,rsa", "position"]) == ["cka", "rsa", "position"]
    assert measures_named(None) == list(DEFAULT_MEASURES)
    with pytest.raises(UnknownNameError, match="unknown measure 'ckas'; nearest: cka"):
        measures_named("cosine,ckas")


@pytest.mark.parametrize("metric", ["cosine", "pearson", "centred-by-place"])
def test_formulas_of_each_metrics_variables_have_no_placeholders(metric):
    stem = metric.replace("-", "_")
    names = [f"{stem}{rest}" for rest in ("", "_each", "_baseline", "_G", "_over_place", "_error")]
    found = described(xarray.Dataset(dict.fromkeys(names, 0.0), attrs={"kind": "measures"}))
    assert not any("{" in text for name in names for text in found[name].attrs.values())
    assert measures.get(metric).formula in found[f"{stem}_each"].attrs["formula"]
