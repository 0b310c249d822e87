"""What is kept of a layer: whole activations, their means over space, or sketches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from elsewhere.errors import InputError

Kept: TypeAlias = Literal["full", "mean", "sketch"]


@dataclass(frozen=True)
class Keep:
    """What is kept of a layer.

    Parameters
    ----------
    kind
        ``full``, ``mean`` or ``sketch``.
    size
        Numbers in a sketch.
    """

    kind: Kept = "full"
    size: int = 0

    @classmethod
    def parse(cls, text: str) -> Keep:
        """Return what ``full``, ``mean`` or ``sketch:K`` stands for.

        Examples
        --------
        >>> Keep.parse("sketch:512")
        Keep(kind='sketch', size=512)
        """
        kind, _, size = text.partition(":")
        if kind == "full" and not size:
            return cls("full")
        if kind == "mean" and not size:
            return cls("mean")
        if kind == "sketch" and size.isdecimal() and int(size) > 0:
            return cls("sketch", int(size))
        raise InputError(f"cannot keep {text!r} of a layer; expected full, mean or sketch:K")

    def __str__(self) -> str:
        return f"sketch:{self.size}" if self.kind == "sketch" else self.kind
