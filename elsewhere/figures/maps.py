"""Maps over the canvas, one small panel for each layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

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

from elsewhere.errors import InputError
from elsewhere.figures.curves import SERIES, choose_quantities
from elsewhere.figures.page import SIZES
from elsewhere.figures.results import (
    MeasuredCanvas,
    cell_edges,
    describe,
    is_dead,
    require,
    scene_of,
    select_layers,
    variable_of,
)
from elsewhere.figures.sheets import Sheet
from elsewhere.figures.style import FAINT, GREY, INK, color_bar, legend_below, styled
from elsewhere.figures.text import clean_text
from elsewhere.forms import layer_labels

MapQuantity: TypeAlias = Literal["similarity", "baseline", "baseline_same", "G"]

COLOR_MAP = colormaps["viridis"]
RASTER_CELLS = 6_000  # above it, cells as vectors would make files of many megabytes
_RIM = [withStroke(linewidth=1.7, foreground="white")]
_BETWEEN = {"dash_offset": 0, "dash_list": None}  # one line, white between its dashes
_DASHED = [withStroke(linewidth=1.0, foreground="white", dashes=_BETWEEN)]
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
    "linewidth": 1.0,
    "linestyle": (0, (3, 1.5)),
    "path_effects": _DASHED,
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
    quantities: MapQuantity | Sequence[MapQuantity] | None = None,
    layers: Sequence[str] | None = None,
    columns: int | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
) -> Figure:
    """Draw over the canvas how invariant a layer's code of an object is, compared with a reference.

    Each panel is one layer, its axes the canvas in px with y downwards; a cell is centred on its
    location and reaches halfway to the next. The small number is the mean away from the reference.

    Parameters
    ----------
    result
        A similarity result with `quantities` over (layer, y, x) and the attributes ``canvas``,
        ``object_size``, ``reference_y`` and ``reference_x``, all px.
    quantities
        What to draw, side by side: ``similarity`` (the raw one, which another object's stands
        beside, for it says nothing by itself), ``baseline``, ``baseline_same``, ``G``; by default
        the last one, or where the result lacks it the first.
    layers
        Names of the layers to draw, in this order; all of them by default.
    columns
        Layers in a row; chosen for the page by default.
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
    if quantities is None:
        held = require(result, [], []).data_vars
        quantities = "G" if variable_of(result, "G") in held else "similarity"
    wanted = choose_quantities(quantities)
    keys = [variable_of(result, quantity) for quantity in wanted]
    result = require(result, keys, ["layer", "y", "x"]).sortby(["y", "x"])
    scene = scene_of(result)
    chosen = select_layers(result, layers)
    maps = [result[key].transpose("layer", "y", "x").values[chosen] for key in keys]
    values = np.stack(maps, axis=1).astype(np.float64)  # layer, quantity, y, x
    if values.size == 0:
        raise InputError(f"the variable {keys[0]!r} holds no location; expected at least one")
    values[~np.isfinite(values)] = np.nan
    names = [layer_labels(result)[idx] for idx in chosen]
    norm = _scale(values, vmin, vmax)
    metric, n = str(result.attrs.get("metric", "")), len(wanted)
    headings = [SERIES[quantity] for quantity in wanted]
    # a panel each, at the reference G is 1 by definition and counts nothing
    away = np.ones(values.shape[2:], bool)
    away[np.ix_(result["y"].values == scene.y, result["x"].values == scene.x)] = False
    if columns is None and n > 1:
        columns = max(1, min((4 if SIZES.narrow else 8) // n, -(-len(chosen) // 6)))
    words = f"{metric} similarity" if wanted != ["G"] else f"{headings[0]}, {metric}"
    dead = is_dead(result)[chosen]
    marked = [name + " †" * bool(zero) for name, zero in zip(names, dead, strict=True)]
    sheet = Sheet(
        [name for name in marked for _ in wanted],
        None if columns is None else columns * n,
        describe(result, words.strip(" ,")),
        narrowest=3.6,
        heading=n > 1,
    )
    edges_y = cell_edges(result["y"].values, scene.canvas, scene.object_size)
    edges_x = cell_edges(result["x"].values, scene.canvas, scene.object_size)
    means = np.stack([_means(result, q, chosen, values[:, k], scene) for k, q in enumerate(wanted)])
    # of the same object where it stands, files of earlier versions hold 1
    whole = np.array([name == "G" for name in wanted])[None, :, None, None] & ~away
    values[whole & (values > 1 - 1e-9)] = np.nan
    missing = False
    for place, ax in enumerate(sheet.panels):
        idx, k = divmod(place, n)
        hatched = np.isnan(values[idx, k]) & (away | (wanted[k] != "G"))
        missing |= bool(hatched.any())
        draw_cells(
            ax, values[idx, k], edges_y, edges_x, norm, raster=values.size > RASTER_CELLS,
            hatched=hatched,
        )  # fmt: skip
        frame_panel(ax, scene, **sheet.outer(place))
        ax.plot([scene.x], [scene.y], label="reference", clip_on=False, zorder=3, **RING)
        sheet.name(place, means[k, idx])
        if n > 1 and place < sheet.wide:
            sheet.head(ax, headings[k])
    sizes = np.repeat(shown_sizes(result, scene)[chosen], n)
    box = outline_objects(sheet.panels, scene, sizes)
    label = "G  (0: as another object, 1: invariant)" if wanted == ["G"] else f"{metric} similarity"
    label += " and G" if "G" in wanted and n > 1 else ""
    color_bar(
        sheet.figure, ScalarMappable(norm, COLOR_MAP), clean_text(label), values=values,
        ax=sheet.panels, aspect=28,
    )  # fmt: skip
    sheet.label("x (px)", "y (px)")
    _explain(sheet.figure, scene, box, missing=missing, dead=bool(dead.any()))
    return sheet.figure


def _scale(values: NDArray[np.float64], vmin: float | None, vmax: float | None) -> Normalize:
    """Return the colour scale, the same for all panels, so that panels can be compared."""
    finite = values[np.isfinite(values)]
    lowest = float(finite.min()) if finite.size else 0.0
    low = max(min(math.floor(lowest * 10) / 10, 0.0), -1.0) if vmin is None else float(vmin)
    high = 1.0 if vmax is None else float(vmax)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"the colour scale runs from {low} to {high}; expected vmin below vmax")
    return Normalize(low, high)


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
    hatched: NDArray[np.bool_] | None = None,
) -> None:
    """Fill the cells with colour; those without a value are hatched, unless others are named."""
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
    if hatched is not None:
        missing = hatched
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
    ax.tick_params(labelbottom=bottom, labelleft=left, labelsize=SIZES.small, length=1.5, pad=1.5)
    # The outer numbers stay inside, away from those of the next panel.
    if bottom:
        ax.get_xticklabels()[0].set_horizontalalignment("left")
        ax.get_xticklabels()[-1].set_horizontalalignment("right")
    if left:
        ax.get_yticklabels()[0].set_verticalalignment("top")
        ax.get_yticklabels()[-1].set_verticalalignment("bottom")


