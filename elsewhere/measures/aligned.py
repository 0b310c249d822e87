"""Does the map move with the object? Aligned cosines of evoked feature maps.

An equivariant map answers a move of the object by the same pattern, moved by as many cells. So
the pattern around the object here is compared with that around it at the reference, cell by cell
after the shift; what the empty canvas evokes is removed first, else the background decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.errors import InputError, LayerError, UnknownNameError
from elsewhere.measures.catalogue import MakeSinks, Measure, entry, measures
from elsewhere.measures.landing import Rows
from elsewhere.measures.maps import MapSink, MapState, Window, plane_of
from elsewhere.measures.similarity import contrast, n_cross_pairs, summarise_similarity
from elsewhere.measures.similarity_sink import SimilaritySink
from elsewhere.measures.tables import Variables, scalar
from elsewhere.protocols import Array, Design, Layer, Source

Shift = Literal["exact", "nearest", "linear"]
SHIFTS: tuple[str, ...] = get_args(Shift)
MINIMAL_CELLS = 4
"""With fewer cells in common an aligned cosine is undefined (NaN)."""


@dataclass(frozen=True)
class _Geometry:
    """Cells of a map, px between their centres, and the centre of cell 0's receptive field, px."""

    height: int
    width: int
    stride: float
    offset: float

    def window(self, reference: Sequence[int], size: int) -> tuple[slice, slice]:
        """Return the cells whose centres lie in the object's box, widened by one cell."""
        spans = []
        for coordinate, cells in zip(reference, (self.height, self.width), strict=True):
            top = coordinate - size // 2
            first = math.ceil((top - self.offset) / self.stride) - 1
            last = math.floor((top + size - 1 - self.offset) / self.stride) + 1
            spans.append(slice(max(0, first), min(cells, last + 1)))
        return spans[0], spans[1]


