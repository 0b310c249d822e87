"""Hooks, sweeps and recordings of networks."""

from elsewhere.recording.hooks import Recorder, Taps, evaluating
from elsewhere.recording.record import (
    LayerPlan,
    Plan,
    check_room,
    make_header,
    parse_keeps,
    plan,
    record,
)
from elsewhere.recording.sweep import Sweep

__all__ = [
    "LayerPlan",
    "Plan",
    "Recorder",
    "Sweep",
    "Taps",
    "check_room",
    "evaluating",
    "make_header",
    "parse_keeps",
    "plan",
    "record",
]
