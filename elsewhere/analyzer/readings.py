"""From tallies over stretches of units to the variables of a result, one reading per measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from elsewhere.measures.bands import interval_between, interval_by_unit
from elsewhere.measures.centring import CentredTally, by_place_baseline
from elsewhere.measures.choices import (
    N_CANDIDATES,
    ChoiceTally,
    DiscriminationTally,
    consistency,
)
from elsewhere.measures.cosines import CentredCosineTally, CosineTally
from elsewhere.measures.displacement import (
    Displacements,
    DistanceTally,
    displacement_map,
    mean_off_diagonal,
)
from elsewhere.measures.geometry import (
    FEW_OBJECTS,
    MINIMAL_OBJECTS,
    GramTally,
    cka_of_grams,
    dissimilarities,
    left_out,
    rsa_of_grams,
)
from elsewhere.measures.identification import MINIMAL_CATEGORIES, IdentificationTally, folds_of
from elsewhere.measures.intervals import Sampled, jackknife_t, shared_fits
from elsewhere.measures.position import MAXIMAL_ROWS, PositionTally
from elsewhere.measures.similarity import DEAD_SHARE, contrast, partly_undefined, zero_vectors
from elsewhere.measures.stretches import BY_PLACE, CENTRED, REMOVALS, Floats, Tally
from elsewhere.measures.variance import NormalizedVariance, PartitionTally, VarianceTally

Variables = dict[str, tuple[tuple[str, ...], NDArray[np.float64]]]
"""Name to dimensions and values; ``position`` and ``reference`` stand for all axes."""

MATRIX = ("reference", "position")
JACKKNIFE_COST = 3e8
"""Numbers that leaving out each object may go through; beyond it there is no interval."""
MAP_COSTS = 0.1
"""What a map may lack of the share told without it, where nothing moves, before it is said."""
LEFT_OUT, SHARE_LEFT_OUT = "left_out", "left_out_of_share"
"""Dimensions of what each unit is left out of in turn; intervals of shares are of their own."""
ALL_REFERENCES = 2**23
"""Cosines of everything with everything that are kept; beyond it, with one location only."""


@dataclass(frozen=True)
class Table:
    """What is measured: objects by locations, of one layer.

    Parameters
    ----------
    codes
        int (object,), categories.
    places
        int (position, axis), px.
    reference
        Flat index of the reference, None where it is not among the positions.
    n_units
        Of the layer.
    vector
        Whether the layer has one dimension.
    seed
        Of choices.
    """

    codes: NDArray[np.int64]
    places: NDArray[np.int64]
    reference: int | None
    n_units: int
    vector: bool
    seed: int = 0

    @property
    def n_objects(self) -> int:
        """Number of objects."""
        return len(self.codes)

    @property
    def n_positions(self) -> int:
        """Number of locations."""
        return len(self.places)

    @cached_property
    def sampled(self) -> Sampled:
        """What is left out in turn: objects, or categories where one has several exemplars."""
        return Sampled.of(self.codes)

    @cached_property
    def apart(self) -> Displacements:
        """Displacements between all pairs of locations."""
        return Displacements.between(self.places)


@dataclass
class Reading:
    """A measure of one layer while its units stream by.

    Parameters
    ----------
    tally
        What sums.
    read
        From the finished tally to variables.
    metric
        The vectors' lengths that it needs, if any.
    doubts
        What has to be said of the numbers of this layer: ties, and what counts as zero.
    """

    tally: Tally
    read: Callable[[], Variables]
    metric: str | None = None
    doubts: Callable[[], list[str]] = list


def scalar(value: float) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Return a number per layer."""
    return ((), np.asarray(value, dtype=np.float64))


def estimated(name: str, value: float, without: Floats, *, share: bool = False) -> Variables:
    """Return a number, its interval and, for bands over layers, it without each unit in turn."""
    dim = SHARE_LEFT_OUT if share else LEFT_OUT
    return {
        name: scalar(value),
        f"{name}_interval": (("bound",), interval_by_unit(value, without, share=share)),
        f"{name}_without": ((dim,), without),
    }


