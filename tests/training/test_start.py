"""What a curriculum starts from: classes by their names, heads by what they do, all the weights."""

import collections
import random
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from elsewhere.errors import ElsewhereError, InputError, TrainingError
from elsewhere.models import load_model
from elsewhere.stimuli import Canvas
from elsewhere.training import (
    Exemplars,
    Network,
    find_head,
    list_checkpoints,
    load_curriculum,
    read_metrics,
    replace_head,
    train,
)
from elsewhere.training.checkpoints import load_checkpoint, read_weights
from elsewhere.training.curriculum import Curriculum, Phase
from elsewhere.training.heads import order_units


def body(n=4, width=6):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(),
        nn.Linear(9 * width, n),
    )  # fmt: skip


class Wrapped(nn.Module):
    """A body, and another linear layer defined after it."""

    def __init__(self, extra, act):
        super().__init__()
        self.body, self.extra, self.act = body(), extra, act

    def forward(self, x):
        return self.act(self, x)


def first_head(net, x):
    net.extra(torch.zeros(len(x), 4))  # runs, and is not used
    return net.body(x)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = body(), body()

    def forward(self, x):
        return self.one(x) + self.two(x)


class Pair(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.body, self.n = body(), n

    def forward(self, x):
        return (self.body(x), *(x for _ in range(self.n)))


class Training(nn.Module):
    """Gives something else in training mode than in evaluation."""

    def __init__(self, change):
        super().__init__()
        self.body, self.change = body(), change

    def forward(self, x):
        return self.change(self.body(x)) if self.training else self.body(x)


Outputs = collections.namedtuple("Outputs", "logits aux2 aux1")


class Masked(nn.Sequential):
    def __init__(self):
        super().__init__(*body())
        self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))


class Noisy(nn.Sequential):
    """Draws from every generator there is."""

    def __init__(self):
        super().__init__(*body())
        self.shift = random.random() + np.random.rand()  # noqa: NPY002

    def forward(self, x):
        drawn = random.random() + np.random.rand() + float(torch.rand(()))  # noqa: NPY002
        return super().forward(x + self.shift + drawn * self.training)


def parametrised():
    net = body()
    parametrizations.weight_norm(net[4])
    return net


NETS = {
    "plain": body,
    "sized": lambda num_classes=4, width=6: body(num_classes, width),
    "first": lambda: Wrapped(nn.Linear(4, 4), first_head),
    "softmax": lambda: nn.Sequential(*body(), nn.Linear(4, 4), nn.LogSoftmax(1)),
    "two": Two,
    "convolution": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ),
    "single": lambda: Pair(0),
    "pair": lambda: Pair(1),
    "auxiliary": lambda: Training(lambda y: Outputs(y, y[:, :3], None)),
    "dictionary": lambda: Training(lambda y: {"logits": y, "features": y}),
    "wide": lambda: Training(lambda y: torch.cat([y, y], 1)),
    "eights": lambda: Training(lambda y: y.view(8, 4)),
    "nines": lambda: Training(lambda y: y.view(9, 4)),
    "alone": lambda: Training(lambda y: (y, None)),
    "masked": Masked,
    "noisy": Noisy,
    "double": lambda: body().double(),
    "half": lambda: body().half(),
    "in_place": lambda: Wrapped(nn.Identity(), lambda net, x: net.body(x.sub_(0.5))),
    "in_between": lambda: Wrapped(nn.Identity(), lambda net, x: net.body(x) + net.body(x.sub_(1))),
    "parametrised": parametrised,
    "norm": lambda: nn.Sequential(
        *body()[:4], nn.BatchNorm1d(54), nn.Linear(54, 4)
    ),
    "after": lambda: nn.Sequential(*body(), nn.BatchNorm1d(4)),
    "untracked": lambda: nn.Sequential(*body(), nn.BatchNorm1d(4, track_running_stats=False)),
    "instance": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.InstanceNorm2d(6), nn.Flatten(),
        nn.Linear(6, 4),
    ),
    "group": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.GroupNorm(6, 6), nn.Flatten(),
        nn.Linear(6, 4),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    module = types.ModuleType("start_nets")
    vars(module).update(NETS)
    monkeypatch.setitem(sys.modules, "start_nets", module)


