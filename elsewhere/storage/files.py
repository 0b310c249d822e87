"""Writing files so that nothing is lost: plain I/O, to a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import fnmatch
import os
import secrets
import shutil
import signal
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from elsewhere.errors import ExistsError, StorageError
from elsewhere.types import format_bytes

TEMPORARY = ".elsewhere-"
"""How the names of files begin that are being written."""

BLOCK = 4096
"""Bytes that are written, and removed again, to see that a folder takes any."""

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def check_output(path: Path, *, overwrite: bool = False, room: int = 0) -> None:
    """Refuse an output that cannot be written, before anything is computed.

    It exists (unless `overwrite`), is no plain file, has no folder to be in, or the folder or the
    disk takes nothing. What killed runs left unfinished in that folder is removed.

    Parameters
    ----------
    path
        The file to be.
    overwrite
        Whether an existing file is to be replaced.
    room
        Bytes that it will have, where that is known.

    Raises
    ------
    ExistsError
        The file exists.
    StorageError
        It cannot be written.
    """
    with storage_errors(path):
        remove_leftovers(path.parent)  # also of a run that was killed when its file had its name
        if path.is_dir():
            raise StorageError(f"{path} is a folder; expected the name of a file to write")
        if path.exists():
            if not path.is_file():
                raise StorageError(
                    f"{path} is a device or a pipe; expected the name of a file to write"
                )
            if not overwrite:
                raise ExistsError(f"{path} exists already; choose another name or pass --overwrite")
        elif path.is_symlink():
            raise ExistsError(
                f"{path} is a link to {os.readlink(path)}, which does not exist; remove the link, "
                "or choose another name"
            )
        if not path.parent.is_dir():
            raise StorageError(f"the folder {path.parent} does not exist; create it first")
        _check_length(path)
        with temporary_file(path.parent) as (file, _):
            file.write(bytes(BLOCK))
            file.flush()
        check_room(path, room)


def check_room(path: Path, needed: int) -> None:
    """Refuse, before any work, what will not fit the disk of `path`, which need not exist.

    `needed` are bytes in addition to what is there, about. Less room is a ``StorageError``.
    """
    if needed > 0 and (free := free_bytes(path)) < needed:
        raise StorageError(
            f"{path} will need about {format_bytes(needed)}, and {format_bytes(free)} are free; "
            "free some or write to another disk"
        )


def check_rooms(needs: Mapping[Path, int]) -> None:
    """Refuse, before any work, files that will not fit their disks together; see `check_room`."""
    together: dict[int, int] = {}
    for path, needed in needs.items():
        disk = _nearest(path).stat().st_dev
        together[disk] = together.get(disk, 0) + needed
        check_room(path, together[disk])


def save_all(*saves: Callable[[], object]) -> None:
    """Write several files that were computed; that one cannot be written does not lose the others.

    Raises
    ------
    StorageError
        Some could not be written; the message has each one's.
    """
    errors = []
    for save in saves:
        try:
            save()
        except StorageError as error:
            errors.append(error)
    if errors:
        raise type(errors[0])("; ".join(map(str, errors))) from errors[0]


def _check_length(path: Path) -> None:
    """Refuse a name to which ``.parts`` cannot be added."""
    limit = os.pathconf(path.parent, "PC_NAME_MAX") - len(".parts")
    length = len(os.fsencode(path.name))
    if length > limit:
        raise StorageError(
            f"the name {path.name[:40]}... has {length} bytes; at most {limit} are possible there: "
            "choose a shorter one"
        )


def is_file(path: Path) -> bool:
    """Return whether `path` is a file, also where no file can have such a name.

    Where a folder on the way to it is closed, so that nobody can tell, it is a ``StorageError``.
    """
    return _is(path, stat.S_ISREG)


def is_checkpoint(path: str | Path) -> bool:
    """Return whether `path` is weights with a card beside them, or such a card."""
    path = Path(path)
    if path.suffix not in (".safetensors", ".json"):
        return False
    return is_file(path.with_suffix(".safetensors")) and is_file(path.with_suffix(".json"))


def is_folder(path: Path) -> bool:
    """Return whether `path` is a folder; as `is_file`."""
    return _is(path, stat.S_ISDIR)


def _is(path: Path, kind: Callable[[int], bool]) -> bool:
    try:
        return kind(path.stat().st_mode)
    except PermissionError as error:
        raise _closed(path) from error
    except (OSError, ValueError):
        return False


def list_folder(folder: Path, pattern: str) -> list[Path]:
    """Return what a folder has of a pattern, sorted: nothing if it is not there.

    One that is closed, which ``Path.glob`` takes for empty, is a ``StorageError``.
    """
    try:
        names = os.listdir(folder)
    except PermissionError as error:
        raise _closed(folder) from error
    except OSError:
        return []
    return sorted(folder / name for name in names if fnmatch.fnmatchcase(name, pattern))


def _closed(path: Path) -> StorageError:
    return StorageError(
        f"{path} cannot be read: permission denied; ask for the right to read it (chmod), or copy "
        "it as someone who has it"
    )


def free_bytes(path: Path) -> int:
    """Return the free bytes on the disk of `path`, which need not exist yet."""
    return shutil.disk_usage(_nearest(path)).free


def _nearest(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    while not path.exists():
        path = path.parent
    return path


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


def write_atomically(
    path: Path, data: bytes | memoryview, *, check: bool = False, overwrite: bool = True
) -> None:
    """Write `data` to `path` whole or not at all, so that it also survives a loss of power.

    Parameters
    ----------
    path
        Where to write.
    data
        What to write.
    check
        Whether what was written is read back before it gets its name.
    overwrite
        Whether a file of that name is replaced; the new one takes over its mode.

    Raises
    ------
    ExistsError
        There is a file of that name, which is not to be replaced.
    StorageError
        The disk is full or the place cannot be written; no file is left behind.
    """
    with storage_errors(path), temporary_file(path.parent) as (file, name):
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        if check and not _same(name, data):
            raise OSError(errno.EIO, "what was written reads back differently")
        put_in_place(name, path, overwrite=overwrite)


def put_in_place(temporary: Path, path: Path, *, overwrite: bool) -> None:
    """Give a finished file, in the folder of `path` or on its disk, that name.

    Without `overwrite` the name is created, never replaced: of two processes one is refused, with
    an ``ExistsError``.
    """
    if overwrite:
        with contextlib.suppress(FileNotFoundError):
            os.chmod(temporary, stat.S_IMODE(os.stat(path).st_mode))
        os.replace(temporary, path)
    else:
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise _came_meanwhile(path) from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            try:  # the name is reserved, then filled
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            except FileExistsError:
                raise _came_meanwhile(path) from None
            os.replace(temporary, path)
        else:
            os.unlink(temporary)
    synchronise_folder(path.parent)


def save_output(path: Path, data: bytes | memoryview, *, overwrite: bool = False) -> None:
    """Write what was computed for the user; where it cannot be written, to a rescue file.

    A terminal that is closed meanwhile (SIGHUP) does not end the process.

    Raises
    ------
    StorageError
        It could not be written there; the message says where it lies instead.
    """
    try:
        with _deaf_to_hanging_up():
            write_atomically(path, data, overwrite=overwrite)
    except StorageError as error:
        with _deaf_to_hanging_up():
            rescued = _rescue(path, data)
        where = "and nowhere else could it be written" if rescued is None else (
            f"what was computed is in {rescued}: move it to where it belongs"
        )  # fmt: skip
        raise type(error)(f"{error}; {where}") from error


@contextlib.contextmanager
def _deaf_to_hanging_up() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only that one can choose
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before if before is not None else signal.SIG_DFL)


def _rescue(path: Path, data: bytes | memoryview) -> Path | None:
    """Write `data` to the first place that takes it, under a name of its own."""
    places = [path.parent.absolute(), Path.cwd(), Path(tempfile.gettempdir()), Path.home()]
    for folder in dict.fromkeys(places):
        for number in range(100):
            mark = "rescued" if number == 0 else f"rescued-{number}"
            rescued = folder / f"{path.stem[:100]}.{mark}{path.suffix[:20]}"
            try:
                write_atomically(rescued, data, overwrite=False)
            except ExistsError:
                continue
            except StorageError:
                break
            return rescued
    return None


def _came_meanwhile(path: Path) -> ExistsError:
    return ExistsError(
        f"{path} exists already: it has come into being meanwhile; choose another name or pass "
        "--overwrite"
    )


@contextlib.contextmanager
def temporary_file(folder: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """Make a file in a folder, for a while; its mode is what the umask leaves.

    It is locked while it is written: one whose lock is free is of a process that is dead.
    """
    while True:
        name = folder / f"{TEMPORARY}{secrets.token_hex(8)}.tmp"
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with contextlib.suppress(OSError):  # some file systems know no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.lstat(name)):
                break
        os.close(handle)  # taken for a leftover before it was locked
    try:
        with os.fdopen(handle, "wb") as file:
            yield file, name
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name)


def remove_leftovers(folder: Path) -> None:
    """Remove files of :func:`temporary_file` whose process is dead."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            if entry.name.startswith(TEMPORARY) and entry.name.endswith(".tmp"):
                with contextlib.suppress(OSError):
                    _remove_leftover(entry.path)


