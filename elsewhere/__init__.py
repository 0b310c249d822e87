"""Trained here, recognised elsewhere: translation invariance of vision networks, layer by layer.

The names below are imported when they are first used, so that ``import elsewhere`` is quick.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_SOURCES = {
    "ArraySource": "elsewhere.storage",
    "AttributionSettings": "elsewhere.analyzer.attribution",
    "Canvas": "elsewhere.stimuli",
    "ElsewhereError": "elsewhere.errors",
    "Grid": "elsewhere.stimuli",
    "ObjectSet": "elsewhere.stimuli",
    "Recorder": "elsewhere.recording",
    "Recording": "elsewhere.storage",
    "Sweep": "elsewhere.recording",
    "attribute": "elsewhere.analyzer.attribution",
    "compare": "elsewhere.analyzer",
    "list_layers": "elsewhere.models",
    "load_model": "elsewhere.models",
    "load_objects": "elsewhere.stimuli",
    "load_result": "elsewhere.storage",
    "measure": "elsewhere.analyzer",
    "open": "elsewhere.storage:open_recording",
    "plan": "elsewhere.recording",
    "plot_attribution_equivariance": "elsewhere.figures",
    "plot_attribution_frame": "elsewhere.figures",
    "plot_attribution_grid": "elsewhere.figures",
    "plot_attribution_timeline": "elsewhere.figures",
    "plot_comparison": "elsewhere.figures",
    "plot_displacement": "elsewhere.figures",
    "plot_layerwise": "elsewhere.figures",
    "plot_objects": "elsewhere.figures",
    "plot_similarity_maps": "elsewhere.figures",
    "plot_probe_layerwise": "elsewhere.figures",
    "plot_probe_maps": "elsewhere.figures",
    "plot_probe_matrix": "elsewhere.figures",
    "probe": "elsewhere.probes:probe",
    "record": "elsewhere.recording",
    "save_figure": "elsewhere.figures",
    "save_result": "elsewhere.storage",
    "similarity": "elsewhere.analyzer",
    "verify": "elsewhere.storage",
}

__all__ = ["__version__", *_SOURCES]


def __getattr__(name: str) -> Any:
    if name not in _SOURCES:
        raise AttributeError(f"module 'elsewhere' has no attribute {name!r}")
    module, _, attribute = _SOURCES[name].partition(":")
    value = getattr(importlib.import_module(module), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
