"""Put the tables of claims into docs/reproduction.md anew: python docs/make_claims.py.

A line `<!-- claims NAME -->` is followed by what `data/claims-NAME.json` says, to the next
`<!-- end -->`; a line of several names by one table with a column for each of them.
"""

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
PAGE = DOCS / "reproduction.md"
BLOCK = re.compile(r"(<!-- claims (\S[^>]*) -->\n).*?(<!-- end -->)", re.DOTALL)
HEAD = (
    "| claim | statistic | pair | value | 95 % interval | holds when | verdict |\n"
    "| --- | --- | --- | ---: | --- | --- | --- |\n"
)


def make_page(page: str) -> str:
    """Return the page with every table of claims made from its data."""
    return BLOCK.sub(lambda found: found[1] + make_block(found[2].split()) + found[3], page)


def make_block(names: list[str]) -> str:
    """Return the tables of one file of claims, or the table of several."""
    files = [json.loads((DOCS / "data" / f"claims-{name}.json").read_text()) for name in names]
    return make_tables(files[0]) if len(files) == 1 else make_side_by_side(files)


def make_side_by_side(files: list[dict[str, Any]]) -> str:
    """Return the statistics of trained exemplars, one column for each system."""
    systems = [f"{found['system'].split(':')[0]}, {len(found['seeds'])} seeds" for found in files]
    lines = [
        f"| claim | statistic | pair | holds when | {' | '.join(systems)} |\n",
        f"| --- | --- | --- | --- |{' --- |' * len(files)}\n",
    ]
    of = [
        {key_of(row): row for row in found["claims"] if row["exemplars"] != "held-out"}
        for found in files
    ]
    lines += [
        f"| {' | '.join(key)} | {row['direction']} {row['threshold']:.2f} | "
        + " | ".join(to_cell(rows.get(key)) for rows in of)
        + " |\n"
        for key, row in of[0].items()
    ]
    return "".join(lines)


def make_tables(found: dict[str, Any]) -> str:
    """Return what a file of claims says: verdicts, and statistics of trained exemplars."""
    asked = {row["claim"] for row in found["claims"]}
    verdicts = {claim: entry for claim, entry in found["summary"].items() if claim in asked}
    lines = ["| claim | | verdict |\n| --- | --- | --- |\n"]
    for claim, entry in verdicts.items():
        parts = ", ".join(f"{part}: {verdict}" for part, verdict in entry["parts"].items())
        verdict = f"**{entry['verdict']}**" + (f" ({parts})" if parts else "")
        lines.append(f"| {claim} | {entry['statement']} | {verdict} |\n")
    notes = [f"- {claim}: {entry['note']}.\n" for claim, entry in verdicts.items() if entry["note"]]
    same = [row for row in found["claims"] if row["exemplars"] != "held-out"]
    decides = "".join(to_line(row) for row in same if row["decides"])
    beside = "".join(to_line(row) for row in same if not row["decides"])
    text = "".join(lines) + "".join(["\n", *notes] if notes else []) + "\n" + HEAD + decides
    if beside:
        text += (
            "\nReported beside, deciding nothing (the exemplars that were trained on; held-out "
            f"ones are in the file):\n\n{HEAD}{beside}"
        )
    return text


def key_of(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["claim"], row["statistic"], row["pair"]


def to_numbers(row: dict[str, Any]) -> tuple[str, str]:
    """Return the value of a statistic and its interval as text."""
    value = "-" if row["value"] is None else f"{row['value']:.2f}"
    low, high = row["interval"] or (None, None)
    return value, "" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"


def to_cell(row: dict[str, Any] | None) -> str:
    return "not asked" if row is None else f"{' '.join(to_numbers(row))} {row['verdict']}"


def to_line(row: dict[str, Any]) -> str:
    """Return the line of a statistic."""
    cells = (*key_of(row), *to_numbers(row))
    holds = f"{row['direction']} {row['threshold']:.2f}"
    return "| " + " | ".join((*cells, holds, row["verdict"])) + " |\n"


if __name__ == "__main__":
    PAGE.write_text(make_page(PAGE.read_text()))
