"""From TOML to frozen dataclasses, with errors that name the key and the line."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import tomllib
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from elsewhere.errors import CurriculumError, InputError, StorageError
from elsewhere.storage.files import read_plain

T = TypeVar("T")
KeyPath: TypeAlias = tuple[str | int, ...]

LARGEST = 2**22
"""Bytes of a TOML file, at most."""

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")
_SEGMENT = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_DEEP = re.compile(rf"(?<![\w-]){_SEGMENT}(?:[ \t]*+\.[ \t]*+{_SEGMENT}){{32}}")
"""A key of so many parts: the time and the memory that tomllib takes grow with their square."""


@dataclass(frozen=True)
class TomlSource:
    """Where a description came from: a file and the lines of its keys, or neither.

    What was `read` may be of a stranger; what was written down in Python is the user's own.
    """

    file: str = ""
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    read: bool = False

    def error(self, path: KeyPath, message: str) -> CurriculumError:
        """Return an error about the key at `path`."""
        if not self.file:
            return CurriculumError(message)
        line = next(
            (self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), 1
        )
        return CurriculumError(f"{self.file}, line {line}: {message}")

    def after(self, count: int) -> TomlSource:
        """Return the same lines for phases that `count` others now stand before."""
        moved: dict[KeyPath, int] = {}
        for path, line in self.lines.items():
            first, *rest = path[1:] or ("",)
            shifts = path[0] == "phase" and isinstance(first, int)
            moved[("phase", int(first) + count, *rest) if shifts else path] = line
        return dataclasses.replace(self, lines=moved)

    def check_keys(self, table: Mapping[str, Any], known: Collection[str], path: KeyPath) -> None:
        """Refuse a table with a key that is not known, naming the nearest."""
        for key in table:
            if key not in known:
                nearest = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
                hint = f"nearest: {', '.join(nearest)}" if nearest else f"known: {', '.join(known)}"
                where = f" in {_name(path)}" if path else ""
                raise self.error((*path, key), f"unknown key {key!r}{where}; {hint}")


def read_toml(path: Path) -> tuple[dict[str, Any], TomlSource]:
    """Return what a TOML file holds, and where its keys stand.

    Raises
    ------
    CurriculumError
        It is no TOML; the line is named.
    StorageError
        It cannot be read.
    """
    try:
        text = read_plain(path, limit=LARGEST).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"cannot read {path}: {reason}; expected a TOML file") from error
    if deep := _DEEP.search(text):
        line = text.count("\n", 0, deep.start()) + 1
        raise CurriculumError(
            f"{path}, line {line}: a key of more than 32 parts ({deep[0][:20]}...); mend it there"
        )
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise CurriculumError(f"{path} is not valid TOML: {reason}; mend it there") from error
    return table, TomlSource(str(path), find_lines(text), read=True)


def find_lines(text: str) -> dict[KeyPath, int]:
    """Return the line, from 1, on which each key of a TOML text stands.

    Examples
    --------
    >>> find_lines("[a]\\nb = 1\\n[[c]]\\nd.e = 2\\n[[c]]\\nd = 3")[("c", 1, "d")]
    6
    """
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _HEADER.fullmatch(line):
            names = [part.strip("\"'") for part in _PART.findall(match.group(2))]
            table = ()
            for name in names:
                table = (*table, name)
                if table in counts and not (table == tuple(names) and match.group(1) == "[["):
                    table = (*table, counts[table])
            if match.group(1) == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            lines.setdefault(table, number)
        elif match := _KEY.match(line):
            path = table
            for part in _PART.findall(match.group(1)):
                path = (*path, part.strip("\"'"))
                lines.setdefault(path, number)
    return lines


def convert(value: Any, kind: Any, path: KeyPath, source: TomlSource) -> Any:
    """Return `value` as the annotation `kind` says, without guessing.

    Raises
    ------
    CurriculumError
        It is of another type, or a dataclass refuses it.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, arguments, path, source)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            expected = ", ".join(map(str, arguments))
            raise _wrong(value, f"one of {expected}", path, source)
        return value
    if origin is tuple:
        return _convert_tuple(value, arguments, path, source)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(value, "a table", path, source)
        return {
            key: convert(held, arguments[1], (*path, key), source) for key, held in value.items()
        }
    if dataclasses.is_dataclass(kind):
        return _convert_table(value, kind, path, source)
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
        raise _wrong(value, words.get(kind, kind.__name__), path, source)
    return value


