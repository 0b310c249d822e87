"""The state of an interrupted run: one file, written atomically, that holds tensors only."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from elsewhere.errors import StorageError
from elsewhere.models.memory import Written
from elsewhere.models.weights import check_archive
from elsewhere.storage import write_atomically
from elsewhere.storage.documents import tell_unsealed
from elsewhere.storage.files import refuse_link
from elsewhere.storage.seal import SealError, check_seal, make_seal, read_seal

VERSION = 3
"""Since 2 the file is sealed; since 3 it holds what a network remembers beside its tensors."""


@dataclass
class RunState:
    """Where a run stands, at the start of a block of steps.

    `memory` is what the network remembers beside its tensors, where it has changed, `unwritten` are
    names of what no file can hold of that, and `passes` says how the network is run, where that has
    changed.
    """

    run: str  # fingerprint and seed
    phase: int = 0
    step: int = 0  # of the phase, done
    metrics_bytes: int = 0  # length of the metrics by then
    history: list[tuple[float, float]] = field(default_factory=list)
    """Loss and share of correct presentations of the latest steps."""
    criterion_step: int | None = None  # when the phase's criterion was met
    network: dict[str, torch.Tensor] = field(default_factory=dict)  # empty at a phase's start
    optimiser: dict[str, Any] = field(default_factory=dict)
    average: list[torch.Tensor] = field(default_factory=list)
    memory: dict[str, Written] = field(default_factory=dict)
    unwritten: list[str] = field(default_factory=list)
    passes: str = ""


def write_state(path: Path, state: RunState) -> int:
    """Write the state whole or not at all, and return its size in bytes."""
    buffer = io.BytesIO()
    torch.save({"version": VERSION, **vars(state)}, buffer)
    buffer.write(make_seal(buffer.getbuffer(), mark=_mark(state.run, state.metrics_bytes)))
    write_atomically(path, buffer.getbuffer())
    return buffer.tell()


def read_state(path: Path) -> RunState | None:
    """Return the state in a file; None where there is none.

    Raises
    ------
    StorageError
        It is damaged, a link, or of another version.
    """
    refuse_link(path)
    if not path.exists():
        return None
    remedy = "so the run cannot be resumed; delete the directory and train again"
    try:
        seal = read_seal(path)
        if seal is not None:
            check_seal(path, seal)
        check_archive(path)
        table = torch.load(path, map_location="cpu", weights_only=True)
        version = table.pop("version")
        state = RunState(**table)
        fits = all(isinstance(n, int) and n >= 0 for n in (state.phase, state.step))
        fits = fits and isinstance(state.metrics_bytes, int) and isinstance(state.run, str)
    except SealError as error:
        raise StorageError(f"{path} is damaged ({error}), {remedy}") from error
    except Exception as error:  # any byte string can come: torch raises a dozen types
        raise StorageError(f"{path} is damaged ({type(error).__name__}), {remedy}") from error
    if not fits or (seal is None and version != 1):
        raise StorageError(f"{path} is damaged (its seal or a number is missing), {remedy}")
    if version not in (1, 2, VERSION):
        raise StorageError(
            f"{path} has version {version}; expected {VERSION}; finish the run with the version "
            "of elsewhere that began it"
        )
    if seal is None:
        tell_unsealed(path)
    return state


def _mark(run: str, metrics_bytes: int) -> str:
    return f"{run}:{metrics_bytes}"


def finite_names(state: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of the tensors whose values are all finite."""
    found = [torch.isfinite(value).all() for value in state.values()]
    kept = torch.stack(found).tolist() if found else []
    return [name for name, finite in zip(state, kept, strict=True) if finite]
