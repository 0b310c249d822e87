"""The registry of object sets and the one call that loads any of them."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from elsewhere.errors import ObjectSetError
from elsewhere.registry import Registry
from elsewhere.stimuli.objects import ObjectRequest, ObjectSet, ObjectSetBuilder, Split
from elsewhere.types import Color

WITH_PARTS = ("mnist", "fashion-mnist", "kmnist", "emnist")
"""The sets of which `split` names one of two parts: files of a data folder."""

WITH_PATHS = ("folder", "hangul")
"""The sets whose name may be followed by a path."""

DRAWN = ("glyphs", "digits", "novel")
"""The sets that are the same whenever they are asked for: no file of the user's is in them."""

KEPT_BYTES, KEPT = 2**24, 8
"""Of drawn sets up to so large, the last so many that were asked for are not drawn again."""

object_sets: Registry[ObjectSetBuilder] = Registry("object set")

for _name, _builder, _summary in (
    (
        "glyphs",
        "glyphs:build_glyphs",
        "characters and signs of many scripts, all different to the eye; no digits",
    ),
    (
        "hangul",
        "hangul:build_hangul",
        "100 Korean syllables, all different to the eye; needs a font (--font, or hangul:FILE)",
    ),
    ("digits", "digits:build_digits", "handwritten digits, 8 x 8 px, from scikit-learn"),
    ("novel", "novel:build_novel", "24 shaded solids that nobody has seen, alike in pairs"),
    ("mnist", "idx:build_mnist", "handwritten digits, 28 x 28 px; needs a data folder"),
    (
        "fashion-mnist",
        "idx:build_fashion_mnist",
        "pieces of clothing, 28 x 28 px; needs a data folder",
    ),
    ("kmnist", "idx:build_kmnist", "handwritten kana, 28 x 28 px; needs a data folder"),
    (
        "emnist",
        "idx:build_emnist",
        "handwritten letters and digits (balanced), 28 x 28 px; needs a data folder",
    ),
    (
        "folder",
        "folder:build_folder",
        "folder:PATH, your own images; sub-folders are categories",
    ),
):
    object_sets.add(_name, f"elsewhere.stimuli.{_builder}", summary=_summary)


def load_objects(
    spec: str,
    *,
    size: int = 50,
    categories: int | Sequence[str] | None = None,
    per_category: int = 1,
    seed: int = 0,
    data_dir: Path | None = None,
    background_color: Color | None = None,
    background_tolerance: int = 0,
    skip_broken: bool = False,
    split: Split = "test",
) -> ObjectSet:
    """Return the objects that `spec` names.

    Parameters
    ----------
    spec
        A name in `object_sets`, ``folder:PATH``, or ``hangul:PATH`` of a font.
    size
        Side of an object's box, px.
    categories
        The first so many in the set's order, those of these names, or all.
    per_category
        Exemplars of each category.
    seed
        Draws the exemplars: each depends on the seed, its category and its number only. It leaves
        the first exemplars of ``glyphs``, ``hangul`` and ``novel`` as they are.
    data_dir
        The folder with the files of ``mnist``, ``fashion-mnist``, ``kmnist`` and ``emnist``.
    background_color
        For ``folder``: the colour that is ground, in pictures without transparent pixels.
    background_tolerance
        By how many of 255 levels a channel of the ground may differ from it: 10 or so where a
        picture was kept as JPEG.
    skip_broken
        For ``folder``: leave out pictures that cannot be read.
    split
        For the sets with two parts (``mnist`` and its kin): which of them.

    Raises
    ------
    UnknownNameError
        No such set, or no such category.
    ObjectSetError
        The set cannot be built as asked, or has fewer categories or exemplars.

    Examples
    --------
    >>> load_objects("glyphs", size=20, categories=2).ids
    ('latin_a_capital-0', 'greek_delta_capital-0')
    """
    name, _, argument = spec.partition(":")
    builder = object_sets.get(name)
    if argument and name not in WITH_PATHS:
        raise ObjectSetError(f"{name!r} takes no argument; got {spec!r}; write {name!r}")
    if size < 1 or per_category < 1 or seed < 0:
        raise ObjectSetError(
            f"cannot load {name!r} with size {size}, {per_category} per category and seed {seed}; "
            "expected a size and a number of 1 or more and a seed of 0 or more"
        )
    if not 0 <= background_tolerance <= 255:
        raise ObjectSetError(
            f"the tolerance of the background colour is {background_tolerance}; expected 0 to 255"
        )
    if split not in ("train", "test"):
        raise ObjectSetError(f"{name!r} has no split {split!r}; expected 'train' or 'test'")
    if isinstance(categories, str):
        categories = (categories,)
    request = ObjectRequest(
        argument=argument,
        size=size,
        categories=tuple(categories) if isinstance(categories, Sequence) else categories,
        per_category=per_category,
        seed=seed,
        data_dir=None if data_dir is None else Path(data_dir),
        background_color=background_color,
        background_tolerance=background_tolerance,
        skip_broken=skip_broken,
        split=split,
    )
    return _drawn_once(name, builder, request) if name in DRAWN else builder(request)


_drawn: OrderedDict[tuple[str, ObjectRequest], ObjectSet] = OrderedDict()


def _drawn_once(name: str, builder: ObjectSetBuilder, request: ObjectRequest) -> ObjectSet:
    """Return a drawn set, with arrays of its own: a run asks for the same ones again and again."""
    key = (name, request)
    found = _drawn.pop(key, None)
    if found is None:
        found = builder(request)
        if found.images.nbytes + found.masks.nbytes > KEPT_BYTES:
            return found
    _drawn[key] = found
    while len(_drawn) > KEPT:
        _drawn.popitem(last=False)
    return dataclasses.replace(
        found, images=found.images.copy(), masks=found.masks.copy(), source={**found.source}
    )


def parse_categories(text: str | None) -> int | list[str] | None:
    """Return a number of categories, or names, that `text` gives.

    Examples
    --------
    >>> parse_categories("12"), parse_categories("A,B"), parse_categories(None)
    (12, ['A', 'B'], None)
    """
    if text is None:
        return None
    return int(text) if text.isdecimal() else [part for part in text.split(",") if part]
