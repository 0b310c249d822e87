"""A sink on class scores: which class each object is taken for, and by which margin."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from elsewhere.errors import NumericsError
from elsewhere.measures.blocks import rows_of
from elsewhere.measures.crossing import Crossing
from elsewhere.measures.unit_chunks import ROUNDING, precision_of
from elsewhere.measures.vectors import summable
from elsewhere.protocols import Block, Design, Layer, Need, Sink, Stage

Answer: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]
"""The class with the largest score, the score of the true class less the largest other, and whether
these two are equal up to rounding."""

TRIAL_BYTES = 64
"""Of a trial: its answer, and what is made of it."""


class AnswerSink(Sink):
    """Keeps the answers of a layer of class scores; `labels`, int (object,), are the true ones."""

    most_parts = 1  # an answer takes the same, however many objects there are

    def __init__(self, layer: str, labels: NDArray[np.int64], stages: Sequence[Stage]) -> None:
        self.layer, self.labels, self.stages = layer, labels, frozenset(stages)
        self.found: list[tuple[Stage, NDArray[np.int64], NDArray[np.int64], Answer]] = []
        self._crossing = Crossing()

    def needs(self, layer: Layer) -> tuple[Need, ...]:
        """Return whole rows of the layer of scores."""
        return (Need("full", self.stages),) if layer.name == self.layer else ()

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        """Return what all answers take, in activations."""
        trials = len(design.objects) * (design.n_positions + 1)
        return trials * TRIAL_BYTES / layer.bytes

    def add(self, block: Block) -> None:
        """Take a block."""
        scores = summable(rows_of(block))
        kind = precision_of(scores, block.half)
        where = block.stage, block.objects.copy(), block.positions.copy()
        self._crossing.take(partial(self._choose, *where, kind), scores)

    def _choose(
        self,
        stage: Stage,
        objects: NDArray[np.int64],
        positions: NDArray[np.int64],
        kind: str,
        scores: NDArray[np.floating],
    ) -> None:
        """Keep the answers of some rows of scores."""
        rows, true = np.arange(len(scores)), self.labels[objects]
        own = scores[rows, true]
        others = scores.copy()
        others[rows, true] = -np.inf
        other = others.max(axis=1) if scores.shape[1] > 1 else np.zeros_like(own)
        margins = own - other
        tied = np.abs(margins) <= ROUNDING[kind] * np.maximum(np.abs(own), np.abs(other))
        if not np.isfinite(margins).all():
            raise NumericsError(
                f"layer {self.layer!r} gives class scores that are not finite; check the weights "
                "and the input of the network"
            )
        answer = scores.argmax(axis=1), margins.astype(np.float32), tied
        self.found.append((stage, objects, positions, answer))

    def end(self) -> None:
        """Finish a sweep."""
        self._crossing.flush()

    def answers(self, stage: Stage, n_positions: int) -> Answer:
        """Return the answers of a stage, each (object, position)."""
        shape = (len(self.labels), n_positions)
        choice, margin = np.zeros(shape, np.int64), np.full(shape, np.nan, np.float32)
        tied = np.zeros(shape, bool)
        for at, objects, positions, found in self.found:
            if at == stage:
                places = positions if stage == "grid" else np.zeros_like(positions)
                choice[objects, places], margin[objects, places], tied[objects, places] = found
        return choice, margin, tied
