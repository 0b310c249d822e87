"""Running statistics belong to the weights, by independent code; what is done with them is said."""

import dataclasses
import sys
import types

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from elsewhere.analyzer import network_accuracy
from elsewhere.analyzer.methods import describe_methods
from elsewhere.errors import CurriculumError
from elsewhere.stimuli import Canvas, Grid
from elsewhere.training import (
    Curriculum,
    Exemplars,
    Network,
    Phase,
    list_checkpoints,
    load_checkpoint,
    load_curriculum,
    read_metrics,
    train,
)
from elsewhere.training.checkpoints import read_card, read_weights
from elsewhere.training.statistics import find_norms, measure_statistics


class Slow(nn.BatchNorm2d):
    """Lags far behind."""

    def __init__(self, channels):
        super().__init__(channels, momentum=0.002)


def small(n=4, norm=Slow):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), norm(8), nn.ReLU(), nn.Conv2d(8, 8, 3), norm(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.1), nn.Linear(128, n),
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def nets():
    module = sys.modules["bn_nets"] = types.ModuleType("bn_nets")
    module.small = small
    module.plain = lambda: small(norm=nn.Identity)
    module.instance = lambda: small(norm=lambda n: nn.InstanceNorm2d(n, track_running_stats=True))
    module.resnet = lambda num_classes=4: torchvision.models.resnet18(num_classes=num_classes)
    module.densenet = lambda num_classes=4: torchvision.models.DenseNet(
        8, (2, 2), 16, num_classes=num_classes
    )
    yield module
    del sys.modules["bn_nets"]


def learn(name="learn", **options):
    defaults = {
        "objects": "digits", "categories": 4, "exemplars": Exemplars(16, 8), "environment": "one",
        "steps": 80, "batch": 16, "checkpoints": (0,), "learning_rate": 5e-3,
    }  # fmt: skip
    return Phase(name, **defaults | options)


def build(name, *phases, canvas=(32, 11), **network):
    network = Network(f"bn_nets:{name}", **network)
    return Curriculum("t", network, Canvas(*canvas), phases or (learn(),))


def images_at(card, place, objects):
    """Objects at a place, by hand."""
    half, side = card.canvas.object_size // 2, card.canvas.size
    pixels = torch.from_numpy(objects.patches((0, 0, 0))).permute(0, 3, 1, 2) / 255
    images = torch.zeros(len(pixels), 3, side, side)
    (y, x) = place
    images[:, :, y - half : y + half + 1, x - half : x + half + 1] = pixels
    return images


def right(network, card, place, objects):
    with torch.no_grad():
        answers = network(images_at(card, place, objects)).argmax(1).numpy()
    return (answers == objects.category_index).mean()


def of_its_presentations(card):
    """The network with statistics of all its training presentations, by torch's update_bn."""
    network = load_checkpoint(card).module
    images = images_at(card, card.trained[0], card.load_objects()[0])
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    batches = images[order].split(16)
    torch.optim.swa_utils.update_bn(batches, network)
    return network.eval()


def check_truth(curriculum, folder):
    train(curriculum, folder, device="cpu")
    card = list_checkpoints(folder)[-1]
    mine, truth = load_checkpoint(card).module.eval(), of_its_presentations(card)
    seen, held_out = card.load_objects()
    for place in (card.trained[0], card.canvas.centre):
        for objects in (seen, held_out):
            apart = right(mine, card, place, objects) - right(truth, card, place, objects)
            assert abs(apart) <= 0.02
    assert card.batch_norm == "recalibrated"
    assert right(mine, card, card.trained[0], seen) > 0.6
    return card


def test_a_lagging_network_is_tested_with_its_own_statistics(tmp_path):
    card = check_truth(build("small", learn(steps=120)), tmp_path / "run")
    assert abs(card.training_mode - card.evaluation_mode) <= 0.05
    assert not card.notes
    assert card.noise == ("dropout 0.1 (8)",)


@pytest.mark.long
@pytest.mark.parametrize("name", ["resnet", "densenet"])
def test_large_networks_are_tested_with_their_own_statistics(name, tmp_path):
    phase = learn(environment="one:20,40", learning_rate=1e-3, steps=60)
    check_truth(build(name, phase, canvas=(64, 21)), tmp_path / "run")


