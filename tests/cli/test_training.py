"""The commands of training: train, accuracy, track, and checkpoints as models."""

import csv
import json
import shutil

import numpy as np
import pytest
import xarray
from PIL import Image
from typer.testing import CliRunner

from elsewhere.cli import app
from elsewhere.storage import load_result
from elsewhere.training import list_checkpoints, read_card

TINY = """
name = "tiny"
[network]
name = "small-cnn"
arguments = { channels = "4-8", hidden = 16, canvas = 16 }
gain = 4.0
[canvas]
size = 16
object_size = 5
background = 30
[[phase]]
name = "before"
objects = "glyphs"
categories = 4
exemplars = { train = 4, held_out = 2 }
environment = "full"
steps = 12
checkpoints = 2
learning_rate = 1e-3
new_head = true
[[phase]]
name = "new"
objects = "glyphs"
categories = { count = 3, skip = 4 }
exemplars = { train = 4, held_out = 2 }
environment = "one"
steps = 12
checkpoints = 2
learning_rate = 1e-3
new_head = true
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a curriculum and its finished run, which nobody changes."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.toml").write_text(TINY)
    train = ("train", folder / "tiny.toml", "--out", folder / "run", "--seed", "3")
    result = CliRunner().invoke(app, [str(argument) for argument in train])
    assert result.exit_code == 0, result.stderr
    return folder


@pytest.fixture
def trained(finished, here):
    """A finished run in the current directory."""
    shutil.copytree(finished, here, dirs_exist_ok=True)
    return here / "run"


def last(trained):
    return sorted((trained / "checkpoints").glob("new-*.safetensors"))[-1].relative_to(
        trained.parent
    )


def test_train_lists_presets_and_reports_checkpoints(run, trained):
    assert {"laptop/vanilla", "quick/acquired"} <= {
        row["curriculum"] for row in run("train", "--json").json
    }
    again = run("train", "tiny.toml", "--out", "run", "--seed", 3, "--json").json
    assert again[-1]["phase"] == "new"
    assert again[-1]["step"] == 12
    lines = (trained / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["phase"] == "new"


def test_accuracy_map_and_trials(run, trained, here):
    rows = run("accuracy", last(trained), "--grid", "3x3", "--out", "acc.nc", "--json",
               "--trials", "trials.csv").json  # fmt: skip
    assert [row["exemplars"] for row in rows] == ["same", "held-out"]
    with open(here / "trials.csv") as file:
        trials = list(csv.DictReader(file))
    assert {row["phase"] for row in trials} == {"new"}
    same = [row["correct"] == "True" for row in trials if row["held_out"] == "False"]
    assert len(same) == 3 * 4 * 9
    run("figure", "acc.nc", "--out", "acc.png")


def test_a_run_is_asked_by_its_last_checkpoint(run, refuse, trained):
    run("accuracy", "run", "--grid", "3x3", "--engine", "dense", "--out", "run.nc")
    run("accuracy", last(trained), "--grid", "3x3", "--out", "one.nc")
    whole, one = load_result("run.nc"), load_result("one.nc")
    assert whole.attrs["checkpoint"] == one.attrs["checkpoint"] == last(trained).name
    xarray.testing.assert_equal(whole.drop_vars(_MARGINS), one.drop_vars(_MARGINS))
    for name in _MARGINS:
        np.testing.assert_allclose(whole[name], one[name], atol=1e-5)
    ask = ("accuracy", "run", "--out", "x.nc")
    refuse(*ask, "--labels", "x.txt", says=("names its classes", "--labels"), late=True)
    refuse(*ask, "--canvas", 24, says=("shown what it was trained on", "--canvas"), late=True)
    refuse(*ask, "--gain", 2, says="--gain", late=True)


_MARGINS = ["margin", "trained_margin"]


def test_a_run_without_weights_of_its_last_checkpoint_is_not_asked_by_an_earlier_one(
    refuse, trained
):
    weights = [card.path for card in list_checkpoints("run")]
    assert len(weights) > 1
    ask = ("accuracy", "run", "--out", "x.nc")
    weights[-1].unlink()
    refuse(*ask, says=("lacks the weights of a later checkpoint", weights[-1].name), late=True)
    for each in weights[:-1]:
        each.unlink()
    refuse(*ask, says=("the weights of none", weights[0].name), late=True)


def test_other_pictures_of_a_checkpoint_s_classes(run, trained, here):
    """Those that it was trained on are known by content; the others are held out."""
    card = read_card(last(trained))
    shown, _ = card.load_objects()
    for number in range(0, len(shown), 4):
        folder = here / "pictures" / shown.categories[number]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.dstack([shown.images[number], shown.masks[number]])
        Image.fromarray(pixels).save(folder / "a.png")
        pixels[..., :3] = pixels[..., :3] // 2 + 60
        Image.fromarray(pixels).save(folder / "b.png")
    run("accuracy", last(trained), "--objects", "folder:pictures", "--per-category", 2, "--grid",
        "3x3", "--out", "other.nc")  # fmt: skip
    found = load_result("other.nc")
    assert found["class"].values.tolist() == list(card.categories)
    assert found["held_out"].values.tolist() == [False, True] * 3
    assert found.attrs["checkpoint"] == last(trained).name
    assert found["trained_y"].values.tolist() == [place[0] for place in card.trained]
    run("record", last(trained), "--objects", "folder:pictures", "--grid", "3x3", "--layers",
        "logits", "--out", "r.h5")  # fmt: skip
    told = run("accuracy", "r.h5", "--out", "recorded.nc")  # which says what its classes are called
    recorded = load_result("recorded.nc")
    assert recorded["class"].values.tolist() == list(card.categories)
    np.testing.assert_array_equal(recorded["choice"], found["choice"].values[::2])
    assert "is not known" in told.err


def test_track_measures_every_checkpoint_and_goes_on(run, trained, here):
    first = run("track", "run", "--grid", "3x3", "--out", "track.nc", "--json").json
    assert set(first) == {"before", "new"}
    kept = {path: path.stat().st_mtime_ns for path in (here / "run" / "track").rglob("*.nc")}
    assert len(kept) == len(list((trained / "checkpoints").glob("*.safetensors")))
    second = run("track", "run", "--grid", "3x3", "--out", "track.nc", "--json", "--overwrite").json
    assert second == first
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    for kind in ("acquisition", "interference"):
        run("figure", "track.nc", "--kind", kind, "--out", f"{kind}.png")


def test_track_takes_measures_at_every_checkpoint(run, refuse, trained, here):
    more = ("--objects", "glyphs", "--categories", 8, "--measures", "identification,partition")
    run("track", "run", "--phase", "new", "--grid", "3x3", *more, "--out", "track.nc")
    found = load_result("track.nc")
    mapped = found["identification_mapped_away"]
    assert mapped.dims == ("checkpoint", "layer")
    assert np.isfinite(mapped).all()
    checkpoint = sorted((trained / "checkpoints").glob("new-*.safetensors"))[-1]
    place = f"{found.attrs['reference_y']},{found.attrs['reference_x']}"
    run("measure", checkpoint.relative_to(here), *more[:4], "--grid", "3x3", "--reference", place,
        "--names", "identification", "--out", "m.nc")  # fmt: skip
    alone = load_result("m.nc")
    np.testing.assert_allclose(mapped[-1], alone["identification_mapped_away"], atol=1e-6)
    assert np.isfinite(found["object_share"]).all()
    refuse("track", "run", "--measures", "identifcation", "--out", "x.nc", says="identification")


def test_track_by_two_processes_gives_the_same(run, refuse, trained, here):
    how = ("--phase", "new", "--grid", "2x2", "--threads", 1)
    run("track", "run", *how, "--out", "one.nc")
    shutil.rmtree(here / "run" / "track")
    run("track", "run", *how, "--workers", 2, "--out", "two.nc")
    xarray.testing.assert_identical(load_result("one.nc"), load_result("two.nc"))
    refuse("track", "run", "--workers", 0, "--out", "x.nc", says="--workers", late=True)


def test_a_checkpoint_is_a_model_with_its_own_canvas_and_input(run, trained):
    run("record", last(trained), "--grid", "2x2", "--categories", 3, "--out", "run.h5")
    found = run("inspect", "run.h5", "--json").json["attributes"]
    assert (found["canvas"], found["object_size"], found["gain"]) == (16, 5, 4.0)
    assert found["background"] == [30, 30, 30]
    run("similarity", last(trained), "--grid", "2x2", "--categories", 3, "--out", "live.nc")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("steps = 12", "stepz = 12"), "stepz"),
        (('"one"', '"won"'), "one"),
        (('objects = "glyphs"', 'objects = "glyfs"'), "glyphs"),
        (('"one"', '"one:99,3"'), "99"),
        (("count = 3", "count = 4000"), "4000"),
        (("new_head = true\n[[phase]]", "new_head = true\n[[phase"), "line"),
    ],
)
def test_curricula_that_cannot_be_trained(refuse, here, change, says):
    (here / "bad.toml").write_text(TINY.replace(*change))
    refuse("train", "bad.toml", "--out", "bad", says=says, late=True)


def test_other_bad_input(refuse, run, trained, here):
    refuse("train", "laptop/vanila", "--out", "x", says="laptop/vanilla", late=True)
    refuse("train", "quick/vanilla", says="--out", late=True)
    (here / "other.toml").write_text(TINY.replace("hidden = 16", "hidden = 17"))
    refuse("train", "other.toml", "--out", "run", says="fingerprint", late=True)
    refuse("record", last(trained), "--gain", 3, "--out", "run.h5", says="own weights", late=True)
    refuse(
        "accuracy", last(trained), "--objects", "digits", "--out", "a.nc", says="digits", late=True
    )
    refuse("track", "run", "--phase", "nope", "--out", "t.nc", says="phase", late=True)
    weights = here / last(trained)
    weights.write_bytes(weights.read_bytes()[:-7])
    refuse("accuracy", last(trained), "--out", "a.nc", says=weights.name, late=True)
    refuse("record", last(trained), "--out", "run.h5", says=weights.name, late=True)