def _matrix(name: str, matrix: Floats, table: Table, away: Floats | None = None) -> Variables:
    """Return a matrix over locations, its mean by displacement and its mean over all moves.

    `away` holds the mean over all moves without each unit in turn, for its interval.
    """
    mean = mean_off_diagonal(matrix)
    found: Variables = {
        name: (MATRIX, matrix),
        f"{name}_displaced": (("displacement",), table.apart.means(matrix)),
        f"{name}_away": scalar(mean),
    }
    return found | ({} if away is None else estimated(f"{name}_away", mean, away))


def _cosine(metric: str, table: Table, *, without: bool = True) -> Reading:
    apart, key = table.apart, metric.replace("-", "_")
    centred = metric in CENTRED
    anew = centred and not needs_lengths(metric, table)
    # Leaving out a category leaves out an object where each is a category of its own.
    several = without and not centred and len(np.unique(table.codes)) > 2
    several = several and matrices_kept(table) <= ALL_REFERENCES
    tally: CosineTally | CentredCosineTally
    if anew:
        tally, several = (
            CentredCosineTally(metric, table.codes, table.n_positions, apart.groups),
            True,
        )
    else:
        tally = CosineTally(metric, table.codes, table.n_positions, apart.groups, without=several)

    no_contrast: list[str] = []

    def read() -> Variables:
        found = tally.value()
        if np.isfinite(found.baseline).all() and np.isnan(found.G).all():
            no_contrast.append(
                "G is NaN, for different objects look alike (1 - baseline below 0.001)"
            )
        elif said := partly_undefined(found.G[~np.eye(len(found.G), dtype=bool)]):
            no_contrast.append(f"of moves, {said}")
        sizes = np.bincount(apart.groups[apart.groups >= 0], minlength=len(apart.values))
        each = found.by_group
        if anew:
            left_out = [apart.means(same) for same, _ in tally.without()]
            by_group = np.array(left_out).reshape(-1, len(sizes))
        else:
            by_group = table.sampled.means_without(each)[: 0 if centred else None]
        away = by_group @ sizes / max(sizes.sum(), 1)
        variables = _matrix(key, found.similarity, table, away)
        interval = jackknife_t(apart.means(found.similarity), by_group)
        variables[f"{key}_displaced_interval"] = (("displacement", "bound"), interval)
        over = _over_place(found.similarity, found.baseline)
        rest = np.array(
            [
                (mean_off_diagonal(other), mean_off_diagonal(contrast(same, other)),
                 _over_place(same, other))
                for same, other in tally.without()
            ]
        ).reshape(-1, 3)  # fmt: skip
        for place, (name, matrix) in enumerate((("baseline", found.baseline), ("G", found.G))):
            left = rest[:, place] if several else None
            variables |= _matrix(f"{key}_{name}", matrix, table, left)
        name = f"{key}_over_place_away"
        variables |= estimated(name, over, rest[:, 2]) if several else {name: scalar(over)}
        if isinstance(tally, CentredCosineTally):
            variables[f"{key}_zero_share"] = scalar(tally.found.zero.mean())
            for name in [name for name in variables if name.endswith("_without")]:
                dims, left = variables[name]
                variables[name] = dims, tally.found.among_all(left, len(table.sampled))
        return variables

    def doubts() -> list[str]:
        if not isinstance(tally, CentredCosineTally):
            return no_contrast
        found = tally.found
        zero = zero_vectors(metric, float(found.zero.mean()), float(found.dead.mean()))
        return [*no_contrast, *([zero] if zero else [])]

    return Reading(tally, read, metric, doubts)


def needs_lengths(name: str, table: Table) -> bool:
    """Return whether a measure needs the vectors' lengths before their products.

    Centred cosines do not where all products fit: their lengths follow from these.
    """
    if name in CENTRED:
        return (table.n_objects * table.n_positions) ** 2 > ALL_REFERENCES
    return name in METRIC_OF


def matrices_kept(table: Table) -> int:
    """Return how many numbers G without each category takes."""
    return 2 * len(np.unique(table.codes)) * table.n_positions**2


def _over_place(similarity: Floats, baseline: Floats) -> float:
    """Return the similarity elsewhere less that of another object in the same place."""
    return mean_off_diagonal(similarity) - float(np.diag(baseline).mean())


