"""Reports that are too large for one file: thinned, and said so; or a folder, with all of it."""

import re
import shutil

import numpy as np
import pytest
import xarray

from elsewhere.analyzer import similarity
from elsewhere.errors import ExistsError, InputError
from elsewhere.measures.variables import described
from elsewhere.report import check_report, thinning, write_report
from elsewhere.report.checking import _read
from elsewhere.storage import ArraySource, load_result, save_result
from tests.report.test_browser import TRACK, settled, shown, until

N_LAYERS, N_CHECKPOINTS, N_OBJECTS, N_SIDE = 20, 50, 10, 22
NOT_TOO_LARGE = 15e6


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A track of 50 checkpoints, 20 layers, 484 places and 10 objects, in a directory.

    Similarities are measured at its ends; between them, they go from one to the other, with noise.
    """
    folder = tmp_path_factory.mktemp("large") / "large"
    folder.mkdir()
    rng = np.random.default_rng(0)
    places = [int(value) for value in np.linspace(25, 199, N_SIDE)]
    names = ["cosine", "cosine_baseline", "cosine_G", "cosine_each"]
    names += [f"{name}_away{end}" for name in names[:3] for end in ("", "_interval")]
    ends = []
    for share in (0.1, 0.8):
        codes = {
            f"layer{depth:02}": share * rng.normal(size=(N_OBJECTS, 1, 1, 4))
            + (1 - share) * rng.normal(size=(N_OBJECTS, N_SIDE, N_SIDE, 4))
            for depth in range(N_LAYERS)
        }
        source = ArraySource(
            codes, y=places, x=places, objects=[f"thing-{n}" for n in range(N_OBJECTS)]
        )
        ends.append(similarity(source)[names])
    parts = []
    own = (ends[0]["y"] == ends[0].reference_y) & (ends[0]["x"] == ends[0].reference_x)
    for share in np.linspace(0, 1, N_CHECKPOINTS):
        part = (1 - share) * ends[0] + share * ends[1]
        part["cosine_each"] += rng.normal(scale=0.02, size=part["cosine_each"].shape)
        part["cosine"] = part["cosine_each"].mean("object")
        part["cosine_G"] = (part["cosine"] - part["cosine_baseline"]) / (
            1 - part["cosine_baseline"]
        )
        part["cosine_G"] = part["cosine_G"].where(~own)
        for name in names[:3]:
            part[f"{name}_away"] = part[name].where(~own).mean(["y", "x"])
        parts.append(part)
    track = xarray.concat(parts, "checkpoint").assign_coords(
        phase=("checkpoint", ["learn"] * N_CHECKPOINTS), step=("checkpoint", range(N_CHECKPOINTS))
    )
    shape, dims = (N_CHECKPOINTS, 1), ("checkpoint", "exemplars")
    for where in ("on", "off", "far"):
        track[f"accuracy_{where}"] = dims, np.full(shape, 0.5)
    track = track.assign_coords(exemplars=["same"])
    scene = {"canvas": 224, "object_size": 50, "background": [0, 0, 0], "model": "net"}
    facts = {"kind": "track", "metric": "cosine", "curriculum": "full", "n_classes": 10, "seed": 0}
    save_result(described(track.assign_attrs({**ends[0].attrs, **scene, **facts})), folder / "t.nc")
    return folder


def catalogue_of(path):
    return _read(path)[1]["files"]


def test_a_large_track_is_one_file_of_bounded_size_that_says_what_it_lacks(large, tmp_path):
    pytest.importorskip("bokeh", reason="reports are drawn by Bokeh")
    single = write_report([large], tmp_path / "report.html")
    assert single.stat().st_size <= NOT_TOO_LARGE
    (file,) = catalogue_of(single)
    folder = write_report([large], tmp_path / "whole", split=True)
    assert folder == tmp_path / "whole/index.html"
    (whole,) = catalogue_of(folder)
    gone = {each["name"] for each in whole["fields"]} - {each["name"] for each in file["fields"]}
    fewer = "checkpoint" in file.get("kept", {})
    said = " ".join(file["notes"])
    assert bool(gone or fewer) == ("left out" in said)
    assert all(name in said for name in gone)
    (each,) = (field for field in whole["fields"] if field["name"] == "cosine_each")
    assert each["values"]["shape"] == [N_CHECKPOINTS, N_LAYERS, N_OBJECTS, N_SIDE, N_SIDE]
    assert "left out" not in " ".join(whole["notes"])
    for path in (single, folder, folder.parent):
        assert check_report(path, [large], numbers=40).equal == 40


@pytest.fixture(scope="module")
def split(runs, tmp_path_factory):
    pytest.importorskip("bokeh", reason="reports are drawn by Bokeh")
    return write_report([runs], tmp_path_factory.mktemp("split") / "report", split=True)


def test_a_folder_is_read_from_a_disk_and_loads_what_is_asked_for(open_page, split, runs):
    state = "#what=things-similarity&condition=acquired&measure=cosine_G&y=0&x=1&layer=1&seed=101"
    tab = open_page(split, state)
    loaded = "document.querySelectorAll('head script').length"
    for seed, count in (("101", 1), ("100", 2), ("101", 2)):
        tab.select_option("#choose-seed", seed)
        until(tab, f"explorer.state.seed === '{seed}' && explorer.file.seed === '{seed}'")
        settled(tab)
        result = load_result(runs / f"seeds/{seed}/acquired-things-similarity.nc")
        assert shown(tab) == pytest.approx(result["cosine_G"].values[1, 0, 1], abs=6e-4)
        assert tab.evaluate(loaded) == count


def test_scripts_without_its_mark_do_not_run_in_a_folder(split, open_page):
    text = split.read_text()
    policy = re.search(r'Policy" content="([^"]*)"', text)[1]
    assert "unsafe" not in policy.replace("style-src &#39;unsafe-inline&#39;", "")
    assert "file:" not in policy
    tab = open_page(split, expected=["Executing inline script violates", "Refused to execute"])
    tab.evaluate(
        """() => {
          for (const mark of ["", "0".repeat(64)]) {
            const script = document.createElement("script");
            script.nonce = mark;
            script.textContent = "document.title = 'it ran'";
            document.head.append(script);
          }
        }"""
    )
    assert tab.title() != "it ran"


def test_a_file_of_data_that_is_missing_is_named(split, tmp_path, open_page):
    shutil.copy(split, tmp_path / "alone.html")
    tab = open_page(tmp_path / "alone.html", expected=["Failed to load resource"])
    assert "cannot be loaded" in tab.inner_text("#hint")
    tab.focus("#stage [role=gridcell]")
    tab.keyboard.press("ArrowLeft")  # nothing is there to move, and nothing fails
    with pytest.raises(InputError, match=r"cannot be read whole: .*data/\d+\.js"):
        check_report(tmp_path / "alone.html", [split.parent])


def test_a_file_of_data_that_was_changed_is_no_data(split, runs, tmp_path):
    shutil.copytree(split.parent, tmp_path / "report")
    for path in (tmp_path / "report/data").iterdir():
        path.write_text("alert(1); " + path.read_text())
    with pytest.raises(InputError, match="holds no data of a report"):
        check_report(tmp_path / "report", [runs])


def test_a_folder_is_replaced_only_where_it_is_a_report(split, runs, tmp_path):
    out = tmp_path / "report"
    out.mkdir()
    (out / "thesis.txt").write_text("all of it")
    for overwrite in (False, True):
        with pytest.raises(ExistsError, match="other files than a report"):
            write_report([runs], out, split=True, overwrite=overwrite)
    assert (out / "thesis.txt").read_text() == "all of it"
    shutil.rmtree(out)
    shutil.copytree(split.parent, out)
    with pytest.raises(ExistsError, match="--overwrite"):
        write_report([runs], out, split=True)
    held = {path.name: path.read_bytes() for path in (out / "data").iterdir()}
    for path in (out / "data").iterdir():
        path.write_text("old")
    write_report([runs], out, split=True, overwrite=True)
    assert {path.name: path.read_bytes() for path in (out / "data").iterdir()} == held
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_checkpoints_are_thinned_last_and_their_numbers_stay_those_of_the_file(
    runs, tmp_path, monkeypatch, open_page
):
    monkeypatch.setattr(thinning, "FEW_BYTES", 0)
    monkeypatch.setattr(thinning, "MOST_BYTES", 8000)
    path = write_report([runs], tmp_path / "report.html")
    kept = [file["kept"]["checkpoint"] for file in catalogue_of(path) if "kept" in file]
    assert kept
    assert all(places in ([0, 2, 3], [0, 3]) for places in kept)
    assert check_report(path, [runs], numbers=300).equal == 300
    tab = open_page(path, f"{TRACK}&seed=100&y=0&x=0&layer=1")
    assert "every second one is left out" in tab.inner_text("#notes")
    tab.evaluate("explorer.set({ checkpoint: 0 })")
    settled(tab)
    track = load_result(runs / "seeds/100/full-track.nc")
    assert tab.inner_text("#checkpoint-name") == "learn, step 0"
    assert shown(tab) == pytest.approx(track["cosine_G"].values[0, 1, 0, 0], abs=6e-4)
