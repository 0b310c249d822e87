"""Where a feature map's cells look: stride and receptive field, followed through a forward pass.

Two things are followed: a map's *field*, which is lost where a cell depends on the whole canvas
(attention, squeeze and excitation), and its *plane*, the axes of the tensor that are height and
width, which outlives the field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.fx.node import map_aggregate
from torch.overrides import TorchFunctionMode

from elsewhere.models.outputs import tensors_in


@dataclass(frozen=True)
class PixelSpan:
    """Along one axis, cell i depends on the pixels ``low + i * stride`` to ``high + i * stride``.

    Examples
    --------
    >>> PixelSpan(1, 0, 0).slide(kernel=11, stride=4, padding=2, dilation=1)
    PixelSpan(stride=4, low=-2, high=8)
    """

    stride: int
    low: int
    high: int

    def slide(self, *, kernel: int, stride: int, padding: int, dilation: int) -> PixelSpan:
        """Return the span after a convolution or pooling (Araujo et al. 2019, section 2)."""
        low = self.low - padding * self.stride
        reach = (kernel - 1) * dilation * self.stride
        return PixelSpan(self.stride * stride, low, self.high - padding * self.stride + reach)

    def join(self, other: PixelSpan) -> PixelSpan | None:
        """Return the span of a cell that depends on both; None when the strides differ."""
        if self.stride != other.stride:
            return None
        return PixelSpan(self.stride, min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class Field:
    """The spans of a map's cells, down and across, and which axes of the tensor those are.

    `axes` are counted from the tensor's end: (-2, -1) where channels come first, (-3, -2) where
    they come last.
    """

    y: PixelSpan
    x: PixelSpan
    axes: tuple[int, int] = (-2, -1)

    def join(self, other: Field) -> Field | None:
        """Return the field of a cell that depends on both; None when they do not fit."""
        y, x = self.y.join(other.y), self.x.join(other.x)
        fits = y is not None and x is not None and self.axes == other.axes
        return Field(y, x, self.axes) if fits and y is not None and x is not None else None

    @property
    def stride(self) -> int | None:
        """Cumulative stride, px, where it is the same on both axes."""
        return self.y.stride if self.y.stride == self.x.stride else None

    @property
    def size(self) -> int | None:
        """Side of the receptive field, px, where it is the same on both axes."""
        sides = {span.high - span.low + 1 for span in (self.y, self.x)}
        return sides.pop() if len(sides) == 1 else None

    @property
    def offset(self) -> float | None:
        """Centre of cell 0's receptive field, px, where it is the same on both axes."""
        centres = {(span.low + span.high) / 2 for span in (self.y, self.x)}
        return centres.pop() if len(centres) == 1 else None


@dataclass(frozen=True, eq=False)
class Trail:
    """The longest way to a tensor: its last call of a module, and the way before that.

    `length` counts calls of modules with weights, then all calls.
    """

    length: tuple[int, int]
    before: Trail | None = None

    def all(self) -> set[Trail]:
        """Return the ways to all calls on this one."""
        found, way = set(), self if self.before else None
        while way is not None:
            found.add(way)
            way = way.before
        return found


PIXEL = Field(PixelSpan(1, 0, 0), PixelSpan(1, 0, 0))

Plane: TypeAlias = tuple[int, int]
"""The axes of a map's height and width, counted from the tensor's end."""

_TAG = "_elsewhere_field"  # kept on the tensor itself, so that it goes when the tensor goes
_PLANE = "_elsewhere_plane"
_WAY = "_elsewhere_way"

