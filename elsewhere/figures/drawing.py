"""Drawing results on a page or a slide: one figure, or several as panels of one."""

from __future__ import annotations

import dataclasses
import itertools
import string
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures.composed import ComposedFigure, Part
from elsewhere.figures.kinds import DRAWN_OF, Wanted, default_kind, draw_one
from elsewhere.figures.page import Page, check_font, read_length, using
from elsewhere.figures.results import require
from elsewhere.figures.style import INK
from elsewhere.figures.text import text_style, wrap

_GAP = 0.14  # between panels, inches
_GUTTER = 0.2  # left of a panel, for its letter, inches
_PRINTED = 9.0  # points; larger text is that of a smaller page, enlarged


@dataclass(frozen=True)
class Style:
    """What figures are made for, inches and points.

    Parameters
    ----------
    width
        Unless another is asked for; None where a figure may be narrower.
    tallest
        Height of the page or slide.
    label
        Size of the labels of axes; None for that of print, which depends on the width.
    columns
        Panels of different kinds in a row.
    """

    width: float | None
    tallest: float
    label: float | None
    columns: int


STYLES: Mapping[str, Style] = MappingProxyType(
    {"paper": Style(None, 9.45, None, 1), "slides": Style(10.0, 5.625, 14.0, 2)}
)
"""A printed page, with 240 mm for text; a slide of 16 to 9, 254 mm wide."""


def draw(
    result: xr.Dataset,
    kind: str | Sequence[str] | None = None,
    *others: xr.Dataset,
    at: Mapping[str, float] | None = None,
    along: str | None = None,
    facet: str | None = None,
    layers: Sequence[str] | None = None,
    quantities: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    width: float | str | None = None,
    height: float | str | None = None,
    font_size: float | None = None,
    title: bool | str = True,
    style: str = "paper",
    columns: int | None = None,
) -> Figure:
    """Draw `result` as the figure `kind`, by default the one made for its kind of result.

    Parameters
    ----------
    result
        A finished result; its attribute ``kind`` says what it is (``similarity``,
        ``accuracy``, ``track``, ``claims``).
    kind
        A name in `figure_kinds`, or several: each is a panel of the figure, with a letter.
    others
        More results. Where several kinds are drawn, each is drawn of the results that it is for.
        Several of one kind share axes (``layerwise``, ``equivariance``, ``partition``,
        ``identification``, ``phase``), have a panel each (``sanity``, ``accuracy-maps``), a colour
        each (``accuracy-displacement``), or are before and after (``change``).
    at
        Values of axes that change objects; by default those nearest to the reference.
    along
        Such an axis, against whose values is drawn what was measured; `kind` is then left out.
    facet
        Such an axis, each value of which has a panel, on the same scales.
    layers
        Names of the layers to draw; by default what the figure chooses.
    quantities
        What to draw of what the figure can: see its function, such as :func:`plot_layerwise`.
    labels
        What results are called in ``accuracy-maps``, ``accuracy-displacement`` and ``change``; by
        default by what tells them apart: run, network, weights, or phase.
    width, height, font_size, title
        The page, as for :func:`page`. Text of more than 9 pt is that of a smaller page, enlarged
        with its lines and marks.
    style
        ``paper``; or ``slides``: 254 mm wide, with text of 14 pt and lines to match, and no taller
        than 143 mm if that can be.
    columns
        Panels of different kinds in a row; by default 1, on slides 2.

    Returns
    -------
    A figure that pyplot does not know of.

    Raises
    ------
    InputError
        Not a dataset, one that does not say what it is, or one that lacks what is drawn; several,
        for a figure of one; or a page on which it would be cut off.
    UnknownNameError
        A kind of figure or of result, a layer or quantity, or a style that is not known.
    """
    results = (result, *others)
    wanted = Wanted(at, along, facet, layers, quantities, labels)
    kinds: Sequence[str | None] = [kind] if kind is None or isinstance(kind, str) else kind
    if kind is None and along is None and others:
        kinds = list(dict.fromkeys(map(default_kind, results)))
    if not kinds:
        raise InputError("no kind of figure is named; name at least one, or leave it out")
    if len(kinds) == 1:
        panels = [lambda: draw_one(results, kinds[0], wanted)]
    else:
        panels = [_panel(results, str(each), wanted) for each in kinds]
        if layers is not None and not any("layer" in each.dims for each in results):
            raise InputError("the figures are of no layers; leave them out")
    columns = style_named(style).columns if columns is None else columns
    if columns < 1:
        raise InputError(f"columns is {columns}; expected at least 1")
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    return draw_page(
        rows, width=width, height=height, font_size=font_size, title=title, style=style
    )


