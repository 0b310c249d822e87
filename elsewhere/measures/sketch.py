"""Sketches: short random projections that preserve dot products.

A count sketch (Charikar, Chen & Farach-Colton 2002; Weinberger et al. 2009) with balanced
buckets: every unit gets a random sign and one of K buckets, and each bucket holds the signed sum
of its units. The dot product of two sketches is an unbiased estimate of the dot product of the
vectors, with a variance of at most ``(|a|² |b|² + (a·b)²) / K``: the standard error of a cosine
is at most ``sqrt((1 + cos²) / K)``, about ``1 / sqrt(K)``.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elsewhere.errors import InputError
from elsewhere.measures.vectors import like, on_host, summable, sums, upload
from elsewhere.protocols import Array


@lru_cache(maxsize=64)
def _assignment(units: int, size: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    rng = np.random.default_rng((seed, units, size))
    order = rng.permutation(units)
    signs = rng.integers(0, 2, units, dtype=np.int8).astype(np.float32) * 2 - 1
    return order, signs


@lru_cache(maxsize=8)
def _uploaded(device: Any, units: int, size: int, seed: int) -> tuple[Array, Array]:
    """Return the same on a device, where it stays: it is large, and wanted of every block."""
    order, signs = _assignment(units, size, seed)
    return upload(order, device), upload(signs, device)


def sketch(values: Array, size: int, *, seed: int) -> Array:
    """Return the sketches of the rows of a matrix.

    Parameters
    ----------
    values
        Shape (row, unit), float32, NumPy or torch.
    size
        K, the number of buckets; at most the number of units.
    seed
        Decides signs and buckets, together with the number of units and K.

    Returns
    -------
    array
        Shape (row, size), of the kind and on the device of `values`; the sums are taken in double
        precision and rounded once.

    Examples
    --------
    >>> a = np.random.default_rng(0).normal(size=(1, 10_000)).astype("float32")
    >>> short = sketch(a, 1_000, seed=1)
    >>> bool(abs((short**2).sum() / (a**2).sum() - 1) < 0.2)
    True
    """
    rows, units = values.shape
    if not 1 <= size <= units:
        raise InputError(
            f"a sketch of {size} numbers of a layer of {units} units; expected 1 to {units}; "
            "keep the layer in full instead"
        )
    assignment = units, size, seed
    if on_host(values):
        order, signs = _assignment(*assignment)
        if not isinstance(values, np.ndarray):
            order, signs = values.new_tensor(order, dtype=_long(values)), values.new_tensor(signs)
    else:
        order, signs = _uploaded(values.device, *assignment)
    mixed = values[:, order] * signs
    whole = units // size * size
    buckets = sums(mixed[:, :whole].reshape(rows, -1, size), (1,))
    buckets[:, : units - whole] += summable(mixed[:, whole:])
    return like(buckets, values)


def _long(tensor: Array) -> Array:
    """Return torch's int64 without importing torch here."""
    return tensor.new_zeros(0).long().dtype


def cosine_error(size: int) -> float:
    """Return the largest standard error of a cosine from sketches of `size` numbers."""
    return math.sqrt(2 / size)
