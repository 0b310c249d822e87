"""Training: it learns, a seed fixes everything, a killed run goes on, bad ends are clean."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from elsewhere.errors import (
    CurriculumError,
    ElsewhereError,
    ExistsError,
    InputError,
    StorageError,
    TrainingError,
)
from elsewhere.models import load_model
from elsewhere.training import (
    Criterion,
    Curriculum,
    Exemplars,
    Network,
    find_head,
    list_checkpoints,
    load_checkpoint,
    read_metrics,
    replace_head,
    train,
)

KILLED = """
import os, signal, sys
from elsewhere.training import Curriculum, train
import json
curriculum = Curriculum.from_dict(json.loads(sys.argv[1]))
def kill(report):
    if (report.phase, report.step) == ("pretrain", 100):
        os.kill(os.getpid(), signal.SIGKILL)
train(curriculum, sys.argv[2], device="cpu", progress=kill, save_every=0)
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run(two_phases, tmp_path_factory):
    return train(two_phases, tmp_path_factory.mktemp("runs") / "whole", device="cpu")


def files_of(directory):
    paths = [*sorted((directory / "checkpoints").iterdir()), directory / "metrics.jsonl"]
    return {path.name: path.read_bytes() for path in paths}


def test_a_run_holds_what_it_promises(run, two_phases):
    assert Curriculum.load_run(run) == two_phases
    cards = list_checkpoints(run)
    assert [(card.phase, card.step) for card in cards] == [
        *(("pretrain", step) for step in (0, 1, 11, 120)),
        *(("learn", step) for step in (0, 1, 7, 55)),
    ]
    assert [card.final for card in cards] == [False, False, False, True] * 2
    last = cards[-1]
    assert last.fingerprint == two_phases.fingerprint
    assert last.trained == ((8, 3),)
    assert cards[0].trained is None
    assert not set(cards[0].categories) & set(last.categories)
    reports = read_metrics(run)
    assert reports[0].loss is None
    learning = [report.loss for report in reports if report.phase == "learn" and report.step]
    assert learning[-1] < learning[0]
    assert {report.phase for report in reports} == {"pretrain", "learn"}
    assert all((report.accuracy_off is None) == (report.phase == "pretrain") for report in reports)


def test_a_checkpoint_is_a_model(run):
    cards = list_checkpoints(run)
    model = load_checkpoint(cards[-1].path)
    assert not model.module.training
    assert model.transform.gain == 4.0
    assert find_head(model)[1].out_features == 5
    train_set, held_out = cards[-1].load_objects()
    assert train_set.category_names == held_out.category_names == cards[-1].categories
    objects, mask = cards[-1].test_objects(per_category=2)
    assert mask.tolist() == [False, False, True, True] * 5
    assert set(objects.subset(mask.nonzero()[0]).ids) <= set(held_out.ids)


