"""Which objects a layer responds to at all, and which it does not tell apart.

An object may be seen on the canvas and yet change nothing in a layer: it differs from the
background in a colour that the network does not read, or a gain saturates. Its code is then the
empty canvas's code at every location, or zero, and a cosine of 1 between locations says nothing
about it. Every client of a source leaves such objects out by :func:`find_responses`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elsewhere.errors import MemoryLimitError
from elsewhere.measures.blocks import rows_needed, rows_of
from elsewhere.measures.crossing import Crossing
from elsewhere.measures.unit_chunks import ROUNDING, precision_of
from elsewhere.measures.vectors import (
    dot_products,
    negligible,
    squared_norms,
    summable,
    sums,
    to_numpy,
    torch_of,
)
from elsewhere.protocols import Array, Block, Design, Layer, Need, Source, Stage

N_KEYS = 4
"""Random projections by which equal codes are known."""
LOST = 20
"""Where what tells objects apart is fewer roundings than this, its digits are doubtful: a twentieth
of its length is rounding, which takes up to 1/400 off a cosine."""
COARSE = 5e-3
"""A vector that is rounded by more than this share of its length has lost small values."""
HALF_STEP = 2.0**-25
"""Half the smallest number of half precision: by so much a small value is rounded."""
PRECISIONS = {
    "half": ("float16", "record with --dtype float32"),
    "single": ("float32", "take a layer without the common part, or give arrays in float64"),
    "double": ("float64", "take the common part off the values"),
}
"""Names of precisions, and what to do where they do not suffice."""
HALF = 2e-5
"""In place of rounding where values were stored in half precision: few of equal ones fall apart."""
UNSEEN = (
    "it was not looked at whether each layer responds to each object, for that takes more than "
    "--max-memory: an object that a layer does not respond to counts as alike everywhere"
)
FEW = 5
"""Names that a note lists."""

Marks = NDArray[np.bool_]


@dataclass(frozen=True)
class Responses:
    """What layers respond to.

    Per layer, `silent` (object,) marks objects whose code is the empty canvas's, or zero, at every
    location, and `zero` those of them whose code is zero there. `notes` say which these are, and
    which objects a layer does not tell apart.
    """

    design: Design
    silent: Mapping[str, Marks]
    notes: list[str] = field(default_factory=list)
    zero: Mapping[str, Marks] = field(default_factory=dict)

    def share_with(self, name: str, share: float) -> float:
        """Return the share of zero vectors, of those of the objects that are left out as well.

        `share` is that of the objects which are not left out of the layer.
        """
        left_out, zero = self.silent[name], self.zero.get(name, np.zeros(1, bool))
        if left_out.all():
            return share
        return float((share * (~left_out).sum() + (left_out & zero).sum()) / len(left_out))

    @property
    def nowhere(self) -> Marks:
        """Objects that no layer responds to, bool (object,)."""
        found = np.full(len(self.design.objects), bool(self.silent))
        for marks in self.silent.values():
            found &= marks
        return found

    @property
    def deaf(self) -> list[str]:
        """Layers that respond to no object."""
        return [name for name, marks in self.silent.items() if marks.all()]

    def groups(self, source: Source, names: Sequence[str]) -> list[tuple[Source, list[str]]]:
        """Return layers in groups, each with a source of the objects that these respond to.

        A layer that responds to none is in no group, unless there is no other: then all are, and
        what is found of them has to be left out.
        """
        found: dict[tuple[int, ...], list[str]] = {}
        for name in names:
            heard = np.flatnonzero(~self.silent[name])
            if len(heard):
                found.setdefault(tuple(heard.tolist()), []).append(name)
        n = len(self.design.objects)
        if not found:
            return [(source, list(names))]
        return [
            (source if len(heard) == n else source.select(heard), layers)
            for heard, layers in found.items()
        ]


def find_responses(
    source: Source,
    layers: Sequence[str] | None = None,
    *,
    max_memory: int = 2**31,
    counted: bool = False,
) -> Responses:
    """Return which objects layers respond to, and do not tell apart.

    All objects are looked at where they are compared with, at the reference; only those that change
    nothing there, everywhere else. Layers in which all codes are zero count as dead; of arrays
    without the empty canvas's activation it is found which codes are zero. Where objects that a
    layer does not respond to are `counted` nevertheless, notes say so.
    """
    design = source.design
    names = [layer.name for layer in source.layers if layers is None or layer.name in layers]
    silent = {name: np.zeros(len(design.objects), bool) for name in names}
    zero: dict[str, Marks] = {}
    look, there = _Look(layers), dict[str, Marks]()
    try:
        source.stream([look], max_memory=max_memory)
        suspects = {name: marks for name, marks in look.silent.items() if marks.any()}
        if suspects:
            copied = {name: marks.copy() for name, marks in suspects.items()}
            everywhere = _Look(list(suspects), copied)
            zero = everywhere.zero = {name: look.zero[name].copy() for name in suspects}
            source.stream([everywhere], max_memory=max_memory)
            for name, marks in everywhere.silent.items():
                if not (marks.all() and look.zero[name].all()):  # else it is dead
                    silent[name] = marks
                    there[name] = suspects[name] & ~marks
    except MemoryLimitError:  # what is measured may take less, and be had nevertheless
        return Responses(design, silent, [UNSEEN])
    out, undefined = ("count", "says nothing") if counted else ("are left out (nan)", "is nan")
    notes = _told(
        design,
        silent,
        "{count} of {n} objects change nothing in {layers}, where their codes are the empty "
        f"canvas's, or zero, at every location, and {out}: {{objects}}",
        "no object changes anything in {layers}, where every code is the empty canvas's at every "
        f"location; what is measured there {undefined}",
    )
    at_reference = (
        "{count} of {n} objects change nothing at the reference in {layers}, so that their "
        "similarity is that with the empty canvas's code: {objects}"
    )
    notes += _told(design, there, at_reference, at_reference)
    unseen = {name: marks | there.get(name, marks) for name, marks in silent.items()}
    notes += _copies_told(design, look, unseen) + _rounding_told(look)
    return Responses(design, silent, notes, zero)


class _Look:
    """A sink that compares codes with the empty canvas's, and with each other.

    Without `suspects` at the reference; else those that are marked, everywhere.
    """

    most_parts = 1  # what it holds is the same for few objects and many

    def __init__(
        self, layers: Sequence[str] | None, suspects: Mapping[str, Marks] | None = None
    ) -> None:
        self._wanted, self._suspects = layers, suspects
        self.silent: dict[str, Marks] = {}
        self.zero: dict[str, Marks] = {}
        self.keys: dict[str, NDArray[np.float64]] = {}
        self.shares: dict[str, float] = {}
        self.spreads: dict[str, _Spread] = {}
        self._empty: dict[str, Any] = {}
        self._signs: dict[str, Any] = {}
        self._crossing = Crossing()

    def needs(self, layer: Layer) -> tuple[Need, ...]:
        """Return whole rows."""
        if self._wanted is not None and layer.name not in self._wanted:
            return ()
        where: Stage = "reference" if self._suspects is None else "grid"
        nothing: Stage = "empty"
        return (rows_needed(layer, [nothing], optional=True), rows_needed(layer, [where]))

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        """Return activations of the empty canvas and an object, a sum, and projections' signs."""
        return 4.0 + N_KEYS

    def begin(self, design: Design, layers: Sequence[Layer], part: int = 0, parts: int = 1) -> None:
        """Prepare for a sweep over layers."""
        n = len(design.objects)
        for layer in layers if part == 0 else ():
            known = None if self._suspects is None else self._suspects[layer.name]
            self.silent[layer.name] = np.zeros(n, bool) if known is None else known
            self.zero.setdefault(layer.name, np.zeros(n, bool))
            self.keys[layer.name] = np.full((n, 1 + N_KEYS), np.nan)

    def add(self, block: Block) -> None:
        """Take a block."""
        name, objects = block.layer, block.objects
        if block.stage == "empty":
            first = summable(rows_of(block))[:1]
            self._empty[name] = first.copy() if isinstance(first, np.ndarray) else first.clone()
            return
        marks = self.silent[name]
        if self._suspects is not None and not marks[objects].any():
            return
        rows = summable(rows_of(block))
        share = HALF if block.half else negligible(rows)
        found: dict[str, Array] = {}
        with np.errstate(all="ignore"):  # NaN and infinity are refused by who measures them
            found["size"] = squared_norms(rows)
            if self._suspects is None:
                self.shares[name] = max(share, self.shares.get(name, 0.0))
                found["keys"] = dot_products(rows, self._signs_of(name, rows))
                spread = self.spreads.setdefault(name, _Spread(precision_of(rows, block.half)))
                spread.add(rows, found["size"])
            if name in self._empty:
                found["change"] = squared_norms(rows - self._empty[name])
        use = partial(self._mark, name, objects.copy(), share, list(found))
        self._crossing.take(use, *found.values())

    def _mark(
        self,
        name: str,
        objects: NDArray[np.int64],
        share: float,
        names: list[str],
        *arrays: NDArray[np.float64],
    ) -> None:
        """Note what the sums over rows say of their objects."""
        found, marks = dict(zip(names, arrays, strict=True)), self.silent[name]
        size = found["size"]
        same = nothing = size == 0
        if "change" in found:
            with np.errstate(all="ignore"):
                same = nothing | (found["change"] <= share**2 * size)
        if self._suspects is None:
            self.zero[name][objects] = nothing
            self.keys[name][objects, 0] = np.sqrt(size)
            self.keys[name][objects, 1:] = found["keys"]
            marks[objects] = same
        else:
            np.logical_and.at(marks, objects, same)
            np.logical_and.at(self.zero[name], objects, nothing)

    def _signs_of(self, name: str, rows: Array) -> Array:
        if name not in self._signs and not isinstance(rows, np.ndarray):
            torch, shape = torch_of(rows), (N_KEYS, rows.shape[1])
            generator = torch.Generator(rows.device).manual_seed(0)
            drawn = torch.randint(0, 2, shape, generator=generator, device=rows.device)
            self._signs[name] = (2 * drawn - 1).to(rows.dtype)
        elif name not in self._signs:
            drawn = np.random.default_rng(0).integers(0, 2, (N_KEYS, rows.shape[1]), np.int8)
            self._signs[name] = (2 * drawn - 1).astype(rows.dtype)
        return self._signs[name]

    def end(self) -> None:
        """Forget what only a sweep needs."""
        self._crossing.flush()
        self._signs.clear()
        for spread in self.spreads.values():
            spread.end()

    def copies(self, name: str) -> list[NDArray[np.int64]]:
        """Return groups of objects whose codes at the reference are equal up to rounding."""
        keys, share = self.keys[name], self.shares.get(name, 0.0)
        order = np.argsort(keys[:, 1], kind="stable")
        order = order[np.isfinite(keys[order]).all(axis=1) & (keys[order, 0] > 0)]
        found = keys[order]
        apart = np.abs(np.diff(found, axis=0)) > share * found[1:, :1]
        groups = np.split(order, np.flatnonzero(apart.any(axis=1)) + 1)
        return [np.sort(group) for group in groups if len(group) > 1]


