"""Do maps depend on what the network has learnt? Adebayo et al.'s randomisation test."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
import xarray
from numpy.typing import NDArray
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from elsewhere.analyzer.attribution.driver import ASKED, versions
from elsewhere.analyzer.attribution.methods import methods
from elsewhere.analyzer.attribution.objects import ObjectRun
from elsewhere.analyzer.attribution.settings import AttributionSettings
from elsewhere.analyzer.attribution.summaries import maps_of, vanishing_of
from elsewhere.analyzer.attribution.targets import LinearTarget, SimilarityTarget
from elsewhere.errors import InputError
from elsewhere.measures.attribution import MAP_METRICS, MapMetric, mean_over_objects, unit_maps
from elsewhere.measures.intervals import Sampled
from elsewhere.models.state import copy_network
from elsewhere.protocols import Progress, notes_of
from elsewhere.recording import Sweep
from elsewhere.types import parse_bytes

UNCHANGED = 0.5
"""A method is flagged above this rank correlation with the maps of the network whose upper half is
random: its maps hardly depend on what those layers have learnt."""

FEWEST_PIXELS = 8

WHOLE = "(network)"
"""What holds parameters that are no layer's."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """What is randomised of a layer together, by names in the network.

    Parameters
    ----------
    parameters, statistics
        What is learnt, and floating-point buffers.
    size
        Values that are learnt.
    """

    parameters: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    size: int = 0


def weights_by_layer(module: nn.Module, run: Callable[[], object]) -> dict[str, Weights]:
    """Return all weights that a pass uses, by layer, from the output to the input.

    The layer is the innermost module that runs and holds them, itself or in modules that never run
    (parts of an attention, parametrisations). Its place is where one of them, or what is computed
    from it (a view, a normed weight), meets what is computed from the image for the last time: at
    each stage all that lies behind is random too. What a pass does not use, such as all that lies
    behind its end, is left out.

    Parameters
    ----------
    module
        The network.
    run
        Runs it, until the target.
    """
    known: dict[str, int] = {}  # the values that are learnt
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in module.named_buffers():
        if tensor.is_floating_point() and bool(torch.isfinite(tensor).all()):  # no mask
            known[name], tensors[name] = 0, tensor
    for name, tensor in module.named_parameters():
        known[name], tensors[name] = tensor.numel(), tensor
    uses, ran = _Uses(tensors), set[str]()
    with contextlib.ExitStack() as stack:
        for name, part in module.named_modules():
            note = functools.partial(_note, ran, uses, name)
            handle = part.register_forward_pre_hook(note, with_kwargs=True)
            stack.callback(handle.remove)
        with uses, torch.no_grad():
            run()
    found: dict[str, Weights] = {}
    for name in uses.in_order():
        size = known[name]
        layer = name.rpartition(".")[0]
        while layer and layer not in ran:
            layer = layer.rpartition(".")[0]
        held = found.pop(layer, Weights())  # to the end: the last use counts
        if size:
            held = dataclasses.replace(
                held, parameters=(*held.parameters, name), size=held.size + size
            )
        else:
            held = dataclasses.replace(held, statistics=(*held.statistics, name))
        found[layer] = held
    return {layer: held for layer, held in reversed(found.items()) if held.size}


def _note(ran: set[str], uses: _Uses, name: str, _: nn.Module, args: Any, kwargs: Any) -> None:
    """Note a module that is given something other than weights: parametrisations are not."""
    given = _tensors_in((args, kwargs))
    if not name:
        uses.take_images(given)
    if any(not uses.weights_in(leaf) for leaf in given):
        ran.add(name)


class _Uses(TorchFunctionMode):
    """Follows weights, and what is computed from them, to where they meet the image.

    Parameters
    ----------
    weights
        By name.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self._held: list[torch.Tensor] = []  # so that no other tensor gets its number
        self._weights: dict[int, frozenset[str]] = {}
        self._stores: dict[int, frozenset[str]] = {}
        self._images: set[int] = set()
        self._places: dict[str, tuple[bool, int]] = {}
        self._count = 0
        for name, tensor in weights.items():
            self._weights[id(tensor)] = frozenset([name])
            store = _store(tensor)
            self._stores[store] = self._stores.get(store, frozenset()) | {name}
        self._stores.pop(0, None)

    def in_order(self) -> list[str]:
        """Return the weights that are used, by their last meeting with the image.

        Those that never meet it are placed where they were last read.
        """
        return sorted(self._places, key=lambda name: self._places[name][1])

    def take_images(self, tensors: Sequence[torch.Tensor]) -> None:
        """Note what the network is given."""
        self._held.extend(tensors)
        self._images.update(id(tensor) for tensor in tensors)

    def weights_in(self, tensor: torch.Tensor) -> frozenset[str]:
        """Return the weights of which alone a tensor is computed."""
        if id(tensor) in self._images:
            return frozenset()
        own = self._weights.get(id(tensor))
        return self._stores.get(_store(tensor), frozenset()) if own is None else own

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        leaves = _tensors_in((args, kwargs or {}))
        weights = frozenset[str]().union(*map(self.weights_in, leaves))
        seen = any(id(leaf) in self._images for leaf in leaves)
        result = function(*args, **(kwargs or {}))
        self._count += 1
        for name in weights:
            self._places[name] = max((seen, self._count), self._places.get(name, (False, 0)))
        made = _tensors_in(result)
        if result is None:  # such as an assignment to a part of the first
            made = leaves[:1]
        if made and (seen or weights):
            self._held.extend(made)
            if seen:
                self._images.update(map(id, made))
            else:
                self._weights.update((id(tensor), weights) for tensor in made)
        return result


