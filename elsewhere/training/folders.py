"""Folders of curricula: what they share stands once, in ``scale.toml``.

A curriculum in such a folder may leave out its network and canvas, begin with another one of the
folder (`start`), take over all phases of another one (`phases`) or single ones (`like`), with some
keys of its own; `[common]` holds keys of all its phases, and `[every_phase]` of ``scale.toml``
keys of all phases of all its curricula. A folder that is ``like`` one of the package's takes from
that what it lacks itself. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elsewhere.errors import CurriculumError, InputError, StorageError, UnknownNameError
from elsewhere.registry import Registry
from elsewhere.storage.files import is_file, list_folder
from elsewhere.training.curriculum import Curriculum, Phase
from elsewhere.training.toml import KeyPath, TomlSource, convert, read_toml

SHARED = "scale.toml"
PACKAGED = Path(__file__).parent / "curricula"
EVERY = "every_phase"
"""In ``scale.toml``: keys of all phases, whatever else is said of them."""

OWN_KEYS = ("start", "rival", "phases", "common")
"""What a curriculum's file may hold beside what a curriculum is made of."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


def packaged_folders() -> tuple[Path, ...]:
    """Return the folders that come with the package."""
    return tuple(sorted(path.parent for path in PACKAGED.glob(f"*/{SHARED}")))


