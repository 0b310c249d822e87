"""Opening files that may be anything: what is damaged is refused before HDF5 reads it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from elsewhere.axes import Axes, Axis
from elsewhere.errors import StorageError
from elsewhere.protocols import Design
from elsewhere.storage.admission import READING, check_bytes, look, open_checked
from elsewhere.storage.checking import one_line
from elsewhere.storage.files import is_file, is_folder
from elsewhere.storage.parts import parts_folder
from elsewhere.storage.results import from_attribute
from elsewhere.storage.schema import ENCODING, VERSION, StoredLayer
from elsewhere.storage.seal import SealError, read_seal


@dataclass(frozen=True)
class Description:
    """What a recording says of itself."""

    attributes: dict[str, Any]
    design: Design
    layers: tuple[StoredLayer, ...]
    content: str = ""
    """By which the file is known again, see :func:`content_of`; empty of parts."""
    sealed: bool = True


def content_of(path: Path) -> str:
    """Return by what the content of a file is known when it is opened again.

    That is the checksum in its seal, wherever it lies; of a file without a seal its size and time.
    One that is gone, or whose seal is damaged, is a ``StorageError``.
    """
    try:
        seal, status = read_seal(path), path.stat()
    except (SealError, OSError) as error:
        raise StorageError(f"{path} was changed or removed since it was opened: {error}") from error
    return f"{status.st_size}:{status.st_mtime_ns}" if seal is None else seal.sha256


def check_content(path: Path, content: str) -> None:
    """Refuse a file that was replaced since it was opened."""
    if content_of(path) != content:
        raise replaced(path)


def replaced(path: Path) -> StorageError:
    """Return the error that a file is another one than was opened."""
    return StorageError(f"{path} was replaced by another file since it was opened; open it anew")


def open_file(path: Path) -> tuple[Any, Description]:
    """Return the open HDF5 file of a finished recording and its description.

    Raises
    ------
    StorageError
        The file is missing, unfinished, damaged, not a recording, or of a version that this
        release does not read.
    """
    _check_there(path)
    seal = check_bytes(path, "a recording such as run.h5")
    content = content_of(path) if seal is None else seal.sha256
    version = None if seal is not None else _look(path)
    file = open_checked(path, whole=False)
    try:
        check_content(path, content)
        stamp = _text(file.attrs.get("elsewhere_encoding"))
        if version is None:
            version = _text(file.attrs.get("encoding_version"))
        _check_stamps(path, stamp, version)
        description = READERS[str(version)](file)
        return file, replace(description, content=content, sealed=seal is not None)
    except StorageError:
        file.close()
        raise
    except READING as error:
        file.close()
        raise StorageError(f"{path} is damaged: {one_line(error)}") from error


def describe(file: Any) -> Description:
    """Return the description of a recording of any version."""
    attributes = {key: from_attribute(value) for key, value in file.attrs.items()}
    _check_attributes(attributes)
    axes = tuple(_axis(name, file[name]) for name in _list_of_names(attributes["axes"]))
    design = Design(
        objects=tuple(file["object"].asstr()[...]),
        categories=tuple(file["category"].asstr()[...]),
        axes=Axes(axes),
        reference=tuple(
            (int if axis.moves else float)(attributes[f"reference_{axis.name}"]) for axis in axes
        ),
    )
    groups = file["layers"]
    layers = tuple(
        StoredLayer.from_attributes(name, dict(groups[name].attrs))
        for name in _list_of_names(attributes["layers"])
    )
    _check_shapes(file, design, layers)
    return Description(attributes, design, layers)


def _check_shapes(file: Any, design: Design, layers: Sequence[StoredLayer]) -> None:
    """Refuse arrays of other shapes than the description says, by which they are read."""
    n, shapes = len(design.objects), {"mask": file["mask"].shape}
    expected: dict[str, tuple[int, ...]] = {"image": (*shapes["mask"], 3)}
    expected["mask"] = (n, *shapes["mask"][-2:])
    for layer in layers:
        one = layer.stored_shape
        expected[f"layers/{layer.name}/activation"] = (n, *design.shape, *one)
        expected[f"layers/{layer.name}/empty"] = one
        if design.reference_index is None:
            expected[f"layers/{layer.name}/reference"] = (n, *one)
    for name, shape in expected.items():
        if (found := file[name].shape) != shape:
            raise ValueError(f"{name} has the shape {found}; expected {shape}")


def _axis(name: str, variable: Any) -> Axis:
    """Return an axis from its coordinates; those of before 0.4 all move the window."""
    attributes = {key: from_attribute(value) for key, value in variable.attrs.items()}
    moves = "changes" not in attributes
    values = tuple(map(int if moves else float, variable[...].tolist()))
    return Axis(name, values, str(attributes.get("units", "px")), moves)


def describe_identified(file: Any) -> Description:
    """Return the description of a recording since 0.2, which names what determines it."""
    found = describe(file)
    if not isinstance(found.attributes["identity_fields"], dict):
        raise ValueError("identity_fields is no JSON object")
    return found


READERS: dict[str, Callable[[Any], Description]] = {
    "0.1": describe,
    "0.2": describe_identified,
    VERSION: describe_identified,
}
"""Version of the format to what reads it: files of every released version stay readable."""


def _check_there(path: Path) -> None:
    if is_folder(path):
        raise StorageError(f"{path} is a folder; expected a recording such as run.h5")
    if not is_file(path):
        if is_folder(parts_folder(path)):
            raise StorageError(
                f"{path} is not finished: only its parts are there; run the command that "
                "records it again to go on, or analyse them with --allow-partial"
            )
        raise StorageError(f"{path} does not exist; expected a recording such as run.h5")


def _look(path: Path) -> str | None:
    """Return the version of a file without a seal, read in a child: HDF5 may crash on it."""
    stamp, version = look(path, "probe")
    if stamp == ENCODING and version in READERS and version != "0.1":
        raise StorageError(
            f"{path} is truncated, or was written again by another tool: the seal behind its end "
            "is missing; record it again"
        )
    _check_stamps(path, stamp, version)
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
    plain = isinstance(value, list) and all(isinstance(name, str) for name in value)
    if (
        not plain
        or len(set(value)) < len(value)
        or any("/" in name or name in ("", ".", "..") for name in value)
    ):
        raise ValueError(f"expected a list of names, got {str(value)[:80]!r}")
    return list(value)


_NUMBERS = {
    **{"canvas": 1, "object_size": 1, "gain": 1, "background": 3, "mean": 3, "std": 3},
    "weights_seed": 1,
}
_TEXTS = (
    *("model", "weights", "weights_sha256", "identity", "object_set", "channels", "command"),
    "object_digest",
)


def _check_attributes(attributes: dict[str, Any]) -> None:
    """Refuse attributes of another kind than later commands take them for."""
    for name, count in _NUMBERS.items():
        given = attributes.get(name, 0)
        values = given if isinstance(given, list) else [given]
        numbers = all(isinstance(v, int | float) and math.isfinite(v) for v in values)
        if not numbers or (name in attributes and len(values) != count):
            raise ValueError(f"{name}: expected {count} numbers, got {str(given)[:80]!r}")
    for name in _TEXTS:
        if not isinstance(attributes.get(name, ""), str):
            raise ValueError(f"{name}: expected a text, got {str(attributes[name])[:80]!r}")
    notes = attributes.get("notes", [])
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise ValueError(f"notes: expected a list of texts, got {str(notes)[:80]!r}")
    for name in ("model_arguments", "numerics", "versions", "object_source"):
        if not isinstance(attributes.get(name, {}), dict):
            raise ValueError(f"{name}: expected an object, got {str(attributes[name])[:80]!r}")


def _text(value: Any) -> str | None:
    return None if value is None else value.decode() if isinstance(value, bytes) else str(value)
