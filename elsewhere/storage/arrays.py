"""Activations that were recorded by other tools, as a source."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray
from numpy.typing import ArrayLike, NDArray

from elsewhere.axes import Axes
from elsewhere.errors import InputError
from elsewhere.measures.blocks import DenseBlock
from elsewhere.measures.vectors import as_recorded
from elsewhere.protocols import (
    BY_NUMBER,
    LAYOUTS,
    Design,
    Layer,
    Layout,
    Stage,
)
from elsewhere.sources import BlockSource

PLACES = ("object", "y", "x")


class ArraySource(BlockSource):
    """Arrays in memory as a source for sinks.

    Parameters
    ----------
    activations
        Per layer, shape (object, y, x, unit) or (object, y, x, channel, height, width). Of an
        ``xarray.DataArray`` the labels decide: its dimensions come in any order, and objects and
        locations are found by their coordinates.
    y, x
        Coordinates of the locations, px, in the order of plain arrays; all different.
    objects
        One id per object, in the order of plain arrays; all different.
    categories
        One per object; by default every object is a category of its own.
    reference
        The location (y, x) to compare with; by default the leftmost of the middle row.
    empty
        Per layer, the empty canvas's activation, which the metric ``evoked`` needs.

    Raises
    ------
    InputError
        Shapes or labels do not fit together, places or objects come twice, or values are masked,
        complex, or no numbers.

    Examples
    --------
    >>> source = ArraySource({"fc": np.ones((2, 1, 3, 4))}, y=[5], x=[5, 7, 9])
    >>> source.design.reference
    (5, 5)
    """

    def __init__(
        self,
        activations: Mapping[str, ArrayLike],
        *,
        y: Sequence[int],
        x: Sequence[int],
        categories: Sequence[str] | None = None,
        objects: Sequence[str] | None = None,
        reference: tuple[int, int] | None = None,
        empty: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        if not activations:
            raise InputError("no activations were given; expected one array per layer")
        if not len(y) or not len(x):
            raise InputError("no locations were given; expected at least one y and one x")
        y, x = whole(y), whole(x)
        for what, labels in (("y", y), ("x", x), ("object", objects or ())):
            _check_once(what, list(labels))
        wanted = {"y": list(y), "x": list(x)} | ({} if objects is None else {"object": objects})
        self._arrays = {
            name: plain_values(name, by_labels(name, array, wanted))
            for name, array in activations.items()
        }
        sizes = {array.shape[:3] for array in self._arrays.values()}
        n = next(iter(sizes))[0] if next(iter(sizes)) else 0
        if sizes != {(n, len(y), len(x))}:
            raise InputError(
                f"activations start with {sorted(sizes)}; expected (object, {len(y)}, {len(x)}) "
                "for every layer, as many as there are y and x"
            )
        ids = tuple(objects) if objects is not None else tuple(f"object{i}" for i in range(n))
        names = tuple(categories) if categories is not None else ids
        if len(ids) != n or len(names) != n:
            raise InputError(f"{len(ids)} objects and {len(names)} categories for {n} activations")
        rows, columns = np.argsort(y), np.argsort(x)
        self._arrays = {name: array[:, rows][:, :, columns] for name, array in self._arrays.items()}
        y, x = sorted(y), sorted(x)
        place = (y[len(y) // 2], x[0]) if reference is None else reference
        self.design = Design(ids, names, Axes.of(y=y, x=x), (int(place[0]), int(place[1])))
        if self.design.reference_index is None:
            raise InputError(f"reference {place} is not among the locations; choose one that is")
        self._empty = {
            name: plain_values(name, _like_layer(name, array, activations.get(name)))
            for name, array in (empty or {}).items()
        }
        self.layers = [
            Layer(
                name,
                "",
                "",
                a.shape[3:],
                layout=_layout(activations[name]),
                itemsize=max(4, a.dtype.itemsize),
                units=_units(activations[name]),
            )
            for name, a in self._arrays.items()
        ]
        for layer in self.layers:
            shape = self._empty[layer.name].shape if layer.name in self._empty else layer.shape
            if shape != layer.shape:
                raise InputError(
                    f"the empty canvas's activation of layer {layer.name!r} has shape {shape}; "
                    f"expected {layer.shape}, as the activations have"
                )
        self._provenance: dict[str, Any] = {"model": "arrays", "notes": []}

    @property
    def provenance(self) -> dict[str, Any]:
        """Attributes that results carry on; others may be added."""
        return self._provenance

    def has(self, layer: Layer, stage: Stage) -> bool:
        """Return whether there is the empty canvas's activation of a layer."""
        return stage != "empty" or layer.name in self._empty

    def at(self, reference: tuple[int, ...]) -> ArraySource:
        """Return the same arrays with another reference, which must be among the locations.

        Raises
        ------
        InputError
            The location is not among them.
        """
        other = copy.copy(self)  # which holds arrays, and nothing that follows from the reference
        other.design = self.design.at(reference)
        if other.design.reference_index is None:
            raise InputError(
                f"reference {reference} is not among the locations; choose one that is"
            )
        return other

    def blocks(self, layer: Layer, stage: Stage) -> list[DenseBlock]:
        """Return the blocks of a layer in a stage."""
        array = self._arrays[layer.name]
        n, n_positions = len(self.design.objects), self.design.n_positions
        values = array.reshape(n, n_positions, *layer.shape)
        more: dict[str, Any] = {"layout": layer.layout, "half": values.dtype == np.float16}
        if stage == "empty":
            if layer.name not in self._empty:
                raise InputError(
                    f"metric 'evoked' needs the empty canvas's activation of layer {layer.name!r}"
                )
            nothing = np.array([-1])
            empty = self._empty[layer.name][None]
            return [DenseBlock(stage, layer.name, nothing, nothing, empty, **more)]
        objects = np.arange(n)
        if stage == "reference":
            at = values[:, self.design.reference_index or 0]
            nowhere = np.full(n, -1)
            return [DenseBlock(stage, layer.name, objects, nowhere, at, **more)]
        return [  # position by position, as other sources: what compares objects then holds least
            DenseBlock(stage, layer.name, objects, np.full(n, place), values[:, place], **more)
            for place in range(n_positions)
        ]


