"""The methods of attribution by name, all of them Captum's, with the options that each takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from captum.attr import (
    LRP,
    DeepLift,
    FeatureAblation,
    GradientShap,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    LayerGradCam,
    Occlusion,
    Saliency,
)
from captum.attr._utils.custom_modules import Addition_Module
from captum.attr._utils.lrp_rules import EpsilonRule
from torch import nn

from elsewhere.analyzer.attribution.copies import FunctionLayer
from elsewhere.analyzer.attribution.frames import upsample
from elsewhere.analyzer.attribution.randomness import seeded
from elsewhere.analyzer.attribution.targets import Scorer
from elsewhere.errors import InputError, UnknownNameError
from elsewhere.models import Layer
from elsewhere.models.layers import is_container
from elsewhere.registry import Registry


@dataclass(frozen=True)
class Option:
    """A method's option: its default, what it means, and which values it takes.

    A default of None is worked out from the object's size.
    """

    default: int | float | bool | str | None
    help: str
    kind: type = int
    low: float = -math.inf
    values: tuple[str, ...] = ()

    def read(self, name: str, given: object, method: str) -> int | float | bool | str:
        """Return `given` as the option takes it.

        Raises
        ------
        InputError
            Another type, or out of range.
        """
        text = str(given).strip()
        if self.kind is bool and text.lower() in ("true", "false", "yes", "no", "1", "0"):
            return text.lower() in ("true", "yes", "1")
        if self.kind is str and text in self.values:
            return text
        if self.kind in (int, float):
            try:
                number = self.kind(text)
            except ValueError:
                number = math.nan
            if math.isfinite(number) and number >= self.low:
                found: int | float = number
                return found
        raise InputError(
            f"option {name!r} of {method} is {text!r}; expected {self.expected}: {self.help}"
        )

    @property
    def expected(self) -> str:
        """What values the option takes."""
        if self.kind is bool:
            return "true or false"
        if self.kind is str:
            return "one of " + ", ".join(self.values)
        number = "a whole number" if self.kind is int else "a number"
        return number if self.low == -math.inf else f"{number} from {self.low:g}"


@dataclass(frozen=True)
class Batch:
    """Some images of one object, and what is attributed of each.

    Parameters
    ----------
    images, baselines
        (n, 3, height, width), as the network takes them.
    corners
        First row and column of the object's box, px.
    classes
        The target's column for each image.
    references
        (n, unit): what the similarity compares with; None for other targets.
    keys
        What tells each image from all others of the run, for methods that draw at random.
    plain
        Whether the baselines equal the images outside the object's box.
    """

    images: torch.Tensor
    baselines: torch.Tensor
    corners: Sequence[tuple[int, int]]
    classes: Sequence[int]
    references: torch.Tensor | None = None
    keys: Sequence[tuple[int, ...]] = ()
    plain: bool = False

    def __len__(self) -> int:
        return len(self.images)

    @property
    def extra(self) -> tuple[torch.Tensor, ...]:
        """What the scorer takes beside images."""
        return () if self.references is None else (self.references,)

    def take(self, rows: slice) -> Batch:
        """Return some of the images."""
        return self._pick(range(len(self))[rows])

    def padded(self, rows: int) -> Batch:
        """Return `rows` images, the last one repeated: results depend on how many there are."""
        return self._pick([min(row, len(self) - 1) for row in range(rows)])

    def _pick(self, rows: Sequence[int]) -> Batch:
        chosen = list(rows)
        return Batch(
            self.images[chosen],
            self.baselines[chosen],
            [self.corners[row] for row in chosen],
            [self.classes[row] for row in chosen],
            None if self.references is None else self.references[chosen],
            [self.keys[row] for row in chosen] if self.keys else (),
            self.plain,
        )


@dataclass(frozen=True)
class Setting:
    """What a method works with.

    Parameters
    ----------
    scorer
        From images to scores.
    layer
        The layer of a method that needs one.
    options
        All of the method's options.
    rows
        Images that fit the memory at a time.
    object_size
        Side of the object's box, px.
    seed
        Of methods that draw at random.
    """

    scorer: Scorer
    layer: Layer | None
    options: Mapping[str, Any]
    rows: int
    object_size: int
    seed: int


Run = Callable[[Setting, Batch], torch.Tensor]


@dataclass(frozen=True)
class Method:
    """A method of attribution.

    Parameters
    ----------
    run
        From a batch to maps, (n, 3 or 1, height, width).
    summary
        What it computes, in a line.
    options
        By name.
    needs_layer
        Whether it works on a convolutional layer.
    compares
        Whether it needs a baseline.
    complete
        Whether its maps sum to the score less the baseline's, within the option ``tolerance``.
    functions
        Whether it replaces backward rules, so that functions have to be modules.
    separate_pools
        Whether poolings with overlapping windows have to be split.
    linear_target
        Whether it takes targets that are made of layers only: logits and linear readouts.
    alone
        Whether images are taken one by one, since they would disturb each other.
    warning
        What speaks against it.
    """

    run: Run
    summary: str
    options: Mapping[str, Option] = field(default_factory=dict)
    needs_layer: bool = False
    compares: bool = False
    complete: bool = False
    functions: bool = False
    separate_pools: bool = False
    linear_target: bool = False
    alone: bool = False
    warning: str = ""


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


# --- perturbations


def _perturbed(
    setting: Setting,
    batch: Batch,
    lattice: int,
    reach: int,
    run: Callable[[Callable[..., torch.Tensor], torch.Tensor, torch.Tensor, tuple[Any, ...]], Any],
) -> torch.Tensor:
    """Perturb a region that stands still in the object's frame, and put the result on the canvas.

    The lattice of windows starts at the object's box, so that it moves with the object. Where the
    baseline differs from the image in the box only, so do the windows that matter.

    Parameters
    ----------
    lattice
        Distance between windows, px.
    reach
        How far windows extend beyond the box, px.
    run
        Takes the score of regions, regions, their baselines and what else the score takes.
    """
    size, side, n = batch.images.shape[-1], setting.object_size, len(batch)
    around = math.ceil(reach / lattice) * lattice
    across = 2 * around + math.ceil(side / lattice) * lattice
    corners = [(top - around, left - around) for top, left in batch.corners]
    if not batch.plain:  # whole canvases, in step with the box
        across = (math.ceil(size / lattice) + 1) * lattice
        corners = [
            (top % lattice - lattice, left % lattice - lattice) for top, left in batch.corners
        ]
    tops, lefts = (torch.tensor(line) for line in zip(*corners, strict=True))

    def cut(found: torch.Tensor) -> torch.Tensor:
        regions = found.new_zeros(n, found.shape[1], across, across)
        for row in range(n):
            here, there = _overlap(int(tops[row]), int(lefts[row]), across, size)
            regions[row][:, *there] = found[row][:, *here]
        return regions

    def score(
        regions: torch.Tensor,
        canvases: torch.Tensor,
        top: torch.Tensor,
        left: torch.Tensor,
        *extra: torch.Tensor,
    ) -> torch.Tensor:
        images = canvases.clone()
        for row in range(len(images)):
            here, there = _overlap(int(top[row]), int(left[row]), across, size)
            images[row][:, *here] = regions[row][:, *there]
        scores: torch.Tensor = setting.scorer(images, *extra)
        return scores

    more = (batch.images, tops, lefts, *batch.extra)
    with torch.no_grad():
        found: torch.Tensor = run(score, cut(batch.images), cut(batch.baselines), more)
        found = found.mean(1, keepdim=True)
    maps = found.new_zeros(n, 1, size, size)
    for row in range(n):
        here, there = _overlap(int(tops[row]), int(lefts[row]), across, size)
        maps[row][:, *here] = found[row][:, *there]
    return maps


def _overlap(
    top: int, left: int, across: int, size: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return where a region lies on the canvas, and what of the region that is."""
    here, there = [], []
    for start in (top, left):
        first, last = max(start, 0), min(start + across, size)
        here.append(slice(first, last))
        there.append(slice(first - start, last - start))
    return (here[0], here[1]), (there[0], there[1])