@dataclass
class _Spread:
    """How much of codes is what tells them apart, and how much of it is rounding."""

    precision: str
    first: Array | None = None
    total: Any = None
    squares: Any = 0.0
    size: Any = 0.0
    count: int = 0
    share: float = 0.0
    rounding: float = 0.0

    def add(self, rows: Array, size: Array) -> None:
        """Take codes, and their squared lengths."""
        if not isinstance(rows, np.ndarray):
            if self.first is None:
                self.first, self.total = rows[0].clone(), 0.0
            apart = rows - self.first
            self.total = self.total + sums(apart, (0,))
            self.squares = self.squares + squared_norms(apart).sum()
            self.size = self.size + size.sum()
        else:
            if self.first is None:
                self.first, self.total = np.array(rows[0]), np.zeros(rows.shape[1])
            for row in rows:  # less one of them, so that what is common takes no digits
                apart = np.subtract(row, self.first, dtype=np.float64)
                self.total += apart
                self.squares += float(apart @ apart)
            self.size += float(size.sum())
        self.count += len(rows)

    def end(self) -> None:
        """Sum up, and let go of what was held."""
        if self.first is None:
            return
        mean = self.total / self.count
        square = mean @ mean
        if not isinstance(mean, np.ndarray):  # one transfer
            numbers = to_numpy(torch_of(mean).stack([self.squares, self.size, square]))
            self.squares, self.size, square = numbers
        size = np.sqrt(self.size / self.count)
        variance = max(self.squares / self.count - float(square), 0.0)
        self.share = float(np.sqrt(variance) / size) if size > 0 else 0.0
        self.rounding = ROUNDING[self.precision]
        if self.precision == "half" and size > 0:
            self.rounding = max(self.rounding, float(HALF_STEP * np.sqrt(len(mean)) / size))
        self.first = self.total = None

    @property
    def doubtful(self) -> bool:
        """Whether digits that matter are lost."""
        coarse = self.precision == "half" and self.rounding > COARSE
        return coarse or 0 < self.share < LOST * self.rounding


