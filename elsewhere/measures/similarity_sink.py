"""Cosines with one reference, accumulated as blocks come by: objects, and one position at a time.

:class:`SimilaritySink` is what the cosine and its variants put into the stream where codes are
compared with the reference only, so that they can be taken while something else is recorded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.errors import LayerError, NumericsError, UnknownNameError
from elsewhere.measures.centred_rows import CentredRows
from elsewhere.measures.centring import check_by_place
from elsewhere.measures.intervals import Sampled
from elsewhere.measures.similarity import (
    DEAD_SHARE,
    SimilaritySummary,
    summarise_means,
    summarise_similarity,
    zero_vectors,
)
from elsewhere.measures.unit_chunks import CENTRED
from elsewhere.measures.vectors import NEGLIGIBLE
from elsewhere.protocols import Block, Design, Layer, Need, Stage, Vectors
from elsewhere.types import Metric

METRICS: tuple[str, ...] = get_args(Metric)
QUANTITIES = {
    "similarity": "",
    "baseline_cross": "_baseline",
    "baseline_same": "_baseline_same",
    "over_place": "_over_place",
    "G": "_G",
}
"""What a summary holds, and what its variables are called after the metric's name."""


@dataclass
class _Open:
    """The rows that are kept of a position at which objects are still missing."""

    rows: list[tuple[Vectors, NDArray[np.int64], NDArray[np.float64]]] = field(default_factory=list)
    seen: int = 0
    seen_of_share: int = 0


@dataclass
class _LayerState:
    """What is known of a layer while it streams by."""

    own: NDArray[np.float64]
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    together: NDArray[np.float64]
    zero: NDArray[np.bool_]
    dead: NDArray[np.bool_]
    origin: Vectors | None = None
    references: Vectors | None = None
    reference_norms: NDArray[np.float64] | None = None
    open: dict[int, _Open] = field(default_factory=dict)


