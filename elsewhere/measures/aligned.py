"""Does the map move with the object? Aligned cosines of evoked feature maps.

An equivariant map answers a move of the object by the same pattern, moved by as many cells. So
the pattern around the object here is compared with that around it at the reference, cell by cell
after the shift; what the empty canvas evokes is removed first, else the background decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.errors import InputError, LayerError, NumericsError, UnknownNameError
from elsewhere.measures.blocks import channels_first
from elsewhere.measures.catalogue import MakeSinks, Measure, entry, measures
from elsewhere.measures.similarity import SimilaritySummary, contrast, summarise_similarity
from elsewhere.measures.similarity_sink import SimilaritySink, fill_units, left_out_labels
from elsewhere.measures.vectors import negligible, to_numpy
from elsewhere.protocols import (
    Array,
    Block,
    Design,
    Layer,
    Need,
    Source,
)

Shift = Literal["exact", "nearest", "linear"]
SHIFTS: tuple[str, ...] = get_args(Shift)
MINIMAL_CELLS = 4
"""With fewer cells in common an aligned cosine is undefined (NaN)."""


@dataclass
class _MapState:
    """What is known of a layer while it streams by."""

    own: NDArray[np.float64]
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    cells: NDArray[np.int64]
    residual: NDArray[np.float64]
    empty: NDArray[np.floating] | None = None
    references: dict[int, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Geometry:
    """Where a layer's cells lie on the canvas, along both axes.

    Parameters
    ----------
    height, width
        Cells of the map.
    stride
        px between the centres of neighbouring cells.
    offset
        Centre of cell 0's receptive field, px.
    """

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


class AlignedSink:
    """Accumulates cosines of maps that are moved back by the object's displacement.

    Parameters
    ----------
    object_size
        Side of the objects, px.
    layers
        Names of feature maps; all that have a place on the canvas by default.
    shift
        ``exact``: only displacements that are whole numbers of cells; ``nearest``: rounded, the
        residual reported; ``linear``: interpolated between cells.
    beside
        A sink of the plain evoked cosines that gets the same blocks: their G goes beside.
    """

    most_parts = 1
    """Sweeps into which a layer may be cut."""

    def __init__(
        self,
        *,
        object_size: int,
        layers: Sequence[str] | None = None,
        shift: Shift = "exact",
        beside: SimilaritySink | None = None,
    ) -> None:
        if shift not in SHIFTS:
            raise UnknownNameError("shift", shift, SHIFTS)
        self.object_size, self.shift, self._beside = object_size, shift, beside
        self.notes: list[str] = []
        self._wanted = None if layers is None else set(layers)
        self._states: dict[str, _MapState] = {}
        self._geometry: dict[str, _Geometry] = {}
        self._layers: dict[str, Layer] = {}
        self._done: dict[str, tuple[_MapState, SimilaritySummary]] = {}

    def needs(self, layer: Layer) -> tuple[Need, ...]:
        """Return whole maps at every stage, of layers whose cells have a place."""
        if self._wanted is not None and layer.name not in self._wanted:
            return ()
        if not has_place(layer):
            return ()
        return (Need("full", frozenset({"empty", "reference", "grid"})),)

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        """Return the share of the maps around the objects, and the empty canvas's map."""
        geometry = _geometry_of(layer)
        rows, columns = geometry.window(design.reference_location, self.object_size)
        n_cells = (rows.stop - rows.start) * (columns.stop - columns.start)
        share: float = n_cells / (geometry.height * geometry.width)
        return 1 + share * len(design.objects)

    def begin(self, design: Design, layers: Sequence[Layer], part: int = 0, parts: int = 1) -> None:
        """Prepare for a group of layers."""
        self.design, self._codes = design, design.category_codes
        n, n_positions = len(design.objects), design.n_positions
        for layer in layers:
            self._geometry[layer.name], self._layers[layer.name] = _geometry_of(layer), layer
            self._states[layer.name] = _MapState(
                own=np.full((n, n_positions), np.nan),
                rows=np.full((n, n_positions), np.nan),
                columns=np.zeros((n, n_positions)),
                cells=np.zeros(n_positions, dtype=np.int64),
                residual=np.zeros(n_positions),
            )

    def add(self, block: Block) -> None:
        """Take a block."""
        state, geometry = self._states[block.layer], self._geometry[block.layer]
        values = maps_of(block, self._layers[block.layer])
        if block.stage == "empty":
            state.empty = np.array(to_numpy(values[0]))
            return
        if state.empty is None:
            raise LayerError(f"layer {block.layer!r} came without the empty canvas's map")
        if block.stage == "reference":
            window = geometry.window(self.design.reference_location, self.object_size)
            for row, number in enumerate(block.objects.tolist()):
                state.references[number] = self._evoked(values[row], state.empty, window)
            return
        for position in dict.fromkeys(block.positions.tolist()):
            rows = np.flatnonzero(block.positions == position)
            self._compare(state, geometry, block, values, rows, position)

    def end(self) -> None:
        """Summarise the group of layers."""
        for name in list(self._states):
            state = self._states.pop(name)
            state.references = {}
            undefined = np.isnan(state.own).any(axis=0)
            state.rows[:, undefined] = np.nan
            state.columns[:, undefined] = np.nan
            summary = summarise_similarity(
                own=state.own,
                rows=state.rows,
                columns=state.columns,
                same=np.full(self.design.n_positions, np.nan),
                codes=self._codes,
                reference_index=self.design.reference_index,
            )
            self._done[name] = (state, summary)

    def _evoked(
        self, values: Array, empty: NDArray[np.floating], window: tuple[slice, slice]
    ) -> NDArray[np.float32]:
        rows, columns = window
        here = to_numpy(values[:, rows, columns])
        evoked = here - empty[:, rows, columns]
        if not np.isfinite(evoked).all():
            raise NumericsError("a feature map holds NaN or infinity; check weights and input")
        return without_rounding(evoked, here).astype(np.float32, copy=False)

    def _compare(
        self,
        state: _MapState,
        geometry: _Geometry,
        block: Block,
        values: Array,
        rows: NDArray[np.int64],
        position: int,
    ) -> None:
        """Compare all rows at one position with the references."""
        place, home = self.design.locations[position], self.design.reference_location
        exact = (place - np.array(home)) / geometry.stride
        whole = np.floor(exact + 0.5).astype(int) if self.shift != "linear" else np.floor(exact)
        whole = whole.astype(int)
        state.residual[position] = float(np.abs(exact - np.floor(exact + 0.5)).max())
        if self.shift == "exact" and not np.allclose(exact, whole):
            return
        fraction = exact - whole if self.shift == "linear" else np.zeros(2)
        found = _overlap(geometry, home, self.object_size, whole, fraction)
        if found is None:
            return
        reference_part, here_part = found
        cells = (here_part[0].stop - here_part[0].start) * (here_part[1].stop - here_part[1].start)
        state.cells[position] = cells
        if cells < MINIMAL_CELLS or state.empty is None:
            return
        margin = tuple(int(f > 0) for f in fraction)
        wide = tuple(
            slice(part.start, part.stop + more)
            for part, more in zip(here_part, margin, strict=True)
        )
        moved = [
            _interpolate(self._evoked(values[row], state.empty, (wide[0], wide[1])), fraction)
            for row in rows.tolist()
        ]
        here = _unit(np.stack(moved).reshape(len(rows), -1))
        n = len(self.design.objects)
        there = _unit(
            np.stack(
                [state.references[o][:, reference_part[0], reference_part[1]] for o in range(n)]
            ).reshape(n, -1)
        )
        cosines = here @ there.T
        objects = block.objects[rows]
        state.own[objects, position] = cosines[np.arange(len(rows)), objects]
        cosines = cosines * (self._codes[objects][:, None] != self._codes[None, :])
        state.rows[objects, position] = cosines.sum(axis=1)
        state.columns[:, position] += cosines.sum(axis=0)

    def result(self, order: Sequence[str] | None = None) -> xarray.Dataset:
        """Return what was accumulated; see :func:`aligned_similarity`."""
        names = [name for name in (self._done if order is None else order) if name in self._done]
        if not names:
            raise LayerError(
                "no layer is a feature map with a place on the canvas; name convolution, ReLU or "
                "pooling layers"
            )
        shape = self.design.shape
        axis_names = self.design.names
        found = [self._done[name] for name in names]

        def on_axes(values: list[Any], *more: str) -> tuple[tuple[str, ...], Any]:
            stacked = np.stack(values)
            extra = (2,) if more else ()
            return ("layer", *axis_names, *more), stacked.reshape(len(names), *shape, *extra)

        variables: dict[str, Any] = {
            "aligned_each": (
                ("layer", "object", *axis_names),
                np.stack([state.own for state, _ in found]).reshape(len(names), -1, *shape),
            ),
            "cells": on_axes([state.cells for state, _ in found]),
            "residual": on_axes([state.residual for state, _ in found]),
        }
        for name, attribute in (
            ("aligned", "similarity"),
            ("aligned_baseline", "baseline_cross"),
            ("aligned_G", "G"),
        ):
            estimates = [getattr(summary, attribute) for _, summary in found]
            variables[name] = on_axes([e.value for e in estimates])
            variables[f"{name}_interval"] = on_axes([e.interval for e in estimates], "bound")
            away = [getattr(summary, f"{attribute}_away") for _, summary in found]
            variables[f"{name}_away"] = ("layer", np.array([float(e.value) for e in away]))
            variables[f"{name}_away_interval"] = (
                ("layer", "bound"),
                np.stack([e.interval for e in away]),
            )
        left_out = left_out_labels(self.design)
        without = [fill_units(summary.G_away_without, len(left_out)) for _, summary in found]
        variables["aligned_G_away_without"] = (("layer", "left_out"), np.stack(without))
        coordinates = self.design.axes.coordinates() | {
            "layer": names,
            "object": list(self.design.objects),
            "category": ("object", list(self.design.categories)),
            "bound": ["low", "high"],
            "left_out": left_out,
        }
        result = xarray.Dataset(variables, coords=coordinates)
        if self._beside is None:
            return result
        self.notes = [*self._beside.notes, *_doubts(result)]
        return _with_plain(result, self._beside.result(order))


