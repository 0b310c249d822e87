"""What README and docs say: commands parse, links resolve, versions agree."""

from __future__ import annotations

import fnmatch
import importlib.util
import re
import shlex
import sys
import tomllib
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

import elsewhere
from elsewhere.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def arguments(line):
    """Return the words of a command line, up to a pipe or redirection."""
    words = shlex.split(line, comments=True)
    stops = [place for place, word in enumerate(words) if word in ("|", ">", "&&")]
    return words[: stops[0] if stops else None]


def fenced_commands(text):
    """Return the words after ``elsewhere`` of every command in a fenced block."""
    found = []
    for language, block in FENCE.findall(text):
        if language in ("", "console", "sh", "bash"):
            for line in re.sub(r"\\\n *", " ", block).splitlines():
                match = re.match(r" *(?:\$ )?(?:\.venv/bin/)?elsewhere (.*)", line)
                found += [arguments(match.group(1))] if match else []
    return found


def inline_commands(text):
    """Return the words after ``elsewhere`` of every command in the prose."""
    prose = FENCE.sub("", text)
    return [arguments(words) for words in re.findall(r"`elsewhere\s+([^`]+)`", prose)]


def parse(words, *, whole):
    """Parse a command line without running it; unless `whole`, arguments may be missing."""
    group = typer.main.get_command(app)
    command = group.commands.get(words[0])
    if command is None:
        assert words == ["--help"], f"unknown command {words[0]}"
        return
    if not whole:
        known = {name for option in command.params for name in option.opts} | {"--help"}
        assert {word.split("=")[0] for word in words[1:] if word.startswith("-")} <= known
        return
    command.make_context(words[0], list(words[1:]))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_parses(page):
    text = page.read_text(encoding="utf-8")
    for words in fenced_commands(text):
        try:
            parse(words, whole=True)
        except click.exceptions.Exit:
            pass
        except Exception as error:
            raise AssertionError(
                f"{name_of(page)}: elsewhere {shlex.join(words)}: {error}"
            ) from error
    for words in inline_commands(text):
        parse(words, whole=False)


def test_the_readme_names_every_command():
    text = (ROOT / "README.md").read_text("utf-8")
    named = {words[0] for words in fenced_commands(text) + inline_commands(text)}
    assert named == set(typer.main.get_command(app).commands)


def test_wrong_commands_would_be_noticed():
    text = "```console\n$ elsewhere record vgg16 --gird 7x7 --out run.h5 | head\n```\n"
    (words,) = fenced_commands(text)
    assert words == ["record", "vgg16", "--gird", "7x7", "--out", "run.h5"]
    with pytest.raises(Exception, match="No such option"):
        parse(words, whole=True)
    (words,) = inline_commands("see `elsewhere plan --frid 3x3`")
    with pytest.raises(AssertionError):
        parse(words, whole=False)


def test_the_gallery_is_as_it_is_made():
    specification = importlib.util.spec_from_file_location(
        "make_gallery", ROOT / "docs" / "make_gallery.py"
    )
    made = importlib.util.module_from_spec(specification)
    sys.modules["make_gallery"] = made  # a dataclass looks its module up
    specification.loader.exec_module(made)
    del sys.modules["make_gallery"]
    assert made.PAGE.read_text("utf-8") == made.page()
    pictures = {path.stem: path.stat().st_size for path in made.PICTURES.iterdir()}
    assert set(pictures) == {picture.name for picture in made.PICTURE}
    assert max(pictures.values()) < 200_000
    # each picture is what the last of its commands draws
    for picture in made.PICTURE:
        assert picture.commands[-1].endswith(f"--out {picture.name}.png")


@pytest.mark.parametrize("page", ["README.md", "docs/gallery.md", "docs/which-measure.md"])
def test_a_page_on_a_real_network_says_what_to_do_without_it(page):
    text = (ROOT / page).read_text("utf-8")
    shown = [words for words in fenced_commands(text) if "imagenet" in words]
    assert any("efficientnet-lite0" in words for words in shown)
    # the layers that are named are there
    known = CliRunner().invoke(app, ["layers", "efficientnet-lite0"]).output
    for words in shown:
        if "--layers" in words:
            for name in words[words.index("--layers") + 1].split(","):
                assert fnmatch.filter(known.split(), name), name
    assert re.search("without the extra", text, re.IGNORECASE)


def slug(heading):
    """Return the anchor that a heading gets on the web."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page):
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if link.startswith("http"):
            continue
        target, _, anchor = link.partition("#")
        path = page.parent / target if target else page
        assert path.exists(), f"{name_of(page)} links to {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{name_of(page)} links to {link}"


def test_the_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert project["version"] == elsewhere.__version__
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [elsewhere.__version__]
    assert project["license"] == "MIT"
    assert re.findall(r"^license: (.*)$", citation, re.MULTILINE) == ["MIT"]
    assert (ROOT / "LICENSE").read_text("utf-8").startswith("MIT License")


def test_every_decision_is_numbered_and_says_its_price():
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [int(record.name[:4]) for record in records]
    assert numbers == list(range(1, len(records) + 1))
    for number, record in zip(numbers, records, strict=True):
        text = record.read_text("utf-8")
        assert text.startswith(f"# {number}. ")
        for part in ("Question", "Decision", "Price"):
            assert f"\n## {part}\n" in text


def test_the_oldest_pair_that_is_tested_is_the_bound():
    bounds = re.findall(r'"(torch|torchvision)>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    (pair,) = re.findall(r"OLDEST_PAIR := (.+)", (ROOT / "Makefile").read_text())
    assert len(bounds) == 2
    for name, bound in bounds:
        assert f"{name}=={bound}." in pair
