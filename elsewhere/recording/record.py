"""Recording a sweep to a file, and what that will cost."""

from __future__ import annotations

import datetime
import importlib.metadata
import io
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from elsewhere.errors import InputError, StorageError, UnknownNameError
from elsewhere.measures.vectors import to_numpy
from elsewhere.models import Layer
from elsewhere.protocols import Block, Design, LayerLike, Need, Progress, Sink
from elsewhere.recording.sweep import Sweep, rows_of, working_bytes
from elsewhere.storage import FILTER, Header, Keep, RecordingWriter, StoredLayer
from elsewhere.storage.files import check_output, free_bytes
from elsewhere.types import BATCH_ROWS, StorageType, format_bytes, parse_bytes


def parse_keeps(texts: Sequence[str]) -> dict[str, Keep]:
    """Return what ``LAYER=full|mean|sketch:K`` texts ask to keep, by layer name or glob.

    Examples
    --------
    >>> parse_keeps(["relu*=mean", "pool5=sketch:512"])
    {'relu*': Keep(kind='mean', size=0), 'pool5': Keep(kind='sketch', size=512)}
    """
    keeps = {}
    for text in texts:
        layer, separator, kept = text.partition("=")
        if not separator or not layer:
            raise InputError(f"cannot read --keep {text!r}; expected LAYER=full, mean or sketch:K")
        keeps[layer] = Keep.parse(kept)
    return keeps


def make_header(
    sweep: Sweep,
    *,
    layers: Sequence[Layer] | None = None,
    keep: Mapping[str, Keep] | None = None,
    dtype: StorageType = "float32",
    seed: int = 0,
    command: str = "",
) -> Header:
    """Return the header of a recording of `sweep`.

    Parameters
    ----------
    sweep
        What is recorded.
    layers
        Those of its layers that are kept; all of them by default.
    keep
        By layer name, module name or glob: how much of it is kept; in full by default.
    dtype
        Type of the stored activations.
    seed
        Of sketches.
    command
        The command line, for provenance.

    Raises
    ------
    UnknownNameError
        A name in `keep` fits no layer.
    """
    layers = sweep.layers if layers is None else layers
    names = [name for layer in layers for name in (layer.name, layer.module)]
    for pattern in keep or {}:
        if not any(_fits(name, pattern) for name in names):
            raise UnknownNameError("layer", pattern, dict.fromkeys(names), "in --keep")

    def kept(layer: Layer) -> Keep:
        found = Keep()
        for pattern, value in (keep or {}).items():
            if _fits(layer.name, pattern) or _fits(layer.module, pattern):
                found = value
        return found

    determining = sweep.provenance | {"seed": seed}
    determining["object_digest"] = sweep.objects.digest()
    return Header(
        design=sweep.design,
        layers=tuple(StoredLayer.of(layer, keep=kept(layer), seed=seed) for layer in layers),
        dtype=dtype,
        images=sweep.objects.images,
        masks=sweep.objects.masks,
        determining=determining,
        provenance={
            "numerics": sweep.numerics,
            "versions": versions(),
            "command": command,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
    )


def _fits(name: str, pattern: str) -> bool:
    """Return whether `name` is what `pattern` means; brackets belong to names of outputs."""
    return fnmatchcase(name, pattern.replace("[", "[[]"))


def versions() -> dict[str, str]:
    """Return the versions of what made a recording."""
    packages = ("elsewhere", "torch", "torchvision", "numpy", "h5py", "hdf5plugin")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in packages
    }