def _tensors_in(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_flatten(values)[0] if isinstance(leaf, torch.Tensor)]


def _store(tensor: torch.Tensor) -> int:
    """Return where a tensor's memory begins; 0 where that says nothing."""
    try:
        return tensor.untyped_storage().data_ptr() if tensor.numel() else 0
    except (RuntimeError, NotImplementedError):  # sparse, of a subclass
        return 0


def randomise(module: nn.Module, weights: Weights, *, seed: int) -> None:
    """Shuffle the values within each parameter and statistic of a layer, in place.

    The values stay the layer's own, so that signals keep their size; what they were learnt for is
    gone. A parameter of equal values other than 0, such as a slope or a scale, would stay what it
    is: it is multiplied by standard normal numbers.

    Parameters
    ----------
    module
        The network.
    weights
        Of a layer.
    seed
        Of the permutations.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = dict(module.named_buffers()) | dict(module.named_parameters())
    with torch.no_grad():
        for name in (*weights.parameters, *weights.statistics):
            tensor = tensors[name]
            order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
            values = tensor.flatten()[order].reshape(tensor.shape)
            if name in weights.parameters and torch.equal(values, tensor):
                values = values * torch.randn(tensor.shape, generator=generator).to(tensor)
            tensor.copy_(values)


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
        first stage is the network as it is. ``randomised (stage)`` is the share of all weights up
        to the target that are random by then, 1 at the last. Objects and locations without a map
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
    layers = weights_by_layer(
        scorer.network.network, lambda: scorer.activations(first.scenes.empty)
    )
    if not layers:
        raise InputError(
            f"{sweep.model.name} has no parameters up to the target {first.target.name}; there is "
            "nothing to randomise"
        )
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
    result["randomised"] = ("stage", sizes / sizes[-1])
    result["randomised"].attrs["long_name"] = (
        "share of the weights up to the target that are random"
    )
    result["n_empty"] = ("stage", empty)
    result["n_empty"].attrs["long_name"] = "maps of the randomised network without variation"
    result.attrs["n_weights"] = int(sizes[-1])
    if any(empty):
        most = int(np.argmax(empty))
        doubt = (
            f"of the randomised networks some maps are empty (most with {stages[most]} randomised "
            f"last: {empty[most]} of {known.sum()}) and count as like no other (0)"
        )
        result.attrs["notes"] = notes_of(result, [doubt])
    result.attrs["n_vanishing"] = left_out = int((~known).sum())
    if left_out:
        doubt = (
            f"{left_out} of {known.size} maps of the network as it is vanish (empty, or the "
            "score's rounding) and are left out"
        )
        result.attrs["notes"] = notes_of(result, [doubt])
    return result


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
        "n_objects": len(sweep.objects),
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
    result["likeness"].attrs["long_name"] = "maps compared with those of the network as it is"
    result["stage"].attrs["long_name"] = "the layer randomised last, with all above it"
    return result