_ARITHMETIC = {
    *("add", "addcmul", "div", "divide", "mul", "multiply", "neg", "pow", "sub", "subtract"),
    *("iadd", "imul", "isub", "itruediv", "radd", "rmul", "rsub", "rtruediv", "truediv"),
    *("abs", "clamp", "clamp_max", "clamp_min", "clip", "exp", "log", "maximum", "minimum"),
    *("rsqrt", "sqrt", "square", "threshold", "true_divide"),
}
_ACTIVATIONS = {
    *("celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid"),
    *("mish", "prelu", "relu", "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus"),
    *("softsign", "tanh"),
}
_UNCHANGED = {
    *("batch_norm", "clone", "contiguous", "copy", "detach", "dropout", "dropout2d"),
    *("feature_dropout", "float", "local_response_norm", "to", "type"),
}
_ELEMENTWISE = _ARITHMETIC | _ACTIVATIONS | _UNCHANGED
_CHANNELWISE = {
    *("chunk", "getitem", "narrow", "reshape", "split", "split_with_sizes", "unsqueeze", "view"),
}
_MAPS = {
    *("conv2d", "conv_transpose2d", "instance_norm", "interpolate", "lp_pool2d"),
    *("pixel_shuffle", "pixel_unshuffle", "fractional_max_pool2d"),
}
_IN_PLACE = {"flip", "group_norm", "normalize", "pad", "roll", "softmax"}
_REORDERED = {"permute", "swapaxes", "swapdims", "transpose"}
_LAST = {"layer_norm", "linear", "rms_norm"}
_JOINED = {"cat", "concat", "concatenate"}
_ADAPTIVE = {"adaptive_avg_pool2d", "adaptive_max_pool2d"}
_POOLED = {"avg_pool2d", "max_pool2d", "max_pool2d_with_indices"}


class FieldMode(TorchFunctionMode):
    """While active, follows the fields of `start`'s tensor and of all that is computed from it.

    A tensor that depends on the whole canvas, or through an operation that is not known, has no
    field, nor has anything computed from it.

    Examples
    --------
    >>> pixels = torch.zeros(1, 3, 32, 32)
    >>> with FieldMode() as fields:
    ...     fields.start(pixels)
    ...     maps = torch.nn.functional.max_pool2d(pixels, 3, stride=2, padding=1)
    >>> field = fields.find(maps)
    >>> field.stride, field.offset, field.size
    (2, 0.0, 3)
    """

    def start(self, pixels: torch.Tensor) -> None:
        """Take each cell of `pixels`, shape (n, 3, height, width), as a pixel of the canvas."""
        setattr(pixels, _TAG, PIXEL)
        setattr(pixels, _PLANE, PIXEL.axes)
        setattr(pixels, _WAY, Trail((0, 0)))

    def find_way(self, tensor: torch.Tensor) -> Trail | None:
        """Return the longest way to `tensor`, None where it is not known."""
        found: Trail | None = getattr(tensor, _WAY, None)
        return found

    def call(self, tensor: torch.Tensor, *, weights: bool) -> Trail | None:
        """Add a call of a module to the way to what it gave, and return that."""
        way = self.find_way(tensor)
        if way is None:
            return None
        way = Trail((way.length[0] + weights, way.length[1] + 1), way)
        setattr(tensor, _WAY, way)
        return way

    def find(self, tensor: torch.Tensor) -> Field | None:
        """Return the field of `tensor`'s cells, None where it has none."""
        found: Field | None = getattr(tensor, _TAG, None)
        return found

    def find_plane(self, tensor: torch.Tensor) -> Plane | None:
        """Return the axes of `tensor` that are height and width, None where they are not known."""
        found: Plane | None = getattr(tensor, _PLANE, None)
        return found

    def take_plane(self, tensor: torch.Tensor, other: torch.Tensor) -> None:
        """Take the axes of `tensor` for those of `other`, from which a module made it."""
        setattr(tensor, _PLANE, self.find_plane(other))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run `func`, and give its results the field that follows from its arguments."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        followed = [tensor for tensor in tensors_in((args, kwargs)) if hasattr(tensor, _TAG)]
        if not followed:
            return result
        name = getattr(func, "__name__", "").strip("_")
        ways = {id(tensor): getattr(tensor, _WAY, None) for tensor in followed}
        if name == "setitem":  # returns nothing, changes its first argument
            setattr(args[0], _TAG, None)
        for tensor in tensors_in(result):
            field = _follow(name, args, kwargs, followed, tensor)
            if field is None:
                field = _unmixed(func, args, kwargs, followed, tensors_in(result), tensor)
            plane = _follow_plane(name, args, kwargs, followed, tensor)
            # what is spread over the other operand, as a gate is, is beside it
            like = [each for each in followed if each.shape == tensor.shape]
            some = (name in _ELEMENTWISE and like) or followed
            known = [way for each in some if (way := ways[id(each)]) is not None]
            setattr(tensor, _WAY, max(known, key=lambda way: way.length, default=None))
            setattr(tensor, _TAG, field)
            setattr(tensor, _PLANE, plane if field is None else field.axes)
        return result


