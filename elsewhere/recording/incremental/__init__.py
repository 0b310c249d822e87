"""Exact sweeps that compute only the windows an object changes."""

from elsewhere.recording.incremental.blocks import GroundRow, WindowBlock, WindowRows
from elsewhere.recording.incremental.engine import Incremental
from elsewhere.recording.incremental.rules import window_rules
from elsewhere.recording.incremental.sources import Covered, Pasted
from elsewhere.recording.incremental.trace import NotTraceable, following
from elsewhere.recording.incremental.treatments import (
    Call,
    Global,
    Map,
    Pointwise,
    Sliding,
    Together,
)
from elsewhere.recording.incremental.vectors import WindowVectors
from elsewhere.recording.incremental.windows import Tile

__all__ = [
    "Call",
    "Covered",
    "Global",
    "GroundRow",
    "Incremental",
    "Map",
    "NotTraceable",
    "Pasted",
    "Pointwise",
    "Sliding",
    "Tile",
    "Together",
    "WindowBlock",
    "WindowRows",
    "WindowVectors",
    "following",
    "window_rules",
]
