"""Blocks of whole activations, as sources that have them hand them to sinks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elsewhere.errors import InputError, LayerError, NumericsError
from elsewhere.kept import Kept
from elsewhere.measures.landing import Rows
from elsewhere.measures.sketch import sketch
from elsewhere.measures.vectors import DenseVectors, average
from elsewhere.protocols import LAYOUTS, SPACE, Array, Block, Design, Layer, Layout, Need, Stage
from elsewhere.tokens import Tokens


def spatial_mean(
    values: Array, layout: Layout | None = None, tokens: Tokens | None = None
) -> Array:
    """Return means over space of `values` (row, *dimensions), in double precision and rounded once.

    `layout` names the dimensions: ``channel``, ``height`` and ``width`` in any order, ``token`` and
    ``feature``, or ``unit``; by default in this order, by their number. Where `tokens` have a grid,
    the mean is over that: a class token has no place.

    Examples
    --------
    >>> spatial_mean(np.ones((2, 4, 4, 3)), ("height", "width", "channel")).shape
    (2, 3)
    """
    if layout is None:
        layout = LAYOUTS[values.ndim - 1]
    if tokens is not None and tokens.part == "all":
        values, layout = tokens.grid(values), tokens.of("grid").layout
    over = tuple(axis for axis, name in enumerate(layout, start=1) if name in SPACE)
    return average(values, over) if over else values


def channels_first(values: Array, layout: Layout) -> Array:
    """Return maps, shape (row, *dimensions), as (row, channel, height, width): a view.

    Examples
    --------
    >>> channels_first(np.ones((2, 5, 6, 3)), ("height", "width", "channel")).shape
    (2, 3, 5, 6)
    """
    order = (0, *(1 + layout.index(name) for name in LAYOUTS[3]))
    return values.transpose(order) if isinstance(values, np.ndarray) else values.permute(order)


def maps_from(values: Array, layer: Layer) -> Array:
    """Return a layer's activations (row, *shape) as maps (row, channel, height, width).

    Of tokens these are their grid.
    """
    if layer.tokens is not None and layer.has_grid:
        return channels_first(layer.tokens.grid(values), layer.tokens.of("grid").layout)
    return channels_first(values, layer.layout)


def without_layout(name: str, shape: Sequence[int], wanted: str) -> str:
    """Return the refusal of what needs to know which dimensions of a layer are space."""
    return (
        f"layer {name!r} gives {' x '.join(map(str, shape))}, and it is not known which of these "
        f"are height and width, so it has no {wanted}; take it in full or as a sketch, as a "
        "vector, or take another layer"
    )


class SketchVectors(DenseVectors):
    """Sketches as vectors: linear operations and dot products carry over, means do not."""

    def centred(self) -> DenseVectors:
        """Refuse: a sketch does not hold the mean over units."""
        raise InputError(
            "metric 'pearson' needs the mean over units, which a sketch does not hold; "
            "record the layer with --keep LAYER=full"
        )


@dataclass(frozen=True)
class DenseBlock:
    """Rows of whole (or already reduced) activations: a :class:`elsewhere.protocols.Block`.

    `values` (row, *shape) are NumPy's or torch's, floating; a view into memory that is used again.
    By `kept` they are ``full`` activations, their ``mean`` over space, or a ``sketch``; `layout`
    and `tokens` are those of a whole activation, the former by default by its number of dimensions.
    """

    stage: Stage
    layer: str
    objects: NDArray[np.int64]
    positions: NDArray[np.int64]
    values: Array
    kept: Kept = "full"
    layout: Layout | None = None
    half: bool = False
    tokens: Tokens | None = None

    def _require_full(self, wanted: str) -> None:
        if self.kept != "full":
            raise LayerError(
                f"layer {self.layer!r} was kept as {self.kept!r}, which gives no {wanted}; "
                f"record it with --keep {self.layer}=full"
            )

    def full(self) -> Array:
        """Return whole activations, shape (row, *shape)."""
        self._require_full("whole activations")
        return self.values

    def mean(self) -> Array:
        """Return means over space, shape (row, channel)."""
        if self.kept == "mean":
            return self.values
        self._require_full("mean over space")
        layout = self.layout
        if layout is None:
            layout = LAYOUTS.get(self.values.ndim - 1, ())
        if not layout:
            raise LayerError(without_layout(self.layer, self.values.shape[1:], "mean over space"))
        return spatial_mean(self.values, layout, self.tokens)

    def sketch(self, size: int, seed: int) -> Array:
        """Return seeded sparse random projections, shape (row, size)."""
        self._require_full(f"sketch of {size} numbers with seed {seed}")
        return sketch(self.values.reshape(len(self.values), -1), size, seed=seed)

    def vectors(self) -> DenseVectors:
        """Return the rows as vectors, in double precision where they are in that."""
        values = self.values.reshape(len(self.values), -1)
        if values.dtype.itemsize != 8:
            single = isinstance(values, np.ndarray)
            values = values.astype(np.float32, copy=False) if single else values.float()
        return SketchVectors(values) if self.kept == "sketch" else DenseVectors(values)


def rows_needed(layer: Layer, stages: Collection[Stage], *, optional: bool = False) -> Need:
    """Return what gives whole rows of a layer as it is kept: see :func:`rows_of`."""
    kind = "vectors" if layer.keep.kind == "sketch" else layer.keep.kind
    return Need(kind, frozenset(stages), optional=optional)


def rows_of(block: Block) -> Array:
    """Return a block's rows as a matrix, NumPy or torch."""
    if block.kept == "sketch":
        vectors = block.vectors()
        if not isinstance(vectors, DenseVectors):
            raise LayerError(f"layer {block.layer!r} gives no sketch; record it in full")
        rows: Array = vectors.values
        return rows
    values = block.mean() if block.kept == "mean" else block.full()
    if isinstance(values, np.ndarray) and values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float32)
    found: Array = values.reshape(len(values), -1)
    return found


def check_finite(design: Design, block: Block | Rows, rows: NDArray[np.floating]) -> None:
    """Refuse NaN and infinity in rows of a block; the ``NumericsError`` names layer and object."""
    single = np.result_type(rows, np.float32)  # decides finite or not only: as fast as can be
    lengths = np.einsum("ij,ij->i", rows, rows, dtype=single)
    check_lengths(design, block.layer, block.objects, lengths)


def check_lengths(
    design: Design, layer: str, objects: NDArray[np.int64], lengths: NDArray[np.floating]
) -> None:
    """Refuse NaN and infinity by the lengths, or squared lengths, of a block's rows."""
    finite = np.isfinite(lengths)
    if not finite.all():
        row = int(np.argmin(finite))
        raise NumericsError(
            f"layer {layer!r} gives NaN or infinity for object {design.objects[objects[row]]!r}, "
            "or above 1e19; check the weights and the input"
        )
