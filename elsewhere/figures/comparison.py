"""Several results side by side: a curve a network, or claims by system."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures.lines import finite_values
from elsewhere.figures.page import SIZES, new_figure, room_along
from elsewhere.figures.steps import PhaseSteps, draw_steps, stretches
from elsewhere.figures.style import (
    GREY,
    INK,
    PALE,
    Mark,
    entitle_figure,
    legend_below,
    styled,
    tidy,
)
from elsewhere.figures.text import clean_text, labels_in, text_style, wrap

MOST = 12
"""Panels of numbers, unless others are asked for."""

_SYMBOLS = MappingProxyType(
    {
        "holds": ("o", INK),
        "shown in this run": ("o", INK),
        "fails": ("X", "#b3400a"),
        "not shown in this run": ("X", "#b3400a"),
        "undecided": ("s", "#7a5c00"),
    }
)
"""How values are drawn by verdict; all others are not drawn but told."""


@styled
def plot_comparison(
    comparison: xr.Dataset, *, quantities: Sequence[str] | None = None, differences: bool = False
) -> Figure:
    """Draw several results side by side: a curve each against relative depth, or claims by system.

    A panel for each number. Numbers of layers are curves against depth, from 0 at the first layer
    that was measured to 1 at the last; of checkpoints against the steps of each phase (logarithmic,
    with a place for step 0), of the last layer where they are of layers; others are marks in a row
    for each result. Of claims there is a panel for each statistic that decides, a row for each
    system, with the threshold and the side on which it holds; marks are of the verdict. Bars are
    95 %.

    Parameters
    ----------
    comparison
        A result of :func:`elsewhere.compare`.
    quantities
        Which numbers, or claims (``C1``); by default those away from the reference, or all that
        decide.
    differences
        Whether differences from the first result are drawn instead, with their paired intervals.

    Returns
    -------
    A figure that pyplot does not know of.

    Raises
    ------
    InputError
        Not a comparison.
    UnknownNameError
        A number or a claim that the comparison does not hold.
    """
    if not isinstance(comparison, xr.Dataset) or comparison.attrs.get("kind") != "comparison":
        raise InputError("this figure draws a comparison; make one with `elsewhere compare`")
    if comparison.attrs.get("compared") == "claims":
        return _plot_claims(comparison, quantities, differences)
    comparison, last = _of_last_layers(comparison)
    keys = _chosen(comparison, quantities)
    ending = "_difference" if differences else ""
    names = comparison["other" if differences else "result"].values.tolist()
    rows = [key for key in keys if not _curved(comparison, key)]
    panels = [(key, dims) for key in keys for dims in _panels(comparison, key)]
    columns = _columns(len(panels))
    deep = -(-len(panels) // columns)
    tall = max(1.7, 0.5 + 0.16 * len(names)) if rows else 1.9
    figure = new_figure(SIZES.width, 0.9 + deep * tall)
    axes = figure.subplots(deep, columns, squeeze=False).ravel().tolist()
    marks = _marks(len(names))
    for ax, (key, where) in zip(axes, panels, strict=False):
        if _curved(comparison, key):
            _draw_curves(ax, comparison, key, where, ending, marks)
        else:
            _draw_rows(ax, comparison, key, where, ending, names, marks)
        more = ["last layer"] * (key in last)
        said = ", ".join([key.replace("_", " "), *map(str, where.values()), *more])
        title = wrap(said, SIZES.width / columns - 0.5, SIZES.label)
        above = 11.0 if "checkpoint" in comparison[key].dims else 6.0  # for the phases' names
        ax.set_title(title, loc="left", fontsize=SIZES.label, pad=above, **text_style(title))
    for ax in axes[len(panels) :]:
        ax.remove()
    handles = [
        Line2D(
            [], [], label=clean_text(name), color=mark.color, marker=mark.marker,
            linestyle=mark.dashes, markersize=4,
        )
        for name, mark in zip(names, marks, strict=True)
    ]  # fmt: skip
    entitle_figure(figure, _title(comparison, differences))
    legend_below(figure, handles)
    return figure


def _columns(count: int) -> int:
    """Return how many panels stand beside each other: more where a low page is asked for."""
    usual = 1 if SIZES.narrow or count == 1 else 2 if count <= 6 else 3
    if SIZES.height is None or count == 1:
        return usual
    most, room = 2 if SIZES.narrow else 3, SIZES.height - 0.7
    return next((n for n in range(usual, most) if room / -(-count // n) >= 0.9), most)


def _of_last_layers(comparison: xr.Dataset) -> tuple[xr.Dataset, set[str]]:
    """Return numbers of layers at checkpoints as those of each result's last layer; which."""
    found, last = {}, set()
    for key, values in comparison.data_vars.items():
        if "checkpoint" not in values.dims or not {"place", "joined"} & {*values.dims}:
            continue
        if "joined" in values.dims:
            one = values.isel(joined=-1)
        else:
            one = values.isel(place=comparison["depth"].argmax("place"))
        found[key] = (one.dims, one.values, values.attrs)
        last.add(str(key))
    return comparison.assign(found), last


