import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.errors import CanvasError
from elsewhere.stimuli import Canvas, Grid, parse_location

canvases = st.integers(1, 60).flatmap(
    lambda size: st.builds(Canvas, st.just(size), st.integers(1, size))
)


@settings(max_examples=60)
@given(canvases, st.integers(1, 70))
def test_a_stride_starts_at_the_first_and_includes_the_last(canvas, stride):
    grid = Grid.parse(f"stride:{stride}", canvas)
    assert grid.y == grid.x
    assert (grid.y[0], grid.y[-1]) == (canvas.valid[0], canvas.valid[-1])
    gaps = [later - earlier for earlier, later in itertools.pairwise(grid.y)]
    assert all(gap == stride for gap in gaps[:-1])
    assert all(0 < gap <= stride for gap in gaps)


@settings(max_examples=60)
@given(canvases, st.data())
def test_a_count_spreads_evenly_and_every_location_is_valid(canvas, data):
    counts = st.integers(1, len(canvas.valid))
    n, m = data.draw(counts), data.draw(counts)
    grid = Grid.parse(f"{n}x{m}", canvas)
    assert grid.shape == (n, m)
    assert all(canvas.contains(place) for place in grid.locations)
    if n > 1:
        assert (grid.y[0], grid.y[-1]) == (canvas.valid[0], canvas.valid[-1])
        gaps = np.diff(grid.y)
        assert gaps.max() - gaps.min() <= 1
    else:
        assert grid.y == (canvas.centre[0],)


@settings(max_examples=40)
@given(canvases, st.data())
def test_a_grid_reads_back_from_its_own_spec_in_any_order(canvas, data):
    axis = st.lists(st.sampled_from(canvas.valid), min_size=1, max_size=4, unique=True)
    grid = Grid(tuple(sorted(data.draw(axis))), tuple(sorted(data.draw(axis))))
    assert Grid.parse(grid.spec, canvas) == grid
    parts = data.draw(st.permutations(grid.spec.removeprefix("at:").split(";")))
    assert Grid.parse("at:" + ";".join(parts), canvas) == grid
    assert grid.check(canvas) is grid


def test_all_is_every_valid_location():
    assert Grid.parse("all", Canvas(8, 3)) == Grid(tuple(range(1, 7)), tuple(range(1, 7)))
    assert len(Grid.parse("stride:7", Canvas(224, 50))) == 26**2


def test_positions_count_in_row_major_order():
    grid = Grid((2, 5), (1, 3, 4))
    assert grid.axes.names == ("y", "x")
    assert grid.locations.dtype == np.int64
    for position, place in enumerate(grid.locations):
        assert grid.axes.index(place) == position
    assert grid.axes.index((2, 2)) is None
    assert grid.axes.index((2,)) is None


def test_the_nearest_location_and_the_reference():
    grid = Grid((2, 5, 9), (1, 4))
    assert grid.axes.nearest((100, 2)) == (9, 1)
    assert grid.axes.nearest((5, 4)) == (5, 4)
    assert grid.default_reference == (5, 1)
    assert Grid((2, 5), (3,)).default_reference == (5, 3)


def test_far_means_far_from_every_trained_location():
    grid = Grid((0, 10), (0, 10, 20))
    far = grid.far_from([(0, 0), (0, 20)], 10)
    assert far.reshape(grid.shape).tolist() == [[False, True, False], [True, True, True]]
    assert grid.far_from([(0, 0)], 11).reshape(grid.shape).tolist() == [
        [False, False, True],
        [False, False, True],
    ]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("stride:0", "empty"),
        ("stride:x", "stride:K, NxM, all, at:y,x"),
        ("7", "cannot read '7'"),
        ("0x3", "no location along y"),
        ("3x0", "no location along x"),
        ("99x3", "99 locations along an axis that has 16"),
        ("at:", "no location"),
        ("at:4,4;4", "cannot read '4' as a location"),
        ("at:4,4;4,9;8,4", "8,9 is missing"),
        ("at:1,4", "location 1,4 is off the canvas: .* from 2 to 17"),
        ("at:4,-4", "location 4,-4 is off the canvas"),
    ],
)
def test_specs_that_make_no_grid_are_refused(spec, message):
    with pytest.raises(CanvasError, match=message):
        Grid.parse(spec, Canvas(20, 5))


@pytest.mark.parametrize("axis", [(), (3, 3), (4, 3)])
def test_an_axis_must_ascend(axis):
    with pytest.raises(CanvasError, match=r"along x|ascend"):
        Grid((1,), axis)


def test_a_grid_of_another_canvas_is_refused():
    with pytest.raises(CanvasError, match="25,199"):
        Grid((25,), (25, 199)).check(Canvas(100, 50))


def test_locations_are_read():
    canvas = Canvas(20, 5)
    grid = Grid((2, 3, 4), (7, 8))
    assert parse_location("3, 17", canvas) == (3, 17)
    assert parse_location("centre", canvas) == canvas.centre == (10, 10)
    assert parse_location("left", canvas) == (10, 2)
    assert parse_location("left", canvas, grid) == (3, 7)
    for text in ("right", "3", "3;4", "18,3"):
        with pytest.raises(CanvasError, match=r"y,x"):
            parse_location(text, canvas)
