"""docs/architecture.md: what it names is there, and nothing of the house is left out."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOUSE = ROOT / "elsewhere"
TEXT = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
TABLE = TEXT.split("## To change X")[1].split("## Glossary")[0]
NAMED = re.findall(r"`([\w/.-]+(?:/|\.\w+))`", TABLE)


def test_what_the_table_names_is_there():
    assert len(NAMED) > 40
    gone = [name for name in NAMED if not any((at / name).exists() for at in (HOUSE, ROOT))]
    assert not gone


def test_what_the_picture_names_is_there():
    picture = TEXT.split("```")[1]
    named = re.findall(r"[a-z]+/[a-z]+\.py|\b[a-z]+\.py", picture)
    assert len(named) > 4
    assert [name for name in named if not (HOUSE / name).exists()] == []


@pytest.mark.parametrize(
    "room", sorted(each.name for each in HOUSE.iterdir() if (each / "__init__.py").exists())
)
def test_every_room_stands_in_the_table(room):
    assert any(name.startswith(f"{room}/") for name in NAMED)


def test_the_glossary_is_short_and_in_order():
    words = re.findall(r"^\| `?([\w]+)`? \|", TEXT.split("## Glossary")[1], re.M)[1:]
    assert 25 <= len(words) <= 35
    assert words == sorted(words, key=str.lower)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_it_is_linked(page):
    assert "(docs/architecture.md)" in (ROOT / page).read_text(encoding="utf-8")


def test_no_two_public_classes_share_a_name():
    where = defaultdict(list)
    for path in HOUSE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                where[node.name].append(path.relative_to(ROOT).as_posix())
    assert {name: paths for name, paths in where.items() if len(paths) > 1} == {}
