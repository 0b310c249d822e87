"""How the network of a sweep has to be run: found out before it, and looked at again after it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from elsewhere.errors import InputError, reason_of
from elsewhere.logs import NOTED, get_logger
from elsewhere.models import Conduct, Layer, Model, observe
from elsewhere.models.conduct import check_again
from elsewhere.models.forward import computing, evaluating
from elsewhere.models.proof import extremes, undisturbed
from elsewhere.models.scale import listening
from elsewhere.protocols import Design
from elsewhere.recording.images import ImageBatch, Images
from elsewhere.stimuli import Canvas, ObjectSet
from elsewhere.stimuli.transformations import vary
from elsewhere.types import BATCH_ROWS

logger = get_logger(__name__)


@dataclass(frozen=True, eq=False)
class Subject:
    """What is swept, as in :class:`elsewhere.recording.Sweep`; the axes that move the window come
    last.

    A whole pass takes `rows` images, and one of them `image_bytes`, about.
    """

    model: Model
    objects: ObjectSet
    canvas: Canvas
    design: Design
    layers: tuple[Layer, ...]
    rows: int = BATCH_ROWS
    image_bytes: int = 0

    @cached_property
    def variants(self) -> tuple[Subject, ...]:
        """Sweeps over the axes that move the window, of objects as the other axes change them.

        One for each position along those, in order, and one more where the reference is on none.
        Where no axis changes objects, this is the only one.
        """
        n = len(self.values[0])
        if not n:
            return (self,)
        objects = vary(self.objects, self.design.names[:n], self.values)
        canvas = replace(self.canvas, object_size=objects[0].size)
        design = replace(
            self.design, axes=self.design.axes.moving, reference=self.design.reference[n:]
        )
        return tuple(replace(self, objects=each, canvas=canvas, design=design) for each in objects)

    @property
    def values(self) -> list[tuple[float, ...]]:
        """The values of each variant along the axes that change objects."""
        axes = self.design.axes.changing
        return axes.with_reference(self.design.reference[: len(axes.each)])

    @property
    def at_reference(self) -> Subject:
        """The variant at the reference."""
        return self.variants[self.values.index(self.design.reference[: len(self.values[0])])]


def watch(subject: Subject, *, output: bool = False, gradients: bool = False) -> Conduct:
    """Return how a network has to be run on objects at the locations of a design.

    Say so if the network's own `output` is wanted, too, or `gradients` are going to be taken.

    Raises
    ------
    InputError
        Its images depend on each other, on chance, or on what was shown before.
    """
    subject = subject.at_reference
    model, objects, canvas = subject.model, subject.objects, subject.canvas
    images, places = Images(model, objects, canvas, rows=1), subject.design.positions
    empty = _empty(images, places)
    shown = torch.from_numpy(objects.patches(canvas.background_color(model.transform.mean)))
    scenes = [
        images.build(ImageBatch("grid", np.array([number]), np.array([at]), places[[at]])).clone()
        for number, at in zip(extremes(shown), (0, len(places) - 1), strict=True)
    ]
    with computing(model.device), listening(model.module) as heard:
        conduct = observe(
            model, empty, torch.cat(scenes), subject.layers, output=output, gradients=gradients
        )
    _try_precision(model, empty, conduct)
    notes = heard.notes(model)
    for note in notes:
        logger.warning("%s: %s", model.name, note, extra=NOTED)
    return replace(conduct, notes=(*conduct.notes, *notes))


def _try_precision(model: Model, empty: torch.Tensor, conduct: Conduct) -> None:
    """Refuse a network whose operations do not take numbers of its precision."""
    if model.precision == "float32":
        return
    how = computing(model.device, model.precision)
    with how, undisturbed(model.module), evaluating(model.module), conduct.a_pass(model.module):
        try:
            model.module(empty.clone())
        except Exception as error:  # any network, any complaint
            reason = reason_of(error)
            raise InputError(
                f"{model.name} cannot be run in {model.precision} ({reason}); take --precision "
                "float32"
            ) from error


def watch_again(subject: Subject, conduct: Conduct) -> None:
    """Refuse a network that has come to do something else while it was swept.

    Raises
    ------
    InputError
        See :func:`elsewhere.models.conduct.check_again`.
    """
    if conduct.keeps:
        subject = subject.at_reference
        images = Images(subject.model, subject.objects, subject.canvas, rows=1)
        empty = _empty(images, subject.design.positions)
        with computing(subject.model.device):  # as `watch` did
            check_again(subject.model, conduct, empty, subject.layers)


def _empty(images: Images, places: NDArray[np.int64]) -> torch.Tensor:
    nothing = np.array([-1])
    return images.build(ImageBatch("empty", nothing, nothing, places[:1])).clone()
