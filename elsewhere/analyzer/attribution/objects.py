"""Everything that is computed of one object: maps at all locations, and where they lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import xarray
from numpy.typing import NDArray

from elsewhere.analyzer.attribution.batches import Batch
from elsewhere.analyzer.attribution.explain import Explainer
from elsewhere.analyzer.attribution.extras import extras_of
from elsewhere.analyzer.attribution.frames import Scenes, parse_baseline
from elsewhere.analyzer.attribution.settings import AttributionSettings
from elsewhere.analyzer.attribution.targets import LinearTarget, SimilarityTarget, class_numbers
from elsewhere.errors import InputError, NumericsError
from elsewhere.measures.attribution import absolute_mass, centre_of_mass, entropy, share_inside
from elsewhere.measures.behaviour import differing
from elsewhere.notes import notes_of
from elsewhere.recording import Sweep
from elsewhere.recording.engines import EngineChoice
from elsewhere.recording.subject import Subject, watch
from elsewhere.storage import to_half
from elsewhere.types import Location

CHUNK = 32
"""Images whose maps are held as tensors at a time, about; a whole number of batches."""

_REFERENCE = 1 << 30  # the key of the reference where it is not on the grid


class ObjectRun:
    """One object after the other, shown at every location of a sweep.

    Parameters
    ----------
    sweep
        Network, objects, canvas, grid, reference.
    settings
        What is attributed, and what is kept.
    classes
        Names of the head's classes, where they are known.
    max_memory
        Bytes that a pass may take.
    fixed
        The target's class for each object and location of the grid, whatever is predicted.
    """

    def __init__(
        self,
        sweep: Sweep,
        settings: AttributionSettings,
        *,
        classes: Sequence[str] | None,
        max_memory: int,
        fixed: NDArray[np.integer] | None = None,
    ) -> None:
        self.sweep, self.settings, self._fixed = sweep, settings, fixed
        self.n_objects = len(sweep.objects)
        self.conduct = watch(
            Subject(sweep.model, sweep.objects, sweep.canvas, sweep.design, ()),
            output=True,
            gradients=True,
        )
        categories = sweep.objects.categories
        known = classes is not None and set(categories) <= set(classes)
        self.target = settings.resolve(known=known)
        self.explainer = Explainer(
            sweep.model,
            canvas_size=sweep.canvas.size,
            object_size=sweep.canvas.object_size,
            method=settings.method,
            target=self.target,
            layer=settings.layer,
            options=settings.options,
            max_memory=max_memory,
            seed=settings.seed,
            conduct=self.conduct,
            n_images=sweep.design.n_positions + (sweep.design.reference_index is None),
        )
        if isinstance(self.target, LinearTarget):
            self._check_readout(self.target)
        self.scenes = Scenes(sweep.model, sweep.objects, sweep.canvas)
        self.frame = settings.frame(sweep.canvas)
        self.plain = settings.baseline == "empty" or (
            settings.baseline == "black" and self.scenes.color == (0, 0, 0)
        )
        aside = "; ".join(sweep.aside)
        self.choice = self.explainer.choose("dense" if aside else sweep.engine, self._sample())
        if aside and self.explainer.method.lattice is not None:
            self.choice = EngineChoice("dense", f"auto: {aside}")
        self.blurred = parse_baseline(settings.baseline, sweep.canvas)[0] == "blurred"
        grounds = [self.scenes.empty]
        if self.explainer.method.compares and not (self.plain or self.blurred):
            grounds.append(self.scenes.black)
        parts = self.explainer.parts(torch.cat(grounds))
        self._nothing, self._ground = parts[:1], None if self.blurred else parts[-1:]
        self._rows, self._block, self._known = self.explainer.rows, -1, parts
        self.classes = None
        if not isinstance(self.target, SimilarityTarget):
            self.classes = class_numbers(
                self.target, classes=classes, categories=categories, n_classes=parts.shape[1]
            )

    def _check_readout(self, target: LinearTarget) -> None:
        """Refuse a network that does something else than the one that the readout is of."""
        now = self.conduct.output_at(self.sweep.canvas.size)
        if differing(target.network.get("behaviour") or {}, now, last=1):
            raise InputError(
                f"the readout of {target.layer!r} was fitted on a network that did something else "
                "with the same image, although its weights are the same (a constant of a module, a "
                "closure or an unsaved buffer?); fit one on this network, with `elsewhere probe "
                f"... --layers {target.layer} --readout FILE`"
            )

    @property
    def notes(self) -> list[str]:
        """Doubts about the maps: those of the sweep, and of the readout that is the target."""
        network = self.target.network if isinstance(self.target, LinearTarget) else {}
        own = () if self.sweep.conduct.alone else self.conduct.notes  # said once
        return notes_of(self.sweep, own, network)

    def measure(
        self, number: int, *, progress: Callable[[int], None] | None = None
    ) -> xarray.Dataset:
        """Return maps and measures of one object, over (y, x).

        Parameters
        ----------
        number
            The object's place in the set.
        progress
            Called with the number of images done since the last call.
        """
        try:
            return self._measured(number, progress)
        except NumericsError as error:
            raise NumericsError(f"object {self.sweep.objects.ids[number]}: {error}") from error

    def _measured(self, number: int, progress: Callable[[int], None] | None) -> xarray.Dataset:
        """Return maps and measures of one object."""
        places = [(int(y), int(x)) for y, x in self.sweep.grid.locations]
        index, keys = self.sweep.design.reference_index, list(range(len(places)))
        if index is None:  # off the grid
            index, places, keys = -1, [*places, self.sweep.reference], [*keys, _REFERENCE]
        parts, n = [], self.sweep.design.n_positions
        chunk = max(CHUNK // self._rows, 1) * self._rows
        for first in range(0, len(places), chunk):
            rows = slice(first, first + chunk)
            parts.append(self._explain(number, places[rows], keys[rows]))
            if progress is not None:
                progress(len(keys[rows]) - (_REFERENCE in keys[rows]))
        every = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        reference = {name: array[[index]] for name, array in every.items()}
        values = {name: array[:n] for name, array in every.items()}
        unanswered = values.pop("unanswered").all() and reference["unanswered"].all()
        values["vanishing"] |= unanswered  # nothing that the object is changes what is attributed
        reference["vanishing"] = reference["vanishing"] | unanswered
        return self._dataset(values, reference)

    def _sample(self) -> Batch:
        """Return the first object at the reference, to choose the engine by."""
        corners = self.scenes.corners([self.sweep.reference])
        images = self.scenes.images(0, corners)
        compared = self.scenes.baseline(self.settings.baseline, images)
        return Batch(images, compared, corners, [0], plain=self.plain)

    # --- parts ------------------------------------------------------------------------------

    def _at_reference(self, number: int) -> torch.Tensor:
        """Return what is scored of the object at the reference, (1, unit).

        Objects are run as many together as a pass takes, always the same ones.
        """
        block, row = divmod(number, self._rows)
        if block != self._block:
            corners = self.scenes.corners([self.sweep.reference])
            numbers = range(block * self._rows, min((block + 1) * self._rows, self.n_objects))
            images = torch.cat([self.scenes.images(each, corners) for each in numbers])
            self._block, self._known = block, self.explainer.parts(images)
        return self._known[row : row + 1]

    def _explain(
        self, number: int, places: Sequence[Location], keys: Sequence[int]
    ) -> dict[str, NDArray[Any]]:
        """Return maps and measures at some locations, each over (place, ...)."""
        corners = self.scenes.corners(places)
        images, references = self.scenes.images(number, corners), None
        if isinstance(self.target, SimilarityTarget):
            references = self._at_reference(number).expand(len(places), -1)
        looked = self.explainer.look(images, references, self._nothing)
        predicted = looked.predicted()
        chosen = self._classes(number, keys, predicted)
        compared = None
        if self._ground is not None:
            one = () if references is None else (references[:1],)
            compared = self.explainer.scorer.bend(self._ground, *one)
        batch = Batch(
            images,
            self.scenes.baseline(self.settings.baseline, images),
            corners,
            chosen.tolist(),
            references,
            [(number, key) for key in keys],
            self.plain,
            compared,
        )
        found = self.explainer.explain(batch, looked)
        error, share = self.explainer.completeness(found)
        flat = found.flat
        return {
            "attribution": self.frame.cut(flat, corners),
            **({"canvas_attribution": flat} if self.settings.canvas_maps else {}),
            "score": found.scores,
            "baseline_score": found.baseline_scores,
            "target_class": chosen if references is None else np.full(len(places), -1),
            "predicted": predicted,
            "completeness_error": error,
            "completeness_share": share,
            "kept_relevance": found.kept,
            "n_steps": found.steps,
            "vanishing": self.explainer.vanishing(found, batch, looked, self.scenes.empty),
            "unanswered": self.explainer.unanswered(looked),
            **self._places(number, flat, corners),
            "mass": absolute_mass(flat),
            **extras_of(self.explainer, self.settings, batch, found),
        }

    def _classes(
        self, number: int, keys: Sequence[int], predicted: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the target's class at each location, 0 where there is only one score."""
        if isinstance(self.target, SimilarityTarget):
            return np.zeros(len(keys), np.int64)
        chosen = predicted.copy()
        if self.classes is not None:
            chosen[:] = self.classes[number]
        elif self.target.choice == "reference":
            chosen[:] = int(self._at_reference(number).argmax())
        if self._fixed is not None:
            known = np.array(keys) < _REFERENCE
            chosen[known] = self._fixed[number, np.array(keys)[known]]
        return chosen

    def _places(
        self, number: int, maps: NDArray[np.float32], corners: Sequence[tuple[int, int]]
    ) -> dict[str, NDArray[np.float64]]:
        """Return where maps lie, relative to the object."""
        side = self.sweep.canvas.object_size
        masks, boxes = np.zeros(maps.shape, bool), np.zeros(maps.shape, bool)
        for row, (top, left) in enumerate(corners):
            area = np.s_[row, top : top + side, left : left + side]
            masks[area] = self.sweep.objects.masks[number] > 127
            boxes[area] = True
        offsets = centre_of_mass(maps) - (np.array(corners) + (side - 1) / 2)
        return {
            "mass_inside": share_inside(maps, masks),
            "mass_box": share_inside(maps, boxes),
            "centre_y": offsets[:, 0],
            "centre_x": offsets[:, 1],
            "centre_distance": np.hypot(offsets[:, 0], offsets[:, 1]),
            "entropy": entropy(maps),
        }

    # --- the dataset ------------------------------------------------------------------------

    def _dataset(
        self, values: dict[str, NDArray[Any]], reference: dict[str, NDArray[Any]]
    ) -> xarray.Dataset:
        shape, half = self.sweep.grid.shape, self.settings.dtype == "float16"
        variables: dict[str, Any] = {}
        maps = {"attribution": ("height", "width"), "canvas_attribution": ("pixel_y", "pixel_x")}
        scale = np.nanmax(np.abs(values["attribution"]), axis=(1, 2))
        there = np.nanmax(np.abs(reference["attribution"]), axis=(1, 2))
        if self.settings.canvas_maps:  # one scale for both
            scale = np.abs(values["canvas_attribution"]).max(axis=(1, 2))
            there = np.abs(reference["canvas_attribution"]).max(axis=(1, 2))
        for name, dims in maps.items():
            if name in values:
                scaled = _scaled(values[name], scale)
                kept: NDArray[Any] = to_half(scaled) if half else scaled
                variables[name] = (("y", "x", *dims), kept.reshape(*shape, *kept.shape[1:]))
        variables["scale"] = (("y", "x"), scale.astype(np.float32).reshape(shape))
        kept = _scaled(reference["attribution"], there)[0]
        variables["reference_attribution"] = (
            ("height", "width"), to_half(kept) if half else kept,
        )  # fmt: skip
        variables["reference_scale"] = ((), np.float32(there[0]))
        for name in ("score", "mass", "vanishing", "completeness_share"):
            variables[f"reference_{name}"] = ((), reference[name][0])
        for name, array in values.items():
            if name not in maps:
                variables[name] = (("y", "x"), array.reshape(shape))
        return xarray.Dataset(variables)


def _scaled(maps: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each map divided by its scale, so that small types hold weak maps as well."""
    divisor = np.where(scale > 0, scale, 1.0).astype(np.float32)
    return np.asarray(maps / divisor[:, None, None])
