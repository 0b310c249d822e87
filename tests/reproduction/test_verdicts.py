"""Intervals over seeds, verdicts, and how parts make a claim."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.measures.claims import (
    VERDICTS,
    combine_all,
    combine_any,
    interval_over_seeds,
    verdict,
)

numbers = st.floats(-2, 2, allow_nan=False).map(lambda value: round(value, 4))
seeds = st.lists(numbers, min_size=2, max_size=12)
some = st.lists(st.sampled_from(VERDICTS), min_size=1, max_size=6)


@given(values=seeds, level=st.floats(0.5, 0.99))
@settings(max_examples=60, deadline=None)
def test_the_interval_is_students(values, level):
    low, high = interval_over_seeds(values, level=level)
    assert low <= np.mean(values) + 1e-12
    assert high >= np.mean(values) - 1e-12
    if np.std(values) > 1e-9:
        expected = stats.t.interval(
            level, len(values) - 1, loc=np.mean(values), scale=stats.sem(values)
        )
        assert np.allclose([low, high], expected)


@given(values=seeds, threshold=numbers)
@settings(max_examples=100, deadline=None)
def test_a_verdict_needs_the_whole_interval_on_one_side(values, threshold):
    low, high = interval_over_seeds(values)
    said = verdict(values, threshold, ">")
    assert (said == "holds") == (low > threshold)
    assert (said == "fails") == (high < threshold)
    opposite = {"holds": "fails", "fails": "holds", "undecided": "undecided"}
    assert verdict(values, threshold, "<") == opposite[said]


@given(values=seeds, threshold=numbers, data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_seeds_does_not_matter(values, threshold, data):
    other = data.draw(st.permutations(values))
    assert np.allclose(interval_over_seeds(values), interval_over_seeds(other))


@given(value=numbers, threshold=numbers, direction=st.sampled_from("<>"))
@settings(max_examples=60, deadline=None)
def test_one_seed_gives_no_verdict(value, threshold, direction):
    assert verdict([value], threshold, direction).endswith("shown in this run")


@pytest.mark.parametrize("values", [[np.nan], [0.9, np.nan], [0.9, 0.8, np.inf]])
def test_what_a_seed_cannot_measure_nobody_can(values):
    assert verdict(values, 0.5, ">") == "not measurable"
    assert verdict(values, 0.5, "<") == "not measurable"


def test_nothing_was_not_run():
    assert verdict([], 0.5, ">") == "not run"
    assert np.isnan(interval_over_seeds([])).all()
    assert np.isnan(interval_over_seeds([0.5])).all()


def test_a_wide_interval_leaves_it_undecided():
    assert verdict([0.55, 0.95], 0.5, ">") == "undecided"
    assert verdict([0.74, 0.75], 0.5, ">") == "holds"


@given(parts=some)
@settings(max_examples=80, deadline=None)
def test_any_part_that_fails_fails_the_claim(parts):
    together = combine_all(parts)
    assert (together == "fails") == ("fails" in parts)
    assert (together == "holds") == (set(parts) == {"holds"})
    assert together in parts


@given(cases=some)
@settings(max_examples=80, deadline=None)
def test_one_case_that_holds_is_enough(cases):
    together = combine_any(cases)
    assert (together == "holds") == ("holds" in cases)
    if together == "fails":
        assert set(cases) <= {"fails", "not shown in this run", "not run"}


def test_bad_input_is_refused_in_one_line():
    with pytest.raises(UnknownNameError, match="direction of a claim"):
        verdict([1.0], 0.5, ">=")
    with pytest.raises(UnknownNameError, match="verdict"):
        combine_all(["holds", "perhaps"])
    with pytest.raises(InputError, match="one dimension"):
        interval_over_seeds([[1.0, 2.0]])
    with pytest.raises(InputError, match="between 0 and 1"):
        interval_over_seeds([1.0, 2.0], level=95)