def whole(values: ArrayLike) -> list[int]:
    """Return coordinates as whole px; InputError where they are masked, or not whole numbers."""
    found = np.asarray(values)
    numbers = found.dtype.kind in "fiu" and not np.ma.is_masked(values)
    if not numbers or not np.array_equal(found, np.round(found)):
        raise InputError(f"locations must be whole px; got {np.ma.asarray(values).tolist()}")
    return [int(value) for value in found]


def plain_values(name: str, array: Any) -> NDArray[Any]:
    """Return the values of a layer; InputError where they are masked, complex, or no numbers."""
    if np.ma.is_masked(array):
        raise InputError(
            f"layer {name!r} has masked values; fill them, or leave those objects, locations or "
            "units out"
        )
    if hasattr(array, "resolve_neg"):  # a tensor of torch, which NumPy takes only if it is plain
        array = array.detach().cpu().resolve_conj().resolve_neg()
        array = array.float() if str(array.dtype) == "torch.bfloat16" else array
    values = np.asarray(array)
    if values.dtype.kind not in "fiub":
        what = "complex values" if values.dtype.kind == "c" else f"values of type {values.dtype}"
        raise InputError(
            f"layer {name!r} has {what}; expected real numbers, such as the real and imaginary "
            "parts or the modulus as units"
        )
    return as_recorded(values)


