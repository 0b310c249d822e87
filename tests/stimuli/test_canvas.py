import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.errors import CanvasError
from elsewhere.stimuli import Canvas

canvases = st.integers(1, 40).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size)))


@settings(max_examples=60)
@given(canvases)
def test_valid_locations_are_those_with_the_object_wholly_inside(sides):
    canvas = Canvas(*sides)
    for coordinate in range(-3, canvas.size + 4):
        top = coordinate - canvas.object_size // 2
        inside = top >= 0 and top + canvas.object_size <= canvas.size
        assert canvas.contains((coordinate, coordinate)) == inside
        if inside:
            assert canvas.top_left((coordinate, canvas.centre[1]))[0] == top
        else:
            with pytest.raises(CanvasError, match=r"off the canvas.*to \d+"):
                canvas.top_left((coordinate, canvas.centre[1]))
    assert canvas.contains(canvas.centre)


@settings(max_examples=60)
@given(canvases, st.data())
def test_paste_copies_exactly_and_touches_only_the_box(sides, data):
    canvas = Canvas(*sides)
    coordinate = st.sampled_from(canvas.valid)
    locations = data.draw(st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=4))
    side = canvas.object_size
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (len(locations), side, side, 3), np.uint8)
    color = (7, 80, 200)
    images = canvas.paste(patches, locations, color)
    assert images.shape == (len(locations), canvas.size, canvas.size, 3)
    for image, patch, place in zip(images, patches, locations, strict=True):
        top, left = canvas.top_left(place)
        box = np.zeros((canvas.size, canvas.size), bool)
        box[top : top + side, left : left + side] = True
        np.testing.assert_array_equal(image[box].reshape(side, side, 3), patch)
        np.testing.assert_array_equal(image[~box], canvas.empty(color)[~box])


def test_one_patch_is_shown_at_every_location():
    canvas = Canvas(9, 2)
    patch = np.full((1, 2, 2, 3), 255, np.uint8)
    images = canvas.paste(patch, np.array([[1, 1], [5, 8]]), (0, 0, 0))
    assert images.sum(axis=(1, 2, 3)).tolist() == [255 * 12] * 2
    assert images[1, 4:6, 7:9].min() == 255


def test_nothing_pasted_is_an_empty_batch():
    assert Canvas(9, 2).paste(np.zeros((1, 2, 2, 3), np.uint8), [], (0, 0, 0)).shape[0] == 0


@pytest.mark.parametrize(
    ("patches", "locations", "message"),
    [
        (np.zeros((1, 3, 3, 3), np.uint8), [(4, 4)], "load the objects at size 2"),
        (np.zeros((1, 2, 2, 3)), [(4, 4)], "uint8"),
        (np.zeros((2, 2, 2, 3), np.uint8), [(4, 4)] * 3, "2 patches for 3 locations"),
        (np.zeros((1, 2, 2, 3), np.uint8), [(4.5, 4)], "whole numbers"),
        (np.zeros((1, 2, 2, 3), np.uint8), [(0, 4)], "location 0,4 is off the canvas"),
    ],
)
def test_paste_refuses_what_does_not_fit(patches, locations, message):
    with pytest.raises(CanvasError, match=message):
        Canvas(9, 2).paste(patches, locations, (0, 0, 0))


@pytest.mark.parametrize("background", [-1, 256, 1.5, True, (1, 2), (1, 2, 256), "black", None])
def test_backgrounds_out_of_range_are_refused(background):
    with pytest.raises(CanvasError, match="background"):
        Canvas(background=background)


def test_a_large_object_is_refused_with_both_numbers():
    with pytest.raises(CanvasError, match="60 px does not fit on a canvas of 50 px"):
        Canvas(50, 60)
    with pytest.raises(CanvasError, match="object size is 0"):
        Canvas(50, 0)


@pytest.mark.parametrize(
    ("text", "background"),
    [("0", 0), ("255", 255), ("12,30,40", (12, 30, 40)), ("#0c1e28", (12, 30, 40))],
)
def test_backgrounds_are_read(text, background):
    assert Canvas.parse_background(text) == background
    expected = background if isinstance(background, tuple) else (background,) * 3
    assert Canvas(background=background).background_color() == expected


def test_the_mean_background_is_the_rounded_mean_of_the_input():
    canvas = Canvas(background=Canvas.parse_background("mean"))
    assert canvas.background_color((0.0, 0.5, 1.0)) == (0, 128, 255)
    for mean in (None, (0.5,), (0.5, 0.5, 124.0)):
        with pytest.raises(CanvasError, match="needs the input transform's mean"):
            canvas.background_color(mean)


@pytest.mark.parametrize("text", ["", "greyish", "256", "1,2", "#12", "-1"])
def test_unreadable_backgrounds_are_refused(text):
    with pytest.raises(CanvasError, match="mean"):
        Canvas.parse_background(text)


def test_the_package_imports_without_anything_heavy():
    code = (
        "import sys, elsewhere.stimuli as s; list(s.object_sets); "
        "print([m for m in ('torch', 'matplotlib', 'sklearn', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
