"""Where the tokens of a layer stand: which of them are a grid on the canvas, and which are not.

A transformer's layer gives tokens by features. Most tokens are places of the canvas, in some order;
a class token and registers are none. `Tokens` says which is which, and takes one of these parts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

TokenPart: TypeAlias = Literal["all", "grid", "class", "registers"]
TOKEN_PARTS: tuple[str, ...] = get_args(TokenPart)


@dataclass(frozen=True)
class Tokens:
    """How many tokens a layer gives, and where they stand.

    Parameters
    ----------
    count
        Of all tokens.
    first
        The first one of the grid.
    height, width
        Of the grid, cells.
    by_rows
        Whether the grid comes row after row, else column after column.
    class_token
        Which one is the class token; None where there is none, or where it is not known.
    axis
        Of the tokens, in what the layer gives of an image: 0, or 1 where features come first.
    part
        Which of them are taken.

    Examples
    --------
    >>> tokens = Tokens(count=21, first=5, height=4, width=4, class_token=0)
    >>> tokens.registers, tokens.shape(96), tokens.of("grid").shape(96)
    ((1, 2, 3, 4), (21, 96), (4, 4, 96))
    """

    count: int
    first: int
    height: int
    width: int
    by_rows: bool = True
    class_token: int | None = None
    axis: int = 0
    part: TokenPart = "all"

    @property
    def registers(self) -> tuple[int, ...]:
        """The tokens that are neither places nor the class token."""
        grid = range(self.first, self.first + self.height * self.width)
        return tuple(n for n in range(self.count) if n not in grid and n != self.class_token)

    @property
    def parts(self) -> tuple[str, ...]:
        """What can be taken."""
        own = {"class": self.class_token is not None, "registers": bool(self.registers)}
        return tuple(part for part in TOKEN_PARTS if own.get(part, True))

    def of(self, part: TokenPart) -> Tokens:
        """Return the same tokens, of which another part is taken."""
        return replace(self, part=part)

    def shape(self, features: int) -> tuple[int, ...]:
        """Return the shape of what is taken, where each token has so many features."""
        if self.part == "all":
            return (self.count, features) if self.axis == 0 else (features, self.count)
        if self.part == "grid":
            return (self.height, self.width, features)
        return (features,) if self.part == "class" else (len(self.registers), features)

    @property
    def layout(self) -> tuple[str, ...]:
        """What the dimensions of what is taken are; registers have no place, and so no space."""
        if self.part == "all":
            return ("token", "feature") if self.axis == 0 else ("feature", "token")
        named = {
            "grid": ("height", "width", "channel"),
            "class": ("unit",),
            "registers": ("register", "feature"),
        }
        return named[self.part]

    def take(self, values: Any) -> Any:
        """Return what is taken of `values`, shape (row, token, feature) or (row, feature, token).

        They are NumPy's or torch's; the result has a row for each of theirs.
        """
        if self.part == "all":
            return values
        if self.part == "grid":
            return self.grid(values)
        if self.axis == 1:
            values = values.swapaxes(1, 2)
        if self.part == "class":
            return values[:, self.class_token]
        return values[:, list(self.registers)]

    def grid(self, values: Any) -> Any:
        """Return the grid of `values` (row, token, feature) as (row, height, width, feature)."""
        if self.axis == 1:
            values = values.swapaxes(1, 2)
        values = values[:, self.first : self.first + self.height * self.width]
        sides = (self.height, self.width) if self.by_rows else (self.width, self.height)
        grid = values.reshape(len(values), *sides, values.shape[-1])
        return grid if self.by_rows else grid.swapaxes(1, 2)

    def __str__(self) -> str:
        """Return them in words, in no order: ``class, 4 registers, 14 x 14``."""
        words = ["class"] * (self.class_token is not None)
        n = len(self.registers)
        words += [f"{n} register{'s' * (n > 1)}"] * (n > 0)
        grid = f"{self.height} x {self.width}" + " by columns" * (not self.by_rows)
        return ", ".join([*words, grid])

    @property
    def facts(self) -> dict[str, Any]:
        """What a file holds of them; see :meth:`from_facts`."""
        given = vars(self)
        return {key: given[key] for key in given if given[key] is not None}

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Tokens:
        """Return the tokens that a file describes.

        Raises
        ------
        ValueError, TypeError
            They cannot be.
        """
        found = cls(**facts)
        numbers = (found.count, found.first, found.height, found.width)
        if found.part not in TOKEN_PARTS or found.axis not in (0, 1) or min(numbers) < 0:
            raise ValueError(f"no tokens are like {facts}")
        if found.first + found.height * found.width > found.count:
            raise ValueError(f"a grid of {found.height} x {found.width} is not in {found.count}")
        if found.class_token is not None and not 0 <= found.class_token < found.count:
            raise ValueError(f"no token has the number {found.class_token}")
        return found
