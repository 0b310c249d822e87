"""Probes: trained here, read everywhere; over the canvas, place by place, and with depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures.accuracy import (
    CHANCE_LINE,
    Exemplars,
    chance_of,
    choose_exemplars,
    draw_accuracy_bar,
    place_scene,
    trained_locations,
)
from elsewhere.figures.layer_axis import BAND_FROM, along_layers, entitle_layers
from elsewhere.figures.lines import (
    CROSS,
    FLAG,
    band_handles,
    draw_band,
    draw_legend,
    draw_series,
    finite_values,
    fit_limits,
    flag_layers,
    legend_handle,
    mark_gaps,
)
from elsewhere.figures.maps import (
    COLOR_MAP,
    MISSING,
    RASTER_CELLS,
    RING,
    TEXT_MARK,
    draw_cells,
    frame_panel,
    outline_objects,
    shown_sizes,
)
from elsewhere.figures.page import SIZES
from elsewhere.figures.results import (
    cell_edges,
    describe,
    require,
    select_layers,
)
from elsewhere.figures.sheets import Sheet
from elsewhere.figures.style import (
    GREY,
    INK,
    Mark,
    axes_or_new,
    legend_below,
    styled,
    tidy,
)
from elsewhere.forms import layer_labels

Quantity: TypeAlias = Literal["II_far", "far", "off", "on"]

RAW_PIXELS = "raw pixels"
_BAR = "accuracy of the probe"
_LABELS = MappingProxyType(
    {
        "II_far": "invariance index, far over on (II_far)",
        "far": "accuracy far from the trained location",
        "off": "accuracy off the trained location",
        "on": "accuracy on the trained location",
    }
)
_NETWORK = MappingProxyType(
    {"same": Mark("#0072B2", "o", "-"), "held-out": Mark("#D55E00", "s", (0, (4, 1.5)))}
)
_CONTROLS = MappingProxyType(
    {
        "untrained": (Mark("#595959", "^", (0, (1, 1.2))), "untrained network"),
        "shuffled": (Mark("#E69F00", "v", (0, (5, 1.2, 1, 1.2))), "shuffled labels"),
    }
)
_PIXELS: dict[str, Any] = {"color": "#009E73", "linewidth": 1.0, "linestyle": (0, (6, 1.5))}


@styled
def plot_probe_maps(
    result: xr.Dataset,
    *,
    exemplars: Exemplars | None = None,
    layers: Sequence[str] | None = None,
    columns: int | None = None,
) -> Figure:
    """Draw what a probe trained at one place gets right over the canvas, a panel for each layer.

    The scale runs from chance to 1; accuracies below chance have its lowest colour. The small
    number is the mean accuracy off the trained locations.

    Parameters
    ----------
    result
        A result of probes trained at one place: ``accuracy`` over (layer, exemplars, y, x), 0..1,
        and ``trained_y``, ``trained_x``, px; ``accuracy_at`` and ``pixels_accuracy`` where known.
    exemplars
        ``same`` or ``held-out`` exemplars; by default those held out, if there are any.
    layers
        Names of the layers, in this order, ``raw pixels`` among them; by default all, after the raw
        pixels, where the result holds these.
    columns
        Panels in a row; chosen for the page by default.

    Returns
    -------
    A figure that pyplot does not know of.

    Raises
    ------
    InputError
        The result lacks what is drawn; of probes trained at each place, draw the matrix.
    UnknownNameError
        A layer or kind of exemplars that is not known.
    """
    result = require(result, ["accuracy"], ["layer", "exemplars", "y", "x"]).sortby(["y", "x"])
    which = choose_exemplars([result], "accuracy", exemplars)
    scene, trained = place_scene(result), trained_locations(result)
    chance = chance_of(result)
    names = layer_labels(result)
    wanted = None if layers is None else [layers] if isinstance(layers, str) else list(layers)
    pixels = "pixels_accuracy" in result.data_vars and (wanted is None or RAW_PIXELS in wanted)
    if pixels and wanted is not None:
        wanted.remove(RAW_PIXELS)
    chosen = [] if wanted == [] and pixels else select_layers(result, wanted)
    panels: list[tuple[str, NDArray[np.float64], float]] = []
    if pixels:
        shown = result["pixels_accuracy"].sel(exemplars=which).transpose("y", "x")
        values = finite_values(shown.values)
        if np.isfinite(values).any() or wanted is not None:
            panels.append((RAW_PIXELS, values, _off(result, "pixels_accuracy_at", which)))
    for idx in chosen:
        shown = result["accuracy"].isel(layer=idx).sel(exemplars=which).transpose("y", "x")
        values = finite_values(shown.values)
        panels.append((names[idx], values, _off(result, "accuracy_at", which, idx)))
    if not panels[0][1].size:
        raise InputError("a result of probes holds no location; expected at least one")

    norm = Normalize(chance, 1.0)
    sheet = Sheet([name for name, *_ in panels], columns, describe(result, _what(result, which)))
    edges_y, edges_x = (
        cell_edges(result[dim].values, scene.canvas, scene.object_size) for dim in ("y", "x")
    )
    for idx, (ax, (name, values, mean)) in enumerate(zip(sheet.panels, panels, strict=True)):
        draw_cells(ax, values, edges_y, edges_x, norm, raster=values.size > RASTER_CELLS)
        frame_panel(ax, scene, **sheet.outer(idx))
        ax.plot(trained[:, 1], trained[:, 0], label="trained", clip_on=False, zorder=3, **RING)
        style = "italic" if name == RAW_PIXELS else "normal"
        sheet.name(idx, mean, fontstyle=style)
    sizes = shown_sizes(result, scene)[chosen].tolist()
    sizes = [scene.shown_size] * (len(panels) - len(sizes)) + sizes
    box = outline_objects(sheet.panels, scene, sizes)
    every = np.concatenate([values.ravel() for _, values, _ in panels])
    draw_accuracy_bar(sheet.figure, sheet.panels, norm, every, _BAR)
    sheet.label("x (px)", "y (px)")
    where = f" (y {scene.y}, x {scene.x})" if len(trained) == 1 else "s"
    handles: list[Line2D | Patch] = [
        Line2D([], [], label=f"trained location{where}", **RING),
        box,
        Line2D([], [], label="mean off it", marker="$.5$", markersize=7, **TEXT_MARK),
    ]
    if np.isnan(every).any():
        handles.append(Patch(label="no value", **MISSING))
    legend_below(sheet.figure, handles)
    return sheet.figure


@styled
def plot_probe_matrix(
    result: xr.Dataset,
    *,
    exemplars: Exemplars | None = None,
    layers: Sequence[str] | None = None,
    columns: int | None = None,
) -> Figure:
    """Draw accuracy for every trained location (row) at every tested one (column), layer by layer.

    Locations stand in the order of reading, row by row of the grid; thin lines part these rows.
    The small number is the mean off the diagonal.

    Parameters
    ----------
    result
        A result of probes trained at each location in turn: ``accuracy`` over (layer, exemplars,
        train_y, train_x, y, x), 0..1.
    exemplars
        ``same`` or ``held-out`` exemplars; by default those held out, if there are any.
    layers
        Names of the layers, in this order; all by default.
    columns
        Panels in a row; chosen for the page by default.

    Returns
    -------
    A figure that pyplot does not know of.

    Raises
    ------
    InputError
        The result lacks what is drawn.
    UnknownNameError
        A layer or kind of exemplars that is not known.
    """
    dims = ["layer", "exemplars", "train_y", "train_x", "y", "x"]
    result = require(result, ["accuracy"], dims).sortby(["y", "x", "train_y", "train_x"])
    which = choose_exemplars([result], "accuracy", exemplars)
    names, chosen = layer_labels(result), select_layers(result, layers)
    norm = Normalize(chance_of(result), 1.0)
    dims.remove("exemplars")
    values = result["accuracy"].sel(exemplars=which).transpose(*dims)
    n_y, n_x = result.sizes["y"], result.sizes["x"]
    n = n_y * n_x
    if n == 0:
        raise InputError("a result of probes holds no location; expected at least one")
    matrices = [finite_values(values.isel(layer=idx).values).reshape(n, n) for idx in chosen]

    title = describe(result, _what(result, which))
    sheet = Sheet([names[idx] for idx in chosen], columns, title, widest=3.0, foot=0.55)
    off = ~np.eye(n, dtype=bool)
    for place, ax in enumerate(sheet.panels):
        ax.imshow(
            np.ma.masked_invalid(matrices[place]), cmap=COLOR_MAP, norm=norm, aspect="equal",
            extent=(0, n, n, 0),
        )  # fmt: skip
        for line in range(n_x, n, n_x):
            ax.axhline(line, color="white", linewidth=0.35, alpha=0.7)
            ax.axvline(line, color="white", linewidth=0.35, alpha=0.7)
        ticks = np.arange(n_y) * n_x + n_x / 2
        shown = slice(None, None, max(1, math.ceil(n_y / 7)))
        labels = [str(value) for value in result["y"].values]
        ax.set_xticks(ticks[shown], labels=labels[shown])
        ax.set_yticks(ticks[shown], labels=labels[shown])
        outer: dict[str, Any] = {
            f"label{side}": shown for side, shown in sheet.outer(place).items()
        }
        ax.tick_params(**outer, labelsize=SIZES.small, length=0, pad=2)
        ax.spines[:].set_visible(True)
        ax.spines[:].set(linewidth=0.4, color=GREY)
        away = matrices[place][off]
        known = away[np.isfinite(away)]
        sheet.name(place, float(known.mean()) if known.size else math.nan)
    every = np.concatenate([each.ravel() for each in matrices])
    draw_accuracy_bar(sheet.figure, sheet.panels, norm, every, _BAR)
    sheet.label("tested at: rows of y (px)", "trained at: rows of y (px)", pad=2)
    return sheet.figure


@styled
def plot_probe_layerwise(
    result: xr.Dataset, *, ax: Axes | None = None, quantity: Quantity | None = None
) -> Axes:
    """Draw how far a layer's code can be read elsewhere, layer by layer, beside its controls.

    Parameters
    ----------
    result
        A result of probes: ``II_far`` over (layer, exemplars), or ``accuracy_at`` over
        (layer, exemplars, where), with their intervals, and those of the controls, where known.
    ax
        Where to draw; a new figure by default.
    quantity
        ``II_far``, or the accuracy ``far`` from the trained location, ``off`` it, or ``on`` it;
        by default ``II_far``, and of one value of an axis, which has none, the accuracy off it.

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
    if quantity not in (*_LABELS, None):
        raise UnknownNameError("quantity", str(quantity), get_args(Quantity))
    held = require(result, [], []).data_vars
    if quantity is None:  # of one value of an axis there are accuracies only
        only = "accuracy_at" in held and "II_far" not in held
        quantity = "off" if only else "II_far"
    if quantity == "II_far":
        require(result, ["II_far"], ["layer", "exemplars"])
    require(result, ["accuracy_at"], ["layer", "exemplars", "where"])
    ax = axes_or_new(ax, 3.4, single=result.sizes["layer"] == 1)
    tidy(ax)
    layers = along_layers(ax, result)
    kinds = [str(name) for name in result["exemplars"].values]
    seen: list[NDArray[np.float64]] = []
    handles: list[Line2D] = []
    gaps, rank = False, 0
    lines = len(kinds) * (1 + sum(f"{name}_accuracy_at" in result for name in _CONTROLS))

    def draw(prefix: str, which: str, mark: Mark, label: str, *, hollow: bool = False) -> None:
        nonlocal gaps, rank
        values, low, high = _series(result, prefix, which, quantity)
        if values is None or low is None or high is None:
            return
        if not np.isfinite(values).any() and prefix:
            return
        shift = (rank - (lines - 1) / 2) * 0.09 if len(layers) < BAND_FROM else 0.0
        if prefix:  # intervals of controls would hide those of the network
            low = high = np.full(len(layers), np.nan)
        line = draw_series(
            ax, layers, values, (low, high), mark, f"{prefix}{which}", shift=shift
        )  # fmt: skip
        if not prefix and quantity != "II_far" and "accuracy_at_band" in result.data_vars:
            bands = result["accuracy_at_band"].sel(exemplars=which, where=quantity)
            edges = finite_values(bands.transpose("bound", "layer").values)
            draw_band(ax, layers, (edges[0], edges[1]), mark, shift=shift)
            # a band over few objects can be far wider than what is drawn: values decide
            seen.append(np.clip(np.concatenate(edges), -0.5, 1.5))
        if hollow:
            line.set(markerfacecolor="white", markeredgecolor=mark.color, markeredgewidth=0.7)
        gaps |= mark_gaps(ax, layers, np.isnan(values))
        seen.extend([values, np.clip(np.concatenate([low, high]), -0.5, 1.5)])
        handles.append(legend_handle(mark, label, hollow=hollow))
        rank += 1

    for name, (mark, words) in _CONTROLS.items():
        for which in kinds:
            if name == "shuffled" and quantity == "II_far":
                continue
            hollow = which == "held-out"
            draw(f"{name}_", which, mark, f"{words},\n{which}", hollow=hollow)
    for which in kinds:
        draw("", which, _NETWORK[which], f"{which} exemplars", hollow=which == "held-out")
    handles = handles[::-1]
    seen += _draw_pixels(ax, result, kinds, quantity, handles)
    if quantity != "II_far":
        ax.axhline(chance_of(result), label="chance", zorder=1, **CHANCE_LINE)
        handles.append(Line2D([], [], label="chance", **CHANCE_LINE))
    if gaps:
        handles.append(Line2D([], [], label="no value", color=GREY, **CROSS))
    flagged = _flagged(result)
    if flagged.any():
        flag_layers(ax, layers, flagged)
        handles.append(Line2D([], [], label="reads shuffled\nlabels as well", color=INK, **FLAG))
    fit_limits(ax, np.concatenate(seen) if seen else np.zeros(1), headroom=0.08)
    ax.set_ylabel(_LABELS[quantity], fontsize=SIZES.label)
    entitle_layers(ax, describe(result, _what(result)))
    draw_legend(ax, [*handles, *band_handles(ax, GREY)])
    return ax


