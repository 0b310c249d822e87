r"""Lost, or hidden? Objects identified elsewhere: as the code is, and through a map of the move.

A code that differs elsewhere may still hold the object: the move may only have *turned* it. A ridge
regression from the code there to the code here, fitted on other categories, undoes what a linear
map can undo; what is then still told apart was hidden, and what is not was lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import InputError
from elsewhere.measures.accuracy import balanced_mean
from elsewhere.measures.bands import interval_between
from elsewhere.measures.catalogue import Measure, entry, measures
from elsewhere.measures.intervals import Sampled, shared_fits
from elsewhere.measures.move_maps import Indices, MoveMaps, folds
from elsewhere.measures.tables import ALIKE, Reading, Table, Variables, estimated, scalar
from elsewhere.measures.unit_chunks import Floats, Stretch, add_all
from elsewhere.measures.vectors import dot_products

TIE = 1e-6
"""Cosines of mapped and of centred codes that differ by less are equal."""
NOISE = 1e-12
"""What rounding leaves of a code in double precision, as a share of its length."""
MINIMAL_CATEGORIES = 6
"""Below so many categories there are none to fit, to choose a penalty and to test on."""
FOLD_CATEGORIES = 5
"""Categories that are tested together, at least, where there are enough for two folds."""
MOST_FOLDS = 5
N_PARTITIONS = 4
"""Partitions of the categories into folds, drawn by the seed, over which everything is averaged."""
MANY_OBJECTS = 100
"""Of more objects than this one partition is enough: the cost grows as their cube."""
N_SHUFFLES = 5
"""Shuffled pairings of each fit, for the null."""
MAP_COSTS = 0.1
"""What a map may lack of the share told without it, where nothing moves, before it is said."""
DIFFERENCES = {
    "identification_lost": ("identification_ceiling", "identification_mapped_away"),
    "identification_hidden": ("identification_mapped_away", "identification_raw_away"),
}
"""Shares less others, whose intervals come from those of both."""


@dataclass(frozen=True)
class Identification:
    """How often an object is told among objects of other categories by its code elsewhere.

    All are means over the objects of a category first; a row for each category that has a value.

    Parameters
    ----------
    raw, centred, mapped
        float64 (category, location), 0..1: by the code as it is, less the mean over objects at each
        of the two places, and through the map. At the reference `mapped` is the ceiling: what the
        map costs where nothing has moved.
    null
        float64 (category, location): through maps that were fitted to shuffled pairs.
    chance
        One over the number of candidates, the mean over the objects of a category first, as values
        are. Objects of a category that look alike are fewer candidates than they count for: then
        what is reached without knowing anything is `null`, which lies above.
    strength
        float64 (location,): median penalty, as a share of the mean eigenvalue.
    reference
        Flat index of the reference.
    """

    raw: Floats
    centred: Floats
    mapped: Floats
    null: Floats
    chance: float
    strength: Floats
    reference: int

    def away(self, name: str) -> Floats:
        """Return `raw`, `centred`, `mapped` or `null` away from the reference, (category,)."""
        values: Floats = np.delete(getattr(self, name), self.reference, axis=1)
        if not values.shape[1]:
            return np.full(len(values), np.nan)
        mean: Floats = values.mean(axis=1)
        return mean

    @property
    def ceiling(self) -> Floats:
        """`mapped` at the reference, (category,)."""
        found: Floats = self.mapped[:, self.reference]
        return found


class IdentificationTally:
    """Sums the products that identification needs over stretches of units."""

    def __init__(self, codes: NDArray[np.int64], n_locations: int, reference: int) -> None:
        n = len(codes)
        self._codes, self._reference = codes, reference
        self._grams = np.zeros((n_locations, n, n))
        self._moved = np.zeros((n_locations, n, n))
        self._units = np.zeros((n_locations, n, n))
        self._unit_squares = np.zeros((n_locations, n))
        self._squares = np.zeros((n_locations, n))
        self._zero = np.zeros((n_locations, n), dtype=bool)
        self._rounding = 0.0

    def add(self, stretch: Stretch) -> None:
        """Add a stretch of units.

        Whatever codes share is removed in double precision, so that its rounding does not decide.
        """
        home = self._reference
        self._rounding = max(self._rounding, stretch.rounding)
        inverse = stretch.lengths_of("cosine").inverse.T
        self._zero = inverse == 0
        shared = np.zeros(stretch.shape[2])
        for rows, scale in zip(stretch.values, inverse.T, strict=True):
            shared += scale @ rows
        shared /= inverse.size
        here = stretch.values[:, home].astype(np.float64)
        here_unit = here * inverse[home][:, None] - shared
        here_less = here - here.mean(axis=0)
        for location in range(len(self._grams)):
            there = stretch.values[:, location].astype(np.float64)
            unit = there * inverse[location][:, None] - shared
            less = there - there.mean(axis=0)
            self._squares[location] += np.einsum("ou,ou->o", there, there)
            self._unit_squares[location] += np.einsum("ou,ou->o", unit, unit)
            self._units[location] += dot_products(unit, here_unit)
            self._grams[location] += dot_products(less, less)
            self._moved[location] += dot_products(less, here_less)

    def value(self, *, seed: int = 0) -> Identification | None:
        """Return what was identified, or None where that cannot be asked.

        That is with fewer than 6 categories, and where all objects have the same code at the
        reference. `seed` is that of the partitions of the categories and of the shuffles.
        """
        names = np.unique(self._codes)
        n, home = len(self._codes), self._reference
        scale = np.maximum(self._squares.sum(axis=1), np.finfo(float).tiny)
        traces = np.trace(self._grams, axis1=1, axis2=2)
        flat = traces <= max(self._rounding**2, NOISE**2) * scale
        if len(names) < MINIMAL_CATEGORIES or flat[home]:
            return None
        grams = np.where(flat[:, None, None], 0.0, self._grams)
        raw, tie = self._nearness()
        own = np.sqrt(np.maximum(np.einsum("pii->pi", grams), 0.0))
        centred = _cosines(np.where(flat[:, None, None], 0.0, self._moved), own, own[home])
        shape = (len(grams), n)
        hits = {name: np.zeros(shape) for name in ("raw", "centred", "mapped", "null")}
        strengths: list[Floats] = []
        chances = np.zeros(n)
        rng = np.random.default_rng(seed)
        n_partitions = N_PARTITIONS if n <= MANY_OBJECTS else 1
        for test in _partitions(self._codes, n_partitions, rng):
            train = np.setdiff1d(np.arange(n), test)
            others = self._codes[test][:, None] != self._codes[test][None]
            chances[test] += 1.0 / (1 + others.sum(axis=1)) / n_partitions
            fits = MoveMaps(grams, home, train, test, self._codes, rng)
            both = np.ix_(np.arange(len(grams)), test, test)
            hits["raw"][:, test] += _told(raw[both], others, tie[:, test])
            hits["centred"][:, test] += _told(centred[both], others)
            hits["mapped"][:, test] += _told(fits.scores(), others)
            for _ in range(N_SHUFFLES):
                found = fits.scores(rng.permutation(len(train)))
                hits["null"][:, test] += _told(found, others) / N_SHUFFLES
            strengths.append(fits.strengths)
        by_category = {
            name: np.stack([values[:, self._codes == code].mean(axis=1) for code in names])
            / n_partitions
            for name, values in hits.items()
        }
        return Identification(
            **by_category,
            chance=float(balanced_mean(chances, self._codes)),
            strength=np.median(strengths, axis=0),
            reference=home,
        )

    def _nearness(self) -> tuple[Floats, Floats]:
        """Return cosines less 1, (location, object there, object here), and what rounding may do.

        A cosine less 1 is half the squared distance of vectors of length one, which keeps its
        digits where all codes are alike.
        """
        home = self._reference
        squares = self._unit_squares[:, :, None] + self._unit_squares[home]
        distances = np.maximum(squares - 2 * self._units, 0.0) / 2
        distances[self._zero[:, :, None] | self._zero[home]] = 1.0
        right = np.einsum("pii->pi", distances)
        return -distances, self._rounding * (2 * np.sqrt(right) + self._rounding)


def _cosines(products: Floats, there: Floats, here: Floats) -> Floats:
    """Return cosines, 0 where a vector is zero: (location, object there, object here)."""
    lengths = there[:, :, None] * here[None, None, :]
    return np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1.0), 0.0)


def _told(scores: Floats, others: NDArray[np.bool_], tie: ArrayLike = TIE) -> Floats:
    """Return for each object the share in which its own candidate is taken, (location, object).

    `scores` is (location, object, candidate). Candidates whose scores differ by no more than `tie`
    (a number, or one for each location and object) share the answer.
    """
    within = np.broadcast_to(np.asarray(tie), scores.shape[:2])
    own = np.einsum("pii->pi", scores)
    rivals = np.where(others[None], scores, -np.inf)
    largest = np.maximum(rivals.max(axis=-1), own)
    ties = (rivals >= (largest - within)[..., None]).sum(axis=-1)
    return np.where(own >= largest - within, 1.0 / (1 + ties), 0.0)


def _partitions(codes: Indices, n: int, rng: np.random.Generator) -> Iterator[Indices]:
    """Yield the test objects of every fold of `n` partitions of the categories."""
    names = np.unique(codes)
    for _ in range(n):
        yield from folds(names, folds_of(len(names)), codes, rng)


def folds_of(n_categories: int) -> int:
    """Return into how many folds so many categories are dealt."""
    return int(np.clip(n_categories // FOLD_CATEGORIES, 2, MOST_FOLDS))


def identification(
    activations: ArrayLike,
    *,
    categories: Sequence[object] | None = None,
    reference: int = 0,
    seed: int = 0,
) -> Identification:
    r"""Return how often objects are identified elsewhere: raw, centred, and through a linear map.

    An object at location p is compared with candidates at the reference r: itself, and objects of
    other categories. It is identified where its cosine with itself is the largest. *Raw* takes the
    codes as they are; *centred* removes the mean over objects at each place; *mapped* first applies
    the ridge regression from codes at p to codes at r that was fitted on objects of *other
    categories*,

    .. math:: W = \arg\min \sum_i |a_i(r) - \bar a(r) - W (a_i(p) - \bar a(p))|^2 + \lambda |W|^2

    whose penalty is chosen by folds over the categories of the fit. What ``mapped`` has above
    ``raw`` was *hidden* by the move (a map undoes it); what it lacks of its own value at the
    reference, the ceiling, is *lost* to a linear map. The map belongs to one move: it is fitted and
    asked at the same two places, on different objects and categories.

    Parameters
    ----------
    activations
        Shape (object, location, unit), floating.
    categories
        One per object; each its own by default.
    reference
        Index of the location that the candidates stand at.
    seed
        Of the partitions of the categories, and of the shuffles of the null.

    Returns
    -------
    Identification
        Values by category and location, 0..1.

    Raises
    ------
    InputError
        Fewer than 6 categories, a reference that is not among the locations, or objects that all
        have the same code there.

    References
    ----------
    The identification of one among n through a fitted linear map follows Kay et al. (2008), Nature
    452:352-355, and Mitchell et al. (2008), Science 320:1191-1195; that it is asked across places
    of the same object is ours.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> here = rng.normal(size=(60, 12))
    >>> turn, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    >>> found = identification(np.stack([here, here @ turn], axis=1))
    >>> bool(found.away("raw").mean() < 0.25), bool(found.away("mapped").mean() > 0.95)
    (True, True)
    """
    stretch = Stretch.whole(activations, categories)
    n_locations = stretch.shape[1]
    if not 0 <= reference < n_locations:
        raise InputError(f"the reference {reference} is none of {n_locations} locations")
    tally = IdentificationTally(stretch.codes, n_locations, reference)
    add_all(stretch, tally)
    found = tally.value(seed=seed)
    if found is None:
        raise InputError(
            f"{len(set(stretch.codes.tolist()))} categories are too few, or all objects have the "
            f"same code at the reference; give at least {MINIMAL_CATEGORIES} categories that differ"
        )
    return found


def _read(table: Table) -> Reading:
    home = 0 if table.reference is None else table.reference
    tally = IdentificationTally(table.codes, table.n_positions, home)
    nothing = np.full((1, table.n_positions), np.nan)
    said: list[str] = []

    def read() -> Variables:
        found = None if table.reference is None else tally.value(seed=table.seed)
        values: dict[str, Floats] = {}
        variables: Variables = {}
        for name in ("raw", "centred", "mapped", "null"):
            by_category = nothing if found is None else getattr(found, name)
            values[name] = nothing[:, 0] if found is None else found.away(name)
            variables[f"identification_{name}"] = (("position",), by_category.mean(axis=0))
        values["ceiling"] = nothing[:, 0] if found is None else found.ceiling
        variables |= _share_variables("identification", values)
        chance, strength = (np.nan, nothing[0]) if found is None else (found.chance, found.strength)
        variables["identification_chance"] = scalar(chance)
        variables["identification_strength"] = (("position",), strength)
        several = table.sampled.unit == "category"
        if several and variables["identification_null_away_interval"][1][0] > chance:
            said.append(
                "shuffled pairs reach more than chance, for candidates of one category look alike: "
                "compare with identification_null"
            )
        if found is not None:
            plain, mapped = found.raw[:, home].mean(), found.ceiling.mean()
            if plain - mapped > MAP_COSTS:
                said.append(
                    f"where nothing moves the map tells {mapped:.0%} of objects, the code as it "
                    f"stands {plain:.0%}: with few objects a map has its cost; a negative "
                    "identification_hidden is that, and no finding"
                )
        return variables

    return Reading(tally, read, doubts=lambda: said)


def _share_variables(stem: str, values: dict[str, Floats]) -> Variables:
    """Return what is told, lost and hidden, from shares (category,), with intervals over these."""
    once = shared_fits(folds_of(len(values["mapped"])))
    # A category takes part in the fits of others, and in whom they are told from: means through
    # maps vary by 3.1 to 4.7 times what their categories' spread tells, in simulation.
    wider = {"null": once, "mapped": 2 * once - 1, "ceiling": 2 * once - 1}
    found: Variables = {}
    for name, each in values.items():
        key = f"{stem}_ceiling" if name == "ceiling" else f"{stem}_{name}_away"
        mean = each.mean()
        rest = Sampled.of(np.arange(len(each))).means_without(each) - mean
        without = mean + np.sqrt(wider.get(name, 1.0)) * rest
        found |= estimated(key, float(mean), without, share=True)
    for key, (more, less) in DIFFERENCES.items():
        pair = [found[end][1] for name in (more, less) for end in (name, f"{name}_without")]
        found[key] = scalar(float(pair[0] - pair[2]))
        found[f"{key}_interval"] = (("bound",), interval_between(*pair))
    return found


def _undefined(table: Table) -> str:
    if table.reference is None:
        return "the reference, where the candidates stand, is no location of the grid"
    if len(set(table.codes.tolist())) < MINIMAL_CATEGORIES:
        return (
            f"its map is fitted, weighed and asked on different categories: it takes at least "
            f"{MINIMAL_CATEGORIES}"
        )
    return f"at the reference {ALIKE}" if table.n_objects > 1 else ""


measures.add(
    "identification",
    Measure(
        identification,
        "share of objects at p whose largest cosine with candidates at r (itself and objects of "
        "other categories) is that with themselves; mapped: after the ridge regression from codes "
        "at p to codes at r that was fitted on other categories",
        ("kay2008", "mitchell2008"),
        literature={
            "kay2008": entry(
                "article",
                author="Kay, Kendrick N. and Naselaris, Thomas and Prenger, Ryan J. and "
                "Gallant, Jack L.",
                title="Identifying Natural Images from Human Brain Activity",
                journal="Nature",
                volume="452",
                number="7185",
                pages="352--355",
                year="2008",
            ),
            "mitchell2008": entry(
                "article",
                author="Mitchell, Tom M. and Shinkareva, Svetlana V. and Carlson, Andrew and "
                "Chang, Kai-Min and Malave, Vicente L. and Mason, Robert A. and Just, Marcel Adam",
                title="Predicting Human Brain Activity Associated with the Meanings of Nouns",
                journal="Science",
                volume="320",
                number="5880",
                pages="1191--1195",
                year="2008",
            ),
        },
        reading=_read,
        against=("all", "reference"),
        headline="identification_mapped_away",
        range="0..1",
        direction="higher: the object is told from others more often",
        chance="1 / number of candidates",
        question="Is the object lost by the move, or only hidden?",
        can="It separates what no linear map brings back (lost) from what the move only turned "
        "(hidden).",
        cannot="It cannot tell whether the network uses what the map finds; with few objects its "
        "ceiling is low.",
        least=6,
        metric="cosine",
        sketches=False,
        memory=lambda table: 6 * 8.0 * table.n_positions * table.n_objects**2,
        undefined=_undefined,
        differences=DIFFERENCES,
        interval="95 % interval over categories",
    ),
    summary="the object told among others: raw, centred, through a linear map (lost, or hidden?)",
)
