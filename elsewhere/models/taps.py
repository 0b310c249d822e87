"""Hooks that call back with what modules give, and are gone on exit, whatever happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from torch import nn
from torch.utils.hooks import RemovableHandle

from elsewhere.errors import UnknownNameError

Receive: TypeAlias = Callable[[str, int, Any, object], None]
"""Called inside the hook with the module's name, the number of its call in this forward pass, from
0, its first argument (None without) and its output."""


class Taps:
    """Hooks on named modules, attached while the ``with`` block runs.

    >>> with Taps(network, ["features.29"], receive):   # doctest: +SKIP
    ...     network(images)
    """

    def __init__(self, module: nn.Module, names: Iterable[str], receive: Receive) -> None:
        self._module, self._names, self._receive = module, tuple(dict.fromkeys(names)), receive
        self._handles: list[RemovableHandle] = []
        self.calls: Counter[str] = Counter()

    def __enter__(self) -> Taps:
        modules = dict(self._module.named_modules())
        try:
            self._handles.append(self._module.register_forward_pre_hook(self._restart))
            for name in self._names:
                if name not in modules:
                    raise UnknownNameError("module", name, modules)
                self._handles.append(modules[name].register_forward_hook(self._hook(name)))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _restart(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.calls.clear()

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], object], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
            call = self.calls[name]
            self.calls[name] += 1
            self._receive(name, call, inputs[0] if inputs else None, output)

        return hook
