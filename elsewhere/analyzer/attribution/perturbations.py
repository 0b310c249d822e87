"""Methods that cover parts of the image, on lattices that stand still in the object's frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from captum.attr import Occlusion
from torch.nn import functional

from elsewhere.analyzer.attribution.batches import Batch, Setting
from elsewhere.analyzer.attribution.covering import CoveredImage, Coverer
from elsewhere.analyzer.attribution.lattices import Lattice, covers
from elsewhere.errors import InputError
from elsewhere.measures.vectors import upload
from elsewhere.models.forward import paste, send


def _by_passes(setting: Setting, batch: Batch, lattice: Lattice) -> torch.Tensor:
    """Cover a region that stands still in the object's frame, and put the result on the canvas.

    The lattice of windows starts at the object's box, so that it moves with the object. Where the
    baseline differs from the image in the box only, so do the windows that matter.
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
    firsts = np.array([[along[0] for along in pair] for pair in starts])
    beyond = max(0, -int(firsts.min()), int(firsts.max()) + across - size)  # the canvas, px
    firsts += beyond
    corners = upload(firsts, batch.images.device)

    def cut(found: torch.Tensor) -> torch.Tensor:
        cells = corners[:, :, None] + torch.arange(across, device=found.device)
        rows = torch.arange(n, device=found.device)[:, None, None]
        boxes = functional.pad(found, [beyond] * 4).permute(0, 2, 3, 1)
        return boxes[rows, cells[:, 0, :, None], cells[:, 1, None, :]].permute(0, 3, 1, 2)

    def put(canvases: torch.Tensor, regions: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        wide = functional.pad(canvases, [beyond] * 4)
        paste(wide, regions.permute(0, 2, 3, 1).flatten(1, 2), places)
        return wide[..., beyond : beyond + size, beyond : beyond + size].contiguous()

    def score(
        regions: torch.Tensor, canvases: torch.Tensor, places: torch.Tensor, *extra: torch.Tensor
    ) -> torch.Tensor:
        scores: torch.Tensor = setting.scorer(put(canvases, regions, places), *extra)
        return scores

    with torch.no_grad():
        found: torch.Tensor = Occlusion(score).attribute(
            cut(batch.images),
            sliding_window_shapes=(3, lattice.window, lattice.window),
            strides=(3, lattice.pitch, lattice.pitch),
            baselines=cut(batch.baselines),
            target=list(batch.classes),
            additional_forward_args=(batch.images, corners, *batch.extra),
            perturbations_per_eval=max(1, setting.rows // n),
        )
        found = found.mean(1, keepdim=True)
    # the windows beyond the region change nothing, and count in the mean all the same
    tried = [(first, first + lattice.window) for first in range(0, across, lattice.pitch)][:count]
    weights = np.empty((n, 2, across))
    for place, first in np.ndenumerate(np.array(batch.corners)):
        every = covers(lattice.windows(int(first), size), size).sum(0)
        there = np.pad(every, beyond, constant_values=1)[firsts[place] :][:across]
        weights[place] = covers(tried, across).sum(0) / there
    shares = torch.from_numpy(weights[:, 0, :, None] * weights[:, 1, None, :]).to(found.dtype)
    shown = found * send(shares, found.device)[:, None]
    return put(found.new_zeros(n, 1, size, size), shown, corners)


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


def _by_lattice(setting: Setting, batch: Batch, lattice: Lattice) -> torch.Tensor:
    if setting.coverer is not None:
        return _covered(setting, batch, lattice, setting.coverer)
    return _by_passes(setting, batch, lattice)


def occlude(setting: Setting, batch: Batch) -> torch.Tensor:
    return _by_lattice(setting, batch, occlusion_lattice(setting.options))


def ablate(setting: Setting, batch: Batch) -> torch.Tensor:
    return _by_lattice(setting, batch, ablation_lattice(setting.options))
