"""Where sub-sampling breaks equivariance: what a move changes in every layer's map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.analyzer.equivariance import has_place, maps_of, plane_of, without_rounding
from elsewhere.analyzer.layerwise import banded
from elsewhere.errors import LayerError, NumericsError
from elsewhere.measures.changes import border_cells, change_shares, explain_change
from elsewhere.measures.intervals import Sampled
from elsewhere.measures.vectors import to_numpy
from elsewhere.protocols import Array, Block, Design, Layer, Need

PARTS = ("shift", "border", "rest")


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
        apart = self.design.positions[position] - np.array(self.design.reference)
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
        apart = self.design.positions - np.array(self.design.reference)
        moved = apart.any(axis=1)
        n_layers = len(names)
        codes = self.design.category_codes
        shares = np.full((3, n_layers, len(moved)), np.nan)
        in_phase = np.zeros((n_layers, len(moved)), dtype=bool)
        means = {key: np.full((3, n_layers), np.nan) for key in ("in_phase", "out_of_phase")}
        n_units = len(Sampled.of(codes))
        left = {key: np.full((3, n_layers, n_units), np.nan) for key in means}
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
                    if n_units > 1:
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
                name = f"{label}_share_{key}"
                variables |= banded(name, means[key][part], left[key][part].T)
        return xarray.Dataset(
            variables,
            coords={
                "layer": names,
                "bound": ["low", "high"],
                **self.design.axes.coordinates(),
            },
        )
