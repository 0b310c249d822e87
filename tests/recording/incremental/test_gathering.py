"""Windows as a GPU gathers them, here on the CPU: the same values in far fewer calls."""

from collections import Counter

import numpy as np
import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from elsewhere.axes import Axes
from elsewhere.measures.vectors import DenseVectors
from elsewhere.models import load_model
from elsewhere.protocols import Design, Need
from elsewhere.recording import Sweep, images
from elsewhere.recording.incremental import blocks, engine, gathering, operations, reads
from elsewhere.recording.incremental.geometry import AxisWindows, Slide, slide
from elsewhere.stimuli import Canvas


@pytest.fixture
def on_device(monkeypatch):
    """Take the way of a GPU on the CPU."""
    for module in (gathering, engine, operations, reads, blocks):
        monkeypatch.setattr(module, "batched", lambda device: True)


VIEWS = {"view", "permute", "unsqueeze", "reshape", "slice", "select", "as_strided", "expand"}


class Calls(TorchDispatchMode):
    """Counts operator calls that take a launch each on a GPU."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func.overloadpacket).removeprefix("aten.")
        self.found.update([name] if name not in VIEWS else [])
        return func(*args, **(kwargs or {}))


class Maps:
    """Keeps whole maps, means and vectors of the grid."""

    def __init__(self):
        self.rows, self.means, self.kinds = {}, {}, set()

    def needs(self, layer):
        return (Need("full"), Need("mean"), Need("vectors"))

    def held(self, layer, design, parts=1):
        return 0.0

    def begin(self, design, layers, part=0, parts=1):
        pass

    def add(self, block):
        for row, (o, p) in enumerate(zip(block.objects, block.positions, strict=True)):
            self.rows[block.layer, int(o), int(p)] = block.full()[row].clone().numpy()
            self.means[block.layer, int(o), int(p)] = block.mean()[row].clone().numpy()
        vectors = block.vectors()
        self.kinds.add(type(vectors))
        wide = block.full().flatten(1).double().numpy()
        np.testing.assert_allclose(vectors.norms(), np.linalg.norm(wide, axis=1), rtol=1e-6)

    def end(self):
        pass


def test_gathered_windows_hold_what_whole_passes_give(make_sweep, on_device):
    found = []
    for name in ("dense", "incremental"):
        sweep, sink = make_sweep(n=3, grid="stride:5", engine=name), Maps()
        sweep.stream([sink])
        assert sweep.choice.name == name
        found.append(sink)
    whole, windows = found
    assert windows.kinds == {DenseVectors}
    assert whole.rows.keys() == windows.rows.keys()
    for key, value in whole.rows.items():
        scale = float(np.abs(value).max()) or 1.0
        np.testing.assert_allclose(windows.rows[key], value, atol=1e-5 * scale)
        np.testing.assert_allclose(windows.means[key], whole.means[key], atol=1e-5 * scale)


def test_calls_do_not_grow_with_locations(make_sweep, on_device):
    counts = []
    for grid in ("3x3", "6x6"):
        sweep = make_sweep(n=2, grid=grid, engine="incremental")
        compiled = sweep.choice.compiled
        n = len(sweep.grid.axes.values[0])
        tile = engine.Tile(np.arange(n), np.arange(n), np.arange(2))
        with sweep.running(), Calls() as calls:
            for _ in compiled.run(tile, sweep.layers, lambda name, value: None):
                pass
        counts.append(calls.found.total())
    assert counts[1] < 2 * counts[0]  # four times as many locations


def test_widened_windows_cover_what_changes():
    before = AxisWindows.of_canvas(24, 8, list(range(4, 21)))
    plain, _ = slide(before, Slide(5, 1, 2, 24))
    even, reading = slide(before, Slide(5, 1, 2, 24), even=True)
    assert len(set(even.length.tolist())) <= len(set(plain.length.tolist()))
    assert (even.start <= plain.start).all()
    assert (even.start + even.length >= plain.start + plain.length).all()
    assert (even.start >= 0).all()
    assert (even.start + even.length <= 24).all()
    assert (reading.start == even.start - 2).all()


@pytest.mark.parametrize(("n", "width", "most"), [(1, 23, 256), (20, 23, 128), (300, 5, 256)])
def test_a_pass_hardly_pads(n, width, most):
    names = tuple(f"o{i}" for i in range(n))
    values = tuple(range(30, 30 + width))
    design = Design(names, names, Axes.of(y=(30, 31), x=values), (30, 30))
    rows = images.rows_for(design, most)
    assert 8 <= rows <= most
    assert rows % 8 == 0
    cut = images.Portions.cut(design, rows=rows)
    sizes = [len(portion.rows(design)[0]) for portion in cut]
    assert sum(-(-size // rows) * rows for size in sizes) <= 1.2 * sum(sizes)


SYNCHRONISING = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero"}


@pytest.mark.parametrize(("name", "most"), [("vgg16-slim", 450), ("resnet18", 1200)])
def test_a_tile_takes_few_calls_and_does_not_wait(name, most, monkeypatch, make_objects):
    counts = []
    for device in (False, True):
        for module in (gathering, engine, operations, reads, blocks):
            monkeypatch.setattr(module, "batched", lambda _, found=device: found)
        model = load_model(name)
        objects = make_objects(1, size=16)
        sweep = Sweep(
            model, objects, canvas=Canvas(48, 16), grid="stride:8", layers=None,
            engine="incremental",
        )  # fmt: skip
        compiled = sweep.choice.compiled
        tile = engine.Tile(*map(np.arange, (*sweep.design.shape, 1)))
        for _ in range(2):
            with sweep.running(), Calls() as calls:
                for _ in compiled.run(tile, sweep.layers, lambda name, value: None):
                    pass
            counts.append(calls.found)
    host, _, first, again = counts
    assert not SYNCHRONISING & set(first)
    assert first.total() <= most
    assert again.total() <= min(first.total() / 2, host.total() / 3)
    assert again["lift_fresh"] <= 3  # arrays that go to the device: the objects, and for means
