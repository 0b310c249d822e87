"""Sheets of panels of one size: how many stand in a row, and what is written above each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from elsewhere.errors import InputError
from elsewhere.figures.page import SIZES, new_figure
from elsewhere.figures.style import GREY, entitle_figure, figure_of, title_height, title_of
from elsewhere.figures.text import clean_text, labels_in, text_style, text_width, wrap

_LIFTED = "\n "  # ends a name that stands above the line of the number
_SMALLEST = 4.5  # points, of names too long for their panels


@dataclass(frozen=True)
class Sheet:
    """A figure of panels of one size in rows, beneath a title and beside a colour bar.

    Parameters
    ----------
    names
        What each panel shows: written above it, in as many lines as it takes, and smaller where a
        word by itself is too long.
    columns
        Panels in a row; chosen for the page by default.
    title
        Of the whole figure.
    widest
        Side of a panel at most, inches.
    narrowest
        Width of the figure at least, inches.
    foot
        Inches beneath the panels.
    heading
        Whether what columns show is written above them.
    number
        The longest number that stands at the right of a name.
    """

    names: Sequence[str]
    columns: int | None
    title: str
    widest: float = 2.5
    narrowest: float = 4.2
    foot: float = 0.65
    heading: bool = False
    number: str = "−0.00"
    panels: list[Axes] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        for _ in range(2):  # lines take room, which names then have less of
            self.sizes.append(SIZES.small if self.wide > 3 or SIZES.narrow else SIZES.tick)
            self.labels[:] = self._named()
        lines = title_height(title_of(self.title, self.width - 0.2))
        height = self.rows * (self.side + self._above) + self.foot + lines + self._headed
        if self.side < 0.35:
            raise InputError(
                f"{self.count} panels do not fit a figure of {self.width * 25.4:.0f} mm"
                + (f" by {SIZES.height * 25.4:.0f} mm" if SIZES.height else "")
                + "; draw fewer --layers, or give it more room"
            )
        figure = new_figure(self.width, height, compress=True)
        entitle_figure(figure, self.title, x=0.01)
        grid = figure.add_gridspec(self.rows, self.wide)
        for idx in range(self.count):
            self.panels.append(figure.add_subplot(grid[divmod(idx, self.wide)]))

    def _named(self) -> list[str]:
        """Return the names in lines; text that is too large for a word is made smaller."""
        whole = [clean_text(name) for name in self.names]
        while True:
            beside = self.side - text_width(f" {self.number}", self.text_size)
            found = labels_in(self.names, beside, self.text_size, most=2)
            lost = _cut(found, whole)
            if any(lost):  # above the number there is more room
                above = labels_in(self.names, self.side, self.text_size, most=5)
                found = [
                    f"{a}\n " if cut else b for a, b, cut in zip(above, found, lost, strict=True)
                ]
                lost = _cut(above, whole)
            if not any(lost) or self.text_size <= _SMALLEST:
                return found
            self.sizes.append(max(self.text_size - 0.5, _SMALLEST))

    @property
    def count(self) -> int:
        """Panels."""
        return len(self.names)

    @property
    def figure(self) -> Figure:
        """The figure."""
        return figure_of(self.panels[0])

    @property
    def _above(self) -> float:
        """Inches above a panel."""
        return 0.2 + max((label.count("\n") for label in self.labels), default=0) * (
            1.25 * self.text_size / 72
        )

    @property
    def _headed(self) -> float:
        return 0.35 if self.heading else 0.0

    @property
    def wide(self) -> int:
        """Panels in a row: as many as are given, else those with which panels are largest."""
        if SIZES.height is None or self.columns is not None:
            return column_count(self.count, self.columns)
        return max(range(1, self.count + 1), key=self._side)

    @property
    def rows(self) -> int:
        """Rows of panels."""
        return math.ceil(self.count / self.wide)

    def _side(self, wide: int) -> float:
        rows = math.ceil(self.count / wide)
        side = min((SIZES.width - 1.25) / wide - 0.06, self.widest)
        if SIZES.height is not None:
            lines = title_height(title_of(self.title, SIZES.width - 0.2))
            return min(side, (SIZES.height - self.foot - lines - self._headed) / rows - self._above)
        if self.columns is None:
            return side
        return min(side, max(9.0 / rows - 0.2, 0.6))

    @property
    def side(self) -> float:
        """Side of a panel, inches; with given columns no taller than a page, if it can be read."""
        return self._side(self.wide)

    @property
    def width(self) -> float:
        """Width of the figure, inches."""
        if SIZES.fixed:
            return SIZES.width
        wide = column_count(self.count, self.columns)
        side = min((SIZES.width - 1.25) / wide - 0.06, self.widest)
        return max(min(wide * (side + 0.06) + 1.25, SIZES.width), self.narrowest)

    @property
    def text_size(self) -> float:
        """Of what is written above a panel, points."""
        return self.sizes[-1] if self.sizes else SIZES.small

    def outer(self, idx: int) -> dict[str, bool]:
        """Return at which sides a panel is the outermost."""
        return {"bottom": idx + self.wide >= self.count, "left": idx % self.wide == 0}

    def name(self, idx: int, mean: float, *, more: str = "", **style: Any) -> None:
        """Write a panel's name above it, and a mean at its right."""
        ax, label = self.panels[idx], self.labels[idx].removesuffix(_LIFTED)
        above: dict[str, Any] = {"fontsize": self.text_size, "pad": 2.5}
        named = ax.set_title(label, loc="left", **above, **style, **text_style(label))
        number = "–" if np.isnan(mean) else f"{mean:.2f}".replace("-", "−")
        ax.set_title(number + more, loc="right", color=GREY, **above)
        if label != self.labels[idx]:
            up = ScaledTranslation(0, 1.2 * self.text_size / 72, self.figure.dpi_scale_trans)
            named.set_transform(named.get_transform() + up)

    def head(self, ax: Axes, text: str) -> None:
        """Write above a panel of the first row what its column shows."""
        lines = 1 + max(label.count("\n") for label in self.labels[: self.wide])
        above = (0, 4 + 1.3 * lines * self.text_size)
        ax.annotate(
            wrap(text, self.side, self.text_size), (0, 1), xycoords="axes fraction", xytext=above,
            textcoords="offset points", fontsize=self.text_size, va="bottom",
        )  # fmt: skip

    def label(self, x: str, y: str, pad: float = 1) -> None:
        """Write what the axes are, at the lower left panel."""
        corner = self.panels[(self.rows - 1) * self.wide]
        x, y = (wrap(text, max(self.side, 0.5), SIZES.tick) for text in (x, y))
        corner.set_xlabel(x, fontsize=SIZES.tick, labelpad=pad)
        corner.set_ylabel(y, fontsize=SIZES.tick, labelpad=pad)


def _cut(labels: Sequence[str], names: Sequence[str]) -> list[bool]:
    """Return which labels lack part of their names."""
    return [a.count("…") > b.count("…") for a, b in zip(labels, names, strict=True)]


def column_count(count: int, columns: int | None) -> int:
    """Return how many of `count` panels stand in a row."""
    if columns is not None:
        if columns < 1:
            raise InputError(f"columns is {columns}; expected at least 1")
        return min(int(columns), count)
    if count <= (2 if SIZES.narrow else 4):
        return count
    widest = 4 if count <= 12 else 6 if count <= 24 else 8
    if SIZES.narrow:  # room for a name and a number above each
        widest = max(int((SIZES.width - 1.25) / 0.68), 1)
    # Of the widths that give the fewest rows, the narrowest has the fullest last row.
    return math.ceil(count / math.ceil(count / widest))
