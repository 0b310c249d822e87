"""The directory of a run: whose it is, what it was begun with, where it stands, who trains it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from elsewhere.errors import ExistsError, StorageError
from elsewhere.models import Model
from elsewhere.models.machine import describe_machine
from elsewhere.storage.checking import one_line
from elsewhere.storage.documents import read_document, tell_unsealed, write_document
from elsewhere.storage.files import free_bytes, refuse_link
from elsewhere.storage.locks import locked
from elsewhere.training.curriculum import Curriculum
from elsewhere.training.differences import list_differences
from elsewhere.training.resolution import ResolvedPhase
from elsewhere.training.state import RunState, read_state
from elsewhere.types import format_bytes

ENCODING = "run"
VERSION = "0.2"
RUN = "curriculum.json"
MOST_THREADS = 4096
IN_USE = "{} is being trained by another process; wait for it, or choose another directory"


def open_run(
    directory: Path, curriculum: Curriculum, fingerprint: str, *, resume: bool
) -> tuple[dict[str, Any] | None, RunState]:
    """Return what a directory says of its run and where that stands; another's is refused."""
    run = f"{fingerprint}:{curriculum.seed}"
    path = directory / RUN
    if not path.exists():
        return None, RunState(run)
    refuse_link(path)
    table, sealed = read_document(path, encoding=ENCODING, expected="what a run is of")
    if not sealed:
        tell_unsealed(path)
    try:
        other, seed = str(table["fingerprint"]), int(table["seed"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise StorageError(
            f"{path} is damaged ({type(error).__name__}); choose another directory"
        ) from error
    if (other, seed) != (fingerprint, curriculum.seed):
        raise ExistsError(
            f"{directory} holds another run: {_what_differs(directory, curriculum)} (fingerprint "
            f"{other[:12]} with seed {seed}, not {fingerprint[:12]} with seed {curriculum.seed}); "
            "choose another directory"
        )
    if not resume:
        raise ExistsError(f"{directory} holds a run already; resume it or choose another directory")
    state = read_state(directory / "state.pt")
    if state is not None and state.run != run:
        raise StorageError(
            f"{directory / 'state.pt'} is of another run ({state.run[:12]}) than curriculum.json "
            f"({run[:12]}); delete the directory and train again"
        )
    return table, RunState(run) if state is None else state


def _what_differs(directory: Path, curriculum: Curriculum) -> str:
    """Return which keys differ from those of the run in a directory."""
    try:
        said = list_differences(Curriculum.load_run(directory), curriculum)
    except StorageError:  # of a version whose keys are not known here
        said = ""
    return said or "of a curriculum with other keys, or with other contents of network.weights"


def begin_run(directory: Path, curriculum: Curriculum, fingerprint: str, run: Begun) -> None:
    """Write what a run is of, with what it is begun or goes on, and how often that changed."""
    table = {
        "fingerprint": fingerprint,
        "seed": curriculum.seed,
        "numerics": run.numerics,
        "pictures": run.pictures,
        "notes": list(run.notes),
        "curriculum": curriculum.to_dict(),
    }
    write_document(directory / RUN, table, encoding=ENCODING, version=VERSION)


@dataclass(frozen=True)
class Begun:
    """What a run was begun with, beside its curriculum and seed.

    `notes` say what has changed since, and changes last bits only; what was said once stays said.
    """

    numerics: dict[str, Any]  # of the machine; the weights depend on the number of threads
    pictures: list[list[str]]  # digests of what each phase trains on and holds out
    notes: tuple[str, ...] = ()

    @property
    def threads(self) -> int:
        """The number of threads that it is trained with."""
        return int(self.numerics["threads"])

    @classmethod
    def now(
        cls,
        device: torch.device,
        resolved: Sequence[ResolvedPhase],
        *,
        threads: int | None,
        earlier: dict[str, Any] | None,
        directory: Path,
    ) -> Begun:
        """Return with what a run is trained now, or refuse what differs from its beginning."""
        pictures = [
            [
                objects.digest()
                for objects in (
                    phase.train,
                    phase.held_out,
                    *(phase.variants if phase.phase.drawn_axes.each else ()),
                )
                if objects is not None
            ]
            for phase in resolved
        ]
        own = describe_machine(device)
        if threads is not None:
            own["threads"] = threads
        if earlier is None or "numerics" not in earlier:  # an older release began it
            return cls(own, pictures)
        held, before, notes = _read_beginning(earlier, directory)
        if threads not in (None, held["threads"]):
            raise ExistsError(
                f"{directory} was begun with {held['threads']} threads, on whose number its "
                f"weights depend; got {threads}: leave --threads out, or choose another directory"
            )
        own["threads"] = held["threads"]
        for number, phase in enumerate(resolved):
            if pictures[number : number + 1] != before[number : number + 1]:
                raise ExistsError(
                    f"{directory} was begun with other pictures in phase {phase.name!r}: the files "
                    "of its object set have changed; restore them, or choose another directory"
                )
        changed = [
            f"{name} {held.get(name)} then, {own[name]} now"
            for name in own
            if own[name] != held.get(name)
        ]
        if changed:
            notes.append(f"the run went on elsewhere than it began ({'; '.join(changed)})")
        return cls(own, pictures, tuple(notes))


def _read_beginning(
    table: dict[str, Any], directory: Path
) -> tuple[dict[str, Any], list[list[str]], list[str]]:
    """Return numerics, pictures and notes of a run's beginning, which a file says."""
    try:
        numerics = dict(table["numerics"])
        pictures = [[str(digest) for digest in each] for each in table["pictures"]]
        notes = [str(note) for note in table.get("notes", ())]
        if not (type(numerics["threads"]) is int and 0 < numerics["threads"] <= MOST_THREADS):
            raise ValueError(f"threads {numerics['threads']!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(
            f"{directory / RUN} is damaged: it does not say with what the run was begun "
            f"({one_line(error)[:120]}); restore it, or train again"
        ) from error
    return numerics, pictures, notes


def lock_run(directory: Path) -> AbstractContextManager[None]:
    """Hold the lock of a run: one process trains it at a time."""
    return locked(directory, IN_USE.format(directory))


def check_room(directory: Path, resolved: Sequence[ResolvedPhase], model: Model) -> None:
    """Refuse a run whose checkpoints and states do not fit the disk, before it is trained."""
    state = model.module.state_dict().values()
    size = sum(value.numel() * value.element_size() for value in state)
    count = sum(len({*phase.checkpoints, phase.steps}) for phase in resolved)
    there = sum(path.stat().st_size for path in (directory / "checkpoints").glob("*.safetensors"))
    needed, free = count * size + 6 * size - there, free_bytes(directory)
    if needed > free:
        raise StorageError(
            f"no space left for {directory}: {count} checkpoints and the state in between take "
            f"about {format_bytes(needed)}, and {format_bytes(free)} are free; free some, write to "
            "another disk, or keep fewer checkpoints"
        )