def record(
    sweep: Sweep,
    path: str | Path,
    *,
    layers: Sequence[Layer] | None = None,
    keep: Mapping[str, Keep] | None = None,
    dtype: StorageType = "float32",
    seed: int = 0,
    also: Sequence[Sink] = (),
    overwrite: bool = False,
    max_memory: int | str = "2GiB",
    command: str = "",
    progress: Progress | None = None,
) -> Path:
    """Record a sweep to an HDF5 file; optionally measure more in the same sweep.

    Parameters
    ----------
    sweep
        What is recorded.
    path
        The file to write. Until it is finished, its parts lie in ``path.parts``; the same call
        goes on with them.
    layers, keep, dtype, seed, command
        See :func:`make_header`.
    also
        Further sinks, for instance a similarity of layers that are not kept.
    overwrite
        Whether an existing file is replaced, after the new one is finished.
    max_memory
        Bytes that sinks may hold.
    progress
        Called with images done and in all.

    Returns
    -------
    Path
        The recording.

    Raises
    ------
    ExistsError
        The file exists.
    StorageError
        It does not fit the disk, or cannot be written.
    NumericsError
        NaN, infinity, or more than `dtype` can hold.
    """
    path = Path(path)
    header = make_header(
        sweep, layers=layers, keep=keep, dtype=dtype, seed=seed, command=command
    )  # fmt: skip
    with RecordingWriter(path, header, overwrite=overwrite) as writer:
        sweep.stream(
            [writer, *also],
            max_memory=parse_bytes(max_memory),
            units=writer.units,
            skip=() if also else writer.done,
            progress=progress,
        )
        writer.finish()
    return path


@dataclass(frozen=True)
class LayerPlan:
    """What a layer of a recording will take: raw and estimated stored bytes."""

    name: str
    kept: str
    raw_bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class Plan:
    """What a recording will cost.

    Parameters
    ----------
    n_objects, n_positions, n_images
        What is swept; the images include padding and repeated sweeps.
    n_sweeps
        How many sweeps the memory makes necessary.
    layers
        Bytes per layer.
    raw_bytes
        Bytes of the kept activations, exactly.
    stored_bytes
        Bytes on the disk, estimated from a compressed sample.
    room_bytes
        Free bytes needed while the parts are merged.
    seconds
        Estimated time, from a timed warm-up.
    memory_bytes
        Estimated peak of network, buffers and what sinks hold.
    engine
        ``dense`` or ``incremental``.
    multiply_adds
        Of convolutions and linear layers over all sweeps; 0 where they were not counted.
    """

    n_objects: int
    n_positions: int
    n_images: int
    n_sweeps: int
    layers: tuple[LayerPlan, ...]
    raw_bytes: int
    stored_bytes: int
    room_bytes: int
    seconds: float
    memory_bytes: int
    engine: str = "dense"
    multiply_adds: int = 0


