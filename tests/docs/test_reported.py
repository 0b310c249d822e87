"""Tables of claims in the docs: from seeds that nothing was tuned on, and as they were found."""

import importlib.util
import json
import math
import re
from pathlib import Path

import pytest

from elsewhere.measures.claims import verdict
from elsewhere.reproduction import load_scale, scales

DOCS = Path(__file__).parents[2] / "docs"
REPORTED = sorted((DOCS / "data").glob("claims-*.json"))
DRAWN_BY_FIRST_READING = range(100, 110)
"""Their table stands in the docs as it was found; the file was not kept."""


def text():
    return (DOCS / "reproduction.md").read_text(encoding="utf-8")


def stands(found, written, system):
    """Whether a statistic is a row of a table, or a cell of one with a column for each system."""
    low, high = found["interval"]
    value = "-" if found["value"] is None else f"{found['value']:.2f}"
    interval = "" if low is None else f"[{low:.2f}, {high:.2f}]"
    holds, said = f"{found['direction']} {found['threshold']:.2f}", found["verdict"]
    named = f"| {found['claim']} | {found['statistic']} | {found['pair']} | "
    alone = re.sub(" +", " ", f"{named}{value} | {interval} | {holds} | {said} |")
    for table in written.split("\n\n"):
        lines = table.splitlines()
        if alone in lines:
            return True
        heads = next((line.split(" | ") for line in lines if "holds when |" in line), [])
        of = [n for n, head in enumerate(heads) if head.startswith(f"{system}, ")]
        for line in lines:
            if of and line.startswith(f"{named}{holds} | "):
                return line.strip("| ").split(" | ")[of[0]] == f"{value} {interval} {said}"
    return False


@pytest.mark.parametrize("path", REPORTED, ids=lambda path: path.stem)
def test_a_reported_table_is_of_seeds_that_nothing_was_tuned_on(path):
    table = json.loads(path.read_text(encoding="utf-8"))
    assert not table["development"]
    assert not {*table["seeds"]} & {*load_scale(table["scale"]).tuned_on, *table["tuned_on"]}
    assert path.stat().st_size < 200_000


@pytest.mark.parametrize("path", REPORTED, ids=lambda path: path.stem)
def test_a_reported_table_stands_in_the_docs_as_it_was_found(path):
    table, written = json.loads(path.read_text(encoding="utf-8")), re.sub(" +", " ", text())
    for found in table["claims"]:
        values = [math.nan if value is None else value for value in found["values"]]
        assert found["verdict"] == verdict(values, found["threshold"], found["direction"])
        if found["decides"]:
            assert stands(found, written, found["system"].split(":")[0]), found["statistic"]


def test_every_table_of_seeds_names_its_file_or_says_that_there_is_none():
    for first, last in re.findall(r"^### .*seeds (\d+) to (\d+)$", text(), re.MULTILINE):
        seeds = range(int(first), int(last) + 1)
        for scale in scales:
            assert not {*seeds} & {*load_scale(scale).tuned_on}
        if seeds == DRAWN_BY_FIRST_READING:
            continue
        section = text().split(f"seeds {first} to {last}\n", 1)[1].split("\n### ", 1)[0]
        assert f"data/claims-laptop-{first}.json" in section or "is not finished" in section


def test_the_tables_of_systems_are_made_from_their_files():
    spec = importlib.util.spec_from_file_location("make_systems", DOCS / "make_systems.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    page = maker.PAGE.read_text(encoding="utf-8")
    assert page == maker.make_page(page), "run: python docs/make_systems.py"
    for path in (DOCS / "data").glob("systems-*.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        assert f"table of {path.name}" in page
        for table in found["systems"]:
            assert not table["development"]
            for row in table["claims"]:
                values = [math.nan if value is None else value for value in row["values"]]
                assert row["verdict"] == verdict(values, row["threshold"], row["direction"])


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ([0.6, 0.9], "yes"),
        ([-0.02, 0.08], "no"),
        ([0.3, 0.9], "in part, or undecided"),
        ([None, None], "one seed"),
    ],
)
def test_invariant_by_architecture_takes_the_whole_interval(interval, said):
    spec = importlib.util.spec_from_file_location("make_systems", DOCS / "make_systems.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert maker.by_architecture({"value": 0.5, "interval": interval, "threshold": 0.1}) == said
    assert maker.by_architecture(None) == "not measurable"
