"""Similarity results by the roles of their variables, whatever the metric is called."""

from typing import Any

import xarray

import elsewhere
from elsewhere.types import stem_of

_ROLES = {
    "_each": "similarity",
    "": "similarity_mean",
    "_interval": "similarity_interval",
    "_away": "similarity_away",
    "_away_interval": "similarity_away_interval",
}


def by_role(result: xarray.Dataset, metric: str = "") -> xarray.Dataset:
    """Return a similarity result with ``baseline_cross`` for ``cosine_baseline``, and so on."""
    stem = stem_of({"metric": metric} if metric else result.attrs)
    names = {}
    for name in map(str, result.data_vars):
        if name == stem or name.startswith(f"{stem}_"):
            rest = name.removeprefix(stem)
            role = _ROLES.get(rest, rest.removeprefix("_"))
            if role.startswith("baseline") and not role.startswith("baseline_same"):
                role = role.replace("baseline", "baseline_cross", 1)
            names[name] = role
    return result.rename(names)


def similarity(*arguments: Any, **options: Any) -> xarray.Dataset:
    """Return :func:`elsewhere.similarity` by roles."""
    return by_role(elsewhere.similarity(*arguments, **options))
