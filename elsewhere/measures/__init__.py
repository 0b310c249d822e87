"""Pure functions of arrays: every formula, every interval."""

from elsewhere.measures.intervals import jackknife_t
from elsewhere.measures.similarity import contrast, summarise_similarity
from elsewhere.measures.sketch import cosine_error, sketch
from elsewhere.measures.vectors import dot_products

__all__ = [
    "contrast",
    "cosine_error",
    "dot_products",
    "jackknife_t",
    "sketch",
    "summarise_similarity",
]
