"""`elsewhere measure`, `table` and `methods`: what they write, print and refuse."""

import csv

import numpy as np
import pytest

from elsewhere.measures import measures
from elsewhere.storage import load_result

WITH_BANDS = ("interval", "band", "step", "step_band")


def test_without_names_they_are_listed(run):
    rows = run("measure", "--json").json
    assert [row["measure"] for row in rows] == list(measures)
    assert all(row["formula"] for row in rows)
    text = run("measure").out
    for name in measures:
        assert measures.summary(name) in text


def test_recorded_and_live_print_the_same(run, made, small):
    recording, _ = made
    names = "cka,cosine,partition,phase"
    recorded = run("measure", recording, "--names", names, "--out", "m.nc", "--json").json
    names = [layer["layer"] for layer in recorded["layers"]]
    live = run(
        "measure", *small, "--background", "90,120,30", "--layers", ",".join(names),
        "--names", "cka,cosine,partition,phase", "--out", "live.nc", "--json",
    ).json  # fmt: skip
    for ours, theirs in zip(recorded["layers"], live["layers"], strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert value == pytest.approx(theirs[key], abs=1e-6, nan_ok=True)
    assert recorded["notes"] == live["notes"]
    assert any("the unbiased CKA needs at least 4 objects, got 3" in n for n in live["notes"])


def test_several_layers_have_their_bands_and_steps_printed(run, small, here):
    at = ("--layers", "fc6,logits", "--categories", "5", "--grid", "1x3")
    outcome = run("measure", *small, *at, "--names", "cosine,normalized-variance", "--out", "m.nc")
    result = load_result(here / "m.nc")
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["layer", "cosine", "cosine(other)", "normalized-variance"]
    assert lines[3].split() == ["layer", *(f"cosine_{k}" for k in WITH_BANDS)]
    assert len(lines) == 6  # a measure without intervals has no table of its own
    for place, line in enumerate(lines[4:]):
        interval, band, step, step_band = (
            result[f"cosine_{key}"].values[place]
            for key in ("away_interval", "away_band", "step", "step_band")
        )
        printed, wanted = line.split()[1:], [*interval, *band]
        if place == 0:  # no layer comes before it
            assert printed[-2:] == ["-", "-"]
            assert np.isnan([step, *step_band]).all()
            printed = printed[:-2]
        else:
            wanted += [step, *step_band]
        found = [float(word.strip("[],")) for word in printed]
        np.testing.assert_allclose(found, wanted, atol=6e-4)
    written = run("measure", "--json", *small, *at, "--names", "cosine", "--out", "n.nc").json
    row = written["layers"][1]
    assert row["cosine_step"] == pytest.approx(float(result["cosine_step"][1]))
    alone = ("--layers", "fc6", *at[2:], "--names", "cosine", "--out", "o.nc")
    assert len(run("measure", *small, *alone).out.splitlines()) == 2


def test_a_table_goes_out_and_figures_are_drawn(run, made, here):
    recording, _ = made
    outcome = run(
        "measure", recording, "--names", "partition,position", "--out", "m.nc", "--table", "m.csv"
    )
    assert outcome.out.splitlines()[0].split() == ["layer", "partition", "position"]
    result = load_result(here / "m.nc")
    with (here / "m.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {row["layer"]: float(row["value"]) for row in rows if row["variable"] == "object_share"}
    np.testing.assert_allclose(list(found.values()), result["object_share"].values)
    run("figure", "m.nc", "--kind", "partition", "--out", "p.svg")
    run("figure", "m.nc", "--out", "all.png")
    assert (here / "all.png").stat().st_size > 5_000


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_any_result_becomes_a_table(run, made, here, ending):
    pandas = pytest.importorskip("pandas")
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    _, result = made
    said = run(
        "table", result, "--out", f"t.{ending}", "--variables", "cosine_G,cosine_each", "--json"
    ).json
    table = getattr(pandas, f"read_{ending}")(here / f"t.{ending}")
    assert len(table) == said["rows"]
    assert list(table.columns) == said["columns"]
    loaded = load_result(result)
    assert len(table) == loaded["cosine_G"].size + loaded["cosine_each"].size
    row = table[(table.variable == "cosine_each") & (table.layer == "fc6")].iloc[5]
    value = loaded["cosine_each"].sel(layer="fc6", object=row.object, y=row.y, x=row.x)
    assert row.value == pytest.approx(float(value))
    assert row.category == str(loaded["category"].sel(object=row.object).item())


def test_methods_tell_what_was_done(run, made, here):
    recording, result = made
    text = run("methods", recording).out
    for word in (
        "small-cnn",
        "3 objects of 3 categories",
        "48 x 48 px",
        "(90, 120, 30)",
        "SHA-256",
    ):
        assert word in text, word
    assert "@software{elsewhere2026," in text
    run("methods", result, "--out", "m.md")
    text = (here / "m.md").read_text()
    assert "a(o,p).a(o,r)" in text
    assert "@article{biscione2021," in text
    assert "@book{efron1993," in text
    run("measure", recording, "--names", "cka,position", "--out", "m.nc")
    text = run("methods", "m.nc", "--json").json["methods"]
    for key in ("kornblith2019", "song2012", "hong2016"):
        assert f"{{{key}," in text
        assert f"{key}" in text.split("```bibtex")[0]
    assert text.count("```") == 2


REFUSED = {
    "unknown measure": (["--names", "ckaa"], ("ckaa", "nearest: cka")),
    "no measure": ([], "give --names"),
    "accuracy": (["--names", "accuracy-map"], "elsewhere accuracy"),
    "maps of vectors": (["--names", "aligned", "--layers", "fc5"], ("fc5", "feature map")),
    "choices of maps": (["--names", "consistency", "--layers", "pool4"], "single units"),
    "unknown layer": (["--names", "cka", "--layers", "fc99"], ("fc99", "nearest")),
    "unreadable memory": (["--names", "cka", "--max-memory", "lots"], ("lots", "2GiB")),
    "too little memory": (["--names", "cka", "--max-memory", "1000"], "raise it"),
    "live options": (["--names", "cka", "--grid", "3x3"], ("--grid", "leave out")),
    "a table of another kind": (["--names", "cka", "--table", "t.ods"], (".csv", ".parquet")),
    "a missing folder": (["--names", "cka", "--out", "nowhere/m.nc"], "nowhere"),
    "two files of one name": (["--names", "cka", "--out", "m.csv", "--table", "m.csv"], "two"),
    "location off the grid": (["--names", "cka", "--reference", "24,23"], ("nearest", "24")),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_bad_input_is_refused_in_one_line(case, refuse, made):
    arguments, says = REFUSED[case]
    recording, _ = made
    late = case == "too little memory"
    out = [] if "--out" in arguments else ["--out", "m.nc"]
    refuse("measure", recording, *arguments, *out, says=says, late=late)


def test_more_bad_input(refuse, run, made, here):
    recording, result = made
    refuse("measure", recording, "--names", "cka", says="--out")
    refuse("measure", "none.h5", "--names", "cka", "--out", "m.nc", says="does not exist")
    refuse("table", recording, "--out", "t.csv", says="expected a result")
    refuse("table", result, "--out", "t.txt", says=".parquet")
    refuse(
        "table", result, "--out", "t.csv", "--variables", "cosine_eech", says="nearest: cosine_each"
    )
    refuse("methods", "none.nc", says="does not exist")
    (here / "text.nc").write_text("no result")
    refuse("methods", "text.nc", says="cannot be read")
    (here / "m.nc").write_text("mine")
    refuse("measure", recording, "--names", "cka", "--out", "m.nc", says="--overwrite")


def test_a_mean_recording_asked_for_aligned_cosine(run, refuse, here):
    run(
        "record", "small-cnn", "--objects", "novel", "--categories", "2", "--grid", "2x2",
        "--layers", "pool1,fc5", "--keep", "pool1=mean", "--out", "mean.h5",
    )  # fmt: skip
    says = ("'pool1' was kept as mean", "--keep pool1=full")
    refuse("measure", "mean.h5", "--names", "cosine,aligned", "--out", "m.nc", says=says)


def test_against_the_reference_it_is_similarity(run, refuse, made, here):
    recording, _ = made
    asked = ("measure", recording, "--names", "cosine,cka", "--against", "reference")
    assert run(*asked, "--out", "m.nc").out.splitlines()[0].split()[:2] == ["layer", "cosine"]
    run("similarity", recording, "--out", "s.nc")
    found, short = load_result(here / "m.nc"), load_result(here / "s.nc")
    for key in short.data_vars:
        np.testing.assert_array_equal(found[key], short[key], err_msg=key)
    assert found["cka"].dims == ("layer", "y", "x")
    for kind in ("measures", "maps", "layerwise", "displacement"):
        run("figure", "m.nc", "--kind", kind, "--out", f"{kind}.png")
    no = ("--names", "cosine,partition", "--against", "reference", "--out", "n.nc")
    refuse("measure", recording, *no, says=("'partition'", "no pairs", "cka"))
    no = ("--names", "cosine", "--against", "referense", "--out", "n.nc")
    refuse("measure", recording, *no, says="nearest: reference")
    assert not (here / "n.nc").exists()


def test_list_is_a_line_each(run):
    lines = run("measure", "--list").out.splitlines()
    assert lines[0].split() == ["measure", "of", "against", "range", "what"]
    assert len(lines) == 1 + len(measures)


@pytest.mark.parametrize(
    "command",
    [("similarity",), pytest.param(("measure", "--names", "cka"), marks=pytest.mark.long)],
)
def test_layers_beside_the_main_branch_have_no_step_in_the_table(run, command):
    layers = "layer2.0.bn2,layer2.0.downsample.0,layer2.0,logits"
    sweep = (
        "resnet18-slim",
        "--canvas",
        32,
        "--object-size",
        8,
        "--grid",
        "2x2",
        "--categories",
        4,
    )
    done = run(*command, *sweep, "--objects", "glyphs", "--layers", layers, "--out", "a.nc")
    steps = {line[0]: line[-2:] for line in map(str.split, done.out.splitlines()[-4:])}
    assert steps["layer2.0.bn2"] == steps["layer2.0.downsample.0"] == ["-", "-"]
    assert "-" not in steps["layer2.0"] + steps["logits"]
    (note,) = [line for line in done.err.splitlines() if "main branch" in line]
    assert note.endswith("have none (nan): layer2.0.downsample.0")
