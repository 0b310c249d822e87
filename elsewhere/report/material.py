"""What a report is of: the results and recordings in directories, and what could not be read."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray

from elsewhere.errors import ElsewhereError, InputError, StorageError
from elsewhere.notes import notes_of
from elsewhere.storage import Recording, load_result
from elsewhere.storage.files import is_folder

_PART = re.compile(r".*-[0-9a-f]{16}\.nc")
"""What `track` keeps of one checkpoint, which is in the track as well."""


@dataclass(frozen=True)
class Item:
    """A result in one of the directories.

    Parameters
    ----------
    number
        Its place in the report.
    directory
        What the directory is called.
    path
        Below the directory, with slashes.
    sha256
        Of the file's bytes.
    result
        What is in it.
    """

    number: int
    directory: str
    path: str
    sha256: str
    result: xarray.Dataset

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The result's attributes."""
        return {str(key): value for key, value in self.result.attrs.items()}

    @property
    def kind(self) -> str:
        """What kind of result it is."""
        return str(self.attributes.get("kind", "")) or "result"

    @property
    def condition(self) -> str:
        """The run that it is of, such as ``acquired``; empty where none is named."""
        named = self.attributes.get("run", self.attributes.get("curriculum", ""))
        return str(named)

    @property
    def seed(self) -> str:
        """The seed of the run; empty where none is named."""
        named = self.attributes.get("seed")
        return "" if named is None or isinstance(named, list | dict) else str(named)

    @property
    def what(self) -> str:
        """What is compared between conditions, seeds and directories: the file's name less its run.

        Of ``seeds/100/acquired-novel-similarity.nc`` of the run ``acquired`` it is
        ``novel-similarity``.
        """
        stem = self.path.rpartition("/")[2].removesuffix(".nc")
        run = str(self.attributes.get("run", ""))
        return stem[len(run) + 1 :] if run and stem.startswith(f"{run}-") else stem

    @property
    def made_by(self) -> str:
        """The command that made it, as far as the file says."""
        if command := self.attributes.get("command"):
            return str(command)
        if scale := self.attributes.get("scale"):
            return f"elsewhere reproduce --scale {scale} (which does not keep its whole command)"
        return "not kept in the file"

    @property
    def notes(self) -> list[str]:
        """The doubts under which its values were computed."""
        return notes_of(self.result)


@dataclass(frozen=True)
class Recorded:
    """A recording in one of the directories; `sizes` are of its objects, and places along axes."""

    directory: str
    path: str
    file: Path
    sha256: str
    attributes: Mapping[str, Any]
    sizes: Mapping[str, int]

    @property
    def made_by(self) -> str:
        """The command that made it, as far as the file says."""
        return str(self.attributes.get("command", "not kept in the file"))

    @property
    def condition(self) -> str:
        """The phase of training whose network it is of; empty where none is named."""
        return str(self.attributes.get("phase", ""))


@dataclass(frozen=True)
class Material:
    """All that a report is made from.

    `problems` are sentences about files that were left out.
    """

    directories: tuple[str, ...]
    items: tuple[Item, ...]
    recordings: tuple[Recorded, ...]
    problems: tuple[str, ...]

    def of_kind(self, *kinds: str) -> list[Item]:
        """Return the results of some kinds."""
        return [item for item in self.items if item.kind in kinds]


def gather(directories: Sequence[Path]) -> Material:
    """Read every result in some directories, and find their recordings.

    Files that `elsewhere track` keeps of single checkpoints are in the tracks, and are left out.

    Raises
    ------
    InputError
        No directory, one that is given twice, or directories without any result or recording.
    StorageError
        One that is no directory.
    """
    if not directories:
        raise InputError("no directory is given; name one or more that hold results (.nc)")
    for directory in directories:
        if not is_folder(directory):
            raise StorageError(f"{directory} is not a directory; name one that holds results (.nc)")
    if len({each.resolve() for each in directories}) < len(directories):
        raise InputError("a directory is given twice; name different ones to compare them")
    names = _different([each.resolve() for each in directories])
    items: list[Item] = []
    recordings: list[Recorded] = []
    problems: list[str] = []
    for name, directory in zip(names, directories, strict=True):
        for path in _files(directory):
            below = path.relative_to(directory).as_posix()
            try:
                digest = digest_of(path)
                if path.suffix == ".nc":
                    items.append(Item(len(items), name, below, digest, load_result(path)))
                    continue
                with contextlib.closing(Recording(path)) as recording:
                    facts, design = dict(recording.attributes), recording.design
                sizes = dict(zip(design.names, design.shape, strict=True))
                sizes["object"] = len(design.objects)
                recordings.append(Recorded(name, below, path, digest, facts, sizes))
            except ElsewhereError as error:
                why = str(error).replace(str(path), below)  # folders of this computer are private
                problems.append(f"{below} in {name} was left out: {why}")
    if not items and not recordings:
        why = f" ({problems[0]})" if problems else ""
        raise InputError(
            f"{', '.join(map(str, directories))}: no result is there{why}; expected files such as "
            "sim.nc, as `elsewhere similarity --out`, `track` and `reproduce` write them"
        )
    return Material(tuple(names), tuple(items), tuple(recordings), tuple(problems))


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal; StorageError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error


def _files(directory: Path) -> list[Path]:
    """Return results and recordings below a directory, in order; links are not followed."""
    return sorted(
        path
        for path in directory.rglob("*")
        if path.suffix in (".nc", ".h5")
        and not _PART.fullmatch(path.name)
        and not path.is_symlink()
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    )


def _different(paths: Sequence[Path]) -> list[str]:
    """Return short names of directories: as many of their last parts as tell them apart.

    Examples
    --------
    >>> _different([Path("/a/runs/x"), Path("/b/runs/x"), Path("/b/runs/y")])
    ['a/runs/x', 'b/runs/x', 'y']
    """
    names = []
    for path in paths:
        parts = [part for part in path.parts if part != path.anchor] or [path.anchor]
        for count in range(1, len(parts) + 1):
            name = "/".join(parts[-count:])
            rivals = [other for other in paths if other != path]
            if not any(f"/{other.as_posix()}".endswith(f"/{name}") for other in rivals):
                break
        names.append(name)
    return names
