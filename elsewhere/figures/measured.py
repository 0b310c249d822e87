"""Figures of measures with depth: equivariance, partition of variation, phase, an overview."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from elsewhere.errors import InputError
from elsewhere.figures.layer_axis import BAND_FROM, Layers, along_layers, entitle_layers
from elsewhere.figures.lines import (
    CROSS,
    band_handles,
    cut_handles,
    draw_band,
    draw_legend,
    draw_series,
    finite_values,
    fit_limits,
    interval_of,
    legend_handle,
    mark_cut,
    mark_gaps,
)
from elsewhere.figures.page import SIZES, new_figure
from elsewhere.figures.results import describe, require, some
from elsewhere.figures.style import (
    GREY,
    MARKS,
    Mark,
    axes_or_new,
    entitle_figure,
    legend_below,
    styled,
    tidy,
)
from elsewhere.figures.text import text_style

# Colours of Okabe and Ito (2008), as everywhere; told apart by marker and dashes as well.
SHARES = MappingProxyType(
    {
        "object": Mark("#0072B2", "o", "-"),
        "location": Mark("#D55E00", "s", (0, (4, 1.5))),
        "interaction": Mark("#595959", "^", (0, (1, 1.2))),
    }
)
PHASES = MappingProxyType(
    {
        "shift_share_in_phase": (Mark("#0072B2", "o", "-"), "pure shift,\nin phase"),
        "shift_share_out_of_phase": (
            Mark("#D55E00", "s", (0, (4, 1.5))),
            "pure shift,\nout of phase",
        ),
        "border_share_in_phase": (Mark("#595959", "^", (0, (1, 1.2))), "border,\nin phase"),
    }
)
HANDOVER = MappingProxyType(
    {
        "aligned_G_away": (MARKS["similarity"], "moved back with\nthe object"),
        "plain_G_away": (MARKS["G"], "as it stands"),
    }
)
IDENTIFIED = MappingProxyType(
    {
        "identification_ceiling": (
            Mark("#595959", "^", (0, (1, 1.2))),
            "mapped, where\nnothing moves",
        ),
        "identification_mapped_away": (Mark("#0072B2", "o", "-"), "mapped"),
        "identification_raw_away": (Mark("#D55E00", "s", (0, (4, 1.5))), "as it stands"),
    }
)
_COLUMNS = 2


@styled
def plot_equivariance(
    result: xr.Dataset, *, ax: Axes | None = None, quantities: Sequence[str] | None = None
) -> Axes:
    """Draw aligned and plain G with depth: the hand-over from equivariant to invariant code.

    Parameters
    ----------
    result
        Measures with ``aligned``: ``aligned_G_away`` and ``plain_G_away`` over layer, with their
        intervals, and ``cells``.
    ax
        Where to draw; a new figure by default.
    quantities
        ``aligned_G_away``, ``plain_G_away``; both by default.

    Returns
    -------
    The axes drawn on.

    Raises
    ------
    InputError
        The result lacks what is drawn.
    """
    drawn = some(HANDOVER, quantities)
    if require(result, [], []).attrs.get("kind") == "aligned":  # of earlier versions: it alone
        drawn.pop("plain_G_away", None)
    require(result, list(drawn), ["layer"])
    ax, layers = _stage(result, ax)
    gaps = False
    seen: list[NDArray[np.float64]] = []
    for rank, (key, (mark, _)) in enumerate(drawn.items()):
        values = _draw(result, key, mark, (ax, layers), rank, len(drawn), seen)
        missing = np.isnan(values)
        if key == "aligned_G_away":
            missing &= _is_map(result)
        gaps |= mark_gaps(ax, layers, missing)
    handles = [legend_handle(mark, label) for mark, label in drawn.values()]
    ax.set_ylabel("invariance (G), evoked", fontsize=SIZES.label)
    entitle_layers(ax, describe(result, "equivariance and invariance"))
    return _finish(ax, seen, handles, "undefined" if gaps else "")


@styled
def plot_partition(
    result: xr.Dataset, *, ax: Axes | None = None, quantities: Sequence[str] | None = None
) -> Axes:
    """Draw the shares of object, location and interaction in the variation, with depth.

    Thin lines at the right are the shares of shuffled rows: what chance gives.

    Parameters
    ----------
    result
        Measures with ``partition``: ``object_share``, ``location_share``, ``interaction_share``
        and their ``*_null``, over layer.
    ax
        Where to draw; a new figure by default.
    quantities
        ``object``, ``location``, ``interaction``; all by default.

    Returns
    -------
    The axes drawn on.

    Raises
    ------
    InputError
        The result lacks what is drawn.
    """
    drawn = some(SHARES, quantities)
    keys = [f"{part}_share" for part in drawn]
    require(result, [*keys, *(f"{key}_null" for key in keys)], ["layer"])
    ax, layers = _stage(result, ax)
    gaps = False
    seen: list[NDArray[np.float64]] = []
    for rank, (key, mark) in enumerate(zip(keys, drawn.values(), strict=True)):
        null = finite_values(result[f"{key}_null"].values)
        if np.isfinite(null).any():
            ax.axhline(
                float(np.nanmean(null)),
                color=mark.color,
                linestyle=(0, (1, 2)),
                linewidth=0.7,
                zorder=1.5,
                label=f"_{key}_null",
            )
        values = _draw(result, key, mark, (ax, layers), rank, len(keys), seen)
        gaps |= mark_gaps(ax, layers, np.isnan(values))
    handles = [legend_handle(mark, part) for part, mark in drawn.items()]
    handles.append(
        Line2D([], [], color=GREY, linestyle=(0, (1, 2)), linewidth=0.7, label="shuffled rows")
    )
    ax.set_ylabel("share of the sum of squares", fontsize=SIZES.label)
    entitle_layers(ax, describe(result, "what the code varies with"))
    return _finish(ax, seen, handles, "nothing varies" if gaps else "")


@styled
def plot_phase(
    result: xr.Dataset, *, ax: Axes | None = None, quantities: Sequence[str] | None = None
) -> Axes:
    """Draw how much of a map's change a pure shift explains, in and out of the stride's phase.

    The band between the two is what sub-sampling breaks.

    Parameters
    ----------
    result
        Measures with ``phase``: ``shift_share_in_phase``, ``shift_share_out_of_phase`` and
        ``border_share_in_phase`` over layer.
    ax
        Where to draw; a new figure by default.
    quantities
        ``shift_share_in_phase``, ``shift_share_out_of_phase``,
        ``border_share_in_phase``; all by default.

    Returns
    -------
    The axes drawn on.

    Raises
    ------
    InputError
        The result lacks what is drawn.
    """
    drawn = some(PHASES, quantities)
    require(result, list(PHASES), ["layer"])
    maps = np.isfinite(np.stack([finite_values(result[key].values) for key in PHASES])).any(axis=0)
    if maps.any():
        result = result.isel(layer=np.flatnonzero(maps))
    ax, layers = _stage(result, ax)
    between = {"shift_share_in_phase", "shift_share_out_of_phase"}
    broken: dict[str, Any] = {"color": "#E69F00", "alpha": 0.22, "linewidth": 0}
    if between <= set(drawn):
        low, high = (layers.path(finite_values(result[key].values)) for key in sorted(between))
        at = layers.path(layers.at)
        ax.fill_between(at, low, high, zorder=1.2, label="_broken by sub-sampling", **broken)
    gaps = False
    seen: list[NDArray[np.float64]] = []
    for rank, (key, (mark, _)) in enumerate(drawn.items()):
        values = _draw(result, key, mark, (ax, layers), rank, len(drawn), seen, spread=0.0)
        if key != "border_share_in_phase":
            gaps |= mark_gaps(ax, layers, np.isnan(values))
    handles: list[Any] = [legend_handle(mark, label) for mark, label in drawn.values()]
    if between <= set(drawn):
        handles.append(Patch(label="sub-sampling\nbreaks", **broken))
    ax.set_ylabel("share of the change", fontsize=SIZES.label)
    entitle_layers(ax, describe(result, "what a move changes in a map"))
    return _finish(ax, seen, handles, "no such location\non this grid" if gaps else "")


@styled
def plot_identification(
    result: xr.Dataset, *, ax: Axes | None = None, quantities: Sequence[str] | None = None
) -> Axes:
    """Draw what of an object's code is lost by a move, and what is only hidden, with depth.

    Lost is what the map lacks of its value where nothing moves, hidden what it adds to the code as
    it stands.

    Parameters
    ----------
    result
        Measures with ``identification``: ``identification_ceiling``, ``identification_mapped_away``
        and ``identification_raw_away`` over layer, with intervals, and ``identification_chance``.
    ax
        Where to draw; a new figure by default.
    quantities
        ``identification_ceiling``, ``identification_mapped_away``, ``identification_raw_away``;
        all by default.

    Returns
    -------
    The axes drawn on.

    Raises
    ------
    InputError
        The result lacks what is drawn.
    """
    drawn = some(IDENTIFIED, quantities)
    require(result, [*IDENTIFIED, "identification_chance"], ["layer"])
    ax, layers = _stage(result, ax)
    ceiling, mapped, raw = IDENTIFIED
    every = (("lost", "#8a8a8a", mapped, ceiling), ("hidden", "#56B4E9", raw, mapped))
    areas = [area for area in every if {*area[2:]} <= set(drawn)]
    for name, color, *ends in areas:
        low, high = (layers.path(finite_values(result[key].values)) for key in ends)
        ax.fill_between(
            layers.path(layers.at), low, high, where=high > low, color=color, alpha=0.25,
            linewidth=0, zorder=1.2, interpolate=True, label=f"_{name}",
        )  # fmt: skip
    chance = finite_values(result["identification_chance"].values)
    if np.isfinite(chance).any():
        ax.axhline(
            float(np.nanmean(chance)), color=GREY, linestyle=(0, (1, 2)), linewidth=0.8, zorder=1.5
        )
    gaps = False
    seen: list[NDArray[np.float64]] = []
    for rank, (key, (mark, _)) in enumerate(drawn.items()):
        values = _draw(result, key, mark, (ax, layers), rank, len(drawn), seen, spread=0.05)
        gaps |= mark_gaps(ax, layers, np.isnan(values))
    handles: list[Any] = [legend_handle(mark, label) for mark, label in drawn.values()]
    handles += [Patch(color=c, alpha=0.25, linewidth=0, label=name) for name, c, *_ in areas]
    handles.append(Line2D([], [], color=GREY, linestyle=(0, (1, 2)), linewidth=0.8, label="chance"))
    ax.set_ylabel("objects identified, share", fontsize=SIZES.label)
    entitle_layers(ax, describe(result, "lost, or hidden by the move?"))
    return _finish(ax, seen, handles, "undefined" if gaps else "")


@styled
def plot_measures(result: xr.Dataset, *, quantities: Sequence[str] | None = None) -> Figure:
    """Draw one number per layer of every measure, a panel each, with its interval where known.

    Parameters
    ----------
    result
        Measures; its attribute ``headlines`` names each measure's variable.
    quantities
        Names of the measures to draw, in this order; all by default.

    Returns
    -------
    A figure.

    Raises
    ------
    InputError
        The result holds no measures.
    """
    headlines = result.attrs.get("headlines")
    if not isinstance(headlines, dict) or not headlines:
        raise InputError(
            "the result has no variable that stands for a measure (attribute 'headlines'); draw "
            "another kind, or measure again with `elsewhere measure`"
        )
    headlines = some(headlines, quantities)
    require(result, list(headlines.values()), ["layer"])
    color, other = MARKS["similarity"].color, MARKS["baseline"]
    wide = min(1 if SIZES.narrow else _COLUMNS, len(headlines))
    n_rows = -(-len(headlines) // wide)
    figure = new_figure(SIZES.width, 0.9 + 1.25 * n_rows)
    panels = figure.subplots(n_rows, wide, squeeze=False, sharex=True)
    flat = panels.ravel().tolist()
    # A place too many is above, so that the columns end together.
    key_panel = flat.pop(1) if len(flat) > len(headlines) else None
    baselines: list[str] = []
    gaps = False
    for ax, (name, key) in zip(flat, headlines.items(), strict=True):
        tidy(ax)
        seen: list[NDArray[np.float64]] = []
        layers = along_layers(ax, result, groups=False)
        values = _draw(result, key, MARKS["similarity"], (ax, layers), 0, 1, seen)
        gaps |= mark_gaps(ax, layers, np.isnan(values))
        beside = f"{key.removesuffix('_away')}_baseline_away"
        if beside in result:  # no raw similarity stands alone
            _draw(result, beside, other, (ax, layers), 0, 1, seen)
            baselines.append(beside)
        _fit_panel(ax, np.concatenate(seen[::2]), np.concatenate(seen))
        words = key.replace("_", " ").replace("r2", "R²")
        rest = words.removeprefix(name.replace("-", " ")).removesuffix("away").strip()
        label = f"{name}: {rest}" if rest else name
        ax.set_title(label, loc="left", fontsize=SIZES.label, **text_style(label))
        ax.set_xlabel("")
        ax.tick_params(labelbottom=ax in panels[-1])
    handles: list[Any] = [
        Line2D([], [], color=color, linewidth=1, label="95 % interval")
        if result.sizes["layer"] < BAND_FROM  # few layers: intervals are lines
        else Patch(color=color, alpha=0.18, linewidth=0, label="95 % interval"),
        *[h for ax in flat for h in band_handles(ax, color)][1:2],
        *cut_handles(*flat),
        *([Line2D([], [], label="no value", color=GREY, **CROSS)] if gaps else []),
        *([legend_handle(other, "other object elsewhere")] if baselines else []),
    ]
    if key_panel is not None:
        key_panel.set_axis_off()
        key_panel.legend(handles=handles, loc="center left", frameon=False)
    else:
        legend_below(figure, handles)
    entitle_figure(figure, describe(result, "measures, layer by layer"))
    return figure


def _fit_panel(ax: Axes, values: NDArray[np.float64], seen: NDArray[np.float64]) -> None:
    """Show all values, and of wide intervals as much again."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        ax.set_ylim(0, 1)
        ax.set_yticks([])
        return
    low, high = float(finite.min()), float(finite.max())
    room = max(high - low, 0.02 * max(abs(low), abs(high), 1e-9))
    seen = seen[np.isfinite(seen)]
    bottom = max(float(seen.min(initial=low)), low - room) - 0.12 * room
    top = min(float(seen.max(initial=high)), high + room) + 0.12 * room
    ax.set_ylim(bottom, top)
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    if bottom < 0 < top:
        ax.axhline(0, color=GREY, linewidth=0.6, zorder=1)
    mark_cut(ax)


