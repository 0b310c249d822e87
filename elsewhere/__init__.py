"""Trained here, recognised elsewhere: translation invariance of vision networks, layer by layer.

The names below are imported when they are first used, so that ``import elsewhere`` is quick.
``result.elsewhere`` is there as soon as xarray is, see ``elsewhere/accessor.py``.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
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
    "accuracy": "elsewhere.calls",
    "attribute": "elsewhere.calls",
    "compare": "elsewhere.calls",
    "list_layers": "elsewhere.models",
    "load_curriculum": "elsewhere.training",
    "load_model": "elsewhere.models",
    "load_objects": "elsewhere.stimuli",
    "load_result": "elsewhere.storage",
    "measure": "elsewhere.calls",
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
    "probe": "elsewhere.calls",
    "record": "elsewhere.calls",
    "report": "elsewhere.calls",
    "save_figure": "elsewhere.figures",
    "save_result": "elsewhere.storage",
    "similarity": "elsewhere.calls",
    "track": "elsewhere.calls",
    "train": "elsewhere.calls",
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


class _Package(ModuleType):
    """Keeps its functions where a part has the name of one: `elsewhere.report` is the function.

    ``from elsewhere.report import ...`` finds the part, as ever.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _SOURCES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


class _AfterXarray:
    """Registers ``result.elsewhere`` once somebody imports xarray."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "xarray":
            return None
        others = [finder for finder in sys.meta_path if finder is not cls]
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((each for each in found if each is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader)
        return spec


class _Registering:
    """The loader of xarray, which registers what is added to it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        self._loader.exec_module(module)
        if _AfterXarray in sys.meta_path:
            sys.meta_path.remove(_AfterXarray)
        importlib.import_module("elsewhere.accessor")


if "xarray" in sys.modules:
    importlib.import_module("elsewhere.accessor")
else:
    sys.meta_path.insert(0, _AfterXarray)
