"""How HDF5 filters compress VGG16's activations, and how fast: the ground of decision 0002.

    python -m benchmarks.compression

One thread; four canvases with an object each; chunks as a recording has them, about 1 MiB.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import torch
from numpy.typing import NDArray

from elsewhere.models import load_model
from elsewhere.recording import Recorder
from elsewhere.stimuli import Canvas, load_objects
from elsewhere.storage.units import CHUNK_BYTES

LAYERS = ["relu1_1", "relu1_2", "relu2_2", "relu3_3", "relu4_3", "conv5_3", "relu5_3", "pool5"]
LAYERS += ["fc6", "relu6"]
BLOSC2 = hdf5plugin.Blosc2
FILTERS: dict[str, dict[str, Any]] = {
    "gzip 4, shuffle": {"compression": "gzip", "compression_opts": 4, "shuffle": True},
    "lzf, shuffle": {"compression": "lzf", "shuffle": True},
    "zstd 1": dict(hdf5plugin.Zstd(clevel=1)),
    "zstd 3, shuffle": {"shuffle": True, **hdf5plugin.Zstd(clevel=3)},
    "blosc lz4": dict(hdf5plugin.Blosc(cname="lz4", clevel=5)),
    "blosc zstd 1": dict(hdf5plugin.Blosc(cname="zstd", clevel=1)),
    "blosc2 lz4": dict(BLOSC2(cname="lz4", clevel=5, filters=BLOSC2.SHUFFLE)),
    "blosc2 zstd 1": dict(BLOSC2(cname="zstd", clevel=1, filters=BLOSC2.SHUFFLE)),
    "bitshuffle lz4": dict(hdf5plugin.Bitshuffle(cname="lz4")),
}
_names = itertools.count()


def activations() -> dict[str, NDArray[np.float32]]:
    """Return activations of VGG16 for four objects at four places."""
    model = load_model("vgg16")
    canvas = Canvas()
    patches = load_objects("novel", categories=4).patches((0, 0, 0))
    places = [(25, 25), (85, 105), (125, 55), (199, 199)]
    pixels = torch.from_numpy(canvas.paste(patches, places, (0, 0, 0)))
    with Recorder(model.module, LAYERS) as recorder:
        model.module(model.transform.apply(pixels))
        return {name: recorder[name].numpy().copy() for name in LAYERS}


def measure(values: NDArray[np.float32], options: dict[str, Any]) -> tuple[int, float, float]:
    """Return stored bytes, seconds to write and seconds to read."""
    one = values[0].nbytes
    if one > CHUNK_BYTES:
        first = max(1, CHUNK_BYTES // (one // values.shape[1]))
        chunks = (1, first, *values.shape[2:])
    else:
        chunks = (min(len(values), CHUNK_BYTES // one), *values.shape[1:])
    with h5py.File(f"b{next(_names)}", "w", driver="core", backing_store=False) as file:
        begin = time.perf_counter()
        dataset = file.create_dataset("values", data=values, chunks=chunks, **options)
        file.flush()
        written = time.perf_counter()
        back = dataset[()]
        read = time.perf_counter()
        if not np.array_equal(back, values):
            raise AssertionError("the filter lost something")
        return dataset.id.get_storage_size(), written - begin, read - written


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    arrays = activations()
    raw = sum(values.nbytes for values in arrays.values())
    print(f"{'filter':18s} {'ratio':>6s} {'write':>6s} {'read':>6s} MB/s   ratio per layer")
    for name, options in FILTERS.items():
        found = {layer: measure(values, options) for layer, values in arrays.items()}
        stored, write, read = (sum(f[i] for f in found.values()) for i in range(3))
        each = " ".join(f"{k}:{arrays[k].nbytes / v[0]:.1f}" for k, v in found.items())
        speeds = f"{raw / write / 1e6:6.0f} {raw / read / 1e6:6.0f}"
        print(f"{name:18s} {raw / stored:6.1f} {speeds}        {each}", flush=True)


if __name__ == "__main__":
    main()
