"""The page a figure is made for: its width and height, how large text is, whether titles stand."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.transforms import Bbox, ScaledTranslation

from elsewhere.errors import InputError
from elsewhere.figures.text import wrap

_INCHES = MappingProxyType({"mm": 1 / 25.4, "cm": 1 / 2.54, "in": 1.0, "pt": 1 / 72})
_NARROW = 5.5
"""Inches below which a legend stands beneath its axes instead of beside them."""


@dataclass(frozen=True)
class Page:
    """What figures are made for.

    Parameters
    ----------
    width, height
        Inches; None where the figure chooses.
    label
        Size of the labels of axes, points; titles are an eighth larger.
    asked
        Whether that size is asked for: then no text is smaller. Else numbers and small print are.
    titled
        Whether a title stands above, or which one.
    widest
        Width of a figure of which no width is asked for, at most, inches.
    """

    width: float | None = None
    height: float | None = None
    label: float = 8.0
    asked: bool = False
    titled: bool | str = True
    widest: float = 7.0


_PAGE: ContextVar[Page] = ContextVar("page", default=Page())  # noqa: B039  # frozen


class _Sizes:
    """Sizes on the page in use: of text in points, of the page in inches."""

    @property
    def title(self) -> float:
        """Titles, points."""
        return _PAGE.get().label * 9 / 8

    @property
    def label(self) -> float:
        """Labels of axes, points."""
        return _PAGE.get().label

    @property
    def tick(self) -> float:
        """Numbers and names along axes, points."""
        return _PAGE.get().label * (1.0 if _PAGE.get().asked else 7 / 8)

    @property
    def small(self) -> float:
        """Small print, points."""
        return _PAGE.get().label * (1.0 if _PAGE.get().asked else 0.75)

    @property
    def width(self) -> float:
        """The page, inches: the text width of a printed page unless another is asked for."""
        return _PAGE.get().width or _PAGE.get().widest

    @property
    def fixed(self) -> bool:
        """Whether the width is asked for, and not the page's."""
        return _PAGE.get().width is not None

    @property
    def height(self) -> float | None:
        """Its height, inches; None where the figure chooses."""
        return _PAGE.get().height

    @property
    def titled(self) -> bool | str:
        """Whether a title stands above, or which one."""
        return _PAGE.get().titled

    @property
    def narrow(self) -> bool:
        """Whether legends stand beneath."""
        return self.width < _NARROW


SIZES = _Sizes()
"""Sizes on the page in use."""


@contextmanager
def page(
    *,
    width: float | str | None = None,
    height: float | str | None = None,
    font_size: float | None = None,
    title: bool | str = True,
) -> Iterator[None]:
    """Make the figures drawn within this block for a page of this size.

    Parameters
    ----------
    width, height
        Of the whole figure: ``"85mm"``, ``"8.5cm"``, ``"3.3in"``, ``"240pt"``, or a number of mm.
        By default 178 mm (the text width of a page) at most, and as tall as the figure needs.
    font_size
        Of all text but titles, points; by default, labels of axes have 8, and 7 where the figure is
        narrower than 120 mm, and numbers and small print less.
    title
        Whether a title stands above, or its text.

    Raises
    ------
    InputError
        A length or size that cannot be used.

    Examples
    --------
    >>> with page(width="85mm", font_size=7, title=False):
    ...     round(SIZES.width, 3), SIZES.label
    (3.346, 7.0)
    """
    inches, tall = read_length("width", width), read_length("height", height)
    check_font(font_size)
    size = (7.0 if inches is not None and inches < 4.7 else 8.0) if font_size is None else font_size
    with using(Page(inches, tall, float(size), font_size is not None, title)):
        yield


@contextmanager
def using(given: Page) -> Iterator[None]:
    """Make the figures drawn within this block for a page."""
    token = _PAGE.set(given)
    try:
        yield
    finally:
        _PAGE.reset(token)


def check_font(size: float | None) -> None:
    """Refuse a size of text that cannot be used."""
    if size is not None and not (isinstance(size, int | float) and 4 <= size <= 24):
        raise InputError(f"the font size is {size!r}; expected 4 to 24 points")


def read_length(name: str, given: float | str | None) -> float | None:
    """Return a length in inches, None where none is given."""
    if given is None:
        return None
    read = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(mm|cm|in|pt)?\s*", str(given))
    inches = float(read[1]) * _INCHES[read[2] or "mm"] if read else math.nan
    if not 0.99 < inches < 80:
        raise InputError(
            f"the {name} is {given!r}; expected 25.4 mm to 2 m, such as 85mm, 8.5cm or 3.35in"
        )
    return inches


