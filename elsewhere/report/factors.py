"""Any place as the reference: a low-rank factor of the cosines between all codes of a layer.

Codes are brought to length one and stacked, a row for each object and place. Their best factor of a
low rank (Eckart & Young 1936) has inner products that are near the cosines; the page forms these
itself, for whatever reference is chosen. How near is computed from all pairs, with the
rounding of the page's 16 bits in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd

from elsewhere.forms import label
from elsewhere.measures.similarity import contrast
from elsewhere.report.packing import Packed, pack, unpack
from elsewhere.storage import Recording

Floats = NDArray[np.float32]

RANKS = (8, 16, 32, 64, 96)
NEAR = 0.005
"""The smallest rank is taken by which no cosine is farther off than this, or the largest."""
MOST_BYTES = 2**30
"""Codes of a layer that take more, as float32, are left out."""


@dataclass(frozen=True)
class Factor:
    """A layer's factor.

    Parameters
    ----------
    layer
        What the layer is called.
    packed
        Shape (object, place, rank).
    error, rms
        Of its cosines, over all pairs of codes: the largest, and the root of the mean square.
    error_of_g
        The largest error of G, over all pairs of places; NaN where G is nowhere defined.
    in_doubt
        For how many pairs of places G is defined by the codes or by the factor, but not by both.
    zeros
        How many codes are zero vectors, whose cosines are 0.
    """

    layer: str
    packed: Packed
    error: float
    rms: float
    error_of_g: float
    in_doubt: int
    zeros: int

    @property
    def note(self) -> str:
        """What a reader has to know of it: rank and errors, which are rounded up."""
        cosine, mean, g = (_upwards(each) for each in (self.error, self.rms, self.error_of_g))
        text = (
            f"{self.layer}: cosines are formed from a factor of rank {self.packed.shape[-1]}; "
            f"the largest error of a cosine is {cosine} (root mean square {mean}), of G {g}"
        )
        if self.in_doubt:
            text += f"; at {self.in_doubt} pairs of places G is undefined here only, or there only"
        if self.zeros:
            n_codes = self.packed.shape[0] * self.packed.shape[1]
            text += f"; {self.zeros} of {n_codes} codes are zero vectors, whose cosines are 0"
        return text


def factors_of(recording: Recording, notes: list[str]) -> Iterator[Factor]:
    """Yield the factors of a recording's layers; `notes` gets a sentence on each that has none."""
    design = recording.design
    n_rows = len(design.objects) * design.n_positions
    for layer in recording.layers:
        name = label(layer.name, layer.form)
        if layer.keep.kind == "sketch":
            notes.append(f"{name} was kept as sketches, and has no reference of choice")
            continue
        if n_rows * layer.bytes > MOST_BYTES:
            notes.append(f"{name} is too large for a reference of choice")
            continue
        codes = unit_codes(recording, layer.name)
        if not np.isfinite(codes).all():
            notes.append(f"{name} has codes that are not finite, and no reference of choice")
            continue
        yield factor(codes, design.category_codes, name)


def unit_codes(recording: Recording, name: str) -> Floats:
    """Return a layer's codes at length one, (object, place, unit); zero vectors stay zero."""
    values = np.asarray(recording[name].values, dtype=np.float32)
    n_objects = len(recording.design.objects)
    rows = values.reshape(n_objects, recording.design.n_positions, -1)
    lengths = np.sqrt(np.einsum("opu,opu->op", rows, rows, dtype=np.float64))
    inverse = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    codes: Floats = rows * inverse[..., None].astype(np.float32)
    return codes


