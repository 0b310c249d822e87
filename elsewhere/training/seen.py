"""What a network has been trained on, by content: digests of pictures, carried in its card.

A picture is the same wherever it comes from: another phase, run, part of a set, or spelling of a
folder. What has been trained on is never held out, and its class is never new.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from elsewhere.errors import InputError, ObjectSetError
from elsewhere.stimuli import Canvas, ObjectSet
from elsewhere.types import Color

BYTES = 6
"""Of a digest: among 60,000 pictures the chance that two share one is 6 in a million."""

Digests: TypeAlias = frozenset[bytes]
View: TypeAlias = str
"""How pictures were loaded: the side of an object, px, and the ground of a folder's, a colour."""


def view_of(spec: str, canvas: Canvas) -> View:
    """Return how a canvas takes the pictures of an object set.

    Examples
    --------
    >>> view_of("digits", Canvas(48, 11)), view_of("folder:pics", Canvas(48, 11))
    ('11', '11 on 0,0,0')
    """
    ground = ground_of(spec, canvas)
    side = str(canvas.object_size)
    return side if ground is None else f"{side} on {','.join(map(str, ground))}"


def ground_of(spec: str, canvas: Canvas) -> Color | None:
    """Return the colour that is no object, where a set does not say itself what is object."""
    if not spec.startswith("folder:"):
        return None
    ground = canvas.background if canvas.background != "mean" else 0
    return (ground,) * 3 if isinstance(ground, int) else ground


def parse_view(view: View) -> tuple[int, Color | None]:
    """Return the side of an object and the colour of the ground.

    Raises
    ------
    InputError
        It is neither.
    """
    found = re.fullmatch(r"(\d{1,6})(?: on (\d{1,3}),(\d{1,3}),(\d{1,3}))?", view)
    if found is None:
        raise InputError(f"cannot read {view[:80]!r} as the side of an object and its ground")
    side, *ground = found.groups()
    red, green, blue = (int(value or 0) for value in ground)
    return int(side), None if ground[0] is None else (red, green, blue)


@dataclass(frozen=True)
class Past:
    """What a network has been trained on.

    Digests of pictures are told apart by how they were loaded: the same picture at another size, or
    with another colour for what is no object, has another digest.
    """

    pictures: Mapping[View, Digests] = field(default_factory=dict)
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by object set
    source: str = ""  # whose past it is, for messages

    def adding(self, variants: Sequence[ObjectSet], spec: str, canvas: Canvas, source: str) -> Past:
        """Return the past after these objects, in all variants, have been trained on too."""
        view, name = view_of(spec, canvas), set_name(spec)
        own = (digests(each) for each in variants if each.size == canvas.object_size)
        pictures = self.pictures.get(view, frozenset()).union(*own)
        classes = dict.fromkeys((*self.classes.get(name, ()), *variants[0].category_names))
        return Past(
            {**self.pictures, view: pictures}, {**self.classes, name: tuple(classes)}, source
        )


def digest_each(objects: ObjectSet) -> list[bytes]:
    """Return a digest of what is to be seen of each object: its mask, and its colours within it."""
    visible = objects.images * (objects.masks[..., None] > 0)
    return [
        hashlib.sha256(mask.tobytes() + image.tobytes()).digest()[:BYTES]
        for mask, image in zip(objects.masks, visible, strict=True)
    ]


def digests(objects: ObjectSet) -> Digests:
    """Return the digests of all objects; equal pictures have one."""
    return frozenset(digest_each(objects))


def pack(found: Iterable[bytes]) -> str:
    """Return digests as a text.

    Examples
    --------
    >>> unpack(pack([b"abcdef", b"ghijkl"])) == {b"abcdef", b"ghijkl"}
    True
    """
    return base64.b64encode(b"".join(sorted(set(found)))).decode()


def unpack(text: str) -> Digests:
    """Return the digests in a text.

    Raises
    ------
    InputError
        It is damaged.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"digests of pictures are damaged ({error})") from error
    if len(data) % BYTES:
        raise InputError(f"digests of pictures are damaged: {len(data)} bytes")
    return frozenset(data[place : place + BYTES] for place in range(0, len(data), BYTES))


def set_name(spec: str) -> str:
    """Return one name for every spelling of an object set.

    Examples
    --------
    >>> set_name("folder:.") == set_name(f"folder:{Path.cwd()}")
    True
    """
    name, _, path = spec.partition(":")
    return f"{name}:{Path(path).resolve()}" if path else name


@dataclass(frozen=True)
class Division:
    """Which exemplars of a category are trained on, which are held out, and what is missing."""

    trained: list[int]  # rows
    held_out: list[int]
    lacking: int  # how many more have to be looked at; 0 where there are enough


def divide(
    found: Sequence[bytes],
    n_trained: int,
    n_held_out: int,
    *,
    trained: Collection[bytes] | None,
    excluded: Collection[int],
) -> Division:
    """Return which exemplars of a category are trained on and which are held out.

    They are known by digests, in the set's order, and `trained` are those of what was trained on;
    by default the first ones are to be. The `excluded` rows must not be held out.

    Examples
    --------
    >>> divide([b"a", b"b", b"a", b"c"], 1, 2, trained=None, excluded=[2])
    Division(trained=[0], held_out=[1, 3], lacking=0)
    """
    if trained is None:
        first = list(range(min(n_trained, len(found))))
    else:
        first = [row for row, digest in enumerate(found) if digest in trained][:n_trained]
    known = set(trained or ()) | {found[row] for row in first}
    rest = [row for row, digest in enumerate(found) if digest not in known and row not in excluded][
        :n_held_out
    ]
    return Division(first, rest, n_trained - len(first) + n_held_out - len(rest))


def join(parts: Sequence[ObjectSet]) -> ObjectSet:
    """Return several parts of one set, one after the other."""
    return ObjectSet(
        parts[0].name,
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.masks for part in parts]),
        tuple(name for part in parts for name in part.ids),
        tuple(name for part in parts for name in part.categories),
        dict(parts[0].source),
    )


def too_few(
    spec: str, category: str, n_seen: int, n_held_out: int, error: ObjectSetError
) -> ObjectSetError:
    """Return the error for a category that has too few exemplars left to hold out."""
    return ObjectSetError(
        f"{spec!r} has too few exemplars of {category!r} that the network has not been trained on "
        f"({n_seen} of those looked at it has) to hold out {n_held_out}: {error}; hold out fewer"
    )
