"""All of it, from nothing to claims, on a tiny scale; resuming, refusing, parallel processes."""

import dataclasses
import json
import math
import re
import shutil
import struct

import numpy as np
import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from elsewhere.cli import app
from elsewhere.errors import (
    ElsewhereError,
    ExistsError,
    InputError,
    ObjectSetError,
    StorageError,
    TrainingError,
    UnknownNameError,
)
from elsewhere.models.machine import using_threads
from elsewhere.reproduction import costs, load_scale, make_runs, plan, reproduce, workers
from elsewhere.reproduction import tasks as tasks_module
from elsewhere.reproduction.claims import STATEMENTS
from elsewhere.reproduction.paper import draw_paper
from elsewhere.reproduction.run import make_tasks
from elsewhere.reproduction.tasks import Event, read_values, write_values
from elsewhere.reproduction.workers import choose_workers, perform_all
from elsewhere.stimuli import idx
from elsewhere.storage import load_result
from elsewhere.storage.locks import locked
from elsewhere.training import list_checkpoints, load_curriculum, train

COMMAND = "elsewhere reproduce --scale tiny"


@pytest.fixture(scope="module")
def done(tiny, tmp_path_factory):
    """Return a finished reproduction of one seed, and its events."""
    out, events = tmp_path_factory.mktemp("reproduction"), []
    given = {"first_seed": 0, "workers": 1, "figures": False, "device": "cpu", "command": COMMAND}
    reproduce(tiny, out, progress=events.append, **given)
    return out, events


@pytest.fixture
def copy(done, tmp_path):
    return shutil.copytree(done[0], tmp_path / "copy")


def values_of(out, run, seed=0):
    return json.loads((out / "seeds" / str(seed) / f"{run}.json").read_text())["values"]


def test_every_result_keeps_the_command(done):
    paths = [path for path in done[0].rglob("*.nc") if path.parent.name != "track"]
    commands = {path.name: load_result(path).attrs.get("command") for path in paths}
    assert len(commands) > 5
    assert set(commands.values()) == {COMMAND}


def test_it_leaves_claims_and_results(done, tiny):
    out, events = done
    table = json.loads((out / "claims.json").read_text())
    assert set(table["summary"]) == set(STATEMENTS)
    assert table["seeds"] == [0]
    assert table["fingerprint"] == tiny.fingerprint
    assert {row["claim"] for row in table["claims"]} == set(STATEMENTS)
    # one seed gives no verdict
    assert not {row["verdict"] for row in table["claims"]} & {"holds", "fails", "undecided"}
    claims = load_result(out / "claims.nc")
    assert claims.sizes["claim"] == len(table["claims"])
    measured = json.loads((out / "seeds" / "0" / "measurements.json").read_text())
    assert set(measured) == {run.name for run in make_runs(tiny)}
    stages = [event.stage for event in events]
    assert stages.count("done") == len(measured)
    assert events[-1].finished == events[-1].total == len(measured)
    assert stages.index("training") < stages.index("measuring") < stages.index("done")


def test_the_measures_are_what_they_are_called(done, tiny):
    out, _ = done
    vanilla = values_of(out, "vanilla")
    result = load_result(out / "seeds" / "0" / "vanilla-digits-accuracy.nc")
    far = result["accuracy_at"].sel(exemplars="same", where="far")
    assert vanilla["accuracy_far/same/digits"] == pytest.approx(float(far))
    trained = make_runs(tiny)[0].trained(0)
    assert (result["trained_y"].values.tolist(), result["trained_x"].values.tolist()) == (
        [trained[0]],
        [trained[1]],
    )
    similar = load_result(out / "seeds" / "0" / "acquired-glyphs-similarity.nc")
    hidden = float(similar["cosine_G_away"].sel(layer="fc4"))
    assert values_of(out, "acquired")["G/hidden/glyphs"] == pytest.approx(hidden)
    aligned = load_result(out / "seeds" / "0" / "vanilla-glyphs-aligned-exact.nc")
    assert aligned["layer"].values.tolist() == ["conv2_1"]
    # off the border a map moves with the object by whole cells: aligned, the same is the same
    plain = load_result(out / "seeds" / "0" / "vanilla-glyphs-evoked.nc")["evoked_G"].sel(
        layer="conv2_1"
    )
    gain = aligned["aligned_G"].sel(layer="conv2_1") - plain
    inner = gain.sel(y=slice(4, 15), x=slice(4, 15)).values  # 2 px, a cell, off the edges
    y, x = np.meshgrid(gain.sel(y=slice(4, 15))["y"], gain.sel(x=slice(4, 15))["x"], indexing="ij")
    away = (y != 10) | (x != 10)
    expected = np.nanmean(inner[away])
    assert vanilla["equivariance/exact/inner/glyphs"] == pytest.approx(expected)
    full = values_of(out, "full")
    assert 0 < full["largest_correlation/glyphs"] < 1
    assert full["place_only_accuracy"] == pytest.approx(1 / 6)
    assert values_of(out, "fixed")["place_only_accuracy"] == pytest.approx(1 / 6)
    assert values_of(out, "fixed-cell")["place_only_accuracy"] == 1.0


