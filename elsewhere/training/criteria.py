"""When a phase has learnt enough, by how many of its latest presentations were right."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from elsewhere.training.curriculum import Criterion

History = Iterable[tuple[float, float]]
"""Loss, and share of correct presentations, of the latest steps."""


def is_met(criterion: Criterion, history: History, batch: int) -> bool:
    """Return whether a criterion is met by the steps before."""
    recent = _counts(history, batch)[-criterion.window :]
    return bool(len(recent) == criterion.window and recent.sum() >= criterion.needed(batch))


def steps_to(criterion: Criterion, history: History, batch: int, done: int) -> int:
    """Return after how many more steps, were all flawless, a criterion could be met first.

    `done` are the steps of the phase so far, of which the history may hold the latest only.
    """
    counts, window = _counts(history, batch), criterion.window
    more = np.arange(1, window + 1)
    sums = np.concatenate([[0], np.cumsum(counts)])
    kept = np.minimum(len(counts), window - more)
    best = sums[-1] - sums[len(counts) - kept] + more * batch
    possible = (best >= criterion.needed(batch)) & (done + more >= window)
    return int(more[np.argmax(possible)])


def _counts(history: History, batch: int) -> NDArray[np.int64]:
    """Return how many presentations of each step were classified correctly."""
    shares = np.array([share for _, share in history])
    return np.floor(shares * batch + 0.5).astype(np.int64)
