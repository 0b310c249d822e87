"""Accuracy over the canvas, and what a result of accuracy says of itself."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures.maps import (
    COLOR_MAP,
    MISSING,
    RASTER_CELLS,
    RING,
    TEXT_MARK,
    draw_cells,
    frame_panel,
    outline_objects,
)
from elsewhere.figures.results import MeasuredCanvas, cell_edges, describe, require, scene_of
from elsewhere.figures.sheets import Sheet
from elsewhere.figures.style import GREY, INK, color_bar, legend_below, styled
from elsewhere.figures.text import shorten

Exemplars: TypeAlias = Literal["same", "held-out"]
Results: TypeAlias = xr.Dataset | Mapping[str, xr.Dataset]

_MANY_PLACES = 12  # more trained locations than this are dots instead of rings
_DOT: dict[str, Any] = {
    "marker": "o",
    "markersize": 2.2,
    "markerfacecolor": INK,
    "markeredgecolor": "white",
    "markeredgewidth": 0.5,
    "linestyle": "none",
}
CHANCE_LINE: dict[str, Any] = {"color": GREY, "linewidth": 0.7, "linestyle": (0, (1, 1.6))}


@styled
def plot_accuracy_maps(
    results: Results,
    *,
    exemplars: Exemplars | None = None,
    columns: int | None = None,
) -> Figure:
    """Draw accuracy over the canvas, a panel for each condition, all on one scale.

    The scale runs from chance to 1; accuracies below chance have its lowest colour. The small
    number is the mean accuracy off the trained locations.

    Parameters
    ----------
    results
        An accuracy result, or several by the name of their condition, in the order of the panels:
        ``accuracy`` over (exemplars, y, x), 0..1, and the attributes ``canvas`` and
        ``object_size``, px, and ``chance`` or ``n_classes``. Trained locations are the coordinates
        ``trained_y`` and ``trained_x``, or the attribute ``trained``, pairs of y and x, px. The
        mean is ``accuracy_at`` (where ``off``) if there, else that of the map's other locations.
    exemplars
        ``same`` as in training, or ``held-out``; by default those held out, if there are any.
    columns
        Panels in a row; chosen for the page by default.

    Returns
    -------
    A figure that pyplot does not know of.

    Raises
    ------
    InputError
        A result lacks what is drawn, there is none, or `columns` cannot be used.
    UnknownNameError
        Exemplars of another kind.
    """
    found = conditions(results)
    for name, each in found.items():
        found[name] = require(each, ["accuracy"], ["exemplars", "y", "x"]).sortby(["y", "x"])
    which = choose_exemplars(list(found.values()), "accuracy", exemplars)
    scenes = [place_scene(each) for each in found.values()]
    trained = [trained_locations(each) for each in found.values()]
    maps = [select_map(each, which) for each in found.values()]
    if not all(values.size for values in maps):
        raise InputError("a result of accuracy holds no location; expected at least one")
    chances = [chance_of(each) for each in found.values()]
    shared = max(chances) - min(chances) < 1e-9
    shown = maps
    if not shared:  # one colour must not mean chance here and knowledge there
        shown = [(values - c) / (1 - c) for values, c in zip(maps, chances, strict=True)]
    norm = Normalize(chances[0] if shared else 0.0, 1.0)

    title = shared_title(found, f"accuracy, {which} exemplars")
    more = "" if shared else " (chance 0.00)"
    sheet = Sheet(list(found), columns, title, number=f"0.00{more}")
    hidden: list[bool] = []
    for idx, (ax, each, scene) in enumerate(zip(sheet.panels, found.values(), scenes, strict=True)):
        edges_y, edges_x = (
            cell_edges(each[dim].values, scene.canvas, scene.object_size) for dim in ("y", "x")
        )
        draw_cells(ax, shown[idx], edges_y, edges_x, norm, raster=maps[idx].size > RASTER_CELLS)
        frame_panel(ax, scene, **sheet.outer(idx))
        on = accuracy_on(each, which)
        off_grid = bool(len(trained[idx])) and not on_grid(each, trained[idx])
        fill = on if shared else (on - chances[idx]) / (1 - chances[idx])
        filled = off_grid and math.isfinite(fill) and len(trained[idx]) <= _MANY_PLACES
        hidden.append(filled)
        _mark_trained(ax, trained[idx], COLOR_MAP(norm(fill)) if filled else None)
        more = "" if shared else f" (chance {chances[idx]:.2g})"
        sheet.name(idx, _mean_off(each, maps[idx], trained[idx], which), more=more)
    boxes = []
    if len(trained[0]):
        sizes = [scene.shown_size for scene in scenes]
        boxes = [outline_objects(sheet.panels, scenes[0], sizes)]
    label = "accuracy" if shared else "accuracy above chance, as a share of what is above it"
    seen = np.concatenate([values.ravel() for values in shown])
    draw_accuracy_bar(sheet.figure, sheet.panels, norm, seen, label)
    sheet.label("x (px)", "y (px)")
    missing = any(bool(np.isnan(values).any()) for values in maps)
    apart = any("is_trained" in each and not each["is_trained"].all() for each in found.values())
    kinds = {"missing": missing, "filled": any(hidden), "apart": apart}
    _map_legend(sheet.figure, trained, scenes, boxes, **kinds)
    return sheet.figure


def choose_exemplars(
    results: Sequence[xr.Dataset], variable: str, asked: Exemplars | None
) -> Exemplars:
    """Return which exemplars are drawn: those asked for, else those held out if there are any."""
    if asked is not None and asked not in get_args(Exemplars):
        raise UnknownNameError("kind of exemplars", str(asked), get_args(Exemplars))
    for each in results:
        held = [str(name) for name in each["exemplars"].values]
        if asked is not None and asked not in held:
            raise InputError(
                f"the result has no {asked} exemplars; it has: {', '.join(held) or 'none'}; "
                "draw those, or compute the result again"
            )
    if asked is not None:
        return asked
    kinds: tuple[Exemplars, ...] = ("held-out", "same")
    held_by_all = [
        which for which in kinds if all(which in each["exemplars"].values for each in results)
    ]
    if not held_by_all:
        raise InputError("there are no exemplars to draw; expected same or held-out in each result")
    for which in held_by_all:
        if any(bool(np.isfinite(each[variable].sel(exemplars=which)).any()) for each in results):
            return which
    return held_by_all[-1]


def chance_of(result: xr.Dataset) -> float:
    """Return the accuracy of guessing that `result` names, directly or by its classes."""
    for name in ("chance", "n_classes"):
        if name not in result.attrs:
            continue
        given = result.attrs[name]
        try:
            chance = float(given) if name == "chance" else 1 / float(given)
        except (TypeError, ValueError, ZeroDivisionError):
            chance = math.nan
        if not 0 <= chance < 1:
            raise InputError(
                f"the attribute {name!r} is {given!r}; expected "
                f"{'0 up to 1' if name == 'chance' else 'a number of classes, at least 2'}"
            )
        return chance
    held = ", ".join(sorted(map(str, result.attrs))) or "none"
    raise InputError(
        "the result has neither of the attributes 'chance' and 'n_classes', from which the scale "
        f"of accuracy begins; it has: {held}"
    )


def trained_locations(result: xr.Dataset) -> NDArray[np.int64]:
    """Return the trained locations, int64 (n, 2) of y and x in px, n 0 where none is known."""
    if "trained_y" in result.coords and "trained_x" in result.coords:
        given: Any = np.stack(
            [result[name].values.ravel() for name in ("trained_y", "trained_x")], axis=1
        )
    else:
        given = result.attrs.get("trained", [])
    try:
        given = json.loads(given) if isinstance(given, str) else given
        places = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        places = np.empty(0)
    if places.size == 0 and isinstance(given, list | tuple | np.ndarray):
        return np.empty((0, 2), dtype=np.int64)
    if places.shape == (2,):
        places = places[None]
    if places.ndim != 2 or places.shape[1] != 2 or not np.isfinite(places).all():
        raise InputError(
            f"the attribute 'trained' is {shorten(given, 60)}; expected pairs of y and x, px, such "
            "as [[24, 5]]"
        )
    return np.unique(np.rint(places).astype(np.int64), axis=0)


def conditions(results: object) -> dict[str, xr.Dataset]:
    """Return results by the names of their conditions; a single one has its phase's name."""
    if isinstance(results, Mapping) and not isinstance(results, xr.Dataset):
        if not results:
            raise InputError("there is no result of accuracy to draw; give at least one")
        return {str(name): require(each, [], []) for name, each in results.items()}
    only = require(results, [], [])
    return {str(only.attrs.get("phase") or only.attrs.get("condition") or "accuracy"): only}


