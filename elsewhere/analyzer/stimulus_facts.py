"""What networks were shown, and where, in sentences for a methods section."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Facts = Mapping[str, Any]

_OWN_PLACES = ("accuracy", "probe", "probe-each")
"""Kinds of results that compare no codes with those at a reference."""


def said_of_stimuli(facts: Facts) -> str:
    """Return which objects were shown, how they were made, and where they stood."""
    parts = []
    n, n_categories = facts.get("n_objects"), facts.get("n_categories")
    size = f"{facts['object_size']} px large" if "object_size" in facts else ""
    if n is not None:
        several = f" of {n_categories} categories" if n_categories is not None else ""
        parts.append(f"There were {n} objects{several}{_set_of(facts)}{size and f', {size}'}.")
        parts += [_told_from_ground(facts), _made(facts)]
    axes, ground = facts.get("axes_px"), facts.get("background")
    colour = f" of constant background (R, G, B) = {tuple(ground)}" if ground else ""
    if axes:
        places = "; ".join(f"{name}: {_spread(values)}" for name, values in axes.items())
        canvas = f" on a canvas of {_canvas(facts)}{colour}" if "canvas" in facts else ""
        parts.append(f"Each stood at every location of a grid{canvas} ({places}).")
    elif "canvas" in facts:
        shown = f", objects were {size}" if size and n is None else ""
        parts.append(f"The canvas was {_canvas(facts)}{colour}{shown}.")
    for name, (values, unit) in facts.get("changed", {}).items():
        of = "" if unit in ("", "1") else f" {unit}"
        neutral = f" (of the reference: {facts[f'reference_{name}']:g}{of})"
        listed = ", ".join(f"{value:g}" for value in values[:-1])
        listed = f"{listed} and {values[-1]:g}" if listed else f"{values[-1]:g}"
        parts.append(f"At each location it was shown at {name} {listed}{of}{neutral}.")
    if "reference_y" in facts and "reference_x" in facts and facts.get("kind") not in _OWN_PLACES:
        parts.append(_reference(facts))
    return " ".join(filter(None, parts))


def _canvas(facts: Facts) -> str:
    return f"{facts['canvas']} x {facts['canvas']} px"


def _spread(values: Sequence[int]) -> str:
    if len(values) == 1:
        return f"{values[0]} px"
    steps = sorted({b - a for a, b in itertools.pairwise(values)})
    every = f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
    return f"{len(values)} from {values[0]} to {values[-1]} px, {every} px apart"


def _source(facts: Facts) -> Mapping[str, Any]:
    found = facts.get("object_source")
    return found if isinstance(found, Mapping) else {}


def _set_of(facts: Facts) -> str:
    """Return of which set objects are; of a folder its name, not its path."""
    if "object_set" not in facts:
        return ""
    if folder := _source(facts).get("folder"):
        return f" of the folder '{Path(str(folder)).name or 'of images'}'"
    return f" of the set '{facts['object_set']}'"


def _told_from_ground(facts: Facts) -> str:
    """Return how the objects of a folder were told from what surrounds them in the images."""
    ground = _source(facts).get("ground")
    return f"Objects were told from the ground of their images by {ground}." if ground else ""


def _made(facts: Facts) -> str:
    """Return how objects came to their size, and which were drawn."""
    source, size = _source(facts), facts.get("object_size")
    seed = (
        f" Which exemplars were shown was drawn with seed {source['seed']}."
        if "seed" in source
        else ""
    )
    if "fonts" in source:
        fonts = ", ".join(each.partition(":")[0] for each in str(source["fonts"]).split("; "))
        return (
            f"They were drawn at that size from the outlines of fonts ({fonts}; matplotlib "
            f"{source.get('matplotlib', '')}), exemplars differing in shape as seed "
            f"{source.get('seed', '')} decides."
        )
    if "made" in source:
        return (
            f"They were rendered at that size, with shapes that seed {source.get('seed')} decides."
        )
    if "folder" in source and size is not None:
        return (
            "Images were resized with bicubic interpolation so that the longer side was "
            f"{size} px, their proportions kept."
        )
    if ("images" in source or "scikit-learn" in source) and size is not None:
        return f"Images were resized to {size} x {size} px with bicubic interpolation.{seed}"
    return ""


def _reference(facts: Facts) -> str:
    """Return which location others are compared with, and which that is of the grid."""
    place = (int(facts["reference_y"]), int(facts["reference_x"]))
    said = f"The reference location was (y, x) = {place}"
    axes = facts.get("axes_px") or {}
    rows, columns = list(axes.get("y", ())), list(axes.get("x", ()))
    if place in [tuple(each) for each in facts.get("trained") or ()]:
        return f"{said}, a trained location."
    if place in [tuple(each) for each in itertools.product(rows, columns)] and len(rows) > 1:
        row, middle = rows.index(place[0]), len(rows) // 2
        which = f"row {row + 1} of {len(rows)}"
        if row == middle:
            which = "the middle row" if len(rows) % 2 else "the row below the middle"
        if place[1] == columns[0]:
            return f"{said}, the leftmost location of {which}."
    return f"{said}."
