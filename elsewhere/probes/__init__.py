"""Linear readouts: train here, test everywhere."""

from elsewhere.probes.kinds import ProbeKind, probe_kinds
from elsewhere.probes.probe import CONTROLS, probe, solved_shuffles

__all__ = ["CONTROLS", "ProbeKind", "probe", "probe_kinds", "solved_shuffles"]
