"""The state of an interrupted run: one file, written atomically, that holds tensors only."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from elsewhere.errors import StorageError
from elsewhere.storage import write_atomically

VERSION = 1


@dataclass
class RunState:
    """Where a run stands, at the start of a block of steps.

    Parameters
    ----------
    run
        Fingerprint and seed.
    phase, step
        Index of the phase and number of its steps that are done.
    metrics_bytes
        Length of the metrics by then.
    history
        Loss and share of correct presentations of the latest steps.
    criterion_step
        When the phase's criterion was met.
    network, optimiser, average
        Their tensors; empty at the start of a phase.
    """

    run: str
    phase: int = 0
    step: int = 0
    metrics_bytes: int = 0
    history: list[tuple[float, float]] = field(default_factory=list)
    criterion_step: int | None = None
    network: dict[str, torch.Tensor] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)
    average: list[torch.Tensor] = field(default_factory=list)


def write_state(path: Path, state: RunState) -> int:
    """Write the state whole or not at all, and return its size in bytes."""
    buffer = io.BytesIO()
    torch.save({"version": VERSION, **vars(state)}, buffer)
    write_atomically(path, buffer.getbuffer())
    return buffer.tell()


def read_state(path: Path) -> RunState | None:
    """Return the state in a file; None where there is none.

    Raises
    ------
    StorageError
        It is damaged, or of another version.
    """
    if not path.exists():
        return None
    try:
        table = torch.load(path, map_location="cpu", weights_only=True)
        version = table.pop("version")
        state = RunState(**table)
    except Exception as error:  # any byte string can come: torch raises a dozen types
        raise StorageError(
            f"{path} is damaged ({type(error).__name__}), so the run cannot be resumed; delete "
            "the directory and train again"
        ) from error
    if version != VERSION:
        raise StorageError(
            f"{path} has version {version}; expected {VERSION}; finish the run with the version "
            "of elsewhere that began it"
        )
    return state
