"""How windows pass through an operation: one small registered function for each.

A rule gets a :class:`Call` and answers with a :class:`Sliding`, :class:`Pointwise`,
:class:`Together` or :class:`Global` treatment, or with None where windows cannot pass: from there
on the engine works on whole activations. An operation without a rule is treated likewise.

A rule is registered under the name of a module's class (``Conv2d``), of a function
(``max_pool2d``) or of a tensor's method. A module class of one's own that is registered is not
looked into.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn import functional

from elsewhere.recording.incremental.geometry import Slide
from elsewhere.recording.incremental.treatments import (
    Call,
    Global,
    Map,
    Pointwise,
    Run,
    Sliding,
    Together,
    Treatment,
    mutates,
)
from elsewhere.registry import Registry

Tensor: TypeAlias = torch.Tensor


Rule: TypeAlias = Callable[[Call], "Treatment | None"]

window_rules: Registry[Rule] = Registry("window rule")
"""Every operation through which windows pass."""


def find_treatment(call: Call) -> Treatment | None:
    """Return how windows pass through `call`, or None."""
    if not call.maps or call.name not in window_rules:
        return None
    return window_rules.get(call.name)(call)


def register(*names: str, summary: str) -> Callable[[Rule], Rule]:
    """Return a decorator that registers a rule under several names."""

    def decorate(rule: Rule) -> Rule:
        for name in names:
            window_rules.add(name, rule, summary=summary)
        return rule

    return decorate


def _two(value: Any) -> tuple[int, int]:
    if isinstance(value, Sequence):
        return int(value[0]), int(value[-1])
    return int(value), int(value)


# --- sliding ---------------------------------------------------------------------------------


@register(
    "Conv2d", "conv2d", "timm.layers.conv2d_same.Conv2dSame",
    summary="convolution: any kernel, stride, zero padding, dilation",
)  # fmt: skip
def convolution(call: Call) -> Treatment | None:
    """Slide a kernel; other paddings than zeros go over whole maps."""
    given = call.arguments("weight", bias=None, stride=1, padding=0, dilation=1, groups=1)
    if call.output is None or len(call.maps) != 1 or isinstance(given["weight"], Map):
        return None
    if call.module is not None and getattr(call.module, "padding_mode", "zeros") != "zeros":
        return None
    weight, bias = given["weight"], given["bias"]
    kernel, stride, dilation = (
        tuple(weight.shape[2:]),
        _two(given["stride"]),
        _two(given["dilation"]),
    )
    extents = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    padding = given["padding"]
    own = call.module is not None and type(call.module) is not nn.Conv2d  # it pads by itself
    if own or padding == "same":
        before, after = call.maps[0].sides, call.output.sides
        lengths = zip(before, after, extents, stride, strict=True)
        pads = tuple(max((m - 1) * step + extent - n, 0) // 2 for n, m, extent, step in lengths)
    else:
        pads = (0, 0) if padding == "valid" else _two(padding)
    if weight.device.type == "cpu":
        weight = weight.detach().to(memory_format=torch.channels_last)

    def run(windows: Tensor) -> Tensor:
        single = windows.is_cuda and windows.dtype == torch.float32
        if single and not torch.backends.cudnn.allow_tf32:
            windows = windows.contiguous()  # channels first, as whole passes have it
        return functional.conv2d(
            windows, weight, bias, stride=stride, dilation=dilation, groups=given["groups"]
        )

    def whole(maps: Tensor) -> Tensor:
        if own:
            result: Tensor = call.function(maps)
            return result
        return functional.conv2d(maps, weight, bias, stride, padding, dilation, given["groups"])

    slides = _slides(extents, stride, pads, call.output)
    return Sliding(slides, run, whole)


@register("MaxPool2d", "max_pool2d", summary="maximum over a window")
def max_pooling(call: Call) -> Treatment | None:
    """Slide; what lies beyond the map never is the maximum."""
    given = call.arguments(
        "kernel_size", stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
    )
    if call.output is None or len(call.maps) != 1 or given["return_indices"]:
        return None
    kernel, dilation = _two(given["kernel_size"]), _two(given["dilation"])
    stride = kernel if given["stride"] in (None, []) else _two(given["stride"])
    extents = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]

    def run(windows: Tensor) -> Tensor:
        return functional.max_pool2d(windows, kernel, stride, 0, dilation)

    def whole(maps: Tensor) -> Tensor:
        return functional.max_pool2d(
            maps, kernel, stride, given["padding"], dilation, ceil_mode=given["ceil_mode"]
        )

    slides = _slides(extents, stride, _two(given["padding"]), call.output)
    return Sliding(slides, run, whole, fill=-torch.inf)


@register("AvgPool2d", "avg_pool2d", summary="mean over a window")
def mean_pooling(call: Call) -> Treatment | None:
    """Slide a sum; at the edges the mean is over fewer cells, as the options say."""
    given = call.arguments(
        "kernel_size",
        stride=None,
        padding=0,
        ceil_mode=False,
        count_include_pad=True,
        divisor_override=None,
    )
    if call.output is None or len(call.maps) != 1:
        return None
    kernel, padding = _two(given["kernel_size"]), _two(given["padding"])
    stride = kernel if given["stride"] in (None, []) else _two(given["stride"])
    override, counted = given["divisor_override"], bool(given["count_include_pad"])
    plain = override is not None or (
        not given["ceil_mode"] and (counted or padding == (0, 0))
    )  # one divisor for all cells

    def run(windows: Tensor) -> Tensor:
        return functional.avg_pool2d(
            windows, kernel, stride, divisor_override=override if plain else 1
        )

    def whole(maps: Tensor) -> Tensor:
        return functional.avg_pool2d(
            maps, kernel, stride, padding, bool(given["ceil_mode"]), counted, override
        )

    slides = _slides(list(kernel), stride, padding, call.output)
    divisor = None
    if not plain:
        sides = call.maps[0].sides
        y, x = (_counts(s, n, counted) for s, n in zip(slides, sides, strict=True))
        divisor = (y, x)
    return Sliding(slides, run, whole, divisor=divisor)


def _slides(
    extents: Sequence[int], stride: tuple[int, int], pads: Sequence[int], output: Map
) -> tuple[Slide, Slide]:
    y, x = (
        Slide(extent, step, int(pad), size)
        for extent, step, pad, size in zip(extents, stride, pads, output.sides, strict=True)
    )
    return y, x


def _counts(along: Slide, size: int, padded: bool) -> Tensor:
    """Return over how many cells each output cell averages, shape (output cell,)."""
    first = torch.arange(along.size) * along.stride - along.pad
    low, high = (-along.pad, size + along.pad) if padded else (0, size)
    return ((first + along.extent).clamp(max=high) - first.clamp(min=low)).float()


# --- cell by cell ----------------------------------------------------------------------------


@register("ReLU", "relu", "relu_", summary="max(x, 0)")
def rectifier(call: Call) -> Treatment | None:
    """Work cell by cell, in place where the windows are not needed any more."""
    return Pointwise(torch.relu, torch.relu_) if len(call.maps) == 1 else None


@register("Identity", "contiguous", "detach", summary="the same values")
def nothing(call: Call) -> Treatment | None:
    """Change nothing."""
    return Pointwise(_same, _same) if len(call.maps) == 1 else None


@register(
    "Dropout", "Dropout2d", "AlphaDropout", "FeatureAlphaDropout", "dropout", "dropout2d",
    summary="nothing, in evaluation mode",
)  # fmt: skip
def dropout(call: Call) -> Treatment | None:
    """Change nothing in evaluation mode."""
    training = call.arguments(p=0.5, training=True)["training"]
    return Pointwise(_same, _same) if len(call.maps) == 1 and not training else None


@register("BatchNorm2d", "batch_norm", summary="batch normalisation, in evaluation mode")
def batch_normalisation(call: Call) -> Treatment | None:
    """Scale and shift each channel by what is stored; without it, rows depend on each other."""
    given = call.arguments(
        "running_mean", "running_var", weight=None, bias=None, training=False, momentum=0.1,
        eps=1e-5,
    )  # fmt: skip
    average, variance = given["running_mean"], given["running_var"]
    stored = isinstance(average, Tensor) and isinstance(variance, Tensor)
    if len(call.maps) != 1 or given["training"] or not stored:
        return None
    scale = torch.rsqrt(variance.double() + given["eps"])
    if given["weight"] is not None:
        scale = scale * given["weight"].double()
    shift = -average.double() * scale
    if given["bias"] is not None:
        shift = shift + given["bias"].double()
    factor, offset = (v.detach().float().reshape(-1, 1, 1) for v in (scale, shift))

    def overwrite(windows: Tensor) -> Tensor:
        return torch.addcmul(offset, windows, factor, out=windows)

    return Pointwise(lambda windows: torch.addcmul(offset, windows, factor), overwrite)


@register(
    "ReLU6", "Hardtanh", "Sigmoid", "Tanh", "GELU", "SiLU", "ELU", "SELU", "CELU", "LeakyReLU",
    "PReLU", "Softplus", "Softsign", "Hardswish", "Hardsigmoid", "Mish", "Threshold", "LogSigmoid",
    "relu6", "hardtanh", "sigmoid", "tanh", "gelu", "silu", "elu", "selu", "celu", "leaky_relu",
    "softplus", "hardswish", "hardsigmoid", "mish", "clamp", "abs", "neg", "exp", "sqrt", "square",
    summary="a function of each value",
)  # fmt: skip
def elementwise(call: Call) -> Treatment | None:
    """Call the function on windows instead of maps."""
    if len(call.maps) != 1 or not isinstance(call.args[0], Map) or _has_tensor(call):
        return None
    return Pointwise(_without_overwriting(call))


@register(
    "add", "add_", "iadd", "sub", "sub_", "isub", "mul", "mul_", "imul", "truediv", "div", "div_",
    "itruediv", "maximum", "minimum", "pow",
    summary="arithmetic of maps of one size, or of a map and a number per channel",
)  # fmt: skip
def arithmetic(call: Call) -> Treatment | None:
    """Add, multiply, ... cell by cell."""
    maps = call.maps
    if len(maps) == 1 and all(map(_is_constant, _others(call))):
        return Pointwise(_without_overwriting(call))
    simple = len(maps) == 2 and len(call.args) == 2 and maps[0] == maps[1]
    if not simple or call.kwargs:
        return None
    if call.name in ("add", "add_", "iadd"):
        return Together(lambda a, b: a.add_(b))
    return Together(call.function)


@register("cat", "concat", "concatenate", summary="maps stacked channel by channel")
def concatenation(call: Call) -> Treatment | None:
    """Stack channels."""
    first = call.args[0] if call.args else call.kwargs.get("tensors")
    dim = call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", 0)
    if not isinstance(first, list | tuple) or dim not in (1, -3):
        return None
    if not all(isinstance(part, Map) and part.sides == call.maps[0].sides for part in first):
        return None
    return Together(lambda *parts: torch.cat(parts, 1), stacks=True)


@register("getitem", summary="some of the channels")
def channels(call: Call) -> Treatment | None:
    """Take a slice of the channels."""
    chosen = call.args[1]
    whole = slice(None)
    if not isinstance(chosen, tuple) or len(chosen) < 2 or chosen[0] != whole:
        return None
    if not isinstance(chosen[1], slice) or any(part != whole for part in chosen[2:]):
        return None
    bounds = (chosen[1].start, chosen[1].stop, chosen[1].step)
    if not all(bound is None or isinstance(bound, int) for bound in bounds):
        return None
    return Pointwise(lambda windows: windows[:, chosen[1]].clone())


def _same(windows: Tensor) -> Tensor:
    return windows


def _others(call: Call) -> list[Any]:
    return [v for v in (*call.args, *call.kwargs.values()) if not isinstance(v, Map)]


def _has_tensor(call: Call) -> bool:
    return any(isinstance(value, Tensor) for value in _others(call))


def _is_constant(value: Any) -> bool:
    """Return whether `value` is the same for every cell and every row."""
    if isinstance(value, Tensor):
        per_channel = value.ndim in (3, 4) and tuple(value.shape[-2:]) == (1, 1)
        return value.numel() == 1 or (per_channel and (value.ndim == 3 or value.shape[0] == 1))
    return isinstance(value, int | float)


def _without_overwriting(call: Call) -> Run:
    """Return a function of windows that calls what is called, and changes none of them."""
    place = next((n for n, value in enumerate(call.args) if isinstance(value, Map)), None)

    def run(windows: Tensor) -> Tensor:
        if mutates(call):
            windows = windows.clone()
        args, kwargs = list(call.args), dict(call.kwargs)
        if place is None:
            key = next(key for key, value in kwargs.items() if isinstance(value, Map))
            kwargs[key] = windows
        else:
            args[place] = windows
        result: Tensor = call.function(*args, **kwargs)
        return result

    return run


# --- over the map ----------------------------------------------------------------------------


@register("AdaptiveAvgPool2d", "adaptive_avg_pool2d", summary="mean over the map")
def adaptive_mean(call: Call) -> Treatment | None:
    """Take means from the windows; to a map of the same size, change nothing."""
    if call.output is None or len(call.maps) != 1:
        return None
    if call.output == call.maps[0]:
        return Pointwise(_same, _same)
    return Global(keeps=True) if call.output.sides == (1, 1) else None


@register("mean", summary="mean over the map")
def mean(call: Call) -> Treatment | None:
    """Take means from the windows, where they are over both sides of the map."""
    given = call.arguments(dim=None, keepdim=False)
    dims = given["dim"]
    if len(call.maps) != 1 or not isinstance(dims, list | tuple) or _others_than(given, call):
        return None
    return Global(bool(given["keepdim"])) if sorted(d % 4 for d in dims) == [2, 3] else None


def _others_than(given: Mapping[str, Any], call: Call) -> bool:
    return not set(call.kwargs) <= set(given)


@register("AdaptiveMaxPool2d", "adaptive_max_pool2d", summary="nothing, where the size stays")
def adaptive_maximum(call: Call) -> Treatment | None:
    """Change nothing where the size stays."""
    if call.output is None or len(call.maps) != 1 or call.output != call.maps[0]:
        return None
    if call.arguments("output_size", return_indices=False)["return_indices"]:
        return None
    return Pointwise(_same, _same)
