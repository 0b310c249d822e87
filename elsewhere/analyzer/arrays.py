"""Arrays of other tools, plain or labelled, as a source: :func:`array_source`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray
from numpy.typing import ArrayLike

from elsewhere.errors import InputError
from elsewhere.storage import ArraySource
from elsewhere.storage.arrays import by_labels, check_known, plain_values, whole

ONE_LAYER = "activations"
"""The name of a layer that came as an array without one."""


def array_source(
    activations: Mapping[str, ArrayLike] | ArrayLike,
    locations: ArrayLike | None,
    *,
    objects: Sequence[str] | None = None,
    categories: Sequence[str] | None = None,
    reference: tuple[int, int] | None = None,
    empty: Mapping[str, ArrayLike] | ArrayLike | None = None,
) -> ArraySource:
    """Return arrays that were recorded elsewhere as a source, given as to :func:`measure`.

    Examples
    --------
    >>> array_source(np.ones((2, 3, 4)), [[5, 5], [5, 9], [5, 7]]).design.shape
    (1, 3)
    """
    if isinstance(activations, str | Path):
        raise InputError(
            f"{str(activations)!r} is a name, not activations; open the recording first, with "
            "elsewhere.open"
        )
    objects = None if objects is None else [str(value) for value in objects]
    categories = None if categories is None else _by_object(categories, objects)
    named = activations if isinstance(activations, Mapping) else {ONE_LAYER: activations}
    if isinstance(activations, xarray.Dataset):
        named = {str(name): array for name, array in activations.data_vars.items()}
    if not named:
        raise InputError("no activations were given; expected one array per layer")
    if isinstance(empty, xarray.Dataset):
        empty = {str(name): array for name, array in empty.data_vars.items()}
    elif empty is not None and not isinstance(empty, Mapping):
        empty = dict.fromkeys(named, empty)
    if locations is None and all(isinstance(a, xarray.DataArray) for a in named.values()):
        return _labelled(
            cast(Any, named),
            objects=objects,
            categories=categories,
            reference=reference,
            empty=empty,
        )
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    ys: list[int] = []
    xs: list[int] = []
    for name, array in named.items():
        if isinstance(array, xarray.DataArray) and {"object", "location"} <= set(array.dims):
            array = array.transpose("object", "location", ...)
        values = plain_values(name, array)
        if locations is None:
            raise InputError(
                "plain arrays need locations: int (location, 2), y and x in px of each location"
            )
        ys, xs, order = _grid(locations)
        if values.ndim < 3 or values.shape[1] != len(order):
            raise InputError(
                f"layer {name!r} has shape {values.shape}; expected (object, {len(order)}, unit), "
                "as many locations as there are in `locations`"
            )
        arrays[name] = values[:, order].reshape(len(values), len(ys), len(xs), *values.shape[2:])
    return ArraySource(
        arrays,
        y=ys,
        x=xs,
        objects=objects,
        categories=categories,
        reference=reference,
        empty=empty,
    )


def _labelled(
    arrays: Mapping[str, xarray.DataArray],
    *,
    objects: Sequence[str] | None,
    categories: Sequence[str] | None,
    **others: Any,
) -> ArraySource:
    """Return labelled arrays as a source: labels decide, and have to be the same in all layers."""
    places: dict[str, list[int]] = {}
    kinds: dict[str, str] = {}
    for name, array in arrays.items():
        by_labels(name, array, {})
        for dim in ("y", "x"):
            if dim not in array.coords:
                raise InputError(
                    f"layer {name!r} has no coordinates along {dim}; assign the locations in px, "
                    "or give locations"
                )
            places.setdefault(dim, whole(array[dim].values))
        labelled = "object" in array.coords
        if labelled:
            check_known(f"object of layer {name!r}", array["object"])
        if labelled and objects is None:
            objects = [str(value) for value in array["object"].values]
        if not labelled and any("object" in other.coords for other in arrays.values()):
            raise InputError(
                f"layer {name!r} does not say which objects it holds, as others do; assign the "
                "coordinate 'object'"
            )
        if categories is None and "category" in array.coords:
            if array["category"].dims != ("object",):
                raise InputError(f"'category' of layer {name!r} has to go along 'object'")
            check_known(f"category of layer {name!r}", array["category"])
            ids = objects if not labelled else [str(value) for value in array["object"].values]
            found = [str(value) for value in array["category"].values]
            for key, kind in zip(ids or map(str, range(len(found))), found, strict=True):
                if kinds.setdefault(key, kind) != kind:
                    raise InputError(
                        f"object {key!r} is of category {kind!r} in layer {name!r} and of "
                        f"{kinds[key]!r} in another"
                    )
    if categories is None and kinds:
        n = next(iter(arrays.values())).sizes["object"]
        ids = list(map(str, range(n))) if objects is None else list(objects)
        categories = [kinds.get(key, key) for key in ids]
    return ArraySource(
        arrays,
        y=places["y"],
        x=places["x"],
        objects=objects,
        categories=categories,
        **others,
    )


def _by_object(categories: Any, objects: Sequence[str] | None) -> list[str]:
    """Return categories as a list; those of a labelled table in the order of the objects."""
    if isinstance(categories, xarray.DataArray):
        categories = categories.to_series()
    values, index = [str(value) for value in categories], getattr(categories, "index", None)
    if callable(index) or index is None or list(index) == list(range(len(values))):
        return values
    keys = [str(key) for key in index]
    if objects is None or sorted(keys) != sorted(objects):
        raise InputError(
            f"categories are labelled {', '.join(keys[:4])}; give `objects` with the same labels, "
            "or categories as a list"
        )
    return [values[keys.index(key)] for key in objects]


def _grid(locations: ArrayLike) -> tuple[list[int], list[int], np.ndarray[Any, Any]]:
    """Return the y and x of a full grid, and the order that sorts its locations."""
    if {"y", "x"} <= set(map(str, getattr(locations, "columns", ()))):  # a table: by its names
        locations = locations[["y", "x"]]  # type: ignore[call-overload, index]
    if np.ma.is_masked(locations):
        raise InputError("locations are masked; leave those places out of the arrays, too")
    places = np.asarray(locations)
    if places.ndim != 2 or places.shape[1] != 2 or not len(places):
        raise InputError(
            f"locations have shape {places.shape}; expected (location, 2), y and x in px"
        )
    ys, xs = whole(np.unique(places[:, 0])), whole(np.unique(places[:, 1]))
    order = np.lexsort((places[:, 1], places[:, 0]))
    full = np.array([[y, x] for y in ys for x in xs])
    if len(places) != len(full) or not np.array_equal(places[order], full):
        raise InputError(
            f"{len(places)} locations with {len(ys)} different y and {len(xs)} different x make no "
            f"full grid of {len(full)}; leave locations out or add those that are missing"
        )
    return ys, xs, order
