"""Sources that a probe is compared with: raw pixels, and the same network untrained."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elsewhere.errors import ElsewhereError, InputError
from elsewhere.measures.blocks import DenseBlock
from elsewhere.models import InputTransform, load_model
from elsewhere.models.names import check_named
from elsewhere.protocols import Design, Layer, Source, Stage
from elsewhere.recording import Sweep
from elsewhere.sources import BlockSource
from elsewhere.stimuli import Canvas, Grid, ObjectSet
from elsewhere.stimuli.transformations import vary
from elsewhere.types import Color, Location

PIXELS = "pixels"


@dataclass(frozen=True)
class ControlScene:
    """Objects on a canvas of one colour."""

    objects: ObjectSet
    canvas: Canvas
    color: Color

    @classmethod
    def of(cls, source: Source) -> ControlScene:
        """Return what a sweep or a recording shows; an ``InputError`` where there are no pixels."""
        pictures, told = source.pictures(), source.origin
        if pictures is None:
            raise InputError("arrays hold no pixels of the objects")
        images, masks = map(np.ascontiguousarray, pictures)
        red, green, blue = (int(value) for value in told["background"])
        name = str(told.get("object_set", "recorded"))
        design, color = source.design, (red, green, blue)
        canvas = Canvas(int(told["canvas"]), int(told["object_size"]), background=color)
        return cls(ObjectSet(name, images, masks, design.objects, design.categories), canvas, color)


class PixelSource(BlockSource):
    """Raw pixels, 0..1, of the box around the trained locations `around`, as a source for sinks.

    Pixels that no training sample covers are constant in training, so that a penalised linear model
    gives them no weight: with the box of the trained locations nothing is lost.
    """

    def __init__(self, scene: ControlScene, design: Design, around: Sequence[Location]) -> None:
        self.scene, self.design = scene, design
        self._around = tuple(around)
        axes, n = design.axes.changing, len(design.axes.changing.each)
        self._values = axes.with_reference(design.reference[:n])
        variants = vary(scene.objects, axes.names, self._values) if n else [scene.objects]
        side = variants[0].size
        self._canvas = replace(scene.canvas, object_size=side)
        corners = np.array([self._canvas.top_left(place) for place in around])
        top, left = corners.min(axis=0).tolist()
        bottom, right = (corners.max(axis=0) + side).tolist()
        self._box = (slice(top, bottom), slice(left, right))
        self.layers = [Layer(PIXELS, "", "", (bottom - top, right - left, 3))]
        self._patches = [each.patches(scene.color) for each in variants]

    @property
    def provenance(self) -> dict[str, Any]:
        """Attributes that results carry on."""
        return {"model": PIXELS, "notes": []}

    def blocks(self, layer: Layer, stage: Stage) -> Iterator[DenseBlock]:
        """Yield the blocks of some objects at one location after the other."""
        positions = self.design.axes.positions.tolist()
        places = positions if stage == "grid" else [list(self.design.reference)]
        n = len(self.design.objects)
        step = max(1, 2**22 // (3 * self.scene.canvas.size**2))
        for position, (*values, y, x) in enumerate(places):
            patches = self._patches[self._values.index(tuple(values))]
            for first in range(0, n, step):
                objects = np.arange(first, min(first + step, n))
                at = np.full(len(objects), position if stage == "grid" else -1)
                values = self._crops(patches[objects], (int(y), int(x)))
                yield DenseBlock(stage, PIXELS, objects, at, values)

    def _crops(self, patches: NDArray[np.uint8], place: Location) -> NDArray[np.float32]:
        images = self._canvas.paste(patches, [place] * len(patches), self.scene.color)
        return np.divide(images[:, *self._box], 255, dtype=np.float32)

    def at(self, reference: tuple[int, ...]) -> PixelSource:
        """Return a source of its own with another reference."""
        return PixelSource(self.scene, self.design.at(reference), self._around)


def untrained(source: Source, *, seed: int, trust: Collection[str] = ()) -> tuple[Sweep, str]:
    """Return a sweep of a source's network with weights drawn by `seed`, and what it is in words.

    If the source has the very same weights, the next seed is taken. `trust` names factories that
    may be built where a recording names them.

    Raises
    ------
    InputError
        The network cannot be built again: the message says why.
    """
    scene, told = ControlScene.of(source), source.origin
    name, arguments = str(told["model"]), dict(told.get("model_arguments", {}))
    if "path" in told:  # a file does not decide what code is run
        check_named(name, told["path"], trust)
    transform = InputTransform.of(told)
    names = [layer.name for layer in source.layers]
    try:
        model = load_model(name, model_args=arguments, seed=seed, transform=transform)
        if model.weights_sha256 == told.get("weights_sha256"):
            seed += 1
            model = load_model(name, model_args=arguments, seed=seed, transform=transform)
        model.to(told["device"])
        sweep = Sweep(
            model,
            scene.objects,
            canvas=scene.canvas,
            grid=Grid(*source.design.axes.moving.values),
            axes=source.design.axes.changing.each,
            layers=names,
        )
    except ElsewhereError as error:
        raise InputError(f"the network cannot be built again: {error}") from error
    return sweep, f"{name}, random weights of seed {seed}"
