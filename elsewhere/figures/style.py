"""How every figure looks: sizes, colours, titles, colour bars and legends."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, ParamSpec, TypeVar, cast

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize, to_hex, to_rgb
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from elsewhere.errors import InputError
from elsewhere.figures.page import SIZES, is_ours, make_room, new_figure, room_along
from elsewhere.figures.text import (
    BASE_FONT,
    labels_in,
    text_style,
    text_width,
    wrap,
)

P = ParamSpec("P")
R = TypeVar("R")

INK, GREY, PALE, FAINT = "#1a1a1a", "#595959", "#bfbfbf", "#f0f0f0"


def _settings() -> dict[Any, Any]:
    """Return matplotlib's settings in the house style, on the page in use."""
    return {
        "font.family": [BASE_FONT],
        "font.size": SIZES.label,
        "text.color": INK,
        "text.usetex": False,
        "figure.facecolor": "white",
        "axes.facecolor": "white",
        "axes.edgecolor": GREY,
        "axes.labelcolor": INK,
        "axes.labelsize": SIZES.label,
        "axes.titlesize": SIZES.label,
        "axes.titleweight": "normal",
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": False,
        "axes.unicode_minus": True,
        "xtick.labelsize": SIZES.tick,
        "ytick.labelsize": SIZES.tick,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.direction": "out",
        "ytick.direction": "out",
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "xtick.minor.size": 1.5,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.minor.width": 0.4,
        "legend.fontsize": SIZES.tick,
        "legend.frameon": False,
        "hatch.linewidth": 0.4,
        "lines.linewidth": 1.2,
        "image.interpolation": "nearest",
    }


@dataclass(frozen=True)
class Mark:
    """How one series is drawn; told apart without colour by marker and dashes."""

    color: str
    marker: str
    dashes: Any


