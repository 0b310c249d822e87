r"""How far a code moves with the object: distances and cosines, with their maps over displacements.

Write :math:`p - r` for a displacement; a translation-sensitivity map averages over all pairs of
locations that lie so far apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.measures.catalogue import Measure, entry, measures
from elsewhere.measures.cosines import read_cosines, tally_bytes
from elsewhere.measures.displacement import displacement_map
from elsewhere.measures.grams import GramTally, gram_bytes
from elsewhere.measures.rsa import dissimilarities
from elsewhere.measures.tables import (
    ALIKE,
    JACKKNIFE_COST,
    Reading,
    Table,
    Variables,
    matrix_variables,
    scalar,
)
from elsewhere.measures.unit_chunks import Floats, Stretch, add_all
from elsewhere.measures.vectors import dot_products


class DistanceTally:
    """Sums squared distances of each object's code between all pairs of locations."""

    def __init__(self, codes: NDArray[np.int64], n_locations: int) -> None:
        n = len(codes)
        self._codes = codes
        self.squares = np.zeros((n, n_locations, n_locations))
        self._scale, self._rounding = np.zeros((n, n_locations)), 0.0
        self._objects = GramTally(n, n_locations)
        self._between: Floats | None = None

    def add(self, stretch: Stretch) -> None:
        """Add a stretch of units."""
        self._rounding = max(self._rounding, stretch.rounding)
        for number, rows in enumerate(stretch.values):
            exact = rows.astype(np.float64)
            self._scale[number] += np.einsum("lu,lu->l", exact, exact)
            centred = exact - exact.mean(axis=0)  # distances stay, rounding shrinks
            products = dot_products(centred, centred)
            squares = np.diag(products)
            self.squares[number] += squares[:, None] + squares[None, :] - 2 * products
        self._objects.add(stretch)

    def value(self, *, without: Sequence[int] | NDArray[np.int64] = ()) -> tuple[Floats, Floats]:
        """Return the normalised distances (reference, location), and what they are divided by.

        Objects can be left out.
        """
        kept = ~np.isin(np.arange(len(self._codes)), without)
        distances = np.zeros(self.squares.shape[1:])
        for number in np.flatnonzero(kept):
            squares, noise = self.squares[number], self._rounding**2 * self._scale[number]
            floor = noise[:, None] + noise[None, :]
            distances += np.sqrt(np.where(squares > floor, squares, 0.0))
        distances /= max(int(kept.sum()), 1)
        if self._between is None:
            self._between = dissimilarities(
                self._objects.cleaned(), "euclidean", floors=self._objects.floors()
            )
        first, second = np.triu_indices(len(self._codes), k=1)
        different = (self._codes[first] != self._codes[second]) & kept[first] & kept[second]
        if not different.any():
            return np.full(distances.shape, np.nan), np.full(len(distances), np.nan)
        unit = np.median(self._between[:, different], axis=1)
        safe = np.where(unit > 0, unit, np.nan)
        return distances / safe[:, None], safe


def distance_matrix(
    activations: ArrayLike, *, categories: Sequence[object] | None = None
) -> Floats:
    r"""Return normalised Euclidean distances of the same object between all pairs of locations.

    The mean over objects of :math:`|a(o, p) - a(o, r)|`, divided by the median distance of two
    objects of different categories that both stand at r: 1 means that a move changes the code as
    much as another object does.

    Parameters
    ----------
    activations
        Shape (object, location, unit), floating.
    categories
        One per object; by default every object is a category of its own.

    Returns
    -------
    float64 (location r, location p), at least 0
        NaN where there are no two categories, or where their objects have the same code.

    References
    ----------
    Kauderer-Abrams (2017), arXiv:1801.01450: a distance in units of that between classes. That
    the unit is a median over pairs at r is this package's choice.

    Examples
    --------
    >>> still = np.repeat(np.eye(3)[:, None], 2, axis=1)
    >>> distance_matrix(still)
    array([[0., 0.],
           [0., 0.]])
    """
    stretch = Stretch.whole(activations, categories)
    tally = DistanceTally(stretch.codes, stretch.shape[1])
    add_all(stretch, tally)
    return tally.value()[0]


