r"""What a move changes in a feature map: a pure shift, the border, or the phase of sub-sampling.

On evoked maps :math:`e = a - a(empty)` of an object here and at the reference, the change is
:math:`\Delta = |e(p) - e(r)|^2`. Moving the reference's map by the object's displacement in cells,
rounded, predicts the map here; what the prediction misses is split into cells at the border (whose
receptive field reaches over the canvas's edge, here or where they came from, or that came from
beyond the map) and all others:

.. math:: \Delta = \underbrace{(\Delta - R)}_{shift} + R_{border} + R_{rest}.

Away from the border a stack of convolutions and poolings only shifts its map where the displacement
is a multiple of the stride, so that there :math:`R_{rest}` is 0. At other locations it is what
sub-sampling adds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import InputError, LayerError, NumericsError
from elsewhere.measures.aligned import has_place, maps_of, plane_of, without_rounding
from elsewhere.measures.catalogue import MakeSinks, Measure, entry, measures
from elsewhere.measures.intervals import Sampled, jackknife_t
from elsewhere.measures.similarity_sink import left_out_labels
from elsewhere.measures.unit_chunks import Floats
from elsewhere.measures.vectors import to_numpy
from elsewhere.protocols import Array, Block, Design, Layer, Need, Source

NOISE = 1e-10
"""A change below this share of the map's own sum of squares is rounding."""
PARTS = ("shift", "border", "rest")


@dataclass(frozen=True)
class Change:
    """The change of a map, as sums of squares."""

    total: float
    border: float
    rest: float
    scale: float


def shifted(values: NDArray[np.floating], by: Sequence[int]) -> NDArray[np.floating]:
    """Return a map (channel, height, width) moved by whole cells, zeros where nothing came from.

    Examples
    --------
    >>> shifted(np.array([[[1.0, 2.0, 3.0]]]), (0, 1))
    array([[[0., 1., 2.]]])
    """
    moved = np.zeros_like(values)
    here, there = [], []
    for step, size in zip(by, values.shape[1:], strict=True):
        here.append(slice(max(step, 0), size + min(step, 0)))
        there.append(slice(max(-step, 0), size + min(-step, 0)))
        if abs(step) >= size:
            return moved
    moved[:, here[0], here[1]] = values[:, there[0], there[1]]
    return moved


def border_cells(
    shape: Sequence[int],
    by: Sequence[int],
    *,
    stride: float,
    offset: float,
    receptive_field: int | None,
    canvas: int,
) -> NDArray[np.bool_]:
    """Return which cells see the canvas's edge, here or where they were before a shift.

    Parameters
    ----------
    shape
        Height and width of the map, cells.
    by
        The shift, cells.
    stride, offset, receptive_field
        Of the layer, px; without a receptive field only cells that came from beyond the map count.
    canvas
        Side of the canvas, px.

    Returns
    -------
    bool (height, width)

    Examples
    --------
    >>> border_cells(
    ...     (1, 4), (0, 1), stride=1, offset=0.0, receptive_field=None, canvas=4
    ... )
    array([[ True, False, False, False]])
    """
    seen = []
    for size, step in zip(shape, by, strict=True):
        cells = np.arange(size)
        before = cells - step
        edge = (before < 0) | (before >= size)
        if receptive_field is not None:
            half = (receptive_field - 1) / 2
            centres = offset + stride * cells
            reaches = (centres - half < 0) | (centres + half > canvas - 1)
            edge |= reaches | reaches[np.clip(before, 0, size - 1)]
        seen.append(edge)
    # One axis of a single row or column still has its edge.
    found: NDArray[np.bool_] = seen[0][:, None] | seen[1][None, :]
    return found


