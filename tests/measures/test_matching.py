"""Gaps between recognised and unrecognised, matched on place: codes of which the gap is known."""

import numpy as np
import pytest

from elsewhere.measures.matching import matched_gap


def draw(seed, n=30, n_places=25, gap=0.0, own=0.0, noise=0.02):
    """Return values that fall with the distance, and recognition that falls with it as well."""
    rng = np.random.default_rng(seed)
    far = np.linspace(0, 1, n_places)
    recognised = rng.uniform(size=(n, n_places)) < 0.95 - 0.9 * far
    values = np.exp(-3 * far) + own * rng.normal(size=(n, 1))
    values = values + gap * recognised + noise * rng.normal(size=(n, n_places))
    return values, recognised


def plain_gap(values, recognised):
    """Each object's mean where it is recognised less where it is not: not matched."""
    sides = [np.nanmean(np.where(side, values, np.nan), 1) for side in (recognised, ~recognised)]
    return float(np.nanmean(sides[0] - sides[1]))


def test_what_falls_with_distance_and_knows_no_identity_has_no_gap():
    found = []
    for seed in range(40):
        values, recognised = draw(seed, own=0.3)
        assert plain_gap(values, recognised) > 0.25
        gap, interval = matched_gap(values, recognised, np.arange(30))
        assert abs(gap) < 0.01
        found.append(interval[0] <= 0 <= interval[1])
    assert np.mean(found) >= 0.85


@pytest.mark.parametrize("gap", [-0.3, 0.2])
def test_a_gap_is_found_as_it_is_also_where_values_are_missing(gap):
    values, recognised = draw(1, gap=gap, own=0.5, noise=0.0)
    assert matched_gap(values, recognised, np.arange(30))[0] == pytest.approx(gap, abs=1e-9)
    holes = np.random.default_rng(2).uniform(size=values.shape) < 0.3
    holes[3], holes[:, 4] = True, True
    values[holes] = np.nan
    assert matched_gap(values, recognised, np.arange(30))[0] == pytest.approx(gap, abs=1e-9)


def test_it_is_the_coefficient_of_a_regression_with_levels():
    values, recognised = draw(3, n=6, n_places=7, gap=0.1, own=1.0, noise=0.5)
    values[2, 5] = np.nan
    rows, shown = [], []
    for o, p in np.argwhere(np.isfinite(values)):
        rows.append(np.r_[recognised[o, p], np.eye(6)[o], np.eye(7)[p]])
        shown.append(values[o, p])
    expected = np.linalg.lstsq(np.array(rows, float), np.array(shown), rcond=None)[0][0]
    assert matched_gap(values, recognised, np.arange(6))[0] == pytest.approx(expected, abs=1e-9)


def test_copies_of_exemplars_do_not_make_an_interval_narrower():
    values, recognised = draw(4, n=8, noise=0.2)
    _, once = matched_gap(values, recognised, np.arange(8))
    gap, thrice = matched_gap(values.repeat(3, 0), recognised.repeat(3, 0), np.arange(8).repeat(3))
    np.testing.assert_allclose(thrice, once, atol=1e-9)
    assert once[0] < gap < once[1]


def test_where_place_and_object_decide_there_is_no_gap_to_be_had():
    values, _ = draw(5)
    near = np.arange(25) < 9
    for recognised in (np.tile(near, (30, 1)), np.tile((np.arange(30) < 9)[:, None], (1, 25))):
        gap, interval = matched_gap(values, recognised, np.arange(30))
        assert np.isnan(gap)
        assert np.isnan(interval).all()
