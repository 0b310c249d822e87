"""Cosines with one reference, accumulated as blocks come by: objects, and one position at a time.

:class:`SimilaritySink` is what the cosine and its variants put into the stream where codes are
compared with the reference only, so that they can be taken while something else is recorded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args

import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.errors import LayerError, NumericsError, UnknownNameError
from elsewhere.forms import layer_labels
from elsewhere.kept import Keep
from elsewhere.measures.bands import band_notes
from elsewhere.measures.blocks import check_lengths
from elsewhere.measures.centred_rows import CentredRows
from elsewhere.measures.centring import by_place_baseline, check_by_place
from elsewhere.measures.crossing import Crossing
from elsewhere.measures.intervals import Sampled
from elsewhere.measures.similarity import (
    DEAD_SHARE,
    n_cross_pairs,
    partly_undefined,
    summarise_means,
    summarise_similarity,
    zero_vectors,
)
from elsewhere.measures.sinks import LayerSink
from elsewhere.measures.sketch import cosine_error
from elsewhere.measures.tables import Variables, scalar
from elsewhere.measures.unit_chunks import BY_PLACE, CENTRED
from elsewhere.measures.vectors import NEGLIGIBLE
from elsewhere.protocols import Block, Design, Layer, Need, Stage, Vectors
from elsewhere.types import Metric, stem_of

METRICS: tuple[str, ...] = get_args(Metric)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Whose the rows of a block are, and one over their lengths as soon as these are known."""

    layer: str
    objects: NDArray[np.int64]
    positions: NDArray[np.int64]
    inverse: NDArray[np.float64]

    @classmethod
    def of(cls, block: Block) -> _Rows:
        """Return those of a block, of which nothing is held."""
        ids = block.objects.copy(), block.positions.copy()
        return cls(block.layer, *ids, np.zeros(len(block.objects)))


@dataclass
class _Open:
    """The rows that are kept of a position at which objects are still missing."""

    rows: list[tuple[Vectors, _Rows, NDArray[np.int64]]] = field(default_factory=list)
    """Vectors, and which rows of which block they were."""
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
    reference_norms: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    open: dict[int, _Open] = field(default_factory=dict)


