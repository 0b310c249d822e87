"""Sources that are moved, narrowed and given to another engine, while their network is changed.

Whatever was done before, a source gives what plain passes of the network give as it is then.
"""

import numpy as np
import pytest
import torch

import elsewhere
from elsewhere.errors import InputError
from elsewhere.measures.vectors import to_numpy
from elsewhere.models import load_model
from elsewhere.protocols import Need
from elsewhere.recording import Sweep
from elsewhere.stimuli import Canvas, Grid, load_objects
from elsewhere.storage import open_recording

CANVAS = Canvas(24, 6, background=70)
GRID = Grid.parse("3x4", CANVAS)
LAYERS = ("conv1_1", "pool2", "fc3")
OFF = [(5, 7), (GRID.y[1], 9)]


class Collecting:
    """All rows by layer, stage, object and place."""

    def __init__(self):
        self.rows = {}

    def needs(self, layer):
        return (Need("full", frozenset({"reference", "grid"})),)

    def held(self, layer, design, parts=1):
        return 0.0

    def begin(self, design, layers, part=0, parts=1):
        self.design = design

    def add(self, block):
        places = [*map(tuple, self.design.positions.tolist()), self.design.reference]
        values = to_numpy(block.full())
        for row, number, position in zip(values, block.objects, block.positions, strict=True):
            key = block.layer, block.stage, self.design.objects[number], places[position]
            assert key not in self.rows
            self.rows[key] = row.copy().ravel()

    def end(self):
        pass


class Plain:
    """What plain passes of a network give, one image each, by object and place."""

    def __init__(self, model, objects):
        self.model, self.objects, self.found = model, objects, {}
        color = CANVAS.background_color()
        self.patches, self.color = objects.patches(color), color

    def __call__(self, layer, name, place):
        if (name, place) not in self.found:
            number, seen = self.objects.ids.index(name), {}
            image = CANVAS.paste(self.patches[[number]], [place], self.color)
            handles = [
                self.model.module.get_submodule(self.model.aliases[each]).register_forward_hook(
                    lambda _, __, output, each=each: seen.__setitem__(each, output.clone())
                )
                for each in LAYERS
            ]
            with torch.no_grad():
                self.model.module(self.model.transform.apply(torch.from_numpy(image)))
            for handle in handles:
                handle.remove()
            self.found[name, place] = {each: v.numpy().ravel() for each, v in seen.items()}
        return self.found[name, place][layer]


def check(source, plain):
    sink, design = Collecting(), source.design
    source.stream([sink])
    places = [tuple(place) for place in design.positions.tolist()]
    expected = {
        (layer, stage, name, place)
        for layer in LAYERS
        for name in design.objects
        for stage, some in (("grid", places), ("reference", [design.reference]))
        for place in some
    }
    assert set(sink.rows) == expected
    for (layer, _, name, place), row in sink.rows.items():
        true = plain(layer, name, place)
        np.testing.assert_allclose(row, true, atol=1e-5 * abs(true).max())


def narrowed(source, rng):
    """Return some objects of a source at some of its positions."""
    design = source.design
    n, (n_y, n_x) = len(design.objects), design.shape
    chosen = np.sort(rng.permutation(n)[: rng.integers(1, n + 1)]).tolist()
    ys, xs = (np.sort(rng.permutation(k)[: rng.integers(1, k + 1)]) for k in (n_y, n_x))
    return source.select(chosen, (ys[:, None] * n_x + xs).ravel().tolist())


@pytest.fixture
def made():
    model = load_model("small-cnn", model_args={"channels": "4-6", "canvas": 24, "hidden": 9})
    objects = load_objects("digits", size=6, categories=["3", "7"], per_category=2)
    return model, objects


@pytest.mark.parametrize("seed", range(3))
def test_live_sweeps(made, seed):
    model, objects = made
    rng, plain = np.random.default_rng(seed), Plain(model, objects)
    source = sweep = Sweep(
        model, objects, canvas=CANVAS, grid=GRID, layers=LAYERS, engine="incremental"
    )
    check(source, plain)
    for step in rng.permutation(["at", "off", "select", "using", "change", "at", "back"]):
        if step == "at":
            source = source.at(tuple(rng.permutation(source.design.positions)[0].tolist()))
        elif step == "off":
            source = source.at(OFF[rng.integers(2)])
        elif step == "select":
            source = narrowed(source, rng)
        elif step == "using":
            source = source.using(["dense", "incremental", "auto"][rng.integers(3)])
        elif step == "change":
            with torch.no_grad():
                model.module.get_parameter("features.0.bias").data.add_(0.3)
            plain = Plain(model, objects)
        else:
            source = sweep.at(source.design.reference)
        check(source, plain)
    check(sweep, plain)


@pytest.mark.parametrize("kind", ["recording", "arrays"])
def test_what_was_recorded(made, tmp_path, kind):
    model, objects = made
    plain = Plain(model, objects)
    sweep = Sweep(model, objects, canvas=CANVAS, grid=GRID, layers=LAYERS, engine="dense")
    with open_recording(elsewhere.record(sweep, tmp_path / "a.h5")) as recording:
        source = recording
        if kind == "arrays":
            arrays = {name: recording[name].values for name in recording}
            labels = {"objects": objects.ids, "categories": objects.categories}
            source = elsewhere.ArraySource(arrays, y=GRID.y, x=GRID.x, **labels)
        for seed in range(4):
            rng = np.random.default_rng(seed)
            place, other = map(tuple, rng.permutation(source.design.positions)[:2].tolist())
            with source.at(place) as moved, narrowed(moved, rng) as some, some.at(other) as last:
                check(last, plain)
                check(narrowed(last, rng), plain)
                check(moved, plain)
            check(source, plain)
        assert source.design.reference == sweep.reference
        with pytest.raises(InputError):
            source.at(OFF[0])
        with pytest.raises(InputError, match="5 positions are no full grid"):
            source.select(None, [0, 1, 2, 4, 5])
