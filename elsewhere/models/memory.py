"""What a network remembers beside its ``state_dict``: counters, histories, generators, settings.

A pass may change plain attributes, buffers that are not saved, generators and containers that
modules hold, objects and closures of hooks. :class:`Memory` knows what they were at first, names
what has changed, and writes and restores it as plain values, which a file can hold.
"""

from __future__ import annotations

import argparse
import collections
import enum
import functools
import random
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from elsewhere.models.identity import FOREIGN, own_classes

Written: TypeAlias = tuple[Any, ...]
"""A value as a tag and plain values: numbers, texts, tuples, dictionaries, tensors."""

LARGEST = 2**24
"""Numbers in a tensor or array that is written; larger ones are taken to be constants."""

_PLAIN = (bool, int, float, str, bytes, type(None))
_FIXED = (type, types.ModuleType, types.BuiltinFunctionType, enum.Enum, torch.dtype, torch.device)
_HOOKS = frozenset({"_forward_hooks", "_forward_pre_hooks"})
_OWN = frozenset(vars(nn.Module())) - _HOOKS
_SETTINGS = (types.SimpleNamespace, argparse.Namespace)


class Memory:
    """What a network remembers, as it was when this was made.

    With `hooks` the closures of its hooks count; they may as well be an observer's.

    Examples
    --------
    >>> network = nn.Linear(2, 2)
    >>> network.calls = 0
    >>> memory = Memory(network)
    >>> network.calls += 1
    >>> memory.changed()
    {'calls': ('value', 1)}
    >>> memory.restore()
    >>> network.calls
    0
    """

    def __init__(self, module: nn.Module, *, hooks: bool = False) -> None:
        self._module, self._left_out = module, _OWN if hooks else _OWN | _HOOKS
        self._parts: dict[str, nn.Module] = dict(module.named_modules())
        self._first = self._write()
        self._outside = self._write_outside()

    def changed(self) -> dict[str, Written]:
        """Return what is not as it was at first, by dotted names."""
        now = self._write()
        return {
            name: now.get(name, ("gone",))
            for name in {**self._first, **now}
            if not _is_same(now.get(name), self._first.get(name))
        }

    def unwritten(self) -> list[str]:
        """Return the names of what changes and cannot be written, such as iterators."""
        now = self._write()
        return [
            name
            for name, value in now.items()
            if (found := list(_opaque(value)))
            and (any(kind == "iterator" for kind, *_ in found) or found != self._opaque_of(name))
        ]

    def differing(self, other: Memory) -> list[str]:
        """Return the names of what another network remembers otherwise, but for texts."""
        both = {**self._first, **other._first}
        return [
            name
            for name in both
            if not _is_same(*(_numbers(each._first.get(name, ())) for each in (self, other)))
        ]

    def outside(self) -> list[str]:
        """Return the names of what has changed in the modules and classes of the network's code."""
        now = self._write_outside()
        return [name for name, value in now.items() if not _is_same(value, self._outside.get(name))]

    def restore(self, kept: Mapping[str, Written] | None = None) -> None:
        """Give everything back as it was at first, but for what is `kept`.

        Modules that have been replaced since, such as a head, stay what they are.
        """
        wanted = {**self._first, **(kept or {})}
        now = self._write()
        for name, place, key, _ in self._slots():
            if name not in wanted:
                place.pop(key, None)
        parts = dict(self._module.named_modules())
        for name, written in wanted.items():
            stem, _, key = name.rpartition(".")
            part = parts.get(stem)
            if part is None or self._is_replaced(stem, part):
                continue
            if _is_same(now.get(name), written):
                continue
            holder: Any = part._buffers if key in part._buffers else vars(part)
            if written[0] == "gone":
                holder.pop(key, None)
            else:
                holder[key] = _read(written, holder.get(key))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Give everything back afterwards as it is now."""
        before = self.changed()
        try:
            yield
        finally:
            self.restore(before)

    def _is_replaced(self, name: str, part: nn.Module) -> bool:
        return self._parts.get(name) is not part

    def _opaque_of(self, name: str) -> list[Written]:
        return list(_opaque(self._first.get(name, ())))

    def _slots(self) -> Iterator[tuple[str, dict[str, Any], str, Any]]:
        """Yield what modules remember: dotted name, where it stands, key, value."""
        for name, part in self._module.named_modules():
            if self._is_replaced(name, part):
                continue
            stem = f"{name}." if name else ""
            for key in part._non_persistent_buffers_set:
                yield f"{stem}{key}", part._buffers, key, part._buffers[key]
            for key, value in list(vars(part).items()):
                if key not in self._left_out:
                    yield f"{stem}{key}", vars(part), key, value

    def _write(self) -> dict[str, Written]:
        seen: dict[int, object] = {id(part): part for part in self._module.modules()}
        return {name: _write(value, seen) for name, _, _, value in self._slots()}

    def restore_outside(self) -> None:
        """Give back what the network's code remembers outside of it, as it was at first.

        That is what values can depend on: tensors, arrays, generators and fractions. Hooks, and
        whole numbers such as counts, may be an observer's.
        """
        seen = self._seen()
        for name, put, value in list(self._outside_slots(hooks=False)):
            first, now = self._outside.get(name), _write(value, seen)
            if first is not None and not _is_same(now, first) and (_weighs(now) or _weighs(first)):
                put(_read(first, value))

    def _seen(self) -> dict[int, object]:
        return {id(part): part for part in self._module.modules()}

    def _write_outside(self) -> dict[str, Written]:
        seen = self._seen()
        return {name: _write(value, seen) for name, _, value in self._outside_slots()}

    def _outside_slots(
        self, *, hooks: bool = True
    ) -> Iterator[tuple[str, Callable[[Any], None], Any]]:
        """Yield what classes, modules and closures of the network's code remember.

        Name, how it is set, and value; of functions that its methods and hooks call as well.
        """
        functions: list[types.FunctionType] = []
        for cls in own_classes(self._module):
            for key, value in vars(cls).items():
                if isinstance(value, types.FunctionType):
                    functions.append(value)
                elif not key.startswith("__") and _is_data(value):
                    yield f"{cls.__qualname__}.{key}", functools.partial(setattr, cls, key), value
        for part in self._module.modules():
            held = tuple(value for key, value in vars(part).items() if key != "forward")
            functions += [each for each in held if isinstance(each, types.FunctionType)]
            for hook in (*_hooks(part._forward_pre_hooks), *_hooks(part._forward_hooks)):
                if hooks and isinstance(hook, types.FunctionType):
                    for key, put, value in _globals_of(hook):
                        if _is_data(value):
                            yield f"{hook.__module__}.{key}", put, value
        met = {id(function) for function in functions}
        for function in functions:  # which grows
            for key, put, value in [*_globals_of(function), *_cells(function)]:
                if isinstance(value, types.FunctionType):
                    foreign = str(value.__module__).partition(".")[0] in FOREIGN
                    if not foreign and id(value) not in met:
                        met.add(id(value))
                        functions.append(value)
                elif _is_data(value):
                    yield f"{function.__module__}.{key}", put, value


def _globals_of(
    function: types.FunctionType,
) -> list[tuple[str, Callable[[Any], None], Any]]:
    """Return what a function uses of its module: names, how they are set, and values."""
    holder = function.__globals__
    return [
        (key, functools.partial(holder.__setitem__, key), holder[key])
        for key in _names_in(function.__code__)
        if key in holder
    ]


def _weighs(written: Any) -> bool:
    """Return whether a written value holds what the values of a network can depend on."""
    if isinstance(written, torch.Tensor | float):
        return True
    if isinstance(written, tuple) and written and written[0] in ("array", "generator"):
        return True
    return isinstance(written, tuple) and any(map(_weighs, written))


def _names_in(code: types.CodeType) -> Iterator[str]:
    """Yield the names that a function uses, those of functions within it as well."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _names_in(inner)


