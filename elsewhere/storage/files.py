"""Writing files so that nothing is lost: plain I/O, to a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from elsewhere.errors import ExistsError, StorageError
from elsewhere.types import format_bytes


def check_output(path: Path, *, overwrite: bool = False) -> None:
    """Refuse an output that exists (unless `overwrite`), is a folder or has no folder to be in.

    Raises
    ------
    ExistsError
        The file exists.
    StorageError
        The folder does not exist, or `path` is one.
    """
    if path.is_dir():
        raise StorageError(f"{path} is a folder; expected the name of a file to write")
    if path.exists() and not overwrite:
        raise ExistsError(f"{path} exists already; choose another name or pass --overwrite")
    if not path.parent.is_dir():
        raise StorageError(f"the folder {path.parent} does not exist; create it first")


def free_bytes(path: Path) -> int:
    """Return the free bytes on the disk of `path`, which need not exist yet."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn operating system errors into one line that names `path` and the remedy."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = format_bytes(free_bytes(path))
            raise StorageError(
                f"no space left for {path} ({free} free); free some or write to another disk"
            ) from error
        reason = error.strerror or str(error)
        raise StorageError(f"cannot write {path}: {reason}") from error


def write_atomically(path: Path, data: bytes | memoryview, *, check: bool = False) -> None:
    """Write `data` to `path` whole or not at all, so that it also survives a loss of power.

    Parameters
    ----------
    path
        Where to write.
    data
        What to write.
    check
        Whether what was written is read back before it gets its name.

    Raises
    ------
    StorageError
        The disk is full or the place cannot be written; no file is left behind.
    """
    with storage_errors(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            if check and not _same(Path(name), data):
                raise OSError(errno.EIO, "what was written reads back differently")
            os.replace(name, path)
            synchronise_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


def synchronise_folder(folder: Path) -> None:
    """Make the names in `folder` last, where the system can."""
    with contextlib.suppress(OSError):  # some file systems synchronise no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _same(path: Path, data: bytes | memoryview) -> bool:
    view, step = memoryview(data), 2**22
    with open(path, "rb") as file:
        pieces = (view[i : i + step] for i in range(0, len(view), step))
        return all(file.read(step) == piece for piece in pieces) and not file.read(1)
