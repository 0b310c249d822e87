"""Verifying what `elsewhere` wrote: everything is read, HDF5 in a child with a time limit."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from elsewhere.errors import StorageError
from elsewhere.protocols import Design
from elsewhere.storage.admission import run_child
from elsewhere.storage.checking import ranges_sha256
from elsewhere.storage.documents import LARGEST, UNSEALED, parse_object, read_lines
from elsewhere.storage.files import is_file, is_folder, read_plain
from elsewhere.storage.merge import HEADER, portion_files, portion_mark, portion_name
from elsewhere.storage.opening import open_file
from elsewhere.storage.parts import (
    MANIFEST,
    mark_of,
    part_is_whole,
    parts_folder,
    portions_of,
    read_manifest,
)
from elsewhere.storage.seal import (
    SIGNATURE,
    SealError,
    check_seal,
    read_seal,
    recorded_end,
    table_is_whole,
)
from elsewhere.types import format_bytes

LEAST_SECONDS = 60.0
BYTES_PER_SECOND = 20e6
"""Stored bytes that the child is given a second for, at least."""


@dataclass(frozen=True)
class Damage:
    """Something that is not as it was recorded, and where, if that is known.

    `objects` are the first and last damaged object, by id; `places` per axis the first and last
    damaged coordinate, px; `file` is that of a folder.
    """

    what: str
    layer: str = ""
    objects: tuple[str, str] | None = None
    places: tuple[tuple[str, int, int], ...] = ()
    file: str = ""

    def __str__(self) -> str:
        where = [self.file] if self.file else []
        where += [f"layer {self.layer}"] if self.layer else []
        if self.objects is not None:
            where.append(f"objects {self.objects[0]} to {self.objects[1]}")
        where += [f"{name} {first} to {last}" for name, first, last in self.places]
        return ", ".join(where) + (": " if where else "") + self.what


@dataclass(frozen=True)
class Verification:
    """What verifying a file or a folder found; nothing in `damages` if all is well.

    `kind` is what it is: ``recording``, ``result``, ``checkpoint``, ``run``, ...; `version` that of
    its format, empty if it could not be read. A folder of parts is not `finished`, and `share` is
    that of its portions which are there. `chunks` were read, with so many raw `bytes` of
    activations, in so many `files`; those `unsealed` carry no seal, so that damage in them may not
    show.
    """

    path: Path
    version: str
    finished: bool
    share: float
    chunks: int
    bytes: int
    damages: tuple[Damage, ...]
    kind: str = "recording"
    files: int = 1
    unsealed: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.damages

    def check(self) -> None:
        """Refuse what is damaged or unfinished.

        Raises
        ------
        StorageError
            The message names the first damage.
        """
        if self.damages:
            more = f" (and {len(self.damages) - 1} more)" if len(self.damages) > 1 else ""
            remedy = (
                "record it again" if self.kind == "recording" else "restore it, or make it again"
            )
            if not self.finished:
                remedy = "the command that records it records these parts again"
            raise StorageError(f"{self.path} is damaged: {self.damages[0]}{more}; {remedy}")
        if not self.finished:
            raise StorageError(
                f"{self.path} is not finished: {self.share:.1%} of its portions are there, all of "
                "them whole; run the command that records it again to go on"
            )


def verify(path: str | Path, *, timeout: float | None = None) -> Verification:
    """Read everything of a file or folder that `elsewhere` wrote, and say what is damaged.

    Parameters
    ----------
    path
        A recording, finished or not; a result or a readout; a checkpoint or its card; the state or
        the metrics of a run; or a folder of such files: a run, a reproduction.
    timeout
        Seconds after which a child process that reads HDF5 is ended; by default a minute, or more
        for large files.

    Returns
    -------
    Verification
        Damage does not raise: see ``ok`` and ``damages``.

    Raises
    ------
    StorageError
        There is no such file, or nothing that `elsewhere` wrote.
    """
    path = Path(path)
    if is_folder(path):
        if path.suffix == ".parts" and (path / MANIFEST).exists():
            return _verify_parts(path.with_suffix(""))
        return _verify_folder(path, timeout)
    if not is_file(path):
        if is_folder(parts_folder(path)):
            return _verify_parts(path)
        raise StorageError(f"{path} does not exist; expected a file or folder of elsewhere")
    found = _verify_file(path, timeout)
    if found is None:
        raise StorageError(f"{path} is nothing that elsewhere wrote, or its beginning is damaged")
    return found


def _verify_folder(folder: Path, timeout: float | None) -> Verification:
    """Verify every file of ours below a folder; links are not followed."""
    found: list[Verification] = []
    links = []
    closed: list[OSError] = []
    for root, folders, names in os.walk(folder, onerror=closed.append):
        folders.sort()
        for name in sorted((*folders, *names)):
            path = Path(root, name)
            if path.is_symlink():
                links.append(path)
            elif name in names:
                try:
                    one = _verify_file(path, timeout) if is_file(path) else None
                except StorageError as error:
                    one = _outcome(path, "file", [Damage(str(error))])
                if one is not None:
                    found.append(one)
    found += [
        _outcome(Path(error.filename), "folder", [Damage("it cannot be read: permission denied")])
        for error in closed
    ]
    if not found:
        raise StorageError(f"{folder} holds nothing that elsewhere wrote; expected a run, or such")
    damages = [
        replace(damage, file=os.path.relpath(one.path, folder))
        for one in found
        for damage in one.damages
    ]
    damages += [
        Damage("it is a link, which is not followed", file=os.path.relpath(path, folder))
        for path in links
    ]
    kinds = {one.kind for one in found}
    return Verification(
        path=folder,
        version="",
        finished=True,
        share=1.0,
        chunks=sum(one.chunks for one in found),
        bytes=sum(one.bytes for one in found),
        damages=tuple(damages),
        kind=next((kind for kind in ("reproduction", "run") if kind in kinds), "folder"),
        files=len(found),
        unsealed=tuple(name for one in found for name in one.unsealed),
    )


def _verify_file(path: Path, timeout: float | None) -> Verification | None:
    """Verify a file by what it is; None if `elsewhere` did not write it."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
    if head == SIGNATURE or path.suffix in (".h5", ".nc"):
        return _verify_hdf5(path, timeout)
    if path.suffix == ".jsonl":
        sealed = [sealed for _, sealed in read_lines(path)]
        return _outcome(path, "metrics", sealed=sealed[-1:] != [False])
    if path.suffix == ".safetensors" and is_file(path.with_suffix(".json")):
        return _verify_document(path.with_suffix(".json"))
    if path.suffix == ".json":
        return _verify_document(path)
    return _verify_sealed(path)


