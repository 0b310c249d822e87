"""A copy of a network on which backward rules may be replaced: nothing in place, nothing reused.

Attribution methods put hooks on modules. A module that works in place, or that runs more than once
in a forward pass, has more than one input to remember, and a function that is no module has no hook
at all. :class:`PlainNetwork` is a copy in which every call of such a thing is a module of its own;
its outputs are those of the network, bit for bit.
"""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from captum.attr._utils.custom_modules import Addition_Module
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from elsewhere.errors import InputError, LayerError
from elsewhere.models import Model, output_tensors
from elsewhere.models.layers import is_container

Function = Callable[..., Any]

RELU: frozenset[Function] = frozenset(
    {
        functional.relu,
        functional.relu_,
        torch.relu,
        torch.relu_,
        torch.Tensor.relu,
        torch.Tensor.relu_,
    }
)
ADD: frozenset[Function] = frozenset(
    {
        torch.add,
        torch.Tensor.add,
        torch.Tensor.add_,
        torch.Tensor.__add__,
        torch.Tensor.__radd__,
        torch.Tensor.__iadd__,
    }
)
LINEAR: frozenset[Function] = frozenset(
    {
        torch.mean,
        torch.Tensor.mean,
        functional.avg_pool2d,
        functional.adaptive_avg_pool2d,
        functional.max_pool2d,
        torch.max_pool2d,
        functional.pad,
    }
)
"""Functions through which relevance is shared out in proportion, as through a layer."""

CURVED: dict[Function, str] = {
    torch.sigmoid: "sigmoid",
    torch.Tensor.sigmoid: "sigmoid",
    functional.sigmoid: "sigmoid",
    torch.tanh: "tanh",
    torch.Tensor.tanh: "tanh",
    torch.softmax: "softmax",
    torch.Tensor.softmax: "softmax",
    functional.softmax: "softmax",
    functional.gelu: "gelu",
    functional.silu: "silu",
    functional.relu6: "relu6",
    functional.hardtanh: "hardtanh",
    functional.leaky_relu: "leaky_relu",
    functional.elu: "elu",
    functional.layer_norm: "layer_norm",
    functional.scaled_dot_product_attention: "attention",
}
"""Functions that bend the signal and of which no backward rule knows."""


_BENDING = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.MaxPool2d,
)
_DROPOUTS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class PerCall(nn.Module):
    """A module for each call in a forward pass, in turn."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.call = 0

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Run the module of this call."""
        part = self.parts[self.call % len(self.parts)]
        self.call += 1
        return part(*inputs, **options)


class FunctionLayer(nn.Module):
    """A call of a function as a module, so that relevance can be shared out over its input."""

    def __init__(self) -> None:
        super().__init__()
        self.bound: Callable[[torch.Tensor], torch.Tensor] | None = None

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the function of `values`."""
        if self.bound is None:
            raise LayerError("a function layer was called before its function was known")
        return self.bound(values)


class Apart(nn.Module):
    """Passes its input on as another tensor, so that hooks on either side do not meet on one."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return a copy."""
        return values.clone()


