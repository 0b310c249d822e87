"""The methods of attribution by name, with the options that each takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from captum.attr import InputXGradient, IntegratedGradients, Saliency
from captum.attr._utils.approximation_methods import approximation_parameters

from elsewhere.analyzer.attribution import rules
from elsewhere.analyzer.attribution.batches import Batch, Method, Option, Setting, in_full_batches
from elsewhere.analyzer.attribution.frames import upsample
from elsewhere.analyzer.attribution.perturbations import (
    ablate,
    ablation_lattice,
    occlude,
    occlusion_lattice,
)
from elsewhere.analyzer.attribution.randomness import frame_generator, frame_noise
from elsewhere.analyzer.attribution.rules import Ledger
from elsewhere.analyzer.attribution.targets import own_scores
from elsewhere.errors import InputError, LayerError, UnknownNameError
from elsewhere.measures.blocks import maps_from
from elsewhere.measures.vectors import upload
from elsewhere.models.forward import send
from elsewhere.registry import Registry

methods: Registry[Method] = Registry("attribution method")


def read_options(
    name: str, given: Mapping[str, object] | Sequence[str], *, object_size: int
) -> dict[str, Any]:
    """Return all options of a method: those given, checked, and the defaults of the others.

    Parameters
    ----------
    name
        The method.
    given
        By name, or as ``name=value`` texts.
    object_size
        Side of the object's box, px, from which some defaults follow.

    Raises
    ------
    InputError, UnknownNameError
        An option that the method does not take, with those that it takes, or a value it refuses.

    Examples
    --------
    >>> read_options("occlusion", ["window=6"], object_size=50)
    {'window': 6, 'stride': 5}
    """
    method = methods.get(name)
    if not isinstance(given, Mapping):
        pairs: dict[str, object] = {}
        for text in given:
            key, separator, said = text.partition("=")
            if not separator:
                raise InputError(f"cannot read --option {text!r}; expected name=value")
            pairs[key.strip()] = said
        given = pairs
    for key in given:
        if key not in method.options:
            takes = "" if method.options else f"{name} takes none"
            raise UnknownNameError(f"option of {name}", str(key), method.options, takes)
    found: dict[str, Any] = {}
    for key, option in method.options.items():
        value = option.default if given.get(key) is None else given[key]
        if value is None:
            value = max(1, object_size // (5 if key == "window" else 10))
        found[key] = option.read(key, value, name)
    return found


# --- gradients


def _classes(batch: Batch) -> torch.Tensor:
    """Return the targets' columns where the images are; Captum waits for a device for a list."""
    found: torch.Tensor = upload(np.array(batch.classes, np.int64), batch.images.device)
    return found


def _integrated_gradients(setting: Setting, batch: Batch) -> torch.Tensor:
    if in_full_batches(batch.images):
        return _integrated_together(setting, batch)
    found: torch.Tensor = IntegratedGradients(setting.scorer).attribute(
        batch.images,
        baselines=batch.baselines,
        target=_classes(batch),
        additional_forward_args=batch.extra or None,
        n_steps=setting.options["n_steps"],
        method=setting.options["method"],
        internal_batch_size=max(setting.rows, len(batch)),
    )
    return found.to(batch.images.dtype)


def _integrated_together(setting: Setting, batch: Batch) -> torch.Tensor:
    """Run the points of all lines in passes of equally many rows, and add them up where they are.

    The same sums as Captum's, which runs a step of all images at a time.
    """
    options, n = setting.options, len(batch)
    sizes, shares = (
        torch.from_numpy(np.array(numbers(options["n_steps"]))).to(batch.images.dtype)
        for numbers in approximation_parameters(options["method"])
    )
    images, baselines = batch.images.detach(), batch.baselines
    device, shown = images.device, images - baselines
    sizes, shares = send(sizes, device), send(shares, device)
    point = torch.arange(n * len(shares), device=device)
    classes = _classes(batch)
    each = torch.arange(n, device=device)[:, None]
    total = torch.zeros_like(shown).flatten(1)
    for first in range(0, len(point), setting.rows):
        # the last points are run again where they do not fill a pass, and count nothing
        taken = first + torch.arange(setting.rows, device=device)
        counted, taken = taken < len(point), taken.clamp(max=len(point) - 1)
        of, step = taken // len(shares), taken % len(shares)
        points = baselines[of] + shares[step, None, None, None] * shown[of]
        scores = setting.scorer(points.requires_grad_(True), *(r[of] for r in batch.extra))
        chosen = scores.gather(1, classes[of, None]).sum()
        (slopes,) = torch.autograd.grad(chosen, points)
        total.addmm_((of == each) * (sizes[step] * counted), slopes.flatten(1))
    return total.reshape(shown.shape) * shown