def _verify_sealed(path: Path) -> Verification | None:
    """Verify a file with a seal behind it, such as the state of a run."""
    try:
        seal = read_seal(path)
        if seal is not None:
            check_seal(path, seal)
    except SealError as error:
        return _outcome(path, "file", [Damage(str(error))])
    if seal is None and path.name != "state.pt":
        return None
    if seal is None:
        return _outcome(path, "state", _behind_archive(path), sealed=False)
    return _outcome(path, "state" if path.name == "state.pt" else "file")


def _behind_archive(path: Path) -> list[Damage]:
    """Return that a state, a zip archive, is cut short, or followed by what is no seal."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2**16))
        tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) - end != 22:
        return [Damage("it is cut short, or what follows its end is no seal")]
    return []


def _verify_document(path: Path) -> Verification | None:
    """Verify a JSON object of ours, and the weights that a checkpoint's card goes with."""
    try:
        table = parse_object(read_plain(path, limit=LARGEST), path)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
    whole, kind = table_is_whole(table), table.get("elsewhere_encoding")
    if whole is None and not isinstance(kind, str):
        return None
    damages = []
    if whole is False or (whole is None and str(table.get("encoding_version", "0.1")) != "0.1"):
        damages.append(Damage("it differs from its seal, or the seal is missing"))
    weights = path.with_suffix(".safetensors")
    if kind == "checkpoint":
        if not is_file(weights):
            damages.append(Damage(f"the weights {weights.name} are missing"))
        else:
            try:
                with weights.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise StorageError(
                    f"{weights} cannot be read: {error.strerror or error}"
                ) from error
            if digest != table.get("sha256"):
                damages.append(Damage(f"the weights {weights.name} are not those of the card"))
    return _outcome(path, str(kind), damages, sealed=whole is not None)


def _outcome(
    path: Path, kind: str, damages: Sequence[Damage] = (), *, sealed: bool = True
) -> Verification:
    unsealed = () if sealed or damages else (str(path),)
    size = path.stat().st_size
    return Verification(path, "", True, 1.0, 0, size, tuple(damages), kind, 1, unsealed)


