"""Bands over layers: how often all layers are covered, on data of known truth."""

import numpy as np
import pytest
from scipy import stats

from elsewhere.measures import bands
from elsewhere.measures.bands import simultaneous_level, steps_of
from elsewhere.measures.intervals import jackknife_t

LAYERS = 16


def means_of(units):
    n = len(units)
    return units.mean(axis=0), (units.sum(axis=0) - units) / (n - 1)


def simultaneous_band(mean, left):
    return jackknife_t(mean, left, level=simultaneous_level(mean, left))


def covered(n, n_sets, neighbours, seed=0):
    """Return the shares of data sets in which all 16 layers, and all 15 steps, are covered."""
    rng = np.random.default_rng(seed)
    apart = np.abs(np.subtract.outer(np.arange(LAYERS), np.arange(LAYERS)))
    root = np.linalg.cholesky(neighbours**apart)
    truth = np.linspace(0, 1, LAYERS)
    hits = np.zeros((n_sets, 3), bool)
    for place in range(n_sets):
        mean, left = means_of(truth + rng.normal(size=(n, LAYERS)) @ root.T)
        band, pointwise = simultaneous_band(mean, left), jackknife_t(mean, left)
        steps = simultaneous_band(steps_of(mean), steps_of(left))[1:]
        known = ((band, truth), (pointwise, truth), (steps, np.diff(truth)))
        hits[place] = [((b[:, 0] <= t) & (t <= b[:, 1])).all() for b, t in known]
    return hits.mean(axis=0)


@pytest.mark.parametrize("n", [8, 24])
def test_all_layers_are_covered_together_and_not_by_pointwise_intervals(n, monkeypatch):
    monkeypatch.setattr(bands, "N_DRAWS", 200)
    together, pointwise, steps = covered(n, 60, 0.9)
    assert together >= 0.86  # .95 less three standard deviations of 60 data sets
    assert steps >= 0.86
    assert pointwise < 0.86


@pytest.mark.long
@pytest.mark.parametrize("neighbours", [0.5, 0.9])
@pytest.mark.parametrize("n", [8, 24])
def test_family_wise_coverage(n, neighbours):
    together, pointwise, steps = covered(n, 1_000, neighbours)
    assert 0.92 <= together <= 0.975
    assert 0.92 <= steps <= 0.985
    assert pointwise < 0.8


def test_copies_of_a_layer_need_no_wider_band_and_independent_ones_do():
    units = np.random.default_rng(1).normal(size=(30, LAYERS))
    mean, left = means_of(np.repeat(units[:, :1], LAYERS, axis=1))
    interval = jackknife_t(mean, left)
    np.testing.assert_allclose(simultaneous_band(mean, left), interval, rtol=0.06)
    mean, left = means_of(units)
    band, interval = simultaneous_band(mean, left), jackknife_t(mean, left)
    wider = np.ptp(band, axis=1) / np.ptp(interval, axis=1)
    sidak = stats.t.ppf(0.5 + 0.95 ** (1 / LAYERS) / 2, 29) / stats.t.ppf(0.975, 29)
    np.testing.assert_allclose(wider, sidak, rtol=0.06)
    np.testing.assert_array_equal(band, simultaneous_band(mean, left))  # seeded


def test_too_few_units_and_layers_without_a_value_have_none():
    units = np.random.default_rng(2).normal(size=(9, 4))
    mean, left = means_of(units[:3])
    assert np.isnan(simultaneous_band(mean, left)).all()
    mean, left = means_of(units)
    left[4, 1] = np.nan  # not defined without one of them
    mean[2] = np.nan
    band = simultaneous_band(mean, left)
    assert np.isnan(band[1:3]).all()
    assert np.isfinite(band[[0, 3]]).all()
    constant = np.ones((9, 3))
    np.testing.assert_array_equal(simultaneous_band(*means_of(constant)), 1.0)
