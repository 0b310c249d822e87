import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from elsewhere.recording.incremental.geometry import AxisWindows, Slide, merge, slide


def output_size(size, kernel, stride, pad, dilation):
    return (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1


slides = st.tuples(
    st.integers(1, 5), st.integers(1, 4), st.integers(0, 4), st.integers(1, 3)
)  # kernel, stride, pad, dilation


@settings(max_examples=80, deadline=None)
@given(st.integers(6, 30), st.integers(1, 8), st.lists(slides, min_size=1, max_size=4), st.data())
def test_windows_hold_all_that_changes_and_classes_hold_equal_values(size, side, layers, data):
    """Against convolutions of a line with random kernels: what changes, and what is equal."""
    side = min(side, size)
    locations = list(range(side // 2, size - side + side // 2 + 1))
    axis = AxisWindows.of_canvas(size, side, locations)
    rng = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    line = torch.zeros(len(locations) + 1, 1, size, dtype=torch.float64) + 0.7
    patch = torch.rand(side, generator=rng, dtype=torch.float64)
    for row, start in enumerate(axis.start):
        line[row, 0, start : start + side] = patch
    for kernel, stride, pad, dilation in layers:
        size = output_size(line.shape[2], kernel, stride, pad, dilation)
        if size < 1:
            return
        weight = torch.rand(1, 1, kernel, generator=rng, dtype=torch.float64)
        line = functional.conv1d(line, weight, None, stride, pad, dilation) + 0.3
        assert line.shape[2] == size
        axis, reading = slide(axis, Slide(dilation * (kernel - 1) + 1, stride, pad, size))
        low, high = axis.constant
        assert (line[-1, 0, low:high] - line[-1, 0, low : low + 1]).abs().sum() < 1e-9
        contents = {}
        for row in range(len(locations)):
            start, stop = axis.start[row], axis.start[row] + axis.length[row]
            assert 0 <= start < stop <= size
            outside = (line[row] != line[-1]).numpy()[0]
            outside[start:stop] = False
            assert not outside.any()
            window = line[row, 0, start:stop].numpy()
            known = contents.setdefault(int(axis.classes[row]), window)
            np.testing.assert_allclose(window, known, rtol=0, atol=1e-9)
        assert reading.length.min() >= 1


def test_interior_locations_of_one_phase_share_a_class():
    locations = list(range(25, 200))
    axis = AxisWindows.of_canvas(224, 50, locations)
    for _ in range(2):
        axis, _ = slide(axis, Slide(3, 1, 1, 224 if axis.size == 224 else axis.size))
    axis, _ = slide(axis, Slide(2, 2, 0, 112))
    inside = axis.classes[4:-4]
    assert set(inside[::2]) | set(inside[1::2]) == set(inside)
    assert len(set(inside)) == 2  # one for each phase of the pooling
    assert len(set(axis.classes)) < 12


def test_the_padded_edge_is_no_part_of_the_constant_interval():
    axis = AxisWindows.of_canvas(20, 4, [2, 10])
    after, _ = slide(axis, Slide(3, 1, 1, 20))
    assert after.constant == (1, 19)
    again, _ = slide(after, Slide(3, 2, 1, 10))
    assert again.constant == (1, 9)
    assert after.widened((0, 20)).constant == (0, 20)
    assert after.widened((9, 11)).constant == (1, 19)


def test_a_window_is_never_without_cells():
    """A stride over the object's only pixel: nothing changes, and one cell is kept."""
    axis = AxisWindows.of_canvas(9, 1, [0, 1, 8])
    after, _ = slide(axis, Slide(1, 4, 0, 3))
    assert after.length.tolist() == [1, 1, 1]
    assert after.start.tolist() == [0, 0, 2]
    beyond, _ = slide(axis, Slide(2, 3, 0, 2))  # the last pixel is read by no output cell
    assert beyond.start.tolist()[-1] == 1


def test_sums_cover_every_operand_and_keep_their_classes_apart():
    small = AxisWindows.of_canvas(24, 8, [4, 12, 13, 20])
    wide, _ = slide(small, Slide(5, 1, 2, 24))
    union, readings = merge([small, wide])
    np.testing.assert_array_equal(union.start, wide.start)
    np.testing.assert_array_equal(union.length, wide.length)
    np.testing.assert_array_equal(union.classes, wide.classes)
    assert readings[1].is_window
    assert not readings[0].is_window
    assert union.constant == wide.constant


@pytest.mark.parametrize("size", [5, 8])
def test_constant_intervals_that_do_not_meet_are_empty(size):
    left = AxisWindows(size, *[np.zeros(1, dtype=np.int64)] * 3, (0, 2))
    right = AxisWindows(size, *[np.zeros(1, dtype=np.int64)] * 3, (3, size))
    low, high = merge([left, right])[0].constant
    assert low == high
