r"""Cross-location similarity, its different-object baselines and G, from pairwise cosines.

Write :math:`c_{o'o}(p)` for the cosine of object o' at position p with object o at the reference.

- similarity :math:`I(p)`: the mean over objects of :math:`c_{oo}(p)`;
- baseline across places :math:`D_{cross}(p)`: the mean of :math:`c_{o'o}(p)` over pairs of objects
  of different categories;
- baseline at the same place :math:`D_{same}(p)`: the mean over such pairs of the cosine of the two
  objects, both at p;
- :math:`G(p) = (I(p) - D_{cross}(p)) / (1 - D_{cross}(p))`: 1 for a code that is invariant and
  selective, 0 for one in which the same object elsewhere is no more alike than another object.

None of the means over pairs holds an object with itself.
"""

from __future__ import annotations

import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.forms import layer_labels
from elsewhere.measures.intervals import Sampled, jackknife_t, known_mean
from elsewhere.measures.tables import LEFT_OUT, Variables

Floats = NDArray[np.float64]

DEAD_SHARE = 0.05
"""Above this share of zero vectors a layer is flagged: dead must not read as 'not invariant'."""
REMOVED = {
    "centred": "the mean",
    "centred-by-place": "the mean at each place",
    "evoked": "the empty canvas's code",
    "pearson": "the mean over units",
}
"""What a metric removes, in words."""


def zero_vectors(metric: str, share: float, dead: float) -> str:
    """Return what has to be said of many vectors that count as cosine 0; nothing if they are few.

    `share` is that of vectors of which nothing is left once `metric` is removed, `dead` that of
    those which were zero before.

    Examples
    --------
    >>> zero_vectors("evoked", 0.01, 0.0), zero_vectors("cosine", 0.2, 0.2)
    ('', "20% zero vectors, which count as cosine 0 (dead, not 'not invariant')")
    """
    if share <= DEAD_SHARE:
        return ""
    if dead > DEAD_SHARE and metric.startswith("centred"):
        return f"{share:.0%} zero vectors (dead), which are alike once a mean is removed"
    if dead > DEAD_SHARE:
        return f"{dead:.0%} zero vectors, which count as cosine 0 (dead, not 'not invariant')"
    return (
        f"{share:.0%} of the vectors are no larger than rounding once {REMOVED[metric]} is "
        "removed, and count as cosine 0"
    )


MINIMAL_CONTRAST = 1e-3
"""G is undefined (NaN) where ``1 - D_cross`` is smaller than this."""
UNDEFINED_SHARE = 0.05
"""Above this share of places without G it is said that its mean is over the others only."""


def contrast(similarity: Floats, baseline: Floats) -> Floats:
    r"""Return :math:`G = (I - D) / (1 - D)`, NaN where ``1 - D < 1e-3``.

    Examples
    --------
    >>> contrast(np.array([1.0, 0.5, 0.7]), np.array([0.5, 0.5, 1.0]))
    array([ 1.,  0., nan])
    """
    room = 1.0 - baseline
    safe = np.where(room >= MINIMAL_CONTRAST, room, 1.0)
    return np.where(room >= MINIMAL_CONTRAST, (similarity - baseline) / safe, np.nan)


def partly_undefined(g: Floats) -> str:
    """Return what has to be said where G has no value at a part of what it is averaged over.

    Examples
    --------
    >>> partly_undefined(np.array([0.5, np.nan, 0.3, 0.2]))
    'G is undefined at 1 of 4 (25%), where different objects look alike: its mean is of the others'
    >>> partly_undefined(np.ones(4)), partly_undefined(np.full(4, np.nan))
    ('', '')
    """
    n, missing = g.size, int(np.isnan(g).sum())
    if missing == n or missing <= UNDEFINED_SHARE * n:
        return ""
    return (
        f"G is undefined at {missing} of {n} ({missing / n:.0%}), where different objects look "
        "alike: its mean is of the others"
    )


def below_zero(result: xarray.Dataset) -> list[str]:
    """Return what has to be said of layers of which the interval of G lies wholly below 0."""
    found: dict[str, None] = {}
    for name in map(str, result.data_vars):
        bounds = f"{name}_interval"
        if name.endswith("_G_away") and bounds in result and not name.startswith("aligned"):
            below = result[bounds].sel(bound="high").values < 0
            found |= dict.fromkeys(np.array(layer_labels(result))[below].tolist())
    if not found:
        return []
    return [
        f"G lies wholly below 0 in {', '.join(found)}: what a map has of an object stays where the "
        "object is, and moved by less than its size it falls out of step with itself, so that "
        "another object there is more like it; the code is not invariant, and the sign says no more"
    ]


