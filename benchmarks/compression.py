"""How HDF5 filters compress VGG16's ReLU layers, how fast, and what reading them costs an analysis.

    python -m benchmarks.compression

One thread, CPU time. Four canvases with an object each, random weights; chunks as a recording has
them, about 1 MiB. Goals: 8 times smaller than raw, written at 600 MB/s a core, analysed within 1.1
times the time of files that are not compressed. The ground of decisions 0002 and 0006.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import torch
from numpy.typing import NDArray

from elsewhere.analyzer import similarity
from elsewhere.models import Model, load_model
from elsewhere.recording import Recorder, Sweep, make_header, record
from elsewhere.stimuli import Canvas, Grid, load_objects
from elsewhere.storage import FILTER, PortionWriter, open_recording
from elsewhere.storage.merge import seal_recording
from elsewhere.storage.portions import CHUNK_BYTES

BLOCKS = ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3))
RELUS = [f"relu{b}_{i}" for b, n in BLOCKS for i in range(1, n + 1)] + ["relu6", "relu7"]
BLOSC2 = hdf5plugin.Blosc2
FILTERS: dict[str, dict[str, Any]] = {
    "gzip 4, shuffle": {"compression": "gzip", "compression_opts": 4, "shuffle": True},
    "lzf, shuffle": {"compression": "lzf", "shuffle": True},
    "zstd 1": dict(hdf5plugin.Zstd(clevel=1)),
    "zstd 1, fletcher32": FILTER,
    "zstd 1, shuffle": {"shuffle": True, **hdf5plugin.Zstd(clevel=1)},
    "zstd 3, shuffle": {"shuffle": True, **hdf5plugin.Zstd(clevel=3)},
    "blosc2 lz4": dict(BLOSC2(cname="lz4", clevel=5, filters=BLOSC2.SHUFFLE)),
    "blosc2 zstd 1": dict(BLOSC2(cname="zstd", clevel=1, filters=BLOSC2.SHUFFLE)),
    "bitshuffle lz4": dict(hdf5plugin.Bitshuffle(cname="lz4")),
}
_names = itertools.count()


def activations(model: Model, background: int) -> dict[str, NDArray[np.float32]]:
    """Return the ReLU layers' activations for four objects at four places."""
    canvas, color = Canvas(), (background,) * 3
    patches = load_objects("novel", categories=4).patches(color)
    places = [(25, 25), (85, 105), (125, 55), (199, 199)]
    pixels = torch.from_numpy(canvas.paste(patches, places, color))
    with Recorder(model.module, RELUS) as recorder:
        model.module(model.transform.apply(pixels))
        return {name: recorder[name].numpy().copy() for name in RELUS}


