"""Methods that cover parts of the image, on lattices that stand still in the object's frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from captum.attr import FeatureAblation, Occlusion

from elsewhere.analyzer.attribution.batches import Batch, Setting
from elsewhere.analyzer.attribution.covering import CoveredImage, Coverer
from elsewhere.analyzer.attribution.lattices import Lattice, covers
from elsewhere.errors import InputError


def _perturbed(
    setting: Setting,
    batch: Batch,
    lattice: Lattice,
    run: Callable[[Callable[..., torch.Tensor], torch.Tensor, torch.Tensor, tuple[Any, ...]], Any],
) -> torch.Tensor:
    """Perturb a region that stands still in the object's frame, and put the result on the canvas.

    The lattice of windows starts at the object's box, so that it moves with the object. Where the
    baseline differs from the image in the box only, so do the windows that matter.

    Parameters
    ----------
    lattice
        The windows.
    run
        Takes the score of regions, regions, their baselines and what else the score takes.
    """
    size, side, n = batch.images.shape[-1], setting.object_size, len(batch)
    starts = [
        [
            lattice.touching(first, *((first, first + side) if batch.plain else (0, size)))
            for first in corner
        ]
        for corner in batch.corners
    ]
    count = max(len(along) for pair in starts for along in pair)  # may differ by 1 on a canvas
    across = (count - 1) * lattice.pitch + lattice.window
    tops, lefts = (torch.tensor([pair[axis][0] for pair in starts]) for axis in (0, 1))

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
    tried = [(first, first + lattice.window) for first in range(0, across, lattice.pitch)][:count]
    in_region = covers(tried, across).sum(0)
    for row in range(n):
        here, there = _overlap(int(tops[row]), int(lefts[row]), across, size)
        # the windows beyond change nothing, and count in the mean all the same
        shares = [
            in_region[part] / covers(lattice.windows(first, size), size).sum(0)[place]
            for part, place, first in zip(there, here, batch.corners[row], strict=True)
        ]
        weights = torch.from_numpy(np.outer(*shares)).to(found)
        maps[row][:, *here] = found[row][:, *there] * weights
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


def _covered(setting: Setting, batch: Batch, lattice: Lattice, cover: Coverer) -> torch.Tensor:
    """Return maps from windows, image by image."""
    maps = []
    for row, corner in enumerate(batch.corners):
        one = slice(row, row + 1)
        image, baseline = batch.images[one].detach(), batch.baselines[one]
        scene = CoveredImage(image, baseline, corner, setting.object_size, batch.plain)
        references = None if batch.references is None else batch.references[one]
        found = cover.maps(scene, lattice, batch.classes[row], references, setting.share)
        maps.append(torch.from_numpy(found)[None].to(image))
    return torch.stack(maps)


def occlude(setting: Setting, batch: Batch) -> torch.Tensor:
    lattice = occlusion_lattice(setting.options)
    if setting.coverer is not None:
        return _covered(setting, batch, lattice, setting.coverer)

    def run(score: Any, regions: Any, baselines: Any, more: Any) -> Any:
        return Occlusion(score).attribute(
            regions,
            sliding_window_shapes=(3, lattice.window, lattice.window),
            strides=(3, lattice.pitch, lattice.pitch),
            baselines=baselines,
            target=list(batch.classes),
            additional_forward_args=more,
            perturbations_per_eval=max(1, setting.rows // len(batch)),
        )

    return _perturbed(setting, batch, lattice, run)


def ablate(setting: Setting, batch: Batch) -> torch.Tensor:
    lattice = ablation_lattice(setting.options)
    if setting.coverer is not None:
        return _covered(setting, batch, lattice, setting.coverer)
    cell = lattice.pitch

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

    return _perturbed(setting, batch, lattice, run)
