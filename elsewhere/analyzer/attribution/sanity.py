"""Do maps depend on what the network has learnt? Adebayo et al.'s randomisation test."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.analyzer.attribution.cost import cost_of
from elsewhere.analyzer.attribution.driver import ASKED, versions
from elsewhere.analyzer.attribution.methods import methods
from elsewhere.analyzer.attribution.objects import ObjectRun
from elsewhere.analyzer.attribution.settings import AttributionSettings
from elsewhere.analyzer.attribution.sharing import numerics_of
from elsewhere.analyzer.attribution.summaries import maps_of, vanishing_of
from elsewhere.analyzer.attribution.targets import LinearTarget, SimilarityTarget
from elsewhere.analyzer.attribution.weights import randomise, weights_by_layer
from elsewhere.errors import InputError
from elsewhere.measures.attribution import MAP_METRICS, MapMetric, mean_over_objects, unit_maps
from elsewhere.measures.intervals import Sampled
from elsewhere.measures.variables import described
from elsewhere.models.restoring import copy_network
from elsewhere.notes import notes_of
from elsewhere.protocols import Progress
from elsewhere.recording import Sweep
from elsewhere.sources import restarting
from elsewhere.types import parse_bytes

UNCHANGED = 0.5
"""A method is flagged above this rank correlation with the maps of the network whose upper half is
random: its maps hardly depend on what those layers have learnt."""

FEWEST_PIXELS = 8

NEGLIGIBLE = 1e-3
"""A share of the values that are not randomised of which nothing is said in the notes."""

WHOLE = "(network)"
"""What holds parameters that are no layer's."""


@restarting
def sanity(
    sweep: Sweep,
    settings: AttributionSettings | None = None,
    *,
    classes: Sequence[str] | None = None,
    max_memory: int | str = "2GiB",
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> xarray.Dataset:
    """Return how alike a method's maps stay while a network's layers are randomised one by one.

    From the output down, or from the target's layer, one more layer after the other gets its own
    values in random order. Maps are compared on the object's pixels, at the same location, with
    those of the network as it is.

    Parameters
    ----------
    sweep
        Network, objects and grid; few of the latter suffice.
    settings
        Method and target; a predicted class stays the one that the network as it is predicts.
    classes
        Names of the head's classes, where they are known.
    max_memory
        Bytes that a pass may take.
    progress
        Called with images done and in all.
    announce
        Called before anything is made, with what it costs in words.

    Returns
    -------
    xarray.Dataset
        ``likeness (stage, metric)`` with its interval over objects, and each object's own; the
        first stage is the network as it is. ``randomised (stage)`` is the share of all weights up
        to the target that are random by then, 1 at the last unless some cannot be randomised
        (``not_randomised``, with how many values each has). Objects and locations without a map
        in the network as it is are left out; the attribute ``n_vanishing`` counts them. Empty
        maps of the randomised network are like no other; ``n_empty (stage)`` counts them. The
        attribute ``unchanged`` flags a method whose rank correlation of absolute values is still
        above 0.5 once the upper half of the layers (``judged_at``) is random, or all of them.

    Raises
    ------
    InputError
        The network has no parameters, or the method cannot work with it.

    References
    ----------
    Adebayo et al. (2018), Sanity checks for saliency maps, NeurIPS: cascading randomisation. There
    weights are drawn anew; here they are shuffled within each tensor.
    """
    settings = AttributionSettings() if settings is None else settings
    if isinstance(settings.target, LinearTarget):
        classes = settings.target.classes
    limit, n_objects = parse_bytes(max_memory), len(sweep.objects)
    first = ObjectRun(sweep, settings, classes=classes, max_memory=limit)
    scorer = first.explainer.scorer
    used = weights_by_layer(scorer.network.network, lambda: scorer.activations(first.scenes.empty))
    layers = {name: weights for name, weights in used.items() if weights.size}
    left = {n: size for weights in used.values() for n, size in weights.fixed.items()}
    if not layers:
        raise InputError(
            f"{sweep.model.name} has no parameters up to the target {first.target.name}; there is "
            "nothing to randomise"
        )
    if announce is not None:
        cost = cost_of(first, n_objects * sweep.design.n_positions)
        announce(str(cost.times(len(layers) + 1)))
    total, done = n_objects * sweep.design.n_positions * (len(layers) + 1), 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        if progress is not None:
            progress(done, total)

    found = [first.measure(number, progress=count) for number in range(n_objects)]
    original, masks = _maps(found), _masks(sweep, first)
    known = np.stack([~vanishing_of(each)[0].values.ravel() for each in found])
    fixed = None
    if not isinstance(first.target, SimilarityTarget):
        fixed = np.stack([each["target_class"].values.ravel() for each in found])
    lenient = dataclasses.replace(settings, target=first.target, options=_without_limit(settings))
    model = dataclasses.replace(sweep.model, module=copy_network(sweep.model.module))
    likeness, empty = [_likeness(original, original, masks, known)[0]], [0]
    for stage, weights in enumerate(layers.values()):
        randomise(model.module, weights, seed=settings.seed + stage)
        run = ObjectRun(sweep.of(model), lenient, classes=classes, max_memory=limit, fixed=fixed)
        maps = _maps([run.measure(number, progress=count) for number in range(n_objects)])
        alike, n_empty = _likeness(original, maps, masks, known)
        likeness.append(alike)
        empty.append(n_empty)
    sizes = np.cumsum([0, *(weights.size for weights in layers.values())])
    aliases = {module: alias for alias, module in sweep.model.aliases.items()}
    stages = ["(none)", *(aliases.get(name, name) or WHOLE for name in layers)]
    result = _dataset(np.stack(likeness), stages, sweep, first)
    result["randomised"] = ("stage", sizes / (sizes[-1] + sum(left.values())))
    result.attrs["not_randomised"] = left
    share, doubts = 1 - float(result["randomised"][-1]), []
    if share > NEGLIGIBLE:
        largest = sorted(left, key=lambda name: -left[name])
        named = ", ".join(f"{name} ({left[name]} values)" for name in largest[:3])
        doubts.append(
            f"{share:.1%} of the values that take part are not randomised, as no layer holds them "
            f"as finite numbers: {named}{', ...' if len(left) > 3 else ''}"
        )
    result["n_empty"] = ("stage", empty)
    result.attrs["n_weights"] = int(sizes[-1])
    if any(empty):
        most = int(np.argmax(empty))
        doubts.append(
            f"of the randomised networks some maps are empty (most with {stages[most]} randomised "
            f"last: {empty[most]} of {known.sum()}) and count as like no other (0)"
        )
    result.attrs["n_vanishing"] = left_out = int((~known).sum())
    if left_out:
        doubts.append(
            f"{left_out} of {known.size} maps of the network as it is vanish (empty, or the "
            "score's rounding) and are left out"
        )
    return described(result.assign_attrs(notes=notes_of(result, doubts)))


def _without_limit(settings: AttributionSettings) -> dict[str, object]:
    """Return the options with any sum accepted: a random network is not to be trusted anyway."""
    given = settings.options
    if not isinstance(given, dict):
        given = dict(text.partition("=")[::2] for text in cast(Sequence[str], given))
    more = {"tolerance": 1e9} if "tolerance" in methods.get(settings.method).options else {}
    return {**given, **more}


def _maps(found: Sequence[xarray.Dataset]) -> NDArray[np.float64]:
    """Return maps in the object's frame, (object, location, height, width)."""
    maps = np.stack([maps_of(each).values for each in found]).astype(np.float64)
    return maps.reshape(len(found), -1, *maps.shape[-2:])


def _masks(sweep: Sweep, run: ObjectRun) -> NDArray[np.bool_]:
    """Return the pixels that are compared, bool (object, height, width)."""
    n, margin, size = len(sweep.objects), run.frame.margin, sweep.canvas.object_size
    masks = np.zeros((n, run.frame.side, run.frame.side), bool)
    inside = sweep.objects.masks > 127
    inside[inside.sum(axis=(1, 2)) < FEWEST_PIXELS] = True
    masks[:, margin : margin + size, margin : margin + size] = inside
    return masks


def _likeness(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    masks: NDArray[np.bool_],
    known: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], int]:
    """Return the mean of each metric over locations with a map in the first, (metric, object).

    And how many of these have no variation in the second, by the last metric.
    """
    n_empty = 0
    found = np.full((len(MAP_METRICS), len(masks)), np.nan)
    for number, mask in enumerate(masks):
        for place, metric in enumerate(MAP_METRICS):
            a, b = (
                unit_maps(maps[number][known[number]][:, mask], cast(MapMetric, metric))
                for maps in (first, second)
            )
            there = np.isfinite(a).all(axis=1)
            if metric == MAP_METRICS[-1]:
                n_empty += int((there & ~np.isfinite(b).all(axis=1)).sum())
            if there.any():  # a random network's map without variation is like no other
                found[place, number] = (a * np.nan_to_num(b)).sum(axis=1)[there].mean()
    return found, n_empty


