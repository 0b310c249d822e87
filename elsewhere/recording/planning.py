"""What a recording will cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from elsewhere.errors import StorageError
from elsewhere.models import Layer
from elsewhere.protocols import Sink, Stage
from elsewhere.recording.engines import Cut
from elsewhere.recording.record import make_header
from elsewhere.recording.sampling import Sample
from elsewhere.recording.sweep import Sweep
from elsewhere.sources import Takers, restarting
from elsewhere.storage import Header, Keep
from elsewhere.storage.files import check_output, free_bytes
from elsewhere.storage.merge import portion_files
from elsewhere.storage.parts import parts_folder
from elsewhere.types import StorageType, format_bytes, parse_bytes


@dataclass(frozen=True)
class LayerPlan:
    """What a layer of a recording will take: raw and estimated stored bytes."""

    name: str
    kept: str
    raw_bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class Plan:
    """What a recording will cost."""

    n_objects: int
    n_positions: int
    n_images: int  # padding and repeated sweeps included
    n_sweeps: int  # as many as the memory makes necessary
    layers: tuple[LayerPlan, ...]
    raw_bytes: int  # of the kept activations, exactly
    stored_bytes: int  # on the disk, estimated from a compressed sample
    room_bytes: int  # that have to be free while the parts are merged
    seconds: float  # estimated from a timed warm-up
    memory_bytes: int  # estimated peak of network, buffers and what sinks hold
    engine: str = "dense"
    multiply_adds: int = 0  # of convolutions and linear layers; 0 where they were not counted
    n_tasks: int = 1  # pieces of work that processes can share: portions, or tiles of portions

    def shared(self, workers: int) -> Plan:
        """Return what it costs if so many processes share the work, each as fast as one alone."""
        at_once = max(1, min(workers, self.n_tasks))
        turns = math.ceil(self.n_tasks / at_once)
        return replace(
            self,
            seconds=self.seconds * turns / max(1, self.n_tasks),
            memory_bytes=self.memory_bytes * at_once,
        )


@restarting
def plan(
    sweep: Sweep,
    *,
    layers: Sequence[Layer] | None = None,
    keep: Mapping[str, Keep] | None = None,
    dtype: StorageType = "float32",
    seed: int = 0,
    also: Sequence[Sink] = (),
    max_memory: int | str = "2GiB",
    header: Header | None = None,
) -> Plan:
    """Return what :func:`record` would cost, after running a few batches.

    Parameters
    ----------
    sweep, layers, keep, dtype, seed, max_memory
        As for :func:`record`.
    also
        Further sinks; they are used up.
    header
        As for :func:`record`.
    """
    if header is None or header.numerics.get("engine") != sweep.choice.name:  # it stepped aside
        header = make_header(
            sweep, layers=layers, keep=keep, dtype=dtype, seed=seed, also=also,
            max_memory=max_memory, identified=False,
        )  # fmt: skip
    budget = parse_bytes(max_memory)
    sample = Sample(header)
    sinks = [sample, *also]
    portions, engine = header.portions, sweep.choice
    groups = [
        (group, Takers(group.layers, sinks))
        for group in sweep.groups(sinks, max_memory=budget, tile=header.tile)
    ]
    n_images, duration = 0, 0.0
    with sweep.running():
        for group, takers in groups:
            takers.begin(sweep.design, 0, group.parts)
            seconds = engine.rehearse(group, takers, Cut(portions, (), budget))
            stages: set[Stage] = {"empty", "grid", *takers.stages}
            images = sum(engine.n_images(stage, sweep.design, portions) for stage in stages)
            n_images += group.parts * images
            duration += group.parts * images * seconds
    n = len(sweep.objects) * sweep.design.n_positions
    itemsize = np.dtype(dtype).itemsize
    rows = []
    for layer in header.layers:
        raw = n * math.prod(layer.stored_shape) * itemsize
        rows.append(LayerPlan(layer.name, str(layer.keep), raw, int(raw * sample.share(layer))))
    stored = sum(row.stored_bytes for row in rows)
    portion_bytes = max(math.prod(portion.shape) for portion in portions) * header.bytes_per_image
    return Plan(
        n_objects=len(sweep.objects),
        n_positions=sweep.design.n_positions,
        n_images=n_images,
        n_sweeps=sum(group.parts for group, _ in groups),
        layers=tuple(rows),
        raw_bytes=sum(row.raw_bytes for row in rows),
        stored_bytes=stored,
        room_bytes=2 * stored,
        seconds=duration,
        memory_bytes=int(
            working_bytes(sweep)
            + max(group.held for group, _ in groups)
            + 3 * portion_bytes
            + max(engine.peak_bytes(group, sinks, budget) for group, _ in groups)
        ),
        engine=engine.name,
        multiply_adds=sum(
            group.parts * engine.multiply_adds(group, takers, budget, takers.stages)
            for group, takers in groups
        ),
        n_tasks=len(sweep.tasks(portions, header.tile)),
    )


def check_room(cost: Plan, path: Path, *, overwrite: bool = False) -> None:
    """Refuse a plan that does not fit the free disk.

    Raises
    ------
    ExistsError
        The output exists.
    StorageError
        The room that recording and merging need is more than what is free.
    """
    check_output(path, overwrite=overwrite)
    free = free_bytes(path)
    there = sum(part.stat().st_size for _, part in portion_files(parts_folder(path)))
    if cost.room_bytes - there > free:
        raise StorageError(
            f"{path} would need about {format_bytes(cost.room_bytes - there)} of disk while it "
            f"is merged, and {format_bytes(free)} are free; keep fewer layers, or less of them "
            "(--keep LAYER=mean), or write to another disk"
        )


def working_bytes(sweep: Sweep) -> int:
    """Return about how much a forward pass takes: weights, inputs and the largest activations."""
    module = sweep.model.module
    weights = sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
    return weights + sweep.rows * sweep.subject.image_bytes


__all__ = ["LayerPlan", "Plan", "check_room", "plan", "working_bytes"]