def _with_map(name: str, variables: Variables, table: Table) -> Variables:
    """Return variables with the map over displacements of what is between locations."""
    if table.places.shape[1] != 2:
        return variables
    matrix = variables[name][1]
    if table.against == "reference":
        row, matrix = matrix, np.full((table.n_positions,) * 2, np.nan)
        matrix[table.reference] = row
    _, _, values = displacement_map(matrix, table.places)
    return variables | {f"{name}_map": (("displacement_y", "displacement_x"), values)}


def _distance(table: Table) -> Reading:
    tally = DistanceTally(table.codes, table.n_positions)

    def read() -> Variables:
        matrix, unit = tally.value()
        away = None
        n, left = table.n_objects, table.sampled.members
        cost = len(left) * (n**2 + n * table.n_positions) * table.n_positions
        if len(left) > 2 and cost <= JACKKNIFE_COST:
            away = np.array([table.away(tally.value(without=m)[0]) for m in left])
        name = "sensitivity_euclidean"
        variables = matrix_variables(name, matrix, table, away)
        if table.against == "reference":
            variables[f"{name}_unit"] = scalar(float(unit[int(table.reference or 0)]))
        else:
            variables[f"{name}_unit"] = (("reference",), unit)
        return _with_map(name, variables, table)

    return Reading(tally, read)


def _sensitivity(table: Table) -> Reading:
    base = read_cosines("cosine", table, without=False)

    def read() -> Variables:
        found = base.read()
        ends = ("", "_displaced", "_away", "_displaced_interval", "_away_interval", "_away_without")
        variables = {f"sensitivity_cosine{end}": found[f"cosine{end}"] for end in ends}
        return _with_map("sensitivity_cosine", variables, table)

    return Reading(base.tally, read)


def _distance_bytes(table: Table) -> float:
    return 8.0 * table.n_objects * table.n_positions**2 + gram_bytes(table)


def _no_distance(table: Table) -> str:
    if table.n_objects < 2:
        return ""
    if len(set(table.codes.tolist())) < 2:
        return "all objects are of one category: there is no distance between categories"
    return f"at every location half of the pairs of objects or more have one code, or {ALIKE}"


measures.add(
    "sensitivity-euclidean",
    Measure(
        distance_matrix,
        "mean_o |a(o,p) - a(o,r)| / median distance of two objects of different categories at r",
        ("kauderer2017",),
        literature={
            "kauderer2017": entry(
                "misc",
                author="Kauderer-Abrams, Eric",
                title="Quantifying Translation-Invariance in Convolutional Neural Networks",
                eprint="1801.01450",
                archiveprefix="arXiv",
                year="2017",
            ),
        },
        reading=_distance,
        against=("all", "reference"),
        headline="sensitivity_euclidean_away",
        range="0 and more",
        direction="lower: the code changes less",
        chance="1",
        question="How far does the move take the code, compared with another object?",
        can="It sees changes of a code's length, which a cosine does not.",
        cannot="It cannot tell whether the distance matters to the next layer.",
        least=2,
        matrices=1,
        memory=_distance_bytes,
        undefined=_no_distance,
    ),
    summary="normalised Euclidean distance, with its map over displacements",
)
measures.add(
    "sensitivity-cosine",
    Measure(
        displacement_map,
        "cosine of a(o,p) and a(o,r), averaged over all pairs with the same p - r",
        ("myburgh2021",),
        literature={
            "myburgh2021": entry(
                "misc",
                author="Myburgh, Johannes C. and Mouton, Coenraad and Davel, Marelie H.",
                title="Tracking Translation Invariance in CNNs",
                eprint="2104.05997",
                archiveprefix="arXiv",
                year="2021",
            ),
        },
        reading=_sensitivity,
        against=("all", "reference"),
        headline="sensitivity_cosine_away",
        range="-1..1",
        direction="higher: the codes are more alike",
        chance="the other object elsewhere",
        question="How does the cosine fall with the displacement, in each direction?",
        can="It draws the published map over displacements.",
        cannot="It cannot show invariance alone: it has no baseline; read it beside G.",
        least=1,
        matrices=1,
        metric="cosine",
        memory=tally_bytes,
    ),
    summary="cosine, with its map over displacements",
)
