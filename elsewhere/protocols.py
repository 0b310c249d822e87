"""The one interface: sources yield blocks of activations, sinks say what they need of them.

A *source* (a live sweep, dense or incremental, a recording, or arrays in memory) goes through the
*stages* of a sweep and hands every *sink* one :class:`Block` after another. A sink declares, per
layer, what it *needs*; the source computes no more than that, so that an engine which works on
windows never builds a whole map of a layer of which only a statistic is asked. A sink depends
neither on the order of the blocks within a stage nor on their size.

``position`` is a flat index into an ordered tuple of named axes, ``(y, x)`` today.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from elsewhere.axes import Axes, Coordinate
from elsewhere.kept import Keep, Kept
from elsewhere.tokens import Tokens

Stage: TypeAlias = Literal["empty", "reference", "grid"]
STAGES: tuple[Stage, ...] = ("empty", "reference", "grid")
"""In order: the empty canvas; every object at the reference; the sweep."""

Array: TypeAlias = Any
"""A ``numpy.ndarray`` or a ``torch.Tensor``."""

Layout: TypeAlias = tuple[str, ...]
"""What the dimensions of one activation are, in order: ``channel``, ``height``, ``width``;
``token``, ``feature``; ``unit``. Empty where it is not known."""

LAYOUTS: dict[int, Layout] = {
    1: ("unit",),
    2: ("token", "feature"),
    3: ("channel", "height", "width"),
}
"""The layout of arrays that do not say theirs, by their number of dimensions."""

BY_NUMBER: Layout = ("by number",)
"""The layout of a layer that does not say its own."""

SPACE = ("height", "width", "token")
"""Dimensions that means over space go over."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of images done and the number of images in all."""


