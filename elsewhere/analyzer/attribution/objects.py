"""Everything that is computed of one object: maps at all locations, and where they lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray
from captum.metrics import infidelity
from numpy.typing import NDArray

from elsewhere.analyzer.attribution.batches import Batch
from elsewhere.analyzer.attribution.explain import Explainer
from elsewhere.analyzer.attribution.explained import Explained
from elsewhere.analyzer.attribution.frames import Scenes
from elsewhere.analyzer.attribution.randomness import frame_generator, frame_noise
from elsewhere.analyzer.attribution.settings import AttributionSettings
from elsewhere.analyzer.attribution.targets import LinearTarget, SimilarityTarget, class_numbers
from elsewhere.errors import InputError, NumericsError
from elsewhere.measures.attribution import absolute_mass, centre_of_mass, entropy, share_inside
from elsewhere.measures.behaviour import differing
from elsewhere.measures.vectors import to_numpy
from elsewhere.models.forward import send
from elsewhere.notes import notes_of
from elsewhere.recording import Sweep
from elsewhere.recording.engines import EngineChoice
from elsewhere.recording.subject import Subject, watch
from elsewhere.storage import to_half
from elsewhere.types import Location

CHUNK = 32
"""Images whose maps are held as tensors at a time; a whole number of batches."""

SENSITIVITY_RADIUS, INFIDELITY_NOISE = 0.02, 0.1
"""Of the perturbations, in shares of the pixels' range: half a side, a standard deviation."""

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
        self.classes = None
        if not isinstance(self.target, SimilarityTarget):
            columns = self.explainer.columns(self.scenes.empty)
            self.classes = class_numbers(
                self.target, classes=classes, categories=categories, n_classes=columns.shape[1]
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
        index = self.sweep.design.reference_index
        at = self._at_reference(number)
        parts = []
        chunk = max(CHUNK, self.explainer.rows)
        for first in range(0, len(places), chunk):
            rows = list(range(first, min(first + chunk, len(places))))
            parts.append(self._explain(number, [places[row] for row in rows], rows, at))
            if progress is not None:
                progress(len(rows))
        values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if index is None:
            reference = self._explain(number, [self.sweep.reference], [_REFERENCE], at)
        else:
            reference = {name: array[index : index + 1] for name, array in values.items()}
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

    def _at_reference(self, number: int) -> dict[str, Any]:
        """Return what the network makes of the object at the reference."""
        image = self.scenes.images(number, self.scenes.corners([self.sweep.reference]))
        if isinstance(self.target, SimilarityTarget):
            return {"vector": self.explainer.references(image)}
        return {"class": int(self.explainer.columns(image)[0].argmax())}

    def _explain(
        self, number: int, places: Sequence[Location], keys: Sequence[int], at: dict[str, Any]
    ) -> dict[str, NDArray[Any]]:
        """Return maps and measures at some locations, each over (place, ...)."""
        corners = self.scenes.corners(places)
        images = self.scenes.images(number, corners)
        predicted = self._predicted(images)
        chosen = [0] * len(places)
        if not isinstance(self.target, SimilarityTarget):
            if self._fixed is not None and max(keys) < _REFERENCE:
                chosen = self._fixed[number, list(keys)].tolist()
            elif self.classes is not None:
                chosen = [int(self.classes[number])] * len(places)
            elif self.target.choice == "reference":
                chosen = [at["class"]] * len(places)
            else:
                chosen = predicted.tolist()
        batch = Batch(
            images,
            self.scenes.baseline(self.settings.baseline, images),
            corners,
            chosen,
            at["vector"].expand(len(places), -1) if "vector" in at else None,
            [(number, key) for key in keys],
            self.plain,
        )
        found = self.explainer.explain(batch)
        error, share = self.explainer.completeness(found)
        flat, vanishing = found.flat, self.explainer.vanishing(found, batch, self.scenes.empty)
        return {
            "attribution": self.frame.cut(flat, corners),
            **({"canvas_attribution": flat} if self.settings.canvas_maps else {}),
            "score": found.scores,
            "baseline_score": found.baseline_scores,
            "target_class": np.array(
                chosen if not isinstance(self.target, SimilarityTarget) else [-1] * len(places)
            ),
            "predicted": predicted,
            "completeness_error": error,
            "completeness_share": share,
            "kept_relevance": found.kept,
            "n_steps": found.steps,
            "vanishing": vanishing,
            "unanswered": self.explainer.unanswered(images, self.scenes.empty),
            **self._places(number, flat, corners),
            "mass": absolute_mass(flat),
            **self._extras(batch, found),
        }

    def _predicted(self, images: torch.Tensor) -> NDArray[np.int64]:
        """Return the class that gets the highest score, -1 where there are no classes."""
        if isinstance(self.target, SimilarityTarget):
            columns = self.explainer.outputs(images)
        else:
            columns = self.explainer.columns(images)
        if columns is None:
            return np.full(len(images), -1, np.int64)
        found: NDArray[np.int64] = to_numpy(columns.argmax(1))
        return found

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

    def _extras(self, batch: Batch, found: Explained) -> dict[str, NDArray[np.float64]]:
        """Return sensitivity and infidelity, as far as they are asked for."""
        transform = self.sweep.model.transform
        unit = abs(transform.gain) / float(np.mean(transform.std))
        values: dict[str, NDArray[np.float64]] = {}
        for name in self.settings.extras:
            measure = self._sensitivity if name == "sensitivity" else self._infidelity
            numbers = [
                # what is perturbed differs from the baseline everywhere
                measure(replace(batch.take(slice(row, row + 1)), plain=False), found, row, unit)
                for row in range(len(batch))
            ]
            share, whole = to_numpy(torch.stack(numbers)).astype(np.float64).T
            self.explainer.expect_finite(bool(np.isfinite(share).all()))
            values[name] = np.divide(share, whole, out=np.full_like(share, np.nan), where=whole > 0)
        return values

    def _noise(self, one: Batch, kind: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return a function that draws noise of an image's own: the same wherever the object is."""
        random = frame_generator(self.settings.seed, one.keys[0], kind)
        size = self.sweep.canvas.size

        def draw(images: torch.Tensor) -> torch.Tensor:
            noise = frame_noise(random, len(images), one.corners[0], size, uniform=kind == 1)
            return send(noise, images.device).to(images.dtype)

        return draw

    def _sensitivity(self, one: Batch, found: Explained, row: int, unit: float) -> torch.Tensor:
        """Return the largest change of the map, and its length, by Euclidean norm, (2,)."""
        count, noise = self.settings.n_perturbations, self._noise(one, 1)
        images = one.images.expand(count, -1, -1, -1)
        images = images + SENSITIVITY_RADIUS * unit * noise(images)
        maps, steps = found.maps[row : row + 1], int(found.steps[row])
        perturbed = replace(one.padded(count), images=images)
        again = self.explainer.maps(perturbed, steps=steps, check=False)
        return torch.stack([(again - maps).flatten(1).norm(dim=1).max(), maps.norm()])

    def _infidelity(self, one: Batch, explained: Explained, row: int, unit: float) -> torch.Tensor:
        """Compare the slopes that a map stands for with what noise does to the score, (2,), over 1.

        A map that shares the score's change out, ``(x - b) slope``, is divided by ``x - b``. Where
        that is 0 such a map says nothing of slopes, and nothing is perturbed.
        """
        maps = explained.maps[row : row + 1]
        noise, slopes = self._noise(one, 2), maps
        shares = self.explainer.method.shares
        if shares is not None:
            shown = one.images - (one.baselines if shares == "change" else 0)
            there = shown != 0
            slopes = torch.where(there, maps / torch.where(there, shown, 1.0), 0.0)

        def perturb(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            change = noise(images) * INFIDELITY_NOISE * unit
            change = change if shares is None else change * there
            return change, images - change

        with torch.no_grad():
            found: torch.Tensor = infidelity(
                self.explainer.scorer,
                perturb,
                one.images,
                slopes,
                target=one.classes[0],
                additional_forward_args=one.extra or None,
                n_perturb_samples=self.settings.n_perturbations,
                max_examples_per_batch=min(self.explainer.rows, self.settings.n_perturbations),
                normalize=True,
            )
        return torch.stack([found[0].clamp(min=0), torch.ones_like(found[0])])  # rounding

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
