"""Variants of a network, by name: ``vgg16-slim-gap-circular`` is VGG16's topology, changed twice.

Each function changes one thing of a network that was built, and nothing else: the same weights are
drawn, and modules keep their names, so that layers, aliases, weights and curricula mean the same.
They are applied in the order of the registry, whatever their order in the name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from elsewhere.errors import InputError
from elsewhere.models.hermite import HermiteConv2d
from elsewhere.models.names import variant_registry
from elsewhere.registry import loaded

Pads = tuple[int, int, int, int]
"""Cells before and after, across and down, as :func:`torch.nn.functional.pad` takes them."""

Sampler = Callable[..., torch.Tensor]
"""Keeps one cell of each few: of a map, the step, how the map continues beyond its border, and the
map that decides (`of`), by default the same."""

_MODES = {"circular": "circular", "reflect": "reflect", "full": "constant", "valid": "constant"}


class PaddedConv2d(nn.Conv2d):
    """A convolution of a map that was padded: by `pads` cells, in the mode `fill`."""

    pads: Pads
    fill: str

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the map, shape (n, channel, height, width), of `values` of such a shape."""
        padded = functional.pad(values, self.pads, mode=self.fill)
        return functional.conv2d(
            padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


class PaddedHermiteConv2d(HermiteConv2d):
    """A convolution by filters of a basis, of a map that was padded: by `pads`, in `fill`."""

    pads: Pads
    fill: str

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the map, shape (n, channel, height, width), of `values` of such a shape."""
        padded = functional.pad(values, self.pads, mode=self.fill)
        return functional.conv2d(
            padded, self.filters, self.bias, self.stride, 0, self.dilation, self.groups
        )


class PaddedMaxPool2d(nn.MaxPool2d):
    """A maximum over cells of a map that was padded: by `pads` cells, in the mode `fill`."""

    pads: Pads
    fill: str

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the map, shape (n, channel, height, width), of `values` of such a shape."""
        padded = functional.pad(values, self.pads, mode=self.fill)
        return functional.max_pool2d(padded, self.kernel_size, self.stride, 0, self.dilation)


class PaddedAvgPool2d(nn.AvgPool2d):
    """A mean over cells of a map that was padded: by `pads` cells, in the mode `fill`."""

    pads: Pads
    fill: str

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the map, shape (n, channel, height, width), of `values` of such a shape."""
        padded = functional.pad(values, self.pads, mode=self.fill)
        return functional.avg_pool2d(padded, self.kernel_size, self.stride)


class SampledMaxPool2d(PaddedMaxPool2d):
    """A maximum at every cell of a map, of which a `sampler` keeps one cell of each `step`."""

    sampler: Sampler
    step: int

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the map, shape (n, channel, height, width), of `values` of such a shape."""
        return self.sampler(super().forward(values), self.step, self.fill)


class SampledAvgPool2d(PaddedAvgPool2d):
    """A mean at every cell of a map, of which a `sampler` keeps one cell of each `step`."""

    sampler: Sampler
    step: int

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the map, shape (n, channel, height, width), of `values` of such a shape."""
        return self.sampler(super().forward(values), self.step, self.fill)


class SampledConv2d(PaddedConv2d):
    """A convolution at every cell of a map, of which a `sampler` keeps one cell of each `step`."""

    sampler: Sampler
    step: int

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the map, shape (n, channel, height, width), of `values` of such a shape."""
        return self.sampler(super().forward(values), self.step, self.fill)


class SampledBlock(nn.Module):
    """A residual block in which a `sampler` leaves cells out; derived from with the block's class.

    What had the stride is dense. After its ReLU the map is sampled, and that decides which cells of
    the block's input the shortcut is given.
    """

    sampler: Sampler
    step: int
    fill: str

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the map, shape (n, channel, height, width), of `values` of such a shape."""
        block: Any = self
        inner = block.relu(block.bn1(block.conv1(values)))
        last = block.conv2, block.bn2
        if hasattr(block, "conv3"):
            inner, last = block.relu(block.bn2(block.conv2(inner))), (block.conv3, block.bn3)
        main = last[1](last[0](self.sampler(inner, self.step, self.fill)))
        shortcut = block.downsample(self.sampler(values, self.step, self.fill, of=inner))
        result: torch.Tensor = block.relu(main + shortcut)
        return result


def blurred(
    values: torch.Tensor, step: int, fill: str, of: torch.Tensor | None = None
) -> torch.Tensor:
    """Return every `step`-th cell of a map after a blur by [1, 2, 1] / 4 down and across.

    The filter is two means over two cells. Beyond the map it continues on its other side where
    `fill` is circular, else in the mirror, as in the cited paper's networks (Zhang 2019).
    """
    mode = "circular" if fill == "circular" else "reflect"
    padded = functional.pad(values, (1, 1, 1, 1), mode=mode)
    return functional.avg_pool2d(functional.avg_pool2d(padded, 2, 1), 2, step)


def largest_phase(
    values: torch.Tensor, step: int, fill: str = "", of: torch.Tensor | None = None
) -> torch.Tensor:
    """Return, of the grids of every `step`-th cell of a map, the one with the largest L2 norm.

    Adaptive polyphase sampling (Chaman & Dokmanic 2021), image by image: if a map moves in a
    circle the same values are kept, so that what follows is moved, too. Where a map `of` the same
    side is given, its norms decide. Rows and columns past a multiple of `step` are left out.

    Examples
    --------
    >>> largest_phase(torch.tensor([[[[1.0, 2.0], [4.0, 3.0]]]]), 2)
    tensor([[[[4.]]]])
    """
    phases = _phases(values, step)
    largest = (phases if of is None else _phases(of, step)).square().sum(dim=(2, 3, 4)).argmax(1)
    return phases[torch.arange(len(phases), device=values.device), largest]


def _phases(values: torch.Tensor, step: int) -> torch.Tensor:
    """Return the grids of every `step`-th cell, shape (n, step * step, channel, height, width)."""
    count, channels, height, width = values.shape
    rows, columns = height // step, width // step
    cells = values[..., : rows * step, : columns * step]
    cells = cells.reshape(count, channels, rows, step, columns, step)
    return cells.permute(0, 3, 5, 1, 2, 4).flatten(1, 2)


# --- the variants


def keep_every_cell(network: nn.Module) -> None:
    """Set the stride of every convolution and pooling to 1: no cell of any map is left out."""
    found = 0
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            found += max(_both(part.stride)) > 1
            part.stride = (1, 1) if isinstance(part, nn.Conv2d) else 1
    if not found:
        raise InputError("it has neither a convolution nor a pooling with a stride")


def blur_pools(network: nn.Module) -> None:
    """Blur with a binomial filter of 3 cells before cells are left out (Zhang 2019).

    A maximum is taken at every cell and sampled after the blur. In residual blocks a convolution
    with a stride is made dense, and the next one is given the blurred map after its ReLU, as is the
    shortcut's. The first convolution keeps its stride, as in the cited paper's networks.
    """
    _sample(network, blurred, first=False)


def choose_phases(network: nn.Module) -> None:
    """Sample maps at the grid whose norm is the largest (Chaman & Dokmanic 2021): see
    :func:`largest_phase`.

    It takes the place of every stride: of poolings, of the first convolution, and of residual
    blocks, whose main branch chooses for the shortcut as well, as in the cited paper's networks.
    """
    _sample(network, largest_phase, first=True)


def pad_circularly(network: nn.Module) -> None:
    """Let every map continue on its other side: the network sees no border.

    With cells added such that no position is special, a stride of s is equivariant to steps of s.
    """
    _pad(network, "circular")


def pad_by_reflection(network: nn.Module) -> None:
    """Fill every padding with the mirrored map."""
    _pad(network, "reflect")


def pad_nothing(network: nn.Module) -> None:
    """Take every padding away: "valid" convolutions (Kayhan & van Gemert 2020)."""
    _pad(network, "valid")


def pad_fully(network: nn.Module) -> None:
    """Pad by a whole kernel less one cell: "full" convolutions, in which every weight meets every
    pixel (Kayhan & van Gemert 2020)."""
    _pad(network, "full")


def pool_globally(network: nn.Module) -> None:
    """Take the mean of every channel over space instead of flattening the last map.

    Global average pooling as Blything et al. (2020) put it into VGG16. The fully connected layers
    stay; the first gets one number per channel, with weights drawn anew (He et al. 2015). Networks
    that do so as they are, such as ResNet, stay as they are.
    """
    pool, classifier = getattr(network, "avgpool", None), getattr(network, "classifier", None)
    if isinstance(pool, nn.AdaptiveAvgPool2d) and pool.output_size in (1, (1, 1)):
        return
    if not isinstance(pool, nn.AdaptiveAvgPool2d) or not isinstance(classifier, nn.Sequential):
        raise InputError("it has no head that flattens its last map (VGG, AlexNet, small-cnn)")
    name, first = next((n, p) for n, p in classifier.named_children() if isinstance(p, nn.Linear))
    channels = [part.out_channels for part in network.modules() if isinstance(part, nn.Conv2d)][-1]
    pooled = nn.Linear(channels, first.out_features)
    nn.init.kaiming_normal_(pooled.weight, mode="fan_in", nonlinearity="relu")
    nn.init.zeros_(pooled.bias)
    network.avgpool = nn.AdaptiveAvgPool2d(1)
    classifier.set_submodule(name, pooled)


# --- how they are made


def build_variant(
    name: str, variants: Sequence[str], build: Callable[[], nn.Module], canvas: int
) -> nn.Module:
    """Return a network changed by variants, in evaluation mode; see that it runs on its canvas.

    Parameters
    ----------
    name
        Of the network without them.
    variants
        Their names, in the registry's order.
    build
        Returns the network.
    canvas
        Side of its canvas, px, where the network states none.

    Raises
    ------
    InputError
        A variant does not exist for this network; the message names those that do.
    """
    network, refused = _try(variants, build, canvas)
    if network is not None:
        return network
    possible = [each for each in variant_registry if _try([each], build, canvas)[0] is not None]
    raise InputError(
        f"{'-'.join((name, *variants))}: {refused}; variants of {name}: {', '.join(possible)}"
    )


def _try(
    variants: Sequence[str], build: Callable[[], nn.Module], canvas: int
) -> tuple[nn.Module | None, str]:
    """Return the network, or the reason why there is none."""
    network = build().eval()
    stated = getattr(network, "canvas_size", None)
    side = stated if isinstance(stated, int) else canvas
    how = next((variant for variant in variants if variant in _MODES), None)
    for number, variant in enumerate(variants, start=1):
        try:
            variant_registry.get(variant)(network)
        except InputError as error:
            return None, f"{variant} does not exist for it, for {error}"
        looks = how is not None and variant != _IN_FRONT
        if number < len(variants) and not (looks and variants[number] == _IN_FRONT):
            continue  # to be run once, and what looks first has borders of its own
        padding = _Padding(how if looks else None)
        try:
            _run(network, side, padding)
        except (RuntimeError, ValueError, AssertionError) as error:
            said = " ".join(str(error).split())[:120]
            return None, f"it cannot process a canvas of {side} px ({said})"
        if padding.other:
            said = f"its own code pads maps, too ({padding.other})"
            return None, f"{how} does not exist for it, for {said}"
    return network, ""


def _run(network: nn.Module, side: int, padding: _Padding) -> None:
    """Run a network on an empty canvas: its shapes alone where these run, which costs nothing."""
    network.eval()
    with torch.no_grad(), padding, suppress(Exception):  # of whatever needs values, or refuses
        shapes: dict[int, Any] = {id(value): value.to("meta") for value in network.buffers()}
        shapes |= {id(value): nn.Parameter(value.to("meta")) for value in network.parameters()}
        deepcopy(network, shapes)(torch.zeros(1, 3, side, side, device="meta"))
        return
    padding.other = ""
    with torch.no_grad(), padding:
        network(torch.zeros(1, 3, side, side))


class _Padding(TorchFunctionMode):
    """While active, looks for maps that are padded otherwise than the variant `how` says.

    `other` is the first operation that does.
    """

    def __init__(self, how: str | None) -> None:
        super().__init__()
        self.how, self.other = how, ""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run `func`; remember whether it pads otherwise."""
        given = kwargs or {}
        if self.how is not None and (place := _PADS.get(func.__name__)) is not None:
            cells = given.get("pad" if place == 1 else "padding", (*args, *[0] * 6)[place])
            mode = given.get("mode", (*args, *["constant"] * 6)[2])
            pads = any(cells) if isinstance(cells, tuple | list) else cells not in (0, "valid")
            alike = place == 1 and self.how != "valid" and mode == _MODES[self.how]
            if pads and not alike:
                self.other = self.other or func.__name__
        return func(*args, **given)


_PADS = {"conv2d": 4, "max_pool2d": 3, "avg_pool2d": 3, "pad": 1}
"""Operations that may pad maps, to the place of the cells among their arguments."""
_IN_FRONT = "stn"


def _become(part: nn.Module, kind: type[nn.Module], **attributes: object) -> None:
    """Turn a module into one of a class derived from its own; weights and names stay."""
    object.__setattr__(part, "__class__", kind)
    for name, value in attributes.items():
        setattr(part, name, value)


def _pad(network: nn.Module, how: str) -> None:
    kinds = {
        nn.Conv2d: PaddedConv2d,
        nn.MaxPool2d: PaddedMaxPool2d,
        nn.AvgPool2d: PaddedAvgPool2d,
        HermiteConv2d: PaddedHermiteConv2d,
    }
    found = 0
    for part in network.modules():
        if isinstance(part, SampledMaxPool2d | SampledAvgPool2d | SampledBlock):
            if how == "valid":
                raise InputError("what samples its maps pads them, too (blurpool, aps)")
            part.fill = _MODES[how]
            found += 1
        elif isinstance(part, SampledConv2d):
            part.pads, part.fill = _pads(part, how), _MODES[how]
            found += 1
        elif type(part) in kinds:
            pads = _pads(part, how)
            if any(pads) or getattr(part, "padding", 0) not in (0, (0, 0)):
                _become(part, kinds[type(part)], pads=pads, fill=_MODES[how])
                found += 1
    if not found:
        raise InputError("it pads no map")


def _pads(part: nn.Module, how: str) -> Pads:
    """Return the cells that are added to a map before a convolution or pooling.

    Raises
    ------
    InputError
        Its padding is given by a word.
    """
    pads: list[int] = []
    for axis in (1, 0):  # across, then down
        kernel, stride, padding, dilation = (
            _both(getattr(part, name, 1))[axis]
            for name in ("kernel_size", "stride", "padding", "dilation")
        )
        reach = dilation * (kernel - 1)
        if how == "valid":
            pads += [0, 0]
        elif how == "full":
            pads += [reach, reach] if isinstance(part, nn.Conv2d) else [padding, padding]
        elif how == "reflect":
            pads += [padding, padding]
        else:  # as many as let a map of n cells be one of n / stride
            pads += [padding, max(0, reach + 1 - stride - padding)]
    return (pads[0], pads[1], pads[2], pads[3])


def _both(value: Any) -> tuple[int, int]:
    if isinstance(value, str):
        raise InputError(f"a convolution's padding is {value!r}; expected numbers of cells")
    return value if isinstance(value, tuple) else (value, value)


def _sample(network: nn.Module, sampler: Sampler, *, first: bool) -> None:
    """Let a sampler leave cells out, in the place of every stride.

    The first convolution's stays unless `first` says otherwise.
    """
    found = 0
    common: dict[str, Any] = {"fill": "constant", "sampler": sampler}
    for part in list(network.modules()):
        if isinstance(part, nn.MaxPool2d | nn.AvgPool2d):
            kind = SampledMaxPool2d if isinstance(part, nn.MaxPool2d) else SampledAvgPool2d
            (kernel, _), (step, _) = _both(part.kernel_size), _both(part.stride)
            if step > 1:
                (before, _) = _both(part.padding)
                behind = kernel - 1 - before
                part.stride, part.padding = 1, 0
                pads = (before, behind, before, behind)
                _become(part, kind, pads=pads, step=step, **common)
                found += 1
        elif isinstance(part, _residual_blocks()):
            block: Any = part
            strided = block.conv2 if hasattr(block, "conv3") else block.conv1
            (step, _) = strided.stride
            if step > 1:
                strided.stride = block.downsample[0].stride = (1, 1)
                derived = type(f"Sampled{type(part).__name__}", (SampledBlock, type(part)), {})
                _become(part, derived, step=step, **common)
                found += 1
    convolutions = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    for number, part in enumerate(convolutions):
        (kernel, _), (step, _) = _both(part.kernel_size), _both(part.stride)
        if step == 1 or (number == 0 and not first):
            continue
        if number or kernel <= step:
            raise InputError(
                f"its convolution of {kernel} by {kernel} cells leaves cells out (stride {step}); "
                "expected strides of poolings, of ResNet's blocks, and of a first convolution that "
                "is wider than its stride"
            )
        part.stride = (1, 1)
        _become(part, SampledConv2d, pads=_pads(part, "circular"), step=step, **common)
        found += 1
    if not found:
        raise InputError("it has neither a pooling nor a residual block with a stride")


def _residual_blocks() -> tuple[type[nn.Module], ...]:
    """Return the classes of torchvision's residual blocks, once a network of it was built."""
    return (
        *loaded("torchvision.models.resnet", "BasicBlock"),
        *loaded("torchvision.models.resnet", "Bottleneck"),
    )