def place_scene(result: xr.Dataset) -> MeasuredCanvas:
    """Return the canvas, with the first trained location as the reference."""
    places = trained_locations(result)
    y, x = places[0].tolist() if len(places) else (0, 0)
    return scene_of(result.assign_attrs(reference_y=y, reference_x=x))


def select_map(result: xr.Dataset, which: str) -> NDArray[np.float64]:
    """Return the map (y, x) of one kind of exemplars, NaN where there is no value."""
    chosen = result["accuracy"].sel(exemplars=which).transpose("y", "x")
    values = np.array(chosen.values, dtype=np.float64)
    values[~np.isfinite(values)] = np.nan
    return values


def shared_title(found: Mapping[str, xr.Dataset], what: str) -> str:
    """Return `what` with the attributes that all conditions share."""
    first, *others = found.values()
    shared = {
        name: first.attrs[name]
        for name in ("model", "model_arguments", "weights", "n_objects", "shown_at")
        if name in first.attrs
        and all(str(each.attrs.get(name)) == str(first.attrs[name]) for each in others)
    }
    if "model" not in shared:
        shared.pop("weights", None)
    return describe(xr.Dataset(attrs=shared), what)


def _mean_off(
    result: xr.Dataset, values: NDArray[np.float64], trained: NDArray[np.int64], which: str
) -> float:
    """Return mean accuracy off the trained locations: the result's own where it has one."""
    if "accuracy_at" in result.data_vars and "off" in result["accuracy_at"].coords.get("where", ()):
        return float(result["accuracy_at"].sel(exemplars=which, where="off"))
    distance = distances(result, trained)
    off = values[np.isfinite(values) & ((distance > 0) | (len(trained) == 0))]
    return float(off.mean()) if off.size else math.nan


