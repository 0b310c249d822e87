"""Registries: named things that the command line lists and users extend.

An entry may be given as an object, or as ``"package.module:attribute"``, which is imported only
when it is asked for, so that ``--help`` can list names without importing torch.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar, cast

from elsewhere.errors import InputError, UnknownNameError

T = TypeVar("T")


@contextmanager
def current_directory_importable() -> Iterator[None]:
    """Let modules of the current directory be imported."""
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


EXTENSIONS: list[str] = []
"""Modules that a user named; processes that share the work import them, too: they may register."""


def is_source(name: str) -> bool:
    """Return whether a module's name is a file of Python, ``path/to/file.py``."""
    return name.endswith(".py") or "/" in name


def import_extension(name: str) -> ModuleType:
    """Import a module, or a file of Python, that a user named.

    The current directory is importable; while a file is imported, so is its own.
    """
    with current_directory_importable():
        module = _import_file(name) if is_source(name) else importlib.import_module(name)
    if name not in EXTENSIONS:
        EXTENSIONS.append(name)
    return module


def _import_file(name: str) -> ModuleType:
    """Import a file under its own name, or one made longer where that means another module."""
    path = Path(name).resolve()
    if path.suffix != ".py" or not path.is_file():
        raise InputError(f"no file {name} of Python; expected path/to/file.py")
    called = path.stem
    if called in sys.modules:
        taken, origin = True, getattr(sys.modules[called], "__file__", None)
    else:
        known = importlib.util.find_spec(called) if called.isidentifier() else None
        taken, origin = known is not None, None if known is None else known.origin
    if taken and (origin is None or Path(origin).resolve() != path):
        called = f"{called}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if called in sys.modules:
        return sys.modules[called]
    spec = importlib.util.spec_from_file_location(called, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{name} cannot be imported; expected a file of Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[called] = module
    folder = str(path.parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[called]
        raise
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    return module


def loaded(module: str, *names: str) -> tuple[type[Any], ...]:
    """Return classes of `module` by name; none as long as nobody has imported it.

    What was never imported has no instances, so that ``isinstance(part, loaded(...))`` tells them
    without importing a large library for it.

    Examples
    --------
    >>> isinstance(3, loaded("numbers.never", "Made")), loaded("pathlib", "Path")
    (False, (<class 'pathlib.Path'>,))
    """
    found = sys.modules.get(module)
    return () if found is None else tuple(getattr(found, name) for name in names)


def imported_later(
    package: str, file: str
) -> tuple[list[str], Callable[[str], object], Callable[[], list[str]]]:
    """Return ``__all__``, ``__getattr__`` and ``__dir__`` of a package whose names come when asked.

    They are what its ``__init__``, in `file`, imports for type checkers: ``import name as name``.
    """
    tree = ast.walk(ast.parse(Path(file).read_text(encoding="utf-8")))
    imports = [node for node in tree if isinstance(node, ast.ImportFrom)]
    sources = {
        name.name: str(each.module) for each in imports for name in each.names if name.asname
    }

    def get(name: str) -> object:
        if name not in sources:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(sources[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return sorted(sources), get, lambda: sorted({*vars(sys.modules[package]), *sources})


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered thing (or where to import it from) and a line that describes it."""

    target: T | str
    summary: str


class Registry(Generic[T]):
    """Names to things of one kind; unknown names are refused with the nearest ones.

    Parameters
    ----------
    kind
        What is registered, in the user's words; used in messages.

    Examples
    --------
    >>> doubles = Registry("doubling")
    >>> @doubles.register("twice", summary="two times a number")
    ... def twice(number):
    ...     return 2 * number
    >>> doubles.get("twice")(4)
    8
    >>> list(doubles)
    ['twice']
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[T]] = {}

    def add(self, name: str, target: T | str, *, summary: str) -> None:
        """Register `target` (an object, or ``"module:attribute"``) under `name`, once."""
        if name in self._entries:
            raise InputError(f"{self.kind} {name!r} is registered already; choose another name")
        self._entries[name] = Entry(target, summary)

    def register(self, name: str, *, summary: str) -> Callable[[T], T]:
        """Return a decorator that registers what it decorates under `name`."""

        def decorate(target: T) -> T:
            self.add(name, target, summary=summary)
            return target

        return decorate

    def get(self, name: str) -> T:
        """Return what is registered under `name`, importing it if need be.

        Raises
        ------
        UnknownNameError
            No such name; the message has the nearest ones.
        """
        target = self._find(name).target
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            target = cast(T, getattr(importlib.import_module(module), attribute))
        return target

    def named(self, text: str) -> str:
        """Return the name that `text` is, or means.

        ``package.module:name`` imports the module, which registers `name`, first; the current
        directory is importable.

        Raises
        ------
        UnknownNameError
            No such name; the message has the nearest ones.
        InputError
            The module cannot be imported.
        """
        module, _, name = text.rpartition(":")
        try:
            _ = module and import_extension(module)
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise InputError(
                f"importing {module!r} for the {self.kind} {text!r} failed: {said}; name a module "
                "that registers it, and run where it can be imported, such as its own directory"
            ) from error
        self._find(name)
        return name

    def target(self, name: str) -> str:
        """Return where `name` is imported from; empty where it was given as an object."""
        target = self._find(name).target
        return target if isinstance(target, str) else ""

    def summary(self, name: str) -> str:
        """Return the line that describes `name`."""
        return self._find(name).summary

    def _find(self, name: str) -> Entry[T]:
        if name not in self._entries:
            raise UnknownNameError(self.kind, name, self._entries)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)
