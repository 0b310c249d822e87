"""Verifying recordings: everything is read, in a child process with a time limit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elsewhere.errors import StorageError
from elsewhere.protocols import Design
from elsewhere.storage import checking
from elsewhere.storage.merge import HEADER, unit_name
from elsewhere.storage.opening import open_file
from elsewhere.storage.parts import mark_of, part_is_whole, parts_folder, read_manifest
from elsewhere.storage.seal import SealError, check_seal, read_seal, recorded_end
from elsewhere.storage.units import Units
from elsewhere.types import format_bytes

LEAST_SECONDS = 60.0
BYTES_PER_SECOND = 20e6
"""Stored bytes that the child is given a second for, at least."""


@dataclass(frozen=True)
class Damage:
    """Something that is not as it was recorded.

    Parameters
    ----------
    what
        What is wrong.
    layer
        Of which layer; empty if of the file as a whole.
    objects
        First and last damaged object, by id.
    places
        Per axis: first and last damaged coordinate, px.
    """

    what: str
    layer: str = ""
    objects: tuple[str, str] | None = None
    places: tuple[tuple[str, int, int], ...] = ()

    def __str__(self) -> str:
        where = [f"layer {self.layer}"] if self.layer else []
        if self.objects is not None:
            where.append(f"objects {self.objects[0]} to {self.objects[1]}")
        where += [f"{name} {first} to {last}" for name, first, last in self.places]
        return ", ".join(where) + (": " if where else "") + self.what


@dataclass(frozen=True)
class Verification:
    """What verifying a recording found.

    Parameters
    ----------
    path
        The recording.
    version
        Of its format; empty if it could not be read.
    finished
        Whether it is a finished recording and not a folder of parts.
    share
        What share of its units is there.
    chunks, bytes
        Chunks that were read, and the raw bytes of the activations in them.
    damages
        What is wrong; nothing if all is well.
    """

    path: Path
    version: str
    finished: bool
    share: float
    chunks: int
    bytes: int
    damages: tuple[Damage, ...]

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
            remedy = "record it again"
            if not self.finished:
                remedy = "the command that records it records these parts again"
            raise StorageError(f"{self.path} is damaged: {self.damages[0]}{more}; {remedy}")
        if not self.finished:
            raise StorageError(
                f"{self.path} is not finished: {self.share:.1%} of its units are there, all of "
                "them whole; run the command that records it again to go on"
            )


def verify(path: str | Path, *, timeout: float | None = None) -> Verification:
    """Read everything of a recording, finished or not, and say what is damaged.

    Parameters
    ----------
    path
        The recording.
    timeout
        Seconds after which the child process is ended; by default a minute, or more for large
        files.

    Returns
    -------
    Verification
        Damage does not raise: see ``ok`` and ``damages``.

    Raises
    ------
    StorageError
        There is no such file, or it is no recording at all.
    """
    path = Path(path)
    if not path.exists() and parts_folder(path).is_dir():
        return _verify_parts(path)
    if not path.is_file():
        open_file(path)  # says what is wrong with the name
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
    lines, failure = _run_child(path, timeout)
    version = next((line["version"] for line in lines if "version" in line), "")
    if not damages and seal is None and version != "0.1":
        if not version:
            open_file(path)  # no recording at all
        damages.append(Damage("the seal behind its end is missing: it was cut off or rewritten"))
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
        bytes=sum(line["bytes"] for line in checked),
        damages=tuple(damages),
    )


def _run_child(path: Path, timeout: float) -> tuple[list[dict[str, Any]], str | None]:
    """Return what the child printed, and why it did not come to its end."""
    command = [sys.executable, "-P", checking.__file__, "verify", str(path)]
    failure = None
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=timeout
        )
        output, code = child.stdout, child.returncode
        if code != 0:
            said = child.stderr.strip().splitlines() or [f"HDF5 ended with {code}"]
            failure = f"cannot be read further ({said[-1]})"
    except subprocess.TimeoutExpired as expired:
        output = (expired.stdout or b"").decode()
        failure = f"reading did not come to an end in {timeout:.0f} s"
    lines = []
    for text in output.splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:  # cut off by the end of the child
            continue
    return lines, failure


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
        (name, values[a], values[b - 1])
        for (name, values), a, b in zip(design.axes, start[1:], stop[1:], strict=False)
    )
    return objects, places


def _verify_parts(path: Path) -> Verification:
    """Check the parts of an unfinished recording, each by the seal that covers all of it."""
    folder = parts_folder(path)
    manifest = read_manifest(folder)
    if manifest is None:
        raise StorageError(f"{path} is not finished, and {folder} has no manifest: record it again")
    try:
        units, version = _units_of(manifest)
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(
            f"{path} is not finished, and {folder}'s manifest is damaged ({error}): record it again"
        ) from error
    mark, header = mark_of(manifest), folder / HEADER
    damages = []
    if header.exists() and not part_is_whole(header, mark):
        damages.append(Damage("header.h5 differs from its checksum, or the manifest does"))
    present = sorted(folder.glob("unit-*.h5"))
    whole = 0
    for part in present:
        number = int(part.stem.removeprefix("unit-"))
        if part_is_whole(part, mark):
            whole += 1
            continue
        unit = units.unit(number)
        objects, places = _where(units.design, unit.start, [s.stop for s in unit.slices])
        damages.append(
            Damage(f"{unit_name(number)} differs from its checksum", "", objects, places)
        )
    size = sum(part.stat().st_size for part in present)
    share = whole / max(1, len(units))
    return Verification(path, version, False, share, 0, size, tuple(damages))


def _units_of(manifest: dict[str, Any]) -> tuple[Units, str]:
    """Return the units of the recording that a manifest describes, and the format's version."""
    fields, numerics = manifest["identity"], manifest["numerics"]
    axes = tuple((str(name), tuple(map(int, values))) for name, values in fields["axes"])
    names = tuple(map(str, range(int(fields["n_objects"]))))
    design = Design(names, names, axes, tuple(map(int, fields["reference"])))
    n_objects, n_cells = map(int, numerics["unit"])
    return Units(design, n_objects, n_cells), str(fields["encoding_version"])


def summary(found: Verification) -> str:
    """Return in one line that all is well."""
    raw = format_bytes(found.bytes)
    return f"{found.path}: {found.chunks} chunks, {raw} of activations, all as they were recorded"