# Colours of Okabe and Ito (2008), safe for the colour-blind; their lightness differs as well.
MARKS = MappingProxyType(
    {
        "similarity": Mark("#0072B2", "o", "-"),
        "baseline": Mark("#D55E00", "s", (0, (4, 1.5))),
        "baseline_same": Mark("#E69F00", "^", (0, (1, 1.2))),
        "G": Mark("#1a1a1a", "D", (0, (5, 1.2, 1, 1.2))),
    }
)


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` drawing in the house style, with the user's settings restored after."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(_settings()):
            return function(*args, **kwargs)

    return wrapper


def axes_or_new(ax: Axes | None, height: float, *, single: bool = False) -> Axes:
    """Return `ax`, or the only axes of a new figure, `height` inches tall on a page's width.

    What has a `single` place along its axis needs no whole page.
    """
    if ax is None:
        width = min(SIZES.width, 4.4) if single else SIZES.width
        return new_figure(width, height * (0.45 + 0.55 * SIZES.width / 7)).add_subplot()
    if not isinstance(ax, Axes):
        raise InputError(
            f"ax is a {type(ax).__name__}; expected matplotlib Axes, or None for a new figure"
        )
    return ax


def mix(color: str, share: float = 0.5) -> str:
    """Return `color` mixed with white."""
    red, green, blue = (1 - (1 - share) * (1 - part) for part in to_rgb(color))
    return to_hex((red, green, blue))


def figure_of(ax: Axes) -> Figure:
    """Return the whole figure that `ax` is part of."""
    figure = ax.figure
    while isinstance(figure, SubFigure):
        figure = figure.figure
    if figure is None:
        raise InputError("the axes have been removed from their figure; draw on new ones")
    return figure


def tidy(ax: Axes) -> None:
    """Remove the upper and right spines of `ax` and put a thin grid behind its data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#d9d9d9", linewidth=0.4, zorder=0)
    ax.set_axisbelow(True)


def beyond(
    norm: Normalize, values: NDArray[np.floating]
) -> Literal["neither", "min", "max", "both"]:
    """Return at which ends a colour bar is pointed: where finite `values` lie beyond its limits."""
    finite = np.asarray(values)[np.isfinite(values)]
    low = float(0.0 if norm.vmin is None else norm.vmin)
    high = float(1.0 if norm.vmax is None else norm.vmax)
    slack = 1e-6 * (high - low)  # rounding may take a cosine just above 1
    below, above = bool((finite < low - slack).any()), bool((finite > high + slack).any())
    ends: dict[tuple[bool, bool], Literal["neither", "min", "max", "both"]] = {
        (False, False): "neither",
        (True, False): "min",
        (False, True): "max",
        (True, True): "both",
    }
    return ends[below, above]


def title_of(text: str, width: float) -> str:
    """Return a title, or the page's own, in lines that fit `width` inches, or nothing."""
    asked = SIZES.titled
    text = asked if isinstance(asked, str) else text
    return wrap(text, width, SIZES.title, marks=True) if asked else ""


def title_height(title: str) -> float:
    """Return how many inches the lines of a title take."""
    return 0.0193 * SIZES.title * (title.count("\n") + 1) if title else 0.0


def entitle(ax: Axes, text: str, *, pad: float = 16) -> None:
    """Write a title above axes, in as many lines as it needs."""
    figure = figure_of(ax)
    over = float(figure.get_size_inches()[0]) - 0.75 if is_ours(figure) else room_along(ax)
    title = title_of(text, over)
    if title:
        ax.set_title(title, loc="left", fontsize=SIZES.title, pad=pad, **text_style(title))
        if is_ours(figure):
            make_room(figure, "title", title_height(title) - title_height("one line"))


def entitle_figure(figure: Figure, text: str, *, x: float = 0.02) -> None:
    """Write a title above all panels, in as many lines as it needs."""
    title = title_of(text, float(figure.get_size_inches()[0]) - 0.2)
    if title:
        figure.suptitle(title, x=x, ha="left", fontsize=SIZES.title, **text_style(title))


def color_bar(
    figure: Figure,
    mappable: ScalarMappable,
    label: str,
    *,
    values: NDArray[np.floating] | None = None,
    size: float | None = None,
    room: float | None = None,
    **where: Any,
) -> Colorbar:
    """Draw the one colour bar of all panels, pointed where `values` lie beyond its ends.

    Its label is broken to fit `room` inches, by default six tenths of the figure's height.
    """
    extend = "neither" if values is None else beyond(cast(Normalize, mappable.norm), values)
    if "cax" not in where:
        where = {"fraction": 0.05, "pad": 0.015, **where}
    bar = figure.colorbar(mappable, extend=extend, **where)
    size = SIZES.tick if size is None else size
    room = 0.6 * float(figure.get_size_inches()[1]) if room is None else room
    text = wrap(label, room, size)
    bar.set_label(text, fontsize=size, **text_style(text))
    bar.ax.tick_params(labelsize=SIZES.small, length=2)
    bar.outline.set_linewidth(0.4)
    return bar


def legend_columns(labels: Sequence[str], width: float, size: float, handle: float) -> int:
    """Return how many columns of a legend fit `width` inches; handles are `handle` em wide."""
    em = size / 72
    for columns in range(len(labels), 1, -1):
        parts = [part for part in np.array_split(np.array(labels, object), columns) if len(part)]
        wide = sum(max(text_width(str(label), size) for label in part) for part in parts)
        if wide + columns * (handle + 0.8) * em + (columns - 1) * 1.4 * em + 0.1 <= width:
            return columns
    return 1


def legend_lines(
    labels: Sequence[str], width: float, size: float, handle: float
) -> tuple[int, list[str], int]:
    """Return how few lines a legend takes in `width` inches, its labels and its columns for that.

    Labels have breaks where they may have them, and keep those that save lines.
    """
    joined = [" ".join(label.split()) for label in labels]
    found = []
    for widest in sorted({text_width(label, size) for label in joined}, reverse=True):
        chosen = [
            whole if text_width(whole, size) <= min(widest, width - handle * size / 72) else label
            for whole, label in zip(joined, labels, strict=True)
        ]
        columns = legend_columns(chosen, width, size, handle)
        parts = np.array_split(np.array(chosen, object), columns)
        lines = max(sum(str(label).count("\n") + 1 for label in part) for part in parts)
        found.append((lines, chosen, columns))
    return min(found, key=lambda each: each[0])


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """Explain the marks beneath the panels, in as many columns as fit."""
    width, height = (float(inches) for inches in figure.get_size_inches())
    room = width - 0.2 - 2.2 * SIZES.small / 72
    labels = labels_in([handle.get_label() for handle in handles], room, SIZES.small)
    columns = legend_columns(labels, width - 0.1, SIZES.small, 1.4)
    legend = figure.legend(
        handles=list(handles), labels=labels, loc="outside lower left", ncols=columns,
        fontsize=SIZES.small, handlelength=1.4, columnspacing=1.4, borderaxespad=0.2,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set(**text_style(*labels))
    parts = np.array_split(np.array(labels, object), columns)
    rows = max(sum(str(label).count("\n") + 1 for label in part) for part in parts)
    if rows > 1 and SIZES.height is None:
        figure.set_size_inches(width, height + (rows - 1) * SIZES.small * 1.6 / 72)