def test_what_is_lost_and_what_is_hidden_stands_beside_the_claims(done):
    told = values_of(done[0], "vanilla")
    raw, mapped = (told[f"identification/{name}/glyphs"] for name in ("raw", "mapped"))
    assert told["identification/hidden/glyphs"] == pytest.approx(mapped - raw)
    assert 0 < told["identification/chance/glyphs"] < 1
    further = values_of(done[0], "interference")
    reported = json.loads((done[0] / "claims.json").read_text())["reported"]["lost or hidden"]
    for moment in ("before", "end"):
        value = further[f"identification/lost/{moment}"]
        assert reported[f"interference: identification/lost/{moment}"]["value"] == value
    assert reported["vanilla: identification/mapped/glyphs"]["value"] == mapped


def test_train_gives_the_networks_of_a_reproduction(done, tiny_folder, tmp_path):
    # the same files, in one run or in runs that build on each other: the same weights, bit for bit
    for name, phases in (("acquired", ("digits",)), ("interference", ("learn", "further"))):
        with using_threads(1):
            train(load_curriculum(tiny_folder / name), tmp_path / name, seed=0, device="cpu")
        ours = list_checkpoints(tmp_path / name)
        theirs = list_checkpoints(done[0] / "seeds" / "0" / name)
        for phase in phases:
            one, other = (
                [card for card in cards if card.phase == phase][-1] for cards in (ours, theirs)
            )
            assert one.trained == other.trained
            weights, same = load_file(one.path), load_file(other.path)
            assert weights.keys() == same.keys()
            assert all((weights[key] == same[key]).all() for key in weights), (name, phase)


def test_runs_start_from_the_weights_they_should(done):
    folder = done[0] / "seeds" / "0"
    full = list_checkpoints(folder / "full")[-1]
    for run in ("acquired", "interference", "translated", "near"):
        table = json.loads((folder / run / "curriculum.json").read_text())
        assert table["curriculum"]["network"]["weights"] == str(full.path)
    vanilla = json.loads((folder / "vanilla" / "curriculum.json").read_text())
    assert "weights" not in vanilla["curriculum"]["network"]
    further = [card for card in list_checkpoints(folder / "translated") if card.phase == "further"]
    assert [card.step for card in further] == [0, 6]
    assert {card.environment for card in further} == {"full"}


def test_before_further_training_the_control_is_the_same_network(done):
    out, _ = done
    one, everywhere = values_of(out, "interference"), values_of(out, "translated")
    for name in ("N_trained/same/before", "old_far/same/before", "old_on/same/known"):
        assert one[name] == everywhere[name] is not None
    track = load_result(out / "seeds" / "0" / "interference-track.nc")
    assert track["step"].values.tolist() == [0, 6]
    fall = one["N_trained/same/before"] - one["N_trained/same/end"]
    assert one["N_trained/same/fall"] == pytest.approx(fall)


def test_equal_accuracy_starts_where_the_better_run_was_as_good(done):
    out, _ = done
    values, folder = values_of(out, "equal-accuracy"), out / "seeds" / "0"
    ends = {run: values_of(out, run)["train_accuracy"] for run in ("full", "fixed")}
    assert ends[values["reduced"]] == max(ends.values())
    assert values["other_train_accuracy"] == min(ends.values())
    card = next(
        card
        for card in list_checkpoints(folder / values["reduced"])
        if card.step == values["start_step"]
    )
    assert card.train_accuracy >= min(ends.values())


def test_what_is_done_is_not_done_again(copy, tiny):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*.safetensors")}
    events = []
    reproduce(
        tiny, copy, first_seed=0, workers=1, figures=False, device="cpu", progress=events.append
    )
    assert {event.stage for event in events} == {"skipped"}
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*.safetensors")} == before


