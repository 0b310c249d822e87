"""The table of claims as a figure: each statistic, its interval and its threshold on one axis."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures.results import require
from elsewhere.figures.style import (
    GREY,
    INK,
    PALE,
    SMALL_SIZE,
    TICK_SIZE,
    TITLE_SIZE,
    new_figure,
    shorten,
    styled,
    text_style,
    wrap,
)

# A symbol that reads in grey, and a colour, for each verdict.
_VERDICTS = MappingProxyType(
    {
        "holds": ("✔", "#00704f"),
        "fails": ("✘", "#b3400a"),
        "undecided": ("?", "#7a5c00"),
        "not measurable": ("∅", GREY),
        "not run": ("–", GREY),
        "shown in this run": ("(✔)", "#00704f"),
        "not shown in this run": ("(✘)", "#b3400a"),
    }
)
# Columns in inches: the claim, its statistic, the axis, the numbers, the verdict.
_WIDTH, _CLAIM, _TEXT, _AXIS, _AXIS_END, _NUMBERS, _VERDICT = 7.4, 0.1, 0.5, 2.9, 5.1, 5.2, 6.1
_LINE_HEIGHT, _BETWEEN, _FOOT = 0.12, 0.08, 0.66
_TEXT_ROOM = _AXIS - _TEXT - 0.1
_SHADE = "#e3eef6"
_LINE: dict[str, Any] = {
    "color": INK,
    "linewidth": 1.2,
    "solid_capstyle": "butt",
    "marker": "|",
    "markersize": 4.5,
}
_VALUE: dict[str, Any] = {
    "marker": "D",
    "markersize": 3.8,
    "markerfacecolor": INK,
    "markeredgecolor": "white",
    "markeredgewidth": 0.5,
    "linestyle": "none",
}
_BESIDE = "#7a7a7a"  # of rows that decide nothing
_VALUE_BESIDE = {**_VALUE, "markerfacecolor": "white", "markeredgecolor": _BESIDE}
_SEED: dict[str, Any] = {
    "marker": "o",
    "markersize": 2.6,
    "markerfacecolor": "none",
    "markeredgecolor": GREY,
    "markeredgewidth": 0.6,
    "linestyle": "none",
}
_THRESHOLD: dict[str, Any] = {"color": "#0072B2", "linewidth": 1.3}


@dataclass(frozen=True)
class _Row:
    """One statistic of one claim."""

    claim: str
    part: str
    detail: str
    value: float
    low: float
    high: float
    seeds: NDArray[np.float64]
    threshold: float
    above: bool
    verdict: str
    n_seeds: int
    counts: bool


@styled
def plot_claims(claims: xr.Dataset, *, beside: bool = True) -> Figure:
    """Draw each claim's statistics with interval, seeds, threshold and verdict, a row for each.

    The tick is the threshold; the side on which the claim holds is shaded. Values beyond the
    axis, which runs from -1 to 1.5 at most, are drawn as arrows at its ends.

    Parameters
    ----------
    claims
        A result of claims, over claim: ``value``, ``threshold``, ``direction`` (``>`` or ``<``),
        ``verdict``, ``interval`` over (claim, bound); where known ``seeds`` over (claim, seed),
        ``n_seeds`` and ``counts`` (whether the row decides its claim, else it is reported beside
        it); the coordinates ``claim`` and ``part``, and where known ``pair``, ``exemplars`` and
        ``system``. Its attribute ``summary`` may give a verdict for each claim, ``system`` that of
        all rows that name no other.
    beside
        Whether rows that decide nothing are drawn too, hollow and in grey.

    Returns
    -------
    A figure that pyplot does not know of.

    Raises
    ------
    InputError
        The result lacks what is drawn, or holds no claim.
    UnknownNameError
        A verdict or direction that is not known.
    """
    require(claims, ["value", "threshold", "direction", "verdict"], ["claim"])
    require(claims, ["interval"], ["claim", "bound"])
    rows = [row for row in _rows(claims) if row.counts or beside]
    if not rows:
        raise InputError(
            "no row decides a claim; leave out beside=False to draw those reported beside"
        )
    low, high = _span(rows)
    tops = np.cumsum([0.0, *(_height(row) for row in rows)])
    title = wrap(_title(claims, rows), _WIDTH - 0.3, TITLE_SIZE)
    above = 0.36 + 0.15 * (title.count("\n") + 1)
    height = above + tops[-1] + _FOOT
    figure = new_figure(_WIDTH, height)
    # Placed by hand: columns of text stand beside the one axes.
    figure.set_layout_engine("none")
    ax = figure.add_axes(
        (
            _AXIS / _WIDTH,
            _FOOT / height,
            (_AXIS_END - _AXIS) / _WIDTH,
            tops[-1] / height,
        )
    )
    ax.set_xlim(low, high)
    ax.set_ylim(tops[-1], 0)  # inches, from the top
    ax.set_yticks([])
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 5, 10]))
    ax.tick_params(axis="x", labelsize=TICK_SIZE)
    ax.grid(axis="x", color="#d9d9d9", linewidth=0.4, zorder=0)
    ax.set_axisbelow(True)
    ax.set_xlabel("value of the statistic", fontsize=TICK_SIZE, labelpad=2)
    if low < 0:
        ax.axvline(0, color=GREY, linewidth=0.6, zorder=0.6)

    summary = _summary(claims)
    for idx, row in enumerate(rows):
        middle = (tops[idx] + tops[idx + 1]) / 2
        if idx == 0 or rows[idx - 1].claim != row.claim:
            _write_claim(ax, tops[idx], row.claim, summary.get(row.claim))
            if idx:
                _rule(ax, tops[idx])
        _draw_row(ax, middle, _height(row) - 0.08, row, low, high)
        _write_row(ax, middle, row)
    figure.text(
        _CLAIM / _WIDTH,
        1 - 0.08 / height,
        title,
        va="top",
        fontsize=TITLE_SIZE,
        **text_style(title),
    )
    for inches, text in (
        (_CLAIM, "claim"),
        (_TEXT, "statistic"),
        (_NUMBERS, "value, interval"),
        (_VERDICT, "verdict"),
    ):
        _write(ax, inches, -0.03, text, fontsize=SMALL_SIZE, color=GREY, va="bottom")
    _explain(figure, height, rows)
    return figure


def _rows(claims: xr.Dataset) -> list[_Row]:
    count = claims.sizes["claim"]
    if count == 0:
        raise InputError("the result holds no claim; expected at least one row")
    interval = claims["interval"].transpose("claim", "bound")
    lows, highs = (
        np.asarray(interval.sel(bound=end).values, dtype=np.float64) for end in ("low", "high")
    )
    values, thresholds = (
        np.asarray(claims[name].values, dtype=np.float64) for name in ("value", "threshold")
    )
    seeds = np.empty((count, 0))
    if "seeds" in claims.data_vars:
        found = claims["seeds"]
        if set(found.dims) != {"claim", "seed"}:
            raise InputError(
                f"the variable 'seeds' runs over ({', '.join(map(str, found.dims))}); "
                "expected (claim, seed)"
            )
        seeds = np.asarray(found.transpose("claim", "seed").values, dtype=np.float64)
    parts = _texts(claims, "part")
    counts = np.ones(count, dtype=bool)
    if "counts" in claims.variables:
        counts = np.asarray(claims["counts"].values).astype(bool)
    shared = _system(claims)
    systems = [system if system != shared else "" for system in _texts(claims, "system")]
    exemplars = [f"{kind} exemplars" if kind else "" for kind in _texts(claims, "exemplars")]
    details = zip(_texts(claims, "pair"), exemplars, systems, strict=True)
    rows = []
    for idx, detail in enumerate(details):
        direction, verdict = (
            str(claims[name].values[idx]).strip() for name in ("direction", "verdict")
        )
        if direction not in (">", "<"):
            raise UnknownNameError("direction", direction, [">", "<"])
        if verdict not in _VERDICTS:
            raise UnknownNameError("verdict", verdict, _VERDICTS)
        single = seeds[idx][np.isfinite(seeds[idx])]
        n_seeds = len(single)
        if "n_seeds" in claims.variables:
            n_seeds = int(claims["n_seeds"].values[idx])
        rows.append(
            _Row(
                str(claims["claim"].values[idx]),
                parts[idx],
                " · ".join(text for text in detail if text),
                float(values[idx]),
                float(lows[idx]),
                float(highs[idx]),
                single,
                float(thresholds[idx]),
                direction == ">",
                verdict,
                n_seeds,
                bool(counts[idx]),
            )
        )
    return rows


def _texts(claims: xr.Dataset, name: str) -> list[str]:
    """Return the texts `name` of all rows, empty where there are none."""
    count = claims.sizes["claim"]
    if name not in claims.variables:
        return [""] * count
    if claims[name].dims != ("claim",):
        raise InputError(
            f"{name!r} runs over ({', '.join(map(str, claims[name].dims))}); expected (claim)"
        )
    return ["" if text is None else str(text).strip() for text in claims[name].values]


def _system(claims: xr.Dataset) -> str:
    """Return the system that the result names, else that of all rows, if it is one."""
    if "system" in claims.attrs:
        return str(claims.attrs["system"])
    named = {system for system in _texts(claims, "system") if system}
    return named.pop() if len(named) == 1 else ""


def _span(rows: list[_Row]) -> tuple[float, float]:
    """Return the ends of the axis: 0 to 1, further where values are, -1 to 1.5 at most."""
    every = [0.0, 1.0]
    for row in rows:
        every += [row.value, row.low, row.high, row.threshold, *row.seeds.tolist()]
    finite = np.array(every)[np.isfinite(every)]
    return max(float(finite.min()), -1.0) - 0.04, min(float(finite.max()), 1.5) + 0.04


def _summary(claims: xr.Dataset) -> dict[str, str]:
    given = claims.attrs.get("summary")
    try:
        given = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        given = None
    if not isinstance(given, Mapping):
        return {}
    for verdict in given.values():
        if verdict not in _VERDICTS:
            raise UnknownNameError("verdict", str(verdict), _VERDICTS)
    return {str(claim): str(verdict) for claim, verdict in given.items()}


def _title(claims: xr.Dataset, rows: list[_Row]) -> str:
    """Return the title: how many seeds, and which system."""
    counts = sorted({row.n_seeds for row in rows if math.isfinite(row.value)})
    parts = ["claims"]
    if counts:
        few, many = counts[0], counts[-1]
        seeds = f"{few}" if few == many else f"{few} to {many}"
        parts.append(f"{seeds} seed" if many == 1 else f"{seeds} seeds")
    system = _system(claims)
    return " · ".join([*parts, system] if system else parts)


def _part_lines(row: _Row) -> list[str]:
    """Return the statistic's words in two lines at most."""
    lines = wrap(row.part, _TEXT_ROOM, TICK_SIZE).split("\n")
    if len(lines) > 2:
        room = int(_TEXT_ROOM * 72 / (0.57 * TICK_SIZE))
        lines = [lines[0], shorten(" ".join(lines[1:]), room)]
    return lines


