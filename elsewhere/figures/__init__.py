"""Figures of finished results, in matplotlib.

``plot_similarity_maps``, ``plot_layerwise`` and ``plot_displacement`` draw a similarity result,
``plot_objects`` and ``plot_placements`` pictures; ``draw`` picks by name from ``figure_kinds``, and
``save_figure`` writes a file. Nothing here touches pyplot or changes global settings.
"""

from __future__ import annotations

from elsewhere.figures.curves import plot_displacement, plot_layerwise
from elsewhere.figures.kinds import draw, figure_kinds
from elsewhere.figures.maps import plot_similarity_maps
from elsewhere.figures.objects import ObjectsLike, plot_objects, plot_placements
from elsewhere.figures.save import FIGURE_EXTENSIONS, save_figure

__all__ = [
    "FIGURE_EXTENSIONS",
    "ObjectsLike",
    "draw",
    "figure_kinds",
    "plot_displacement",
    "plot_layerwise",
    "plot_objects",
    "plot_placements",
    "plot_similarity_maps",
    "save_figure",
]