def without_rounding(
    evoked: NDArray[np.floating], here: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Return what an object evokes, zero where it is no more than the rounding of the map."""
    return (
        evoked if np.linalg.norm(evoked) > negligible(here) * np.linalg.norm(here) else 0 * evoked
    )


def has_place(layer: Layer) -> bool:
    """Return whether a layer is a feature map whose cells have a place on the canvas."""
    return layer.is_map and layer.stride is not None


def maps_of(block: Block, layer: Layer) -> Array:
    """Return a block's whole maps as (row, channel, height, width), whatever their layout."""
    return channels_first(block.full(), layer.layout)


def plane_of(layer: Layer) -> tuple[int, int]:
    """Return the height and the width of a map, cells."""
    layout = layer.layout
    return layer.shape[layout.index("height")], layer.shape[layout.index("width")]


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
    """Return the objects' size, px: as given, or as the source says.

    Raises
    ------
    InputError
        Neither says it.
    """
    size = int(source.provenance.get("object_size", 0) if object_size is None else object_size)
    if size < 1:
        raise InputError("the source does not say the objects' size; give object_size in px")
    return size


def _with_plain(aligned: xarray.Dataset, plain: xarray.Dataset) -> xarray.Dataset:
    """Return aligned cosines with plain evoked ones, of every layer, beside them."""
    found = {
        f"plain_{name}": plain[f"evoked_{name}"]
        for name in ("G_away", "G_away_interval", "G_away_without", "away", "away_interval")
    }
    return aligned.reindex(layer=plain["layer"].values).assign(found)


def _doubts(result: xarray.Dataset) -> list[str]:
    values = result["aligned_G_away"]
    maps = result["cells"].notnull().any([d for d in result["cells"].dims if d != "layer"])
    names = values["layer"].values[(values.isnull() & maps).values]
    if not len(names):
        return []
    return [
        f"aligned: layers {', '.join(names)}: NaN, for no displacement of the grid is a whole "
        "number of their cells with 4 of them in common, or all objects are of one category"
    ]


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
        headline="aligned_G_away",
        maps=True,
    ),
    summary="cosine of maps moved back with the object, G, and plain G beside it",
)
