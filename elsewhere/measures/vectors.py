"""Sums over long vectors, for NumPy arrays and torch tensors: the one place where they are taken.

In single precision a sum of n numbers is only sure to be right within n / 2^24 of the sum of their
absolute values, and how far off it is depends on the processor: the product of 8,192 equal numbers
is right within 1e-6 in the lanes of AVX-512, and off by 1e-5 in those of SSE. So values are
converted to double precision, which is exact, a few at a time, and multiplied and added in that.
The error is then below n / 2^53 of the sum of absolute values, 1.2e-9 for 10 million, in whatever
order a processor or a BLAS adds.

Tensors on the CPU are seen by NumPy. Those of another device are summed there, and so are the
results: nothing here waits for a device. Where its double precision is slow (:func:`has_doubles`),
:data:`SHORT` numbers at a time are multiplied and added in single precision, and these sums in
double precision.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elsewhere.protocols import Array

HELD = 2**16
"""Numbers that are converted to double precision at a time: half of a second-level cache."""

HELD_ON_DEVICE = 2**25
"""The same on a GPU, where a call costs more than the memory."""

HOST = ("cpu", "mps")
"""Kinds of devices whose tensors NumPy sums: those of the others stay where they are."""

FULL_DOUBLES = ((6, 0), (7, 0), (8, 0), (9, 0), (10, 0))
"""Compute capabilities of GPUs whose double precision is half as fast as single, or as fast: P100,
V100, A100, H100 and H200, B200. All others have a 32nd or a 64th of it."""

SHORT = 64
"""Numbers that are added in single precision where double precision is slow."""

LONG = 1024
"""Numbers of a product that a GPU takes together: many short ones keep all of it busy."""

TOGETHER = 64
"""Rows that are multiplied with each other on a GPU, about, if few of these products are wanted."""

LEAST = 512
"""Units that are taken together at least, however many rows: products have to be worth a call."""


NEGLIGIBLE = {"single": 1e-6, "double": 1e-12}
"""A vector is zero if removing a mean leaves less than this share of its length, by the precision
of its values."""


def negligible(values: Array) -> float:
    """Return the share of a vector's length below which what is left of it is rounding."""
    return NEGLIGIBLE["double" if values.dtype.itemsize == 8 else "single"]


def as_recorded(values: NDArray[Any]) -> NDArray[Any]:
    """Return numbers in the precision that they really have: it decides what is rounding.

    Values that were computed in single precision and stored in double are single; whole numbers
    are exact, and so double.

    Examples
    --------
    >>> as_recorded(np.array([0.1, 0.2])).dtype, as_recorded(np.float32([0.1]).astype(float)).dtype
    (dtype('float64'), dtype('float32'))
    """
    if values.dtype.kind not in "fiub" or values.dtype in (np.float16, np.float32):
        return values
    values = values.astype(np.float64, copy=False)
    with np.errstate(all="ignore"):
        single = values.astype(np.float32)
        exact = np.array_equal(values, single) and not np.array_equal(values, np.round(values))
    return single if exact else values


def on_host(array: Array) -> bool:
    """Return whether NumPy sums an array, because it is one or lies in the CPU's memory."""
    return isinstance(array, np.ndarray) or array.device.type in HOST


def torch_of(tensor: Any) -> Any:
    """Return torch, which is there where a tensor is, and need not be where there is none."""
    return sys.modules["torch"]


def has_doubles(tensor: Array) -> bool:
    """Return whether a tensor's device multiplies in double precision as fast as in single."""
    torch, device = torch_of(tensor), tensor.device
    if device.type != "cuda":
        return bool(device.type == "cpu")
    if torch.version.hip is not None:  # MI200 and later have
        return True
    return bool(torch.cuda.get_device_capability(device) in FULL_DOUBLES)


