"""Maps over the canvas, one small panel for each layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures.results import (
    MeasuredCanvas,
    cell_edges,
    describe,
    is_dead,
    layer_names,
    require,
    scene_of,
    select_layers,
    variable_of,
)
from elsewhere.figures.style import (
    FAINT,
    GREY,
    INK,
    PAGE_WIDTH,
    SMALL_SIZE,
    TICK_SIZE,
    TITLE_SIZE,
    beyond,
    clean_text,
    new_figure,
    shorten_apart,
    styled,
    text_style,
    wrap,
)

MapQuantity: TypeAlias = Literal["similarity", "baseline", "baseline_same", "G"]

# What a panel shows: words for the title and the colour bar.
_QUANTITIES = MappingProxyType(
    {
        "similarity": ("{metric} similarity of the same object", "{metric} similarity"),
        "baseline": ("{metric} similarity of another object", "{metric} similarity"),
        "baseline_same": (
            "{metric} similarity of another object at the same place",
            "{metric} similarity",
        ),
        "G": ("generalisation G, {metric}", "G  (0: as another object, 1: invariant)"),
    }
)
COLOR_MAP = colormaps["viridis"]
RASTER_CELLS = 6_000  # above it, cells as vectors would make files of many megabytes
_RIM = [withStroke(linewidth=2.2, foreground="white")]
RING: dict[str, Any] = {
    "marker": "o",
    "markersize": 5,
    "markerfacecolor": "none",
    "markeredgecolor": INK,
    "markeredgewidth": 0.9,
    "linestyle": "none",
    "path_effects": _RIM,
}
OUTLINE: dict[str, Any] = {
    "fill": False,
    "edgecolor": INK,
    "linewidth": 0.8,
    "linestyle": (0, (3, 1.5)),
    "path_effects": _RIM,
}
TEXT_MARK: dict[str, Any] = {"linestyle": "none", "color": GREY, "markeredgewidth": 0.2}
MISSING: dict[str, Any] = {
    "facecolor": "#dedede",
    "edgecolor": "#8c8c8c",
    "hatch": "//////",
    "linewidth": 0,
}


@styled
def plot_similarity_maps(
    result: xr.Dataset,
    *,
    quantity: MapQuantity = "similarity",
    layers: Sequence[str] | None = None,
    columns: int | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
) -> Figure:
    """Draw how alike an object's activations are to those at the reference, over the canvas.

    Each panel is one layer, its axes the canvas in px with y downwards; a cell is centred on its
    location and reaches halfway to the next. The small number is the mean away from the reference.

    Parameters
    ----------
    result
        A similarity result with `quantity` over (layer, y, x) and the attributes ``canvas``,
        ``object_size``, ``reference_y`` and ``reference_x``, all px.
    quantity
        What to draw: ``similarity``, ``baseline``, ``baseline_same``, ``G``.
    layers
        Names of the layers to draw, in this order; all of them by default.
    columns
        Panels in a row; chosen for the page by default.
    vmin, vmax
        Ends of the colour scale; by default 0 (lower where values are, down to -1) and 1.

    Returns
    -------
    A figure that pyplot does not know of.

    Raises
    ------
    InputError
        The result lacks what is drawn, or the ends of the scale or `columns` cannot be used.
    UnknownNameError
        A layer or quantity that is not known.
    """
    if quantity not in _QUANTITIES:
        raise UnknownNameError("quantity", str(quantity), get_args(MapQuantity))
    key = variable_of(result, quantity)
    result = require(result, [key], ["layer", "y", "x"]).sortby(["y", "x"])
    scene = scene_of(result)
    chosen = select_layers(result, layers)
    values = np.asarray(result[key].transpose("layer", "y", "x").values[chosen], dtype=np.float64)
    if values.size == 0:
        raise InputError(f"the variable {key!r} holds no location; expected at least one")
    values[~np.isfinite(values)] = np.nan
    names = [layer_names(result)[idx] for idx in chosen]
    norm = _scale(values, vmin, vmax)
    panels_wide = column_count(len(chosen), columns)
    rows = math.ceil(len(chosen) / panels_wide)

    side = min((PAGE_WIDTH - 1.25) / panels_wide - 0.06, 2.5)
    if columns is not None:  # no taller than a page, if panels can still be read
        side = min(side, max(9.0 / rows - 0.2, 0.6))
    width = max(min(panels_wide * (side + 0.06) + 1.25, PAGE_WIDTH), 3.6)
    metric = str(result.attrs.get("metric", ""))
    words, unit = (text.format(metric=metric).strip(" ,") for text in _QUANTITIES[quantity])
    title = wrap(describe(result, words), width - 0.2, TITLE_SIZE)
    lines = title.count("\n") + 1
    figure = new_figure(width, rows * (side + 0.2) + 0.65 + 0.17 * lines, compress=True)
    grid = figure.add_gridspec(rows, panels_wide)

    edges_y = cell_edges(result["y"].values, scene.canvas, scene.object_size)
    edges_x = cell_edges(result["x"].values, scene.canvas, scene.object_size)
    means = _means(result, quantity, chosen, values, scene)
    dead = is_dead(result)[chosen]
    characters = int(side * 72 / (0.62 * SMALL_SIZE)) - 5
    panels = []
    labels = shorten_apart(names, characters - 2 * int(dead.any()))
    for idx in range(len(names)):
        ax = figure.add_subplot(grid[divmod(idx, panels_wide)])
        draw_cells(ax, values[idx], edges_y, edges_x, norm, raster=values.size > RASTER_CELLS)
        frame_panel(ax, scene, bottom=idx + panels_wide >= len(names), left=idx % panels_wide == 0)
        _mark_reference(ax, scene)
        label = labels[idx] + (" †" if dead[idx] else "")
        size = SMALL_SIZE if panels_wide > 3 else TICK_SIZE
        ax.set_title(label, loc="left", fontsize=size, pad=2.5, **text_style(label))
        number = "–" if np.isnan(means[idx]) else f"{means[idx]:.2f}".replace("-", "−")
        ax.set_title(number, loc="right", fontsize=size, pad=2.5, color=GREY)
        panels.append(ax)
    outline_object(panels[0], scene)

    _color_bar(figure, panels, norm, values, unit)
    figure.suptitle(title, fontsize=TITLE_SIZE, x=0.01, ha="left", **text_style(title))
    corner = panels[(rows - 1) * panels_wide]
    corner.set_xlabel("x (px)", fontsize=TICK_SIZE, labelpad=1)
    corner.set_ylabel("y (px)", fontsize=TICK_SIZE, labelpad=1)
    draw_legend(figure, scene, missing=bool(np.isnan(values).any()), dead=bool(dead.any()))
    return figure


def _scale(values: NDArray[np.float64], vmin: float | None, vmax: float | None) -> Normalize:
    """Return the colour scale, the same for all panels, so that panels can be compared."""
    finite = values[np.isfinite(values)]
    lowest = float(finite.min()) if finite.size else 0.0
    low = max(min(math.floor(lowest * 10) / 10, 0.0), -1.0) if vmin is None else float(vmin)
    high = 1.0 if vmax is None else float(vmax)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"the colour scale runs from {low} to {high}; expected vmin below vmax")
    return Normalize(low, high)


def column_count(count: int, columns: int | None) -> int:
    """Return how many of `count` panels stand in a row."""
    if columns is not None:
        if columns < 1:
            raise InputError(f"columns is {columns}; expected at least 1")
        return min(int(columns), count)
    if count <= 4:
        return count
    widest = 4 if count <= 12 else 6 if count <= 24 else 8
    # Of the widths that give the fewest rows, the narrowest has the fullest last row.
    return math.ceil(count / math.ceil(count / widest))


def _means(
    result: xr.Dataset,
    quantity: str,
    chosen: Sequence[int],
    values: NDArray[np.float64],
    scene: MeasuredCanvas,
) -> NDArray[np.float64]:
    """Return each panel's mean away from the reference: the result's own where it has one."""
    away = variable_of(result, quantity, "_away")
    if away in result.data_vars and result[away].dims == ("layer",):
        return np.asarray(result[away].values, dtype=np.float64)[list(chosen)]
    ys, xs = np.meshgrid(result["y"].values, result["x"].values, indexing="ij")
    elsewhere = values[:, (ys != scene.y) | (xs != scene.x)]
    counts = np.isfinite(elsewhere).sum(axis=1)
    sums = np.nansum(elsewhere, axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def draw_cells(
    ax: Axes,
    values: NDArray[np.float64],
    edges_y: NDArray[np.float64],
    edges_x: NDArray[np.float64],
    norm: Normalize,
    *,
    raster: bool,
) -> None:
    """Fill the cells with colour; those without a value are hatched."""
    ax.set_facecolor(FAINT)
    missing = np.isnan(values)
    # A hair of its own colour closes the seams that viewers show between neighbouring cells.
    ax.pcolormesh(
        edges_x,
        edges_y,
        np.ma.masked_array(values, missing),
        cmap=COLOR_MAP,
        norm=norm,
        edgecolors="none" if raster else "face",
        linewidth=0.1,
        rasterized=raster,
        zorder=1,
    )
    if missing.any():
        boxes = [
            [
                (edges_x[column], edges_y[row]),
                (edges_x[column + 1], edges_y[row]),
                (edges_x[column + 1], edges_y[row + 1]),
                (edges_x[column], edges_y[row + 1]),
            ]
            for row, column in zip(*np.nonzero(missing), strict=True)
        ]
        ax.add_collection(PolyCollection(boxes, zorder=1.5, **MISSING), autolim=False)


def frame_panel(ax: Axes, scene: MeasuredCanvas, *, bottom: bool, left: bool) -> None:
    """Make the whole canvas the axes, y downwards, with px written on the outer panels."""
    ax.set_xlim(0, scene.canvas)
    ax.set_ylim(scene.canvas, 0)
    ax.set_aspect("equal")
    ax.spines[:].set_visible(True)
    ax.spines[:].set(linewidth=0.4, color=GREY)
    ticks = sorted({0, scene.canvas // 2, scene.canvas})
    ax.set_xticks(ticks)
    ax.set_yticks(ticks)
    ax.tick_params(labelbottom=bottom, labelleft=left, labelsize=SMALL_SIZE, length=1.5, pad=1.5)
    # The outer numbers stay inside, away from those of the next panel.
    if bottom:
        ax.get_xticklabels()[0].set_horizontalalignment("left")
        ax.get_xticklabels()[-1].set_horizontalalignment("right")
    if left:
        ax.get_yticklabels()[0].set_verticalalignment("top")
        ax.get_yticklabels()[-1].set_verticalalignment("bottom")


def _mark_reference(ax: Axes, scene: MeasuredCanvas) -> None:
    """Put an open ring, dark on a light rim, around the reference."""
    ax.plot([scene.x], [scene.y], label="reference", clip_on=False, zorder=3, **RING)


def outline_object(ax: Axes, scene: MeasuredCanvas) -> None:
    """Outline the object where it stands at the reference, as a scale."""
    half = scene.object_size // 2
    corner = (scene.x - half, scene.y - half)
    box = Rectangle(corner, scene.object_size, scene.object_size, label="object", **OUTLINE)
    ax.add_patch(box)


def _color_bar(
    figure: Figure, panels: list[Axes], norm: Normalize, values: NDArray[np.float64], label: str
) -> None:
    """Draw the one colour bar of all panels, pointed where values lie beyond its ends."""
    bar = figure.colorbar(
        ScalarMappable(norm, COLOR_MAP),
        ax=panels,
        extend=beyond(norm, values),
        aspect=28,
        fraction=0.05,
        pad=0.015,
    )
    bar.set_label(clean_text(label), fontsize=TICK_SIZE, **text_style(label))
    bar.ax.tick_params(labelsize=SMALL_SIZE, length=2)
    bar.outline.set_linewidth(0.4)


def draw_legend(figure: Figure, scene: MeasuredCanvas, *, missing: bool, dead: bool) -> None:
    """Explain the marks beneath the panels."""
    handles: list[Line2D | Patch] = [
        Line2D([], [], label=f"reference (y {scene.y}, x {scene.x})", **RING),
        Patch(label=f"object, {scene.object_size} px", **OUTLINE),
        Line2D([], [], label="mean away from it", marker="$.5$", markersize=7, **TEXT_MARK),
    ]
    if missing:
        handles.append(Patch(label="no value", **MISSING))
    if dead:
        handles.append(
            Line2D([], [], label="over 5 % zero vectors", marker=r"$\dagger$", **TEXT_MARK)
        )
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=len(handles),
        fontsize=SMALL_SIZE,
        handlelength=1.4,
        columnspacing=1.4,
        borderaxespad=0.2,
    )
