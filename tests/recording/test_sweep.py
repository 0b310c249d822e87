import math
import weakref

import numpy as np
import pytest
import torch
import xarray
from torch import nn

from elsewhere.analyzer import METRICS, SimilaritySink
from elsewhere.errors import CanvasError, InputError, LayerError, NumericsError, UnknownNameError
from elsewhere.measures.vectors import DenseVectors
from elsewhere.protocols import Need
from elsewhere.recording import Sweep
from elsewhere.stimuli import Canvas
from elsewhere.storage import Portions
from elsewhere.types import BATCH_ROWS
from tests.roles import similarity


class Keeping:
    """A sink that keeps everything, and says that it keeps so much."""

    def __init__(self, stages=("empty", "reference", "grid"), activations=0.0):
        self.stages, self.activations = frozenset(stages), activations
        self.kept, self.groups = {}, []

    def needs(self, layer):
        return (Need("full", self.stages),)

    def held(self, layer, design, parts=1):
        return self.activations / parts

    def begin(self, design, layers, part=0, parts=1):
        self.groups.append(([layer.name for layer in layers], part, parts))

    def add(self, block):
        values = block.full().clone().numpy()
        for row, place in enumerate(zip(block.objects, block.positions, strict=True)):
            key = (block.stage, block.layer, *map(int, place))
            assert key not in self.kept
            self.kept[key] = values[row]

    def end(self):
        self.groups.append("end")


def test_values_are_those_of_plain_forwards(make_sweep, plain_forwards):
    sweep = make_sweep(n=3, grid="2x3", reference=(12, 13))
    sink = Keeping()
    sweep.stream([sink])
    expected = plain_forwards(sweep)
    count = 0
    for layer in sweep.layers:
        grid, reference, empty = expected[layer.name]
        scale = np.abs(grid).max()
        assert scale > 0
        for (stage, name, number, position), values in sink.kept.items():
            if name != layer.name:
                continue
            count += 1
            wanted = {"grid": grid, "reference": reference, "empty": empty}[stage]
            wanted = wanted if number < 0 else wanted[number]
            wanted = wanted if position < 0 else wanted[position]
            np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-5 * scale)
    assert count == len(sweep.layers) * (3 * 6 + 3 + 1)
    assert (sink.kept["grid", "conv1_1", 0, 0] < 0).any()  # not what the in-place ReLU made of it


def test_a_different_place_gives_different_values(make_sweep):
    sink = Keeping(["grid"])
    make_sweep(n=1, layers="conv1_1").stream([sink])
    values = [array.tobytes() for array in sink.kept.values()]
    assert len(set(values)) == len(values) == 12


@pytest.mark.parametrize("n", [1, 3, 7, 8, 9, 70])
def test_every_forward_has_exactly_eight_rows(model, make_sweep, n):
    sweep = make_sweep(n=n, grid="2x3", layers="logits")
    rows = []
    handle = model.module.features[0].register_forward_hook(
        lambda _, inputs, __: rows.append(len(inputs[0]))
    )
    try:
        sweep.stream([Keeping()])
    finally:
        handle.remove()
    assert set(rows) == {BATCH_ROWS}
    assert len(rows) >= 1 + math.ceil(n / 8) + math.ceil(n * 6 / 8)


def test_a_row_does_not_depend_on_its_batch(make_sweep):
    one, several = Keeping(["grid"]), Keeping(["grid"])
    sweep = make_sweep(n=5, layers="logits")
    sweep.stream([one], portions=Portions(sweep.design, 5, 1))  # three rows of padding
    sweep.stream([several], portions=Portions(sweep.design, 3, 4))
    assert one.kept.keys() == several.kept.keys()
    for key, values in one.kept.items():
        np.testing.assert_allclose(values, several.kept[key], rtol=1e-5, atol=1e-5)


def test_progress_counts_every_image_once(make_sweep):
    sweep, seen = make_sweep(n=5), []
    sweep.stream([Keeping()], progress=lambda done, total: seen.append((done, total)))
    done, totals = zip(*seen, strict=True)
    assert set(totals) == {5 * 12 + 5 + 1}
    assert list(done) == sorted(done)
    assert done[-1] == totals[0]