@pytest.fixture
def run(make_phase, make_curriculum, tmp_path):
    def run(name, *phases, out="run", **network):
        phases = phases or (make_phase(categories=4, steps=3, checkpoints=(0,)),)
        curriculum = make_curriculum(
            *phases, network=Network(f"start_nets:{name}", **network), canvas=Canvas(16, 7)
        )
        train(curriculum, tmp_path / out, device="cpu")
        return list_checkpoints(tmp_path / out, trust=[f"start_nets:{name}"])

    return run


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "auxiliary",
            r"2 in training mode \(logits: \(2, 4\), aux2: \(2, 3\)\).*aux_logits = false",
        ),
        ("dictionary", r"2 in training mode \(logits: .*, features: "),
        ("nines", "fails in training mode on a batch of 8 .*invalid for input of size 32"),
        ("wide", "in training mode gives 8 values per image for 4 classes"),
    ],
)
def test_other_outputs_in_training_are_refused_before_anything_is_written(
    run, tmp_path, name, says
):
    with pytest.raises(ElsewhereError, match=f"network.*{says}") as caught:
        run(name)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
    for other in ("alone", "eights"):
        assert run(other, out=other)[-1].step == 3


# --- classes


def test_a_head_that_is_kept_keeps_its_classes(run, make_phase):
    options = {"objects": "digits", "batch": 16, "learning_rate": 0.01, "checkpoints": (0,)}
    old = run("plain", make_phase(categories=4, steps=20, **options), out="old")[-1]
    turned = (*old.categories[2:], *old.categories[:2])
    again = make_phase("again", categories=turned, steps=1, **options)
    new = run("plain", again, out="new", weights=str(old.path))[0]
    assert new.categories == turned
    before, after = read_weights(old), read_weights(new)
    for name in ("4.weight", "4.bias"):
        assert torch.equal(after[name], before[name][[2, 3, 0, 1]])
    # the same from one phase to the next
    first = make_phase("a", categories=("1", "2", "3", "4"), steps=2, **options)
    second = make_phase("b", categories=None, same_categories_as="a", steps=2, **options)
    assert [card.categories for card in run("plain", first, second, out="two")][-1] == tuple("1234")


def test_other_classes_need_a_new_head(run, make_phase):
    first = make_phase("a", categories=4, steps=2, checkpoints=(0,))
    with pytest.raises(ElsewhereError, match="phase b: new_head: the head has no unit for"):
        run("plain", first, make_phase("b", categories=4, steps=2))
    old = run("plain", first)[-1]
    with pytest.raises(ElsewhereError, match=r"no unit for .*new_head = true"):
        run("plain", make_phase("b", categories=4, steps=2), out="b", weights=str(old.path))
    new = run("plain", make_phase("b", categories=4, steps=2, new_head=True), out="c",
              weights=str(old.path))  # fmt: skip
    assert not set(new[-1].categories) & set(old.categories)


def test_arguments_of_a_checkpoint_are_its_own(run):
    old = run("sized", arguments={"width": 5})[-1]
    with pytest.raises(ElsewhereError, match=r"has width = 5; got 6; leave the arguments out"):
        run("sized", out="b", weights=str(old.path), arguments={"width": 6})


def test_a_state_of_several_is_chosen_by_its_key(run, make_curriculum, make_phase, tmp_path):
    raw, average = body(), body()
    path = tmp_path / "both.pt"
    torch.save({"raw": raw.state_dict(), "ema": average.state_dict()}, path)
    with pytest.raises(ElsewhereError, match=r"2 states .* raw, ema; choose one with --state-key"):
        run("plain", weights=str(path))
    phase = make_phase(categories=4, steps=1, checkpoints=(0,))
    prints = set()
    for key, network in (("raw", raw), ("ema", average)):
        options = {"weights": str(path), "state_key": key}
        first = run("plain", phase, out=key, **options)[0]
        assert torch.equal(read_weights(first)["0.weight"], network[0].weight)
        assert any(f"the state {key!r} was taken" in note for note in first.notes)
        named = make_curriculum(phase, network=Network("start_nets:plain", **options))
        prints.add(named.fingerprint)
        assert Curriculum.from_dict(named.to_dict()).network.state_key == key
    assert len(prints) == 2
    with pytest.raises(ElsewhereError, match=r"state_key: the checkpoint .* holds one state"):
        run("plain", phase, out="c", weights=str(first.path), state_key="raw")
    with pytest.raises(ElsewhereError, match="chooses within a file"):
        run("plain", phase, out="d", state_key="raw")


