"""Bad input: one clear line, exit 1, and nothing left behind or lost."""

import importlib
import re

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import invoke

# --- what is asked for cannot be -------------------------------------------------------------

REFUSED = {
    "object larger than the canvas": (["--object-size", "60"], ("60 px", "48 px")),
    "object of no size": (["--object-size", "0"], "object size is 0"),
    "canvas of no size": (["--canvas", "0"], "canvas is 0; expected"),
    "canvas too small for the network": (["--canvas", "8"], ("canvas of 8 px", "48")),
    "no grid": (["--grid", ""], "stride:K"),
    "unreadable grid": (["--grid", "7 by 7"], ("7 by 7", "NxM")),
    "empty grid": (["--grid", "0x3"], "no location along y"),
    "empty grid of a stride": (["--grid", "stride:0"], "is empty"),
    "empty list of locations": (["--grid", "at:"], "no location"),
    "no full product": (["--grid", "at:9,9;20,20"], ("no full product", "9,20")),
    "more locations than pixels": (["--grid", "99x99"], ("99", "38")),
    "location off the canvas": (["--grid", "at:2,20"], ("2,20", "off the canvas", "5 to 42")),
    "reference off the canvas": (["--reference", "2,20"], ("2,20", "off the canvas")),
    "unreadable reference": (["--reference", "there"], ("there", "y,x")),
    "unknown layer": (["--layers", "fc7"], ("fc7", "nearest: fc6, fc5", "elsewhere layers")),
    "glob that fits nothing": (["--layers", "zz*"], "zz*"),
    "no layer": (["--layers", ","], "no layer"),
    "unknown set": (["--objects", "glyfs"], ("glyfs", "nearest: glyphs")),
    "argument for a set": (["--objects", "novel:3"], "takes no argument"),
    "a font for another set": (["--font", "a.ttf"], ("--font", "hangul", "leave it out")),
    "no such font": (["--objects", "hangul", "--font", "a.ttf"], ("no font", "a.ttf")),
    "more categories than there are": (["--categories", "25"], ("24 categories", "25")),
    "no categories": (["--categories", "0"], "1 to 24"),
    "unknown category": (["--categories", "01x"], ("01x", "nearest: 01")),
    "digits that are no number": (["--categories", "²"], "unknown category"),
    "no exemplars": (["--per-category", "0"], "0 per category"),
    "unknown dtype": (["--dtype", "float61"], ("float61", "nearest: float16")),
    "unknown engine": (["--engine", "dens"], ("dens", "nearest: dense")),
    "unreadable keep": (["--keep", "fc5"], ("fc5", "LAYER=full, mean or sketch:K")),
    "unknown reduction": (["--keep", "fc5=half"], ("half", "sketch:K")),
    "sketch of nothing": (["--keep", "fc5=sketch:0"], "sketch:0"),
    "unreadable memory": (["--max-memory", "lots"], ("lots", "2GiB")),
    "no threads": (["--threads", "0"], "--threads"),
    "unknown device": (["--device", "tpu"], ("tpu", "cpu")),
    "negative seed": (["--seed", "-1"], "-1"),
    "unreadable background": (["--background", "300"], ("300", "0..255")),
    "unreadable input": (["--input-mean", "a"], ("input mean", "R,G,B")),
    "no deviation": (["--input-std", "0"], "std must be above 0"),
    "no gain": (["--gain", "0"], "gain"),
    "unknown argument": (["--model-arg", "width=2"], ("width", "accepted: channels")),
    "unreadable argument": (["--model-arg", "width"], ("width", "key=value")),
    "output in a missing folder": (["--out", "nowhere/a.h5"], ("nowhere", "create it")),
    "output that is a folder": (["--out", "."], "is a folder"),
    "similarity in a missing folder": (["--similarity", "nowhere/a.nc"], "nowhere"),
    "similarity of an unknown layer": (
        ["--similarity", "s.nc", "--similarity-layers", "fc9"],
        ("fc9", "nearest"),
    ),
    "similarity layers for nothing": (["--similarity-layers", "fc5"], "--similarity FILE"),
    "two outputs of one name": (["--similarity", "./a.h5"], "two files"),
    "no published weights": (["--weights", "imagenet"], ("no ImageNet weights", "small-cnn")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_record_and_plan_refuse(case, refuse, small):
    options, says = REFUSED[case]
    refuse("record", *small, "--out", "a.h5", *options, says=says)
    refuse("plan", *small, "--out", "a.h5", *options, says=says)


def test_what_only_shows_in_the_network(refuse, small):
    said = refuse("record", *small, "--keep", "fc9=mean", "--out", "a.h5", says="fc9", late=True)
    assert "nearest: fc" in said
    refuse("record", *small, "--keep", "fc5=sketch:999", "--out", "a.h5", says="256", late=True)


@pytest.mark.parametrize("command", ["layers", "plan", "similarity"])
def test_unknown_models(command, refuse):
    out = ["--out", "a.nc"] if command == "similarity" else []
    refuse(command, "smal-cnn", *out, says=("smal-cnn", "nearest: small-cnn"))
    refuse(command, "no_such_module:net", *out, says=("no_such_module", "not found"))


def test_layers_and_objects(refuse, small):
    refuse("layers", "small-cnn", "--layers", "conv9_1", says=("conv9_1", "nearest: conv"))
    refuse("objects", "nowel", says=("nowel", "nearest: novel"))
    refuse("objects", "novel", "--object-size", 0, says="size 0")
    refuse("objects", "novel", "--categories", 1, "--out", "sheet.txt", says=(".txt", ".png"))
    refuse("objects", "--out", "sheet.png", says="name it")
    refuse("objects", "mnist", says=("--data-dir", "mnist"))
    refuse("objects", "mnist", "--data-dir", ".", says="looked there")
    refuse("objects", "hangul", "--font", "a.ttf", says=("no font", "a.ttf", "fonts-nanum"))
    refuse("objects", "novel", "--font", "a.ttf", says=("--font", "'novel'"))


# --- folders of pictures ---------------------------------------------------------------------


@pytest.fixture
def pictures(here):
    """Two categories of a picture each, and a file that only looks like one."""
    rng = np.random.default_rng(0)
    for name in ("cat/a.png", "dog/b.png"):
        path = here / "pictures" / name
        path.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(path)
    (here / "pictures" / "dog" / "a-broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    (here / "empty").mkdir()


def test_folders(refuse, run, pictures):
    common = ("small-cnn", "--grid", "2x2", "--out", "a.h5")
    refuse("record", *common, "--objects", "folder:empty", says=("no pictures", "empty"))
    refuse("record", *common, "--objects", "folder:missing", says="missing")
    refuse("record", *common, "--objects", "folder:", says="folder:PATH")
    refuse(
        "record", *common, "--objects", "folder:pictures", says=("a-broken.png", "--skip-broken")
    )
    run("record", *common, "--objects", "folder:pictures", "--skip-broken")
    assert run("inspect", "a.h5", "--json").json["objects"] == 2


# --- files of the wrong kind -----------------------------------------------------------------


@pytest.fixture
def files(here, made):
    """A recording, a result, a text and half a recording."""
    recording, result = (path.read_bytes() for path in made)
    (here / "run.h5").write_bytes(recording)
    (here / "sim.nc").write_bytes(result)
    (here / "notes.txt").write_text("not a recording\n")
    (here / "half.h5").write_bytes(recording[: len(recording) // 2])
    (here / "half.nc").write_bytes(result[: len(result) // 2])


def test_inspect_says_what_the_variables_of_a_result_are(run, files):
    text = run("inspect", "sim.nc").out
    assert "cosine_G_away (layer): invariance (G), of cosine, mean over all locations but" in text
    assert "range up to 1; chance 0: no more alike" in text
    found = run("inspect", "sim.nc", "--json").json
    assert found["variables"]["cosine"]["range"] == "-1..1"
    assert found["sizes"]["layer"] >= 1


def test_files_of_another_kind(refuse, files):
    refuse("inspect", "half.nc", says="half.nc")
    refuse("inspect", "missing.h5", says=("missing.h5", "does not exist"))
    refuse("inspect", ".", says="is a folder")
    refuse("figure", "run.h5", "--out", "a.svg", says=("is a recording", "expected a result"))
    refuse("figure", "notes.txt", "--out", "a.svg", says=("notes.txt", "result"))
    refuse("figure", "missing.nc", "--out", "a.svg", says="does not exist")
    refuse("figure", "half.nc", "--out", "a.svg", says="half.nc")
    for name in ("notes.txt", "half.h5", "sim.nc", "missing.h5", "missing.nc", "./missing", "."):
        refuse("similarity", name, "--out", "a.nc", says="expected" if "mis" in name else name)
    refuse("inspect", "half.h5", says=("half.h5", "truncated"))


def test_figures_refuse(refuse, files):
    refuse("figure", "sim.nc", "--kind", "map", "--out", "a.svg", says=("map", "nearest: maps"))
    refuse("figure", "sim.nc", "--out", "a.bmp", says=(".bmp", ".svg"))
    refuse("figure", "sim.nc", "--out", "nowhere/a.svg", says="nowhere")


def test_similarity_refuses(refuse, files, small):
    call = ("similarity", "run.h5", "--out", "a.nc")
    refuse(*call, "--metric", "cosin", says=("cosin", "nearest: cosine"))
    refuse(*call, "--protocol", "biscione", says=("biscione", "nearest: biscione-bowers"))
    refuse(*call, "--protocol", "biscione-bowers", "--metric", "evoked", says="--metric")
    refuse(*call, "--layers", "fc7", says=("fc7", "nearest: fc", "holds only these"))
    refuse(*call, "--layers", ",", says="no layer")
    refuse(*call, "--reference", "20,26", says=("20", "not on the recorded grid", "24, 24"))
    refuse(*call, "--reference", "1,1", says="off the canvas")
    refuse(*call, "--reference", "there", says="y,x")
    refuse(*call, "--max-memory", "1KiB", says="--max-memory", late=True)
    refuse("similarity", *small, "--layers", "fc7", "--out", "a.nc", says="nearest")
    refuse("similarity", *small, "--max-memory", "1KiB", "--out", "a.nc", says="--max", late=True)


def test_options_that_a_recording_has_answered(refuse, files):
    said = refuse("similarity", "run.h5", "--out", "a.nc", "--grid", "2x2", "--gain", "2",
                  "--model-arg", "a=1", "--skip-broken", says="live sweep")  # fmt: skip
    for option in ("--grid", "--gain", "--model-arg", "--skip-broken"):
        assert option in said
    assert "--out" not in said


# --- outputs that are there ------------------------------------------------------------------


def test_existing_outputs_are_refused(refuse, files, small):
    says = ("exists already", "--overwrite")
    refuse("record", *small, "--out", "run.h5", says=says)
    refuse("plan", *small, "--out", "run.h5", says=says)
    refuse("record", *small, "--out", "a.h5", "--similarity", "sim.nc", says=says)
    refuse("similarity", "run.h5", "--out", "sim.nc", says=says)
    refuse("figure", "sim.nc", "--out", "notes.txt", says=says)
    refuse("objects", "novel", "--out", "notes.txt", says=says)


def test_overwrite_replaces(run, files, here, small):
    for command in (
        ("record", *small, "--seed", 1, "--out", "run.h5"),
        ("similarity", "run.h5", "--metric", "evoked", "--out", "sim.nc"),
    ):
        before = (here / command[-1]).read_bytes()
        run(*command, "--overwrite")
        assert (here / command[-1]).read_bytes() != before
    assert run("plan", *small, "--out", "run.h5", "--overwrite").code == 0
    assert {path.name for path in here.iterdir()} == {
        "run.h5", "sim.nc", "notes.txt", "half.h5", "half.nc"
    }  # fmt: skip


def test_a_failed_overwrite_leaves_the_old_file(refuse, files, small):
    again = ("--overwrite", "--out")
    refuse("record", *small, "--gain", "1e39", *again, "run.h5", says="layer", late=True)
    refuse("record", *small, "--categories", "99", *again, "run.h5", says="24")
    refuse("similarity", *small, "--gain", "1e39", *again, "sim.nc", says="layer", late=True)
    refuse("similarity", "half.h5", *again, "sim.nc", says="half.h5")
    refuse("figure", "sim.nc", "--kind", "none", *again, "notes.txt", says="none")
    refuse("figure", "sim.nc", *again, "notes.txt", says=".txt")


def test_a_plan_that_does_not_fit_the_disk(refuse, monkeypatch, small, here):
    module = importlib.import_module("elsewhere.recording.planning")
    monkeypatch.setattr(module, "free_bytes", lambda path: 1000)
    says = ("1000 B are free", "--keep LAYER=mean")
    refuse("record", *small, "--out", "a.h5", says=says, late=True)
    refuse("plan", *small, "--out", "a.h5", says=says)
    refuse("plan", *small, "--out", "a.h5", "--json", says=says)


LIVE = ("small-cnn", "--canvas", "24", "--object-size", "8", "--objects", "novel",
        "--categories", "2", "--grid", "2x2", "--layers", "logits")  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ("similarity", "r.h5"),
        ("measure", "r.h5", "--names", "cosine"),
        ("probe", "r.h5", "--split", "same", "--controls", "none"),
        ("methods", "r.h5"),
        ("similarity", *LIVE, "--weights", "./r.h5"),
        ("record", *LIVE, "--similarity", "r.h5"),
        ("attribute", *LIVE[:-2], "--method", "saliency", "--target", "probe:r.h5"),
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_an_output_never_replaces_what_the_command_reads_or_writes_beside_it(here, words):
    assert invoke("record", *LIVE, "--out", "r.h5").code == 0
    before = (here / "r.h5").read_bytes()
    (here / "link.h5").symlink_to("r.h5")
    for out in ("r.h5", "link.h5"):
        outcome = invoke(*words, "--overwrite", "--out", out)
        assert outcome.code == 1, outcome
        said = rf"error: \S+ and \S+ are both (r\.h5|{out}); expected two files"
        assert re.fullmatch(said, outcome.err.splitlines()[-1])
        assert (here / "r.h5").read_bytes() == before
