"""What sources, networks, curricula and results show of themselves in a notebook.

``ShownSource`` is what sources inherit; :func:`page` makes the HTML of all: escaped, without
scripts, styles of its own or anything to load, in the colours of the notebook.
"""

from __future__ import annotations

import base64
import contextlib
import html
import importlib
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from elsewhere.errors import ElsewhereError, visible
from elsewhere.forms import network_name, weights_name
from elsewhere.notes import notes_of, same_of_layers
from elsewhere.types import format_bytes

if TYPE_CHECKING:
    import xarray

MOST_ROWS = 40
"""Rows of a table, at most; how many more there are is said."""

OPEN_VARIABLES = 10
"""Variables of a result that are shown at once; the others stand in a part that can be opened."""

MOST_TEXT = 300
"""Characters of a text, at most: names in files may have millions."""

MOST_PICTURES = 12
SIDE = 48
"""Objects of a thumbnail, at most, and the side of each, px."""

DERIVED = ("_interval", "_band", "_step", "_without")
"""Endings of variables that belong to another one."""


def text(value: object) -> str:
    """Return a value as HTML: escaped, on one line, cut where it is endless.

    Examples
    --------
    >>> text("<b>cat</b>")
    '&lt;b&gt;cat&lt;/b&gt;'
    """
    said = str(value)
    said = said if len(said) <= MOST_TEXT else f"{said[:MOST_TEXT]}..."
    return html.escape(visible(said))


def page(
    kind: str,
    name: str,
    facts: Mapping[str, object],
    *,
    rows: Sequence[Mapping[str, object]] = (),
    what: str = "layers",
    shown: int = MOST_ROWS,
    notes: Sequence[str] = (),
    picture: str = "",
) -> str:
    """Return what is shown of a thing, as HTML.

    Parameters
    ----------
    kind, name
        What it is, and what it is called.
    facts
        What is said of it, by name; what is empty is left out.
    rows
        Of a table, with equal keys.
    what
        What the table's rows are.
    shown
        How many rows are shown at once.
    notes
        Doubts.
    picture
        An element that is HTML already, see :func:`thumbnail`.
    """
    said = {key: value for key, value in facts.items() if str(value)}
    parts = [f"<div><strong>{text(kind)}</strong> {text(name)}</div>"]
    if said:
        cells = (f"<div>{text(key)}: {text(value)}</div>" for key, value in said.items())
        parts.append("".join(cells))
    parts.append(picture)
    if rows:
        parts.append(_table(rows[:shown], f"{len(rows)} {what}"))
    if rows[shown:]:
        parts.append(_table(rows[shown:], f"{len(rows) - shown} more", closed=True))
    if notes:
        items = "".join(f"<li>{text(note)}</li>" for note in notes)
        parts.append(f"<div>Notes</div><ul>{items}</ul>")
    return f'<div style="line-height:1.5">{"".join(parts)}</div>'


def _table(rows: Sequence[Mapping[str, object]], what: str, *, closed: bool = False) -> str:
    head = "".join(f'<th style="text-align:left">{text(key)}</th>' for key in rows[0])
    body = "".join(
        "<tr>"
        + "".join(f'<td style="text-align:left">{text(value)}</td>' for value in row.values())
        + "</tr>"
        for row in rows[:MOST_ROWS]
    )
    more = f"<div>and {len(rows) - MOST_ROWS} more</div>" if len(rows) > MOST_ROWS else ""
    return (
        f"<details{'' if closed else ' open'}><summary>{text(what)}</summary><table><thead><tr>"
        f"{head}</tr></thead><tbody>{body}</tbody></table>{more}</details>"
    )


def thumbnail(
    images: NDArray[np.uint8],
    masks: NDArray[np.uint8],
    names: Sequence[str],
    background: Sequence[int] = (128, 128, 128),
) -> str:
    """Return a picture of the first objects on their background, as an element of HTML.

    Parameters
    ----------
    images, masks
        uint8 (object, y, x, 3), and alpha (object, y, x).
    names
        One for each object.
    background
        Its colour, 0 to 255.
    """
    imaging: Any = importlib.import_module("PIL.Image")
    ground = np.asarray(background, float).reshape(-1)
    shown = min(len(images), MOST_PICTURES)
    sheet = imaging.new("RGB", (shown * SIDE, SIDE))
    for place in range(shown):
        alpha = masks[place][..., None] / 255
        pixels = np.round(images[place] * alpha + ground * (1 - alpha)).astype(np.uint8)
        sheet.paste(imaging.fromarray(pixels).resize((SIDE, SIDE)), (place * SIDE, 0))
    file = io.BytesIO()
    sheet.save(file, format="PNG")
    data = base64.b64encode(file.getvalue()).decode()
    more = f" and {len(images) - shown} more" if len(images) > shown else ""
    said = text(f"{', '.join(names[:shown])}{more}")
    size = f'width="{shown * SIDE}" height="{SIDE}"'
    return f'<img src="data:image/png;base64,{data}" alt="{said}" title="{said}" {size}>'