def _panel(results: Sequence[xr.Dataset], kind: str, wanted: Wanted) -> Callable[[], Figure]:
    """Return what draws a kind of figure of those results that it is for."""
    made = {name for name, kinds in DRAWN_OF.items() if kind in kinds}
    found = [each for each in results if require(each, [], []).attrs.get("kind") in made]
    found = found or list(results)  # it says itself what it lacks
    if wanted.layers is not None and not any("layer" in each.dims for each in found):
        wanted = dataclasses.replace(wanted, layers=None)
    return lambda: draw_one(found, kind, wanted)


def draw_page(
    rows: Sequence[Sequence[Callable[[], Figure]]],
    *,
    width: float | str | None = None,
    height: float | str | None = None,
    font_size: float | None = None,
    title: bool | str = True,
    style: str = "paper",
) -> Figure:
    """Draw figures as the panels of one, on a page or a slide.

    Parameters
    ----------
    rows
        What draws the panels, from above, and from left to right; several have letters.
    width, height, font_size, title, style
        As for :func:`draw`; of several panels, a title of one's own stands above all.

    Returns
    -------
    A figure that pyplot does not know of.

    Raises
    ------
    InputError
        A length or size that cannot be used; a page on which something would be cut off.
    UnknownNameError
        A style that is not known.
    """
    chosen = style_named(style)
    check_font(font_size)
    size = chosen.label if font_size is None else font_size
    scale = size / 8 if size is not None and (chosen.label or size > _PRINTED) else 1.0
    wide, tall = read_length("width", width), read_length("height", height)
    wide = chosen.width if wide is None else wide
    inner = None if wide is None else wide / scale
    label = 7.0 if inner is not None and inner < 4.7 else 8.0
    asked = font_size is not None
    page = Page(
        inner,
        None if tall is None else tall / scale,
        size / scale if size is not None and (asked or scale == 1) else label,
        asked,
        title,
        7.0 / scale,
    )
    drawn = _lay_out(rows, page, scale)
    over = drawn.get_size_inches()[1] > chosen.tallest
    if chosen.label is None or tall is not None or not over:
        return drawn
    try:
        return _lay_out(rows, dataclasses.replace(page, height=chosen.tallest / scale), scale)
    except InputError:
        return drawn  # taller than a slide, rather than cut off


def style_named(name: str) -> Style:
    """Return the style of that name."""
    if name not in STYLES:
        raise UnknownNameError("style", str(name), STYLES)
    return STYLES[name]


