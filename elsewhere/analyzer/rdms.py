"""Representational dissimilarities of every layer and location, for rsatoolbox."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray

from elsewhere.analyzer.layerwise import choose_layers
from elsewhere.analyzer.measure_sink import MeasureSink
from elsewhere.errors import InputError, LayerError, UnknownNameError
from elsewhere.forms import mean_note, with_forms
from elsewhere.measures.grams import GramTally
from elsewhere.measures.rsa import DISSIMILARITIES, PREPARED, Dissimilarity, dissimilarities
from elsewhere.measures.tables import Reading, Table, Variables
from elsewhere.measures.variables import described
from elsewhere.notes import notes_of
from elsewhere.protocols import Layer, Progress, Source
from elsewhere.sources import numerics_of, restarting
from elsewhere.types import parse_bytes


class _GramSink(MeasureSink):
    """Takes the products of all objects at each location."""

    def __init__(self, dissimilarity: Dissimilarity, layers: Sequence[str] | None) -> None:
        # RSA and CKA say which memory is needed and which layers are refused.
        super().__init__(["rsa" if dissimilarity == "correlation" else "cka"], layers=layers)
        self._dissimilarity = dissimilarity

    def _metrics(self, table: Table) -> list[str]:
        return ["cosine"] if self._dissimilarity == "cosine" else super()._metrics(table)

    def _readings(self, layer: Layer, table: Table) -> dict[str, Reading]:
        tally = GramTally(table.n_objects, table.n_positions, PREPARED.get(self._dissimilarity))

        def read() -> Variables:
            values = dissimilarities(tally.cleaned(), self._dissimilarity, floors=tally.floors())
            return {"dissimilarity": (("position", "pair"), values)}

        return {self.names[0]: Reading(tally, read)}


@restarting
def dissimilarity_matrices(
    source: Source,
    *,
    dissimilarity: Dissimilarity = "correlation",
    layers: Sequence[str] | None = None,
    max_memory: int | str = "2GiB",
    progress: Progress | None = None,
) -> xarray.Dataset:
    """Return the dissimilarities of all pairs of objects, per layer and location.

    Parameters
    ----------
    source
        A recording, a live sweep, or arrays.
    dissimilarity
        ``correlation`` (1 - Pearson over units), ``cosine`` or ``euclidean``.
    layers
        Names of layers; all by default.
    max_memory, progress
        As for :func:`elsewhere.measure`.

    Returns
    -------
    xarray.Dataset
        ``dissimilarity (layer, y, x, pair)``, with the coordinates ``object_a`` and ``object_b``.

    Raises
    ------
    UnknownNameError
        No such dissimilarity or layer.
    InputError
        Fewer than two objects.
    """
    if dissimilarity not in DISSIMILARITIES:
        raise UnknownNameError("dissimilarity", dissimilarity, DISSIMILARITIES)
    chosen, design = choose_layers(source, layers), source.design
    if len(design.objects) < 2:
        raise InputError("dissimilarities need two objects or more; got 1")
    sink = _GramSink(dissimilarity, layers)
    source.stream([sink], max_memory=parse_bytes(max_memory), progress=progress)
    names = [name for name in chosen if name in sink.variables]
    if not names:
        raise LayerError("no layer was measured; name layers that the source holds")
    first, second = np.triu_indices(len(design.objects), k=1)
    objects = np.array(design.objects)
    values = np.stack([sink.variables[name]["dissimilarity"][1] for name in names])
    result = xarray.Dataset(
        {
            "dissimilarity": (
                ("layer", *design.names, "pair"),
                values.reshape(len(names), *design.shape, len(first)),
            )
        },
        coords={
            "layer": names,
            **design.axes.coordinates(),
            "object_a": ("pair", objects[first]),
            "object_b": ("pair", objects[second]),
        },
        attrs={
            "kind": "dissimilarities",
            "dissimilarity": dissimilarity,
            "n_objects": len(objects),
            "objects": list(design.objects),
            "categories": list(design.categories),
            **numerics_of(source),
            **source.provenance,
        },
    )
    result = with_forms(result, source.layers)
    return described(result.assign_attrs(notes=notes_of(source, mean_note(result), sink)))


def to_rsatoolbox(result: xarray.Dataset) -> Any:
    """Return dissimilarities as an ``rsatoolbox.rdm.RDMs``, one RDM per layer and location.

    Parameters
    ----------
    result
        Of :func:`dissimilarity_matrices`.

    Returns
    -------
    rsatoolbox.rdm.RDMs
        RDM descriptors ``layer`` and one for each axis, pattern descriptors ``object`` and
        ``category``.

    Raises
    ------
    InputError
        Not such a result, or rsatoolbox is not installed.
    """
    if result.attrs.get("kind") != "dissimilarities":
        raise InputError(
            f"a {result.attrs.get('kind', 'dataset without kind')} holds no dissimilarities; "
            "expected the result of dissimilarity_matrices"
        )
    try:
        rdm = importlib.import_module("rsatoolbox.rdm")
    except ImportError as error:
        raise InputError(
            "RDMs for rsatoolbox need rsatoolbox; pip install 'elsewhere[rsatoolbox]'"
        ) from error
    array = result["dissimilarity"]
    outer = [str(dim) for dim in array.dims[:-1]]
    grids = np.indices(array.shape[:-1]).reshape(len(outer), -1)
    return rdm.RDMs(
        array.values.reshape(-1, array.shape[-1]),
        dissimilarity_measure=str(result.attrs["dissimilarity"]),
        rdm_descriptors={
            dim: result[dim].values[index].tolist() for dim, index in zip(outer, grids, strict=True)
        },
        pattern_descriptors={
            "object": list(result.attrs["objects"]),
            "category": list(result.attrs["categories"]),
        },
    )
