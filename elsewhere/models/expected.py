"""What a network expects where it cannot process a canvas: its type, channels, height and width.

`refusal`, `find_remedy`, `find_single`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import torch
from torch import nn

from elsewhere.errors import InputError
from elsewhere.models.forward import evaluating
from elsewhere.models.model import Model
from elsewhere.models.restoring import seeded, untouched

SHAPES = ((3, 4), (2, 3), (1, 2), (9, 16), (4, 5), (5, 8), (3, 5))
"""Sides of common images that are not square, short to long."""
COMMON = (28, 32, 64, 224, 299)
"""Sides of common square images."""


def refusal(model: Model, size: int, error: Exception) -> InputError:
    """Return the error that tells what a network said of a canvas of `size` px, and what to do."""
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    said = f"{model.name} cannot process a canvas of {size} px ({reason})"
    found = find_single(model.module, error) or find_arguments(model.module, error)
    return InputError(f"{said}; {found or find_remedy(model, size)}")


def find_arguments(module: nn.Module, error: Exception) -> str:
    """Return what a network's ``forward`` wants beside a batch of images, and what to do.

    `error` is what it raised. The text is for the end of a message; it is empty where the network
    takes one batch of images.
    """
    wrap = "wrap it in a factory whose network takes such a batch and passes on what it wants"
    given = "one tensor, the batch of images (image, 3, height, width) in float32"
    if "scalar type" in str(error) and "Long" in str(error):
        return (
            f"it wants whole numbers, such as indices of an embedding, and is given {given}: {wrap}"
        )
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):  # none can be had
        return ""
    try:
        signature.bind(object())
    except TypeError:
        wanted = ", ".join(signature.parameters) or "nothing"
        return f"its forward takes {wanted}, and is given {given}: {wrap}"
    return ""


def find_single(module: nn.Module, error: Exception) -> str:
    """Return which normalisation had one value to normalise over, and what to do; else nothing.

    `error` is what the network raised. The text is for the end of a message.
    """
    if not str(error).startswith("Expected more than 1 "):
        return ""
    names = {id(part): name for name, part in module.named_modules()}
    place, kind, trace = "", "", error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        place = names.get(id(frame.f_locals.get("self")), place)
        kind = frame.f_code.co_name if frame.f_code.co_name in _SINGLE else kind
        trace = trace.tb_next
    if not kind:
        return ""
    where = f"layer {place!r}" if place else "a normalisation"
    return f"{where} {_SINGLE[kind]}"


_SINGLE = {
    "batch_norm": "normalises over the images of a batch and was given a single value of each "
    "channel: train with a batch of 2 or more and let it keep running statistics, or normalise "
    "within an image, as torch.nn.LayerNorm does",
    "instance_norm": "normalises over the cells of an image's map and was given a single cell: "
    "take it out, put it before the pooling, or choose a larger canvas if the map grows with it",
    "group_norm": "normalises over the values of an image's group and was given a single value: "
    "take fewer groups, put it before the pooling, or choose a larger canvas if the map grows with "
    "it",
}
"""Functions of torch that normalise, and what it means that one had a single value."""


def find_remedy(model: Model, size: int) -> str:
    """Return what a network that failed on a canvas of `size` px expects instead, and what to do.

    Its weights tell the type, and its convolutions how many channels it may take; blank images are
    tried for these and for common sides. The text is for the end of a message.
    """
    kinds = {v.dtype for v in model.module.parameters() if v.is_floating_point()}
    if kinds and torch.float32 not in kinds:
        names = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        return (
            f"its weights are {names}, and images come as float32: convert it in its factory, "
            "network.float()"
        )
    sizes = list(dict.fromkeys([size, model.canvas_size]))
    for channels in _channels(model.module):
        for side in sizes:
            if _takes(model, channels, side, side):
                there = "" if side == size else f" of {side} px"
                return (
                    f"it takes images{there} of {channels} channel{'s' * (channels > 1)}, and "
                    "images here have 3 (red, green, blue): wrap it in a factory whose network "
                    f"makes {channels} of 3, such as x.mean(1, keepdim=True) for 1"
                )
    own = size != model.canvas_size and _takes(model, 3, model.canvas_size, model.canvas_size)
    for height, width in () if own else _sides(model.module, sizes):
        if _takes(model, 3, height, width):
            square = [side for side in (height, width) if _takes(model, 3, side, side)]
            if square:
                return f"try another --canvas, such as {square[0]}"
            return (
                f"it takes images such as {height} x {width} px (height x width), and a canvas is "
                "square: wrap it in a factory whose network pads, crops or resizes a square to that"
            )
    if own:
        flat = model.arguments.get("readout") == "flatten"  # a head of the map's own size
        built = f", or build the head for this one with --model-arg canvas={size}" if flat else ""
        return f"try another --canvas, such as its own {model.canvas_size}{built}"
    others = [side for side in COMMON if side != size]
    for side in others:
        if _takes(model, 3, side, side):
            return f"try another --canvas, such as {side}"
    return (
        f"canvases of {', '.join(map(str, others))} px fail as well, so that it may not be the "
        "size: a network is given one tensor, the batch of images (image, 3, height, width) in "
        "float32; wrap it in a factory whose network makes of it what it expects"
    )


def _channels(module: nn.Module) -> list[int]:
    """Return how many channels the network's convolutions take, where that is not 3."""
    found = dict.fromkeys(
        part.in_channels
        for part in module.modules()
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)
    )
    return [channels for channels in list(found)[:4] if channels != 3]


def _sides(module: nn.Module, sizes: list[int]) -> Iterator[tuple[int, int]]:
    for attribute in ("canvas_size", "image_size", "img_size", "input_size"):
        given = getattr(module, attribute, None)
        sides = list(given)[-2:] if isinstance(given, list | tuple) else []
        if len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides):
            yield sides[0], sides[1]
    for size in sizes:
        for short, long in SHAPES:
            less, more = size * short / long, size * long / short
            for height, width in ((less, size), (size, less), (more, size), (size, more)):
                if height == int(height) and width == int(width):
                    yield int(height), int(width)


def _takes(model: Model, channels: int, height: int, width: int) -> bool:
    images = torch.zeros(1, channels, height, width, device=model.device)
    with untouched(model.module), seeded(None, model.module), evaluating(model.module):
        try:
            model.module(images)
        except Exception:  # any network, any complaint
            return False
    return True