class AlignedSink(MapSink):
    """Accumulates cosines of maps that are moved back by the object's displacement.

    `object_size` is px. With `shift` ``exact`` only displacements that are whole numbers of cells
    count; ``nearest`` are rounded, the residual reported; ``linear`` interpolated between cells. A
    sink of the plain evoked cosines `beside` gets the same blocks: their G goes beside.
    """

    most_parts = 1
    """Sweeps into which a layer may be cut."""
    n_sums = 3

    def __init__(
        self,
        *,
        object_size: int,
        layers: Sequence[str] | None = None,
        shift: Shift = "exact",
        beside: SimilaritySink | None = None,
    ) -> None:
        super().__init__(layers)
        if shift not in SHIFTS:
            raise UnknownNameError("shift", shift, SHIFTS)
        self.object_size, self.shift, self._beside = object_size, shift, beside
        self._cells: dict[str, NDArray[np.int64]] = {}
        self._residuals: dict[str, NDArray[np.float64]] = {}

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        """Return the share of the maps around the objects, and the empty canvas's map."""
        geometry = _geometry_of(layer)
        rows, columns = geometry.window(design.reference_location, self.object_size)
        n_cells = (rows.stop - rows.start) * (columns.stop - columns.start)
        share: float = n_cells / (geometry.height * geometry.width)
        return 1 + share * len(design.objects)

    def begin(self, design: Design, layers: Sequence[Layer], part: int = 0, parts: int = 1) -> None:
        """Prepare for a group of layers."""
        super().begin(design, layers, part, parts)
        self._codes = design.category_codes
        for layer in layers:
            self._states[layer.name].sums[:2] = np.nan
            self._cells[layer.name] = np.zeros(design.n_positions, dtype=np.int64)
            self._residuals[layer.name] = np.zeros(design.n_positions)

    def window(self, layer: Layer) -> Window:
        """Return the cells around the objects at the reference."""
        return _geometry_of(layer).window(self.design.reference_location, self.object_size)

    def compare(self, state: MapState, block: Rows, values: Array) -> None:
        """Compare all rows, position by position, with the references."""
        for position in dict.fromkeys(block.positions.tolist()):
            rows = np.flatnonzero(block.positions == position)
            self._compare(state, block, values, rows, position)

    def _compare(
        self, state: MapState, block: Rows, values: Array, rows: NDArray[np.int64], position: int
    ) -> None:
        name, geometry = block.layer, _geometry_of(state.layer)
        place, home = self.design.locations[position], self.design.reference_location
        exact = (place - np.array(home)) / geometry.stride
        whole = np.floor(exact + 0.5).astype(int) if self.shift != "linear" else np.floor(exact)
        whole = whole.astype(int)
        self._residuals[name][position] = float(np.abs(exact - np.floor(exact + 0.5)).max())
        if self.shift == "exact" and not np.allclose(exact, whole):
            return
        fraction = exact - whole if self.shift == "linear" else np.zeros(2)
        found = _overlap(geometry, home, self.object_size, whole, fraction)
        if found is None:
            return
        reference_part, here_part = found
        cells = (here_part[0].stop - here_part[0].start) * (here_part[1].stop - here_part[1].start)
        self._cells[name][position] = cells
        if cells < MINIMAL_CELLS:
            return
        wide = tuple(
            slice(part.start, part.stop + int(rest > 0))
            for part, rest in zip(here_part, fraction, strict=True)
        )
        objects = block.objects[rows]
        moved = [
            _interpolate(self.evoked(state, number, values[row], (wide[0], wide[1])), fraction)
            for row, number in zip(rows.tolist(), objects.tolist(), strict=True)
        ]
        here = _unit(np.stack(moved).reshape(len(rows), -1))
        n = len(self.design.objects)
        there = _unit(
            np.stack(
                [state.references[o][:, reference_part[0], reference_part[1]] for o in range(n)]
            ).reshape(n, -1)
        )
        own, ours, theirs = state.sums
        cosines = here @ there.T
        own[objects, position] = cosines[np.arange(len(rows)), objects]
        cosines = cosines * (self._codes[objects][:, None] != self._codes[None, :])
        ours[objects, position] = cosines.sum(axis=1)
        theirs[:, position] += cosines.sum(axis=0)

    def read(self, state: MapState) -> Variables:
        """Return aligned cosines, their baseline and G, cells in common and residuals."""
        own, rows, columns = state.sums
        undefined = np.isnan(own).any(axis=0)
        rows[:, undefined] = columns[:, undefined] = np.nan
        summary = summarise_similarity(
            own=own,
            rows=rows,
            columns=columns,
            same=np.full_like(own, np.nan),
            codes=self._codes,
            reference_index=self.design.reference_index,
        )
        return {
            "map_stride": scalar(float(_geometry_of(state.layer).stride)),
            "cells": (("position",), self._cells[state.layer.name]),
            "residual": (("position",), self._residuals[state.layer.name]),
            "aligned_each": (("object", "position"), own),
            **{
                f"aligned{key}": each
                for key, each in summary.items()
                if not key.startswith(("_baseline_same", "_over_place"))
            },
        }

    def found(self) -> dict[str, Variables]:
        """Return the variables of all layers, with plain ones of every layer beside them."""
        if self._beside is None:
            return self.variables
        names = ("G_away", "G_away_interval", "G_away_without", "away", "away_interval")
        return {
            layer: self.variables.get(layer, {})
            | {f"plain_{name}": plain[f"evoked_{name}"] for name in names}
            for layer, plain in self._beside.found().items()
        }

    def doubts(self, result: xarray.Dataset, design: Design) -> list[str]:
        """Return which maps have no aligned cosine."""
        reasons: dict[str, list[str]] = {}
        strides: dict[str, int] = {}
        for place, name in enumerate(result["layer"].values.tolist()):
            one = result.isel(layer=place)
            if np.isnan(one["aligned_G_away"]) and not np.isnan(one["map_stride"]):
                why = self._why_none(one, design)
                reasons.setdefault(why, []).append(name)
                strides[why] = math.lcm(strides.get(why, 1), int(one["map_stride"]))
        return [
            *([] if self._beside is None else self._beside.notes),
            *(
                f"aligned: {', '.join(names)}: NaN, for {why.format(stride=strides[why])}"
                for why, names in reasons.items()
            ),
        ]

    def _why_none(self, result: xarray.Dataset, design: Design) -> str:
        """Return why a layer has no aligned G away from the reference."""
        away = np.arange(design.n_positions) != design.reference_index
        if not n_cross_pairs(design.category_codes):
            return "all objects are of one category"
        if not away.any():
            return "there is one location only"
        if (result["cells"].values.ravel()[away] >= MINIMAL_CELLS).any():
            return "different objects look alike on these maps, or do not change them"
        if self.shift == "exact" and result["residual"].values.ravel()[away].min() > 0:
            return (
                "no location is a whole number of their cells away from the reference; take "
                "--grid stride:{stride}"
            )
        return (
            f"maps here and at the reference have fewer than {MINIMAL_CELLS} cells in common "
            "around the object; take larger objects, or earlier layers"
        )