def _saliency(setting: Setting, batch: Batch) -> torch.Tensor:
    found: torch.Tensor = Saliency(setting.scorer).attribute(
        batch.images,
        target=_classes(batch),
        abs=setting.options["abs"],
        additional_forward_args=batch.extra or None,
    )
    return found


def _input_x_gradient(setting: Setting, batch: Batch) -> torch.Tensor:
    found: torch.Tensor = InputXGradient(setting.scorer).attribute(
        batch.images,
        target=_classes(batch),
        additional_forward_args=batch.extra or None,
    )
    return found


def _one_by_one(batch: Batch, run: Callable[[Batch], torch.Tensor]) -> torch.Tensor:
    """Run each image alone: for what would otherwise depend on its neighbours in the batch."""
    return torch.cat([run(batch.take(slice(row, row + 1))) for row in range(len(batch))])


def _gradient_shap(setting: Setting, batch: Batch) -> torch.Tensor:
    count, spread = setting.options["n_samples"], float(setting.options["stdevs"])

    def run(one: Batch) -> torch.Tensor:
        images, size = one.images.detach(), one.images.shape[-1]
        random = frame_generator(setting.seed, one.keys[0])
        shares = torch.rand(count, generator=random)
        total = torch.zeros_like(images)
        for first in range(0, count, setting.rows):
            part = send(shares[first : first + setting.rows], images.device)
            part = part.to(images.dtype)[:, None, None, None]
            shown = images - one.baselines
            if spread:
                noise = frame_noise(random, len(part), one.corners[0], size)
                shown = shown + spread * send(noise, images.device).to(images.dtype)
            points = (one.baselines + part * shown).requires_grad_(True)
            references = [each.expand(len(part), -1) for each in one.extra]
            scores = setting.scorer(points, *references)[:, one.classes[0]]
            (slopes,) = torch.autograd.grad(scores.sum(), points)
            total = total + (shown * slopes).sum(0, keepdim=True)
        mean: torch.Tensor = total / count
        return mean

    return _one_by_one(batch, run)


# --- replaced backward rules


def _deep_lift(setting: Setting, batch: Batch) -> torch.Tensor:
    def run(one: Batch) -> torch.Tensor:
        pair = torch.cat([one.images, one.baselines]).detach().requires_grad_(True)
        gradient = _sent_back(setting, pair, [*one.classes] * 2, Ledger())
        return gradient[:1] * (one.images - one.baselines)

    return _one_by_one(batch, run)


def _lrp(setting: Setting, batch: Batch) -> torch.Tensor:
    def run(one: Batch) -> torch.Tensor:
        ledger = Ledger()
        relevance = _sent_back(setting, one.images, one.classes, ledger) * one.images
        setting.kept.append(ledger.kept)
        return relevance

    # small denominators blow the last bits up, in which batches of different size differ
    return _one_by_one(batch, run)


def _guided_backprop(setting: Setting, batch: Batch) -> torch.Tensor:
    return _sent_back(setting, batch.images, batch.classes, Ledger(), *batch.extra)


def _sent_back(
    setting: Setting,
    images: torch.Tensor,
    classes: Sequence[int],
    ledger: Ledger,
    *references: torch.Tensor,
) -> torch.Tensor:
    """Return the gradient of each image's score by the method's rules."""
    followed = setting.follow(images)
    scores = setting.scorer.bend(followed(images, ledger), *references)
    (gradient,) = torch.autograd.grad(own_scores(scores, classes).sum(), images)
    followed.check(ledger)
    return gradient


# --- a layer


