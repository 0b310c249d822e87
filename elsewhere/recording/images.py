"""The images of a dense sweep, batch by batch."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from elsewhere.models import Model
from elsewhere.models.forward import Paster, send
from elsewhere.protocols import Design, Stage
from elsewhere.stimuli import Canvas, ObjectSet
from elsewhere.storage.portions import Portions
from elsewhere.types import BATCH_ROWS

CALL_IMAGES = 3.6
"""The images in whose time a GPU does what a pass costs beside its images, about."""


@dataclass(frozen=True)
class ImageBatch:
    """The images of one forward pass."""

    stage: Stage
    objects: NDArray[np.int64]
    positions: NDArray[np.int64]
    locations: NDArray[np.int64]


class Images:
    """Builds input batches on the device by pasting patches that are normalised once."""

    def __init__(
        self, model: Model, objects: ObjectSet, canvas: Canvas, rows: int = BATCH_ROWS
    ) -> None:
        self._paster = Paster(canvas, model.transform, rows=rows, device=model.device)
        self._patches = self._paster.load(objects)

    def build(self, batch: ImageBatch) -> torch.Tensor:
        """Return exactly as many inputs as a pass takes, the last ones empty canvases."""
        shown = batch.objects >= 0
        where = np.column_stack([batch.objects, batch.locations])[shown]
        sent = send(torch.from_numpy(where), self._paster.device)
        return self._paster.paste(self._patches[sent[:, 0]], sent[:, 1:])


def rows_for(design: Design, most: int) -> int:
    """Return how many images, at most `most`, a pass on a GPU had best take.

    Of few images much of a large batch would be padding; a small one wastes the card: a pass of 8
    images of VGG16 takes 1.4 times as long for each as one of 256.
    """
    n, n_last = len(design.objects), design.shape[-1]

    def cost(rows: int) -> float:
        cut = Portions.cut(design, rows=rows)
        cells = [min(cut.n_cells, n_last - first) for first in range(0, n_last, cut.n_cells)]
        parts = [min(cut.n_objects, n - first) for first in range(0, n, cut.n_objects)]
        padded = sum(-(-a * b // rows) * rows for a in set(cells) for b in parts
                     for _ in range(cells.count(a)))  # fmt: skip
        return padded * (1 + CALL_IMAGES / rows)

    choices = range(BATCH_ROWS, max(most, BATCH_ROWS) + 1, BATCH_ROWS)
    return min(choices, key=lambda rows: (cost(rows), -rows))


def batches_of(
    stage: Stage,
    design: Design,
    portions: Portions,
    skip: Collection[int] = (),
    *,
    rows: int = BATCH_ROWS,
) -> Iterator[ImageBatch]:
    """Yield the batches of a stage, of `rows` images, those of each portion by themselves."""
    n, reference = len(design.objects), np.array(design.reference)
    if stage == "empty":
        nothing = np.array([-1])
        yield ImageBatch(stage, nothing, nothing, reference[None])
        return
    if stage == "reference":
        for first in range(0, n, rows):
            objects = np.arange(first, min(first + rows, n))
            nowhere = np.full(len(objects), -1)
            yield ImageBatch(stage, objects, nowhere, np.tile(reference, (len(objects), 1)))
        return
    places = design.positions
    for portion in portions:
        if portion.number in skip:
            continue
        objects, positions = portion.rows(design)
        for first in range(0, len(objects), rows):
            chosen = slice(first, first + rows)
            at = positions[chosen]
            yield ImageBatch(stage, objects[chosen], at, places[at])
