"""Which engine runs a sweep, and that sinks cannot tell which did."""

import dataclasses

import numpy as np
import pytest
import torch
import xarray
from torch import nn

from elsewhere.analyzer import METRICS, SimilaritySink
from elsewhere.errors import InputError, NumericsError, UnknownNameError, reason_of
from elsewhere.measures.blocks import spatial_mean
from elsewhere.measures.sketch import sketch
from elsewhere.models import load_model
from elsewhere.protocols import Need
from elsewhere.recording import Sweep, plan, record
from elsewhere.recording.engines import not_worth, windows
from elsewhere.recording.incremental import Tile, WindowRows, window_rules
from elsewhere.recording.incremental import blocks as blocks_module
from elsewhere.recording.incremental import engine as engine_module
from elsewhere.registry import Entry
from elsewhere.stimuli import Canvas, Grid, ObjectSet
from elsewhere.storage import Keep, Portions, open_recording
from tests.roles import similarity

VARIABLES = ("similarity", "similarity_mean", "baseline_cross", "baseline_same", "zero_share")


TOLERANCES = {"cosine": 2e-6, "pearson": 2e-5, "evoked": 1e-4, "centred": 1e-4}
TOLERANCES["centred-by-place"] = TOLERANCES["centred"]
"""Activations differ by 1e-6 of the largest; what is left after a removal may be much smaller."""


def assert_alike(a, b):
    for name in VARIABLES:
        largest = float(abs(a[name] - b[name]).max())
        assert largest <= TOLERANCES[a.attrs["metric"]], (name, largest)
        assert (a[name].isnull() == b[name].isnull()).all()


@pytest.fixture
def small_tiles(monkeypatch):
    """Make the engine cut its work into many tiles."""
    monkeypatch.setattr(engine_module, "TILE_WORK", 300_000)
    monkeypatch.setattr(windows, "TILE_WORK", 300_000)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("grid", ["stride:3", "2x3"])
def test_similarity_is_that_of_the_dense_sweep(make_sweep, metric, grid):
    found = [
        similarity(make_sweep(n=2, per=2, grid=grid, engine=engine), metric=metric)
        for engine in ("dense", "incremental")
    ]
    assert found[0]["similarity"].std() > 0.01
    assert_alike(*found)


def test_no_map_is_built_of_which_only_a_statistic_is_asked(make_sweep, monkeypatch):
    def refuse(*_):
        raise AssertionError("a whole map was built")

    layers = "conv*,relu1_1,relu2_1,pool1"
    whole = similarity(make_sweep(layers=layers))

    class Means(SimilaritySink):
        def needs(self, layer):
            return (*super().needs(layer), Need("mean"))

        def add(self, block):
            super().add(block)
            assert block.stage != "grid" or len(block.mean()) == len(block.objects)

    sweep = make_sweep(layers=layers, engine="incremental")
    assert sweep.choice.name == "incremental"  # found out before, with whole maps
    monkeypatch.setattr(engine_module, "spread", refuse)
    monkeypatch.setattr(blocks_module, "paste", refuse)
    sink = Means(metric="evoked")
    sweep.stream([sink])
    plain = SimilaritySink()
    sweep.stream([plain])
    np.testing.assert_allclose(plain.result()["cosine_each"], whole["similarity"], atol=5e-6)


class Reductions:
    """Means, sketches, norms and products of every block, beside those of its whole maps."""

    def __init__(self):
        self.count = 0

    def needs(self, layer):
        return (Need("full"), Need("mean"), Need("sketch", size=4), Need("vectors"))

    def held(self, layer, design, parts=1):
        return 0.0

    def begin(self, design, layers, part=0, parts=1):
        pass

    def add(self, block):
        full = block.full().clone()
        self.count += len(full)
        rows = full.reshape(len(full), -1)
        size = 4 if rows.shape[1] >= 4 else 1
        close = {"rtol": 1e-5, "atol": 1e-5 * float(full.abs().max())}
        torch.testing.assert_close(block.mean(), spatial_mean(full), **close)
        torch.testing.assert_close(block.sketch(size, 3), sketch(rows, size, seed=3), **close)
        vectors, wide = block.vectors(), rows.double().numpy()
        np.testing.assert_allclose(vectors.norms(), np.linalg.norm(wide, axis=1), rtol=1e-5)
        scale = np.abs(wide @ wide.T).max()
        np.testing.assert_allclose(vectors.dots(vectors), wide @ wide.T, atol=1e-5 * scale)

    def end(self):
        pass