def _title(comparison: xr.Dataset, differences: bool) -> str:
    first = str(comparison["result"].values[0])
    what = str(comparison.attrs.get("compared", "results"))
    count = comparison.sizes["result"]
    said = f"{what}, less that of {first}" if differences else f"{what} of {count} results"
    return f"{said} · 95 % intervals"


def _chosen(comparison: xr.Dataset, quantities: Sequence[str] | None) -> list[str]:
    """Return the numbers that are drawn."""
    known = [
        str(key)
        for key in comparison.data_vars
        if f"{key}_difference" in comparison.data_vars
        and "displacement" not in comparison[key].dims
    ]
    if quantities is None:
        away = [key for key in known if key.endswith(("_away", "_at", "II_far"))]
        return (away or known)[:MOST]
    wanted = [quantities] if isinstance(quantities, str) else list(dict.fromkeys(quantities))
    for name in wanted:
        if name not in known:
            raise UnknownNameError("quantity", name, known)
    if not wanted:
        raise InputError(f"no quantities to draw; expected some of {', '.join(known)}")
    return wanted


def _curved(comparison: xr.Dataset, key: str) -> bool:
    return bool({"place", "checkpoint"} & {*comparison[key].dims})


def _panels(comparison: xr.Dataset, key: str) -> list[dict[str, str]]:
    """Return what each panel of a number is of: kinds of exemplars, and for curves, places."""
    along = [dim for dim in ("exemplars", "where", "metric") if dim in comparison[key].dims]
    found: list[dict[str, str]] = [{}]
    for dim in along:
        found = [{**each, dim: str(name)} for each in found for name in comparison[dim].values]
    return [each for each in found if np.isfinite(comparison[key].sel(each).values).any()] or found


def _marks(count: int) -> list[Mark]:
    colors = colormaps["viridis"](np.linspace(0.0, 0.86, max(count, 2)))
    dashes = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
    return [
        Mark(
            "#" + "".join(f"{round(255 * part):02x}" for part in colors[number][:3]),
            "osD^vPX<>*hp"[number % 12],
            dashes[number % 4],
        )
        for number in range(count)
    ]


