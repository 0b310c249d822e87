"""The page on which measure answers which question says what the registries say."""

import csv
from pathlib import Path

import numpy as np
import pytest

import elsewhere
import elsewhere.measures
from elsewhere.analyzer.attribution.methods import methods
from elsewhere.errors import ElsewhereError
from elsewhere.measures import measures
from elsewhere.probes.kinds import probe_kinds

PAGE = Path(__file__).parents[2] / "docs" / "which-measure.md"
BUILT_IN = [
    name for name in measures if measures.get(name).function.__module__.startswith("elsewhere.")
]


def row(name):
    entry = measures.get(name)
    said = (entry.question, entry.can, entry.cannot, entry.direction, entry.range, entry.chance)
    return f"| `{name}` | {' | '.join(said)} | {entry.least} |"


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def named(text):
    return {
        cells(line)[0].strip("`"): cells(line)
        for line in text.splitlines()
        if line.startswith("| `")
    }


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_measure_has_its_row(name):
    entry = measures.get(name)
    assert all(
        (entry.question, entry.can, entry.cannot, entry.direction, entry.range, entry.chance)
    )
    assert row(name) in PAGE.read_text(), f"\n{row(name)}"


def test_probes_and_attribution_have_theirs():
    text = PAGE.read_text()
    _, probes, attribution, ways = text.split("\n## ")[1:5]
    file = Path(elsewhere.measures.__file__).with_name("variables.csv")
    rows = csv.DictReader(file.read_text().splitlines(), delimiter="|", quoting=csv.QUOTE_NONE)
    known = {(each["kind"], each["name"]): each for each in rows}
    for family, part in (("probe", probes), ("attribution", attribution)):
        for name, said in named(part).items():
            kind = "attribution sanity" if name == "likeness" else family
            told = known[kind, name]
            assert said[4:7] == [told["direction"], told["range"], told["chance"]], name
    assert set(named(ways)) == {*probe_kinds, *methods}


@pytest.mark.parametrize(
    "name", [name for name in BUILT_IN if measures.get(name).taken != "accuracy"]
)
def test_the_smallest_number_of_objects(name):
    entry, rng = measures.get(name), np.random.default_rng(0)
    if entry.comes_with or entry.maps or entry.kind:
        return

    def value(n):
        codes = rng.standard_normal((n, 4, 30))
        places = [(0, 0), (0, 8), (8, 0), (8, 8)]
        try:
            found = elsewhere.measure(
                codes,
                places,
                names=name,
                empty=np.zeros(30),
                categories=[f"c{i}" for i in range(n)],
            )
        except (ElsewhereError, RuntimeWarning):  # of a mean of nothing
            return np.nan
        return float(found[entry.headline].values[0])

    assert np.isfinite(value(entry.least))
    if name != "partition":  # the share of one object is 0, and says nothing
        assert entry.least == 1 or not np.isfinite(value(entry.least - 1))
