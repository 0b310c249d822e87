"""Normalized variance and the partition against plain formulas, and in simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.measures import normalized_deviation, normalized_variance, partition
from elsewhere.measures.partition import PartitionTally
from elsewhere.measures.unit_chunks import Stretch


def activations(seed=0, n=5, n_locations=7, n_units=30, o=1.0, p=1.0, i=1.0):
    rng = np.random.default_rng(seed)
    return (
        4.0
        + o * rng.normal(size=(n, 1, n_units))
        + p * rng.normal(size=(1, n_locations, n_units))
        + i * rng.normal(size=(n, n_locations, n_units))
    )


def test_normalized_variance_is_the_formula():
    values = activations()
    above = values.var(axis=1, ddof=1).mean(axis=0)
    below = values.var(axis=0, ddof=1).mean(axis=0)
    found = normalized_variance(values)
    np.testing.assert_allclose(found.per_unit, above / below)
    assert found.median == pytest.approx(np.median(above / below))
    assert found.ratio == pytest.approx(above.sum() / below.sum())


def test_the_deviations_are_means_and_no_roots():
    values = activations()
    above = values.std(axis=1, ddof=1).mean(axis=0)
    below = values.std(axis=0, ddof=1).mean(axis=0)
    found = normalized_deviation(values)
    np.testing.assert_allclose(found.per_unit, above / below)
    assert not np.allclose(found.per_unit, np.sqrt(normalized_variance(values).per_unit))


def test_the_edges():
    values = activations(n_units=4)
    values[..., 0] = 3.3  # never varies: 0/0 is 1
    values[..., 1] = values[:1, :, 1]  # the same for all objects: x/0 is infinite
    values[..., 2] = values[:, :1, 2]  # the same everywhere: 0
    found = normalized_variance(values)
    np.testing.assert_array_equal(found.per_unit[:3], [1, np.inf, 0])
    assert found.dead_share == 0.25
    assert np.isfinite(found.ratio)
    for few in (values[:1], values[:, :1]):
        assert np.isnan(normalized_variance(few).median)


def test_pure_noise_has_the_normalized_variance_one():
    values = np.random.default_rng(0).normal(size=(6, 9, 4000))
    assert normalized_variance(values).ratio == pytest.approx(1, abs=0.02)


def sums_of_squares(a):
    grand = a.mean(axis=(0, 1))
    by_object, by_place = a.mean(axis=1), a.mean(axis=0)
    n, p = a.shape[:2]
    ss = np.array(
        [
            p * ((by_object - grand) ** 2).sum(),
            n * ((by_place - grand) ** 2).sum(),
            ((a - by_object[:, None] - by_place[None] + grand) ** 2).sum(),
        ]
    )
    np.testing.assert_allclose(ss.sum(), ((a - grand) ** 2).sum())
    return ss


def test_the_partition_is_a_two_way_analysis_of_variance():
    values = activations()
    ss = sums_of_squares(values)
    np.testing.assert_allclose(partition(values).shares, ss / ss.sum())


def test_its_interval_is_a_jackknife_over_objects():
    values = activations(n=6)
    found = partition(values)
    without = np.array([partition(np.delete(values, k, axis=0)).shares for k in range(6)])
    error = np.sqrt(5 / 6 * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
    half = 2.570582 * error  # t(0.975, 5)
    np.testing.assert_allclose(found.intervals[:, 0], found.shares - half, rtol=1e-6)
    np.testing.assert_allclose(found.intervals[:, 1], found.shares + half, rtol=1e-6)


def test_shuffled_rows_have_the_null_shares_on_average():
    rng = np.random.default_rng(1)
    values = activations(n=4, n_locations=5, n_units=3, o=3, p=2, i=0.1)
    rows = values.reshape(20, 3)
    shares = np.mean(
        [partition(rng.permutation(rows).reshape(4, 5, 3)).shares for _ in range(600)], axis=0
    )
    np.testing.assert_allclose(shares, partition(values).nulls, atol=0.015)


@pytest.mark.parametrize(
    ("parts", "place"), [({"p": 0, "i": 0}, 0), ({"o": 0, "i": 0}, 1)], ids=["object", "location"]
)
def test_what_varies_alone_has_all(parts, place):
    shares = partition(activations(**parts)).shares
    assert shares[place] == pytest.approx(1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_rotation_scaling_and_translation_change_nothing(seed, scale):
    values = activations(seed, n_units=6)
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    after = partition(scale * values @ rotation + rng.normal(size=6))
    np.testing.assert_allclose(after.shares, partition(values).shares, atol=1e-9)


def test_the_interval_covers_the_share_of_the_population():
    """Objects are drawn anew; the locations stay. 95 % +- what 200 runs allow."""
    n_locations, n_units = 6, 40
    rng = np.random.default_rng(5)
    places = rng.normal(size=(1, n_locations, n_units))

    def draw(n):
        objects = rng.normal(size=(n, 1, n_units)) * rng.gamma(2, 0.5, (n, 1, 1))
        return objects + places + 0.7 * rng.normal(size=(n, n_locations, n_units))

    n = 12
    truth = np.mean([partition(draw(n)).shares for _ in range(600)], axis=0)
    hits = []
    for _ in range(200):
        low, high = partition(draw(n)).intervals.T
        hits.append((low <= truth) & (truth <= high))
    coverage = np.mean(hits, axis=0)
    assert (coverage > 0.88).all(), coverage
    assert (coverage < 0.995).all(), coverage


def test_constant_features_have_no_shares():
    assert np.isnan(partition(np.full((3, 4, 5), 0.1)).shares).all()


@pytest.mark.parametrize(("dtype", "within"), [("float32", 1e-5), ("float16", 1e-3)])
def test_low_precision_gives_the_same(dtype, within):
    values = activations(n_units=20_000) + 10
    short = values.astype(dtype)
    assert np.abs(partition(short).shares - partition(values).shares).max() < within
    before, after = normalized_variance(values).ratio, normalized_variance(short).ratio
    assert abs(before - after) < within * before


def test_stretches_of_units_add_up():
    values = activations()
    codes = np.arange(5)
    tally = PartitionTally(codes, 7)
    for chosen in (slice(0, 7), slice(7, 30)):
        tally.add(Stretch(values[:, :, chosen], codes))
    np.testing.assert_allclose(tally.value().shares, partition(values).shares)
    np.testing.assert_allclose(tally.value().intervals, partition(values).intervals)


def test_dead_units_are_no_evidence_of_anything():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(8, 1, 100)) + 0.5 * rng.normal(size=(8, 6, 100))
    living = normalized_variance(values)
    dead = np.concatenate([values, np.zeros((8, 6, 130))], axis=2)
    found = normalized_variance(dead)
    assert found.median == living.median
    assert found.dead_share == pytest.approx(130 / 230)
    assert np.isnan(normalized_variance(np.zeros((8, 6, 3))).median)


@pytest.mark.parametrize(("shape", "alone"), [((1, 4, 3), 0), ((3, 1, 3), 1)])
def test_a_single_object_or_location_has_no_share(shape, alone):
    shares = partition(np.random.default_rng(0).normal(size=shape)).shares
    assert np.isnan(shares[[alone, 2]]).all()
    assert shares[1 - alone] == pytest.approx(1)