@dataclasses.dataclass(frozen=True)
class CurriculumPart:
    """What a curriculum of a folder adds to the one that it starts with."""

    curriculum: Curriculum  # its own phases, with network and canvas
    start: str | None = None  # the curriculum with whose last weights it starts
    rival: str | None = None  # of `start` and this one, it starts from whichever learnt more


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder of curricula.

    `shared` is what its ``scale.toml``, the `source`, holds, with what it takes from the folder
    that it is like, its `base`.
    """

    path: Path
    shared: Mapping[str, Any]
    source: TomlSource
    base: Folder | None = None

    @classmethod
    def open(cls, path: Path) -> Folder:
        """Return the folder at `path`.

        Raises
        ------
        CurriculumError
            Its ``scale.toml`` is no TOML, or like a folder that does not come with the package.
        StorageError
            It has none.
        """
        if not is_file(path / SHARED):
            raise StorageError(
                f"{path} holds no {SHARED}; expected a folder of curricula, such as a copy of one "
                f"of the package's: {', '.join(each.name for each in packaged_folders())}"
            )
        table, source = read_toml(path / SHARED)
        known = [part.name for part in dataclasses.fields(Phase)]
        source.check_keys(_table(table, EVERY, source), known, (EVERY,))
        like = table.pop("like", None)
        if like is None:
            return cls(path, table, source)
        base = _packaged(like, source, ("like",))
        if base.path == path:
            raise source.error(("like",), "like: a folder cannot be like itself; name another one")
        shared = dict(base.shared)
        if "network" in table or "canvas" in table:  # another system than its base calls by name
            shared.pop("called", None)
        return cls(path, {**shared, **table}, source, base)

    def names(self) -> tuple[str, ...]:
        """Return the names of its curricula, in order."""
        own = {path.stem for path in list_folder(self.path, "*.toml") if path.name != SHARED}
        return tuple(sorted(own | set(() if self.base is None else self.base.names())))

    def find(self, name: str) -> Path | None:
        """Return the file of a curriculum; None where there is none."""
        path = self.path / f"{name}.toml"
        if not _NAME.fullmatch(name) or path.name == SHARED:
            return None
        if is_file(path):
            return path
        return None if self.base is None else self.base.find(name)

    def read(self, name: str) -> CurriculumPart:
        """Return a curriculum's own part: without that of the one that it starts with.

        Raises
        ------
        CurriculumError
            A file cannot be understood, or refers to what is not there; key and line are named.
        UnknownNameError
            No such curriculum.
        """
        table, source = self._read(name, ())
        start, rival = (_text(table, key, source) for key in ("start", "rival"))
        for key, other in (("start", start), ("rival", rival)):
            if other is not None and self.find(other) is None:
                raise source.error((key,), f"{key}: {self._unknown(other)}")
        if rival is not None and start is None:
            raise source.error(("rival",), "rival: needs a start as well; add it")
        plain = {key: value for key, value in table.items() if key not in OWN_KEYS}
        return CurriculumPart(Curriculum.from_dict({"name": name, **plain}, source), start, rival)

    def whole(self, name: str) -> Curriculum:
        """Return a curriculum with all phases of what it starts with before its own.

        Raises
        ------
        CurriculumError
            As for :meth:`read`; or what it starts with has another network or canvas, or is one
            of two, depending on how they turn out.
        """
        return self._whole(name, ())

    def _whole(self, name: str, trail: tuple[str, ...]) -> Curriculum:
        part = self.read(name)
        own, start = part.curriculum, part.start
        if start is None:
            return own
        if part.rival is not None:
            raise own.error(
                ("rival",),
                f"{name} starts from whichever of {start} and {part.rival} learnt more; take "
                "`elsewhere reproduce`, which trains those",
            )
        if start in (name, *trail):
            raise own.error(("start",), f"{start} starts with {name} in the end; name another one")
        first = self._whole(start, (*trail, name))
        for key in ("network", "canvas"):
            if getattr(first, key) != getattr(own, key):
                raise own.error(
                    (key,), f"is another one than that of {start}, which it starts with"
                )
        last, count = first.phases[-1].name, len(first.phases)
        later = [
            dataclasses.replace(phase, after=last)
            if phase.after == "none" or (place == 0 and phase.after is None)
            else phase
            for place, phase in enumerate(own.phases)
        ]
        source = own.source.after(count)
        return dataclasses.replace(own, phases=(*first.phases, *later), source=source)

    def _read(self, name: str, trail: tuple[str, ...]) -> tuple[dict[str, Any], TomlSource]:
        """Return what a file holds, with all that it takes over in place."""
        path = self.find(name)
        if path is None:
            raise UnknownNameError(f"curriculum of {self.path.name}", name, self.names())
        table, source = read_toml(path)
        table["phase"] = self._phases(table, source, (*trail, name))
        for key in ("network", "canvas"):
            table[key] = self._system(key, table, source)
        return table, source

    def _system(self, key: str, table: Mapping[str, Any], source: TomlSource) -> dict[str, Any]:
        """Return a curriculum's network or canvas; what has no name changes the shared one."""
        shared, own = _table(self.shared, key, self.source), _table(table, key, source)
        return {**own} if "name" in own else {**shared, **own}

    def _phases(
        self, table: Mapping[str, Any], source: TomlSource, trail: tuple[str, ...]
    ) -> list[dict[str, Any]]:
        given = table.get("phase", [])
        if not isinstance(given, list) or not all(isinstance(each, Mapping) for each in given):
            raise source.error(("phase",), "phase: expected [[phase]], two brackets for each")
        common = {**_table(table, "common", source), **_table(self.shared, EVERY, self.source)}
        whole = _text(table, "phases", source)
        if whole is not None and given:
            raise source.error(("phases",), "phases: excludes [[phase]]; leave one of the two out")
        if whole is not None:
            return [{**phase, **common} for phase in self._of(whole, source, ("phases",), trail)]
        phases: list[dict[str, Any]] = []
        for index, each in enumerate(given):
            own = dict(each)
            like = own.pop("like", None)
            path = ("phase", index, "like")
            base = {} if like is None else self._one(like, source, path, trail, phases)
            phases.append({**base, **common, **own, **_table(self.shared, EVERY, self.source)})
        return phases

    def _one(
        self,
        like: Any,
        source: TomlSource,
        path: KeyPath,
        trail: tuple[str, ...],
        before: list[dict[str, Any]],
    ) -> dict[str, Any]:
        """Return the phase that is named: ``PHASE``, ``FILE.PHASE`` or ``SCALE/FILE.PHASE``."""
        if not isinstance(like, str):
            raise source.error(path, f"like: expected a text such as 'full.pretrain'; got {like!r}")
        file, _, name = like.rpartition(".")
        phases = before if not file else self._of(file, source, path, trail)
        for phase in phases:
            if phase.get("name") == name:
                return phase
        known = ", ".join(str(phase.get("name")) for phase in phases) or "there is none"
        raise source.error(path, f"like: no phase {name!r}; expected one of: {known}")

    def _of(
        self, name: str, source: TomlSource, path: KeyPath, trail: tuple[str, ...]
    ) -> list[dict[str, Any]]:
        """Return the phases of another curriculum, of this folder or of a packaged one."""
        scale, _, file = name.rpartition("/")
        folder = _packaged(scale, source, path) if scale else self
        if folder.find(file) is None:
            raise source.error(path, f"{path[-1]}: {folder._unknown(file)}")
        if folder is self and file in trail:
            raise source.error(path, f"{path[-1]}: {file} takes {trail[-1]} over itself")
        table, other = folder._read(file, trail if folder is self else ())
        phases: list[dict[str, Any]] = table["phase"]
        for index, phase in enumerate(phases):  # an error in it is told of that file
            convert(phase, Phase, ("phase", index), other)
        return phases

    def _unknown(self, name: str) -> str:
        return str(UnknownNameError(f"curriculum of {self.path.name}", name, self.names()))


