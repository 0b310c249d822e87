"""The tables of docs/measures.md that say what intervals are over: of every measure registered."""

from pathlib import Path

import pytest

from elsewhere.measures import measures

PAGE = Path(__file__).parents[2].joinpath("docs", "measures.md").read_text()


def rows_of(title):
    """Return the cells of the first table after a title, without its head."""
    lines = PAGE.split(f"{title}\n", 1)[1].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


@pytest.mark.parametrize("name", list(measures))
def test_every_measure_has_its_unit_its_smallest_number_and_its_limits(name):
    rows = [row for row in rows_of("### What each interval is over") if f"`{name}`" in row[0]]
    assert len(rows) == 1, f"docs/measures.md has {len(rows)} rows for {name}; expected one"
    _, unit, smallest, limits = rows[0]
    assert unit
    assert limits
    assert bool(smallest) == (unit != "no interval")


@pytest.mark.parametrize("name", list(measures))
def test_the_coverage_of_every_interval_is_there_or_said_to_be_missing(name):
    over = next(row for row in rows_of("### What each interval is over") if f"`{name}`" in row[0])
    simulated = {row[0] for row in rows_of("### Coverage")}
    said = PAGE.split("Not simulated:", 1)[1].split("\n\n", 1)[0]
    assert (
        over[1] == "no interval"
        or measures.get(name).headline in simulated
        or any(row.startswith(f"{name}:") or row == f"cosine_{name}_away" for row in simulated)
        or f"`{name}`" in said
    )
