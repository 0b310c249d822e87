"""Cross-location similarity per layer, from a recording, a live sweep or arrays."""

from __future__ import annotations

from collections.abc import Sequence

import xarray

from elsewhere.analyzer.layerwise import choose_layers, measure_layers
from elsewhere.errors import UnknownNameError
from elsewhere.forms import FULL, mean_note, shortcuts, with_forms
from elsewhere.measures.bands import without_intervals, without_steps
from elsewhere.measures.centring import check_by_place
from elsewhere.measures.intervals import Sampled
from elsewhere.measures.responses import find_responses
from elsewhere.measures.similarity import below_zero, n_cross_pairs
from elsewhere.measures.similarity_sink import METRICS, SimilaritySink
from elsewhere.measures.unit_chunks import BY_PLACE
from elsewhere.measures.variables import described
from elsewhere.notes import notes_of
from elsewhere.protocols import Progress, Source
from elsewhere.sources import numerics_of, restarting
from elsewhere.types import Metric, parse_bytes


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
        is of each by itself; ``cosine_G_step`` is ``cosine_G_away`` less that of the layer before
        on the main branch (NaN for layers beside it), with both as well. With another metric its
        name stands in place of ``cosine``, with underscores.

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
    if metric not in METRICS:
        raise UnknownNameError("metric", metric, METRICS)
    names = choose_layers(source, layers)
    check_by_place(metric, source.design)
    return _similarity(source, names, metric, parse_bytes(max_memory), progress)


@restarting
def complete(sink: SimilaritySink, source: Source, *, max_memory: int = 2**31) -> xarray.Dataset:
    """Return what a sink found that shared a sweep of `source`, as :func:`similarity` does.

    Where a layer does not respond to all objects, it is measured again without these.
    """
    result = sink.result([layer.name for layer in source.layers], beside=shortcuts(source.layers))
    names = [str(name) for name in result["layer"].values]
    responses = find_responses(source, names, max_memory=max_memory)
    if any(marks.any() for marks in responses.silent.values()):
        return _similarity(source, names, sink.metric, max_memory, None)
    result.attrs["notes"] = responses.notes + result.attrs["notes"]
    return finish(result, source, metric=sink.metric)


def _similarity(
    source: Source, names: Sequence[str], metric: Metric, memory: int, progress: Progress | None
) -> xarray.Dataset:
    def make(group: Sequence[str]) -> tuple[SimilaritySink]:
        return (SimilaritySink(metric=metric, layers=group),)

    result, _ = measure_layers(
        source, {metric: make}, names, max_memory=memory, progress=progress, keep=True
    )
    return finish(result, source, metric=metric)


def finish(
    result: xarray.Dataset, source: Source, *, metric: str, protocol: str = "elsewhere"
) -> xarray.Dataset:
    """Stamp a similarity result with what was measured, of what.

    The coordinate ``measure`` tells what was compared: ``cosine`` of whole activations, or under a
    name of its own ``cosine(mean)`` or ``cosine(sketch:512)``, and ``kept`` the form alone;
    ``*_error`` is the largest standard error of a cosine that a sketch brings, 0 elsewhere.
    """
    design = source.design
    result = with_forms(result, source.layers)
    measured = [metric if kept == FULL else f"{metric}({kept})" for kept in result["kept"].values]
    result = result.assign_coords(measure=("layer", measured))
    n_pairs = n_cross_pairs(design.category_codes)
    result.attrs = {
        "kind": "similarity",
        "against": "reference",
        "metric": measured[0] if len(set(measured)) == 1 else metric,
        "protocol": protocol,
        "n_objects": len(design.objects),
        "n_categories": len(set(design.categories)),
        "n_cross_pairs": n_pairs,
        "sampled": (sampled := Sampled.of(design.category_codes).unit),
        **({"expected_baseline": -1 / (len(design.objects) - 1)} if metric == BY_PLACE else {}),
        **{f"reference_{n}": v for n, v in zip(design.names, design.reference, strict=True)},
        **numerics_of(source),
        **source.provenance,
        "notes": notes_of(
            source,
            result,
            mean_note(result),
            below_zero(result),
            without_intervals(
                result,
                sampled,
                len(set(design.objects if sampled == "object" else design.categories)),
            ),
            without_steps(result),
        ),
    }
    return described(result)