@contextlib.contextmanager
def in_full(tensor: Array) -> Iterator[None]:
    """Multiply in the precision of the numbers, whatever the network computes in."""
    torch, kind = torch_of(tensor), tensor.device.type
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32 if kind == "cuda" else False
    with torch.autocast(kind, enabled=False):
        if before:
            matmul.allow_tf32 = False
        try:
            yield
        finally:
            if before:
                matmul.allow_tf32 = True


def upload(numbers: NDArray[Any], device: Any) -> Array:
    """Return numbers as a tensor on a device, for which nobody waits."""
    found = torch_of(device).from_numpy(np.ascontiguousarray(numbers))
    return found.to(device, non_blocking=True)


def to_numpy(array: Array) -> NDArray[Any]:
    """Return a NumPy array that holds the values of `array`, on the CPU."""
    if isinstance(array, np.ndarray):
        return array
    if "bfloat16" in str(array.dtype):  # which NumPy does not know, and float32 holds
        array = array.float()
    result: NDArray[Any] = array.detach().cpu().numpy()
    return result


def summable(array: Array) -> Array:
    """Return the values where they are summed, not copied if they are there in full precision.

    That is on their device; those on the CPU are seen by NumPy. Half precision is made single,
    which holds it: what is removed from it is not rounded to its digits.
    """
    if on_host(array):
        values = to_numpy(array)
        return values.astype(np.float32) if values.dtype == np.float16 else values
    return array.float() if array.dtype.itemsize == 2 else array


def dot_products(a: Array, b: Array) -> Array:
    """Return all dot products of the rows of two matrices, summed in double precision.

    Parameters
    ----------
    a, b
        Shapes (row, unit) and (other row, unit), float32 or float64, both NumPy or both torch.

    Returns
    -------
    array
        Shape (row, other row), float64, on the device of `a` if it is not the CPU. The error is
        below 2e-9 of the product of the two rows' lengths for up to 10 million units, whatever the
        processor; where :func:`has_doubles` is false, below 1e-6.

    Examples
    --------
    >>> dot_products(np.ones((1, 3), "float32"), np.eye(3, dtype="float32"))
    array([[1., 1., 1.]])
    """
    alone = a is b
    a = summable(a)
    b = a if alone else summable(b)
    if not isinstance(a, np.ndarray):
        return products_on_device(a, None if alone else b, [slice(None)] if alone else [])[-1]
    if a.dtype == np.float64 == b.dtype:
        return np.asarray(a @ b.T)  # nothing to convert
    total: Any = None
    for chosen in _stretches(a, len(a) + (0 if alone else len(b))):
        ours = _double(a[:, chosen])
        product = ours @ (ours if alone else _double(b[:, chosen])).T
        total = product if total is None else total + product
    return np.zeros((len(a), len(b))) if total is None else total


def products_on_device(rows: Array, others: Array | None, pieces: Sequence[slice]) -> list[Array]:
    """Return products of `rows` with each other, and of all with `others`, on their device.

    For each of `pieces`, which say what is multiplied with each other, (row, row), then, where
    there are others, (row, other row); float64. The rows are converted once for all of them.
    """
    torch = torch_of(rows)
    doubles = has_doubles(rows) or rows.dtype == torch.float64
    kind = torch.float64 if doubles else torch.float32
    sizes = [len(rows[piece]) for piece in pieces]
    totals = [rows.new_zeros((n, n), dtype=torch.float64) for n in sizes]
    if others is not None:
        totals.append(rows.new_zeros((len(rows), len(others)), dtype=torch.float64))
    with in_full(rows):
        for chosen in _stretches(rows, len(rows) + (0 if others is None else len(others))):
            ours = rows[:, chosen].to(kind)
            for total, piece in zip(totals, pieces, strict=False):
                total += _in_parts(ours[piece], ours[piece], doubles=doubles)
            if others is not None:
                totals[-1] += _in_parts(ours, others[:, chosen].to(kind), doubles=doubles)
    return totals


