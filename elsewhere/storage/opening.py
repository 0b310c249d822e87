"""Opening files that may be anything: what is damaged is refused before HDF5 reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the filter)

from elsewhere.errors import StorageError
from elsewhere.protocols import Design
from elsewhere.storage import checking
from elsewhere.storage.parts import parts_folder
from elsewhere.storage.results import from_attribute
from elsewhere.storage.schema import ENCODING, VERSION, StoredLayer
from elsewhere.storage.seal import SealError, check_seal, read_seal, recorded_end

PROBE_SECONDS = 30.0


@dataclass(frozen=True)
class Description:
    """What a recording says of itself."""

    attributes: dict[str, Any]
    design: Design
    layers: tuple[StoredLayer, ...]


def open_file(path: Path) -> tuple[Any, Description]:
    """Return the open HDF5 file of a finished recording and its description.

    Raises
    ------
    StorageError
        The file is missing, unfinished, damaged, not a recording, or of a version that this
        release does not read.
    """
    _check_there(path)
    version = _check_bytes(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise StorageError(f"{path} is not a readable HDF5 file: {_line(error)}") from error
    try:
        stamp = _text(file.attrs.get("elsewhere_encoding"))
        if version is None:
            version = _text(file.attrs.get("encoding_version"))
        _check_stamps(path, stamp, version)
        return file, READERS[str(version)](file)
    except StorageError:
        file.close()
        raise
    except (KeyError, ValueError, TypeError, OSError, RuntimeError, AttributeError) as error:
        file.close()
        raise StorageError(f"{path} is damaged: {_line(error)}") from error


def describe(file: Any) -> Description:
    """Return the description of a recording of version 0.1 or 0.2."""
    attributes = {key: from_attribute(value) for key, value in file.attrs.items()}
    names = tuple(_list_of_names(attributes["axes"]))
    design = Design(
        objects=tuple(file["object"].asstr()[...]),
        categories=tuple(file["category"].asstr()[...]),
        axes=tuple((name, tuple(int(v) for v in file[name][...])) for name in names),
        reference=tuple(int(attributes[f"reference_{name}"]) for name in names),
    )
    groups = file["layers"]
    layers = tuple(
        StoredLayer.from_attributes(name, dict(groups[name].attrs))
        for name in _list_of_names(attributes["layers"])
    )
    return Description(attributes, design, layers)


def describe_identified(file: Any) -> Description:
    """Return the description of a recording of version 0.2, which names what determines it."""
    found = describe(file)
    if not isinstance(found.attributes["identity_fields"], dict):
        raise ValueError("identity_fields is no JSON object")
    return found


READERS: dict[str, Callable[[Any], Description]] = {"0.1": describe, VERSION: describe_identified}
"""Version of the format to what reads it: files of every released version stay readable."""


def _check_there(path: Path) -> None:
    if path.is_dir():
        raise StorageError(f"{path} is a folder; expected a recording such as run.h5")
    if not path.is_file():
        if parts_folder(path).is_dir():
            raise StorageError(
                f"{path} is not finished: only its parts are there; run the command that "
                "records it again to go on, or analyse them with --allow-partial"
            )
        raise StorageError(f"{path} does not exist; expected a recording such as run.h5")


def _check_bytes(path: Path) -> str | None:
    """Refuse damage that can be seen without HDF5; return the version where it is known."""
    try:
        seal = read_seal(path)
        if seal is not None:
            check_seal(path, seal)
            return None
        end, size = recorded_end(path), path.stat().st_size
    except SealError as error:
        raise StorageError(
            f"{path} is damaged: {error}; `elsewhere verify {path}` reads what is left, record it "
            "again"
        ) from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
    if end is None:
        raise StorageError(f"{path} is not a readable HDF5 file: it does not begin like one")
    if size < end:
        raise StorageError(f"{path} is truncated: {size} of {end} bytes are there; record it again")
    if size > end:
        raise StorageError(
            f"{path} is damaged, or was not written by elsewhere: what follows its end is no seal"
        )
    return _probe(path)


def _probe(path: Path) -> str | None:
    """Return the version of a file without a seal, read in a child: HDF5 may crash on it."""
    command = [sys.executable, "-P", checking.__file__, "probe", str(path)]
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise StorageError(f"{path} is damaged: HDF5 does not come to an end with it") from None
    if child.returncode != 0:
        lines = child.stderr.strip().splitlines() or [f"HDF5 ended with {child.returncode}"]
        raise StorageError(f"{path} is not a readable HDF5 file: {lines[-1]}")
    stamps = json.loads(child.stdout.splitlines()[-1])
    version: str | None = stamps["encoding_version"]
    if stamps["elsewhere_encoding"] == ENCODING and version == VERSION:
        raise StorageError(
            f"{path} is truncated, or was written again by another tool: the seal behind its end "
            "is missing; record it again"
        )
    _check_stamps(path, stamps["elsewhere_encoding"], version)
    return version


def _check_stamps(path: Path, stamp: str | None, version: str | None) -> None:
    if stamp != ENCODING:
        held = f"a {stamp}" if stamp else "not written by elsewhere"
        raise StorageError(f"{path} is {held}; expected a recording")
    if version not in READERS:
        raise StorageError(
            f"{path} has format version {version}; this release reads {', '.join(READERS)}: "
            "update elsewhere"
        )


def _list_of_names(value: Any) -> list[str]:
    if isinstance(value, list):
        return value
    raise ValueError(f"expected a list of names, got {value!r}")


def _text(value: Any) -> str | None:
    return None if value is None else value.decode() if isinstance(value, bytes) else str(value)


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
