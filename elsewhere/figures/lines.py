"""Lines with their intervals, marks of what has no value, limits and legends."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from elsewhere.figures.layer_axis import BAND_FROM, Layers, axis_of
from elsewhere.figures.page import SIZES, is_ours, leave_room, make_room, room_along
from elsewhere.figures.results import require
from elsewhere.figures.style import GREY, INK, Mark, figure_of, legend_lines, mix
from elsewhere.figures.text import clean_text, labels_in, text_style, text_width

TOGETHER: dict[str, Any] = {"linestyle": (0, (1, 1)), "linewidth": 1.0}
"""The edges of a band that holds for all layers together."""
CROSS: dict[str, Any] = {"marker": "x", "markersize": 3.5, "linestyle": "none"}
FLAG: dict[str, Any] = {"marker": "v", "markersize": 4, "linestyle": "none"}
_MANY = 25  # layers from which on marks are small


def spread(count: int, most: int) -> list[int]:
    """Return up to `most` of `count` indices, evenly spread, the first and the last among them."""
    places = np.linspace(0, count - 1, min(most, count)).tolist()
    return sorted({round(place) for place in places})


def finite_values(values: NDArray[np.floating]) -> NDArray[np.float64]:
    wide = values.astype(np.float64)
    wide[~np.isfinite(wide)] = np.nan
    return wide


def interval_of(
    result: xr.Dataset, name: str, *, kind: str = "interval"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lower and upper ends (layer,) of the interval of `name`, NaN where unknown."""
    key = f"{name}_{kind}"
    if key not in result.data_vars:
        nothing = np.full(result.sizes["layer"], np.nan)
        return nothing, nothing
    require(result, [key], ["layer", "bound"])
    bounds = result[key]
    return finite_values(bounds.sel(bound="low").values), finite_values(
        bounds.sel(bound="high").values
    )


def draw_band(
    ax: Axes,
    layers: Layers,
    ends: tuple[NDArray[np.float64], NDArray[np.float64]],
    mark: Mark,
    *,
    shift: float = 0.0,
) -> None:
    """Draw the edges of a band that holds for all layers together, where there is one."""
    known = bool(np.isfinite(np.stack(ends)).any())
    at = layers.path(layers.at + shift)
    for edge in ends if known and len(layers) > 1 else ():
        color = _ranked(mark.color, layers.rank)["color"]
        ax.plot(at, layers.path(edge), color=color, label="_simultaneous", zorder=2.2, **TOGETHER)


def band_handles(ax: Axes, color: str) -> list[Line2D]:
    """Return what the legend says of pointwise intervals and bands, if axes have bands."""
    edges = [line for line in ax.lines if line.get_label() == "_simultaneous"]
    if not edges:
        return []
    many = len(np.asarray(edges[0].get_xdata())) >= BAND_FROM
    width, opacity = (6.0, 0.25) if many else (0.9, 1.0)
    return [
        Line2D([], [], label="95 % pointwise", color=color, linewidth=width, alpha=opacity),
        Line2D([], [], label="95 % simultaneous\nover layers", color=color, **TOGETHER),
    ]


def draw_series(
    ax: Axes,
    layers: Layers,
    values: NDArray[np.float64],
    ends: tuple[NDArray[np.float64], NDArray[np.float64]],
    mark: Mark,
    name: str,
    *,
    shift: float = 0.0,
) -> Line2D:
    """Draw one quantity with its interval: a band over many layers, bars over few.

    A second network's marks are hollow. No line joins layers of different forms.
    """
    look, at, (low, high) = _ranked(mark.color, layers.rank), layers.at + shift, ends
    path = layers.path(at)
    if len(layers) >= BAND_FROM:
        lower, upper = (layers.path(edge) for edge in ends)
        ax.fill_between(path, lower, upper, color=look["color"], alpha=0.18, linewidth=0, zorder=2)
    else:
        ax.vlines(at, low, high, color=look["color"], linewidth=0.9, zorder=2.5)
    (line,) = ax.plot(
        path,
        layers.path(values),
        linestyle=mark.dashes,
        marker=mark.marker,
        markersize=3.2 if len(layers) > _MANY else 4.2,
        label=name,
        zorder=3,
        **look,
    )
    return line


