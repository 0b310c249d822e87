"""What recordings and sweeps mean: similarity across locations, and all other measures."""

from elsewhere.analyzer.accuracy import accuracy, network_accuracy
from elsewhere.analyzer.all_measures import check_measures, measure
from elsewhere.analyzer.biscione_bowers import PROTOCOL, similarity_biscione_bowers
from elsewhere.analyzer.comparison import compare
from elsewhere.analyzer.equivariance import aligned_similarity
from elsewhere.analyzer.methods import describe_methods
from elsewhere.analyzer.rdms import dissimilarity_matrices, to_rsatoolbox
from elsewhere.analyzer.similarity import complete, finish, similarity
from elsewhere.measures.similarity_sink import METRICS, SimilaritySink, dead_layers

__all__ = [
    "METRICS",
    "PROTOCOL",
    "SimilaritySink",
    "accuracy",
    "aligned_similarity",
    "check_measures",
    "compare",
    "complete",
    "dead_layers",
    "describe_methods",
    "dissimilarity_matrices",
    "finish",
    "measure",
    "network_accuracy",
    "similarity",
    "similarity_biscione_bowers",
    "to_rsatoolbox",
]
