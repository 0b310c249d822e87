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
from elsewhere.figures.page import SIZES, new_figure
from elsewhere.figures.results import require
from elsewhere.figures.style import GREY, INK, PALE, legend_columns, styled, title_height, title_of
from elsewhere.figures.text import clean_text, fitting, shorten, text_style, text_width, wrap

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
_LINE_HEIGHT, _BETWEEN, _FOOT = 0.12, 0.08, 0.66


class _Columns:
    """Where columns begin, inches: the claim, its statistic, the axis, the numbers, the verdict."""

    def __init__(self) -> None:
        small, tick = SIZES.small, SIZES.tick
        self.width = SIZES.width if SIZES.fixed else 7.4
        self.claim, self.text = 0.1, 0.1 + 0.045 * SIZES.title
        words = max(text_width(each, tick) for each in ("not shown", "measurable", "in this run"))
        self.verdict = self.width - words - 0.03 * tick - 0.05
        self.numbers = self.verdict - text_width("[−0.00, −0.00]", small) - 0.08
        self.axis_end = self.numbers - 0.1
        self.axis = self.text + 0.52 * (self.axis_end - self.text)
        self.words = self.verdict + 0.03 * tick

    @property
    def room(self) -> float:
        """For the statistic's words, inches."""
        return self.axis - self.text - 0.1


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
    at = _Columns()
    tops = np.cumsum([0.0, *(_height(row, at) for row in rows)])
    title = title_of(_title(claims, rows), at.width - 0.3)
    above = 0.36 + title_height(title)
    handles = _key(rows)
    columns = legend_columns(
        [str(handle.get_label()) for handle in handles], at.width - 0.1, SIZES.small, 1.6
    )
    foot = _FOOT + (-(-len(handles) // columns) - 1) * SIZES.small * 1.7 / 72
    height = above + tops[-1] + foot
    if SIZES.height is not None and SIZES.height < height:
        raise InputError(
            f"{len(rows)} rows of claims need {height * 25.4:.0f} mm, and the height is to be "
            f"{SIZES.height * 25.4:.0f} mm; leave the height out, or choose claims"
        )
    height = SIZES.height or height
    figure = new_figure(at.width, height)
    # Placed by hand: columns of text stand beside the one axes.
    figure.set_layout_engine("none")
    ax = figure.add_axes(
        (
            at.axis / at.width,
            1 - (above + tops[-1]) / height,
            (at.axis_end - at.axis) / at.width,
            tops[-1] / height,
        )
    )
    ax.set_xlim(low, high)
    ax.set_ylim(tops[-1], 0)  # inches, from the top
    ax.set_yticks([])
    ax.spines[["top", "right", "left"]].set_visible(False)
    most = 2 if SIZES.width < 2.8 else 3 if SIZES.narrow else 9
    ax.xaxis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10]))
    ax.tick_params(axis="x", labelsize=SIZES.tick)
    ax.grid(axis="x", color="#d9d9d9", linewidth=0.4, zorder=0)
    ax.set_axisbelow(True)
    ax.set_xlabel("value of the statistic", fontsize=SIZES.tick, labelpad=2)
    if low < 0:
        ax.axvline(0, color=GREY, linewidth=0.6, zorder=0.6)

    summary = _summary(claims)
    for idx, row in enumerate(rows):
        middle = (tops[idx] + tops[idx + 1]) / 2
        if idx == 0 or rows[idx - 1].claim != row.claim:
            _write_claim(ax, at, tops[idx], row.claim, summary.get(row.claim))
            if idx:
                _rule(ax, at, tops[idx])
        _draw_row(ax, middle, _height(row, at) - 0.08, row, low, high)
        _write_row(ax, at, middle, row)
    if title:
        figure.text(
            at.claim / at.width,
            1 - 0.08 / height,
            title,
            va="top",
            fontsize=SIZES.title,
            **text_style(title),
        )
    for inches, text in (
        (at.text, "statistic"),
        (at.numbers, "value" if SIZES.narrow else "value, interval"),
        (at.verdict, "verdict"),
    ):
        _write(ax, at, inches, -0.03, text, fontsize=SIZES.small, color=GREY, va="bottom")
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.0, 0.02 / height),
        ncols=columns,
        fontsize=SIZES.small,
        handlelength=1.6,
        columnspacing=1.4,
    )
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


def _part_lines(row: _Row, at: _Columns) -> list[str]:
    """Return the statistic's words in a few lines at most."""
    lines, most = wrap(row.part, at.room, SIZES.tick).split("\n"), 4 if SIZES.narrow else 2
    if len(lines) > most:
        last = fitting(" ".join(lines[most - 1 :]), at.room, SIZES.tick)
        lines = [*lines[: most - 1], last]
    return lines


