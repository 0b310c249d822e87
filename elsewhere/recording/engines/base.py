"""What an engine is: something that takes a sweep's images through a network."""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from elsewhere.errors import EngineError, reason_of
from elsewhere.models import Conduct, Layer, Model
from elsewhere.models.machine import describe_machine, describe_precision
from elsewhere.protocols import Design, Sink, Stage
from elsewhere.recording.subject import Subject
from elsewhere.sources import Group, Takers
from elsewhere.storage.portions import Portions

CARD_SHARE = 2
"""Sinks and windows on a GPU may take one of so many parts of its memory."""


def memory_on(device: torch.device, max_memory: int) -> int:
    """Return the bytes that sinks and windows may take where the network is.

    On a GPU that is a share of its own memory, if `max_memory`, which is the host's, is less.
    """
    if device.type != "cuda":
        return max_memory
    card = torch.cuda.get_device_properties(device).total_memory
    return max(max_memory, card // CARD_SHARE)


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def failing() -> Iterator[list[Exception]]:
    """Turn what fails in a network, or for want of memory, into :class:`EngineError`.

    What is appended to the list, the complaints of sinks, is theirs: but for want of memory, as
    they build whole maps of windows.
    """
    complaints: list[Exception] = []
    try:
        yield complaints
    except Exception as error:  # any network, any complaint
        if error in complaints and not isinstance(error, MemoryError | RuntimeError):
            raise
        raise EngineError(
            f"the incremental engine failed in the middle of a sweep ({reason_of(error)})"
            + EngineError.REMEDY
        ) from error


class NotApplicable(Exception):
    """An engine cannot run a network, or does not pay; the message says why in a few words."""


@dataclass(frozen=True)
class Cut:
    """How a sweep is cut."""

    portions: Portions  # of the grid
    skip: Collection[int]  # numbers of portions that are not needed again
    max_memory: int  # bytes, of which an engine may take a share for itself


class SweepEngine(ABC):
    """Takes images through a network. What is not overridden holds for whole canvases."""

    name: ClassVar[str]
    reason: str = ""
    """Why it was taken, in a few words."""

    def __str__(self) -> str:
        return str(EngineChoice(self.name, self.reason))

    @property
    def numerics(self) -> dict[str, Any]:
        """What besides the engine's name and the machine decides the last bits."""
        return {}

    @abstractmethod
    def at(self, subject: Subject) -> SweepEngine | None:
        """Return the engine for another reference of the same design, None if it does not serve."""

    @abstractmethod
    def variant(self, number: int) -> SweepEngine:
        """Return the engine for one of the subject's variants, where axes change objects."""

    @abstractmethod
    def run(self, stage: Stage, group: Group, takers: Takers, cut: Cut) -> Iterator[int]:
        """Go through a stage and give `takers` their blocks; yield numbers of images."""

    @abstractmethod
    def rehearse(self, group: Group, takers: Takers, cut: Cut) -> float:
        """Run a few images of each stage; return the seconds that one of the grid takes."""

    def finish(self) -> None:  # noqa: B027 (nothing is to be done by default)
        """Refuse a network that has come to do something else while it was swept."""

    def n_images(self, stage: Stage, design: Design, portions: Portions) -> int:
        """Return how many images a stage runs, padding included."""
        if stage == "grid":
            return sum(math.prod(portion.shape) for portion in portions)
        return 1 if stage == "empty" else len(design.objects)

    def sink_room(self, max_memory: int) -> int:
        """Return how many bytes of `max_memory` sinks may hold."""
        return max_memory

    def memory_for(self, held: float) -> float:
        """Return the memory of which sinks may hold so many bytes."""
        return held

    def held_bytes(self, layer: Layer, sinks: Sequence[Sink]) -> int:
        """Return the bytes of one activation as `sinks` hold it."""
        return layer.bytes

    def tile(
        self, layers: Sequence[Layer], sinks: Sequence[Sink], portions: Portions, max_memory: int
    ) -> tuple[int, ...] | None:
        """Return objects, rows and columns that are computed together, None if each alone."""
        return None

    def tasks(self, portions: Portions, tile: Sequence[int] | None) -> Iterable[Sequence[int]]:
        """Return the numbers of the portions, those that are computed together in one sequence."""
        return ([portion.number] for portion in portions)

    def peak_bytes(self, group: Group, sinks: Sequence[Sink], max_memory: int) -> int:
        """Return about what the engine itself holds at a time, besides a forward pass."""
        return 0

    def multiply_adds(
        self, group: Group, takers: Takers, max_memory: int, stages: Sequence[Stage]
    ) -> int:
        """Return the multiply-adds of some stages of a sweep over a group; 0 where not counted."""
        return 0


@dataclass(frozen=True, eq=False)
class EngineChoice:
    """The name of an engine, and the reason for it in a few words."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})" if self.reason else self.name


def why_alone(conduct: Conduct) -> str:
    """Return why a network is run on one image a pass."""
    return conduct.reason or "one image a pass is asked for"


def numerics(engine: str, model: Model, batch_rows: int | None = None) -> dict[str, Any]:
    """Return what decides the last bits of a result."""
    return {
        "engine": engine,
        **describe_precision(model.device, model.precision),
        **({} if batch_rows is None else {"batch_rows": batch_rows}),
        **describe_machine(model.device),
    }
