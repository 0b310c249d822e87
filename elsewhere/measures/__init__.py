"""Pure functions of arrays: every formula, every interval."""

import importlib
import pkgutil

from elsewhere.measures.catalogue import (
    DEFAULT_MEASURES,
    Measure,
    entry,
    measures,
    measures_named,
)
from elsewhere.measures.cka import cka_of_grams, linear_cka
from elsewhere.measures.consistency import consistency, strongest_consistency
from elsewhere.measures.cosines import LocationCosines, location_cosines
from elsewhere.measures.discrimination import discrimination
from elsewhere.measures.displacement import Displacements, displacement_map
from elsewhere.measures.identification import Identification, identification
from elsewhere.measures.intervals import Sampled, jackknife_t
from elsewhere.measures.partition import Partition, partition
from elsewhere.measures.phase import border_cells, change_shares, explain_change
from elsewhere.measures.position import PositionDecoding, position_decoding
from elsewhere.measures.rsa import compare_dissimilarities, dissimilarities, rsa
from elsewhere.measures.sensitivity import distance_matrix
from elsewhere.measures.similarity import contrast
from elsewhere.measures.sketch import cosine_error, sketch
from elsewhere.measures.tables import Reading, Table, estimated, matrix_variables, scalar
from elsewhere.measures.unit_chunks import Stretch
from elsewhere.measures.variance import (
    NormalizedVariance,
    normalized_deviation,
    normalized_variance,
)
from elsewhere.measures.vectors import dot_products

for _module in pkgutil.iter_modules(__path__):  # a measure is registered where it is defined
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "DEFAULT_MEASURES",
    "Displacements",
    "Identification",
    "LocationCosines",
    "Measure",
    "NormalizedVariance",
    "Partition",
    "PositionDecoding",
    "Reading",
    "Sampled",
    "Stretch",
    "Table",
    "border_cells",
    "change_shares",
    "cka_of_grams",
    "compare_dissimilarities",
    "consistency",
    "contrast",
    "cosine_error",
    "discrimination",
    "displacement_map",
    "dissimilarities",
    "distance_matrix",
    "dot_products",
    "entry",
    "estimated",
    "explain_change",
    "identification",
    "jackknife_t",
    "linear_cka",
    "location_cosines",
    "matrix_variables",
    "measures",
    "measures_named",
    "normalized_deviation",
    "normalized_variance",
    "partition",
    "position_decoding",
    "rsa",
    "scalar",
    "sketch",
    "strongest_consistency",
]
