"""The formulas of accuracy by their properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.measures.accuracy import (
    displacements,
    invariance_index,
    masked_means,
    normalized_accuracy,
)


@given(st.integers(2, 50), st.floats(0, 1))
def test_normalized_accuracy_is_a_line_from_chance_to_one(n_classes, share):
    chance = 1 / n_classes
    value = normalized_accuracy(chance + share * (1 - chance), n_classes)
    assert value == pytest.approx(share, abs=1e-12)
    assert np.isnan(normalized_accuracy(1.0, 1))


@given(st.integers(2, 20), st.lists(st.floats(0, 1), min_size=1, max_size=9), st.floats(0.6, 1))
def test_index_of_the_mean_is_the_mean_index(n_classes, elsewhere, on):
    whole = invariance_index(np.mean(elsewhere), on, n_classes)
    each = invariance_index(elsewhere, on, n_classes)
    assert whole == pytest.approx(np.mean(each), abs=1e-9)


def test_index_at_or_below_chance_is_not_measurable():
    assert np.isnan(invariance_index(0.5, 0.1, 10))
    assert np.isnan(invariance_index(0.5, 0.05, 10))
    assert invariance_index(1.0, 0.9, 10) > 1  # not clamped


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=6),
)
def test_displacement_is_the_distance_to_the_nearest(here, there):
    expected = [min(max(abs(y - v), abs(x - u)) for v, u in there) for y, x in here]
    assert displacements(here, there).tolist() == expected


def test_masked_means_of_nothing_are_missing():
    values = np.arange(6.0).reshape(2, 3)
    mask = [[True, True, False], [False, False, False]]
    assert masked_means(values, mask)[0] == 0.5
    assert np.isnan(masked_means(values, mask)[1])
