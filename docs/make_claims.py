"""Put the tables of claims into docs/reproduction.md anew: python docs/make_claims.py.

A line `<!-- claims NAME -->` is followed by what `data/claims-NAME.json` says, to the next
`<!-- end -->`.
"""

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
PAGE = DOCS / "reproduction.md"
BLOCK = re.compile(r"(<!-- claims (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
HEAD = (
    "| claim | statistic | pair | value | 95 % interval | holds when | verdict |\n"
    "| --- | --- | --- | ---: | --- | --- | --- |\n"
)


def make_page(page: str) -> str:
    """Return the page with every table of claims made from its data."""
    return BLOCK.sub(lambda found: found[1] + make_tables(found[2]) + found[3], page)


def make_tables(name: str) -> str:
    """Return what the file of claims `name` says: verdicts, and statistics of trained exemplars."""
    found = json.loads((DOCS / "data" / f"claims-{name}.json").read_text())
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


def to_line(row: dict[str, Any]) -> str:
    """Return the line of a statistic."""
    value = "-" if row["value"] is None else f"{row['value']:.2f}"
    low, high = row["interval"] or (None, None)
    interval = "" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"
    cells = (row["claim"], row["statistic"], row["pair"], value, interval)
    holds = f"{row['direction']} {row['threshold']:.2f}"
    return "| " + " | ".join((*cells, holds, row["verdict"])) + " |\n"


if __name__ == "__main__":
    PAGE.write_text(make_page(PAGE.read_text()))
