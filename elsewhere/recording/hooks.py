"""Copies of named layers' outputs, made before an in-place operation can change them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from elsewhere.errors import LayerError, UnknownNameError
from elsewhere.forms import matching
from elsewhere.models import output_tensors
from elsewhere.models.aliases import aliases
from elsewhere.models.forward import evaluating
from elsewhere.models.heads import HEAD
from elsewhere.models.model import unwrap
from elsewhere.models.outputs import is_container
from elsewhere.models.taps import Taps


class Recorder:
    """Copies the outputs of named layers of any network.

    >>> from torch import nn, zeros
    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    >>> with Recorder(network, ["0"]) as recorder:
    ...     _ = network(zeros(1, 3, 8, 8))
    >>> recorder["0"].shape            # as the convolution gave it, before the in-place ReLU
    torch.Size([1, 4, 6, 6])

    Within the ``with`` block the network is in evaluation mode and records no gradients; after
    it, also after an exception, every part is as it was and no hook is left.

    Parameters
    ----------
    module
        The network; wrappers such as ``DataParallel`` are looked through.
    layers
        Module names, aliases (``fc7``), globs (``features.*``) or ``depth:2``; ``name:1`` is the
        second call of a module that is called more than once, ``name[key]`` one of several output
        tensors.
    channels_last
        Hand images to the network in channels-last order, in which convolutions may run faster (on
        a CPU VGG16 by a fifth). Activations have the same shapes, and values that differ by
        rounding.

    Raises
    ------
    UnknownNameError
        No such layer, on entry.
    LayerError
        A layer does not fire in a forward pass, or gives no tensor.

    Notes
    -----
    The copies live in buffers that the next forward pass uses again: ``clone`` what is to last.
    """

    def __init__(
        self, module: nn.Module, layers: str | Sequence[str], *, channels_last: bool = False
    ) -> None:
        self.module = unwrap(module)
        self._channels_last = channels_last
        self._layers = (layers,) if isinstance(layers, str) else tuple(layers)
        self._buffers: dict[_Output, torch.Tensor] = {}
        self._found: dict[str, list[_Output]] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Recorder:
        self._requests: dict[str, list[_Request]] = {}
        for request in self._expand():
            self._requests.setdefault(request.module, []).append(request)
        with contextlib.ExitStack() as stack:
            stack.enter_context(evaluating(self.module))
            self._taps = stack.enter_context(Taps(self.module, self._requests, self._receive))
            handle = self.module.register_forward_pre_hook(lambda *_: self._found.clear())
            stack.callback(handle.remove)
            if self._channels_last:
                handle = self.module.register_forward_pre_hook(lambda _, args: _reorder(args))
                stack.callback(handle.remove)
            handle = self.module.register_forward_hook(lambda *_: self._check())
            stack.callback(handle.remove)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return the copy of a layer's output in the last forward pass."""
        every = self._outputs()
        found = [output for short, output in every.items() if name in (short, output.name)]
        found = found or self._found.get(name, [])
        if len(found) == 1:
            return self._buffers[found[0]]
        if found:
            raise LayerError(
                f"layer {name!r} gave several outputs in one forward pass; ask for one of "
                + ", ".join(short for short, output in every.items() if output in found)
            )
        hint = "" if every else "nothing is recorded before a forward pass"
        raise UnknownNameError("recorded layer", name, every, hint)

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs())

    def __len__(self) -> int:
        return len(self._outputs())

    def _outputs(self) -> dict[str, _Output]:
        """Return what the last forward pass gave, by name: with calls only where several."""
        every = [output for found in self._found.values() for output in found]
        return {
            output.name if self._taps.calls[output.module] > 1 else output.only_name: output
            for output in every
        }

    def _expand(self) -> Iterator[_Request]:
        """Yield what is wanted, with globs replaced by the parts that they match."""
        alias_of = {part: alias for alias, part in aliases(self.module).items()}
        modules = {name: part for name, part in self.module.named_modules() if name}
        leaves = [name for name, part in modules.items() if not is_container(part)]
        for wanted in dict.fromkeys(self._layers):
            deep, plain = wanted.startswith("depth:"), not set("*?") & set(wanted)
            base = re.sub(r"(:\d+)?(\[.*)?$", "", wanted)
            named = base == wanted or base in modules or base in alias_of.values()
            if plain and named and not deep:
                yield _Request.parse(wanted, self.module)
                continue
            found: list[str] = []
            for some in [list(modules)] if deep else [leaves, list(modules)]:
                known = [(alias_of.get(name, name), name) for name in some]
                found = found or [some[n] for n in matching(wanted, known)]
            for module in found:
                alias = alias_of.get(module, module)
                name = alias if matching(wanted, [(alias, alias)]) else module
                if name not in self._layers:
                    yield _Request(name, name, module, None, None, optional=True)
            if not found:
                raise UnknownNameError("layer", wanted, (*alias_of.values(), *leaves))

    def _receive(self, module: str, call: int, _: object, output: object) -> None:
        tensors = output_tensors(output)
        if not tensors and not all(request.optional for request in self._requests[module]):
            raise LayerError(
                f"layer {module!r} gives a {type(output).__name__} without tensors; "
                "record a module within or around it"
            )
        for request in self._requests[module]:
            if request.call not in (None, call):
                continue
            for key, tensor in tensors.items():
                if request.key in (None, str(key)):
                    place = _Output(request.stem, module, call, key)
                    self._copy(place, tensor)
                    self._found.setdefault(request.name, []).append(place)

    def _copy(self, place: _Output, tensor: torch.Tensor) -> None:
        buffer = self._buffers.get(place)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = self._buffers[place] = torch.empty_like(tensor)
        buffer.copy_(tensor.detach())

    def _check(self) -> None:
        for module, requests in self._requests.items():
            for request in requests:
                calls = self._taps.calls[module]
                if request.name in self._found or request.optional:
                    continue
                if calls == 0:
                    raise LayerError(
                        f"layer {request.name!r} did not run in the forward pass; "
                        "`elsewhere layers MODEL` lists those that do"
                    )
                raise LayerError(
                    f"layer {request.name!r} is not among what {module!r} gave: it ran {calls} "
                    f"time(s), calls are numbered from 0; ask for {request.stem!r} to see all"
                )


