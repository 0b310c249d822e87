"""A probe on its own: its weights for a layer's raw units, for others to use as a target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from elsewhere.errors import InputError, LayerError, UnknownNameError
from elsewhere.measures.responses import find_responses
from elsewhere.notes import notes_of
from elsewhere.probes.features import FeatureReading, gather
from elsewhere.probes.kinds import find_kind
from elsewhere.probes.places import find_places
from elsewhere.probes.readout_weights import NETWORK, FittedProbe
from elsewhere.probes.selection import FitTask, fit, strengths_of
from elsewhere.probes.span import find_span, moments, raw_weights
from elsewhere.probes.splits import ONE_CATEGORY, deal_folds, divide
from elsewhere.protocols import Source
from elsewhere.sources import restarting
from elsewhere.types import Location, format_bytes, parse_bytes


@restarting
def fit_probe(
    source: Source,
    layer: str,
    *,
    train_at: str | Location | Sequence[Location] = "left",
    kind: str | Any = "logistic",
    held_out: ArrayLike | None = None,
    strengths: Sequence[float] | None = None,
    n_folds: int = 5,
    seed: int = 0,
    max_memory: int | str = "2GiB",
) -> FittedProbe:
    """Train one linear probe and return its weights for the layer's raw units.

    Parameters
    ----------
    source
        A recording, a live sweep, or arrays.
    layer
        Name of the layer.
    train_at
        One training set: see :func:`elsewhere.probes.places.find_places`.
    kind, strengths, n_folds, seed
        See :func:`elsewhere.probes.probe`.
    held_out
        bool (object,): objects that are not trained on; by default all are.
    max_memory
        Bytes that the training samples may take up.

    Returns
    -------
    FittedProbe

    Raises
    ------
    InputError
        Several training sets, a probe that is not linear, one category, or too little memory.
    UnknownNameError
        An unknown layer or kind.
    LayerError
        The layer is the same for all training samples, or responds to objects of one category, or
        to none. Objects that it does not respond to are not trained on, as in
        :func:`elsewhere.probes.probe`.

    Examples
    --------
    >>> from elsewhere.storage import ArraySource
    >>> rng = np.random.default_rng(0)
    >>> values = np.repeat([0.0, 3.0], 4)[:, None, None, None] + rng.normal(size=(8, 1, 2, 5))
    >>> arrays = ArraySource({"fc": values}, y=[5], x=[5, 9], categories=["a"] * 4 + ["b"] * 4)
    >>> found = fit_probe(arrays, "fc", train_at=(5, 9))
    >>> found.coef.shape, found.predict(values[[0, 7], 0, 0])
    ((2, 5), ['a', 'b'])
    """
    known = {each.name: each for each in source.layers}
    if layer not in known:
        raise UnknownNameError("layer", layer, known)
    name, _ = find_kind(kind)
    tried = strengths_of(kind, strengths)
    places = find_places(train_at, source.design)
    if len(places) > 1:
        raise InputError("one probe is trained at one place, or at several together; got 'each'")
    mask = np.zeros(len(source.design.objects), bool) if held_out is None else held_out
    budget = parse_bytes(max_memory)
    exemplars = divide(source.design, None, held_out=mask, seed=seed)
    responses = find_responses(source, [layer], max_memory=budget)
    members, said = exemplars.heard(responses.silent[layer])
    if said == ONE_CATEGORY:
        said = "no object changes anything in it" if responses.deaf else said
        raise LayerError(f"no probe of layer {layer!r}: {said}; take another layer")
    notes = [*responses.notes, *([f"{layer}: {said}"] if said else ())]
    exemplars = exemplars.among(members)
    objects, n_classes = members[exemplars.train], len(exemplars.names)
    reading = FeatureReading.of(known[layer])
    units, n_samples = reading.units(known[layer]), len(objects) * len(places[0])
    needed = 4 * units * (n_samples + n_classes + 8)
    if needed > budget:
        raise InputError(
            f"a probe of {layer} needs {format_bytes(needed)} of memory, more than --max-memory "
            f"{format_bytes(budget)}; raise it, or take another layer"
        )
    rows = gather(source, {layer: reading}, objects, places[0], max_memory=budget)[layer]
    span = find_span(lambda: [rows], n_samples)
    if span.rank == 0:
        raise LayerError(
            f"layer {layer!r} is the same for all {n_samples} training samples; take another "
            "layer, or train elsewhere"
        )
    labels = exemplars.labels[exemplars.train]
    folds = deal_folds(labels, n_folds, seed=seed) if n_folds > 1 else None
    times = len(places[0])
    task = FitTask(
        span.coordinates,
        np.tile(labels, times)[None],
        None if folds is None else np.tile(folds, times),
        kind,
        n_classes,
        tried if strengths is not None else None,
    )
    found = fit(task)
    if found.weights is None or found.offsets is None:
        raise InputError(f"the probe {name} is not linear, so that it has no weights for units")
    coef = np.empty((n_classes, units), np.float32)
    told = {**source.origin, **source.provenance}  # a recording knows more
    told["notes"] = notes_of(source, notes)
    at_mean = raw_weights(rows, found.rows(span), moments(rows), coef)
    return FittedProbe(
        layer,
        exemplars.names,
        coef,
        found.offsets[0] - at_mean,
        known[layer].stored_shape,
        found.strength,
        name,
        places[0],
        {key: told[key] for key in NETWORK if key in told},
    )
