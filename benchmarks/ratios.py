"""Ratios of times from interleaved pairs in one run: single runs scatter by a factor of two."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, with a distribution-free 95 % interval.

    Parameters
    ----------
    median, low, high
        Time of the work over time of what it is compared with.
    seconds
        Median seconds of what it is compared with, and of the work.
    n_pairs
        Pairs that were run.
    """

    median: float
    low: float
    high: float
    seconds: tuple[float, float]
    n_pairs: int

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def compare(base: Callable[[], object], work: Callable[[], object], *, n_pairs: int = 30) -> Ratio:
    """Run `base` and `work` in turns, the order changing, and return the ratio of their times."""
    base(), work()
    seconds = np.empty((n_pairs, 2))
    for pair in range(n_pairs):
        order = (0, 1) if pair % 2 == 0 else (1, 0)
        for which in order:
            begin = time.perf_counter()
            (base, work)[which]()
            seconds[pair, which] = time.perf_counter() - begin
    ratios = np.sort(seconds[:, 1] / seconds[:, 0])
    rank = int(stats.binom.ppf(0.025, n_pairs, 0.5))  # the interval of a median by order statistics
    low, high = ratios[max(rank - 1, 0)], ratios[min(n_pairs - rank, n_pairs - 1)]
    median = np.median(seconds, axis=0)
    return Ratio(float(np.median(ratios)), float(low), float(high), (median[0], median[1]), n_pairs)