class SimilaritySink:
    """Accumulates the cosines that similarity, baselines and G are made of.

    Parameters
    ----------
    metric
        ``cosine``, ``centred``, ``centred-by-place``, ``evoked`` or ``pearson``: what is removed
        from the activations first.
    layers
        Names of the layers to take; all that come by default.
    include_reference
        Whether the reference counts in means over positions.

    Notes
    -----
    At a time it holds one activation per object (those at the reference), and of a position at
    which not all objects have come yet those that have. Of a part, each pair of objects at the same
    position belongs to that which holds the first of the two. For the metrics that remove a mean
    over objects it holds a stretch of units of everything: that mean is another one for each object
    that an interval leaves out.
    """

    def __init__(
        self,
        *,
        metric: Metric = "cosine",
        layers: Sequence[str] | None = None,
        include_reference: bool = False,
    ) -> None:
        if metric not in METRICS:
            raise UnknownNameError("metric", metric, METRICS)
        self.metric, self.include_reference = metric, include_reference
        self._wanted = None if layers is None else set(layers)
        self._states: dict[str, _LayerState] = {}
        self._summaries: dict[str, SimilaritySummary] = {}
        self._zero_shares: dict[str, float] = {}
        self._rounded: list[str] = []
        self._own: dict[str, NDArray[np.float64]] = {}
        self._layers: list[str] = []
        self._part, self._parts = 0, 1
        self._centred = CentredRows(metric) if metric in CENTRED else None
        if self._centred is not None:
            self.most_parts = self._centred.most_parts
        self.notes: list[str] = []

    # --- a sink -----------------------------------------------------------------------------

    def needs(self, layer: Layer) -> tuple[Need, ...]:
        """Return vectors at the reference and over the grid, and what the metric removes."""
        if self._wanted is not None and layer.name not in self._wanted:
            return ()
        if self.metric == "pearson" and layer.keep.kind == "sketch":
            raise LayerError(
                f"layer {layer.name!r} was kept as a sketch, which lacks the mean over units that "
                f"metric 'pearson' needs; record it with --keep {layer.name}=full, or leave it out"
            )
        if self._centred is not None:
            return self._centred.needs(layer)
        stages: set[Stage] = {"reference", "grid"}
        if self.metric == "evoked":
            stages.add("empty")
        return (Need("vectors", frozenset(stages)),)

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        """Return the activations of all objects at the reference, and at one position."""
        if self._centred is not None:
            return self._centred.held(layer, design, parts)
        return 2 * math.ceil(len(design.objects) / parts) + int(self.metric == "evoked")

    def begin(self, design: Design, layers: Sequence[Layer], part: int = 0, parts: int = 1) -> None:
        """Prepare for a group of layers; in part i of n only a share of the references is held."""
        self.design, self._part, self._parts = design, part, parts
        self._codes = design.category_codes
        if part == 0:
            self._layers += [layer.name for layer in layers]
        if self._centred is not None:
            check_by_place(self.metric, design)
            self._centred.begin(design, layers, part, parts)
            return
        n, n_positions = len(design.objects), design.n_positions
        size = math.ceil(n / parts)
        self._first, self._last = part * size, min(n, (part + 1) * size)
        for layer in layers:
            if part == 0:
                self._states[layer.name] = _LayerState(
                    own=np.full((n, n_positions), np.nan),
                    rows=np.zeros((n, n_positions)),
                    columns=np.zeros((n, n_positions)),
                    together=np.zeros((n, n_positions)),
                    zero=np.zeros((n, n_positions), dtype=bool),
                    dead=np.zeros((n, n_positions), dtype=bool),
                )
            self._states[layer.name].references = None

    def add(self, block: Block) -> None:
        """Take a block."""
        if self._centred is not None:
            self._centred.add(block)
            return
        state = self._states[block.layer]
        vectors = block.vectors()
        if block.stage == "empty":
            state.origin = vectors.zeros(1)
            state.origin.assign(0, vectors.take([0]))
            if not np.isfinite(state.origin.norms()).all():
                raise NumericsError(
                    f"layer {block.layer!r} gives NaN or infinity for the empty canvas, which the "
                    "metric 'evoked' needs; check the weights and the input, or take another metric"
                )
        elif block.stage == "reference":
            self._add_reference(state, block, vectors)
        else:
            self._add_positions(state, block, vectors)

    def end(self) -> None:
        """Summarise the group of layers, once its last part is through."""
        if self._centred is not None:
            for name, found in self._centred.end():
                self._own[name] = found.own[:, :, 0]
                self._count_zeros(name, found.zero, found.dead)
                self._summaries[name] = summarise_means(
                    similarity=found.mean[:, 0],
                    cross=found.cross[:, 0],
                    same=found.same,
                    similarity_without=found.mean_without[:, :, 0],
                    cross_without=found.cross_without[:, :, 0],
                    same_without=found.same_without,
                    reference_index=self.design.reference_index,
                    include_reference=self.include_reference,
                )
                n_units, summary = len(Sampled.of(self._codes)), self._summaries[name]
                full = found.among_all(summary.G_away_without, n_units)
                self._summaries[name] = replace(summary, G_away_without=full)
            return
        if self._part < self._parts - 1:
            return
        for name in list(self._states):
            state = self._states.pop(name)
            self._own[name] = state.own
            self._count_zeros(name, state.zero, state.dead)
            self._summaries[name] = summarise_similarity(
                own=state.own,
                rows=state.rows,
                columns=state.columns,
                same=state.together,
                codes=self._codes,
                reference_index=self.design.reference_index,
                include_reference=self.include_reference,
            )

    def _count_zeros(self, name: str, zero: NDArray[np.bool_], dead: NDArray[np.bool_]) -> None:
        self._zero_shares[name], share = float(zero.mean()), float(dead.mean())
        if share <= DEAD_SHARE and (told := zero_vectors(self.metric, float(zero.mean()), share)):
            self._rounded.append(name)
            self.notes.append(f"{self.metric}: layer {name}: {told}")

    # --- accumulation -----------------------------------------------------------------------

    def _check(self, block: Block, norms: NDArray[np.float64]) -> None:
        """Refuse NaN and infinity."""
        if not np.isfinite(norms).all():
            row = int(np.argmin(np.isfinite(norms)))
            raise NumericsError(
                f"layer {block.layer!r} gives NaN or infinity for object "
                f"{self.design.objects[block.objects[row]]!r}, or above 1e19; check the weights "
                "and the input"
            )

    def _prepare(
        self, state: _LayerState, block: Block, vectors: Vectors
    ) -> tuple[Vectors, NDArray[np.float64]]:
        """Remove what the metric removes; return the vectors and one over their norms."""
        raw = norms = vectors.norms()
        self._check(block, raw)
        if self.metric != "cosine":
            pearson = self.metric == "pearson"
            vectors = vectors.centred() if pearson else vectors.minus(state.origin)
            norms = vectors.norms()
        zero = norms <= getattr(vectors, "negligible", NEGLIGIBLE["single"]) * raw
        if block.stage == "grid" and self._part == 0:
            state.dead[block.objects, block.positions] = raw == 0
        inverse = np.where(zero, 0.0, 1 / np.where(zero, 1.0, norms))
        return vectors, inverse

    def _add_reference(self, state: _LayerState, block: Block, vectors: Vectors) -> None:
        held = np.flatnonzero((block.objects >= self._first) & (block.objects < self._last))
        prepared, inverse = self._prepare(state, block, vectors)
        if not len(held):
            return
        if state.references is None or state.reference_norms is None:
            state.references = prepared.zeros(self._last - self._first)
            state.reference_norms = np.zeros(self._last - self._first)
        for row in held:
            place = int(block.objects[row]) - self._first
            state.references.assign(place, prepared.take([int(row)]))
            state.reference_norms[place] = inverse[row]

    def _add_positions(self, state: _LayerState, block: Block, vectors: Vectors) -> None:
        prepared, inverse = self._prepare(state, block, vectors)
        objects, positions = block.objects, block.positions
        if state.references is None or state.reference_norms is None:
            raise LayerError(f"layer {block.layer!r} came without its reference activations")
        cosines = prepared.dots(state.references)
        cosines *= inverse[:, None] * state.reference_norms[None, :]
        present = np.flatnonzero((objects >= self._first) & (objects < self._last))
        places = objects[present] - self._first
        state.own[objects[present], positions[present]] = cosines[present, places]
        codes = self._codes
        cosines *= codes[objects][:, None] != codes[None, self._first : self._last]
        np.add.at(state.rows, (objects, positions), cosines.sum(axis=1))
        np.add.at(state.columns.T[:, self._first : self._last], positions, cosines)
        if self._part == 0:
            state.zero[objects, positions] = inverse == 0
        if codes.any():  # else there is no pair of categories
            for position in dict.fromkeys(positions.tolist()):
                rows = np.flatnonzero(positions == position)
                here = (prepared.take(rows.tolist()), objects[rows], inverse[rows])
                self._add_together(state, position, *here)

    def _add_together(
        self,
        state: _LayerState,
        position: int,
        vectors: Vectors,
        objects: NDArray[np.int64],
        inverse: NDArray[np.float64],
    ) -> None:
        """Add the cosines of pairs at one position, of which a row comes now."""
        before = state.open.setdefault(position, _Open())
        for others, known, lengths in ((vectors, objects, inverse), *before.rows):
            first = np.minimum(objects[:, None], known[None])
            counts = (self._first <= first) & (first < self._last)
            counts &= self._codes[objects][:, None] != self._codes[known][None]
            if others is vectors:
                counts &= objects[:, None] < known[None]  # each pair once
            if counts.any():
                cosines = vectors.dots(others) * inverse[:, None] * lengths[None]
                cosines = np.where(counts, cosines, 0.0)
                state.together[objects, position] += cosines.sum(axis=1)
                state.together[known, position] += cosines.sum(axis=0)
        mine = (self._first <= objects) & (objects < self._last)
        before.seen += len(objects)
        before.seen_of_share += int(mine.sum())
        if before.seen == len(self._codes):
            del state.open[position]
            return
        if before.seen_of_share < self._last - self._first:  # one may come that is their first
            mine = objects >= self._first
        if mine.any():
            kept = np.flatnonzero(mine).tolist()
            rows = vectors.zeros(len(kept))
            rows.assign(0, vectors.take(kept))
            before.rows.append((rows, objects[mine], inverse[mine]))

    # --- the result -------------------------------------------------------------------------

    def result(self, order: Sequence[str] | None = None) -> xarray.Dataset:
        """Return what was accumulated as a Dataset.

        Parameters
        ----------
        order
            Names of the layers in the network's order; that of their arrival by default.

        Returns
        -------
        xarray.Dataset
            See :func:`similarity`.
        """
        if not self._summaries:
            raise LayerError("no layer was measured; name layers that the source holds")
        wanted = self._layers if order is None else order
        known = [name for name in wanted if name in self._summaries]
        found = _to_dataset(
            self.design,
            {name: self._summaries[name] for name in known},
            {name: self._own[name] for name in known},
            self._zero_shares,
            self.metric.replace("-", "_"),
        )
        return found.assign_attrs(notes=self.notes, rounded=self._rounded)


