"""What is measured, and how numbers are handed out: tables of objects by locations, readings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from elsewhere.measures.bands import interval_by_unit
from elsewhere.measures.displacement import Displacements, mean_off_diagonal
from elsewhere.measures.intervals import Sampled
from elsewhere.measures.unit_chunks import Floats, Tally

Variables = dict[str, tuple[tuple[str, ...], NDArray[np.float64]]]
"""Name to dimensions and values; ``position`` and ``reference`` stand for all axes."""

MATRIX = ("reference", "position")
JACKKNIFE_COST = 3e8
"""Numbers that leaving out each object may go through; beyond it there is no interval."""
ALL_REFERENCES = 2**23
"""Cosines of everything with everything that are kept; beyond it, with one location only."""
LEFT_OUT, SHARE_LEFT_OUT = "left_out", "left_out_of_share"
"""Dimensions of what each unit is left out of in turn; intervals of shares are of their own."""
ALIKE = "all objects have the same code (no response, dead, or it tells the place only)"
"""Why many measures have no value."""


def fit(n_numbers: float) -> bool:
    """Return whether so many numbers can be kept."""
    return n_numbers <= ALL_REFERENCES


@dataclass(frozen=True)
class Table:
    """What is measured: objects by locations, of one layer.

    Parameters
    ----------
    codes
        int (object,), categories.
    places
        int (position, axis), px.
    reference
        Flat index of the reference, None where it is not among the positions.
    n_units
        Of the layer.
    vector
        Whether the layer has one dimension.
    seed
        Of choices.
    """

    codes: NDArray[np.int64]
    places: NDArray[np.int64]
    reference: int | None
    n_units: int
    vector: bool
    seed: int = 0

    @property
    def n_objects(self) -> int:
        """Number of objects."""
        return len(self.codes)

    @property
    def n_positions(self) -> int:
        """Number of locations."""
        return len(self.places)

    @cached_property
    def sampled(self) -> Sampled:
        """What is left out in turn: objects, or categories where one has several exemplars."""
        return Sampled.of(self.codes)

    @cached_property
    def apart(self) -> Displacements:
        """Displacements between all pairs of locations."""
        return Displacements.between(self.places)


@dataclass
class Reading:
    """A measure of one layer while its units stream by.

    Parameters
    ----------
    tally
        What sums.
    read
        From the finished tally to variables.
    doubts
        What has to be said of the numbers of this layer: ties, and what counts as zero.
    """

    tally: Tally
    read: Callable[[], Variables]
    doubts: Callable[[], list[str]] = list


def scalar(value: float) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Return a number per layer."""
    return ((), np.asarray(value, dtype=np.float64))


def estimated(name: str, value: float, without: Floats, *, share: bool = False) -> Variables:
    """Return a number, its interval and, for bands over layers, it without each unit in turn."""
    dim = SHARE_LEFT_OUT if share else LEFT_OUT
    return {
        name: scalar(value),
        f"{name}_interval": (("bound",), interval_by_unit(value, without, share=share)),
        f"{name}_without": ((dim,), without),
    }


def matrix_variables(
    name: str, matrix: Floats, table: Table, away: Floats | None = None
) -> Variables:
    """Return a matrix over locations, its mean by displacement and its mean over all moves.

    `away` holds the mean over all moves without each unit in turn, for its interval.
    """
    mean = mean_off_diagonal(matrix)
    found: Variables = {
        name: (MATRIX, matrix),
        f"{name}_displaced": (("displacement",), table.apart.means(matrix)),
        f"{name}_away": scalar(mean),
    }
    return found | ({} if away is None else estimated(f"{name}_away", mean, away))