def test_what_differs_by_the_mode_is_said_everywhere(tmp_path):
    train(build("small", learn(batch_norm="batch", steps=120)), tmp_path / "run", device="cpu")
    card = list_checkpoints(tmp_path / "run")[-1]
    assert card.batch_norm == "batch"
    assert card.training_mode > card.evaluation_mode + 0.1
    # by plain torch: one location, so that the latest presentations are the exemplars there
    network, seen = load_checkpoint(card).module, card.load_objects()[0]
    assert card.evaluation_mode == pytest.approx(
        right(network, card, card.trained[0], seen), abs=0.02
    )
    (note,) = card.notes
    assert note.startswith("phase learn: ")
    assert "evaluation mode" in note
    assert "train with batch_norm = 'recalibrated'" in note
    report = read_metrics(tmp_path / "run")[-1]
    assert (report.training_mode, report.evaluation_mode) == (
        card.training_mode, card.evaluation_mode,
    )  # fmt: skip
    model = load_checkpoint(card)
    assert note in model.doubts
    objects, held_out = card.test_objects(per_category=2)
    found = network_accuracy(
        model, objects, card.canvas, Grid.parse("2x2", card.canvas), trained=card.trained,
        held_out=held_out, classes=card.categories,
    )  # fmt: skip
    assert note in found.attrs["notes"]
    assert found.attrs["batch_norm"] == "batch"
    assert "exponential means gathered in training" in describe_methods(found)
    # the weights are those of a recalibrated run: only what is kept differs
    train(build("small", learn(steps=120)), tmp_path / "anew", device="cpu")
    other = list_checkpoints(tmp_path / "anew")[-1]
    mine, others = read_weights(card), read_weights(other)
    differing = {name for name in mine if not torch.equal(mine[name], others[name])}
    assert differing == {f"{n}.running_{what}" for n in "14" for what in ("mean", "var")} | {
        "1.num_batches_tracked", "4.num_batches_tracked",
    }  # fmt: skip


def test_trained_weights_keep_their_statistics(nets, tmp_path):
    train(build("small", learn("a", steps=30)), tmp_path / "first", device="cpu")
    first = list_checkpoints(tmp_path / "first")[-1]
    phases = [learn("b", objects="glyphs", new_head=True, steps=5)]
    phases.append(learn("c", objects="novel", new_head=True, steps=5, freeze_affine=True))
    phases.append(learn("d", same_categories_as="c", categories=None, objects="novel", steps=5,
                        batch_norm="batch"))  # fmt: skip
    given = {"weights": str(first.path), "batch_norm": "frozen"}
    train(build("small", *phases, **given), tmp_path / "run", device="cpu")
    begun = read_weights(first)
    ends = {card.phase: card for card in list_checkpoints(tmp_path / "run") if card.final}
    states = {name: read_weights(card) for name, card in ends.items()}
    assert [ends[name].batch_norm for name in "bcd"] == ["frozen", "frozen", "batch"]
    for name in ("1.running_mean", "4.running_var", "1.num_batches_tracked"):
        assert torch.equal(states["b"][name], begun[name])
        assert torch.equal(states["c"][name], begun[name])
    assert not torch.equal(states["d"]["1.running_mean"], begun["1.running_mean"])
    assert not torch.equal(states["b"]["1.weight"], begun["1.weight"])
    assert torch.equal(states["b"]["1.weight"], states["c"]["1.weight"])
    assert not torch.equal(states["b"]["0.weight"], states["c"]["0.weight"])
    assert ends["b"].training_mode is None