def _grams(
    name: str,
    table: Table,
    metric: str | None,
    compare: Callable[[Floats, Floats], Floats],
    doubts: Callable[[GramTally], list[str]] = lambda tally: [],
) -> Reading:
    n, n_positions = table.n_objects, table.n_positions
    tally = GramTally(n, n_positions, metric)

    def compare_both(both: Floats) -> Floats:
        return compare(both[:n_positions], both[n_positions:])

    def read() -> Variables:
        both = np.concatenate([tally.cleaned(), tally.floors()])
        away = None
        units = table.sampled
        if n**2 * len(units) * (n_positions + n_positions**2) <= JACKKNIFE_COST:
            away = left_out(
                both, lambda rest: np.asarray(mean_off_diagonal(compare_both(rest))), units.members
            )
        return _matrix(name, compare_both(both), table, away)

    return Reading(tally, read, metric, lambda: doubts(tally))


def _cka(table: Table) -> Reading:
    return _grams("cka", table, None, lambda grams, floors: cka_of_grams(grams, floors=floors))


def _cka_biased(table: Table) -> Reading:
    return _grams(
        "cka_biased",
        table,
        None,
        lambda grams, floors: cka_of_grams(grams, biased=True, floors=floors),
    )


def _rsa(table: Table) -> Reading:
    def doubts(tally: GramTally) -> list[str]:
        values = dissimilarities(tally.cleaned(), floors=tally.floors())
        share = float((values == 0).mean()) if values.size else 0.0
        if not share:
            return []
        return [f"{share:.2g} of the dissimilarities are no larger than rounding, and tie at 0"]

    return _grams("rsa", table, "pearson", rsa_of_grams, doubts)


def _variance(name: str, table: Table, *, deviations: bool) -> Reading:
    tally = VarianceTally(deviations=deviations)

    def read() -> Variables:
        found: NormalizedVariance = tally.value()
        return {
            name: scalar(found.median),
            f"{name}_ratio": scalar(found.ratio),
            "dead_unit_share": scalar(found.dead_share),
        }

    def doubts() -> list[str]:
        found, remarks = tally.value(), []
        if found.rounding_share:
            remarks.append(f"{found.rounding_share:.2g} of the units vary by rounding only, as 0")
        if found.dead_share > DEAD_SHARE:
            remarks.append(
                f"{found.dead_share:.0%} of the units never vary and are left out of the median"
            )
        return remarks

    return Reading(tally, read, doubts=doubts)


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


def _position(table: Table) -> Reading:
    tally = PositionTally(table.codes, table.places, seed=table.seed)

    def read() -> Variables:
        found = tally.value()
        return estimated("position_r2", found.r2, found.without) | {
            "position_r2_null": scalar(found.null),
            "position_r2_by_axis": (("axis",), found.per_axis),
            "position_strength": scalar(found.strength),
            "position_rows": scalar(found.n_rows),
        }

    return Reading(tally, read)


def _with_map(name: str, matrix: Floats, table: Table, away: Floats | None) -> Variables:
    variables = _matrix(name, matrix, table, away)
    if table.places.shape[1] == 2:
        _, _, values = displacement_map(matrix, table.places)
        variables[f"{name}_map"] = (("displacement_y", "displacement_x"), values)
    return variables


def _distance(table: Table) -> Reading:
    tally = DistanceTally(table.codes, table.n_positions)

    def read() -> Variables:
        matrix, unit = tally.value()
        away = None
        n, left = table.n_objects, table.sampled.members
        cost = len(left) * (n**2 + n * table.n_positions) * table.n_positions
        if len(left) > 2 and cost <= JACKKNIFE_COST:
            away = np.array([mean_off_diagonal(tally.value(without=m)[0]) for m in left])
        variables = _with_map("sensitivity_euclidean", matrix, table, away)
        variables["sensitivity_euclidean_unit"] = (("reference",), unit)
        return variables

    return Reading(tally, read)


def _sensitivity(table: Table) -> Reading:
    base = _cosine("cosine", table, without=False)

    def read() -> Variables:
        found = base.read()
        variables = _with_map("sensitivity_cosine", found["cosine"][1], table, None)
        for name in ("displaced_interval", "away_interval", "away_without"):
            variables[f"sensitivity_cosine_{name}"] = found[f"cosine_{name}"]
        return variables

    return Reading(base.tally, read, "cosine")


