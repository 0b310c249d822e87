"""Blocks of whole activations, as sources that have them hand them to sinks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elsewhere.errors import InputError, LayerError
from elsewhere.measures.sketch import sketch
from elsewhere.measures.vectors import DenseVectors, average
from elsewhere.protocols import Array, Kept, Stage


def spatial_mean(values: Array) -> Array:
    """Return means over space.

    Parameters
    ----------
    values
        Shape (row, channel, height, width), (row, token, feature) or (row, unit).

    Returns
    -------
    array
        Shape (row, channel), (row, feature) or (row, unit): means that were taken in double
        precision and rounded once.
    """
    if values.ndim == 4:
        return average(values, (2, 3))
    return average(values, (1,)) if values.ndim == 3 else values


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
    """Rows of whole (or already reduced) activations of one layer.

    Parameters
    ----------
    stage, layer, objects, positions
        See :class:`elsewhere.protocols.Block`.
    values
        Shape (row, *shape), NumPy or torch, floating; a view into memory that is used again.
    kept
        What `values` hold: ``full`` activations, their ``mean`` over space, or a ``sketch``.
    """

    stage: Stage
    layer: str
    objects: NDArray[np.int64]
    positions: NDArray[np.int64]
    values: Array
    kept: Kept = "full"

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
        return spatial_mean(self.values)

    def sketch(self, size: int, seed: int) -> Array:
        """Return seeded sparse random projections, shape (row, size)."""
        self._require_full(f"sketch of {size} numbers with seed {seed}")
        return sketch(self.values.reshape(len(self.values), -1), size, seed=seed)

    def vectors(self) -> DenseVectors:
        """Return the rows as single-precision vectors."""
        values = self.values.reshape(len(self.values), -1)
        if isinstance(values, np.ndarray):
            values = values.astype(np.float32, copy=False)
        else:
            values = values.float()
        return SketchVectors(values) if self.kept == "sketch" else DenseVectors(values)
