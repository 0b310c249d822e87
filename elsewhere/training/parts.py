"""Parts of a phase: which classes and exemplars, its criterion, changes of appearance.

Imports no torch.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction

from elsewhere.errors import CurriculumError

MOST_EXEMPLARS = 10**6
"""Exemplars of a class, at most."""


def require(key: str, value: object, fits: bool, expected: str) -> None:
    """Refuse a value of a key that does not fit what is expected."""
    if not fits:
        raise problem(key, f"expected {expected}; got {value!r}")


def problem(key: str, message: object) -> CurriculumError:
    """Return an error about a key."""
    return CurriculumError(f"{key}: {message}")


@dataclass(frozen=True)
class Choice:
    """So many categories, after skipping some, in the order that the seed draws.

    Parameters
    ----------
    count
        How many.
    skip
        How many of the order to leave out first, for other curricula or phases.
    """

    count: int
    skip: int = 0

    def __post_init__(self) -> None:
        require("count", self.count, self.count >= 1, "1 or more")
        require("skip", self.skip, self.skip >= 0, "0 or more")


@dataclass(frozen=True)
class Exemplars:
    """How many exemplars of each class are shown.

    Parameters
    ----------
    train
        How many of each class are trained on.
    held_out
        How many of each class are held out for tests.
    """

    train: int = 40
    held_out: int = 10

    def __post_init__(self) -> None:
        most = f"or more, up to {MOST_EXEMPLARS}"
        require("train", self.train, 1 <= self.train <= MOST_EXEMPLARS, f"1 {most}")
        require("held_out", self.held_out, 0 <= self.held_out <= MOST_EXEMPLARS, f"0 {most}")


@dataclass(frozen=True)
class Criterion:
    """When a phase has learnt enough.

    Parameters
    ----------
    accuracy
        Share of the presentations of the last `window` steps that is classified correctly; asked
        after every step, in whole numbers.
    window
        Over how many of the latest steps.
    stop
        Whether the phase ends there; else the step is noted, a checkpoint kept, and training
        goes on.
    """

    accuracy: float
    window: int = 50
    stop: bool = True

    def __post_init__(self) -> None:
        require("accuracy", self.accuracy, 0 < self.accuracy <= 1, "above 0 and up to 1")
        require("window", self.window, 1 <= self.window <= 10_000, "from 1 to 10000 steps")

    def needed(self, batch: int) -> int:
        """Return how many presentations of the window must be right; the accuracy is a decimal."""
        return math.ceil(Fraction(repr(float(self.accuracy))) * self.window * batch)


@dataclass(frozen=True)
class Augment:
    """Changes of appearance, drawn anew at each presentation.

    Parameters
    ----------
    contrast
        The object fades towards the background by up to this share.
    shading
        One side of the object fades by up to this share, in a random direction.
    blur
        It is mixed with a blurred copy of itself, by up to this share.
    texture
        It fades by up to this share where a coarse random pattern says so.
    """

    contrast: float = 0.0
    shading: float = 0.0
    blur: float = 0.0
    texture: float = 0.0

    def __post_init__(self) -> None:
        for part in dataclasses.fields(self):
            value = getattr(self, part.name)
            require(part.name, value, 0 <= value <= 1, "from 0 to 1")