def _dataset(
    likeness: NDArray[np.float64], stages: Sequence[str], sweep: Sweep, run: ObjectRun
) -> xarray.Dataset:
    mean, interval = mean_over_objects(
        np.moveaxis(likeness, 2, 0), codes=sweep.design.category_codes
    )
    settings, asked = run.settings, run.settings.fields(sweep.canvas)
    ranks = mean[:, MAP_METRICS.index("spearman")]
    half = len(stages) // 2  # of stages - 1 layers, rounded up
    attributes: dict[str, Any] = {
        "kind": "attribution sanity",
        "method": settings.method,
        "target": run.target.name,
        **{name: asked[name] for name in ASKED},
        "rules": dict(run.explainer.counts),
        "measured_with": versions(),
        "unchanged": bool(np.fmax(ranks[half], ranks[-1]) > UNCHANGED),
        "judged_at": stages[half],
        "threshold": UNCHANGED,
        "engine": run.choice.name,
        "numerics": numerics_of(run),
        "n_objects": len(sweep.objects),
        "n_categories": len(sweep.objects.category_names),
        "sampled": Sampled.of(sweep.design.category_codes).unit,
        "n_locations": sweep.design.n_positions,
        **sweep.provenance,
        "notes": run.notes,
    }
    result = xarray.Dataset(
        {
            "likeness": (("stage", "metric"), mean),
            "likeness_interval": (("stage", "metric", "bound"), interval),
            "likeness_each": (("stage", "metric", "object"), likeness),
        },
        coords={
            "stage": list(stages),
            "metric": list(MAP_METRICS),
            "object": list(sweep.objects.ids),
            "bound": ["low", "high"],
        },
        attrs=attributes,
    )
    return result
