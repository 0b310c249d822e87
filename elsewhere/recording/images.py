"""The images of a dense sweep, batch by batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from elsewhere.models import Model
from elsewhere.protocols import Stage
from elsewhere.stimuli import Canvas, ObjectSet
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
    """

    def __init__(self, model: Model, objects: ObjectSet, canvas: Canvas) -> None:
        device, transform = model.device, model.transform
        color = canvas.background_color(transform.mean)
        self._canvas = canvas
        self._patches = transform.apply(torch.from_numpy(objects.patches(color)).to(device))
        empty = torch.from_numpy(canvas.empty(color)[None]).to(device)
        self._empty = transform.apply(empty)
        self._batch = self._empty.expand(BATCH_ROWS, -1, -1, -1).clone()

    def build(self, batch: Batch) -> torch.Tensor:
        """Return exactly :data:`BATCH_ROWS` inputs, the last ones empty canvases."""
        self._batch.copy_(self._empty.expand_as(self._batch))
        side = self._canvas.object_size
        for row, (number, location) in enumerate(zip(batch.objects, batch.locations, strict=True)):
            if number < 0:
                continue
            top, left = self._canvas.top_left((int(location[0]), int(location[1])))
            self._batch[row, :, top : top + side, left : left + side] = self._patches[number]
        return self._batch


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
