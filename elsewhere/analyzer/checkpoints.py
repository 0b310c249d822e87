"""Checkpoints of a training run as units of work: chosen, shared out, counted, kept."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.errors import InputError, StorageError
from elsewhere.logs import get_logger
from elsewhere.measures.behaviour import differing
from elsewhere.models import describe_code, find_device
from elsewhere.models.machine import code_version, describe_machine
from elsewhere.models.names import is_factory, torchvision_version
from elsewhere.notes import notes_of
from elsewhere.recording import Sweep
from elsewhere.recording.workers import Job, Workers, perform
from elsewhere.stimuli import ObjectSet
from elsewhere.storage import check_result_room, load_result, save_result
from elsewhere.storage.files import make_inside, storage_errors
from elsewhere.storage.locks import Claim, locked
from elsewhere.training import Card, list_checkpoints, load_checkpoint
from elsewhere.training.checkpoints import check_trusted
from elsewhere.types import parse_bytes

logger = get_logger(__name__)

Report: TypeAlias = Callable[[int, int, str], None]
"""Called with checkpoints done and in all, and what was measured last."""


def choose_checkpoints(
    directory: Path,
    phases: Sequence[str] | None,
    *,
    count: int | None = None,
    trust: Collection[str] = (),
) -> list[Card]:
    """Return the checkpoints of a run, of some of its phases or of all.

    `count`, if given, is about how many, at steps that grow by a constant factor up to the last
    one: from a hundredth of it, for earlier next to nothing happens. `trust` names factories, see
    :func:`elsewhere.training.read_card`. InputError where there is no such phase, no checkpoint, or
    a factory that the user does not name.
    """
    cards = list_checkpoints(directory, trust=trust)
    names = list(dict.fromkeys(card.phase for card in cards))
    for phase in phases or ():
        if phase not in names:
            raise InputError(f"{directory} has no phase {phase!r}; it has {', '.join(names)}")
    chosen = [card for card in cards if phases is None or card.phase in phases]
    if not chosen:
        raise InputError(f"{directory} holds no checkpoint; train a curriculum first")
    if count is not None:
        steps = np.array([max(card.step, 1) for card in chosen], np.float64)
        wanted = np.geomspace(steps[-1] / 100, steps[-1], count) if count > 1 else steps[-1:]
        places = {int(np.abs(np.log(steps / step)).argmin()) for step in wanted}
        chosen = [chosen[place] for place in sorted(places)]
    for card in chosen:  # before anything is written beside them
        check_trusted(card)
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
    workers: Workers,
    scheduler: str | None,
    report: Report | None,
    paths: Sequence[Path],
    out: Path | None,
    n_values: int,
) -> None:
    """Perform a job for the checkpoints that are `left`, and report how many are done.

    The job's tasks are numbers of `cards`. Before, the disks are looked at: each result of
    `n_values` must fit its place among `paths` beside the run, and all together to `out`, if
    anywhere, else it is a ``StorageError``. See :func:`elsewhere.recording.workers.perform`.
    """
    check_result_room(paths[0].parent, n_values, len(left))
    if out is not None:
        with storage_errors(out):
            shared = os.stat(out.parent).st_dev == os.stat(paths[0].parent).st_dev
        check_result_room(out, n_values, len(cards) + shared * len(left))
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


# --- what is kept ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """Results of single checkpoints, in a folder of the run that is locked meanwhile.

    The name of each of `paths` holds a digest of everything that decides its values, so that what
    was found of other pictures, by other code or on another machine is never taken for it. `claim`
    is the right to write there, for processes that do not hold the lock; `machine` is what the last
    bits depend on: it must be the same in all of them.
    """

    paths: tuple[Path, ...]
    claim: Claim
    machine: Mapping[str, Any]

    def left(self, cards: Sequence[Card], sweep: Callable[[int], Sweep]) -> list[int]:
        """Return the numbers of the checkpoints of which nothing is there that still holds.

        Weights and code are known by their digests; what a factory builds of them is seen by what
        it does, too, in the `sweep` of the checkpoint of a number.
        """
        return [
            number
            for number, (path, card) in enumerate(zip(self.paths, cards, strict=True))
            if not _is_readable(path) or (is_factory(card.model) and _differs(path, sweep(number)))
        ]

    def check_machine(self, device: str) -> None:
        """Refuse a process, with an ``InputError``, that would compute other last bits."""
        own = describe_machine(find_device(device))
        if names := [name for name in own if own[name] != self.machine.get(name)]:
            each = ", ".join(
                f"{name} {own[name]} instead of {self.machine.get(name)}" for name in names
            )
            raise InputError(
                f"a worker has other numerics ({each}), which change the last bits; use machines "
                "of one kind and one version of torch"
            )

    def save(self, number: int, result: xarray.Dataset) -> None:
        """Write a checkpoint's result, unless another run has claimed the folder meanwhile."""
        with self.claim.writing():
            save_result(result, self.paths[number], overwrite=True)

    def load(self) -> list[xarray.Dataset]:
        """Return the results of all checkpoints."""
        return [load_result(path) for path in self.paths]


@contextlib.contextmanager
def kept_results(
    directory: Path,
    what: str,
    cards: Sequence[Card],
    fields: Sequence[Mapping[str, Any]],
    *,
    device: str,
    max_memory: int | str,
) -> Iterator[Kept]:
    """Open the folder `what` in which results of a run's checkpoints are kept, and lock it.

    `fields` has, for each, what decides the result beside the checkpoint, the code and the machine:
    settings, and the digests of pictures; `device` and `max_memory` are where it is computed, and
    in how many pieces. Another process that does the same, or a folder that cannot be written, is a
    ``StorageError``.
    """
    folder = make_inside(directory, what).resolve()
    message = (
        f"the checkpoints of {directory} are being measured by another process ({what}); wait "
        "for it"
    )
    with locked(folder, message):
        machine = describe_machine(find_device(device))
        common = {"code": code_version(), "machine": machine, "max_memory": parse_bytes(max_memory)}
        networks: dict[str, Any] = {}
        paths = []
        for card, own in zip(cards, fields, strict=True):
            built = f"{card.model} {sorted(card.arguments.items())}"
            if built not in networks:
                networks[built] = _describe_network(card)
            deciding = [common, networks[built], _plain(card), own]
            text = json.dumps(deciding, sort_keys=True, default=str)
            key = hashlib.sha256(text.encode()).hexdigest()[:16]
            paths.append(folder / f"{card.phase}-{card.step:07d}-{key}.nc")
        yield Kept(tuple(paths), Claim.take(folder), machine)


def tested_digest(objects: ObjectSet, held_out: NDArray[np.bool_]) -> list[str]:
    """Return digests of the pictures that an accuracy is of, and of which were held out."""
    return [objects.digest(), hashlib.sha256(held_out.tobytes()).hexdigest()]


def _describe_network(card: Card) -> dict[str, Any]:
    """Return digests of the code of a network that is not this package's own."""
    if ":" not in card.model:
        return {"torchvision": torchvision_version()}
    return describe_code(load_checkpoint(card).module)


def _plain(card: Card) -> dict[str, Any]:
    left_out = ("path", "trust", "sealed")
    return {k: v for k, v in dataclasses.asdict(card).items() if k not in left_out}


def _differs(path: Path, sweep: Sweep) -> bool:
    known = load_result(path).attrs.get("behaviour") or {}
    return bool(differing(known, sweep.provenance["behaviour"]))


def _is_readable(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        load_result(path)
    except StorageError as error:
        logger.warning("%s: it is measured again", error)
        return False
    return True
