"""What has to be found out about a network before it is swept: how it may be run, and by what."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from elsewhere.errors import InputError
from elsewhere.models import Conduct, Layer, Model, observe
from elsewhere.models.conduct import check_again
from elsewhere.models.forward import exact
from elsewhere.models.proof import extremes
from elsewhere.models.state import stamp, untouched
from elsewhere.protocols import Design
from elsewhere.recording.engines import Choice, choose_engine
from elsewhere.recording.images import Batch, Images
from elsewhere.recording.incremental.streaming import TileStream
from elsewhere.stimuli import Canvas, ObjectSet
from elsewhere.types import Engine


class Findings:
    """What was found out about the network of a sweep, once, when it is first asked for.

    Parameters
    ----------
    model, objects, canvas, design, layers
        What is swept.
    wanted
        The engine that is asked for.
    """

    def __init__(
        self,
        model: Model,
        objects: ObjectSet,
        canvas: Canvas,
        design: Design,
        layers: Sequence[Layer],
        wanted: Engine,
    ) -> None:
        self._model, self._objects, self._canvas = model, objects, canvas
        self._design, self._layers, self._wanted = design, tuple(layers), wanted
        self._stamp = stamp(model.module)

    def refuse(self) -> None:
        """Refuse a network whose values are not an image's own, before anything is swept."""
        _ = self.conduct

    def at(self, design: Design) -> Findings:
        """Return the findings for another reference; what holds there as well is not sought again.

        An engine is compiled for coordinates: it serves where it knows those of the reference.
        """
        other = self._with(self._model, design, self._wanted)
        if "choice" in vars(self):
            pairs = zip(design.reference, self.choice.places, strict=False)
            if all(place in places for place, places in pairs):
                other.choice = self.choice
        return other

    def of(self, model: Model, wanted: Engine) -> Findings:
        """Return the findings for another network or another engine."""
        return self._with(model, self._design, wanted)

    def _with(self, model: Model, design: Design, wanted: Engine) -> Findings:
        other = Findings(model, self._objects, self._canvas, design, self._layers, wanted)
        if model is self._model and "conduct" in vars(self):
            other.conduct = self.conduct
        return other

    def current(self) -> Findings:
        """Return these findings, or none yet where the network has been changed since."""
        if stamp(self._model.module) == self._stamp:
            return self
        return Findings(
            self._model, self._objects, self._canvas, self._design, self._layers, self._wanted
        )

    @cached_property
    def conduct(self) -> Conduct:
        """How the network has to be run, and its behaviour."""
        return watch(self._model, self._objects, self._canvas, self._design, self._layers)

    @cached_property
    def choice(self) -> Choice:
        """The engine that runs the sweep, and why."""
        if self.conduct.alone:
            reason = self.conduct.reason or "one image a pass is asked for"
            if self._wanted == "incremental":
                raise InputError(
                    f"--engine incremental does not apply to {self._model.name}: {reason}; take "
                    "--engine auto or dense"
                )
            return Choice("dense", f"one image a pass: {reason}")
        with exact(self._model.device), untouched(self._model.module):
            return choose_engine(
                self._wanted, self._model, self._objects, self._canvas, self._design, self._layers
            )

    @cached_property
    def windows(self) -> TileStream | None:
        """The stages of the sweep by windows, where they are taken."""
        engine = self.choice.engine
        return None if engine is None else TileStream(engine, self._design, self.choice.places)


def watch(
    model: Model,
    objects: ObjectSet,
    canvas: Canvas,
    design: Design,
    layers: Sequence[Layer],
    *,
    output: bool = False,
    gradients: bool = False,
) -> Conduct:
    """Return how a network has to be run on objects at the locations of a design.

    Parameters
    ----------
    model, objects, canvas, design
        What is shown, and where.
    layers
        The layers that are wanted.
    output
        Whether the network's own output is wanted, too.
    gradients
        Whether gradients are going to be taken.

    Raises
    ------
    InputError
        Its images depend on each other, on chance, or on what was shown before.
    """
    images, places = Images(model, objects, canvas, rows=1), design.positions
    empty = _empty(images, places)
    shown = torch.from_numpy(objects.patches(canvas.background_color(model.transform.mean)))
    scenes = [
        images.build(Batch("grid", np.array([number]), np.array([at]), places[[at]])).clone()
        for number, at in zip(extremes(shown), (0, len(places) - 1), strict=True)
    ]
    with exact(model.device):
        return observe(model, empty, torch.cat(scenes), layers, output=output, gradients=gradients)


def watch_again(
    conduct: Conduct,
    model: Model,
    objects: ObjectSet,
    canvas: Canvas,
    design: Design,
    layers: Sequence[Layer],
) -> None:
    """Refuse a network that has come to do something else while it was swept.

    Raises
    ------
    InputError
        See :func:`elsewhere.models.conduct.check_again`.
    """
    if conduct.keeps:
        images = Images(model, objects, canvas, rows=1)
        check_again(model, conduct, _empty(images, design.positions), layers)


def _empty(images: Images, places: NDArray[np.int64]) -> torch.Tensor:
    nothing = np.array([-1])
    return images.build(Batch("empty", nothing, nothing, places[:1])).clone()
