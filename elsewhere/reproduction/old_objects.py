"""Are objects that a network once knew still told apart, wherever they stand?

After a new head has been learnt the old one is gone, so old objects are looked for by their
nearest class centroid in a layer: centroids from exemplars at one location, tested elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.measures.accuracy import (
    INDEX_GATE,
    balanced_mean,
    invariance_index,
    normalized_accuracy,
)
from elsewhere.measures.intervals import Spread, share_interval
from elsewhere.measures.vectors import to_numpy
from elsewhere.models import Model
from elsewhere.protocols import Block, Design, Layer, Need, Sink
from elsewhere.recording import Sweep
from elsewhere.sources import restarting
from elsewhere.stimuli import Canvas, Grid, ObjectSet
from elsewhere.types import Location


class FeatureSink(Sink):
    """Keeps a layer's activations of every object, at the reference and on the grid."""

    def __init__(self) -> None:
        self.reference: NDArray[np.float32] = np.empty(0, np.float32)
        self.elsewhere: NDArray[np.float32] = np.empty(0, np.float32)

    def needs(self, layer: Layer) -> tuple[Need, ...]:
        """Return whole activations, at the reference and on the grid."""
        return (Need("full", frozenset({"reference", "grid"})),)

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        """Return one activation for each object and place."""
        return float(len(design.objects) * (design.n_positions + 1))

    def begin(self, design: Design, layers: Sequence[Layer], part: int = 0, parts: int = 1) -> None:
        """Prepare for one layer."""
        units, n = int(np.prod(layers[0].shape)), len(design.objects)
        self.reference = np.zeros((n, units), np.float32)
        self.elsewhere = np.zeros((n, design.n_positions, units), np.float32)

    def add(self, block: Block) -> None:
        """Take a block."""
        values = to_numpy(block.full()).reshape(len(block.objects), -1)
        if block.stage == "reference":
            self.reference[block.objects] = values
        else:
            self.elsewhere[block.objects, block.positions] = values


def nearest_centroid(train: ArrayLike, labels: ArrayLike, test: ArrayLike) -> NDArray[np.int64]:
    """Return the class whose centroid is most alike, by the cosine, to each test vector: int64
    (...).

    `train` are vectors (object, unit), each of which counts with length one, `labels` their
    classes, from 0 on, and `test` vectors (..., unit).

    Examples
    --------
    >>> nearest_centroid([[1, 0], [0, 2]], [0, 1], [[3, 1], [1, 3]])
    array([0, 1])
    """
    known, codes = _unit(train), np.asarray(labels, np.int64)
    centroids = np.stack([known[codes == code].mean(0) for code in range(codes.max() + 1)])
    return np.asarray((_unit(test) @ _unit(centroids).T).argmax(-1), np.int64)


def old_object_indices(
    model: Model,
    objects: ObjectSet,
    held_out: NDArray[np.bool_],
    *,
    canvas: Canvas,
    grid: Grid,
    trained: Location,
    layer: str,
) -> dict[str, float]:
    """Return how much of the knowledge of objects at one location there is far from it.

    The `objects` are exemplars of classes that the network once knew; those that are not held out,
    at the location `trained`, make the centroids in `layer`.

    Returns
    -------
    dict
        For ``same`` and ``held-out`` exemplars: ``index``, N far from the location as a share of
        N on it (NaN unless the lower bound of that exceeds 0.5, for new exemplars of the same
        classes, or it itself where exemplars are too few for an interval); ``on`` and ``far``, the
        accuracies.
    """
    sweep = Sweep(model, objects, canvas=canvas, grid=grid, reference=trained, layers=[layer])
    sink = FeatureSink()
    restarting(Sweep.stream)(sweep, [sink])  # the sink begins again
    labels, n_classes = objects.category_index, len(objects.category_names)
    seen = ~held_out
    on = nearest_centroid(sink.reference[seen], labels[seen], sink.reference)
    there = nearest_centroid(sink.reference[seen], labels[seen], sink.elsewhere)
    far = grid.far_from([trained], canvas.object_size)
    found: dict[str, float] = {}
    for name, rows in (("same", seen), ("held-out", held_out)):
        if not rows.any() or not far.any():
            found |= {f"{part}/{name}": float("nan") for part in ("index", "on", "far")}
            continue
        here = labels[rows]
        on_share = float(balanced_mean(on[rows] == here, here))
        far_share = float(balanced_mean((there[rows][:, far] == here[:, None]).mean(1), here))
        # not the stricter gate of II_far: nobody trained on this, and it may be half forgotten
        low = float(share_interval(Spread.of(on[rows] == here, here))[0])
        sure = on_share if math.isnan(low) else low
        measurable = float(normalized_accuracy(sure, n_classes)) > INDEX_GATE
        index = float(invariance_index(far_share, on_share, n_classes))
        found |= {
            f"index/{name}": index if measurable else float("nan"),
            f"on/{name}": on_share,
            f"far/{name}": far_share,
        }
    return found


def _unit(rows: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(rows, np.float64)
    norms = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.asarray(values / np.where(norms > 0, norms, 1.0))