def test_the_claims_are_of_all_seeds_that_are_finished(copy, tiny):
    shutil.copytree(copy / "seeds" / "0", copy / "seeds" / "7")  # begun, of another seed
    (copy / "seeds" / "7" / "vanilla.json").unlink()
    shutil.copytree(copy / "seeds" / "0", copy / "seeds" / "1")
    runs = make_runs(tiny)
    tasks = [make_tasks(tiny, runs, (seed,), copy, device="cpu") for seed in (0, 1)]
    for known, other in zip(*tasks, strict=True):  # as if the second seed had given the same
        write_values(other, read_values(known))
    (copy / "seeds" / "1" / "vanilla.json").unlink()
    shutil.rmtree(copy / "seeds" / "1" / "vanilla")
    reproduce(tiny, copy, first_seed=1, workers=1, figures=False, device="cpu")
    table = json.loads((copy / "claims.json").read_text())
    assert table["seeds"] == [0, 1]
    first = next(row for row in table["claims"] if row["claim"] == "C1")
    assert len(first["values"]) == 2


def test_what_is_missing_is_done_again_and_comes_out_the_same(copy, tiny):
    folder = copy / "seeds" / "0"
    before = values_of(copy, "fixed-learning")
    (folder / "fixed-learning.json").unlink()
    shutil.rmtree(folder / "fixed-learning")
    events = []
    reproduce(
        tiny, copy, first_seed=0, workers=1, figures=True, device="cpu", progress=events.append
    )
    assert {event.run for event in events if event.stage == "done"} == {"fixed-learning"}
    after = values_of(copy, "fixed-learning")
    same = {name for name in before if not name.startswith("seconds")}
    assert {name: before[name] for name in same} == {name: after[name] for name in same}
    paper = draw_paper(copy)
    assert len(paper.parts) == 1 + len(tiny.unseen)
    drawn = {path.stem for path in (copy / "figures").glob("*.svg")}
    assert {"claims", "claims-all", "acquisition", "interference", "near"} <= drawn
    assert {f"accuracy-maps-{name}-same" for name in ("glyphs", "digits")} <= drawn
    titles = {
        name: " ".join(re.findall("<text[^>]*>([^<]*)", path.read_text()))
        for name in ("near", "interference")
        for path in (copy / "figures").glob(f"{name}.svg")
    }
    assert "interference, same exemplars" in titles["interference"]
    assert "like those of the pretraining" in titles["near"]
    assert "interference" not in titles["near"]


@pytest.fixture
def command():
    """Run the command at a scale."""
    arguments = ["reproduce", "--workers", "1", "--device", "cpu"]
    return lambda *more: CliRunner().invoke(app, [*arguments, *map(str, more)])


def test_seeds_of_tuning_are_refused_and_marked(copy, command, tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "tiny")  # as a user writes one
    shared = (folder / "scale.toml").read_text()
    (folder / "scale.toml").write_text(shared.replace("tuned_on = []", "tuned_on = [0]"))
    refused = command("--scale", folder, "--out", tmp_path / "new", "--first-seed", 0)
    assert refused.exit_code == 1
    assert not (tmp_path / "new").exists()
    line = " ".join(refused.stderr.split())
    assert "the scale tiny was tuned on the seeds 0; a table with 0 cannot be reported" in line
    assert "--first-seed 100" in line
    # nor beside others: a directory that holds one gives no table of the others
    assert command("--scale", folder, "--out", copy, "--first-seed", 100).exit_code == 1
    table = json.loads((copy / "claims.json").read_text())
    assert (table["development"], table["tuned_on"]) == (False, [])


def test_the_command_says_what_one_seed_says_and_ends_in_peace(
    copy, command, tiny_folder, monkeypatch
):
    monkeypatch.setattr("sys.argv", ["elsewhere", "reproduce", "--scale", "a b"])
    outcome = command("--scale", tiny_folder, "--out", copy, "--first-seed", 0)
    assert outcome.exit_code == 0, outcome.stderr
    said = " ".join(outcome.stderr.split())
    assert said.startswith("one seed shows a claim in this run or does not show it")
    assert "C6: " in outcome.stdout
    assert "not measurable" in outcome.stdout
    assert "Traceback" not in outcome.stdout + outcome.stderr
    assert load_result(copy / "claims.nc").attrs["command"] == "elsewhere reproduce --scale 'a b'"


def test_another_scale_is_refused_with_both_fingerprints(copy, tiny):
    other = dataclasses.replace(tiny, per_category=1)
    with pytest.raises(ExistsError, match=f"{tiny.fingerprint[:12]}.*{other.fingerprint[:12]}"):
        reproduce(other, copy, first_seed=0, workers=1)


