"""The main line by hand: layers, objects, plan, record, inspect, similarity, figure."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from elsewhere.storage import load_result, open_recording
from tests.roles import by_role

KINDS = ("maps", "layerwise", "displacement")


# --- layers and objects ----------------------------------------------------------------------


CALLS = """
from torch import nn

class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.again, self.act = nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3), nn.ReLU()
        self.pair = nn.LSTM(2, 3, batch_first=True)
        self.fc, self.canvas_size = nn.Linear(3, 2), 12

    def forward(self, values):
        values = self.act(values)
        values = self.again(self.act(self.act(self.conv(values))))
        series, _ = self.pair(values.flatten(2).transpose(1, 2))
        series, _ = self.pair(series[..., :2])
        return self.fc(self.act(series[:, -1]))
"""


def test_calls_of_one_layer_are_told_apart_by_what_comes_before(run):
    Path("calls.py").write_text(CALLS)
    rows = run("layers", "calls.py:Twice", "--json").json
    after = {row["name"]: row.get("after") for row in rows}
    assert [after[f"act:{n}"] for n in range(4)] == ["the input", "conv", "act:1", "pair:1"]
    assert {name: before for name, before in after.items() if name.startswith("pair:1")} == {
        name: "pair:0" for name in after if name.startswith("pair:1")
    }
    assert after["conv"] is after["again"] is after["logits"] is None
    (row,) = run("layers", "calls.py:Twice", "--json", "--layers", "act:2").json
    assert row["after"] == "act:1"
    assert "called after" in run("layers", "calls.py:Twice").out
    assert "called after" not in run("layers", "small-cnn").out


def test_a_run_or_a_card_in_place_of_a_checkpoint_is_said_to_be_one(refuse):
    Path("a_run/checkpoints").mkdir(parents=True)
    Path("lone.json").write_text("{}")
    for command in ("record", "similarity", "probe"):
        out = ("--out", "x.h5" if command == "record" else "x.nc")
        refuse(command, "a_run", *out, says=("is a run of training", "a_run/checkpoints/"))
        refuse(command, "lone.json", *out, says=("lone.safetensors is missing", "card is there"))
    Path("a_folder").mkdir()
    refuse("accuracy", "a_folder", "--out", "x.nc", says="the folder a_folder holds no run")
    refuse("accuracy", "b/no.json", "--out", "x.nc", says="there is no file b/no.json")


def test_layers_lists_names_modules_shapes_and_bytes(run):
    rows = {row["name"]: row for row in run("layers", "small-cnn", "--json").json}
    assert rows["conv2_1"] | {"receptive_field": 0} == {
        "name": "conv2_1",
        "module": "features.3",
        "type": "Conv2d",
        "shape": [16, 24, 24],
        "layout": ["channel", "height", "width"],
        "stride": 2,
        "receptive_field": 0,
        "bytes": 16 * 24 * 24 * 4,
        "beside": False,
        "tokens": None,
    }
    assert rows["logits"]["module"] == "classifier.6"
    text = run("layers", "small-cnn").out
    for name, row in rows.items():
        assert name in text
        assert row["module"] in text
    assert f"{len(rows)} layers" in text
    parts = run("layers", "small-cnn", "--layers", "depth:1", "--json").json
    total = sum(row["bytes"] for row in parts) / 1024
    assert f"{len(parts)} layers, {total:.1f} KiB per" in run(
        "layers", "small-cnn", "--layers", "depth:1"
    ).out  # fmt: skip


def test_layers_takes_globs_aliases_modules_and_commas(run):
    def names(*options):
        return [row["name"] for row in run("layers", "small-cnn", "--json", *options).json]

    assert names("--layers", "fc*,logits") == ["fc5", "fc6", "logits"]
    assert names("--layers", "features.0", "--layers", "relu6") == ["conv1_1", "relu6"]
    assert names("--layers", "pool?") == ["pool1", "pool2", "pool3", "pool4"]


def test_layers_at_another_canvas_and_width(run):
    rows = run(
        "layers", "small-cnn", "--canvas", 96, "--model-arg", "channels=4-6",
        "--model-arg", "num_classes=3", "--json",
    ).json  # fmt: skip
    shapes = {row["name"]: row["shape"] for row in rows}
    assert shapes["conv1_1"] == [4, 96, 96]
    assert shapes["logits"] == [3]


def test_objects_lists_describes_and_draws(run, here):
    listed = {row["set"] for row in run("objects", "--json").json}
    assert listed >= {"glyphs", "digits", "novel", "mnist", "fashion-mnist", "folder"}
    described = run("objects", "novel", "--categories", "2", "--per-category", "3", "--json").json
    assert described["objects"] == 6
    assert len(described["categories"]) == 2
    assert "6 objects, 2 categories" in run(
        "objects", "novel", "--categories", "2", "--per-category", "3"
    ).out.replace("novel: ", "")
    outcome = run("objects", "novel", "--categories", "4", "--out", "sheet.png")
    assert outcome.out == ""
    sheet = np.asarray(Image.open("sheet.png").convert("RGB"))
    assert sheet.std() > 10
    assert [path.name for path in here.iterdir()] == ["sheet.png"]


# --- plan ------------------------------------------------------------------------------------


def test_plan_counts_raw_bytes_exactly_and_writes_nothing(run, here, small):
    options = ("--layers", "pool4,fc5,logits", "--keep", "pool4=mean", "--keep", "fc5=sketch:32")
    cost = run("plan", *small, *options, "--per-category", 2, "--out", "a.h5", "--json").json
    numbers = 3 * 2 * 3 * 3
    assert {row["name"]: row["raw_bytes"] for row in cost["layers"]} == {
        "pool4": numbers * 64 * 4,
        "fc5": numbers * 32 * 4,
        "logits": numbers * 10 * 4,
    }
    assert cost["raw_bytes"] == numbers * (64 + 32 + 10) * 4
    assert (cost["n_objects"], cost["n_positions"]) == (6, 9)
    assert cost["n_images"] >= 6 * 9
    assert cost["stored_bytes"] > 0
    assert cost["memory_bytes"] > 0
    half = run("plan", *small, *options, "--per-category", 2, "--dtype", "float16", "--json").json
    assert half["raw_bytes"] * 2 == cost["raw_bytes"]
    said = run("plan", *small, *options, "--per-category", 2).out
    assert f"raw: {cost['raw_bytes']} bytes" in said
    assert list(here.iterdir()) == []


def test_the_recording_has_the_bytes_that_plan_counted(run, small):
    raw = run("plan", *small, "--keep", "pool4=mean", "--json").json["raw_bytes"]
    run("record", *small, "--keep", "pool4=mean", "--out", "a.h5")
    with open_recording("a.h5") as recording:
        assert raw == sum(recording[name].size * 4 for name in recording)


# --- record and inspect ----------------------------------------------------------------------


def test_record_and_inspect(run, here, small):
    outcome = run("record", *small, "--out", "run.h5")
    assert outcome.out == ""
    assert "wrote run.h5" in outcome.err
    assert [path.name for path in here.iterdir()] == ["run.h5"]
    found = run("inspect", "run.h5", "--json").json
    assert (found["objects"], found["categories"]) == (3, 3)
    assert found["axes"] == {"y": [5, 24, 42], "x": [5, 24, 42]}
    assert found["reference"] == [24, 5]
    kept = ["pool4", "fc5", "relu5", "fc6", "relu6", "logits"]
    assert [row["layer"] for row in found["layers"]] == kept
    header = found["attributes"]
    assert (header["model"], header["weights"], header["canvas"]) == ("small-cnn", "none", 48)
    assert (header["mean"], header["std"], header["gain"]) == ([0, 0, 0], [1, 1, 1], 1)
    assert len(header["weights_sha256"]) == 64
    assert "_NCProperties" not in header
    text = run("inspect", "run.h5").out
    for part in ("3 objects of 3 categories", "y: 3 locations, 5 to 42 px", "reference y,x: 24,5"):
        assert part in text


def test_one_object_at_one_location(run):
    run("record", "small-cnn", "--objects", "novel", "--categories", 1, "--grid", "1x1",
        "--layers", "fc*,logits", "--out", "one.h5")  # fmt: skip
    assert "1 object of 1 category" in run("inspect", "one.h5").out
    assert "y: 1 location, 24 to 24 px" in run("inspect", "one.h5").out
    outcome = run("similarity", "one.h5", "--out", "one.nc", "--json")
    assert [row["layer"] for row in outcome.json] == ["fc5", "fc6", "logits"]
    assert {row["similarity"] for row in outcome.json} == {None}
    for kind in KINDS:
        run("figure", "one.nc", "--kind", kind, "--out", f"{kind}.png")


def test_why_nothing_is_defined_is_said(run):
    run("record", "small-cnn", "--objects", "novel", "--categories", 2, "--grid", "1x1",
        "--layers", "logits", "--out", "one.h5")  # fmt: skip
    assert "one location, the reference" in run("similarity", "one.h5", "--out", "one.nc").err
    run("record", "small-cnn", "--objects", "novel", "--categories", 1, "--grid", "2x2",
        "--layers", "logits", "--out", "two.h5")  # fmt: skip
    outcome = run("similarity", "two.h5", "--out", "two.nc")
    assert "all objects are of one category" in outcome.err
    assert "one location" not in outcome.err


def test_exemplars_and_named_categories(run):
    run("record", "small-cnn", "--objects", "digits", "--categories", "3,8", "--per-category", 2,
        "--grid", "1x2", "--layers", "logits", "--out", "a.h5")  # fmt: skip
    with open_recording("a.h5") as recording:
        assert recording.design.categories == ("3", "3", "8", "8")
        assert len(set(recording.design.objects)) == 4


def test_reductions_and_float16(run, small):
    run("record", *small, "--layers", "conv4_1,pool4,fc5", "--keep", "conv*=mean",
        "--keep", "pool4=sketch:32", "--dtype", "float16", "--out", "a.h5")  # fmt: skip
    found = run("inspect", "a.h5", "--json").json
    assert [row["kept"] for row in found["layers"]] == ["mean", "sketch:32", "full"]
    assert found["attributes"]["dtype"] == "float16"
    with open_recording("a.h5") as recording:
        assert recording["pool4"].shape == (3, 3, 3, 32)
        assert recording["fc5"].dtype == np.float16
    outcome = run("similarity", "a.h5", "--out", "a.nc")
    for word in ("cosine(mean)", "cosine(sketch:32)", "error"):
        assert word in outcome.out + outcome.err


def test_everything_in_one_sweep(run, here, small):
    outcome = run("record", *small, "--layers", "logits", "--out", "run.h5", "--similarity",
                  "sim.nc", "--similarity-layers", "conv1_1,fc5,logits")  # fmt: skip
    assert "wrote sim.nc" in outcome.err
    beside = by_role(load_result("sim.nc"))
    assert beside["layer"].values.tolist() == ["conv1_1", "fc5", "logits"]
    run("similarity", *small, "--layers", "conv1_1,fc5,logits", "--out", "live.nc")
    alone = by_role(load_result("live.nc"))
    for name in ("similarity", "baseline_cross", "baseline_same", "G"):
        np.testing.assert_allclose(beside[name], alone[name], atol=1e-5)
    assert sorted(path.name for path in here.iterdir()) == ["live.nc", "run.h5", "sim.nc"]


# --- similarity and figure -------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "centred", "evoked", "pearson"])
def test_recorded_and_live_agree(metric, run, small, made):
    run("similarity", made[0], "--metric", metric, "--out", "recorded.nc")
    run("similarity", *small, "--background", "90,120,30", "--metric", metric, "--layers",
        "pool4,fc5,relu5,fc6,relu6,logits", "--out", "live.nc")  # fmt: skip
    recorded, live = by_role(load_result("recorded.nc")), by_role(load_result("live.nc"))
    assert recorded.attrs["metric"] == live.attrs["metric"] == metric
    assert recorded["layer"].values.tolist() == live["layer"].values.tolist()
    for name in ("similarity", "baseline_cross", "baseline_same", "zero_share"):
        np.testing.assert_allclose(recorded[name], live[name], atol=1e-5, err_msg=name)
    assert float(recorded["similarity"].std()) > 0.01


def test_the_authors_protocol(run, small, made):
    run("similarity", made[0], "--protocol", "biscione-bowers", "--out", "recorded.nc")
    run("similarity", *small, "--background", "90,120,30", "--protocol", "biscione-bowers",
        "--out", "live.nc")  # fmt: skip
    recorded, live = by_role(load_result("recorded.nc")), by_role(load_result("live.nc"))
    assert recorded.attrs["protocol"] == "biscione-bowers"
    np.testing.assert_allclose(recorded["similarity"], live["similarity"], atol=1e-5)
    run("figure", "recorded.nc", "--out", "fig.svg")


def test_a_figure_takes_layers_by_their_modules_too(run, refuse, made):
    run("figure", made[1], "--layers", "logits", "--out", "alias.svg")
    run("figure", made[1], "--layers", "classifier.6", "--out", "module.svg")
    assert [words(name) for name in ("alias.svg", "module.svg")] == [words("alias.svg")] * 2
    assert "logits" in words("alias.svg")
    refuse("figure", made[1], "--layers", "classifier.7", "--out", "none.svg",
           says="unknown layer 'classifier.7'", late=True)  # fmt: skip


def words(path):
    return re.findall("<text[^>]*>([^<]*)", Path(path).read_text())


def test_layers_of_a_recording_by_alias_module_and_glob(run, made):
    def names(*options):
        rows = run("similarity", made[0], *options, "--json", "--overwrite", "--out", "a.nc").json
        return [row["layer"] for row in rows]

    assert names("--layers", "fc*,classifier.6") == ["fc5", "fc6", "logits"]
    assert names("--layers", "relu?") == ["relu5", "relu6"]


def test_another_reference_by_words_and_numbers(run, made):
    centre, number = (
        run("similarity", made[0], "--reference", text, "--out", f"{place}.nc", "--json").json
        for place, text in enumerate(("centre", "24,24"))
    )
    assert centre == number
    left = run("similarity", made[0], "--reference", "left", "--out", "left.nc", "--json").json
    plain = run("similarity", made[0], "--out", "plain.nc", "--json").json
    assert left == plain
    assert left != centre
    assert by_role(load_result("0.nc")).attrs["reference_x"] == 24


def test_a_reference_off_the_grid_is_recorded_in_addition(run, small):
    run("record", *small, "--layers", "fc6", "--reference", "20,30", "--out", "a.h5")
    assert run("inspect", "a.h5", "--json").json["reference"] == [20, 30]
    run("similarity", "a.h5", "--out", "recorded.nc")
    run("similarity", *small, "--layers", "fc6", "--reference", "20,30", "--out", "live.nc")
    recorded, live = by_role(load_result("recorded.nc")), by_role(load_result("live.nc"))
    np.testing.assert_allclose(recorded["similarity"], live["similarity"], atol=1e-5)
    assert float(recorded["similarity"].max()) < 1 - 1e-3
    run("figure", "recorded.nc", "--out", "fig.svg")


def test_data_goes_to_stdout_and_progress_to_stderr(run, made, small):
    outcome = run("similarity", made[0], "--out", "a.nc", "--json")
    assert {"layer", "similarity", "baseline", "G", "G_interval"} <= set(outcome.json[0])
    assert "comparing" in outcome.err
    assert "wrote a.nc" in outcome.err
    outcome = run("record", *small, "--out", "a.h5")
    assert outcome.out == ""
    assert "recording" in outcome.err
    assert "28/28" in outcome.err


@pytest.mark.parametrize("kind", KINDS)
def test_figures_of_every_kind(kind, run, made):
    assert run("figure", made[1], "--kind", kind, "--out", "fig.png").out == ""
    assert np.asarray(Image.open("fig.png").convert("L")).std() > 5


@pytest.mark.parametrize(
    ("name", "start"), [("fig.svg", b"<?xml"), ("fig.pdf", b"%PDF"), ("fig.png", b"\x89PNG")]
)
def test_figures_of_every_format(name, start, run, here, made):
    run("figure", made[1], "--out", name)
    assert (here / name).read_bytes().startswith(start)
