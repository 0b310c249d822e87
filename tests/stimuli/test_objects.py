import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elsewhere.errors import ObjectSetError, UnknownNameError
from elsewhere.stimuli import ObjectSet


def make(categories="aabbb", **changes):
    n = len(categories)
    rng = np.random.default_rng(0)
    arguments = {
        "name": "made",
        "images": rng.integers(0, 256, (n, 4, 4, 3), np.uint8),
        "masks": rng.integers(0, 256, (n, 4, 4), np.uint8),
        "ids": tuple(f"o{i}" for i in range(n)),
        "categories": tuple(categories),
    }
    return ObjectSet(**(arguments | changes))


def test_indices_follow_the_categories():
    objects = make()
    assert (len(objects), objects.size) == (5, 4)
    assert objects.category_names == ("a", "b")
    assert objects.category_index.tolist() == [0, 0, 1, 1, 1]
    assert objects.exemplar_index.tolist() == [0, 1, 0, 1, 2]


def test_a_selection_takes_categories_and_exemplars():
    objects = make()
    assert objects.select(1).ids == ("o0", "o1")
    assert objects.select(["b", "a"], 1).ids == ("o2", "o0")
    assert objects.select(per_category=1).ids == ("o0", "o2")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda o: o.select(3), "has 2 categories; 3 were asked for"),
        (lambda o: o.select(0), "expected 1 to 2"),
        (lambda o: o.select(["a", "a"]), "'a' twice"),
        (lambda o: o.select([]), "no category"),
        (lambda o: o.select(per_category=3), "'a' of 'made' has 2 exemplars; 3 were"),
        (lambda o: o.select(["b"], 4), "has 3 exemplars; 4 were"),
        (lambda o: o.subset([5]), "from 0 to 4"),
        (lambda o: o.subset([-1]), "from 0 to 4"),
        (lambda o: o.subset([]), "at least one"),
    ],
)
def test_what_is_not_there_is_refused(call, message):
    with pytest.raises(ObjectSetError, match=message):
        call(make())


def test_an_unknown_category_is_refused_with_the_nearest():
    with pytest.raises(UnknownNameError, match="nearest: beaver"):
        make(["ape", "beaver"]).select(["beavr"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": tuple("ababb")}, "'a' .* do not stand next to each other"),
        ({"ids": ("x", "y", "x", "z", "w")}, "'x' occurs twice"),
        ({"categories": ("a",)}, "5 ids and 1 categories"),
        ({"images": np.zeros((5, 4, 4), np.uint8)}, "images"),
        ({"images": np.zeros((5, 4, 4, 3))}, "float64"),
        ({"masks": np.zeros((5, 4, 3), np.uint8)}, "masks"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ObjectSetError, match=message):
        dataclasses.replace(make(), **changes)


def test_an_empty_set_is_refused():
    with pytest.raises(ObjectSetError, match="at least one object"):
        make([])


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_patches_round_to_the_nearest_level(level, alpha, ground):
    objects = make(
        "a",
        images=np.full((1, 1, 1, 3), level, np.uint8),
        masks=np.full((1, 1, 1), alpha, np.uint8),
    )
    exact = (level * alpha + ground * (255 - alpha)) / 255
    assert abs(int(objects.patches((0, 0, ground))[0, 0, 0, 2]) - exact) <= 0.5


def test_patches_keep_object_and_ground():
    objects = make(masks=np.array([0, 255, 0, 255, 255], np.uint8).repeat(16).reshape(5, 4, 4))
    patches = objects.patches((1, 2, 3))
    np.testing.assert_array_equal(patches[1], objects.images[1])
    assert (patches[0] == (1, 2, 3)).all()


def test_the_digest_tells_everything_but_the_name_and_the_source():
    objects = make()
    same = make(name="other", source={"seed": "1"})
    assert objects.digest() == same.digest()
    changed = [
        make("abbbb"),
        make(ids=("o0", "o1", "o2", "o3", "p")),
        make(ids=("o", "0o1", "o2", "o3", "o4")),
        make(images=objects.images ^ 1),
        make(masks=objects.masks ^ 1),
    ]
    assert len({objects.digest(), *(other.digest() for other in changed)}) == 6
