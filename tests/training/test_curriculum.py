"""Curricula: reading, refusing with key and line, fingerprints, the seed's choices."""

import dataclasses

import pytest

from elsewhere.errors import CurriculumError, StorageError, UnknownNameError
from elsewhere.training import (
    Choice,
    Criterion,
    Curriculum,
    Network,
    Phase,
    load_curriculum,
    presets,
    resolve,
)

TEXT = """\
name = "test"
seed = 3

[network]
name = "small-cnn"
arguments = { channels = "4-8", hidden = 12 }
gain = 6

[canvas]
size = 16
object_size = 7

[[phase]]
name = "first"
objects = "glyphs"
categories = 4
exemplars = { train = 3, held_out = 2 }
steps = 20
trainable = "all"

[[phase]]
name = "second"
objects = "glyphs"
categories = { skip = 10, count = 4 }
environment = "one"
epochs = 2.5
batch = 4
new_head = true

[phase.criterion]
accuracy = 0.9
window = 10
"""


def write(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_reads_toml(tmp_path):
    curriculum = load_curriculum(write(tmp_path, TEXT))
    assert curriculum.seed == 3
    assert curriculum.network.gain == 6.0
    assert curriculum.canvas.object_size == 7
    first, second = curriculum.phases
    assert first.trainable == ("all",)
    assert second.categories == Choice(count=4, skip=10)
    assert second.criterion == Criterion(0.9, window=10)
    assert second.n_steps(12) == 8


def test_dictionary_round_trip(tmp_path, two_phases):
    for curriculum in (load_curriculum(write(tmp_path, TEXT)), two_phases):
        again = Curriculum.from_dict(curriculum.to_dict())
        assert again == curriculum
        assert again.fingerprint == curriculum.fingerprint


def test_fingerprint_covers_all_but_the_seed(curriculum, make_phase, make_curriculum):
    assert curriculum.fingerprint == dataclasses.replace(curriculum, seed=9).fingerprint
    for other in (
        make_curriculum(make_phase(learning_rate=2e-3)),
        make_curriculum(network=Network("small-cnn", gain=4.0)),
        make_curriculum(
            make_phase(), make_phase("again", categories=None, same_categories_as="learn")
        ),
    ):
        assert other.fingerprint != curriculum.fingerprint


def test_fingerprint_follows_the_content_of_weights(tmp_path, make_curriculum):
    prints = []
    for name, content in (("a.pth", b"1"), ("b.pth", b"1"), ("c.pth", b"2")):
        (tmp_path / name).write_bytes(content)
        network = Network("small-cnn", weights=str(tmp_path / name))
        prints.append(make_curriculum(network=network).fingerprint)
    assert prints[0] == prints[1] != prints[2]


def replaced(old, new):
    assert old in TEXT
    return TEXT.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (replaced("steps = 20", "stepz = 20"), 18, "unknown key 'stepz'"),
        (replaced("gain = 6", "gian = 6"), 7, "unknown key 'gian' in network; nearest: gain"),
        (replaced("seed = 3", "sead = 3"), 2, "nearest: seed"),
        (replaced("held_out = 2", "held = 2"), 17, "unknown key 'held'"),
        (replaced("steps = 20", "steps = 'x'"), 18, "expected a whole number"),
        (replaced("steps = 20", "steps = 0"), 18, "1 or more"),
        (replaced("steps = 20", "epochs = -1"), 18, "above 0"),
        (replaced("batch = 4", "batch = true"), 27, "expected a whole number"),
        (replaced("batch = 4", "steps = 4"), 27, "either steps or epochs"),
        (replaced("batch = 4", "optimiser = 'adma'"), 27, "one of adam, adamw, sgd"),
        (replaced("accuracy = 0.9", "accuracy = 1.9"), 31, "up to 1"),
        (replaced("object_size = 7", "object_size = 70"), 9, "does not fit on a canvas"),
        (replaced("count = 4 }", "count = 0 }"), 24, "1 or more"),
        (replaced("new_head = true", "after = 'frist'"), 28, "no earlier phase 'frist'"),
        (replaced('name = "second"', 'name = "First"'), 22, "two phases"),
        (replaced('name = "second"', 'name = "a/b"'), 22, "letters, digits"),
        (replaced('name = "small-cnn"\n', ""), 4, "'name' is missing"),
        (replaced("steps = 20", "steps = "), 18, "not valid TOML"),
    ],
)
def test_refuses_with_key_and_line(tmp_path, text, line, words):
    with pytest.raises(CurriculumError, match=words) as caught:
        load_curriculum(write(tmp_path, text))
    assert f"line {line}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (replaced('objects = "glyphs"', 'objects = "glifs"'), 15, "unknown object set 'glifs'"),
        (replaced('environment = "one"', 'environment = "onn"'), 25, "unknown environment"),
        (replaced('environment = "one"', 'environment = "one:1,8"'), 25, "off the canvas"),
        (replaced("categories = 4", "categories = 4000"), 16, "4000 classes"),
        (replaced("skip = 10", "skip = 339"), 24, "339"),
        (replaced("skip = 10", "skip = 2"), 24, "already"),
        (replaced("categories = 4", "categories = ['latin_aa']"), 16, "does not have"),
    ],
)
def test_resolving_refuses_with_key_and_line(tmp_path, text, line, words):
    curriculum = load_curriculum(write(tmp_path, text))
    with pytest.raises(CurriculumError, match=words) as caught:
        resolve(curriculum)
    assert f"line {line}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refuses_from_python(make_phase, make_curriculum):
    for options in (
        {"steps": None},
        {"epochs": 1.0},
        {"batch": 0},
        {"learning_rate": 0.0},
        {"ema": 1.0},
        {"name": "none"},
        {"rates": {"fc*": 0.0}},
        {"same_categories_as": "x"},
    ):
        with pytest.raises(CurriculumError):
            make_phase(**options)
    with pytest.raises(CurriculumError, match="at least one"):
        make_curriculum(phases=())


