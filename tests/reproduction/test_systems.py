"""Lists of systems: what is read, which runs they need, and one table of all their claims."""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from elsewhere.errors import CurriculumError, InputError, TrainingError, UnknownNameError
from elsewhere.reproduction import (
    load_systems,
    plan_systems,
    reproduce_systems,
    system_lists,
    systems_run,
)
from elsewhere.reproduction.systems import CONDITIONS
from elsewhere.reproduction.systems_run import runs_of
from elsewhere.reproduction.tasks import Event, write_values
from elsewhere.storage import load_result

TWO = """
# Two systems that take seconds.
conditions = ["vanilla", "everywhere"]

[[system]]
name = "plain"
summary = "a flattening head"
network = {{ name = "small-cnn", arguments = {{ channels = "4-8", hidden = 16 }} }}

[[system]]
name = "gap"
network = {{ name = "small-cnn-gap", arguments = {{ channels = "4-8", hidden = 16 }} }}
pretraining = {{ learning_rate = 1e-4, steps = 5 }}
{more}
"""

KILLED = """
import os, signal, sys
from elsewhere.reproduction import load_systems, reproduce_systems
listed = load_systems(sys.argv[1], scale=sys.argv[2])
def kill(event):
    if event.system.endswith("gap") and event.stage == "training" and event.step:
        os.kill(os.getpid(), signal.SIGKILL)
reproduce_systems(listed, sys.argv[3], workers=1, figures=False, device="cpu", max_steps=6,
                  progress=kill)
"""


@pytest.fixture
def two(tmp_path, tiny_folder):
    """Return a function that reads a list of two systems, with `more` lines at its end."""

    def read(more="", change=lambda text: text):
        path = tmp_path / "two.toml"
        path.write_text(change(TWO.format(more=more)))
        return load_systems(path, scale=tiny_folder)

    return read


def pretend(task, progress):
    """Leave the numbers of a network that has learnt; that with gap knows the objects elsewhere."""
    progress(Event(task.seed, task.run.name, "measuring", system=task.scale.name))
    elsewhere = 0.9 if task.scale.name.endswith("gap") else 0.001 * (task.seed - 100)
    values = {"train_accuracy": 1.0, "place_only_accuracy": 0.1}
    for phase in task.scale.learning:
        for kind in ("same", "held-out"):
            values[f"II_far/{kind}/{phase.name}"] = elsewhere
            values[f"N_on/{kind}/{phase.name}"] = 1.0
    task.folder.mkdir(parents=True, exist_ok=True)
    write_values(task, values)


@pytest.fixture
def pretended(monkeypatch):
    """Train nothing."""
    monkeypatch.setattr(systems_run, "perform", pretend)


@pytest.mark.parametrize("name", list(system_lists))
def test_a_list_of_the_package_asks_for_every_claim_of_ten_systems(name):
    found = load_systems(name)
    assert found.claims == ("C1", "C3", "C4", "C5", "C6")
    assert len(found.systems) >= 10
    assert all(system.summary and system.source for system in found.systems)
    canvases = {scale.canvas for scale in found.scales.values()}
    assert len(canvases) == 1
    assert all(scale.network.gain == 6.0 for scale in found.scales.values())
    assert all({0, 1, 2} <= {*scale.tuned_on} for scale in found.scales.values())


def test_what_a_system_trains_otherwise_changes_those_phases_only(two):
    found = two("learning = { batch = 7 }")
    plain, gap = found.scales["plain"], found.scales["gap"]
    for name in ("full", "fixed", "fixed-cell"):
        assert gap.phases(name)[0].steps == 5
        assert gap.phases(name)[0].learning_rate == 1e-4
    assert [phase.batch for phase in gap.phases("vanilla")] == [7] * len(plain.phases("vanilla"))
    assert gap.phases("interference")[0].batch == 7
    assert gap.phases("interference")[-1] == plain.phases("interference")[-1]
    same = dataclasses.replace(gap.phases("full")[0], steps=12, learning_rate=3e-3)
    assert same == plain.phases("full")[0]
    assert gap.fingerprint != plain.fingerprint
    assert plain.name == "two/plain"


