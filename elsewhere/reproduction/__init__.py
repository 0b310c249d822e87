"""The paper's claims, each with a verdict: curricula, measures and figures put together.

What is exported here is imported when it is first asked for, so that scales can be listed without
torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elsewhere.reproduction.claims import Row, make_rows, summarise, to_dataset
    from elsewhere.reproduction.conditions import Run, make_runs
    from elsewhere.reproduction.costs import ReproductionPlan, plan
    from elsewhere.reproduction.run import reproduce
    from elsewhere.reproduction.scale import ClaimLayers, Scale, load_scale, scales
    from elsewhere.reproduction.tasks import Event

_SOURCES = {
    "ClaimLayers": "scale",
    "Event": "tasks",
    "ReproductionPlan": "costs",
    "Row": "claims",
    "Run": "conditions",
    "Scale": "scale",
    "load_scale": "scale",
    "make_rows": "claims",
    "make_runs": "conditions",
    "plan": "costs",
    "reproduce": "run",
    "scales": "scale",
    "summarise": "claims",
    "to_dataset": "claims",
}

__all__ = [
    "ClaimLayers",
    "Event",
    "ReproductionPlan",
    "Row",
    "Run",
    "Scale",
    "load_scale",
    "make_rows",
    "make_runs",
    "plan",
    "reproduce",
    "scales",
    "summarise",
    "to_dataset",
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
