"""Methods that cover parts of the image, on lattices that stand still in the object's frame."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from captum.attr import FeatureAblation, Occlusion

from elsewhere.analyzer.attribution.batches import Batch, Setting
from elsewhere.errors import InputError


def _perturbed(
    setting: Setting,
    batch: Batch,
    lattice: int,
    reach: int,
    run: Callable[[Callable[..., torch.Tensor], torch.Tensor, torch.Tensor, tuple[Any, ...]], Any],
) -> torch.Tensor:
    """Perturb a region that stands still in the object's frame, and put the result on the canvas.

    The lattice of windows starts at the object's box, so that it moves with the object. Where the
    baseline differs from the image in the box only, so do the windows that matter.

    Parameters
    ----------
    lattice
        Distance between windows, px.
    reach
        How far windows extend beyond the box, px.
    run
        Takes the score of regions, regions, their baselines and what else the score takes.
    """
    size, side, n = batch.images.shape[-1], setting.object_size, len(batch)
    around = math.ceil(reach / lattice) * lattice
    across = 2 * around + math.ceil(side / lattice) * lattice
    corners = [(top - around, left - around) for top, left in batch.corners]
    if not batch.plain:  # whole canvases, in step with the box
        across = (math.ceil(size / lattice) + 1) * lattice
        corners = [
            (top % lattice - lattice, left % lattice - lattice) for top, left in batch.corners
        ]
    tops, lefts = (torch.tensor(line) for line in zip(*corners, strict=True))

    def cut(found: torch.Tensor) -> torch.Tensor:
        regions = found.new_zeros(n, found.shape[1], across, across)
        for row in range(n):
            here, there = _overlap(int(tops[row]), int(lefts[row]), across, size)
            regions[row][:, *there] = found[row][:, *here]
        return regions

    def score(
        regions: torch.Tensor,
        canvases: torch.Tensor,
        top: torch.Tensor,
        left: torch.Tensor,
        *extra: torch.Tensor,
    ) -> torch.Tensor:
        images = canvases.clone()
        for row in range(len(images)):
            here, there = _overlap(int(top[row]), int(left[row]), across, size)
            images[row][:, *here] = regions[row][:, *there]
        scores: torch.Tensor = setting.scorer(images, *extra)
        return scores

    more = (batch.images, tops, lefts, *batch.extra)
    with torch.no_grad():
        found: torch.Tensor = run(score, cut(batch.images), cut(batch.baselines), more)
        found = found.mean(1, keepdim=True)
    maps = found.new_zeros(n, 1, size, size)
    for row in range(n):
        here, there = _overlap(int(tops[row]), int(lefts[row]), across, size)
        maps[row][:, *here] = found[row][:, *there]
    return maps


def _overlap(
    top: int, left: int, across: int, size: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return where a region lies on the canvas, and what of the region that is."""
    here, there = [], []
    for start in (top, left):
        first, last = max(start, 0), min(start + across, size)
        here.append(slice(first, last))
        there.append(slice(first - start, last - start))
    return (here[0], here[1]), (there[0], there[1])


def occlude(setting: Setting, batch: Batch) -> torch.Tensor:
    window, stride = setting.options["window"], setting.options["stride"]
    if stride > window:
        raise InputError(
            f"occlusion's stride {stride} is above its window {window}, which leaves pixels out; "
            "choose a stride up to the window"
        )

    def run(score: Any, regions: Any, baselines: Any, more: Any) -> Any:
        return Occlusion(score).attribute(
            regions,
            sliding_window_shapes=(3, window, window),
            strides=(3, stride, stride),
            baselines=baselines,
            target=list(batch.classes),
            additional_forward_args=more,
            perturbations_per_eval=max(1, setting.rows // len(batch)),
        )

    return _perturbed(setting, batch, stride, window, run)


def ablate(setting: Setting, batch: Batch) -> torch.Tensor:
    cell = setting.options["cell"]

    def run(score: Any, regions: Any, baselines: Any, more: Any) -> Any:
        across = regions.shape[-1]
        line = torch.arange(across, device=regions.device) // cell
        mask = line[:, None] * math.ceil(across / cell) + line[None, :]
        return FeatureAblation(score).attribute(
            regions,
            baselines=baselines,
            feature_mask=mask[None, None],
            target=list(batch.classes),
            additional_forward_args=more,
            perturbations_per_eval=max(1, setting.rows // len(batch)),
        )

    return _perturbed(setting, batch, cell, 0, run)
