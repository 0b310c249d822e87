"""Lost or hidden: what of an object's code a move takes, beside the claims about recognition."""

from __future__ import annotations

from elsewhere.analyzer.all_measures import measure
from elsewhere.models import Model
from elsewhere.recording import Sweep
from elsewhere.stimuli import Canvas, Grid, ObjectSet
from elsewhere.types import Location

PARTS = {
    "raw": "raw_away",
    "mapped": "mapped_away",
    "ceiling": "ceiling",
    "lost": "lost",
    "hidden": "hidden",
    "null": "null_away",
    "chance": "chance",
}
"""Names of values, and those of the variables of the measure ``identification``."""


def identify(
    model: Model, objects: ObjectSet, canvas: Canvas, grid: Grid, reference: Location, layer: str
) -> dict[str, float]:
    """Return how often objects are identified elsewhere by a layer's code.

    Parameters
    ----------
    model
        The network.
    objects
        Objects that it was not trained on, of six categories or more.
    canvas, grid
        Where they are shown; the rows and columns of the reference are added to the grid.
    reference
        Where the candidates stand.
    layer
        The layer.

    Returns
    -------
    dict
        By the names of :data:`PARTS`; NaN where that cannot be asked.
    """
    with_reference = Grid(
        y=tuple(sorted({*grid.y, reference[0]})), x=tuple(sorted({*grid.x, reference[1]}))
    )
    sweep = Sweep(
        model, objects, canvas=canvas, grid=with_reference, reference=reference, layers=[layer]
    )
    found = measure(sweep, names="identification")
    return {name: float(found[f"identification_{key}"][0]) for name, key in PARTS.items()}
