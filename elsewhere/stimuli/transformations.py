"""Axes that change an object before it is placed: scale, rotation, contrast, blur, or a user's own.

One registered function makes an axis: it takes a patch (uint8, (s, s, 4), red, green, blue and
alpha) and a value, and returns the changed patch, which may have a longer side. A patch stands at a
location by the same rule whatever its side ``k``: its first row is ``y - k // 2``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import scipy  # scipy.ndimage is imported when first used
from PIL import Image

from elsewhere.axes import Axis
from elsewhere.errors import CanvasError, InputError, ObjectSetError
from elsewhere.registry import Registry
from elsewhere.stimuli.arrays import ByteArray, FloatArray
from elsewhere.stimuli.canvas import Canvas
from elsewhere.stimuli.objects import ObjectSet
from elsewhere.types import Color

Patch: TypeAlias = ByteArray
"""uint8 (s, s, 4): red, green, blue, and alpha (0 is ground, 255 is object)."""

LONGEST_SIDE = 2**12
"""Side of a changed patch, px, at most."""


@dataclass(frozen=True)
class Transformation:
    """What an axis does to an object: `apply` returns a patch changed by a value."""

    apply: Callable[[Patch, float], Patch]
    neutral: float  # leaves an object as it is; the reference, unless another one is given
    unit: str = "1"  # of the values; ``1`` for ratios


transformations: Registry[Transformation] = Registry("axis")
"""Axes by name."""


def register_axis(
    name: str, *, neutral: float, unit: str = "1", summary: str
) -> Callable[[Callable[[Patch, float], Patch]], Callable[[Patch, float], Patch]]:
    """Register a function ``patch, value -> patch`` as the axis `name`.

    Examples
    --------
    >>> @register_axis("mirrored", neutral=0, summary="whether left and right are exchanged")
    ... def mirrored(patch, value):
    ...     return patch[:, ::-1] if value else patch
    >>> "mirrored" in transformations
    True
    """

    def register(apply: Callable[[Patch, float], Patch]) -> Callable[[Patch, float], Patch]:
        transformations.add(name, Transformation(apply, neutral, unit), summary=summary)
        return apply

    return register


def parse_axis(text: str) -> Axis:
    """Return the registered axis that `text` gives values of, such as ``scale=0.5:2:5``.

    Raises
    ------
    InputError
        The text cannot be read.
    UnknownNameError
        No such axis.
    """
    name = text.partition("=")[0].strip()
    if name in ("y", "x"):
        raise InputError(f"the locations along {name} come from --grid; leave --axis {text} out")
    axis = Axis.parse(text)
    return replace(axis, unit=transformations.get(axis.name).unit)


def vary(
    objects: ObjectSet, names: Sequence[str], values: Sequence[Sequence[float]]
) -> list[ObjectSet]:
    """Return the objects in every variant, all in boxes of one size.

    The axes called `names` are registered ones that change objects; they are applied in that order,
    with one value along each for every variant. In its box, an object lies as it would stand at a
    location by itself.

    Raises
    ------
    UnknownNameError
        No such axis.
    InputError
        A value that an axis does not take, or a function that gives no patch.
    ObjectSetError
        A variant of an object has nothing left that could be seen.
    """
    if not names:
        return [objects for _ in values]
    patches = np.concatenate([objects.images, objects.masks[..., None]], axis=-1)
    varied = [[_changed(patch, names, each) for patch in patches] for each in values]
    for variant, each in zip(varied, values, strict=True):
        for name, patch in zip(objects.ids, variant, strict=True):
            if not patch[..., 3].any():
                raise ObjectSetError(
                    f"nothing is left of object {name!r} at {say_values(names, each)}; "
                    "leave that value out"
                )
    side = max(objects.size, *(len(patch) for variant in varied for patch in variant))
    found = []
    for variant in varied:
        boxes = np.stack([_in_box(patch, side) for patch in variant])
        images, masks = np.ascontiguousarray(boxes[..., :3]), np.ascontiguousarray(boxes[..., 3])
        found.append(replace(objects, images=images, masks=masks))
    return found


def check_seen(
    varied: Sequence[ObjectSet],
    names: Sequence[str],
    values: Sequence[Sequence[float]],
    color: Color,
) -> None:
    """Refuse variants of objects that cannot be seen on a background.

    Raises
    ------
    ObjectSetError
        Naming the first one.
    """
    for each, variant in zip(values, varied, strict=True):
        if names and len(unseen := np.flatnonzero(variant.contrast_on(color) == 0)):
            raise ObjectSetError(
                f"object {variant.ids[unseen[0]]!r} cannot be seen at {say_values(names, each)} on "
                f"the background {','.join(map(str, color))}; leave that value out"
            )


def window_of(varied: Sequence[ObjectSet], canvas: Canvas, names: Sequence[str]) -> Canvas:
    """Return the canvas with the box in which every variant of the objects has room.

    Raises
    ------
    CanvasError
        The box is larger than the canvas.
    """
    side = varied[0].size
    if side > canvas.size:
        raise CanvasError(
            f"with {', '.join(names)} objects need {side} px, and the canvas has "
            f"{canvas.size} px; take smaller objects or values, or a larger canvas"
        )
    return replace(canvas, object_size=side)


def _changed(patch: Patch, names: Sequence[str], values: Sequence[float]) -> Patch:
    """Return a patch changed along one axis after the other."""
    for name, value in zip(names, values, strict=True):
        patch = np.asarray(transformations.get(name).apply(patch.copy(), float(value)))
        if patch.dtype != np.uint8 or patch.ndim != 3 or patch.shape != (len(patch),) * 2 + (4,):
            raise InputError(
                f"axis {name!r} gave {patch.dtype} {patch.shape} at {value:g}; expected a patch, "
                "uint8 (side, side, 4)"
            )
        if len(patch) > LONGEST_SIDE:
            raise InputError(
                f"axis {name!r} makes an object of {len(patch)} px at {value:g}; expected at most "
                f"{LONGEST_SIDE} px"
            )
    return patch


def say_values(names: Sequence[str], values: Sequence[float]) -> str:
    """Return values along axes in words: ``scale=0.5,rotation=90``."""
    return ",".join(f"{name}={value:g}" for name, value in zip(names, values, strict=True))


def _in_box(patch: Patch, side: int) -> Patch:
    """Return a patch in a transparent box, where it stands as it would by itself."""
    first = side // 2 - len(patch) // 2
    before, after = max(first, 0), max(side - first - len(patch), 0)
    return np.pad(patch, ((before, after), (before, after), (0, 0)))


# --- patches as premultiplied channels, so that no colour of the ground comes into a rim ----------


def _premultiplied(patch: Patch) -> FloatArray:
    """Return float32 (4, s, s): colours weighted by alpha, and alpha, all 0..255."""
    alpha = patch[..., 3:].astype(np.float32)
    colors = patch[..., :3] * (alpha / 255)
    return np.moveaxis(np.concatenate([colors, alpha], axis=-1), -1, 0)


def _as_patch(channels: FloatArray) -> Patch:
    """Return premultiplied channels as a patch, halves rounded up."""
    alpha = np.clip(np.floor(channels[3] + 0.5), 0, 255)
    colors = channels[:3] * 255 / np.maximum(channels[3], 1e-6)
    colors = np.where(alpha > 0, np.clip(np.floor(colors + 0.5), 0, 255), 0)
    return np.moveaxis(np.concatenate([colors, alpha[None]]), 0, -1).astype(np.uint8)


def _grown(side: int, wanted: float) -> int:
    """Return the smallest side of at least `wanted` px that has the same centre as `side`."""
    return side + 2 * max(0, math.ceil((wanted - side) / 2 - 1e-9))


def _each(channels: FloatArray, change: Callable[[Image.Image], Image.Image]) -> FloatArray:
    return np.stack([np.asarray(change(Image.fromarray(plane))) for plane in channels])


# --- the axes that come with the package ---------------------------------------------------------


@register_axis("scale", neutral=1.0, summary="size of the object, as a multiple of its own")
def scale(patch: Patch, value: float) -> Patch:
    """Return a patch of another size: bicubic, with the filter widened where it shrinks.

    The factor is exact, whatever the number of px: the object keeps its centre, and rims fall
    between pixels. Pillow's ``resize`` with a reading box is used (its filters are anti-aliased).
    """
    if value <= 0:
        raise InputError(f"scale is {value:g}; expected a number above 0")
    side = len(patch)
    new = max(_grown(side % 2, side * value), 1 + (side + 1) % 2)
    if new > LONGEST_SIDE:
        raise InputError(
            f"scale {value:g} makes an object of {new} px; expected at most {LONGEST_SIDE} px"
        )
    read = new / value  # px of the patch that are seen
    padded = _in_box(patch, _grown(side, read + 2))
    first = (len(padded) - read) / 2
    box = (first, first, first + read, first + read)
    return _as_patch(
        _each(
            _premultiplied(padded),
            lambda plane: plane.resize((new, new), Image.Resampling.BICUBIC, box=box),
        )
    )


@register_axis(
    "rotation", neutral=0.0, unit="degree", summary="angle about the centre, counter-clockwise"
)
def rotation(patch: Patch, value: float) -> Patch:
    """Return a rotated patch: exact at multiples of 90 degrees, bicubic between.

    The patch grows, so that no corner is lost.
    """
    turns = value / 90
    if turns == round(turns):
        return np.ascontiguousarray(np.rot90(patch, round(turns) % 4))
    padded = _in_box(patch, _grown(len(patch), len(patch) * math.sqrt(2)))
    return _as_patch(
        _each(
            _premultiplied(padded),
            lambda plane: plane.rotate(value, Image.Resampling.BICUBIC),
        )
    )


@register_axis("contrast", neutral=1.0, summary="contrast about the object's own mean colour")
def contrast(patch: Patch, value: float) -> Patch:
    """Return a patch whose colours differ `value` times as much from their mean, cut at 0 and 255.

    The mean is taken over the object, weighted by alpha.
    """
    if value < 0:
        raise InputError(f"contrast is {value:g}; expected 0 or more")
    alpha = patch[..., 3:].astype(np.float64)
    mean = (patch[..., :3] * alpha).sum((0, 1)) / max(alpha.sum(), 1)
    colors = np.clip(np.floor(mean + value * (patch[..., :3] - mean) + 0.5), 0, 255)
    return np.concatenate([colors.astype(np.uint8), patch[..., 3:]], axis=-1)


@register_axis("blur", neutral=0.0, unit="px", summary="standard deviation of a Gaussian blur")
def blur(patch: Patch, value: float) -> Patch:
    """Return a blurred patch; it grows by four standard deviations on each side."""
    if value < 0:
        raise InputError(f"blur is {value:g}; expected 0 px or more")
    if value == 0:
        return patch
    reach = math.ceil(4 * value)
    if len(patch) + 2 * reach > LONGEST_SIDE:
        raise InputError(
            f"blur of {value:g} px makes an object of {len(patch) + 2 * reach} px; expected at "
            f"most {LONGEST_SIDE} px"
        )
    channels = _premultiplied(_in_box(patch, len(patch) + 2 * reach))
    blurred = scipy.ndimage.gaussian_filter(
        channels, (0, value, value), mode="constant", truncate=4
    )
    return _as_patch(blurred)
