"""Attribution maps: over objects at several locations, and in the object's frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures.maps import TEXT_MARK
from elsewhere.figures.page import SIZES, new_figure
from elsewhere.figures.results import describe, require, scene_of
from elsewhere.figures.style import (
    GREY,
    INK,
    PALE,
    color_bar,
    entitle_figure,
    legend_below,
    styled,
    title_height,
    title_of,
)
from elsewhere.figures.text import labels_in, shorten, text_style

DIVERGING = colormaps["RdBu_r"]
"""Red speaks for the target, blue against it, white is nothing."""

MASK_LINE: dict[str, Any] = {"colors": [INK], "linewidths": 0.6, "levels": [0.5]}
BOX_LINE: dict[str, Any] = {"fill": False, "edgecolor": INK, "linewidth": 0.5}
OFF_CANVAS = PALE
_FADED = 0.12
"""How much darker than white a black photograph is beneath a map: lighter than `OFF_CANVAS`."""
_MOST_TILES = 9
_METRICS = {"pearson": "correlation", "spearman": "rank correlation"}


def diverging_scale(values: NDArray[np.floating]) -> Normalize:
    """Return a scale centred on zero that holds all but the outermost 0.1 % of values."""
    sizes = np.abs(values[np.isfinite(values)])
    high = float(np.quantile(sizes, 0.999)) if sizes.size else 1.0
    high = high or float(sizes.max(initial=0.0)) or 1.0
    return Normalize(-high, high)


def describe_maps(result: xr.Dataset, what: str) -> str:
    """Return a title with method and target."""
    method, target = result.attrs.get("method", ""), result.attrs.get("target", "")
    return describe(result, " · ".join(filter(None, [what, str(method), str(target)])))


def evenly(count: int, most: int, *, keep: int | None = None) -> list[int]:
    """Return up to `most` of `count` indices: the first and the last among them, and `keep`.

    Examples
    --------
    >>> evenly(7, 3), evenly(2, 5), evenly(9, 3, keep=5)
    ([0, 3, 6], [0, 1], [0, 5, 8])
    """
    if count <= most:
        return list(range(count))
    found = sorted({round(place) for place in np.linspace(0, count - 1, most).tolist()})
    if keep is not None and keep not in found:  # in place of the nearest that is no end
        inner = found[1:-1] or found
        found[found.index(min(inner, key=lambda place: abs(place - keep)))] = keep
    return sorted(found)


def place_of(values: NDArray[Any], wanted: int) -> int | None:
    """Return the index of a coordinate, or None where it is not on the grid."""
    found = np.flatnonzero(np.asarray(values) == wanted)
    return int(found[0]) if len(found) else None


@styled
def plot_attribution_grid(
    result: xr.Dataset,
    *,
    objects: Sequence[str] | None = None,
    locations: Sequence[tuple[int, int]] | None = None,
    photograph: bool = True,
    metric: str = "pearson",
) -> Figure:
    """Draw objects' maps at several locations, in the object's frame, over their photographs.

    The first panel of a row is the object as it was shown, the next one the map at the reference;
    all maps share one scale. Beneath each lies the photograph in light grey, which shows where a
    map says little: from a fifth of the colour bar on a map covers it, and every colour is the
    bar's. The small number is the likeness to the map at the reference (`metric`); a map marked
    ``Σ`` does not sum to the score's change.

    Parameters
    ----------
    result
        An attribution result.
    objects
        Ids, one row each; the first four by default.
    locations
        (y, x), px, of the grid; by default up to five others than the reference, spread over it.
    photograph
        Whether the photographs lie beneath the maps; else these are opaque throughout.
    metric
        ``pearson``, ``cosine`` or ``spearman``: which likeness is written.

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
    require(result, ["attribution"], ["object", "y", "x", "height", "width"])
    require(result, ["reference_attribution"], ["object", "height", "width"])
    if "equivariance" in result and metric not in result["metric"].values:
        raise UnknownNameError("metric", str(metric), map(str, result["metric"].values))
    known = [str(name) for name in result["object"].values]
    rows = _rows(known, objects)
    places = _places(result, locations)
    here = _magnitudes(result, "attribution", "scale", ("object", "y", "x", "height", "width"))
    there = _magnitudes(
        result, "reference_attribution", "reference_scale", ("object", "height", "width")
    )
    panels = np.stack([
        np.stack([there[row], *(here[row, y, x] for y, x in places)]) for row in rows
    ])  # fmt: skip
    # each object on its own magnitude, or one strong object would leave the others white
    sizes = np.nanmax(np.abs(panels), axis=(1, 2, 3), keepdims=True)
    panels = panels / np.where(sizes > 0, sizes, 1.0)
    norm = diverging_scale(panels)
    pictured = "patch" in result
    wide = len(places) + 1 + pictured
    side, (width, height) = _sheet(len(rows), wide, 1.25, describe_maps(result, "attribution"))
    figure = new_figure(width, height, compress=True)
    grid = figure.add_gridspec(len(rows), wide)
    drawn, unsummed = [], False
    for line, row in enumerate(rows):
        for column in range(len(places) + 1):
            ax = figure.add_subplot(grid[line, column + pictured])
            drawn.append(ax)
            _draw_map(
                ax, result, row, panels[line, column], norm, photograph=photograph and pictured
            )  # fmt: skip
            if _is_off(result, row, places[column - 1] if column else None):
                unsummed = True
                _write_number(ax, "Σ", left=True)
            number = None
            if column:
                y, x = places[column - 1]
                if "equivariance" in result:
                    chosen = result["equivariance"].sel(metric=metric)
                    number = float(chosen.transpose("object", "y", "x").values[row, y, x])
                between = "\n" if SIZES.narrow else ", "
                heading = f"y {int(result['y'][y])}{between}x {int(result['x'][x])}"
            else:
                heading = "reference"
            if line == 0:
                ax.set_title(heading, fontsize=SIZES.small, pad=2.5, loc="left")
            if number is not None:
                _write_number(ax, _signed(number))
    firsts = drawn[:: len(places) + 1]
    if pictured:
        firsts = [figure.add_subplot(grid[line, 0]) for line in range(len(rows))]
        firsts[0].set_title("object", fontsize=SIZES.small, pad=2.5, loc="left")
        for ax, row in zip(firsts, rows, strict=True):
            _draw_object(ax, result, row)
    names = labels_in([known[row] for row in rows], side, SIZES.small, most=6)
    for ax, label in zip(firsts, names, strict=True):
        ax.set_ylabel(label, fontsize=SIZES.small, labelpad=2, **text_style(label))
    color_bar(
        figure, ScalarMappable(norm, DIVERGING), "attribution, as a share of the object's largest",
        values=panels, size=SIZES.small, ax=drawn, aspect=26,
    )  # fmt: skip
    entitle_figure(figure, describe_maps(result, "attribution"), x=0.01)
    handles: list[Any] = [
        Line2D([], [], color=INK, linewidth=0.6, label="object's outline"),
        Line2D([], [], label=f"{_METRICS.get(metric, metric)} with the reference", marker="$.5$",
               markersize=7, **TEXT_MARK),
    ]  # fmt: skip
    if bool(np.isnan(panels).any()):
        handles.append(Patch(facecolor=OFF_CANVAS, label="off the canvas"))
    parts = []
    if objects is None and len(rows) < len(known):
        parts.append(f"{len(rows)} of {len(known)} objects")
    on_grid = here.shape[1] * here.shape[2]
    shown = len({*places, *([] if None in (home := _home(result)) else [home])})
    if locations is None and shown < on_grid:
        parts.append(f"{shown} of {on_grid} locations")
    if parts:
        handles.append(Line2D([], [], linestyle="none", label=f"({', '.join(parts)})"))
    if unsummed:
        handles.append(
            Line2D([], [], label="does not sum to the score's change", marker="$Σ$", **TEXT_MARK)
        )
    legend_below(figure, handles)
    return figure


