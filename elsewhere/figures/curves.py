"""Curves: along the network's layers, and with the distance from the reference."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from elsewhere.errors import InputError
from elsewhere.figures.layer_axis import BAND_FROM, along_layers, entitle_layers
from elsewhere.figures.lines import (
    CROSS,
    FLAG,
    band_handles,
    depth_shades,
    draw_band,
    draw_legend,
    draw_series,
    finite_values,
    fit_limits,
    flag_layers,
    interval_of,
    left_out_handle,
    legend_handle,
    mark_gaps,
    spread,
)
from elsewhere.figures.page import SIZES
from elsewhere.figures.results import (
    describe,
    is_dead,
    require,
    scene_of,
    select_layers,
    some,
    variable_of,
)
from elsewhere.figures.style import GREY, INK, MARKS, Mark, axes_or_new, entitle, styled, tidy
from elsewhere.figures.text import clean_text, text_style
from elsewhere.forms import layer_labels
from elsewhere.types import COMPARED

SERIES = MappingProxyType(
    {name: COMPARED[name] for name in ("similarity", "baseline", "baseline_same", "G")}
)
"""Words for the legend, by quantity."""

_BINS = 12
_DASHES = MappingProxyType(
    {
        "similarity": "-",
        "baseline": (0, (3, 1.5)),
        "baseline_same": (0, (1, 1.2)),
        "G": (0, (5, 1.2, 1, 1.2)),
    }
)
"""Of the lines of a layer, by quantity."""


@styled
def plot_layerwise(
    result: xr.Dataset,
    *,
    ax: Axes | None = None,
    quantities: Sequence[str] | None = None,
) -> Axes:
    """Draw the means away from the reference, layer by layer, in the order of the network.

    On axes that hold another network's, layers are matched by name, those of both standing in
    their order; where few names are shared, the second network stands beside the first. Marks of a
    second network are hollow. Forms of a layer other than the full one stand in its name, and no
    line joins different forms.

    Parameters
    ----------
    result
        A similarity result; for each quantity its mean (``cosine_away`` and so on, over
        layer), and its interval (``cosine_away_interval``, over layer and bound) where known.
    ax
        Where to draw; a new figure by default.
    quantities
        What to draw: ``similarity`` (with ``baseline``, for no raw similarity says anything by
        itself), ``baseline``, ``baseline_same``, ``G``; all by default.

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
    if quantities is None:  # results of earlier versions lack the other object in the same place
        held = require(result, [], []).data_vars
        known = variable_of(result, "baseline_same", "_away") in held
        quantities = [name for name in SERIES if known or name != "baseline_same"]
    wanted = choose_quantities(quantities)
    keys = {name: variable_of(result, name, "_away") for name in wanted}
    require(result, keys.values(), ["layer"])
    ax = axes_or_new(ax, 3.4, single=result.sizes["layer"] == 1)
    tidy(ax)
    layers = along_layers(ax, result)

    gaps = False
    seen: list[NDArray[np.float64]] = []
    for rank, name in enumerate(wanted):
        values = finite_values(result[keys[name]].values)
        ends = interval_of(result, keys[name])
        shift = (rank - (len(wanted) - 1) / 2) * 0.08 if len(layers) < BAND_FROM else 0.0
        draw_series(ax, layers, values, ends, MARKS[name], name, shift=shift)
        together = interval_of(result, keys[name], kind="band")
        draw_band(ax, layers, together, MARKS[name], shift=shift)
        gaps |= mark_gaps(ax, layers, np.isnan(values))
        seen += [values, *ends, *together]
    dead = is_dead(result)
    fit_limits(ax, np.concatenate(seen), headroom=0.1 if dead.any() else 0.05)
    flag_layers(ax, layers, dead)
    ax.set_ylabel("mean away from the reference", fontsize=SIZES.label)
    metric = result.attrs.get("metric")
    entitle_layers(ax, describe(result, f"{metric} similarity" if metric else "similarity"))
    handles = [legend_handle(MARKS[name], SERIES[name]) for name in wanted]
    if gaps:
        handles.append(Line2D([], [], label="no value", color=GREY, **CROSS))
    if dead.any():
        handles.append(Line2D([], [], label="over 5 %\nzero vectors", color=INK, **FLAG))
    draw_legend(ax, [*handles, *band_handles(ax, MARKS["G"].color)])
    return ax


