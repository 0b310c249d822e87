"""A recording in the making: a folder of parts, each written whole, merged when all are there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from elsewhere.axes import Axes
from elsewhere.errors import ExistsError, StorageError
from elsewhere.logs import get_logger
from elsewhere.measures.behaviour import Behaviour
from elsewhere.measures.behaviour import differing as unlike
from elsewhere.protocols import Design
from elsewhere.storage import merge
from elsewhere.storage.files import (
    free_bytes,
    put_in_place,
    read_plain,
    storage_errors,
    write_atomically,
)
from elsewhere.storage.locks import CLAIM, LOCK, Claim, locked
from elsewhere.storage.merge import HEADER, portion_files, portion_mark, portion_name
from elsewhere.storage.portions import Portions
from elsewhere.storage.seal import SealError, check_seal, read_seal, seal_bytes
from elsewhere.types import format_bytes

logger = get_logger(__name__)

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 2**28
MOST_OBJECTS = 10**7
BEHAVIOUR = "behaviour"
"""In a manifest: what the network does with a fixed image."""


def parts_folder(path: Path) -> Path:
    """Return the folder in which the parts of the recording `path` are collected."""
    return path.with_name(path.name + ".parts")


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the names of the fields in which `one` and `other` differ.

    Examples
    --------
    >>> differing({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}, "d": 4})
    ['b.c', 'd']
    """
    names: list[str] = []
    for key in dict.fromkeys((*one, *other)):
        a, b = one.get(key), other.get(key)
        if a == b and (key in one) == (key in other):
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            names += [f"{key}.{name}" for name in differing(a, b)]
        else:
            names.append(key)
    return names


