"""Training: environments, curricula and checkpoints.

What is exported here is imported when it is first asked for, so that environments and presets can
be listed without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elsewhere.registry import imported_later

if TYPE_CHECKING:
    from elsewhere.models.heads import find_head as find_head
    from elsewhere.training.cards import Card as Card
    from elsewhere.training.checkpoints import final_card as final_card
    from elsewhere.training.checkpoints import list_checkpoints as list_checkpoints
    from elsewhere.training.checkpoints import load_checkpoint as load_checkpoint
    from elsewhere.training.checkpoints import lone_cards as lone_cards
    from elsewhere.training.checkpoints import read_card as read_card
    from elsewhere.training.curriculum import Augment as Augment
    from elsewhere.training.curriculum import Choice as Choice
    from elsewhere.training.curriculum import Criterion as Criterion
    from elsewhere.training.curriculum import Curriculum as Curriculum
    from elsewhere.training.curriculum import Exemplars as Exemplars
    from elsewhere.training.curriculum import Network as Network
    from elsewhere.training.curriculum import Phase as Phase
    from elsewhere.training.folders import load_curriculum as load_curriculum
    from elsewhere.training.folders import presets as presets
    from elsewhere.training.folders import scales as scales
    from elsewhere.training.heads import replace_head as replace_head
    from elsewhere.training.loop import train as train
    from elsewhere.training.metrics import Report as Report
    from elsewhere.training.metrics import read_metrics as read_metrics
    from elsewhere.training.placements import Placement as Placement
    from elsewhere.training.placements import environments as environments
    from elsewhere.training.placements import make_placement as make_placement
    from elsewhere.training.placements import place_only_accuracy as place_only_accuracy
    from elsewhere.training.resolution import ResolvedPhase as ResolvedPhase
    from elsewhere.training.resolution import resolve as resolve
    from elsewhere.training.trials import trial_table as trial_table
else:  # a checker must not take unknown names for granted
    __all__, __getattr__, __dir__ = imported_later(__name__, __file__)
