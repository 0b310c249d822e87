"""What is measured, and how numbers are handed out: tables of objects by locations, readings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from elsewhere.measures.bands import interval_by_unit
from elsewhere.measures.displacement import Displacements, mean_off_diagonal
from elsewhere.measures.intervals import Sampled
from elsewhere.measures.unit_chunks import Floats, Tally

Against = Literal["all", "reference"]
Variables = dict[str, tuple[tuple[str, ...], NDArray[Any]]]
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
    against
        Whether ``all`` pairs of locations count, or those with the ``reference`` only.
    """

    codes: NDArray[np.int64]
    places: NDArray[np.int64]
    reference: int | None
    n_units: int
    vector: bool
    seed: int = 0
    against: Against = "all"

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
        """Displacements between the pairs of locations that count."""
        every = Displacements.between(self.places)
        if self.against == "all":
            return every
        with_reference = (np.arange(self.n_positions) == self.reference)[:, None]
        return replace(every, groups=np.where(with_reference, every.groups, -1))

    def away(self, matrix: Floats) -> float:
        """Return the mean over the pairs of different locations that count, where it is defined."""
        return mean_off_diagonal(np.where(self.apart.groups >= 0, matrix, np.nan))


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

    Against the reference it is the matrix's row of that, and moves are those from there. `away`
    holds the mean over all moves without each unit in turn, for its interval.
    """
    mean = table.away(matrix)
    whole = table.against == "all"
    found: Variables = {
        name: (MATRIX, matrix) if whole else (MATRIX[1:], matrix[table.reference]),
        f"{name}_displaced": (("displacement",), table.apart.means(matrix)),
        f"{name}_away": scalar(mean),
    }
    return found | ({} if away is None else estimated(f"{name}_away", mean, away))