def _to_dataset(
    design: Design,
    summaries: dict[str, SimilaritySummary],
    own: dict[str, NDArray[np.float64]],
    zero_shares: dict[str, float],
    stem: str,
) -> xarray.Dataset:
    axes, shape, names = design.names, design.shape, list(summaries)
    left_out = left_out_labels(design)
    every = summaries.values()

    variables: dict[str, Any] = {
        f"{stem}_each": (
            ("layer", "object", *axes),
            np.stack(list(own.values())).reshape(len(names), -1, *shape),
        ),
        f"{stem}_G_away_without": (
            ("layer", "left_out"),
            np.stack([fill_units(s.G_away_without, len(left_out)) for s in every]),
        ),
        f"{stem}_zero_share": (("layer",), np.array([zero_shares[name] for name in names])),
    }
    for quantity, name in QUANTITIES.items():
        for where in ("", "_away") if quantity != "over_place" else ("_away",):
            found = [getattr(summary, f"{quantity}{where}") for summary in every]
            over, sizes = (("layer",), []) if where else (("layer", *axes), shape)
            key = f"{stem}{name}{where}"
            values = np.stack([each.value for each in found])
            variables[key] = (over, values.reshape(len(names), *sizes))
            bounds = np.stack([each.interval for each in found])
            variables[f"{key}_interval"] = ((*over, "bound"), bounds.reshape(len(names), *sizes, 2))
    return xarray.Dataset(
        variables,
        coords={
            "layer": names,
            "object": list(design.objects),
            "category": ("object", list(design.categories)),
            "left_out": left_out,
            "bound": ["low", "high"],
            **design.axes.coordinates(),
        },
    )


