"""Linear readouts: train here, test everywhere.

The names below are imported when they are first used, so that the processes that only fit start
without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elsewhere.probes.export import fit_probe
    from elsewhere.probes.kinds import CONTROLS, ProbeKind, probe_kinds
    from elsewhere.probes.readout_weights import FittedProbe, load_readout, save_readout
    from elsewhere.probes.transfer import probe, probe_checkpoint, solved_shuffles

_SOURCES = {
    "CONTROLS": "kinds",
    "FittedProbe": "readout_weights",
    "ProbeKind": "kinds",
    "fit_probe": "export",
    "load_readout": "readout_weights",
    "probe": "transfer",
    "probe_checkpoint": "transfer",
    "probe_kinds": "kinds",
    "save_readout": "readout_weights",
    "solved_shuffles": "transfer",
}

__all__ = [
    "CONTROLS",
    "FittedProbe",
    "ProbeKind",
    "fit_probe",
    "load_readout",
    "probe",
    "probe_checkpoint",
    "probe_kinds",
    "save_readout",
    "solved_shuffles",
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
