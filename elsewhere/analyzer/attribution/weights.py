"""The weights that a pass uses, by the layer that uses them last, and how they are randomised."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import keystr, tree_flatten_with_path

from elsewhere.models.outputs import memory_of, tensors_in

_MODULE = frozenset(vars(nn.Module()))
_GIVEN = frozenset({"tensor", "as_tensor", "asarray", "from_numpy", "frombuffer"})
"""Functions that make tensors of constants."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """What is randomised of a layer together, by names in the network.

    Parameters
    ----------
    parameters, statistics
        What is learnt, and other tensors of numbers: buffers, and those that modules hold plainly.
    size
        Values of both.
    fixed
        Values of what takes part and cannot be randomised, by name.
    """

    parameters: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    size: int = 0
    fixed: Mapping[str, int] = dataclasses.field(default_factory=dict)


def weights_by_layer(module: nn.Module, run: Callable[[], object]) -> dict[str, Weights]:
    """Return all weights that a pass uses, by layer, from the output to the input.

    The layer is the innermost module that runs and holds them, itself or in modules that never run
    (parts of an attention, parametrisations). Its place is where one of them, or what is computed
    from it (a view, a normed weight), meets what is computed from the image for the last time: at
    each stage all that lies behind is random too. What a pass does not use, such as all that lies
    behind its end, is left out. What is fixed are masks of infinite values, and tensors that no
    module holds, such as those of a closure, of the module's globals or written in its code.

    Parameters
    ----------
    module
        The network.
    run
        Runs it, until the target.
    """
    tensors, learnt = tensors_of(module), dict(module.named_parameters())
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
        tensor = uses.tensors[name]
        layer = name.partition("[")[0].rpartition(".")[0]
        while layer and layer not in ran:
            layer = layer.rpartition(".")[0]
        held = found.pop(layer, Weights())  # to the end: the last use counts
        if name not in tensors or not bool(torch.isfinite(tensor).all()):
            held = dataclasses.replace(held, fixed={**held.fixed, name: tensor.numel()})
        else:
            learn = name in learnt
            held = dataclasses.replace(
                held,
                parameters=(*held.parameters, name) if learn else held.parameters,
                statistics=held.statistics if learn else (*held.statistics, name),
                size=held.size + tensor.numel(),
            )
        found[layer] = held
    return dict(reversed(found.items()))


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors of numbers that a network's modules hold, by name, and memory once.

    Parameters, buffers, and plain attributes, also within lists, tuples and dictionaries.
    """
    found = dict(module.named_parameters()) | dict(module.named_buffers())
    found = {name: tensor for name, tensor in found.items() if _has_numbers(tensor)}
    stores = {memory_of(tensor) for tensor in found.values()} - {0}
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            if key in _MODULE:
                continue
            for path, leaf in tree_flatten_with_path(value)[0]:
                numbers = isinstance(leaf, torch.Tensor) and _has_numbers(leaf)
                if numbers and memory_of(leaf) not in stores:
                    stores.add(memory_of(leaf))
                    found[(f"{name}." if name else "") + key + keystr(path)] = leaf
    return found


def _has_numbers(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _note(ran: set[str], uses: _Uses, name: str, _: nn.Module, args: Any, kwargs: Any) -> None:
    """Note a module that is given something other than weights: parametrisations are not."""
    given = tensors_in((args, kwargs))
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
        self.tensors = dict(weights)
        """The weights, and the constants from elsewhere that were met."""
        self._made: set[int] = set()
        self._held: list[torch.Tensor] = []  # so that no other tensor gets its number
        self._weights: dict[int, frozenset[str]] = {}
        self._stores: dict[int, frozenset[str]] = {}
        self._images: set[int] = set()
        self._places: dict[str, tuple[bool, int]] = {}
        self._count = 0
        for name, tensor in weights.items():
            self._weights[id(tensor)] = frozenset([name])
            store = memory_of(tensor)
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
        return self._stores.get(memory_of(tensor), frozenset()) if own is None else own

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        leaves = tensors_in((args, kwargs or {}))
        for leaf in leaves if self._images else ():
            known = id(leaf) in self._images | self._made or self.weights_in(leaf)
            if not known and _has_numbers(leaf):
                self._take_constant(leaf, function)
        weights = frozenset[str]().union(*map(self.weights_in, leaves))
        seen = any(id(leaf) in self._images for leaf in leaves)
        result = function(*args, **(kwargs or {}))
        self._count += 1
        for name in weights:
            self._places[name] = max((seen, self._count), self._places.get(name, (False, 0)))
        made = tensors_in(result)
        if result is None:  # such as an assignment to a part of the first
            made = leaves[:1]
        self._held.extend(made)
        self._made.update(map(id, made))
        if seen:
            self._images.update(map(id, made))
        elif weights:
            self._weights.update((id(tensor), weights) for tensor in made)
        elif self._images and not leaves and getattr(function, "__name__", "") in _GIVEN:
            for tensor in filter(_has_numbers, made):
                self._take_constant(tensor, function)
        return result

    def _take_constant(self, tensor: torch.Tensor, function: Any) -> None:
        """Note a tensor that no module of the network holds."""
        sides = " x ".join(map(str, tensor.shape)) or "one number"
        name = f"({getattr(function, '__name__', 'constant')}: {sides})"
        while name in self.tensors:
            name += "'"
        self.tensors[name] = tensor
        self._held.append(tensor)
        self._weights[id(tensor)] = frozenset([name])


def randomise(module: nn.Module, weights: Weights, *, seed: int) -> None:
    """Shuffle the values within each parameter and statistic of a layer, in place.

    The values stay the layer's own, so that signals keep their size; what they were learnt for is
    gone. A parameter of equal values other than 0, such as a slope or a scale, would stay what it
    is: it is multiplied by standard normal numbers; a buffer of a layer without parameters, such as
    a fixed filter, by their absolute values, so that what has to be positive stays so.

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
    tensors = tensors_of(module)
    with torch.no_grad():
        for name in (*weights.parameters, *weights.statistics):
            tensor = tensors[name]
            order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
            values = tensor.flatten()[order].reshape(tensor.shape)
            learnt = name in weights.parameters
            if (learnt or not weights.parameters) and torch.equal(values, tensor):
                factors = torch.randn(tensor.shape, generator=generator).to(tensor)
                values = values * (factors if learnt else factors.abs())
            tensor.copy_(values)
