"""Every error that a user can cause, as one tree.

::

    ElsewhereError
    ├── InputError            (ValueError)  an argument that cannot be used as given
    │   ├── CanvasError                     object, canvas, grid or location do not fit together
    │   ├── ObjectSetError                  a set of objects cannot be built or read
    │   ├── LayerError                      a layer that does not fire, or has no tensor to record
    │   ├── EngineError                     an engine that failed in the middle of a sweep
    │   ├── MemoryLimitError                what is asked does not fit --max-memory
    │   ├── NumericsError                   NaN, infinity or overflow in activations
    │   └── CurriculumError                 a curriculum that cannot be trained as it is written
    ├── TrainingError                       training that cannot go on
    ├── UnknownNameError      (KeyError)    a name that no registry knows, with the nearest ones
    ├── WeightsError          (ValueError)  a state file that does not fit, is damaged or unsafe
    └── StorageError          (OSError)     a file that cannot be read or written
        └── ExistsError                     an output that is already there

A message is one line: what failed, what was expected, what came, and the remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase


def visible(text: str) -> str:
    r"""Return text on one line, in which what a terminal would obey is shown instead.

    Texts of files (names of objects, layers, attributes) may hold escape codes, line breaks, marks
    that turn the direction of writing, or bytes of names that are not UTF-8.

    Examples
    --------
    >>> print(visible("cat\x1b[2J\nerror: none"))
    cat\x1b[2J\nerror: none
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def reason_of(error: BaseException, most: int = 120) -> str:
    """Return what an error of somebody else's code says, on one line that says something.

    Examples
    --------
    >>> reason_of(KeyError("mask")), reason_of(ValueError("no\\n maps")), reason_of(OSError())
    ("KeyError: 'mask'", 'no maps', 'OSError')
    """
    kind, text = type(error).__name__, " ".join(str(error).split())[:most]
    return (f"{kind}: {text}" if isinstance(error, KeyError) else text) or kind


class ElsewhereError(Exception):
    """Base of all errors raised on purpose by this package; what files said in it is visible."""

    def __str__(self) -> str:  # KeyError would quote its message
        return visible(" ".join(str(argument) for argument in self.args))


class InputError(ElsewhereError, ValueError):
    """An argument that cannot be used as given."""


class CanvasError(InputError):
    """Object, canvas, grid or location do not fit together."""


class ObjectSetError(InputError):
    """A set of objects cannot be built or read."""


class LayerError(InputError):
    """A layer that does not fire, or has no tensor to record."""


class EngineError(InputError):
    """An engine that failed in the middle of a sweep; whole canvases may still be taken."""

    REMEDY = ", and what it gave is not complete; take --engine dense (in Python engine='dense')"

    @property
    def reason(self) -> str:
        """What failed, and why."""
        return str(self).removesuffix(self.REMEDY)


class MemoryLimitError(InputError):
    """What is asked does not fit --max-memory."""


class NumericsError(InputError):
    """NaN, infinity or overflow in activations."""


class CurriculumError(InputError):
    """A curriculum that cannot be trained as it is written."""

    placed = False
    """Whether the message names the key already, and its line where there is one."""


class TrainingError(ElsewhereError):
    """Training that cannot go on: a loss or weights that are not finite."""


class WeightsError(ElsewhereError, ValueError):
    """A state file that does not fit, is damaged or unsafe."""


class StorageError(ElsewhereError, OSError):
    """A file that cannot be read or written."""


class ExistsError(StorageError):
    """An output that is already there."""


class UnknownNameError(ElsewhereError, KeyError):
    """A name that is not known, reported with the nearest known ones.

    `kind` says what was looked up, in the user's words ("layer", "object set"), and `hint` is a
    closing remedy, such as the command that lists the names.

    Examples
    --------
    >>> str(UnknownNameError("metric", "cosin", ["cosine", "pearson"]))
    "unknown metric 'cosin'; nearest: cosine; known: cosine, pearson"
    >>> str(UnknownNameError("layer", "block.?", ["conv1", "fc"]))
    "unknown layer 'block.?', a pattern that none matches; known: conv1, fc"
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = list(known)
        parts = [f"unknown {kind} {name!r}"]
        others = known
        if "*" in name or "?" in name:
            parts[0] += ", a pattern that none matches"
            others = [other for other in known if not fnmatchcase(other, name)]
        nearest = difflib.get_close_matches(name, others, n=3, cutoff=0.5)
        if nearest:
            parts.append("nearest: " + ", ".join(nearest))
        if known and len(known) <= 24:
            parts.append("known: " + ", ".join(known))
        if hint:
            parts.append(hint)
        super().__init__("; ".join(parts))
        self.kind, self.name, self.nearest = kind, name, nearest
