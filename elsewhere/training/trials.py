"""Trials as a tidy table: one row for each object at each location."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
import xarray

from elsewhere.errors import InputError
from elsewhere.forms import layer_labels, network_name, weights_name
from elsewhere.measures.accuracy import displacements


def trial_table(result: xarray.Dataset) -> pandas.DataFrame:
    """Return the trials of a result of accuracy, or of probes, one row each.

    Parameters
    ----------
    result
        As :func:`elsewhere.analyzer.accuracy` or :func:`elsewhere.probes.probe` gives it; ``seed``
        and ``phase`` come from its attributes, where they are.

    Returns
    -------
    pandas.DataFrame
        Columns model, seed, phase, object, category, exemplar (its number in the category),
        held_out, axes that change objects, y, x (px), choice (a class's name), correct, margin;
        network (model and weights), condition (the curriculum, or, of a network of which none is
        known, the network), chance, distance_px, the distance from the nearest trained location of
        the object's class in px (Chebyshev), and distance_sizes in object sizes, both empty where
        none is known, and split: in words, such as ``trained location, held-out exemplars``.
        Trained locations that are off the grid have rows of their
        own, after the grid's. Of probes there are layer and probe (its kind) before object, no
        margin, and no row of an object that a layer does not respond to.

    Raises
    ------
    InputError
        A result of another kind, or of probes that were trained at each location in turn.
    """
    if result.attrs.get("kind") == "probe":
        return _of_probes(result)
    if result.attrs.get("kind") != "accuracy":
        what = result.attrs.get("kind", "dataset without kind")
        raise InputError(
            f"{'an' if what[0] in 'aeiou' else 'a'} {what} has no trials; expected a result of "
            "accuracy, or of probes that were trained at one place"
        )
    n_objects = result.sizes["object"]
    axes = [str(name) for name in result["correct"].dims[1:]]
    grids = np.meshgrid(*(result[name].values for name in axes), indexing="ij")
    off_grid = ~(
        np.isin(result["trained_y"].values, result["y"].values)
        & np.isin(result["trained_x"].values, result["x"].values)
    )
    places: dict[str, Any] = {}
    for name, values in zip(axes, grids, strict=True):
        if name in ("y", "x"):
            beside = result[f"trained_{name}"].values[off_grid]
        else:
            beside = np.full(int(off_grid.sum()), result.attrs[f"reference_{name}"])
        places[name] = np.concatenate([values.ravel(), beside])

    def flat(name: str) -> Any:
        grid = result[name].values.reshape(n_objects, -1)
        return np.concatenate([grid, result[f"trained_{name}"].values[:, off_grid]], axis=1).ravel()

    def each(name: str) -> Any:
        return np.repeat(result[name].values, len(places["y"]))

    columns = {
        **_run(result),
        **{name: each(name) for name in ("object", "category", "exemplar", "held_out")},
        **{name: np.tile(values, n_objects) for name, values in places.items()},
        "choice": result["class"].values[flat("choice")],
        "correct": flat("correct").astype(bool),
        "margin": flat("margin"),
    }
    shown = np.stack([places["y"], places["x"]], axis=1)
    trained = np.stack([result["trained_y"].values, result["trained_x"].values], axis=1)
    apart = np.full((n_objects, len(shown)), np.nan)
    if "distance" in result:  # trained locations are many, and not all of them tested
        known = result["distance"].values.reshape(n_objects, -1)
        known = np.tile(known, (1, grids[0].size // known.shape[1]))
        beside = result["trained_distance"].values[:, off_grid]
        apart = np.concatenate([known, beside], axis=1).astype(float)
        apart[apart < 0] = np.nan
    for number, mine in enumerate(result["is_trained"].values):
        if mine.any() and "distance" not in result:
            apart[number] = displacements(shown, trained[mine])
    return _with_places(result, pandas.DataFrame(columns), places, apart.ravel())


def _run(result: xarray.Dataset) -> dict[str, Any]:
    """Return the columns that are the same for all trials of a network."""
    return {
        "model": result.attrs.get("model", ""),
        "seed": result.attrs.get("seed", -1),
        "phase": result.attrs.get("phase", ""),
    }


def _of_probes(result: xarray.Dataset) -> pandas.DataFrame:
    """Return the trials of probes, layer by layer."""
    shape = result["choice"].shape
    _, *axes = map(str, result["choice"].dims[1:])
    n_objects, n_places = shape[1], int(np.prod(shape[2:]))
    grids = np.meshgrid(*(result[name].values for name in axes), indexing="ij")
    places = {name: values.ravel() for name, values in zip(axes, grids, strict=True)}
    each: dict[str, Any] = {name: result[name].values for name in ("object", "category")}
    objects = pandas.DataFrame({**each, "held_out": result["held_out"].values})
    objects.insert(2, "exemplar", objects.groupby("category").cumcount())
    objects["held_out"] = objects["held_out"].astype(bool)
    choice = result["choice"].values.ravel()
    columns: dict[str, Any] = {
        **_run(result),
        "layer": np.repeat(layer_labels(result), n_objects * n_places),
        "probe": result.attrs["probe"],
        **{
            str(name): np.tile(np.repeat(column.to_numpy(), n_places), shape[0])
            for name, column in objects.items()
        },
        **{name: np.tile(values, shape[0] * n_objects) for name, values in places.items()},
        "choice": result["class"].values[choice],
        "correct": result["correct"].values.ravel() == 1,
    }
    shown = np.stack([places["y"], places["x"]], axis=1)
    trained = np.stack([result["trained_y"].values, result["trained_x"].values], axis=1)
    apart = np.tile(displacements(shown, trained).astype(float), shape[0] * n_objects)
    table = _with_places(result, pandas.DataFrame(columns), places, apart)
    return table[choice >= 0].reset_index(drop=True)


def _with_places(
    result: xarray.Dataset, table: pandas.DataFrame, places: dict[str, Any], distance: Any
) -> pandas.DataFrame:
    """Return trials with where they were, in words, and of which network and condition.

    `places` holds the values of the axes of one object's trials, `distance` the px from the nearest
    trained location of all trials, NaN where there is none.
    """
    changed = np.zeros(len(places["y"]), bool)
    for name in set(places) - {"y", "x"}:
        changed |= places[name] != result.attrs[f"reference_{name}"]
    size = float(result.attrs.get("object_size", np.nan))
    training = result.attrs.get("training") or {}
    where = np.select(
        [np.isnan(distance), distance >= size, distance > 0],
        ["no trained location", "far from the trained location", "off the trained location"],
        "trained location",
    ).astype(object)
    there = (where == "trained location") & np.tile(changed, len(table) // len(changed))
    where[there] = "trained location with the object changed"
    exemplars = np.where(table["held_out"], ", held-out exemplars", ", trained exemplars")
    network = f"{network_name(result.attrs)} ({weights_name(result.attrs)})"
    return table.assign(
        network=network,
        condition=training.get("curriculum") or result.attrs.get("phase") or network,
        chance=float(result.attrs["chance"]),
        distance_px=pandas.array(distance, dtype="Int64"),
        distance_sizes=distance / size,
        split=where + exemplars.astype(object),
    )
