"""Figures put together to one: each as it was laid out, at its place, enlarged.

A figure for a slide is one for a smaller page, enlarged: text, lines, marks and distances alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import GraphicsContextBase, RendererBase
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.transforms import Bbox


@dataclass(frozen=True)
class Part:
    """A figure within another: where its lower left corner is, inches, and how much enlarged."""

    figure: Figure
    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0


class ComposedFigure(Figure):
    """A figure that draws others, which are laid out already.

    Parameters
    ----------
    parts
        The figures; they are not to be arranged again.
    width, height
        Inches.
    """

    def __init__(self, parts: Sequence[Part], width: float, height: float) -> None:
        self.parts: tuple[Part, ...] = ()
        super().__init__(figsize=(width, height), facecolor="white")
        self.parts = tuple(parts)
        self._place()

    def _place(self) -> None:
        """Set the parts to their places, at the resolution in use."""
        left, bottom = self.transFigure.transform((0, 0)) / self.dpi  # a file may have margins
        for part in self.parts:
            box, size = part.figure.bbox_inches, part.figure.bbox_inches.size
            corner = ((left + part.x) / part.scale, (bottom + part.y) / part.scale)
            part.figure.set_dpi(self.dpi * part.scale)
            box.p0, box.p1 = corner, (corner[0] + size[0], corner[1] + size[1])

    @property
    def dpi(self) -> float:
        """Dots per inch; those of the parts follow."""
        return float(self._get_dpi())  # type: ignore[attr-defined]

    @dpi.setter
    def dpi(self, dpi: float) -> None:
        self._set_dpi(dpi)  # type: ignore[attr-defined]
        self._place()

    @property  # type: ignore[misc]
    def axes(self) -> list[Axes]:  # type: ignore[override]
        """All axes of all parts."""
        return [ax for part in self.parts for ax in part.figure.axes]

    def get_children(self) -> list[Artist]:
        """Return what is drawn, the parts among it."""
        return [*super().get_children(), *(part.figure for part in self.parts)]

    def get_tightbbox(self, *_: Any, **__: Any) -> Bbox:
        """Return the whole page, inches: nothing of it is cut off."""
        return Bbox.from_bounds(0, 0, *self.get_size_inches())

    def draw(self, renderer: RendererBase) -> None:
        """Draw the page, and the parts on it."""
        super().draw(renderer)
        self._place()
        for part in self.parts:
            larger: Any = _Enlarged(renderer, part.scale)
            part.figure.draw(renderer if part.scale == 1 else larger)


class _Enlarged:
    """A renderer for which a point is larger: text and lines alike."""

    def __init__(self, renderer: RendererBase, scale: float) -> None:
        self.__dict__.update(renderer=renderer, scale=scale)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.renderer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.renderer, name, value)

    def points_to_pixels(self, points: float) -> Any:
        """Return how many pixels so many points are."""
        return self.renderer.points_to_pixels(points * self.scale)

    def get_text_width_height_descent(self, s: str, prop: FontProperties, ismath: Any) -> Any:
        """Return how large a text is."""
        return self.renderer.get_text_width_height_descent(s, self._larger(prop), ismath)

    def draw_text(
        self, gc: Any, x: float, y: float, s: str, prop: FontProperties, *more: Any, **options: Any
    ) -> None:
        """Draw a text."""
        self.renderer.draw_text(gc, x, y, s, self._larger(prop), *more, **options)

    def draw_path(self, gc: GraphicsContextBase, *more: Any, **options: Any) -> None:
        """Draw a line."""
        with self._thicker(gc):
            self.renderer.draw_path(gc, *more, **options)

    def draw_markers(self, gc: GraphicsContextBase, *more: Any, **options: Any) -> None:
        """Draw marks, whose size comes in pixels."""
        with self._thicker(gc):
            self.renderer.draw_markers(gc, *more, **options)

    def draw_quad_mesh(self, gc: GraphicsContextBase, *more: Any, **options: Any) -> None:
        """Draw cells."""
        with self._thicker(gc):
            self.renderer.draw_quad_mesh(gc, *more, **options)

    def draw_path_collection(self, gc: Any, *more: Any, **options: Any) -> None:
        """Draw paths, each with a width and dashes of its own."""
        before, widths, styles, after = more[:7], more[7], more[8], more[9:]
        widths = [width * self.scale for width in widths]
        styles = [self._longer(*style) for style in styles]
        self.renderer.draw_path_collection(gc, *before, widths, styles, *after, **options)

    def _larger(self, prop: FontProperties) -> FontProperties:
        larger = prop.copy()
        larger.set_size(prop.get_size_in_points() * self.scale)
        return larger

    def _longer(self, offset: float, dashes: Any) -> tuple[float, Any]:
        found = None if dashes is None else [length * self.scale for length in dashes]
        return offset * self.scale, found

    @contextmanager
    def _thicker(self, gc: GraphicsContextBase) -> Iterator[None]:
        width, dashes, hatch = gc.get_linewidth(), gc.get_dashes(), gc.get_hatch_linewidth()
        gc.set_linewidth(width * self.scale)
        gc.set_dashes(*self._longer(*dashes))
        gc.set_hatch_linewidth(hatch * self.scale)
        try:
            yield
        finally:
            gc.set_linewidth(width)
            gc.set_dashes(*dashes)
            gc.set_hatch_linewidth(hatch)
