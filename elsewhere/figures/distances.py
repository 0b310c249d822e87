"""Accuracy with the distance from where a network was trained."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from elsewhere.errors import InputError
from elsewhere.figures.accuracy import (
    CHANCE_LINE,
    Exemplars,
    Results,
    accuracy_on,
    chance_of,
    conditions,
    distances,
    on_grid,
    place_scene,
    select_map,
    shared_title,
    trained_locations,
)
from elsewhere.figures.curves import mark_size
from elsewhere.figures.lines import CROSS, depth_shades, draw_legend, fit_limits, legend_handle
from elsewhere.figures.page import SIZES
from elsewhere.figures.results import require, some
from elsewhere.figures.style import GREY, INK, Mark, axes_or_new, entitle, styled, tidy
from elsewhere.figures.text import clean_text

_EXEMPLARS: MappingProxyType[str, Any] = MappingProxyType({"same": "-", "held-out": (0, (3, 1.5))})
"""Dashes of the lines, by exemplars."""


@styled
def plot_accuracy_displacement(
    results: Results, *, ax: Axes | None = None, quantities: Sequence[Exemplars] | None = None
) -> Axes:
    """Draw accuracy against the distance from the nearest trained location.

    Solid are the exemplars of the training, dashed those held out; distances are Chebyshev's, the
    larger of the differences in y and x.

    Parameters
    ----------
    results
        An accuracy result, or several by the name of their condition: as for
        :func:`plot_accuracy_maps`. ``accuracy_by_displacement`` over (exemplars, displacement) is
        drawn if there, with its interval if known, else means over the map's locations.
    ax
        Where to draw; a new figure by default.
    quantities
        Exemplars: ``same``, ``held-out``; by default both.

    Returns
    -------
    The axes drawn on.

    Raises
    ------
    InputError
        A result lacks what is drawn, or there is none.
    UnknownNameError
        Exemplars of another kind.
    """
    wanted = some(_EXEMPLARS, quantities)
    found = conditions(results)
    for each in found.values():
        require(each, ["accuracy"], ["exemplars", "y", "x"])
    scenes = [place_scene(each) for each in found.values()]
    chances = [chance_of(each) for each in found.values()]
    ax = axes_or_new(ax, 3.2)
    tidy(ax)
    ax.grid(axis="x", visible=False)

    labels = [clean_text(name) for name in found]
    handles, farthest = [], 1.0
    drawn: set[str] = set()
    colors = ["#0072B2"] if len(found) == 1 else depth_shades(len(found))
    for rank, (name, each) in enumerate(found.items()):
        mark = Mark(colors[rank], "osD^vP"[rank % 6], "-")
        for which, dashes in wanted.items():
            at, means, low, high = _with_trained(each, which, _by_displacement(each, which))
            if not np.isfinite(means).any():
                continue
            filled = which == "same"
            ax.fill_between(at, low, high, color=mark.color, alpha=0.15, linewidth=0, zorder=2)
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
                label=f"{which}:{name}",
                zorder=3,
            )
            drawn.add(which)
            farthest = max(farthest, float(at.max()))
        if len(found) > 1:
            handles.append(legend_handle(mark, labels[rank]))
    for chance in sorted(set(chances)):
        ax.axhline(chance, label="chance", zorder=1, **CHANCE_LINE)
    for size in sorted({scene.object_size for scene in scenes}):
        mark_size(ax, size)
    fit_limits(ax, np.array([0.0, 1.0]))
    farthest = max(farthest, *(scene.object_size for scene in scenes))
    ax.set_xlim(-0.02 * farthest, 1.03 * farthest)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.set_xlabel("distance from the nearest trained location (px)", fontsize=SIZES.label)
    ax.set_ylabel("accuracy", fontsize=SIZES.label)
    entitle(ax, shared_title(found, "accuracy with distance"), pad=14)
    ink = Mark(colors[0] if len(found) == 1 else INK, "o", "-")
    if "same" in drawn:
        handles.append(legend_handle(ink, "same exemplars"))
    if "held-out" in drawn:
        held = Mark(ink.color, "o", (0, (3, 1.5)))
        handles.append(legend_handle(held, "held-out exemplars", hollow=True))
    untrained = not any(len(trained_locations(each)) for each in found.values())
    if not drawn:
        handles.append(
            Line2D(
                [],
                [],
                label="no trained location" if untrained else "no value",
                color=GREY,
                **CROSS,
            )
        )
    handles.append(Line2D([], [], label="chance", **CHANCE_LINE))
    draw_legend(ax, handles)
    return ax


_Curve: TypeAlias = tuple[
    NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]
]


def _with_trained(result: xr.Dataset, which: str, curve: _Curve) -> _Curve:
    """Begin a curve at distance 0 with the accuracy on trained locations that are off the grid."""
    trained = trained_locations(result)
    if which not in result["exemplars"].values or not len(trained) or on_grid(result, trained):
        return curve
    on, at = accuracy_on(result, which), curve[0]
    if not np.isfinite(on) or (at == 0).any():
        return curve
    low = high = np.nan
    if "accuracy_at_interval" in result:
        bounds = result["accuracy_at_interval"].sel(exemplars=which, where="on")
        low, high = (float(bounds.sel(bound=end)) for end in ("low", "high"))
    first = (0.0, on, low, high)
    return tuple(np.concatenate([[a], b]) for a, b in zip(first, curve, strict=True))  # type: ignore[return-value]


def _by_displacement(result: xr.Dataset, which: str) -> _Curve:
    """Return distances, mean accuracies, and the lower and upper ends of their intervals."""
    name = "accuracy_by_displacement"
    if which not in result["exemplars"].values:
        nothing = np.empty(0)
        return nothing, nothing, nothing, nothing
    if name in result.data_vars:
        curve = require(result, [name], ["exemplars", "displacement"])[name].sel(exemplars=which)
        at = np.asarray(result["displacement"].values, dtype=np.float64)
        means = np.asarray(curve.values, dtype=np.float64)
        low = high = np.full(len(at), np.nan)
        if f"{name}_interval" in result.data_vars:
            bounds = result[f"{name}_interval"].sel(exemplars=which)
            low, high = (
                np.asarray(bounds.sel(bound=end).values, dtype=np.float64)
                for end in ("low", "high")
            )
        return at, means, low, high
    trained = trained_locations(result)
    if not len(trained):
        raise InputError(
            "the result names no trained location, so distances are not known; expected the "
            "attribute 'trained', pairs of y and x in px"
        )
    values, distance = select_map(result, which), distances(result, trained)
    known = np.isfinite(values)
    at = np.unique(distance[known])
    means = np.array([values[known & (distance == each)].mean() for each in at])
    return at, means, np.full(len(at), np.nan), np.full(len(at), np.nan)