def test_a_killed_run_goes_on_and_ends_the_same(run, two_phases, tmp_path):
    out = tmp_path / "killed"
    arguments = [sys.executable, "-c", KILLED, json.dumps(two_phases.to_dict()), str(out)]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    child = subprocess.run(arguments, env=environment, check=False, capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert not (out / "checkpoints" / "pretrain-000120.json").exists()

    class Stop(Exception):
        pass

    def stop(report):
        assert report.phase == "learn" or report.step > 50  # of the first, what was done stays
        if (report.phase, report.step) == ("learn", 55):
            raise Stop

    with pytest.raises(Stop):
        train(two_phases, out, device="cpu", progress=stop, save_every=0)
    train(two_phases, out, device="cpu")
    assert files_of(out) == files_of(run)
    train(two_phases, out, device="cpu", progress=lambda report: pytest.fail("is finished"))


def test_the_seed_fixes_everything(run, two_phases, tmp_path):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = train(two_phases, tmp_path / "again", device="cpu")
    assert torch.equal(before, torch.get_rng_state())
    assert files_of(again) == files_of(run)
    other = train(two_phases, tmp_path / "other", device="cpu", seed=1)
    cards, others = list_checkpoints(run), list_checkpoints(other)
    assert cards[0].fingerprint == others[0].fingerprint
    assert cards[0].categories != others[0].categories
    assert cards[0].sha256 != others[0].sha256


def test_learns_and_stops_by_criterion(make_curriculum, make_phase, tmp_path):
    phase = make_phase(
        environment="one",
        steps=2000,
        learning_rate=5e-3,
        dropout=0.0,
        criterion=Criterion(0.95, window=20),
    )
    out = train(make_curriculum(phase), tmp_path / "run", device="cpu")
    last = list_checkpoints(out)[-1]
    assert last.final
    assert last.criterion_step == last.step < 1000
    assert last.train_accuracy > 0.7
    assert last.accuracy_on > 0.6 > last.accuracy_off


def test_a_criterion_that_only_notes_keeps_a_checkpoint(make_curriculum, make_phase, tmp_path):
    criterion = Criterion(0.3, window=10, stop=False)
    phase = make_phase(
        environment="one", steps=150, learning_rate=5e-3, criterion=criterion, checkpoints=(150,)
    )
    cards = list_checkpoints(train(make_curriculum(phase), tmp_path / "run", device="cpu"))
    assert [card.step for card in cards] == [cards[0].criterion_step, 150]
    assert cards[0].criterion_step < 150
    assert cards[1].final


def test_after_branches_and_dropout_comes_back(make_curriculum, make_phase, tmp_path):
    phases = (
        make_phase("a", steps=5, dropout=0.9),
        make_phase("b", steps=5, new_head=True),
        make_phase("c", steps=5, after="a", new_head=True),
        make_phase("d", steps=5, after="none"),
    )
    out = train(make_curriculum(*phases), tmp_path / "run", device="cpu")
    cards = {(card.phase, card.step): card for card in list_checkpoints(out)}

    def trunk(phase, step):
        return load_checkpoint(cards[phase, step].path).module.features[0].weight

    assert torch.equal(trunk("c", 0), trunk("a", 5))
    assert torch.equal(trunk("b", 0), trunk("a", 5))
    assert torch.equal(trunk("d", 0), trunk("a", 0))
    assert not torch.equal(trunk("b", 5), trunk("c", 5))
    assert load_checkpoint(cards["b", 5].path).module.classifier[2].p == 0.2


def test_dropout_of_a_phase_ends_with_it(make_curriculum, make_phase, tmp_path):
    states = []
    for dropout in (0.0, 0.9):
        phases = make_phase("a", steps=5, dropout=dropout), make_phase("b", steps=5, after="none")
        out = train(make_curriculum(*phases), tmp_path / str(dropout), device="cpu")
        states.append(list_checkpoints(out)[-1].sha256)
    assert states[0] == states[1]


def test_frozen_layers_stay(make_curriculum, make_phase, tmp_path):
    phase = make_phase(steps=20, trainable=("logits",))
    arguments = {"channels": "4-8", "hidden": 12, "batch_norm": True}
    curriculum = make_curriculum(phase, network=Network("small-cnn", arguments=arguments))
    cards = list_checkpoints(train(curriculum, tmp_path / "run", device="cpu"))
    first, last = (
        load_checkpoint(card.path).module.state_dict() for card in cards[:: len(cards) - 1]
    )
    changed = {name for name in first if not torch.equal(first[name], last[name])}
    assert changed == {"classifier.6.weight", "classifier.6.bias"}


def test_starts_from_a_checkpoint(run, two_phases, make_phase, tmp_path):
    path = list_checkpoints(run)[3].path
    network = dataclasses.replace(two_phases.network, weights=str(path))
    curriculum = dataclasses.replace(
        two_phases, network=network, phases=(make_phase("more", steps=3, new_head=True),)
    )
    out = train(curriculum, tmp_path / "more", device="cpu")
    first = load_checkpoint(list_checkpoints(out)[0].path).module.state_dict()
    start = load_checkpoint(path).module.state_dict()
    assert torch.equal(first["features.0.weight"], start["features.0.weight"])
    other = dataclasses.replace(curriculum, network=dataclasses.replace(network, gain=1.0))
    with pytest.raises(CurriculumError, match="was trained with"):
        train(other, tmp_path / "other", device="cpu")
    assert not (tmp_path / "other").exists()


def test_divergence_keeps_the_last_good_checkpoint(make_curriculum, make_phase, tmp_path):
    phase = make_phase(optimiser="sgd", learning_rate=1e12, steps=100, checkpoints=(0, 100))
    words = r"diverged at step [2-9]: the loss is \w+; .* learn-000000.safetensors, is kept"
    with pytest.raises(TrainingError, match=words) as caught:
        train(make_curriculum(phase), tmp_path / "run", device="cpu")
    assert "\n" not in str(caught.value)
    cards = list_checkpoints(tmp_path / "run")
    assert cards
    assert not any(card.final for card in cards)
    for card in cards:
        state = load_checkpoint(card.path).module.state_dict()
        assert all(torch.isfinite(value).all() for value in state.values())


def test_another_run_is_refused(run, two_phases, curriculum):
    prints = f"{two_phases.fingerprint[:12]}.*{curriculum.fingerprint[:12]}"
    with pytest.raises(ExistsError, match=prints):
        train(curriculum, run, device="cpu")
    with pytest.raises(ExistsError, match="seed 7"):
        train(two_phases, run, device="cpu", seed=7)
    with pytest.raises(ExistsError, match="resume"):
        train(two_phases, run, device="cpu", resume=False)


def test_a_damaged_state_is_refused(curriculum, tmp_path):
    train(curriculum, tmp_path / "run", device="cpu")
    (tmp_path / "run" / "state.pt").write_bytes(b"nonsense")
    with pytest.raises(StorageError, match="damaged"):
        train(curriculum, tmp_path / "run", device="cpu")
    (tmp_path / "run" / "curriculum.json").write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        train(curriculum, tmp_path / "run", device="cpu")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"new_head": False}, "phase second: new_head: the head has 5 classes and the phase 7"),
        ({"trainable": ("fc99",)}, "unknown trainable layer 'fc99'"),
        ({"rates": {"nothing": 2.0}}, "unknown trainable layer 'nothing'"),
        ({"environment": "one:0,0"}, "phase second: environment: location 0,0 is off the canvas"),
        ({"objects": "glyfs"}, "unknown object set 'glyfs'; nearest: glyphs"),
        ({"categories": 999}, "999 classes"),
        ({"objects": "digits", "exemplars": Exemplars(500, 1)}, "exemplars"),
    ],
)
def test_what_cannot_be_trained_is_refused_before(
    make_curriculum, make_phase, tmp_path, options, words
):
    second = make_phase("second", **{"categories": 7, "new_head": True} | options)
    with pytest.raises(CurriculumError, match=words) as caught:
        train(make_curriculum(make_phase(), second), tmp_path / "run", device="cpu")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Network("smal-cnn"), "unknown model 'smal-cnn'; nearest: small-cnn"),
        (Network("small-cnn", arguments={"depth": 3}), "depth"),
        (Network("small-cnn", std=(0.0, 1.0, 1.0)), "std"),
        (Network("small-cnn", weights="none.pth"), "no weights file"),
    ],
)
def test_networks_that_cannot_be_had(make_curriculum, tmp_path, network, words):
    with pytest.raises(CurriculumError, match=words):
        train(make_curriculum(network=network), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_bad_device_and_tensorboard(curriculum, tmp_path, monkeypatch):
    with pytest.raises(ElsewhereError, match="device"):
        train(curriculum, tmp_path / "run", device="gpu")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="pip install"):
        train(curriculum, tmp_path / "run", device="cpu", tensorboard=True)


def test_tensorboard_gets_the_scalars_of_the_metrics(curriculum, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = train(curriculum, tmp_path / "run", device="cpu", tensorboard=True)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    events = next(out.rglob("events.out.tfevents.*"))
    board = EventAccumulator(str(events.parent))
    board.Reload()
    phase = lines[-1]["phase"]
    own = [line for line in lines if line["phase"] == phase]
    losses = [line["loss"] for line in own if line["loss"] is not None]
    found = [event.value for event in board.Scalars(f"{phase}/loss")]
    assert found == pytest.approx(losses)


def test_new_heads_differ_by_seed_only():
    def head(n_classes, seed):
        model = load_model("small-cnn", model_args={"channels": "4-8", "canvas": 16})
        return find_head(replace_head(model, n_classes, seed=seed))[1]

    assert torch.equal(head(6, 1).weight, head(6, 1).weight)
    assert not torch.equal(head(6, 1).weight, head(6, 2).weight)
    assert head(600, 1).weight.std().item() == pytest.approx(256**-0.5, rel=0.02)
    assert not head(6, 1).bias.any()
    with pytest.raises(InputError):
        head(0, 1)