def test_damaged_files_are_named(copy, tiny):
    path = copy / "seeds" / "0" / "vanilla.json"
    path.write_text("{")
    with pytest.raises(StorageError, match=r"vanilla\.json is damaged"):
        reproduce(tiny, copy, first_seed=0, workers=1)
    (copy / "reproduction.json").write_text("[]")
    with pytest.raises(StorageError, match=r"reproduction\.json is damaged"):
        reproduce(tiny, copy, first_seed=0, workers=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": 0}, "1 seed or more"),
        ({"first_seed": -1}, "1 seed or more"),
        ({"max_steps": 0}, "1 step or more"),
        ({"workers": 0}, "1 worker or more"),
        ({"imagenet_weights": "no.pth"}, "are no file"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_trained(tiny, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        reproduce(tiny, tmp_path / "out", **arguments)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_values_that_are_not_finite_survive_the_file(tiny, tmp_path):
    task = make_tasks(tiny, make_runs(tiny), (0,), tmp_path)[0]
    task.folder.mkdir(parents=True)
    assert read_values(task) is None
    write_values(task, {"a": math.nan, "b": 0.5, "c": "full"})
    values = read_values(task)
    assert math.isnan(values["a"])
    assert (values["b"], values["c"]) == (0.5, "full")
    with pytest.raises(StorageError, match="another way"):
        read_values(dataclasses.replace(task, run=dataclasses.replace(task.run, start="x")))


def test_with_one_worker_tasks_keep_their_order_and_errors_pass(tiny, tmp_path):
    tasks, seen = make_tasks(tiny, make_runs(tiny), (0, 1), tmp_path), []

    def act(task, progress):
        assert {(task.scale.name, task.seed, name) for name in task.run.needs} <= set(seen)
        progress(Event(task.seed, task.run.name, "measuring"))
        seen.append(task.key)
        if len(seen) == 12:
            raise TrainingError("it diverged")

    with pytest.raises(TrainingError, match="it diverged"):
        perform_all(tasks, workers=1, act=act)
    assert len(seen) == 12


def test_workers_are_as_many_as_there_are_cores(monkeypatch):
    assert choose_workers(10_000, "cpu", 10_000) <= 4096
    assert choose_workers(None, "cpu", 1) == 1
    monkeypatch.setattr(workers, "_memory", lambda device: 0)
    assert choose_workers(None, "cuda:0", 8) == 1
    monkeypatch.setattr(workers, "_memory", lambda device: 80 * 2**30)
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda _: range(16))
    assert [choose_workers(None, "cuda:0", n) for n in (2, 8)] == [2, 3]  # 24 GiB each
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda _: range(8))
    assert choose_workers(None, "cuda:0", 8) == 2  # four cores each


def test_processes_give_what_one_process_gives(done, tiny, tmp_path):
    tasks, events = make_tasks(tiny, make_runs(tiny)[:3:2], (0,), tmp_path, device="cpu"), []
    perform_all(tasks, workers=2, progress=events.append)
    assert {event.stage for event in events} == {"training", "measuring", "done"}
    for task in tasks:
        ours, theirs = read_values(task), values_of(done[0], task.run.name)
        for name, value in theirs.items():
            if not name.startswith("seconds") and value is not None:
                assert np.allclose(ours[name], value), name


def test_what_a_lost_process_wrote_is_not_done_again(tiny, tmp_path):
    (task,) = make_tasks(tiny, make_runs(tiny)[:1], (0,), tmp_path)
    seen = []
    job = workers.ReproductionJob({task.key: task}, lambda task, _: seen.append(task.key))
    job.perform(task.key)
    task.path.parent.mkdir(parents=True, exist_ok=True)
    write_values(task, {"a": 0.5})
    job.perform(task.key)
    assert seen == [task.key]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UnknownNameError("layer", "fc9", ["fc7"]), "seed 0, vanilla: unknown layer 'fc9'"),
        (ZeroDivisionError("division by zero"), "seed 0, vanilla: ZeroDivisionError: division"),
    ],
)
def test_a_worker_tells_what_went_wrong(tiny, tmp_path, error, text):
    run = next(run for run in make_runs(tiny) if run.name == "vanilla")
    told = []

    def act(task, progress):
        progress(Event(task.seed, task.run.name, "measuring"))
        raise error

    with pytest.raises(TrainingError) as caught:
        perform_all(
            make_tasks(tiny, (run,), (0,), tmp_path), workers=1, progress=told.append, act=act
        )
    assert [event.stage for event in told] == ["measuring"]
    assert str(caught.value).startswith(text)


