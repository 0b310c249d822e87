"""The methods of attribution by name, all of them Captum's, with the options that each takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from captum.attr import (
    LRP,
    DeepLift,
    GradientShap,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    LayerGradCam,
    Saliency,
)
from captum.attr._utils.custom_modules import Addition_Module
from captum.attr._utils.lrp_rules import EpsilonRule
from torch import nn

from elsewhere.analyzer.attribution.batches import Batch, Method, Option, Setting
from elsewhere.analyzer.attribution.copies import FunctionLayer
from elsewhere.analyzer.attribution.frames import upsample
from elsewhere.analyzer.attribution.perturbations import (
    ablate,
    ablation_lattice,
    occlude,
    occlusion_lattice,
)
from elsewhere.analyzer.attribution.randomness import seeded
from elsewhere.analyzer.attribution.targets import Scorer
from elsewhere.errors import InputError, UnknownNameError
from elsewhere.models.layers import is_container
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


def _integrated_gradients(setting: Setting, batch: Batch) -> torch.Tensor:
    found: torch.Tensor = IntegratedGradients(setting.scorer).attribute(
        batch.images,
        baselines=batch.baselines,
        target=list(batch.classes),
        additional_forward_args=batch.extra or None,
        n_steps=setting.options["n_steps"],
        method=setting.options["method"],
        internal_batch_size=max(setting.rows, len(batch)),
    )
    return found.to(batch.images.dtype)


def _saliency(setting: Setting, batch: Batch) -> torch.Tensor:
    found: torch.Tensor = Saliency(setting.scorer).attribute(
        batch.images,
        target=list(batch.classes),
        abs=setting.options["abs"],
        additional_forward_args=batch.extra or None,
    )
    return found


def _input_x_gradient(setting: Setting, batch: Batch) -> torch.Tensor:
    found: torch.Tensor = InputXGradient(setting.scorer).attribute(
        batch.images,
        target=list(batch.classes),
        additional_forward_args=batch.extra or None,
    )
    return found


def _one_by_one(batch: Batch, run: Callable[[Batch], torch.Tensor]) -> torch.Tensor:
    """Run each image alone: for what would otherwise depend on its neighbours in the batch."""
    return torch.cat([run(batch.take(slice(row, row + 1))) for row in range(len(batch))])


def _gradient_shap(setting: Setting, batch: Batch) -> torch.Tensor:
    method = GradientShap(setting.scorer)

    def run(one: Batch) -> torch.Tensor:
        with seeded(setting.seed, *one.keys[0]):
            found: torch.Tensor = method.attribute(
                one.images,
                baselines=one.baselines,
                n_samples=setting.options["n_samples"],
                stdevs=float(setting.options["stdevs"]),
                target=list(one.classes),
                additional_forward_args=one.extra or None,
            )
        return found

    return _one_by_one(batch, run)


# --- replaced backward rules


def _deep_lift(setting: Setting, batch: Batch) -> torch.Tensor:
    method = DeepLift(setting.scorer, eps=setting.options["eps"])

    def run(one: Batch) -> torch.Tensor:
        # Captum's rule for max pooling takes the batch's first gradient where nothing differs
        found: torch.Tensor = method.attribute(
            one.images, baselines=one.baselines, target=list(one.classes)
        )
        return found

    return _one_by_one(batch, run)


def _guided_backprop(setting: Setting, batch: Batch) -> torch.Tensor:
    found: torch.Tensor = GuidedBackprop(setting.scorer).attribute(
        batch.images,
        target=list(batch.classes),
        additional_forward_args=batch.extra or None,
    )
    return found


_RULED = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose2d,
    nn.Linear,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Flatten,
    nn.Unflatten,
    nn.ZeroPad2d,
    nn.ReflectionPad2d,
    nn.ReplicationPad2d,
    nn.CircularPad2d,
    nn.Upsample,
    Addition_Module,
    FunctionLayer,
)
_PASSED = (nn.ReLU, nn.Dropout, nn.Tanh)


def check_rules(scorer: Scorer) -> None:
    """Refuse a network that holds something that relevance cannot be sent back through.

    Raises
    ------
    InputError
        Naming what has no rule.
    """
    network = scorer.network
    for name, part in network.network.named_modules():
        if not is_container(part) and not isinstance(part, (*_RULED, *_PASSED)):
            raise InputError(
                f"lrp has no rule for {name!r}, a {type(part).__name__}; take a method that needs "
                "gradients only, such as integrated-gradients"
            )
    if network.curved:
        raise InputError(
            f"lrp has no rule for {', '.join(network.curved)}, which the network calls as a "
            "function; take a method that needs gradients only, such as integrated-gradients"
        )
    if network.reused:
        raise InputError(
            f"lrp cannot share out relevance over {network.reused[0]!r}, which has parameters and "
            "runs more than once; take another method, such as integrated-gradients"
        )


def _attach_rules(setting: Setting) -> None:
    """Give every layer its rule; Captum takes them off after each call."""
    for part in setting.scorer.modules():
        if not is_container(part) and isinstance(part, _RULED):
            part.rule = EpsilonRule(setting.options["epsilon"])


def _lrp(setting: Setting, batch: Batch) -> torch.Tensor:
    method = LRP(setting.scorer)

    def run(one: Batch) -> torch.Tensor:
        _attach_rules(setting)
        found: torch.Tensor = method.attribute(one.images, target=list(one.classes))
        return found

    # small denominators blow the last bits up, in which batches of different size differ
    return _one_by_one(batch, run)


# --- a layer


def _grad_cam(setting: Setting, batch: Batch) -> torch.Tensor:
    layer = setting.layer
    if layer is None:
        raise InputError("grad-cam needs a layer; name a convolutional one with --layer")
    part = setting.scorer.network.part(layer.module, layer.call)
    found: torch.Tensor = LayerGradCam(setting.scorer, part).attribute(
        batch.images,
        target=list(batch.classes),
        additional_forward_args=batch.extra or None,
        relu_attributions=setting.options["relu_attributions"],
    )
    return upsample(found.detach(), layer, batch.images.shape[-1])


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
            "tolerance": _TOLERANCE,
        },
        compares=True,
        complete=True,
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
    ),
    "input-x-gradient": Method(
        _input_x_gradient, "the gradient times the input (Shrikumar et al. 2016)"
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
        functions=True,
        apart=True,
        linear_target=True,
        alone=True,
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
        functions=True,
        linear_target=True,
        alone=True,
    ),
    "guided-backprop": Method(
        _guided_backprop,
        "the gradient, with what is negative cut off at every ReLU (Springenberg et al. 2015)",
        functions=True,
        warning="guided-backprop hardly depends on the network's weights: it fails the "
        "randomisation test (Adebayo et al. 2018), so its maps say little about what drives the "
        "network",
    ),
}.items():
    methods.add(_name, _method, summary=_method.summary)