def explain_change(
    here: ArrayLike, there: ArrayLike, by: Sequence[int], border: ArrayLike
) -> Change:
    """Return how much of a map's change a shift leaves, at the border and elsewhere.

    Parameters
    ----------
    here, there
        Evoked maps of the object here and at the reference, shape (channel, height, width).
    by
        The object's displacement, whole cells.
    border
        bool (height, width), as :func:`border_cells` gives it.

    Returns
    -------
    Change
        ``total`` of the change; of it, what the shift leaves at the ``border`` and in the ``rest``.

    Raises
    ------
    InputError
        Shapes differ.

    References
    ----------
    Azulay & Weiss (2019), JMLR 20(184), and Zhang (2019), ICML, on sub-sampling; the partition is
    this package's.

    Examples
    --------
    >>> there = np.zeros((1, 1, 4)); there[0, 0, 1] = 1
    >>> here = np.roll(there, 1, axis=2)
    >>> explain_change(here, there, (0, 1), np.zeros((1, 4), bool))
    Change(total=2.0, border=0.0, rest=0.0, scale=1.0)
    """
    now, before = np.asarray(here), np.asarray(there)
    mask = np.asarray(border, dtype=bool)
    if now.shape != before.shape or now.ndim != 3 or mask.shape != now.shape[1:]:
        raise InputError(
            f"maps {now.shape} and {before.shape} with a border {mask.shape}; expected two of "
            "(channel, height, width) and one (height, width)"
        )
    total = _squares(now - before)
    missed = now - shifted(before, by)
    per_cell = np.einsum("chw,chw->hw", missed, missed, dtype=np.float64)
    return Change(
        float(total.sum()),
        float(per_cell[mask].sum()),
        float(per_cell[~mask].sum()),
        float(max(_squares(now).sum(), _squares(before).sum())),
    )


def _squares(values: NDArray[np.floating]) -> Floats:
    found: Floats = np.einsum("chw,chw->c", values, values, dtype=np.float64)
    return found


@dataclass(frozen=True)
class ChangeShares:
    """Shares of a layer's change at some locations, in the order shift, border, rest.

    Parameters
    ----------
    shares
        float64 (3,), summing to 1; NaN where nothing changes. The share of the shift is negative
        where moving the map makes the difference larger.
    intervals
        float64 (3, 2): jackknife-t over objects, or over categories where one has several
        exemplars.
    without
        float64 (unit, 3): the shares without each of these in turn.
    """

    shares: Floats
    intervals: Floats
    without: Floats


def change_shares(
    total: ArrayLike,
    border: ArrayLike,
    rest: ArrayLike,
    scale: ArrayLike,
    *,
    codes: ArrayLike | None = None,
) -> ChangeShares:
    """Return the shares of shift, border and rest in the change: ratios of sums.

    Parameters
    ----------
    total, border, rest, scale
        Shape (object, location): as in :class:`Change`.
    codes
        int (object,), categories, for the intervals; each object its own by default.

    Returns
    -------
    ChangeShares

    Examples
    --------
    >>> change_shares([[4.0]], [[1.0]], [[0.0]], [[9.0]]).shares
    array([0.75, 0.25, 0.  ])
    """
    sums = [np.asarray(part, np.float64).sum(axis=1) for part in (total, border, rest, scale)]

    def shares(change: Floats, edge: Floats, other: Floats, size: Floats) -> Floats:
        varies = change > NOISE * np.maximum(size, np.finfo(float).tiny)
        safe = np.where(varies, change, 1.0)
        parts = np.stack([change - edge - other, edge, other], axis=-1) / safe[..., None]
        found: Floats = np.where(varies[..., None], parts, np.nan)
        return found

    n = len(sums[0])
    every = shares(*(np.asarray(part.sum()) for part in sums))
    units = Sampled.of(np.arange(n) if codes is None else codes)
    without = shares(*(part.sum() - units.sums(part) for part in sums))
    if len(units) < 2:
        without = without[:0]
    return ChangeShares(every, jackknife_t(every, without), without)


@dataclass
class _State:
    """Sums of squares of one layer, shape (object, position), and the maps at the reference."""

    sums: NDArray[np.float64]
    empty: NDArray[np.float32] | None = None
    references: dict[int, NDArray[np.float32]] = field(default_factory=dict)