@dataclass(frozen=True)
class Design:
    """What is swept: objects by positions, and the reference that they are compared with.

    Parameters
    ----------
    objects, categories
        One id and one category per object.
    axes
        Named axes with their coordinates, in order.
    reference
        One coordinate per axis; it need not be on the axes.

    Examples
    --------
    >>> axes = Axes.of(y=(5, 9), x=(5, 7, 9))
    >>> design = Design(("a", "b"), ("A", "B"), axes, (9, 5))
    >>> design.shape, design.n_positions, design.reference_index
    ((2, 3), 6, 3)
    """

    objects: tuple[str, ...]
    categories: tuple[str, ...]
    axes: Axes
    reference: tuple[Coordinate, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the axes."""
        return self.axes.names

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of coordinates along each axis."""
        return self.axes.shape

    @property
    def n_positions(self) -> int:
        """Number of positions."""
        return self.axes.n_positions

    @property
    def positions(self) -> NDArray[Any]:
        """Coordinates of all positions in row-major order, shape (position, axis)."""
        return self.axes.positions

    @property
    def locations(self) -> NDArray[np.int64]:
        """Where the window is at each position, px, shape (position, axis that moves)."""
        moves = [axis.moves for axis in self.axes]
        return self.positions[:, moves].astype(np.int64)

    @property
    def reference_location(self) -> tuple[int, ...]:
        """Where the window is at the reference, px."""
        pairs = zip(self.axes, self.reference, strict=True)
        return tuple(value for axis, value in pairs if axis.moves)

    def at(self, reference: Sequence[Coordinate]) -> Design:
        """Return the same design with another reference: all coordinates, or a location only."""
        own = self.reference[: len(self.axes.each) - len(reference)]
        return replace(self, reference=(*own, *reference))

    @property
    def reference_index(self) -> int | None:
        """Flat index of the reference, or None where it is not on the axes."""
        return self.axes.index(self.reference)

    def shown(self, number: int, position: int) -> str:
        """Return in words what is shown: an object (-1 for none) at a position (-1: reference)."""
        if number < 0:
            return "the empty canvas"
        place = self.reference if position < 0 else tuple(self.positions[position].tolist())
        pairs = zip(self.names, place, strict=True)
        where = ", ".join(f"{name}={value:g}" for name, value in pairs)
        return f"object {self.objects[number]!r} at {where}"

    @property
    def category_codes(self) -> NDArray[np.int64]:
        """The category of each object as a number, shape (object,)."""
        names = list(dict.fromkeys(self.categories))
        return np.array([names.index(category) for category in self.categories], dtype=np.int64)


@dataclass(frozen=True)
class Layer:
    """A layer of any source: one call of one module of a network, or an array of another tool.

    Parameters
    ----------
    name
        The alias where there is one, else the module's name; with ``:1`` for the second call of
        a module that is called more than once, and with ``[key]`` for one of several tensors.
    module, kind
        The module's name in the network, and its class; empty where there is no network.
    shape
        Of one activation in the network: (channel, height, width), (unit,), (token, feature), ...
    keep
        What the source has of it.
    seed
        Of a sketch.
    stride
        Cumulative stride, px; None where a cell has no place on the canvas.
    offset
        Centre of cell 0's receptive field, px from the canvas's first pixel.
    receptive_field
        Side of the receptive field, px.
    layout
        What the dimensions of `shape` are, empty where it is not known; by default by their number.
    call
        Which of the module's calls in a forward pass, from 0.
    output
        Key of the tensor in an output that holds several.
    input_shape
        Of the module's first argument, for one image.
    itemsize
        Bytes of a number that the source gives: 8 where that is double precision.
    units
        What a labelled array calls its units; empty where they have no names.
    repeats
        Of a module that is made of others: the last of them, if its output is the module's.
    tokens
        Which of a layer's tokens are a grid on the canvas, and which of them are taken; None where
        there are none, or where no grid was found.
    beside
        Whether it lies beside the longest way from the images to the output, as a shortcut or a
        gate does; None where that is not known.

    Examples
    --------
    >>> layer = Layer("pool5", "features.30", "MaxPool2d", (512, 7, 7), Keep("mean"))
    >>> layer.stored_shape, layer.n_units, layer.bytes
    ((512,), 512, 2048)
    """

    name: str
    module: str
    kind: str
    shape: tuple[int, ...]
    keep: Keep = field(default_factory=Keep)
    seed: int = 0
    stride: int | None = None
    offset: float | None = None
    receptive_field: int | None = None
    layout: Layout = BY_NUMBER
    call: int = 0
    output: int | str | None = None
    input_shape: tuple[int, ...] | None = None
    itemsize: int = 4
    units: tuple[str, ...] = ()
    tokens: Tokens | None = None
    repeats: str = field(default="", compare=False, repr=False)
    beside: bool | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.layout == BY_NUMBER:
            object.__setattr__(self, "layout", LAYOUTS.get(len(self.shape), ()))

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of what the source has of one activation."""
        if self.keep.kind == "sketch":
            return (self.keep.size,)
        if self.keep.kind == "mean":
            pairs = zip(self.layout, self.shape, strict=True)
            return tuple(size for name, size in pairs if name not in SPACE)
        return self.shape

    @property
    def n_units(self) -> int:
        """How many numbers the source has of one activation."""
        return math.prod(self.stored_shape)

    @property
    def form(self) -> str:
        """What the source has of it, in words; the mean of a layer without space is all of it.

        Of some of its tokens, these come first: ``class``, ``grid``, ``class sketch:64``. The mean
        of all tokens is that of their grid.
        """
        whole = self.keep.kind == "mean" and self.n_units == math.prod(self.shape)
        kept = "full" if whole else str(self.keep)
        part = "all" if self.tokens is None or kept == "mean" else self.tokens.part
        if part == "all":
            return kept
        return part if kept == "full" else f"{part} {kept}"

    @property
    def bytes(self) -> int:
        """Bytes of what the source has of one activation, as float32."""
        return 4 * self.n_units

    @property
    def is_map(self) -> bool:
        """Whether the layer is known to have channels, height and width, in any order.

        Tokens are one with a grid among them.
        """
        return set(self.layout) == set(LAYOUTS[3]) or self.has_grid

    @property
    def has_grid(self) -> bool:
        """Whether all tokens are taken, and some of them are known to be a grid."""
        return self.tokens is not None and self.tokens.part == "all"

    @property
    def given_shape(self) -> tuple[int, ...]:
        """Shape of what the network gives of one image, of which its tokens may be a part."""
        if self.tokens is None:
            return self.shape
        features = self.shape[1 - self.tokens.axis if self.has_grid else -1]
        return self.tokens.of("all").shape(features)

    def take(self, values: Any) -> Any:
        """Return what is taken of what the network gives, (row, *given shape): some tokens."""
        return values if self.tokens is None else self.tokens.take(values)


@dataclass(frozen=True)
class Need:
    """What a sink needs of a layer.

    Parameters
    ----------
    kind
        ``full`` maps, the ``mean`` over space, a ``sketch`` of `size` numbers, or ``vectors``
        (norms and dot products, for which no full map has to exist).
    stages
        The stages in which it is needed.
    size, seed
        Of a sketch.
    optional
        Whether a source that does not have it is to leave it out: other tools' arrays may come
        without the empty canvas's activation.
    """

    kind: Literal["full", "mean", "sketch", "vectors"]
    stages: frozenset[Stage] = frozenset({"grid"})
    size: int = 0
    seed: int = 0
    optional: bool = False


class Vectors(Protocol):
    """Activations of one layer as row vectors. Products are accumulated in double precision.

    What is returned is NumPy's, or on a GPU a tensor that lies there: nobody waits for it.
    """

    def __len__(self) -> int:
        """Return the number of rows."""

    def norms(self) -> Array:
        """Euclidean norms, float64, shape (row,)."""

    def dots(self, other: Any) -> Array:
        """Dot products with the rows of `other`, float64, shape (row, row of other)."""

    def compare(
        self, others: Any, groups: Sequence[NDArray[np.int64]]
    ) -> tuple[Array, list[tuple[NDArray[np.int64], Array]]]:
        """Return products with the rows of `others`, and those within groups of these rows.

        Parameters
        ----------
        others
            Vectors of the same layer.
        groups
            Numbers of rows that are to be multiplied with each other.

        Returns
        -------
        array, list of tuple
            Shape (row, row of others), float64; and the numbers of some rows with their products
            (row, row), together all those of the groups: other products may be among them.
        """

    def minus(self, other: Any) -> Vectors:
        """Return these rows less the single row of `other`."""

    def centred(self) -> Vectors:
        """Return these rows, each less its own mean over units."""

    def zeros(self, rows: int) -> Vectors:
        """Return `rows` zero vectors of the same length."""

    def assign(self, row: int, other: Any) -> None:
        """Write the rows of `other` into the rows from `row` on."""

    def take(self, rows: Sequence[int]) -> Vectors:
        """Return some of the rows."""


class Block(Protocol):
    """Some rows of one layer, valid only while the sink's ``add`` runs."""

    @property
    def stage(self) -> Stage:
        """The stage of the sweep."""

    @property
    def layer(self) -> str:
        """Name of the layer."""

    @property
    def objects(self) -> NDArray[np.int64]:
        """Index of each row's object; -1 for the empty canvas."""

    @property
    def positions(self) -> NDArray[np.int64]:
        """Flat index of each row's position; -1 for the reference and the empty canvas."""

    @property
    def kept(self) -> Kept:
        """What the rows hold: whole activations, their means over space, or sketches."""

    @property
    def half(self) -> bool:
        """Whether the values were stored in half precision."""

    def full(self) -> Array:
        """Return whole activations, shape (row, *layer shape)."""

    def mean(self) -> Array:
        """Return means over space, shape (row, channel); vectors stay as they are.

        Raises
        ------
        LayerError
            The layout is not known.
        """

    def sketch(self, size: int, seed: int) -> Array:
        """Return seeded sparse random projections, shape (row, size)."""

    def vectors(self) -> Vectors:
        """Return the rows as vectors."""


@runtime_checkable
class Sink(Protocol):
    """Takes the blocks of a sweep; what it finds doubtful it says in a list called ``notes``.

    A class that derives from it need not begin or end anything.
    """

    def needs(self, layer: Layer) -> tuple[Need, ...]:
        """Return what is needed of `layer`; nothing means that the layer is not wanted."""

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        """Return how many activations of `layer` the sink keeps in memory during a sweep.

        Where that is too much, the layer is swept in several `parts`, of which each keeps less: at
        most one for each object, or as many as an attribute ``most_parts`` of the sink says.
        """

    def begin(self, design: Design, layers: Sequence[Layer], part: int = 0, parts: int = 1) -> None:
        """Prepare for a sweep over `layers`; called once for each group and part."""
        return

    def add(self, block: Block) -> None:
        """Take a block."""

    def end(self) -> None:
        """Finish the group of layers that was begun last."""
        return


class Source(ABC):
    """Answers sinks; :class:`elsewhere.sources.BlockSource` is what to begin with.

    Parameters
    ----------
    design
        Objects, positions and reference.
    layers
        The layers that can be had, in the network's order.
    together
        Whether one pass gives several layers, so that these had better be asked for at once.
    """

    design: Design
    layers: Sequence[Layer]
    together: ClassVar[bool] = False

    @property
    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Where the values come from: plain attributes for results.

        Its ``notes`` (list of str) say under which doubts the values were computed.
        """

    @property
    def origin(self) -> dict[str, Any]:
        """All that is known of the network and of what it was shown: a recording's attributes."""
        return self.provenance

    def pictures(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
        """Return the objects' images and masks, or None where they are not known."""
        return None

    def working_bytes(self, layer: Layer) -> int:
        """Return what going through a layer takes of the memory, without what sinks hold."""
        return 0

    def step_aside(self, reason: str) -> bool:
        """Give values in another way after an :class:`~elsewhere.errors.EngineError`, if there is
        one that was not taken; return whether there is."""
        return False

    @abstractmethod
    def at(self, reference: tuple[int, ...]) -> Source:
        """Return a source of its own with another reference; nothing stale goes with it."""

    @abstractmethod
    def select(
        self, objects: Sequence[int] | None = None, positions: Sequence[int] | None = None
    ) -> Source:
        """Return a source of its own of some objects at some positions, by their indices.

        Raises
        ------
        InputError
            The positions are no full grid of some coordinates of each axis.
        """

    @abstractmethod
    def stream(
        self, sinks: Sequence[Sink], *, max_memory: int = ..., progress: Progress | None = None
    ) -> None:
        """Go through all stages that the sinks need and give them their blocks."""

    def close(self) -> None:  # noqa: B027 (most hold nothing)
        """Let go of what the source holds open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