class SimilaritySink(LayerSink):
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
        super().__init__(layers)
        if metric not in METRICS:
            raise UnknownNameError("metric", metric, METRICS)
        self.metric, self.include_reference = metric, include_reference
        self._stem = stem_of({"metric": metric})
        self._states: dict[str, _LayerState] = {}
        self._keeps: dict[str, Keep] = {}
        self._crossing = Crossing()
        self._centred = CentredRows(metric) if metric in CENTRED else None
        if self._centred is not None:
            self.most_parts = self._centred.most_parts

    # --- a sink -----------------------------------------------------------------------------

    def needed(self, layer: Layer) -> tuple[Need, ...]:
        """Return vectors at the reference and over the grid, and what the metric removes."""
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
        super().begin(design, layers, part, parts)
        self._codes = design.category_codes
        self._keeps |= {layer.name: layer.keep for layer in layers}
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
            self._crossing.take(partial(self._check_origin, block.layer), state.origin.norms())
            return
        add = self._add_reference if block.stage == "reference" else self._add_positions
        with np.errstate(invalid="ignore", over="ignore"):  # refused when lengths are known
            add(state, block, vectors)

    @staticmethod
    def _check_origin(layer: str, length: NDArray[np.float64]) -> None:
        if not np.isfinite(length).all():
            raise NumericsError(
                f"layer {layer!r} gives NaN or infinity for the empty canvas, which the "
                "metric 'evoked' needs; check the weights and the input, or take another metric"
            )

    def end(self) -> None:
        """Summarise the group of layers, once its last part is through."""
        self._crossing.flush()
        reference: dict[str, Any] = {
            "reference_index": self.design.reference_index,
            "include_reference": self.include_reference,
        }
        if self._centred is not None:
            for name, found in self._centred.end():
                summary = summarise_means(
                    similarity=found.mean[:, 0],
                    cross=found.cross[:, 0],
                    same=found.same,
                    similarity_without=found.mean_without[:, :, 0],
                    cross_without=found.cross_without[:, :, 0],
                    same_without=found.same_without,
                    **reference,
                )
                dims, left_out = summary["_G_away_without"]
                full = found.among_all(left_out, len(Sampled.of(self._codes)))
                summary["_G_away_without"] = dims, full
                self._read(name, found.own[:, :, 0], summary, found.zero, found.dead)
        elif self._part == self._parts - 1:
            for name in list(self._states):
                state = self._states.pop(name)
                summary = summarise_similarity(
                    own=state.own,
                    rows=state.rows,
                    columns=state.columns,
                    same=state.together,
                    codes=self._codes,
                    **reference,
                )
                self._read(name, state.own, summary, state.zero, state.dead)

    def _read(
        self,
        name: str,
        own: NDArray[np.float64],
        summary: Variables,
        zero: NDArray[np.bool_],
        dead: NDArray[np.bool_],
    ) -> None:
        """Keep the variables of a layer, and what has to be said of its zero vectors."""
        size, share = self._keeps[name].size, float(dead.mean())
        summary = {"_each": (("object", "position"), own), **summary} | {
            "_zero_share": scalar(zero.mean()),
            "_error": scalar(cosine_error(size) if size else 0.0),
        }
        self.variables[name] = {f"{self._stem}{key}": each for key, each in summary.items()}
        if share <= DEAD_SHARE and (told := zero_vectors(self.metric, float(zero.mean()), share)):
            self.rounded.append(name)
            self.notes.append(f"{self.metric}: layer {name}: {told}")

    def doubts(self, result: xarray.Dataset, design: Design) -> list[str]:
        """Return what has to be known of the numbers of all layers together."""
        return similarity_doubts(result, self._stem, design)

    # --- accumulation -----------------------------------------------------------------------

    def _reduce(self, state: _LayerState, vectors: Vectors) -> Vectors:
        """Return vectors less what the metric removes."""
        if self.metric == "cosine":
            return vectors
        return vectors.centred() if self.metric == "pearson" else vectors.minus(state.origin)

    def _measure_lengths(
        self, rows: _Rows, share: float, raw: NDArray[np.float64], norms: NDArray[np.float64]
    ) -> None:
        """Note one over the lengths of rows; 0 where `share` or less of a vector is left."""
        check_lengths(self.design, rows.layer, rows.objects, raw)
        zero = norms <= share * raw
        rows.inverse[:] = np.where(zero, 0.0, 1 / np.where(zero, 1.0, norms))

    def _add_reference(self, state: _LayerState, block: Block, vectors: Vectors) -> None:
        rows, prepared = _Rows.of(block), self._reduce(state, vectors)
        held = np.flatnonzero((rows.objects >= self._first) & (rows.objects < self._last))
        if len(held) and state.references is None:
            state.references = prepared.zeros(self._last - self._first)
            state.reference_norms = np.zeros(self._last - self._first)
        share = getattr(prepared, "negligible", NEGLIGIBLE["single"])

        def measure(raw: NDArray[np.float64], norms: NDArray[np.float64]) -> None:
            self._measure_lengths(rows, share, raw, norms)
            if len(held):
                state.reference_norms[rows.objects[held] - first] = rows.inverse[held]

        first, lengths = self._first, vectors.norms()
        self._crossing.take(measure, lengths, lengths if prepared is vectors else prepared.norms())
        ends = np.flatnonzero((np.diff(rows.objects[held]) != 1) | (np.diff(held) != 1)) + 1
        for run in np.split(held, ends):
            if len(run) and state.references is not None:
                place = int(rows.objects[run[0]]) - first
                state.references.assign(place, prepared.take(run.tolist()))

    def _add_positions(self, state: _LayerState, block: Block, vectors: Vectors) -> None:
        if state.references is None:
            raise LayerError(f"layer {block.layer!r} came without its reference activations")
        rows, prepared = _Rows.of(block), self._reduce(state, vectors)
        at: dict[int, NDArray[np.int64]] = {}
        if self._codes.any():  # else there is no pair of categories
            places = dict.fromkeys(rows.positions.tolist())
            at = {place: np.flatnonzero(rows.positions == place) for place in places}
        paired = [some for some in at.values() if self._count(rows, some, rows, some).any()]
        products, pairs = prepared.compare(state.references, paired)
        within = [(some, rows, some) for some, _ in pairs]
        arrays = [found for _, found in pairs]
        for place, some in at.items():
            for others, known, which in self._keep_open(state, place, rows, some, prepared):
                if self._count(rows, some, known, which).any():
                    within.append((some, known, which))
                    arrays.append(prepared.take(some.tolist()).dots(others))
        norms = prepared.norms()
        raw = norms if prepared is vectors else vectors.norms()
        share = getattr(prepared, "negligible", NEGLIGIBLE["single"])
        use = partial(self._tally, state, rows, share, within)
        self._crossing.take(use, raw, norms, products, *arrays)

    def _count(
        self,
        rows: _Rows,
        some: NDArray[np.int64],
        known: _Rows,
        others: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """Return which pairs of rows count: of two categories at one position, in this part."""
        mine, theirs = rows.objects[some][:, None], known.objects[others][None]
        first = np.minimum(mine, theirs)
        counts = (self._first <= first) & (first < self._last)
        counts &= self._codes[mine] != self._codes[theirs]
        counts &= rows.positions[some][:, None] == known.positions[others][None]
        return counts & (mine < theirs) if known is rows else counts  # each pair once

    def _keep_open(
        self,
        state: _LayerState,
        position: int,
        rows: _Rows,
        some: NDArray[np.int64],
        vectors: Vectors,
    ) -> list[tuple[Vectors, _Rows, NDArray[np.int64]]]:
        """Return rows that came before at a position; keep the new ones while others may come."""
        before = state.open.setdefault(position, _Open())
        found, objects = list(before.rows), rows.objects[some]
        mine = (self._first <= objects) & (objects < self._last)
        before.seen += len(objects)
        before.seen_of_share += int(mine.sum())
        if before.seen == len(self._codes):
            del state.open[position]
            return found
        if before.seen_of_share < self._last - self._first:  # one may come that is their first
            mine = objects >= self._first
        if mine.any():
            kept = vectors.zeros(int(mine.sum()))
            kept.assign(0, vectors.take(some[mine].tolist()))
            before.rows.append((kept, rows, some[mine]))
        return found

    def _tally(
        self,
        state: _LayerState,
        rows: _Rows,
        share: float,
        within: list[tuple[NDArray[np.int64], _Rows, NDArray[np.int64]]],
        raw: NDArray[np.float64],
        norms: NDArray[np.float64],
        cosines: NDArray[np.float64],
        *pairs: NDArray[np.float64],
    ) -> None:
        """Add what a block's products say."""
        first, last = self._first, self._last
        objects, positions, codes = rows.objects, rows.positions, self._codes
        self._measure_lengths(rows, share, raw, norms)
        if self._part == 0:
            state.dead[objects, positions] = raw == 0
            state.zero[objects, positions] = rows.inverse == 0
        cosines = cosines * (rows.inverse[:, None] * state.reference_norms[None, :])
        present = np.flatnonzero((objects >= first) & (objects < last))
        state.own[objects[present], positions[present]] = cosines[present, objects[present] - first]
        cosines *= codes[objects][:, None] != codes[None, first:last]
        np.add.at(state.rows, (objects, positions), cosines.sum(axis=1))
        np.add.at(state.columns.T[:, first:last], positions, cosines)
        for (some, known, others), products in zip(within, pairs, strict=True):
            counts = self._count(rows, some, known, others)
            scaled = products * rows.inverse[some][:, None] * known.inverse[others][None]
            scaled = np.where(counts, scaled, 0.0)
            state.together[objects[some], positions[some]] += scaled.sum(axis=1)
            theirs = known.objects[others], known.positions[others]
            state.together[theirs] += scaled.sum(axis=0)


def similarity_doubts(result: xarray.Dataset, stem: str, design: Design) -> list[str]:
    """Return what has to be known to read similarities with the reference, by their metric."""
    found, reference = [], design.reference_index
    n_pairs = n_cross_pairs(design.category_codes)
    if stem == stem_of({"metric": BY_PLACE}):
        found.append(by_place_baseline(len(design.objects)))
    alike, away = result[stem], result[f"{stem}_away"]
    if alike[0].size == 1 and bool(away.isnull().all()):
        found.append(
            "one location, the reference: nothing lies away from it, so means are undefined (nan)"
        )
    for size in sorted({float(v) for v in result[f"{stem}_error"].values if v > 0}):
        found.append(f"sketched layers: a cosine's standard error is at most {size:.3f}")
    if n_pairs:
        found += band_notes(result.sizes["left_out"], result.sizes["layer"])
    unknown = result[f"{stem}_G_away"].isnull()
    if n_pairs == 0:
        found.append(
            "all objects are of one category: there is no different-object baseline and no G"
        )
    labels = dict(zip(map(str, result["layer"].values), layer_labels(result), strict=True))
    if n_pairs and (names := result["layer"].values[(away.notnull() & unknown).values].tolist()):
        found.append(
            "G is undefined (nan), and so are steps to and from it, where different objects look "
            f"alike (1 - baseline below 0.001): {', '.join(labels[str(name)] for name in names)}"
        )
    all_dead = dead_layers(result, stem)
    for place, name in enumerate(result["layer"].values):
        at_places = result[f"{stem}_G"].values[place].ravel()
        elsewhere = at_places if reference is None else np.delete(at_places, reference)
        if n_pairs and name not in all_dead and (said := partly_undefined(elsewhere)):
            found.append(f"layer {labels[str(name)]}: of places, {said}")
    if dead := [labels[name] for name in all_dead if name not in result.attrs["rounded"]]:
        found.append(f"more than 5 % zero vectors (dead, not 'not invariant'): {', '.join(dead)}")
    return found


def dead_layers(result: xarray.Dataset, stem: str = "") -> list[str]:
    """Return the layers of which more than 5 % of the vectors are zero, by the metric's name."""
    shares = result[f"{stem or stem_of(result.attrs)}_zero_share"]
    return [str(name) for name in result["layer"].values[shares.values > DEAD_SHARE]]