@pytest.mark.parametrize("grid", ["3x4", "stride:5"])
def test_blocks_reduce_windows_as_they_would_whole_maps(make_sweep, grid):
    sweep, sink = make_sweep(n=3, grid=grid, engine="incremental"), Reductions()
    sweep.stream([sink])
    assert sink.count == 3 * sweep.design.n_positions * len(sweep.layers)


@pytest.mark.parametrize("metric", METRICS)
def test_small_memory_gives_the_same_in_groups_parts_and_tiles(make_sweep, metric, small_tiles):
    sweep = make_sweep(n=5, per=2, grid="2x3", engine="incremental")
    whole = similarity(make_sweep(n=5, per=2, grid="2x3"), metric=metric)
    engine = sweep.choice.compiled
    each = (lambda layer: layer.bytes) if metric.startswith("centred") else engine.held_bytes
    least = max(map(each, sweep.layers))
    memory = int(sweep.choice.memory_for(10 * least))  # beside windows, sinks hold a part of it
    groups = sweep.groups([SimilaritySink(metric=metric)], max_memory=memory)
    assert len(groups) > 1
    assert len(sweep.choice.tiles("grid", sweep.layers, [], memory)) > 1
    assert_alike(similarity(sweep, metric=metric, max_memory=memory), whole)


