"""How well activations compress, from a few of them."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from elsewhere.measures.vectors import to_numpy
from elsewhere.protocols import Block, Design, Layer, Need, Sink
from elsewhere.storage import FILTER, Header, StoredLayer


class Sample(Sink):
    """A sink that keeps some activations of each layer, to see how they compress."""

    def __init__(self, header: Header) -> None:
        self._layers = {layer.name: layer for layer in header.layers}
        self._dtype = header.dtype
        self._shares: dict[str, list[float]] = {}

    def needs(self, layer: Layer) -> tuple[Need, ...]:
        stored = self._layers.get(layer.name)
        return () if stored is None else (stored.need,)

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        return 0.0

    def begin(self, design: Design, layers: Sequence[Layer], part: int = 0, parts: int = 1) -> None:
        self._shares = {layer.name: self._shares.get(layer.name, []) for layer in layers}

    def add(self, block: Block) -> None:
        layer = self._layers[block.layer]
        values = layer.reduce(block)
        if len(self._shares[layer.name]) < 2:
            few = to_numpy(values[: 2 if math.prod(layer.stored_shape) > 2**18 else None])
            with np.errstate(over="ignore"):  # the writer says so, and of which layer
                stored = few.astype(self._dtype)
            self._shares[layer.name].append(compressed_share(stored))

    def share(self, layer: StoredLayer) -> float:
        """Return stored over raw bytes of a layer."""
        return float(np.mean(self._shares.get(layer.name) or [1.0]))


def compressed_share(values: NDArray[Any]) -> float:
    """Return stored over raw bytes of `values` in the recording's filter, shape (row, ...)."""
    rows = max(1, min(len(values), 2**20 // max(1, values[0].nbytes)))
    first = values.shape[1]
    if values[0].nbytes > 2**20:
        first = max(1, 2**20 // (values[0].nbytes // values.shape[1]))
    with h5py.File(io.BytesIO(), "w") as file:
        chunks = (rows, first, *values.shape[2:])
        dataset = file.create_dataset("values", data=values, chunks=chunks, **FILTER)
        return float(dataset.id.get_storage_size() / values.nbytes)