def _rounding_told(look: _Look) -> list[str]:
    """Return a line for each layer in which rounding is no small part of what differs."""
    return [
        f"layer {name}: what tells objects apart is {spread.share:.1g} of their codes at the "
        f"reference, and {kind} rounds these by up to {spread.rounding:.1g}: measures of what is "
        f"left once a common part is removed may be rounding; {remedy}"
        for name, spread in look.spreads.items()
        if spread.doubtful
        for kind, remedy in [PRECISIONS[spread.precision]]
    ]


def _told(design: Design, marked: Mapping[str, Marks], some: str, every: str) -> list[str]:
    """Return a line for each set of objects, with the layers that it is marked for."""
    found: dict[tuple[int, ...], list[str]] = {}
    for name, marks in marked.items():
        if marks.any():
            found.setdefault(tuple(np.flatnonzero(marks).tolist()), []).append(name)
    n = len(design.objects)
    return [
        (every if len(objects) == n else some).format(
            count=len(objects), n=n, layers=", ".join(names), objects=_few(design, objects)
        )
        for objects, names in found.items()
    ]


def _copies_told(design: Design, look: _Look, silent: Mapping[str, Marks]) -> list[str]:
    """Return a line for each set of objects that layers do not tell apart, by the first of each."""
    n = len(design.objects)
    found: dict[str, list[str]] = {}
    for name, marks in silent.items():
        groups = [group[~marks[group]] for group in look.copies(name)]
        groups = sorted((group for group in groups if len(group) > 1), key=lambda group: group[0])
        if groups:
            shown = "; ".join(_few(design, group.tolist(), " = ") for group in groups[:FEW])
            shown = f"{len(groups)} groups: {shown}" if len(groups) > 1 else shown
            shown += "; ..." if len(groups) > FEW else ""
            count = sum(map(len, groups))
            which = f"{count} of {n} objects" if count < n else f"all {n} objects"
            found.setdefault(f"{which} with another one ({shown})", []).append(name)
    return [
        f"the same code at the reference for {which}: {', '.join(names)}; there the network does "
        "not tell them apart, and baselines and G take them for different objects"
        for which, names in found.items()
    ]


def _few(design: Design, objects: Sequence[int], mark: str = ", ") -> str:
    names = mark.join(design.objects[number] for number in objects[:FEW])
    return names + (f"{mark}..." if len(objects) > FEW else "")