def _follow(
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    followed: list[torch.Tensor],
    result: torch.Tensor,
) -> Field | None:
    fields = [getattr(tensor, _TAG) for tensor in followed]
    field: Field | None = fields[0]
    if field is None or any(other is None for other in fields) or result.ndim < 3:
        return None
    first = followed[0]
    joined = name in _JOINED and _axis(args, kwargs, result) - result.ndim not in field.axes
    if name in _ELEMENTWISE or joined:
        same = all(_same_plane(field.axes, part, result) for part in followed)
        return _join(fields) if same else None
    if len(followed) > 1:  # such as a convolution whose kernel depends on the canvas
        return None
    if name in _REORDERED:
        axes = _reordered(name, field.axes, args, kwargs, first)
        upright = axes is not None and axes[0] < axes[1]
        return Field(field.y, field.x, axes) if upright and axes is not None else None
    if name in _LAST and max(field.axes) < -_n_last(name, args, kwargs):
        return field if _same_plane(field.axes, first, result) else None
    if field.axes != PIXEL.axes:
        return None
    if name in _CHANNELWISE and _keeps_planes(name, args):
        return field if _same_plane(field.axes, first, result) else None
    if name in _ADAPTIVE:
        return field if first.shape == result.shape else None
    if name == "conv2d":
        return _convolved(field, args, kwargs)
    if name in _POOLED:
        return _pooled(name, field, args, kwargs)
    if name == "pad":
        return _padded(field, args, kwargs)
    return None