class ChangeSink:
    """Splits the change of every map into a pure shift, the border, and the rest.

    Parameters
    ----------
    canvas
        Side of the canvas, px.
    layers
        Names of feature maps; all that have a place on the canvas by default.
    """

    def __init__(self, *, canvas: int, layers: Sequence[str] | None = None) -> None:
        self.canvas = canvas
        self._wanted = None if layers is None else set(layers)
        self._states: dict[str, _State] = {}
        self._layers: dict[str, Layer] = {}
        self.notes: list[str] = []

    def needs(self, layer: Layer) -> tuple[Need, ...]:
        """Return whole maps at every stage, of layers whose cells have a place."""
        if self._wanted is not None and layer.name not in self._wanted:
            return ()
        if not has_place(layer):
            return ()
        return (Need("full", frozenset({"empty", "reference", "grid"})),)

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        """Return the maps of a share of the objects at the reference, and a few more."""
        return math.ceil(len(design.objects) / parts) + 4

    def begin(self, design: Design, layers: Sequence[Layer], part: int = 0, parts: int = 1) -> None:
        """Prepare for a group of layers; in part i of n only a share of the objects is taken."""
        self.design = design
        n = len(design.objects)
        size = math.ceil(n / parts)
        self._chosen = range(part * size, min(n, (part + 1) * size))
        for layer in layers:
            if part == 0:
                self._layers[layer.name] = layer
                self._states[layer.name] = _State(np.zeros((4, n, design.n_positions)))
            self._states[layer.name].references = {}

    def add(self, block: Block) -> None:
        """Take a block."""
        state, layer = self._states[block.layer], self._layers[block.layer]
        values = maps_of(block, layer)
        if block.stage == "empty":
            state.empty = np.array(to_numpy(values[0]), dtype=np.float32)
            return
        if state.empty is None:
            raise LayerError(f"layer {block.layer!r} came without the empty canvas's map")
        for row, number in enumerate(block.objects.tolist()):
            if number not in self._chosen:
                continue
            evoked = self._evoked(values[row], state.empty, block.layer, number)
            if block.stage == "reference":
                state.references[number] = evoked
                continue
            position = int(block.positions[row])
            by, border = self._move(layer, position)
            found = explain_change(evoked, state.references[number], by, border)
            state.sums[:, number, position] = found.total, found.border, found.rest, found.scale

    def _evoked(
        self, values: Array, empty: NDArray[np.float32], layer: str, number: int
    ) -> NDArray[np.float32]:
        here = to_numpy(values).astype(np.float32)
        evoked = here - empty
        if not np.isfinite(evoked).all():
            raise NumericsError(
                f"layer {layer!r} gives NaN or infinity for object "
                f"{self.design.objects[number]!r}; check the weights and the input"
            )
        return without_rounding(evoked, here)

    def _move(self, layer: Layer, position: int) -> tuple[list[int], NDArray[np.bool_]]:
        """Return the displacement in whole cells, and which cells see the border."""
        stride = 1.0 if layer.stride is None else float(layer.stride)
        apart = self.design.locations[position] - np.array(self.design.reference_location)
        by = np.floor(apart / stride + 0.5).astype(int).tolist()
        border = border_cells(
            plane_of(layer),
            by,
            stride=stride,
            offset=float(layer.offset or 0),
            receptive_field=layer.receptive_field,
            canvas=self.canvas,
        )
        return by, border

    def end(self) -> None:
        """Forget the maps."""
        for state in self._states.values():
            state.references = {}

    def result(self, order: Sequence[str] | None = None) -> xarray.Dataset:
        """Return the shares of every layer's change.

        Parameters
        ----------
        order
            Names of the layers in the network's order.

        Returns
        -------
        xarray.Dataset
            Per location ``shift_share``, ``border_share``, ``rest_share`` (summing to 1) and
            ``in_phase``: whether the displacement is a multiple of the stride. Per layer
            ``*_share_in_phase`` and ``*_share_out_of_phase``, over those locations and over the
            others, the reference left out, with intervals; ``phase_share``, by how much the rest
            is larger out of phase.
        """
        wanted = self._states if order is None else order
        names = [name for name in wanted if name in self._states]
        if not names:
            raise LayerError(
                "no layer is a feature map with a place on the canvas; name convolution, ReLU or "
                "pooling layers"
            )
        shape = self.design.shape
        apart = self.design.locations - np.array(self.design.reference_location)
        moved = apart.any(axis=1)
        n_layers = len(names)
        codes = self.design.category_codes
        shares = np.full((3, n_layers, len(moved)), np.nan)
        in_phase = np.zeros((n_layers, len(moved)), dtype=bool)
        means = {key: np.full((3, n_layers), np.nan) for key in ("in_phase", "out_of_phase")}
        left_out = left_out_labels(self.design)
        left = {key: np.full((3, n_layers, len(left_out)), np.nan) for key in means}
        bounds = {key: np.full((3, n_layers, 2), np.nan) for key in means}
        for place, name in enumerate(names):
            sums = self._states[name].sums
            stride = float(self._layers[name].stride or 1)
            in_phase[place] = (np.mod(apart, stride) == 0).all(axis=1)
            for position in np.flatnonzero(moved):
                at = sums[:, :, position, None]
                shares[:, place, position] = change_shares(*at).shares
            for key, chosen in (
                ("in_phase", in_phase[place] & moved),
                ("out_of_phase", ~in_phase[place] & moved),
            ):
                if chosen.any():
                    found = change_shares(*sums[:, :, chosen], codes=codes)
                    means[key][:, place], bounds[key][:, place] = found.shares, found.intervals
                    if len(left_out) > 1:
                        left[key][:, place] = found.without.T
        on_axes = ("layer", *self.design.names)
        variables: dict[str, object] = {
            "in_phase": (on_axes, in_phase.reshape(n_layers, *shape)),
            "phase_share": ("layer", means["out_of_phase"][2] - means["in_phase"][2]),
            "map_stride": ("layer", [float(self._layers[n].stride or 1) for n in names]),
        }
        for part, label in enumerate(PARTS):
            variables[f"{label}_share"] = (on_axes, shares[part].reshape(n_layers, *shape))
            for key in means:
                variables[f"{label}_share_{key}"] = ("layer", means[key][part])
                variables[f"{label}_share_{key}_interval"] = (("layer", "bound"), bounds[key][part])
                without = ("layer", "left_out"), left[key][part]
                variables[f"{label}_share_{key}_without"] = without
        result = xarray.Dataset(
            variables,
            coords={
                "layer": names,
                "bound": ["low", "high"],
                "left_out": left_out,
                **self.design.axes.coordinates(),
            },
        )
        self.notes = _doubts(result)
        return result


