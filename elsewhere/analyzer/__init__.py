"""What recordings and sweeps mean: similarity across locations."""

from elsewhere.analyzer.biscione_bowers import PROTOCOL, similarity_biscione_bowers
from elsewhere.analyzer.similarity import METRICS, SimilaritySink, dead_layers, finish, similarity

__all__ = [
    "METRICS",
    "PROTOCOL",
    "SimilaritySink",
    "dead_layers",
    "finish",
    "similarity",
    "similarity_biscione_bowers",
]
