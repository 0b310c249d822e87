"""Cross-location similarity per layer, from a recording, a live sweep or arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray

from elsewhere.errors import UnknownNameError
from elsewhere.measures.bands import band_notes, with_bands, without_intervals
from elsewhere.measures.centring import by_place_baseline, check_by_place
from elsewhere.measures.intervals import Sampled
from elsewhere.measures.responses import Responses, find_responses
from elsewhere.measures.similarity import DEAD_SHARE, n_cross_pairs, partly_undefined
from elsewhere.measures.similarity_sink import SimilaritySink, join_layers
from elsewhere.measures.sketch import cosine_error
from elsewhere.measures.unit_chunks import BY_PLACE
from elsewhere.notes import notes_of
from elsewhere.protocols import Progress, Source
from elsewhere.types import Metric, parse_bytes, stem_of

LONG_NAMES = {
    "_each": "similarity of the object here and at the reference",
    "": "mean over objects of the similarity",
    "_baseline": "another object here, compared with the reference",
    "_baseline_same": "another object, both here",
    "_G": "(similarity - baseline) / (1 - baseline)",
    "_G_away": "G, mean over all locations but the reference",
    "_G_away_without": "G away from the reference without that object or category",
    "_G_away_band": "simultaneous 95 % band of G_away over all layers",
    "_G_step": "G_away less that of the layer before",
    "_G_step_band": "simultaneous 95 % band of G_step over all layers",
    "_zero_share": "share of zero vectors",
    "_error": "largest standard error of a cosine that a sketch brings",
    "_over_place_away": "similarity less baseline_same: does identity outweigh place?",
}


def similarity(
    source: Source,
    *,
    metric: Metric = "cosine",
    layers: Sequence[str] | None = None,
    max_memory: int | str = "2GiB",
    progress: Progress | None = None,
) -> xarray.Dataset:
    """Return how alike a layer's code for an object is here and at the reference.

    Parameters
    ----------
    source
        A recording (:func:`elsewhere.open`), a live sweep, or arrays.
    metric
        ``cosine`` of the activations as they are; ``centred``: less their mean over objects and
        positions; ``centred-by-place``: less the mean over objects at each position; ``evoked``:
        less the empty canvas's; ``pearson``: each less its mean over units.
    layers
        Names of layers; all that the source has by default.
    max_memory
        Bytes that activations may take up, such as ``"2GiB"``.
    progress
        Called with images done and in all.

    Returns
    -------
    xarray.Dataset
        With y and x in px and ``bound = [low, high]`` of 95 % delete-one jackknife-t intervals
        over what ``sampled`` names: objects, or categories where one has several exemplars:
        ``cosine_each (layer, object, y, x)``; per place its mean ``cosine``, ``cosine_baseline``,
        ``cosine_baseline_same``, ``cosine_G``; per layer, over all places but the reference,
        ``cosine_away``, ``cosine_baseline_away``, ``cosine_baseline_same_away``,
        ``cosine_over_place_away``, ``cosine_G_away`` (and ``cosine_G_away_without`` each
        ``left_out``); ``cosine_zero_share``, the share of zero vectors, for which a cosine counts
        as 0. ``cosine_G_away_band`` holds for all layers together, where ``cosine_G_away_interval``
        is of each by itself; ``cosine_G_step`` is ``cosine_G_away`` less that of the layer before,
        with both as well. With another metric its name stands in place of ``cosine``, with
        underscores.

    Raises
    ------
    UnknownNameError
        Unknown metric or layer.
    NumericsError
        NaN or infinite activations, named by layer.

    References
    ----------
    Biscione & Bowers (2021), Journal of Machine Learning Research 22(229), for the uncentred
    cosine between locations, zero vectors giving 0. The baselines and G are this package's.
    """
    known = [layer.name for layer in source.layers]
    for name in layers or ():
        if name not in known:
            raise UnknownNameError("layer", name, known)
    check_by_place(metric, source.design)
    memory = parse_bytes(max_memory)
    responses = find_responses(source, layers, max_memory=memory)
    return _similarity(source, responses, metric, memory, progress)


def complete(sink: SimilaritySink, source: Source, *, max_memory: int = 2**31) -> xarray.Dataset:
    """Return what a sink found that shared a sweep of `source`, as :func:`similarity` does.

    Where a layer does not respond to all objects, it is measured again without these.
    """
    result = sink.result([layer.name for layer in source.layers])
    names = [str(name) for name in result["layer"].values]
    responses = find_responses(source, names, max_memory=max_memory)
    if any(marks.any() for marks in responses.silent.values()):
        return _similarity(source, responses, sink.metric, max_memory, None)
    result.attrs["notes"] = responses.notes + result.attrs["notes"]
    return finish(result, source, metric=sink.metric)


def _similarity(
    source: Source, responses: Responses, metric: Metric, memory: int, progress: Progress | None
) -> xarray.Dataset:
    known = [layer.name for layer in source.layers]
    names, parts = list(responses.silent), []
    for heard, group in responses.groups(source, names):
        sink = SimilaritySink(metric=metric, layers=group)
        heard.stream([sink], max_memory=memory, progress=progress)
        parts.append(sink.result(known))
    result = join_layers(parts, source.design, [name for name in known if name in names])
    zero = f"{stem_of({'metric': metric})}_zero_share"
    shares = zip(result["layer"].values, result[zero].values, strict=True)
    result[zero] = ("layer", [responses.share_with(str(n), float(s)) for n, s in shares])
    deaf = [name in responses.deaf for name in result["layer"].values]
    if any(deaf):
        measured = result.where(~xarray.DataArray(deaf, dims="layer"))
        result = measured.assign({zero: result[zero]})
    result.attrs = {
        "notes": responses.notes + notes_of([], *parts),
        "rounded": [name for part in parts for name in part.attrs["rounded"]],
    }
    return finish(result, source, metric=metric)


def finish(
    result: xarray.Dataset, source: Source, *, metric: str, protocol: str = "elsewhere"
) -> xarray.Dataset:
    """Stamp a similarity result with what was measured, of what.

    The coordinate ``measure`` tells what was compared: ``cosine`` of whole activations, or under a
    name of its own ``cosine(mean)`` or ``cosine(sketch:512)``; ``*_error`` is the largest
    standard error of a cosine that a sketch brings, 0 elsewhere.
    """
    design = source.design
    kept = {layer.name: str(layer.keep) for layer in source.layers}
    names = [str(name) for name in result["layer"].values]
    measures = [metric if kept[name] == "full" else f"{metric}({kept[name]})" for name in names]
    sizes = [int(kept[name].partition(":")[2] or 0) for name in names]
    result = result.assign_coords(measure=("layer", measures))
    stem = stem_of({"metric": metric})
    result[f"{stem}_error"] = ("layer", [cosine_error(size) if size else 0.0 for size in sizes])
    result = with_bands(result, keep=True)
    for name, text in LONG_NAMES.items():
        result[f"{stem}{name}"].attrs["long_name"] = text
    n_pairs = n_cross_pairs(design.category_codes)
    doubts = _doubts(result, stem, n_pairs, design.reference_index)
    if metric == BY_PLACE:
        doubts.insert(0, by_place_baseline(len(design.objects)))
    result.attrs = {
        "kind": "similarity",
        "against": "reference",
        "metric": measures[0] if len(set(measures)) == 1 else metric,
        "protocol": protocol,
        "n_objects": len(design.objects),
        "n_categories": len(set(design.categories)),
        "n_cross_pairs": n_pairs,
        "sampled": (sampled := Sampled.of(design.category_codes).unit),
        **({"expected_baseline": -1 / (len(design.objects) - 1)} if metric == BY_PLACE else {}),
        **{f"reference_{n}": v for n, v in zip(design.names, design.reference, strict=True)},
        **source.provenance,
        "notes": notes_of(source, result, doubts, without_intervals(result, sampled)),
    }
    return result


def _doubts(result: xarray.Dataset, stem: str, n_pairs: int, reference: int | None) -> list[str]:
    """Return what has to be known to read the numbers."""
    found = []
    alike, away = result[stem], result[f"{stem}_away"]
    if alike[0].size == 1 and bool(away.isnull().all()):
        found.append(
            "one location, the reference: nothing lies away from it, so means are undefined (nan)"
        )
    for size in sorted({float(v) for v in result[f"{stem}_error"].values} - {0.0}):
        found.append(f"sketched layers: a cosine's standard error is at most {size:.3f}")
    if n_pairs:
        found += band_notes(result.sizes["left_out"], result.sizes["layer"])
    unknown = result[f"{stem}_G_away"].isnull()
    if n_pairs == 0:
        found.append(
            "all objects are of one category: there is no different-object baseline and no G"
        )
    elif names := _unknown(result, away.notnull() & unknown):
        found.append(
            "G is undefined (nan), and so are steps to and from it, where different objects look "
            f"alike (1 - baseline below 0.001): {', '.join(names)}"
        )
    all_dead = dead_layers(result, stem)
    for place, name in enumerate(result["layer"].values):
        at_places = result[f"{stem}_G"].values[place].ravel()
        elsewhere = at_places if reference is None else np.delete(at_places, reference)
        if n_pairs and name not in all_dead and (said := partly_undefined(elsewhere)):
            found.append(f"layer {name}: of places, {said}")
    if dead := [name for name in all_dead if name not in result.attrs["rounded"]]:
        found.append(f"more than 5 % zero vectors (dead, not 'not invariant'): {', '.join(dead)}")
    return found


def _unknown(result: xarray.Dataset, which: xarray.DataArray) -> list[str]:
    return [str(name) for name in result["layer"].values[which.values]]


def dead_layers(result: xarray.Dataset, stem: str = "") -> list[str]:
    """Return the layers of which more than 5 % of the vectors are zero, by the metric's name."""
    shares = result[f"{stem or stem_of(result.attrs)}_zero_share"]
    return [str(name) for name in result["layer"].values[shares.values > DEAD_SHARE]]
