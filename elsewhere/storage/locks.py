"""Who may write into a folder: one run at a time, and of its processes none that outlived it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from elsewhere.errors import StorageError
from elsewhere.storage.files import open_inside, refuse_link, remove_leftovers, storage_errors

LOCK, CLAIM = "lock", "claim"


@contextlib.contextmanager
def locked(folder: Path, message: str, *, make: bool = False) -> Iterator[None]:
    """Hold a folder's lock, which ends with the process; what killed runs left is removed.

    `message` is what a second process is told. With `make` the folder is made where there is none,
    and again where a run that ends meanwhile removes it.

    Raises
    ------
    StorageError
        Another process holds the lock, or the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with storage_errors(folder):
            while True:
                if make:
                    refuse_link(folder)
                    folder.mkdir(exist_ok=True)
                try:
                    lock = open_inside(folder / LOCK, os.O_RDWR | os.O_CREAT, "r+b")
                except FileNotFoundError:
                    if make:
                        continue
                    raise
                with contextlib.ExitStack() as attempt:
                    attempt.enter_context(lock)
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        raise StorageError(message) from None
                    with contextlib.suppress(FileNotFoundError):
                        there = os.stat(folder / LOCK, follow_symlinks=False)
                        if os.path.samestat(os.fstat(lock.fileno()), there):
                            stack.push(attempt.pop_all())
                            break
            remove_leftovers(folder)
        yield


@dataclass(frozen=True)
class Claim:
    """The right of a run's processes to write into a folder, until another run claims it.

    A process that outlives its run (a worker of a cluster whose asking process was killed) finds
    the claim taken and writes nothing more: there are never two writers.
    """

    folder: Path
    token: str

    @classmethod
    def take(cls, folder: Path) -> Claim:
        """Claim a folder whose lock is held; a file that is just being written is waited for."""
        token = uuid.uuid4().hex
        with (
            storage_errors(folder),
            open_inside(folder / CLAIM, os.O_RDWR | os.O_CREAT, "r+b") as file,
        ):
            fcntl.flock(file, fcntl.LOCK_EX)
            file.truncate(0)
            file.write(token.encode())
            file.flush()
        return cls(folder, token)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the claim while a file is written; StorageError where it is another run's by now."""
        try:
            file = open_inside(self.folder / CLAIM, os.O_RDONLY, "rb")
        except FileNotFoundError:
            raise self._lost() from None
        with file:
            fcntl.flock(file, fcntl.LOCK_SH)
            if file.read(64).decode(errors="replace") != self.token:
                raise self._lost()
            yield

    def _lost(self) -> StorageError:
        return StorageError(
            f"{self.folder} was begun again or finished by another process meanwhile; this one "
            "writes nothing more"
        )