def _reorder(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return arguments with maps in channels-last order."""
    return tuple(
        value.contiguous(memory_format=torch.channels_last)
        if isinstance(value, torch.Tensor) and value.ndim == 4
        else value
        for value in arguments
    )


@dataclass(frozen=True)
class _Output:
    """A tensor that a call of a module gave, under the name that was asked for."""

    stem: str
    module: str
    call: int
    key: int | str | None

    @property
    def name(self) -> str:
        return f"{self.stem}:{self.call}" + ("" if self.key is None else f"[{self.key}]")

    @property
    def only_name(self) -> str:
        return self.stem + ("" if self.key is None else f"[{self.key}]")


@dataclass(frozen=True)
class _Request:
    """A wanted output: of a module, of one of its calls, one of its tensors.

    What a glob matches is `optional`: it is left out where it does not run or gives no tensor.
    """

    name: str
    stem: str
    module: str
    call: int | None
    key: str | None
    optional: bool = False

    @classmethod
    def parse(cls, name: str, module: nn.Module) -> _Request:
        first = {id(part): dotted for dotted, part in module.named_modules()}
        every = dict(module.named_modules(remove_duplicate=False))
        names = aliases(module)
        match = re.fullmatch(r"(.+?)(?::(\d+))?(?:\[([^\]]+)\])?", name)
        stem, call, key = match.groups() if match else (name, None, None)
        dotted = names.get(stem, stem)
        if not dotted or dotted not in every:
            hint = "load_model finds the head: name its aliases['logits']" if stem == HEAD else ""
            raise UnknownNameError("layer", name, (*names, *filter(None, every)), hint)
        number = None if call is None else int(call)
        return cls(name, stem, first[id(every[dotted])], number, key)