@styled
def plot_displacement(
    result: xr.Dataset,
    *,
    ax: Axes | None = None,
    layers: Sequence[str] | None = None,
    quantities: Sequence[str] | None = None,
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
        Names of the layers; by default up to six, spread over the depth, as the legend says.
    quantities
        ``similarity`` (with ``baseline``), ``baseline``, ``baseline_same``, ``G``; by default the
        first two.

    Returns
    -------
    The axes drawn on.

    Raises
    ------
    InputError
        The result lacks what is drawn.
    UnknownNameError
        A layer that the result does not hold, or a quantity that is not known.
    """
    wanted = choose_quantities(["similarity"] if quantities is None else quantities)
    keys = {name: variable_of(result, name) for name in wanted}
    require(result, keys.values(), ["layer", "y", "x"])
    scene = scene_of(result)
    names = layer_labels(result)
    chosen = select_layers(result, layers)
    if layers is None and len(chosen) > 6:
        chosen = [chosen[idx] for idx in spread(len(chosen), 6)]
    ax = axes_or_new(ax, 3.4)
    tidy(ax)

    ys, xs = np.meshgrid(result["y"].values, result["x"].values, indexing="ij")
    distances = np.hypot(ys - scene.y, xs - scene.x).ravel()
    if distances.size == 0:
        raise InputError("the result holds no location; expected at least one")
    bins = _bin_index(distances)
    dead = is_dead(result)
    seen, handles = [], []
    shades = depth_shades(len(chosen))
    labels = [clean_text(names[idx]) for idx in chosen]
    for rank, idx in enumerate(chosen):
        mark = Mark(shades[rank], "osD^vP"[rank % 6], "-")
        label = labels[rank] + (" †" if dead[idx] else "")
        for quantity in wanted:
            dashes, filled = _DASHES[quantity], quantity == "similarity"
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
    if layers is None:
        handles += left_out_handle(len(chosen), len(names))
    farthest = max(float(distances.max()), scene.object_size)
    ax.set_xlim(-0.02 * farthest, 1.03 * farthest)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    mark_size(ax, scene.object_size)
    metric = SERIES["G"]
    if wanted != ["G"]:
        metric = f"{result.attrs.get('metric', '')} similarity" + " and G" * ("G" in wanted)
    ax.set_xlabel("distance from the reference (px)", fontsize=SIZES.label)
    ax.set_ylabel(clean_text(metric), fontsize=SIZES.label, **text_style(metric))
    entitle(ax, describe(result, "similarity with distance"), pad=14)
    for name in wanted:
        mark = Mark(INK, "o", _DASHES[name])
        handles.append(legend_handle(mark, SERIES[name], hollow=name != "similarity"))
    if dead[chosen].any():
        handles.append(Line2D([], [], linestyle="none", label="† over 5 %\n   zero vectors"))
    draw_legend(ax, handles)
    return ax


def choose_quantities(quantities: Sequence[str]) -> list[str]:
    """Return the quantities of a similarity to draw, each once: a raw one with its baseline."""
    wanted = list(some(SERIES, quantities))
    if "similarity" in wanted and "baseline" not in wanted:
        wanted.insert(wanted.index("similarity") + 1, "baseline")
    return wanted


def mark_size(ax: Axes, size: int) -> None:
    """Rule one object size off along an axis of distances, px."""
    ax.axvline(size, color=GREY, linewidth=0.6, linestyle=(0, (1, 2)), zorder=1)
    near = size < 0.12 * max(ax.get_xlim()[1], size)
    where = "left" if near else "right" if size > 0.85 * ax.get_xlim()[1] else "center"
    ax.annotate(
        "one object size", (size, 1), xycoords=("data", "axes fraction"), xytext=(0, 2),
        textcoords="offset points", ha=where, fontsize=SIZES.small, color=GREY,
    )  # fmt: skip


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
