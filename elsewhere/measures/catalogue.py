"""All measures by name: function, formula, source, and where it is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from elsewhere.errors import UnknownNameError
from elsewhere.measures.accuracy import invariance_index, normalized_accuracy
from elsewhere.measures.changes import explain_change
from elsewhere.measures.choices import discrimination, strongest_consistency
from elsewhere.measures.cosines import (
    centred_by_place_matrix,
    centred_matrix,
    cosine_matrix,
    evoked_matrix,
    pearson_matrix,
)
from elsewhere.measures.displacement import distance_matrix, sensitivity_map
from elsewhere.measures.geometry import linear_cka, rsa
from elsewhere.measures.identification import identification
from elsewhere.measures.position import position_decoding
from elsewhere.measures.similarity import contrast
from elsewhere.measures.variance import normalized_deviation, normalized_variance, partition
from elsewhere.registry import Registry

Taken = Literal["units", "maps", "cosine", "accuracy"]


@dataclass(frozen=True)
class Measure:
    """A measure.

    Parameters
    ----------
    function
        A pure function of arrays.
    formula
        In one line, as a methods section has it.
    sources
        Keys of the bibliography.
    taken
        From the ``units`` of any layer, from feature ``maps`` kept in full, as a part of
        ``cosine`` and its variants, or by ``elsewhere accuracy``.
    pairwise
        Whether it compares two locations, and so gives a matrix over them.
    headline
        The variable that holds one number per layer.
    """

    function: Callable[..., Any]
    formula: str
    sources: tuple[str, ...]
    taken: Taken = "units"
    pairwise: bool = False
    headline: str = ""


measures: Registry[Measure] = Registry("measure")


def _add(name: str, summary: str, measure: Measure) -> None:
    measures.add(name, measure, summary=summary)


for _name, _function, _removed in (
    ("cosine", cosine_matrix, ""),
    ("centred", centred_matrix, ", less the mean over objects and locations"),
    (
        "centred-by-place",
        centred_by_place_matrix,
        ", less the mean over objects at each location",
    ),
    ("evoked", evoked_matrix, ", less the empty canvas's activation"),
    ("pearson", pearson_matrix, ", less each vector's mean over units"),
):
    _add(
        _name,
        f"cosine between locations{_removed}; with its baseline and G",
        Measure(
            _function,
            f"mean over objects of a(o,p).a(o,r) / (|a(o,p)| |a(o,r)|){_removed}",
            ("biscione2021",),
            pairwise=True,
            headline=f"{_name.replace('-', '_')}_away",
        ),
    )
_add(
    "G",
    "same object against another one there; comes with every cosine",
    Measure(contrast, "(I - D) / (1 - D)", (), taken="cosine", pairwise=True),
)
_add(
    "aligned",
    "cosine of maps moved back with the object, G, and plain G beside it",
    Measure(
        contrast,
        "cosine of a(p) - a(empty), moved back by (p - r)/J cells, with a(r) - a(empty), over the "
        "cells around the object",
        ("lenc2015",),
        taken="maps",
        headline="aligned_G_away",
    ),
)
_add(
    "cka",
    "linear CKA, unbiased: geometry preserved across the move",
    Measure(
        linear_cka,
        "HSIC(K_p, K_q) / sqrt(HSIC(K_p, K_p) HSIC(K_q, K_q)), HSIC unbiased",
        ("kornblith2019", "song2012"),
        pairwise=True,
        headline="cka_away",
    ),
)
_add(
    "cka-biased",
    "linear CKA, biased (near 1 for few objects)",
    Measure(
        linear_cka,
        "HSIC(K_p, K_q) / sqrt(HSIC(K_p, K_p) HSIC(K_q, K_q)), HSIC biased",
        ("kornblith2019",),
        pairwise=True,
        headline="cka_biased_away",
    ),
)
_add(
    "rsa",
    "RSA, 1 - Pearson compared by Spearman: geometry preserved across the move",
    Measure(
        rsa,
        "Spearman correlation of the dissimilarities (1 - Pearson over units) of all pairs of "
        "objects at p and at q",
        ("kriegeskorte2008",),
        pairwise=True,
        headline="rsa_away",
    ),
)
_add(
    "normalized-variance",
    "variance over locations over variance over objects",
    Measure(
        normalized_variance,
        "per unit, mean_o var_p a / mean_p var_o a; median over units",
        ("quiroga2023",),
        headline="normalized_variance",
    ),
)
_add(
    "normalized-deviation",
    "the same from standard deviations, as its authors' code",
    Measure(
        normalized_deviation,
        "per unit, mean_o sd_p a / mean_p sd_o a; median over units",
        ("quiroga2023",),
        headline="normalized_deviation",
    ),
)
_add(
    "partition",
    "shares of object, location and interaction in the variation",
    Measure(
        partition,
        "sums of squares of a(o,p) by object, by location and for both together, over their sum",
        ("dicarlo2007", "hong2016"),
        headline="object_share",
    ),
)
_add(
    "position",
    "cross-validated R2 of a ridge regression of (y, x)",
    Measure(
        position_decoding,
        "R2 of (y, x) read by ridge regression from objects that were not trained on",
        ("hong2016",),
        headline="position_r2",
    ),
)
_add(
    "sensitivity-euclidean",
    "normalised Euclidean distance, with its map over displacements",
    Measure(
        distance_matrix,
        "mean_o |a(o,p) - a(o,r)| / median distance of two objects of different categories at r",
        ("kauderer2017",),
        pairwise=True,
        headline="sensitivity_euclidean_away",
    ),
)
_add(
    "sensitivity-cosine",
    "cosine, with its map over displacements",
    Measure(
        sensitivity_map,
        "cosine of a(o,p) and a(o,r), averaged over all pairs with the same p - r",
        ("myburgh2021",),
        pairwise=True,
        headline="sensitivity_cosine_away",
    ),
)
_add(
    "consistency",
    "same largest unit at two locations, with chance (vectors only)",
    Measure(
        strongest_consistency,
        "share of pairs p < q with the same argmax; (value - chance) / (1 - chance), chance being "
        "the share of equal pairs among objects of different categories at p != q",
        ("zhang2019",),
        pairwise=True,
        headline="consistency_corrected",
    ),
)
_add(
    "discrimination",
    "the object told among five by the largest cosine",
    Measure(
        discrimination,
        "share of objects at p whose largest cosine with 5 candidates at r (four others, each of "
        "another category, averaged over all draws) is that with themselves",
        (),
        pairwise=True,
        headline="discrimination_away",
    ),
)
_add(
    "identification",
    "the object told among others: raw, centred, through a linear map (lost, or hidden?)",
    Measure(
        identification,
        "share of objects at p whose largest cosine with candidates at r (itself and objects of "
        "other categories) is that with themselves; mapped: after the ridge regression from codes "
        "at p to codes at r that was fitted on other categories",
        ("kay2008", "mitchell2008"),
        headline="identification_mapped_away",
    ),
)
_add(
    "phase",
    "a map's change: pure shift, border, sub-stride phase",
    Measure(
        explain_change,
        "|e(p) - e(r)|^2 split into what moving e(r) by (p - r)/J cells explains, what it leaves "
        "at the border, and the rest; e = a - a(empty)",
        ("azulay2019", "zhang2019"),
        taken="maps",
        headline="shift_share_out_of_phase",
    ),
)
_add(
    "accuracy-map",
    "share of the way from chance to 1, per location",
    Measure(
        normalized_accuracy,
        "(accuracy - 1/K) / (1 - 1/K)",
        ("biscione2021",),
        taken="accuracy",
    ),
)
_add(
    "invariance-index",
    "accuracy elsewhere over accuracy where trained",
    Measure(invariance_index, "N(elsewhere) / N(trained)", ("biscione2021",), taken="accuracy"),
)

DEFAULT_MEASURES = ("cosine", "cka", "rsa", "normalized-variance", "partition", "position")


def measures_named(names: str | list[str] | tuple[str, ...] | None) -> list[str]:
    """Return the names of measures that `names` (a list, or a text with commas) mean.

    Raises
    ------
    UnknownNameError
        No such measure; the message has the nearest ones.

    Examples
    --------
    >>> measures_named("cka, rsa")
    ['cka', 'rsa']
    """
    if names is None:
        return list(DEFAULT_MEASURES)
    texts = [names] if isinstance(names, str) else list(names)
    wanted = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    for name in wanted:
        if name not in measures:
            raise UnknownNameError("measure", name, measures)
    return list(dict.fromkeys(wanted))
