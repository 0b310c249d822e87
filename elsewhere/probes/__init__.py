"""Linear readouts: train here, test everywhere."""

from elsewhere.probes.fitted import FittedProbe, fit_probe
from elsewhere.probes.kinds import ProbeKind, probe_kinds
from elsewhere.probes.probe import CONTROLS, probe, solved_shuffles

__all__ = [
    "CONTROLS",
    "FittedProbe",
    "ProbeKind",
    "fit_probe",
    "probe",
    "probe_kinds",
    "solved_shuffles",
]