def _unmixed(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    followed: Sequence[torch.Tensor],
    results: Iterable[torch.Tensor],
    result: torch.Tensor,
) -> Field | None:
    """Return the field of what an unknown operation leaves in its place, as a flip of channels.

    It is run on noise: its result may change in those cells only in which its arguments do.
    """
    fields = [getattr(tensor, _TAG) for tensor in followed]
    if any(field is None for field in fields) or kwargs.get("out") is not None:
        return None
    field = _join(fields)
    if field is None or not all(_same_plane(field.axes, part, result) for part in followed):
        return None
    number = next(i for i, tensor in enumerate(results) if tensor is result)
    axes = field.axes
    height, width = (result.shape[axis] for axis in axes)
    generator = torch.Generator().manual_seed(0)
    noise = {
        id(tensor): torch.randn(tensor.shape, generator=generator).to(tensor)
        for tensor in followed
        if tensor.is_floating_point()
    }

    def run(cell: tuple[int, int] | None, step: float) -> torch.Tensor:
        def shown(value: Any) -> Any:
            if id(value) not in noise:
                return value
            changed = noise[id(value)].clone()
            if cell is not None:
                changed.movedim(axes, (0, 1))[cell] += step
            return changed

        given = map_aggregate((args, dict(kwargs)), shown)
        found = list(tensors_in(func(*given[0], **given[1])))[number]
        return found.movedim(axes, (0, 1)).clone()

    try:
        before = run(None, 0.0)
        for cell in ((0, width // 3), (height // 2, width - 1), (height - 1, 0)):
            for step in (-10.0, 10.0):
                changes = (run(cell, step) != before).reshape(height, width, -1).any(dim=-1)
                changes[cell] = False
                if changes.any():
                    return None
    except Exception:  # any operation, any complaint: it is not known to leave cells in place
        return None
    return field


def _join(fields: Sequence[Field]) -> Field | None:
    joined: Field | None = fields[0]
    for field in fields[1:]:
        joined = None if joined is None else joined.join(field)
    return joined


def _follow_plane(
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    followed: list[torch.Tensor],
    result: torch.Tensor,
) -> Plane | None:
    """Return which axes of a result are height and width, whatever its cells depend on."""
    if result.ndim < 3:
        return None
    planes = [getattr(tensor, _PLANE, None) for tensor in followed]
    if name in _ELEMENTWISE or name in _JOINED:
        known: set[Plane] = {
            plane
            for plane, part in zip(planes, followed, strict=True)
            if plane is not None and _same_plane(plane, part, result)
        }
        return known.pop() if len(known) == 1 else None
    first = followed[0]
    plane: Plane | None = planes[0]
    if name in _MAPS or name in _ADAPTIVE or name in _POOLED:
        return PIXEL.axes if plane in (None, PIXEL.axes) else None
    if plane is None:
        return None
    if name in _REORDERED:
        return _reordered(name, plane, args, kwargs, first)
    if name in _IN_PLACE or (name in _LAST and max(plane) < -_n_last(name, args, kwargs)):
        return plane if result.ndim == first.ndim else None
    if name == "getitem" and result.ndim == first.ndim and _keeps_planes(name, args):
        return plane
    if name in _CHANNELWISE and plane == PIXEL.axes and _keeps_planes(name, args):
        return plane if _same_plane(plane, first, result) else None
    return None


def _same_plane(plane: Plane, part: torch.Tensor, result: torch.Tensor) -> bool:
    if min(part.ndim, result.ndim) < -min(plane):
        return False
    return all(part.shape[axis] == result.shape[axis] for axis in plane)


def _reordered(
    name: str, plane: Plane, args: tuple[Any, ...], kwargs: Mapping[str, Any], first: torch.Tensor
) -> Plane | None:
    """Return the plane of a tensor whose axes were permuted or swapped."""
    order = list(range(first.ndim))
    given = [*args[1:], *kwargs.values()]
    if name == "permute":
        flat = given[0] if len(given) == 1 and isinstance(given[0], list | tuple) else given
        order = [int(axis) % first.ndim for axis in flat]
    elif len(given) == 2 and all(isinstance(axis, int) for axis in given):
        one, other = (axis % first.ndim for axis in given)
        order[one], order[other] = order[other], order[one]
    else:
        return None
    y, x = (order.index(first.ndim + axis) - first.ndim for axis in plane)
    return y, x


def _n_last(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Return how many of the last axes an operation mixes."""
    if name == "linear":
        return 1
    shape = kwargs.get("normalized_shape", args[1] if len(args) > 1 else ())
    return 1 if isinstance(shape, int) else len(shape)


def _axis(args: tuple[Any, ...], kwargs: Mapping[str, Any], result: torch.Tensor) -> int:
    axis = int(kwargs.get("dim", args[1] if len(args) > 1 else 0))
    return axis % result.ndim


def _keeps_planes(name: str, args: tuple[Any, ...]) -> bool:
    """Return whether (height, width) stay what they were, given that their sizes do."""
    if name == "getitem":
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return all(part is None or part is ... or isinstance(part, int | slice) for part in index)
    return True


def _convolved(field: Field, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Field | None:
    given = _bind("input weight bias stride padding dilation groups", args, kwargs)
    kernel = tuple(given["weight"].shape[-2:])
    dilation = _pair(given.get("dilation", 1))
    padding: tuple[int, int]
    if given.get("padding") == "same":
        padding = ((kernel[0] - 1) * dilation[0] // 2, (kernel[1] - 1) * dilation[1] // 2)
    else:
        padding = _pair(0 if given.get("padding") == "valid" else given.get("padding", 0))
    return _slide(field, kernel, _pair(given.get("stride", 1)), padding, dilation)


def _pooled(name: str, field: Field, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Field:
    given = _bind("input kernel_size stride padding dilation", args, kwargs)
    kernel = _pair(given["kernel_size"])
    stride = given.get("stride")
    steps = kernel if stride in (None, (), []) else _pair(stride)
    # The fifth argument of the average's is ceil_mode, which moves no cell.
    dilation = _pair(given.get("dilation", 1)) if name != "avg_pool2d" else (1, 1)
    return _slide(field, kernel, steps, _pair(given.get("padding", 0)), dilation)


def _padded(field: Field, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Field | None:
    pad = list(_bind("input pad", args, kwargs)["pad"])
    if any(pad[4:]):
        return None
    left, top = (pad[:1] or [0])[0], (pad[2:3] or [0])[0]
    return _slide(field, (1, 1), (1, 1), (top, left), (1, 1))


def _slide(
    field: Field,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Field:
    y, x = (
        span.slide(
            kernel=int(kernel[axis]),
            stride=int(stride[axis]),
            padding=int(padding[axis]),
            dilation=int(dilation[axis]),
        )
        for axis, span in enumerate((field.y, field.x))
    )
    return Field(y, x)


def _bind(names: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {**dict(zip(names.split(), args, strict=False)), **kwargs}


def _pair(value: Any) -> tuple[int, int]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return int(values[0]), int(values[-1])
