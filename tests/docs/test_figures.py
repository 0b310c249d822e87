"""The page of figures is what the code makes of it, and lists every kind and option."""

import importlib.util
import re
from pathlib import Path

import pytest
from typer.main import get_command

from elsewhere.cli import app
from elsewhere.figures.kinds import figure_kinds

PATH = Path(__file__).parents[2] / "docs" / "make_figures.py"


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_figures", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_that_of_the_code(maker):
    page = maker.PAGE.read_text(encoding="utf-8")
    assert page == maker.make_page(), "run: python docs/make_figures.py"
    listed = re.findall(r"^\| `([a-z][a-z-]*)` \| ", page, re.MULTILINE)
    assert sorted(listed) == sorted(set(figure_kinds))


def test_every_option_of_the_command_stands_on_the_page(maker):
    page = maker.PAGE.read_text(encoding="utf-8")
    command = get_command(app).commands["figure"]
    options = {name for each in command.params for name in each.opts if name.startswith("--")}
    assert {"--width", "--dpi", "--quantities"} <= options
    assert not {name for name in options - {"--help"} if f"`{name}" not in page}