def left_out_labels(design: Design) -> list[str]:
    """Return the names of the objects, or categories, that are left out in turn."""
    sampled = Sampled.of(design.category_codes)
    each = design.objects if sampled.unit == "object" else design.categories
    return [each[members[0]] for members in sampled.members]


def fill_units(values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return `values`, or as many NaN where nothing can be left out."""
    return values if len(values) == n else np.full(n, np.nan)


def join_layers(
    parts: Sequence[xarray.Dataset], design: Design, names: Sequence[str]
) -> xarray.Dataset:
    """Return results of layers that were measured of different objects as one, NaN for others.

    Parameters
    ----------
    parts
        Results over ``layer``, of some of the objects of `design` each.
    design
        All objects.
    names
        All layers, in order.
    """
    first, labels = parts[0], {"left_out": left_out_labels(design)}
    if "object" in first.dims:
        labels["object"] = list(design.objects)
    if len(parts) == 1 and all(first[dim].values.tolist() == labels[dim] for dim in labels):
        return first.reindex(layer=list(names))
    every = (str(unit) for part in parts for unit in part["left_out"].values)
    labels["left_out"] = list(dict.fromkeys(every))
    fitted = [part.drop_vars("category", errors="ignore").reindex(labels) for part in parts]
    joined = xarray.concat(fitted, dim="layer", combine_attrs="drop").reindex(layer=list(names))
    if "object" not in first.dims:
        return joined
    return joined.assign_coords(category=("object", list(design.categories)))
