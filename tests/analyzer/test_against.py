"""Measures against the reference: the same pairs as between all, and those with it only."""

import numpy as np
import pytest
import xarray
from scipy import stats

from elsewhere import measure, similarity
from elsewhere.analyzer.arrays import array_source
from elsewhere.errors import InputError, UnknownNameError
from elsewhere.measures import measures

PLACES = [[y, x] for y in (5, 9) for x in (5, 9, 15)]
CATEGORIES = list("AABBCDDE")
COSINES = ("cosine", "centred", "centred-by-place", "evoked", "pearson")
MATRICES = ("cka", "rsa", "consistency", "discrimination", "sensitivity-euclidean")


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(3)
    return rng.normal(size=(8, 1, 24)) + rng.normal(size=(8, 6, 24)) + 0.5


@pytest.fixture(scope="module")
def source(values):
    more = {"fc": values, "later": values[:, :, :9] ** 2}
    empty = {name: np.full(rows.shape[2], 0.3) for name, rows in more.items()}
    return array_source(more, PLACES, categories=CATEGORIES, empty=empty, reference=(9, 9))


@pytest.mark.parametrize("name", COSINES)
def test_similarity_is_the_short_name(source, name):
    short = similarity(source, metric=name)
    found = measure(source, names=name, against="reference")
    assert found.attrs["against"] == short.attrs["against"] == "reference"
    assert set(short.data_vars) == set(found.data_vars)
    for key in short.data_vars:
        xarray.testing.assert_equal(short[key].drop_vars("measure"), found[key])
        assert short[key].attrs.items() <= found[key].attrs.items()
    assert set(short.attrs["notes"]) <= set(found.attrs["notes"])


@pytest.mark.parametrize("name", [*COSINES, *MATRICES])
def test_it_is_the_row_of_the_reference(source, name):
    every = measure(source, names=name)
    found = measure(source, names=name, against="reference")
    stem = name.replace("-", "_")
    row = every[stem].sel(reference_y=9, reference_x=9, drop=True)
    np.testing.assert_allclose(found[stem], row, atol=1e-9)
    moved = row.values.reshape(2, -1)[:, np.arange(6) != 4]
    np.testing.assert_allclose(found[f"{stem}_away"], moved.mean(axis=1), atol=1e-9)
    assert found[stem].dims == ("layer", "y", "x")


def test_cka_with_the_reference_by_hand(source, values):
    found = measure(source, names="cka-biased,rsa", against="reference")
    away = []
    for place in (0, 1, 2, 3, 5):
        here, there = (values[:, at] - values[:, at].mean(axis=0) for at in (place, 4))
        ours, theirs = here @ here.T, there @ there.T
        away.append((ours * theirs).sum() / np.linalg.norm(ours) / np.linalg.norm(theirs))
    assert float(found["cka_biased_away"][0]) == pytest.approx(np.mean(away), abs=1e-12)
    low, high = found["cka_biased_away_interval"].values[0]
    assert low < np.mean(away) < high
    upper = np.triu_indices(8, 1)
    ranks = [stats.spearmanr(*(np.corrcoef(values[:, p])[upper] for p in (0, 4)))[0]]
    assert float(found["rsa"].sel(y=5, x=5)[0]) == pytest.approx(ranks[0], abs=1e-9)


def test_by_displacement_only_moves_from_the_reference_count(source):
    found = measure(source, names="cosine,cka", against="reference")
    assert "cka_displaced" in found
    distance = np.array([max(abs(y - 9), abs(x - 9)) for y, x in PLACES])
    for number, apart in enumerate(found["displacement"].values):
        at = distance == apart
        value = found["cka_displaced"].values[0, number]
        if at.any():
            assert value == pytest.approx(found["cka"].values[0].ravel()[at].mean())
        else:
            assert np.isnan(value)


def test_what_compares_no_pairs_refuses_it(source):
    for name in ("partition", "position", "normalized-variance"):
        with pytest.raises(InputError, match=f"'{name}' compares no pairs .* cka"):
            measure(source, names=f"cosine,{name}", against="reference")
    with pytest.raises(UnknownNameError, match="nearest: reference"):
        measure(source, names="cosine", against="referense")


def test_a_reference_off_the_grid(make_sweep):
    off = make_sweep(grid="2x3", reference=(7, 9), layers=["fc4"])
    assert np.isfinite(measure(off, names="cosine", against="reference")["cosine_G_away"]).all()
    with pytest.raises(InputError, match=r"'rsa' against the reference .*\(7, 9\)"):
        measure(off, names="rsa", against="reference")


def test_every_measure_says_its_range_and_against_what():
    for name in measures:
        found = measures.get(name)
        assert found.range, name
        assert set(found.against) <= {"all", "reference"}, name
        assert "all" in found.against, name
