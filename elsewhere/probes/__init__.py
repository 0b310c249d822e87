"""Linear readouts: train here, test everywhere.

The names below are imported when they are first used, so that the processes that only fit start
without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elsewhere.registry import imported_later

if TYPE_CHECKING:
    from elsewhere.probes.export import fit_probe as fit_probe
    from elsewhere.probes.kinds import CONTROLS as CONTROLS
    from elsewhere.probes.kinds import ProbeKind as ProbeKind
    from elsewhere.probes.kinds import probe_kinds as probe_kinds
    from elsewhere.probes.readout_weights import FittedProbe as FittedProbe
    from elsewhere.probes.readout_weights import load_readout as load_readout
    from elsewhere.probes.readout_weights import save_readout as save_readout
    from elsewhere.probes.transfer import probe as probe
    from elsewhere.probes.transfer import probe_checkpoint as probe_checkpoint
    from elsewhere.probes.transfer import solved_shuffles as solved_shuffles
else:  # a checker must not take unknown names for granted
    __all__, __getattr__, __dir__ = imported_later(__name__, __file__)
