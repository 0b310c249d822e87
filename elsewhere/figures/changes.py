"""What a stretch of training changed, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from elsewhere.errors import InputError
from elsewhere.figures.curves import SERIES, choose_quantities
from elsewhere.figures.layer_axis import BAND_FROM, along_layers
from elsewhere.figures.lines import (
    CROSS,
    FLAG,
    draw_legend,
    draw_series,
    finite_values,
    fit_limits,
    flag_layers,
    interval_of,
    legend_handle,
    mark_gaps,
)
from elsewhere.figures.page import SIZES
from elsewhere.figures.results import describe, is_dead, layer_names, require, variable_of
from elsewhere.figures.style import GREY, INK, MARKS, Mark, axes_or_new, entitle, mix, styled, tidy
from elsewhere.figures.text import clean_text, shorten


@styled
def plot_layerwise_change(
    before: xr.Dataset,
    after: xr.Dataset,
    *,
    ax: Axes | None = None,
    quantities: Sequence[str] = ("similarity", "baseline", "G"),
    labels: tuple[str, str] = ("before", "after"),
) -> Axes:
    """Draw the means away from the reference before and after, layer by layer.

    Before is pale with open marks, after full with filled ones.

    Parameters
    ----------
    before, after
        Similarity results with the same layers; for each quantity its mean (``cosine_away``
        and so on, over layer), and its interval (over layer and bound) where known.
    ax
        Where to draw; a new figure by default.
    quantities
        What to draw: ``similarity``, ``baseline``, ``baseline_same``, ``G``.
    labels
        What the two are called in the legend.

    Returns
    -------
    The axes drawn on.

    Raises
    ------
    InputError
        A result lacks what is drawn, or the two have different layers.
    UnknownNameError
        A quantity that is not known.
    """
    wanted = choose_quantities(quantities)
    if len(labels) != 2:
        raise InputError(f"there are {len(labels)} labels; expected two, for before and after")
    for result in (before, after):
        require(result, [variable_of(result, name, "_away") for name in wanted], ["layer"])
    names = layer_names(after)
    before = _same_layers(before, names)
    ax = axes_or_new(ax, 3.4, single=after.sizes["layer"] == 1)
    tidy(ax)
    layers = along_layers(ax, after)

    gaps, seen = False, []
    for rank, name in enumerate(wanted):
        offset = (rank - (len(wanted) - 1) / 2) * 0.16 if len(names) < BAND_FROM else 0.0
        for result, when, shift in ((before, "before", -0.04), (after, "after", 0.04)):
            mark = MARKS[name] if when == "after" else _pale(MARKS[name])
            key = variable_of(result, name, "_away")
            values = finite_values(result[key].values)
            ends = interval_of(result, key)
            shift = offset + (shift if len(names) < BAND_FROM else 0.0)
            line = draw_series(ax, layers, values, ends, mark, f"{when}:{name}", shift=shift)
            if when == "before":
                line.set(
                    markerfacecolor="white",
                    markeredgecolor=mark.color,
                    markeredgewidth=0.8,
                    linewidth=0.9,
                    zorder=2.8,
                )
            gaps |= mark_gaps(ax, layers, np.isnan(values))
            seen += [values, *ends]
    dead = is_dead(before) | is_dead(after)
    fit_limits(ax, np.concatenate(seen), headroom=0.1 if dead.any() else 0.05)
    flag_layers(ax, layers, dead)
    ax.set_ylabel("mean away from the reference", fontsize=SIZES.label)
    metric = after.attrs.get("metric")
    what = f"{metric} similarity" if metric else "similarity"
    first, second = map(clean_text, labels)
    entitle(ax, describe(after, f"{what}, {first} and {second}"))
    handles = [legend_handle(MARKS[name], SERIES[name]) for name in wanted]
    handles.append(legend_handle(Mark(mix(INK), "o", "-"), first, hollow=True))
    handles.append(legend_handle(Mark(INK, "o", "-"), second))
    if gaps:
        handles.append(Line2D([], [], label="no value", color=GREY, **CROSS))
    if dead.any():
        handles.append(Line2D([], [], label="over 5 %\nzero vectors", color=INK, **FLAG))
    draw_legend(ax, handles)
    return ax


def _same_layers(before: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    """Return `before` with its layers in the order of `names`, which it has to hold exactly."""
    held = layer_names(before)
    differing = sorted(set(held) ^ set(names))
    if differing or len(held) != len(names):
        raise InputError(
            f"before has {len(held)} layers and after {len(names)}, and they differ in: "
            f"{shorten(', '.join(differing) or 'names that occur twice', 80)}; measure both at "
            "the same layers"
        )
    return before.isel(layer=[held.index(name) for name in names])


def _pale(mark: Mark) -> Mark:
    return Mark(mix(mark.color), mark.marker, mark.dashes)