def _in_parts(a: Array, b: Array, *, doubles: bool) -> Array:
    """Return dot products of rows, those of many parts of their units at a time, float64."""
    torch, units, long = torch_of(a), a.shape[1], LONG if doubles else SHORT
    parts = units // long
    whole = parts * long
    left, right = (each[:, :whole].reshape(len(each), parts, long) for each in (a, b))
    found = torch.bmm(left.transpose(0, 1), right.permute(1, 2, 0)).sum(0, dtype=torch.float64)
    if whole < units:
        found += (a[:, whole:] @ b[:, whole:].T).double()
    return found


def squared_norms(a: Array) -> Array:
    """Return the squared Euclidean norm of each row, float64, shape (row,).

    The relative error is below 2e-9 for up to 10 million units; on a device whose double precision
    is slow, below 1e-6. Tensors of a device stay there.
    """
    a = summable(a)
    if isinstance(a, np.ndarray):
        return np.asarray(np.einsum("ij,ij->i", a, a, dtype=np.float64))
    if has_doubles(a):
        squares = [a.new_zeros(len(a)).double()]
        squares += [_double(a[:, chosen]).square().sum(1) for chosen in _stretches(a, len(a))]
        return sum(squares)
    torch, whole = torch_of(a), a.shape[1] // SHORT * SHORT
    lengths = torch.linalg.vector_norm(a[:, :whole].reshape(len(a), -1, SHORT), dim=2)
    rest = torch.linalg.vector_norm(a[:, whole:], dim=1)
    return lengths.double().square().sum(1) + rest.double().square()


def sums(values: Array, axes: tuple[int, ...]) -> Array:
    """Return sums over some axes, float64; tensors of a device stay there.

    The error is below 2e-9 of the sum of absolute values for up to 10 million of them.
    """
    values = summable(values)
    if isinstance(values, np.ndarray):
        return values.sum(axis=axes, dtype=np.float64)
    return values.double().sum(axes)


def means(a: Array) -> Array:
    """Return the mean over units of each row, float64, shape (row,)."""
    return sums(a, (1,)) / a.shape[1]


def average(values: Array, axes: tuple[int, ...]) -> Array:
    """Return means over some axes, of the kind, precision and device of `values`."""
    total = sums(values, axes)
    return like(total / (math.prod(values.shape) / math.prod(total.shape)), values)


def like(result: Array, values: Array) -> Array:
    """Return a result of the kind, in the precision and on the device of `values`."""
    if isinstance(values, np.ndarray):
        return result.astype(values.dtype, copy=False)
    return values.new_tensor(result) if isinstance(result, np.ndarray) else result.to(values.dtype)


def _less(values: Array, removed: Array) -> Array:
    """Return rows less what may be in double precision: subtracted in that, and rounded once."""
    if isinstance(values, np.ndarray):
        return np.subtract(values, removed, out=np.empty_like(values), casting="same_kind")
    if isinstance(removed, np.ndarray):
        removed = values.new_zeros(0).double().new_tensor(removed)
    return values.new_empty(values.shape).copy_(values - removed)


