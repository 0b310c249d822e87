"""Training: environments, curricula and checkpoints.

What is exported here is imported when it is first asked for, so that environments and presets can
be listed without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elsewhere.models.heads import find_head
    from elsewhere.training.checkpoints import (
        Card,
        list_checkpoints,
        load_checkpoint,
        read_card,
    )
    from elsewhere.training.curriculum import (
        Augment,
        Choice,
        Criterion,
        Curriculum,
        Exemplars,
        Network,
        Phase,
    )
    from elsewhere.training.folders import load_curriculum, presets, scales
    from elsewhere.training.heads import replace_head
    from elsewhere.training.loop import train
    from elsewhere.training.metrics import Report, read_metrics
    from elsewhere.training.placements import (
        Placement,
        environments,
        make_placement,
        place_only_accuracy,
    )
    from elsewhere.training.resolution import ResolvedPhase, resolve
    from elsewhere.training.trials import trial_table, write_trials

_SOURCES = {
    "Augment": "curriculum",
    "Card": "checkpoints",
    "Choice": "curriculum",
    "Criterion": "curriculum",
    "Curriculum": "curriculum",
    "Exemplars": "curriculum",
    "Network": "curriculum",
    "Phase": "curriculum",
    "Placement": "placements",
    "Report": "metrics",
    "ResolvedPhase": "resolution",
    "environments": "placements",
    "find_head": "heads",
    "list_checkpoints": "checkpoints",
    "load_checkpoint": "checkpoints",
    "make_placement": "placements",
    "place_only_accuracy": "placements",
    "load_curriculum": "folders",
    "presets": "folders",
    "read_card": "checkpoints",
    "read_metrics": "metrics",
    "replace_head": "heads",
    "resolve": "resolution",
    "scales": "folders",
    "train": "loop",
    "trial_table": "trials",
    "write_trials": "trials",
}

__all__ = [
    "Augment",
    "Card",
    "Choice",
    "Criterion",
    "Curriculum",
    "Exemplars",
    "Network",
    "Phase",
    "Placement",
    "Report",
    "ResolvedPhase",
    "environments",
    "find_head",
    "list_checkpoints",
    "load_checkpoint",
    "load_curriculum",
    "make_placement",
    "place_only_accuracy",
    "presets",
    "read_card",
    "read_metrics",
    "replace_head",
    "resolve",
    "scales",
    "train",
    "trial_table",
    "write_trials",
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