@styled
def plot_attribution_frame(result: xr.Dataset) -> Figure:
    """Draw the mean object-frame map of each location, arranged as on the canvas.

    Each tile is the object's frame, its box outlined; the mean is over objects, each map as a share
    of that object's absolute mass at the reference. A ring marks the reference, which is always
    drawn where it is a location of the grid.

    Parameters
    ----------
    result
        An attribution result with ``frame_mean`` over (y, x, height, width). Up to nine rows and
        columns of locations are drawn, spread over the grid.

    Returns
    -------
    A figure that pyplot does not know of.

    Raises
    ------
    InputError
        The result lacks what is drawn.
    """
    require(result, ["frame_mean"], ["y", "x", "height", "width"])
    result = result.sortby(["y", "x"])
    scene = scene_of(result)
    home = [place_of(result[dim].values, at) for dim, at in (("y", scene.y), ("x", scene.x))]
    ys, xs = (
        evenly(result.sizes[dim], _MOST_TILES, keep=at)
        for dim, at in zip(("y", "x"), home, strict=True)
    )
    chosen = result["frame_mean"].isel(y=ys, x=xs).transpose("y", "x", "height", "width")
    tiles = np.asarray(chosen.values, np.float64)
    norm = diverging_scale(tiles)
    gap = max(1, round(0.08 * tiles.shape[-1]))
    pitch = tiles.shape[-1] + gap
    tall, wide = len(ys) * pitch - gap, len(xs) * pitch - gap
    what = describe_maps(result, "mean map in the object's frame")
    _, (width, height) = _sheet(tall, wide, 5.0 / tall, what)
    figure = new_figure(width, height)
    ax = figure.add_subplot()
    _mosaic(ax, tiles, pitch, norm, _box(result))
    at_y = [row * pitch + tiles.shape[-1] / 2 for row in range(len(ys))]
    at_x = [column * pitch + tiles.shape[-1] / 2 for column in range(len(xs))]
    ax.set_xticks(at_x, labels=[str(int(v)) for v in chosen["x"].values])
    ax.set_yticks(at_y, labels=[str(int(v)) for v in chosen["y"].values])
    ax.tick_params(length=0, labelsize=SIZES.small)
    ax.set_xlabel("x (px)", fontsize=SIZES.tick, labelpad=2)
    ax.set_ylabel("y (px)", fontsize=SIZES.tick, labelpad=2)
    ax.spines[:].set_visible(False)
    ax.set_xlim(-gap, wide + gap)
    ax.set_ylim(tall + gap, -gap)
    ax.set_aspect("equal")
    where = f"reference (y {scene.y}, x {scene.x})"
    handles: list[Any] = [Patch(label="object's box", **BOX_LINE)]
    if None in home:
        handles.append(Line2D([], [], linestyle="none", label=f"{where}: not on this grid"))
    else:
        row, column = ys.index(home[0]), xs.index(home[1])  # type: ignore[arg-type]
        margin = gap * 0.35
        corner = (column * pitch - margin, row * pitch - margin)
        side = tiles.shape[-1] + 2 * margin
        ring: dict[str, Any] = {"fill": False, "edgecolor": INK, "linewidth": 1.4}
        ax.add_patch(Rectangle(corner, side, side, label="reference", **ring))
        handles.append(Patch(label=where, **ring))
    color_bar(
        figure, ScalarMappable(norm, DIVERGING),
        "attribution per px, as a share of the reference's mass", values=tiles, size=SIZES.small,
        ax=[ax], aspect=26,
    )  # fmt: skip
    entitle_figure(figure, what, x=0.01)
    if bool(np.isnan(tiles).any()):
        handles.append(Patch(facecolor=OFF_CANVAS, label="off the canvas"))
    legend_below(figure, handles)
    return figure