def test_conditions_bring_the_runs_that_they_start_from(two):
    scale = two().scales["plain"]
    assert [run.name for run in runs_of(scale, ["vanilla"])] == ["vanilla"]
    assert [run.name for run in runs_of(scale, ["fixed"])] == [
        *("full", "fixed", "fixed-learning", "equal-accuracy")
    ]
    every = [run.name for run in runs_of(scale, CONDITIONS)]
    assert {name for names in CONDITIONS.values() for name in names} == {*every}


@pytest.mark.parametrize(
    ("before", "after", "error", "message"),
    [
        ('"everywhere"', '"anywhere"', CurriculumError, "line 3: conditions: no condition 'anywh"),
        ("pretraining", "training", CurriculumError, "unknown key 'training'.*pretraining"),
        ("learning_rate", "rate", CurriculumError, "line 13: unknown key 'rate'.*pretraining"),
        ("1e-4", "-1", CurriculumError, "line 13.*learning_rate.*above 0"),
        ('"gap"', '"plain"', CurriculumError, "'plain' is the name of two"),
        ('"gap"', '"../gap"', CurriculumError, "expected letters"),
        ("small-cnn-gap", "small-cm", CurriculumError, "line 12.*unknown model 'small-cm'"),
        ("small-cnn-gap", "mynets:build", InputError, "--trust-factory mynets:build"),
        ("[[system]]", "[[network]]", CurriculumError, "unknown key 'network'"),
        ('conditions = ["vanilla", "everywhere"]', "conditions = []", CurriculumError, "'none'"),
        ('"vanilla", "everywhere"', '"everywhere"', CurriculumError, "line 3: .*no claim.*C1: van"),
        ('"vanilla", "everywhere"', '"fixed"', CurriculumError, "no claim is about fixed alone"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused_with_its_line(two, before, after, error, message):
    with pytest.raises(error, match=message):
        two(change=lambda text: text.replace(before, after))


def test_unknown_lists_and_systems_name_the_nearest(two, tmp_path):
    with pytest.raises(UnknownNameError, match="slim"):
        load_systems("slimm")
    with pytest.raises(UnknownNameError, match="gap"):
        reproduce_systems(two(), tmp_path / "out", only=["gpa"])
    assert not (tmp_path / "out").exists()


def test_every_system_has_a_verdict_of_its_own_and_one_table_has_all(two, tmp_path, pretended):
    listed = two()
    path = reproduce_systems(
        listed, tmp_path / "out", seeds=2, workers=1, figures=False, device="cpu"
    )
    found = json.loads(path.read_text())
    verdicts = {each["name"]: each["summary"]["C1"]["verdict"] for each in found["systems"]}
    assert list(verdicts) == ["plain", "gap"]
    assert verdicts == {"plain": "holds", "gap": "fails"}
    result = load_result(tmp_path / "out" / "claims.nc")
    assert set(result["claim"].values) == {"C1", "C3", "C5"}
    for name in ("plain", "gap"):
        own = load_result(tmp_path / "out" / "systems" / name / "claims.nc")
        here = result.isel(claim=result["system"].values == name)
        np.testing.assert_array_equal(here["value"], own["value"])
        np.testing.assert_array_equal(here["seeds"], own["seeds"])
    assert result["seed"].values.tolist() == [100, 101]
    values = result["seeds"].isel(claim=(result["system"].values == "plain").argmax())
    np.testing.assert_allclose(values, [0.0, 0.001])


def test_a_run_that_was_stopped_goes_on_and_finished_seeds_are_in_the_table(
    two, tmp_path, pretended
):
    listed, out, events = two(), tmp_path / "out", []

    def stop(event):
        if event.stage == "done" and event.finished == 7:
            raise KeyboardInterrupt

    settings = {"seeds": 2, "workers": 1, "figures": False, "device": "cpu"}
    with pytest.raises(KeyboardInterrupt):
        reproduce_systems(listed, out, progress=stop, **settings)
    found = json.loads((out / "claims.json").read_text())["systems"]
    assert {each["name"]: each["seeds"] for each in found} == {"plain": [100], "gap": [100]}
    reproduce_systems(listed, out, progress=events.append, **settings)
    assert [event.stage for event in events].count("skipped") == 7
    assert [event.stage for event in events].count("done") == 5
    found = json.loads((out / "claims.json").read_text())["systems"]
    assert found[1]["seeds"] == [100, 101]


def test_systems_can_be_added_and_others_stay_in_the_table(two, tmp_path, pretended):
    listed, out = two(), tmp_path / "out"
    settings = {"workers": 1, "figures": False, "device": "cpu"}
    for name in ("gap", "plain"):
        path = reproduce_systems(listed, out, only=[name], **settings)
    found = json.loads(path.read_text())["systems"]
    assert [each["name"] for each in found] == ["plain", "gap"]


def test_a_system_that_cannot_be_trained_is_noted_and_the_others_go_on(two, tmp_path, monkeypatch):
    def diverge(task, progress):
        if task.run.name == "full" and task.scale.name.endswith("plain"):
            raise TrainingError("the loss is not finite at step 3")
        pretend(task, progress)

    monkeypatch.setattr(systems_run, "perform", diverge)
    path = reproduce_systems(two(), tmp_path / "out", workers=1, figures=False, device="cpu")
    plain, gap = json.loads(path.read_text())["systems"]
    assert gap["refused"] == []
    assert plain["refused"] == ["seed 100: full: the loss is not finite at step 3"] * 2
    rows = [row for row in plain["claims"] if row["claim"] == "C3" and row["decides"]]
    assert {row["verdict"] for row in rows} == {"not measurable"}
    assert all("full: the loss is not finite at step 3" in row["note"] for row in rows)
    assert plain["summary"]["C1"]["verdict"] == "shown in this run"


def test_two_systems_are_trained_and_planned(two, tmp_path):
    listed = dataclasses.replace(two(), conditions=("vanilla",))
    costs = plan_systems(listed, seeds=2, workers=2, device="cpu")
    assert (costs.runs, costs.workers) == (4, 2)
    assert costs.steps == sum(each.steps for each in costs.systems.values())
    assert all(each.step_seconds > 0 for each in costs.systems.values())
    path = reproduce_systems(
        listed, tmp_path / "out", first_seed=0, workers=2, max_steps=2, device="cpu"
    )
    found = json.loads(path.read_text())["systems"]
    assert {each["name"]: each["refused"] for each in found} == {"plain": [], "gap": []}
    assert found[1]["claims"][0]["n_seeds"] == 1
    assert (tmp_path / "out" / "figures" / "claims-C1.svg").stat().st_size > 0


def numbers_of(out):
    """Return what all runs gave, without their times, and digests of their checkpoints."""
    values = {}
    for path in sorted(out.glob("systems/*/seeds/*/*.json")):
        held = json.loads(path.read_text())["values"]
        values[str(path.relative_to(out))] = {k: v for k, v in held.items() if "seconds" not in k}
    weights = {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*.safetensors"))
    }
    return values, weights


def test_a_list_that_is_killed_goes_on_to_the_same_numbers(two, tmp_path, tiny_folder):
    """Killed in the middle of the second system's training: the first one is not done again."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    listed = two(change=lambda text: text.replace(', "everywhere"', ""))
    settings = {"workers": 1, "figures": False, "device": "cpu", "max_steps": 6}
    reproduce_systems(listed, whole, **settings)
    arguments = [sys.executable, "-c", KILLED, tmp_path / "two.toml", tiny_folder, killed]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    child = subprocess.run(arguments, env=environment, check=False, capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    (first,) = killed.glob("systems/*/seeds/*/vanilla.json")
    assert first.parents[2].name == "plain"
    before, events = first.stat(), []
    reproduce_systems(listed, killed, progress=events.append, **settings)
    stages = [(event.system.rpartition("/")[2], event.stage) for event in events]
    assert {name for name, stage in stages if stage == "training"} == {"gap"}
    assert [each for each in stages if each[1] in ("skipped", "done")] == [
        ("plain", "skipped"), ("gap", "done")
    ]  # fmt: skip
    after = first.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert numbers_of(killed) == numbers_of(whole)
    assert len(numbers_of(whole)[0]) == 2
    one, other = (load_result(each / "claims.nc") for each in (whole, killed))
    for name in ("value", "seeds", "interval"):
        np.testing.assert_array_equal(one[name], other[name])
