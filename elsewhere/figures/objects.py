"""Contact sheets of objects, and pictures of where they are placed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from elsewhere.errors import InputError
from elsewhere.figures.page import SIZES, new_figure
from elsewhere.figures.style import GREY, PALE, styled
from elsewhere.figures.text import shorten, shorten_apart, text_style, wrap


class PlottedObjects(Protocol):
    """What a contact sheet needs to know of a set of objects."""

    @property
    def name(self) -> str:
        """Name of the set."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """Unique identifiers, one for each object."""
        ...

    @property
    def categories(self) -> Sequence[str]:
        """Category of each object."""
        ...

    def patches(self, color: tuple[int, int, int]) -> NDArray[np.uint8]:
        """Return the objects on `color`, uint8 (n, size, size, 3), 0..255."""
        ...


@dataclass(frozen=True)
class _Strip:
    """Objects side by side, from (row, column) on, in tiles."""

    indices: list[int]
    row: float
    column: float


@dataclass(frozen=True)
class _Label:
    """A name beneath its object, or right-aligned beside its row; the point is in tiles."""

    text: str
    row: float
    column: float
    beside: bool


@dataclass(frozen=True)
class _Sheet:
    """Where everything stands, in units of one tile (of which `inches` is the side)."""

    strips: list[_Strip]
    labels: list[_Label]
    width: float
    height: float
    inches: float
    text_size: float


_MARGIN = 0.1  # around the sheet, inches
OUTLINE = "#D55E00"
_TALLEST = 8.6  # inches: a page


@styled
def plot_objects(
    objects: PlottedObjects,
    *,
    columns: int | None = None,
    background: tuple[int, int, int] = (0, 0, 0),
    masks: NDArray[np.uint8] | None = None,
) -> Figure:
    """Draw a contact sheet: one object of each category with its name, or a row for each category.

    Parameters
    ----------
    objects
        A set of objects: ``patches``, ``ids``, ``categories``, ``name``.
    columns
        Objects in a row; chosen for the page by default.
    background
        Colour behind the objects, red, green and blue in 0..255.
    masks
        What belongs to each object, (n, size, size), 0..255; its outline is drawn at half.

    Returns
    -------
    A figure that pyplot does not know of.

    Raises
    ------
    InputError
        No objects, pictures of another shape or type, or `columns` below 1.
    """
    categories = [str(category) for category in objects.categories]
    patches = _checked(objects.patches(background), len(categories))
    if columns is not None and columns < 1:
        raise InputError(f"columns is {columns}; expected at least 1")
    members: dict[str, list[int]] = {}
    for index, category in enumerate(categories):
        members.setdefault(category, []).append(index)
    single = all(len(indices) == 1 for indices in members.values())
    gap = max(round(0.06 * patches.shape[1]), 1) / patches.shape[1]
    lay_out = _captioned if single else _in_rows
    sheet = lay_out(members, columns, gap)

    counts = f"{len(categories)} object{'s' * (len(categories) != 1)}"
    if not single:
        counts += f" in {len(members)} categor{'ies' if len(members) != 1 else 'y'}"
    width = max(sheet.width * sheet.inches + 2 * _MARGIN, 2.6)
    title = wrap(f"{objects.name} · {counts}", width - 0.2, SIZES.title)
    top = 0.17 * (title.count("\n") + 1) + 0.1
    height = sheet.height * sheet.inches + _MARGIN + top
    figure = new_figure(width, height)
    # Placed by hand: the sheet is one grid, with nothing to arrange.
    figure.set_layout_engine("none")
    ax = figure.add_axes(
        (
            _MARGIN / width,
            _MARGIN / height,
            sheet.width * sheet.inches / width,
            sheet.height * sheet.inches / height,
        )
    )
    ax.set_axis_off()
    _draw(ax, sheet, patches, gap)
    if masks is not None:
        _outline(ax, sheet, np.asarray(masks), gap)
    figure.text(
        _MARGIN / width,
        1 - 0.07 / height,
        title,
        va="top",
        fontsize=SIZES.title,
        **text_style(title),
    )
    return figure


@styled
def plot_placements(
    images: NDArray[np.uint8],
    *,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
) -> Figure:
    """Draw pictures of the whole canvas side by side, such as a network's input.

    Parameters
    ----------
    images
        (n, height, width, 3), uint8, 0..255.
    titles
        One for each picture.
    columns
        Pictures in a row; up to eight by default.

    Returns
    -------
    A figure that pyplot does not know of.

    Raises
    ------
    InputError
        No pictures, pictures of another shape or type, or another number of titles.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or not images.size:
        raise InputError(
            f"cannot draw pictures of shape {images.shape} and type {images.dtype}; "
            "expected (n, height, width, 3) of uint8, n at least 1"
        )
    count = len(images)
    if titles is not None and len(titles) != count:
        raise InputError(f"there are {len(titles)} titles for {count} pictures; give one for each")
    if columns is not None and columns < 1:
        raise InputError(f"columns is {columns}; expected at least 1")
    wide = min(8 if columns is None else columns, count)
    rows = math.ceil(count / wide)
    side = min(SIZES.width / wide - 0.06, 2.2)
    tall = side * images.shape[1] / images.shape[2] + (0.16 if titles else 0.0)
    figure = new_figure(wide * (side + 0.06), rows * (tall + 0.06), compress=True)
    for idx, image in enumerate(images):
        ax = figure.add_subplot(rows, wide, idx + 1)
        ax.imshow(image, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=True, linewidth=0.4, color=PALE)
        if titles is not None:
            title = shorten(titles[idx], int(side * 72 / (0.6 * SIZES.small)))
            ax.set_title(title, fontsize=SIZES.small, pad=2, **text_style(title))
    return figure


