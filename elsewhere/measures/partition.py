r"""What a layer's variation is made of: objects, locations, and both together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.measures.catalogue import Measure, entry, measures
from elsewhere.measures.intervals import Sampled, jackknife_t
from elsewhere.measures.tables import Reading, Table, Variables, estimated, scalar
from elsewhere.measures.unit_chunks import Floats, Stretch, add_all
from elsewhere.measures.vectors import negligible


@dataclass(frozen=True)
class Partition:
    """Shares of a layer's sum of squares, in the order object, location, interaction.

    Parameters
    ----------
    shares
        float64 (3,), summing to 1; NaN where nothing varies, and of objects, of locations and of
        both together where there is one.
    nulls
        float64 (3,): what the shares are on average when all rows are shuffled.
    intervals
        float64 (3, 2): jackknife-t over objects, or over categories where one has several
        exemplars.
    without
        float64 (unit, 3): the shares without each of these in turn.
    """

    shares: Floats
    nulls: Floats
    intervals: Floats
    without: Floats


class PartitionTally:
    """Sums squares of a two-way table without replicates, with and without each unit."""

    def __init__(self, codes: NDArray[np.int64], n_locations: int) -> None:
        n_objects = len(codes)
        self._units = Sampled.of(codes)
        n_units = len(self._units)
        self._n, self._n_locations = n_objects, n_locations
        self._squares = np.zeros(n_objects)  # |x|² of each object's rows
        self._sums = np.zeros(n_objects)  # |sum over locations|²
        self._grand = 0.0  # |sum of everything|²
        self._unit_grand = np.zeros(n_units)  # |sum of a unit's rows|²
        self._with_grand = np.zeros(n_units)  # a unit's sum times that of everything
        self._places = 0.0  # |sum over objects|², over locations
        self._unit_places = np.zeros(n_units)  # the same of a unit's objects
        self._with_places = np.zeros(n_units)  # a unit's sums times those of everything
        self._scale = self._negligible = 0.0

    def add(self, stretch: Stretch) -> None:
        """Add a stretch of units."""
        self._negligible = max(self._negligible, negligible(stretch.values))
        for _, values in stretch.columns():
            self._scale += float((values * values).sum())
            rest = values - values[:1, :1]
            rest -= rest.mean(axis=(0, 1))
            by_object = rest.sum(axis=1)
            by_place = rest.sum(axis=0)
            everything = by_object.sum(axis=0)
            self._squares += np.einsum("opu,opu->o", rest, rest)
            self._sums += np.einsum("ou,ou->o", by_object, by_object)
            self._grand += float(everything @ everything)
            self._places += float((by_place * by_place).sum())
            for unit, members in enumerate(self._units.members):
                part = rest[members].sum(axis=0)
                whole = part.sum(axis=0)
                self._unit_grand[unit] += whole @ whole
                self._with_grand[unit] += whole @ everything
                self._unit_places[unit] += (part * part).sum()
                self._with_places[unit] += (part * by_place).sum()

    def value(self) -> Partition:
        """Return the shares, once all stretches are in."""
        n, p = self._n, self._n_locations
        shares = self._shares(
            n,
            np.array([self._squares.sum()]),
            np.array([self._sums.sum()]),
            np.array([self._places]),
            np.array([self._grand]),
        )[0]
        units = self._units
        left = n - np.bincount(units.labels)
        without = np.full((0, 3), np.nan)
        if len(units) > 2:
            without = self._shares(
                left,
                self._squares.sum() - units.sums(self._squares),
                self._sums.sum() - units.sums(self._sums),
                self._places - 2 * self._with_places + self._unit_places,
                self._grand - 2 * self._with_grand + self._unit_grand,
            )
        freedom = np.array([n - 1, p - 1, (n - 1) * (p - 1)], dtype=np.float64)
        nulls = freedom / (n * p - 1) if n * p > 1 else np.full(3, np.nan)
        return Partition(shares, nulls, jackknife_t(shares, without), without)

    def _shares(
        self,
        n: int | NDArray[np.int64],
        squares: Floats,
        sums: Floats,
        places: Floats,
        grand: Floats,
    ) -> Floats:
        p = self._n_locations
        common = grand / (n * p)
        total = squares - common
        objects = sums / p - common
        locations = places / n - common
        parts = np.stack([objects, locations, total - objects - locations], axis=-1)
        varies = total > self._negligible**2 * self._scale
        safe = np.where(varies, total, 1.0)
        alone = np.broadcast_to(np.asarray(n) < 2, total.shape), np.full(total.shape, p < 2)
        single = np.stack([*alone, alone[0] | alone[1]], axis=-1)  # cannot vary, so 0 says nothing
        return np.where(varies[:, None] & ~single, parts / safe[:, None], np.nan)


def partition(activations: ArrayLike, *, categories: Sequence[object] | None = None) -> Partition:
    r"""Return the shares of object, location and their interaction in a layer's variation.

    The sum of squares about the grand mean, summed over units, of the table a(o, p):
    :math:`SS_{object} = P \sum_o |\bar a(o, \cdot) - \bar a|^2`,
    :math:`SS_{location} = n \sum_p |\bar a(\cdot, p) - \bar a|^2`, and what is left is their
    interaction. A layer that *discards* place has no location and no interaction share; one that
    *tolerates* it keeps a location share apart from the objects'.

    Parameters
    ----------
    activations
        Shape (object, location, unit), floating.
    categories
        One per object, for the intervals; each its own by default.

    Returns
    -------
    Partition
        The null shares are those of shuffled rows: :math:`(n-1)/(nP-1)`, :math:`(P-1)/(nP-1)` and
        :math:`(n-1)(P-1)/(nP-1)`.

    References
    ----------
    The two-way analysis of variance; the question is that of DiCarlo & Cox (2007), Trends in
    Cognitive Sciences 11:333-341, and Hong et al. (2016), Nature Neuroscience 19:613-622.

    Examples
    --------
    >>> place = np.arange(3.0)[None, :, None].repeat(4, axis=0)   # tells the location only
    >>> partition(place).shares
    array([0., 1., 0.])
    """
    stretch = Stretch.whole(activations, categories)
    tally = PartitionTally(stretch.codes, stretch.shape[1])
    add_all(stretch, tally)
    return tally.value()


def _partition(table: Table) -> Reading:
    tally = PartitionTally(table.codes, table.n_positions)

    def read() -> Variables:
        found = tally.value()
        variables: Variables = {}
        for place, part in enumerate(("object", "location", "interaction")):
            without = found.without[:, place]
            variables |= estimated(f"{part}_share", found.shares[place], without)
            variables[f"{part}_share_null"] = scalar(found.nulls[place])
        return variables

    return Reading(tally, read)


measures.add(
    "partition",
    Measure(
        partition,
        "sums of squares of a(o,p) by object, by location and for both together, over their sum",
        ("dicarlo2007", "hong2016"),
        literature={
            "dicarlo2007": entry(
                "article",
                author="DiCarlo, James J. and Cox, David D.",
                title="Untangling Invariant Object Recognition",
                journal="Trends in Cognitive Sciences",
                volume="11",
                number="8",
                pages="333--341",
                year="2007",
            ),
        },
        reading=_partition,
        headline="object_share",
        range="0..1",
        direction="higher: the object makes more of the variation",
        chance="object_share_null",
        question="How much of the variation comes from the object, how much from its place?",
        can="It tells a layer that discards place from one that keeps it beside the object.",
        cannot="It cannot tell which units carry the shares.",
        least=2,
    ),
    summary="shares of object, location and interaction in the variation",
)
