"""Products of long vectors, accumulated in double precision, for NumPy arrays and torch tensors.

A single-precision product over millions of units loses digits; a double-precision copy of the
operands costs twice the memory and time. Here the products of stretches of :data:`STRETCH` units
are formed in single precision and added up in double precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elsewhere.protocols import Array

STRETCH = 8_192
"""Units per partial product: short enough for the cache and for 1e-6, long enough for BLAS."""

FLAT = 4.0
"""A row hardly varies where the square of its mean is more than so many times its variance."""


def to_numpy(array: Array) -> NDArray[Any]:
    """Return a NumPy array that holds the values of `array`, on the CPU."""
    if isinstance(array, np.ndarray):
        return array
    result: NDArray[Any] = array.detach().cpu().numpy()
    return result


def dot_products(a: Array, b: Array) -> NDArray[np.float64]:
    """Return all dot products of the rows of two matrices.

    Parameters
    ----------
    a, b
        Shapes (row, unit) and (other row, unit), float32 or float64, both NumPy or both torch.

    Returns
    -------
    ndarray
        Shape (row, other row), float64; the relative error is about 1e-6 for float32.

    Examples
    --------
    >>> dot_products(np.ones((1, 3), "float32"), np.eye(3, dtype="float32"))
    array([[1., 1., 1.]])
    """
    total = np.zeros((a.shape[0], b.shape[0]))
    for start in range(0, a.shape[1], STRETCH):
        stop = start + STRETCH
        total += to_numpy(a[:, start:stop] @ b[:, start:stop].T)
    return total


def squared_norms(a: Array) -> NDArray[np.float64]:
    """Return the squared Euclidean norm of each row, float64, shape (row,)."""
    total = np.zeros(a.shape[0])
    for start in range(0, a.shape[1], STRETCH):
        piece = a[:, start : start + STRETCH]
        total += to_numpy((piece * piece).sum(-1))
    return total


def means(a: Array) -> NDArray[np.float64]:
    """Return the mean over units of each row, float64, shape (row,)."""
    total = np.zeros(a.shape[0])
    for start in range(0, a.shape[1], STRETCH):
        total += to_numpy(a[:, start : start + STRETCH].sum(-1))
    total /= a.shape[1]
    return total


class DenseVectors:
    """Rows of a matrix as :class:`elsewhere.protocols.Vectors`.

    Parameters
    ----------
    values
        Shape (row, unit), float32, NumPy or torch. It is not copied.
    """

    def __init__(self, values: Array) -> None:
        self.values = values

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def norms(self) -> NDArray[np.float64]:
        """Euclidean norms, shape (row,)."""
        result: NDArray[np.float64] = np.sqrt(squared_norms(self.values))
        return result

    def dots(self, other: DenseVectors) -> NDArray[np.float64]:
        """Dot products with the rows of `other`, shape (row, row of other)."""
        return dot_products(self.values, other.values)

    def minus(self, other: DenseVectors) -> DenseVectors:
        """Return these rows less the single row of `other`."""
        return DenseVectors(self.values - other.values)

    def centred(self) -> DenseVectors:
        """Return these rows, each less its own mean over units."""
        offsets = means(self.values)
        spread = squared_norms(self.values) / self.values.shape[1] - offsets**2
        flat = offsets**2 > FLAT * spread
        if not flat.any():
            return CentredVectors(self.values, offsets)
        near = np.where(flat, offsets, 0.0)[:, None]
        if isinstance(self.values, np.ndarray):
            shifted = self.values - near.astype(self.values.dtype)
        else:
            shifted = self.values - self.values.new_tensor(near)
        return CentredVectors(shifted, means(shifted))

    def zeros(self, rows: int, *, exact: bool = False) -> DenseVectors:
        """Return `rows` zero vectors of the same length; `exact` ones in double precision."""
        shape = (rows, self.values.shape[1])
        if isinstance(self.values, np.ndarray):
            return DenseVectors(np.zeros(shape, dtype=np.float64 if exact else np.float32))
        zeros = self.values.new_zeros(shape)
        return DenseVectors(zeros.double() if exact else zeros)

    def rounded(self) -> DenseVectors:
        """Return the rows in single precision."""
        if isinstance(self.values, np.ndarray):
            return DenseVectors(self.values.astype(np.float32, copy=False))
        return DenseVectors(self.values.float())

    def assign(self, row: int, other: DenseVectors) -> None:
        """Write the rows of `other` into the rows from `row` on."""
        self.values[row : row + len(other)] = other.values

    def accumulate(self, other: DenseVectors, weights: NDArray[np.float64]) -> None:
        """Add the sum of the rows of `other`, weighted, to the only row."""
        if isinstance(other.values, np.ndarray):
            factors = weights.astype(other.values.dtype)
        else:
            factors = other.values.new_tensor(weights)
        self.values[0] += factors @ other.values

    def take(self, rows: Sequence[int]) -> DenseVectors:
        """Return some of the rows; a contiguous stretch is not copied."""
        first, n = rows[0], len(rows)
        if list(rows) == list(range(first, first + n)):
            return type(self)(self.values[first : first + n])
        return type(self)(self.values[list(rows)])

    def clear(self) -> None:
        """Set all rows to zero."""
        self.values[...] = 0


class CentredVectors(DenseVectors):
    """Rows less their own means, which are subtracted from products.

    In single precision, thousands of equal small differences ``0 - mean`` add up with a bias of
    up to 5e-6; means that are removed from the products only leave none. Of a row that hardly
    varies, though, such products are large and what is left of them is rounding: its mean is
    subtracted from the values, and only the rest of it from the products.

    Parameters
    ----------
    values
        Shape (row, unit): the rows.
    offsets
        Shape (row,): the means of `values`.
    """

    def __init__(self, values: Array, offsets: NDArray[np.float64]) -> None:
        super().__init__(values)
        self.offsets = offsets

    def norms(self) -> NDArray[np.float64]:
        """Euclidean norms, shape (row,)."""
        squares = squared_norms(self.values) - self.values.shape[1] * self.offsets**2
        result: NDArray[np.float64] = np.sqrt(np.maximum(squares, 0.0))
        return result

    def dots(self, other: DenseVectors) -> NDArray[np.float64]:
        """Dot products with the rows of `other`, centred like these; shape (row, row of other)."""
        removed = self.values.shape[1] * np.outer(self.offsets, self._offsets_of(other))
        result: NDArray[np.float64] = dot_products(self.values, other.values) - removed
        return result

    def zeros(self, rows: int, *, exact: bool = False) -> CentredVectors:
        """Return `rows` zero vectors of the same length; `exact` ones in double precision."""
        return CentredVectors(super().zeros(rows, exact=exact).values, np.zeros(rows))

    def assign(self, row: int, other: DenseVectors) -> None:
        """Write the rows of `other` into the rows from `row` on."""
        super().assign(row, other)
        self.offsets[row : row + len(other)] = self._offsets_of(other)

    def accumulate(self, other: DenseVectors, weights: NDArray[np.float64]) -> None:
        """Add the sum of the rows of `other`, weighted, to the only row."""
        super().accumulate(other, weights)
        self.offsets[0] += weights @ self._offsets_of(other)

    def take(self, rows: Sequence[int]) -> CentredVectors:
        """Return some of the rows; a contiguous stretch is not copied."""
        return CentredVectors(DenseVectors(self.values).take(rows).values, self.offsets[list(rows)])

    def clear(self) -> None:
        """Set all rows to zero."""
        super().clear()
        self.offsets[...] = 0

    @staticmethod
    def _offsets_of(other: DenseVectors) -> NDArray[np.float64]:
        if isinstance(other, CentredVectors):
            return other.offsets
        return means(other.values)