class PoolWindows(nn.Module):
    """Lays the windows of a max pooling side by side, so that they no longer overlap.

    Behind it a pooling of the same kernel, with its side as stride, gives the same maxima.

    Parameters
    ----------
    pool
        The pooling whose windows are meant.
    """

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.kernel = _pair(pool.kernel_size)
        self.stride = _pair(pool.kernel_size if pool.stride is None else pool.stride)
        self.padding, self.dilation = _pair(pool.padding), _pair(pool.dilation)
        self.ceil_mode = bool(pool.ceil_mode)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return (n, channel, height, width) with one window after the other."""
        lowest = torch.finfo(values.dtype).min
        rows = self._indices(values.shape[2], 0)
        columns = self._indices(values.shape[3], 1)
        tall = max(0, max(rows) - self.padding[0] - values.shape[2] + 1)
        wide = max(0, max(columns) - self.padding[1] - values.shape[3] + 1)
        edges = (self.padding[1], wide, self.padding[0], tall)
        padded = functional.pad(values, edges, value=lowest)
        device = values.device
        lines = padded.index_select(2, torch.tensor(rows, device=device))
        return lines.index_select(3, torch.tensor(columns, device=device))

    def _indices(self, length: int, axis: int) -> list[int]:
        reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        room = length + 2 * self.padding[axis] - reach
        count = room // self.stride[axis] + 1
        if self.ceil_mode and room % self.stride[axis]:
            # a window may begin in the right padding only if it begins inside the map
            count += count * self.stride[axis] < length + self.padding[axis]
        return [
            window * self.stride[axis] + place * self.dilation[axis]
            for window in range(count)
            for place in range(self.kernel[axis])
        ]


class PlainNetwork(nn.Module):
    """A copy of a network without in-place operations and without modules that run twice.

    Parameters
    ----------
    model
        The network; it is left as it is. Frozen parameters are fine.
    canvas_size
        Side of the canvas for the pass that counts calls, px.
    functions
        Whether calls of relu, additions and poolings that are no modules become modules.
    apart
        Whether max poolings whose windows overlap are split into windows and pooling, and modules
        that follow each other directly get tensors of their own between them.

    Raises
    ------
    InputError
        Parameters made under ``torch.inference_mode``, which have no gradients.

    Attributes
    ----------
    reused
        Names of modules with parameters that run more than once.
    curved
        Names of functions, outside modules, that bend the signal.
    """

    def __init__(
        self,
        model: Model,
        canvas_size: int,
        *,
        functions: bool = False,
        apart: bool = False,
    ) -> None:
        super().__init__()
        check_gradients(model)
        self.network = copy.deepcopy(model.module).eval()
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)
        for part in self.network.modules():
            if getattr(part, "inplace", False) is True:
                part.inplace = False  # type: ignore[assignment]
        self._mode = _Functions(functions)
        self.reused: tuple[str, ...] = ()
        pixels = torch.zeros(1, canvas_size, canvas_size, 3, dtype=torch.uint8, device=model.device)
        self._separate_calls(model.transform.apply(pixels))
        if apart:
            self._set_apart()
        if functions:
            self._replace_identities()
        self._mode.watch(self.network)
        if self._mode.made:
            self.functions = nn.ModuleList(self._mode.made)
        self.curved = tuple(sorted(self._mode.curved))

    def forward(self, values: torch.Tensor) -> Any:
        """Return what the network returns."""
        for part in self.modules():
            if isinstance(part, PerCall):
                part.call = 0
        self._mode.restart()
        with self._mode:
            return self.network(values)

    def until(
        self, values: torch.Tensor, module: str, call: int, output: int | str | None
    ) -> torch.Tensor:
        """Return what a call of a module gives; the rest of the pass is not run.

        Raises
        ------
        LayerError
            The module does not run, or not so often.
        """
        seen = 0

        def hook(part: nn.Module, inputs: tuple[Any, ...], found: object) -> None:
            nonlocal seen
            if seen == call:
                raise _Enough(output_tensors(found)[output])
            seen += 1

        handle = self.network.get_submodule(module).register_forward_hook(hook)
        try:
            self(values)
        except _Enough as enough:
            return enough.tensor
        finally:
            handle.remove()
        raise LayerError(f"layer {module!r} ran {seen} time(s) in a forward pass, not {call + 1}")

    def part(self, module: str, call: int = 0) -> nn.Module:
        """Return the module that makes a call of the network's module of that name."""
        found = self.network.get_submodule(module)
        return found.parts[call] if isinstance(found, PerCall) else found

    # --- building ---------------------------------------------------------------------------

    def _separate_calls(self, values: torch.Tensor) -> None:
        """Count the calls of every module; give those without parameters one for each call."""
        calls: Counter[nn.Module] = Counter()
        leaves = [part for part in self.network.modules() if not is_container(part)]
        with contextlib.ExitStack() as stack:
            for handle in self._mode.watch(self.network):
                stack.callback(handle.remove)
            for part in leaves:
                handle = part.register_forward_pre_hook(lambda p, _: calls.update([p]))
                stack.callback(handle.remove)
            with torch.no_grad():
                self(values)
        names = [
            (name, part)
            for name, part in self.network.named_modules(remove_duplicate=False)
            if name and calls[part] > 1
        ]
        made: dict[nn.Module, PerCall] = {}
        kept = []
        for name, part in names:
            if any(True for _ in part.parameters()):
                kept.append(name)
                continue
            if part not in made:
                made[part] = PerCall([copy.deepcopy(part) for _ in range(calls[part])])
            self.network.set_submodule(name, made[part])
        self.reused = tuple(dict.fromkeys(kept))

    def _set_apart(self) -> None:
        """Give every module that bends the signal an input tensor of its own."""
        for name, part in list(self.network.named_modules()):
            if isinstance(part, nn.MaxPool2d) and _overlaps(part):
                pool = nn.MaxPool2d(_pair(part.kernel_size))
                self.network.set_submodule(name, nn.Sequential(PoolWindows(part), pool))
            elif name and isinstance(part, _BENDING):
                self.network.set_submodule(name, nn.Sequential(Apart(), part))

    def _replace_identities(self) -> None:
        """Make what passes its input on a dropout, which in evaluation does so too."""
        for name, part in list(self.network.named_modules(remove_duplicate=False)):
            empty = isinstance(part, nn.Sequential) and not is_container(part)
            if name and (empty or isinstance(part, (nn.Identity, *_DROPOUTS))):
                self.network.set_submodule(name, nn.Dropout().eval())


