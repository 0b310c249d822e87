"""What is looked at before HDF5 reads a file: its seal, its end, and where its links lead."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the filter)

from elsewhere.errors import StorageError
from elsewhere.storage import checking
from elsewhere.storage.checking import one_line
from elsewhere.storage.seal import Seal, SealError, check_seal, read_seal, recorded_end

PROBE_SECONDS = 30.0
BYTES_PER_SECOND = 20e6
"""Bytes that a child is given a second for, at least."""

READING = (
    KeyError,
    ValueError,
    TypeError,
    OSError,
    RuntimeError,
    AttributeError,
    OverflowError,
    MemoryError,
)
"""What h5py raises on files that are damaged, or made to hurt."""


def check_bytes(path: Path, expected: str) -> Seal | None:
    """Return a file's seal, or None where there is none; refuse damage that shows without HDF5.

    `expected` is what it should be, for the ``StorageError`` of a file that is damaged, cut short,
    or no HDF5 file.
    """
    try:
        seal = read_seal(path)
        if seal is not None:
            check_seal(path, seal)
            return seal
        end, size = recorded_end(path), path.stat().st_size
    except SealError as error:
        raise StorageError(
            f"{path} is damaged: {error}; `elsewhere verify {path}` reads what is left, make it "
            "again"
        ) from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
    if end is None:
        raise StorageError(
            f"{path} cannot be read: it is not a readable HDF5 file (its beginning is none); "
            f"expected {expected}"
        )
    if size < end:
        raise StorageError(
            f"{path} cannot be read: it is truncated ({size} of {end} bytes); make it again"
        )
    if size > end:
        raise StorageError(
            f"{path} is damaged, or was not written by elsewhere: what follows its end is no seal"
        )
    return None


def look(path: Path, what: str) -> tuple[str | None, str | None]:
    """Return the encoding and the version of a file without a seal, read in a child.

    HDF5 may crash or hang on it. ``probe`` reads what opening a recording reads, ``result`` all of
    a result; what cannot be read within the time is a ``StorageError``.
    """
    seconds = PROBE_SECONDS + path.stat().st_size / BYTES_PER_SECOND
    lines, failure = run_child(path, what, seconds)
    if failure is not None or not lines:
        raise StorageError(f"{path} is damaged, or no readable HDF5 file: {failure}")
    return lines[-1]["elsewhere_encoding"], lines[-1]["encoding_version"]


def run_child(path: Path, what: str, timeout: float) -> tuple[list[dict[str, Any]], str | None]:
    """Return what a program of :mod:`elsewhere.storage.checking` printed, and why it failed."""
    command = [sys.executable, "-P", checking.__file__, what, str(path)]
    failure = None
    try:
        child = subprocess.run(command, capture_output=True, check=False, timeout=timeout)
        output, code = child.stdout, child.returncode
        if code != 0:
            said = child.stderr.decode(errors="backslashreplace").strip().splitlines()
            failure = (
                f"it cannot be read further ({said[-1] if said else f'HDF5 ended with {code}'})"
            )
    except subprocess.TimeoutExpired as expired:
        output = expired.stdout or b""
        failure = f"reading did not come to an end in {timeout:.0f} s"
    lines = []
    for text in output.splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:  # cut off by the end of the child
            continue
    return lines, failure


def open_checked(path: Path, *, whole: bool) -> Any:
    """Return the open HDF5 file, whose bytes were checked, if none of its links lead out of it.

    `whole` is that of :func:`elsewhere.storage.checking.check_structure`; what cannot be read, or
    leads out of itself, is a ``StorageError``.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise StorageError(f"{path} is not a readable HDF5 file: {one_line(error)}") from error
    try:
        checking.check_structure(file, whole=whole)
    except READING as error:
        file.close()
        raise StorageError(f"{path} is refused: {one_line(error)}") from error
    return file
