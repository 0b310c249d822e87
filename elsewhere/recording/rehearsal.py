"""Running a few batches of a sweep, to say what all of it would cost."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import numpy as np

from elsewhere.errors import LayerError
from elsewhere.models import untouched
from elsewhere.models.forward import evaluating, exact
from elsewhere.protocols import Sink
from elsewhere.recording.images import Images, batches_of
from elsewhere.recording.incremental.streaming import cells_of, room_of, sample_tile
from elsewhere.recording.sweep import Group, Sweep
from elsewhere.storage.recording import DEFAULT_MEMORY
from elsewhere.storage.units import Units
from elsewhere.types import BATCH_ROWS


def rehearse(
    sweep: Sweep,
    sinks: Sequence[Sink],
    *,
    max_memory: int = DEFAULT_MEMORY,
    units: Units | None = None,
    tile: Sequence[int] | None = None,
    n_batches: int = 2,
) -> list[float]:
    """Run a few batches of each group and return the seconds that a batch takes.

    Parameters
    ----------
    sweep
        What is to be swept.
    sinks
        Sinks to try; they are of no use afterwards.
    max_memory, units, tile
        As for :meth:`elsewhere.recording.Sweep.stream`.
    n_batches
        Timed batches; one more goes before them.

    Returns
    -------
    list of float
        Seconds per batch of the grid stage, for each group.
    """
    units = Units.cut(sweep.design) if units is None else units
    seconds, module = [], sweep.model.module
    with untouched(module), evaluating(module), exact(sweep.model.device):
        images = Images(sweep.model, sweep.objects, sweep.canvas, sweep.rows)
        for group in sweep.groups(sinks, max_memory=max_memory, tile=tile):
            takers = [sink for sink in sinks if any(map(sink.needs, group.layers))]
            for sink in takers:
                wanted = [layer for layer in group.layers if sink.needs(layer)]
                sink.begin(sweep.design, wanted, 0, group.parts)
            if sweep.windows is not None:
                seconds.append(_rehearse_windows(sweep, group, takers, units, max_memory))
                continue
            durations: list[float] = []
            for stage in sweep.stages(group, sinks):
                few = n_batches + 1 if stage == "grid" else 1
                batches = batches_of(stage, sweep.design, units, rows=sweep.rows)
                found = list(itertools.islice(batches, few))
                durations = []
                begin = time.perf_counter()
                for _ in sweep.run(found, group, takers, images):
                    durations.append(time.perf_counter() - begin)
                    begin = time.perf_counter()
            seconds.append(float(np.median(durations[1:] or durations)))
    return seconds


def _rehearse_windows(
    sweep: Sweep, group: Group, sinks: Sequence[Sink], units: Units, max_memory: int
) -> float:
    """Return seconds per :data:`BATCH_ROWS` images, from a few locations of the middle row."""
    windows, room = sweep.windows, room_of(max_memory)
    if windows is None:
        raise LayerError("there is no incremental engine to rehearse")
    tile, seconds = sample_tile(sweep.design), 0.0
    for stage in sweep.stages(group, sinks):
        begin = time.perf_counter()
        tiles = [tile] if stage == "grid" else None
        for _ in windows.run(stage, group.layers, sinks, units=units, max_bytes=room, tiles=tiles):
            pass
        seconds = time.perf_counter() - begin
    every = windows.tiles("grid", group.layers, sinks, room, group.tile)
    work = [windows.engine.multiply_adds(t, group.layers) for t in ([tile], every)]
    ratio = work[1] / work[0] if work[0] else cells_of(every) / cells_of([tile])
    return seconds * ratio * BATCH_ROWS / cells_of(every)
