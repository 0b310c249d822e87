"""What has been trained on is never held out and never new, by content."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from elsewhere.errors import CurriculumError, InputError, ObjectSetError
from elsewhere.training import Exemplars, Network, list_checkpoints, resolve, train
from elsewhere.training.seen import digest_each, pack, unpack


def pictures(objects):
    """Return what is to be seen of each object, without the digests of the package."""
    shown = np.where(objects.masks[..., None] > 0, objects.images, 0)
    return [m.tobytes() + i.tobytes() for m, i in zip(objects.masks, shown, strict=True)]


def draw(folder, category, *names, seed=None):
    path = Path(folder, category)
    path.mkdir(parents=True, exist_ok=True)
    for name in names:
        key = [ord(category[0]), *(seed or name).encode()]
        picture = np.random.default_rng(key).integers(1, 255, (7, 7, 3), dtype=np.uint8)
        Image.fromarray(picture).save(path / f"{name}.png")


@pytest.mark.parametrize(
    "second",
    [
        {"exemplars": Exemplars(10, 54)},
        {"exemplars": Exemplars(40, 24), "seed": 1},
        {"exemplars": Exemplars(10, 40), "split": "test"},
        {"exemplars": Exemplars(5, 30), "seed": 3, "split": "test"},
    ],
)
def test_no_phase_holds_out_what_an_earlier_one_trained_on(second, make_curriculum, make_phase):
    first = make_phase("a", objects="digits", categories=4, exemplars=Exemplars(100, 24))
    middle = make_phase("m", objects="glyphs", categories=2, new_head=True)
    last = make_phase(
        "b", objects="digits", categories=None, same_categories_as="a", new_head=True, **second
    )
    a, _, b = resolve(make_curriculum(first, middle, last))
    assert not set(pictures(a.train)) & set(pictures(b.held_out))
    assert not set(pictures(b.train)) & set(pictures(b.held_out))
    assert len(b.held_out) == 4 * second["exemplars"].held_out
    assert b.held_out.categories == tuple(np.repeat(a.categories, second["exemplars"].held_out))


def test_a_phase_that_builds_on_nothing_may_hold_anything_out(make_curriculum, make_phase):
    first = make_phase("a", objects="digits", categories=4, exemplars=Exemplars(40, 0))
    other = dataclasses.replace(
        first, name="b", categories=None, same_categories_as="a", after="none",
        exemplars=Exemplars(10, 30),
    )  # fmt: skip
    a, b = resolve(make_curriculum(first, other))
    assert set(pictures(a.train)) >= set(pictures(b.held_out))


def test_equal_pictures_are_one(make_curriculum, make_phase, tmp_path):
    """Files 1 and 3 of a, and 0 of a and 2 of b, are the same picture."""
    draw(tmp_path, "a", "0", "1", "2", "4", "5")
    draw(tmp_path, "a", "3", seed="1")
    draw(tmp_path, "b", "0", "1", "3", "4", "5")
    (tmp_path / "b" / "2.png").write_bytes((tmp_path / "a" / "0.png").read_bytes())
    phase = make_phase(objects=f"folder:{tmp_path}", categories=None, exemplars=Exemplars(2, 3))
    (found,) = resolve(make_curriculum(phase))
    assert [name for name in found.held_out.ids if name[0] == "a"] == [
        "a/2.png",
        "a/4.png",
        "a/5.png",
    ]
    assert [name for name in found.held_out.ids if name[0] == "b"] == [
        "b/3.png",
        "b/4.png",
        "b/5.png",
    ]


def test_one_folder_spelled_two_ways(make_curriculum, make_phase, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for category in "abcdef":
        draw("pics", category, *map(str, range(6)))
    first = make_phase("a", objects="folder:pics", categories=3, exemplars=Exemplars(2, 1))
    second = make_phase(
        "b", objects=f"folder:{tmp_path}/./pics", categories=3, new_head=True,
        exemplars=Exemplars(2, 1),
    )  # fmt: skip
    a, b = resolve(make_curriculum(first, second))
    assert not set(a.categories) & set(b.categories)


def test_a_copy_of_a_folder_has_no_new_classes(make_curriculum, make_phase, tmp_path):
    """Under other names of files and classes, only the content tells."""
    for number, category in enumerate("abcd"):
        draw(tmp_path / "one", category, "0", "1", "2")
        copy = tmp_path / "two" / f"class{number}"
        copy.mkdir(parents=True)
        for name in "012":
            data = (tmp_path / "one" / category / f"{name}.png").read_bytes()
            (copy / f"x{name}.png").write_bytes(data)
    draw(tmp_path / "two", "zebra", "0", "1", "2")
    one, two = (f"folder:{tmp_path}/{name}" for name in ("one", "two"))
    few = {"exemplars": Exemplars(2, 1)}
    first = make_phase("a", objects=one, categories=None, **few)
    second = make_phase("b", objects=two, categories=1, new_head=True, **few)
    assert resolve(make_curriculum(first, second))[1].categories == ("zebra",)
    with pytest.raises(CurriculumError, match="5 classes|2 classes are asked"):
        resolve(make_curriculum(first, dataclasses.replace(second, categories=2)))
    named = dataclasses.replace(second, categories=("class0",))
    with pytest.raises(CurriculumError, match="too few exemplars of 'class0'"):
        resolve(make_curriculum(first, dataclasses.replace(named, exemplars=Exemplars(1, 2))))


def test_cards_know_what_was_trained_on(make_curriculum, make_phase, tmp_path, monkeypatch):
    """Through two runs and another size of objects; files are added and taken away later."""
    monkeypatch.chdir(tmp_path)
    for category in "abcd":
        draw("pics", category, *(f"m{n}" for n in range(10)))
    phase = make_phase(
        objects="folder:pics", categories=None, exemplars=Exemplars(4, 3), steps=2, checkpoints=(0,)
    )
    train(make_curriculum(phase), "first", device="cpu")
    card = list_checkpoints("first")[-1]
    objects, held = card.test_objects()
    trained = set(np.array(objects.ids)[~held])
    assert trained == {f"{c}/m{n}.png" for c in "abcd" for n in range(4)}
    assert card.notes == ()
    # files that come first in the order
    for category in "abcd":
        draw("pics", category, "b0", "b1")
    objects, held = card.test_objects()
    assert set(np.array(objects.ids)[~held]) == trained
    assert not trained & set(np.array(objects.ids)[held])
    assert held.sum() == 12
    # the next run starts from it
    later = dataclasses.replace(phase, name="again", categories=("b", "a", "c", "d"))
    path = str(card.path)
    network = Network("small-cnn", weights=path)
    (found,) = resolve(make_curriculum(later, network=network), past=card.past)
    assert set(found.train.ids) & trained  # again, if one likes
    assert not trained & set(found.held_out.ids)
    train(make_curriculum(later, network=network), "second", device="cpu")
    chained = list_checkpoints("second")[-1].past.pictures["7 on 0,0,0"]
    assert chained >= set(digest_each(found.train)) | card.past.pictures["7 on 0,0,0"]
    # at another size the same pictures count
    canvas = dataclasses.replace(make_curriculum().canvas, object_size=5)
    (found,) = resolve(make_curriculum(later, canvas=canvas), past=card.past)
    assert found.train.size == 5
    assert not trained & set(found.held_out.ids)
    # what was trained on is gone
    for category in "abcd":
        (Path("pics") / category / "m0.png").unlink()
    with pytest.raises(
        ObjectSetError, match="1 of the pictures of '[abcd]' .* not in 'folder:pics'"
    ):
        card.test_objects()


@pytest.mark.parametrize("other", [{"background": 99}, {"object_size": 5}])
def test_pictures_are_known_however_they_were_loaded(other, make_curriculum, make_phase, tmp_path):
    """A picture without alpha is cut out by the colour of the ground, at any size."""
    for number, category in enumerate("abc"):
        for name in range(6):
            picture = np.random.default_rng([number, name]).integers(1, 98, (7, 7, 3), np.uint8)
            picture[0], picture[-1] = 0, 99
            for folder in ("one", "two"):
                (tmp_path / folder / category).mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(tmp_path / folder / category / f"{name}.png")
    one, two = (f"folder:{tmp_path}/{name}" for name in ("one", "two"))
    first = make_phase("a", objects=one, categories=None, exemplars=Exemplars(3, 1))
    (a,) = resolve(make_curriculum(first))
    canvas = dataclasses.replace(make_curriculum().canvas, **other)
    named = make_phase("b", objects=two, categories=("c", "a", "b"), exemplars=Exemplars(1, 3))
    (b,) = resolve(make_curriculum(named, canvas=canvas), past=a.past_after)
    assert b.held_out.ids == tuple(f"{c}/{n}.png" for c in "cab" for n in (3, 4, 5))
    new = dataclasses.replace(named, categories=1, exemplars=Exemplars(1, 1))
    with pytest.raises(CurriculumError, match="1 classes are asked for"):
        resolve(make_curriculum(new, canvas=canvas), past=a.past_after)


def test_classes_of_the_checkpoint_are_not_new(make_curriculum, make_phase, tmp_path):
    phase = make_phase(categories=20, steps=1, checkpoints=(0,))
    train(make_curriculum(phase), tmp_path, device="cpu")
    card = list_checkpoints(tmp_path)[-1]
    after = make_curriculum(dataclasses.replace(phase, categories=10, new_head=True))
    (found,) = resolve(after, past=card.past)
    assert not set(found.categories) & set(card.categories)
    every = dataclasses.replace(phase, categories=None, exemplars=Exemplars(1, 1), new_head=True)
    with pytest.raises(
        CurriculumError, match=r"a class that the checkpoint .* has been trained on"
    ):
        resolve(make_curriculum(every), past=card.past)


def test_cards_of_older_versions_say_so(make_curriculum, make_phase, tmp_path):
    train(make_curriculum(make_phase(steps=1, checkpoints=(0,))), tmp_path, device="cpu")
    path = sorted((tmp_path / "checkpoints").glob("*.json"))[-1]
    table = json.loads(path.read_text())
    for name in ("pictures", "seen", "classes", "passes", "notes", "seal"):
        table.pop(name, None)
    table["encoding_version"] = "0.1"
    path.write_text(json.dumps(table))
    card = list_checkpoints(tmp_path)[-1]
    assert "does not say which pictures it has seen" in card.notes[0]
    _, held = card.test_objects()
    assert held.sum() == 5 * 3
    assert (~held).sum() == 5 * 6


def test_digests_survive_and_damage_is_refused():
    found = [bytes([n] * 6) for n in (3, 1, 2)]
    assert unpack(pack(found)) == set(found)
    assert unpack("") == set()
    for damaged in ("%%%", "AAAA"):
        with pytest.raises(InputError, match="digests of pictures are damaged"):
            unpack(damaged)
