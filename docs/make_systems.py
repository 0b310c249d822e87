"""Writes the tables of docs/comparison.md from claims files: `python docs/make_systems.py`.

A test compares them. Each table stands between two marks that name a file of docs/data, which is
the claims.json of `elsewhere reproduce --systems`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("comparison.md")
DATA = Path(__file__).with_name("data")

COLUMNS = {
    "from random weights": ("C1", "II_far, vanilla"),
    "after training everywhere": ("C3", "II_far, acquired"),
    "after training with tied places": ("C4", "II_far, fixed, same steps"),
    "lost by further training": ("C6", "fall of II_far"),
}
"""What stands in the table of each system, by claim and statistic."""

INVARIANT = 0.5
"""II_far from random weights above which, with its whole interval, a network is invariant by
architecture; it is not where the whole interval is below C1's threshold."""

_TABLE = re.compile(
    r"(<!-- table of (?P<name>[\w-]+\.json) -->\n)(?P<held>.*?)(<!-- end of table -->)", re.S
)


def make_page(page: str) -> str:
    """Return the page with its tables made anew."""

    def fill(match: re.Match[str]) -> str:
        path = DATA / match["name"]
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        return f"{match[1]}{make_table(found, match['name'])}{match[4]}"

    return _TABLE.sub(fill, page)


def make_table(found: Mapping[str, Any] | None, name: str) -> str:
    """Return the table of a claims file, in Markdown; a sentence where there is none."""
    if found is None:
        return f"\nThe run is not finished: `docs/data/{name}` is not there yet.\n\n"
    seeds = sorted({seed for table in found["systems"] for seed in table["seeds"]})
    head = ["system", *COLUMNS, "invariant by architecture", "learns it (C3)", "forgets it (C6)"]
    rows = [head, ["---"] * len(head)]
    for table in found["systems"]:
        cells = {name: _row(table, *asked) for name, asked in COLUMNS.items()}
        rows.append(
            [
                f"`{table['name']}` ({table['system'].partition(' at ')[0]})",
                *map(_cell, cells.values()),
                by_architecture(cells["from random weights"]),
                _verdict(table, "C3"),
                _verdict(table, "C6"),
            ]
        )
    lines = [f"| {' | '.join(row)} |" for row in rows]
    named = ", ".join(map(str, seeds))
    said = [f"Seeds {named}; mean and 95 % t interval over them, the same exemplars elsewhere."]
    for table in found["systems"]:
        said += [f"`{table['name']}`, {reason}." for reason in table["refused"]]
    return "\n" + "\n".join([*lines, "", *said]) + "\n\n"


def by_architecture(row: Mapping[str, Any] | None) -> str:
    """Return whether a network is invariant without having been trained everywhere."""
    if row is None or row["value"] is None:
        return "not measurable"
    low, high = row["interval"]
    if low is None:
        return "one seed"
    if low > INVARIANT:
        return "yes"
    return "no" if high < row["threshold"] else "in part, or undecided"


def _row(table: Mapping[str, Any], claim: str, statistic: str) -> Mapping[str, Any] | None:
    """Return the row of a statistic that decides its claim."""
    found = [
        row
        for row in table["claims"]
        if row["claim"] == claim and row["statistic"] == statistic and row["decides"]
    ]
    return found[0] if found else None


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return "–"
    low, high = row["interval"]
    bounds = "" if low is None else f" [{low:.2f}, {high:.2f}]"
    return f"{row['value']:.2f}{bounds}"


def _verdict(table: Mapping[str, Any], claim: str) -> str:
    return str(table["summary"].get(claim, {}).get("verdict", "not run"))


if __name__ == "__main__":
    PAGE.write_text(make_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
