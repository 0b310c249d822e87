"""Whether a factory makes the same network for the same seed: it is called twice and watched."""

from __future__ import annotations

import contextlib
import datetime
import inspect
import sys
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

from elsewhere.models.factories import one_line
from elsewhere.models.identity import FOREIGN
from elsewhere.models.memory import Memory

_CLOCKS = {("time", "time"), ("time", "time_ns"), ("time", "localtime"), ("time", "gmtime")}
_OF_PROCESS = {("builtins", "hash"), ("posix", "getpid"), ("nt", "getpid")}
"""Functions whose values are the same twice in a process, and others in the next."""
_TRUSTED = FOREIGN | {"huggingface_hub", "sympy", "timm"}
"""Packages that may ask for them: their networks do not depend on the answer."""


def build_twice(build: Callable[[], nn.Module]) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a network, and the names of what another call makes otherwise.

    `build` makes it, with all generators that a program shares seeded alike each time. Names are
    those of weights, buffers, other tensors, numbers and generators; in brackets, why it cannot be
    told.

    Examples
    --------
    >>> def factory():
    ...     return nn.Linear(2, 2, bias=False)
    >>> build_twice(factory)[1]
    ('weight',)
    """
    began, asked = time.time(), set[tuple[str, str]]()
    with _watched(asked):
        module = build()
    if asked & _CLOCKS:  # that may count whole seconds
        time.sleep(max(0.0, began + 1.1 - time.time()))
    try:
        other = build()
    except Exception as error:  # any factory, any complaint
        return module, (f"(it fails when it is called again: {one_line(error)})",)
    first, second = module.state_dict(), other.state_dict()
    names = [
        name for name in {**first, **second} if not _is_same(first.get(name), second.get(name))
    ]
    names += Memory(module, hooks=True).differing(Memory(other, hooks=True))
    for _, name in sorted(asked & _OF_PROCESS):
        names.append(f"(it calls {name}(), of which another process makes something else)")
    return module, tuple(names)


def unrepeated_note(name: str, names: tuple[str, ...]) -> str:
    """Return the doubt that the network of a factory, called `name`, may be another one each time.

    `names` are those of :func:`build_twice`.
    """
    other = [each for each in names if not each.startswith("(")]
    if not other:
        reasons = "; ".join(each.strip("()") for each in names)
        return f"whether the factory {name} makes the same network again is not known: {reasons}"
    listed = ", ".join(other[:3]) + (f" and {len(other) - 3} more" if len(other) > 3 else "")
    return (
        f"the factory {name} makes another network each time it is called, whatever the seed "
        f"({listed}), so that nothing of it can be repeated; draw from the global generators of "
        "torch, NumPy or Python without seeding them"
    )


def _is_same(one: object, other: object) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return one is other or type(one) is type(other)  # extra states compare as attributes
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    if one.is_floating_point():
        return torch.equal(one.nan_to_num(), other.nan_to_num())
    return torch.equal(one, other)


@contextlib.contextmanager
def _watched(asked: set[tuple[str, str]]) -> Iterator[None]:
    """Note which clocks are read, and what code that is not a library's asks of the process."""
    before = sys.getprofile()

    def note(frame: object, event: str, found: object) -> None:
        if event != "c_call":
            return
        name = str(getattr(found, "__name__", ""))
        owner = getattr(found, "__self__", None)
        if inspect.isclass(owner) and issubclass(owner, datetime.date):
            asked.add(("time", "time"))
        key = (str(getattr(found, "__module__", "")), name)
        if key in _CLOCKS:
            asked.add(key)
        if key in _OF_PROCESS:
            home = str(getattr(frame, "f_globals", {}).get("__name__", ""))
            if home.partition(".")[0] not in _TRUSTED:
                asked.add(key)

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)
