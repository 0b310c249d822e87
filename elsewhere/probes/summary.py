"""What probes got right, over the canvas and in numbers with intervals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
    unit_means,
)
from elsewhere.measures.bands import layer_bands
from elsewhere.measures.intervals import (
    Bounded,
    Sampled,
    Spread,
    correlation_of,
    known_mean,
    share_interval,
)
from elsewhere.probes.splits import SPLITS, ExemplarSplit
from elsewhere.protocols import Design
from elsewhere.types import WHERE, Location


@dataclass(frozen=True)
class Regions:
    """Which locations are trained, off and far, for each training set.

    `masks` are bool (where, training set, position), `distances` int (training set, position):
    Chebyshev, from the nearest trained location, px; -1 where objects are not as at the reference.
    """

    masks: NDArray[np.bool_]
    distances: NDArray[np.int64]

    @classmethod
    def of(cls, design: Design, places: Sequence[Sequence[Location]], size: int | None) -> Regions:
        """Return the regions of a grid; far is at least `size` px away, or nowhere."""
        distances = np.stack([displacements(design.locations, place) for place in places])
        far = np.zeros(distances.shape, bool) if size is None else distances >= size
        n = len(design.axes.changing.each)
        alike = (design.positions[:, :n] == np.array(design.reference[:n])).all(axis=1)
        on = alike & (distances == 0)
        distances = np.where(alike, distances, -1)
        return cls(np.stack([on, ~on, far & ~on]), distances)


class Summary:
    """Turns what was got right into accuracies, indices and intervals.

    `threshold` is the accuracy of which the share of the canvas above it is told.
    """

    def __init__(
        self,
        exemplars: ExemplarSplit,
        regions: Regions,
        *,
        threshold: float,
    ) -> None:
        self.regions, self.threshold = regions, threshold
        self.n_classes, self.labels = len(exemplars.names), exemplars.labels
        self.members = [np.flatnonzero(~exemplars.held_out), np.flatnonzero(exemplars.held_out)]
        self.steps = np.unique(regions.distances[regions.distances >= 0])

    def members_of(self, correct: NDArray[Any], number: int) -> NDArray[np.int64]:
        """Return the objects of one kind of exemplars that are not left out, NaN, of a layer."""
        members = self.members[number]
        if correct.dtype.kind != "f":
            return members
        known = ~np.isnan(correct[:, members]).all(axis=(0, 2))
        return np.asarray(members[known])

    def classes_of(self, correct: NDArray[Any]) -> int:
        """Return the number of categories of which a layer does not leave out all objects."""
        every = np.concatenate([self.members_of(correct, number) for number in range(len(SPLITS))])
        return len(np.unique(self.labels[every])) or self.n_classes

    def maps(self, correct: NDArray[Any], *, shuffled: bool = False) -> NDArray[np.float64]:
        """Return accuracies (exemplars, training set, position).

        `correct` is (training set, object, position). NaN for exemplars of which
        there are none. Values of the control task are balanced over its own classes already
        (:func:`elsewhere.probes.splits.balance`).
        """
        maps = np.full((len(SPLITS), correct.shape[0], correct.shape[2]), np.nan)
        for number in range(len(SPLITS)):
            members = self.members_of(correct, number)
            if len(members):
                chosen = correct[:, members].swapaxes(0, 1)
                maps[number] = balanced_mean(chosen, self._classes(members, shuffled))
        return maps

    def numbers(self, correct: NDArray[Any], *, shuffled: bool = False) -> dict[str, Any]:
        """Return what is known of one layer, arrays over exemplars first, of `correct` 0..1.

        `correct` is (training set, object, position). Where labels were `shuffled`, categories mean
        nothing, and the unit that was sampled is the object. There are ``accuracy_at`` (exemplars,
        where), ``accuracy_at_set`` (exemplars, training set, where), ``by_displacement``
        (exemplars, step), ``II_far``, ``on_minus_far``, ``share_above`` (exemplars), and intervals.
        """
        found = [self._of_split(correct, number, shuffled) for number in range(len(SPLITS))]
        stacked: dict[str, Any] = {key: np.stack([each[key] for each in found]) for key in found[0]}
        stacked["share_above"] = self._share_above(self.maps(correct))
        return stacked

    def by_class(self, correct: NDArray[Any]) -> NDArray[np.float64]:
        """Return what was right of each class (exemplars, class, where), NaN of those left out.

        `correct` is (training set, object, position). Classes are what intervals are over.
        """
        found = np.full((len(SPLITS), self.n_classes, len(WHERE)), np.nan)
        for number in range(len(SPLITS)):
            if len(members := self.members_of(correct, number)):
                at = known_mean(self._sets(correct[:, members].astype(float)), axis=0)
                labels = self.labels[members]
                found[number, np.unique(labels)] = unit_means(at, labels)
        return found

    def bands(
        self, by_class: NDArray[np.float64], beside: Collection[int] = ()
    ) -> dict[str, NDArray[np.float64]]:
        """Return what holds for all layers of ``accuracy_at`` together, over its categories.

        `by_class` is :meth:`by_class` of each layer, layers first; what is returned is that of
        :func:`elsewhere.measures.bands.layer_bands`, to which layers `beside` the main branch are
        named by their places, arrays (layer, exemplars, where, ...).
        """
        found: dict[str, list[NDArray[np.float64]]] = {}
        for number, members in enumerate(self.members):
            codes = np.unique(self.labels[members])
            units = by_class[:, number, codes].swapaxes(0, 1)
            mean = Spread.of(units).mean
            without = Sampled.of(np.arange(len(units))).means_without(units)
            bands = [
                layer_bands(mean[:, where], without[..., where], share=True, beside=beside)
                for where in range(len(WHERE))
            ]
            for key in bands[0]:
                found.setdefault(key, []).append(np.stack([each[key] for each in bands], axis=1))
        return {key: np.stack(each, axis=1) for key, each in found.items()}

    def _sets(self, chosen: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what was right of objects on, off and far, (training set, object, where)."""
        return np.stack([_means(chosen, mask) for mask in self.regions.masks], axis=-1)

    def _of_split(
        self, correct: NDArray[Any], number: int, shuffled: bool
    ) -> dict[str, NDArray[np.float64]]:
        members, n_classes = self.members_of(correct, number), self.classes_of(correct)
        chosen = correct[:, members].astype(np.float64)
        sets = self._sets(chosen)
        curve = np.stack(
            [
                known_mean(_means(chosen, self.regions.distances == step), axis=0)
                for step in self.steps
            ],
            axis=-1,
        )
        at = known_mean(sets, axis=0)  # (object, where)
        if not len(members):
            blank = np.full(len(WHERE), np.nan)
            steps = np.full(len(self.steps), np.nan)
            sets = np.full((correct.shape[0], len(WHERE)), np.nan)
            return self._derive(blank[None], steps[None], sets, np.nan, n_classes)
        labels = self._classes(members, shuffled)
        units = np.arange(len(members)) if shuffled else labels
        by_set = balanced_mean(sets.swapaxes(0, 1), labels)
        # The gate asks whether these categories are known on the location, not others like them.
        sure = share_interval(Spread.of(at[:, 0], labels))[0]
        found = unit_means(at, units), unit_means(curve, units)
        return self._derive(*found, by_set, float(sure), n_classes)

    def _classes(self, members: NDArray[np.int64], shuffled: bool) -> NDArray[np.int64]:
        return np.zeros(len(members), np.int64) if shuffled else self.labels[members]

    def _derive(
        self,
        at: NDArray[np.float64],
        curve: NDArray[np.float64],
        by_set: NDArray[np.float64],
        sure: float,
        n_classes: int,
    ) -> dict[str, NDArray[np.float64]]:
        """Return what follows from the means of every unit that was sampled, (unit, ...).

        `sure` is the lower bound of the accuracy on the trained location for new exemplars of the
        same categories, NaN where these are fewer than three.
        """
        spread, along = Spread.of(at), Spread.of(curve)
        bounds = share_interval(spread)
        on, _, far = spread.mean
        asked = normalized_accuracy(on if np.isnan(sure) else sure, n_classes)
        gate = np.nan if not asked > INDEX_GATE else 1.0
        here, there = (Bounded(spread.mean[place], bounds[place]) for place in (0, 2))
        correlation = correlation_of(*map(Spread.of, (at[:, 0], at[:, 2], at[:, 0] - at[:, 2])))
        shares = [
            Bounded(*(normalized_accuracy(v, n_classes) for v in (one.value, one.interval)))
            for one in (there, here)
        ]
        return {
            "accuracy_at": spread.mean,
            "accuracy_at_interval": bounds,
            "accuracy_at_set": by_set,
            "by_displacement": along.mean,
            "by_displacement_interval": share_interval(along),
            "II_far": gate * invariance_index(far, on, n_classes),
            "II_far_interval": gate * shares[0].over(shares[1], correlation),
            "on_minus_far": np.asarray(on - far),
            "on_minus_far_interval": here.less(there, correlation),
            "off_low": np.asarray(bounds[1, 0]),
        }

    def _share_above(self, maps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of the locations at which accuracy is above the threshold."""
        shares = (maps > self.threshold).mean(axis=(1, 2))
        return np.where(np.isnan(maps).all(axis=(1, 2)), np.nan, shares)


def _means(values: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return means over masked positions, (training set, object); NaN where there are none."""
    counts = mask.sum(axis=1)
    sums = np.einsum("poq,pq->po", values, mask.astype(np.float64))
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], np.nan)


def stack(found: Mapping[str, dict[str, Any]], key: str) -> NDArray[np.float64]:
    """Return one entry of the numbers of all layers, layers first."""
    return np.stack([np.asarray(each[key], np.float64) for each in found.values()])