def _draw_pixels(
    ax: Axes, result: xr.Dataset, kinds: list[str], quantity: str, handles: list[Line2D]
) -> list[NDArray[np.float64]]:
    """Draw raw pixels, which have no depth, as a line across; return what was drawn."""
    found = []
    for which in kinds:
        if quantity == "II_far":
            variable = "pixels_II_far"
            value = result[variable].sel(exemplars=which) if variable in result else None
        else:
            variable = "pixels_accuracy_at"
            at = {"exemplars": which, "where": quantity}
            value = result[variable].sel(at) if variable in result else None
        if value is None or not np.isfinite(float(value)):
            continue
        style = _PIXELS | ({"linewidth": 0.7} if which == "held-out" else {})
        ax.axhline(float(value), label=f"pixels_{which}", zorder=1.5, **style)
        handles.append(Line2D([], [], label=f"{RAW_PIXELS},\n{which}", **style))
        found.append(np.array([float(value)]))
    return found


def _series(
    result: xr.Dataset, prefix: str, which: str, quantity: str
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Return values over layers, and the ends of their intervals; None where not known."""
    name = f"{prefix}II_far" if quantity == "II_far" else f"{prefix}accuracy_at"
    if name not in result.data_vars:
        return None, None, None
    at = {"exemplars": which} | ({} if quantity == "II_far" else {"where": quantity})
    values = finite_values(result[name].sel(at).transpose("layer").values)
    if f"{name}_interval" not in result.data_vars:
        nothing = np.full(len(values), np.nan)
        return values, nothing, nothing
    bounds = result[f"{name}_interval"].sel(at).transpose("layer", "bound").values
    return values, finite_values(bounds[:, 0]), finite_values(bounds[:, 1])


def _flagged(result: xr.Dataset) -> NDArray[np.bool_]:
    """Return the layers at which a control task is solved elsewhere, bool (layer,)."""
    if "shuffled_flag" not in result.data_vars:
        return np.zeros(result.sizes["layer"], dtype=bool)
    flags = result["shuffled_flag"].transpose("layer", "exemplars").values
    return np.asarray((flags > 0).any(axis=1))


def _off(result: xr.Dataset, name: str, which: str, layer: int | None = None) -> float:
    """Return the mean accuracy off the trained location, NaN where it is not known."""
    if name not in result.data_vars:
        return math.nan
    found = result[name].sel(exemplars=which, where="off")
    return float(found if layer is None else found.isel(layer=layer))


def _what(result: xr.Dataset, which: str = "") -> str:
    """Return the words that a title begins with."""
    kind = str(result.attrs.get("probe", "linear")).replace("-", " ")
    return f"{kind} probes" + (f", {which} exemplars" if which else "")
