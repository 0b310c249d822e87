"""Methods that cover parts of the image, on lattices that stand still in the object's frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from elsewhere.analyzer.attribution.batches import Batch, Setting
from elsewhere.analyzer.attribution.covering import Windows, cover_images
from elsewhere.analyzer.attribution.lattices import Lattice
from elsewhere.errors import InputError
from elsewhere.measures.vectors import to_numpy, upload


def _by_passes(setting: Setting, batch: Batch, every: Sequence[Windows]) -> torch.Tensor:
    """Return the scores of all images with each of their windows covered, in full passes."""
    boxes = [np.insert(each.boxes, 0, row, axis=1) for row, each in enumerate(every)]
    images, baselines = batch.images.detach(), batch.baselines
    device, pixels = images.device, torch.arange(images.shape[-1], device=images.device)
    table = upload(np.concatenate(boxes), device)
    classes = upload(np.array(batch.classes, np.int64), device)
    found = []
    with torch.no_grad():
        for first in range(0, len(table), setting.rows):
            # the last window is covered again where there are too few to fill a pass
            taken = first + torch.arange(setting.rows, device=device)
            of, top, bottom, left, right = table[taken.clamp(max=len(table) - 1)].T[..., None]
            rows = (top <= pixels) & (pixels < bottom)
            columns = (left <= pixels) & (pixels < right)
            of, there = of[:, 0], (rows[:, :, None] & columns[:, None])[:, None]
            shown = torch.where(there, baselines[of], images[of])
            scores = setting.scorer(shown, *(each[of] for each in batch.extra))
            found.append(scores.gather(1, classes[of, None])[:, 0])
    return torch.cat(found)[: len(table)]


def _by_windows(setting: Setting, batch: Batch, every: Sequence[Windows]) -> torch.Tensor:
    """Return the same scores by the engine that runs windows alone, image by image."""
    found = []
    for row, windows in enumerate(every):
        if windows.n_scores and setting.coverer is not None:
            one = None if batch.references is None else batch.references[row : row + 1]
            scores = setting.coverer.scores(windows, batch.classes[row], one, setting.share)
            found.append(scores)
    return torch.cat(found)


def _by_lattice(setting: Setting, batch: Batch, lattice: Lattice) -> torch.Tensor:
    """Return maps, for which the device is waited for twice, however many images there are."""
    scenes = cover_images(batch, setting.object_size)
    every = [Windows.of(scene, lattice) for scene in scenes]
    counts = [windows.n_scores for windows in every]
    scores = np.zeros(0)
    if any(counts):
        run = _by_passes if setting.coverer is None else _by_windows
        scores = to_numpy(run(setting, batch, every)).astype(np.float64)
    pieces = np.split(scores, np.cumsum(counts)[:-1])
    maps = np.stack([w.spread(piece) for w, piece in zip(every, pieces, strict=True)])
    found: torch.Tensor = upload(maps[:, None].astype(np.float32), batch.images.device)
    return found


def occlusion_lattice(options: Mapping[str, Any]) -> Lattice:
    """Return the windows of occlusion.

    Raises
    ------
    InputError
        They would leave pixels out.
    """
    window, stride = options["window"], options["stride"]
    if stride > window:
        raise InputError(
            f"occlusion's stride {stride} is above its window {window}, which leaves pixels out; "
            "choose a stride up to the window"
        )
    return Lattice(window, stride)


def ablation_lattice(options: Mapping[str, Any]) -> Lattice:
    """Return the cells of feature ablation."""
    return Lattice(options["cell"], options["cell"])


def occlude(setting: Setting, batch: Batch) -> torch.Tensor:
    return _by_lattice(setting, batch, occlusion_lattice(setting.options))


def ablate(setting: Setting, batch: Batch) -> torch.Tensor:
    return _by_lattice(setting, batch, ablation_lattice(setting.options))