def plan(
    sweep: Sweep,
    *,
    layers: Sequence[Layer] | None = None,
    keep: Mapping[str, Keep] | None = None,
    dtype: StorageType = "float32",
    seed: int = 0,
    also: Sequence[Sink] = (),
    max_memory: int | str = "2GiB",
) -> Plan:
    """Return what :func:`record` would cost, after running a few batches.

    Parameters
    ----------
    sweep, layers, keep, dtype, seed, max_memory
        As for :func:`record`.
    also
        Further sinks; they are used up.
    """
    header = make_header(sweep, layers=layers, keep=keep, dtype=dtype, seed=seed)
    budget = parse_bytes(max_memory)
    sample = _Sample(header)
    sinks = [sample, *also]
    groups = sweep.groups(sinks, max_memory=budget)
    seconds = sweep.rehearse(sinks, max_memory=budget, units=header.units)
    extra = {"reference", "mean"}
    padded = sweep.choice.name == "dense"
    n_grid = rows_of(header.units) if padded else len(sweep.objects) * sweep.design.n_positions
    n_images, duration = 0, 0.0
    for group, each in zip(groups, seconds, strict=True):
        stages = {
            stage
            for sink in sinks
            for layer in group.layers
            for need in sink.needs(layer)
            for stage in need.stages
        }
        n_reference = math.ceil(len(sweep.objects) / BATCH_ROWS) * BATCH_ROWS
        n_reference = n_reference if padded else len(sweep.objects)
        more = {"reference": n_reference, "mean": n_grid}
        images = (
            (BATCH_ROWS if padded else 1) + n_grid + sum(more[stage] for stage in stages & extra)
        )
        n_images += group.parts * images
        duration += group.parts * images / BATCH_ROWS * each
    n = len(sweep.objects) * sweep.design.n_positions
    itemsize = np.dtype(dtype).itemsize
    rows = []
    for layer in header.layers:
        raw = n * math.prod(layer.stored_shape) * itemsize
        rows.append(LayerPlan(layer.name, str(layer.keep), raw, int(raw * sample.share(layer))))
    stored = sum(row.stored_bytes for row in rows)
    unit_bytes = max(math.prod(unit.shape) for unit in header.units) * header.bytes_per_image
    return Plan(
        n_objects=len(sweep.objects),
        n_positions=sweep.design.n_positions,
        n_images=n_images,
        n_sweeps=sum(group.parts for group in groups),
        layers=tuple(rows),
        raw_bytes=sum(row.raw_bytes for row in rows),
        stored_bytes=stored,
        room_bytes=2 * stored,
        seconds=duration,
        memory_bytes=int(
            working_bytes(sweep)
            + max(group.held for group in groups)
            + 3 * unit_bytes
            + max(sweep.window_bytes(group, sinks, max_memory=budget) for group in groups)
        ),
        engine=sweep.choice.name,
        multiply_adds=sum(sweep.multiply_adds(group, sinks, max_memory=budget) for group in groups),
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
    if cost.room_bytes > free:
        raise StorageError(
            f"{path} would need about {format_bytes(cost.room_bytes)} of disk while it is merged, "
            f"and {format_bytes(free)} are free; keep fewer layers, or less of them "
            "(--keep LAYER=mean), or write to another disk"
        )


class _Sample:
    """A sink that keeps some activations of each layer, to see how they compress."""

    def __init__(self, header: Header) -> None:
        self._layers = {layer.name: layer for layer in header.layers}
        self._dtype = header.dtype
        self._shares: dict[str, list[float]] = {}

    def needs(self, layer: LayerLike) -> tuple[Need, ...]:
        stored = self._layers.get(layer.name)
        return () if stored is None else (stored.need,)

    def held(self, layer: LayerLike, design: Design, parts: int = 1) -> float:
        return 0.0

    def begin(
        self, design: Design, layers: Sequence[LayerLike], part: int = 0, parts: int = 1
    ) -> None:
        self._shares = {layer.name: self._shares.get(layer.name, []) for layer in layers}

    def add(self, block: Block) -> None:
        layer = self._layers[block.layer]
        if layer.keep.kind == "mean":
            values = block.mean()
        elif layer.keep.kind == "sketch":
            values = block.sketch(layer.keep.size, layer.seed)
        else:
            values = block.full()
        if len(self._shares[layer.name]) < 2:
            few = to_numpy(values[: 2 if math.prod(layer.stored_shape) > 2**18 else None])
            with np.errstate(over="ignore"):  # the writer says so, and of which layer
                stored = few.astype(self._dtype)
            self._shares[layer.name].append(compressed_share(stored))

    def end(self) -> None:
        pass

    def share(self, layer: StoredLayer) -> float:
        """Return stored over raw bytes of a layer."""
        return float(np.mean(self._shares.get(layer.name) or [1.0]))


def compressed_share(values: NDArray[Any]) -> float:
    """Return stored over raw bytes of `values` in the recording's filter, shape (row, ...)."""
    rows = max(1, min(len(values), 2**20 // max(1, values[0].nbytes)))
    first = values.shape[1]
    if values[0].nbytes > 2**20:
        first = max(1, 2**20 // (values[0].nbytes // values.shape[1]))
    with h5py.File(io.BytesIO(), "w") as file:
        chunks = (rows, first, *values.shape[2:])
        dataset = file.create_dataset("values", data=values, chunks=chunks, **FILTER)
        return float(dataset.id.get_storage_size() / values.nbytes)