@pytest.mark.parametrize(
    "stated", [None, *(pytest.param(way, marks=pytest.mark.long) for way in ("batch", "frozen"))]
)
def test_a_curriculum_in_two_parts_is_the_same_as_in_one(stated, tmp_path):
    first = learn("a", steps=2, batch_norm="batch" if stated is None else None)
    # only the head learns, so that this phase keeps statistics whatever is the run's way
    head = learn("b", objects="novel", steps=1, new_head=True, trainable=("9",))
    last = learn("c", objects="glyphs", steps=2, new_head=True)
    key = {} if stated is None else {"batch_norm": stated}
    train(build("small", first, head, last, **key), tmp_path / "whole", device="cpu")
    train(build("small", first, **key), tmp_path / "first", device="cpu")
    path = list_checkpoints(tmp_path / "first")[-1].path
    train(build("small", head, weights=str(path)), tmp_path / "head", device="cpu")
    path = list_checkpoints(tmp_path / "head")[-1].path
    train(build("small", last, weights=str(path)), tmp_path / "last", device="cpu")
    whole = [c for c in list_checkpoints(tmp_path / "whole") if c.final]
    parts = [list_checkpoints(tmp_path / name)[-1] for name in ("first", "head", "last")]
    way = stated or "recalibrated"
    assert [c.batch_norm for c in whole] == ["batch" if stated is None else way, "frozen", way]
    for one, part in zip(whole, parts, strict=True):
        assert (one.batch_norm, one.batch_norm_default) == (part.batch_norm, way)
        mine, others = read_weights(one), read_weights(part)
        assert all(torch.equal(mine[name], others[name]) for name in mine)


