"""Square windows that stand still in the object's frame, and move with it over the canvas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Interval: TypeAlias = tuple[int, int]
"""First row or column, and the one after the last."""


@dataclass(frozen=True)
class Lattice:
    """Square windows at equal distances, without end.

    Parameters
    ----------
    window
        Side of a window, px.
    pitch
        From one window to the next, px; at most `window`.
    """

    window: int
    pitch: int

    def touching(self, corner: int, low: int, high: int) -> range:
        """Return the first pixels of the windows along one axis that reach into a stretch, px.

        Parameters
        ----------
        corner
            First row or column of the object's box, where a window starts.
        low, high
            Of the stretch.

        Examples
        --------
        >>> list(Lattice(4, 2).touching(5, 5, 13))
        [3, 5, 7, 9, 11]
        """
        first = low - self.window + 1
        return range(first + (corner - first) % self.pitch, high, self.pitch)

    def windows(self, corner: int, size: int) -> list[Interval]:
        """Return the windows along one axis of a canvas, cut off at its edges.

        Examples
        --------
        >>> Lattice(4, 3).windows(1, 9)
        [(0, 2), (1, 5), (4, 8), (7, 9)]
        """
        starts = self.touching(corner, 0, size)
        return [(max(start, 0), min(start + self.window, size)) for start in starts]


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
    y, x = (covers(stretches, size) for stretches in (rows, columns))
    total: NDArray[np.float64] = y.T @ values @ x
    return total / np.maximum(np.outer(y.sum(0), x.sum(0)), 1)


def covers(stretches: list[Interval], size: int) -> NDArray[np.float64]:
    """Return which window covers which pixel, (window, pixel)."""
    pixels = np.arange(size)
    first, last = np.array(stretches).T[:, :, None]
    found: NDArray[np.bool_] = (first <= pixels) & (pixels < last)
    return found.astype(np.float64)
