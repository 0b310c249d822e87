"""Where a spatial transformer looks: its windows over the canvas, beside the objects' boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures.attribution import evenly
from elsewhere.figures.maps import TEXT_MARK
from elsewhere.figures.page import SIZES, new_figure
from elsewhere.figures.results import describe, require, scene_of
from elsewhere.figures.style import (
    GREY,
    PALE,
    entitle_figure,
    legend_below,
    styled,
    title_height,
    title_of,
)
from elsewhere.figures.text import labels_in, text_style
from elsewhere.forms import layer_labels

WINDOW: dict[str, Any] = {"fill": False, "edgecolor": "#D55E00", "linewidth": 1.1}
BOX: dict[str, Any] = {
    "fill": False, "edgecolor": "#56B4E9", "linewidth": 0.9, "linestyle": (0, (2.5, 1.2)),
}  # fmt: skip
_MOST_OBJECTS, _MOST_PLACES = 4, 6
_WINDOWS = ("window_y", "window_x", "window_side", "window_error_each")


@styled
def plot_windows(
    result: xr.Dataset,
    *,
    objects: Sequence[str] | None = None,
    locations: Sequence[tuple[int, int]] | None = None,
) -> Figure:
    """Draw the window that a spatial transformer cuts out, over the canvas, and the object's box.

    A row for each object and a panel for each location; the number is the distance of the window's
    middle from the box's, px.

    Parameters
    ----------
    result
        Measures with ``window``, of one layer that has them.
    objects
        Ids, one row each; the first four by default.
    locations
        (y, x), px, of the grid; by default up to six, spread over it.

    Returns
    -------
    A figure that pyplot does not know of.

    Raises
    ------
    InputError
        The result lacks what is drawn, or a location is not on its grid.
    UnknownNameError
        An object that is not known.
    """
    require(result, _WINDOWS, ["layer", "object", "y", "x"])
    scene, known = scene_of(result), [str(name) for name in result["object"].values]
    rows = _rows(known, objects)
    places = _places(result, locations)
    found = np.isfinite(result["window_error_each"].transpose("layer", ...).values)
    layer = int(found.reshape(len(found), -1).any(axis=1).argmax())
    each = {
        name: result[name].isel(layer=layer).transpose("object", "y", "x").values
        for name in _WINDOWS
    }
    what = describe(result, f"windows of a spatial transformer, {layer_labels(result)[layer]}")
    side = min((SIZES.width - 0.6) / len(places), 1.25)
    width = SIZES.width if SIZES.fixed else max(len(places) * side + 0.6, 4.4)
    lines = title_height(title_of(what, width - 0.2))
    if SIZES.height is not None:
        side = min(side, (SIZES.height - 0.75 - lines) / len(rows))
    figure = new_figure(width, len(rows) * side + 0.75 + lines, compress=True)
    grid = figure.add_gridspec(len(rows), len(places))
    firsts = []
    for line, row in enumerate(rows):
        for column, (y, x) in enumerate(places):
            ax = figure.add_subplot(grid[line, column])
            firsts += [ax] if column == 0 else []
            corner = [
                float(result[dim][place]) - scene.object_size // 2
                for dim, place in (("y", y), ("x", x))
            ]
            _draw_canvas(ax, result, row, corner, scene.canvas)
            middle_y, middle_x, extent, error = (float(each[name][row, y, x]) for name in _WINDOWS)
            if np.isfinite(error):
                edges = middle_x - extent / 2, middle_y - extent / 2
                ax.add_patch(Rectangle(edges, extent, extent, **WINDOW))
            ax.add_patch(Rectangle((corner[1], corner[0]), *[scene.object_size] * 2, **BOX))
            ax.text(
                0.97, 0.03, f"{error:.1f}" if np.isfinite(error) else "none", color="white",
                ha="right", va="bottom", fontsize=SIZES.small, transform=ax.transAxes,
                bbox={"facecolor": GREY, "edgecolor": "none", "pad": 0.8},
            )  # fmt: skip
            if line == 0:
                between = "\n" if SIZES.narrow else ", "
                heading = f"y {int(result['y'][y])}{between}x {int(result['x'][x])}"
                ax.set_title(heading, fontsize=SIZES.small, pad=2.5, loc="left")
    names = labels_in([known[row] for row in rows], side, SIZES.small, most=6)
    for ax, label in zip(firsts, names, strict=True):
        ax.set_ylabel(label, fontsize=SIZES.small, labelpad=2, **text_style(label))
    entitle_figure(figure, what, x=0.01)
    legend_below(
        figure,
        [
            Patch(label="window", **WINDOW),
            Patch(label="object's box", **BOX),
            Line2D([], [], label="distance of their middles (px)", marker="$.5$", markersize=7,
                   **TEXT_MARK),
        ],
    )  # fmt: skip
    return figure


def _rows(known: Sequence[str], objects: Sequence[str] | None) -> list[int]:
    if objects is None:
        return list(range(min(_MOST_OBJECTS, len(known))))
    for name in objects:
        if name not in known:
            raise UnknownNameError("object", str(name), known)
    return [known.index(name) for name in objects]


def _places(
    result: xr.Dataset, locations: Sequence[tuple[int, int]] | None
) -> list[tuple[int, int]]:
    """Return indices of the locations along y and x."""
    ys, xs = result["y"].values.tolist(), result["x"].values.tolist()
    if locations is None:
        every = [(y, x) for y in range(len(ys)) for x in range(len(xs))]
        return [every[number] for number in evenly(len(every), _MOST_PLACES)]
    for y, x in locations:
        if y not in ys or x not in xs:
            raise InputError(f"the location {y},{x} is not on the grid of the result; draw others")
    return [(ys.index(y), xs.index(x)) for y, x in locations]


def _draw_canvas(
    ax: Axes, result: xr.Dataset, row: int, corner: Sequence[float], canvas: int
) -> None:
    """Draw the canvas with the object on it; its pixels begin at its corner."""
    background = np.atleast_1d(np.asarray(result.attrs.get("background", 0.0), np.float64))
    ax.set_facecolor(tuple(np.broadcast_to(background / 255, 3).clip(0, 1)))
    if "patch" in result:
        picture = np.dstack([result["patch"].values[row], result["mask"].values[row]])
        top, left, size = *corner, len(picture)
        ax.imshow(picture, extent=(left, left + size, top + size, top))
    ax.set(xticks=[], yticks=[], xlim=(0, canvas), ylim=(canvas, 0), aspect="equal")
    ax.spines[:].set(visible=True, linewidth=0.4, color=PALE)