def test_an_error_of_a_file_names_one_line_of_it(run, tmp_path):
    old, path = run("sized", arguments={"width": 5})[-1], tmp_path / "args.toml"
    text = f"""
    [network]
    name = "start_nets:sized"
    weights = "{old.path}"
    arguments = {{ width = 6 }}
    [canvas]
    size = 16
    object_size = 7
    [[phase]]
    name = "again"
    objects = "digits"
    categories = 4
    exemplars = {{ train = 6, held_out = 3 }}
    steps = 1
    new_head = true
    """
    path.write_text(text)
    with pytest.raises(ElsewhereError, match=r"args.toml, line 5: network: arguments: ") as caught:
        train(load_curriculum(path), tmp_path / "b", device="cpu", trust=["start_nets:sized"])
    assert str(caught.value).count("line ") == 1
    path.write_text(text.replace("arguments", "gain = 3.0  #"))
    with pytest.raises(ElsewhereError, match=r"args.toml, line 2: network: the checkpoint"):
        train(load_curriculum(path), tmp_path / "b", device="cpu", trust=["start_nets:sized"])


def test_weights_that_name_no_classes_say_so(run, tmp_path):
    torch.save(body().state_dict(), tmp_path / "whole.pt")
    card = run("plain", weights=str(tmp_path / "whole.pt"))[-1]
    assert any("unit i of their head was taken for the phase's class i" in n for n in card.notes)
    assert run("plain", out="random")[-1].notes == ()


@pytest.mark.parametrize("lacking", [("4.bias",), ("4.weight", "4.bias")])
def test_weights_without_a_head_say_so(lacking, run, tmp_path):
    state = {name: value for name, value in body().state_dict().items() if name not in lacking}
    torch.save(state, tmp_path / "trunk.pt")
    weights = {"weights": str(tmp_path / "trunk.pt"), "arguments": {"num_classes": 4}}
    card = run("sized", **weights)[0]
    assert any(f"lack the head's {', '.join(lacking)}: what is" in note for note in card.notes)
    assert not any("of their head" in note for note in card.notes)
    assert torch.equal(read_weights(card)["0.weight"], state["0.weight"])


@pytest.mark.parametrize("left", [("0.bias",), ("0.bias", "0.weight", "4.bias"), ("4.weight",)])
def test_a_state_file_holds_everything_but_the_head(run, make_phase, tmp_path, left):
    state, path = body().state_dict(), tmp_path / "part.pt"
    torch.save({name: state[name] for name in left}, path)
    phase = make_phase(categories=4, steps=2, new_head=True, checkpoints=(0,))
    options = {"weights": str(path), "arguments": {"num_classes": 4}}
    if {"0.bias", "0.weight"} <= set(left):
        assert torch.equal(
            read_weights(run("sized", phase, **options)[0])["0.bias"], state["0.bias"]
        )
    else:
        with pytest.raises(
            ElsewhereError, match=r"lacks . tensor\(s\) .*everything but the head, 4"
        ):
            run("sized", phase, **options)


def test_a_split_of_a_set_of_one_part_is_said(run, make_phase):
    card = run("plain", make_phase(categories=4, steps=1, split="test", checkpoints=(0,)))[-1]
    assert "glyphs has one part" in card.notes[0]


# --- heads


@pytest.mark.parametrize(
    ("name", "head"), [("plain", "4"), ("first", "body.4"), ("softmax", "5"), ("single", "body.4")]
)
def test_the_head_makes_the_output(name, head, run, make_phase):
    assert find_head(load_model(f"start_nets:{name}"))[0] == head
    options = {"categories": 4, "steps": 2, "checkpoints": (0,)}
    cards = run(name, make_phase("a", **options), make_phase("b", new_head=True, **options))
    before, after = read_weights(cards[1]), read_weights(cards[2])
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {f"{head}.bias", f"{head}.weight"}