def _doubts(result: xarray.Dataset) -> list[str]:
    notes = []
    for key, why in (("in_phase", "no"), ("out_of_phase", "every")):
        values = result[f"shift_share_{key}"]
        names = values["layer"].values[values.isnull().values]
        if len(names):
            notes.append(
                f"phase: layers {', '.join(names)}: no share {key.replace('_', ' ')} (NaN), for "
                f"{why} location lies a whole number of strides from the reference, or the map "
                "does not change"
            )
    return notes


def _sinks(source: Source, object_size: int | None) -> MakeSinks:
    canvas = int(source.provenance.get("canvas", 0))
    if canvas < 1:
        raise InputError("the source does not say the canvas's size, which 'phase' needs")
    return lambda layers: (ChangeSink(canvas=canvas, layers=layers),)


measures.add(
    "phase",
    Measure(
        explain_change,
        "|e(p) - e(r)|^2 split into what moving e(r) by (p - r)/J cells explains, what it leaves "
        "at the border, and the rest; e = a - a(empty)",
        ("azulay2019", "zhang2019"),
        literature={
            "azulay2019": entry(
                "article",
                author="Azulay, Aharon and Weiss, Yair",
                title="Why Do Deep Convolutional Networks Generalize so Poorly to Small Image "
                "Transformations?",
                journal="Journal of Machine Learning Research",
                volume="20",
                number="184",
                pages="1--25",
                year="2019",
            ),
        },
        sinks=_sinks,
        headline="shift_share_out_of_phase",
        maps=True,
    ),
    summary="a map's change: pure shift, border, sub-stride phase",
)
