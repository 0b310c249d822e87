"""Results with axes that change objects: one value of each, or all along one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures.accuracy import distances, trained_locations
from elsewhere.figures.lines import (
    depth_shades,
    draw_legend,
    fit_limits,
    left_out_handle,
    legend_handle,
    spread,
)
from elsewhere.figures.page import SIZES
from elsewhere.figures.results import describe
from elsewhere.figures.style import GREY, INK, Mark, axes_or_new, entitle, styled, tidy
from elsewhere.figures.text import clean_text
from elsewhere.forms import layer_labels
from elsewhere.types import stem_of

_DRAWN = {
    "similarity": (
        ("{stem}", "same object\nelsewhere"),
        ("{stem}_baseline", "other object\nelsewhere"),
    ),
    "accuracy": (("accuracy", "accuracy"),),
    "probe": (("accuracy", "accuracy"),),
}
"""What is drawn along an axis, by the kind of result: a solid line, then a dashed one."""


_NO_AXIS = "it has none; `elsewhere record ... --axis scale=0.5:2:5` makes one"

_SUMMARY = re.compile(
    r"(_away|_at|_index|_step|_displaced)(_interval|_band|_without)?$|^(II|N_at|on_minus)|_by_displacement"
)
"""Variables that take all values of all axes together, and so say nothing of one."""


def changing_axes(result: xr.Dataset) -> list[str]:
    """Return the axes of a result that change objects: its reference says a value of each."""
    named = [str(name) for name in result.dims if f"reference_{name}" in result.attrs]
    return [name for name in named if name not in ("y", "x")]


def whole_range(result: xr.Dataset) -> xr.Dataset:
    """Return a result whose title says over which values of its axes summaries are taken."""
    ends = {name: result[name].values[[0, -1]] for name in changing_axes(result)}
    said = ", ".join(f"{name} {first:g} to {last:g}" for name, (first, last) in ends.items())
    return result.assign_attrs(shown_at=said) if said else result


def slice_at(
    result: xr.Dataset, at: Mapping[str, float] | None = None, *, keep: Sequence[str] = ()
) -> xr.Dataset:
    """Return a result at one value of each axis that changes objects.

    Means of a similarity away from the reference, and of a probe's accuracy on, off and far from
    the trained location, are those over the locations at these values. Other summaries over all
    values, and the intervals of such means, are left out.

    Parameters
    ----------
    result
        Any result.
    at
        Values by axis, which the result has to hold; by default those nearest to the reference.
    keep
        Axes that are kept whole.

    Raises
    ------
    UnknownNameError
        The result has no such axis.
    InputError
        It has no such value.
    """
    axes, wanted = changing_axes(result), dict(at or {})
    for name in (*wanted, *keep):
        if name not in axes:
            raise UnknownNameError("axis of the result", name, axes, hint=_NO_AXIS * (not axes))
    if not axes:
        return result
    chosen, neutral = [], True
    summaries = [name for name in result.data_vars if _SUMMARY.search(str(name))]
    whole = result
    for name in (name for name in axes if name not in keep):
        known, reference = result[name].values, float(result.attrs[f"reference_{name}"])
        value = wanted.get(name, reference)
        index = int(np.abs(known - value).argmin())
        if name in wanted and not np.isclose(known[index], value):
            raise InputError(
                f"the result has no {name} {value:g}; expected one of "
                f"{', '.join(f'{each:g}' for each in known)}"
            )
        both = (name, f"reference_{name}")
        result = result.isel({each: index for each in both if each in result.dims}, drop=True)
        chosen.append(f"{name} {known[index]:g}")
        if name == "scale" and "object_size" in result.attrs:
            size = round(int(result.attrs["object_size"]) * float(known[index]))
            result = result.assign_attrs(shown_size=size)
        neutral &= bool(np.isclose(known[index], reference))
    curves = [name for name in summaries if "displace" in str(name)]  # of unchanged objects
    left = set(summaries) - set(curves if neutral and not keep else ())
    result = _with_means(result.drop_vars(left), whole)
    return result.assign_attrs(shown_at=", ".join(chosen)) if chosen else result


def _with_means(result: xr.Dataset, whole: xr.Dataset) -> xr.Dataset:
    """Return a result with the means of its maps that `whole` has over all values of its axes."""
    kind, found = result.attrs.get("kind"), {}
    if kind == "similarity":
        away = _elsewhere(result)
        for name in map(str, result.data_vars):
            if f"{name}_away" in whole.data_vars and {"y", "x"} <= set(result[name].dims):
                found[f"{name}_away"] = result[name].where(away).mean(("y", "x"))
    elif kind == "probe" and "accuracy_at" in whole.data_vars:
        distance = xr.DataArray(
            distances(result, trained_locations(result)), dims=("y", "x")
        )  # fmt: skip
        near = {"on": distance == 0, "off": distance > 0}
        near["far"] = distance >= int(result.attrs["object_size"])
        means = [result["accuracy"].where(some).mean(("y", "x")) for some in near.values()]
        found["accuracy_at"] = xr.concat(list[Any](means), "where").assign_coords(where=list(near))
    return result.assign(found)


def facets_of(
    result: xr.Dataset,
    axis: str,
    at: Mapping[str, float] | None = None,
    *,
    keep: Sequence[str] = (),
) -> dict[str, xr.Dataset]:
    """Return a result at each value of an axis, by what the value is called.

    Parameters
    ----------
    result, at, keep
        As for :func:`slice_at`.
    axis
        Name of the axis.

    Raises
    ------
    UnknownNameError
        The result has no such axis.
    InputError
        Another axis has no such value, or the axis itself is to be at one value or kept whole.
    """
    if axis in (at or {}) or axis in keep:
        raise InputError(f"{axis} has a panel for each value; name another axis beside it")
    rest = slice_at(result, at, keep=(axis, *keep))
    values = [float(value) for value in rest[axis].values]
    found = {f"{axis} {value:g}": slice_at(rest, {axis: value}, keep=keep) for value in values}
    said = {key: value for key, value in rest.attrs.items() if key == "shown_at"}
    for each in found.values():  # a panel says which value it is of
        each.attrs.pop("shown_at")
        each.attrs |= said
    return found


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
    shown = slice_at(result, at, keep=[axis])
    kind = str(result.attrs.get("kind"))
    if kind not in _DRAWN:
        raise InputError(
            f"a result of kind {kind!r} is not drawn along an axis; expected one of "
            f"{', '.join(_DRAWN)}"
        )
    reference = float(result.attrs[f"reference_{axis}"])
    drawn = [(name.format(stem=stem_of(result.attrs)), text) for name, text in _DRAWN[kind]]
    series = next(dim for dim in ("layer", "exemplars") if dim in shown[drawn[0][0]].dims)
    names = [str(name) for name in shown[series].values]
    known = layer_labels(shown) if series == "layer" else names
    if kind == "probe":
        shown = shown.isel(exemplars=0)
    chosen = spread(len(names), 6)
    ax = axes_or_new(ax, 3.2)
    tidy(ax)
    shades, values, handles = depth_shades(len(chosen)), shown[axis].values, []
    seen, away = [], _elsewhere(shown) if kind == "similarity" else True
    labels = [clean_text(known[index]) for index in chosen]
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
    ax.set_xlabel(f"{axis} ({unit})" if unit not in ("", "1") else axis, fontsize=SIZES.label)
    ax.set_ylabel("accuracy" if kind != "similarity" else "similarity", fontsize=SIZES.label)
    if len(drawn) > 1:
        dashes = ("-", (0, (3, 1.5)))
        for number, (_, text) in enumerate(drawn):
            handles.append(legend_handle(Mark(INK, "o", dashes[number]), text, hollow=number > 0))
    if series == "layer":
        handles += left_out_handle(len(chosen), len(names))
    entitle(ax, describe(shown, f"{kind} along {axis}"), pad=6)
    draw_legend(ax, handles)
    return ax


def _elsewhere(result: xr.Dataset) -> xr.DataArray | bool:
    """Return which locations are not the reference's; all where there is no other."""
    away = (result["y"] != result.attrs["reference_y"]) | (
        result["x"] != result.attrs["reference_x"]
    )
    return away if bool(away.any()) else True
