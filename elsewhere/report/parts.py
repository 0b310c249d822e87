"""What sections of a report are made of: figures, tables, numbers that say where they come from."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import matplotlib
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from elsewhere.errors import ElsewhereError
from elsewhere.report.fields import axis_labels
from elsewhere.report.material import Item
from elsewhere.report.texts import seen

UNFIT = (ElsewhereError, LookupError, ValueError, TypeError, AttributeError)
"""What comes of results that lack what this version expects: of other versions, other tools."""


def because(error: Exception) -> str:
    """Return in a line why a result does not fit.

    Examples
    --------
    >>> because(KeyError("counts"))
    "it is not as this version writes results (KeyError: 'counts')"
    """
    line = " ".join(str(error).split())
    if isinstance(error, ElsewhereError):
        return line
    line = line if len(line) < 160 else f"{line[:159]}…"
    return f"it is not as this version writes results ({type(error).__name__}: {line})"


@dataclass(frozen=True)
class Number:
    """A number of a result, with what a reader has to know of it.

    Parameters
    ----------
    text
        As it is shown, with its interval.
    evidence
        JSON: the file's number, the variable, where in it, the exact value.
    """

    text: str
    evidence: str


@dataclass(frozen=True)
class NumberTable:
    """A table; cells are texts or numbers, the first of a row is its heading.

    `notes` are numbered below it, from 1; cells name them by their number.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str | Number]]
    folded: bool = False
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Picture:
    """A figure as a data URI; `text` says in words what is to be seen."""

    uri: str
    text: str
    caption: str


@dataclass
class Section:
    """A part of the story: a question, how to read the answer, the answer, and its doubts."""

    name: str
    title: str
    words: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    tables: list[NumberTable] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    listing: str = ""
    _wanted: list[tuple[Callable[[], Figure | Axes], str, str]] = field(default_factory=list)

    def doubts(self, *items: Item) -> None:
        """Add the notes of results, each once, with the names of the files that it is of."""
        by_note: dict[str, list[str]] = {}
        for item in items:
            for note in item.notes:
                by_note.setdefault(note, []).append(f"{item.directory}/{item.path}")
        for note, paths in by_note.items():
            more = f" and {len(paths) - 2} more" if len(paths) > 2 else ""
            self.notes.append(f"{note} (in {', '.join(paths[:2])}{more})")

    def draw(self, make: Callable[[], Figure | Axes], text: str, caption: str) -> None:
        """Add a figure, which is drawn when the section is finished."""
        self._wanted.append((make, text, caption))

    def finish(self) -> Section:
        """Draw the figures; where one cannot be drawn, the section says why."""
        for make, text, caption in self._wanted:
            try:
                made = make()
            except UNFIT as error:
                self.notes.append(f"no figure of {caption}: {because(error)}")
                continue
            figure = made if isinstance(made, Figure) else made.get_figure(root=True)
            if isinstance(figure, Figure):
                self.pictures.append(Picture(to_uri(figure), text, caption))
        self._wanted.clear()
        return self


def to_uri(figure: Figure) -> str:
    """Return a figure as the data URI of an SVG, with its text as text."""
    held = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "elsewhere"}):
        figure.savefig(held, format="svg", dpi=150, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(held.getvalue()).decode()}"


def number(
    item: Item, variable: str, at: Mapping[str, int] | None = None, *, digits: int = 3
) -> Number:
    """Return a number of a result, at an index of each of its dimensions."""
    at = dict(at or {})
    array = item.result[variable]
    value = float(array.isel(at).item())
    text = shown(value, digits)
    ends = _ends(item.result, variable, at)
    if ends is not None and all(map(math.isfinite, ends)):
        text += f" [{shown(ends[0], digits)}, {shown(ends[1], digits)}]"
    place = ", ".join(f"{dim} {axis_labels(item.result, dim)[index]}" for dim, index in at.items())
    evidence = {
        "file": item.number,
        "variable": variable,
        "at": at,
        "place": seen(place),
        "value": text,
        "exact": value if math.isfinite(value) else str(value),
        "meaning": seen(str(array.attrs.get("long_name", ""))),
    }
    return Number(text, json.dumps(evidence))


def _ends(
    result: xarray.Dataset, variable: str, at: Mapping[str, int]
) -> tuple[float, float] | None:
    held = f"{variable}_interval" if f"{variable}_interval" in result else "interval"
    if held not in result or set(result[held].dims) != {*result[variable].dims, "bound"}:
        return None
    low, high = (float(result[held].isel(at).sel(bound=end).item()) for end in ("low", "high"))
    return low, high


def shown(value: float, digits: int = 3) -> str:
    """Return a number for reading; one that would be rounded to zero keeps two digits.

    Examples
    --------
    >>> shown(-0.12345), shown(float("nan"))
    ('−0.123', 'undefined')
    >>> shown(0.0), shown(0.00021), shown(-2e-12)
    ('0.000', '2.1e-4', '−2.0e-12')
    """
    if math.isnan(value):
        return "undefined"
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    size = abs(value)
    text = f"{size:.{digits}f}"
    if size and not float(text):
        mantissa, exponent = f"{size:.1e}".split("e")
        text = f"{mantissa}e{int(exponent)}"
    return f"−{text}" if value < 0 else text


def called(item: Item, *, directories: bool) -> str:
    """Return what a result is called in a table: directory, condition and seed."""
    parts = [item.directory] if directories else []
    parts += [item.condition or item.what]
    parts += [f"seed {item.seed}"] if item.seed else []
    return ", ".join(parts)
