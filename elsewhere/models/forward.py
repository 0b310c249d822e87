"""How a network is run: in a precision, in evaluation mode, on objects pasted on its device.

`arrange`, `check_precision`, `computing`, `evaluating`, `exact`, `harmed_by_channels_last`,
`paste`, `Paster`, `trains_channels_last`, `widened`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar, get_args

import torch
from numpy.typing import NDArray
from torch import nn

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.models.transform import InputTransform
from elsewhere.types import Color, Precision


@contextlib.contextmanager
def exact(device: torch.device, *, tf32: bool = False) -> Iterator[None]:
    """Keep TF32 out of the computation on a GPU, or let it in, then restore what was set."""
    if device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32)
    matmul.allow_tf32, cudnn.allow_tf32 = tf32, tf32
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def arrange(network: nn.Module, order: torch.memory_format) -> None:
    """Put what a network has of four axes into an order of memory, in place.

    `Module.to` refuses networks that have tensors of five axes, too (weights of `Conv3d`, filters).
    """
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim == 4 and tensor.layout == torch.strided:
            tensor.data = tensor.data.contiguous(memory_format=order)


def check_precision(device: torch.device, precision: str) -> None:
    """Refuse a precision that nobody knows, or that a device does not have.

    Raises
    ------
    UnknownNameError
        No such precision.
    InputError
        ``tf32`` anywhere but on a CUDA device.
    """
    if precision not in get_args(Precision):
        raise UnknownNameError("precision", precision, get_args(Precision))
    if precision == "tf32" and device.type != "cuda":
        raise InputError(
            f"precision tf32 is of CUDA devices, and the network is on {device.type}; take "
            "float32 or bfloat16, or --device cuda"
        )


_NARROW = 16
"""Channels of a 1x1 convolution with strides, from which on its gradients are safe."""


def harmed_by_channels_last(network: nn.Module) -> str:
    """Return the first convolution whose gradients damage memory in channels-last order, or "".

    On a CPU, torch 2.14 writes beyond its buffers in the backward pass of a 1x1 convolution with
    strides that is given 5 to 15 channels in that order: a training ends with a signal, or later
    with anything else.
    """
    convolutions: dict[str, nn.Conv2d] = {
        name: part for name, part in network.named_modules() if isinstance(part, nn.Conv2d)
    }
    for name, part in convolutions.items():
        narrow = part.in_channels // part.groups < _NARROW
        if narrow and part.kernel_size == (1, 1) and max(part.stride) > 1:
            return name
    return ""


def trains_channels_last(network: nn.Module, device: torch.device, precision: str) -> bool:
    """Return whether a network is trained in channels-last order: where it is faster, and safe.

    Convolutions are twice as fast in it, but for those of float32 on a GPU.
    """
    if device.type == "cpu":
        return not harmed_by_channels_last(network)
    return precision != "float32"


def widened(values: torch.Tensor) -> torch.Tensor:
    """Return bfloat16 as float32, which holds it; other values as they are."""
    return values.float() if values.dtype == torch.bfloat16 else values


@contextlib.contextmanager
def computing(device: torch.device, precision: Precision = "float32") -> Iterator[None]:
    """Let networks compute in a precision on a device, then restore what was set.

    ``float32`` keeps TF32 and autocast out. With ``tf32``, products on CUDA round what they
    multiply to 10 bits after the point. In ``bfloat16`` weights stay what they are, and torch's
    autocast chooses what takes and gives numbers with 7 such bits.

    Examples
    --------
    >>> linear, device = nn.Linear(2, 2), torch.device("cpu")
    >>> with computing(device, "bfloat16"):
    ...     linear(torch.zeros(1, 2)).dtype
    torch.bfloat16
    """
    low = precision == "bfloat16"
    with (
        exact(device, tf32=precision == "tf32"),
        torch.autocast(device.type, torch.bfloat16 if low else None, low),
    ):
        yield


@contextlib.contextmanager
def evaluating(module: nn.Module, *, inference: bool = True) -> Iterator[None]:
    """Set evaluation mode, and inference mode if wanted, then restore every part's own mode."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.inference_mode() if inference else contextlib.nullcontext():
            yield
    finally:
        for part, training in modes:
            part.training = training


