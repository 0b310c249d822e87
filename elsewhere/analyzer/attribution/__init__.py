"""What in the picture drives a network's answer, and whether it moves with the object."""

from elsewhere.analyzer.attribution.driver import attribute
from elsewhere.analyzer.attribution.explain import Explainer
from elsewhere.analyzer.attribution.methods import methods
from elsewhere.analyzer.attribution.sanity import sanity
from elsewhere.analyzer.attribution.settings import AttributionSettings
from elsewhere.analyzer.attribution.summaries import check_joinable, join, maps_of
from elsewhere.analyzer.attribution.targets import (
    ClassTarget,
    LinearTarget,
    SimilarityTarget,
    parse_target,
)
from elsewhere.analyzer.attribution.timeline import attribute_checkpoints

__all__ = [
    "AttributionSettings",
    "ClassTarget",
    "Explainer",
    "LinearTarget",
    "SimilarityTarget",
    "attribute",
    "attribute_checkpoints",
    "check_joinable",
    "join",
    "maps_of",
    "methods",
    "parse_target",
    "sanity",
]