def _grad_cam(setting: Setting, batch: Batch) -> torch.Tensor:
    layer = setting.layer
    if layer is None:
        raise InputError("grad-cam needs a layer; name a convolutional one with --layer")
    with setting.scorer.network.keeping(layer) as kept:
        scores = setting.scorer(batch.images, *batch.extra)
    if not kept:  # the target lies before the layer
        raise RuntimeError("the layer was not used in the graph")
    (slopes,) = torch.autograd.grad(own_scores(scores, batch.classes).sum(), kept[0])
    slopes = maps_from(slopes, layer)
    if layer.has_grid and not bool(slopes.any()):
        raise LayerError(
            f"the target reads no place of {layer.name!r}, but another token alone, so that its "
            "Grad-CAM is empty; take a layer before the last attention"
        )
    weights = slopes.mean((2, 3), keepdim=True)
    maps = (weights * maps_from(kept[0], layer)).sum(1, keepdim=True)
    if setting.options["relu_attributions"]:
        maps = maps.clamp(min=0)
    return upsample(maps.detach(), layer, batch.images.shape[-1])


# --- by name

_TOLERANCE = Option(
    0.05, "largest share of the score's change by which a map's sum may be off", float, low=0
)
_RULES = (
    "gausslegendre",
    "riemann_left",
    "riemann_middle",
    "riemann_right",
    "riemann_trapezoid",
)

for _name, _method in {
    "integrated-gradients": Method(
        _integrated_gradients,
        "gradients along the line from the baseline (Sundararajan et al. 2017)",
        {
            "n_steps": Option(50, "points on the line", low=2),
            "method": Option("gausslegendre", "rule of integration", str, values=_RULES),
            "most_steps": Option(
                800, "points to which they are raised where a map does not sum", low=2
            ),
            "tolerance": _TOLERANCE,
        },
        compares=True,
        complete=True,
        batches=True,
        shares="change",
    ),
    "occlusion": Method(
        occlude,
        "change of the score when a sliding window is covered (Zeiler & Fergus 2014)",
        {
            "window": Option(None, "side of the window, px; a fifth of the object", low=1),
            "stride": Option(None, "its steps, px; a tenth of the object", low=1),
        },
        compares=True,
        lattice=occlusion_lattice,
    ),
    "grad-cam": Method(
        _grad_cam,
        "a convolutional layer's channels by their mean gradients (Selvaraju et al. 2017)",
        {"relu_attributions": Option(False, "whether what speaks against is cut off", bool)},
        needs_layer=True,
    ),
    "saliency": Method(
        _saliency,
        "the gradient at the image (Simonyan et al. 2014)",
        {"abs": Option(True, "whether absolute values are taken", bool)},
        slopes=True,
    ),
    "input-x-gradient": Method(
        _input_x_gradient,
        "the gradient times the input (Shrikumar et al. 2016)",
        shares="score",
    ),
    "gradient-shap": Method(
        _gradient_shap,
        "gradients at random points between baseline and image (Lundberg & Lee 2017)",
        {
            "n_samples": Option(20, "random points", low=1),
            "stdevs": Option(0.0, "noise on the image, in units of the input", float, low=0),
        },
        compares=True,
        alone=True,
        shares="change",
    ),
    "deep-lift": Method(
        _deep_lift,
        "differences from the baseline, sent back by the rescale rule (Shrikumar et al. 2017)",
        {
            "eps": Option(1e-6, "difference below which the gradient is taken", float, low=0),
            "tolerance": _TOLERANCE,
        },
        compares=True,
        complete=True,
        rules=lambda options: rules.deep_lift(options["eps"]),
        linear_target=True,
        alone=True,
        shares="change",
    ),
    "feature-ablation": Method(
        ablate,
        "change of the score when a cell is replaced by the baseline",
        {"cell": Option(None, "side of a cell, px; a tenth of the object", low=1)},
        compares=True,
        lattice=ablation_lattice,
    ),
    "lrp": Method(
        _lrp,
        "layer-wise relevance propagation by the epsilon rule (Bach et al. 2015)",
        {"epsilon": Option(1e-6, "what is added to denominators", float, low=0)},
        complete=True,
        rules=lambda options: rules.lrp(options["epsilon"]),
        linear_target=True,
        alone=True,
        shares="score",
    ),
    "guided-backprop": Method(
        _guided_backprop,
        "the gradient, with what is negative cut off at every ReLU (Springenberg et al. 2015)",
        rules=lambda options: rules.guided_backprop(),
        slopes=True,
        warning="guided-backprop hardly depends on the network's weights: it fails the "
        "randomisation test (Adebayo et al. 2018), so its maps say little about what drives the "
        "network",
    ),
}.items():
    methods.add(_name, _method, summary=_method.summary)
