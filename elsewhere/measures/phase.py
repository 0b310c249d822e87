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
from dataclasses import dataclass

import numpy as np
import xarray
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import InputError
from elsewhere.measures.catalogue import MakeSinks, Measure, entry, measures
from elsewhere.measures.intervals import Sampled, jackknife_t
from elsewhere.measures.landing import Rows
from elsewhere.measures.maps import WHOLE, MapSink, MapState, plane_of
from elsewhere.measures.tables import LEFT_OUT, Variables, scalar
from elsewhere.measures.unit_chunks import Floats
from elsewhere.protocols import Array, Design, Layer, Source

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

    `shares` (3,) sum to 1, and are NaN where nothing changes; that of the shift is negative where
    moving the map makes the difference larger. `intervals` (3, 2) are jackknife-t over objects, or
    over categories where one has several exemplars; `without` (unit, 3) leaves each of these out in
    turn.
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


class ChangeSink(MapSink):
    """Splits the change of every map into a pure shift, the border, and the rest.

    Per location it gives ``shift_share``, ``border_share``, ``rest_share`` (summing to 1) and
    ``in_phase``: whether the displacement is a multiple of the stride. Per layer
    ``*_share_in_phase`` and ``*_share_out_of_phase``, over those locations and over the others, the
    reference left out, with intervals; ``phase_share``, by how much more the rest is out of phase.
    `canvas` is its side, px.
    """

    n_sums = 4
    precision = np.float32

    def __init__(self, *, canvas: int, layers: Sequence[str] | None = None) -> None:
        super().__init__(layers)
        self.canvas = canvas

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        """Return the maps of a share of the objects at the reference, and a few more."""
        return math.ceil(len(design.objects) / parts) + 4

    @property
    def _apart(self) -> NDArray[np.int64]:
        """Displacements from the reference, (position, axis), px."""
        home = np.array(self.design.reference_location, np.int64)
        return np.asarray(self.design.locations - home)

    def compare(self, state: MapState, block: Rows, values: Array) -> None:
        """Split the change of every map of a block."""
        layer = state.layer
        stride = float(layer.stride or 1)
        for row, number in enumerate(block.objects.tolist()):
            if number not in self._chosen:
                continue
            position = int(block.positions[row])
            by = np.floor(self._apart[position] / stride + 0.5).astype(int).tolist()
            border = border_cells(
                plane_of(layer),
                by,
                stride=stride,
                offset=float(layer.offset or 0),
                receptive_field=layer.receptive_field,
                canvas=self.canvas,
            )
            evoked = self.evoked(state, number, values[row], WHOLE)
            found = explain_change(evoked, state.references[number], by, border)
            state.sums[:, number, position] = found.total, found.border, found.rest, found.scale

    def read(self, state: MapState) -> Variables:
        """Return the shares of a layer's change."""
        sums, apart, stride = state.sums, self._apart, float(state.layer.stride or 1)
        moved = np.asarray(apart.any(axis=1))
        in_phase = np.asarray((np.mod(apart, stride) == 0).all(axis=1))
        codes = self.design.category_codes
        n_units = len(Sampled.of(codes))
        shares = np.full((3, len(moved)), np.nan)
        for position in np.flatnonzero(moved):
            shares[:, position] = change_shares(*sums[:, :, position, None]).shares
        found: Variables = {"in_phase": (("position",), in_phase), "map_stride": scalar(stride)}
        for part, label in enumerate(PARTS):
            found[f"{label}_share"] = (("position",), shares[part])
        for key, chosen in (("in_phase", in_phase), ("out_of_phase", ~in_phase)):
            every = ChangeShares(*(np.full(n, np.nan) for n in (3, (3, 2), (n_units, 3))))
            if (chosen & moved).any():
                every = change_shares(*sums[:, :, chosen & moved], codes=codes)
            for part, label in enumerate(PARTS):
                name = f"{label}_share_{key}"
                found[name] = scalar(every.shares[part])
                found[f"{name}_interval"] = (("bound",), every.intervals[part])
                found[f"{name}_without"] = ((LEFT_OUT,), every.without[:, part])
        rest = [found[f"rest_share_{key}"][1] for key in ("out_of_phase", "in_phase")]
        return {"phase_share": scalar(float(rest[0] - rest[1])), **found}

    def doubts(self, result: xarray.Dataset, design: Design) -> list[str]:
        """Return which maps have no share."""
        notes = []
        for key, why in (("in_phase", "no"), ("out_of_phase", "every")):
            values = result[f"shift_share_{key}"]
            maps = result["map_stride"].notnull()
            names = values["layer"].values[(values.isnull() & maps).values]
            if len(names):
                notes.append(
                    f"phase: layers {', '.join(names)}: no share {key.replace('_', ' ')} (NaN), "
                    f"for {why} location lies a whole number of strides from the reference, or the "
                    "map does not change"
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
        against=("all", "reference"),
        headline="shift_share_out_of_phase",
        range="up to 1",
        direction="higher: the change is more of a pure shift",
        chance="none",
        question="Does a map change by moving, at the border, or by sub-sampling?",
        can="It splits a map's change into pure shift, border, and what sub-sampling breaks.",
        cannot="It cannot tell border from the rest in deep layers, all of whose cells see the "
        "border.",
        least=1,
        maps=True,
    ),
    summary="a map's change: pure shift, border, sub-stride phase",
)
