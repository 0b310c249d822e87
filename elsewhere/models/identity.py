"""What of a network determines its outputs, beside its state: structure, code, settings."""

from __future__ import annotations

import hashlib
import inspect
import numbers
import sys
import types
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from elsewhere.models.names import torchvision_version

LIBRARIES = frozenset({"torch", "torchvision", "builtins", "abc", "typing"})
"""Top-level packages whose classes are named by their version, not by their source."""

FOREIGN = (sys.stdlib_module_names | LIBRARIES) - {"__main__"}
"""Top-level packages that are nobody's own code."""


def describe_code(module: nn.Module) -> dict[str, Any]:
    """Return digests of everything that determines a network's outputs, but for its state.

    Parameters
    ----------
    module
        The network.

    Returns
    -------
    dict
        ``architecture``, SHA-256 of its ``repr``; ``source``, that of the source of every class of
        its modules that is not torch's or torchvision's (with their base classes), by name;
        ``settings``, that of the plain attributes of its modules (numbers, texts, tensors that are
        no part of the state, functions); ``torchvision``, its version.

    Examples
    --------
    >>> described = describe_code(nn.Sequential(nn.Linear(2, 3)))
    >>> described["source"], sorted(described)
    ({}, ['architecture', 'settings', 'source', 'torchvision'])
    """
    settings = hashlib.sha256()
    for name, part in module.named_modules():
        for key, value in sorted(vars(part).items()):
            if not key.startswith("_") and key != "training":
                settings.update(f"{name}\0{key}\0".encode() + _content(value) + b"\0")
        for hook in (*part._forward_pre_hooks.values(), *part._forward_hooks.values()):
            settings.update(f"{name}\0hook\0".encode() + _content(hook) + b"\0")
    return {
        "architecture": hashlib.sha256(repr(module).encode()).hexdigest(),
        "source": {_name(cls): source_sha256(cls) for cls in own_classes(module)},
        "settings": settings.hexdigest(),
        "torchvision": torchvision_version(),
    }


def own_classes(module: nn.Module) -> list[type]:
    """Return the classes of a network's modules that are not torch's or torchvision's, by name."""
    classes = {
        cls
        for part in module.modules()
        for cls in type(part).__mro__
        if cls.__module__.partition(".")[0] not in LIBRARIES
    }
    return sorted(classes, key=_name)


def source_sha256(cls: type | ModuleType) -> str:
    """Return the SHA-256 of a class's source, or a module's; of what it holds where there is none.

    Examples
    --------
    >>> made = type("Made", (), {"answer": lambda self: 42})
    >>> other = type("Made", (), {"answer": lambda self: 43})
    >>> source_sha256(made) == source_sha256(other)
    False
    """
    try:
        content = inspect.getsource(cls).encode()
    except (OSError, TypeError):
        content = b"".join(
            key.encode() + b"\0" + _content(value) + b"\0"
            for key, value in sorted(vars(cls).items())
            if not key.startswith("__") or callable(value)
        )
    return hashlib.sha256(content).hexdigest()


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _content(value: object) -> bytes:
    """Return bytes that tell a setting from another one; of other objects, their class only."""
    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        kind = f"{value.dtype} {tuple(value.shape)}".encode()
        return kind + hashlib.sha256(flat.view(torch.uint8).numpy().data).digest()
    if isinstance(value, np.ndarray) and value.dtype != object:
        data = np.ascontiguousarray(value).tobytes()
        return f"{value.dtype} {value.shape}".encode() + hashlib.sha256(data).digest()
    if value is None or isinstance(value, str | bytes | numbers.Number | torch.dtype):
        return repr(value).encode()
    if isinstance(value, list | tuple | set | frozenset):
        inner = [_content(entry) for entry in value]
        if isinstance(value, set | frozenset):
            inner.sort()
        return type(value).__name__.encode() + b"(" + b",".join(inner) + b")"
    if isinstance(value, dict):
        pairs = (_content(key) + b":" + _content(entry) for key, entry in value.items())
        return b"{" + b",".join(pairs) + b"}"
    if isinstance(value, types.MethodType):
        return _content(value.__func__)
    if isinstance(value, types.FunctionType):
        return _code(value.__code__) + _content(value.__defaults__)
    if isinstance(value, type | types.BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}".encode()
    return _name(type(value)).encode()


def _code(code: types.CodeType) -> bytes:
    constants = (_code(c) if isinstance(c, types.CodeType) else _content(c) for c in code.co_consts)
    return b" ".join([code.co_code, repr(code.co_names).encode(), *constants])
