"""Does the map move with the object? Aligned cosines of one recording or sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xarray

from elsewhere.analyzer.layerwise import choose_layers, measure_layers
from elsewhere.errors import LayerError
from elsewhere.measures.aligned import AlignedSink, Shift, size_of
from elsewhere.measures.maps import has_place, without_place
from elsewhere.measures.similarity import n_cross_pairs
from elsewhere.measures.variables import described
from elsewhere.notes import notes_of
from elsewhere.protocols import Progress, Source
from elsewhere.sources import numerics_of
from elsewhere.types import parse_bytes


def aligned_similarity(
    source: Source,
    *,
    object_size: int | None = None,
    layers: Sequence[str] | None = None,
    shift: Shift = "exact",
    max_memory: int | str = "2GiB",
    progress: Progress | None = None,
) -> xarray.Dataset:
    r"""Return how alike feature maps are after they are moved with the object.

    On evoked maps :math:`e = a - a(empty)`, with the shift :math:`s = (p - r) / J` in cells, J
    the layer's cumulative stride: the cosine over channels and over the cells whose receptive
    fields' centres lie in the object's box at the reference, widened by one cell, that are on the
    map both there and after the shift.

    Parameters
    ----------
    source
        A recording that keeps the maps in full, or a live sweep.
    object_size
        px; by default what the source says.
    layers
        Names of feature maps; all with a place on the canvas by default.
    shift
        ``exact`` leaves displacements that are no whole number of cells out, ``nearest`` rounds
        them, ``linear`` interpolates.
    max_memory, progress
        As for :func:`elsewhere.analyzer.similarity`.

    Returns
    -------
    xarray.Dataset
        ``aligned_each (layer, object, y, x)``, per place ``aligned``, ``aligned_baseline`` (the
        same with another object, aligned likewise), ``aligned_G``; their means away from the
        reference with intervals; ``cells`` compared (NaN below 4) and ``residual`` in cells.

    Raises
    ------
    LayerError
        No layer is a feature map, or one is not kept in full.

    References
    ----------
    The question is Lenc & Vedaldi's (2015), Understanding image representations by measuring
    their equivariance and equivalence.
    """
    size = size_of(source, object_size)
    chosen, known = choose_layers(source, layers), {layer.name: layer for layer in source.layers}
    for name in layers or ():
        if not has_place(known[name]):
            why = without_place([known[name]])
            raise LayerError(f"layer {name!r} is no feature map with a place on the canvas: {why}")
    places = [name for name in chosen if has_place(known[name])]
    if not places:
        why = without_place([known[name] for name in chosen])
        raise LayerError(f"no layer is a feature map with a place on the canvas: {why}")
    result, _ = measure_layers(
        source,
        {"aligned": lambda group: (AlignedSink(object_size=size, layers=group, shift=shift),)},
        places,
        max_memory=parse_bytes(max_memory),
        progress=progress,
    )
    notes = notes_of(source, result)
    result.attrs = aligned_attributes(source, shift) | {"notes": notes}
    return described(result)


def aligned_attributes(source: Source, shift: Shift) -> dict[str, Any]:
    """Return the attributes of an aligned result."""
    design = source.design
    return {
        "kind": "aligned",
        "shift": shift,
        "n_objects": len(design.objects),
        "n_cross_pairs": n_cross_pairs(design.category_codes),
        **{f"reference_{n}": v for n, v in zip(design.names, design.reference, strict=True)},
        **numerics_of(source),
        **source.provenance,
    }