def _height(row: _Row) -> float:
    """Return the height of a row in inches."""
    return max(len(_part_lines(row)) + bool(row.detail), 2) * _LINE_HEIGHT + _BETWEEN


def _draw_row(ax: Axes, middle: float, tall: float, row: _Row, low: float, high: float) -> None:
    """Draw one statistic against its threshold."""
    if math.isfinite(row.threshold):
        start, end = (row.threshold, high) if row.above else (low, row.threshold)
        start, end = min(max(start, low), high), min(max(end, low), high)
        shade = Rectangle(
            (start, middle - tall / 2), end - start, tall, color=_SHADE, linewidth=0, label="side"
        )
        ax.add_patch(shade)
        shade.set_zorder(0.3)
        ax.plot(
            [row.threshold] * 2,
            [middle - tall / 2, middle + tall / 2],
            label="threshold",
            solid_capstyle="butt",
            zorder=2,
            **_THRESHOLD,
        )
    if not math.isfinite(row.value):
        # Beside the threshold, on the side with more room.
        right = not math.isfinite(row.threshold) or row.threshold < (low + high) / 2
        ax.annotate(
            row.verdict,
            (row.threshold if math.isfinite(row.threshold) else low, middle),
            xytext=(8 if right else -8, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            fontsize=TICK_SIZE,
            color=GREY,
            fontstyle="italic",
        )
    if math.isfinite(row.low) and math.isfinite(row.high):
        ends = np.clip([row.low, row.high], low, high)
        line = _LINE if row.counts else {**_LINE, "color": _BESIDE}
        ax.plot(ends, [middle - 0.035] * 2, label="interval", zorder=3, **line)
        for end, bound, marker in ((low, row.low, "<"), (high, row.high, ">")):
            if (bound < low) if marker == "<" else (bound > high):
                ax.plot([end], [middle - 0.035], marker=marker, color=INK, markersize=4, zorder=3.5)
    if math.isfinite(row.value):
        inside = low <= row.value <= high
        style = _VALUE if row.counts else _VALUE_BESIDE
        if not inside:
            style = {**style, "marker": "<" if row.value < low else ">"}
        at = min(max(row.value, low), high)
        ax.plot([at], [middle - 0.035], label="value", clip_on=False, zorder=4, **style)
    shown = row.seeds[(row.seeds >= low) & (row.seeds <= high)]
    if len(row.seeds) > 1 or not math.isfinite(row.value):
        ax.plot(shown, np.full(len(shown), middle + 0.07), label="seeds", zorder=3, **_SEED)


def _write_claim(ax: Axes, top: float, claim: str, summary: str | None) -> None:
    label = shorten(claim, 6)
    _write(ax, _CLAIM, top + 0.11, label, fontsize=TITLE_SIZE, fontweight="bold")
    if summary is not None:
        symbol, color = _VERDICTS[summary]
        _write(ax, _CLAIM, top + 0.25, symbol, fontsize=TITLE_SIZE, color=color)


def _write_row(ax: Axes, middle: float, row: _Row) -> None:
    """Write the statistic at the left; its numbers and the verdict at the right."""
    ink = INK if row.counts else _BESIDE
    lines = _part_lines(row)
    shift = (len(lines) * _LINE_HEIGHT) / 2 if row.detail else 0.0
    centre = middle - (_LINE_HEIGHT / 2 if row.detail else 0.0)
    _write(ax, _TEXT, centre, "\n".join(lines), fontsize=TICK_SIZE, color=ink, linespacing=1.1)
    if row.detail:
        room = int(_TEXT_ROOM * 72 / (0.57 * SMALL_SIZE))
        detail = shorten(row.detail, room)
        _write(ax, _TEXT, middle + shift, detail, fontsize=SMALL_SIZE, color=GREY)

    if math.isfinite(row.value):
        bounded = math.isfinite(row.low) and math.isfinite(row.high)
        at = middle - (0.06 if bounded else 0.0)
        _write(ax, _NUMBERS, at, _figures(row.value), fontsize=TICK_SIZE, color=ink)
        if bounded:
            bounds = f"[{_figures(row.low)}, {_figures(row.high)}]"
            _write(ax, _NUMBERS, middle + 0.07, bounds, fontsize=SMALL_SIZE, color=GREY)
    symbol, color = _VERDICTS[row.verdict]
    color = color if row.counts else _BESIDE
    _write(ax, _VERDICT, middle, symbol, fontsize=TITLE_SIZE, color=color)
    words = row.verdict.replace("shown in", "shown\nin")
    _write(ax, _VERDICT + 0.24, middle, words, fontsize=TICK_SIZE, color=color, linespacing=1.0)


def _figures(number: float) -> str:
    return f"{number:.2f}".replace("-0.00", "0.00").replace("-", "−")


def _write(ax: Axes, inches: float, row: float, text: str, **style: Any) -> None:
    """Write `text` from `inches` of the figure on, at a row of the axes."""
    across = (inches - _AXIS) / (_AXIS_END - _AXIS)
    settings = {"ha": "left", "va": "center", "color": INK} | style | text_style(text)
    ax.text(across, row, text, transform=ax.get_yaxis_transform(), clip_on=False, **settings)


def _rule(ax: Axes, row: float) -> None:
    """Rule off one claim from the next, over the whole width."""
    ends = [(inches - _AXIS) / (_AXIS_END - _AXIS) for inches in (_CLAIM, _WIDTH - 0.1)]
    ax.plot(
        ends,
        [row, row],
        transform=ax.get_yaxis_transform(),
        color=PALE,
        linewidth=0.5,
        clip_on=False,
        label="_rule",
    )


def _explain(figure: Figure, height: float, rows: list[_Row]) -> None:
    """Explain the marks beneath the rows."""
    handles: list[Line2D | Patch] = [Line2D([], [], label="value", **_VALUE)]
    if any(math.isfinite(row.low) for row in rows):
        handles.append(Line2D([], [], label="95 % t interval over seeds", **_LINE))
    if any(len(row.seeds) > 1 for row in rows):
        handles.append(Line2D([], [], label="each seed", **_SEED))
    if not all(row.counts for row in rows):
        handles.append(Line2D([], [], label="reported beside", **_VALUE_BESIDE))
    handles.append(Line2D([], [], label="threshold", **_THRESHOLD))
    handles.append(Patch(label="side on which it holds", facecolor=_SHADE))
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.0, 0.02 / height),
        ncols=len(handles),
        fontsize=SMALL_SIZE,
        handlelength=1.6,
        columnspacing=1.4,
    )
