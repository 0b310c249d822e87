"""Sources that a probe is compared with: raw pixels, and the same network untrained."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elsewhere.errors import ElsewhereError, InputError
from elsewhere.measures.blocks import DenseBlock
from elsewhere.models import InputTransform, load_model, state_sha256
from elsewhere.models.factories import check_named
from elsewhere.protocols import Design, Layer, Progress, Sink, Source, Stage, stages_of
from elsewhere.recording import Sweep
from elsewhere.stimuli import Canvas, Grid, ObjectSet
from elsewhere.storage import Recording
from elsewhere.types import Color, Location

PIXELS = "pixels"


@dataclass(frozen=True)
class Scene:
    """Objects on a canvas of one colour."""

    objects: ObjectSet
    canvas: Canvas
    color: Color

    @classmethod
    def of(cls, source: Source) -> Scene:
        """Return what a sweep or a recording shows.

        Raises
        ------
        InputError
            The source does not hold its objects' pixels.
        """
        if isinstance(source, Sweep):
            return cls(source.objects, source.canvas, source.color)
        if not isinstance(source, Recording):
            raise InputError("arrays hold no pixels of the objects")
        header = source.attributes
        red, green, blue = (int(value) for value in header["background"])
        pictures = source.objects
        objects = ObjectSet(
            str(header.get("object_set", "recorded")),
            np.ascontiguousarray(pictures["image"].values),
            np.ascontiguousarray(pictures["mask"].values),
            source.design.objects,
            source.design.categories,
        )
        canvas = Canvas(
            int(header["canvas"]), int(header["object_size"]), background=(red, green, blue)
        )
        return cls(objects, canvas, (red, green, blue))


class PixelSource:
    """Raw pixels, 0..1, of the box around some locations, as a source for sinks.

    Pixels that no training sample covers are constant in training, so that a penalised linear
    model gives them no weight: with the box of the trained locations nothing is lost.

    Parameters
    ----------
    scene
        Objects and canvas.
    design
        Where the objects go.
    around
        The trained locations.
    """

    def __init__(self, scene: Scene, design: Design, around: Sequence[Location]) -> None:
        self.scene, self.design = scene, design
        self._around = tuple(around)
        side = scene.canvas.object_size
        corners = np.array([scene.canvas.top_left(place) for place in around])
        top, left = corners.min(axis=0).tolist()
        bottom, right = (corners.max(axis=0) + side).tolist()
        self._box = (slice(top, bottom), slice(left, right))
        self.layers = [Layer(PIXELS, "", "", (bottom - top, right - left, 3))]
        self.provenance: dict[str, Any] = {"model": PIXELS, "notes": []}
        self._patches = scene.objects.patches(scene.color)

    def stream(
        self,
        sinks: Sequence[Sink],
        *,
        max_memory: int = 2**31,
        progress: Progress | None = None,
    ) -> None:
        """Give `sinks` the blocks of some objects at one location after the other."""
        (layer,) = self.layers
        takers = [(sink, sink.needs(layer)) for sink in sinks if sink.needs(layer)]
        for sink, _ in takers:
            sink.begin(self.design, [layer])
        for stage in stages_of([need for _, needs in takers for need in needs]):
            for block in self._blocks(stage, progress):
                for sink, needs in takers:
                    if any(stage in need.stages for need in needs):
                        sink.add(block)
        for sink, _ in takers:
            sink.end()

    def _blocks(self, stage: Stage, progress: Progress | None) -> Iterator[DenseBlock]:
        places = self.design.positions if stage == "grid" else np.array([self.design.reference])
        n = len(self.design.objects)
        step = max(1, 2**22 // (3 * self.scene.canvas.size**2))
        for position, (y, x) in enumerate(places.tolist()):
            for first in range(0, n, step):
                objects = np.arange(first, min(first + step, n))
                at = np.full(len(objects), position if stage == "grid" else -1)
                values = self._crops(objects, (y, x))
                yield DenseBlock(stage, PIXELS, objects, at, values)
            if progress is not None:
                progress(position + 1, len(places))

    def _crops(self, objects: NDArray[np.int64], place: Location) -> NDArray[np.float32]:
        scene = self.scene
        images = scene.canvas.paste(self._patches[objects], [place] * len(objects), scene.color)
        return np.divide(images[:, *self._box], 255, dtype=np.float32)

    def at(self, reference: tuple[int, ...]) -> PixelSource:
        """Return a source of its own with another reference."""
        return PixelSource(self.scene, replace(self.design, reference=reference), self._around)


def untrained(source: Source, *, seed: int, trust: Collection[str] = ()) -> tuple[Sweep, str]:
    """Return a sweep of the source's network with weights drawn at random, and what it is.

    Parameters
    ----------
    source
        A sweep or a recording.
    seed
        Of the weights; if the source has the very same ones, the next seed is taken.
    trust
        Factories that may be built where a recording names them.

    Raises
    ------
    InputError
        The network cannot be built again: the message says why.
    """
    scene = Scene.of(source)
    if isinstance(source, Sweep):
        name, arguments = source.model.name, dict(source.model.arguments)
        transform = source.model.transform
        digest = state_sha256(source.model.module.state_dict())
    elif isinstance(source, Recording):
        header = source.attributes
        name, arguments = str(header["model"]), dict(header.get("model_arguments", {}))
        check_named(name, source.path, trust)
        digest = str(header.get("weights_sha256", ""))
        red, green, blue = (float(v) for v in header["mean"])
        stds = tuple(float(v) for v in header["std"])
        transform = InputTransform(
            mean=(red, green, blue), std=(stds[0], stds[1], stds[2]), gain=float(header["gain"])
        )
    else:
        raise InputError("arrays do not tell of which network they are")
    names = [layer.name for layer in source.layers]
    try:
        model = load_model(name, model_args=arguments, seed=seed, transform=transform)
        if model.weights_sha256 == digest:
            seed += 1
            model = load_model(name, model_args=arguments, seed=seed, transform=transform)
        if isinstance(source, Sweep):
            model.to(source.model.device)
        axes = dict(source.design.axes)
        sweep = Sweep(
            model,
            scene.objects,
            canvas=scene.canvas,
            grid=Grid(axes["y"], axes["x"]),
            layers=names,
        )
    except ElsewhereError as error:
        raise InputError(f"the network cannot be built again: {error}") from error
    return sweep, f"{name}, random weights of seed {seed}"


def object_size(source: Source) -> int | None:
    """Return the objects' side in px, where the source tells it."""
    size = source.provenance.get("object_size")
    return None if size is None else int(size)
