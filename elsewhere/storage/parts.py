"""A recording in the making: a folder of parts, each written whole, merged when all are there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from elsewhere.errors import ExistsError, StorageError
from elsewhere.storage import merge
from elsewhere.storage.files import check_output, free_bytes, storage_errors, write_atomically
from elsewhere.storage.merge import HEADER, unit_name
from elsewhere.types import format_bytes

MANIFEST = "manifest.json"


def parts_folder(path: Path) -> Path:
    """Return the folder in which the parts of the recording `path` are collected."""
    return path.with_name(path.name + ".parts")


class Parts:
    """The folder of parts of one recording, locked while it is open.

    >>> with Parts(Path("run.h5"), fields, overwrite=False) as parts:   # doctest: +SKIP
    ...     parts.write_header(header)
    ...     parts.write_unit(0, data)
    ...     parts.finish()

    Parameters
    ----------
    path
        The recording to be.
    fields
        The fields that determine its values: parts of another recording are refused.
    overwrite
        Whether parts of another recording are thrown away.
    """

    def __init__(self, path: Path, fields: dict[str, Any], *, overwrite: bool = False) -> None:
        self.path, self.fields, self.overwrite = path, fields, overwrite
        self.folder = parts_folder(path)
        self._lock: IO[str] | None = None

    def __enter__(self) -> Parts:
        with storage_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
            self._lock = open(self.folder / "lock", "w")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._lock.close()
                raise StorageError(
                    f"{self.path} is being recorded by another process; wait for it, or choose "
                    "another name"
                ) from None
        try:
            self._claim()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _claim(self) -> None:
        manifest = self.folder / MANIFEST
        if manifest.exists():
            earlier = json.loads(manifest.read_text())
            differing = [key for key in self.fields if earlier.get(key) != self.fields[key]]
            differing += [key for key in earlier if key not in self.fields]
            if not differing:
                return
            if not self.overwrite:
                raise ExistsError(
                    f"{self.folder} holds parts of another recording (it differs in "
                    f"{', '.join(differing)}); choose another name, or pass --overwrite to "
                    "throw them away"
                )
            for entry in self.folder.iterdir():
                if entry.name != "lock":
                    entry.unlink()
        write_atomically(manifest, json.dumps(self.fields, sort_keys=True).encode())

    @property
    def has_header(self) -> bool:
        """Whether the header was written."""
        return (self.folder / HEADER).exists()

    def done(self) -> set[int]:
        """Return the numbers of the units that are written."""
        return {int(path.stem.removeprefix("unit-")) for path in self.folder.glob("unit-*.h5")}

    def write_header(self, data: bytes) -> None:
        """Write the file in which only the activations are missing."""
        write_atomically(self.folder / HEADER, data)

    def write_unit(self, number: int, data: bytes) -> None:
        """Write the part of a unit."""
        write_atomically(self.folder / unit_name(number), data)

    def discard(self) -> None:
        """Remove the parts."""
        shutil.rmtree(self.folder)

    def finish(self) -> None:
        """Merge the parts into the recording, put it under its name and remove the parts.

        Raises
        ------
        ExistsError
            A file of that name has come into being meanwhile.
        StorageError
            There is no room for the merged file, or a part is missing or damaged. The parts
            stay, so that the same command goes on from here.
        """
        size = sum(part.stat().st_size for part in self.folder.glob("*.h5"))
        merged = self.folder / "merged.tmp"
        merged.unlink(missing_ok=True)  # of a merge that was killed: it would take up the room
        with _removed_on_failure(merged):
            if free_bytes(self.folder) < size:
                raise StorageError(
                    f"no space left to merge the parts of {self.path}: "
                    f"{format_bytes(size)} needed, {format_bytes(free_bytes(self.folder))} free; "
                    "free some and run the same command again"
                )
            child = subprocess.run(
                [sys.executable, "-P", merge.__file__, str(self.folder), str(merged)],
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
            check_output(self.path, overwrite=self.overwrite)
            with storage_errors(self.path):
                os.replace(merged, self.path)
        self.discard()


@contextlib.contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