def shown_sizes(result: xr.Dataset, scene: MeasuredCanvas) -> NDArray[np.int64]:
    """Return the object's side, px, in the panel of each layer: facets of scale differ in it."""
    if "shown_size" in result.coords:
        return np.asarray(result["shown_size"].values, np.int64)
    return np.full(result.sizes["layer"], scene.shown_size)


def outline_objects(
    panels: Sequence[Axes], scene: MeasuredCanvas, sizes: Sequence[int] | NDArray[np.int64]
) -> Patch:
    """Outline the object at the reference, in the first panel of each size; return its key."""
    known = dict.fromkeys(map(int, sizes))
    for size in known:
        corner = (scene.x - size // 2, scene.y - size // 2)
        box = Rectangle(corner, size, size, label="object", **OUTLINE)
        panels[list(sizes).index(size)].add_patch(box)
    several = f"{min(known)} to {max(known)}" if len(known) > 1 else f"{min(known)}"
    return Patch(label=f"object, {several} px", **OUTLINE)


def _explain(
    figure: Figure, scene: MeasuredCanvas, box: Patch, *, missing: bool, dead: bool
) -> None:
    """Explain the marks beneath the panels."""
    handles: list[Line2D | Patch] = [
        Line2D([], [], label=f"reference (y {scene.y}, x {scene.x})", **RING),
        box,
        Line2D([], [], label="mean away from it", marker="$.5$", markersize=7, **TEXT_MARK),
    ]
    if missing:
        handles.append(Patch(label="no value", **MISSING))
    if dead:
        handles.append(
            Line2D([], [], label="over 5 % zero vectors", marker=r"$\dagger$", **TEXT_MARK)
        )
    legend_below(figure, handles)
