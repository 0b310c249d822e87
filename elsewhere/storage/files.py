"""Writing files so that nothing is lost: plain I/O, to a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

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


def is_file(path: Path) -> bool:
    """Return whether `path` is a file, also where no file can have such a name."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


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


def read_plain(path: Path, *, limit: int) -> bytes:
    """Return what a small file holds; only a plain file is read.

    Parameters
    ----------
    path
        The file.
    limit
        Bytes that it may have.

    Raises
    ------
    OSError
        It cannot be read, is no plain file, or is larger.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe does not block
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no plain file")
        if status.st_size > limit:
            size = f"{format_bytes(status.st_size)}, and at most {format_bytes(limit)} are read"
            raise OSError(errno.EFBIG, f"it has {size}")
        return file.read(limit)


def open_inside(path: Path, flags: int, mode: str) -> IO[Any]:
    """Open a file in a folder of ours (a run, a folder of parts); a link is not followed.

    Parameters
    ----------
    path
        The file.
    flags
        As ``os.open`` takes them, such as ``os.O_WRONLY | os.O_CREAT``.
    mode
        As ``os.fdopen`` takes it, binary.

    Raises
    ------
    StorageError
        It is a link.
    OSError
        It cannot be opened.
    """
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise _is_link(path) from error
        raise
    return os.fdopen(handle, mode)


def make_inside(folder: Path, *names: str) -> Path:
    """Make the folder `names` within a folder of ours, unless it is there; follow no link there.

    Parameters
    ----------
    folder
        A run, or the like; it is made as well, and may itself be a link.
    names
        One below the other.

    Raises
    ------
    StorageError
        One of `names` is a link, or cannot be made.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            folder = folder / name
            refuse_link(folder)
            folder.mkdir(exist_ok=True)
    return folder


def refuse_link(path: Path) -> None:
    """Refuse a link where a file or folder of ours is expected.

    Raises
    ------
    StorageError
        It is one.
    """
    if path.is_symlink():
        raise _is_link(path)


def _is_link(path: Path) -> StorageError:
    return StorageError(
        f"{path} is a link, which is not followed here: it could lead anywhere; put the file or "
        "folder itself there"
    )


def _same(path: Path, data: bytes | memoryview) -> bool:
    view, step = memoryview(data), 2**22
    with open(path, "rb") as file:
        pieces = (view[i : i + step] for i in range(0, len(view), step))
        return all(file.read(step) == piece for piece in pieces) and not file.read(1)
