"""The paper's claims, each with a verdict: curricula, measures and figures put together.

What is exported here is imported when it is first asked for, so that scales can be listed without
torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elsewhere.registry import imported_later

if TYPE_CHECKING:
    from elsewhere.reproduction.claims import Row as Row
    from elsewhere.reproduction.claims import make_rows as make_rows
    from elsewhere.reproduction.claims import summarise as summarise
    from elsewhere.reproduction.claims import to_dataset as to_dataset
    from elsewhere.reproduction.conditions import Run as Run
    from elsewhere.reproduction.conditions import make_runs as make_runs
    from elsewhere.reproduction.costs import ReproductionPlan as ReproductionPlan
    from elsewhere.reproduction.costs import plan as plan
    from elsewhere.reproduction.paper import draw_paper as draw_paper
    from elsewhere.reproduction.run import reproduce as reproduce
    from elsewhere.reproduction.scale import ClaimLayers as ClaimLayers
    from elsewhere.reproduction.scale import Scale as Scale
    from elsewhere.reproduction.scale import load_scale as load_scale
    from elsewhere.reproduction.scale import scales as scales
    from elsewhere.reproduction.systems import System as System
    from elsewhere.reproduction.systems import SystemList as SystemList
    from elsewhere.reproduction.systems import load_systems as load_systems
    from elsewhere.reproduction.systems import system_lists as system_lists
    from elsewhere.reproduction.systems_run import SystemsPlan as SystemsPlan
    from elsewhere.reproduction.systems_run import plan_systems as plan_systems
    from elsewhere.reproduction.systems_run import reproduce_systems as reproduce_systems
    from elsewhere.reproduction.tasks import Event as Event
else:  # a checker must not take unknown names for granted
    __all__, __getattr__, __dir__ = imported_later(__name__, __file__)
