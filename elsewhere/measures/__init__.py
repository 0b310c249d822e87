"""Pure functions of arrays: every formula, every interval."""

from elsewhere.measures.catalogue import DEFAULT_MEASURES, Measure, measures, measures_named
from elsewhere.measures.changes import border_cells, change_shares, explain_change
from elsewhere.measures.choices import (
    consistency,
    discrimination,
    share_correct,
    strongest_consistency,
)
from elsewhere.measures.cosines import LocationCosines, cosine_matrix, location_cosines
from elsewhere.measures.displacement import (
    Displacements,
    displacement_map,
    distance_matrix,
    sensitivity_map,
)
from elsewhere.measures.geometry import (
    cka_of_grams,
    compare_dissimilarities,
    dissimilarities,
    linear_cka,
    rsa,
)
from elsewhere.measures.identification import Identification, identification
from elsewhere.measures.intervals import Sampled, jackknife_t
from elsewhere.measures.position import PositionDecoding, position_decoding
from elsewhere.measures.similarity import contrast, summarise_similarity
from elsewhere.measures.sketch import cosine_error, sketch
from elsewhere.measures.variance import (
    NormalizedVariance,
    Partition,
    normalized_deviation,
    normalized_variance,
    partition,
)
from elsewhere.measures.vectors import dot_products

__all__ = [
    "DEFAULT_MEASURES",
    "Displacements",
    "Identification",
    "LocationCosines",
    "Measure",
    "NormalizedVariance",
    "Partition",
    "PositionDecoding",
    "Sampled",
    "border_cells",
    "change_shares",
    "cka_of_grams",
    "compare_dissimilarities",
    "consistency",
    "contrast",
    "cosine_error",
    "cosine_matrix",
    "discrimination",
    "displacement_map",
    "dissimilarities",
    "distance_matrix",
    "dot_products",
    "explain_change",
    "identification",
    "jackknife_t",
    "linear_cka",
    "location_cosines",
    "measures",
    "measures_named",
    "normalized_deviation",
    "normalized_variance",
    "partition",
    "position_decoding",
    "rsa",
    "sensitivity_map",
    "share_correct",
    "sketch",
    "strongest_consistency",
    "summarise_similarity",
]
