"""Where a probe is trained: left, centre, y,x, several locations, or each in turn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from elsewhere.errors import CanvasError, InputError
from elsewhere.protocols import Design
from elsewhere.types import Location

FORMS = "left, centre, each, y,x or y,x;y,x"


def find_places(train_at: str | Sequence[Any], design: Design) -> tuple[tuple[Location, ...], ...]:
    """Return the training sets that `train_at` means: for each its locations (y, x), px.

    ``left``: the leftmost location of the grid's middle row (row ``n // 2``); ``centre``: the
    middle one (``n // 2`` along both axes); ``each``: every location in turn, a training set each;
    ``y,x`` or (y, x); ``y,x;y,x`` or a list of (y, x): all of them together.

    Raises
    ------
    CanvasError
        A location is not on the grid; the message names the nearest one.
    InputError
        It cannot be read, or the axes are others than y and x.

    Examples
    --------
    >>> from elsewhere.axes import Axes
    >>> design = Design(("a",), ("A",), Axes.of(y=(5, 9), x=(5, 7, 9)), (9, 5))
    >>> find_places("left", design), find_places("5,9;9,9", design)
    ((((9, 5),),), (((5, 9), (9, 9)),))
    >>> len(find_places("each", design))
    6
    """
    moving = design.axes.moving
    if moving.names != ("y", "x"):
        raise InputError(f"probes need locations y, x; the axes are {', '.join(design.names)}")
    ys, xs = moving.values
    if isinstance(train_at, str):
        text = train_at.strip()
        if text == "each":
            return tuple(((y, x),) for y in ys for x in xs)
        if text == "left":
            return (((ys[len(ys) // 2], xs[0]),),)
        if text in ("centre", "center"):
            return (((ys[len(ys) // 2], xs[len(xs) // 2]),),)
        places = [_read(part, text) for part in text.split(";") if part.strip()]
    else:
        places = _listed(train_at)
    if not places:
        raise InputError(f"no location to train at is given; expected {FORMS}")
    for place in places:
        _check(place, design)
    return (tuple(dict.fromkeys(places)),)


def _read(part: str, text: str) -> Location:
    match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", part)
    if match is None:
        raise InputError(f"cannot read {text!r} as where to train; expected {FORMS}")
    return int(match.group(1)), int(match.group(2))


def _listed(train_at: Sequence[Any]) -> list[Location]:
    try:
        given = np.asarray(train_at)
        places = given.astype(np.int64)
        fits = places.size == 0 or (places.shape[-1] == 2 and places.ndim in (1, 2))
        if not fits or not (places == given).all():
            raise ValueError
    except (TypeError, ValueError):
        raise InputError(
            f"cannot read {train_at!r} as where to train; expected (y, x), a list of them, or one "
            f"of the words {FORMS}"
        ) from None
    return [(int(y), int(x)) for y, x in places.reshape(-1, 2)]


def _check(place: Location, design: Design) -> None:
    if design.axes.moving.index(place) is None:
        y, x = design.axes.moving.nearest(place)
        raise CanvasError(
            f"the location {place[0]},{place[1]} to train at is not on the grid; nearest: {y},{x}"
        )
