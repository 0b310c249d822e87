"""Trials as a tidy table: one row for each object at each location."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
import xarray

from elsewhere.errors import InputError
from elsewhere.measures.accuracy import displacements


def trial_table(result: xarray.Dataset) -> pandas.DataFrame:
    """Return the trials of an accuracy result, one row each.

    Parameters
    ----------
    result
        As :func:`elsewhere.analyzer.accuracy` gives it; ``seed`` and ``phase`` come from its
        attributes, where they are.

    Returns
    -------
    pandas.DataFrame
        Columns model, seed, phase, object, category, exemplar (its number in the category),
        held_out, axes that change objects, y, x (px), choice (a class's name), correct, margin;
        network (model and weights), condition (the curriculum, if it is known), chance, distance
        from the nearest trained location of the object's class in px (Chebyshev) and distance_sizes
        in object sizes, both empty where none is known, and split: in words, such as ``trained
        location, held-out exemplars``. Trained locations that are off the grid have rows of their
        own, after the grid's.

    Raises
    ------
    InputError
        No accuracy result.
    """
    if result.attrs.get("kind") != "accuracy":
        raise InputError(
            f"a {result.attrs.get('kind', 'dataset without kind')} has no trials; expected a "
            "result of accuracy"
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
        "model": result.attrs.get("model", ""),
        "seed": result.attrs.get("seed", -1),
        "phase": result.attrs.get("phase", ""),
        **{name: each(name) for name in ("object", "category", "exemplar", "held_out")},
        **{name: np.tile(values, n_objects) for name, values in places.items()},
        "choice": result["class"].values[flat("choice")],
        "correct": flat("correct").astype(bool),
        "margin": flat("margin"),
    }
    table = pandas.DataFrame(columns)
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
    changed = np.zeros(len(shown), bool)
    for name in set(axes) - {"y", "x"}:
        changed |= places[name] != result.attrs[f"reference_{name}"]
    size, training = int(result.attrs["object_size"]), result.attrs.get("training") or {}
    distance = apart.ravel()
    where = np.select(
        [np.isnan(distance), distance >= size, (distance > 0)],
        ["no trained location", "far from the trained location", "off the trained location"],
        "trained location",
    ).astype(object)
    there = (where == "trained location") & np.tile(changed, n_objects)
    where[there] = "trained location with the object changed"
    exemplars = np.where(table["held_out"], ", held-out exemplars", ", trained exemplars")
    return table.assign(
        network=f"{result.attrs.get('model', '')} ({result.attrs.get('weights', '')})",
        condition=training.get("curriculum") or result.attrs.get("phase") or "unknown",
        chance=float(result.attrs["chance"]),
        distance=pandas.array(distance, dtype="Int64"),
        distance_sizes=distance / size,
        split=where + exemplars.astype(object),
    )
