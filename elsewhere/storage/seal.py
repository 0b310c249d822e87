"""Seals: a checksum behind the end of a file, checked before anything else reads the file.

A seal covers every byte of the file but those of activations, whose chunks carry checksums of their
own: names, shapes, attributes, coordinates, small arrays, and the index that says where each chunk
lies. HDF5 checks little of this by itself, and some damage makes it hang or crash. Results and the
states of training runs are covered whole.

Layout, behind the file's own end, which HDF5 and torch do not read: a JSON object with ``size``
(bytes of the file), ``left_out`` (pairs of offset and length), ``sha256`` (of all other bytes, in
order) and ``mark`` (what the file belongs to, else empty), then its length (uint64,
little-endian), its SHA-256 (32 bytes) and ``ELSESEAL``.

A JSON object carries its seal within, as its key ``seal``: see :func:`seal_table`.

A seal finds damage. It is no signature: whoever writes a file can seal it.

It imports nothing of this package, because it is also used by programs that must start fast.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"ELSESEAL"
FOOTER = struct.Struct("<Q32s8s")
SIGNATURE = b"\x89HDF\r\n\x1a\n"
PIECE = 2**22
LONGEST_BODY = 2**28
"""Bytes of a seal's body, at most: 24 for each range that is left out."""

Range = tuple[int, int]
"""Offset and length, bytes."""


class SealError(ValueError):
    """A file that is not as it was when it was sealed; the message says how."""


@dataclass(frozen=True)
class Seal:
    """What a seal says: the `size` of the HDF5 file without it, and the `sha256` of its bytes.

    The checksum leaves out the ranges `left_out`, sorted, without overlap. `mark` is what a part
    belongs to.
    """

    size: int
    left_out: tuple[Range, ...]
    sha256: str
    mark: str = ""

    def encode(self) -> bytes:
        """Return the bytes to append to the file."""
        fields = {
            "left_out": self.left_out,
            "mark": self.mark,
            "sha256": self.sha256,
            "size": self.size,
        }
        body = json.dumps(fields, separators=(",", ":"), sort_keys=True).encode()
        return body + FOOTER.pack(len(body), hashlib.sha256(body).digest(), MAGIC)


def seal_bytes(data: bytes, *, mark: str = "") -> bytes:
    """Return `data` with a seal that covers all of it and bears `mark`.

    Examples
    --------
    >>> seal_bytes(b"12345678")[-8:]
    b'ELSESEAL'
    """
    return data + make_seal(data, mark=mark)


def make_seal(data: bytes | memoryview, *, mark: str = "") -> bytes:
    """Return the seal that covers all of `data`, to be written behind it."""
    return Seal(len(data), (), hashlib.sha256(data).hexdigest(), mark).encode()


def seal_table(table: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON object with its seal: the SHA-256 of its other keys, written without spaces.

    Examples
    --------
    >>> sealed = seal_table({"step": 3})
    >>> table_is_whole(sealed), table_is_whole(sealed | {"step": 4}), table_is_whole({"step": 3})
    (True, False, None)
    """
    return {**table, "seal": _table_digest(table)}


def table_is_whole(table: dict[str, Any]) -> bool | None:
    """Return whether a JSON object is as it was sealed; None if it has no seal."""
    if "seal" not in table:
        return None
    rest = {key: value for key, value in table.items() if key != "seal"}
    try:
        return bool(table["seal"] == _table_digest(rest))
    except (ValueError, RecursionError):  # such as a number that is not finite
        return False


def _table_digest(table: dict[str, Any]) -> str:
    plain = json.loads(json.dumps(table, allow_nan=False))
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def append_seal(path: Path, left_out: Sequence[Range]) -> None:
    """Seal a file that has no seal, but for the ranges `left_out`, and synchronise it."""
    ranges = merge_ranges(left_out)
    with open(path, "rb+") as file:
        size = file.seek(0, os.SEEK_END)
        seal = Seal(size, ranges, _digest(file, ranges, size))
        file.seek(size)
        file.write(seal.encode())
        file.flush()
        os.fsync(file.fileno())


def read_seal(path: Path) -> Seal | None:
    """Return the seal of a file, or None if it has none; SealError if it is itself damaged."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        if end < FOOTER.size:
            return None
        file.seek(end - FOOTER.size)
        length, digest, magic = FOOTER.unpack(file.read(FOOTER.size))
        if magic != MAGIC:
            return None
        start = end - FOOTER.size - length
        if start < 0 or length > LONGEST_BODY:
            raise SealError("its seal is damaged")
        file.seek(start)
        body = file.read(length)
    if hashlib.sha256(body).digest() != digest:
        raise SealError("its seal is damaged")
    seal = _decode(body)
    if seal.size != start:
        raise SealError(f"it has {start} bytes before its seal; expected {seal.size}")
    return seal


def _decode(body: bytes) -> Seal:
    """Return the seal in a body that is as it was written, by whoever wrote it."""
    try:
        fields = json.loads(body)
        ranges = tuple((offset, length) for offset, length in fields["left_out"])
        seal = Seal(fields["size"], ranges, fields["sha256"], fields["mark"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SealError("its seal says nothing that can be understood") from None
    edges = [edge for offset, length in (*ranges, (seal.size, 0)) for edge in (offset, length)]
    fits = all(type(edge) is int and edge >= 0 for edge in edges)
    fits = fits and isinstance(seal.sha256, str) and isinstance(seal.mark, str)
    starts = edges[2::2] if fits else []
    ends = [a + b for a, b in ranges] if fits else []
    if not fits or any(end > start for end, start in zip(ends, starts, strict=True)):
        raise SealError("its seal says nothing that can be understood")
    return seal


def check_seal(path: Path, seal: Seal) -> None:
    """Compare the bytes that `seal` covers with its checksum; SealError where they differ."""
    with open(path, "rb") as file:
        if _digest(file, seal.left_out, seal.size) != seal.sha256:
            chunked = "names, attributes, coordinates or the index differ"
            raise SealError(f"{chunked if seal.left_out else 'it differs'} from its checksum")


def recorded_end(path: Path) -> int | None:
    """Return where an HDF5 file says that it ends, or None if it is no HDF5 file."""
    with open(path, "rb") as file:
        head = file.read(64)
    if not head.startswith(SIGNATURE) or len(head) < 64:
        return None
    if head[8] in (0, 1):
        return int.from_bytes(head[40 + 4 * head[8] :][:8], "little")
    return int.from_bytes(head[28:36], "little")


def merge_ranges(ranges: Sequence[Range]) -> tuple[Range, ...]:
    """Return `ranges` sorted, those that touch made one.

    Examples
    --------
    >>> merge_ranges([(8, 2), (0, 4), (4, 2)])
    ((0, 6), (8, 2))
    """
    merged: list[Range] = []
    for offset, size in sorted(ranges):
        if merged and sum(merged[-1]) == offset:
            merged[-1] = (merged[-1][0], merged[-1][1] + size)
        else:
            merged.append((offset, size))
    return tuple(merged)


def _digest(file: BinaryIO, left_out: Sequence[Range], size: int) -> str:
    digest = hashlib.sha256()
    for start, stop in _gaps(left_out, size):
        file.seek(start)
        while start < stop:
            piece = file.read(min(PIECE, stop - start))
            if not piece:
                raise SealError(f"it ends at {start} bytes; expected {size}")
            digest.update(piece)
            start += len(piece)
    return digest.hexdigest()


def _gaps(left_out: Sequence[Range], size: int) -> Iterator[Range]:
    position = 0
    for offset, length in left_out:
        if offset > position:
            yield position, offset
        position = offset + length
    if position < size:
        yield position, size
