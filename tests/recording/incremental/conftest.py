"""Sweeps by both engines, compared activation by activation."""

import numpy as np
import pytest
import torch

from elsewhere.models import list_layers
from elsewhere.protocols import Need
from elsewhere.recording import Sweep
from elsewhere.stimuli import Canvas, Grid


class Collect:
    """A sink that keeps every whole activation, as float32 arrays."""

    def __init__(self, stages=("empty", "reference", "grid")):
        self.stages, self.found = frozenset(stages), {}

    def needs(self, layer):
        return (Need("full", self.stages),)

    def held(self, layer, design, parts=1):
        return 0.0

    def begin(self, design, layers, part=0, parts=1):
        pass

    def add(self, block):
        values = block.full().clone().numpy()
        for row, (number, position) in enumerate(zip(block.objects, block.positions, strict=True)):
            key = block.stage, block.layer, int(number), int(position)
            assert key not in self.found
            self.found[key] = values[row]

    def end(self):
        pass


def spaced(canvas, stride):
    """Return coordinates at both edges and in the interior, neighbours `stride` px apart."""
    first, last = canvas.valid[0], canvas.valid[-1]
    middle = (first + last) // 2
    found = {first, first + stride, middle, middle + stride, middle + 2 * stride, last}
    return tuple(sorted(value for value in found if first <= value <= last))


@pytest.fixture(scope="session")
def compare_engines(make_objects):
    """Return a function that compares all layers of a network, containers included.

    It returns the largest difference over the largest activation, and by how much activations
    differ between images, both per layer.
    """

    def compare(
        model, *, size, object_size, stride=None, background=0, n=1, layers=None, grid=None, seed=0
    ):
        canvas = Canvas(size, object_size, background=background)
        if grid is None:
            ys = spaced(canvas, stride)
            grid = Grid(y=ys, x=(ys[0], *ys[2:4], ys[-1]) if len(ys) > 4 else ys)
        every = list_layers(model, size, containers=True)
        names = layers or [layer.name for layer in every]
        found = {}
        for engine in ("dense", "incremental"):
            sweep = Sweep(
                model,
                make_objects(n, size=object_size, seed=seed),
                canvas=canvas,
                grid=grid,
                reference=(canvas.valid[0], canvas.valid[-1]),
                layers=names,
                engine=engine,
            )
            assert sweep.choice.name == engine
            sink = Collect()
            sweep.stream([sink])
            found[engine] = sink.found
        dense, windows = found["dense"], found["incremental"]
        assert dense.keys() == windows.keys()
        errors, signals = {}, {}
        for name in names:
            keys = [key for key in dense if key[1] == name]
            scale = max(float(np.abs(dense[key]).max()) for key in keys)
            worst = max(float(np.abs(dense[key] - windows[key]).max()) for key in keys)
            empty = dense["empty", name, -1, -1]
            evoked = max(float(np.abs(dense[key] - empty).max()) for key in keys)
            errors[name] = worst / scale if scale else worst
            signals[name] = evoked / scale if scale else 0.0
        return errors, signals

    return compare


@pytest.fixture(autouse=True)
def one_thread():
    """Run on one thread: the networks are small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