def _occlusion(setting: Setting, batch: Batch) -> torch.Tensor:
    window, stride = setting.options["window"], setting.options["stride"]
    if stride > window:
        raise InputError(
            f"occlusion's stride {stride} is above its window {window}, which leaves pixels out; "
            "choose a stride up to the window"
        )

    def run(score: Any, regions: Any, baselines: Any, more: Any) -> Any:
        return Occlusion(score).attribute(
            regions,
            sliding_window_shapes=(3, window, window),
            strides=(3, stride, stride),
            baselines=baselines,
            target=list(batch.classes),
            additional_forward_args=more,
            perturbations_per_eval=max(1, setting.rows // len(batch)),
        )

    return _perturbed(setting, batch, stride, window, run)


def _feature_ablation(setting: Setting, batch: Batch) -> torch.Tensor:
    cell = setting.options["cell"]

    def run(score: Any, regions: Any, baselines: Any, more: Any) -> Any:
        across = regions.shape[-1]
        line = torch.arange(across, device=regions.device) // cell
        mask = line[:, None] * math.ceil(across / cell) + line[None, :]
        return FeatureAblation(score).attribute(
            regions,
            baselines=baselines,
            feature_mask=mask[None, None],
            target=list(batch.classes),
            additional_forward_args=more,
            perturbations_per_eval=max(1, setting.rows // len(batch)),
        )

    return _perturbed(setting, batch, cell, 0, run)


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
        _occlusion,
        "change of the score when a sliding window is covered (Zeiler & Fergus 2014)",
        {
            "window": Option(None, "side of the window, px; a fifth of the object", low=1),
            "stride": Option(None, "its steps, px; a tenth of the object", low=1),
        },
        compares=True,
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
        separate_pools=True,
        linear_target=True,
        alone=True,
    ),
    "feature-ablation": Method(
        _feature_ablation,
        "change of the score when a cell is replaced by the baseline",
        {"cell": Option(None, "side of a cell, px; a tenth of the object", low=1)},
        compares=True,
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
