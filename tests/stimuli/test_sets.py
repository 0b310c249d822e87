from collections import OrderedDict

import numpy as np
import pytest

from elsewhere.errors import ObjectSetError, UnknownNameError
from elsewhere.stimuli import Canvas, load_objects, object_sets, sets

SIZE = 14


@pytest.fixture(params=list(object_sets))
def spec(request, tmp_path, write_collection, write_picture, strokes):
    """Every registered set, with data where it needs some: the spec and the options."""
    name = request.param
    if name == "folder":
        rng = np.random.default_rng(0)
        for category in "abc":
            for n in range(3):
                picture = rng.integers(0, 256, (9, 6, 3))
                write_picture(tmp_path / category / f"{n}.png", picture)
        return f"folder:{tmp_path}", {}
    pictures, labels = strokes
    if name == "emnist":
        write_collection(tmp_path, pictures, labels, "emnist-balanced-test")
        return name, {"data_dir": tmp_path}
    if name in ("mnist", "fashion-mnist", "kmnist"):
        write_collection(tmp_path / name, pictures[:30], labels[:30])
        return name, {"data_dir": tmp_path}
    if name == "hangul":
        request.getfixturevalue("korean_font")
    return name, {}


def test_every_set_gives_objects_as_asked(spec):
    name, options = spec
    objects = load_objects(name, size=SIZE, categories=3, per_category=2, **options)
    assert objects.images.shape == (6, SIZE, SIZE, 3)
    assert objects.name == name.partition(":")[0]
    assert len(objects.category_names) == 3
    assert objects.exemplar_index.tolist() == [0, 1] * 3
    assert (objects.masks.max(axis=(1, 2)) > 100).all()
    assert objects.source
    assert len({patch.tobytes() for patch in objects.patches((0, 0, 0))}) >= 3
    canvas = Canvas(20, SIZE)
    assert canvas.paste(objects.patches((9, 9, 9)), [canvas.centre] * 6, (9, 9, 9)).max() > 9


def test_every_set_is_reproducible(spec):
    name, options = spec
    first, again = (
        load_objects(name, size=SIZE, categories=2, per_category=2, seed=5, **options)
        for _ in range(2)
    )
    assert first.digest() == again.digest()


def test_an_object_does_not_depend_on_how_many_are_asked_for(spec):
    name, options = spec
    many = load_objects(name, size=SIZE, categories=3, per_category=3, seed=2, **options)
    few = load_objects(name, size=SIZE, categories=3, per_category=1, seed=2, **options)
    assert many.select(per_category=1).digest() == few.digest()
    wanted = many.category_names[2]
    alone = load_objects(name, size=SIZE, categories=[wanted], per_category=3, seed=2, **options)
    assert many.select([wanted]).digest() == alone.digest()


def test_the_global_generators_are_left_alone(spec):
    name, options = spec
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.RandomState(7).rand()
    load_objects(name, size=SIZE, categories=1, per_category=2, **options)
    assert np.random.rand() == expected  # noqa: NPY002


@pytest.mark.parametrize("name", ["glyphs", "hangul", "novel"])
def test_the_seed_draws_all_exemplars_but_the_first(name, request):
    if name == "hangul":
        request.getfixturevalue("korean_font")
    one, two = (
        load_objects(name, size=SIZE, categories=2, per_category=3, seed=seed) for seed in (0, 1)
    )
    same = (one.masks == two.masks).all(axis=(1, 2))
    assert same.tolist() == [True, False, False] * 2


def test_the_seed_draws_which_digits_are_taken():
    one, two = (load_objects("digits", size=8, per_category=3, seed=seed) for seed in (0, 1))
    assert one.ids != two.ids
    assert one.category_names == tuple("0123456789")
    zero = one.patches((0, 0, 0))[0, :, :, 0]
    assert zero[:, 3:5].max() > 0


def test_every_set_has_a_summary():
    assert all(len(object_sets.summary(name)) > 20 for name in object_sets)


@pytest.mark.parametrize("name", ["glyphs", "digits", "novel"])
def test_too_many_categories_are_refused(name):
    with pytest.raises(ObjectSetError, match=r"has \d+ categories; 1000 were asked for"):
        load_objects(name, size=SIZE, categories=1000)


def test_too_many_exemplars_are_refused():
    with pytest.raises(ObjectSetError, match=r"'0' of 'digits' has \d+ exemplars; 9999 were"):
        load_objects("digits", size=SIZE, per_category=9999)


@pytest.mark.parametrize(
    ("spec", "options", "error", "message"),
    [
        ("glyph", {}, UnknownNameError, "nearest: glyphs"),
        ("glyphs:x", {}, ObjectSetError, "takes no argument"),
        ("digits", {"categories": ["zero"]}, UnknownNameError, "category of digits"),
        ("digits", {"size": 0}, ObjectSetError, "size 0"),
        ("digits", {"per_category": 0}, ObjectSetError, "0 per category"),
        ("digits", {"seed": -1}, ObjectSetError, "seed -1"),
        ("mnist", {"split": "both"}, ObjectSetError, "expected 'train' or 'test'"),
        ("mnist", {}, ObjectSetError, "--data-dir"),
        ("folder", {}, ObjectSetError, "write folder:PATH"),
    ],
)
def test_bad_requests_are_refused(spec, options, error, message):
    with pytest.raises(error, match=message) as caught:
        load_objects(spec, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sets.DRAWN)
def test_a_drawn_set_is_drawn_once_and_nobody_can_change_that_of_others(name, monkeypatch):
    monkeypatch.setattr(sets, "_drawn", OrderedDict())
    asked = {"size": 9, "categories": 2, "per_category": 2, "seed": 5}
    first = load_objects(name, **asked)
    images, masks = first.images.copy(), first.masks.copy()
    for change in ({}, {"seed": 6}, {"size": 10}, {"categories": 3}, {"per_category": 1}):
        load_objects(name, **(asked | change))
    assert len(sets._drawn) == 5
    first.images[:], first.masks[:], first.source["seed"] = 7, 7, "?"
    monkeypatch.setattr(sets.object_sets, "get", lambda name: pytest.fail)  # not drawn again
    again = load_objects(name, **asked)
    assert again.ids == first.ids
    np.testing.assert_array_equal(again.images, images)
    np.testing.assert_array_equal(again.masks, masks)
    assert "?" not in again.source.values()


def test_few_sets_are_kept_and_no_large_ones(monkeypatch):
    monkeypatch.setattr(sets, "_drawn", OrderedDict())
    for size in range(5, 5 + 2 * sets.KEPT):
        load_objects("digits", size=size, categories=1)
    assert [request.size for _, request in sets._drawn] == list(range(13, 21))
    monkeypatch.setattr(sets, "KEPT_BYTES", 4 * 9 * 9 - 1)
    load_objects("digits", size=9, categories=1)
    assert all(request.size != 9 for _, request in sets._drawn)