def test_logits_are_the_heads(run, make_phase):
    """The last linear layer by definition is `extra`; patterns and checkpoints mean the head."""
    assert load_model("start_nets:first").aliases["logits"] == "body.4"
    assert "logits" not in load_model("start_nets:convolution").aliases
    phase = make_phase(categories=4, steps=2, trainable=("logits",), checkpoints=(0,))
    first, last = run("first", phase)
    before, after = read_weights(first), read_weights(last)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"body.4.bias", "body.4.weight"}
    assert load_checkpoint(last).aliases["logits"] == "body.4"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("two", "no linear layer that makes its output"),
        ("convolution", "no linear layer that makes its output"),
        ("pair", r"gives 2 tensors \(\(1, 4\), \(1, 3, 16, 16\)\); expected one"),
        ("half", "weights of torch.float16; expected float32 or float64"),
        ("parametrised", "is a ParametrizedLinear with more to it"),
    ],
)
def test_networks_without_a_head_to_speak_of_are_refused(name, words, run, tmp_path):
    with pytest.raises(ElsewhereError, match=words):
        run(name)
    assert not (tmp_path / "run").exists()


def test_a_parametrised_head_can_be_kept(run, make_phase):
    phase = make_phase(categories=4, steps=2, new_head=False, checkpoints=(0,))
    first, last = (read_weights(card) for card in run("parametrised", phase))
    name = "4.parametrizations.weight.original1"
    assert not torch.equal(first[name], last[name])
    with pytest.raises(ElsewhereError, match="ParametrizedLinear"):
        replace_head(load_model("start_nets:parametrised"), 3, seed=0)


def test_a_batch_of_one_with_batch_normalisation(run, make_phase):
    with pytest.raises(ElsewhereError, match=r"Expected more than 1 value.* a batch of 2 or more"):
        run("norm", make_phase(categories=4, steps=3, batch=1))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("after", {"batch": 1}, "layer '5' normalises over the images of a batch .* 2 or more"),
        ("after", {"categories": 3}, "takes its 4 units and no other number; got 3 classes"),
        ("untracked", {}, "layer '5' normalises over the images of a batch"),
        ("instance", {}, "layer '2' normalises over the cells of an image's map .* single cell"),
        ("group", {}, "layer '2' normalises over the values of an image's group"),
    ],
)
def test_a_normalisation_of_a_single_value_is_named(name, options, words, run, make_phase):
    """Nor is the canvas blamed for it."""
    with pytest.raises(ElsewhereError, match=words) as caught:
        run(name, make_phase(**{"categories": 4, "steps": 3, "new_head": True} | options))
    assert "another" not in str(caught.value)


def test_images_that_are_changed_in_place_do_not_mislead_about_the_head(run):
    run("in_place")
    with pytest.raises(
        TrainingError, match=r"in_between fails in the pass back \(.*inplace operation"
    ):
        run("in_between", out="between")


def test_weights_that_are_not_numbers_are_no_divergence(run, tmp_path):
    weights = read_weights(run("plain")[-1])
    weights["4.weight"][0] = torch.nan
    torch.save(weights, tmp_path / "nan.pth")
    with pytest.raises(ElsewhereError, match="1 not finite: 4.weight .54 of 216 values"):
        run("plain", weights=str(tmp_path / "nan.pth"), out="nan")


def test_a_mask_is_no_divergence_and_double_precision_works(run):
    mask = read_weights(run("masked")[-1])["mask"]
    assert bool(torch.isinf(mask).any())
    card = run("double", out="double")[-1]
    assert read_weights(card)["4.weight"].dtype == torch.float64
    assert load_checkpoint(card).module[4].weight.dtype == torch.float64


# --- chance


