"""Any place as the reference: a low-rank factor of the cosines between all codes of a layer.

Codes are brought to length one and stacked, a row for each object and place. Their best factor of a
low rank (Eckart & Young 1936) has inner products that are near the cosines. How near is computed
from all pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd

from elsewhere.measures.blocks import check_finite, rows_needed, rows_of
from elsewhere.measures.similarity import contrast
from elsewhere.measures.sinks import LayerSink
from elsewhere.measures.vectors import to_numpy
from elsewhere.protocols import Block, Design, Layer, Need, Source

Floats = NDArray[np.float32]

NEAR = 0.005
"""The smallest rank is taken by which no cosine is farther off than this, or the largest."""
MOST_BYTES = 2**30
"""Codes of a layer that take more, as float32, are left out."""
RANK = 32
"""Of the factors that a track keeps, at most."""
NAME = "code_factor"
"""What they are called in a result; errors and counts follow it."""


def unit_length(rows: NDArray[np.floating]) -> Floats:
    """Return codes, (object, place, unit), at length one; zero vectors stay zero."""
    lengths = np.sqrt(np.einsum("opu,opu->op", rows, rows, dtype=np.float64))
    inverse = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    codes: Floats = (rows * inverse[..., None]).astype(np.float32)
    return codes


def best_factor(codes: Floats, most: int) -> Floats:
    """Return the best factor of unit codes, (object, place, unit), of `most` columns or fewer.

    Its first columns are the best factor of so many columns.
    """
    n_objects, n_places, n_units = codes.shape
    rows = codes.reshape(-1, n_units)
    rank = min(*rows.shape, most)
    left, sizes, _ = randomized_svd(rows, n_components=rank, n_iter=4, random_state=0)
    found: Floats = (left * sizes).reshape(n_objects, n_places, rank).astype(np.float32)
    return found


def errors_of_cosines(rows: Floats, near: NDArray[np.float64]) -> tuple[float, float]:
    """Return the largest and the root mean square error of all inner products, rows by rows."""
    largest = squares = 0.0
    for first in range(0, len(rows), 512):
        some = slice(first, first + 512)
        off = np.abs(rows[some] @ rows.T - (near[some] @ near.T).astype(np.float32))
        largest = max(largest, float(off.max()))
        squares += float(np.square(off, dtype=np.float64).sum())
    return largest, (squares / len(rows) ** 2) ** 0.5


def g_of_all(codes: NDArray[np.float64], categories: NDArray[np.int64]) -> NDArray[np.float64]:
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


def errors_of_g(
    codes: NDArray[np.floating], near: NDArray[np.floating], categories: NDArray[np.int64]
) -> tuple[float, int]:
    """Return the largest error of G over all pairs of places, and at how many one is undefined."""
    g, other = (g_of_all(each.astype(np.float64), categories) for each in (codes, near))
    both = np.isfinite(g) & np.isfinite(other)
    largest = float(np.abs(g - other)[both].max()) if both.any() else float("nan")
    return largest, int((np.isfinite(g) != np.isfinite(other)).sum())


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


class FactorSink(LayerSink):
    """Keeps of every layer a factor of its codes, with its errors, as variables of a track.

    A layer whose codes take more than a part of `max_memory`, or than `MOST_BYTES`, or are not kept
    whole, has none, and a note says so. Columns beyond a layer's own rank are zero.
    """

    def __init__(
        self, design: Design, layers: Sequence[str] | None = None, *, max_memory: int = 2**31
    ) -> None:
        super().__init__(layers)
        self._rows = len(design.objects) * design.n_positions
        self._most = min(MOST_BYTES, max_memory // 6)

    def needed(self, layer: Layer) -> tuple[Need, ...]:
        """Return the activations over the grid."""
        if layer.keep.kind == "sketch" or self._rows * layer.bytes > self._most:
            said = f"{layer.name} has no reference of choice: its codes are too many, or sketches"
            if said not in self.notes:
                self.notes.append(said)
            return ()
        return (rows_needed(layer, {"grid"}),)

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        """Return one activation for each object and place, and the factor's work on them."""
        return 3.0 * self._rows

    def begin(self, design: Design, layers: Sequence[Layer], part: int = 0, parts: int = 1) -> None:
        """Make room."""
        super().begin(design, layers, part, parts)
        shape = (len(design.objects), design.n_positions)
        if part == 0:
            self._codes = {each.name: np.empty((*shape, each.n_units), "f4") for each in layers}

    def add(self, block: Block) -> None:
        """Take a block."""
        rows = to_numpy(rows_of(block))
        check_finite(self.design, block, rows)
        self._codes[block.layer][block.objects, block.positions] = rows

    def end(self) -> None:
        """Form the factors of the layers of a group."""
        if self._part < self._parts - 1:
            return
        categories = self.design.category_codes
        for name, rows in self._codes.items():
            codes = unit_length(rows)
            found = best_factor(codes, RANK).astype(np.float16)
            near = found.astype(np.float64)
            flat = codes.reshape(self._rows, -1), near.reshape(self._rows, -1)
            of_g, in_doubt = errors_of_g(codes, near, categories)
            numbers = dict(
                zip(("error", "rms_error"), errors_of_cosines(*flat), strict=True),
                error_of_G=of_g,
                in_doubt=in_doubt,
                n_zero=int((~codes.any(axis=-1)).sum()),
            )
            padded = np.zeros((*found.shape[:2], RANK), np.float16)
            padded[..., : found.shape[-1]] = found
            self.variables[name] = {
                NAME: (("object", "position", "rank"), padded),
                **{f"{NAME}_{key}": ((), np.asarray(value)) for key, value in numbers.items()},
            }
        self._codes = {}


def factors_of(sweep: Source, *, max_memory: int) -> xarray.Dataset:
    """Return the factors of the layers of a sweep, with notes of those that have none."""
    sink = FactorSink(sweep.design, max_memory=max_memory)
    sweep.stream([sink], max_memory=max_memory)
    if not sink.variables:
        return xarray.Dataset(attrs={"notes": sink.notes})
    return sink.result([layer.name for layer in sweep.layers]).drop_vars("category")


def apart(
    found: Sequence[xarray.Dataset],
) -> tuple[list[xarray.Dataset], xarray.Dataset | None]:
    """Return results of checkpoints without factors, and the factors of those that have them.

    These are over ``code_factor_checkpoint``, which numbers the checkpoints.
    """
    held = {
        number: result[names]
        for number, result in enumerate(found)
        if (names := [name for name in result.data_vars if str(name).startswith(NAME)])
    }
    without = [
        result.drop_vars([*held.get(number, ()), "rank"], errors="ignore")
        for number, result in enumerate(found)
    ]
    if not held:
        return without, None
    over = f"{NAME}_checkpoint"
    joined = xarray.concat(list(held.values()), dim=over, join="exact", combine_attrs="drop")
    return without, joined.assign_coords({over: list(held)})
