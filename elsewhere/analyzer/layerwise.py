"""Numbers by layer: what holds for all layers together, and which have no interval."""

from __future__ import annotations

from typing import Any

import xarray
from numpy.typing import ArrayLike

from elsewhere.measures.bands import layer_bands


def step_of(name: str) -> str:
    """Return the name of a number's steps between layers: ``G_step`` of ``G_away``."""
    return f"{name.removesuffix('_away')}_step"


def banded(
    name: str,
    value: ArrayLike,
    without: ArrayLike,
    *,
    share: bool = False,
    less: tuple[ArrayLike, ArrayLike] | None = None,
) -> dict[str, Any]:
    """Return what holds for all layers of the number `name` together, as variables of a result.

    Parameters
    ----------
    name
        Of the number, such as ``G_away``: there come ``G_away_band`` and, less the value of the
        layer before, ``G_step`` with ``G_step_interval`` and ``G_step_band``.
    value, without, share, less
        As :func:`elsewhere.measures.bands.layer_bands` takes them.
    """
    found, step = layer_bands(value, without, share=share, less=less), step_of(name)
    over = ("layer", "bound")
    return {
        f"{name}_band": (over, found["band"]),
        step: (over[:1], found["step"]),
        f"{step}_interval": (over, found["step_interval"]),
        f"{step}_band": (over, found["step_band"]),
    }


def without_intervals(result: xarray.Dataset, sampled: str) -> list[str]:
    """Return which numbers have no interval although others of their kind have one.

    Parameters
    ----------
    result
        Numbers over ``layer``, some with a variable ``*_interval``.
    sampled
        What is left out in turn: ``object`` or ``category``.
    """
    found = []
    for name in map(str, result.data_vars):
        key = f"{name}_interval"
        bounds = result[key] if key in result.data_vars else None
        if result[name].dims != ("layer",) or name == "consistency_away":  # the corrected has one
            continue
        if name.endswith("_step"):
            continue
        if bounds is None and not name.endswith(("_away", "_corrected")):
            continue
        known = result[name].notnull()
        missing = known if bounds is None else known & bounds.isnull().any("bound")
        if bool(missing.any()):
            found.append(name)
    if not found:
        return []
    units = {"object": "objects", "category": "categories"}[sampled]
    return [
        f"no interval, or none in some layers: {', '.join(found)}; {units} are left out in turn, "
        "and there are too few of them, or so many that it would cost more than the measure"
    ]