class PageLayout(ConstrainedLayoutEngine):
    """Constrained layout that breaks the names of axes, and sets legends as low as they need."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.added: dict[str, float] = {}
        """Inches of height that were added, and what for."""

    def execute(self, fig: Figure) -> None:
        """Arrange the figure."""
        for _ in range(3):  # a broken name takes a line more
            for ax in fig.axes:
                legend = ax.get_legend()
                if legend is not None and legend.get_gid() == "beneath":
                    _lower(ax, legend)
            super().execute(fig)
            broken = [
                _break_name(ax, axis, fig) for ax in fig.axes for axis in (ax.xaxis, ax.yaxis)
            ]
            if not any(broken):
                return


def _break_name(ax: Axes, axis: Axis, figure: Figure) -> bool:
    """Break the name of an axis into lines that fit beside it; return whether that changed it."""
    label, along = axis.label, axis is ax.xaxis
    text, size = label.get_text(), float(label.get_fontsize())
    over = (ax.bbox.width if along else ax.bbox.height) / figure.dpi
    if along:  # it may reach beyond the ends, where nothing else is
        over += 2 * min(ax.bbox.x0, figure.bbox.width - ax.bbox.x1) / figure.dpi - 0.04
    broken = wrap(" ".join(text.split()), over, size)
    if (
        not text.strip()
        or broken.count("\n") == text.count("\n")
        or broken.count("…") > text.count("…")
    ):
        return False
    label.set_text(broken)
    return True


def _lower(ax: Axes, legend: Legend) -> None:
    """Set a legend beneath the numbers and the name of the x axis, from those of the y axis on."""
    figure = ax.get_figure(root=True)
    if figure is None:
        return
    box, side = ax.xaxis.get_tightbbox(), ax.yaxis.get_tightbbox()
    below = 0.0 if box is None else max(ax.bbox.y0 - box.y0, 0.0) / figure.dpi
    left = 0.0 if side is None else max(ax.bbox.x0 - side.x0, 0.0) / figure.dpi
    shift = ScaledTranslation(-left, -(below + 0.04), figure.dpi_scale_trans)
    legend.set_bbox_to_anchor((0.0, 0.0), ax.transAxes + shift)


def new_figure(width: float, height: float, *, compress: bool = False) -> Figure:
    """Return an empty figure that pyplot does not know of.

    Parameters
    ----------
    width, height
        Inches, unless the page in use asks for others.
    compress
        Whether panels of a fixed shape are set close to each other.
    """
    engine = PageLayout(compress=compress)
    if compress:
        engine.set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    asked = _PAGE.get()
    size = (asked.width or width, asked.height or height)
    return Figure(figsize=size, layout=engine)


def make_room(figure: Figure | None, what: str, inches: float) -> None:
    """Make a figure taller for what stands above or beneath its axes, where it may be."""
    engine = None if figure is None else figure.get_layout_engine()
    if figure is None or not isinstance(engine, PageLayout) or SIZES.height is not None:
        return
    before = engine.added.get(what, 0.0)
    if inches > before:
        width, height = (float(each) for each in figure.get_size_inches())
        figure.set_size_inches(width, height + inches - before)
        engine.added[what] = inches


def leave_room(ax: Axes, legend: Legend) -> None:
    """Make axes narrower by a legend beside them, in a figure that nothing arranges.

    They end where the legend reaches the edge of the figure, or the place of the next axes.
    """
    before = ax.get_axes_locator()

    def locate(_: Any, renderer: RendererBase) -> Bbox:
        box = ax.get_position(original=True) if before is None else before(ax, renderer)
        whole, spec = ax.get_figure(root=False), ax.get_subplotspec()
        root = ax.get_figure(root=True)
        if whole is None or root is None or root.get_layout_engine() is not None:
            return box
        last = spec is None or spec.colspan.stop == spec.get_gridspec().ncols
        beside = legend.get_window_extent(renderer).width / float(whole.bbox.width) + 0.02
        end = (0.99 if last else box.x1) - beside
        return Bbox.from_extents(box.x0, box.y0, max(min(box.x1, end), box.x0 + 0.02), box.y1)

    ax.set_axes_locator(locate)


def is_ours(figure: Figure) -> bool:
    """Return whether a figure was made here, so that it can be arranged as a whole."""
    return isinstance(figure.get_layout_engine(), PageLayout)


def room_along(ax: Axes) -> float:
    """Return about how many inches an axes is wide, once it is laid out."""
    figure = ax.get_figure(root=True)
    if figure is None or not is_ours(figure):
        legend = 0.8 if figure is not None and figure.get_layout_engine() is None else 0.0
        width = ax.get_window_extent().width / (figure.dpi if figure else 100.0)
        return float(max(width - legend, 0.5))
    spec = ax.get_subplotspec()
    columns = 1 if spec is None else spec.get_gridspec().ncols
    width = float(figure.get_size_inches()[0])
    beside = 1.35 if columns == 1 and width >= _NARROW else 0.0
    return max(width / columns - 0.6 - beside, 0.5)
