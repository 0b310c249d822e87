"""Consistency and discrimination against counting, and at their edges."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from elsewhere.errors import InputError
from elsewhere.measures import consistency, discrimination, strongest_consistency
from elsewhere.measures.consistency import ChoiceTally
from elsewhere.measures.discrimination import DiscriminationTally, _shares
from elsewhere.measures.unit_chunks import Stretch, add_all


def test_consistency_counts_pairs():
    choices = np.random.default_rng(0).integers(0, 3, (7, 5))
    for codes in (list(range(7)), [0, 0, 1, 1, 1, 2, 3]):
        pairs = list(itertools.combinations(range(5), 2))
        same = np.mean([row[p] == row[q] for row in choices for p, q in pairs])
        equal = [
            choices[one, p] == choices[other, q]
            for one, other in itertools.permutations(range(7), 2)
            if codes[one] != codes[other]
            for p, q in itertools.permutations(range(5), 2)
        ]
        found = consistency(choices, categories=codes)
        assert found.value == pytest.approx(same)
        assert found.chance == pytest.approx(np.mean(equal))
        assert found.corrected == pytest.approx((same - found.chance) / (1 - found.chance))


def test_for_two_symmetric_locations_the_corrected_value_is_nearly_kappa():
    first = np.random.default_rng(1).integers(0, 3, 3000)
    second = np.where(np.random.default_rng(2).random(3000) < 0.5, first, first[::-1])
    found = consistency(np.stack([first, second], axis=1))
    assert found.corrected == pytest.approx(cohen_kappa_score(first, second), abs=0.01)


@pytest.mark.parametrize("sizes", [(1,) * 6, (3,) * 6, (4, 1, 1, 2, 1, 6)])
def test_random_choices_of_copies_have_a_corrected_consistency_of_zero(sizes):
    """Copies of exemplars choose alike."""
    rng, codes = np.random.default_rng(3), np.repeat(np.arange(6), sizes)
    values = [
        consistency(rng.integers(0, 5, (6, 4))[codes], categories=codes).corrected
        for _ in range(1000)
    ]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error + 0.005


def test_a_choice_that_only_the_place_makes_is_consistent_by_chance():
    places = np.tile([0, 1, 1, 2], (6, 1))
    assert consistency(places).corrected == pytest.approx(0)
    codes = list("aabbcd")
    assert consistency(places, categories=codes).corrected == pytest.approx(0)
    assert np.isnan(consistency(places, categories=["a"] * 6).corrected)
    with pytest.raises(InputError, match="5 categories for 6 objects"):
        consistency(places, categories=["a"] * 5)


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
    codes = np.array([0, 0, 1, 2, 3, 4, 4, 4])
    cosines = rng.integers(0, 4, (8, 8)) / 4.0  # with many ties
    tie = np.array(1e-6)
    found = [_shares(row, codes, o, candidates, tie)[0] for o, row in enumerate(cosines)]
    wanted = [_told(cosines, codes, number, candidates) for number in range(8)]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def _told(cosines, codes, number, candidates):
    """Of all draws of other categories, and of an exemplar of each: the share that is right."""
    right, own = [], cosines[number, number]
    for kinds in itertools.combinations(np.setdiff1d(codes, codes[number]), candidates - 1):
        drawn = list(itertools.product(*(np.flatnonzero(codes == kind) for kind in kinds)))
        rivals = cosines[number, np.array(drawn)]
        tied = 1 / (1 + (rivals == own).sum(axis=1))
        right.append(np.where((rivals > own).any(axis=1), 0.0, tied).mean())
    return np.mean(right) if right else np.nan


@pytest.mark.parametrize("codes", [[0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 3, 3, 3, 4, 5]])
def test_what_is_left_out_is_neither_asked_nor_a_candidate(codes):
    codes = np.array(codes)
    values = np.random.default_rng(1).normal(size=(len(codes), 3, 4))
    unit = values / np.linalg.norm(values, axis=2, keepdims=True)
    whole = Stretch.whole(values, codes.tolist())
    tally = DiscriminationTally(whole.codes, 3, range(3))
    add_all(whole, tally)
    _, without = tally.value(candidates=4)
    for left in range(6):
        kept = codes != left
        for r, p in itertools.product(range(3), repeat=2):
            cosines = unit[kept, p] @ unit[kept, r].T
            wanted = [_told(cosines, codes[kept], o, 4) for o in range(kept.sum())]
            assert without[left, r, p] == pytest.approx(np.mean(wanted))
    assert np.isnan(tally.value(candidates=6)[1]).all()  # a category fewer leaves too few


@pytest.mark.parametrize("sizes", [(1,) * 8, (5,) * 8, (9, 1, 1, 4, 1, 2, 1, 1)])
def test_codes_without_information_are_at_chance_however_many_copies_there_are(sizes):
    """A fifth; drawn from all exemplars alike, copies were .271."""
    codes = np.repeat(np.arange(8), sizes)
    dead = np.zeros((len(codes), 3, 10))
    np.testing.assert_allclose(discrimination(dead, categories=codes), 0.2)
    rng = np.random.default_rng(0)
    off = [
        discrimination(rng.normal(size=(8, 3, 20))[codes], categories=codes)[~np.eye(3, dtype=bool)]
        for _ in range(60)
    ]
    error = np.mean(off, axis=1).std() / np.sqrt(60)
    assert np.mean(off) == pytest.approx(0.2, abs=4 * error)
    assert error < 0.015


def test_too_few_distractors_are_undefined():
    values = np.random.default_rng(0).normal(size=(5, 2, 9))
    assert np.isfinite(discrimination(values)).all()
    assert np.isnan(discrimination(values, categories=list("aabcd"))).all()
    assert np.isfinite(discrimination(values, categories=list("aabcd"), candidates=4)).all()
    with pytest.raises(InputError, match="no choice"):
        discrimination(values, candidates=1)
