"""Windows covered by the incremental engine: Captum's maps, for less work."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
import xarray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from elsewhere.analyzer.attribution import AttributionSettings, LinearTarget, attribute, maps_of
from elsewhere.analyzer.attribution.batches import Batch
from elsewhere.analyzer.attribution.covering import Coverer
from elsewhere.analyzer.attribution.explain import Explainer
from elsewhere.analyzer.attribution.frames import Scenes
from elsewhere.analyzer.attribution.targets import SimilarityTarget, parse_target
from elsewhere.errors import EngineError, ExistsError, InputError
from elsewhere.models import load_model
from elsewhere.recording.incremental import Incremental, window_rules
from elsewhere.registry import Entry
from elsewhere.stimuli import Canvas
from elsewhere.storage import load_result

CANVAS = Canvas(24, 8, background=(200, 40, 90))
PLACES = ((4, 4), (4, 13), (20, 20), (11, 14))
"""A corner, an edge, the last corner, the interior."""


@dataclasses.dataclass
class Found:
    """Maps by whole passes and by windows, and by plain loops in double precision."""

    dense: np.ndarray
    windows: np.ndarray
    plain: np.ndarray
    score: float
    explainer: Explainer

    def check(self):
        """Windows are right, or no further off than whole passes in single precision are."""
        wrong = np.abs(self.windows - self.plain).max()
        rounding = np.abs(self.dense - self.plain).max() + 1e-7 * self.score
        assert wrong <= max(1e-5 * np.abs(self.plain).max(), 4 * rounding)
        assert rounding <= 1e-5 * max(self.score, np.abs(self.plain).max())

    @property
    def difference(self):
        """By how much both ways differ, as a share of the largest value."""
        return np.abs(self.windows - self.dense).max() / np.abs(self.plain).max()


def plain_maps(images, compared, corners, score, *, window, stride):
    """Return the maps of occlusion by their definition: all windows of a lattice without end."""
    size, maps = images.shape[-1], []
    for row, corner in enumerate(corners):
        starts = [
            [
                (max(a, 0), min(a + window, size))
                for a in range(place - 99 * stride, size, stride)
                if a + window > 0
            ]
            for place in corner
        ]
        total, count = np.zeros((size, size)), np.zeros((size, size))
        for top, bottom in starts[0]:
            covered = images[row].repeat(len(starts[1]), 1, 1, 1).double()
            for place, (left, right) in enumerate(starts[1]):
                area = np.s_[:, top:bottom, left:right]
                covered[place][area] = compared[row][area].double()
            change = score(images[row : row + 1].double(), row) - score(covered, row)
            for (left, right), value in zip(starts[1], change.tolist(), strict=True):
                total[top:bottom, left:right] += value
                count[top:bottom, left:right] += 1
        maps.append(total / np.maximum(count, 1))
    return np.stack(maps)[:, None]


def plain_score(model, explainer, images):
    """Return a function from double images and their row to scores, without elsewhere."""
    network = copy.deepcopy(model.module).double().eval()
    target, kept = explainer.target, {}
    if explainer.layer is None and explainer.scorer.layer is not None:
        part = network.get_submodule(explainer.scorer.layer.module)
        part.register_forward_hook(lambda _, __, output: kept.update(found=output.clone()))

    def values(batch):
        with torch.no_grad():
            output = network(batch.clone())
        return kept.get("found", output).flatten(1)

    there = values(images[-1:].double())

    def score(batch, row):
        found = values(batch)
        if isinstance(target, SimilarityTarget):
            return (found @ there[0]) / found.norm(dim=1) / there.norm()
        if isinstance(target, LinearTarget):
            return found @ torch.from_numpy(target.coef[2]) + target.intercept[2]
        return (found.softmax(1) if target.quantity == "probability" else found)[:, 2]

    return score


def both_ways(
    network,
    objects,
    *,
    canvas=CANVAS,
    places=PLACES,
    method="occlusion",
    baseline="empty",
    target="logit:2",
    max_memory=2**31,
    **options,
):
    """Return maps of an object by whole passes, by windows and by plain loops."""
    scenes = Scenes(network, objects, canvas)
    corners = scenes.corners(places)
    images = scenes.images(0, corners)
    compared = scenes.baseline(baseline, images)
    found = []
    for engine in ("dense", "incremental"):
        explainer = Explainer(
            network,
            canvas_size=canvas.size,
            object_size=canvas.object_size,
            method=method,
            target=parse_target(target) if isinstance(target, str) else target,
            options=options,
            max_memory=max_memory,
        )
        references, column = None, 2
        if isinstance(explainer.target, SimilarityTarget):
            references = explainer.parts(images[-1:]).expand(len(images), -1)
            column = 0
        plain = baseline == "empty"
        batch = Batch(images, compared, corners, [column] * len(images), references, (), plain)
        assert explainer.choose(engine, batch).name == engine
        found.append(explainer.maps(batch).numpy())
    cell = options.get("cell")
    truth = plain_maps(
        images,
        compared,
        corners,
        plain_score(network, explainer, images),
        window=cell or options["window"],
        stride=cell or options["stride"],
    )
    return Found(*found, truth, np.abs(explainer.scores(batch)).max(), explainer)


class Blocks(nn.Module):
    """A few random operations, and a head."""

    def __init__(self, kinds, kernel, flat):
        super().__init__()
        parts, channels = [], 3
        for kind in kinds:
            if kind == "conv":
                parts += [
                    nn.Conv2d(channels, 5, kernel, padding=kernel // 2),
                    nn.ReLU(inplace=True),
                ]
                channels = 5
            elif kind == "strided":
                parts.append(nn.Conv2d(channels, 5, 3, stride=2, padding=1))
                channels = 5
            elif kind == "norm":
                parts.append(nn.BatchNorm2d(channels))
            else:
                parts.append(nn.MaxPool2d(3, 2, padding=1))
        self.parts = nn.Sequential(*parts)
        self.pool = nn.Flatten() if flat else nn.AdaptiveAvgPool2d(1)
        with torch.no_grad():
            units = self.pool(self.parts(torch.zeros(1, 3, 24, 24))).numel()
        self.head = nn.Linear(units, 4)

    def forward(self, values):
        return self.head(self.pool(self.parts(values)).flatten(1))


@settings(
    max_examples=25, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(data=st.data())
def test_maps_are_captums_on_random_networks(data, wrap, disturb, make_objects):
    draw = data.draw
    kinds = [
        "conv",
        *draw(st.lists(st.sampled_from(["conv", "strided", "norm", "max"]), max_size=3)),
    ]
    network = Blocks(kinds, draw(st.sampled_from([1, 3, 5])), draw(st.booleans())).eval()
    window = draw(st.integers(2, 7))
    options = {"window": window, "stride": draw(st.integers(2, window))}
    method = draw(st.sampled_from(["occlusion", "occlusion", "feature-ablation"]))
    valid = st.integers(4, 20)
    found = both_ways(
        wrap(disturb(network, draw(st.integers(0, 9)))),
        make_objects(1, seed=draw(st.integers(0, 9))),
        places=[draw(st.sampled_from(PLACES)), (draw(valid), draw(valid))],
        method=method,
        baseline=draw(st.sampled_from(["empty", "empty", "black", "blurred:2"])),
        target=draw(st.sampled_from(["logit:2", "probability:2", "similarity:parts"])),
        **(options if method == "occlusion" else {"cell": window}),
    )
    found.check()


@pytest.mark.parametrize("baseline", ["empty", "black", "blurred"])
@pytest.mark.parametrize("target", ["logit:2", "similarity:fc6", "similarity:relu2_2"])
def test_maps_are_captums_on_a_vgg16(baseline, target, disturb, make_objects):
    model = load_model("vgg16-slim", model_args={"canvas": 48, "width": 0.125, "num_classes": 5})
    disturb(model.module, 1)
    canvas = Canvas(48, 12, background=(120, 130, 90))
    found = both_ways(
        model,
        make_objects(1, size=12),
        canvas=canvas,
        places=[(6, 6), (6, 24), (42, 42), (23, 27)],
        baseline=baseline,
        target=target,
        window=6,
        stride=3 if baseline == "empty" else 6,
    )
    found.check()
    assert "fewer multiply-adds" in found.explainer.choice.reason


@pytest.mark.parametrize("baseline", ["empty", "black", "blurred:2"])
def test_strong_maps_are_captums_within_1e_5_of_their_maximum(baseline, disturb, make_objects):
    """Without biases a window changes much of the score, which rounding is small against."""
    model = load_model("vgg16-slim", model_args={"canvas": 48, "width": 0.125, "num_classes": 5})
    disturb(model.module, 1)
    for part in model.module.modules():
        if getattr(part, "bias", None) is not None:
            nn.init.zeros_(part.bias)
    canvas = Canvas(48, 24, background=(0, 0, 0) if baseline == "empty" else (120, 130, 90))
    found = both_ways(
        model,
        make_objects(1, size=24),
        canvas=canvas,
        places=[(12, 12), (12, 24), (36, 36)],
        baseline=baseline,
        window=12,
        stride=6,
    )
    assert found.difference <= 1e-5
    assert np.abs(found.plain).max() > 0.05 * found.score


def test_a_readout_of_a_map(wrap, disturb, make_objects):
    network = wrap(disturb(Blocks(["conv", "max", "conv"], 3, True), 2))
    coef = np.random.default_rng(0).normal(size=(3, 5 * 12 * 12))
    target = LinearTarget("parts", coef, [0.1, -0.2, 0.3], choice="2")
    found = both_ways(network, make_objects(1), target=target, window=4, stride=2)
    found.check()


# --- work ------------------------------------------------------------------------------------


def test_the_work_that_is_counted_is_the_work_that_is_done(disturb, make_objects, monkeypatch):
    """Torch's own counter, over both ways: less by more than the windows that change nothing."""
    model = load_model("vgg16-slim", model_args={"canvas": 96, "width": 0.125, "num_classes": 5})
    disturb(model.module, 1)
    canvas, objects = Canvas(96, 20), make_objects(1, size=20)
    scenes = Scenes(model, objects, canvas)
    corners = scenes.corners([(48, 48)])
    images = scenes.images(0, corners)
    batch = Batch(images, scenes.empty, corners, [1], plain=True)
    counted, compiled = {}, []
    original = Coverer.compile

    def compile(*arguments):
        compiled.append(original(*arguments))
        return compiled[-1]

    for engine in ("dense", "incremental"):
        explainer = Explainer(
            model,
            canvas_size=96,
            object_size=20,
            method="occlusion",
            target=parse_target("logit:1"),
        )
        explainer.choose(engine, batch)
        explainer.rows = 1  # no row is only there to fill a batch
        monkeypatch.setattr(Coverer, "compile", compile)
        with FlopCounterMode(display=False) as counter:
            explainer.maps(batch)
        monkeypatch.undo()
        counted[engine] = counter.get_total_flops() // 2
    assert len(compiled) == 1
    engine, layer = compiled[0], explainer._coverer.layer
    shape = [len(axis.start) for axis in engine.source.axes]
    tiles = engine.tiles([layer], *map(np.arange, shape), max_bytes=2**30)
    whole = engine.dense_multiply_adds([layer])
    n_lattice = 11 * 11  # windows of 4 px, 2 px apart, that reach into 20 px
    assert counted["dense"] == (n_lattice + 1) * whole
    assert counted["incremental"] == engine.multiply_adds(tiles, [layer]) + whole
    assert shape == [11, 11]  # those that change anything
    assert counted["dense"] / counted["incremental"] > 2