def _packaged(name: Any, source: TomlSource, path: KeyPath) -> Folder:
    known = {folder.name: folder for folder in packaged_folders()}
    if not isinstance(name, str) or name not in known:
        raise source.error(
            path, f"{path[-1]}: no scale {name!r} comes with the package; known: {', '.join(known)}"
        )
    return Folder.open(known[name])


def _table(table: Mapping[str, Any], key: str, source: TomlSource) -> Mapping[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise source.error((key,), f"{key}: expected a table, [{key}]; got {value!r}")
    return value


def _text(table: Mapping[str, Any], key: str, source: TomlSource) -> str | None:
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        raise source.error((key,), f"{key}: expected a text; got {value!r}")
    return value


def choose(name: str | Path, known: Registry[Path], own: Path | None) -> Path:
    """Return what a name means: what comes with the package, or `own`, what the user has there.

    Raises
    ------
    InputError
        Both: the user has a copy under the package's name.
    UnknownNameError
        Neither.
    """
    if own is None:
        return known.get(str(name))
    if isinstance(name, str) and name in known:
        raise InputError(
            f"{name} is a {known.kind} of the package, and the current directory holds one of that "
            f"name, too; write ./{name} for your own, or rename its folder to have the package's"
        )
    return own


def load_curriculum(name: str | Path) -> Curriculum:
    """Return the curriculum in a TOML file, or the preset of that name.

    Raises
    ------
    CurriculumError
        The file cannot be understood; the message names the key and the line.
    StorageError
        It cannot be read.
    UnknownNameError
        Neither a file nor a preset.
    InputError
        Both a preset and, in the current directory, a user's own.

    Examples
    --------
    >>> load_curriculum("laptop/vanilla").phases[-1].environment
    'one:seed'
    """
    path = Path(name)
    if path.suffix != ".toml" and (str(name) in presets or not is_file(path)):
        beside = path.parent / SHARED  # a folder of the user's: mine/acquired
        path = choose(name, presets, path if is_file(beside) else None)
        return Folder.open(path.parent).whole(path.name)
    if not is_file(path):
        raise StorageError(f"{path} is no file; expected a curriculum such as mine.toml")
    if path.name == SHARED:
        raise CurriculumError(
            f"{path} holds what curricula share; expected one of {path.parent}: "
            f"{', '.join(Folder.open(path.parent).names())}"
        )
    if is_file(path.parent / SHARED):
        return Folder.open(path.parent).whole(path.stem)
    table, source = read_toml(path)
    return Curriculum.from_dict({"name": path.stem, **table}, source)


def adjusted(
    curriculum: Curriculum, *, seed: int | None = None, axes: Sequence[str] = ()
) -> Curriculum:
    """Return a curriculum with another seed, and other axes in all phases, where they are given.

    Raises
    ------
    InputError
        No phase draws from the axes.
    """
    if seed is not None:
        curriculum = dataclasses.replace(curriculum, seed=seed)
    if not axes:
        return curriculum
    phases = (dataclasses.replace(each, axes=tuple(axes)) for each in curriculum.phases)
    curriculum = dataclasses.replace(curriculum, phases=tuple(phases))
    if not any(each.drawn_axes.each for each in curriculum.phases):
        raise InputError(
            f"nothing draws from the axis {axes[0]}: {curriculum.name} has no phase of "
            "environment 'full', and the others show objects as they are; leave it out"
        )
    return curriculum


def _summary(path: Path) -> str:
    """Return the comment in a file's first line, as a summary."""
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").rstrip().rstrip(".")


def _list(folder: Path) -> None:
    opened = Folder.open(folder)
    for name in opened.names():
        if (path := opened.find(name)) is not None:
            presets.add(f"{folder.name}/{name}", folder / name, summary=_summary(path))


presets: Registry[Path] = Registry("curriculum")
scales: Registry[Path] = Registry("scale")
for _folder in packaged_folders():
    _list(_folder)
    scales.add(_folder.name, _folder, summary=_summary(_folder / SHARED))
