"""How maps stand up to perturbed images, of many maps in full passes: sensitivity, infidelity."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from elsewhere.analyzer.attribution.batches import Batch
from elsewhere.analyzer.attribution.explain import Explainer
from elsewhere.analyzer.attribution.explained import Explained
from elsewhere.analyzer.attribution.randomness import frame_generator, frame_noise
from elsewhere.analyzer.attribution.settings import AttributionSettings
from elsewhere.analyzer.attribution.targets import own_scores
from elsewhere.measures.vectors import to_numpy, upload
from elsewhere.models.forward import send

SENSITIVITY_RADIUS, INFIDELITY_NOISE = 0.02, 0.1
"""Of the perturbations, in shares of the pixels' range: half a side, a standard deviation."""

PASSES = 4
"""Full passes of perturbed images that are held at a time, about."""


def extras_of(
    explainer: Explainer, settings: AttributionSettings, batch: Batch, found: Explained
) -> dict[str, NDArray[np.float64]]:
    """Return the extras that are asked for, each (n,), of the maps of a batch.

    ``sensitivity`` is the largest change of a map, and ``infidelity`` the error of what a map says
    of the score's change, both under noise of the image's own.
    """
    values: dict[str, NDArray[np.float64]] = {}
    for name in settings.extras:
        measure = _sensitivity if name == "sensitivity" else _infidelity
        numbers = [
            measure(explainer, settings, batch.pick(rows), found.pick(rows))
            for rows in _together(explainer.rows, settings.n_perturbations, found.steps)
        ]
        share, whole = to_numpy(torch.cat(numbers)).astype(np.float64).T
        explainer.expect_finite(bool(np.isfinite(share).all()))
        values[name] = np.divide(share, whole, out=np.full_like(share, np.nan), where=whole > 0)
    return values


def _together(rows: int, count: int, steps: NDArray[np.int64]) -> Iterator[list[int]]:
    """Yield the images that are perturbed together: their maps took equally many steps."""
    most = max(1, PASSES * rows // count)
    for _, some in itertools.groupby(range(len(steps)), key=lambda row: int(steps[row])):
        numbers = list(some)
        for first in range(0, len(numbers), most):
            yield numbers[first : first + most]


def _noise(settings: AttributionSettings, some: Batch, kind: int) -> torch.Tensor:
    """Return noise of each image's own: the same wherever the object is, (n, each, 3, y, x)."""
    count, size = settings.n_perturbations, some.images.shape[-1]
    drawn = [
        frame_noise(
            frame_generator(settings.seed, key, kind), count, corner, size, uniform=kind == 1
        )
        for key, corner in zip(some.keys, some.corners, strict=True)
    ]
    return send(torch.stack(drawn), some.images.device).to(some.images.dtype)


def _perturbed(some: Batch, changes: torch.Tensor) -> Batch:
    """Return each image with each of its changes (n, each, 3, y, x)."""
    every = some.pick(np.repeat(np.arange(len(some)), changes.shape[1]).tolist())
    # what is perturbed differs from the baseline everywhere
    return replace(every, images=every.images + changes.flatten(0, 1), plain=False)


def _unit(explainer: Explainer) -> float:
    """Return the pixels' range, in units of the network's input."""
    transform = explainer.model.transform
    return abs(transform.gain) / float(np.mean(transform.std))


def _sensitivity(
    explainer: Explainer, settings: AttributionSettings, some: Batch, found: Explained
) -> torch.Tensor:
    """Return the largest change of each map, and its length, by Euclidean norm, (n, 2)."""
    noise = SENSITIVITY_RADIUS * _unit(explainer) * _noise(settings, some, 1)
    steps = int(found.steps[0])
    again = explainer.maps(_perturbed(some, noise), steps=steps, check=False)
    changes = again.reshape(*noise.shape[:2], *again.shape[1:]) - found.maps[:, None]
    return torch.stack(
        [changes.flatten(2).norm(dim=2).amax(1), found.maps.flatten(1).norm(dim=1)], 1
    )


def _infidelity(
    explainer: Explainer, settings: AttributionSettings, some: Batch, found: Explained
) -> torch.Tensor:
    """Compare the slopes that maps stand for with what noise does to the score, (n, 2), over 1.

    A map that shares the score's change out, ``(x - b) slope``, is divided by ``x - b``. Where
    that is 0 such a map says nothing of slopes, and nothing is perturbed. Slopes are scaled as
    suits them best, as by Yeh et al. (2019).
    """
    changes = INFIDELITY_NOISE * _unit(explainer) * _noise(settings, some, 2)
    slopes, shares = found.maps, explainer.method.shares
    if shares is not None:
        shown = some.images - (some.baselines if shares == "change" else 0)
        there = shown != 0
        slopes = torch.where(there, slopes / torch.where(there, shown, 1.0), 0.0)
        changes = changes * there[:, None]
    every = _perturbed(some, -changes)
    scores = own_scores(explainer.look(every.images, every.references).columns, every.classes)
    before = upload(found.scores, scores.device).to(scores.dtype)
    falls = before[:, None] - scores.reshape(changes.shape[:2])
    told = (slopes[:, None] * changes).flatten(2).sum(2).to(scores.dtype)
    squares, products = told.square().sum(1), (told * falls).sum(1)
    explained = products.square() / torch.where(squares > 0, squares, 1.0)
    error = (falls.square().sum(1) - explained) / settings.n_perturbations
    return torch.stack([error.clamp(min=0), torch.ones_like(error)], 1)  # rounding
