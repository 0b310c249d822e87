"""What the explorer shows: numbers over places, whatever other dimensions they have.

A field is a variable of a result over y and x. Each other dimension (layer, object, checkpoint,
exemplars, an axis that changes objects, the reference where all were measured) is an axis that the
reader chooses a value of; nothing here knows one measure from another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.forms import layer_labels
from elsewhere.report.material import Item
from elsewhere.types import stem_of

PLACE = ("y", "x")
_NOT_SHOWN = frozenset({"bound", "left_out", "rank"})
_PICTURES = ("pixel", "rgb", "height", "width", "box_")
"""How the dimensions of pictures begin, which are no places."""
_NO_MAP = ("choice", "is_trained")
"""Numbers of classes are no amounts."""


@dataclass(frozen=True)
class PlaceField:
    """A variable over places, with its intervals and its mean away from the reference.

    Parameters
    ----------
    name
        The variable's.
    values
        Its array; places are the last two dimensions.
    bounds
        Low and high ends of its intervals, of its shape, where there are any.
    away
        What it is away from the reference, without places, where that is known; its ends beside it.
    baseline
        The field that it has to be compared with, by name; empty where there is none.
    """

    name: str
    values: xarray.DataArray
    bounds: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    away: tuple[str, NDArray[np.float64], NDArray[np.float64] | None] | None
    baseline: str

    @property
    def dims(self) -> list[str]:
        """Names of the dimensions, in order."""
        return [str(dim) for dim in self.values.dims]

    def facts(self) -> dict[str, Any]:
        """Return what the variable says of itself."""
        attrs = self.values.attrs
        named = {
            key: str(attrs.get(key, "")) for key in ("long_name", "range", "chance", "formula")
        }
        return {"name": self.name, "dims": self.dims, "baseline": self.baseline, **named}


def fields_of(item: Item) -> Iterator[PlaceField]:
    """Yield the fields of a result; of a result without places, none."""
    result = item.result
    names = [str(name) for name in result.data_vars]
    wanted = [name for name in names if _is_field(result[name], name)]
    stem = stem_of(item.attributes)
    for name in wanted:
        values = _last(result[name], *PLACE)
        away = f"{name}_away"
        baseline = f"{stem}_baseline" if name in (stem, f"{stem}_each") else ""
        yield PlaceField(
            name,
            values,
            _bounds(result, name, values),
            _away(result, away, values) if away in names else None,
            baseline if baseline in wanted else "",
        )


def _is_field(variable: xarray.DataArray, name: str) -> bool:
    return (
        set(PLACE) <= set(variable.dims)
        and variable.dtype.kind in "fiub"
        and not _NOT_SHOWN & set(map(str, variable.dims))
        and not any(str(dim).startswith(_PICTURES) for dim in variable.dims)
        and not name.endswith(_NO_MAP)
        and variable.size > 0
    )


def _last(variable: xarray.DataArray, *dims: str) -> xarray.DataArray:
    return variable.transpose(..., *dims)


def _bounds(
    result: xarray.Dataset, name: str, values: xarray.DataArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    held = f"{name}_interval"
    if held not in result or set(result[held].dims) != {*values.dims, "bound"}:
        return None
    ends = result[held].transpose(*values.dims, "bound")
    low, high = (ends.sel(bound=end).values.astype(np.float64) for end in ("low", "high"))
    return low, high


def _away(
    result: xarray.Dataset, name: str, values: xarray.DataArray
) -> tuple[str, NDArray[np.float64], NDArray[np.float64] | None] | None:
    dims = [dim for dim in values.dims if dim not in PLACE]
    if set(result[name].dims) != set(dims):
        return None
    held, ends = f"{name}_interval", None
    if held in result and set(result[held].dims) == {*dims, "bound"}:
        ends = result[held].transpose("bound", *dims).values.astype(np.float64)
    return name, result[name].transpose(*dims).values.astype(np.float64), ends


def axis_labels(result: xarray.Dataset, dim: str) -> list[Any]:
    """Return what the entries of a dimension are called; places are numbers, px."""
    size = result.sizes[dim]
    if dim == "layer":
        return layer_labels(result)
    if dim == "checkpoint":
        return _checkpoints(result)
    if dim not in result.coords:
        return [str(number) for number in range(size)]
    values = result[dim].values
    if dim in PLACE or dim.startswith("reference_"):
        return [int(value) for value in values]
    if dim == "object" and "category" in result.coords and result["category"].dims == ("object",):
        categories = [str(value) for value in result["category"].values]
        return [
            name if name.startswith(category) else f"{name} ({category})"
            for name, category in zip(map(str, values), categories, strict=True)
        ]
    return [str(value) for value in values]


def _checkpoints(result: xarray.Dataset) -> list[str]:
    steps = [int(step) for step in result["step"].values]
    if "phase" not in result.coords:
        return [f"step {step}" for step in steps]
    phases = [str(phase) for phase in result["phase"].values]
    return [f"{phase}, step {step}" for phase, step in zip(phases, steps, strict=True)]


def scene_facts(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return canvas, object's size, background and reference, px; what is not known is None."""

    def number(name: str) -> int | None:
        value = attributes.get(name)
        return int(value) if isinstance(value, int | float) else None

    background = attributes.get("background")
    color = background if isinstance(background, list) and len(background) == 3 else [0, 0, 0]
    place = [number("reference_y"), number("reference_x")]
    return {
        "canvas": number("canvas"),
        "size": number("object_size"),
        "background": [int(np.clip(float(level), 0, 255)) for level in color],
        "reference": None if None in place else place,
        "trained": attributes.get("trained") if isinstance(attributes.get("trained"), list) else [],
    }
