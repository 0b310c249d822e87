"""What hooks and recording cost over the bare forward pass of VGG16 at 224 px, as ratios.

    python -m benchmarks.recording [--pairs 30] [--threads 2]

Goals: hooks that copy all ReLU layers 1.05, all layers 1.10; recording the default layers 1.05.
The last row is a portion of the default layers' shapes (noise, half of it zero where a ReLU was),
compressed by as many threads as are given, over the time that HDF5 takes by itself.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.ratios import Ratio, compare
from elsewhere.analyzer import SimilaritySink
from elsewhere.models import load_model
from elsewhere.recording import Recorder, Sweep, make_header
from elsewhere.stimuli import Canvas, Grid, load_objects
from elsewhere.storage import RecordingWriter
from elsewhere.storage.compression import encode


def hooked(layers: list[str], n_pairs: int) -> Ratio:
    """Return the time of a batch with the copies of `layers`, over that of a bare batch."""
    model = load_model("vgg16")
    images = torch.rand(8, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    recorder = Recorder(model.module, layers)

    def bare() -> None:
        with torch.inference_mode():
            model.module(images)

    def copied() -> None:
        with recorder:
            model.module(images)

    return compare(bare, copied, n_pairs=n_pairs)


def streamed(*, similarity: bool, n_pairs: int) -> Ratio:
    """Return the time of a sweep that records or compares, over that of its forward passes."""
    sweep = Sweep(
        load_model("vgg16"),
        load_objects("glyphs", categories=8),
        canvas=Canvas(),
        grid=Grid(y=(112,), x=tuple(range(60, 172, 14))),  # one portion
        layers="*" if similarity else None,
        engine="dense",
    )
    batch = torch.zeros(8, 3, 224, 224)
    n_passes = 1 + sweep.design.n_positions  # the empty canvas or the reference comes first

    def bare() -> None:
        with torch.inference_mode():
            for _ in range(n_passes):
                sweep.model.module(batch)

    def recorded() -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            RecordingWriter(Path(folder) / "run.h5", make_header(sweep)) as writer,
        ):
            sweep.stream([writer], portions=writer.portions)

    def compared() -> None:
        sweep.stream([SimilaritySink()], max_memory=2**32)

    return compare(bare, compared if similarity else recorded, n_pairs=n_pairs)


def compressed(threads: int, n_pairs: int) -> Ratio:
    """Return the time to compress a portion by several threads, over that of HDF5 alone."""
    rng = np.random.default_rng(0)
    shapes = {"pool5": (512, 7, 7), "fc6": (4096,), "relu6": (4096,), "logits": (1000,)}
    arrays = {
        name: rng.standard_normal((8, 1, 8, *shape)).astype(np.float32)
        for name, shape in shapes.items()
    }
    for name in ("pool5", "relu6"):
        np.maximum(arrays[name], 0, out=arrays[name])
    chunks = {name: (8, 1, 1, *shape) for name, shape in shapes.items()}

    def encoded(threads: int) -> None:
        encode(arrays, chunks, "float32", start=(0, 0, 0), threads=threads)

    return compare(partial(encoded, 1), partial(encoded, threads), n_pairs=n_pairs)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    relus = [f"relu{b}_{i}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)]
    n, few = options.pairs, max(3, options.pairs // 3)  # a sweep is nine passes
    print(f"VGG16, 224 px, batches of 8, {options.threads} thread(s), {n} pairs")
    print("work                                  over the bare forward   goal")
    every = ["features.*", "classifier.*"]
    rows = [
        ("copies of all ReLU layers", lambda: hooked([*relus, "relu6", "relu7"], n), 1.05),
        ("copies of all layers", lambda: hooked(every, n), 1.10),
        ("recording the default layers", lambda: streamed(similarity=False, n_pairs=few), 1.05),
        ("similarity of all layers, live", lambda: streamed(similarity=True, n_pairs=few), None),
        ("compressing over HDF5 alone", lambda: compressed(options.threads, n), None),
    ]
    for name, run, goal in rows:
        print(f"{name:36s}  {run()!s:22s}  {goal or '-'}", flush=True)


if __name__ == "__main__":
    main()