def send(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of the CPU's on a device, without waiting for what the device is at."""
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


class CanvasLike(Protocol):
    """A square canvas of one colour, and the side of the objects on it, px."""

    @property
    def size(self) -> int:
        """Side of the canvas."""

    @property
    def object_size(self) -> int:
        """Side of the objects."""

    def background_color(self, mean: Sequence[float] | None = None) -> Color:
        """Return the colour, which may be the `mean` of the network's input."""


Ground = TypeVar("Ground", bound=CanvasLike)


class ObjectsLike(Protocol):
    """Objects that can be had over a colour."""

    def patches(self, color: Color) -> NDArray[Any]:
        """Return uint8 (object, side, side, 3)."""


def paste(canvases: torch.Tensor, patches: torch.Tensor, corners: torch.Tensor) -> None:
    """Write one object into each canvas, in place; whatever the canvases' memory format is.

    `canvases` are (n or more, 3, size, size), `patches` (n, pixel, 3), square, as
    :meth:`Paster.load` gives them, and `corners` int64 (n, 2), the first row and column of each
    object, which has to lie on the canvas.

    Examples
    --------
    >>> canvases = torch.zeros(1, 3, 2, 3)
    >>> paste(canvases, torch.ones(1, 1, 3), torch.tensor([[1, 2]]))
    >>> canvases[0, 0]
    tensor([[0., 0., 0.],
            [0., 0., 1.]])
    """
    n, device = len(patches), canvases.device
    side = round(patches.shape[1] ** 0.5)
    cells = corners.to(device)[:, :, None] + torch.arange(side, device=device)
    rows = torch.arange(n, device=device)[:, None, None]
    boxes = patches.reshape(n, side, side, patches.shape[2])
    canvases.permute(0, 2, 3, 1)[rows, cells[:, 0, :, None], cells[:, 1, None, :]] = boxes


class Paster(Generic[Ground]):
    """Writes batches of objects into one reused buffer of `rows` canvases.

    Their `dtype` is what the network computes in. If `channels_last`, their memory is in that
    order, in which convolutions may be twice as fast.

    Examples
    --------
    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> canvas = SimpleNamespace(size=3, object_size=1, background_color=lambda mean: (0, 0, 0))
    >>> dot = SimpleNamespace(patches=lambda color: np.full((1, 1, 1, 3), 255, np.uint8))
    >>> paster = Paster(canvas, InputTransform(), rows=1, device=torch.device("cpu"))
    >>> paster.paste(paster.load(dot), torch.tensor([[0, 2]]))[0, 0]
    tensor([[0., 0., 1.],
            [0., 0., 0.],
            [0., 0., 0.]])
    """

    def __init__(
        self,
        canvas: Ground,
        transform: InputTransform,
        *,
        rows: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
    ) -> None:
        self.canvas, self.transform, self.rows, self.device = canvas, transform, rows, device
        self.dtype = dtype
        self.color = canvas.background_color(transform.mean)
        pixel = torch.tensor(self.color, dtype=torch.uint8, device=device).reshape(1, 1, 1, 3)
        self.background = transform.apply(pixel).reshape(3).to(dtype)
        levels = set(self.background.tolist())
        self._level = levels.pop() if len(levels) == 1 else None
        order = torch.channels_last if channels_last else torch.contiguous_format
        shape = (rows, 3, canvas.size, canvas.size)
        self._canvases = torch.empty(shape, device=device, dtype=dtype, memory_format=order)

    def load(self, objects: ObjectsLike) -> torch.Tensor:
        """Return objects over the background as network input, (object, pixel, channel)."""
        pixels = torch.from_numpy(objects.patches(self.color)).to(self.device)
        values = self.transform.apply(pixels).permute(0, 2, 3, 1).flatten(1, 2)
        return values.to(self.dtype).contiguous()

    def empty(self) -> torch.Tensor:
        """Return the canvas without an object, (1, 3, size, size), in memory of its own."""
        size = self.canvas.size
        return self.background[:, None, None].repeat(1, size, size)[None]

    def paste(self, patches: torch.Tensor, locations: torch.Tensor) -> torch.Tensor:
        """Return one canvas for each patch, (rows, 3, size, size), and beyond them empty ones.

        They are overwritten by the next call. `patches` (n, pixel, 3) are at most `rows`, as `load`
        gives them, and `locations` int64 (n, 2), y and x, px, all valid.
        """
        if self._level is not None:  # several times faster
            self._canvases.fill_(self._level)
        else:
            self._canvases.copy_(self.background[:, None, None].expand_as(self._canvases))
        paste(self._canvases, patches, locations - self.canvas.object_size // 2)
        return self._canvases