# --- parts ---------------------------------------------------------------------------------------


def _sheet(rows: int, columns: int, widest: float, title: str) -> tuple[float, tuple[float, float]]:
    """Return the side of a panel, and the width and height of the figure, inches."""
    side = min((SIZES.width - 1.5) / columns, widest)
    width = SIZES.width if SIZES.fixed else max(columns * side + 1.5, 4.4)
    lines = title_height(title_of(title, width - 0.2))
    if SIZES.height is not None:
        side = min(side, (SIZES.height - 0.75 - lines) / rows)
    return side, (width, rows * side + 0.75 + lines)


def _rows(known: Sequence[str], objects: Sequence[str] | None) -> list[int]:
    if objects is None:
        return list(range(min(4, len(known))))
    wanted = [objects] if isinstance(objects, str) else list(objects)
    if not wanted:
        raise InputError("no objects to draw: the list is empty; name one, or leave it out")
    for name in wanted:
        if name not in known:
            raise UnknownNameError("object", str(name), known)
    return [known.index(name) for name in wanted]


def _places(
    result: xr.Dataset, locations: Sequence[tuple[int, int]] | None
) -> list[tuple[int, int]]:
    """Return indices of the locations along y and x."""
    ys, xs = (result[dim].values.tolist() for dim in ("y", "x"))
    if locations is not None:
        found = []
        for y, x in locations:
            if y not in ys or x not in xs:
                raise InputError(
                    f"location {y},{x} is not on the result's grid; y are {shorten(ys, 60)}, "
                    f"x are {shorten(xs, 60)}"
                )
            found.append((ys.index(y), xs.index(x)))
        if not found:
            raise InputError("no locations to draw: the list is empty; leave it out")
        return found
    corners = [
        (0, 0), (0, len(xs) - 1), (len(ys) // 2, len(xs) // 2),
        (len(ys) - 1, 0), (len(ys) - 1, len(xs) - 1),
    ]  # fmt: skip
    most = corners[::2] if SIZES.narrow else corners
    found = list(dict.fromkeys(most))
    return [place for place in found if place != _home(result)] or found


def _home(result: xr.Dataset) -> tuple[int | None, ...]:
    """Return the reference's indices along y and x, None where it is off the grid."""
    wanted = [result.attrs.get(f"reference_{dim}", -1) for dim in "yx"]
    return tuple(place_of(result[dim].values, at) for dim, at in zip("yx", wanted, strict=True))


def _magnitudes(
    result: xr.Dataset, name: str, scale: str, dims: tuple[str, ...]
) -> NDArray[np.float64]:
    """Return stored maps times their scale."""
    maps = result[name].astype(np.float32)
    if scale in result:
        maps = maps * result[scale].astype(np.float32)
    return np.asarray(maps.transpose(*dims).values, np.float64)


def _draw_object(ax: Axes, result: xr.Dataset, row: int) -> None:
    """Draw an object as it was shown, in the frame of its maps."""
    background = np.atleast_1d(np.asarray(result.attrs.get("background", 0.0), np.float64))
    ax.set_facecolor(tuple(np.broadcast_to(background / 255, 3).clip(0, 1)))
    patch = np.asarray(result["patch"].values[row], np.float64)
    size = len(patch)
    ax.imshow((patch / 255).clip(0, 1), extent=(-0.5, size - 0.5, size - 0.5, -0.5))
    _frame(ax, result)


def _frame(ax: Axes, result: xr.Dataset) -> tuple[float, float, float, float]:
    """Set the object's frame as the limits of a panel; return left, right, bottom and top."""
    first, last = float(result["height"][0]), float(result["height"][-1])
    ax.set(xticks=[], yticks=[])
    ax.set_xlim(first - 0.5, last + 0.5)
    ax.set_ylim(last + 0.5, first - 0.5)
    ax.spines[:].set(visible=True, linewidth=0.4, color=GREY)
    return (first - 0.5, last + 0.5, last + 0.5, first - 0.5)


def _draw_map(
    ax: Axes,
    result: xr.Dataset,
    row: int,
    values: NDArray[np.float64],
    norm: Normalize,
    *,
    photograph: bool,
) -> None:
    """Draw a map, the photograph beneath it, and the outline of the object."""
    extent = _frame(ax, result)
    ax.set_facecolor(OFF_CANVAS)
    known = np.isfinite(values)
    if "mask" in result:
        _outline(ax, np.asarray(result["mask"].values[row], np.float64) / 255)
    colors = DIVERGING(norm(np.where(known, values, 0.0)))
    colors[..., 3] = known  # opaque: every colour is one of the colour bar's
    if photograph:
        strength = np.abs(np.where(known, values, 0.0)) / float(norm.vmax or 1.0)
        colors[..., 3] *= np.minimum(strength / 0.2, 1.0)
        ax.imshow(_faded(result, row, known), extent=extent, interpolation="nearest")
    ax.imshow(colors, extent=extent, interpolation="nearest")
    _frame(ax, result)


def _faded(result: xr.Dataset, row: int, known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the photograph in the frame of the maps, in light grey: rgba, on the canvas only."""
    background = np.atleast_1d(np.asarray(result.attrs.get("background", 0.0), np.float64))
    picture = np.ones((*known.shape, 4))
    picture[..., :3] = np.broadcast_to(background / 255, 3)
    patch = np.asarray(result["patch"].values[row], np.float64) / 255
    top, left = (int(-result[dim].values[0]) for dim in ("height", "width"))
    picture[top : top + len(patch), left : left + len(patch), :3] = patch
    # luminance only: any hue would be read as an attribution
    luminance = picture[..., :3].clip(0, 1) @ [0.2126, 0.7152, 0.0722]
    picture[..., :3] = (1 - _FADED * (1 - luminance))[..., None]
    picture[..., 3] = known
    return picture


def _is_off(result: xr.Dataset, row: int, place: tuple[int, int] | None) -> bool:
    """Return whether a map, at the reference for None, does not sum to the score's change."""
    name = "completeness_share" if place else "reference_completeness_share"
    if name not in result or "tolerance" not in result.attrs:
        return False
    share = result[name].isel(object=row)
    share = share.isel(y=place[0], x=place[1]) if place else share
    return bool(share > float(result.attrs["tolerance"]))


def _outline(ax: Axes, mask: NDArray[np.float64]) -> None:
    """Draw the object's outline along its pixels' edges."""
    enlarged = np.pad(np.kron(mask > 0.5, np.ones((8, 8))), 8)
    at = (np.arange(enlarged.shape[0]) + 0.5) / 8 - 1.5
    if enlarged.any():
        ax.contour(at, at, enlarged, zorder=4, **MASK_LINE)


def _signed(number: float) -> str:
    return "–" if math.isnan(number) else f"{number:.2f}".replace("-", "−")


def _write_number(ax: Axes, text: str, *, left: bool = False) -> None:
    ax.annotate(
        text,
        (0 if left else 1, 0),
        xycoords="axes fraction",
        xytext=(2 if left else -2, 2),
        textcoords="offset points",
        ha="left" if left else "right",
        va="bottom",
        fontsize=SIZES.small,
        color=INK,
        zorder=5,
        path_effects=[withStroke(linewidth=1.6, foreground="white")],
    )


def _box(result: xr.Dataset) -> tuple[float, float]:
    """Return where the object's box begins in its frame, and its side, px."""
    heights = np.asarray(result["height"].values)
    return float(-heights[0]), float(result.attrs["object_size"])


def _mosaic(
    ax: Axes, tiles: NDArray[np.float64], pitch: int, norm: Normalize, box: tuple[float, float]
) -> None:
    """Draw tiles (row, column, height, width) side by side, the object's box in each."""
    side = tiles.shape[-1]
    for row in range(tiles.shape[0]):
        for column in range(tiles.shape[1]):
            left, top = column * pitch, row * pitch
            draw_tile(ax, tiles[row, column], (left, left + side, top + side, top), norm, box)


def draw_tile(
    ax: Axes,
    values: NDArray[np.float64],
    extent: tuple[float, float, float, float],
    norm: Normalize,
    box: tuple[float, float],
) -> None:
    """Draw one map with the object's box at (left, right, bottom, top)."""
    left, right, bottom, top = extent
    unit_x, unit_y = (right - left) / values.shape[1], (bottom - top) / values.shape[0]
    corner = (left, top)
    ax.add_patch(
        Rectangle(corner, right - left, bottom - top, facecolor=OFF_CANVAS, linewidth=0, zorder=0.5)
    )
    masked = np.ma.masked_invalid(values)
    ax.imshow(
        masked, extent=extent, cmap=DIVERGING, norm=norm, aspect="auto", interpolation="nearest",
        zorder=1,
    )  # fmt: skip
    inside = (left + box[0] * unit_x, top + box[0] * unit_y)
    ax.add_patch(Rectangle(inside, box[1] * unit_x, box[1] * unit_y, zorder=2, **BOX_LINE))
