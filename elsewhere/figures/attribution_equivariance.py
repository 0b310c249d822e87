"""How alike attribution maps are to those at the reference, over the canvas."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from elsewhere.errors import UnknownNameError
from elsewhere.figures.attribution import DIVERGING, describe_maps
from elsewhere.figures.maps import MISSING, RING, TEXT_MARK, frame_panel, outline_objects
from elsewhere.figures.page import SIZES, new_figure
from elsewhere.figures.results import MeasuredCanvas, cell_edges, require, scene_of
from elsewhere.figures.style import (
    GREY,
    color_bar,
    entitle_figure,
    legend_below,
    styled,
    title_height,
    title_of,
)
from elsewhere.figures.text import text_width, wrap

MapMetric: TypeAlias = Literal["pearson", "cosine", "spearman"]


@styled
def plot_attribution_equivariance(result: xr.Dataset, *, metric: MapMetric = "pearson") -> Figure:
    """Draw over the canvas how alike maps are to those at the reference, and to other objects'.

    Left the object's own map, right the baseline: another object's. Both on one scale from -1 to
    1; the small number is the mean away from the reference.

    Parameters
    ----------
    result
        An attribution result with ``equivariance_mean`` and ``equivariance_cross`` over
        (metric, y, x).
    metric
        ``pearson``, ``cosine``, or ``spearman`` of absolute values.

    Returns
    -------
    A figure that pyplot does not know of.

    Raises
    ------
    InputError
        The result lacks what is drawn.
    UnknownNameError
        No such metric.
    """
    if metric not in get_args(MapMetric):
        raise UnknownNameError("metric of maps", str(metric), get_args(MapMetric))
    names = ["equivariance_mean", "equivariance_cross"]
    result = require(result, names, ["metric", "y", "x"]).sortby(["y", "x"])
    scene = scene_of(result)
    norm = Normalize(-1.0, 1.0)
    words = {
        "pearson": "Pearson correlation",
        "cosine": "cosine",
        "spearman": "rank correlation of absolute values",
    }
    width, side = 5.4, 2.05
    if SIZES.fixed:
        width, side = SIZES.width, min((SIZES.width - 1.2) / 2, side)
    what = describe_maps(result, "equivariance of maps")
    lines = title_height(title_of(what, width - 0.2))
    figure = new_figure(width, side + 0.75 + lines, compress=True)
    panels, missing = [], False
    for place, (name, label) in enumerate(
        zip(names, ("same object elsewhere", "other object elsewhere"), strict=True)
    ):
        ax = figure.add_subplot(1, 2, place + 1)
        chosen = result[name].sel(metric=metric).transpose("y", "x")
        values = np.asarray(chosen.values, np.float64)
        missing |= _draw_canvas(ax, result, values, scene, norm)
        frame_panel(ax, scene, bottom=True, left=place == 0)
        ax.plot([scene.x], [scene.y], label="reference", clip_on=False, zorder=3, **RING)
        shown = wrap(label, side - text_width("−0.00", SIZES.tick) - 0.05, SIZES.tick)
        ax.set_title(shown, loc="left", fontsize=SIZES.tick, pad=2.5)
        mean = _away_mean(result, values, scene)
        text = "–" if math.isnan(mean) else f"{mean:.2f}".replace("-", "−")
        ax.set_title(text, loc="right", fontsize=SIZES.tick, pad=2.5, color=GREY)
        panels.append(ax)
    outline_objects(panels, scene, [scene.object_size])
    panels[0].set_xlabel("x (px)", fontsize=SIZES.tick, labelpad=1)
    panels[0].set_ylabel("y (px)", fontsize=SIZES.tick, labelpad=1)
    color_bar(figure, ScalarMappable(norm, DIVERGING), words[metric], ax=panels, aspect=24)
    entitle_figure(figure, what, x=0.01)
    handles: list[Any] = [
        Line2D([], [], label=f"reference (y {scene.y}, x {scene.x})", **RING),
        Line2D([], [], label="mean away from it", marker="$.5$", markersize=7, **TEXT_MARK),
    ]
    if missing:
        handles.append(Patch(label="no value", **MISSING))
    legend_below(figure, handles)
    return figure


def _draw_canvas(
    ax: Axes,
    result: xr.Dataset,
    values: NDArray[np.float64],
    scene: MeasuredCanvas,
    norm: Normalize,
) -> bool:
    """Fill the cells of the grid; return whether one has no value."""
    ys = cell_edges(result["y"].values, scene.canvas, scene.object_size)
    xs = cell_edges(result["x"].values, scene.canvas, scene.object_size)
    missing = np.isnan(values)
    ax.pcolormesh(
        xs, ys, np.ma.masked_array(values, missing), cmap=DIVERGING, norm=norm, edgecolors="face",
        linewidth=0.1, zorder=1,
    )  # fmt: skip
    for row, column in zip(*np.nonzero(missing), strict=True):
        ax.add_patch(
            Rectangle(
                (xs[column], ys[row]), xs[column + 1] - xs[column], ys[row + 1] - ys[row],
                zorder=1.5, **MISSING,
            )
        )  # fmt: skip
    return bool(missing.any())


def _away_mean(result: xr.Dataset, values: NDArray[np.float64], scene: MeasuredCanvas) -> float:
    ys, xs = np.meshgrid(result["y"].values, result["x"].values, indexing="ij")
    away = values[((ys != scene.y) | (xs != scene.x)) & np.isfinite(values)]
    return float(away.mean()) if away.size else math.nan