def _lay_out(rows: Sequence[Sequence[Callable[[], Figure]]], page: Page, scale: float) -> Figure:
    """Draw and arrange panels on a page, and enlarge it."""
    if sum(map(len, rows)) == 1:
        only = _drawn(rows[0][0], page, scale)
        wide, tall = (float(inches) for inches in only.get_size_inches())
        return only if scale == 1 else _put([(only, 0.0, 0.0)], wide, tall, scale)
    wide, head = page.width or page.widest, 0.0
    text, size = "", page.label * 9 / 8
    if isinstance(page.titled, str):
        text = wrap(page.titled, wide - 0.2, size, marks=True)
        head = 0.0193 * size * (text.count("\n") + 1) + 0.06
    heights: list[float | None] = [None] * len(rows)
    while True:
        drawn: list[list[Figure]] = []
        for row, room in zip(rows, heights, strict=True):
            cell = (wide - _GAP * (len(row) - 1)) / len(row)
            part = dataclasses.replace(
                page, width=cell - _GUTTER, height=room, titled=bool(page.titled)
            )
            drawn.append([_drawn(panel, part, scale) for panel in row])
        tallest = [max(float(each.get_size_inches()[1]) for each in row) for row in drawn]
        rest = head + _GAP * (len(rows) - 1)
        if page.height is None or heights[0] is not None:
            break
        if page.height <= rest:
            raise _too_small(wide, page.height, scale)
        heights = [(page.height - rest) * each / sum(tallest) for each in tallest]
    whole, placed, letters = sum(tallest) + rest, list[tuple[Figure, float, float]](), []
    top = whole - head
    for figures, tall in zip(drawn, tallest, strict=True):
        cell = (wide - _GAP * (len(figures) - 1)) / len(figures)
        for place, each in enumerate(figures):
            left = place * (cell + _GAP)
            placed.append((each, left + _GUTTER, top - float(each.get_size_inches()[1])))
            letters.append((left + 0.05, top - 0.03))
        top -= tall + _GAP
    figure = _put(placed, wide, whole, scale)
    style: dict[str, Any] = {
        "fontsize": size * scale,
        "va": "top",
        "color": INK,
        **text_style(text),
    }
    for letter, (x, y) in zip(string.ascii_letters, letters, strict=False):
        figure.text(x / wide, y / whole, letter, weight="bold", **style)
    if text:
        figure.text(0.05 / wide, 1 - 0.05 / whole, text, **style)
    return figure


def _drawn(panel: Callable[[], Figure], page: Page, scale: float) -> Figure:
    """Return a panel on a page of its own, on which nothing is cut off."""
    with using(page):
        figure = panel()
    if page.width is not None or page.height is not None:
        _check_fit(figure, scale)
    return figure


def _put(
    placed: Sequence[tuple[Figure, float, float]], width: float, height: float, scale: float
) -> ComposedFigure:
    """Return figures at their places on one, enlarged."""
    for figure, *_ in placed:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # what is arranged stays so
    parts = [Part(figure, x * scale, y * scale, scale) for figure, x, y in placed]
    return ComposedFigure(parts, float(width) * scale, float(height) * scale)


def _check_fit(figure: Figure, scale: float) -> None:
    """Refuse a page on which something would be cut off."""
    width, height = (float(inches) for inches in figure.get_size_inches())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            figure.draw_without_rendering()
            box, (width, height) = figure.get_tightbbox(), figure.get_size_inches().tolist()
            over = max(-box.x0, -box.y0, box.x1 - width, box.y1 - height) if box else 0.0
        except UserWarning:  # axes have no room left
            over = 1.0
    if over > 0.03 or _crowded(figure):
        raise _too_small(width, height, scale)


def _crowded(figure: Figure) -> bool:
    """Return whether names or numbers beside an axes overlap."""
    for ax in figure.axes:
        labels = ax.get_yticklabels() if ax.axison else []
        low, high = sorted(ax.get_ylim())
        boxes = sorted(
            (
                label.get_window_extent()
                for label in labels
                if label.get_visible()
                and label.get_text()
                and low <= label.get_position()[1] <= high
            ),
            key=lambda box: float(box.y0),
        )
        if any(b.y0 < a.y1 - 0.3 * a.height for a, b in itertools.pairwise(boxes)):
            return True
    return False


def _too_small(width: float, height: float, scale: float) -> InputError:
    width, height = (25.4 * scale * inches for inches in (width, height))
    return InputError(
        f"the figure does not fit {width:.0f} x {height:.0f} mm: something would be cut off "
        "or overlap; give it more room, draw fewer layers, or take smaller text"
    )
