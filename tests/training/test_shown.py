"""A curriculum as one TOML file is the same curriculum; what differs from another is said."""

import dataclasses
import tomllib

import pytest

from elsewhere.errors import ExistsError
from elsewhere.training import Augment, Criterion, load_curriculum, presets, train
from elsewhere.training.curriculum import Curriculum
from elsewhere.training.differences import differences
from elsewhere.training.toml import to_toml


def again(curriculum, folder):
    path = folder / "mine.toml"
    path.write_text(to_toml(curriculum.to_dict()), encoding="utf-8")
    return load_curriculum(path)


def test_every_preset_is_the_same_from_its_file(tmp_path):
    for name in presets:
        if name.endswith("/equal-accuracy"):  # starts from whichever of two has learnt more
            continue
        curriculum = load_curriculum(name)
        shown = again(curriculum, tmp_path)
        assert shown == curriculum
        assert shown.fingerprint == curriculum.fingerprint
        assert differences(curriculum, shown) == []


def test_texts_and_tables_of_all_kinds(make_curriculum, make_phase, tmp_path):
    phase = make_phase(
        objects='folder:a "b"\\c\x7f\té', rates={"fc*": 1e-5, "a b": 1e22}, trainable=("fc*", "é"),
        augment=Augment(blur=0.25), criterion=Criterion(0.9, stop=False), axes=("scale=0.5:2:5",),
        categories=("1", "x y"), epochs=0.5, steps=None,
    )  # fmt: skip
    curriculum = make_curriculum(phase, name="a = [b]")
    assert again(curriculum, tmp_path) == curriculum
    assert tomllib.loads(to_toml({"a": {}, "b": [], "c.d": [{"e": [True, -1]}]})) == {
        "a": {}, "b": [], "c.d": [{"e": [True, -1]}],
    }  # fmt: skip


def test_what_differs_from_the_run_in_a_directory_is_said(make_curriculum, make_phase, tmp_path):
    first = make_phase("learn", steps=1, checkpoints=())
    curriculum = make_curriculum(first)
    train(curriculum, tmp_path / "run", device="cpu")
    other = dataclasses.replace(first, steps=2, rates={"fc4": 0.5}, criterion=Criterion(0.5, 1))
    network = dataclasses.replace(curriculum.network, arguments={"channels": "4", "hidden": 12})
    cases = [
        (dataclasses.replace(curriculum, phases=(other,)),
         ["phase learn: steps was 1, is 2", "phase learn: rates.fc4 was not given, is 0.5",
          'criterion was not given, is {"accuracy": 0.5'.replace("criterion", "learn: criterion")]),
        (dataclasses.replace(curriculum, seed=4), ["seed was 0, is 4"]),
        (dataclasses.replace(curriculum, network=network),
         ['network.arguments.channels was "4-8", is "4"', "arguments.dropout was 0.2, is not"]),
        (dataclasses.replace(curriculum, phases=(first, make_phase("more"))), ["more is new"]),
        (dataclasses.replace(curriculum, phases=(make_phase("more"),)), ["phase learn is gone"]),
    ]  # fmt: skip
    for changed, said in cases:
        with pytest.raises(ExistsError, match="holds another run") as raised:
            train(changed, tmp_path / "run", device="cpu")
        assert "\n" not in str(raised.value)
        for words in said:
            assert words in str(raised.value)


def test_an_order_of_phases_is_no_small_thing(make_curriculum, make_phase):
    a, b = make_phase("a", seed=1), make_phase("b")
    assert differences(make_curriculum(a, b), make_curriculum(b, a)) == [
        "the order of the phases was a, b, is b, a"
    ]
    assert isinstance(make_curriculum(a, b), Curriculum)
