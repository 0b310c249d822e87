r"""Cosines between all pairs of locations, their different-object baseline and G.

With unit vectors :math:`u(o, p)` and their sums over all objects :math:`T(p)` and over those of a
category :math:`T_c(p)`:

- the same object: :math:`I(p, r) = \frac{1}{n} \sum_o u(o, p) \cdot u(o, r)`;
- another object: :math:`D(p, r) = (T(p) \cdot T(r) - \sum_c T_c(p) \cdot T_c(r)) / m` over the
  m ordered pairs of objects of different categories; no pair has to be formed. D(p, p) is the
  baseline of two objects in one place;
- :math:`G = (I - D) / (1 - D)`.

One matrix product per object, and one per category that has several; where D without each category
is asked for as well, one more per category: of the sums of all others, :math:`T(p) - T_c(p)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, update_wrapper
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.measures.catalogue import MakeSinks, Measure, measures
from elsewhere.measures.centring import (
    CentredCosines,
    CentredTally,
    by_place_baseline,
    check_by_place,
)
from elsewhere.measures.intervals import jackknife_t
from elsewhere.measures.similarity import contrast, n_cross_pairs, partly_undefined, zero_vectors
from elsewhere.measures.similarity_sink import SimilaritySink
from elsewhere.measures.tables import (
    Reading,
    Table,
    Variables,
    estimated,
    fit,
    matrix_variables,
    scalar,
)
from elsewhere.measures.unit_chunks import BY_PLACE, CENTRED, Floats, Stretch, add_all
from elsewhere.measures.vectors import dot_products
from elsewhere.protocols import Source
from elsewhere.types import Metric


@dataclass(frozen=True)
class LocationCosines:
    """Cosines between locations.

    Parameters
    ----------
    similarity, baseline, G
        float64 (location, location): the same object, another object, and the contrast of the two;
        baseline and G are NaN where all objects are of one category, and G of a location with
        itself, where it is 1 by definition.
    by_group
        float64 (object, group): the mean over the pairs of locations of each group, where groups
        were asked for.
    """

    similarity: Floats
    baseline: Floats
    G: Floats
    by_group: Floats


class CosineTally:
    """Sums cosines of all pairs of locations over stretches of units.

    `metric` says what is removed first; a mean over objects is that of all of them. By `groups`,
    int (location, location), -1 for none, every object's mean is kept as well; with `without` also
    what each category contributes: a further product per category, and two matrices over locations.
    """

    def __init__(
        self,
        metric: str,
        codes: NDArray[np.int64],
        n_locations: int,
        groups: NDArray[np.int64] | None = None,
        *,
        without: bool = False,
    ) -> None:
        self.metric, self._codes, self._keeps = metric, codes, without
        self._living = np.ones(len(codes), dtype=bool)
        shape = (n_locations, n_locations)
        n_kept = int(codes.max()) + 1 if without else 0
        # What is in no group counts in the first bin.
        self._bins = (np.full(shape, -1) if groups is None else groups).ravel() + 1
        self._grouped = np.zeros((len(codes), int(self._bins.max(initial=0)) + 1))
        self._alone = without and len(np.unique(codes)) == len(codes)
        self._all = np.zeros(shape)  # products of T(p)
        self._within = np.zeros(shape)  # of T_c(p), of all categories
        self._own = np.zeros((max(n_kept, 1), *shape))  # of u(o, p), by category or of all
        self._rest = np.zeros((n_kept, *shape))  # of T(p) - T_c(p), and of T_c(p)

    def add(self, stretch: Stretch) -> None:
        """Add a stretch of units."""
        if self.metric in CENTRED:
            self._living = stretch.lengths_of(self.metric).living
        total = np.zeros(stretch.shape[1:])
        for code in np.unique(self._codes).tolist():
            members = np.flatnonzero(self._codes == code).tolist()
            summed: Floats | None = None
            for number in members:
                units = stretch.units(self.metric, number)
                products = dot_products(units, units)
                self._own[code if self._keeps else 0] += products
                if self._grouped.shape[1] > 1 and not self._alone:
                    self._grouped[number] += self._by_group(products)
                total += units
                summed = units if summed is None else summed + units
            if not self._alone:  # else these are those of u(o, p), which are kept
                within = products if len(members) == 1 else dot_products(summed, summed)
                self._within += within
                if self._keeps:
                    self._rest[code] += within
        self._all += dot_products(total, total)
        for code, products in enumerate(self._rest):  # summed again: all sums are too much
            rest = total
            for number in np.flatnonzero(self._codes == code).tolist():
                rest = rest - stretch.units(self.metric, number)
            products += dot_products(rest, rest)

    def _by_group(self, products: Floats) -> Floats:
        """Return the sums of products over the pairs of locations of each group."""
        sums = np.bincount(self._bins, products.ravel(), self._grouped.shape[1])
        return sums.astype(np.float64, copy=False)

    def value(self) -> LocationCosines:
        """Return the cosines, once all stretches are in."""
        pairs = n_cross_pairs(self._codes[self._living])
        own, within = self._sums()
        similarity, cross = own / self._living.sum(), self._all - within
        baseline = cross / pairs if pairs else np.full(similarity.shape, np.nan)
        sizes = np.bincount(self._bins, minlength=self._grouped.shape[1])[1:]
        grouped = self._grouped
        if self._alone:
            grouped = np.stack([self._by_group(self._own[code]) for code in self._codes])
        means = grouped[:, 1:] / np.maximum(sizes, 1)
        return LocationCosines(
            similarity,
            baseline,
            _contrast_apart(similarity, baseline),
            np.where(sizes > 0, means, np.nan),
        )

    def without(self) -> Iterator[tuple[Floats, Floats]]:
        """Yield similarity and baseline without each category in turn, where that was asked for."""
        own, within = self._sums()
        for code, others in enumerate(self._rest):
            rest = self._codes[self._codes != code]
            counts = np.array([len(rest), n_cross_pairs(rest)], dtype=np.float64)
            counts[counts == 0] = np.nan
            if self._alone:
                others = others + self._own[code]
            yield (own - self._own[code]) / counts[0], (others - within) / counts[1]

    def _sums(self) -> tuple[Floats, Floats]:
        """Return the products of u(o, p), and those of T_c(p), of all."""
        own: Floats = self._own.sum(axis=0)
        return own, own if self._alone else self._within


def _contrast_apart(similarity: Floats, baseline: Floats) -> Floats:
    """Return G of all pairs of locations, NaN of each with itself."""
    found = contrast(similarity, baseline)
    np.fill_diagonal(found, np.nan)
    return found


def _centred_locations(found: CentredCosines, groups: NDArray[np.int64]) -> LocationCosines:
    """Return cosines of centred codes as those of others; `groups` as for :class:`CosineTally`."""
    n_groups = int(groups.max(initial=-1)) + 1
    means = [found.own[:, groups == group].mean(axis=1) for group in range(n_groups)]
    return LocationCosines(
        found.mean,
        found.cross,
        _contrast_apart(found.mean, found.cross),
        np.stack(means, axis=1) if means else np.zeros((len(found.own), 0)),
    )


def location_cosines(
    activations: ArrayLike,
    *,
    metric: str = "cosine",
    categories: Sequence[object] | None = None,
    empty: ArrayLike | None = None,
) -> LocationCosines:
    """Return the cosines between all pairs of locations of the same and of other objects.

    Parameters
    ----------
    activations
        Shape (object, location, unit), floating.
    metric
        ``cosine`` of the vectors as they are; ``centred``: less their mean over objects and
        locations; ``centred-by-place``: less the mean over objects at each location; ``evoked``:
        less `empty`; ``pearson``: each less its mean over units.
    categories
        One per object; by default every object is a category of its own.
    empty
        Shape (unit,): the empty canvas's activation, which ``evoked`` needs.

    Returns
    -------
    LocationCosines
        Each (location, location). A zero vector has the cosine 0 with everything.

    Raises
    ------
    InputError
        Shapes do not fit, or ``evoked`` without `empty`.
    NumericsError
        NaN or infinity.

    References
    ----------
    Biscione & Bowers (2021), JMLR 22(229), for the uncentred cosine between locations; the
    baseline and G are this package's.

    Examples
    --------
    >>> still = np.repeat(np.eye(3)[:, None], 2, axis=1)        # two locations, the same code
    >>> found = location_cosines(still)
    >>> found.similarity[0, 1], found.baseline[0, 1], found.G[0, 1]
    (np.float64(1.0), np.float64(0.0), np.float64(1.0))
    """
    stretch = Stretch.whole(activations, categories, empty)
    tally = CosineTally(metric, stretch.codes, stretch.shape[1])
    add_all(stretch, tally)
    return tally.value()


def read_cosines(metric: str, table: Table, *, without: bool = True) -> Reading:
    """Return the reading of all cosines; `without` asks for intervals of baseline and G."""
    apart, key = table.apart, metric.replace("-", "_")
    anew = metric in CENTRED and not _needs_lengths(metric, table)
    # Leaving out a category leaves out an object where each is a category of its own.
    several = without and metric not in CENTRED and len(np.unique(table.codes)) > 2
    several = several and fit(_matrices_kept(table))
    tally: CosineTally | CentredTally
    if anew:  # centred anew without each unit in turn
        n, several = table.n_positions, True
        tally = CentredTally(metric, table.codes, n, range(n))
    else:
        tally = CosineTally(metric, table.codes, table.n_positions, apart.groups, without=several)

    doubts: list[str] = []

    def read() -> Variables:
        pairs: Iterable[tuple[Floats, Floats]]
        if isinstance(tally, CentredTally):
            centred = tally.value()
            found = _centred_locations(centred, apart.groups)
            pairs = list(zip(centred.mean_without, centred.cross_without, strict=True))
        else:
            found, pairs = tally.value(), tally.without()
        if np.isfinite(found.baseline).all() and np.isnan(found.G).all():
            doubts.append("G is NaN, for different objects look alike (1 - baseline below 0.001)")
        elif said := partly_undefined(found.G[~np.eye(len(found.G), dtype=bool)]):
            doubts.append(f"of moves, {said}")
        sizes = np.bincount(apart.groups[apart.groups >= 0], minlength=len(apart.values))
        each = found.by_group
        if anew:
            left_out = [apart.means(same) for same, _ in pairs]
            by_group = np.array(left_out).reshape(-1, len(sizes))
        else:
            by_group = table.sampled.means_without(each)[: 0 if metric in CENTRED else None]
        away = by_group @ sizes / max(sizes.sum(), 1)
        variables = matrix_variables(key, found.similarity, table, away)
        interval = jackknife_t(apart.means(found.similarity), by_group)
        variables[f"{key}_displaced_interval"] = (("displacement", "bound"), interval)
        over = _over_place(table, found.similarity, found.baseline)
        rest = np.array(
            [
                (table.away(other), table.away(contrast(same, other)),
                 _over_place(table, same, other))
                for same, other in pairs
            ]
        ).reshape(-1, 3)  # fmt: skip
        for place, (name, matrix) in enumerate((("baseline", found.baseline), ("G", found.G))):
            left = rest[:, place] if several else None
            variables |= matrix_variables(f"{key}_{name}", matrix, table, left)
        name = f"{key}_over_place_away"
        variables |= estimated(name, over, rest[:, 2]) if several else {name: scalar(over)}
        if anew:
            share = centred.zero.mean()
            variables[f"{key}_zero_share"] = scalar(share)
            zero = zero_vectors(metric, float(share), float(centred.dead.mean()))
            doubts.extend([zero] if zero else [])
            for name in [name for name in variables if name.endswith("_without")]:
                dims, left = variables[name]
                variables[name] = dims, centred.among_all(left, len(table.sampled))
        return variables

    return Reading(tally, read, lambda: doubts)


def _needs_lengths(metric: str, table: Table) -> bool:
    """Return whether lengths are needed before products: not where all products fit."""
    return metric not in CENTRED or not fit((table.n_objects * table.n_positions) ** 2)


def _matrices_kept(table: Table) -> int:
    """Return how many numbers G without each category takes."""
    return 2 * len(np.unique(table.codes)) * table.n_positions**2


def _over_place(table: Table, similarity: Floats, baseline: Floats) -> float:
    """Return the similarity elsewhere less that of another object in the same place."""
    return table.away(similarity) - float(np.diag(baseline).mean())


def tally_bytes(table: Table, kept: int = 0) -> float:
    """Return the bytes of the sums of a :class:`CosineTally` that keeps so many numbers more."""
    return 8.0 * kept + 64.0 * table.n_positions**2 + 16.0 * table.n_objects * table.n_positions


def _memory(metric: str, table: Table) -> float:
    n, p = table.n_objects, table.n_positions
    if not _needs_lengths(metric, table):
        return CentredTally.bytes_of(metric, n, p, p) + 32.0 * n * p * p
    kept = _matrices_kept(table)
    return tally_bytes(table, kept if fit(kept) else 0)


def _at_reference(metric: Metric, source: Source, object_size: int | None) -> MakeSinks:
    return lambda layers: (SimilaritySink(metric=metric, layers=layers),)


def _remarks(metric: str, table: Table) -> list[str]:
    found = []
    if metric == BY_PLACE:
        found.append(by_place_baseline(table.n_objects))
    if metric in CENTRED and _needs_lengths(metric, table):
        found.append(
            f"{metric}: no intervals (NaN): the mean that is removed has to be that of the rest "
            "when an object is left out, which takes the products of all codes, and they are too "
            "many"
        )
    if len(set(table.codes.tolist())) < 2:
        found.append(f"{metric}: all objects are of one category: no baseline and no G (NaN)")
    return found


for _metric, _removed, _question, _can, _cannot in (
    (
        "cosine",
        "",
        "Is the code of the object elsewhere like that at the reference?",
        "It compares with published figures.",
        "Alone it shows no invariance: after a ReLU any two codes are alike. Read G beside it.",
    ),
    (
        "centred",
        ", less the mean over objects and locations",
        "Is the code alike elsewhere once what is common to all codes is removed?",
        "It takes off what all objects at all places have in common.",
        "It keeps what one place adds to all objects, and depends on which objects are shown.",
    ),
    (
        BY_PLACE,
        ", less the mean over objects at each location",
        "Are objects told apart in the same way here and there?",
        "It takes off what any object evokes at a place.",
        "It cannot tell how alike the codes are: what all objects share is gone.",
    ),
    (
        "evoked",
        ", less the empty canvas's activation",
        "Is what the object changes of the empty canvas the same elsewhere?",
        "It takes off what the background evokes.",
        "It keeps what any object evokes at a place: two objects in one place may be alike.",
    ),
    (
        "pearson",
        ", less each vector's mean over units",
        "Is the pattern over units the same elsewhere?",
        "It is not moved by a constant that is added to all units.",
        "Alone it shows no invariance: read G beside it.",
    ),
):
    measures.add(
        _metric,
        Measure(
            update_wrapper(partial(location_cosines, metric=_metric), location_cosines),
            f"mean over objects of a(o,p).a(o,r) / (|a(o,p)| |a(o,r)|){_removed}",
            ("biscione2021",),
            reading=partial(read_cosines, _metric),
            against=("all", "reference"),
            at_reference=partial(_at_reference, cast(Metric, _metric)),
            parts=("G",),
            headline=f"{_metric.replace('-', '_')}_away",
            range="-1..1",
            direction="higher: the codes are more alike",
            chance="the other object elsewhere",
            question=_question,
            can=_can,
            cannot=_cannot,
            least=2 if _metric == BY_PLACE else 1,
            matrices=3,
            metric=_metric,
            lengths=partial(_needs_lengths, _metric),
            empty=_metric == "evoked",
            sketches=_metric != "pearson",
            memory=partial(_memory, _metric),
            remarks=partial(_remarks, _metric),
            check=partial(check_by_place, _metric),
        ),
        summary=f"cosine between locations{_removed}; with its baseline and G",
    )
measures.add(
    "G",
    Measure(
        contrast,
        "(I - D) / (1 - D), I the same object elsewhere, D the other object elsewhere",
        against=("all", "reference"),
        comes_with="cosine",
        range="up to 1",
        direction="higher: more invariant and selective",
        chance="0",
        question="Is the same object elsewhere more alike than another object there?",
        can="It compares layers and networks: 1 is invariant and selective, 0 is no better than "
        "another object.",
        cannot="It cannot tell whether a network uses what is preserved.",
        least=2,
        matrices=1,
    ),
    summary="same object against another one there; comes with every cosine",
)
