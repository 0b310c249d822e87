"""Checkpoints of a training run as units of work: chosen, shared out, counted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeAlias

import xarray

from elsewhere.errors import InputError
from elsewhere.protocols import notes_of
from elsewhere.recording.crew import Job, perform
from elsewhere.training import Card, list_checkpoints

Report: TypeAlias = Callable[[int, int, str], None]
"""Called with checkpoints done and in all, and what was measured last."""


def choose_checkpoints(
    directory: Path, phases: Sequence[str] | None, *, trust: Collection[str] = ()
) -> list[Card]:
    """Return the checkpoints of a run, of some of its phases or of all.

    `trust` names factories, see :func:`elsewhere.training.read_card`.

    Raises
    ------
    InputError
        An unknown phase, or no checkpoint.
    """
    cards = list_checkpoints(directory, trust=trust)
    names = list(dict.fromkeys(card.phase for card in cards))
    for phase in phases or ():
        if phase not in names:
            raise InputError(f"{directory} has no phase {phase!r}; it has {', '.join(names)}")
    chosen = [card for card in cards if phases is None or card.phase in phases]
    if not chosen:
        raise InputError(f"{directory} holds no checkpoint; train a curriculum first")
    return chosen


def notes_of_checkpoints(found: Sequence[xarray.Dataset], cards: Sequence[Card]) -> list[str]:
    """Return the notes of results at checkpoints, each with where it first held if not always."""
    holding: dict[str, list[Card]] = {}
    for result, card in zip(found, cards, strict=True):
        for note in notes_of(result):
            holding.setdefault(note, []).append(card)
    return [
        note
        if len(those) == len(cards)
        else f"{note} (at {len(those)} of {len(cards)} checkpoints, first {those[0].phase} "
        f"{those[0].step})"
        for note, those in holding.items()
    ]


def perform_checkpoints(
    job: Job,
    cards: Sequence[Card],
    left: Sequence[int],
    *,
    workers: int,
    scheduler: str | None,
    report: Report | None,
) -> None:
    """Perform a job for the checkpoints that are `left`, and report how many are done.

    Parameters
    ----------
    job
        Its tasks are the numbers of checkpoints.
    cards
        All checkpoints.
    left
        Numbers of those that are not done yet.
    workers, scheduler
        See :func:`elsewhere.recording.crew.perform`.
    report
        Called at the beginning and after each checkpoint.
    """
    count = len(cards) - len(left)

    def tell(what: str) -> None:
        if report is not None:
            report(count, len(cards), what)

    def note(number: int, _: object) -> None:
        nonlocal count
        count += 1
        tell(f"{cards[number].phase} {cards[number].step}")

    tell("")
    perform(job, left, workers=workers, scheduler=scheduler, done=note)