def _cells(function: types.FunctionType) -> list[tuple[str, Callable[[Any], None], Any]]:
    """Return what a function's closure holds: names, how they are set, and values."""
    found: list[tuple[str, Callable[[Any], None], Any]] = []
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        try:
            content = cell.cell_contents
        except ValueError:  # empty still
            continue
        found.append((name, functools.partial(setattr, cell, "cell_contents"), content))
    return found


def _is_data(value: object) -> bool:
    """Return whether something of a module or class could remember anything."""
    fixed = (*_FIXED, types.FunctionType, property, classmethod, staticmethod, nn.Module)
    return value is not None and not isinstance(value, fixed)


def _write(value: Any, seen: dict[int, object]) -> Written:
    if isinstance(value, _PLAIN):
        return "value", value
    if isinstance(value, torch.Tensor):
        return _write_tensor(value)
    if isinstance(value, np.ndarray | np.generic) and value.dtype != object:
        if value.size > LARGEST:
            return "opaque", "large", id(value)
        return "array", value.dtype.str, tuple(value.shape), value.tobytes(), value.ndim
    if isinstance(value, torch.Generator):
        return "generator", value.get_state()
    if isinstance(value, np.random.Generator):
        return "generator", _plain(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return "generator", _plain(value.get_state(legacy=False))
    if isinstance(value, random.Random):
        return "generator", value.getstate()
    if isinstance(value, _FIXED):
        return "opaque", repr(value)
    if id(value) in seen:  # written where it was met first
        return ("again",)
    seen[id(value)] = value
    if isinstance(value, collections.abc.Iterator):
        return "iterator", id(value)
    if isinstance(value, Mapping):
        if isinstance(value, collections.OrderedDict) and all(map(callable, value.values())):
            return "hooks", tuple(_write(hook, seen) for hook in _hooks(value))
        pairs = [(_write(k, seen), _write(v, seen)) for k, v in value.items()]
        return "mapping", tuple(pairs)
    if isinstance(value, list | tuple | collections.deque):
        return "sequence", tuple(_write(entry, seen) for entry in value)
    if isinstance(value, set | frozenset):
        return "set", tuple(_write(entry, seen) for entry in sorted(value, key=repr))
    if (parts := _parts(value)) is not None:
        return "object", tuple((key, _write(part, seen)) for key, part, _ in parts)
    return "opaque", type(value).__qualname__, id(value), repr(value)[:200]


def _write_tensor(value: torch.Tensor) -> Written:
    if value.is_meta or value.is_quantized or value.layout != torch.strided:
        return "opaque", "tensor", id(value)
    if value.numel() > LARGEST:
        return "opaque", "large", id(value)
    return "tensor", value.detach().clone()


def _plain(state: Any) -> Any:
    """Return the state of a generator of NumPy without arrays."""
    if isinstance(state, Mapping):
        return {key: _plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state


def _parts(value: Any) -> list[tuple[str, Any, Callable[[Any], None]]] | None:
    """Return what an object remembers: names, values, and how they are set; None: not known."""
    if isinstance(value, types.MethodType):
        return [("self", value.__self__, _nothing)]
    if isinstance(value, functools.partial):
        return [("func", value.func, _nothing), ("args", value.args, _nothing)] + [
            (key, entry, functools.partial(value.keywords.__setitem__, key))
            for key, entry in value.keywords.items()
        ]
    if isinstance(value, types.FunctionType):
        found: list[tuple[str, Any, Callable[[Any], None]]] = [
            (name, content, put) for name, put, content in _cells(value)
        ]
        attributes = vars(value)
        return found + [
            (f".{key}", entry, functools.partial(attributes.__setitem__, key))
            for key, entry in attributes.items()
        ]
    own = type(value).__module__.partition(".")[0] not in FOREIGN
    known = own or isinstance(value, (*_SETTINGS, nn.Module))
    if known and isinstance(getattr(value, "__dict__", None), dict):
        return [
            (key, entry, functools.partial(vars(value).__setitem__, key))
            for key, entry in list(vars(value).items())
        ]
    return None


def _hooks(registered: Mapping[Any, Any]) -> list[Any]:
    """Return the hooks that are the network's own, without their keys, which are the process's."""
    ours = __name__.partition(".")[0]
    return [
        hook
        for hook in registered.values()
        if str(getattr(hook, "__module__", "")).partition(".")[0] != ours
    ]


def _nothing(value: Any) -> None:
    """Leave what cannot be replaced: it is changed in place."""


def _read(written: Written, there: Any) -> Any:
    """Return a value as it was written, in place of, or within, what is there."""
    kind, *content = written
    if kind == "value":
        return content[0]
    if kind == "tensor":
        return content[0].clone()  # what is there may be an output that somebody holds
    if kind == "array":
        dtype, shape, data, n_axes = content
        array = np.frombuffer(data, dtype).reshape(shape).copy()
        return array if n_axes else array[()]
    if kind == "generator":
        _read_generator(content[0], there)
    elif kind == "sequence":
        old = list(there) if isinstance(there, list | tuple | collections.deque) else []
        old += [None] * (len(content[0]) - len(old))
        new = [_read(entry, before) for entry, before in zip(content[0], old, strict=False)]
        if isinstance(there, tuple) or there is None:
            return there if _are_same(new, old) and there is not None else tuple(new)
        there.clear()
        there.extend(new)
    elif kind == "mapping" and isinstance(there, dict):
        new_pairs = {}
        for key, entry in content[0]:
            name = _read(key, None)
            new_pairs[name] = _read(entry, there.get(name))
        there.clear()
        there.update(new_pairs)
    elif kind == "set" and isinstance(there, set):
        there.clear()
        there.update(_read(entry, None) for entry in content[0])
    elif kind == "hooks":
        for entry, hook in zip(content[0], _hooks(there), strict=False):
            _read(entry, hook)
    elif kind == "object":
        parts = {key: (part, put) for key, part, put in _parts(there) or []}
        for key, entry in content[0]:
            if key in parts:
                part, put = parts[key]
                put(_read(entry, part))
            elif isinstance(getattr(there, "__dict__", None), dict):
                vars(there)[key] = _read(entry, None)
    return there


def _are_same(new: list[Any], old: list[Any]) -> bool:
    return len(new) == len(old) and all(a is b for a, b in zip(new, old, strict=True))


def _read_generator(state: Any, there: Any) -> None:
    if isinstance(there, torch.Generator):
        there.set_state(state)
    elif isinstance(there, np.random.Generator):
        there.bit_generator.state = state
    elif isinstance(there, np.random.RandomState):
        there.set_state(state)
    elif isinstance(there, random.Random):
        version, internal, gauss = state
        there.setstate((version, tuple(internal), gauss))


def _opaque(written: Any) -> Iterator[Written]:
    """Yield all of a written value that stands for something that cannot be written."""
    if not isinstance(written, tuple) or not written:
        return
    if written[0] in ("opaque", "iterator"):
        yield written
        return
    for entry in written:
        if isinstance(entry, tuple):
            yield from _opaque(entry)


def _numbers(written: Any) -> Any:
    """Return a written value without what cannot be compared, and without texts."""
    if not isinstance(written, tuple) or not written:
        return written
    if written[0] in ("opaque", "iterator") or (
        written[0] == "value" and isinstance(written[1], str | bytes)
    ):
        return ()
    return tuple(map(_numbers, written))


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            return False
        both = (one == other) | (one != one) & (other != other)  # NaN is what it was
        return bool(both.all())
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, float) and one != one:
        return isinstance(other, float) and other != other
    return type(one) is type(other) and bool(one == other)
