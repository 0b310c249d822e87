"""What all-pairs cosines cost over one matrix product of the same size and reading the file once.

    python -m benchmarks.measures [--pairs 5] [--threads 1] [--objects 100] [--units 4096]

Goal: all-pairs cosines of 484 locations of fc7 (4,096 units) for 100 objects within 1.5.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import nn

from benchmarks.ratios import compare
from elsewhere.analyzer import measure
from elsewhere.models import InputTransform, Model
from elsewhere.recording import Sweep, record
from elsewhere.stimuli import Canvas, Grid, ObjectSet
from elsewhere.storage import Recording, open_recording

OBJECT = 8


def make_recording(folder: Path, n_objects: int, side: int, n_units: int) -> Path:
    """Record a fully connected layer for random objects at every location of a small canvas."""
    size = side + OBJECT - 1
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(3 * size * size, n_units)
    with torch.no_grad():
        linear.weight.normal_(0, 0.05, generator=generator)
    network = nn.Sequential(nn.Flatten(), linear, nn.ReLU()).eval()
    transform = InputTransform(mean=(0.5,) * 3, std=(0.25,) * 3, gain=1.0)
    model = Model("fc", network, transform, {}, "none", "0", (), {}, size)
    rng = np.random.default_rng(0)
    ids = tuple(f"o{number}" for number in range(n_objects))
    objects = ObjectSet(
        "random",
        rng.integers(0, 256, (n_objects, OBJECT, OBJECT, 3), dtype=np.uint8),
        np.full((n_objects, OBJECT, OBJECT), 255, np.uint8),
        ids,
        ids,
        {"seed": "0"},
    )
    canvas = Canvas(size, OBJECT)
    sweep = Sweep(model, objects, canvas=canvas, grid=Grid.parse("stride:1", canvas), layers="2")
    return record(sweep, folder / "run.h5", overwrite=True)


def read(recording: Recording) -> np.ndarray:
    """Read the only layer whole."""
    with h5py.File(recording.path) as file:
        values: np.ndarray = file["layers/2/activation"][...]
    return values


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--objects", type=int, default=100)
    parser.add_argument("--side", type=int, default=22)
    parser.add_argument("--units", type=int, default=4096)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    n, side, n_units = options.objects, options.side, options.units
    with tempfile.TemporaryDirectory() as folder:
        recording = open_recording(make_recording(Path(folder), n, side, n_units))
        rows = np.random.default_rng(0).random((n, side * side, n_units), dtype=np.float32)
        # Of different objects: a product of a matrix with itself would be half the work.
        other = rows[::-1].transpose(0, 2, 1)

        def base() -> None:
            read(recording)
            np.matmul(rows, other)

        def work() -> None:
            measure(recording, names="cosine", max_memory="4GiB")

        ratio = compare(base, work, n_pairs=options.pairs)
        recording.close()
    print(f"{n} objects x {side * side} locations, {n_units} units, {options.pairs} pairs")
    print("work                  over a product and one reading   seconds        goal")
    seconds = f"{ratio.seconds[1]:.1f} / {ratio.seconds[0]:.1f}"
    print(f"all-pairs cosines     {ratio!s:30s}   {seconds:12s}   1.5")


if __name__ == "__main__":
    main()
