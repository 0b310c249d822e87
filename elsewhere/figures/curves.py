"""Curves: along the network's layers, and with the distance from the reference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator
from numpy.typing import NDArray

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures.results import (
    describe,
    is_dead,
    layer_groups,
    layer_names,
    require,
    scene_of,
    select_layers,
    variable_of,
)
from elsewhere.figures.style import (
    GREY,
    INK,
    LABEL_SIZE,
    MARKS,
    PAGE_WIDTH,
    SMALL_SIZE,
    TICK_SIZE,
    Mark,
    axes_or_new,
    clean_text,
    entitle,
    shorten,
    shorten_apart,
    styled,
    text_style,
    tidy,
)

# Words for the legend, by quantity.
SERIES = MappingProxyType(
    {
        "similarity": "same object,\nelsewhere",
        "baseline": "another object,\nelsewhere",
        "baseline_same": "another object,\nsame place",
        "G": "generalisation G",
    }
)
_PASSING = re.compile(r"relu|bn|drop|avgpool")
_ALL_LABELS = 25  # more layers than this, and names are thinned
BAND_FROM = 13  # from this many layers on, intervals are bands instead of bars
_BINS = 12
TOGETHER: dict[str, Any] = {"linestyle": (0, (1, 1)), "linewidth": 1.0}
"""The edges of a band that holds for all layers together."""
CROSS: dict[str, Any] = {"marker": "x", "markersize": 3.5, "linestyle": "none"}
FLAG: dict[str, Any] = {"marker": "v", "markersize": 4, "linestyle": "none"}


@styled
def plot_layerwise(
    result: xr.Dataset,
    *,
    ax: Axes | None = None,
    quantities: Sequence[str] = ("similarity", "baseline", "baseline_same", "G"),
) -> Axes:
    """Draw the means away from the reference, layer by layer, in the order of the network.

    Parameters
    ----------
    result
        A similarity result; for each quantity its mean (``cosine_away`` and so on, over
        layer), and its interval (``cosine_away_interval``, over layer and bound) where known.
    ax
        Where to draw; a new figure by default.
    quantities
        What to draw: ``similarity``, ``baseline``, ``baseline_same``, ``G``.

    Returns
    -------
    The axes drawn on.

    Raises
    ------
    InputError
        The result lacks what is drawn.
    UnknownNameError
        A quantity that is not known.
    """
    wanted = choose_quantities(quantities)
    keys = {name: variable_of(result, name, "_away") for name in wanted}
    require(result, keys.values(), ["layer"])
    names = layer_names(result)
    ax = axes_or_new(ax, PAGE_WIDTH, 3.4)
    tidy(ax)
    draw_bands(ax, names)

    gaps = False
    seen: list[NDArray[np.float64]] = []
    for rank, name in enumerate(wanted):
        values = finite_values(result[keys[name]].values)
        low, high = interval_of(result, keys[name])
        offset = (rank - (len(wanted) - 1) / 2) * 0.08 if len(names) < BAND_FROM else 0.0
        draw_series(
            ax,
            np.arange(len(names), dtype=np.float64) + offset,
            values,
            low,
            high,
            MARKS[name],
            name,
        )
        together = interval_of(result, keys[name], kind="band")
        at = np.arange(len(names), dtype=np.float64) + offset
        draw_band(ax, at, together, MARKS[name])
        gaps |= mark_gaps(ax, np.isnan(values), MARKS[name], rank)
        seen += [values, low, high, *together]
    dead = is_dead(result)
    fit_limits(ax, np.concatenate(seen), headroom=0.1 if dead.any() else 0.05)
    mark_dead(ax, dead)
    name_layers(ax, names)
    ax.set_ylabel("mean away from the reference", fontsize=LABEL_SIZE)
    metric = result.attrs.get("metric")
    entitle(ax, describe(result, f"{metric} similarity" if metric else "similarity"))
    handles = [legend_handle(MARKS[name], SERIES[name]) for name in wanted]
    if gaps:
        handles.append(Line2D([], [], label="no value", color=GREY, **CROSS))
    if dead.any():
        handles.append(Line2D([], [], label="over 5 %\nzero vectors", color=INK, **FLAG))
    draw_legend(ax, [*handles, *band_handles(ax, MARKS["G"].color)])
    return ax


@styled
def plot_displacement(
    result: xr.Dataset, *, ax: Axes | None = None, layers: Sequence[str] | None = None
) -> Axes:
    """Draw similarity against the distance from the reference, a colour for each layer.

    Solid is the same object, dashed another object (``cosine_baseline``). Each point is the mean
    over the locations at one distance, or in one of about twelve bins where there are many.

    Parameters
    ----------
    result
        A similarity result with ``cosine`` and ``cosine_baseline`` over (layer, y, x).
    ax
        Where to draw; a new figure by default.
    layers
        Names of the layers; by default up to six, spread over the depth.

    Returns
    -------
    The axes drawn on.

    Raises
    ------
    InputError
        The result lacks what is drawn.
    UnknownNameError
        A layer that the result does not hold.
    """
    keys = {name: variable_of(result, name) for name in ("similarity", "baseline")}
    require(result, keys.values(), ["layer", "y", "x"])
    scene = scene_of(result)
    names = layer_names(result)
    chosen = select_layers(result, layers)
    if layers is None and len(chosen) > 6:
        chosen = [chosen[idx] for idx in spread(len(chosen), 6)]
    ax = axes_or_new(ax, PAGE_WIDTH, 3.4)
    tidy(ax)

    ys, xs = np.meshgrid(result["y"].values, result["x"].values, indexing="ij")
    distances = np.hypot(ys - scene.y, xs - scene.x).ravel()
    if distances.size == 0:
        raise InputError("the result holds no location; expected at least one")
    bins = _bin_index(distances)
    dead = is_dead(result)
    seen, handles = [], []
    shades = depth_shades(len(chosen))
    labels = shorten_apart([names[idx] for idx in chosen], 22)
    for rank, idx in enumerate(chosen):
        mark = Mark(shades[rank], "osD^vP"[rank % 6], "-")
        label = labels[rank] + (" †" if dead[idx] else "")
        for quantity, dashes, filled in (
            ("similarity", "-", True),
            ("baseline", (0, (3, 1.5)), False),
        ):
            values = finite_values(
                result[keys[quantity]].transpose("layer", "y", "x").values[idx].ravel()
            )
            at, means = _binned(distances, values, bins)
            ax.plot(
                at,
                means,
                color=mark.color,
                linestyle=dashes,
                linewidth=1.2 if filled else 0.9,
                marker=mark.marker,
                markersize=3.2,
                markerfacecolor=mark.color if filled else "white",
                markeredgewidth=0.7,
                label=f"{quantity}:{names[idx]}",
                zorder=3,
            )
            seen.append(means)
        handles.append(legend_handle(mark, label))
    fit_limits(ax, np.concatenate(seen))
    farthest = max(float(distances.max()), scene.object_size)
    ax.set_xlim(-0.02 * farthest, 1.03 * farthest)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    mark_size(ax, scene.object_size)
    metric = str(result.attrs.get("metric", "")) + " similarity"
    ax.set_xlabel("distance from the reference (px)", fontsize=LABEL_SIZE)
    ax.set_ylabel(clean_text(metric), fontsize=LABEL_SIZE, **text_style(metric))
    entitle(ax, describe(result, "similarity with distance"), pad=14)
    ink = Mark(INK, "o", "-")
    handles.append(legend_handle(ink, "same object"))
    handles.append(legend_handle(Mark(INK, "o", (0, (3, 1.5))), "another object", hollow=True))
    if dead[chosen].any():
        handles.append(Line2D([], [], linestyle="none", label="† over 5 %\n   zero vectors"))
    draw_legend(ax, handles)
    return ax


def choose_quantities(quantities: Sequence[str]) -> list[str]:
    """Return the quantities of a similarity to draw, each once."""
    wanted = [quantities] if isinstance(quantities, str) else list(dict.fromkeys(quantities))
    if not wanted:
        raise InputError(f"no quantities to draw; expected some of {', '.join(SERIES)}")
    for name in wanted:
        if name not in SERIES:
            raise UnknownNameError("quantity", str(name), SERIES)
    return wanted


def mark_size(ax: Axes, size: int) -> None:
    """Rule one object size off along an axis of distances, px."""
    ax.axvline(size, color=GREY, linewidth=0.6, linestyle=(0, (1, 2)), zorder=1)
    ax.annotate(
        "one object size", (size, 1), xycoords=("data", "axes fraction"), xytext=(0, 2),
        textcoords="offset points", ha="center", fontsize=SMALL_SIZE, color=GREY,
    )  # fmt: skip


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
    at: NDArray[np.float64],
    ends: tuple[NDArray[np.float64], NDArray[np.float64]],
    mark: Mark,
) -> None:
    """Draw the edges of a band that holds for all layers together, where there is one."""
    known = bool(np.isfinite(np.stack(ends)).any())
    for edge in ends if known and len(at) > 1 else ():
        ax.plot(at, edge, color=mark.color, label="_simultaneous", zorder=2.2, **TOGETHER)


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
    at: NDArray[np.float64],
    values: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    mark: Mark,
    name: str,
) -> None:
    """Draw one quantity with its interval: a band over many layers, bars over few."""
    if len(values) >= BAND_FROM:
        ax.fill_between(at, low, high, color=mark.color, alpha=0.18, linewidth=0, zorder=2)
    else:
        ax.vlines(at, low, high, color=mark.color, linewidth=0.9, zorder=2.5)
    ax.plot(
        at,
        values,
        color=mark.color,
        linestyle=mark.dashes,
        marker=mark.marker,
        markersize=3.2 if len(values) > _ALL_LABELS else 4.2,
        markeredgecolor="white",
        markeredgewidth=0.4,
        label=name,
        zorder=3,
    )


def mark_gaps(ax: Axes, missing: NDArray[np.bool_], mark: Mark, rank: int) -> bool:
    """Put a cross at the foot of the axes where a quantity has no value."""
    places = np.flatnonzero(missing)
    if len(places):
        ax.plot(
            places,
            np.full(len(places), 0.025 + 0.035 * rank),
            transform=ax.get_xaxis_transform(),
            color=mark.color,
            label="_no value",
            zorder=4,
            **CROSS,
        )
    return len(places) > 0


def mark_dead(ax: Axes, dead: NDArray[np.bool_]) -> None:
    """Flag, on the upper edge, the layers that often give nothing to compare."""
    places = np.flatnonzero(dead)
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


def fit_limits(ax: Axes, values: NDArray[np.float64], *, headroom: float = 0.05) -> None:
    """Show 0 to 1 whole, and negative values down to -1 (G has no lower bound).

    A point beyond the limits is marked at the edge, with its value.
    """
    finite = values[np.isfinite(values)]
    low = max(float(finite.min(initial=0.0)), -1.0)
    high = min(max(float(finite.max(initial=1.0)), 1.0), 2.0)
    ax.set_ylim(low - 0.04, high + headroom)
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    if low < 0:
        ax.axhline(0, color=GREY, linewidth=0.6, zorder=1)
    _mark_outside(ax)


def _mark_outside(ax: Axes) -> None:
    """Mark, at the edge of the axes, points of series that lie beyond the limits."""
    low, high = ax.get_ylim()
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
                linestyle="none", clip_on=False, zorder=5, label="_outside",
            )  # fmt: skip
            for at, value in zip(x[outside], y[outside], strict=True):
                ax.annotate(
                    f"{value:.1f}".replace("-", "−"),
                    (at, edge),
                    xytext=(4, shift),
                    textcoords="offset points",
                    fontsize=SMALL_SIZE,
                    color=color,
                )


def draw_bands(ax: Axes, names: Sequence[str]) -> None:
    """Shade every other group of layers and write the groups above the axes."""
    groups = layer_groups(names)
    if len(groups) < 2 or len(groups) > 0.75 * len(names):
        return
    for rank, (group, first, last) in enumerate(groups):
        if rank % 2 == 0:
            ax.axvspan(first - 0.5, last + 0.5, color="#f3f3f3", linewidth=0, zorder=-1)
        room = int((last - first + 1) / len(names) * 5.2 * 72 / (0.6 * SMALL_SIZE))
        if room >= min(len(group), 3):
            label = shorten(group, room)
            ax.annotate(
                label,
                ((first + last) / 2, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=SMALL_SIZE,
                color=GREY,
                **text_style(label),
            )


def name_layers(ax: Axes, names: Sequence[str]) -> None:
    """Write the layers' names, some of them where there are many."""
    count = len(names)
    # Of very many layers those that only pass on what comes before them go without a name first.
    named = [i for i, name in enumerate(names) if count <= _ALL_LABELS or not _PASSING.match(name)]
    named = named or list(range(count))
    step = -(-len(named) // _ALL_LABELS)
    # Counted from the end: the last layer, the one most asked about, always has its name.
    shown = named[(len(named) - 1) % step :: step]
    labels = shorten_apart([names[idx] for idx in shown], 24 if count > 16 else 15)
    steep = count > 6 or max(map(len, labels)) * count > 60
    ax.set_xticks(
        shown,
        labels=labels,
        rotation=90 if count > 16 else 40 if steep else 0,
        ha="center" if count > 16 or not steep else "right",
        rotation_mode="default" if count > 16 else "anchor",
        fontsize=SMALL_SIZE if count > 16 else TICK_SIZE,
        **text_style(*labels),
    )
    ax.xaxis.set_minor_locator(FixedLocator(list(range(count))))
    ax.set_xlim(-0.6, count - 0.4)
    ax.set_xlabel("layer", fontsize=LABEL_SIZE)


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


def draw_legend(ax: Axes, handles: list[Line2D]) -> None:
    """Put the legend to the right of the axes, where there is no data."""
    labels = [str(handle.get_label()) for handle in handles]
    legend = ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0,
        fontsize=TICK_SIZE,
        handlelength=2.6,
        labelspacing=0.8,
        frameon=False,
    )
    for text in legend.get_texts():
        text.set(**text_style(*labels))


def depth_shades(count: int) -> list[str]:
    """Return `count` colours, dark to light with depth, none too light for paper."""
    from_map = colormaps["viridis"](np.linspace(0.0, 0.82, count))
    return ["#" + "".join(f"{round(255 * part):02x}" for part in color[:3]) for color in from_map]


def _bin_index(distances: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the bin of each distance: one for each value if there are few, else equal widths."""
    distinct, index = np.unique(np.round(distances, 6), return_inverse=True)
    if len(distinct) <= _BINS + 2:
        return index.ravel()
    edges = np.linspace(0, distances.max(), _BINS + 1)[1:-1]
    # The reference itself keeps a bin of its own: there the similarity is 1 by definition.
    return np.where(distances == 0, 0, 1 + np.digitize(distances, edges))


def _binned(
    distances: NDArray[np.float64], values: NDArray[np.float64], bins: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean distance and mean value of the bins, NaN where a bin has no value."""
    at, means = [], []
    for number in np.unique(bins):
        inside = values[bins == number]
        at.append(float(distances[bins == number].mean()))
        finite = inside[np.isfinite(inside)]
        means.append(float(finite.mean()) if finite.size else np.nan)
    return np.array(at), np.array(means)
