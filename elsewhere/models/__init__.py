"""Networks: the zoo, weights, input transforms, layer names and layer geometry.

What is exported here is imported when it is first asked for, so that the names of the models can
be listed without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elsewhere.models.conduct import Conduct, observe
    from elsewhere.models.identity import describe_code
    from elsewhere.models.layers import list_layers
    from elsewhere.models.loading import load_model
    from elsewhere.models.model import Model, find_device
    from elsewhere.models.names import (
        OUTPUT,
        check_layers,
        check_model,
        model_names,
        model_registry,
        parse_model_args,
    )
    from elsewhere.models.outputs import output_tensors
    from elsewhere.models.restoring import untouched
    from elsewhere.models.selection import select_layers
    from elsewhere.models.transform import IMAGENET, InputTransform
    from elsewhere.models.weights import read_state, state_sha256
    from elsewhere.protocols import Layer

_SOURCES = {
    "IMAGENET": "transform",
    "OUTPUT": "names",
    "Conduct": "conduct",
    "InputTransform": "transform",
    "Layer": "layers",
    "Model": "model",
    "check_layers": "names",
    "check_model": "names",
    "describe_code": "identity",
    "find_device": "model",
    "list_layers": "layers",
    "load_model": "loading",
    "model_names": "names",
    "model_registry": "names",
    "observe": "conduct",
    "output_tensors": "outputs",
    "parse_model_args": "names",
    "read_state": "weights",
    "select_layers": "selection",
    "state_sha256": "weights",
    "untouched": "restoring",
}

__all__ = [
    "IMAGENET",
    "OUTPUT",
    "Conduct",
    "InputTransform",
    "Layer",
    "Model",
    "check_layers",
    "check_model",
    "describe_code",
    "find_device",
    "list_layers",
    "load_model",
    "model_names",
    "model_registry",
    "observe",
    "output_tensors",
    "parse_model_args",
    "read_state",
    "select_layers",
    "state_sha256",
    "untouched",
]

if not TYPE_CHECKING:  # a checker must not take unknown names for granted

    def __getattr__(name: str) -> object:
        """Import `name` from the module that defines it."""
        if name not in _SOURCES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_SOURCES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