def part_is_whole(path: Path, mark: str) -> bool:
    """Return whether a part is as it was written, by a run that marked it with `mark`."""
    try:
        seal = None if path.is_symlink() else read_seal(path)
        if seal is None or seal.mark != mark:
            return False
        check_seal(path, seal)
    except (SealError, FileNotFoundError):
        return False
    return True


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return what a folder of parts says that they are of, or None if it says nothing."""
    path = folder / MANIFEST
    try:
        if folder.is_symlink() or path.is_symlink():
            return None
        content = json.loads(read_plain(path, limit=LARGEST_MANIFEST))
    except PermissionError as error:
        raise StorageError(f"{path} cannot be read: permission denied") from error
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def begun_by(path: Path) -> str:
    """Return the engine by which parts of `path` were begun; nothing where there are none."""
    found: Any = read_manifest(parts_folder(path))
    for holder in (found, found.get("identity")) if isinstance(found, dict) else ():
        numerics = holder.get("numerics") if isinstance(holder, dict) else None
        if isinstance(numerics, dict) and "engine" in numerics:
            return str(numerics["engine"])
    return ""


def portions_of(manifest: dict[str, Any], path: Path) -> tuple[Portions, str]:
    """Return the portions of the recording that a manifest describes, and the format's version.

    A manifest of none is a ``StorageError``; `path` is the recording to be.
    """
    try:
        fields, numerics = manifest["identity"], manifest["numerics"]
        axes = Axes.read(fields["axes"])
        n_objects = int(fields["n_objects"])
        cut = tuple(map(int, numerics["unit"]))
        if not 0 < n_objects <= MOST_OBJECTS or len(cut) != 2 or min(cut) < 1 or not axes.each:
            raise ValueError("its numbers are out of range")
        names = tuple(map(str, range(n_objects)))
        design = Design(names, names, axes, tuple(fields["reference"]))
        return Portions(design, *cut), str(fields["encoding_version"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise StorageError(
            f"{path} is not finished, and the manifest in {parts_folder(path)} is that of no "
            f"recording ({type(error).__name__}: {error}); record it again"
        ) from error


class Parts:
    """The folder of parts of one recording, locked while it is open.

    >>> with Parts(Path("run.h5"), fields, overwrite=False) as parts:   # doctest: +SKIP
    ...     parts.write_header(header)
    ...     parts.write_portion(0, data)
    ...     parts.finish()

    The `fields` determine the recording's values, and `numerics` their last bits: parts of which
    these are others are refused, or thrown away with `overwrite`, and so are those of a network
    whose `behaviour` with a fixed image is another one by more than rounding.
    """

    def __init__(
        self,
        path: Path,
        fields: dict[str, Any],
        *,
        numerics: dict[str, Any] | None = None,
        behaviour: Behaviour | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path, self.overwrite = path, overwrite
        self.manifest = {"identity": fields, "numerics": numerics or {}}
        if behaviour:
            self.manifest[BEHAVIOUR] = behaviour
        self.folder = parts_folder(path)
        self._lock = contextlib.ExitStack()

    def __enter__(self) -> Parts:
        message = (
            f"{self.path} is being recorded by another process; wait for it, or choose another name"
        )
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(self.folder, message, make=True))
            self.claim = Claim.take(self.folder)
            with storage_errors(self.folder):
                self._take_over()
            self._lock = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.close()

    def _take_over(self) -> None:
        """Take what an earlier run left, or throw it away, or refuse."""
        earlier = read_manifest(self.folder)
        if earlier is not None or any(self.folder.glob("*.h5")):
            earlier = earlier or {}
            identity, numerics = earlier.get("identity"), earlier.get("numerics")
            same = identity == self.manifest["identity"] and numerics == self.manifest["numerics"]
            changed = changed_behaviour(earlier, self.manifest.get(BEHAVIOUR)) if same else []
            if same and not changed:
                self.manifest = earlier  # whose last digits the parts are marked with
                return
            if not self.overwrite:
                raise self._refusal(identity, numerics, changed)
            for entry in self.folder.iterdir():
                if entry.name not in (LOCK, CLAIM):
                    entry.unlink()
        data = json.dumps(self.manifest, sort_keys=True).encode()
        write_atomically(self.folder / MANIFEST, data)

    def _refusal(self, identity: Any, numerics: Any, changed: list[str]) -> ExistsError:
        own = self.manifest["identity"]
        if changed:
            return ExistsError(
                f"{self.folder} holds parts of a network that did something else in "
                f"{', '.join(changed)}, although it has the same name, code and weights (a "
                "constant of a module, a closure or an unsaved buffer?); choose another name, or "
                "pass --overwrite to throw them away"
            )
        if not isinstance(identity, dict) or not isinstance(numerics, dict):
            return ExistsError(
                f"{self.folder} holds parts without a manifest that this release can read; choose "
                "another name, or pass --overwrite to throw them away"
            )
        if identity != own:
            return ExistsError(
                f"{self.folder} holds parts of another recording (it differs in "
                f"{', '.join(differing(identity, own))}); choose another name, or pass "
                "--overwrite to throw them away"
            )
        now = self.manifest["numerics"]
        each = (
            f"{name} {numerics.get(name, 'unknown')} then, {now.get(name, 'unknown')} now"
            for name in differing(numerics, now)
        )
        return ExistsError(
            f"{self.folder} was begun with other numerics ({'; '.join(each)}), which change the "
            "last bits; go on as it was begun (--threads, --engine, --max-memory, --device, the "
            "same kind of processor), or pass --overwrite to begin anew"
        )

    @property
    def mark(self) -> str:
        """SHA-256 of identity and numerics: what every part is marked with."""
        return mark_of(self.manifest)

    @property
    def has_header(self) -> bool:
        """Whether the header was written."""
        path = self.folder / HEADER
        return path.exists() and part_is_whole(path, self.mark)

    def done(self) -> set[int]:
        """Return the numbers of the portions that are there; damaged ones are removed."""
        numbers = set()
        portions = portion_files(self.folder)
        for path in {*self.folder.glob("unit-*")} - {path for _, path in portions}:
            logger.warning("%s is no part, but a copy or a link; it is not taken", path)
        for number, path in portions:
            if part_is_whole(path, portion_mark(self.mark, number)):
                numbers.add(number)
            else:
                logger.warning("%s is damaged: its part is recorded again", path)
                path.unlink()
        return numbers

    def write_header(self, data: bytes) -> None:
        """Write the file in which only the activations are missing."""
        write_atomically(self.folder / HEADER, seal_bytes(data, mark=self.mark), check=True)

    def write_portion(self, number: int, data: bytes) -> None:
        """Write the part of a portion."""
        write_portion(self.folder, number, data, mark=self.mark)

    def is_bare(self) -> bool:
        """Return whether the folder is there and no part in it, whole or not."""
        return self.folder.is_dir() and not portion_files(self.folder)

    def discard(self) -> None:
        """Remove the parts, and last what tells whose they are: a kill leaves them claimable."""
        for part in self.folder.iterdir():
            if part.name not in (MANIFEST, LOCK):
                part.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def finish(self) -> None:
        """Merge the parts into the recording, put it under its name and remove the parts.

        Where a file of that name has come into being (``ExistsError``), or there is no room, or a
        part is missing or damaged (``StorageError``), the parts stay, so that the same command goes
        on from here.
        """
        size = sum(part.stat().st_size for part in self.folder.glob("*.h5"))
        for rest in self.folder.glob("merged-*.tmp"):  # of a merge that was killed: takes up room
            rest.unlink(missing_ok=True)
        # A name of its own: the merge of a run that was killed may still be going on.
        merged = self.folder / f"merged-{uuid.uuid4().hex}.tmp"
        with _removed_on_failure(merged):
            if free_bytes(self.folder) < size:
                raise StorageError(
                    f"no space left to merge the parts of {self.path}: "
                    f"{format_bytes(size)} needed, {format_bytes(free_bytes(self.folder))} free; "
                    "free some and run the same command again"
                )
            child = subprocess.run(
                [
                    *(sys.executable, "-P", merge.__file__),
                    *(str(self.folder), str(merged), str(os.getpid())),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            if child.returncode != 0:
                lines = child.stderr.strip().splitlines() or [f"exit {child.returncode}"]
                raise StorageError(
                    f"the parts of {self.path} could not be merged ({lines[-1]}); they are kept in "
                    f"{self.folder}: make room if the disk is full, then run the same command again"
                )
            with storage_errors(self.path):
                put_in_place(merged, self.path, overwrite=self.overwrite)
        self.discard()


def mark_of(manifest: dict[str, Any]) -> str:
    """Return the SHA-256 of a manifest, which its parts are marked with."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def changed_behaviour(manifest: dict[str, Any], behaviour: Any) -> list[str]:
    """Return the layers in which a network does something else than when parts were begun."""
    known = manifest.get(BEHAVIOUR)
    if not isinstance(known, dict) or not isinstance(behaviour, dict):
        return []
    return unlike(known, behaviour, last=3)


def write_portion(
    folder: Path, number: int, data: bytes, *, mark: str, claim: Claim | None = None
) -> None:
    """Write the part of a portion into a folder of parts, whole or not at all.

    `mark` is that of the recording; `claim` that of the run for which a process works that does not
    hold the lock itself.
    """
    if claim is not None:
        with claim.writing():
            write_portion(folder, number, data, mark=mark)
        return
    sealed = seal_bytes(data, mark=portion_mark(mark, number))
    write_atomically(folder / portion_name(number), sealed, check=True)


@contextlib.contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
