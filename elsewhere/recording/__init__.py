"""Hooks, sweeps and recordings of networks."""

from elsewhere.recording.completion import is_complete
from elsewhere.recording.hooks import Recorder, Taps, evaluating
from elsewhere.recording.record import (
    LayerPlan,
    Plan,
    check_room,
    divisible,
    make_header,
    parse_keeps,
    plan,
    record,
)
from elsewhere.recording.request import ModelRequest, StimulusRequest
from elsewhere.recording.sweep import Sweep

__all__ = [
    "LayerPlan",
    "ModelRequest",
    "Plan",
    "Recorder",
    "StimulusRequest",
    "Sweep",
    "Taps",
    "check_room",
    "divisible",
    "evaluating",
    "is_complete",
    "make_header",
    "parse_keeps",
    "plan",
    "record",
]
