"""Measures of maps against scipy, loops and what must hold of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from elsewhere.errors import UnknownNameError
from elsewhere.measures.attribution import (
    MAP_METRICS,
    absolute_mass,
    association,
    centre_of_mass,
    entropy,
    equivariance,
    mean_over_objects,
    share_inside,
    unit_maps,
)
from elsewhere.measures.intervals import jackknife_t

numbers = st.integers(-60, 60).map(float)


@given(arrays.arrays(np.float64, (2, 12), elements=numbers))
@settings(max_examples=60, deadline=None)
def test_products_of_unit_maps_are_the_metrics(maps):
    a, b = maps
    for metric in MAP_METRICS:
        u, v = unit_maps(maps, metric)
        if metric == "cosine":
            length = np.linalg.norm(a) * np.linalg.norm(b)
            expected = a @ b / length if length > 0 else np.nan
        else:
            first, second = (abs(a), abs(b)) if metric == "spearman" else (a, b)
            function = stats.spearmanr if metric == "spearman" else stats.pearsonr
            flat = (
                np.ptp(first) <= 1e-6 * abs(first).max()
                or np.ptp(second) <= 1e-6 * abs(second).max()
            )
            if flat:
                continue
            expected = function(first, second).statistic
        np.testing.assert_allclose(u @ v, expected, atol=1e-6)


@pytest.mark.parametrize("metric", MAP_METRICS)
def test_equivariance_by_loops(metric):
    rng = np.random.default_rng(0)
    maps, there = rng.normal(size=(2, 5, 30))
    maps[:, 4], there[2, 7] = np.nan, np.nan
    there[3] = 0.0
    codes = np.array([0, 0, 1, 2, 2])
    own, cross = equivariance(maps, there, codes, metric)
    known = [k for k in range(30) if k not in (4, 7)]
    units, others = unit_maps(maps[:, known], metric), unit_maps(there[:, known], metric)
    for i in range(5):
        pairs = [units[i] @ others[j] for j in range(5) if codes[i] != codes[j] and j != 3]
        np.testing.assert_allclose(cross[i], np.mean(pairs))
        np.testing.assert_allclose(own[i], np.nan if i == 3 else units[i] @ others[i])


def test_equivariance_ignores_size_but_not_sign():
    maps = np.random.default_rng(1).normal(size=(3, 20))
    codes = np.arange(3)
    for metric in MAP_METRICS:
        np.testing.assert_allclose(equivariance(7 * maps, maps, codes, metric)[0], 1)
    np.testing.assert_allclose(equivariance(-maps, maps, codes, "cosine")[0], -1)
    np.testing.assert_allclose(equivariance(-maps, maps, codes, "spearman")[0], 1)
    assert np.isnan(equivariance(maps, maps, np.zeros(3, int), "cosine")[1]).all()


@given(
    arrays.arrays(np.float64, (3, 6, 7), elements=numbers),
    st.integers(0, 3),
    st.integers(0, 4),
)
@settings(max_examples=40, deadline=None)
def test_measures_move_with_the_map(maps, down, right):
    wide = np.zeros((3, 12, 14))
    wide[:, :6, :7] = maps
    moved = np.roll(wide, (down, right), (1, 2))
    np.testing.assert_allclose(absolute_mass(moved), absolute_mass(wide))
    np.testing.assert_allclose(entropy(moved), entropy(wide))
    shift = centre_of_mass(moved) - centre_of_mass(wide)
    some = absolute_mass(wide) > 0
    np.testing.assert_allclose(shift[some], np.tile([down, right], (some.sum(), 1)), atol=1e-9)
    assert (np.isnan(entropy(wide)) == ~some).all()
    bits = entropy(wide)[some]
    assert ((bits >= -1e-9) & (bits <= np.log2(42) + 1e-9)).all()
    inside = np.zeros((12, 14), bool)
    inside[:6, :3] = True
    shares = share_inside(wide, inside) + share_inside(wide, ~inside)
    np.testing.assert_allclose(shares[some], 1)


def test_means_have_the_jackknifes_interval():
    values = np.random.default_rng(2).normal(size=(6, 4))
    mean, interval = mean_over_objects(values)
    without = np.stack([np.delete(values, k, 0).mean(0) for k in range(6)])
    np.testing.assert_allclose(interval, jackknife_t(values.mean(0), without))
    values[2, 1] = np.nan
    mean, interval = mean_over_objects(values)
    kept = np.delete(values[:, 1], 2)
    without = np.array([np.delete(kept, k).mean() for k in range(5)])
    np.testing.assert_allclose(mean[1], kept.mean())
    np.testing.assert_allclose(interval[1], jackknife_t(kept.mean(), without))
    assert np.isnan(mean_over_objects(values[:1])[1]).all()


def test_associations_are_spearmans():
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 5, (2, 4, 4)).astype(float)
    assert association(a, b) == pytest.approx(stats.spearmanr(a.ravel(), b.ravel()).statistic)
    assert np.isnan(association(a, np.ones((4, 4))))
    assert np.isnan(association(a[:1, :2], b[:1, :2]))


def test_an_unknown_metric_is_refused():
    with pytest.raises(UnknownNameError, match="pearson"):
        unit_maps(np.ones((1, 3)), "kendall")