def plain(thing: Any) -> dict[str, Any]:
    """Return a dataclass as plain values, without what is as by default: what `convert` takes."""
    table: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(thing)))
    for part in dataclasses.fields(thing):
        default = part.default
        if part.default_factory is not dataclasses.MISSING:
            default = part.default_factory()
        if getattr(thing, part.name) == default:
            del table[part.name]
    return table


def to_toml(table: Mapping[str, Any]) -> str:
    """Return plain values as TOML: tables of the first level under headers, deeper ones in a line.

    Examples
    --------
    >>> print(to_toml({"name": "mine", "canvas": {"size": 48}, "phase": [{"rates": {"fc*": 0.1}}]}))
    name = "mine"
    <BLANKLINE>
    [canvas]
    size = 48
    <BLANKLINE>
    [[phase]]
    rates = {"fc*" = 0.1}
    """
    lines: list[str] = []
    tables: list[tuple[str, Mapping[str, Any]]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            tables.append((f"[{_toml_key(key)}]", value))
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            tables += [(f"[[{_toml_key(key)}]]", each) for each in value]
        else:
            lines.append(f"{_toml_key(key)} = {_toml_value(value)}")
    for header, inner in tables:
        lines += ["", header, *(f"{_toml_key(k)} = {_toml_value(v)}" for k, v in inner.items())]
    return "\n".join(lines)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_value(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_toml_key(k)} = {_toml_value(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    text = json.dumps(value, ensure_ascii=False)  # a TOML string is one of JSON, but for DEL
    return text.replace("\x7f", "\\u007f")


def _convert_union(value: Any, kinds: tuple[Any, ...], path: KeyPath, source: TomlSource) -> Any:
    if value is None and type(None) in kinds:  # of JSON; TOML has none
        return None
    # tables and lists can be meant for one member only: its errors are the useful ones
    tables = [k for k in kinds if dataclasses.is_dataclass(k)]
    if isinstance(value, Mapping) and tables:
        return convert(value, tables[0], path, source)
    expected = []
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return convert(value, kind, path, source)
        except _WrongTypeError as error:
            expected.append(error.expected)
    raise _wrong(value, " or ".join(expected), path, source)


def _convert_tuple(value: Any, kinds: tuple[Any, ...], path: KeyPath, source: TomlSource) -> Any:
    if isinstance(value, str) and kinds == (str, Ellipsis):
        value = (value,)
    if not isinstance(value, list | tuple):
        raise _wrong(value, "a list", path, source)
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise _wrong(value, f"a list of {len(kinds)}", path, source)
    return tuple(convert(part, kind, path, source) for part, kind in zip(value, kinds, strict=True))


def _convert_table(value: Any, kind: Any, path: KeyPath, source: TomlSource) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(value, "a table", path, source)
    hints = typing.get_type_hints(kind)
    fields = {part.name: part for part in dataclasses.fields(kind)}
    source.check_keys(value, list(fields), path)
    for name, part in fields.items():
        missing = part.default is dataclasses.MISSING
        if missing and part.default_factory is dataclasses.MISSING and name not in value:
            raise source.error(path, f"{_at(path)}the key {name!r} is missing; add it")
    converted = {
        name: convert(held, hints[name], (*path, name), source) for name, held in value.items()
    }
    try:
        return kind(**converted)
    except InputError as error:
        key = str(error).partition(":")[0]
        inner = (*path, key) if key in fields else path
        raise source.error(inner, f"{_at(path)}{error}") from error


class _WrongTypeError(CurriculumError):
    expected = ""


def _wrong(value: Any, expected: str, path: KeyPath, source: TomlSource) -> _WrongTypeError:
    message = f"{_name(path)}: expected {expected}; got {value!r}"
    error = _WrongTypeError(str(source.error(path, message)))
    error.expected = expected
    return error


def _name(path: KeyPath) -> str:
    """Return the words for a key: numbers of tables are counted from 1."""
    parts = [f"{part + 1}" if isinstance(part, int) else part for part in path]
    return ".".join(parts)


def _at(path: KeyPath) -> str:
    return f"{_name(path)}: " if path else ""