def factor(codes: Floats, categories: NDArray[np.int64], layer: str = "") -> Factor:
    """Return the factor of unit codes, (object, place, unit).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> codes = rng.normal(size=(3, 4, 5)).astype(np.float32)
    >>> codes /= np.linalg.norm(codes, axis=-1, keepdims=True)
    >>> found = factor(codes, np.arange(3))
    >>> found.packed.shape, found.error < 1e-4
    ((3, 4, 5), True)
    """
    n_objects, n_places, n_units = codes.shape
    rows = codes.reshape(-1, n_units)
    most = min(*rows.shape, RANKS[-1])
    left, sizes, _ = randomized_svd(rows, n_components=most, n_iter=4, random_state=0)
    whole = left * sizes
    for rank in (*(each for each in RANKS if each < most), most):
        packed = pack(whole[:, :rank].reshape(n_objects, n_places, rank))
        near = unpack(packed)
        error, rms = _errors(rows, near.reshape(len(rows), rank))
        if error <= NEAR:
            break
    g, other = (_g(each, categories) for each in (codes.astype(np.float64), near))
    both = np.isfinite(g) & np.isfinite(other)
    largest = float(np.abs(g - other)[both].max()) if both.any() else float("nan")
    in_doubt = int((np.isfinite(g) != np.isfinite(other)).sum())
    zeros = int((~codes.any(axis=-1)).sum())
    return Factor(layer, packed, error, rms, largest, in_doubt, zeros)


def formed(
    codes: NDArray[Any], categories: NDArray[np.int64], reference: int
) -> dict[str, NDArray[np.float64]]:
    """Return what the page forms from codes, (object, place, unit): cosines and G, by name.

    Parameters
    ----------
    codes
        At length one, or their factor.
    categories
        Shape (object,).
    reference
        The place that all are compared with.

    Examples
    --------
    >>> codes = np.eye(2)[:, None].repeat(3, axis=1)  # two objects, each the same everywhere
    >>> formed(codes, np.arange(2), 0)["cosine_G"]
    array([nan,  1.,  1.])
    """
    codes = codes.astype(np.float64)
    pairs = np.einsum("opu,qu->opq", codes, codes[:, reference])
    others = categories[:, None] != categories
    each = np.einsum("opo->op", pairs)
    own = each.mean(axis=0)
    total = np.einsum("opq,oq->p", pairs, others.astype(np.float64))
    baseline = total / others.sum() if others.any() else np.full_like(own, np.nan)
    g = contrast(own, baseline)
    g[reference] = np.nan
    return {"cosine_each": each, "cosine": own, "cosine_baseline": baseline, "cosine_G": g}


def _upwards(value: float) -> str:
    """Return an error with one digit, rounded up.

    Examples
    --------
    >>> _upwards(0.00141), _upwards(0.002), _upwards(0.0)
    ('0.002', '0.002', '0')
    """
    if not math.isfinite(value) or value <= 0:
        return "undefined" if math.isnan(value) else f"{value:g}"
    step = 10.0 ** math.floor(math.log10(value))
    return f"{math.ceil(value / step - 1e-9) * step:.1g}"


def _errors(rows: Floats, near: NDArray[np.float64]) -> tuple[float, float]:
    """Return the largest and the root mean square error of all inner products."""
    largest = squares = 0.0
    for first in range(0, len(rows), 512):
        some = slice(first, first + 512)
        off = np.abs(rows[some] @ rows.T - (near[some] @ near.T).astype(np.float32))
        largest = max(largest, float(off.max()))
        squares += float(np.square(off, dtype=np.float64).sum())
    return largest, (squares / len(rows) ** 2) ** 0.5


def _g(codes: NDArray[np.float64], categories: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return G of each place with each as the reference, (place, reference), NaN at itself."""
    own = np.mean([each @ each.T for each in codes], axis=0)
    total = codes.sum(axis=0)
    same = np.zeros_like(own)
    for category in np.unique(categories):
        part = codes[categories == category].sum(axis=0)
        same += part @ part.T
    pairs = len(codes) ** 2 - int((np.bincount(categories) ** 2).sum())
    if not pairs:
        return np.full_like(own, np.nan)
    found = contrast(own, (total @ total.T - same) / pairs)
    np.fill_diagonal(found, np.nan)
    return found
