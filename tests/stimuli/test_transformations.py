"""Axes that change the object: known answers by arithmetic, SciPy and geometry."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.errors import InputError, ObjectSetError, UnknownNameError
from elsewhere.stimuli import load_objects
from elsewhere.stimuli.transformations import transformations, vary

NEUTRAL = {"scale": 1.0, "rotation": 0.0, "contrast": 1.0, "blur": 0.0}


@pytest.fixture(scope="module")
def objects():
    return load_objects("novel", size=20, categories=2, per_category=2)


def change(name, patch, value):
    return transformations.get(name).apply(patch, value)


def patch_of(objects, index=0):
    return np.concatenate([objects.images[index], objects.masks[index][..., None]], axis=-1)


def disc(side, radius, color=(200, 100, 50)):
    """Return a disc about the centre of a patch."""
    along = np.arange(side) - (side - 1) / 2
    patch = np.zeros((side, side, 4), np.uint8)
    patch[np.hypot(*np.meshgrid(along, along)) <= radius] = (*color, 255)
    return patch


def varied(objects, **values):
    """Return the objects at all combinations of values."""
    return vary(objects, list(values), list(itertools.product(*values.values())))


@pytest.mark.parametrize("name", NEUTRAL)
@pytest.mark.parametrize("side", [19, 20])
def test_the_neutral_value_leaves_every_pixel(objects, name, side):
    patch = patch_of(load_objects("novel", size=side, categories=1))
    patch[patch[..., 3] == 0] = 0  # what cannot be seen
    found = change(name, patch, NEUTRAL[name])
    assert transformations.get(name).neutral == NEUTRAL[name]
    np.testing.assert_array_equal(found, patch)


@settings(max_examples=30, deadline=None)
@given(st.integers(9, 24), st.sampled_from([0.3, 0.5, 0.77, 1.25, 2.0, 3.1]))
def test_a_scaled_disc_has_the_area_and_the_centre_of_its_size(side, value):
    radius = side / 2 - 2
    found = change("scale", disc(side, radius), value)
    alpha = found[..., 3] / 255.0
    original = disc(side, radius)[..., 3].astype(float) / 255
    assert len(found) % 2 == side % 2
    assert side * value <= len(found) < side * value + 2.01
    assert alpha.sum() == pytest.approx(original.sum() * value**2, rel=0.04, abs=0.6)
    along = np.arange(len(found)) - (len(found) - 1) / 2
    if alpha.sum() > 4:
        assert abs((alpha.sum(0) * along).sum() / alpha.sum()) < 0.02
    inside = found[found[..., 3] == 255][:, :3]
    if len(inside):
        assert abs(inside - np.array([200.0, 100, 50])).max() <= 1


def test_shrinking_a_fine_checkerboard_gives_its_mean_and_no_alias():
    board = np.zeros((32, 32, 4), np.uint8)
    board[..., 3] = 255
    board[(np.indices((32, 32)).sum(0) % 2).astype(bool), :3] = 200
    found = change("scale", board, 0.25)
    inner = found[2:-2, 2:-2, :3]
    assert abs(inner.astype(int) - 100).max() <= 3


@pytest.mark.parametrize("turns", [-3, -2, -1, 1, 2, 3, 4, 5])
def test_multiples_of_90_degrees_are_exact(objects, turns):
    patch = patch_of(objects)
    found = change("rotation", patch, 90.0 * turns)
    np.testing.assert_array_equal(found, np.rot90(patch, turns))


def test_a_rotated_bar_points_where_the_angle_says():
    bar = np.zeros((31, 31, 4), np.uint8)
    bar[14:17, 3:28] = (90, 160, 20, 255)
    for angle in (30.0, -20.0, 137.0):
        alpha = change("rotation", bar, angle)[..., 3] / 255.0
        ys, xs = np.indices(alpha.shape) - (len(alpha) - 1) / 2
        spread = np.array(
            [[(alpha * a * b).sum() for a in (xs, -ys)] for b in (xs, -ys)]
        )  # y upwards
        vector = np.linalg.eigh(spread)[1][:, -1]
        assert np.degrees(np.arctan2(vector[1], vector[0])) % 180 == pytest.approx(
            angle % 180, abs=0.5
        )
        assert alpha.sum() == pytest.approx(3 * 25, rel=0.02)


def test_no_corner_is_lost_when_a_full_square_turns():
    square = np.full((20, 20, 4), 255, np.uint8)
    found = change("rotation", square, 45.0)
    assert found[..., 3].sum() / 255 == pytest.approx(400, rel=0.01)


def test_contrast_is_arithmetic_about_the_mean_of_the_object(objects):
    patch = patch_of(objects, 1)
    weight = patch[..., 3] / 255.0
    for value in (0.0, 0.5, 1.7):
        found = change("contrast", patch, value)
        for channel in range(3):
            mean = np.average(patch[..., channel], weights=weight)
            right = np.clip(mean + value * (patch[..., channel] - mean), 0, 255)
            assert abs(found[..., channel] - right).max() <= 0.5 + 1e-9
        np.testing.assert_array_equal(found[..., 3], patch[..., 3])


def test_blur_keeps_the_amount_and_spreads_it_as_a_gaussian():
    dot = np.zeros((5, 5, 4), np.uint8)
    dot[2, 2] = (250, 10, 70, 255)
    found = change("blur", dot, 1.5)
    alpha = found[..., 3] / 255.0
    along = np.arange(len(found)) - len(found) // 2
    right = np.exp(-(along[:, None] ** 2 + along**2) / (2 * 1.5**2))
    np.testing.assert_allclose(alpha, right / right.sum(), atol=0.6 / 255)
    seen = found[found[..., 3] > 8][:, :3]
    assert abs(seen - np.array([250.0, 10, 70])).max() <= 1  # no ground in the rim


def test_variants_stand_in_one_box_as_each_would_by_itself(objects):
    variants = varied(objects, scale=(0.5, 1.0, 2.0), rotation=(0.0, 90.0))
    assert [each.size for each in variants] == [40] * 6
    assert all(each.ids == objects.ids for each in variants)
    inside = variants[2].masks[:, 10:30, 10:30]
    np.testing.assert_array_equal(inside, objects.masks)
    assert variants[2].masks.sum() == inside.sum()
    np.testing.assert_array_equal(variants[5].masks, np.rot90(variants[4].masks, axes=(1, 2)))


def test_what_cannot_be_varied_is_one_line(objects):
    with pytest.raises(UnknownNameError, match="unknown axis 'sclae'; nearest: scale"):
        varied(objects, sclae=(1.0,))
    for name, value in (("scale", 0.0), ("contrast", -1.0), ("blur", -0.5), ("scale", 1e9)):
        with pytest.raises(InputError, match=name):
            varied(objects, **{name: (value,)})
    with pytest.raises(ObjectSetError, match=r"nothing is left of object .* at scale=0.001"):
        varied(objects, scale=(0.001,))


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        (np.zeros((3, 4, 4), np.uint8), "3, 4, 4"),
        (np.zeros((3, 3, 4)), "float64"),
        (None, "object"),
    ],
)
def test_a_function_that_gives_no_patch_is_named(objects, given, shape, monkeypatch):
    from elsewhere.stimuli import transformations as module

    monkeypatch.setattr(module.transformations, "_entries", dict(transformations._entries))
    module.register_axis("broken", neutral=0, summary="gives no patch")(lambda patch, value: given)
    with pytest.raises(InputError, match=f"axis 'broken' gave .*{shape}"):
        varied(objects, broken=(1.0,))
