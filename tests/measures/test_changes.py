"""What a shift, the border and phase explain, on maps whose answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.errors import InputError
from elsewhere.measures import border_cells, change_shares, explain_change
from elsewhere.measures.phase import shifted


@settings(max_examples=40, deadline=None)
@given(st.integers(-6, 6), st.integers(-6, 6), st.integers(0, 1000))
def test_a_shift_is_a_roll_without_what_came_round(dy, dx, seed):
    values = np.random.default_rng(seed).normal(size=(2, 5, 4))
    wanted = np.zeros_like(values)
    for y in range(5):
        for x in range(4):
            if 0 <= y - dy < 5 and 0 <= x - dx < 4:
                wanted[:, y, x] = values[:, y - dy, x - dx]
    np.testing.assert_array_equal(shifted(values, (dy, dx)), wanted)


def test_border_cells_see_the_edge_here_or_where_they_were():
    # Cells at 0, 2, ..., 10 px, 5 px wide: those at 0 and 10 see the edge of a canvas of 11 px.
    found = border_cells((1, 6), (0, 1), stride=2, offset=0.0, receptive_field=5, canvas=11)
    # Along y the only cell sees the edge, so all do.
    assert found.all()
    wide = border_cells((6, 6), (0, 1), stride=2, offset=0.0, receptive_field=5, canvas=11)
    np.testing.assert_array_equal(wide[2], [True, True, False, False, False, True])
    np.testing.assert_array_equal(wide[:, 3], [True, False, False, False, False, True])
    free = border_cells((3, 4), (0, 2), stride=1, offset=0.0, receptive_field=1, canvas=4)
    np.testing.assert_array_equal(free, [[True, True, False, False]] * 3)


def test_the_parts_add_up_and_are_where_they_should_be():
    rng = np.random.default_rng(0)
    there = np.zeros((3, 8, 8))
    there[:, 2:4, 2:4] = rng.normal(size=(3, 2, 2))
    here = shifted(there, (1, 2))
    border = border_cells((8, 8), (1, 2), stride=1, offset=0.0, receptive_field=3, canvas=8)
    clean = explain_change(here, there, (1, 2), border)
    assert clean.total > 0
    assert clean.border == clean.rest == 0
    here[0, 0, 0] += 2.0  # at the border
    here[1, 5, 5] += 3.0  # away from it
    spoilt = explain_change(here, there, (1, 2), border)
    assert spoilt.border == pytest.approx(4)
    assert spoilt.rest == pytest.approx(9)
    assert spoilt.total == pytest.approx(((here - there) ** 2).sum())
    shares = change_shares([[spoilt.total]], [[4.0]], [[9.0]], [[spoilt.scale]]).shares
    assert shares.sum() == pytest.approx(1)
    assert shares[1] == pytest.approx(4 / spoilt.total)


def test_a_map_that_does_not_change_has_no_shares():
    values = np.ones((2, 3, 3))
    found = explain_change(values, values, (0, 1), np.zeros((3, 3), bool))
    assert found.total == 0
    assert np.isnan(change_shares([[0.0]], [[0.0]], [[0.0]], [[9.0]]).shares).all()


def test_the_interval_is_a_jackknife_over_objects():
    rng = np.random.default_rng(0)
    total, border, rest = rng.uniform(1, 2, (3, 5, 4))
    total = total * 3
    scale = np.ones((5, 4))
    found = change_shares(total, border, rest, scale)
    without = np.array(
        [
            change_shares(
                *(np.delete(part, k, axis=0) for part in (total, border, rest, scale))
            ).shares
            for k in range(5)
        ]
    )
    error = np.sqrt(4 / 5 * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
    np.testing.assert_allclose(found.intervals[:, 1] - found.shares, 2.776445 * error, rtol=1e-5)


def test_shapes_that_differ_are_refused():
    with pytest.raises(InputError, match="expected two of"):
        explain_change(np.ones((1, 2, 2)), np.ones((1, 2, 3)), (0, 0), np.zeros((2, 2)))