class OwnNorm(nn.Module):
    """Normalises by arithmetic of its own; its statistics hardly move."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("square", torch.ones(channels, 1, 1))

    def forward(self, x):
        if self.training:
            mean, square = x.mean((0, 2, 3))[:, None, None], (x * x).mean((0, 2, 3))[:, None, None]
            self.mean.lerp_(mean.detach(), 0.002)
            self.square.lerp_(square.detach(), 0.002)
        else:
            mean, square = self.mean, self.square
        return (x - mean) / (square - mean**2).clamp(1e-5).sqrt()


def test_a_normalisation_written_anew_is_found_by_what_it_does(nets, tmp_path):
    nets.own = lambda: small(norm=OwnNorm)
    train(build("own", learn(steps=120)), tmp_path / "run", device="cpu")
    card = list_checkpoints(tmp_path / "run")[-1]
    network, seen = load_checkpoint(card).module, card.load_objects()[0]
    lagging = right(network, card, card.trained[0], seen)
    right_now = right(network.train(), card, card.trained[0], seen)  # dropout .1: about
    assert right_now > lagging + 0.1
    assert card.evaluation_mode == pytest.approx(lagging, abs=0.02)
    assert card.training_mode == pytest.approx(right_now, abs=0.1)
    assert card.batch_norm == "none"
    reached, modes = card.notes
    assert "'recalibrated' does not reach 1.mean, 1.square, 4.mean and 1 more" in reached
    assert "evaluation mode" in modes
    assert "train with" not in modes  # it was: what helps is another network
    assert "each in one place of the network: build it of these" in modes
    assert modes in load_checkpoint(card).doubts
    older = dataclasses.replace(card, notes=(reached, modes.replace("build it", "make it")))
    (said,) = [n for n in load_checkpoint(older).doubts if "in evaluation mode" in n]
    assert said == older.notes[1]
    # asked for in a network that has one of torch's, too: what is reached, and what is not
    nets.mixed = lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), OwnNorm(8), nn.BatchNorm2d(8), nn.ReLU(),
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 4, 3)),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 4),
    )  # fmt: skip
    train(build("mixed", learn(steps=2, batch_norm="frozen")), tmp_path / "mixed", device="cpu")
    notes = list_checkpoints(tmp_path / "mixed")[-1].notes
    (said,) = [note for note in notes if "does not reach" in note]
    assert "'frozen' does not reach 1.mean, 1.square, which" in said


class Deep(nn.Module):
    """Stochastic depth, dropout and noise in code of its own; a module that says what it is."""

    def __init__(self):
        super().__init__()
        self.conv, self.stated = nn.Conv2d(3, 8, 3, stride=2), nn.Dropout(0.2)
        self.blocks = nn.ModuleList([Block(rate) for rate in (0.0, 0.01, 0.2)])
        self.attend = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)
        self.depth = torchvision.ops.StochasticDepth(0.1, "row")
        self.line = nn.Linear(8 * 16, 4)

    def forward(self, x):
        x = self.conv(x)
        for block in self.blocks:
            x = block(x)
        x = nn.functional.adaptive_avg_pool2d(self.stated(x), 4).flatten(2).transpose(1, 2)
        x = x + self.depth(self.attend(x, x, x, need_weights=False)[0])
        return self.line(nn.functional.dropout(x.flatten(1), 0.1, training=self.training))


class Block(nn.Module):
    def __init__(self, rate):
        super().__init__()
        self.rate, self.conv = rate, nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return x + self.drop_connect(self.conv(x))

    def drop_connect(self, x):
        if not (self.training and self.rate):
            return x
        kept = torch.floor(1 - self.rate + torch.rand(len(x), 1, 1, 1))
        return x * kept / (1 - self.rate)


def test_noise_that_no_module_states_is_named_and_rests(nets, tmp_path):
    nets.deep = Deep
    train(build("deep", learn(steps=3)), tmp_path / "run", device="cpu")
    card = list_checkpoints(tmp_path / "run")[-1]
    assert card.noise == (
        "dropout 0.2 (stated)", "stochastic depth 0.1 (depth)",
        "random numbers (Block blocks.1)", "random numbers (Block blocks.2)",
        "random numbers (MultiheadAttention attend)", "random numbers (Deep)",
    )  # fmt: skip
    (note,) = card.notes
    assert "(Block blocks.1, Block blocks.2, MultiheadAttention attend and 1 more)" in note
    # by the book: at rest where it is tested
    network, seen = load_checkpoint(card).module, card.load_objects()[0]
    images = images_at(card, card.trained[0], seen)
    assert torch.equal(network(images), network(images))
    model = load_checkpoint(card)
    grid = Grid.parse("2x2", card.canvas)
    found = network_accuracy(model, seen, card.canvas, grid, trained=card.trained)
    assert found.attrs["noise"] == list(card.noise)
    said = "at rest: dropout 0.2, stochastic depth 0.1 and random numbers (in 4 layers)."
    assert said in describe_methods(found)
    assert said in describe_methods(tmp_path / "run")
    rates = [f"stochastic depth {rate:g} (blocks.{n})" for n, rate in enumerate((0.05, 0.1, 0.2))]
    spread = found.assign_attrs(noise=rates)
    assert "at rest: stochastic depth 0.05 to 0.2 (in 3 layers)." in describe_methods(spread)
    # what is drawn only where something is trained, and what a whole network is not: no note
    train(build("deep", learn(steps=1, trainable=("line",))), tmp_path / "line", device="cpu")
    noise = list_checkpoints(tmp_path / "line")[-1].noise
    assert "Block" not in " ".join(noise)


def test_a_killed_run_goes_on_to_the_same(tmp_path, monkeypatch):
    from elsewhere.training.stage import Stage

    curriculum = build("small", learn(steps=120, checkpoints=(0, 70)))
    train(curriculum, tmp_path / "whole", device="cpu")
    block = Stage._block

    def killed(self, first):
        if first == 100:
            raise KeyboardInterrupt
        return block(self, first)

    monkeypatch.setattr(Stage, "_block", killed)
    with pytest.raises(KeyboardInterrupt):
        train(curriculum, tmp_path / "killed", device="cpu", save_every=0)
    monkeypatch.undo()
    train(curriculum, tmp_path / "killed", device="cpu")
    for a, b in zip(*(list_checkpoints(tmp_path / n) for n in ("whole", "killed")), strict=True):
        assert a.sha256 == b.sha256
        assert (a.training_mode, a.accuracy_off) == (b.training_mode, b.accuracy_off)


def test_instances_and_layers_used_twice_are_means_too():
    torch.manual_seed(0)
    batches = [torch.randn(4, 3, 5, 5) * n + n for n in (1, 2, 3)]
    norm = nn.InstanceNorm2d(3, track_running_stats=True)
    measure_statistics(norm, batches)
    right = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean, right)
    twice = nn.BatchNorm2d(3, affine=False)
    measure_statistics(nn.Sequential(twice, twice), batches)
    torch.testing.assert_close(twice.running_mean, right / 2, atol=1e-6, rtol=0)
    assert list(find_norms(nn.Sequential(twice, nn.BatchNorm2d(3, track_running_stats=False)))) == [
        "0"
    ]


@pytest.mark.parametrize(
    ("net", "keys", "network", "says"),
    [
        ("plain", {"batch_norm": "frozen"}, {}, "does nothing: bn_nets:plain has no normalisation"),
        ("plain", {}, {"batch_norm": "recalibrated"}, "leave the key out"),
        ("small", {"batch_norm": "recalibrated", "steps": 15}, {}, "240 presentations"),
        ("small", {"steps": 3}, {"batch_norm": "recalibrated"}, "too short to recalibrate"),
        ("small", {"batch_norm": "batch", "trainable": ("9",)}, {}, "are frozen in this phase"),
    ],
)
def test_what_does_nothing_is_refused(net, keys, network, says, tmp_path):
    with pytest.raises(CurriculumError, match=says) as raised:
        train(build(net, learn(**keys), **network), tmp_path / "run", device="cpu")
    assert "phase learn: batch_norm" in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("net", "keys", "network", "says"),
    [
        ("small", {"batch_norm": "batch", "freeze_affine": True}, {}, "is 'batch' here"),
        ("small", {}, {"freeze_affine": True}, "is 'recalibrated' here.*freeze_affine = false"),
        ("bare", {"batch_norm": "frozen"}, {"freeze_affine": True}, "has no .* and biases; leave"),
    ],
)
def test_affine_parameters_that_are_not_frozen_are_refused(
    nets, net, keys, network, says, tmp_path
):
    nets.bare = lambda: small(norm=lambda n: nn.BatchNorm2d(n, affine=False))
    said = f"phase learn: freeze_affine: does nothing: .*{says}"
    with pytest.raises(CurriculumError, match=said):
        train(build(net, learn(**keys), **network), tmp_path / "run", device="cpu")


def test_the_line_is_that_of_the_key_which_the_phase_has_from_the_network(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        '[network]\nname = "small-cnn"\narguments = { channels = "4-8" }\nbatch_norm = "frozen"\n'
        '[canvas]\nsize = 24\nobject_size = 9\n[[phase]]\nname = "learn"\nobjects = "digits"\n'
        "steps = 1\n"
    )
    with pytest.raises(CurriculumError, match="line 4: phase learn: batch_norm: 'frozen' does no"):
        train(load_curriculum(path), tmp_path / "run", device="cpu")


def test_frozen_from_random_weights_is_warned_of(tmp_path, caplog):
    train(build("small", learn(batch_norm="frozen", steps=3)), tmp_path / "run", device="cpu")
    notes = [card.notes for card in list_checkpoints(tmp_path / "run")]
    assert all("all are 0 and 1" in " ".join(each) for each in notes)
    assert "nothing has gathered" in caplog.text
    # a short phase that states nothing is recalibrated all the same, on presentations of its own
    train(build("small", learn(steps=3)), tmp_path / "short", device="cpu")
    assert {c.batch_norm for c in list_checkpoints(tmp_path / "short")} == {"recalibrated"}


def test_cards_of_older_versions_say_batch(tmp_path):
    train(build("small", learn(steps=1)), tmp_path / "run", device="cpu")
    card = list_checkpoints(tmp_path / "run")[-1]
    from elsewhere.storage.documents import write_document
    from elsewhere.training.checkpoints import _NOT_WRITTEN, ENCODING, VERSION

    table = dataclasses.asdict(card)
    for name in (*_NOT_WRITTEN, "batch_norm", "noise", "training_mode", "evaluation_mode",
                 "accuracy_on_error", "accuracy_off_error"):  # fmt: skip
        del table[name]
    write_document(card.path.with_suffix(".json"), table, encoding=ENCODING, version=VERSION)
    assert read_card(card.path).batch_norm == "batch"
    assert load_checkpoint(card.path).batch_norm == "batch"
    train(build("plain", learn(steps=1)), tmp_path / "plain", device="cpu")
    plain = list_checkpoints(tmp_path / "plain")[-1]
    assert (plain.batch_norm, load_checkpoint(plain).batch_norm) == ("none", "")
    assert np.isfinite(plain.accuracy_on)