def _consistency(table: Table) -> Reading:
    tally = ChoiceTally(table.n_objects, table.n_positions)

    def read() -> Variables:
        choices, codes = tally.choices, table.codes
        found = consistency(choices, categories=codes.tolist())
        variables = _matrix("consistency", found.matrix, table)
        variables["consistency_chance"] = scalar(found.chance)
        variables["consistency_corrected"] = scalar(found.corrected)
        n, units = len(choices), table.sampled
        if len(units) > 2 and n * len(units) * table.n_positions**2 <= JACKKNIFE_COST:
            left = [np.setdiff1d(np.arange(n), members) for members in units.members]
            without = np.array(
                [consistency(choices[m], categories=codes[m].tolist()).corrected for m in left]
            )
            variables |= estimated("consistency_corrected", found.corrected, without)
        return variables

    def doubts() -> list[str]:
        share = tally.tied_share
        if not share:
            return []
        return [f"{share:.2g} of the vectors have several largest units: the first is taken"]

    return Reading(tally, read, doubts=doubts)


def discrimination_references(table: Table) -> Sequence[int]:
    """Return the locations that candidates stand at: all, or the reference if too many."""
    if (table.n_objects * table.n_positions) ** 2 <= ALL_REFERENCES:
        return range(table.n_positions)
    return [] if table.reference is None else [table.reference]


def _discrimination(table: Table) -> Reading:
    references = list(discrimination_references(table))
    tally = DiscriminationTally(table.codes, table.n_positions, references)

    def read() -> Variables:
        shares, rest = tally.value(candidates=N_CANDIDATES)
        matrices = np.full((1 + len(rest), table.n_positions, table.n_positions), np.nan)
        matrices[0, references] = shares.mean(axis=1)
        matrices[1:, references] = rest
        own, *without = map(mean_off_diagonal, matrices)
        return _matrix("discrimination", matrices[0], table) | estimated(
            "discrimination_away", own, np.array(without), share=True
        )

    return Reading(tally, read, "cosine")


def _identification(table: Table) -> Reading:
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
        variables |= _shares("identification", values)
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


def _shares(stem: str, values: dict[str, Floats]) -> Variables:
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


DIFFERENCES = {
    "identification_lost": ("identification_ceiling", "identification_mapped_away"),
    "identification_hidden": ("identification_mapped_away", "identification_raw_away"),
}
"""Shares less others, whose intervals come from those of both."""


READINGS: dict[str, Callable[[Table], Reading]] = {
    **{metric: lambda table, metric=metric: _cosine(metric, table) for metric in REMOVALS},  # type: ignore[misc]
    "cka": _cka,
    "cka-biased": _cka_biased,
    "rsa": _rsa,
    "normalized-variance": lambda table: _variance("normalized_variance", table, deviations=False),
    "normalized-deviation": lambda table: _variance("normalized_deviation", table, deviations=True),
    "partition": _partition,
    "position": _position,
    "sensitivity-euclidean": _distance,
    "sensitivity-cosine": _sensitivity,
    "consistency": _consistency,
    "discrimination": _discrimination,
    "identification": _identification,
}
"""What makes the reading of each measure of units."""

METRIC_OF = {
    **{metric: metric for metric in REMOVALS},
    "rsa": "pearson",
    "sensitivity-cosine": "cosine",
    "discrimination": "cosine",
}
"""What is removed before vectors are brought to length one, for the measures that do."""

REFUSES_SKETCHES = (
    "pearson",
    "cka",
    "cka-biased",
    "rsa",
    "normalized-variance",
    "normalized-deviation",
    "consistency",
    "discrimination",
    "identification",
)
"""A sketch lacks single units and the mean over them; squares of its products (CKA) and choices by
the largest of them are biased."""


