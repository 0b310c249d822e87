"""The doubts under which values were computed, as every result keeps them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

TAKEN = "of {} the state {!r} was taken"
"""How weights were read from a file that holds more: no doubt, and said where the file is made."""
_TAKEN = re.compile("of .+ the state '.*' was taken")


def news_of(*holders: Any, again: bool = False) -> list[str]:
    """Return the notes of holders that were not said when what they come from was made.

    How a recording or a run read its weights is said then; its results keep it, and need not repeat
    it. `again` says that holders are files that were made before.

    Examples
    --------
    >>> class Result:
    ...     attrs = {"notes": [TAKEN.format("w.ckpt", "ema"), "a doubt"], "recording": "run.h5"}
    >>> news_of(Result())
    ['a doubt']
    """
    found = [getattr(holder, "attrs", {}) for holder in holders]
    if not again and not any({"recording", "training"} & set(attrs) for attrs in found):
        return notes_of(*holders)
    return [note for note in notes_of(*holders) if not _TAKEN.match(note)]


def notes_on(notes: Sequence[str], names: Sequence[str], chosen: Sequence[str]) -> list[str]:
    """Return those of `notes` that are not of others of `names` alone than the `chosen` ones.

    Examples
    --------
    >>> notes = ["layer fc6: dead", "fc6, fc7: means", "few objects"]
    >>> notes_on(notes, ["fc6", "fc7"], ["fc7"])
    ['fc6, fc7: means', 'few objects']
    """

    def said(note: str) -> set[str]:
        parts = set(re.findall(r"[^\s,;:'()]+", note))  # a name may have dots, and stand at an end
        return {name for name in names if name in parts or f"{name}." in parts}

    return [note for note in notes if not (found := said(note)) or found & set(chosen)]


_OF_LAYER = re.compile(r"(?s)([\w-]+): layer (\S+): (.+)")


def same_of_layers(notes: Sequence[str]) -> list[str]:
    """Return notes of which those that say the same of several layers are one.

    Examples
    --------
    >>> same_of_layers(["cka: layer a: NaN, for few", "b", "cka: layer c: NaN, for few"])
    ['cka: layers a, c: NaN, for few', 'b']
    """
    found: dict[tuple[str, str], list[str]] = {}
    for note in notes:
        match = _OF_LAYER.fullmatch(note)
        named = found.setdefault((match[1], match[3]) if match else ("", note), [])
        named += [match[2]] if match else []
    return [
        f"{name}: {'layers' if len(layers) > 1 else 'layer'} {', '.join(layers)}: {text}"
        if layers
        else text
        for (name, text), layers in found.items()
    ]


def notes_of(source: Any, *others: Any) -> list[str]:
    """Return the doubts under which values were computed, each once, in order.

    A doubt is a whole sentence that a reader of the numbers has to know: undefined values, dead
    layers, images that depend on each other. Every result keeps them in ``attrs["notes"]``. Here
    they are those of a source's ``provenance``, of sinks and whatever else has ``notes``, of
    results, or notes themselves.

    Examples
    --------
    >>> class Doubtful:
    ...     provenance = {"notes": ["the images depend on each other"]}
    >>> notes_of(Doubtful(), ["layer 'fc': NaN"], ["the images depend on each other"])
    ['the images depend on each other', "layer 'fc': NaN"]
    """
    found: list[str] = []
    for holder in (source, *others):
        held: Any = holder
        for name in ("provenance", "attrs"):
            held = getattr(holder, name, held)
        if isinstance(held, Mapping):
            held = held.get("notes", ())
        elif not isinstance(held, list | tuple | str):
            held = getattr(held, "notes", ())
        found += [held] if isinstance(held, str) else map(str, held)
    return list(dict.fromkeys(found))