def _ranked(color: str, rank: int) -> dict[str, Any]:
    """Return how the marks of the network drawn after `rank` others look: filled, hollow, pale."""
    if rank > 1:
        color = mix(color, min(0.3 * (rank // 2), 0.6))
    if rank % 2:
        edge = {"markeredgecolor": color, "markeredgewidth": 0.8, "linewidth": 0.9}
        return {"color": color, "markerfacecolor": "white", **edge}
    return {"color": color, "markeredgecolor": "white", "markeredgewidth": 0.4}


def mark_gaps(ax: Axes, layers: Layers, missing: NDArray[np.bool_]) -> bool:
    """Put a cross on the lower edge, off the scale of values, where a quantity has no value."""
    places = layers.at[missing]
    if len(places):
        ax.plot(
            places,
            np.zeros(len(places)),
            transform=ax.get_xaxis_transform(),
            color=GREY,
            clip_on=False,
            label="_no value",
            zorder=4,
            **CROSS,
        )
    return len(places) > 0


def flag_layers(ax: Axes, layers: Layers, flagged: NDArray[np.bool_]) -> None:
    """Flag layers on the upper edge, such as those that often give nothing to compare."""
    places = layers.at[flagged]
    if len(places):
        ax.plot(
            places,
            np.full(len(places), 0.985),
            transform=ax.get_xaxis_transform(),
            color=INK,
            clip_on=False,
            label="_dead",
            zorder=4,
            **FLAG,
        )


_OUTSIDE = "beyond the limits"


def fit_limits(ax: Axes, values: NDArray[np.float64], *, headroom: float = 0.05) -> None:
    """Show 0 to 1 whole, and negative values down to -1 (G has no lower bound).

    A point beyond the limits is marked at the edge, with its value.
    """
    finite = values[np.isfinite(values)]
    low = max(float(finite.min(initial=0.0)), -1.0)
    high = min(max(float(finite.max(initial=1.0)), 1.0), 2.0)
    bottom, top = low - 0.04, high + headroom
    axis = axis_of(ax)
    if axis is not None and len(axis.networks) > 1:  # and what was drawn before
        bottom, top = min(bottom, ax.get_ylim()[0]), max(top, ax.get_ylim()[1])
    ax.set_ylim(bottom, top)
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    if low < 0:
        ax.axhline(0, color=GREY, linewidth=0.6, zorder=1)
    _mark_outside(ax)
    mark_cut(ax)


def _mark_outside(ax: Axes) -> None:
    """Mark, at the edge of the axes, points of series that lie beyond the limits."""
    low, high = ax.get_ylim()
    for artist in [a for a in (*ax.lines, *ax.texts) if a.get_gid() == _OUTSIDE]:
        artist.remove()
    apart = text_width("−9.9", SIZES.small) / room_along(ax) * np.ptp(ax.get_xlim())
    for line in list(ax.lines):
        if line.get_transform() != ax.transData or str(line.get_label()).startswith("_"):
            continue
        x, y = (np.asarray(part, np.float64) for part in line.get_data())
        for outside, edge, marker, shift in ((y < low, low, 11, 7), (y > high, high, 10, -11)):
            if not outside.any():
                continue
            color = line.get_color()
            ax.plot(
                x[outside], np.full(outside.sum(), edge), color=color, marker=marker, markersize=5,
                linestyle="none", clip_on=False, zorder=5, label="_outside", gid=_OUTSIDE,
            )  # fmt: skip
            last = -np.inf
            for at, value in zip(x[outside], y[outside], strict=True):
                if at - last < apart:  # its mark stands, for a second number there is no room
                    continue
                last = at
                ax.annotate(
                    f"{value:.1f}".replace("-", "−"),
                    (at, edge),
                    xytext=(4, shift),
                    textcoords="offset points",
                    fontsize=SIZES.small,
                    color=color,
                    gid=_OUTSIDE,
                )


_CUT: dict[str, Any] = {
    "markersize": 4, "markerfacecolor": "white", "markeredgecolor": GREY, "markeredgewidth": 0.7,
    "linestyle": "none",
}  # fmt: skip


def mark_cut(ax: Axes) -> None:
    """Mark, at the edge of the axes, intervals and bands that reach beyond the limits."""
    edges: list[NDArray[np.float64]] = []
    for drawn in ax.collections:
        if drawn.get_transform().contains_branch_seperately(ax.transData)[1]:
            edges += [np.asarray(path.vertices, np.float64) for path in drawn.get_paths()]
    edges += [np.asarray(line.get_xydata(), np.float64) for line in ax.lines
              if line.get_label() == "_simultaneous"]  # fmt: skip
    if not edges:
        return
    x, y = np.concatenate(edges).T
    low, high = ax.get_ylim()
    for beyond, edge, marker in ((y < low, 0.0, 7), (y > high, 1.0, 6)):
        at = np.unique(np.round(x[beyond], 2))
        if len(at):
            ax.plot(
                at, np.full(len(at), edge), transform=ax.get_xaxis_transform(), marker=marker,
                zorder=4, clip_on=False, label="_cut", gid=_OUTSIDE, **_CUT,
            )  # fmt: skip


def cut_handles(*panels: Axes) -> list[Line2D]:
    """Return what a legend says of intervals that reach beyond the limits, where some do."""
    if not any(line.get_label() == "_cut" for ax in panels for line in ax.lines):
        return []
    return [Line2D([], [], label="interval goes on", marker=7, **_CUT)]


def legend_handle(mark: Mark, label: str, *, hollow: bool = False) -> Line2D:
    return Line2D(
        [],
        [],
        color=mark.color,
        linestyle=mark.dashes,
        marker=mark.marker,
        markersize=4,
        markerfacecolor="white" if hollow else mark.color,
        markeredgewidth=0.7,
        label=label,
    )


def left_out_handle(shown: int, known: int) -> list[Line2D]:
    """Return what a legend says of layers that are not drawn; nothing where all are."""
    text = f"({shown} of {known} layers;\n--layers: others)"
    return [Line2D([], [], linestyle="none", label=text)] * (shown < known)


def mean_handle(forms: Collection[str]) -> list[Line2D]:
    """Return what a legend says of layers of which means over space are drawn."""
    label = "(mean): over space,\ninvariant by itself"
    return [Line2D([], [], linestyle="none", label=label)] * ("mean" in forms)


def network_handles(ax: Axes) -> list[Line2D]:
    """Return what the legend says of networks, where several are drawn on axes."""
    axis = axis_of(ax)
    if axis is None or len(axis.networks) < 2:
        return []
    style: dict[str, Any] = {"linestyle": "-", "marker": "o", "markersize": 4}
    return [
        Line2D([], [], label=clean_text(label), **style, **_ranked(INK, rank))
        for rank, label in enumerate(axis.networks)
    ]


def draw_legend(ax: Axes, handles: Sequence[Any]) -> None:
    """Put the legend beside the axes, or beneath those of a narrow figure: never over data."""
    handles = [*handles, *network_handles(ax)]
    axis = axis_of(ax)
    handles += [*cut_handles(ax), *mean_handle(axis.forms if axis is not None else ())]
    if axis is not None and axis.beside:
        label = "not joined: beside\nthe main branch"
        handles.append(Line2D([], [], linestyle="none", label=label))
    figure = figure_of(ax)
    width = float(figure.get_size_inches()[0])
    common: dict[str, Any] = {
        "handles": handles, "loc": "upper left", "borderaxespad": 0, "fontsize": SIZES.tick,
        "frameon": False,
    }  # fmt: skip
    beneath = is_ours(figure) and SIZES.narrow
    room = width - 0.2 - 3 * SIZES.tick / 72 if beneath else 11 * SIZES.tick / 72
    labels = [
        label
        if (beneath or "\n" in label) and text_width(label, SIZES.tick) <= room
        else labels_in([label], room, SIZES.tick, most=6)[0]
        for label in (str(handle.get_label()) for handle in handles)
    ]
    if not beneath:
        legend = ax.legend(
            labels=labels,
            bbox_to_anchor=(1.01, 1.0), handlelength=2.6, labelspacing=0.8, **common
        )  # fmt: skip
    else:
        lines, labels, columns = legend_lines(labels, width - 0.1, SIZES.tick, 2.2)
        legend = ax.legend(
            labels=labels, ncols=columns, handlelength=2.2, labelspacing=0.3, columnspacing=1.4,
            borderpad=0.1, bbox_to_anchor=(0.0, -0.25), **common,
        )  # fmt: skip
        make_room(figure, f"legend of {id(ax)}", lines * 1.35 * SIZES.tick / 72)
        legend.set_gid("beneath")
    for text in legend.get_texts():
        text.set(**text_style(*labels))
    if figure.get_layout_engine() is None:
        leave_room(ax, legend)


def depth_shades(count: int) -> list[str]:
    """Return `count` colours, dark to light with depth, none too light for paper."""
    from_map = colormaps["viridis"](np.linspace(0.0, 0.82, count))
    return ["#" + "".join(f"{round(255 * part):02x}" for part in color[:3]) for color in from_map]
