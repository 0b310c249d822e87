"""The authors' protocol, for comparison with published figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray

from elsewhere.analyzer.similarity import finish
from elsewhere.errors import InputError, LayerError
from elsewhere.forms import shortcuts
from elsewhere.measures.responses import find_responses
from elsewhere.measures.similarity_sink import SimilaritySink
from elsewhere.protocols import Progress, Source
from elsewhere.sources import restarting
from elsewhere.types import parse_bytes

PROTOCOL = "biscione-bowers"


@restarting
def similarity_biscione_bowers(
    source: Source,
    *,
    layers: Sequence[str] | None = None,
    seed: int = 0,
    max_memory: int | str = "2GiB",
    progress: Progress | None = None,
) -> xarray.Dataset:
    """Return similarity as the authors' released code measures it.

    One random exemplar of each category, uncentred cosine, along the middle row from the leftmost
    location, which counts in the means. Their hooks kept outputs that an in-place ReLU then
    changed: the values after the ReLU, hence the ReLU layers here.

    Parameters
    ----------
    source
        A recording, or a live sweep.
    layers
        Names of layers; by default the ReLU layers.
    seed
        Draws the exemplars.
    max_memory, progress
        As for :func:`elsewhere.analyzer.similarity`.

    Returns
    -------
    xarray.Dataset
        As :func:`elsewhere.analyzer.similarity`, on a grid of one row.

    Raises
    ------
    LayerError
        No layer is named and the source has no ReLU layer.
    InputError
        Objects are changed along an axis, and never shown as they are.

    References
    ----------
    Biscione & Bowers (2021), Journal of Machine Learning Research 22(229).
    """
    design = source.design
    rng = np.random.default_rng(seed)
    codes = design.category_codes
    chosen = [int(rng.choice(np.flatnonzero(codes == code))) for code in range(codes.max() + 1)]
    if layers is None:
        layers = [layer.name for layer in source.layers if layer.kind == "ReLU"]
        if not layers:
            raise LayerError(
                f"--protocol {PROTOCOL} compares ReLU layers, and there is none among "
                f"{', '.join(layer.name for layer in source.layers)}; name layers with --layers"
            )
    ys, xs = design.axes.moving.values
    middle = ys[len(ys) // 2]
    row = [design.axes.index(design.at((middle, x)).reference) for x in xs]
    if None in row:
        changed = ", ".join(axis.name for axis in design.axes.changing)
        raise InputError(
            f"--protocol {PROTOCOL} compares objects as they are, and they are not among the "
            f"values of {changed}; record those as well"
        )
    positions = [at for at in row if at is not None]
    with source.select(chosen, positions).at((middle, xs[0])) as narrowed:
        memory = parse_bytes(max_memory)
        responses = find_responses(narrowed, layers, max_memory=memory, counted=True)
        sink = SimilaritySink(layers=layers, include_reference=True)
        narrowed.stream([sink], max_memory=memory, progress=progress)
        result = sink.result(
            [layer.name for layer in source.layers], beside=shortcuts(source.layers)
        )
        result.attrs["notes"] = responses.notes + result.attrs["notes"]
        return finish(result, narrowed, metric="cosine", protocol=PROTOCOL)