def _draw_curves(
    ax: Axes,
    comparison: xr.Dataset,
    key: str,
    where: dict[str, str],
    ending: str,
    marks: Sequence[Mark],
) -> None:
    """Draw a curve for each result, against depth or steps."""
    tidy(ax)
    name = f"{key}{ending}"
    values = comparison[name].sel(where)
    bounds = f"{name}_interval"
    steps = "checkpoint" in values.dims
    laid = stretches(comparison, None) if steps else []
    for number, mark in enumerate(marks[: values.shape[0]]):
        one = finite_values(values[number].values)
        ends = comparison[bounds].sel(where)[number] if bounds in comparison else None
        for places, across in _across(comparison, name, number, laid):
            known = places[np.isfinite(one[places]) & np.isfinite(across)]
            at = across[np.isin(places, known)]
            if ends is not None:
                low, high = (finite_values(ends.sel(bound=end).values) for end in ("low", "high"))
                ax.fill_between(
                    at, low[known], high[known], color=mark.color, alpha=0.15, linewidth=0
                )
            ax.plot(
                at, one[known], color=mark.color, marker=mark.marker, linestyle=mark.dashes,
                markersize=3.5, markeredgecolor="white", markeredgewidth=0.4,
                label=clean_text(str(number)),
            )  # fmt: skip
    if ending:
        ax.axhline(0, color=GREY, linewidth=0.6, zorder=1)
    for axis in (ax.xaxis, ax.yaxis):  # as many numbers as there is room for
        axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))
    if steps:
        draw_steps(ax, ax, laid, room_along(ax))
    ax.set_xlabel("step (log)" if steps else "relative depth", fontsize=SIZES.tick)


def _across(
    comparison: xr.Dataset, name: str, number: int, laid: Sequence[PhaseSteps]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float64]]]:
    """Yield which values of a result a line has, one for each phase, and where they stand."""
    dims = comparison[name].dims
    if "checkpoint" in dims:
        steps = np.asarray(comparison["step"].values, np.float64)
        for phase in laid:
            yield phase.checkpoints, phase.at(steps[phase.checkpoints])
        return
    joined = "joined" in dims
    depth = comparison["joined_depth"] if joined else comparison["depth"][number]
    across = np.asarray(depth.values, np.float64)
    yield np.arange(len(across)), across


def _draw_rows(
    ax: Axes,
    comparison: xr.Dataset,
    key: str,
    where: dict[str, str],
    ending: str,
    names: Sequence[str],
    marks: Sequence[Mark],
) -> None:
    """Draw a row for each result."""
    name = f"{key}{ending}"
    values = finite_values(comparison[name].sel(where).values.reshape(len(names)))
    for row, (value, mark) in enumerate(zip(values, marks, strict=True)):
        if f"{name}_interval" in comparison:
            ends = comparison[f"{name}_interval"].sel(where)[row].values.reshape(2)
            ax.plot(ends, [row, row], color=mark.color, linewidth=1.1, solid_capstyle="butt")
        ax.plot(
            [value], [row], color=mark.color, marker=mark.marker, markersize=4.5,
            markeredgecolor="white", markeredgewidth=0.4, linestyle="none",
        )  # fmt: skip
    _name_rows(ax, names, first=True)
    if ending:
        ax.axvline(0, color=GREY, linewidth=0.6, zorder=1)


def _name_rows(ax: Axes, names: Sequence[str], *, first: bool) -> None:
    """Write the results' names beside the rows, from above."""
    ax.set_ylim(len(names) - 0.5, -0.5)
    labels = labels_in(names, 1.1, SIZES.tick, most=1) if first else [""] * len(names)
    ax.set_yticks(range(len(names)), labels=labels, fontsize=SIZES.tick, **text_style(*labels))
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.grid(axis="x", color="#d9d9d9", linewidth=0.4, zorder=0)
    for row in range(len(names) - 1):
        ax.axhline(row + 0.5, color=PALE, linewidth=0.25, zorder=0.2)
    ax.set_axisbelow(True)


# --- claims


