"""What probes got right, over the canvas and in numbers with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elsewhere.measures.accuracy import (
    INDEX_GATE,
    balanced_mean,
    displacements,
    invariance_index,
    normalized_accuracy,
    percentile_interval,
)
from elsewhere.measures.probes import plain_resamples, resample_categories
from elsewhere.probes.splits import SPLITS, Exemplars
from elsewhere.protocols import Design
from elsewhere.types import Location

WHERE = ("on", "off", "far")
Variable = tuple[tuple[str, ...], NDArray[Any]]


@dataclass(frozen=True)
class Regions:
    """Which locations are trained, off and far, for each training set.

    Parameters
    ----------
    masks
        bool (where, training set, position).
    distances
        int (training set, position): Chebyshev, from the nearest trained location, px.
    """

    masks: NDArray[np.bool_]
    distances: NDArray[np.int64]

    @classmethod
    def of(cls, design: Design, places: Sequence[Sequence[Location]], size: int | None) -> Regions:
        """Return the regions of a grid; far is at least `size` px away, or nowhere."""
        distances = np.stack([displacements(design.positions, place) for place in places])
        far = np.zeros(distances.shape, bool) if size is None else distances >= size
        return cls(np.stack([distances == 0, distances > 0, far & (distances > 0)]), distances)


class Summary:
    """Turns what was got right into accuracies, indices and intervals.

    Parameters
    ----------
    exemplars
        Labels, and who is held out.
    regions
        Trained, off, far.
    n_resamples, seed
        Of the bootstrap: categories, then exemplars; locations never.
    threshold
        Of the share of the canvas, an accuracy.
    """

    def __init__(
        self,
        exemplars: Exemplars,
        regions: Regions,
        *,
        n_resamples: int,
        seed: int,
        threshold: float,
    ) -> None:
        self.regions, self.threshold = regions, threshold
        self.n_classes, self.labels = len(exemplars.names), exemplars.labels
        self.members = [np.flatnonzero(~exemplars.held_out), np.flatnonzero(exemplars.held_out)]
        self.resamples, self.plain = [], []
        for number, members in enumerate(self.members):
            labels = exemplars.labels[members]
            if len(members):
                drawn = resample_categories(labels, n_resamples, seed=seed + number)
                plain = plain_resamples(len(members), n_resamples, seed=seed + number)
            else:
                drawn = plain = np.zeros((n_resamples, 0))
            self.resamples.append(drawn)
            self.plain.append(plain)
        self.steps = np.unique(regions.distances)

    def maps(self, correct: NDArray[Any], *, shuffled: bool = False) -> NDArray[np.float64]:
        """Return accuracies (split, training set, position) from (training set, object, position).

        NaN for exemplars of which there are none. Values of the control task are balanced over
        its own classes already (:func:`elsewhere.probes.splits.balance`).
        """
        maps = np.full((len(SPLITS), correct.shape[0], correct.shape[2]), np.nan)
        for number, members in enumerate(self.members):
            if len(members):
                chosen = correct[:, members].swapaxes(0, 1)
                maps[number] = balanced_mean(chosen, self._classes(members, shuffled))
        return maps

    def numbers(self, correct: NDArray[Any], *, shuffled: bool = False) -> dict[str, Any]:
        """Return what is known of one layer, arrays over split first.

        Parameters
        ----------
        correct
            (training set, object, position): 0..1.
        shuffled
            Whether the labels were shuffled, so that the categories mean nothing: objects are
            then resampled without regard to them.

        Returns
        -------
        dict
            ``accuracy_at`` (split, where), ``accuracy_at_set`` (split, training set, where),
            ``by_displacement`` (split, step), ``invariance_index``, ``on_minus_far``,
            ``share_above`` (split), and intervals.
        """
        found = [self._of_split(correct, number, shuffled) for number in range(len(SPLITS))]
        stacked: dict[str, Any] = {key: np.stack([each[key] for each in found]) for key in found[0]}
        stacked["share_above"] = self._share_above(self.maps(correct))
        return stacked

    def _of_split(
        self, correct: NDArray[Any], number: int, shuffled: bool
    ) -> dict[str, NDArray[np.float64]]:
        members = self.members[number]
        chosen = correct[:, members].astype(np.float64)
        sets: NDArray[Any] = np.stack(
            [_means(chosen, mask) for mask in self.regions.masks], axis=-1
        )
        curve = np.stack(
            [
                _mean_over_sets(_means(chosen, self.regions.distances == step))
                for step in self.steps
            ],
            axis=-1,
        )
        at = _mean_over_sets(sets)  # (object, where)
        if not len(members):
            blank = np.full(len(WHERE), np.nan)
            steps = np.full(len(self.steps), np.nan)
            sets = np.full((correct.shape[0], len(WHERE)), np.nan)
            return self._derive(blank, blank[None], steps, steps[None], sets)
        resamples = self.plain[number] if shuffled else self.resamples[number]
        labels = self._classes(members, shuffled)
        return self._derive(
            balanced_mean(at, labels),
            resamples @ at,
            balanced_mean(curve, labels),
            resamples @ curve,
            balanced_mean(sets.swapaxes(0, 1), labels),
        )

    def _classes(self, members: NDArray[np.int64], shuffled: bool) -> NDArray[np.int64]:
        return np.zeros(len(members), np.int64) if shuffled else self.labels[members]

    def _derive(
        self,
        at: NDArray[np.float64],
        at_drawn: NDArray[np.float64],
        curve: NDArray[np.float64],
        curve_drawn: NDArray[np.float64],
        by_set: NDArray[np.float64],
    ) -> dict[str, NDArray[np.float64]]:
        on, off, far = at
        bounds = percentile_interval(at_drawn)
        low = float(normalized_accuracy(bounds[0, 0], self.n_classes))
        gate = np.nan if not low > INDEX_GATE else 1.0
        index = gate * invariance_index(far, on, self.n_classes)
        drawn = invariance_index(at_drawn[:, 2], at_drawn[:, 0], self.n_classes)
        return {
            "accuracy_at": at,
            "accuracy_at_interval": bounds,
            "accuracy_at_set": by_set,
            "by_displacement": curve,
            "by_displacement_interval": percentile_interval(curve_drawn),
            "invariance_index": np.asarray(index),
            "invariance_index_interval": gate * percentile_interval(drawn),
            "on_minus_far": np.asarray(on - far),
            "on_minus_far_interval": percentile_interval(at_drawn[:, 0] - at_drawn[:, 2]),
            "off_low": np.asarray(bounds[1, 0]),
            "off": np.asarray(off),
        }

    def _share_above(self, maps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of the locations at which accuracy is above the threshold, (split,)."""
        shares = (maps > self.threshold).mean(axis=(1, 2))
        return np.where(np.isnan(maps).all(axis=(1, 2)), np.nan, shares)


def _means(values: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return means over masked positions, (training set, object); NaN where there are none."""
    counts = mask.sum(axis=1)
    sums = np.einsum("poq,pq->po", values, mask.astype(np.float64))
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], np.nan)


def _mean_over_sets(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return means over the training sets that have a value; NaN where none has."""
    known = np.isfinite(values)
    counts = known.sum(axis=0)
    sums = np.where(known, values, 0.0).sum(axis=0)
    return np.asarray(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))


def stack(found: Mapping[str, dict[str, Any]], key: str) -> NDArray[np.float64]:
    """Return one entry of the numbers of all layers, layers first."""
    return np.stack([np.asarray(each[key], np.float64) for each in found.values()])
