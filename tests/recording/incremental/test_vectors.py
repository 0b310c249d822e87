"""Vectors of windows against whole vectors in double precision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.errors import InputError
from elsewhere.recording.incremental.rectangles import Piece, Region, Sums
from elsewhere.recording.incremental.vectors import WindowVectors
from elsewhere.recording.incremental.windows import Ground

HEIGHT, WIDTH, CHANNELS = 7, 6, 3


def make_ground(seed, level=1.0):
    generator = torch.Generator().manual_seed(seed)
    return Ground(level + torch.randn(HEIGHT, WIDTH, CHANNELS, generator=generator))


@st.composite
def regions(draw):
    top, left = draw(st.integers(0, HEIGHT - 1)), draw(st.integers(0, WIDTH - 1))
    bottom, right = draw(st.integers(top + 1, HEIGHT)), draw(st.integers(left + 1, WIDTH))
    return Region(top, left, bottom, right)


@st.composite
def vectors(draw, ground, max_rows=5):
    """Draw rows, in pieces and in no order; rows may be the empty canvas itself."""
    n = draw(st.integers(1, max_rows))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    rows = draw(st.permutations(range(n)))
    result = WindowVectors(ground, np.ones(n))
    while rows and draw(st.booleans()):
        count = draw(st.integers(1, len(rows)))
        chosen, rows = sorted(rows[:count]), rows[count:]
        region = draw(regions())
        shape = (count, region.bottom - region.top, region.right - region.left, CHANNELS)
        values = torch.randn(shape, generator=generator)
        pieces = Piece(np.array(chosen), region, values, Sums(values, region, ground))
        result.pieces.append(pieces)
    return result


def whole(rows):
    return rows.expand().double().numpy()


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_products_norms_and_differences(data):
    ground = make_ground(data.draw(st.integers(0, 9)))
    a, b = data.draw(vectors(ground)), data.draw(vectors(ground))
    x, y = whole(a), whole(b)
    np.testing.assert_allclose(a.norms(), np.linalg.norm(x, axis=1), rtol=1e-6)
    np.testing.assert_allclose(a.dots(b), x @ y.T, rtol=1e-5, atol=1e-4)
    one = b.take([len(b) - 1])
    np.testing.assert_array_equal(whole(one), y[-1:])
    less = a.minus(one)
    np.testing.assert_allclose(whole(less), x - y[-1:], atol=1e-5)
    np.testing.assert_allclose(less.norms(), np.linalg.norm(x - y[-1:], axis=1), atol=1e-4)
    other = b.minus(one)
    np.testing.assert_allclose(less.dots(other), (x - y[-1:]) @ (y - y[-1:]).T, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_what_only_the_object_changes(data):
    """Less the empty canvas, rows are zero outside their windows."""
    ground = make_ground(1)
    a, b = data.draw(vectors(ground)), data.draw(vectors(ground))
    empty = WindowVectors(ground, np.ones(1))
    x, y, e = whole(a), whole(b), whole(empty)
    np.testing.assert_allclose(a.minus(empty).dots(b.minus(empty)), (x - e) @ (y - e).T, atol=1e-4)
    assert all(weight == 0 for weight in a.minus(empty).weights)


@settings(max_examples=30, deadline=None)
@given(st.data(), st.sampled_from([0.0, 1.0, 300.0]))
def test_centred_rows_even_where_they_hardly_vary(data, level):
    ground = make_ground(2, level)
    a, b = data.draw(vectors(ground)), data.draw(vectors(ground))
    x, y = (v - v.mean(axis=1, keepdims=True) for v in (whole(a), whole(b)))
    p, q = a.centred(), b.centred()
    scale = np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1))
    np.testing.assert_allclose(p.norms(), np.linalg.norm(x, axis=1), rtol=1e-6)
    assert (np.abs(p.dots(q) - x @ y.T) <= 1e-6 * scale).all()
    held = q.zeros(len(b))
    held.assign(0, q)
    assert (np.abs(p.dots(held) - x @ y.T) <= 1e-6 * scale).all()
    with pytest.raises(InputError, match="subtract first"):
        p.minus(q.take([0]))


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_rows_are_assigned_and_taken(data):
    ground = make_ground(4)
    n = 6
    held, expected = WindowVectors(ground, np.ones(1)).zeros(n), np.zeros((n, HEIGHT * WIDTH * 3))
    for _ in range(4):
        some = data.draw(vectors(ground, max_rows=4))
        first = data.draw(st.integers(0, n - len(some)))
        held.assign(first, some)
        expected[first : first + len(some)] = whole(some)
        np.testing.assert_array_equal(whole(held), expected)
        np.testing.assert_allclose(held.norms(), np.linalg.norm(expected, axis=1), rtol=1e-5)
    rows = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=6, unique=True))
    np.testing.assert_array_equal(whole(held.take(rows)), expected[rows])
    np.testing.assert_allclose(
        held.take(rows).dots(held), expected[rows] @ expected.T, rtol=1e-5, atol=1e-4
    )


def test_not_a_number_is_not_hidden():
    ground = make_ground(5)
    values = torch.full((1, 2, 2, CHANNELS), torch.nan)
    region = Region(0, 0, 2, 2)
    rows = WindowVectors(ground, np.ones(1))
    rows.pieces.append(Piece(np.zeros(1, int), region, values, Sums(values, region, ground)))
    assert np.isnan(rows.norms()).all()
    broken = Ground(torch.full((3, 3, 1), torch.inf))
    assert not np.isfinite(WindowVectors(broken, np.ones(1)).norms()).any()