def n_cross_pairs(codes: NDArray[np.int64]) -> int:
    """Return the number of ordered pairs of objects of different categories."""
    counts = np.bincount(codes)
    return int(len(codes) ** 2 - (counts**2).sum())


def summarise_similarity(
    *,
    own: Floats,
    rows: Floats,
    columns: Floats,
    same: Floats,
    codes: NDArray[np.int64],
    reference_index: int | None,
    include_reference: bool = False,
) -> Variables:
    """Return similarity, baselines and G from sums of cosines.

    Parameters
    ----------
    own
        Shape (object, position): cosine of each object with itself at the reference.
    rows
        Shape (object, position): for each object at the position, the sum of its cosines with the
        objects of other categories at the reference.
    columns
        Shape (object, position): for each object at the reference, the sum of its cosines with
        the objects of other categories at the position.
    same
        Shape (object, position): for each object, the sum of its cosines with the objects of other
        categories, both at the position.
    codes
        Shape (object,): category numbers.
    reference_index
        The reference's position, or None where it is not among the positions.
    include_reference
        Whether the reference counts in the means over positions (the authors' protocol), but for
        those of G, which is NaN there.

    Returns
    -------
    Variables
        By what follows the metric in their names. Intervals are delete-one jackknife-t over
        objects, or over categories where one has several exemplars
        (:class:`elsewhere.measures.intervals.Sampled`). They are NaN for fewer than two units, and
        those of baselines where leaving one out leaves no pair.
    """
    n_positions = own.shape[1]
    pairs = n_cross_pairs(codes)
    units = Sampled.of(codes)
    left = [np.delete(codes, members) for members in units.members]
    pairs_without = np.array([n_cross_pairs(rest) for rest in left], dtype=np.float64)[:, None]
    cross_total = rows.sum(axis=0)

    mean_without = units.means_without(own)
    # No pair lies within a unit: objects of a category are never paired with each other.
    some, involved = pairs_without > 0, units.sums(rows + columns)
    cross_without = (cross_total - involved) / np.where(some, pairs_without, 1.0)
    cross_without = np.where(some, cross_without, np.nan)[: len(mean_without)]
    whole = same.sum(axis=0)
    rest = (whole - 2 * units.sums(same)) / np.where(some, pairs_without, 1.0)
    same_without = np.where(some, rest, np.nan)[: len(mean_without)]
    return summarise_means(
        similarity=own.mean(axis=0),
        cross=cross_total / pairs if pairs else np.full(n_positions, np.nan),
        same=whole / pairs if pairs else np.full(n_positions, np.nan),
        similarity_without=mean_without,
        cross_without=cross_without,
        same_without=same_without,
        reference_index=reference_index,
        include_reference=include_reference,
    )


def summarise_means(
    *,
    similarity: Floats,
    cross: Floats,
    same: Floats,
    similarity_without: Floats,
    cross_without: Floats,
    same_without: Floats,
    reference_index: int | None,
    include_reference: bool = False,
) -> Variables:
    """Return similarity, baselines and G from means over objects and over pairs.

    `similarity`, `cross` and `same` (position,) are of an object with itself, and of different ones
    across places and in one; those ``*_without`` (unit, position) are the same without each of what
    was sampled in turn. The rest is as for :func:`summarise_similarity`.
    """
    chosen = np.ones(len(similarity), dtype=bool)
    if reference_index is not None and not include_reference:
        chosen[reference_index] = False
    found: Variables = {}

    def add(key: str, value: Floats, without: Floats, *over: str) -> None:
        found[key] = (over, np.asarray(value))
        found[f"{key}_interval"] = ((*over, "bound"), jackknife_t(value, without))

    def add_both(key: str, value: Floats, without: Floats) -> tuple[Floats, Floats]:
        away = known_mean(value[..., chosen]), known_mean(without[..., chosen])
        add(key, value, without, "position")
        add(f"{key}_away", *away)
        return away

    alike, alike_without = add_both("", similarity, similarity_without)
    add_both("_baseline", cross, cross_without)
    together, together_without = add_both("_baseline_same", same, same_without)
    add("_over_place_away", alike - together, alike_without - together_without)
    g, g_without = contrast(similarity, cross), contrast(similarity_without, cross_without)
    if reference_index is not None:  # 1 by definition
        g[reference_index], g_without[..., reference_index] = np.nan, np.nan
    _, left_out = add_both("_G", g, g_without)
    return {"_G_away_without": ((LEFT_OUT,), left_out), **found}
