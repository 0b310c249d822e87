"""Do maps depend on what the network has learnt? Adebayo et al.'s randomisation test."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
import xarray
from numpy.typing import NDArray
from torch import nn

from elsewhere.analyzer.attribution.methods import methods
from elsewhere.analyzer.attribution.objects import ObjectRun
from elsewhere.analyzer.attribution.settings import AttributionSettings
from elsewhere.analyzer.attribution.summaries import maps_of
from elsewhere.analyzer.attribution.targets import LinearTarget, SimilarityTarget
from elsewhere.errors import InputError
from elsewhere.measures.attribution import MAP_METRICS, MapMetric, mean_over_objects, unit_maps
from elsewhere.models import Layer, Model, list_layers
from elsewhere.models.outputs import is_container
from elsewhere.protocols import Progress
from elsewhere.recording import Sweep
from elsewhere.types import parse_bytes

UNCHANGED = 0.5
"""A method is flagged above this rank correlation with the maps of the network whose upper half is
random: its maps hardly depend on what those layers have learnt."""

FEWEST_PIXELS = 8


def randomised_layers(model: Model, canvas_size: int, last: Layer | None = None) -> list[str]:
    """Return the modules that hold parameters, from the output, or the layer `last`, to the input.

    What runs only behind that layer has no part in it, and is left out.
    """
    parts = dict(model.module.named_modules())
    every = list_layers(model, canvas_size, containers=True)  # each behind its parts
    if last is not None:
        every = every[: 1 + [each.name for each in every].index(last.name)]
    names = dict.fromkeys(layer.module for layer in every if not is_container(parts[layer.module]))
    found = [n for n in names if next(parts[n].parameters(recurse=False), None) is not None]
    return found[::-1]


def randomise(module: nn.Module, *, seed: int) -> None:
    """Shuffle the values within each parameter and statistic of a module, in place.

    The values stay the module's own, so that signals keep their size; what they were learnt for is
    gone.

    Parameters
    ----------
    module
        The module; its parts are left alone.
    seed
        Of the permutations.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    with torch.no_grad():
        for tensor in tensors:
            if tensor.is_floating_point():
                order = torch.randperm(tensor.numel(), generator=generator)
                tensor.copy_(tensor.flatten()[order.to(tensor.device)].reshape(tensor.shape))


def sanity(
    sweep: Sweep,
    settings: AttributionSettings | None = None,
    *,
    classes: Sequence[str] | None = None,
    max_memory: int | str = "2GiB",
    progress: Progress | None = None,
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

    Returns
    -------
    xarray.Dataset
        ``likeness (stage, metric)`` with its interval over objects, and each object's own; the
        first stage is the network as it is. The attribute ``unchanged`` flags a method whose rank
        correlation of absolute values is still above 0.5 once the upper half of the layers
        (``judged_at``) is random, or all of them.

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
    names = randomised_layers(sweep.model, sweep.canvas.size, first.explainer.scorer.layer)
    if not names:
        raise InputError(
            f"{sweep.model.name} has no parameters up to the target {first.target.name}; there is "
            "nothing to randomise"
        )
    total, done = n_objects * sweep.design.n_positions * (len(names) + 1), 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        if progress is not None:
            progress(done, total)

    found = [first.measure(number, progress=count) for number in range(n_objects)]
    original = _maps(found)
    masks = _masks(sweep, first)
    fixed = None
    if not isinstance(first.target, SimilarityTarget):
        fixed = np.stack([each["target_class"].values.ravel() for each in found])
    lenient = dataclasses.replace(settings, target=first.target, options=_without_limit(settings))
    model = dataclasses.replace(sweep.model, module=copy.deepcopy(sweep.model.module))
    likeness = [_likeness(original, original, masks)]
    for stage, name in enumerate(names):
        randomise(model.module.get_submodule(name), seed=settings.seed + stage)
        random = copy.copy(sweep)
        random.model = model
        run = ObjectRun(random, lenient, classes=classes, max_memory=limit, fixed=fixed)
        maps = _maps([run.measure(number, progress=count) for number in range(n_objects)])
        likeness.append(_likeness(original, maps, masks))
    alias_of = {module: alias for alias, module in sweep.model.aliases.items()}
    stages = ["(none)", *(alias_of.get(name, name) for name in names)]
    return _dataset(np.stack(likeness), stages, sweep, first)


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
    first: NDArray[np.float64], second: NDArray[np.float64], masks: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the mean over locations of each metric, (metric, object)."""
    found = np.full((len(MAP_METRICS), len(masks)), np.nan)
    for number, mask in enumerate(masks):
        for place, metric in enumerate(MAP_METRICS):
            a, b = (
                unit_maps(maps[number][:, mask], cast(MapMetric, metric))
                for maps in (first, second)
            )
            # a map without variation is like no other
            found[place, number] = np.nan_to_num((a * b).sum(axis=1)).mean()
    return found


def _dataset(
    likeness: NDArray[np.float64], stages: Sequence[str], sweep: Sweep, run: ObjectRun
) -> xarray.Dataset:
    mean, interval = mean_over_objects(np.moveaxis(likeness, 2, 0))
    settings = run.settings
    ranks = mean[:, MAP_METRICS.index("spearman")]
    half = len(stages) // 2  # of stages - 1 layers, rounded up
    attributes: dict[str, Any] = {
        "kind": "attribution sanity",
        "method": settings.method,
        "target": run.target.name,
        "unchanged": bool(max(ranks[half], ranks[-1]) > UNCHANGED),
        "judged_at": stages[half],
        "threshold": UNCHANGED,
        "seed": settings.seed,
        "engine": run.choice.name,
        "n_objects": len(sweep.objects),
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
    result["likeness"].attrs["long_name"] = "maps compared with those of the network as it is"
    result["stage"].attrs["long_name"] = "the layer randomised last, with all above it"
    return result
