"""The doubts under which values were computed, as every result keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