def _remove_leftover(name: str) -> None:
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name)
    finally:
        os.close(handle)


def synchronise_folder(folder: Path) -> None:
    """Make the names in `folder` last, where the system can."""
    with contextlib.suppress(OSError):  # some file systems synchronise no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_plain(path: Path, *, limit: int) -> bytes:
    """Return what a small file of at most `limit` bytes holds; only a plain file is read.

    What cannot be read, is no plain file, or is larger, is an ``OSError``.
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

    Nor is a file written that has another name as well: that may be anywhere. `flags` are those of
    ``os.open``, `mode` (binary) that of ``os.fdopen``.

    Raises
    ------
    StorageError
        It is a link, no plain file, or to be written and not the only name of its content.
    OSError
        It cannot be opened.
    """
    try:
        more = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe does not block
        handle = os.open(path, flags | more, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise _is_link(path) from error
        raise
    status = os.fstat(handle)
    alone = status.st_nlink <= 1 or not flags & (os.O_WRONLY | os.O_RDWR)
    if not stat.S_ISREG(status.st_mode) or not alone:
        os.close(handle)
        what = (
            "has other names (hard links), which would change with it" if not alone else "is none"
        )
        raise StorageError(f"{path}: expected a plain file of its own; it {what}; copy the folder")
    return os.fdopen(handle, mode)


def make_inside(folder: Path, *names: str) -> Path:
    """Make the folder `names`, one below the other, within a folder of ours; follow no link there.

    `folder`, such as a run, is made as well, and may itself be a link. One of `names` that is a
    link, or cannot be made, is a ``StorageError``.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            folder = folder / name
            refuse_link(folder)
            folder.mkdir(exist_ok=True)
    return folder


def refuse_link(path: Path) -> None:
    """Refuse a link where a file or folder of ours is expected."""
    if os.path.islink(path):  # False for names that no file can have
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
