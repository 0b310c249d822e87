"""Objects placed on canvases as tensors, a whole batch at once, on the device."""

from __future__ import annotations

import torch

from elsewhere.logs import get_logger
from elsewhere.models import InputTransform
from elsewhere.stimuli import Canvas, ObjectSet
from elsewhere.training.placements import Placement

logger = get_logger(__name__)


class Paster:
    """Writes batches of objects into one reused buffer of canvases.

    Parameters
    ----------
    canvas
        The canvas and the size of the objects.
    transform
        From pixels to the network's input.
    rows
        Number of canvases in a batch.
    device
        Where the canvases are.
    dtype
        Of the canvases: what the network computes in.

    Examples
    --------
    >>> import numpy as np
    >>> dot = ObjectSet("dot", np.full((1, 1, 1, 3), 255, np.uint8), np.full((1, 1, 1), 255,
    ...     np.uint8), ("dot",), ("dot",))
    >>> paster = Paster(Canvas(3, 1), InputTransform(), rows=1, device=torch.device("cpu"))
    >>> paster.paste(paster.load(dot), torch.tensor([[0, 2]]))[0, 0]
    tensor([[0., 0., 1.],
            [0., 0., 0.],
            [0., 0., 0.]])
    """

    def __init__(
        self,
        canvas: Canvas,
        transform: InputTransform,
        *,
        rows: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.canvas, self.transform, self.rows, self.device = canvas, transform, rows, device
        self.dtype = dtype
        self.color = canvas.background_color(transform.mean)
        pixel = torch.tensor(self.color, dtype=torch.uint8, device=device).reshape(1, 1, 1, 3)
        self.background = transform.apply(pixel).reshape(3).to(dtype)
        levels = set(self.background.tolist())
        self._level = levels.pop() if len(levels) == 1 else None
        self._buffer = torch.empty((rows * canvas.size**2, 3), device=device, dtype=dtype)
        side = torch.arange(canvas.object_size, device=device)
        # the pixels of an object's box, relative to its first one
        self._box = (side[:, None] * canvas.size + side[None, :]).reshape(-1)
        self._row = torch.arange(rows, device=device) * canvas.size**2

    def load(self, objects: ObjectSet) -> torch.Tensor:
        """Return objects over the background as network input, (object, pixel, channel).

        Raises
        ------
        ObjectSetError
            No object can be seen on the background.
        """
        for note in objects.seen_on(self.color).notes:
            logger.warning("among the objects shown: %s", note.removeprefix("left out "))
        pixels = torch.from_numpy(objects.patches(self.color)).to(self.device)
        values = self.transform.apply(pixels).permute(0, 2, 3, 1).flatten(1, 2)
        return values.to(self.dtype).contiguous()

    def paste(self, patches: torch.Tensor, locations: torch.Tensor) -> torch.Tensor:
        """Return one canvas for each patch; they are overwritten by the next call.

        Parameters
        ----------
        patches
            float32 (n, pixel, 3), at most `rows`, as `load` gives them.
        locations
            int64 (n, 2), y and x, px; they must be valid.

        Returns
        -------
        torch.Tensor
            float32 (rows, 3, size, size), in channels-last order on the CPU, where convolutions
            are twice as fast on it; rows beyond n are empty canvases.
        """
        size, half = self.canvas.size, self.canvas.object_size // 2
        self._fill()
        first = self._row[: len(patches)] + (locations[:, 0] - half) * size + locations[:, 1] - half
        pixels = (first[:, None] + self._box).reshape(-1)
        self._buffer.index_copy_(0, pixels, patches.reshape(-1, 3))
        images = self._buffer.view(self.rows, size, size, 3).permute(0, 3, 1, 2)
        return images if self.device.type == "cpu" else images.contiguous()

    def _fill(self) -> None:
        if self._level is None:
            self._buffer.copy_(self.background.expand_as(self._buffer))
        else:
            self._buffer.fill_(self._level)


def draw_locations(
    placement: Placement,
    category: torch.Tensor,
    exemplar: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return a location for each presentation.

    Parameters
    ----------
    placement
        Where objects may stand.
    category, exemplar
        int64 (n,), on the generator's device: the class of each, and its number in the class.
    generator
        Three numbers are drawn for each presentation, whatever the environment.

    Returns
    -------
    torch.Tensor
        int64 (n, 2), y and x, px.
    """
    device = generator.device
    boxes = torch.from_numpy(placement.boxes).to(device)
    drawn = torch.rand((len(category), 3), generator=generator, dtype=torch.float64, device=device)
    choice = (drawn[:, 0] * boxes.shape[2]).long()
    box = boxes[category % boxes.shape[0], exemplar % boxes.shape[1], choice]
    first, last = box[:, ::2], box[:, 1::2]
    return first + (drawn[:, 1:] * (last - first + 1)).long()
