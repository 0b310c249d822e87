"""The canvas: a square of constant background on which one object stands at a location."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import CanvasError, InputError
from elsewhere.stimuli.arrays import ByteArray
from elsewhere.types import Color, Location, parse_color

Background: TypeAlias = int | Color | Literal["mean"]


LARGEST = 2**14
"""Side of a canvas, px, at most."""


@dataclass(frozen=True)
class Canvas:
    """A square image of constant background, and the side of the objects that stand on it.

    A location ``(y, x)`` is the pixel ``(top + object_size // 2, left + object_size // 2)``; the
    object always lies wholly inside the canvas.

    Parameters
    ----------
    size
        Side of the canvas, px.
    object_size
        Side of the object's box, px.
    background
        A pixel value 0..255, a colour, or ``"mean"`` for the mean of the model's input transform.

    Raises
    ------
    CanvasError
        The object is larger than the canvas, or a value is out of range.

    Examples
    --------
    >>> Canvas(224, 50).valid
    range(25, 200)
    """

    size: int = 224
    object_size: int = 50
    background: Background = 0

    def __post_init__(self) -> None:
        for name, value in (("canvas", self.size), ("object size", self.object_size)):
            if not _is_integer(value) or not 1 <= value <= LARGEST:
                raise CanvasError(
                    f"{name} is {value!r}; expected a whole number of px, 1 or more, up to "
                    f"{LARGEST}"
                )
        if self.object_size > self.size:
            raise CanvasError(
                f"an object of {self.object_size} px does not fit on a canvas of {self.size} px; "
                "choose a smaller object or a larger canvas"
            )
        _check_background(self.background)

    @staticmethod
    def parse_background(text: str) -> Background:
        """Return the background that `text` names: ``0``, ``white``, ``12,30,40``, ``mean``, ...

        Raises
        ------
        CanvasError
            `text` is none of these.

        Examples
        --------
        >>> Canvas.parse_background("mean"), Canvas.parse_background("7")
        ('mean', 7)
        >>> Canvas.parse_background("#0c1e28")
        (12, 30, 40)
        """
        text = text.strip()
        if text == "mean":
            return "mean"
        try:
            color = parse_color(text)
        except InputError as error:
            raise CanvasError(f"the background: {error}; or mean") from None
        return color[0] if len(set(color)) == 1 and "," not in text else color

    def background_color(self, mean: Sequence[float] | None = None) -> Color:
        """Return the background as a colour.

        Parameters
        ----------
        mean
            The input transform's mean per channel, 0..1; needed only for the background "mean",
            which becomes ``floor(255 * mean + 0.5)``.

        Raises
        ------
        CanvasError
            The background is "mean" and `mean` is missing or not three values 0..1.

        Examples
        --------
        >>> Canvas(background="mean").background_color((0.485, 0.456, 0.406))
        (124, 116, 104)
        """
        if isinstance(self.background, tuple):
            return self.background
        if self.background != "mean":
            return (self.background,) * 3
        if mean is None or len(mean) != 3 or not all(0 <= value <= 1 for value in mean):
            raise CanvasError(
                f"the background 'mean' needs the input transform's mean, three values 0..1; got "
                f"{mean!r}; give it, or choose a colour"
            )
        red, green, blue = (math.floor(255 * value + 0.5) for value in mean)
        return red, green, blue

    @property
    def valid(self) -> range:
        """The coordinates, along either axis, at which the object lies wholly inside."""
        half = self.object_size // 2
        return range(half, self.size - self.object_size + half + 1)

    @property
    def centre(self) -> Location:
        """The middle of the valid locations, halves rounded up."""
        middle = (self.valid[0] + self.valid[-1] + 1) // 2
        return middle, middle

    def contains(self, location: Sequence[int]) -> bool:
        """Return whether an object at `location` lies wholly inside."""
        return len(location) == 2 and all(int(c) == c and int(c) in self.valid for c in location)

    def check(self, location: Sequence[int]) -> Location:
        """Return `location` as two integers.

        Raises
        ------
        CanvasError
            An object there would not lie wholly inside.
        """
        if not self.contains(location):
            shown = ",".join(str(coordinate) for coordinate in location)
            raise CanvasError(
                f"location {shown} is off the canvas: an object of {self.object_size} px on "
                f"{self.size} px can stand at y,x from {self.valid[0]} to {self.valid[-1]}"
            )
        return int(location[0]), int(location[1])

    def top_left(self, location: Sequence[int]) -> tuple[int, int]:
        """Return the object's first row and column when it stands at `location`, px."""
        y, x = self.check(location)
        return y - self.object_size // 2, x - self.object_size // 2

    def empty(self, color: Color) -> ByteArray:
        """Return a canvas without an object: uint8 (size, size, 3)."""
        image = np.empty((self.size, self.size, 3), np.uint8)
        image[:] = color
        return image

    def paste(
        self,
        patches: ByteArray,
        locations: Sequence[Location] | NDArray[np.integer],
        color: Color,
    ) -> ByteArray:
        """Return one canvas per location, with its patch copied there, pixel by pixel.

        Parameters
        ----------
        patches
            uint8 (n, object_size, object_size, 3), or (1, ...) to show one object everywhere.
        locations
            Integers (n, 2): y, x, px.
        color
            The background.

        Returns
        -------
        uint8 (n, size, size, 3)

        Raises
        ------
        CanvasError
            A location is off the canvas, or the shapes do not fit.

        Examples
        --------
        >>> canvas = Canvas(5, 1)
        >>> white = np.full((1, 1, 1, 3), 255, np.uint8)
        >>> np.argwhere(canvas.paste(white, [(1, 3)], (0, 0, 0))[0, :, :, 0]).tolist()
        [[1, 3]]
        """
        places = _as_locations(locations)
        side = self.object_size
        patches = np.asarray(patches)
        if patches.dtype != np.uint8 or patches.shape[1:] != (side, side, 3):
            raise CanvasError(
                f"patches must be uint8 (n, {side}, {side}, 3) on this canvas; got "
                f"{patches.dtype} {patches.shape}; load the objects at size {side}"
            )
        if len(patches) not in (1, len(places)):
            raise CanvasError(
                f"{len(patches)} patches for {len(places)} locations; expected one patch for each "
                "location, or a single patch"
            )
        images = np.empty((len(places), self.size, self.size, 3), np.uint8)
        images[:] = color
        for index, place in enumerate(places):
            top, left = self.top_left(place)
            patch = patches[index if len(patches) > 1 else 0]
            images[index, top : top + side, left : left + side] = patch
        return images


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check_background(background: object) -> None:
    if background == "mean":
        return
    values = background if isinstance(background, tuple) else (background,)
    fits = all(_is_integer(value) and 0 <= value <= 255 for value in values)
    if not fits or len(values) != (3 if isinstance(background, tuple) else 1):
        raise CanvasError(
            f"background is {background!r}; expected a value 0..255, three of them, or 'mean'"
        )


def _as_locations(locations: ArrayLike) -> NDArray[np.int64]:
    places = np.asarray(locations)
    if places.size == 0:
        return np.empty((0, 2), np.int64)
    if places.ndim != 2 or places.shape[1] != 2 or places.dtype.kind not in "iu":
        raise CanvasError(
            f"locations must be whole numbers of shape (n, 2): y, x; got {places.dtype} "
            f"{places.shape}"
        )
    return places.astype(np.int64)
