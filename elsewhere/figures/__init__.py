"""Figures of finished results, in matplotlib.

``plot_similarity_maps``, ``plot_layerwise`` and ``plot_displacement`` draw a similarity result,
``plot_layerwise_change`` two of them; ``plot_accuracy_maps`` and ``plot_accuracy_displacement``
results of accuracy; ``plot_probe_maps``, ``plot_probe_matrix`` and ``plot_probe_layerwise`` a
result of probes; ``plot_attribution_grid``, ``plot_attribution_frame``,
``plot_attribution_equivariance`` and ``plot_attribution_timeline`` attribution maps, and
``plot_sanity`` their sanity tests; ``plot_windows`` where a spatial transformer looks;
``plot_acquisition`` and ``plot_interference`` a track over checkpoints;
``plot_claims`` the claims with their verdicts, ``plot_comparison`` several results side by side;
``plot_objects`` and ``plot_placements`` pictures.
``page`` sets the size of what is drawn within it.
``draw`` picks by name from ``figure_kinds``, for a page or a slide, several as panels of one, and
``save_figure`` writes a file. Nothing here
touches pyplot or changes global settings.
"""

from __future__ import annotations

from elsewhere.figures.accuracy import plot_accuracy_maps
from elsewhere.figures.attribution import plot_attribution_frame, plot_attribution_grid
from elsewhere.figures.attribution_equivariance import plot_attribution_equivariance
from elsewhere.figures.attribution_timeline import plot_attribution_timeline
from elsewhere.figures.changes import plot_layerwise_change
from elsewhere.figures.claims import plot_claims
from elsewhere.figures.comparison import plot_comparison
from elsewhere.figures.curves import plot_displacement, plot_layerwise
from elsewhere.figures.distances import plot_accuracy_displacement
from elsewhere.figures.drawing import draw
from elsewhere.figures.kinds import figure_kinds
from elsewhere.figures.layer_steps import plot_steps
from elsewhere.figures.maps import plot_similarity_maps
from elsewhere.figures.measured import (
    plot_equivariance,
    plot_identification,
    plot_measures,
    plot_partition,
    plot_phase,
)
from elsewhere.figures.objects import PlottedObjects, plot_objects, plot_placements
from elsewhere.figures.page import page
from elsewhere.figures.probes import plot_probe_layerwise, plot_probe_maps, plot_probe_matrix
from elsewhere.figures.sanity import plot_sanity
from elsewhere.figures.save import FIGURE_EXTENSIONS, save_figure
from elsewhere.figures.slices import plot_along, slice_at
from elsewhere.figures.training import plot_acquisition, plot_interference
from elsewhere.figures.windows import plot_windows

__all__ = [
    "FIGURE_EXTENSIONS",
    "PlottedObjects",
    "draw",
    "figure_kinds",
    "page",
    "plot_accuracy_displacement",
    "plot_accuracy_maps",
    "plot_acquisition",
    "plot_along",
    "plot_attribution_equivariance",
    "plot_attribution_frame",
    "plot_attribution_grid",
    "plot_attribution_timeline",
    "plot_claims",
    "plot_comparison",
    "plot_displacement",
    "plot_equivariance",
    "plot_identification",
    "plot_interference",
    "plot_layerwise",
    "plot_layerwise_change",
    "plot_measures",
    "plot_objects",
    "plot_partition",
    "plot_phase",
    "plot_placements",
    "plot_probe_layerwise",
    "plot_probe_maps",
    "plot_probe_matrix",
    "plot_sanity",
    "plot_similarity_maps",
    "plot_steps",
    "plot_windows",
    "save_figure",
    "slice_at",
]