def _stage(result: xr.Dataset, ax: Axes | None) -> tuple[Axes, Layers]:
    """Return axes, and the layers along them."""
    ax = axes_or_new(ax, 3.4, single=result.sizes["layer"] == 1)
    tidy(ax)
    return ax, along_layers(ax, result)


def _finish(
    ax: Axes,
    seen: Sequence[NDArray[np.float64]],
    handles: Sequence[Any],
    gap: str,
) -> Axes:
    """Show all that was drawn and explain the marks."""
    # An interval over few objects can be far wider than the shares: they decide on the limits.
    fit_limits(ax, np.concatenate([*seen[::2], *(np.clip(each, -0.5, 1.5) for each in seen[1::2])]))
    gaps = [Line2D([], [], label=gap, color=GREY, **CROSS)] if gap else []
    draw_legend(ax, [*handles, *gaps, *band_handles(ax, GREY)])
    return ax


def _draw(
    result: xr.Dataset,
    key: str,
    mark: Mark,
    where: tuple[Axes, Layers],
    rank: int,
    count: int,
    seen: list[NDArray[np.float64]],
    *,
    spread: float = 0.08,
) -> NDArray[np.float64]:
    """Draw one quantity with its interval; return its values and keep what was drawn."""
    values, ends = finite_values(result[key].values), interval_of(result, key)
    shift = (rank - (count - 1) / 2) * spread if len(values) < BAND_FROM else 0.0
    draw_series(*where, values, ends, mark, key, shift=shift)
    together = interval_of(result, key, kind="band")
    draw_band(*where, together, mark, shift=shift)
    seen += [values, np.concatenate([*ends, *together])]
    return values


def _is_map(result: xr.Dataset) -> NDArray[np.bool_]:
    """Return which layers are feature maps with a place on the canvas, bool (layer,)."""
    if "cells" not in result.data_vars:
        return np.ones(result.sizes["layer"], dtype=bool)
    others: Sequence[Any] = [dim for dim in result["cells"].dims if dim != "layer"]
    found: NDArray[np.bool_] = result["cells"].notnull().any(others).values
    return found
