"""Networks of one's own: ``package.module:factory`` or ``file.py:factory``, found and built."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.models.caches import INSTALL_TIMM
from elsewhere.registry import current_directory_importable, import_extension, is_source

Builder = Callable[..., nn.Module]


def build_factory(name: str, arguments: Mapping[str, object]) -> nn.Module:
    """Return what the factory called `name` builds; the current directory is importable.

    Raises
    ------
    InputError
        It cannot be imported, is no factory of networks, or fails.
    UnknownNameError
        Its module does not have it.
    """
    with current_directory_importable():
        return _call(name, _find(name), arguments)


def find_factory(name: str) -> Builder:
    """Return the factory called `name`; raises as :func:`build_factory` does."""
    with current_directory_importable():
        return _find(name)


def _find(name: str) -> Builder:
    module_name, _, attribute = name.rpartition(":")
    in_file = is_source(module_name)
    parts = [*([] if in_file else module_name.split(".")), *attribute.split(".")]
    if not all(part.isidentifier() for part in parts):
        raise InputError(
            f"cannot read the model {name!r}; expected package.module:factory, or "
            "path/to/file.py:factory"
        )
    if (called := timm_name(name)) is not None:
        return functools.partial(sys.modules["timm"].create_model, called)
    if not in_file and parts[0] in sys.stdlib_module_names:
        raise InputError(
            f"{name} belongs to Python's standard library, which builds no network; expected "
            "package.module:factory of a package of networks"
        )
    try:
        found: Any = import_extension(module_name)
    except InputError:
        raise
    except ModuleNotFoundError as error:
        if in_file or error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(f"importing {module_name} failed: {one_line(error)}") from error
        remedy = "run where it can be imported, such as its own directory"
        remedy = INSTALL_TIMM if error.name == "timm" else remedy
        raise InputError(
            f"no module {module_name!r} for the model {name!r}: {error.name!r} was not found; "
            + remedy
        ) from None
    except Exception as error:
        raise InputError(f"importing {module_name} failed: {one_line(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [other for other in vars(found) if callable(getattr(found, other, None))]
            raise UnknownNameError(f"factory of {module_name}", attribute, known)
        found = getattr(found, part)
    _check_kind(name, "" if in_file else parts[0], found)
    factory: Builder = found
    return factory


def timm_name(name: str) -> str | None:
    """Return which of timm's networks a factory's name means, as ``timm:resnet18.a1_in1k`` does.

    None for all others, such as ``timm:create_model``, and where timm is not installed.
    """
    module, _, called = name.partition(":")
    if module != "timm":
        return None
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError:
        return None
    return called if not hasattr(timm, called) and timm.is_model(called) else None


def _check_kind(name: str, package: str, found: Any) -> None:
    """Refuse what is neither a class of networks nor a function that could return one.

    A function may come from another package (a wrapped or renamed network), but not from Python's
    own library, whose functions build no networks and do much else.
    """
    inner = found
    while isinstance(inner, functools.partial | types.MethodType):
        inner = inner.func if isinstance(inner, functools.partial) else inner.__func__
    if isinstance(inner, type) and issubclass(inner, nn.Module):
        return
    if not isinstance(inner, types.FunctionType):
        raise InputError(
            f"{name} is a {type(found).__name__}; expected a function that returns a network, or "
            "a class of torch.nn.Module"
        )
    home = str(inner.__module__)
    origin = home.partition(".")[0]
    if origin != package and origin in sys.stdlib_module_names - {"__main__"}:
        raise InputError(
            f"{name} is a function of {home}, of Python's standard library, which builds no "
            f"network; expected one of {package or 'the file'} that returns a network"
        )


def _call(name: str, factory: Builder, arguments: Mapping[str, object]) -> nn.Module:
    try:
        signature: inspect.Signature | None = inspect.signature(factory)
    except (TypeError, ValueError):  # builtins without a signature
        signature = None
    if signature is not None:
        try:
            signature.bind(**arguments)
        except TypeError as error:
            accepted = ", ".join(signature.parameters) or "none"
            raise InputError(
                f"{name} cannot be called with these model arguments: {error}; accepted: {accepted}"
            ) from None
    try:
        return factory(**arguments)
    except Exception as error:
        raise InputError(f"the factory {name} failed: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """Return an error's class and the beginning of its message, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(": ")
