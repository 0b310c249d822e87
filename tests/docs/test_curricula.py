"""The page of curricula is what the code makes of it, and its examples are what it says."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from elsewhere.stimuli import Canvas
from elsewhere.training import environments, load_curriculum, make_placement, resolve
from elsewhere.training.toml import TomlSource, convert

PATH = Path(__file__).parents[2] / "docs" / "make_curricula.py"


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_curricula", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_that_of_the_code(maker):
    page = maker.PAGE.read_text(encoding="utf-8")
    assert page == maker.make_page(), "run: python docs/make_curricula.py"
    for _, kind, _ in maker.TABLES:
        for key in maker.EXAMPLES[kind]:
            assert f"\n| `{key}` | " in page


def test_every_example_is_read(maker, tmp_path):
    needed = {
        maker.Phase: {"name": "a", "objects": "digits", "steps": 5, "optimiser": "sgd"},
        maker.Network: {"name": "vgg16"}, maker.Choice: {"count": 1},
        maker.Criterion: {"accuracy": 0.5}, maker.Canvas: {"object_size": 11},
    }  # fmt: skip
    for kind, examples in maker.EXAMPLES.items():
        for key, text in examples.items():
            value = tomllib.loads(f"{key} = {text}")
            if kind is maker.Curriculum:
                assert type(value[key]) in (str, int)
                continue
            table = needed.get(kind, {}) | value
            if key == "epochs":
                del table["steps"]
            made = convert(table, kind, (), TomlSource())
            assert getattr(made, key) != maker.dataclasses.MISSING
    (tmp_path / "mine.toml").write_text(maker.EXAMPLE)
    phases = resolve(load_curriculum(tmp_path / "mine.toml"))
    assert [phase.placement.spec for phase in phases] == ["full", "one"]


def test_every_environment_has_examples(maker):
    assert {*maker.ENVIRONMENTS} == {*environments}
    for examples in maker.ENVIRONMENTS.values():
        for example in examples:
            placement = make_placement(
                example, Canvas(48, 11), n_classes=8, n_exemplars=4, drawn=(24, 5)
            )
            assert len(placement.locations(0))
    page = maker.PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"^\| `(\w+[^`]*)`(?:, `[^`]+`)* \| [^|]+ \|$", page, re.M)
    assert {name.partition(":")[0] for name in environments} <= {
        name.partition(":")[0] for name in shown
    }
