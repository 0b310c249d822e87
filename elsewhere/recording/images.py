"""The images of a dense sweep, batch by batch."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from elsewhere.models import Model
from elsewhere.protocols import Design, Stage
from elsewhere.stimuli import Canvas, ObjectSet
from elsewhere.storage.units import Units
from elsewhere.types import BATCH_ROWS


@dataclass(frozen=True)
class Batch:
    """The images of one forward pass."""

    stage: Stage
    objects: NDArray[np.int64]
    positions: NDArray[np.int64]
    locations: NDArray[np.int64]


class Images:
    """Builds input batches on the device by pasting patches that are normalised once.

    Parameters
    ----------
    model, objects, canvas
        The network, and what it is shown.
    rows
        How many images a pass takes.
    """

    def __init__(
        self, model: Model, objects: ObjectSet, canvas: Canvas, rows: int = BATCH_ROWS
    ) -> None:
        device, transform = model.device, model.transform
        color = canvas.background_color(transform.mean)
        self._canvas = canvas
        self._patches = transform.apply(torch.from_numpy(objects.patches(color)).to(device))
        empty = torch.from_numpy(canvas.empty(color)[None]).to(device)
        self._empty = transform.apply(empty)
        self._batch = self._empty.expand(rows, -1, -1, -1).clone()

    def build(self, batch: Batch) -> torch.Tensor:
        """Return exactly as many inputs as a pass takes, the last ones empty canvases."""
        self._batch.copy_(self._empty.expand_as(self._batch))
        side = self._canvas.object_size
        for row, (number, location) in enumerate(zip(batch.objects, batch.locations, strict=True)):
            if number < 0:
                continue
            top, left = self._canvas.top_left((int(location[0]), int(location[1])))
            self._batch[row, :, top : top + side, left : left + side] = self._patches[number]
        return self._batch


def batches_of(
    stage: Stage,
    design: Design,
    units: Units,
    skip: Collection[int] = (),
    *,
    rows: int = BATCH_ROWS,
) -> Iterator[Batch]:
    """Yield the batches of a stage, of `rows` images, those of each unit by themselves."""
    n, reference = len(design.objects), np.array(design.reference)
    if stage == "empty":
        nothing = np.array([-1])
        yield Batch(stage, nothing, nothing, reference[None])
        return
    if stage == "reference":
        for first in range(0, n, rows):
            objects = np.arange(first, min(first + rows, n))
            nowhere = np.full(len(objects), -1)
            yield Batch(stage, objects, nowhere, np.tile(reference, (len(objects), 1)))
        return
    places = design.positions
    for unit in units:
        if unit.number in skip:
            continue
        objects, positions = unit.rows(design)
        for first in range(0, len(objects), rows):
            chosen = slice(first, first + rows)
            at = positions[chosen]
            yield Batch(stage, objects[chosen], at, places[at])


@contextlib.contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Keep TF32 out of the computation on a GPU, then restore what was set."""
    if device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32)
    matmul.allow_tf32, cudnn.allow_tf32 = False, False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