def test_auto_takes_whole_passes_where_windows_do_not_pay(
    wrap, disturb, make_batch, make_explainer
):
    """Kernels as large as the canvas leave nothing to save."""
    network = nn.Sequential(nn.Conv2d(3, 8, 23, padding=11), nn.Flatten(), nn.Linear(8 * 576, 5))
    made = make_batch(wrap(disturb(network)))
    explainer = make_explainer(wrap(network), "feature-ablation", cell=4)
    assert explainer.choose("auto", made.batch).name == "dense"
    assert "would not pay" in explainer.choice.reason
    assert explainer.choose("incremental", made.batch).name == "incremental"


# --- where it does not apply -------------------------------------------------------------------


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, values):
        values = self.conv(values if values.mean() > -99 else -values)
        return self.head(values.mean((2, 3)))


class Stateful(nn.Module):
    """Depends on what the graph does not tell."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, values):
        values = self.conv(values)
        scale = 1.0 if torch.is_tensor(values) and type(values) is torch.Tensor else 2.0
        return self.head(values.mean((2, 3))) * scale


class Scaled(nn.Conv2d):
    """A part for which somebody registers a rule that does not work."""


class Ruled(Stateful):
    def __init__(self):
        super().__init__()
        self.conv = Scaled(3, 4, 3)

    def forward(self, values):
        return self.head(self.conv(values).mean((2, 3)))


@pytest.fixture
def failing_rule(monkeypatch):
    def rule(call):
        raise KeyError("scale")

    name = f"{Scaled.__module__}.{Scaled.__qualname__}"
    monkeypatch.setitem(window_rules._entries, name, Entry(rule, "fails"))


@pytest.mark.usefixtures("failing_rule")
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Branching, "torch.fx cannot trace it"),
        (Stateful, "otherwise than in a whole pass"),
        (Ruled, "KeyError: 'scale'"),
    ],
)
def test_networks_that_cannot_be_followed_run_densely(
    kind, says, wrap, disturb, make_explainer, make_batch
):
    network = wrap(disturb(kind()))
    explainer = make_explainer(network, "occlusion", window=4, stride=4)
    made = make_batch(network)
    assert explainer.choose("auto", made.batch).name == "dense"
    assert says in explainer.choice.reason
    assert np.abs(explainer.maps(made.batch).numpy()).max() > 0
    with pytest.raises(InputError, match=f"{says}.*take --engine auto or dense"):
        explainer.choose("incremental", made.batch)


def test_methods_that_cover_nothing_take_whole_passes(residual, make_explainer, make_batch):
    explainer, made = make_explainer(residual, "saliency"), make_batch(residual)
    assert str(explainer.choose("auto", made.batch)) == "dense"
    with pytest.raises(InputError, match="serves occlusion and feature-ablation"):
        explainer.choose("incremental", made.batch)


def test_an_object_that_is_not_to_be_seen_has_no_map(residual, make_explainer, make_batch):
    made = make_batch(residual)
    explainer = make_explainer(residual, "occlusion", window=4, stride=2)
    nothing = Batch(
        made.batch.baselines, made.batch.baselines, made.batch.corners, [2] * 3, plain=True
    )
    assert explainer.choose("incremental", nothing).name == "incremental"
    assert not explainer.maps(nothing).any()


@pytest.mark.parametrize("engine", ["dense", "incremental"])
def test_windows_larger_than_the_canvas_are_refused(engine, make_sweep):
    settings = AttributionSettings(
        "occlusion", "logit:1", options={"window": 50, "stride": 10}, baseline="black"
    )
    with pytest.raises(
        InputError, match=r"'window' of occlusion is 50, more than the canvas has px \(24\)"
    ):
        attribute(make_sweep(n=1, grid="1x2", engine=engine), settings)


# --- runs ------------------------------------------------------------------------------------


OCCLUSION = AttributionSettings(
    method="occlusion", target="logit:1", options={"window": 4, "stride": 2}, dtype="float32"
)


def test_results_say_which_engine_ran(make_sweep):
    found = {
        engine: attribute(make_sweep(n=2, grid="2x2", engine=engine), OCCLUSION)
        for engine in ("dense", "incremental", "auto")
    }
    for engine in ("dense", "incremental"):
        assert found[engine].attrs["engine"] == engine
        assert found[engine].attrs["numerics"]["engine"] == engine
    assert "fewer multiply-adds" in found["incremental"].attrs["engine_reason"]
    assert found["auto"].attrs["engine"] in ("dense", "incremental")
    dense, windows = (maps_of(found[engine]) for engine in ("dense", "incremental"))
    np.testing.assert_allclose(windows, dense, atol=1e-5 * float(np.abs(dense).max()))
    for name in ("mass", "score", "equivariance", "centre_distance"):
        np.testing.assert_allclose(found["incremental"][name], found["dense"][name], rtol=1e-3)
    other = attribute(make_sweep(n=2, grid="2x2"), AttributionSettings("saliency", "logit:1"))
    assert (other.attrs["engine"], other.attrs["engine_reason"]) == ("dense", "")


def test_a_run_goes_on_with_the_same_engine_only(make_sweep, tmp_path):
    path = tmp_path / "occlusion.nc"

    def interrupt(done, total):
        if done > 2:
            raise KeyboardInterrupt

    sweep = make_sweep(n=2, grid="1x2", engine="incremental")
    with pytest.raises(KeyboardInterrupt):
        attribute(sweep, OCCLUSION, path=path, progress=interrupt)
    with pytest.raises(ExistsError, match="parts of another recording"):
        attribute(make_sweep(n=2, grid="1x2", engine="dense"), OCCLUSION, path=path)
    attribute(sweep, OCCLUSION, path=path)
    whole = attribute(sweep, OCCLUSION, path=tmp_path / "whole.nc")
    assert whole.attrs["engine"] == "incremental"
    xarray.testing.assert_identical(load_result(path), load_result(tmp_path / "whole.nc"))


def test_little_memory_takes_more_tiles_for_the_same_maps(model, make_objects, monkeypatch):
    counts = []
    tiles = Incremental.tiles

    def count(*arguments, **options):
        found = tiles(*arguments, **options)
        counts.append(len(found))
        return found

    monkeypatch.setattr(Incremental, "tiles", count)
    found, most = {}, {}
    for memory in (2**31, 2**18):
        counts.clear()
        found[memory] = both_ways(model, make_objects(1), max_memory=memory, window=4, stride=1)
        most[memory] = max(counts[1:])  # the first chooses, in a fixed memory
        assert found[memory].explainer._coverer.max_bytes < memory
        found[memory].check()
    assert most[2**31] == 1 < most[2**18]
    with pytest.raises(InputError, match=r"activations take about .* above --max-memory 1.0 KiB"):
        both_ways(model, make_objects(1), max_memory=2**10)


def test_tiles_halve_when_memory_runs_out(model, make_objects, monkeypatch, caplog):
    original, room = Coverer._covered, []

    def sometimes(self, engine, shape, score, share):
        room.append(share)
        if share > 0.3:
            raise torch.OutOfMemoryError("out of memory")
        return original(self, engine, shape, score, share)

    monkeypatch.setattr(Coverer, "_covered", sometimes)
    found = both_ways(model, make_objects(1), window=4, stride=2)
    assert sorted(set(room), reverse=True) == [1.0, 0.5, 0.25]
    assert "out of memory" in caplog.text
    found.check()


def test_the_network_is_left_as_it_was(model, make_objects, hooks_of, monkeypatch):
    model.module.features.train()
    try:
        both_ways(model, make_objects(1), window=4, stride=4)
        assert model.module.features.training
        assert hooks_of(model.module) == 0
        monkeypatch.setattr(Coverer, "_covered", lambda *_: 1 / 0)
        with pytest.raises(EngineError, match="division by zero"):
            both_ways(model, make_objects(1), window=4, stride=4)
        assert model.module.features.training
        assert hooks_of(model.module) == 0
    finally:
        model.module.eval()
