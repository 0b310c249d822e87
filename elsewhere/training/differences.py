"""In which keys two curricula differ, each with its old and its new value. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from elsewhere.training.curriculum import Curriculum, Phase

SHOWN = 6
"""Differences that a message lists, at most."""


def differences(old: Curriculum, new: Curriculum) -> list[str]:
    """Return what differs between two curricula: key, old value, new value.

    Examples
    --------
    >>> from elsewhere.training import load_curriculum
    >>> old = load_curriculum("quick/vanilla")
    >>> longer = dataclasses.replace(old.phases[1], steps=7)
    >>> new = dataclasses.replace(old, phases=(old.phases[0], longer), seed=1)
    >>> differences(old, new)
    ['phase digits: steps was 1000, is 7', 'seed was 0, is 1']
    """
    return list(_differing("", old, new))


def list_differences(old: Curriculum, new: Curriculum) -> str:
    """Return the first differences as a text; empty where there is none."""
    found = differences(old, new)
    more = len(found) - SHOWN
    return "; ".join(found[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _differing(key: str, old: Any, new: Any) -> Iterator[str]:
    if dataclasses.is_dataclass(old) and type(old) is type(new):
        for part in dataclasses.fields(old):
            if part.compare:
                inner = _inner(key, part.name)
                yield from _differing(inner, getattr(old, part.name), getattr(new, part.name))
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys((*old, *new)):
            yield from _differing(_inner(key, name), old.get(name), new.get(name))
    elif key == "phases":
        yield from _phases({each.name: each for each in old}, {each.name: each for each in new})
    elif old != new:
        yield f"{key} was {_text(old)}, is {_text(new)}"


def _phases(old: Mapping[str, Phase], new: Mapping[str, Phase]) -> Iterator[str]:
    for name in old:
        if name not in new:
            yield f"phase {name} is gone"
    for name, phase in new.items():
        if name in old:
            yield from _differing(f"phase {name}:", old[name], phase)
        else:
            yield f"phase {name} is new"
    if list(old) != list(new) and {*old} == {*new}:
        yield f"the order of the phases was {', '.join(old)}, is {', '.join(new)}"


def _inner(key: str, name: str) -> str:
    return f"{key} {name}" if key.endswith(":") else f"{key}.{name}" if key else name


def _text(value: Any) -> str:
    """Return a value as TOML would have it, about."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return "not given" if value is None else json.dumps(value, ensure_ascii=False)
