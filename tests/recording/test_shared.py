"""Live sweeps that several processes go through give what one process gives."""

import pickle

import numpy as np
import pytest
from typer.testing import CliRunner

from elsewhere.analyzer import measure, similarity
from elsewhere.cli import app
from elsewhere.models import load_model
from elsewhere.probes import probe
from elsewhere.protocols import Need
from elsewhere.recording import Sweep
from elsewhere.recording.engines import engines
from elsewhere.recording.sharing import SharedSweep
from elsewhere.stimuli import Canvas, Grid, load_objects
from elsewhere.stimuli.transformations import parse_axis

CANVAS = Canvas(32, 9)
OBJECTS = load_objects("novel", size=9, categories=3, per_category=3, seed=2)
GRID = Grid(y=(6, 12, 16, 20), x=(5, 9, 13, 17, 25))


@pytest.fixture(scope="module")
def model():
    return load_model("small-cnn", seed=1)


def make(model, engine, **options):
    layers = ["relu2_1", "pool2", "fc6", "logits"]
    return Sweep(model, OBJECTS, canvas=CANVAS, grid=GRID, layers=layers, engine=engine, **options)


class Rows:
    """Keeps every value that comes, and how often it came."""

    def __init__(self, layers):
        self.layers, self.values, self.times = layers, {}, {}

    def needs(self, layer):
        return (Need("full"),) if layer.name in self.layers else ()

    def held(self, layer, design, parts=1):
        return float(len(design.objects) * design.n_positions)

    def begin(self, design, layers, part=0, parts=1):
        for layer in layers:
            shape = (len(design.objects), design.n_positions)
            self.values[layer.name] = np.full((*shape, *layer.shape), np.nan, np.float32)
            self.times[layer.name] = np.zeros(shape, int)

    def add(self, block):
        at = block.objects, block.positions
        self.values[block.layer][at] = np.asarray(block.full())
        np.add.at(self.times[block.layer], at, 1)

    def end(self):
        pass


def check_alike(one, other):
    assert set(one.data_vars) == set(other.data_vars)
    for name in one.data_vars:
        if one[name].dtype.kind == "f":
            np.testing.assert_allclose(one[name], other[name], atol=2e-5, rtol=1e-4)
        else:
            np.testing.assert_array_equal(one[name], other[name])
    assert one.attrs["notes"] == other.attrs["notes"]


WORKERS = [1, pytest.param(2, marks=pytest.mark.long)]


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize(("engine", "memory"), [("dense", 2**24), ("incremental", 2**27)])
def test_every_image_is_computed_once_and_comes_to_the_sinks(model, engine, memory, workers):
    """Small memory makes many portions, of which each process has some."""
    sweep = make(model, engine)
    shared = SharedSweep(sweep, workers=workers)
    alone, both, seen = Rows(["relu2_1", "fc6"]), Rows(["relu2_1", "fc6"]), []
    sweep.stream([alone], max_memory=memory)
    shared.stream([both], max_memory=memory, progress=lambda *counts: seen.append(counts))
    for name, values in alone.values.items():
        assert (both.times[name] == 1).all()
        limit = 1e-5 * np.abs(values).max()
        np.testing.assert_allclose(both.values[name], values, atol=limit, rtol=0)
    n = len(OBJECTS) * len(GRID)
    assert sum(shared.work.values()) == n * len(
        sweep.groups([Rows(["relu2_1", "fc6"])], max_memory=memory)
    )
    assert 1 <= len(shared.work) <= workers  # what is small may be one task, or one may be quick
    assert seen[-1][0] == seen[-1][1]


def test_a_shared_sweep_is_moved_and_narrowed_like_any(model):
    axes = [parse_axis("scale=0.5,1")]
    plain = make(model, "dense", axes=axes)
    moved = SharedSweep(plain).at((12, 9)).select([0, 2, 4, 7])
    assert isinstance(moved, SharedSweep)
    check_alike(similarity(plain.at((12, 9)).select([0, 2, 4, 7])), similarity(moved))
    assert sum(moved.work.values()) == 4 * len(GRID) * 2


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("engine", ["dense", "incremental"])
def test_measures_and_probes_that_are_shared_out_are_those_of_one_process(model, engine, workers):
    def each(source):
        yield similarity(source)
        yield similarity(source, metric="centred", layers=["fc6"])
        yield measure(source, names="cosine,cka,partition,aligned", layers=["relu2_1", "fc6"])
        yield probe(source, layers=["fc6"], train_at="6,5;12,9", controls=["shuffled"])

    sweep = make(model, engine)
    for one, other in zip(each(sweep), each(SharedSweep(sweep, workers=workers)), strict=True):
        check_alike(one, other)


def test_dense_passes_take_as_many_images_as_the_memory_has_room_for(model, monkeypatch):
    """Values are those of smaller batches, and hardly a row is padding."""
    small, sizes = make(model, "dense"), []
    each = small._image_bytes
    monkeypatch.setattr("elsewhere.recording.sweep.MOST_ROWS", 48)
    for room, rows in ((0, 8), (each * 23, 16), (each * 1000, 48)):
        large = small.in_batches(4 * room)
        assert large.rows == large.numerics["batch_rows"] == rows
    handle = model.module.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    alone, both = Rows(["fc6"]), Rows(["fc6"])
    small.stream([alone])
    sizes.clear()
    large.stream([both])
    handle.remove()
    passes = [size for size in sizes if size == 48]
    assert len(passes) == -(-len(OBJECTS) * len(GRID) // 48)  # 180 images in four passes
    values = alone.values["fc6"]
    np.testing.assert_allclose(both.values["fc6"], values, atol=1e-5 * np.abs(values).max())
    few = small.select([0], range(5)).in_batches(2**40)
    assert few.rows == 8  # five images


OWN = """
from elsewhere.recording.engines import DenseEngine, engines
class Mine(DenseEngine):
    name = "mine"
@engines.register("mine", summary="whole canvases, for a test")
def make(subject, conduct, *, asked=True):
    return Mine(subject, conduct)
"""


def test_the_command_takes_an_engine_that_a_user_registered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "engines_of_mine.py").write_text(OWN)
    monkeypatch.setattr(engines, "_entries", dict(engines._entries))
    shown = ["--objects", "novel", "--categories", "2", "--canvas", "48", "--grid", "1x2"]
    asked = ["similarity", "small-cnn", *shown, "--layers", "fc6", "--out", "sim.nc", "--engine"]
    run = CliRunner().invoke
    refused = run(app, [*asked, "mine"])
    assert refused.exit_code == 1
    assert "unknown engine 'mine'" in refused.stderr
    refused = run(app, [*asked, "not_there:mine"])
    assert "importing 'not_there' for the engine 'not_there:mine' failed" in refused.stderr
    taken = run(app, [*asked, "engines_of_mine:mine"])
    assert taken.exit_code == 0, taken.stderr
    assert "engine mine" in taken.stderr
    assert run(app, [*asked, "mine", "--overwrite"]).exit_code == 0  # it is known now
    sweep = make(load_model("small-cnn"), "mine")
    sent = pickle.dumps(sweep)
    del engines._entries["mine"]  # another process, which has not registered it
    assert pickle.loads(sent).choice.name == "mine"
