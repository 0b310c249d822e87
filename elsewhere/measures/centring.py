r"""Cosines of centred codes, and the same without each object or category in turn.

Leaving out a unit leaves out its part in the mean that is removed, too: what is removed must be the
mean of the rest. With codes :math:`x` less the mean of all, the mean of the rest lies at
:math:`\delta_k = -\frac{1}{n - n_k} \sum_{o \in k} x_o`, so that every product

.. math:: (x_i - \delta_k) \cdot (x_j - \delta_k)
          = x_i \cdot x_j - x_i \cdot \delta_k - \delta_k \cdot x_j + \delta_k \cdot \delta_k

follows from products between objects: no activation is needed again. Silent objects, which are
zero at all locations, are left out in the same way: less a mean they would be alike everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elsewhere.errors import InputError
from elsewhere.measures.intervals import Sampled
from elsewhere.measures.similarity import n_cross_pairs
from elsewhere.measures.unit_chunks import (
    BY_PLACE,
    Floats,
    Stretch,
    Values,
    living_of,
)
from elsewhere.measures.vectors import dot_products, negligible
from elsewhere.protocols import Design

HELD = 2**20
"""Numbers of an intermediate array, about: locations are gone through a few at a time."""


def check_by_place(metric: str, design: Design) -> None:
    """Refuse to remove the mean over objects at each place where there is a single object."""
    n_objects = len(design.objects)
    if metric == BY_PLACE and n_objects < 2:
        raise InputError(
            f"metric {BY_PLACE!r} removes the mean over objects at each place, and there is "
            f"{n_objects} object, of which nothing would be left; show at least 2, or take 'evoked'"
        )


def by_place_baseline(n_objects: int) -> str:
    """Return what has to be known of the level that different objects have by construction."""
    return (
        f"{BY_PLACE}: the mean over objects at each place is removed, so that different objects at "
        f"one place have a cosine of about -1/(n - 1) = {-1 / (n_objects - 1):.3f} whatever the "
        "code; 0 is no baseline, G is"
    )


@dataclass(frozen=True)
class CentredCosines:
    """Mean cosines between all locations and those that are compared with.

    `own` (object, location, reference) is of each object with itself, NaN for silent ones, and
    `mean` (location, reference) its mean over the others; `cross` (location, reference) is the mean
    over ordered pairs of objects of different categories, NaN where there is no pair, and `same`
    (location,) that of pairs that are both at the location. Those ``*_without`` have a first
    dimension (unit,): the same without each unit in turn; no units where there is a single one that
    is not silent. `zero` and `dead`, bool (object, location), are vectors of which nothing is left,
    and that were zero before; `silent`, bool (object,), is zero at all locations, and left out of
    everything. `units`, int (unit,), says which of all units have objects which are not silent.
    """

    own: Floats
    mean: Floats
    mean_without: Floats
    cross: Floats
    cross_without: Floats
    same: Floats
    same_without: Floats
    zero: NDArray[np.bool_]
    dead: NDArray[np.bool_]
    silent: NDArray[np.bool_]
    units: NDArray[np.int64]

    def among_all(self, without: Floats, n_units: int) -> Floats:
        """Return values without each unit, (unit,), with NaN for units of silent objects."""
        if len(without) == n_units:
            return without
        found = np.full(n_units, np.nan)
        if len(np.unique(self.units)) == len(without):
            found[self.units] = without
        return found


class CentredTally:
    """Sums products between centred codes over stretches of units.

    ``centred`` removes the mean over objects and locations; ``centred-by-place`` the mean over
    objects at each location. `codes` are categories, int (object,), and `references` numbers of the
    locations that are compared with.
    """

    def __init__(
        self,
        metric: str,
        codes: NDArray[np.int64],
        n_locations: int,
        references: Sequence[int],
    ) -> None:
        n, self._codes = len(codes), codes
        self._by_place = metric == BY_PLACE
        self._references = list(references)
        self._products = np.zeros((n, n_locations, n, len(self._references)))
        self._at = np.zeros((n_locations, n, n))
        self._with_mean = np.zeros((0 if self._by_place else n_locations, n, n))
        self._among = np.zeros((n, n))
        self._raw = np.zeros((n, n_locations))
        self._negligible = 0.0

    @staticmethod
    def bytes_of(metric: str, n: int, n_locations: int, n_references: int) -> float:
        """Return the bytes of the sums."""
        squares = n_references + (1 if metric == BY_PLACE else 2)
        return 8.0 * n * n * (n_locations * squares + n_references + 1)  # with those on their way

    def add(self, stretch: Stretch) -> None:
        """Add a stretch of units, of which all locations are those that are averaged over."""
        self.add_rows(stretch.values, stretch.values.mean(axis=1, dtype=np.float64))

    def add_rows(self, values: Values, means: Floats) -> None:
        """Add some units (object, location, unit), and each object's mean (object, unit).

        That is the mean over the locations that ``centred`` averages over, which may be others.
        """
        rows = values.astype(np.float64)
        self._negligible = max(self._negligible, negligible(values))
        self._raw += np.einsum("olu,olu->ol", rows, rows)
        if self._by_place:
            rows -= rows.mean(axis=0)
        else:
            rows -= means.mean(axis=0)
            means = means - means.mean(axis=0)
            self._among += dot_products(means, means)
            for location, found in enumerate(self._with_mean):
                found += dot_products(rows[:, location], means)
        every = self._references == list(range(rows.shape[1]))
        here = (rows if every else rows[:, self._references]).reshape(-1, rows.shape[2])
        for location, found in enumerate(self._at):
            there = rows[:, location]
            found += dot_products(there, there)
            products = self._products[:, location]
            products += dot_products(there, here).reshape(products.shape)

    def value(self, living: NDArray[np.bool_] | None = None) -> CentredCosines:
        """Return the cosines, once all stretches are in.

        `living`, bool (object,), are the objects that are not silent; by default those that are not
        zero at one of the locations that were added.
        """
        n, n_locations, _, n_references = self._products.shape
        living = living_of(self._raw == 0) if living is None else living | ~living.any()
        among = np.flatnonzero(living)
        units = Sampled.of(self._codes[among])
        members = [among[chosen] for chosen in units.members]
        n_left = len(units) if len(units) > 1 else 0
        kept = np.tile(living.astype(np.float64), (1 + n_left, 1))
        for unit, left in enumerate(members[:n_left], start=1):
            kept[unit, left] = 0
        # of the codes in how the mean of the rest differs
        shares = -(1 - kept) / kept.sum(axis=1, keepdims=True)
        others = (self._codes[:, None] != self._codes[None]).astype(np.float64)
        shape = (1 + n_left, n_locations, n_references)
        own, mean, cross = np.zeros((n, *shape[1:])), np.zeros(shape), np.zeros(shape)
        same, zero = np.zeros(shape[:2]), np.zeros((n, n_locations), bool)
        step = max(1, HELD // kept.size)
        home = [self._lengths(shares, slice(r, r + 1)) for r in self._references]
        for first in range(0, n_locations, step):
            chosen = slice(first, first + step)
            along, size, inverse = self._lengths(shares, chosen)
            zero[:, chosen] = (inverse[:, 0] == 0).T
            weights = inverse * kept
            across = weights @ others
            together = weights @ (self._at[chosen] * others) - 2 * (weights * along) @ others
            together += across * size[..., None]
            same[:, chosen] = (together * weights).sum(axis=-1).T
            for number, (along_home, size_home, inverse_home) in enumerate(home):
                products = self._products[:, chosen, :, number].swapaxes(0, 1)
                if self._by_place:
                    to_there, to_here = shares @ products.swapaxes(1, 2), shares @ products
                    both = (to_here * shares).sum(axis=-1)
                else:
                    to_there, to_here, both = (
                        along,
                        along_home,
                        np.broadcast_to(size_home, size.shape),
                    )
                weights_home = inverse_home * kept
                each = np.einsum("loo->lo", products)[:, None] - to_there - to_here
                each = (each + both[..., None]) * weights * weights_home
                own[:, chosen, number] = each[:, 0].T
                mean[:, chosen, number] = each.sum(axis=-1).T
                found = (weights @ (products * others)) * weights_home
                found -= ((weights * to_there) @ others) * weights_home
                found += across * weights_home * (both[..., None] - to_here)
                cross[:, chosen, number] = found.sum(axis=-1).T
        own[~living] = np.nan
        mean /= kept.sum(axis=1)[:, None, None]
        pairs = np.array([n_cross_pairs(self._codes[row > 0]) for row in kept], dtype=np.float64)
        pairs[pairs == 0] = np.nan
        cross /= pairs[:, None, None]
        same /= pairs[:, None]
        labels = Sampled.of(self._codes).labels
        return CentredCosines(
            own,
            mean[0],
            mean[1:],
            cross[0],
            cross[1:],
            same[0],
            same[1:],
            zero | (self._raw == 0),
            self._raw == 0,
            ~living,
            np.array([labels[left[0]] for left in members[:n_left]], dtype=np.int64),
        )

    def _lengths(self, shares: Floats, chosen: slice) -> tuple[Floats, Floats, Floats]:
        """Return, without each unit, what follows from products with the change of the mean.

        These are the products of the codes with it (location, 1 + unit, object), its squared length
        (location, 1 + unit), and one over the codes' lengths once it is removed, 0 where nothing is
        left.
        """
        if self._by_place:
            along = shares @ self._at[chosen]
            size = (along * shares).sum(axis=-1)
        else:
            along = shares @ self._with_mean[chosen].swapaxes(1, 2)
            size = ((shares @ self._among) * shares).sum(axis=-1)
            size = np.broadcast_to(size, along.shape[:2])
        own = np.einsum("loo->lo", self._at[chosen])[:, None]
        squares = np.maximum(own - 2 * along + size[..., None], 0.0)
        zero = squares <= self._negligible**2 * self._raw[:, chosen].T[:, None]
        inverse = np.where(zero, 0.0, 1 / np.sqrt(np.where(zero, 1.0, squares)))
        return along, size, inverse