def by_labels(name: str, array: ArrayLike, wanted: Mapping[str, Sequence[Any]]) -> ArrayLike:
    """Return a labelled array as (object, y, x, ...) with the `wanted` labels in their order.

    Other arrays, and dimensions without labels, are taken as they come. A dimension that is
    missing, and labels that are others than the wanted ones, are an ``InputError``.
    """
    if not isinstance(array, xarray.DataArray):
        return array
    missing = [dim for dim in PLACES if dim not in array.dims]
    if missing:
        raise InputError(
            f"layer {name!r} has the dimensions {array.dims}; expected object, y, x and those of "
            "the layer, or give locations"
        )
    for dim, labels in wanted.items():
        if dim not in array.coords:
            continue
        check_known(f"{dim} of layer {name!r}", array[dim])
        found = array[dim].values.tolist()
        _check_once(f"{dim} of layer {name!r}", found)
        keys = [str(label) for label in found] if dim == "object" else found
        own = [str(label) for label in labels] if dim == "object" else list(labels)
        odd = {"lacks": set(own) - set(keys), "alone has": set(keys) - set(own)}
        if any(odd.values()):
            each = (f"{w} the {dim} {_few(sorted(labels))}" for w, labels in odd.items() if labels)
            raise InputError(
                f"layer {name!r} {' and '.join(each)}; select what all layers have in common"
            )
        array = array.isel({dim: [keys.index(label) for label in own]})
    order = [dim for dim in array.dims if dim not in PLACES]
    return array.transpose(*PLACES, *order)


def _like_layer(name: str, empty: ArrayLike, layer: ArrayLike | None) -> ArrayLike:
    """Return the empty canvas's activation with the dimensions and labels of its layer."""
    if not isinstance(empty, xarray.DataArray) or not isinstance(layer, xarray.DataArray):
        return empty
    dims = [dim for dim in layer.dims if dim not in PLACES]
    if set(dims) != set(empty.dims):
        raise InputError(
            f"the empty canvas's activation of layer {name!r} has the dimensions {empty.dims}; "
            f"expected {tuple(dims)}, as the activations have"
        )
    for dim in dims:
        if dim in empty.coords and dim in layer.coords:
            labels = layer[dim].values.tolist()
            if sorted(map(str, labels)) != sorted(map(str, empty[dim].values.tolist())):
                raise InputError(
                    f"the empty canvas's activation of layer {name!r} has other labels along "
                    f"{dim} than the activations"
                )
            empty = empty.sel({dim: labels})
    return empty.transpose(*dims)


def _layout(array: ArrayLike) -> Layout:
    """Return the layout that the names of a labelled array's dimensions tell."""
    if not isinstance(array, xarray.DataArray):
        return BY_NUMBER
    names = tuple(str(dim) for dim in array.dims if dim not in PLACES)
    return names if any(set(names) == set(known) for known in LAYOUTS.values()) else BY_NUMBER


def _units(array: ArrayLike) -> tuple[str, ...]:
    """Return the names that a labelled array has for its units, where it has names for them."""
    if not isinstance(array, xarray.DataArray):
        return ()
    dims = [dim for dim in array.dims if dim not in PLACES]
    labels = array[dims[0]].values.tolist() if len(dims) == 1 and dims[0] in array.coords else []
    return tuple(labels) if all(isinstance(label, str) for label in labels) else ()


def check_known(what: str, labels: xarray.DataArray) -> None:
    """Refuse labels of which some are missing, None or NaN."""
    if bool(labels.isnull().any()):
        raise InputError(f"the {what} is missing (None or NaN) for some; assign all, or leave out")


def _check_once(what: str, labels: Sequence[Any]) -> None:
    repeated = [label for label in dict.fromkeys(labels) if labels.count(label) > 1]
    if repeated:
        raise InputError(
            f"{what} {repeated[0]!r} comes {list(labels).count(repeated[0])} times; expected each "
            "once"
        )


def _few(labels: Sequence[Any]) -> str:
    shown = ", ".join(map(str, labels[:4]))
    return shown + (", ..." if len(labels) > 4 else "")