def test_units_can_be_skipped(make_sweep):
    sweep, sink = make_sweep(n=5), Keeping(["grid"])
    portions = Portions(sweep.design, 5, 2)
    sweep.stream([sink], portions=portions, skip=[0, 3])
    expected = {
        (o, p)
        for portion in portions
        if portion.number not in (0, 3)
        for o, p in zip(*map(np.ndarray.tolist, portion.rows(sweep.design)), strict=True)
    }
    assert {key[2:] for key in sink.kept if key[1] == "logits"} == expected


@pytest.mark.parametrize("failure", [None, NumericsError, KeyboardInterrupt, RuntimeError])
def test_no_hook_and_no_mode_is_left_behind(model, make_sweep, hooks_of, failure):
    sweep = make_sweep()
    model.module.features.train()
    before = [part.training for part in model.module.modules()]

    class Failing(Keeping):
        def add(self, block):
            if failure not in (None, KeyboardInterrupt) and block.stage == "grid":
                raise failure("stop")

    def progress(done, total):
        if failure is KeyboardInterrupt and done > 20:
            raise KeyboardInterrupt

    try:
        if failure is None:
            sweep.stream([Failing()])
        else:
            with pytest.raises(failure):
                sweep.stream([Failing()], progress=progress)
        assert hooks_of(model.module) == 0
        assert [part.training for part in model.module.modules()] == before
        assert not torch.is_inference_mode_enabled()
    finally:
        model.module.eval()


def test_layers_behind_the_last_wanted_one_do_not_run(model, make_sweep):
    ran = []
    handle = model.module.classifier.register_forward_hook(lambda *_: ran.append(1))
    sweep = make_sweep(layers="conv1_1,pool1")
    ran.clear()
    sweep.stream([Keeping()])
    handle.remove()
    assert not ran


# --- memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_small_memory_gives_the_same_in_groups_and_parts(make_sweep, metric):
    sweep = make_sweep(n=5, per=2, grid="2x3")
    whole = similarity(sweep, metric=metric)
    largest = max(layer.bytes for layer in sweep.layers)
    held = 12 * largest  # 10 references and the sums of the largest layer do not fit
    memory = sweep.choice.memory_for(held)  # beside a pass
    sink = SimilaritySink(metric=metric)
    groups = sweep.groups([sink], max_memory=memory)
    assert len(groups) > 1
    assert max(group.parts for group in groups) > 1
    assert all(group.held <= held for group in groups)
    assert sorted(layer.name for group in groups for layer in group.layers) == sorted(
        layer.name for layer in sweep.layers
    )
    small = similarity(sweep, metric=metric, max_memory=memory)
    for name in ("similarity", "similarity_mean", "baseline_cross", "baseline_same"):
        xarray.testing.assert_allclose(small[name], whole[name], rtol=0, atol=1e-6)
    xarray.testing.assert_allclose(small, whole, rtol=0, atol=1e-3)  # G divides by 1 - D
    assert small.attrs == whole.attrs


@pytest.mark.parametrize("metric", ["cosine", "evoked", "pearson"])  # the others hold stretches
@pytest.mark.parametrize(("n", "per"), [(12, 1), (6, 3), (35, 2)])
def test_sinks_hold_no_more_than_they_say(make_sweep, monkeypatch, metric, n, per):
    """All memory of sinks comes from `zeros`: add up what of it is alive."""
    sweep = make_sweep(n=n, per=per, grid="2x3", layers="conv1_1")
    layer = sweep.layers[0]
    alive, peak = [], 0
    plain = DenseVectors.zeros

    def counting(self, rows):
        nonlocal peak
        made = plain(self, rows)
        bytes_each = made.values.nbytes
        alive.append((weakref.ref(made.values), bytes_each))
        alive[:] = [(reference, size) for reference, size in alive if reference() is not None]
        peak = max(peak, sum(size for _, size in alive))
        return made

    monkeypatch.setattr(DenseVectors, "zeros", counting)
    sink = SimilaritySink(metric=metric)
    sweep.stream([sink])
    held = sink.held(layer, sweep.design)
    assert n * per * layer.bytes < peak <= held * layer.bytes
    assert held <= 2 * n * per + BATCH_ROWS  # at the reference, and at one position


