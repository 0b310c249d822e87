"""Networks built from a name and arguments: of the zoo, of torchvision, or of a factory.

`build`, `check_network`, `default_arguments`, `accepted_arguments`.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from elsewhere.errors import ElsewhereError, InputError
from elsewhere.models.factories import Builder, build_factory, find_factory, one_line
from elsewhere.models.model import uncompile
from elsewhere.models.names import (
    inceptions,
    is_factory,
    model_registry,
    split_variants,
    torchvision_names,
    torchvision_part,
    unknown_model,
)
from elsewhere.models.variants import build_variant
from elsewhere.models.zoo import initialize

DEFAULT_CANVAS = 224
"""Side of the canvas of networks that state none, px."""


def build(name: str, arguments: Mapping[str, object]) -> nn.Module:
    """Return a new network called `name`, drawn from torch's current generator."""
    base, variants = (name, ()) if is_factory(name) else split_variants(name)
    if variants:
        canvas = arguments.get("canvas")
        side = canvas if isinstance(canvas, int) else DEFAULT_CANVAS
        return build_variant(base, variants, lambda: build(base, arguments), side)
    if is_factory(name):
        module = build_factory(name, arguments)
    elif name in torchvision_names():
        module = _build_torchvision(name, arguments)
    elif name in model_registry:
        module = _call_builder(name, model_registry.get(name), arguments)
    else:
        raise unknown_model(name)
    module = uncompile(check_network(name, module)).cpu()
    # A network that is one layer would have no layer with a name.
    return module if any(True for _ in module.children()) else nn.Sequential(module)


def check_network(name: str, module: object) -> nn.Module:
    """Return a network; refuse what cannot be run, or listened to.

    Raises
    ------
    InputError
        The message says why, and what to do.
    """
    if hasattr(module, "graph_signature") or hasattr(module, "range_constraints"):
        raise InputError(
            f"{name} returned what torch.export made, which has no evaluation mode and may have "
            "one batch size; return the network that was exported, before torch.export"
        )
    if not isinstance(module, nn.Module):
        raise InputError(f"{name} returned a {type(module).__name__}; expected a torch.nn.Module")
    parts = module.named_modules()
    scripted = next((n for n, part in parts if isinstance(part, torch.jit.ScriptModule)), None)
    if scripted is not None:
        held = f"a network whose part {scripted} is" if scripted else "a network of"
        raise InputError(
            f"{name} returned {held} TorchScript, whose layers cannot be listened to; return what "
            "was scripted or traced, before torch.jit"
        )
    if any(is_lazy(tensor) for tensor in (*module.parameters(), *module.buffers())):
        raise InputError(
            f"{name} returned a network with lazy layers; run it once on an image in the factory"
        )
    state = module.state_dict().items()  # of quantised modules no tensors only
    if empty := [key for key, value in state if getattr(value, "is_meta", False)]:
        raise InputError(
            f"{name} returned a network on the device 'meta', whose weights hold no numbers "
            f"({len(empty)}, first {empty[0]}); build it on the CPU, and load its weights there"
        )
    return module


def accepted_arguments(name: str) -> tuple[str, ...]:
    """Return the names of the arguments that a network of torchvision takes."""
    return _accepted(_return_class(getattr(torchvision_part("models"), name)))


def default_arguments(name: str) -> dict[str, object]:
    """Return what a network's builder takes where nothing is given, by the names of arguments.

    Examples
    --------
    >>> default_arguments("small-cnn")["batch_norm"]
    False
    """
    builders: list[Any] = []
    if not is_factory(name):
        name, _ = split_variants(name)
    if is_factory(name):
        builders = [find_factory(name)]
    elif name in torchvision_names():
        builder = getattr(torchvision_part("models"), name)
        builders = [_return_class(builder), builder]
    elif name in model_registry:
        builders = [model_registry.get(name)]
    found: dict[str, object] = {}
    for builder in builders:
        with contextlib.suppress(TypeError, ValueError):  # no signature can be had
            parameters = inspect.signature(builder).parameters.values()
            found |= {p.name: p.default for p in parameters if p.default is not p.empty}
    return found


# --- torchvision


def _build_torchvision(name: str, arguments: Mapping[str, object]) -> nn.Module:
    builder = getattr(torchvision_part("models"), name)
    kind = _return_class(builder)
    _refuse_unknown(name, kind, arguments)
    inception = kind in inceptions()
    own: dict[str, object] = {"aux_logits": False, "init_weights": False} if inception else {}
    module = _call_builder(name, builder, {**own, **arguments}, accepted=_accepted(kind))
    if inception and not arguments.get("init_weights"):
        initialize(module)
    return module


def _return_class(builder: Builder) -> type[nn.Module] | None:
    found = inspect.signature(builder).return_annotation
    if isinstance(found, str):
        found = getattr(inspect.getmodule(inspect.unwrap(builder)), found, None)
    return found if isinstance(found, type) and issubclass(found, nn.Module) else None


def _refuse_unknown(name: str, kind: type | None, arguments: Mapping[str, object]) -> None:
    # Some constructors of torchvision swallow any keyword; builders take weights and progress.
    known = inspect.signature(kind).parameters if kind is not None else {}
    for key in arguments:
        if key in ("weights", "progress", "pretrained") or (known and key not in known):
            raise _unknown_argument(name, key, _accepted(kind))


def _accepted(kind: type | None) -> tuple[str, ...]:
    if kind is None:
        return ()
    parameters = inspect.signature(kind).parameters.values()
    return tuple(
        parameter.name
        for parameter in parameters
        if parameter.name in ("image_size", "input_size")
        or parameter.default is not inspect.Parameter.empty
    )


# --- any builder


def _call_builder(
    name: str,
    builder: Builder,
    arguments: Mapping[str, object],
    *,
    accepted: tuple[str, ...] | None = None,
    **fixed: object,
) -> nn.Module:
    if accepted is None:
        accepted = tuple(inspect.signature(builder).parameters)
        for key in arguments:
            if key not in accepted:
                raise _unknown_argument(name, key, accepted)
    try:
        return builder(**arguments, **fixed)
    except ElsewhereError:
        raise
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError, AssertionError) as error:
        if fixed and not isinstance(error, TypeError):
            raise  # about the weights, not about the arguments
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or "no arguments"
        raise InputError(
            f"cannot build {name} with {given}: {one_line(error)}; "
            f"accepted arguments: {', '.join(accepted) or 'none'}"
        ) from error


def _unknown_argument(name: str, key: str, accepted: tuple[str, ...]) -> InputError:
    if key in ("weights", "pretrained"):
        return InputError(f"{name} takes no model argument {key!r}; choose with --weights")
    return InputError(
        f"{name} takes no model argument {key!r}; accepted: {', '.join(accepted) or 'none'}"
    )
