"""Small files that later commands believe: JSON objects and lines of them, with their seals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from elsewhere.errors import StorageError
from elsewhere.logs import get_logger
from elsewhere.storage.files import read_plain, refuse_link, write_atomically
from elsewhere.storage.seal import SealError, read_seal, seal_table, table_is_whole

logger = get_logger(__name__)

LARGEST = 2**26
"""Bytes of a file of JSON, at most."""

UNSEALED = "carries no seal (an older release wrote it): damage in it would not be noticed"

SEALED_SINCE = (0, 2)
"""Documents of this version and later ones carry a seal."""


def write_document(path: Path, table: dict[str, Any], *, encoding: str, version: str) -> None:
    """Write a JSON object with its stamps and its seal, whole or not at all."""
    stamped = {"elsewhere_encoding": encoding, "encoding_version": version, **table}
    text = json.dumps(seal_table(stamped), indent=1, sort_keys=True, allow_nan=False)
    write_atomically(path, text.encode())


def read_document(path: Path, *, encoding: str, expected: str) -> tuple[dict[str, Any], bool]:
    """Return a JSON object without its stamps and its seal, and whether it was sealed.

    Raises
    ------
    StorageError
        It is missing, damaged, or has another `encoding`; the message has what was `expected`.
    """
    table = parse_object(_read(path, expected), path)
    whole = table_is_whole(table)
    stamp = table.pop("elsewhere_encoding", None)
    if stamp != encoding:
        raise StorageError(f"{path} is {_held(stamp)}; expected {expected}")
    version = str(table.pop("encoding_version", "0.1"))
    if whole is None and _is_sealed_version(version):
        raise StorageError(
            f"{path} is damaged: its seal is missing, which version {version} has; restore it, or "
            "make it again"
        )
    if whole is False:
        raise StorageError(
            f"{path} is damaged, or was changed: it differs from its seal; restore it, or make it "
            "again"
        )
    table.pop("seal", None)
    return table, bool(whole)


def parse_object(data: bytes, path: Path) -> dict[str, Any]:
    """Return the JSON object in `data`, which `path` holds; StorageError where it is none."""
    try:
        table = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise StorageError(
            f"{path} is damaged: it is no JSON ({type(error).__name__}: {error}); restore it, or "
            "make it again"
        ) from None
    if not isinstance(table, dict):
        raise StorageError(f"{path} is damaged: it holds a {type(table).__name__}, not an object")
    return table


def tell_unsealed(path: Path) -> None:
    """Say that a file carries no seal."""
    logger.warning("%s %s", path, UNSEALED)


# --- lines -----------------------------------------------------------------------------------


class LineSeals:
    """Seals JSON lines: each line's seal covers all bytes before it and the line itself.

    Examples
    --------
    >>> seals = LineSeals()
    >>> first, second = seals.encode({"step": 1}), seals.encode({"step": 2})
    >>> [table["step"] for table, _ in LineSeals().decode(first + second, Path("metrics.jsonl"))]
    [1, 2]
    """

    def __init__(self) -> None:
        self._before = hashlib.sha256()

    def encode(self, table: dict[str, Any]) -> bytes:
        """Return the next line."""
        sealed = {**table, "seal": self._seal(table)}
        line = json.dumps(sealed, allow_nan=False).encode() + b"\n"
        self._before.update(line)
        return line

    def decode(self, data: bytes, path: Path) -> Iterator[tuple[dict[str, Any], bool]]:
        """Yield each line of `data`, which `path` holds, and whether it is sealed."""
        sealed = False
        for number, line in enumerate(data.splitlines(keepends=True), start=1):
            table = parse_object(line, path)
            seal = table.pop("seal", None)
            if (seal is not None or sealed) and seal != self._seal(table):
                raise StorageError(
                    f"{path} is damaged: line {number} differs from its seal; restore it"
                )
            if seal is not None and not line.endswith(b"\n"):
                raise StorageError(f"{path} is damaged: line {number} was cut short; restore it")
            sealed = seal is not None
            self._before.update(line)
            yield table, sealed

    def _seal(self, table: dict[str, Any]) -> str:
        digest = self._before.copy()
        digest.update(json.dumps(table, sort_keys=True, separators=(",", ":")).encode())
        return digest.hexdigest()


def read_lines(path: Path) -> list[tuple[dict[str, Any], bool]]:
    """Return the lines of a run's metrics, and whether each is sealed.

    Beside them lies the run's state, whose seal says how many bytes there were when it was written:
    not one of these may be missing. Damage, and a link, are a ``StorageError``.
    """
    refuse_link(path)
    data = _read(path, "the metrics of a run")
    covered = _bytes_covered(path.with_name("state.pt"))
    if len(data) < covered:
        raise StorageError(
            f"{path} is damaged: {len(data)} of {covered} bytes are there; restore it, or train "
            "again"
        )
    return list(LineSeals().decode(data, path))


def _bytes_covered(path: Path) -> int:
    """Return how many bytes of metrics there were when a state was written; 0 if unknown."""
    try:
        seal = read_seal(path)
    except FileNotFoundError:
        return 0
    except (SealError, OSError) as error:
        raise StorageError(f"{path} is damaged ({error}); train again") from error
    size = "" if seal is None else seal.mark.rpartition(":")[2]
    return int(size) if size.isdecimal() and len(size) < 20 else 0


def _read(path: Path, expected: str) -> bytes:
    try:
        return read_plain(path, limit=LARGEST)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read ({error.strerror or error}); expected {expected}"
        ) from error


def _held(stamp: object) -> str:
    return f"a {stamp}" if isinstance(stamp, str) else "not written by elsewhere"


def _is_sealed_version(version: str) -> bool:
    try:
        return tuple(int(part) for part in version.split(".")) >= SEALED_SINCE
    except ValueError:
        return True


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
