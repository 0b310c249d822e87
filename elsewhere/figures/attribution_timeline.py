"""Attribution over training: the object-frame maps of checkpoints, and their measures below."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from elsewhere.errors import InputError
from elsewhere.figures.attribution import (
    BOX_LINE,
    DIVERGING,
    OFF_CANVAS,
    describe_maps,
    diverging_scale,
    draw_tile,
    evenly,
)
from elsewhere.figures.page import SIZES, new_figure
from elsewhere.figures.results import require, scene_of
from elsewhere.figures.style import (
    GREY,
    MARKS,
    PALE,
    Mark,
    color_bar,
    legend_columns,
    styled,
    tidy,
    title_height,
    title_of,
)
from elsewhere.figures.text import clean_text, fitting, shorten, text_style

_MOST_TILES = 10
_ACCURACY = Mark("#009E73", "^", (0, (5, 1.2, 1, 1.2)))


@styled
def plot_attribution_timeline(
    result: xr.Dataset, *, location: tuple[int, int] | None = None
) -> Figure:
    """Draw the mean object-frame maps of checkpoints side by side, and their measures below.

    The upper row is the reference (the grid's location nearest to it), the lower one `location`.
    Below: the maps' Pearson correlation with the reference's, away from it, with its 95 % interval
    over objects; the same with another object's map; and the accuracy over the grid where known.

    Parameters
    ----------
    result
        An attribution result over ``checkpoint``, with the coordinate ``step``.
    location
        (y, x), px, of the grid; by default the one farthest from the reference.

    Returns
    -------
    A figure that pyplot does not know of.

    Raises
    ------
    InputError
        The result lacks what is drawn, or the location is not on its grid.
    """
    _require_maps(result)
    if "step" not in result.coords:
        raise InputError("the result has no coordinate 'step' over (checkpoint,)")
    scene = scene_of(result)
    near, far = _locations(result, (scene.y, scene.x), location)
    count = result.sizes["checkpoint"]
    width, left, right = SIZES.width, 0.62, 0.6 + 0.06 * SIZES.small
    across = width - left - right
    shown = evenly(count, min(_MOST_TILES, max(int(across / 0.45), 2)))
    maps = result["frame_mean"].transpose("checkpoint", "y", "x", "height", "width").values
    rows = np.stack([maps[shown, y, x] for y, x in (near, far)]).astype(np.float64)
    norm = diverging_scale(rows)

    pitch = across / len(shown)
    tile = min(0.92 * pitch, 1.15)
    title = title_of(describe_maps(result, "maps over training"), width - 0.2)
    names = [str(handle.get_label()) for handle in _key(result, rows)]
    columns = legend_columns(names, width - 0.1, SIZES.small, 1.8)
    top = title_height(title) + 0.28
    lower, foot = 1.5, 0.48 - (-len(names) // columns) * 1.6 * SIZES.small / 72
    if SIZES.height is not None:
        rest = SIZES.height - top - foot - 0.12
        tile = min(tile, 0.27 * rest)
        lower = rest - 2 * tile - 0.08
        if tile < 0.15:
            raise InputError(
                f"a height of {SIZES.height * 25.4:.0f} mm leaves no room for maps and curves; "
                "leave it out, or give more"
            )
    upper = 2 * tile + 0.08
    height = top + upper + 0.12 + lower + foot
    figure = new_figure(width, height)
    figure.set_layout_engine("none")  # tiles stand above the steps they belong to
    box = (left / width, across / width)
    above = figure.add_axes((box[0], (foot + lower + 0.12) / height, box[1], upper / height))
    below = figure.add_axes((box[0], foot / height, box[1], lower / height))

    _draw_tiles(above, result, rows, pitch, tile, norm)
    at = np.interp(np.arange(count), shown, (np.arange(len(shown)) + 0.5) * pitch)
    for ax in (above, below):
        ax.set_xlim(0, across)
    above.set_ylim(upper, 0)
    places = [(int(result["y"][y]), int(result["x"][x])) for y, x in (near, far)]
    labels = [f"y {y}\nx {x}" for y, x in places]
    labels[0] += "\n(reference)" if places[0] == (scene.y, scene.x) else ""
    above.set_yticks([tile / 2, tile * 1.5 + 0.08], labels=labels)
    above.tick_params(length=0, labelsize=SIZES.small, labelbottom=False)
    above.set_xticks([])
    above.spines[:].set_visible(False)
    _draw_measures(below, result, at)
    _draw_steps(below, above, result, at, shown)

    bar_at = figure.add_axes(
        ((left + across + 0.1) / width, (foot + lower + 0.12) / height, 0.1 / width, upper / height)
    )
    color_bar(
        figure, ScalarMappable(norm, DIVERGING), "attribution per px, as a share of the mass",
        values=rows, size=SIZES.small, room=upper + 0.2,
        cax=bar_at, extendfrac=0.05,
    )  # fmt: skip
    if title:
        figure.text(
            0.01, 1 - 0.06 / height, title, va="top", fontsize=SIZES.title, **text_style(title)
        )  # fmt: skip
    figure.legend(
        handles=_key(result, rows),
        loc="lower left",
        bbox_to_anchor=(0.01, 0.0),
        ncols=columns,
        fontsize=SIZES.small,
        handlelength=1.8,
        columnspacing=1.2,
        borderaxespad=0.2,
    )
    return figure


def _require_maps(result: xr.Dataset) -> None:
    """Say what is missing of a result without checkpoints."""
    if isinstance(result, xr.Dataset) and "frame_mean" not in result.data_vars:
        require(result, ["frame_mean"], [])
    if not isinstance(result, xr.Dataset) or "checkpoint" not in result.dims:
        raise InputError(
            "the result has no dimension 'checkpoint'; expected one of `elsewhere attribute "
            "--checkpoints`, or draw the kind attribution-frame"
        )
    numbered = result.assign_coords(checkpoint=np.arange(result.sizes["checkpoint"]))
    require(numbered, ["frame_mean"], ["checkpoint", "y", "x", "height", "width"])


def _locations(
    result: xr.Dataset, reference: tuple[int, int], location: tuple[int, int] | None
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the indices of the location nearest to the reference, and of the one to compare."""
    ys, xs = np.asarray(result["y"].values), np.asarray(result["x"].values)
    near = (int(np.abs(ys - reference[0]).argmin()), int(np.abs(xs - reference[1]).argmin()))
    if location is None:
        return near, (
            int(np.abs(ys - reference[0]).argmax()),
            int(np.abs(xs - reference[1]).argmax()),
        )
    y, x = location
    if y not in ys or x not in xs:
        raise InputError(
            f"location {y},{x} is not on the result's grid; y are {shorten(ys.tolist(), 60)}, "
            f"x are {shorten(xs.tolist(), 60)}"
        )
    return near, (ys.tolist().index(y), xs.tolist().index(x))


def _draw_tiles(
    ax: Axes,
    result: xr.Dataset,
    rows: NDArray[np.float64],
    pitch: float,
    tile: float,
    norm: Any,
) -> None:
    first = float(-np.asarray(result["height"].values)[0])
    box = (first, float(result.attrs["object_size"]))
    for line, tiles in enumerate(rows):
        for place, values in enumerate(tiles):
            left = (place + 0.5) * pitch - tile / 2
            top = line * (tile + 0.08)
            draw_tile(ax, values, (left, left + tile, top + tile, top), norm, box)


def _series(result: xr.Dataset) -> list[tuple[Mark, str, NDArray[np.float64]]]:
    """Return what is drawn against the checkpoints: its mark, what it is called, its values."""
    away = {
        "equivariance_away": (MARKS["similarity"], "correlation with the reference's map"),
        "equivariance_cross_away": (MARKS["baseline"], "with another object's"),
    }
    found = [
        (mark, label, _values(result[name].sel(metric="pearson")))
        for name, (mark, label) in away.items()
        if name in result
    ]
    if "accuracy" in result:
        found.append((_ACCURACY, "accuracy", _values(result["accuracy"].mean(("y", "x")))))
    return found


def _style(mark: Mark) -> dict[str, Any]:
    return {
        "color": mark.color, "linestyle": mark.dashes, "marker": mark.marker,
        "markersize": 3.2, "markeredgecolor": "white", "markeredgewidth": 0.4,
    }  # fmt: skip


def _key(result: xr.Dataset, rows: NDArray[np.float64]) -> list[Any]:
    """Return handles for the legend."""
    handles: list[Any] = [
        Line2D([], [], label=label, **_style(mark)) for mark, label, _ in _series(result)
    ]
    handles.append(Patch(label="object's box", **BOX_LINE))
    if bool(np.isnan(rows).any()):
        handles.append(Patch(facecolor=OFF_CANVAS, label="off the canvas"))
    return handles


def _draw_measures(ax: Axes, result: xr.Dataset, at: NDArray[np.float64]) -> None:
    """Draw the measures against the checkpoints."""
    tidy(ax)
    seen = [np.array([0.0, 1.0])]
    if "equivariance_away_interval" in result:
        bounds = result["equivariance_away_interval"].sel(metric="pearson")
        low, high = (_values(bounds.isel(bound=side)) for side in (0, 1))
        color = MARKS["similarity"].color
        ax.fill_between(at, low, high, color=color, alpha=0.15, linewidth=0, zorder=2)
        shown = np.concatenate([low, high]).clip(-1.0, 1.0)  # a correlation cannot leave these
        seen.append(shown[np.isfinite(shown)])
    for mark, label, values in _series(result):
        ax.plot(at, values, label=label, zorder=3, **_style(mark))
        seen.append(values[np.isfinite(values)])
    every = np.concatenate(seen)
    ax.set_ylim(min(-0.03, float(every.min()) - 0.05), max(1.03, float(every.max()) + 0.05))
    ax.set_ylabel("correlation, accuracy", fontsize=SIZES.label)


def _values(found: xr.DataArray) -> NDArray[np.float64]:
    return np.asarray(found.values, np.float64)


def _draw_steps(
    below: Axes, above: Axes, result: xr.Dataset, at: NDArray[np.float64], shown: list[int]
) -> None:
    """Number the steps beneath the tiles, and name the phases above them."""
    steps = [int(step) for step in result["step"].values]
    below.set_xticks(at[shown], labels=[str(steps[place]) for place in shown])
    below.tick_params(axis="x", labelsize=SIZES.small)
    below.set_xlabel("step of the phase", fontsize=SIZES.tick, labelpad=2)
    phases = [str(name) for name in result["phase"].values] if "phase" in result.coords else []
    starts = [i for i, name in enumerate(phases) if i == 0 or name != phases[i - 1]]
    for start, stop in zip(starts, [*starts[1:], len(phases)], strict=True):
        room = float(np.ptp(at)) / len(at) * (stop - start) if len(at) > 1 else 2.0
        label = fitting(clean_text(phases[start]), room - 0.04, SIZES.small)
        above.annotate(
            label,
            (float(at[start:stop].mean()), 0),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=SIZES.small,
            color=GREY,
            annotation_clip=False,
            **text_style(label),
        )
        if start:
            middle = float(at[start - 1] + at[start]) / 2
            below.axvline(middle, color=PALE, linewidth=0.8, zorder=1)