def _height(row: _Row, at: _Columns) -> float:
    """Return the height of a row in inches."""
    lines = max(len(_part_lines(row, at)) + bool(row.detail), 2)
    return lines * _LINE_HEIGHT * max(SIZES.tick / 7, 0.8) + _BETWEEN


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
    room = (ax.get_position().width * SIZES.width) * 0.5
    if not math.isfinite(row.value) and text_width(row.verdict, SIZES.tick) < room:
        # Beside the threshold, on the side with more room.
        right = not math.isfinite(row.threshold) or row.threshold < (low + high) / 2
        ax.annotate(
            row.verdict,
            (row.threshold if math.isfinite(row.threshold) else low, middle),
            xytext=(8 if right else -8, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            fontsize=SIZES.tick,
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


def _write_claim(ax: Axes, at: _Columns, top: float, claim: str, summary: str | None) -> None:
    label = shorten(claim, 6)
    _write(ax, at, at.claim, top + 0.11, label, fontsize=SIZES.title, fontweight="bold")
    if summary is not None:
        symbol, color = _VERDICTS[summary]
        _write(ax, at, at.claim, top + 0.25, symbol, fontsize=SIZES.title, color=color)


def _write_row(ax: Axes, at: _Columns, middle: float, row: _Row) -> None:
    """Write the statistic at the left; its numbers and the verdict at the right."""
    ink = INK if row.counts else _BESIDE
    lines = _part_lines(row, at)
    tall = _LINE_HEIGHT * max(SIZES.tick / 7, 0.8)
    shift = (len(lines) * tall) / 2 if row.detail else 0.0
    centre = middle - (tall / 2 if row.detail else 0.0)
    _write(
        ax, at, at.text, centre, "\n".join(lines), fontsize=SIZES.tick, color=ink, linespacing=1.1
    )
    if row.detail:
        detail = fitting(clean_text(row.detail), at.room, SIZES.small)
        _write(ax, at, at.text, middle + shift, detail, fontsize=SIZES.small, color=GREY)

    if math.isfinite(row.value):
        bounded = math.isfinite(row.low) and math.isfinite(row.high)
        upper = middle - (0.06 if bounded else 0.0)
        _write(ax, at, at.numbers, upper, _figures(row.value), fontsize=SIZES.tick, color=ink)
        if bounded:
            bounds = f"[{_figures(row.low)}, {_figures(row.high)}]"
            _write(ax, at, at.numbers, middle + 0.07, bounds, fontsize=SIZES.small, color=GREY)
    symbol, color = _VERDICTS[row.verdict]
    color = color if row.counts else _BESIDE
    _write(ax, at, at.verdict, middle, symbol, fontsize=SIZES.title, color=color)
    words = wrap(row.verdict, at.width - at.words - 0.02, SIZES.tick)
    _write(ax, at, at.words, middle, words, fontsize=SIZES.tick, color=color, linespacing=1.0)


def _figures(number: float) -> str:
    return f"{number:.2f}".replace("-0.00", "0.00").replace("-", "−")


def _write(ax: Axes, columns: _Columns, inches: float, row: float, text: str, **style: Any) -> None:
    """Write `text` from `inches` of the figure on, at a row of the axes."""
    across = (inches - columns.axis) / (columns.axis_end - columns.axis)
    settings = {"ha": "left", "va": "center", "color": INK} | style | text_style(text)
    ax.text(across, row, text, transform=ax.get_yaxis_transform(), clip_on=False, **settings)


def _rule(ax: Axes, at: _Columns, row: float) -> None:
    """Rule off one claim from the next, over the whole width."""
    wide = at.axis_end - at.axis
    ends = [(inches - at.axis) / wide for inches in (at.claim, at.width - 0.1)]
    ax.plot(
        ends,
        [row, row],
        transform=ax.get_yaxis_transform(),
        color=PALE,
        linewidth=0.5,
        clip_on=False,
        label="_rule",
    )


def _key(rows: list[_Row]) -> list[Line2D | Patch]:
    """Return what explains the marks beneath the rows."""
    handles: list[Line2D | Patch] = [Line2D([], [], label="value", **_VALUE)]
    if any(math.isfinite(row.low) for row in rows):
        handles.append(Line2D([], [], label="95 % t interval over seeds", **_LINE))
    if any(len(row.seeds) > 1 for row in rows):
        handles.append(Line2D([], [], label="each seed", **_SEED))
    if not all(row.counts for row in rows):
        handles.append(Line2D([], [], label="reported beside", **_VALUE_BESIDE))
    handles.append(Line2D([], [], label="threshold", **_THRESHOLD))
    handles.append(Patch(label="side on which it holds", facecolor=_SHADE))
    return handles