def _plot_claims(
    comparison: xr.Dataset, quantities: Sequence[str] | None, differences: bool
) -> Figure:
    """Draw a panel for each statistic, a row for each system."""
    held = [str(claim) for claim in comparison["claim"].values]
    for name in quantities or ():
        if name not in held:
            raise UnknownNameError("claim", name, sorted({*held}))
    columns_of = [
        place
        for place, claim in enumerate(held)
        if (bool(comparison["counts"].values[place]) or quantities is not None)
        and (quantities is None or claim in quantities)
        and comparison["value"].notnull().values[:, place].any()
    ]
    if not columns_of:
        raise InputError("no statistic that decides a claim has a value; name claims to draw")
    names = comparison["other" if differences else "result"].values.tolist()
    across = 2 if SIZES.narrow else 4
    across = min(across, len(columns_of))
    deep = -(-len(columns_of) // across)
    figure = new_figure(SIZES.width, 0.9 + deep * (0.75 + 0.135 * len(names)))
    axes = figure.subplots(deep, across, squeeze=False).ravel().tolist()
    for number, (ax, place) in enumerate(zip(axes, columns_of, strict=False)):
        _draw_claim(ax, comparison.isel(claim=place), names, differences)
        _name_rows(ax, names, first=number % across == 0)
        row = comparison.isel(claim=place)
        said = f"{row['claim'].item()} {row['part'].item()}"
        title = wrap(said, SIZES.width / across - 0.45, SIZES.small)
        ax.set_title(title, loc="left", fontsize=SIZES.small, **text_style(title))
        ax.tick_params(axis="x", labelsize=SIZES.small)
        ax.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    for ax in axes[len(columns_of) :]:
        ax.remove()
    if differences:
        entitle_figure(figure, f"claims, less {comparison['result'].values[0]} · 95 % over seeds")
        return figure
    entitle_figure(figure, f"claims of {len(names)} systems · 95 % t intervals over seeds")
    style: dict[str, Any] = {"linestyle": "none", "markersize": 4.5}
    handles = [
        Line2D([], [], label=label, marker=marker, color=color, **style)
        for label, (marker, color) in (
            ("holds", _SYMBOLS["holds"]),
            ("fails", _SYMBOLS["fails"]),
            ("undecided", _SYMBOLS["undecided"]),
        )
    ]
    handles.append(Line2D([], [], label="not measurable", marker="x", color=GREY, **style))
    handles.append(Line2D([], [], label="threshold", color="#0072B2", linewidth=1.3))
    legend_below(figure, handles)
    return figure


def _draw_claim(ax: Axes, row: xr.Dataset, names: Sequence[str], differences: bool) -> None:
    """Draw one statistic of all systems against its threshold."""
    key = "value_difference" if differences else "value"
    values = finite_values(row[key].values)
    ends = finite_values(row[f"{key}_interval"].values)
    known = [v for v in (*values, *ends.ravel()) if math.isfinite(v)]
    low = min([0.0, *known])
    high = max([1.0, *known])
    low, high = max(low, -1.0) - 0.05, min(high, 1.6) + 0.05
    ax.set_xlim(low, high)
    if not differences:
        threshold = float(row["threshold"])
        above = str(row["direction"].item()) == ">"
        side = (threshold, high) if above else (low, threshold)
        ax.axvspan(*side, color="#e3eef6", linewidth=0, zorder=0.1)
        ax.axvline(threshold, color="#0072B2", linewidth=1.3, zorder=0.5)
    for place in range(len(names)):
        verdict = "holds" if differences else str(row["verdict"].values[place])
        marker, color = _SYMBOLS.get(verdict, ("x", GREY))
        if not math.isfinite(values[place]):
            ax.text(  # a word, for any mark would stand for a number
                0.97, place, "no value", transform=ax.get_yaxis_transform(), color=GREY,
                fontsize=SIZES.small, horizontalalignment="right", verticalalignment="center",
            )  # fmt: skip
            continue
        ax.plot(np.clip(ends[place], low, high), [place] * 2, color=color, linewidth=1.1)
        rim: dict[str, Any] = (
            {} if marker == "x" else {"markeredgecolor": "white", "markeredgewidth": 0.4}
        )
        at = np.clip([values[place]], low, high)
        ax.plot(at, [place], marker=marker, color=color, markersize=4.5, zorder=3, **rim)
    if low < 0:
        ax.axvline(0, color=GREY, linewidth=0.5, zorder=0.4)
