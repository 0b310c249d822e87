"""Pictures of the objects that were shown, from recordings or made anew and proven by digest."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elsewhere.errors import ElsewhereError
from elsewhere.report.material import Item, Material
from elsewhere.stimuli import ObjectSet, load_objects
from elsewhere.storage import Recording

MADE_HERE = ("glyphs", "digits", "novel")
"""Sets that come with the package, and so can be made anew anywhere."""
MOST = 64
"""So many pixels a side a picture has, at most."""


class Pictures:
    """Pictures as data URIs, by the digest of the set and the object's id."""

    def __init__(self, material: Material) -> None:
        self._known: dict[str, dict[str, str]] = {}
        for recording in material.recordings:
            self._record(recording.file)

    def of(self, item: Item) -> dict[str, str]:
        """Return the pictures of a result's objects by id; none where they cannot be had."""
        attributes = item.attributes
        digest = str(attributes.get("object_digest", ""))
        if digest and digest not in self._known:
            self._known[digest] = _made(item, digest)
        return self._known.get(digest, {})

    def named(self, digest: str) -> dict[str, str]:
        """Return the pictures of a set of a recording."""
        return self._known.get(digest, {})

    def _record(self, path: Any) -> None:
        try:
            recording = Recording(path)
        except ElsewhereError:
            return  # the report says so where recordings are read
        try:
            images, masks = recording.pictures()
            digest = str(recording.attributes.get("object_digest", ""))
            self._known[digest] = dict(
                zip(recording.design.objects, map(to_uri, images, masks), strict=True)
            )
        finally:
            recording.close()


def _made(item: Item, digest: str) -> dict[str, str]:
    """Return pictures of a set that is made anew, if it is the one of the result."""
    attributes, result = item.attributes, item.result
    name, size = str(attributes.get("object_set", "")), attributes.get("object_size")
    held = next((dim for dim in ("object", "left_out") if dim in result.coords), None)
    if name not in MADE_HERE or not isinstance(size, int) or held is None:
        return {}
    ids = [str(each) for each in result[held].values]
    source = attributes.get("object_source")
    seed = source.get("seed", 0) if isinstance(source, dict) else 0
    found = _named(name, size, ids, str(seed))
    if found is None or found.digest() != digest:
        return {}
    return dict(zip(found.ids, map(to_uri, found.images, found.masks), strict=True))


def _named(name: str, size: int, ids: Sequence[str], seed: str) -> ObjectSet | None:
    numbers = [re.search(r"-(\d+)$", each) for each in ids]
    most = max((int(number[1]) for number in numbers if number), default=0)
    if most > 100 or not seed.isdecimal():
        return None
    try:
        objects = load_objects(name, size=size, per_category=most + 1, seed=int(seed))
        places = {each: place for place, each in enumerate(objects.ids)}
        return objects.subset([places[each] for each in ids])
    except (ElsewhereError, KeyError):
        return None


def to_uri(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> str:
    """Return an object, uint8 (s, s, 3) and its alpha (s, s), as the data URI of a PNG."""
    picture = Image.fromarray(np.concatenate([image, mask[..., None]], axis=-1), "RGBA")
    if picture.width > MOST:
        picture = picture.resize((MOST, MOST), Image.Resampling.BOX)
    held = io.BytesIO()
    picture.save(held, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"
