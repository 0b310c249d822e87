"""Factors of codes, from which the page forms cosines with whatever reference is chosen.

The rounding of the page's 16 bits is in the errors that are stated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elsewhere.analyzer.factors import (
    MOST_BYTES,
    NAME,
    NEAR,
    Floats,
    best_factor,
    errors_of_cosines,
    errors_of_g,
    unit_length,
)
from elsewhere.forms import label, layer_labels
from elsewhere.report.material import Item
from elsewhere.report.packing import Packed, pack, unpack
from elsewhere.storage import Recording

RANKS = (8, 16, 32, 64, 96)


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
    return unit_length(values.reshape(n_objects, recording.design.n_positions, -1))


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
    whole = best_factor(codes, RANKS[-1])
    flat = codes.reshape(-1, codes.shape[-1])
    most = whole.shape[-1]
    for rank in (*(each for each in RANKS if each < most), most):
        packed = pack(whole[..., :rank])
        near = unpack(packed)
        error, rms = errors_of_cosines(flat, near.reshape(len(flat), rank))
        if error <= NEAR:
            break
    largest, in_doubt = errors_of_g(codes, near, categories)
    zeros = int((~codes.any(axis=-1)).sum())
    return Factor(layer, packed, error, rms, largest, in_doubt, zeros)


def kept_rows(item: Any, checkpoint: int, layer: int) -> NDArray[np.float64]:
    """Return a factor that a track keeps, (object, place, rank)."""
    at = {f"{NAME}_checkpoint": checkpoint, "layer": layer}
    rows = item[NAME].isel(at).transpose("object", "y", "x", "rank").values.astype(np.float64)
    rows = rows.reshape(len(rows), -1, rows.shape[-1])
    found: NDArray[np.float64] = rows[..., : max(1, int(rows.any(axis=(0, 1)).sum()))]
    return found


def kept_factors(item: Item, categories: NDArray[np.int64]) -> Iterator[Factor]:
    """Yield the factors that a track keeps, of each layer at one checkpoint after the other.

    Errors are those that the track states, and what 16 bits add to them.
    """
    result = item.result
    if NAME not in result or not {"y", "x"} <= set(result[NAME].dims):
        return
    names = layer_labels(result)
    known = np.isfinite(result[f"{NAME}_error"].transpose(..., "layer").values).all(axis=0)
    for checkpoint in range(result.sizes[f"{NAME}_checkpoint"]):
        for layer, name in enumerate(names):
            if not known[layer]:  # its codes were too many
                continue
            rows = kept_rows(result, checkpoint, layer)
            packed = pack(rows)
            near = unpack(packed)
            flat = rows.reshape(-1, rows.shape[-1]).astype(np.float32)
            error, rms = errors_of_cosines(flat, near.reshape(flat.shape))
            of_g, in_doubt = errors_of_g(rows, near, categories)
            at = {f"{NAME}_checkpoint": checkpoint, "layer": layer}
            said = {
                key: float(result[f"{NAME}_{key}"].isel(at))
                for key in ("error", "rms_error", "error_of_G", "in_doubt", "n_zero")
            }
            yield Factor(
                name, packed, said["error"] + error, said["rms_error"] + rms,
                said["error_of_G"] + of_g, int(said["in_doubt"]) + in_doubt, int(said["n_zero"]),
            )  # fmt: skip


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