def _geometry_of(layer: Layer) -> _Geometry:
    if not layer.is_map or layer.stride is None or layer.offset is None:
        raise LayerError(f"layer {layer.name!r} is no feature map with a place on the canvas")
    return _Geometry(*plane_of(layer), float(layer.stride), float(layer.offset))


def _overlap(
    geometry: _Geometry,
    reference: Sequence[int],
    size: int,
    whole: NDArray[Any],
    fraction: NDArray[Any],
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Return the cells in common: within the reference's window, and on the map here."""
    inner, outer = [], []
    spans = geometry.window(reference, size)
    limits = (geometry.height, geometry.width)
    for span, shift, rest, limit in zip(spans, whole.tolist(), fraction, limits, strict=True):
        last = limit - 1 - int(rest > 0)
        first_here = max(span.start + int(shift), 0)
        last_here = min(span.stop - 1 + int(shift), last)
        if last_here < first_here:
            return None
        start = first_here - int(shift) - span.start
        count = last_here - first_here + 1
        inner.append(slice(start, start + count))
        outer.append(slice(first_here, first_here + count))
    return (inner[0], inner[1]), (outer[0], outer[1])


def _interpolate(values: NDArray[np.float32], fraction: NDArray[Any]) -> NDArray[np.float32]:
    """Return a map (channel, y, x) between its cells, linearly; one cell shorter where needed."""
    for axis, rest in enumerate(fraction.tolist(), start=1):
        if rest > 0:
            head = values.take(range(values.shape[axis] - 1), axis)
            tail = values.take(range(1, values.shape[axis]), axis)
            values = head * np.float32(1 - rest) + tail * np.float32(rest)
    return values


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return rows of length one in double precision; zero rows stay zero."""
    exact = rows.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    unit: NDArray[np.float64] = exact / np.where(norms > 0, norms, 1.0)
    return unit


def size_of(source: Source, object_size: int | None = None) -> int:
    """Return the objects' size, px, as given or as the source says; else InputError."""
    size = int(source.provenance.get("object_size", 0) if object_size is None else object_size)
    if size < 1:
        raise InputError("the source does not say the objects' size; give object_size in px")
    return size


def _sinks(source: Source, object_size: int | None) -> MakeSinks:
    size = size_of(source, object_size)

    def make(layers: Sequence[str]) -> tuple[AlignedSink, SimilaritySink]:
        plain = SimilaritySink(metric="evoked", layers=layers)
        return AlignedSink(object_size=size, layers=layers, beside=plain), plain

    return make


measures.add(
    "aligned",
    Measure(
        contrast,
        "cosine of a(p) - a(empty), moved back by (p - r)/J cells, with a(r) - a(empty), over the "
        "cells around the object",
        ("lenc2015",),
        literature={
            "lenc2015": entry(
                "inproceedings",
                author="Lenc, Karel and Vedaldi, Andrea",
                title="Understanding Image Representations by Measuring Their Equivariance and "
                "Equivalence",
                booktitle="IEEE Conference on Computer Vision and Pattern Recognition",
                pages="991--999",
                year="2015",
            ),
        },
        sinks=_sinks,
        against=("all", "reference"),
        headline="aligned_G_away",
        range="up to 1",
        direction="higher: more equivariant and selective",
        chance="0",
        question="Does the feature map move with the object?",
        can="It tells a map that moves with the object from one that changes.",
        cannot="It cannot be had of layers without a map, nor where no move is a whole number of "
        "strides.",
        least=2,
        maps=True,
    ),
    summary="cosine of maps moved back with the object, G, and plain G beside it",
)
