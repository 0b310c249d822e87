"""Results with axes that change objects: one value of each, or all along one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures.curves import depth_shades, draw_legend, fit_limits, legend_handle
from elsewhere.figures.results import describe
from elsewhere.figures.style import (
    GREY,
    INK,
    LABEL_SIZE,
    PAGE_WIDTH,
    TITLE_SIZE,
    Mark,
    axes_or_new,
    shorten_apart,
    styled,
    text_style,
    tidy,
    wrap,
)
from elsewhere.types import stem_of

_DRAWN = {
    "similarity": (("{stem}", "same object"), ("{stem}_baseline", "another object")),
    "accuracy": (("accuracy", "accuracy"),),
    "probe": (("accuracy", "accuracy"),),
}
"""What is drawn along an axis, by the kind of result: a solid line, then a dashed one."""


def changing_axes(result: xr.Dataset) -> list[str]:
    """Return the axes of a result that change objects: its reference says a value of each."""
    named = [str(name) for name in result.dims if f"reference_{name}" in result.attrs]
    return [name for name in named if name not in ("y", "x")]


def slice_at(result: xr.Dataset, at: Mapping[str, float] | None = None) -> xr.Dataset:
    """Return a result at one value of each axis that changes objects.

    Parameters
    ----------
    result
        Any result.
    at
        Values by axis, which the result has to hold; by default those nearest to the reference.

    Raises
    ------
    UnknownNameError
        The result has no such axis.
    InputError
        It has no such value.
    """
    axes, wanted = changing_axes(result), dict(at or {})
    said = []
    for name in wanted:
        if name not in axes:
            raise UnknownNameError("axis of the result", name, axes)
    for name in axes:
        known = result[name].values
        value = wanted.get(name, float(result.attrs[f"reference_{name}"]))
        index = int(np.abs(known - value).argmin())
        if name in wanted and not np.isclose(known[index], value):
            raise InputError(
                f"the result has no {name} {value:g}; expected one of "
                f"{', '.join(f'{each:g}' for each in known)}"
            )
        both = (name, f"reference_{name}")
        result = result.isel({each: index for each in both if each in result.dims}, drop=True)
        said.append(f"{name} {known[index]:g}")
    return result.assign_attrs(shown_at=", ".join(said)) if said else result


@styled
def plot_along(
    result: xr.Dataset,
    axis: str,
    *,
    at: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw what a result measures against the values of an axis that changes objects.

    Each point is the mean over all locations (of a similarity, over those that are not the
    reference's, where there are others); other axes are at one value each.

    Parameters
    ----------
    result
        A result of similarity, accuracy or probes.
    axis
        Name of the axis.
    at
        Values of the other axes; by default those nearest to the reference.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    The axes drawn on.

    Raises
    ------
    InputError
        Another kind of result, or a value that it does not hold.
    UnknownNameError
        The result has no such axis.
    """
    known = changing_axes(result)
    if axis not in known:
        raise UnknownNameError("axis of the result", axis, known)
    kind = str(result.attrs.get("kind"))
    if kind not in _DRAWN:
        raise InputError(
            f"a result of kind {kind!r} is not drawn along an axis; expected one of "
            f"{', '.join(_DRAWN)}"
        )
    reference = float(result.attrs[f"reference_{axis}"])
    shown = result.copy()
    del shown.attrs[f"reference_{axis}"]  # which is what would be kept of it
    shown = slice_at(shown, at)
    drawn = [(name.format(stem=stem_of(result.attrs)), text) for name, text in _DRAWN[kind]]
    series = next(dim for dim in ("layer", "exemplars") if dim in shown[drawn[0][0]].dims)
    names = [str(name) for name in shown[series].values]
    if kind == "probe":
        shown = shown.isel(split=0)
    chosen = np.unique(np.rint(np.linspace(0, len(names) - 1, 6)).astype(int))
    chosen = chosen[: len(names)]
    ax = axes_or_new(ax, PAGE_WIDTH, 3.2)
    tidy(ax)
    shades, values, handles = depth_shades(len(chosen)), shown[axis].values, []
    seen, away = [], _elsewhere(shown) if kind == "similarity" else True
    labels = shorten_apart([names[index] for index in chosen], 22)
    for rank, index in enumerate(chosen):
        mark = Mark(shades[rank], "osD^vP"[rank % 6], "-")
        for number, (variable, _) in enumerate(drawn):
            means = shown[variable].isel({series: index}).where(away).mean(("y", "x")).values
            ax.plot(
                values,
                means,
                color=mark.color,
                linestyle="-" if number == 0 else (0, (3, 1.5)),
                linewidth=1.2 if number == 0 else 0.9,
                marker=mark.marker,
                markersize=3.2,
                markerfacecolor=mark.color if number == 0 else "white",
                label=f"{variable}:{names[index]}",
                zorder=3,
            )
            seen.append(means)
        handles.append(legend_handle(mark, labels[rank]))
    fit_limits(ax, np.concatenate(seen))
    ax.axvline(reference, color=GREY, linewidth=0.6, linestyle=(0, (1, 2)), zorder=1)
    unit = str(result[axis].attrs.get("units", ""))
    ax.set_xlabel(f"{axis} ({unit})" if unit not in ("", "1") else axis, fontsize=LABEL_SIZE)
    ax.set_ylabel("accuracy" if kind != "similarity" else "similarity", fontsize=LABEL_SIZE)
    if len(drawn) > 1:
        dashes = ("-", (0, (3, 1.5)))
        for number, (_, text) in enumerate(drawn):
            handles.append(legend_handle(Mark(INK, "o", dashes[number]), text, hollow=number > 0))
    title = wrap(describe(shown, f"{kind} along {axis}"), 5.6, TITLE_SIZE)
    ax.set_title(title, loc="left", fontsize=TITLE_SIZE, **text_style(title))
    draw_legend(ax, handles)
    return ax


def _elsewhere(result: xr.Dataset) -> xr.DataArray | bool:
    """Return which locations are not the reference's; all where there is no other."""
    away = (result["y"] != result.attrs["reference_y"]) | (
        result["x"] != result.attrs["reference_x"]
    )
    return away if bool(away.any()) else True