class _Enough(Exception):
    """Raised inside the last hook that is needed, with what it was given."""

    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__()
        self.tensor = tensor


class _Functions(TorchFunctionMode):
    """Turns additions in place into plain ones and, if wanted, calls of functions into modules."""

    def __init__(self, modules: bool) -> None:
        super().__init__()
        self._modules = modules
        self.made: list[nn.Module] = []
        self.curved: set[str] = set()
        self._next, self._depth = 0, 0

    def restart(self) -> None:
        """Begin a forward pass."""
        self._next, self._depth = 0, 0

    def watch(self, network: nn.Module) -> list[RemovableHandle]:
        """Know when a module that is made of no others runs: what it calls is its own affair."""
        handles = []
        for part in network.modules():
            if not is_container(part):
                handles.append(part.register_forward_pre_hook(self._enter))
                handles.append(part.register_forward_hook(self._leave))
        return handles

    def _enter(self, *_: object) -> None:
        self._depth += 1

    def _leave(self, *_: object) -> None:
        self._depth -= 1

    def __torch_function__(
        self,
        function: Function,
        types: Any,
        arguments: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        options = options or {}
        if self._depth == 0:
            if function in ADD and _same(arguments) and not options:
                if self._modules:
                    return self._take(Addition_Module)(*arguments)
                return torch.add(*arguments)
            if function in RELU:
                if self._modules:
                    return self._take(nn.ReLU)(arguments[0].clone())
                return torch.relu(arguments[0])
            if self._modules and function in LINEAR and arguments:
                layer = self._take(FunctionLayer)
                layer.bound = lambda values: function(values, *arguments[1:], **options)
                return layer(arguments[0])
            if function in CURVED:
                self.curved.add(CURVED[function])
        return function(*arguments, **options)

    def _take(self, kind: type[nn.Module]) -> Any:
        """Return the module of this call, made in the first pass."""
        if self._next == len(self.made):
            self.made.append(kind())
        part = self.made[self._next]
        if not isinstance(part, kind):
            raise LayerError(
                "the network does not do the same in every forward pass, so its functions cannot "
                "become modules; take a method that needs gradients only, such as saliency"
            )
        self._next += 1
        return part


def check_gradients(model: Model) -> None:
    """Refuse a network whose tensors were made under ``torch.inference_mode``.

    Raises
    ------
    InputError
        Naming the first such tensor.
    """
    tensors = (*model.module.named_parameters(), *model.module.named_buffers())
    for name, tensor in tensors:
        if tensor.is_inference():
            raise InputError(
                f"{model.name} has no gradients: its {name!r} was made under "
                "torch.inference_mode; build and load it outside (frozen parameters are fine)"
            )


@contextlib.contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Keep TF32 out of the computation on a GPU, then restore what was set."""
    if device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32)
    matmul.allow_tf32, cudnn.allow_tf32 = False, False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def _same(arguments: tuple[Any, ...]) -> bool:
    """Return whether the arguments are two tensors of one shape that carry a signal."""
    if len(arguments) != 2 or not all(isinstance(a, torch.Tensor) for a in arguments):
        return False
    first, second = arguments
    return bool(first.shape == second.shape and first.ndim > 1 and first.is_floating_point())


def _pair(size: Any) -> tuple[int, int]:
    first, second = (size, size) if isinstance(size, int) else size
    return int(first), int(second)


def _overlaps(pool: nn.MaxPool2d) -> bool:
    stride = _pair(pool.kernel_size if pool.stride is None else pool.stride)
    plain = _pair(pool.padding) == (0, 0) and _pair(pool.dilation) == (1, 1)
    return not plain or any(s < k for s, k in zip(stride, _pair(pool.kernel_size), strict=True))