def chunks_of(values: NDArray[np.float32]) -> tuple[int, ...]:
    """Return the chunks that a recording has for such activations."""
    one = values[0].nbytes
    if one > CHUNK_BYTES:
        return (1, max(1, CHUNK_BYTES // (one // values.shape[1])), *values.shape[2:])
    return (min(len(values), CHUNK_BYTES // one), *values.shape[1:])


def measure(values: NDArray[np.float32], options: dict[str, Any]) -> tuple[int, float, float]:
    """Return stored bytes, seconds to write and seconds to read."""
    with h5py.File(f"b{next(_names)}", "w", driver="core", backing_store=False) as file:
        begin = time.process_time()
        dataset = file.create_dataset("values", data=values, chunks=chunks_of(values), **options)
        file.flush()
        written = time.process_time()
        back = dataset[()]
        read = time.process_time()
        if not np.array_equal(back, values):
            raise AssertionError("the filter lost something")
        return dataset.id.get_storage_size(), written - begin, read - written


def compare_filters(arrays: dict[str, NDArray[np.float32]]) -> None:
    """Print the table of filters, then our own layer by layer."""
    raw = sum(values.nbytes for values in arrays.values())
    count = sum(values.size for values in arrays.values())
    print(f"{'filter':20s} {'ratio':>6s} {'bytes each':>10s} {'write':>6s} {'read':>6s} MB/s")
    for name, options in FILTERS.items():
        found = [measure(values, options) for values in arrays.values()]
        stored, write, read = (sum(each[i] for each in found) for i in range(3))
        speeds = f"{raw / write / 1e6:6.0f} {raw / read / 1e6:6.0f}"
        print(f"{name:20s} {raw / stored:6.1f} {stored / count:10.3f} {speeds}", flush=True)
        if options is FILTER:
            each = [
                f"{layer} {size / values.size:.2f}"
                for (layer, values), (size, _, _) in zip(arrays.items(), found, strict=True)
            ]
    print("bytes per activation, zstd 1, fletcher32: " + ", ".join(each), flush=True)


def unit_rate(model: Model) -> float:
    """Return MB/s of raw activations that one core makes into units: filled and compressed."""
    objects = load_objects("novel", categories=8)
    canvas = Canvas()
    sweep = Sweep(
        model, objects, canvas=canvas, grid=Grid((60,), (60, 61, 62)), layers=RELUS, engine="dense"
    )
    header = make_header(sweep, identified=False)
    seconds: list[float] = []

    class Timed(PortionWriter):
        def add(self, block: Any) -> None:
            begin = time.process_time()
            super().add(block)
            seconds.append(time.process_time() - begin)

    sizes: list[int] = []
    writer = Timed(header, header.portions, lambda _, data: sizes.append(len(data)))
    sweep.stream([writer], portions=header.portions)
    after_the_first = seconds[len(seconds) // 3 :]  # which allocates the arrays
    return 2 * 8 * header.bytes_per_image / sum(after_the_first) / 1e6


def uncompressed(path: Path, target: Path) -> None:
    """Write a recording again without any filter."""
    with h5py.File(path) as source, h5py.File(target, "w") as file:
        for name in source:
            source.copy(name, file)
        file.attrs.update(source.attrs)
        for name in source["layers"]:
            group, values = file["layers"][name], source["layers"][name]["activation"]
            del group["activation"]
            group.create_dataset("activation", data=values[...], chunks=values.chunks)
    seal_recording(target)


def seconds_of(work: Callable[[], object]) -> float:
    """Return the CPU seconds that `work` takes."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def seconds_cold(path: Path) -> float:
    """Return the seconds to analyse a file that the system does not hold in memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    begin = time.perf_counter()
    with open_recording(path) as recording:
        similarity(recording)
    return time.perf_counter() - begin


def compare_reading(model: Model, n_pairs: int = 7) -> tuple[list[float], list[float]]:
    """Return ratios of the time to analyse a recording over that of a raw file, warm and cold.

    Warm is processor time, with both files in the system's memory; cold is wall time from disk.
    """
    objects = load_objects("novel", categories=6)
    layers = ["relu3_3", "relu4_3", "relu5_3", "relu6", "relu7"]
    sweep = Sweep(model, objects, canvas=Canvas(), grid=Grid((25, 112), (25, 70)), layers=layers)
    with tempfile.TemporaryDirectory() as folder:
        path, raw = Path(folder) / "run.h5", Path(folder) / "raw.h5"
        record(sweep, path)
        uncompressed(path, raw)
        with open_recording(path) as one, open_recording(raw) as other:
            similarity(one), similarity(other)
            warm = [
                seconds_of(lambda: similarity(one)) / seconds_of(lambda: similarity(other))
                for _ in range(n_pairs)
            ]
        cold = [seconds_cold(path) / seconds_cold(raw) for _ in range(n_pairs)]
    return warm, cold


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    model = load_model("vgg16")
    for background in (0, 128):
        print(f"ReLU layers of VGG16, 224 px, objects of 50 px on a background of {background}")
        compare_filters(activations(model, background))
    print(f"units of work (filled, compressed, encoded): {unit_rate(model):.0f} MB/s a core")
    for name, ratios in zip(("in memory", "from disk"), compare_reading(model), strict=True):
        middle, low, high = np.median(ratios), min(ratios), max(ratios)
        print(f"similarity over that of a raw file, {name}: {middle:.2f} [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()