def test_a_layer_in_parts_tells_sinks_so(make_sweep):
    sweep = make_sweep(n=4, grid="2x2", layers="conv1_1,logits")
    sink = Keeping(["grid"], activations=4.0)
    sink.add = lambda block: None
    conv = sweep.layers[0].bytes
    sweep.stream([sink], max_memory=sweep.choice.memory_for(2 * conv))
    parts = [group for group in sink.groups if group != "end"]
    assert parts == [(["conv1_1"], 0, 2), (["conv1_1"], 1, 2), (["logits"], 0, 1)]
    assert sink.groups.count("end") == 3


def test_memory_for_not_even_one_object_is_refused(make_sweep):
    with pytest.raises(InputError, match=r"'conv1_1' needs at least .* raise it"):
        similarity(make_sweep(layers="conv1_1"), max_memory="10kB")


# --- networks that do not fit ---------------------------------------------------------------


class Fickle(nn.Module):
    """Runs its second part only on canvases without an object (of the first batch)."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3)
        self.runs = 0

    def forward(self, values):
        self.runs += 1
        values = self.first(values)
        return values if self.runs > 3 else self.second(values)


class Merging(nn.Module):
    """Gives one row for a whole batch."""

    def __init__(self):
        super().__init__()
        self.part = self.Sum()

    class Sum(nn.Module):
        def forward(self, values):
            return values.mean(dim=0, keepdim=True)

    def forward(self, values):
        return self.part(values)


def test_a_layer_that_stops_firing_is_an_error(make_sweep, wrap, hooks_of):
    model = wrap(Fickle())
    with pytest.raises(LayerError, match="'second' did not run in a forward pass although"):
        make_sweep(model, layers="second").stream([Keeping()])
    assert hooks_of(model.module) == 0


def test_a_layer_without_a_row_per_image_is_refused(make_sweep, wrap):
    with pytest.raises(LayerError, match=r"'part' gives shape \(1, 3, 24, 24\) for 8 images"):
        make_sweep(wrap(Merging()), layers="part").stream([Keeping()])


def test_a_network_that_overwrites_its_input_sees_clean_images(make_sweep, wrap, plain_forwards):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Hardtanh(-0.5, 0.2, inplace=True), nn.Conv2d(3, 2, 3))
    sweep, sink = make_sweep(wrap(network), n=3, grid="2x2", layers="*"), Keeping()
    sweep.stream([sink])
    for name, (grid, _, _) in plain_forwards(sweep).items():
        for number in range(3):
            for position in range(4):
                np.testing.assert_allclose(
                    sink.kept["grid", name, number, position], grid[number, position], atol=1e-5
                )


def test_things_that_do_not_fit_together_are_refused(model, make_sweep, make_objects):
    with pytest.raises(CanvasError, match="off the canvas"):
        make_sweep(reference=(0, 0))
    with pytest.raises(UnknownNameError, match=r"nearest: .*conv1_1"):
        make_sweep(layers="conv1_2")
    with pytest.raises(CanvasError):
        make_sweep(grid="at:1,1")

    with pytest.raises(CanvasError, match=r"objects of 8 px .* object size is 10 px"):
        Sweep(model, make_objects(), canvas=Canvas(24, 10))


class Tiring(nn.Module):
    """Its second part runs otherwise from its 15th pass on, of which it keeps count in a class."""

    runs = 0

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3)

    def forward(self, values):
        type(self).runs += 1
        values = self.second(self.first(values))
        return values if type(self).runs < 15 else -values


def test_a_network_that_changes_during_the_sweep_is_refused(make_sweep, wrap, hooks_of):
    model = wrap(nn.Sequential(Tiring(), nn.ReLU()))
    with pytest.raises(InputError, match="has changed while it ran: layer '1' comes out otherwise"):
        make_sweep(model, n=9, layers="1").stream([Keeping()])
    assert hooks_of(model.module) == 0
