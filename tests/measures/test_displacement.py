"""Displacements between locations, and distances against loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.errors import InputError
from elsewhere.measures import Displacements, displacement_map, distance_matrix
from elsewhere.measures.displacement import mean_off_diagonal
from elsewhere.measures.sensitivity import DistanceTally
from elsewhere.measures.unit_chunks import Stretch

PLACES = np.array([[y, x] for y in (5, 12, 14) for x in (5, 9)])


def test_means_by_displacement_are_over_the_pairs_so_far_apart():
    matrix = np.random.default_rng(0).normal(size=(6, 6))
    matrix[0, 3] = np.nan
    apart = Displacements.between(PLACES)
    distance = np.abs(PLACES[:, None] - PLACES[None]).max(axis=2)
    assert apart.values.tolist() == sorted(set(distance[distance > 0].tolist()))
    for value, mean in zip(apart.values, apart.means(matrix), strict=True):
        assert mean == pytest.approx(np.nanmean(matrix[distance == value]))
    off = matrix[~np.eye(6, dtype=bool)]
    assert mean_off_diagonal(matrix) == pytest.approx(np.nanmean(off))
    with pytest.raises(InputError, match=r"shape \(2,\)"):
        Displacements.between([1, 2])


def test_the_map_over_displacements_is_the_mean_over_moves():
    matrix = np.random.default_rng(0).normal(size=(6, 6))
    dy, dx, values = displacement_map(matrix, PLACES)
    for i, y in enumerate(dy):
        for j, x in enumerate(dx):
            moves = [
                matrix[r, p]
                for r in range(6)
                for p in range(6)
                if (PLACES[p] - PLACES[r]).tolist() == [y, x]
            ]
            wanted = np.mean(moves) if moves else np.nan
            assert values[i, j] == pytest.approx(wanted, nan_ok=True)


def by_loops(values, categories):
    n, n_locations, _ = values.shape
    matrix = np.zeros((n_locations, n_locations))
    for r in range(n_locations):
        between = [
            np.linalg.norm(values[i, r] - values[j, r])
            for i in range(n)
            for j in range(i)
            if categories[i] != categories[j]
        ]
        for p in range(n_locations):
            own = [np.linalg.norm(values[o, p] - values[o, r]) for o in range(n)]
            matrix[r, p] = np.mean(own) / np.median(between)
    return matrix


@pytest.mark.parametrize(("dtype", "within"), [("float64", 1e-12), ("float32", 1e-5)])
def test_distances_are_what_loops_give(dtype, within):
    values = np.random.default_rng(0).normal(3, 1, size=(5, 6, 400))
    found = distance_matrix(values.astype(dtype), categories=list("aabcc"))
    np.testing.assert_allclose(found, by_loops(values, "aabcc"), atol=within)


def test_leaving_an_object_out_is_measuring_without_it():
    values = np.random.default_rng(0).normal(size=(5, 6, 40))
    stretch = Stretch.whole(values)
    tally = DistanceTally(stretch.codes, 6)
    tally.add(stretch)
    for number in range(5):
        wanted = distance_matrix(np.delete(values, number, axis=0))
        np.testing.assert_allclose(tally.value(without=number)[0], wanted)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_rotation_scaling_and_translation_change_nothing(seed, scale):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(4, 3, 8))
    rotation, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    after = distance_matrix(scale * values @ rotation + rng.normal(size=8))
    np.testing.assert_allclose(after, distance_matrix(values), atol=1e-6)


def test_one_category_and_constant_codes_are_undefined():
    values = np.random.default_rng(0).normal(size=(3, 2, 8))
    assert np.isnan(distance_matrix(values, categories=["a"] * 3)).all()
    assert np.isnan(distance_matrix(np.full((3, 2, 8), 0.3))).all()
