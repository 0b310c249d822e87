"""Activations that were recorded by other tools, as a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from elsewhere.errors import InputError
from elsewhere.measures.blocks import DenseBlock
from elsewhere.protocols import Design, Progress, Sink, Stage, stages_of


@dataclass(frozen=True)
class ArrayLayer:
    """A layer's name and the shape of one activation."""

    name: str
    shape: tuple[int, ...]


class ArraySource:
    """Arrays in memory as a source for sinks.

    Parameters
    ----------
    activations
        Per layer, shape (object, y, x, unit) or (object, y, x, channel, height, width).
    y, x
        Coordinates of the locations, px.
    categories
        One per object; by default every object is a category of its own.
    reference
        The location (y, x) to compare with; by default the leftmost of the middle row.
    empty
        Per layer, the empty canvas's activation, which the metric ``evoked`` needs.

    Raises
    ------
    InputError
        Shapes do not fit together.

    Examples
    --------
    >>> source = ArraySource({"fc": np.ones((2, 1, 3, 4))}, y=[5], x=[5, 7, 9])
    >>> source.design.reference
    (5, 5)
    """

    def __init__(
        self,
        activations: Mapping[str, ArrayLike],
        *,
        y: Sequence[int],
        x: Sequence[int],
        categories: Sequence[str] | None = None,
        objects: Sequence[str] | None = None,
        reference: tuple[int, int] | None = None,
        empty: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        self._arrays = {name: np.asarray(array) for name, array in activations.items()}
        if not self._arrays:
            raise InputError("no activations were given; expected one array per layer")
        if not len(y) or not len(x):
            raise InputError("no locations were given; expected at least one y and one x")
        sizes = {array.shape[:3] for array in self._arrays.values()}
        n = next(iter(sizes))[0] if next(iter(sizes)) else 0
        if sizes != {(n, len(y), len(x))}:
            raise InputError(
                f"activations start with {sorted(sizes)}; expected (object, {len(y)}, {len(x)}) "
                "for every layer, as many as there are y and x"
            )
        ids = tuple(objects) if objects is not None else tuple(f"object{i}" for i in range(n))
        names = tuple(categories) if categories is not None else ids
        if len(ids) != n or len(names) != n:
            raise InputError(f"{len(ids)} objects and {len(names)} categories for {n} activations")
        place = (int(y[len(y) // 2]), int(x[0])) if reference is None else reference
        axes = (("y", tuple(int(v) for v in y)), ("x", tuple(int(v) for v in x)))
        self.design = Design(ids, names, axes, (int(place[0]), int(place[1])))
        if self.design.reference_index is None:
            raise InputError(f"reference {place} is not among the locations; choose one that is")
        self._empty = {name: np.asarray(array) for name, array in (empty or {}).items()}
        self.layers = [ArrayLayer(name, a.shape[3:]) for name, a in self._arrays.items()]
        for layer in self.layers:
            shape = self._empty[layer.name].shape if layer.name in self._empty else layer.shape
            if shape != layer.shape:
                raise InputError(
                    f"the empty canvas's activation of layer {layer.name!r} has shape {shape}; "
                    f"expected {layer.shape}, as the activations have"
                )
        self.provenance: dict[str, Any] = {"model": "arrays", "notes": []}

    def stream(
        self,
        sinks: Sequence[Sink],
        *,
        max_memory: int = 2**31,
        progress: Progress | None = None,
    ) -> None:
        """Give `sinks` the blocks of one object after the other."""
        for layer in self.layers:
            takers = [(sink, sink.needs(layer)) for sink in sinks if sink.needs(layer)]
            for sink, _ in takers:
                sink.begin(self.design, [layer])
            for stage in stages_of([need for _, needs in takers for need in needs]):
                for block in self._blocks(layer, stage):
                    for sink, needs in takers:
                        if any(stage in need.stages for need in needs):
                            sink.add(block)
            for sink, _ in takers:
                sink.end()

    def _blocks(self, layer: ArrayLayer, stage: Stage) -> list[DenseBlock]:
        array = self._arrays[layer.name]
        n, n_positions = len(self.design.objects), self.design.n_positions
        values = array.reshape(n, n_positions, *layer.shape)
        if stage == "empty":
            if layer.name not in self._empty:
                raise InputError(
                    f"metric 'evoked' needs the empty canvas's activation of layer {layer.name!r}"
                )
            nothing = np.array([-1])
            return [DenseBlock(stage, layer.name, nothing, nothing, self._empty[layer.name][None])]
        objects, places = np.arange(n), np.arange(n_positions)
        if stage == "reference":
            at = values[:, self.design.reference_index or 0]
            return [DenseBlock(stage, layer.name, objects, np.full(n, -1), at)]
        return [
            DenseBlock(stage, layer.name, np.full(n_positions, o), places, values[o])
            for o in objects
        ]