def sums_bytes(name: str, table: Table) -> float:
    """Return the bytes that a measure's own sums take up, and its result while it is made."""
    n, p = table.n_objects, table.n_positions
    square, grams = 8.0 * p * p, 8.0 * p * n * n
    if name in ("cka", "cka-biased", "rsa"):
        return 4 * grams + 3 * square
    if name == "sensitivity-euclidean":
        return 8.0 * n * p * p + 4 * grams + 3 * square
    if name == "position":
        rows = min(n * p, MAXIMAL_ROWS)
        return 6 * 8.0 * rows * rows
    if name == "discrimination":
        return 8.0 * len(discrimination_references(table)) * n * p * n * 2 + 8.0 * n * p * p
    if name == "identification":
        return 6 * grams
    if name == "consistency":
        return 16.0 * n * p + n * p * p
    if name in ("normalized-variance", "normalized-deviation"):
        return 24.0 * table.n_units
    if name in CENTRED and not needs_lengths(name, table):
        return CentredTally.bytes_of(name, n, p, p) + 32.0 * n * p * p
    if name in METRIC_OF:
        kept = matrices_kept(table) if name in REMOVALS else 0
        kept = kept if kept <= ALL_REFERENCES else 0
        return 8.0 * kept + 8 * square + 16.0 * n * p
    return 8.0 * n * p


def undefined_because(name: str, table: Table) -> str:
    """Return why a measure has no value for a layer, in a few words."""
    n, p = table.n_objects, table.n_positions
    if p < 2:
        return "there is one location, so nothing moves"
    several = len(set(table.codes.tolist())) > 1
    if name == "consistency":
        if not several:
            return "all objects are of one category: chance is that of objects of other ones"
        return "a single unit is always the largest"
    candidates_at = {
        "discrimination": len(discrimination_references(table)),
        "identification": table.reference is not None,
    }
    if not candidates_at.get(name, True):
        return "the reference, where the candidates stand, is no location of the grid"
    if name == "identification" and len(set(table.codes.tolist())) < MINIMAL_CATEGORIES:
        return (
            f"its map is fitted, weighed and asked on different categories: it takes at least "
            f"{MINIMAL_CATEGORIES}"
        )
    if name == "discrimination":
        return (
            f"an object has fewer than {N_CANDIDATES - 1} others of other categories, each of a "
            "different one"
        )
    if name == "cka" and n < MINIMAL_OBJECTS:
        return f"the unbiased CKA needs at least {MINIMAL_OBJECTS} objects, got {n}"
    if name == "rsa" and n < 3:
        return f"RSA needs at least 3 objects, got {n}"
    if n < 2:
        return "there is one object"
    if name == "sensitivity-euclidean" and not several:
        return "all objects are of one category: there is no distance between categories"
    if name in ("cka", "cka-biased"):
        return f"at all locations but one at most {_ALIKE}"
    if name == "rsa":
        return (
            f"at all locations but one at most {_ALIKE}, or all objects are equally unlike each "
            "other: there is no order to compare"
        )
    if name == "sensitivity-euclidean":
        return f"at every location half of the pairs of objects or more have one code, or {_ALIKE}"
    if name == "identification":
        return f"at the reference {_ALIKE}"
    return "its activations are the same for all objects at all locations: nothing varies"


_ALIKE = "all objects have the same code (no response, dead, or it tells the place only)"


def remarks(name: str, table: Table) -> list[str]:
    """Return what has to be said of a measure whatever the layer."""
    found = []
    if name == BY_PLACE:
        found.append(by_place_baseline(table.n_objects))
    if name in CENTRED and needs_lengths(name, table):
        found.append(
            f"{name}: no intervals (NaN): the mean that is removed has to be that of the rest when "
            "an object is left out, which takes the products of all codes, and they are too many"
        )
    if name in REMOVALS and len(set(table.codes.tolist())) < 2:
        found.append(f"{name}: all objects are of one category: no baseline and no G (NaN)")
    if name == "cka" and MINIMAL_OBJECTS <= table.n_objects < FEW_OBJECTS:
        found.append(f"cka: {table.n_objects} objects are few; below {FEW_OBJECTS} it is noisy")
    if name == "discrimination" and len(discrimination_references(table)) < table.n_positions:
        found.append("discrimination: candidates stand at the reference only: too many for all")
    if name == "position" and table.n_objects * table.n_positions > MAXIMAL_ROWS:
        found.append(f"position: at most {MAXIMAL_ROWS} rows, locations drawn by the seed")
    return found
