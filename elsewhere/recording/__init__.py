"""Hooks, sweeps and recordings of networks."""

from elsewhere.models.taps import Taps
from elsewhere.recording.completion import go_on_as_begun, is_complete
from elsewhere.recording.hooks import Recorder
from elsewhere.recording.planning import LayerPlan, Plan, check_room, plan
from elsewhere.recording.record import make_header, parse_keeps, record
from elsewhere.recording.request import request_model, request_sweep
from elsewhere.recording.sweep import Sweep

__all__ = [
    "LayerPlan",
    "Plan",
    "Recorder",
    "Sweep",
    "Taps",
    "check_room",
    "go_on_as_begun",
    "is_complete",
    "make_header",
    "parse_keeps",
    "plan",
    "record",
    "request_model",
    "request_sweep",
]
