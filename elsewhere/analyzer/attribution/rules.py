"""Backward rules for the operations that a network does: LRP, DeepLIFT, guided backpropagation.

A rule replaces the derivative of an operation; :class:`elsewhere.analyzer.attribution.ruled.Ruled`
applies a method's rules to a network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, cast

import torch
from torch import fx

from elsewhere.analyzer.attribution.tracing import (
    Function,
    limits_of,
    name_of,
)

Rule: TypeAlias = Callable[[Function, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""From a function, its input, its output and the gradient behind it to the gradient before it."""

_ONE: tuple[frozenset[int], ...] = (frozenset({0}),)
_EITHER = (frozenset({0}), frozenset({1}))
_BOTH = (frozenset({0, 1}),)

MIXING: Mapping[str, tuple[frozenset[int], ...]] = {
    **dict.fromkeys(("convolution", "div", "neg", "sum", "mean", "cumsum"), _ONE),
    **dict.fromkeys(("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"), _ONE),
    **dict.fromkeys(("_native_batch_norm_legit_no_training",), _ONE),
    **{f"{kind}{n}d": _ONE for kind in ("avg_pool", "_adaptive_avg_pool") for n in (2, 3)},
    **dict.fromkeys(("upsample_bilinear2d", "upsample_nearest2d", "upsample_bicubic2d"), _ONE),
    **dict.fromkeys(("_upsample_bilinear2d_aa", "_upsample_nearest_exact2d"), _ONE),
    **dict.fromkeys(("mm", "bmm", "mul", "dot", "mv"), _EITHER),
    **dict.fromkeys(("add", "sub", "rsub"), _BOTH),
    **dict.fromkeys(("addmm", "baddbmm"), (frozenset({0, 1}), frozenset({0, 2}))),
}
"""Operations that are linear, up to a constant, in arguments at one of these sets of places."""

MOVING: Mapping[str, tuple[frozenset[int], ...]] = {
    **dict.fromkeys(
        (
            *("view", "_unsafe_view", "reshape", "permute", "transpose", "t", "squeeze"),
            *("unsqueeze", "expand", "repeat", "slice", "select", "split", "split_with_sizes"),
            *("unbind", "clone", "alias", "_to_copy", "roll", "flip", "index", "index_select"),
            *("gather", "unfold", "im2col", "as_strided", "cat", "stack", "constant_pad_nd"),
            *("reflection_pad2d", "replication_pad2d", "masked_fill", "diagonal", "pixel_shuffle"),
        ),
        _ONE,
    ),
    **dict.fromkeys(("slice_scatter", "select_scatter"), _BOTH),
    "where": (frozenset({1, 2}),),
    "copy": _BOTH,  # of the second; the first gives its shape
}
"""Operations that put values elsewhere, beside constants at most."""

MAXIMA = frozenset({"max_pool2d_with_indices", "adaptive_max_pool2d", "amax", "max"})

RECTIFIERS = frozenset({"relu", "hardtanh", "clamp", "clamp_min"})

UNIVARIATE = RECTIFIERS | frozenset(
    {"leaky_relu", "elu", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "sigmoid", "tanh"}
    | {"softplus", "log_sigmoid_forward", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "abs"}
    | {"pow", "reciprocal", "sin", "cos", "threshold", "_prelu_kernel", "celu", "hardshrink"}
)
"""Functions of one value each, the first argument."""


@dataclass
class Ledger:
    """What a pass back has done.

    Parameters
    ----------
    applied
        How often each rule was applied to each operation.
    kept
        Relevance that biases, other constants and the stabiliser have kept, float64, on the device.
    """

    applied: Counter[str] = field(default_factory=Counter)
    kept: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def keep(self, values: torch.Tensor, relevance: torch.Tensor) -> None:
        """Enter what some values keep; nobody waits for the device."""
        self.kept = self.kept + (values.double() * relevance.double()).sum()


class _Replaced(torch.autograd.Function):
    """A function with another rule in place of its derivative."""

    @staticmethod
    def forward(context: Any, values: torch.Tensor, function: Function, rule: Rule) -> torch.Tensor:
        found = function(values)
        context.save_for_backward(values, found)
        context.function, context.rule = function, rule
        return found

    @staticmethod
    def backward(context: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        values, found = context.saved_tensors
        return context.rule(context.function, values, found, upstream[0]), None, None


def replaced(values: torch.Tensor, function: Function, rule: Rule) -> torch.Tensor:
    return cast(torch.Tensor, _Replaced.apply(values, function, rule))


class _Seen(torch.autograd.Function):
    """Passes values on, and hands their gradient to a function that may change it."""

    @staticmethod
    def forward(context: Any, values: torch.Tensor, change: Function) -> torch.Tensor:
        context.change = change
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None]:
        return context.change(upstream[0]), None


