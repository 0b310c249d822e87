r"""What a layer's variation is made of: objects, locations, and both together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.measures.intervals import Sampled, jackknife_t
from elsewhere.measures.stretches import Floats, Stretch, add_all


@dataclass(frozen=True)
class NormalizedVariance:
    """Variation over locations as a share of that over objects.

    Parameters
    ----------
    median
        Over living units, of their ratios; NaN where there is none.
    ratio
        Of the sums over units; NaN where there is no living one.
    dead_share
        Share of units that never vary, beyond what rounding makes of their values.
    per_unit
        float64 (unit,): the ratios; 0/0 is 1, x/0 infinite.
    rounding_share
        Share of units of which a spread is rounding, and counts as 0.
    """

    median: float
    ratio: float
    dead_share: float
    per_unit: Floats
    rounding_share: float = 0.0


class VarianceTally:
    """Collects both spreads of every unit.

    Parameters
    ----------
    deviations
        Whether means of standard deviations are compared, rather than means of variances.
    """

    def __init__(self, *, deviations: bool = False) -> None:
        self._deviations = deviations
        self._transformed: list[Floats] = []
        self._sampled: list[Floats] = []
        self._rounded: list[NDArray[np.bool_]] = []

    def add(self, stretch: Stretch) -> None:
        """Add a stretch of units."""
        for _, values in stretch.columns():
            floor = stretch.rounding**2 * np.mean(values**2, axis=(0, 1))
            floor = np.sqrt(floor) if self._deviations else floor
            rounded = np.zeros(len(floor), dtype=bool)
            for kept, over in ((self._transformed, 1), (self._sampled, 0)):
                spread = self._spread(values, over=over, then=1 - over)
                rounded |= (spread > 0) & (spread <= floor)
                kept.append(np.where(spread <= floor, 0.0, spread))
            self._rounded.append(rounded)

    def _spread(self, values: Floats, *, over: int, then: int) -> Floats:
        """Return the mean over one axis of the spread over the other, shape (unit,)."""
        if values.shape[over] < 2:
            return np.full(values.shape[2], np.nan)
        # Less the first of them, so that what is constant has a variance of exactly zero.
        rest = values - values.take([0], axis=over)
        spread = rest.var(axis=over, ddof=1)
        if self._deviations:
            spread = np.sqrt(spread)
        found: Floats = spread.mean(axis=then - (then > over))
        return found

    def value(self) -> NormalizedVariance:
        """Return the summary, once all stretches are in."""
        transformed = np.concatenate(self._transformed)
        sampled = np.concatenate(self._sampled)
        if np.isnan(transformed).any() or np.isnan(sampled).any():
            return NormalizedVariance(np.nan, np.nan, np.nan, np.full(len(sampled), np.nan))
        ratios = _ratio(transformed, sampled)
        total = _ratio(transformed.sum(keepdims=True), sampled.sum(keepdims=True))
        dead = (transformed == 0) & (sampled == 0)
        living = ratios[~dead]
        return NormalizedVariance(
            float(np.median(living)) if living.size else np.nan,
            float(total[0]) if living.size else np.nan,
            float(dead.mean()),
            ratios,
            float(np.concatenate(self._rounded).mean()),
        )


def _ratio(above: Floats, below: Floats) -> Floats:
    """Return above / below, with 0/0 = 1 and x/0 infinite."""
    found = np.where(above > 0, np.inf, 1.0)
    np.divide(above, below, out=found, where=below > 0)
    return found


def normalized_variance(activations: ArrayLike) -> NormalizedVariance:
    r"""Return the normalized variance of a layer's units.

    Per unit, :math:`TV = mean_o\, var_p\, a(o, p)` and :math:`SV = mean_p\, var_o\, a(o, p)`, with
    n - 1 in the denominators of the variances; the measure is TV / SV: 0 for a unit that ignores
    the location, about 1 for one to which a move is as much as another object.

    Parameters
    ----------
    activations
        Shape (object, location, unit), floating.

    Returns
    -------
    NormalizedVariance
        NaN with fewer than two objects or locations.

    References
    ----------
    Quiroga, Torrents-Barrena, Lanzarini & Puig (2023), Applied Soft Computing 132:109817.

    Examples
    --------
    >>> objects = np.array([[[0.0, 0.0]], [[2.0, 0.0]]]).repeat(3, axis=1)
    >>> normalized_variance(objects).per_unit     # ignores the location; never varies
    array([0., 1.])
    """
    tally = VarianceTally()
    add_all(Stretch.whole(activations), tally)
    return tally.value()


def normalized_deviation(activations: ArrayLike) -> NormalizedVariance:
    r"""Return normalized variance as its authors' code has it: from standard deviations.

    Per unit, :math:`mean_o\, sd_p\, a(o, p)` over :math:`mean_p\, sd_o\, a(o, p)`: means of
    deviations, which is not the root of :func:`normalized_variance`.

    Parameters
    ----------
    activations
        Shape (object, location, unit), floating.

    Returns
    -------
    NormalizedVariance
        ``ratio`` is that of the sums of deviations.

    References
    ----------
    As for :func:`normalized_variance`.

    Examples
    --------
    >>> normalized_deviation(np.random.default_rng(0).normal(size=(9, 9, 4))).median.__round__(1)
    1.0
    """
    tally = VarianceTally(deviations=True)
    add_all(Stretch.whole(activations), tally)
    return tally.value()


@dataclass(frozen=True)
class Partition:
    """Shares of a layer's sum of squares, in the order object, location, interaction.

    Parameters
    ----------
    shares
        float64 (3,), summing to 1; NaN where nothing varies.
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
    """Sums squares of a two-way table without replicates, with and without each unit.

    Parameters
    ----------
    codes
        int (object,), categories.
    n_locations
        How many.
    """

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
        self._scale = 0.0

    def add(self, stretch: Stretch) -> None:
        """Add a stretch of units."""
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
        varies = total > 1e-12 * self._scale
        safe = np.where(varies, total, 1.0)
        return np.where(varies[:, None], parts / safe[:, None], np.nan)


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
