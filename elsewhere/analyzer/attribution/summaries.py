"""What follows from the maps of all objects: equivariance, means, intervals, and joins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.errors import InputError
from elsewhere.measures.accuracy import balanced_mean
from elsewhere.measures.attribution import (
    MAP_METRICS,
    VANISHING,
    MapMetric,
    association,
    cross_means,
    cross_without,
    likeness_table,
    mean_over_objects,
)
from elsewhere.measures.behaviour import Behaviour, differing
from elsewhere.measures.intervals import Sampled, jackknife_t
from elsewhere.measures.matching import matched_gap
from elsewhere.measures.tables import LEFT_OUT
from elsewhere.measures.variables import described
from elsewhere.notes import notes_of
from elsewhere.types import stem_of

PER_OBJECT = (
    "mass",
    "mass_ratio",
    "mass_inside",
    "mass_box",
    "centre_distance",
    "entropy",
    "score",
    "sensitivity",
    "infidelity",
)
"""Measures of each object at each location, of which means are taken."""

FEW = 5
"""Names that a note lists."""

_PATHS = ("occlusion", "feature-ablation", "integrated-gradients", "gradient-shap")
"""Methods that look further than the image itself."""

_PLACES = ("mass_inside", "mass_box", "centre_y", "centre_x", "centre_distance", "entropy")


def maps_of(result: xarray.Dataset, name: str = "attribution") -> xarray.DataArray:
    """Return maps with their own magnitudes, float32: stored values times their scale.

    Parameters
    ----------
    result
        From :func:`attribute`.
    name
        ``attribution``, ``canvas_attribution`` or ``reference_attribution``.
    """
    scale = "reference_scale" if name.startswith("reference") else "scale"
    found = result[name].astype(np.float32) * result[scale].astype(np.float32)
    return found.transpose(*result[name].dims)


def summarise(result: xarray.Dataset) -> xarray.Dataset:
    """Add what follows from the maps and measures of all objects to them."""
    result, doubts = result.drop_dims(LEFT_OUT, errors="ignore"), list[str]()
    there = result["reference_mass"]
    result["vanishing"], result["reference_vanishing"] = vanishing_of(result)
    result["mass_ratio"] = (result["mass"] / there).where(~result["reference_vanishing"])
    for name in _PLACES:
        result[name] = result[name].where(~result["vanishing"])
    _add_equivariance(result)
    away = _away(result)
    for name in PER_OBJECT:
        if name in result:
            _add_means(result, name, result[name], away)
    if "correct" in result:
        right = result["correct"].transpose("object", "y", "x").values
        result["accuracy"] = (("y", "x"), balanced_mean(right, codes_of(result)))
        doubts += _add_recognition(result, away)
    known = result["mass"].where(~result["vanishing"])
    size = there.where(~result["reference_vanishing"], known.mean(("y", "x")))
    share = (maps_of(result) / size.where(lambda v: v > 0)).where(~result["vanishing"])
    result["frame_mean"] = share.mean("object").astype(np.float32)
    result = result.assign_coords(bound=["low", "high"])
    result.attrs["sampled"] = Sampled.of(codes_of(result)).unit
    result.attrs["n_vanishing"], vanished = _vanishing(result)
    doubts += _without_intervals(result)
    result.attrs["notes"] = notes_of(result, unsummed(result), vanished, doubts)
    return described(result)


def unsummed(result: xarray.Dataset) -> list[str]:
    """Return what has to be known of maps that do not sum to what they share out."""
    if "completeness_share" not in result:
        return []
    share, tolerance = result["completeness_share"], float(result.attrs["tolerance"])
    off = share > tolerance
    there = result["reference_completeness_share"] > tolerance
    count, worst = (
        int(off.sum()),
        float(np.fmax(share, result["reference_completeness_share"]).max()),
    )
    if not count and not bool(there.any()):
        return []
    ids = result["object"].values[(off.any(("y", "x")) | there).values]
    named = ", ".join(map(str, ids[:FEW])) + (", ..." if len(ids) > FEW else "")
    steps = f", in {int(result['n_steps'].max())} steps as well" if "n_steps" in result else ""
    return [
        f"{count} of {off.size} maps of {result.attrs['method']} do not sum to the score's change: "
        f"they are off by up to {worst:.2g} of it, above the tolerance {tolerance:g}{steps} "
        f"(objects {named}); figures mark them, completeness_share says how far each is off, and "
        "means hold them; allow more steps (--option most_steps=...), or take another baseline "
        "or method"
    ]


def _without_intervals(result: xarray.Dataset) -> list[str]:
    """Say which means have no interval although they have a value, and why."""
    names = [str(name) for name in result.data_vars if f"{name}_interval" in result.data_vars]
    left = [
        name
        for name in names
        if bool((result[name].notnull() & result[f"{name}_interval"].isnull().any("bound")).any())
    ]
    if not left:
        return []
    units = {"category": "categories"}.get(result.attrs["sampled"], "objects")
    return [
        f"no interval of {', '.join(left)}: {units} are left out in turn, and there are too few of "
        "them for it, or one alone decides"
    ]


def vanishing_of(result: xarray.Dataset) -> tuple[xarray.DataArray, xarray.DataArray]:
    """Return which maps are none, over the grid and at the reference.

    They are empty, or the score's rounding, or far weaker than the object's other maps.
    """
    there = result["reference_mass"]
    weak = VANISHING * np.maximum(result["mass"].max(("y", "x")), there)
    return (
        result["vanishing"].astype(bool) | (result["mass"] <= weak),
        result["reference_vanishing"].astype(bool) | (there <= weak),
    )


def _vanishing(result: xarray.Dataset) -> tuple[int, list[str]]:
    """Return how many maps vanish, and what has to be known of that."""
    away, n_objects = _away(result), result.sizes["object"]
    at_reference = int(result["reference_vanishing"].sum())
    elsewhere = int((result["vanishing"] & away).sum())
    count, total = at_reference + elsewhere, n_objects * (int(away.sum()) + 1)
    if not count:
        return 0, []
    empty = not bool((result["mass"].where(result["vanishing"]) > 0).any())
    local = str(result.attrs.get("method")) not in _PATHS
    if str(result.attrs.get("target")).startswith("similarity") and local:
        reason = (
            "where the code is that of the reference a similarity is at its maximum and has no "
            "gradient; take integrated-gradients or occlusion, which have a map there"
        )
    elif empty:
        reason = (
            "they are empty: the object does not differ from the baseline, or the target does not "
            "depend on it; show other objects, or take another --background, --baseline or --target"
        )
    else:
        reason = (
            "the object leaves what is attributed as the empty canvas has it, or they explain no "
            f"more of the score than its rounding, or less than {VANISHING:g} of what the object's "
            "other maps do; take a target that depends on the object there"
        )
    where = f", {at_reference} of them at the reference" if at_reference else ""
    none = (result["vanishing"].all(("y", "x")) & result["reference_vanishing"]).values
    names = [str(name) for name in result["object"].values[none]]
    shown = ", ".join(names[:FEW]) + (", ..." if len(names) > FEW else "")
    left = f"; no map is left of {shown}" if names else ""
    return count, [
        f"{count} of {total} maps vanish{where}, so that their equivariance and their places are "
        f"undefined (nan): {reason}{left}"
    ]


def _away(result: xarray.Dataset) -> xarray.DataArray:
    """Return which locations are not the reference, bool (y, x)."""
    elsewhere: xarray.DataArray = (result["y"] != result.attrs["reference_y"]) | (
        result["x"] != result.attrs["reference_x"]
    )
    return elsewhere


def _add_means(
    result: xarray.Dataset, name: str, values: xarray.DataArray, away: xarray.DataArray
) -> None:
    """Add means over objects, and over locations but the reference, with their intervals."""
    dims = [str(dim) for dim in values.dims if dim != "object"]
    codes = codes_of(result)
    mean, interval = mean_over_objects(values.transpose("object", *dims).values, codes=codes)
    result[f"{name}_mean"] = (dims, mean)
    result[f"{name}_mean_interval"] = ((*dims, "bound"), interval)
    left = [dim for dim in dims if dim not in ("y", "x")]
    averaged = values.where(away).mean(("y", "x")).transpose("object", *left)
    mean, interval = mean_over_objects(averaged.values, codes=codes)
    result[f"{name}_away"] = (left, mean)
    result[f"{name}_away_interval"] = ((*left, "bound"), interval)


def codes_of(result: xarray.Dataset) -> NDArray[np.int64]:
    """Return the category of each object as a number, int (object,)."""
    _, codes = np.unique(result["category"].values.astype(str), return_inverse=True)
    return np.asarray(codes, np.int64)


def _add_equivariance(result: xarray.Dataset) -> None:
    """Add how alike maps here and at the reference are, and the baseline with other objects."""
    codes = codes_of(result)
    units = Sampled.of(codes)
    n, ny, nx = (result.sizes[dim] for dim in ("object", "y", "x"))
    references = np.asarray(result["reference_attribution"].values, np.float64).reshape(n, -1)
    references[result["reference_vanishing"].values] = 0.0
    own = np.full((len(MAP_METRICS), n, ny, nx), np.nan)
    cross = np.full_like(own, np.nan)
    without = np.full((len(units), len(MAP_METRICS), ny, nx), np.nan)
    for row in range(ny):
        for column in range(nx):
            maps = np.asarray(result["attribution"][:, row, column].values, np.float64)
            maps[result["vanishing"][:, row, column].values] = 0.0
            for place, metric in enumerate(MAP_METRICS):
                table = likeness_table(maps.reshape(n, -1), references, cast(MapMetric, metric))
                own[place, :, row, column] = np.diagonal(table)
                cross[place, :, row, column] = cross_means(table, codes)
                without[:, place, row, column] = cross_without(table, codes, units)
    dims = ("metric", "object", "y", "x")
    result.coords["metric"] = list(MAP_METRICS)
    result["equivariance"] = (dims, own)
    away = _away(result)
    _add_means(result, "equivariance", result["equivariance"], away)
    mean, _ = mean_over_objects(np.moveaxis(cross, 1, 0))
    result["equivariance_cross"] = (("metric", "y", "x"), mean)
    result["equivariance_cross_away"] = result["equivariance_cross"].where(away).mean(("y", "x"))
    _add_over_cross(result, xarray.DataArray(without, dims=("unit", "metric", "y", "x")), units)


def _add_over_cross(result: xarray.Dataset, without: xarray.DataArray, units: Sampled) -> None:
    """Add the baseline's interval, and equivariance less it: does the map say which object?

    `without` is the baseline without each unit in turn, (unit, metric, y, x).
    """
    away = _away(result)
    own = result["equivariance"].where(away).mean(("y", "x"))
    baseline = without.where(away).mean(("y", "x")).transpose("unit", "metric").values
    every = np.arange(result.sizes["object"])
    left = [
        own.isel(object=np.setdiff1d(every, members)).mean("object").values
        for members in units.members
    ]
    cross = result["equivariance_cross_away"].values
    over = result["equivariance_away"].values - cross
    for name, value, rest in (
        ("equivariance_cross_away", cross, baseline),
        ("equivariance_over_cross_away", over, np.stack(left) - baseline),
    ):
        result[name] = ("metric", value)
        result[f"{name}_interval"] = (("metric", "bound"), jackknife_t(value, rest))
        result[f"{name}_without"] = ((LEFT_OUT, "metric"), rest)  # to compare two networks by


def _add_recognition(result: xarray.Dataset, away: xarray.DataArray) -> list[str]:
    """Add means where objects are recognised and where they are not: moved, or only weakened?

    Returned is why there is no gap, where there is none although maps have something to compare.
    """
    measures = {f"equivariance[{name}]": result["equivariance"].sel(metric=name, drop=True)
                for name in MAP_METRICS}  # fmt: skip
    measures |= {name: result[name] for name in PER_OBJECT if name in result}
    means = np.full((len(measures), 2), np.nan)
    intervals = np.full((len(measures), 2, 2), np.nan)
    matched = np.full((len(measures), 2), np.nan)
    gaps, gap_intervals = np.full(len(measures), np.nan), np.full((len(measures), 2), np.nan)
    right, codes = result["correct"].astype(bool), codes_of(result)
    known = right.transpose("object", "y", "x").values.reshape(len(codes), -1)
    for place, values in enumerate(measures.values()):
        each = [
            values.where(away & some).mean(("y", "x")).values for some in (right, ~right)
        ]  # fmt: skip
        for side in range(2):
            means[place, side], intervals[place, side] = mean_over_objects(each[side], codes=codes)
        shown = values.where(away).transpose("object", "y", "x").values.reshape(len(codes), -1)
        gaps[place], gap_intervals[place] = matched_gap(shown, known, codes)
        if (there := np.isfinite(shown)).any():
            share = known[there].mean()
            matched[place] = shown[there].mean() + gaps[place] * np.array([1 - share, -share])
    result.coords["measure"] = list(measures)
    result.coords["recognition"] = ["recognised", "not recognised"]
    result["by_recognition"] = (("measure", "recognition"), means)
    result["by_recognition_interval"] = (("measure", "recognition", "bound"), intervals)
    result["by_recognition_matched"] = (("measure", "recognition"), matched)
    result["recognition_gap"] = ("measure", gaps)
    result["recognition_gap_interval"] = (("measure", "bound"), gap_intervals)
    if np.isfinite(gaps).any() or np.isnan(means).all():
        return []
    some, told = (np.asarray(values.where(away), float) for values in (right, result["predicted"]))
    if (share := np.nanmean(some)) in (0, 1):
        why = f"{'all' if share else 'none'} of the objects are recognised"
    elif np.nanmin(told) == np.nanmax(told):
        why = "the network gives one answer only"
    else:
        why = "no place has objects that are recognised there only, beside others that are not"
    return [f"recognition_gap is undefined (nan): away from the reference {why}"]


# --- joins


def check_joinable(
    other: xarray.Dataset,
    *,
    weights_sha256: str | None = None,
    behaviour: Behaviour | None = None,
    canvas: int | None = None,
    y: Sequence[int] | None = None,
    x: Sequence[int] | None = None,
) -> None:
    """Refuse a result that says nothing of these locations, or speaks of another network.

    Parameters
    ----------
    other
        The result.
    weights_sha256, behaviour, canvas
        Of the network and its canvas, px, where they are known.
    y, x
        Locations, px.

    Raises
    ------
    InputError
        In one line.
    """
    kind = str(other.attrs.get("kind", "other"))
    if not any(True for _ in _maps_over_canvas(other)):
        raise InputError(
            f"the result of kind {kind!r} has no numbers over y and x; join results of "
            "accuracy, similarity, or probes trained at one place"
        )
    there = str(other.attrs.get("weights_sha256") or "")
    if weights_sha256 and there and there != weights_sha256:
        raise InputError(
            f"the result of kind {kind!r} is of another network: its weights are {there[:12]}, "
            f"those of this one {weights_sha256[:12]}; measure both on the same network"
        )
    if differing(other.attrs.get("behaviour") or {}, behaviour or {}, last=1):
        raise InputError(
            f"the result of kind {kind!r} is of a network that does something else with the same "
            "image, although its weights are the same (a constant of a module, a closure or an "
            "unsaved buffer?); measure both on the same network"
        )
    size = other.attrs.get("canvas")
    if canvas is not None and size is not None and int(size) != int(canvas):
        raise InputError(
            f"the result of kind {kind!r} is on a canvas of {size} px, this one on {canvas}; "
            "measure both on the same canvas"
        )
    for axis, wanted in (("y", y), ("x", x)):
        if wanted is not None and not set(other[axis].values.tolist()) & set(map(int, wanted)):
            raise InputError(
                f"the result of kind {kind!r} has none of the locations of this one; measure "
                "it on the same --grid"
            )


def join(result: xarray.Dataset, others: Sequence[xarray.Dataset]) -> xarray.Dataset:
    """Return an attribution result with what other results say of the same locations.

    Parameters
    ----------
    result
        From :func:`attribute`.
    others
        Results over y and x: accuracy, similarity, probes trained at one place.

    Returns
    -------
    xarray.Dataset
        With ``joined (joined, y, x)``, one entry for each map of the others (``accuracy[same]``,
        ``G[fc7]``, ``probe[fc7,same]``), NaN where they lack a location, and ``association
        (measure_map, joined)``: Spearman's correlation over locations with the means over objects.

    Raises
    ------
    InputError
        A result without maps over y and x, with none of these locations, or of another network.
    """
    maps: dict[str, NDArray[np.float64]] = {}
    for other in others:
        check_joinable(
            other,
            weights_sha256=result.attrs.get("weights_sha256"),
            behaviour=result.attrs.get("behaviour"),
            canvas=result.attrs.get("canvas"),
            y=result["y"].values.tolist(),
            x=result["x"].values.tolist(),
        )
        kind = str(other.attrs.get("kind", "other"))
        for name, values in _maps_over_canvas(other):
            aligned = values.reindex(y=result["y"], x=result["x"]).transpose("y", "x").values
            if not np.isfinite(aligned).any():  # such as held-out exemplars where there are none
                continue
            key = name if name not in maps else f"{kind}:{name}"
            maps[key] = np.asarray(aligned, np.float64)
    own = {f"equivariance[{name}]": result["equivariance_mean"].sel(metric=name).values
           for name in result["metric"].values.tolist()}  # fmt: skip
    own |= {
        name: result[f"{name}_mean"].values for name in PER_OBJECT if f"{name}_mean" in result
    }  # fmt: skip
    joined = result.drop_vars(["joined", "association"], errors="ignore")
    joined["joined"] = (("joined_map", "y", "x"), np.stack(list(maps.values())))
    table = [[association(a, b) for b in maps.values()] for a in own.values()]
    joined["association"] = (("measure_map", "joined_map"), np.array(table))
    joined = joined.assign_coords(joined_map=list(maps), measure_map=list(own))
    return described(joined.assign_attrs(notes=notes_of(result, *others)))


_WANTED = {
    "accuracy": ("accuracy",),
    "probe": ("accuracy",),  # not its controls, which are of other networks or of none
    "probe-each": (),
}


def _maps_over_canvas(other: xarray.Dataset) -> Iterable[tuple[str, xarray.DataArray]]:
    """Yield the maps over y and x of a result, each under a name of its own."""
    wanted: Sequence[Any] = _WANTED.get(str(other.attrs.get("kind")), tuple(other.data_vars))
    if other.attrs.get("kind") == "similarity":
        wanted = (stem := stem_of(other.attrs), f"{stem}_G")
    for name in wanted:
        if name not in other or not {"y", "x"} <= set(other[name].dims):
            continue
        values = other[name]
        known = "probe" if other.attrs.get("kind") == "probe" else str(name)
        extra = [str(dim) for dim in values.dims if dim not in ("y", "x")]
        private = {"object", "bound", "height", "width", "rgb", "pixel_y", "pixel_x"}
        if values.dtype.kind != "f" or set(extra) & private:
            continue
        if not extra:
            yield known, values
            continue
        for entry in values.stack(entry=extra)["entry"].values.tolist():
            labels = entry if isinstance(entry, tuple) else (entry,)
            chosen = values.sel(dict(zip(extra, labels, strict=True)), drop=True)
            yield f"{known}[{','.join(map(str, labels))}]", chosen