def _stretches(a: Array, rows: int) -> Iterator[slice]:
    """Yield the units of a matrix in stretches of which `rows` rows are converted at a time."""
    step = max((HELD if isinstance(a, np.ndarray) else HELD_ON_DEVICE) // max(rows, 1), LEAST)
    if not isinstance(a, np.ndarray):
        step = math.ceil(step / LONG) * LONG
    for start in range(0, a.shape[1], step):
        yield slice(start, start + step)


def _double(values: Array) -> Array:
    """Return values in double precision, those that are already as they are."""
    if isinstance(values, np.ndarray):
        return values.astype(np.float64, copy=False)
    return values.double()


Groups = Sequence[NDArray[np.int64]]
"""Numbers of rows, in several groups."""

Pairs = tuple[NDArray[np.int64], Array]
"""Numbers of rows, and their products with each other (row, row)."""


def compare_one_by_one(vectors: Any, others: Any, groups: Groups) -> tuple[Array, list[Pairs]]:
    """Return products of all vectors with others, and of those of each group with each other."""
    found, pairs = vectors.dots(others), []
    for rows in groups:
        some = vectors.take(rows.tolist())
        pairs.append((rows, some.dots(some)))
    return found, pairs


def _pieces(n: int, groups: Groups) -> list[slice]:
    """Return stretches of rows, about :data:`TOGETHER` each, that hold all groups; in order.

    No group, no stretch. Where groups do not follow each other, there is one.
    """
    if not groups:
        return []
    pieces, start = [], 0
    for before, after in itertools.pairwise(groups):
        if int(before.max()) > int(after.min()):
            return [slice(0, n)]
        if int(after.max()) >= start + TOGETHER:
            pieces.append(slice(start, int(after.min())))
            start = int(after.min())
    return [*pieces, slice(start, n)]


class DenseVectors:
    """Rows of a matrix (row, unit) as :class:`elsewhere.protocols.Vectors`.

    It is not copied, but where it is in half precision.
    """

    def __init__(self, values: Array) -> None:
        self.values = summable(values)
        self._squares: Array | None = None

    def __len__(self) -> int:
        return int(self.values.shape[0])

    @property
    def negligible(self) -> float:
        """The share of a vector's length below which what is left of it is rounding."""
        return negligible(self.values)

    def norms(self) -> Array:
        """Euclidean norms, shape (row,)."""
        squares = squared_norms(self.values) if self._squares is None else self._squares
        return np.sqrt(squares) if isinstance(squares, np.ndarray) else squares.sqrt()

    def dots(self, other: DenseVectors) -> Array:
        """Dot products with the rows of `other`, shape (row, row of other)."""
        return dot_products(self.values, other.values)

    def compare(self, others: DenseVectors, groups: Groups) -> tuple[Array, list[Pairs]]:
        """Return products with the rows of `others`, and within groups of rows.

        On a device they are taken together, and what they say of norms is kept.
        """
        if isinstance(self.values, np.ndarray):
            return compare_one_by_one(self, others, groups)
        pieces = _pieces(len(self), groups)
        *grams, found = products_on_device(self.values, others.values, pieces)
        if sum(map(len, grams)) == len(self):
            torch = torch_of(self.values)
            self._squares = torch.cat([gram.diagonal() for gram in grams])
        rows = np.arange(len(self))
        return found, [(rows[piece], gram) for piece, gram in zip(pieces, grams, strict=True)]

    def minus(self, other: DenseVectors) -> DenseVectors:
        """Return these rows less the single row of `other`."""
        return DenseVectors(_less(self.values, other.values))

    def centred(self) -> DenseVectors:
        """Return these rows, each less its own mean over units."""
        return DenseVectors(_less(self.values, means(self.values)[:, None]))

    def zeros(self, rows: int) -> DenseVectors:
        """Return `rows` zero vectors of the same length."""
        shape = (rows, self.values.shape[1])
        if isinstance(self.values, np.ndarray):
            return DenseVectors(np.zeros(shape, self.values.dtype))
        return DenseVectors(self.values.new_zeros(shape))

    def assign(self, row: int, other: DenseVectors) -> None:
        """Write the rows of `other` into the rows from `row` on."""
        self.values[row : row + len(other)] = other.values

    def take(self, rows: Sequence[int]) -> DenseVectors:
        """Return some of the rows; a contiguous stretch is not copied."""
        first, n = rows[0], len(rows)
        if list(rows) == list(range(first, first + n)):
            return type(self)(self.values[first : first + n])
        chosen: Any = list(rows)
        if not isinstance(self.values, np.ndarray):
            chosen = upload(np.array(chosen), self.values.device)
        return type(self)(self.values[chosen])
