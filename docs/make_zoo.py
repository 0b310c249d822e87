"""Writes the tables of docs/zoo.md from docs/data/zoo-*.csv: `python docs/make_zoo.py`.

A test compares them. Each table stands between two marks that name the source; what was asked
stands in `zoo-SOURCE.names.json` beside the table, as `python -m benchmarks.zoo` leaves it.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

PAGE = Path(__file__).with_name("zoo.md")
DATA = Path(__file__).with_name("data")

EQUAL = 1e-5
"""The largest difference from plain hooks, as a share of a layer's largest value."""

_TABLE = re.compile(
    r"(<!-- table of (?P<source>\w+) -->\n)(?P<held>.*?)(<!-- end of table -->)", re.S
)
_COLUMNS = {
    "network": "network",
    "parameters": "parameters, millions",
    "canvas": "canvas, px",
    "layers": "layers",
    "maps": "maps",
    "tokens": "tokens",
    "unknown": "unknown",
    "engine": "engine",
    "difference": "difference",
    "aligned": "aligned",
    "grad_cam": "Grad-CAM",
    "seconds": "s",
}


def make_page(page: str) -> str:
    """Return the page with its tables made anew."""

    def fill(match: re.Match[str]) -> str:
        source = match["source"]
        with (DATA / f"zoo-{source}.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        asked = json.loads((DATA / f"zoo-{source}.names.json").read_text(encoding="utf-8"))
        return f"{match[1]}\n{make_tables(rows, len(asked))}\n{match[4]}"

    return _TABLE.sub(fill, page)


def make_tables(rows: Sequence[Mapping[str, str]], asked: int) -> str:
    """Return what was found of so many networks, in Markdown: a sentence, failures, a table."""
    if not rows:
        return f"No network of these {asked} has been asked yet.\n"
    passed = [row for row in rows if passes(row)]
    aligned = sum(has_aligned(row) for row in passed)
    cam = sum(has_cam(row) for row in passed)
    said = (
        f"**{len(passed)} of {len(rows)} networks ({len(passed) / len(rows):.1%}) pass**: "
        "they are listed, recorded, and equal to plain hooks within 1e-5. Of these, "
        f"{aligned} have aligned cosines and {cam} a Grad-CAM; the others are refused in a line."
    )
    if len(rows) < asked:
        said = f"The table is not complete: {len(rows)} of {asked} networks were asked. {said}"
    lines = [said, ""]
    if failed := [row for row in rows if not passes(row)]:
        lines += ["| did not pass | reason |", "| --- | --- |"]
        lines += [f"| `{row['network']}` | {_plain(reason(row))} |" for row in failed]
        lines += [""]
    lines += [f"| {' | '.join(_COLUMNS.values())} |", f"|{' --- |' * len(_COLUMNS)}"]
    lines += [f"| {' | '.join(_cell(row, key) for key in _COLUMNS)} |" for row in passed]
    return "\n".join(lines) + "\n"


def passes(row: Mapping[str, str]) -> bool:
    """Return whether a network went through, with the values that plain hooks see."""
    return not row["failure"] and float(row["difference"]) <= EQUAL


def has_aligned(row: Mapping[str, str]) -> bool:
    """Return whether any of the layers that were recorded has an aligned cosine."""
    return not row["aligned"].startswith(("refused", "0 of"))


def has_cam(row: Mapping[str, str]) -> bool:
    """Return whether some layer has a Grad-CAM that is not empty."""
    return not row["grad_cam"].startswith(("refused", "empty"))


def reason(row: Mapping[str, str]) -> str:
    """Return why a network did not pass."""
    if row["failure"]:
        return row["failure"]
    said = f"comparing: values differ from plain hooks' by {row['difference']}"
    if row["float32"]:
        said += f"; these differ from the same in float64 by {row['float32']}"
    return said


def _cell(row: Mapping[str, str], key: str) -> str:
    text = row[key]
    if key == "network":
        return f"`{text}`"
    if key == "parameters":
        return f"{int(text) / 1e6:.1f}"
    if key == "aligned":
        return text.removesuffix(" layers") if has_aligned(row) else "–"
    if key == "grad_cam":
        return f"`{text}`" if has_cam(row) else "–"
    return text


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(make_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
