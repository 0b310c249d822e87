"""Square windows that stand still in the object's frame, and move with it over the canvas."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Interval: TypeAlias = tuple[int, int]
"""First row or column, and the one after the last."""


@dataclass(frozen=True)
class Lattice:
    """Square windows at equal distances.

    Parameters
    ----------
    window
        Side of a window, px.
    pitch
        From one window to the next, px; at most `window`.
    reach
        How far windows extend beyond the object's box, px.
    """

    window: int
    pitch: int
    reach: int

    def region(
        self, corner: tuple[int, int], *, plain: bool, side: int, size: int
    ) -> tuple[tuple[int, int], int]:
        """Return the first row and column of the square that windows tile, and its side.

        It may extend beyond the canvas.

        Parameters
        ----------
        corner
            First row and column of the object's box, px.
        plain
            Whether only windows near the box matter; else the square covers the canvas.
        side, size
            Of the box and of the canvas, px.

        Examples
        --------
        >>> Lattice(4, 2, 4).region((5, 1), plain=True, side=8, size=24)
        ((1, -3), 16)
        >>> Lattice(4, 2, 4).region((5, 1), plain=False, side=8, size=24)
        ((-1, -1), 26)
        """
        top, left = corner
        if not plain:  # whole canvases, in step with the box
            across = (math.ceil(size / self.pitch) + 1) * self.pitch
            return (top % self.pitch - self.pitch, left % self.pitch - self.pitch), across
        around = math.ceil(self.reach / self.pitch) * self.pitch
        across = 2 * around + math.ceil(side / self.pitch) * self.pitch
        return (top - around, left - around), across

    def windows(self, first: int, across: int, size: int) -> list[Interval]:
        """Return the windows along one axis of a region, cut off at its end and at the canvas's.

        Examples
        --------
        >>> Lattice(4, 3, 0).windows(-5, 12, 24)
        [(0, 0), (0, 2), (1, 5), (4, 7)]
        """
        count = max(0, math.ceil((across - self.window) / self.pitch)) + 1
        found = []
        for start in range(first, first + count * self.pitch, self.pitch):
            low, high = max(start, 0), min(start + self.window, first + across, size)
            found.append((low, max(low, high)))
        return found


def spread_windows(
    values: NDArray[np.float64], rows: list[Interval], columns: list[Interval], size: int
) -> NDArray[np.float64]:
    """Return for each pixel the mean over the windows that cover it, 0 where none does.

    Parameters
    ----------
    values
        Of each window, float64 (row of windows, column of windows).
    rows, columns
        The windows along y and x, px.
    size
        Side of the canvas, px.

    Returns
    -------
    float64 (size, size)

    Examples
    --------
    >>> spread_windows(np.array([[1.0, 3.0]]), [(0, 1)], [(0, 2), (1, 3)], 3)[0].tolist()
    [1.0, 2.0, 3.0]
    """
    y, x = (_covers(stretches, size) for stretches in (rows, columns))
    total: NDArray[np.float64] = y.T @ values @ x
    return total / np.maximum(np.outer(y.sum(0), x.sum(0)), 1)


def _covers(stretches: list[Interval], size: int) -> NDArray[np.float64]:
    """Return which window covers which pixel, (window, pixel)."""
    pixels = np.arange(size)
    first, last = np.array(stretches).T[:, :, None]
    covers: NDArray[np.bool_] = (first <= pixels) & (pixels < last)
    return covers.astype(np.float64)
