"""Object sets: cut-outs with an id and a category, ready to be placed on a canvas."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import ObjectSetError, UnknownNameError
from elsewhere.stimuli.arrays import ByteArray
from elsewhere.types import Color

Split: TypeAlias = Literal["train", "test"]

_TOGETHER = 256
"""So many objects are put over a background at a time: they stay in the processor's cache."""
FAINT = 2
"""An object that changes no pixel by more than so many of 255 levels is hardly seen."""


@dataclass(frozen=True, eq=False)
class ObjectSet:
    """Objects of one size; those of one category stand next to each other.

    Parameters
    ----------
    name
        The set's name.
    images
        uint8 (n, s, s, 3), the objects' colours.
    masks
        uint8 (n, s, s), alpha: 0 is ground, 255 is object.
    ids
        One for each object, all different.
    categories
        One for each object, in contiguous runs.
    source
        Where the objects came from: fonts and their versions, files, seed.

    Raises
    ------
    ObjectSetError
        The arrays do not fit together, an id is used twice, or a category is split.
    """

    name: str
    images: ByteArray
    masks: ByteArray
    ids: tuple[str, ...]
    categories: tuple[str, ...]
    source: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count, side = len(self.ids), self.images.shape[1] if self.images.ndim == 4 else 0
        expected = {"images": (count, side, side, 3), "masks": (count, side, side)}
        for part, shape in expected.items():
            array = getattr(self, part)
            if array.dtype != np.uint8 or array.shape != shape:
                raise ObjectSetError(
                    f"{part} of {self.name!r} must be uint8 {shape}; got {array.dtype} "
                    f"{array.shape}"
                )
        if count == 0 or len(self.categories) != count:
            raise ObjectSetError(
                f"{self.name!r} has {count} ids and {len(self.categories)} categories; expected "
                "one category for each object, and at least one object"
            )
        repeated = _first_repeated(self.ids)
        if repeated is not None:
            raise ObjectSetError(f"id {repeated!r} occurs twice in {self.name!r}; ids must differ")
        starts = [c for i, c in enumerate(self.categories) if i == 0 or c != self.categories[i - 1]]
        split = _first_repeated(starts)
        if split is not None:
            raise ObjectSetError(
                f"objects of category {split!r} in {self.name!r} do not stand next to each other; "
                "sort the objects by category"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> int:
        """Side of an object's box, px."""
        return int(self.images.shape[1])

    @property
    def category_names(self) -> tuple[str, ...]:
        """The categories, in order."""
        return tuple(dict.fromkeys(self.categories))

    @property
    def category_index(self) -> NDArray[np.int64]:
        """The index of every object's category: int64 (n,)."""
        order = {name: index for index, name in enumerate(self.category_names)}
        return np.array([order[name] for name in self.categories], np.int64)

    @property
    def exemplar_index(self) -> NDArray[np.int64]:
        """The index of every object within its category: int64 (n,)."""
        category = self.category_index
        first = np.searchsorted(category, category, side="left")
        return np.asarray(np.arange(len(self)) - first, np.int64)

    def subset(self, indices: ArrayLike) -> ObjectSet:
        """Return the objects at `indices`, in that order.

        Raises
        ------
        ObjectSetError
            No index is given, or one is out of range.
        """
        chosen = np.asarray(indices, np.int64).reshape(-1)
        if not len(chosen) or chosen.min() < 0 or chosen.max() >= len(self):
            raise ObjectSetError(
                f"cannot take objects {chosen.tolist()} of {self.name!r}; expected at least one "
                f"index from 0 to {len(self) - 1}"
            )
        return ObjectSet(
            self.name,
            self.images[chosen],
            self.masks[chosen],
            tuple(self.ids[i] for i in chosen),
            tuple(self.categories[i] for i in chosen),
            dict(self.source),
        )

    def select(
        self,
        categories: int | Sequence[str] | None = None,
        per_category: int | None = None,
    ) -> ObjectSet:
        """Return some categories, and the first exemplars of each.

        Parameters
        ----------
        categories
            The first so many, those of these names, or all.
        per_category
            Exemplars of each, or all.

        Raises
        ------
        ObjectSetError
            The set does not have so many.
        UnknownNameError
            No category of that name.
        """
        names = choose_categories(self.category_names, categories, self.name)
        exemplar, category = self.exemplar_index, np.array(self.categories)
        chosen: list[int] = []
        for name in names:
            present = int((category == name).sum())
            wanted = present if per_category is None else per_category
            check_exemplars(present, wanted, name, self.name)
            chosen += np.flatnonzero((category == name) & (exemplar < wanted)).tolist()
        return self.subset(chosen)

    def patches(self, color: Color) -> ByteArray:
        """Return the objects over a background: uint8 (n, s, s, 3).

        ``(image * alpha + color * (255 - alpha)) / 255``, halves rounded up, in integers.
        """
        found, ground = np.empty_like(self.images), np.array(color, np.uint16)
        for first in range(0, len(self), _TOGETHER):  # 16 bits hold all that comes up
            some = slice(first, first + _TOGETHER)
            alpha = self.masks[some, ..., None].astype(np.uint16)
            over = self.images[some] * alpha
            over += ground * (255 - alpha)
            found[some] = (over + 127) // 255
        return found

    def contrast_on(self, color: Color) -> NDArray[np.int16]:
        """Return by how many of 255 levels each object differs from a background, at most."""
        shown, ground = self.patches(color), np.array(color, np.int16)
        most, least = (by(shown, (1, 2)).astype(np.int16) for by in (np.max, np.min))
        return np.asarray(np.maximum(most - ground, ground - least).max(1))

    def seen_on(self, color: Color) -> ObjectSet:
        """Return the objects that can be seen on a background; `notes` name those that cannot.

        An object is seen if it changes at least one pixel by one of 255 levels.

        Raises
        ------
        ObjectSetError
            None can be seen.
        """
        apart = self.contrast_on(color)
        ground = ",".join(map(str, color))
        unseen, faint = np.flatnonzero(apart == 0), np.flatnonzero((apart > 0) & (apart <= FAINT))
        if len(unseen) == len(self):
            raise ObjectSetError(
                f"no object of {self.name!r} can be seen on the background {ground} "
                f"({self._few(unseen)}); choose another --background"
            )
        found = self if not len(unseen) else self.subset(np.flatnonzero(apart))
        notes = {}
        if len(unseen):
            notes["unseen"] = (
                f"left out {len(unseen)} of {len(self)} objects, which cannot be seen on the "
                f"background {ground}: {self._few(unseen)}"
            )
        if len(faint):
            notes["faint"] = (
                f"{len(faint)} objects differ by no more than {FAINT} of 255 levels from the "
                f"background {ground}: {self._few(faint)}"
            )
        if 0 < max(color) <= 1:
            notes["dark"] = (
                f"the background {ground} is nearly black: its levels run from 0 to 255 (white)"
            )
        return replace(found, source=found.source | notes) if notes else found

    @property
    def notes(self) -> list[str]:
        """What is to be said of masks that cover all, and of objects that are hardly seen."""
        said = ("whole", "unseen", "faint", "dark")
        return [self.source[key] for key in said if key in self.source]

    def _few(self, indices: NDArray[np.int64]) -> str:
        names = ", ".join(self.ids[index] for index in indices[:5])
        return names + (", ..." if len(indices) > 5 else "")

    def digest(self) -> str:
        """Return the SHA-256 over ids, categories, pixels and masks, hexadecimal."""
        sha = hashlib.sha256()
        for texts in (self.ids, self.categories):
            for text in texts:
                encoded = text.encode()
                sha.update(len(encoded).to_bytes(8, "little") + encoded)
        for array in (self.images, self.masks):
            sha.update(repr(array.shape).encode())
            sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()


@dataclass(frozen=True)
class ObjectRequest:
    """What a builder of an object set is asked for; `load_objects` explains the fields."""

    argument: str = ""
    size: int = 50
    categories: int | tuple[str, ...] | None = None
    per_category: int = 1
    seed: int = 0
    data_dir: Path | None = None
    background_color: Color | None = None
    background_tolerance: int = 0
    skip_broken: bool = False
    split: Split = "test"


ObjectSetBuilder: TypeAlias = Callable[[ObjectRequest], ObjectSet]


def choose_categories(
    known: Sequence[str], wanted: int | Sequence[str] | None, name: str
) -> tuple[str, ...]:
    """Return the wanted ones of the `known` categories of the set called `name`.

    Raises
    ------
    ObjectSetError
        More are wanted than there are, or fewer than one.
    UnknownNameError
        No category of that name.
    """
    if wanted is None:
        return tuple(known)
    if isinstance(wanted, int):
        if not 1 <= wanted <= len(known):
            raise ObjectSetError(
                f"{name!r} has {len(known)} categories; {wanted} were asked for; "
                f"expected 1 to {len(known)}"
            )
        return tuple(known[:wanted])
    for category in wanted:
        if category not in known:
            raise UnknownNameError(f"category of {name}", category, known)
    repeated = _first_repeated(wanted)
    if repeated is not None or not wanted:
        what = "no category" if repeated is None else f"category {repeated!r} twice"
        raise ObjectSetError(f"{what} asked of {name!r}; name each category once")
    return tuple(wanted)


def check_exemplars(present: int, wanted: int, category: str, name: str) -> None:
    """Refuse a number of exemplars that a category does not have.

    Raises
    ------
    ObjectSetError
        Stating how many there are.
    """
    if not 1 <= wanted <= present:
        raise ObjectSetError(
            f"category {category!r} of {name!r} has {present} exemplars; {wanted} were asked for; "
            f"expected 1 to {present}"
        )


def exemplar_generator(seed: int, *names: str) -> np.random.Generator:
    """Return a generator that depends on `seed` and `names` only, not on what was drawn before."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest[:16], "<u4").tolist()])


def _first_repeated(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
