"""Onset, half-way step, loss and retained share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elsewhere.errors import InputError
from elsewhere.measures.trajectories import halfway_step, loss_since, onset_step, retained_share

STEPS = [0, 1, 3, 10, 32, 100]


def test_onset_is_where_values_stay_above() -> None:
    assert onset_step(STEPS, [0, 0.5, 0, 0.2, 0.3, 0.4], threshold=0.1) == 10
    assert onset_step(STEPS, [1] * 6, threshold=0.1) == 0
    assert np.isnan(onset_step(STEPS, [1, 1, 1, 1, 1, 0], threshold=0.1))


@given(st.floats(0.1, 10), st.integers(1, 5))
def test_halfway_lies_in_the_bracket_and_ignores_scale(scale: float, rise: int) -> None:
    values = np.array([0.0] * rise + [1.0] * (6 - rise))
    found = halfway_step(STEPS, values * scale)
    assert STEPS[rise - 1] < found < STEPS[rise]
    assert found == pytest.approx(halfway_step(STEPS, values))


def test_halfway_of_what_does_not_rise_is_undefined() -> None:
    assert np.isnan(halfway_step(STEPS, [0.5] * 6))
    assert np.isnan(halfway_step([0], [0.5]))


def test_loss_counts_from_the_criterion_and_not_from_the_maximum() -> None:
    assert loss_since([0.1, 0.8, 0.9, 0.3], 1) == pytest.approx(0.5)


def test_retained_share() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.normal(0.8, 0.02, 12), rng.normal(0.2, 0.02, 12)
    without = [np.array([np.delete(v, k).mean() for k in range(12)]) for v in (before, after)]
    share, interval = retained_share(
        before.mean(), after.mean(), before_without=without[0], after_without=without[1]
    )
    assert interval[0] < share < interval[1]
    assert share == pytest.approx(0.25, abs=0.03)
    nothing, bounds = retained_share(0.0, 0.5, before_without=[0, 0], after_without=[0, 0])
    assert np.isnan(nothing)
    assert np.isnan(bounds).all()


def test_a_share_of_nearly_nothing_is_undefined() -> None:
    """G before is 0, .05 or .3, with noise: only the last one is something to retain a share of."""
    rng = np.random.default_rng(1)
    for level, known in ((0.0, False), (0.05, False), (0.3, True)):
        for _ in range(20):
            before = rng.normal(level, 0.05, 10)
            after = before / 2
            left = [np.array([np.delete(v, k).mean() for k in range(10)]) for v in (before, after)]
            share, interval = retained_share(
                before.mean(), after.mean(), before_without=left[0], after_without=left[1]
            )
            assert np.isfinite(share) == known
            assert np.isfinite(interval).all() == known
    share, _ = retained_share(0.9, 0.3, before_without=[], after_without=[])
    assert np.isnan(share)  # no interval, no gate that is passed


def test_half_of_a_gain_of_noise_is_no_step() -> None:
    steps, values = [0, 10, 100], [0.30, 0.31, 0.34]
    assert np.isfinite(halfway_step(steps, values))
    assert np.isnan(halfway_step(steps, values, least=0.1))
    assert np.isfinite(halfway_step(steps, [0.30, 0.35, 0.45], least=0.1))


def test_steps_must_rise() -> None:
    with pytest.raises(InputError, match="steps rising"):
        onset_step([0, 0], [1, 1], threshold=0)


def test_the_retained_share_of_units_that_do_not_count() -> None:
    """NaN without a unit: it is in neither number, or only in one of them."""
    nan = np.nan
    before, after = [0.8, 0.79, 0.81, 0.8], [0.4, 0.41, 0.39, 0.42]
    known = retained_share(0.8, 0.4, before_without=before, after_without=after)
    more = retained_share(0.8, 0.4, before_without=[*before, nan], after_without=[*after, nan])
    assert more[0] == known[0]
    np.testing.assert_allclose(more[1], known[1])
    # the last two responded to nothing at the end: what is left is the same without them
    half = retained_share(0.8, 0.4, before_without=before, after_without=[0.41, 0.39, nan, nan])
    same = retained_share(0.8, 0.4, before_without=before, after_without=[0.41, 0.39, 0.4, 0.4])
    np.testing.assert_allclose(half[1], same[1])
    assert np.isfinite(half[1]).all()
