"""What a pass says of images, and what a method gives for them: maps, and how far they sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from elsewhere.measures.vectors import to_numpy, upload

CANCELLED = 0.1
"""A change of the score below this share of a map's absolute mass is what cancelling left of it."""


@dataclass(frozen=True)
class Looked:
    """What one pass says of some images, before any map is made; it lies on the device.

    Parameters
    ----------
    columns
        (n, class), or (n, 1): the target's scores.
    outputs
        (n, class): what classes are read from; without columns where there are none.
    change
        (n,): how far what is scored lies from that of the empty canvas, by Euclidean norm; NaN
        where that is not known.
    size
        (n,): the norm of what is scored.
    """

    columns: torch.Tensor
    outputs: torch.Tensor
    change: torch.Tensor
    size: torch.Tensor

    def predicted(self) -> NDArray[np.int64]:
        """Return the class that gets the highest score, -1 where there are no classes."""
        if not self.outputs.shape[1]:
            return np.full(len(self.outputs), -1, np.int64)
        found: NDArray[np.int64] = to_numpy(self.outputs.argmax(1))
        return found


@dataclass(frozen=True)
class Explained:
    """Maps and scores of some images.

    Parameters
    ----------
    maps
        float32 (n, channel, height, width).
    scores, baseline_scores
        float64 (n,); the latter NaN for methods without a baseline.
    kept
        float64 (n,), of the score what biases and the stabiliser keep; NaN for methods that keep
        nothing.
    steps
        int64 (n,), the steps that each map was integrated in; 0 for other methods.
    """

    maps: torch.Tensor
    scores: NDArray[np.float64]
    baseline_scores: NDArray[np.float64]
    kept: NDArray[np.float64]
    steps: NDArray[np.int64]

    def pick(self, rows: Sequence[int]) -> Explained:
        """Return what was given for some of the images, in this order."""
        chosen = np.array(rows)
        return Explained(
            self.maps[upload(chosen, self.maps.device)],
            self.scores[chosen],
            self.baseline_scores[chosen],
            self.kept[chosen],
            self.steps[chosen],
        )

    @property
    def flat(self) -> NDArray[np.float32]:
        """The maps summed over channels, (n, height, width)."""
        found: NDArray[np.float32] = self.maps.sum(1).cpu().numpy().astype(np.float32)
        return found

    def completeness(
        self, rest: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return how far each map's sum is off, and that as a share.

        A map's sum is the score less the `rest`: the baseline's score, or what is kept.
        """
        maps = self.maps.double()
        change = self.scores - rest
        total, mass = torch.stack([maps.sum((1, 2, 3)), maps.abs().sum((1, 2, 3))]).cpu().numpy()
        error = total - change
        # scores are rounded, so that an empty map may differ by their last bits
        rounding = 1e-5 * np.maximum(np.abs(self.scores), np.abs(rest))
        least = np.maximum(np.maximum(CANCELLED * mass, 100 * rounding), 1e-30)
        return error, np.abs(error) / np.maximum(np.abs(change), least)