def _verify_hdf5(path: Path, timeout: float | None) -> Verification:
    damages = []
    try:
        seal = read_seal(path)
        if seal is not None:
            check_seal(path, seal)
    except SealError as error:
        damages.append(Damage(str(error)))
        seal = None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
    end, size = recorded_end(path), path.stat().st_size
    if end is None:
        raise StorageError(f"{path} is not a readable HDF5 file: it does not begin like one")
    if size < end:
        damages.append(Damage(f"truncated: {size} of {end} bytes are there"))
    if timeout is None:
        timeout = LEAST_SECONDS + size / BYTES_PER_SECOND
    lines, failure = run_child(path, "verify", timeout)
    told = {key: value for line in lines for key, value in line.items()}
    kind, version = told.get("elsewhere_encoding"), str(told.get("encoding_version") or "")
    kind = kind or ("part" if seal is not None else None)
    if kind is None and failure is None and not damages:
        raise StorageError(f"{path} was not written by elsewhere; expected a file that was")
    if not damages and seal is None and version != "0.1":
        if not version:
            raise StorageError(f"{path} is damaged, or no readable HDF5 file: {failure}")
        damages.append(Damage("the seal behind its end is missing: it was cut off or rewritten"))
    if seal is not None and told.get("left_out", "") not in ("", ranges_sha256(seal.left_out)):
        damages.append(Damage("its seal leaves out what are no chunks of activations"))
    damages += _damages_in(path, lines, sealed=seal is not None)
    if failure is not None:
        begun = [line["begin"] for line in lines if "begin" in line]
        damages.append(Damage(failure, layer=begun[-1] if begun else ""))
    checked = [line for line in lines if "checked" in line]
    return Verification(
        path=path,
        version=version,
        finished=True,
        share=1.0,
        chunks=sum(line["chunks"] for line in checked),
        bytes=sum(line["bytes"] for line in checked) if checked else size,
        damages=tuple(damages),
        kind=str(kind or "recording"),
        unsealed=(str(path),) if seal is None and not damages else (),
    )


def _damages_in(path: Path, lines: Sequence[dict[str, Any]], *, sealed: bool) -> Iterator[Damage]:
    """Yield the damage that the child found, by object and coordinate where these can be told."""
    found = [line for line in lines if "damage" in line]
    design = None
    if sealed and any("start" in line for line in found):
        file, description = open_file(path)
        file.close()
        design = description.design
    for line in found:
        if "start" in line and design is not None:
            objects, places = _where(design, line["start"], line["stop"])
            yield Damage(line["damage"], line["layer"], objects, places)
        elif "start" in line:
            ranges = zip(line["start"], line["stop"], strict=True)
            where = ", ".join(f"{a}:{b}" for a, b in ranges)
            yield Damage(f"{line['damage']} at [{where}]", line["layer"])
        else:
            yield Damage(line["damage"], line.get("layer", ""))


def _where(
    design: Design, start: Sequence[int], stop: Sequence[int]
) -> tuple[tuple[str, str], tuple[tuple[str, int, int], ...]]:
    objects = design.objects[start[0]], design.objects[stop[0] - 1]
    places = tuple(
        (axis.name, axis.values[a], axis.values[b - 1])
        for axis, a, b in zip(design.axes, start[1:], stop[1:], strict=False)
    )
    return objects, places


def _verify_parts(path: Path) -> Verification:
    """Check the parts of an unfinished recording, each by the seal that covers all of it."""
    folder = parts_folder(path)
    manifest = read_manifest(folder)
    if manifest is None:
        raise StorageError(f"{path} is not finished, and {folder} has no manifest: record it again")
    portions, version = portions_of(manifest, path)
    mark, header = mark_of(manifest), folder / HEADER
    damages = []
    if header.exists() and not part_is_whole(header, mark):
        damages.append(Damage("header.h5 differs from its checksum, or the manifest does"))
    present = portion_files(folder)
    whole = 0
    for number, part in present:
        if number < portions.n_all and part_is_whole(part, portion_mark(mark, number)):
            whole += 1
            continue
        if number >= portions.n_all:
            damages.append(Damage(f"{part.name}: there is no portion of that number"))
            continue
        portion = portions.portion(number)
        objects, places = _where(portions.design, portion.start, [s.stop for s in portion.slices])
        damages.append(
            Damage(f"{portion_name(number)} differs from its checksum", "", objects, places)
        )
    size = sum(part.stat().st_size for _, part in present)
    share = whole / max(1, len(portions))
    return Verification(path, version, False, share, 0, size, tuple(damages))


def summary(found: Verification) -> str:
    """Return in one line that all is well."""
    raw = format_bytes(found.bytes)
    if found.kind == "recording":
        what = f"{found.chunks} chunks, {raw} of activations, all as they were recorded"
    elif found.files > 1:
        what = f"a {found.kind} of {found.files} files, {raw}, all as they were written"
    else:
        what = f"a {found.kind}, {raw}, as it was written"
    return f"{found.path}: {what}"


def doubts(found: Verification) -> list[str]:
    """Return what is to be said of files in which damage would not show."""
    return [f"{name} {UNSEALED}" for name in found.unsealed]