def test_unknown_curriculum(tmp_path):
    with pytest.raises(UnknownNameError, match="nearest: .*/vanilla"):
        load_curriculum("vanila")
    with pytest.raises(StorageError, match="no file"):
        load_curriculum(tmp_path / "none.toml")
    with pytest.raises(StorageError, match="no run"):
        Curriculum.load_run(tmp_path)


@pytest.mark.parametrize("name", [name for name in presets if "equal-accuracy" not in name])
def test_presets_load(name):
    curriculum = load_curriculum(name)
    assert curriculum.name == name.partition("/")[2]
    assert Curriculum.from_dict(curriculum.to_dict()) == curriculum


def classes(curriculum, seed=0):
    return [phase.categories for phase in resolve(dataclasses.replace(curriculum, seed=seed))]


def test_the_seed_chooses_classes_that_differ_between_phases(make_phase, make_curriculum):
    curriculum = make_curriculum(
        make_phase("a", categories=6),
        make_phase("b", categories=6),
        make_phase("c", same_categories_as="b", categories=None),
    )
    a, b, c = classes(curriculum)
    assert not set(a) & set(b)
    assert b == c
    assert classes(curriculum)[0] == a != classes(curriculum, seed=1)[0]


def test_skipped_classes_are_those_another_curriculum_gets(make_phase, make_curriculum):
    whole = make_curriculum(make_phase("a", categories=6), make_phase("b", categories=4))
    part = make_curriculum(make_phase("b", categories=Choice(skip=6, count=4)))
    assert classes(whole)[1] == classes(part)[0]


def test_phases_hold_different_exemplars_for_training_and_test(make_curriculum):
    phase = resolve(make_curriculum())[0]
    assert len(phase.train) == 30
    assert len(phase.held_out) == 15
    assert not set(phase.train.ids) & set(phase.held_out.ids)
    assert phase.train.category_names == phase.held_out.category_names == phase.categories


def test_phase_is_frozen(make_phase):
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_phase().steps = 3
    assert isinstance(make_phase(), Phase)


@pytest.mark.parametrize(
    "text",
    [
        ".".join("a" * 50_000) + " = 1\n",
        "[" + " . ".join(['"a b"'] * 5_000) + "]\n",
        "x = {" + ".".join(["'a'"] * 5_000) + " = 1}\n",
    ],
    ids=["key", "header", "inline"],
)
def test_keys_of_very_many_parts_are_refused_at_once(tmp_path, text, monkeypatch):
    """tomllib takes minutes and gigabytes for them."""
    monkeypatch.setattr("tomllib.loads", lambda _: pytest.fail("it was read"))
    path = write(tmp_path, '# made\nname = "x"\n' + text)
    with pytest.raises(CurriculumError, match="line 3: a key of more than 32 parts"):
        load_curriculum(path)


def test_dots_in_texts_and_numbers_are_no_parts_of_keys(tmp_path):
    text = TEXT.replace("seed = 3", f"seed = 3 # {'1.5, ' * 50}{'....' * 20} see{' a.b' * 50}")
    assert load_curriculum(write(tmp_path, text)) == load_curriculum(write(tmp_path, TEXT))