def _checked(patches: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    patches = np.asarray(patches)
    if count == 0:
        raise InputError("the set holds no object to draw; expected at least one")
    side = patches.shape[1] if patches.ndim == 4 else 0
    if patches.shape != (count, side, side, 3) or side == 0 or patches.dtype != np.uint8:
        raise InputError(
            f"the set's patches have shape {patches.shape} and type {patches.dtype}; "
            f"expected ({count}, size, size, 3) of uint8, one for each category listed"
        )
    return patches


def _captioned(members: dict[str, list[int]], columns: int | None, gap: float) -> _Sheet:
    """Lay out one object of each category, its name beneath."""
    names = list(members)
    count, room = len(names), SIZES.width - 2 * _MARGIN
    for wide in range(min(count, 8), 33) if columns is None else [columns]:
        inches = min(room / (wide + (wide - 1) * gap), 0.8)
        text_size = SIZES.small if inches >= 0.5 else 5.0 if inches >= 0.36 else 4.0
        caption = (text_size * 1.45 / 72) / inches
        rows = math.ceil(count / wide)
        if rows * (1 + caption + gap) * inches <= _TALLEST:
            break
    wide = min(wide, count)
    pitch = 1 + caption + gap
    length = int(inches * (1 + gap) * 72 / (0.66 * text_size))
    strips, labels = [], []
    texts = shorten_apart(names, length, keep="both")
    for start in range(0, count, wide):
        row = (start // wide) * pitch
        indices = list(range(start, min(start + wide, count)))
        strips.append(_Strip(indices, row, 0.0))
        for place, index in enumerate(indices):
            column = place * (1 + gap) + 0.5
            labels.append(_Label(texts[index], row + 1, column, beside=False))
    return _Sheet(strips, labels, wide + (wide - 1) * gap, rows * pitch, inches, text_size)


def _in_rows(members: dict[str, list[int]], columns: int | None, gap: float) -> _Sheet:
    """Lay out a row for each category, its name beside; rows wrap, and stand in blocks."""
    wide = min(20 if columns is None else columns, max(map(len, members.values())))
    lines = {name: math.ceil(len(indices) / wide) for name, indices in members.items()}
    texts = dict(zip(members, shorten_apart(list(members), 18, keep="both"), strict=True))
    margin = 0.08 + max(map(len, texts.values())) * 0.6 * SIZES.small / 72
    room = SIZES.width - 2 * _MARGIN
    best: tuple[float, int] | None = None
    for blocks in range(1, min(len(members), 12) + 1):
        inches = min((room / blocks - margin - 0.12) / (wide * (1 + gap)), 0.6)
        if best is not None and inches < 0.11:
            break
        best = (max(inches, 0.05), math.ceil(sum(lines.values()) / blocks))
        if best[1] * (1 + gap) * inches <= _TALLEST:
            break
    inches, tallest = best or (0.3, sum(lines.values()))
    pitch, block_width = 1 + gap, (margin + 0.12) / inches + wide * (1 + gap)

    strips, labels, block, line, deepest = [], [], 0, 0, 0
    for name, indices in members.items():
        if line and line + lines[name] > tallest:
            block, line = block + 1, 0
        left = block * block_width + margin / inches
        labels.append(_Label(texts[name], line * pitch + 0.5, left - 0.05 / inches, beside=True))
        for start in range(0, len(indices), wide):
            strips.append(_Strip(indices[start : start + wide], line * pitch, left))
            line += 1
        deepest = max(deepest, line)
    width = block * block_width + margin / inches + wide * pitch - gap
    text_size = SIZES.small if inches * 72 >= SIZES.small else max(inches * 72 * 0.9, 3.5)
    return _Sheet(strips, labels, width, deepest * pitch, inches, text_size)


def _draw(ax: Axes, sheet: _Sheet, patches: NDArray[np.uint8], gap: float) -> None:
    """Draw strips of objects, a thin frame around each, and the names."""
    side = patches.shape[1]
    step = side + round(gap * side)
    frames = []
    for strip in sheet.strips:
        # Between the objects the strip is transparent, so that the paper shows.
        picture = np.zeros((side, step * len(strip.indices) - (step - side), 4), dtype=np.uint8)
        for place, index in enumerate(strip.indices):
            picture[:, place * step : place * step + side, :3] = patches[index]
            picture[:, place * step : place * step + side, 3] = 255
            corner = (strip.column + place * step / side, strip.row)
            frames.append(Rectangle(corner, 1, 1))
        right = strip.column + picture.shape[1] / side
        ax.imshow(
            picture,
            extent=(strip.column, right, strip.row + 1, strip.row),
            interpolation="nearest",
            aspect="auto",
        )
    ax.add_collection(
        PatchCollection(frames, facecolor="none", edgecolor=PALE, linewidth=0.3, clip_on=False)
    )
    families = text_style(*(label.text for label in sheet.labels))
    for label in sheet.labels:
        ax.annotate(
            label.text,
            (label.column, label.row),
            xytext=(0, 0 if label.beside else -1.5),
            textcoords="offset points",
            ha="right" if label.beside else "center",
            va="center" if label.beside else "top",
            fontsize=sheet.text_size,
            color=GREY,
            annotation_clip=False,
            **families,
        )
    ax.set_xlim(0, sheet.width)
    ax.set_ylim(sheet.height, 0)


def _outline(ax: Axes, sheet: _Sheet, masks: NDArray[np.uint8], gap: float) -> None:
    """Draw around what belongs to each object; a mask without a hole is outlined as its box."""
    side = masks.shape[1]
    step = side + round(gap * side)
    for strip in sheet.strips:
        wide = step * (len(strip.indices) - 1) + side
        inside = np.zeros((side + 2, wide + 2), np.uint8)  # a rim, so that all outlines close
        for place, index in enumerate(strip.indices):
            first = 1 + place * step
            inside[1:-1, first : first + side] = masks[index]
        if inside.any():
            x = strip.column + (np.arange(wide + 2) - 0.5) / side
            y = strip.row + (np.arange(side + 2) - 0.5) / side
            ax.contour(x, y, inside, levels=[127.5], colors=[OUTLINE], linewidths=0.5)
