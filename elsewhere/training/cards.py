"""What a checkpoint says of itself: how to rebuild the network, what it was shown and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elsewhere.axes import Axes
from elsewhere.errors import (
    UnknownNameError,
)
from elsewhere.models import InputTransform
from elsewhere.stimuli import Canvas, ObjectSet
from elsewhere.stimuli.transformations import parse_axis, vary, window_of
from elsewhere.training.curriculum import BatchNorm, Exemplars, Split
from elsewhere.training.resolution import load_phase_objects, place_objects
from elsewhere.training.seeds import draw_location
from elsewhere.training.seen import Past, digest_each, join, parse_view, set_name, unpack, view_of
from elsewhere.training.statistics import Done
from elsewhere.types import Channels, Location


@dataclass(frozen=True)
class Card:
    """What a checkpoint is: how to rebuild the network, and how it came about.

    Parameters
    ----------
    model, arguments
        What the network is built from.
    mean, std, gain
        Its input transform.
    canvas
        The canvas it was trained on.
    curriculum, fingerprint, seed
        The curriculum's name and fingerprint, and the seed of the run.
    phase, phase_index, step, steps
        Where in the curriculum: after `step` of at most `steps` steps of the phase.
    final
        Whether the phase ended here.
    objects, split, categories, exemplars, exemplar_seed
        What the phase shows; `categories` are the classes of the head, unit by unit.
    environment
        Where it shows them.
    axes
        The axes of which it draws a value for each presentation, such as ``scale=0.5:2:5``.
    trained
        Locations the phase trains at, where they are the same for all classes and few; see
        :meth:`trained_locations` for the others.
    learning_rate
        Of the phase.
    train_accuracy
        Share of the phase's latest presentations that was classified correctly.
    accuracy_on, accuracy_off
        Of the probe, at trained locations and at others; None where there are none.
    accuracy_on_error, accuracy_off_error
        Standard errors of these; None in cards of older versions.
    training_mode, evaluation_mode
        Accuracies on the latest presentations of training, where batches are normalised by
        themselves and in evaluation mode; None where nothing gathers running statistics.
    batch_norm
        What becomes of the running statistics of normalisations: ``frozen``, ``batch``, as in cards
        of older versions, ``recalibrated``, or ``none`` where the network keeps none.
    batch_norm_default
        What becomes of them in a phase that says nothing of it, also one of a run that goes on from
        this checkpoint; None in cards of older versions.
    noise
        What acted in training only: ``dropout 0.5 (classifier.2)``, stochastic depth, or random
        numbers that a module draws in its own code.
    origin
        Where the weights that training began with come from, if they are published ones.
    criterion_step
        The step at which the phase's criterion was met, if it was by then.
    pictures
        Digests of the pictures that the phase trained on; empty in cards of older versions.
    seen
        How pictures were loaded (the side of an object, px, and of a folder's the colour of what is
        no object) to the digests of those trained on before the phase.
    classes
        Object set to the classes of it that were trained on before the phase.
    channels
        The order in which the network takes red, green and blue.
    passes
        How the network was run: on ``windows``, or on ``whole canvases`` and why.
    notes
        What a reader of its numbers has to know.
    numerics
        Device, threads, instructions and torch that it was trained with: its last bits depend on
        them.
    sha256
        Of the file of weights.
    path, trust, sealed
        Of the weights; the factories that the user names, see
        :func:`elsewhere.training.read_card`; whether the card carries a seal. None of these stands
        in the card.
    """

    model: str
    arguments: Mapping[str, Any]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    gain: float
    canvas: Canvas
    curriculum: str
    fingerprint: str
    seed: int
    phase: str
    phase_index: int
    step: int
    steps: int
    final: bool
    objects: str
    split: Split
    categories: tuple[str, ...]
    exemplars: Exemplars
    exemplar_seed: int
    environment: str
    trained: tuple[Location, ...] | None
    learning_rate: float
    train_accuracy: float | None = None
    accuracy_on: float | None = None
    accuracy_off: float | None = None
    accuracy_on_error: float | None = None
    accuracy_off_error: float | None = None
    training_mode: float | None = None
    evaluation_mode: float | None = None
    batch_norm: Done = "batch"
    batch_norm_default: BatchNorm | None = None
    noise: tuple[str, ...] = ()
    origin: str = ""
    criterion_step: int | None = None
    axes: tuple[str, ...] = ()
    pictures: str = ""
    seen: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    channels: Channels = "rgb"
    passes: str = ""
    notes: tuple[str, ...] = ()
    numerics: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    path: Path = field(default=Path(), compare=False)
    trust: tuple[str, ...] = field(default=(), compare=False)
    sealed: bool = field(default=True, compare=False)

    @property
    def transform(self) -> InputTransform:
        """The network's input."""
        return InputTransform(self.mean, self.std, self.gain, self.channels)

    def test_objects(
        self, *, per_category: int = 20, data_dir: Path | None = None
    ) -> tuple[ObjectSet, NDArray[np.bool_]]:
        """Return some exemplars that the phase trained on and some held out, and which are which.

        Parameters
        ----------
        per_category
            How many of each kind for each class, at most.
        data_dir
            The folder of the object sets that are not made here.

        Returns
        -------
        objects : ObjectSet
        held_out : ndarray
            bool (object,)
        """
        trained, held_out = self.load_objects(data_dir=data_dir)
        parts = []
        for category in self.categories:
            for objects in (trained, held_out):
                if objects is not None:
                    few = min(per_category, objects.categories.count(category))
                    parts.append(objects.select((category,), few))
        held = [np.full(len(part), number % 2 == 1) for number, part in enumerate(parts)]
        if held_out is None:
            held = [np.zeros(len(part), bool) for part in parts]
        return join(parts), np.concatenate(held)

    def trained_locations(
        self, *, data_dir: Path | None = None
    ) -> tuple[Location, ...] | dict[str, tuple[Location, ...]]:
        """Return all locations the phase trains at, px: the same for all classes, or by class.

        A class's are those of all its exemplars. None are returned where the environment is no
        longer registered.
        """
        if self.trained is not None:
            return self.trained
        window = self.canvas
        if self.axes:
            axes = Axes(tuple(map(parse_axis, self.axes)))
            trained, _ = self.load_objects(data_dir=data_dir)
            variants = vary(trained, axes.names, axes.positions.tolist())
            window = window_of(variants, self.canvas, axes.names)
        try:
            placement = place_objects(
                self.environment,
                window,
                n_classes=len(self.categories),
                n_exemplars=self.exemplars.train,
                phase=self.phase,
                exemplar_seed=self.exemplar_seed,
                drawn=draw_location(self.canvas, self.seed),
            )
        except UnknownNameError:
            return ()
        shared = placement.same_for_classes
        each = [
            tuple((y, x) for y, x in placement.locations(number).tolist())
            for number in range(1 if shared else len(self.categories))
        ]
        return each[0] if shared else dict(zip(self.categories, each, strict=True))

    def has_seen(self, objects: ObjectSet) -> NDArray[np.bool_]:
        """Return which pictures the network was trained on, by content, bool (object,)."""
        known = frozenset[bytes]().union(*self.past.pictures.values())
        return np.array([digest in known for digest in digest_each(objects)], bool)

    def load_objects(self, *, data_dir: Path | None = None) -> tuple[ObjectSet, ObjectSet | None]:
        """Return the exemplars the phase trained on, and those it held out (None: there are none).

        Their classes come in the order of the head's units. The card's digests say which pictures
        were trained on, whatever the set holds by now.
        """
        trained, held_out, _ = load_phase_objects(
            self.objects,
            self.canvas,
            categories=self.categories,
            train=self.exemplars.train,
            held_out=self.exemplars.held_out,
            seed=self.exemplar_seed,
            split=self.split,
            data_dir=data_dir,
            past=Past({view: unpack(text) for view, text in self.seen.items()}),
            trained=unpack(self.pictures) or None,
        )
        return trained, held_out

    @property
    def past(self) -> Past:
        """What the network has been trained on, the card's phase included."""
        own_view, name = view_of(self.objects, self.canvas), set_name(self.objects)
        pictures = {view: unpack(text) for view, text in self.seen.items()}
        pictures[own_view] = pictures.get(own_view, frozenset()) | unpack(self.pictures)
        for view in pictures:
            parse_view(view)
        own = dict.fromkeys((*self.classes.get(name, ()), *self.categories))
        return Past(pictures, {**self.classes, name: tuple(own)}, f"the checkpoint {self.path}")