def test_other_code_measures_again_and_does_not_train_again(copy, tiny, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*.safetensors")}
    monkeypatch.setattr(tasks_module, "code_version", lambda: "9.9 0123")
    events = []
    reproduce(
        tiny, copy, first_seed=0, workers=1, figures=False, device="cpu", progress=events.append
    )
    stages = [event.stage for event in events]
    assert stages.count("done") == len(make_runs(tiny))
    assert "skipped" not in stages
    assert "training" not in stages
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*.safetensors")} == before


def test_the_second_reproduction_in_a_directory_is_refused(copy, tiny):
    with (
        locked(copy, ""),
        pytest.raises(StorageError, match="is being filled by another process"),
    ):
        reproduce(tiny, copy, workers=1, figures=False, device="cpu")


@pytest.fixture
def data_dir(tmp_path):
    """Write Fashion-MNIST and its kin as noise: a few pictures of each class."""
    rng = np.random.default_rng(0)
    for collection in (idx.MNIST, idx.FASHION_MNIST, idx.KMNIST, idx.EMNIST):
        labels = np.tile(np.arange(len(collection.categories), dtype=np.uint8), 8)
        pictures = rng.integers(0, 256, (len(labels), 28, 28), np.uint8)
        folder = tmp_path / "data" / collection.folders[0]
        folder.mkdir(parents=True, exist_ok=True)
        stem = collection.stems["train"]
        for kind, array in (("images-idx3", pictures), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / f"{stem}-{kind}-ubyte").write_bytes(header + array.tobytes())
    return tmp_path / "data"


def test_the_paper_scale_runs_by_the_same_code(tiny, with_network, tmp_path, data_dir):
    paper = with_network(load_scale("paper"), tiny.network, tiny.canvas)
    out = tmp_path / "out"
    path = reproduce(
        paper, out, max_steps=1, workers=1, device="cpu", data_dir=data_dir, figures=False
    )
    table = json.loads(path.read_text())
    pairs = {row["pair"] for row in table["claims"] if row["claim"] == "C3"}
    assert pairs == {f"fashion-mnist → {name}" for name in ("mnist", "kmnist", "emnist")}
    assert table["summary"]["C2"]["verdict"] == "not run"
    with pytest.raises(ElsewhereError, match="data folder"):
        reproduce(paper, tmp_path / "other", max_steps=1, workers=1, device="cpu")


@pytest.mark.parametrize("damage", ["nowhere", "empty", "half a file", "half the pictures"])
def test_pictures_that_are_not_whole_are_refused_before_anything_begins(
    tiny, with_network, tmp_path, data_dir, damage
):
    """Also those of a run that comes last; nothing is left behind."""
    paper = with_network(load_scale("paper"), tiny.network, tiny.canvas)
    found = data_dir / idx.FASHION_MNIST.folders[0] / "train-images-idx3-ubyte"
    if damage in ("nowhere", "empty"):
        data_dir = tmp_path / damage
    if damage == "empty":
        data_dir.mkdir()
    content = found.read_bytes()
    if damage == "half a file":
        found.write_bytes(content[: len(content) // 2])
    if damage == "half the pictures":
        n, *sides = struct.unpack(">3I", content[4:16])
        header = content[:4] + struct.pack(">3I", n // 2, *sides)
        found.write_bytes(header + content[16 : 16 + n // 2 * sides[0] * sides[1]])
    says = {"half a file": "is damaged", "half the pictures": "expected as many labels"}
    with pytest.raises(ObjectSetError, match=says.get(damage, r"no \S+ in ")) as caught:
        reproduce(paper, tmp_path / "out", max_steps=1, workers=1, device="cpu", data_dir=data_dir)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_plan_names_an_unknown_device_before_it_builds_a_network(tiny, monkeypatch):
    monkeypatch.setattr(costs, "check_layers", lambda *_: pytest.fail("it was built"))
    with pytest.raises(InputError, match="unknown device 'gpu'"):
        plan(tiny, device="gpu")


def test_a_plan_grows_with_seeds_and_runs(tiny, monkeypatch):
    times = costs._Times(step=0.02, image=0.003)
    monkeypatch.setattr(costs, "_time", lambda *_: times)  # times differ between two looks
    one, three = (plan(tiny, seeds=n, workers=1, device="cpu") for n in (1, 3))
    assert (one.runs, three.runs) == (11, 33)
    assert three.steps == 3 * one.steps
    assert three.disk_bytes == 3 * one.disk_bytes
    assert one.seconds > 0.02 * one.steps
    assert three.seconds == pytest.approx(3 * (one.seconds - costs._START_SECONDS) + 4)
    assert plan(tiny, confounds=True, workers=1, device="cpu").runs == 21
