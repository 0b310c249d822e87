"""How windows pass through an operation, and the operation as a rule sees it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from elsewhere.recording.incremental.geometry import Slide

Tensor: TypeAlias = torch.Tensor


@dataclass(frozen=True)
class Map:
    """Stands for a map of shape (row, channel, height, width) among a call's arguments."""

    channels: int
    height: int
    width: int

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width


@dataclass(frozen=True)
class Call:
    """An operation as it occurs in a network.

    Among its arguments a :class:`Map` stands for each map that has windows.
    """

    name: str  # of the rule: a module's class, a function or a method
    module: nn.Module | None  # where it is one
    function: Callable[..., Any]  # the module included; in place, it changes its first argument
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Map | None  # what comes of it; None unless that is a map

    @property
    def maps(self) -> list[Map]:
        """Maps among the arguments, in order; those of a list are taken out."""
        found: list[Map] = []
        for value in (*self.args, *self.kwargs.values()):
            values = value if isinstance(value, list | tuple) else [value]
            found += [entry for entry in values if isinstance(entry, Map)]
        return found

    def arguments(self, *names: str, **defaults: Any) -> dict[str, Any]:
        """Return the arguments of a function by name, or a module's attributes."""
        values = dict(defaults)
        if self.module is not None:
            return {n: getattr(self.module, n, values.get(n)) for n in (*names, *values)}
        every = (*names, *defaults)
        values |= dict(zip(every, self.args[1:], strict=False))
        values |= {n: v for n, v in self.kwargs.items() if n in every}
        return values


Run: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sliding:
    """An operation that slides over one map.

    Parameters
    ----------
    slides
        Along y and x.
    run
        Runs it, without padding, on windows of shape (n, channel, height, width).
    fill
        The value beyond the map's edges.
    whole
        Runs it on whole maps.
    divisor
        Where given: per axis, what every output cell is to be divided by.
    """

    slides: tuple[Slide, Slide]
    run: Run
    whole: Run
    fill: float = 0.0
    divisor: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Pointwise:
    """An operation on one map, cell by cell.

    Parameters
    ----------
    run
        Runs it on windows of any size, leaving them as they are.
    overwrite
        Runs it in place, where that is possible.
    """

    run: Run
    overwrite: Run | None = None


@dataclass(frozen=True)
class Together:
    """An operation on several maps of one size, cell by cell.

    Parameters
    ----------
    run
        Runs it on windows in the order of the maps; it may overwrite the first.
    stacks
        Whether it only stacks the channels.
    """

    run: Callable[..., Tensor]
    stacks: bool = False


@dataclass(frozen=True)
class Global:
    """The mean of each channel over the whole map.

    Parameters
    ----------
    keeps
        Whether the result keeps two dimensions of 1.
    """

    keeps: bool


Treatment: TypeAlias = Sliding | Pointwise | Together | Global


def mutates(call: Call) -> bool:
    """Return whether a call changes its first argument."""
    inplace = getattr(call.module, "inplace", None)
    if call.module is None:
        inplace = call.kwargs.get("inplace", False)
        if not inplace and len(call.args) > 1 and isinstance(call.args[-1], bool):
            inplace = _positional_inplace(call)
    in_name = call.name.endswith("_") and not call.name.endswith("__")
    return bool(inplace) or in_name or call.name in _AUGMENTED


_AUGMENTED = frozenset({"iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow"})


def _positional_inplace(call: Call) -> bool:
    try:
        given = inspect.signature(call.function).bind(*call.args, **call.kwargs)
    except (TypeError, ValueError):
        return False
    return bool(given.arguments.get("inplace", False))