def distances(result: xr.Dataset, trained: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each location's Chebyshev distance (y, x) from the nearest trained one, px."""
    ys, xs = np.meshgrid(result["y"].values, result["x"].values, indexing="ij")
    if not len(trained):
        return np.full(ys.shape, np.nan)
    steps = [np.maximum(abs(ys - y), abs(xs - x)) for y, x in trained]
    return np.asarray(np.min(steps, axis=0), dtype=np.float64)


def accuracy_on(result: xr.Dataset, which: str) -> float:
    """Return mean accuracy on the trained locations, NaN where the result does not hold it."""
    if "accuracy_at" not in result or "on" not in result["accuracy_at"].coords.get("where", ()):
        return math.nan
    return float(result["accuracy_at"].sel(exemplars=which, where="on"))


def on_grid(result: xr.Dataset, trained: NDArray[np.int64]) -> bool:
    """Return whether all trained locations are locations of the map."""
    return bool(
        np.isin(trained[:, 0], result["y"].values).all()
        and np.isin(trained[:, 1], result["x"].values).all()
    )


def _mark_trained(
    ax: Axes, trained: NDArray[np.int64], colour: tuple[float, ...] | None = None
) -> None:
    """Ring the trained locations, filled if a colour is given, or dot them where they are many."""
    style = _DOT if len(trained) > _MANY_PLACES else RING
    if colour is not None:
        style = {**style, "markerfacecolor": colour}
    if len(trained):
        ax.plot(trained[:, 1], trained[:, 0], label="trained", clip_on=False, zorder=3, **style)


def draw_accuracy_bar(
    figure: Figure,
    panels: list[Axes],
    norm: Normalize,
    values: NDArray[np.float64],
    label: str = "accuracy",
) -> None:
    """Draw the one colour bar, which says that its lowest colour is chance and all below."""
    chance = float(norm.vmin or 0.0)
    bar = color_bar(
        figure, ScalarMappable(norm, COLOR_MAP), label, values=values, ax=panels,
        aspect=28 if len(panels) > 4 else 20,
    )  # fmt: skip
    ticks = [tick for tick in (0.2, 0.4, 0.6, 0.8) if chance + 0.09 < tick] + [1.0]
    bar.set_ticks(
        [chance, *ticks], labels=[f"≤ {chance:.2g}\nchance", *(f"{tick:.1f}" for tick in ticks)]
    )


def _map_legend(
    figure: Figure,
    trained: Sequence[NDArray[np.int64]],
    scenes: Sequence[MeasuredCanvas],
    boxes: Sequence[Patch],
    *,
    missing: bool,
    filled: bool,
    apart: bool,
) -> None:
    """Explain the marks beneath the panels; classes may have trained locations of their own."""
    handles: list[Line2D | Patch] = []
    counts = {len(places) for places in trained}
    if counts & set(range(1, _MANY_PLACES + 1)):
        alone = len(np.unique(np.concatenate(trained), axis=0)) == 1 and counts == {1}
        where = f" (y {scenes[0].y}, x {scenes[0].x})" if alone else ""
        whose = " of some classes (colours: the mean over all)" if apart else ""
        colour = ", off the grid: filled with its own accuracy" if filled else ""
        handles.append(Line2D([], [], label=f"trained location{where}{whose}{colour}", **RING))
    if max(counts) > _MANY_PLACES:
        handles.append(Line2D([], [], label="trained locations", **_DOT))
    handles += boxes
    handles.append(
        Line2D([], [], label="mean off the trained location", marker="$.5$", markersize=7)
    )
    handles[-1].set(**TEXT_MARK)
    if missing:
        handles.append(Patch(label="no value", **MISSING))
    legend_below(figure, handles)