def test_windows_take_what_was_foretold(make_sweep):
    sweep = make_sweep(n=2, grid="all", engine="incremental")
    engine = sweep.choice.compiled
    ys, xs = map(np.arange, sweep.design.shape)
    for limit in (10**8, 3 * 10**5):
        tiles = engine.tiles(sweep.layers, ys, xs, max_bytes=limit)
        assert sorted((y, x) for tile in tiles for y in tile.ys for x in tile.xs) == [
            (y, x) for y in ys for x in xs
        ]
        for tile in (tiles[0], tiles[len(tiles) // 2]):
            foretold, seen = engine.peak_bytes(tile, sweep.layers), []

            def receive(name, value, seen=seen):
                rows = [[value]] if torch.is_tensor(value) else value.tensors
                seen.append(4 * sum(tensor.numel() for row in rows for tensor in row))

            with torch.inference_mode():
                for _ in engine.run(tile, sweep.layers, receive):
                    pass
            assert max(seen) <= foretold <= max(limit, 10**5)
    assert engine.multiply_adds(tiles, sweep.layers) >= engine.multiply_adds(
        [Tile(ys, xs, np.arange(2))], sweep.layers
    )  # a tile shares windows among its own locations only


def test_objects_of_a_position_come_together(make_sweep, small_tiles):
    sweep, order = make_sweep(n=4, grid="2x3", layers="conv1_1", engine="incremental"), []

    class Order(Reductions):
        def add(self, block):
            order.extend(block.positions.tolist())

    sweep.stream([Order()])
    changes = np.count_nonzero(np.diff(order))
    assert changes == sweep.design.n_positions - 1


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_recordings_hold_the_same(make_sweep, tmp_path, dtype):
    paths = []
    for engine in ("dense", "incremental"):
        sweep = make_sweep(n=3, engine=engine, reference=(12, 13))
        keep = {"conv1_1": Keep("mean"), "relu1_1": Keep("sketch", 50)}
        paths.append(record(sweep, tmp_path / f"{engine}.h5", keep=keep, dtype=dtype))
    with open_recording(paths[0]) as dense, open_recording(paths[1]) as windows:
        assert dense.attributes["identity"] == windows.attributes["identity"]
        assert windows.attributes["numerics"]["engine"] == "incremental"
        for layer in dense.layers:
            a, b = dense[layer.name].values, windows[layer.name].values
            np.testing.assert_allclose(
                a, b, rtol=0, atol=(1e-5 if dtype == "float32" else 2e-3) * np.abs(a).max()
            )


def test_an_interrupted_recording_goes_on(make_sweep, tmp_path, small_tiles):
    path, whole = tmp_path / "run.h5", tmp_path / "whole.h5"
    sweep = make_sweep(n=5, grid="stride:3", layers="pool1,logits", engine="incremental")

    def stop(done, total):
        if done > 0.6 * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(sweep, path, progress=stop)
    assert not path.exists()
    seen = []
    record(sweep, path, progress=lambda done, total: seen.append((done, total)))
    record(sweep, whole)
    assert seen[-1][0] == seen[-1][1] < 0.8 * 5 * sweep.design.n_positions
    with open_recording(path) as first, open_recording(whole) as second:
        for layer in first.layers:
            np.testing.assert_array_equal(first[layer.name].values, second[layer.name].values)


@pytest.mark.parametrize("failure", [None, NumericsError, KeyboardInterrupt])
def test_no_hook_and_no_mode_is_left_behind(model, make_sweep, hooks_of, failure):
    sweep = make_sweep(engine="incremental")
    model.module.features.train()
    before = [part.training for part in model.module.modules()]

    class Failing(Reductions):
        def add(self, block):
            if failure is not None and block.stage == "grid":
                raise failure("stop")

    try:
        if failure is None:
            sweep.stream([Failing()])
        else:
            with pytest.raises(failure):
                sweep.stream([Failing()])
        assert hooks_of(model.module) == 0
        assert [part.training for part in model.module.modules()] == before
        assert not torch.is_inference_mode_enabled()
    finally:
        model.module.eval()


def test_progress_and_skipped_units(make_sweep, small_tiles):
    sweep, seen = make_sweep(n=5, engine="incremental"), []
    portions, sink = Portions(sweep.design, 5, 2), Reductions()
    sweep.stream(
        [sink],
        portions=portions,
        skip=[0, 3],
        progress=lambda done, total: seen.append((done, total)),
    )
    done, totals = zip(*seen, strict=True)
    assert set(totals) == {5 * (12 - 4)}
    assert list(done) == sorted(done)
    assert done[-1] == totals[0]
    assert sink.count == 5 * 8 * len(sweep.layers)


def test_a_plan_knows_arithmetic_and_memory(make_sweep):
    sweep = make_sweep(n=2, grid="all", engine="incremental")
    cost = plan(sweep)
    dense = plan(make_sweep(n=2, grid="all"))
    whole = sweep.choice.compiled.dense_multiply_adds(sweep.layers)
    assert cost.engine == "incremental"
    assert 0 < cost.multiply_adds < whole * 2 * sweep.design.n_positions
    assert cost.seconds > 0
    assert cost.memory_bytes > dense.memory_bytes - 10**6
    assert (dense.engine, dense.multiply_adds) == ("dense", 0)


# --- the choice -----------------------------------------------------------------------------


class Branching(nn.Module):
    """Looks at values, which tracing cannot follow."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, values):
        return self.conv(values) if values.mean() > -9 else values


class Counting(nn.Module):
    """Changes from call to call: traced once, it would say something else."""

    def __init__(self):
        super().__init__()
        self.conv, self.calls = nn.Conv2d(3, 2, 3), 0

    def forward(self, values):
        self.calls += 1
        return self.conv(values) * self.calls


class Rows(nn.Module):
    """Two views of one memory, of which one is overwritten."""

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 2, 3), nn.ReLU(inplace=True)

    def forward(self, values):
        values = self.conv(values)
        self.act(values.flatten(1))
        return values + 1


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Branching, "torch.fx cannot trace it"),
        (Rows, "overwritten in place"),
    ],
)
def test_networks_that_cannot_be_followed_run_densely(make_sweep, wrap, network, reason):
    torch.manual_seed(0)
    model = wrap(network())
    sweep = make_sweep(model, n=12, grid="all", layers="conv", engine="auto")
    assert sweep.choice.name == "dense"
    assert reason in str(sweep.choice)
    with pytest.raises(InputError, match=f"engine incremental does not apply to net: .*{reason}"):
        make_sweep(model, layers="conv", engine="incremental").choice  # noqa: B018


class Scaled(nn.Module):
    """A part for which somebody registers a rule that does not work."""

    def forward(self, values):
        return 2 * values


class Forgetful(nn.Module):
    """Looks up while it is traced what it knows of tensors only."""

    def __init__(self):
        super().__init__()
        self.conv, self.known = nn.Conv2d(3, 2, 3), {torch.Tensor: 1}

    def forward(self, values):
        return self.conv(values) * self.known[type(values)]


@pytest.mark.parametrize(
    ("part", "raised"),
    [
        (Scaled, KeyError("scale")),
        (Scaled, ZeroDivisionError("division by zero")),
        (Scaled, NotImplementedError()),
        (Forgetful, None),
    ],
)
def test_whatever_fails_on_the_way_to_windows_runs_densely(
    make_sweep, wrap, part, raised, monkeypatch
):
    def rule(call):
        raise raised

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 2, 3) if raised else Forgetful(), Scaled())
    if raised is not None:
        name = f"{part.__module__}.{part.__qualname__}"
        monkeypatch.setitem(window_rules._entries, name, Entry(rule, "fails"))
    sweep = make_sweep(wrap(network), n=12, grid="all", layers="1", engine="auto")
    assert sweep.choice.name == "dense"
    says = reason_of(raised) if raised else "KeyError: <class 'torch.fx.proxy.Proxy'>"
    assert says in str(sweep.choice)
    dense = make_sweep(wrap(network), n=12, grid="all", layers="1", engine="dense")
    xarray.testing.assert_equal(similarity(sweep), similarity(dense))
    with pytest.raises(InputError, match="engine incremental does not apply to net"):
        make_sweep(wrap(network), layers="1", engine="incremental").choice  # noqa: B018


def test_what_the_graph_does_not_tell_is_found_out(make_sweep, wrap):
    """The part's output depends on how often it was called; only a comparison can tell."""
    torch.manual_seed(0)
    model = wrap(nn.Sequential(Counting(), nn.ReLU()))
    with pytest.raises(InputError, match=r"net changes from pass to pass: .*keeps a state"):
        make_sweep(model, layers="1", engine="incremental").choice  # noqa: B018


def test_what_an_invisible_object_does_not_show_is_found_out(make_sweep, make_objects, wrap):
    """The first object is as black as the canvas: only noise tells that the weights are doubled."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3, bias=False)
    layer.forward = lambda x: nn.functional.conv2d(x, 2 * layer.weight)
    model, objects = wrap(nn.Sequential(layer, nn.ReLU())), make_objects(2)
    shown = np.arange(len(objects))[:, None, None, None] > 0  # with none to be seen it is refused
    black = dataclasses.replace(objects, images=shown * objects.images)
    with pytest.raises(InputError, match="comes out otherwise than in a whole pass"):
        make_sweep(  # noqa: B018
            model, objects=black, background=0, layers="1", engine="incremental"
        ).choice


def test_images_that_depend_on_each_other_are_refused(make_sweep, wrap):
    """Statistics of the batch make an image's values depend on what it is computed with."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    model = wrap(nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Conv2d(4, 4, 3)))
    for n in (1, 3):
        with pytest.raises(InputError, match="treats its images together"):
            make_sweep(model, n=n, layers="2", engine="incremental").choice  # noqa: B018
    assert make_sweep(model, layers="0", engine="incremental").choice.name == "incremental"


def test_hooks_of_others_are_respected(model, make_sweep):
    handle = model.module.features[0].register_forward_hook(lambda *_: None)
    try:
        sweep = make_sweep(n=12, grid="all", engine="auto")
        assert "features.0 has hooks" in str(sweep.choice)
    finally:
        handle.remove()


def test_auto_takes_windows_where_they_pay_and_says_so():
    network = load_model("vgg11-slim", model_args={"num_classes": 5})
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 14, 14, 3), dtype=np.uint8)
    masks = np.full((8, 14, 14), 255, np.uint8)
    ids = tuple("abcdefgh")
    objects = ObjectSet("set", images, masks, ids, ids, {})
    canvas = Canvas(64, 14)
    many = Sweep(network, objects, canvas=canvas, grid=Grid.parse("stride:4", canvas))
    assert many.choice.name == "incremental"
    assert "times fewer multiply-adds" in str(many.choice)
    few = Sweep(network, objects.subset([0]), canvas=canvas, grid=Grid(y=(20,), x=(20,)))
    assert few.choice.name == "dense"
    assert "would not pay: they need" in str(few.choice)
    # what costs nothing in arithmetic and yet does not pay is said to fail by its calls
    assert "3.0 times fewer multiply-adds, but so many more and smaller calls" in not_worth(1 / 3)
    assert many.numerics["engine"] == "incremental"
    assert few.numerics["batch_rows"] == 8


def test_engines_have_names(make_sweep):
    with pytest.raises(UnknownNameError, match="unknown engine 'fast'"):
        make_sweep(engine="fast")


def test_window_rows_of_some_objects_only(make_sweep):
    """Blocks may start and end in the middle of a position."""
    sweep = make_sweep(n=3, layers="conv1_1", engine="incremental")
    engine, found = sweep.choice.compiled, []
    tile = Tile(np.array([0, 2]), np.array([1]), np.arange(3))

    def receive(name, value):
        rows = WindowRows(value, engine.ground(name), tile)
        every = rows.full(np.arange(6)).clone()
        for chosen in ([1, 2, 3], [2], [0, 4], [5, 0]):
            index = np.array(chosen)
            torch.testing.assert_close(rows.full(index), every[index])
            np.testing.assert_allclose(
                rows.vectors(index).norms(), every[index].flatten(1).norm(dim=1), rtol=1e-5
            )
        found.append(name)

    with torch.inference_mode():
        for _ in engine.run(tile, sweep.layers, receive):
            pass
    assert found
