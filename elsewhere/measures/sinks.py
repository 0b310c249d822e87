"""Sinks of measures: what they have in common, and what they found as one dataset."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.errors import LayerError
from elsewhere.measures.bands import banded
from elsewhere.measures.displacement import Displacements, displacement_map
from elsewhere.measures.intervals import Sampled
from elsewhere.measures.tables import LEFT_OUT, SHARE_LEFT_OUT, Variables
from elsewhere.protocols import Design, Layer, Need, Sink


class LayerSink(Sink):
    """A sink that finds variables for every layer, or for those that are named.

    `variables` are by layer, once it is through: see :func:`to_dataset`. `made_by` is the measure
    of a variable, where the sink takes several. `notes` have to be known to read a layer's numbers,
    and `rounded` are layers whose zero vectors are rounding.
    """

    def __init__(self, layers: Sequence[str] | None = None) -> None:
        self._wanted = None if layers is None else set(layers)
        self.variables: dict[str, Variables] = {}
        self.made_by: dict[str, str] = {}
        self.notes: list[str] = []
        self.rounded: list[str] = []

    def needs(self, layer: Layer) -> tuple[Need, ...]:
        """Return what is needed of a layer, if it is one of those to take."""
        wanted = self._wanted is None or layer.name in self._wanted
        return self.needed(layer) if wanted else ()

    def needed(self, layer: Layer) -> tuple[Need, ...]:
        """Return what is needed of a layer."""
        raise NotImplementedError

    def begin(self, design: Design, layers: Sequence[Layer], part: int = 0, parts: int = 1) -> None:
        """Prepare for a group of layers, of which part i of n is taken."""
        self.design, self._part, self._parts = design, part, parts

    def found(self) -> dict[str, Variables]:
        """Return the variables of all layers that are through."""
        return self.variables

    def doubts(self, result: xarray.Dataset, design: Design) -> list[str]:
        """Return what has to be known of the numbers of all layers together."""
        return []

    def result(
        self, order: Sequence[str] | None = None, *, beside: Collection[str] = ()
    ) -> xarray.Dataset:
        """Return what was found, layers in the order given, or that of their arrival.

        Those named in `beside` are beside the main branch: see :func:`to_dataset`.
        """
        found = self.found()
        names = [name for name in (found if order is None else order) if name in found]
        if not names:
            raise LayerError("no layer was measured; name layers that the source holds")
        result = to_dataset({name: found[name] for name in names}, self.design, beside=beside)
        result.attrs["rounded"] = self.rounded
        return result.assign_attrs(notes=[*self.notes, *self.doubts(result, self.design)])


def left_out_labels(design: Design) -> list[str]:
    """Return the names of the objects, or categories, that are left out in turn."""
    sampled = Sampled.of(design.category_codes)
    each = design.objects if sampled.unit == "object" else design.categories
    return [each[members[0]] for members in sampled.members]


def to_dataset(
    found: Mapping[str, Variables],
    design: Design,
    *,
    designs: Mapping[str, Design] | None = None,
    made_by: dict[str, str] | None = None,
    differences: Mapping[str, tuple[str, str]] | None = None,
    keep: bool = True,
    beside: Collection[str] = (),
) -> xarray.Dataset:
    """Return the variables of all layers as one dataset, NaN where a layer has none.

    `found` has, by layer in order, names with dimensions and values, in which ``position`` and
    ``reference`` stand for all axes. A number ``*_away`` that comes with ``*_away_without
    (left_out,)``, it without each object or category in turn, gets its bands over layers
    (:func:`elsewhere.measures.bands.banded`). `designs` has those of layers that were measured of
    fewer objects, `made_by` the measure of each variable (those of bands are added), and
    `differences` the names of shares less others. Variables ``*_without`` are kept beside their
    bands where `keep` says so. Layers `beside` the main branch have no steps.
    """
    names, designs = list(found), {} if designs is None else designs
    axes, shape = design.names, design.shape
    spelled = {"position": axes, "reference": tuple(f"reference_{name}" for name in axes)}
    every = [each for name, each in designs.items() if name in found] or [design]
    units = dict.fromkeys(label for each in every for label in left_out_labels(each))
    labels: dict[str, list[str]] = {"object": list(design.objects), LEFT_OUT: list(units)}
    variables: dict[str, Any] = {}
    for key in dict.fromkeys(key for name in names for key in found[name]):
        dims, like = next(found[name][key] for name in names if key in found[name])
        known = {name: found[name][key][1] for name in names if key in found[name]}
        sizes = [
            len(labels[dim]) if dim in labels else n
            for dim, n in zip(dims, like.shape, strict=True)
        ]
        if SHARE_LEFT_OUT in dims:  # of layers that respond to fewer objects there are fewer
            sizes = [max(map(len, known.values()))]
        values = []
        for name in names:
            one = designs.get(name, design)
            own = {"object": list(one.objects), LEFT_OUT: left_out_labels(one)}
            values.append(_fitted(known.get(name), dims, sizes, own, labels))
        full, lengths = ["layer"], [len(names)]
        for dim, size in zip(dims, sizes, strict=True):
            full += spelled.get(dim, (dim,))
            lengths += shape if dim in spelled else (size,)
        variables[key] = (tuple(full), np.stack(values).reshape(lengths))
    made_by = {} if made_by is None else made_by
    aside = [place for place, name in enumerate(names) if name in beside]
    left_out = {key: value for key, value in variables.items() if key.endswith("_without")}
    for key, (dims, values) in left_out.items():
        name, rest = key.removesuffix("_without"), values.T
        if (gone := np.isnan(rest).all(axis=1)).any():  # no layer responds to it
            rest = rest[~gone]
        value, share = variables[name][1], dims[1] == SHARE_LEFT_OUT
        bands = banded(name, value, rest, share=share, beside=aside)
        variables |= bands
        made_by |= dict.fromkeys(bands, made_by.get(name, ""))
        if not keep or share:
            del variables[key]
    for name, pair in (differences or {}).items():
        more, less = ((variables[key][1], left_out[f"{key}_without"][1].T) for key in pair)
        bands = banded(name, *more, less=less, beside=aside)
        variables |= bands
        made_by |= dict.fromkeys(bands, made_by.get(name, ""))
    coordinates: dict[str, Any] = {
        "layer": names,
        "bound": ["low", "high"],
        **labels,
        **design.axes.coordinates(),
        **design.axes.coordinates("reference_"),
        "axis": list(design.axes.moving.names),
    }
    places = design.locations
    apart = Displacements.between(places).values
    coordinates["displacement"] = ("displacement", apart, {"units": "px"})
    if places.shape[1] == 2:
        dy, dx, _ = displacement_map(np.zeros((len(places), len(places))), places)
        coordinates["displacement_y"] = ("displacement_y", dy, {"units": "px"})
        coordinates["displacement_x"] = ("displacement_x", dx, {"units": "px"})
    used = {dim for dims, _ in variables.values() for dim in dims}
    coordinates = {key: value for key, value in coordinates.items() if key in used}
    if "object" in used:
        coordinates["category"] = ("object", list(design.categories))
    return xarray.Dataset(variables, coords=coordinates)


def _fitted(
    values: NDArray[Any] | None,
    dims: Sequence[str],
    sizes: Sequence[int],
    own: Mapping[str, list[str]],
    labels: Mapping[str, list[str]],
) -> NDArray[Any]:
    """Return values of some objects, or units, in the places of these among all; NaN elsewhere."""
    if values is None:
        return np.full(sizes, np.nan)
    for axis, dim in enumerate(dims):
        wanted = labels.get(dim, list(map(str, range(sizes[axis]))))
        there = own.get(dim, wanted[: values.shape[axis]])
        if there == wanted and len(there) == values.shape[axis]:
            continue
        full = np.full((*values.shape[:axis], len(wanted), *values.shape[axis + 1 :]), np.nan)
        if len(there) == values.shape[axis]:  # else nothing could be left out
            chosen = [wanted.index(label) for label in there]
            full[(slice(None),) * axis + (chosen,)] = values
        values = full
    return values
