"""Claims of several systems side by side: a part of :func:`elsewhere.analyzer.compare`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.errors import InputError
from elsewhere.measures.claims import interval_over_seeds
from elsewhere.measures.variables import described

_ROW = ("claim", "part", "pair", "exemplars")


def by_system(
    results: Sequence[xarray.Dataset], names: Sequence[str] | None
) -> tuple[list[xarray.Dataset], list[str] | None]:
    """Return the claims of each system apart, where a result is of a list of systems."""
    parts: list[xarray.Dataset] = []
    called: list[str] = []
    for number, result in enumerate(results):
        if "systems" in result.attrs:
            held = result["system"].values
            for system in dict.fromkeys(held.tolist()):
                parts.append(result.isel(claim=np.flatnonzero(held == system)))
                called.append(system)
            continue
        parts.append(result)
        usual = str(result.attrs.get("system", f"#{number + 1}"))
        called.append(names[number] if names is not None and number < len(names) else usual)
    if names is not None and len(parts) == len(names):
        called = list(names)
    return parts, called


def compare_claims(
    results: Sequence[xarray.Dataset], called: Sequence[str], notes: Sequence[str]
) -> xarray.Dataset:
    """Return the claims of several systems, joined by claim, statistic, pair and exemplars."""
    tables = [_rows(result) for result in results]
    rows = list(dict.fromkeys(row for table in tables for row in table))
    seeds = sorted({int(seed) for result in results for seed in result["seed"].values})
    held = np.full((len(results), len(rows), len(seeds)), np.nan)
    words = np.full((len(results), len(rows)), "not run", dtype=object)
    facts: dict[str, list[Any]] = {"threshold": [], "direction": [], "counts": []}
    for row in rows:
        known = [
            (name, result.isel(claim=table[row]))
            for name, result, table in zip(called, results, tables, strict=True)
            if row in table
        ]
        for key, column in facts.items():
            said = [each[key].item() for _, each in known]
            for (name, _), value in zip(known[1:], said[1:], strict=True):
                if value != said[0]:
                    raise InputError(
                        f"the {key} of {row[0]} ({row[1]}) differs: {said[0]} in {known[0][0]}, "
                        f"{value} in {name}; compare claims of one version"
                    )
            column.append(said[0])
    for number, (result, table) in enumerate(zip(results, tables, strict=True)):
        places = [seeds.index(int(seed)) for seed in result["seed"].values]
        for row, place in table.items():
            held[number, rows.index(row), places] = result["seeds"].values[place]
            words[number, rows.index(row)] = str(result["verdict"].values[place])
    values, intervals = _over_seeds(held)
    differences, apart = _over_seeds(held[1:] - held[:1])
    found = xarray.Dataset(
        {
            "value": (("result", "claim"), values),
            "value_interval": (("result", "claim", "bound"), intervals),
            "verdict": (("result", "claim"), words.astype(str)),
            "seeds": (("result", "claim", "seed"), held),
            "value_difference": (("other", "claim"), differences),
            "value_difference_interval": (("other", "claim", "bound"), apart),
            **{key: ("claim", column) for key, column in facts.items()},
        },
        coords={
            "result": list(called),
            "other": list(called[1:]),
            "bound": ["low", "high"],
            "seed": seeds,
            **{key: ("claim", [row[n] for row in rows]) for n, key in enumerate(_ROW)},
        },
        attrs={
            "kind": "comparison",
            "compared": "claims",
            "joined_by": "nothing",
            "level": 0.95,
            "notes": list(notes),
        },
    )
    return described(found)


def _rows(result: xarray.Dataset) -> dict[tuple[str, ...], int]:
    """Return the place of each row of claims, by what it is about."""
    columns = (map(str, result[key].values) for key in _ROW)
    return {row: place for place, row in enumerate(zip(*columns, strict=True))}


def _over_seeds(held: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means over the seeds that are there (..., seed), and Student's t intervals.

    A seed that was run and has no value leaves none to the row either.
    """
    means, bounds = np.full(held.shape[:-1], np.nan), np.full((*held.shape[:-1], 2), np.nan)
    for place in np.ndindex(*held.shape[:-1]):
        known = held[place][np.isfinite(held[place])]
        if len(known):
            means[place] = known.mean()
            bounds[place] = interval_over_seeds(known)
    return means, bounds