def seen(values: torch.Tensor, change: Function) -> torch.Tensor:
    return cast(torch.Tensor, _Seen.apply(values, change))


def derivative(function: Function, values: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
    """Return the gradient before a function, by its own derivative."""
    with torch.enable_grad():
        values = values.detach().requires_grad_(True)
        return torch.autograd.grad(function(values), values, upstream)[0]


def guided(
    function: Function, values: torch.Tensor, found: torch.Tensor, upstream: torch.Tensor
) -> torch.Tensor:
    """Cut off what is negative (Springenberg et al. 2015)."""
    return derivative(function, values, upstream).clamp(min=0)


def passed(
    function: Function, values: torch.Tensor, found: torch.Tensor, upstream: torch.Tensor
) -> torch.Tensor:
    """Hand relevance on as it is (Bach et al. 2015): take the slope from 0."""
    far = values.abs() > 1e-12
    slope = found / torch.where(far, values, 1.0)
    return torch.where(far, slope * upstream, derivative(function, values, upstream))


def rescaled(
    function: Function,
    values: torch.Tensor,
    found: torch.Tensor,
    upstream: torch.Tensor,
    *,
    eps: float,
) -> torch.Tensor:
    """Take the slope from the baseline (Shrikumar et al. 2017); the second half is baselines."""
    before, after = _less(values), _less(found)
    far = before.abs() > eps
    slope = after / torch.where(far, before, 1.0)
    plain = derivative(function, values, upstream).chunk(2)[0]
    here = torch.where(far, slope * upstream.chunk(2)[0], plain)
    return torch.cat([here, torch.zeros_like(here)])


def shared_out(
    function: Function,
    values: torch.Tensor,
    found: torch.Tensor,
    upstream: torch.Tensor,
    *,
    eps: float,
) -> torch.Tensor:
    """Share a maximum's change out between the cell that is it here and that of the baseline."""
    here, there = found.chunk(2)
    highest, behind = torch.maximum(here, there), upstream.chunk(2)[0]
    change = torch.cat([(highest - there) * behind, (here - highest) * behind])
    parts = derivative(function, values, change).chunk(2)
    before = _less(values)
    far = before.abs() > eps
    plain = derivative(function, values, upstream).chunk(2)[0]
    slope = torch.where(far, (parts[0] + parts[1]) / torch.where(far, before, 1.0), plain)
    return torch.cat([slope, torch.zeros_like(slope)])


def _less(values: torch.Tensor) -> torch.Tensor:
    image, baseline = values.chunk(2)
    return image - baseline


@dataclass(frozen=True)
class RuleSet:
    """A method's rules.

    Parameters
    ----------
    method
        Its name.
    functions
        By operation: the name of its rule, and the rule; None keeps the derivative.
    maxima
        The same of maxima.
    epsilon
        Of the stabiliser that sums get; None for methods without.
    cut
        Whether a rectifier has to cut at 0, or only to let 0 through; None where either is fine.
        Where it has to cut, a maximum that is a rectifier of its own making has no rule.
    halves
        Whether a batch is images, and then as many baselines.
    """

    method: str
    functions: Mapping[str, tuple[str, Rule | None]]
    maxima: tuple[str, Rule | None]
    epsilon: float | None = None
    cut: bool | None = None
    halves: bool = False

    def refusal(self, node: fx.Node) -> str:
        """Return why a function has no rule here, nothing where it has one."""
        if self.cut is None or name_of(node) not in RECTIFIERS:
            return ""
        low, high = limits_of(node)
        if low != 0 if self.cut else not low <= 0 <= high:
            return f"which cuts at {low:g} and {high:g}, not at 0"
        return ""


def lrp(epsilon: float) -> RuleSet:
    """Return the epsilon rule (Bach et al. 2015, eq. 58)."""
    names = (*RECTIFIERS, "tanh", "leaky_relu", "_prelu_kernel")
    functions = dict.fromkeys(names, ("passed on", passed))
    return RuleSet("lrp", functions, ("to the maximum", None), epsilon, cut=False)


def deep_lift(eps: float) -> RuleSet:
    """Return the rescale rule (Shrikumar et al. 2017)."""
    functions = dict.fromkeys(UNIVARIATE, ("rescaled", partial(rescaled, eps=eps)))
    return RuleSet(
        "deep-lift", functions, ("shared out", partial(shared_out, eps=eps)), halves=True
    )


def guided_backprop() -> RuleSet:
    """Return the rule of guided backpropagation, and derivatives of what is no rectifier."""
    functions: dict[str, tuple[str, Rule | None]] = dict.fromkeys(RECTIFIERS, ("guided", guided))
    functions |= dict.fromkeys(("tanh", "sigmoid"), ("derivative", None))
    return RuleSet("guided-backprop", functions, ("to the maximum", None), cut=True)
