"""Measures of layers, each of the objects that it responds to: :func:`measure_layers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray

from elsewhere.errors import LayerError, UnknownNameError
from elsewhere.forms import shortcuts, with_forms
from elsewhere.measures.catalogue import MakeSinks
from elsewhere.measures.responses import find_responses
from elsewhere.measures.sinks import LayerSink, to_dataset
from elsewhere.measures.tables import Variables
from elsewhere.protocols import Design, Progress, Source
from elsewhere.sources import restarting


def choose_layers(source: Source, layers: Sequence[str] | None) -> list[str]:
    """Return names of layers in the network's order; all by default."""
    known = [layer.name for layer in source.layers]
    for name in layers or ():
        if name not in known:
            raise UnknownNameError("layer", name, known)
    return [name for name in known if layers is None or name in layers]


@restarting
def measure_layers(
    source: Source,
    makers: Mapping[str, MakeSinks],
    names: Sequence[str],
    *,
    max_memory: int,
    progress: Progress | None = None,
    differences: Mapping[str, tuple[str, str]] | None = None,
    keep: bool = False,
) -> tuple[xarray.Dataset, dict[str, str]]:
    """Return what sinks find of layers, and which measure made each variable.

    Objects that a layer does not respond to are left out. `makers` makes, by the measure's name,
    the sinks that go through some layers together; `names` are of the layers, in order. The rest is
    as for :func:`elsewhere.measure` and :func:`elsewhere.measures.sinks.to_dataset`.
    """
    responses = find_responses(source, names, max_memory=max_memory)
    found: dict[str, Variables] = {name: {} for name in responses.deaf}
    designs: dict[str, Design] = {}
    firsts = dict[str, LayerSink]()
    notes, rounded, made_by = list(responses.notes), list[str](), dict[str, str]()
    for heard, group in responses.groups(source, names):
        for measure, make in makers.items():
            sinks = make(group)
            heard.stream(sinks, max_memory=max_memory, progress=progress)
            first = firsts[measure] = sinks[0]
            for name, variables in first.found().items():
                found[name] = found.get(name, {}) | variables
                designs[name] = heard.design
                made_by |= dict.fromkeys(variables, measure) | first.made_by
            notes += first.notes
            rounded += first.rounded
    if not any(found.values()):
        raise LayerError("no layer was measured; name layers that the source holds")
    for name, variables in found.items():
        for key in variables:
            if key.endswith("_zero_share"):
                share = responses.share_with(name, float(variables[key][1]))
                variables[key] = ((), np.asarray(share))
            elif name in responses.deaf:
                dims, values = variables[key]
                variables[key] = (dims, np.full(np.shape(values), np.nan))
    result = to_dataset(
        {name: found[name] for name in names if name in found},
        source.design,
        designs=designs,
        made_by=made_by,
        differences=differences,
        keep=keep,
        beside=shortcuts(source.layers),
    ).assign_attrs(rounded=rounded)
    formed = with_forms(result, source.layers)  # notes name layers with what was kept of them
    for first in firsts.values():
        notes += first.doubts(formed, source.design)
    result.attrs["notes"] = notes
    return result, made_by
