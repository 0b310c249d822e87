"""Consistency and discrimination against counting, and at their edges."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from elsewhere.errors import InputError
from elsewhere.measures import consistency, discrimination, share_correct, strongest_consistency
from elsewhere.measures.choices import ChoiceTally
from elsewhere.measures.stretches import Stretch


def test_consistency_counts_pairs():
    choices = np.random.default_rng(0).integers(0, 3, (7, 5))
    pairs = list(itertools.combinations(range(5), 2))
    same = np.mean([row[p] == row[q] for row in choices for p, q in pairs])
    equal = choices.ravel()[:, None] == choices.ravel()
    np.fill_diagonal(equal, False)  # no pair of a choice with itself
    found = consistency(choices)
    assert found.value == pytest.approx(same)
    assert found.chance == pytest.approx(equal.sum() / (35 * 34))
    assert found.corrected == pytest.approx((same - found.chance) / (1 - found.chance))


def test_for_two_symmetric_locations_the_corrected_value_is_nearly_kappa():
    first = np.random.default_rng(1).integers(0, 3, 3000)
    second = np.where(np.random.default_rng(2).random(3000) < 0.5, first, first[::-1])
    found = consistency(np.stack([first, second], axis=1))
    assert found.corrected == pytest.approx(cohen_kappa_score(first, second), abs=0.01)


def test_random_choices_have_a_corrected_consistency_of_zero():
    rng = np.random.default_rng(3)
    values = [consistency(rng.integers(0, 5, (6, 4))).corrected for _ in range(2000)]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error + 0.005


def test_a_constant_output_is_consistent_by_chance_only():
    found = consistency(np.zeros((4, 6), int))
    assert (found.value, found.chance) == (1, 1)
    assert np.isnan(found.corrected)
    assert np.isnan(consistency([[0], [1]]).value)
    with pytest.raises(InputError, match=r"shape \(3,\)"):
        consistency([1, 2, 3])


def test_the_strongest_unit_is_found_over_stretches():
    values = np.random.default_rng(0).normal(size=(4, 5, 30)).round(1)  # with ties
    tally = ChoiceTally(4, 5)
    for start in (0, 11, 12):
        stop = {0: 11, 11: 12, 12: 30}[start]
        tally.add(Stretch(values[:, :, start:stop], np.arange(4), first=start))
    np.testing.assert_array_equal(tally.choices, values.argmax(axis=2))
    wanted, found = consistency(values.argmax(axis=2)), strongest_consistency(values)
    assert found.value == wanted.value
    np.testing.assert_array_equal(found.matrix, wanted.matrix)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_discrimination_is_the_mean_over_all_draws_of_distractors(seed, candidates):
    rng = np.random.default_rng(seed)
    codes = np.array([0, 0, 1, 2, 3, 4, 4])
    cosines = rng.integers(0, 4, (7, 7)) / 4.0  # with many ties
    found = share_correct(cosines, codes, candidates=candidates)
    for number in range(7):
        others = np.flatnonzero(codes != codes[number])
        right = []
        for drawn in itertools.combinations(others, candidates - 1):
            rivals = cosines[number, list(drawn)]
            own = cosines[number, number]
            ties = (rivals == own).sum()
            right.append(0.0 if (rivals > own).any() else 1 / (1 + ties))
        assert found[number] == pytest.approx(np.mean(right))


def test_codes_without_information_are_at_chance():
    dead = np.zeros((8, 3, 10))
    np.testing.assert_allclose(discrimination(dead), 0.2)
    noise = np.random.default_rng(0).normal(size=(60, 4, 50))
    off = discrimination(noise)[~np.eye(4, dtype=bool)]
    assert off.mean() == pytest.approx(0.2, abs=0.03)
    np.testing.assert_allclose(np.diag(discrimination(noise)), 1)


def test_too_few_distractors_are_undefined():
    values = np.random.default_rng(0).normal(size=(5, 2, 9))
    assert np.isfinite(discrimination(values)).all()
    assert np.isnan(discrimination(values, categories=list("aabcd"))).all()
    assert np.isfinite(discrimination(values, categories=list("aabcd"), candidates=4)).all()
    with pytest.raises(InputError, match="no choice"):
        discrimination(values, candidates=1)
