"""Numbers of results computed anew from what they are made of, by other code than made them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray

from elsewhere.types import stem_of


def recomputed(result: xarray.Dataset, variable: str, at: Mapping[str, int]) -> float | None:
    """Return a number of a result from the other numbers that it is made of; None where none are.

    Means over objects, over places and over seeds, accuracies from the single answers, and G from
    its two cosines are known.
    """
    stem = stem_of(dict(result.attrs))
    index = dict(at)
    if result.attrs.get("kind") == "claims" and variable == "value":
        return float(np.mean(result["seeds"].isel(index).values))
    if variable == "accuracy" and "correct" in result:
        return _accuracy(result, index)
    if variable == stem and f"{stem}_each" in result:
        each = result[f"{stem}_each"].isel(index)
        return float(each.mean("object", skipna=False).item()) if each.dims == ("object",) else None
    if variable == f"{stem}_G" and {stem, f"{stem}_baseline"} <= set(result.data_vars):
        own, other = (float(result[name].isel(index)) for name in (stem, f"{stem}_baseline"))
        found = float(result[variable].isel(index))
        return (own - other) / (1 - other) if np.isfinite(found) else None
    if variable in (f"{stem}_away", f"{stem}_baseline_away"):
        return _away(result, variable, index)
    return None


def _accuracy(result: xarray.Dataset, index: Mapping[str, int]) -> float | None:
    """Return the mean over classes of the share of exemplars that are classified correctly."""
    where = {name: at for name, at in index.items() if name != "exemplars"}
    if set(result["correct"].dims) != {*where, "object"}:
        return None
    kind = str(result["exemplars"].values[index["exemplars"]])
    held = result["held_out"].values == (kind == "held-out")
    right = result["correct"].isel(where).values[held]
    categories = result["category"].values[held]
    shares = [right[categories == name].mean() for name in dict.fromkeys(categories.tolist())]
    return float(np.mean(shares)) if shares else float("nan")


def _away(result: xarray.Dataset, variable: str, index: Mapping[str, int]) -> float | None:
    """Return the mean over all places but the reference."""
    name = variable.removesuffix("_away")
    if name not in result or set(result[name].isel(dict(index)).dims) != {"y", "x"}:
        return None
    there = result[name].isel(dict(index))
    own = (there["y"] == result.attrs["reference_y"]) & (there["x"] == result.attrs["reference_x"])
    return float(there.where(~own).mean().item())
