"""Where a spatial transformer looks: its window in px, and how far that is from the object.

The network is of :mod:`elsewhere.models.spatial_transformer`, whose layer `window.place` gives
``(size, x, y)`` as shares of the canvas: -1 is its left or upper edge, 1 its right or lower one
(Jaderberg et al. 2015, equation 2).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import InputError
from elsewhere.measures.blocks import check_finite, rows_needed, rows_of
from elsewhere.measures.catalogue import MakeSinks, Measure, entry, measures
from elsewhere.measures.intervals import Sampled
from elsewhere.measures.sinks import LayerSink
from elsewhere.measures.tables import Variables, estimated, scalar
from elsewhere.measures.unit_chunks import Floats
from elsewhere.measures.vectors import to_numpy
from elsewhere.protocols import Block, Design, Layer, Need, Source

PLACE = "WindowPlace"
"""The class of the module that gives the window."""


def window_px(places: ArrayLike, canvas: int) -> Floats:
    """Return windows in px, from the canvas's upper left corner.

    Parameters
    ----------
    places
        Shape (..., 3): size, x and y as shares of the canvas.
    canvas
        Its side, px.

    Returns
    -------
    float64 (..., 3): y and x of the middle, and the side.

    Examples
    --------
    >>> window_px([0.25, -0.5, 0.0], 48)
    array([24., 12., 12.])
    """
    size, x, y = np.moveaxis(np.asarray(places, np.float64), -1, 0)
    return np.stack([(y + 1) / 2 * canvas, (x + 1) / 2 * canvas, np.abs(size) * canvas], axis=-1)


def window_error(
    places: ArrayLike, locations: ArrayLike, *, canvas: int, object_size: int
) -> Floats:
    """Return how far the middle of a window is from that of the object's box, px.

    Parameters
    ----------
    places
        Shape (object, location, 3): size, x and y of each window as shares of the canvas.
    locations
        int (location, 2): y and x of the objects, px.
    canvas, object_size
        Sides, px.

    Returns
    -------
    float64 (object, location)

    Raises
    ------
    InputError
        Shapes do not fit together.

    Examples
    --------
    >>> window_error([[[0.25, -0.5, 0.0]]], [[24, 15]], canvas=48, object_size=12)
    array([[3.]])
    """
    windows = window_px(places, canvas)
    if windows.ndim != 3 or windows.shape[1:] != (len(np.asarray(locations)), 3):
        raise InputError(
            f"windows of shape {np.shape(places)} for {len(np.asarray(locations))} locations; "
            "expected (object, location, 3)"
        )
    found: Floats = np.linalg.norm(windows[..., :2] - _middles(locations, object_size), axis=-1)
    return found


def _middles(locations: ArrayLike, object_size: int) -> Floats:
    """Return the middles of objects' boxes, (location, 2), px from the canvas's corner."""
    return np.asarray(locations, np.float64) - object_size // 2 + object_size / 2


class WindowSink(LayerSink):
    """Turns what a spatial transformer gives into px, for every object at every location.

    `canvas` and `object_size` are sides, px.
    """

    def __init__(
        self, *, canvas: int, object_size: int, layers: Sequence[str] | None = None
    ) -> None:
        super().__init__(layers)
        self.canvas, self.object_size = canvas, object_size
        self._places: dict[str, NDArray[np.float64]] = {}

    def needed(self, layer: Layer) -> tuple[Need, ...]:
        """Return the activations of layers that give a window."""
        return (rows_needed(layer, {"grid"}),) if layer.kind == PLACE else ()

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        """Return all windows, which are three numbers each."""
        return 2.0 * len(design.objects) * design.n_positions

    def begin(self, design: Design, layers: Sequence[Layer], part: int = 0, parts: int = 1) -> None:
        """Prepare for a sweep over layers."""
        super().begin(design, layers, part, parts)
        shape = (len(design.objects), design.n_positions, 3)
        self._places = {layer.name: np.full(shape, np.nan) for layer in layers}

    def add(self, block: Block) -> None:
        """Take a block."""
        rows = to_numpy(rows_of(block))
        check_finite(self.design, block, rows)
        self._places[block.layer][block.objects, block.positions] = rows

    def end(self) -> None:
        """Measure the windows of the layers that are through."""
        units = Sampled.of(self.design.category_codes)
        boxes = _middles(self.design.locations, self.object_size)
        still = np.linalg.norm(boxes - self.canvas / 2, axis=1).mean()
        for name, places in self._places.items():
            y, x, side = np.moveaxis(window_px(places, self.canvas), -1, 0)
            errors = window_error(
                places, self.design.locations, canvas=self.canvas, object_size=self.object_size
            )
            each = errors.mean(axis=1)
            found: Variables = {
                key: (("object", "position"), values)
                for key, values in (
                    ("window_y", y), ("window_x", x), ("window_side", side),
                    ("window_error_each", errors),
                )
            }  # fmt: skip
            found["window_error_still"] = scalar(float(still))
            found["window_side_mean"] = scalar(float(side.mean()))
            found |= estimated("window_error", float(each.mean()), units.means_without(each))
            self.variables[name] = found


def _sinks(source: Source, object_size: int | None) -> MakeSinks:
    canvas = int(source.provenance.get("canvas", 0))
    side = int(source.provenance.get("object_size", 0)) if object_size is None else object_size
    if canvas < 1 or side < 1:
        raise InputError("the source does not say the sides of canvas and objects, for 'window'")
    return lambda layers: (WindowSink(canvas=canvas, object_size=side, layers=layers),)


measures.add(
    "window",
    Measure(
        window_error,
        "|m - c|, m the middle of the window that a spatial transformer cuts out, c that of the "
        "object's box, px; the mean over objects and locations",
        ("jaderberg2015",),
        literature={
            "jaderberg2015": entry(
                "inproceedings",
                author="Jaderberg, Max and Simonyan, Karen and Zisserman, Andrew and "
                "Kavukcuoglu, Koray",
                title="Spatial Transformer Networks",
                booktitle="Advances in Neural Information Processing Systems",
                year="2015",
            ),
        },
        sinks=_sinks,
        headline="window_error",
        kind=PLACE,
        pictures=True,
        range="0 and more",
        direction="lower: the window is nearer to the object",
        chance="window_error_still, of a window that stays in the middle of the canvas",
        question="Does a spatial transformer find the object?",
        can="It gives the window that the network sees, in px, for every object at every place.",
        cannot="It cannot be had of networks without a window, nor where the window never moves.",
        least=1,
    ),
    summary="how far a spatial transformer's window is from the object, px",
)