def test_networks_that_draw_are_repeated_and_resumed(run, make_phase, make_curriculum, tmp_path):
    phase = make_phase(categories=4, steps=110, checkpoints=(0, 110))
    whole = run("noisy", phase, out="whole")
    random.seed(5)
    np.random.seed(6)  # noqa: NPY002
    curriculum = make_curriculum(phase, network=Network("start_nets:noisy"), canvas=Canvas(16, 7))

    class Stop(Exception):
        pass

    def stop(report):
        if report.step == 100:
            raise Stop

    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    with pytest.raises(Stop):
        train(curriculum, tmp_path / "cut", device="cpu", save_every=0, progress=stop)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002
    train(curriculum, tmp_path / "cut", device="cpu")
    for mine, theirs in zip(list_checkpoints(tmp_path / "cut"), whole, strict=True):
        for name, value in read_weights(mine).items():
            assert torch.equal(value, read_weights(theirs)[name])
    assert read_metrics(tmp_path / "cut")[-1] == read_metrics(tmp_path / "whole")[-1]


# --- keys that do nothing


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dropout": 0.9}, "dropout: .* has no dropout layer"),
        ({"checkpoints": (0, 4)}, "checkpoints: step 4 does not come: the phase has 3 steps"),
        ({"trainable": ("4",), "rates": {"0": 0.1}}, "rates: the rate of '0' does nothing"),
        (
            {"rates": {"0": 0.1, "?": 0.1, "0.*": 0.2}},
            "rates: .*'0' and '0.\\*' give 0.* different",
        ),
    ],
)
def test_keys_that_do_nothing_are_refused(run, make_phase, tmp_path, options, words):
    phase = make_phase(**{"categories": 4, "steps": 3, "exemplars": Exemplars(6, 2)} | options)
    with pytest.raises(ElsewhereError, match=f"phase learn: {words}"):
        run("plain", phase)
    assert not (tmp_path / "run").exists()


def test_what_a_curriculum_made_in_python_names_need_not_be_named_again(tmp_path, monkeypatch):
    network = types.ModuleType("own_nets")
    network.net = lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 3))
    monkeypatch.setitem(sys.modules, "own_nets", network)
    monkeypatch.setattr("elsewhere.models.names._NAMED_IN_PYTHON", set())
    phase = Phase(
        "p", "digits", categories=3, exemplars=Exemplars(2, 1), environment="one", steps=1
    )
    own = Curriculum("own", Network("own_nets:net"), Canvas(24, 11), (phase,))
    train(own, tmp_path / "run", device="cpu")
    card = list_checkpoints(tmp_path / "run")[-1]
    load_checkpoint(card.path)
    monkeypatch.setattr("elsewhere.models.names._NAMED_IN_PYTHON", set())  # another process
    with pytest.raises(InputError, match="--trust-factory own_nets:net"):
        load_checkpoint(card.path)


class Followed(nn.Module):
    """A head, and something behind it that knows its units apart."""

    def __init__(self, tail):
        super().__init__()
        self.body, self.tail = body(), tail

    def forward(self, x):
        return self.tail(self.body(x))


class Roll(nn.Module):
    def forward(self, x):
        return x.roll(1, 1)


class Added(nn.Module):
    def __init__(self):
        super().__init__()
        self.post = nn.Linear(4, 4)

    def forward(self, x):
        return x + self.post(x)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))

    def forward(self, x):
        return x * self.scale


@pytest.mark.parametrize("tail", [Roll(), Added(), Scaled()], ids=["roll", "added", "scaled"])
def test_units_are_not_exchanged_before_what_knows_them_apart(wrap, tail):
    torch.manual_seed(0)
    model = wrap(Followed(tail))
    head = find_head(model)[1]
    before = head.weight.clone()
    for change in (
        lambda: order_units(model, [3, 2, 1, 0]),
        lambda: replace_head(model, 4, seed=0),
    ):
        with pytest.raises(ElsewhereError, match="knows its units apart"):
            change()
    assert torch.equal(head.weight, before)


def test_a_softmax_behind_the_head_exchanges_with_it(wrap):
    torch.manual_seed(0)
    model = wrap(Followed(nn.LogSoftmax(1)))
    x = torch.rand(2, 3, 24, 24)
    before = model.module(x)
    order_units(model, [3, 2, 1, 0])
    torch.testing.assert_close(model.module(x), before.flip(1))