def size_of(shape: Sequence[int]) -> str:
    """Return a shape in words.

    Examples
    --------
    >>> size_of((512, 7, 7))
    '512 x 7 x 7'
    """
    return " x ".join(map(str, shape))


class ShownSource:
    """What sources show of themselves: objects, places, layers, notes."""

    def __repr__(self) -> str:
        source: Any = self
        path = getattr(source, "path", None)
        name = path.name if path is not None else network_name(source.provenance)
        names = [layer.name for layer in source.layers]
        listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        sizes = size_of((len(source.design.objects), *source.design.shape))
        return visible(f"<{type(self).__name__} {name}: {sizes}, layers {listed}>")

    def _repr_html_(self) -> str:
        source: Any = self
        design, facts = source.design, source.origin
        path = getattr(source, "path", None)
        stored: dict[str, int] = {}
        picture = ""
        with contextlib.suppress(ElsewhereError, OSError, ValueError, KeyError):  # closed, moved
            stored = {n.name: source.stored_bytes(n.name) for n in source.layers if path}
            if (found := source.pictures()) is not None:
                ground = facts.get("background", (128, 128, 128))
                images, masks = found
                picture = thumbnail(images, masks, design.objects, ground)
        said: dict[str, object] = {
            "network": _network(facts),
            "objects": f"{len(design.objects)} of {len(set(design.categories))} categories",
            **{
                axis.name: f"{len(axis)}, {axis.values[0]:g} to {axis.values[-1]:g} "
                f"{axis.unit.removesuffix('1')}"
                for axis in design.axes
            },
            f"reference {', '.join(design.names)}": ", ".join(f"{v:g}" for v in design.reference),
            "canvas": f"{facts['canvas']} px" if "canvas" in facts else "",
            "finished": "" if getattr(source, "share", 1) == 1 else f"{source.share:.1%}",
            "stored": format_bytes(sum(stored.values())) if stored else "",
        }
        rows = [
            {
                "layer": layer.name,
                "type": layer.kind,
                "shape": size_of(layer.shape),
                "kept": layer.form,
                "stored" if stored else "at each place": format_bytes(
                    stored.get(layer.name, layer.bytes)
                ),
            }
            for layer in source.layers
        ]
        name = path.name if path is not None else ""
        notes = notes_of(source)
        return page(type(self).__name__, name, said, rows=rows, notes=notes, picture=picture)


def _network(facts: Mapping[str, Any]) -> str:
    weights = weights_name(facts)
    return network_name(facts) + (f", weights {weights}" if weights else "")


def result_words(result: xarray.Dataset) -> str:
    """Return in a line what a result is: its attributes as Python holds them."""
    sizes = ", ".join(f"{name} {size}" for name, size in result.sizes.items())
    kind, notes = result.attrs.get("kind", "dataset"), notes_of(result)
    network = network_name(result.attrs)
    of = f" of {network}" if network else ""
    doubts = f"; {len(notes)} note{'s' * (len(notes) != 1)}" if notes else ""
    return visible(f"<{kind}{of}: {sizes}{doubts}>")


def result_page(result: xarray.Dataset) -> str:
    """Return what a result shows of itself: what it is, its variables, its notes."""
    facts = result.attrs
    names = [str(name) for name in result.data_vars if not str(name).endswith(DERIVED)]
    names.sort(key=lambda name: result[name].ndim)  # first what sums up most
    rows = [
        {
            "variable": name,
            "what it is": result[name].attrs.get("long_name", ""),
            "over": ", ".join(map(str, result[name].dims)),
            "values": _values(result[name].values),
        }
        for name in names
    ]
    said: dict[str, object] = {
        "network": _network(facts) if facts.get("model") else "",
        "sizes": ", ".join(f"{name} {size}" for name, size in result.sizes.items()),
        "recording": facts.get("recording", ""),
        "phase": facts.get("phase", ""),
        "seed": facts.get("seed", ""),
        "command": facts.get("command", ""),
    }
    notes = same_of_layers(notes_of(result))
    return page(
        str(facts.get("kind", "dataset")),
        "",
        said,
        rows=rows,
        what="variables",
        shown=OPEN_VARIABLES,
        notes=notes,
    )


def _values(values: NDArray[Any]) -> str:
    """Return the smallest and the largest of some numbers, and how many there are none of."""
    if values.dtype.kind not in "fiu" or not values.size:
        return ""
    known = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    none = "" if known.size == values.size else f"; {values.size - known.size} undefined"
    if not known.size:
        return "undefined"
    low, high = float(known.min()), float(known.max())
    return f"{low:.3g}{none}" if low == high else f"{low:.3g} to {high:.3g}{none}"
