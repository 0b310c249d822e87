"""`elsewhere probe`: recordings and live sweeps, what it prints, what it refuses."""

import pytest

from elsewhere.storage import load_result

LIVE = (
    "small-cnn", "--objects", "novel", "--categories", "3", "--per-category", "3",
    "--grid", "2x3", "--layers", "pool4,logits",
)  # fmt: skip


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    from tests.cli.conftest import invoke

    path = tmp_path_factory.mktemp("probed") / "run.h5"
    outcome = invoke("record", *LIVE, "--out", path)
    assert outcome.code == 0, outcome.err
    return path


def test_a_recording_is_probed_drawn_and_told(recorded, run):
    rows = run("probe", recorded, "--train-at", "left", "--out", "a.nc", "--json").json
    assert [(row["layer"], row["exemplars"]) for row in rows] == [
        ("pool4", "same"), ("pool4", "held-out"), ("logits", "same"), ("logits", "held-out"),
    ]  # fmt: skip
    assert rows[0]["on"] == 1
    assert all(row[f"{name} off"] is not None for row in rows for name in ("untrained", "pixels"))
    # labels are shuffled between the exemplars of the training, which say nothing of others
    assert [row["shuffled off"] is not None for row in rows] == [True, False, True, False]
    result = load_result("a.nc")
    assert result.attrs["kind"] == "probe"
    run("figure", "a.nc", "--out", "maps.png")
    run("figure", "a.nc", "--kind", "probe-layerwise", "--out", "layers.svg")
    said = run(
        "probe", recorded, "--train-at", "each", "--probe", "nearest-centroid", "--controls",
        "none", "--layers", "logits", "--split", "same", "--out", "b.nc",
    )  # fmt: skip
    assert "chance is 0.333" in said.err
    run("figure", "b.nc", "--out", "matrix.png")
    live = run(
        "probe", *LIVE, "--probe", "ridge", "--strengths", "1,100", "--controls", "shuffled",
        "--train-at", "centre", "--out", "c.nc",
    )  # fmt: skip
    assert "2 layers" in live.err
    assert load_result("c.nc")["strengths"].values.tolist() == [100, 1]


REFUSED = {
    "unknown probe": (["--probe", "logit"], ("logit", "nearest: logistic")),
    "unknown split": (["--split", "others"], ("others", "held-out")),
    "unknown control": (["--controls", "pixles"], ("pixles", "nearest: pixels")),
    "unreadable strengths": (["--strengths", "a,b"], ("a,b", "0.01,1,100")),
    "unreadable memory": (["--max-memory", "lots"], "lots"),
    "unreadable place": (["--train-at", "there"], ("there", "left, centre, each")),
    "a place off the grid": (["--train-at", "9,9"], ("9,9", "not on the grid", "nearest: 5,5")),
    "output in a missing folder": (["--out", "nowhere/a.nc"], "nowhere"),
    "options of a live sweep": (["--categories", "2"], "--categories"),
    "unknown layer": (["--layers", "fc9"], ("fc9", "logits")),
    "no folds": (["--folds", "0"], "n_folds is 0"),
    "no jobs": (["--jobs", "0"], "jobs is 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input(case, recorded, refuse):
    options, says = REFUSED[case]
    refuse("probe", recorded, "--out", "a.nc", *options, says=says, late=True)


def test_what_a_recording_cannot_answer(refuse, run):
    run("record", "small-cnn", "--categories", "3", "--grid", "1x2", "--layers", "logits",
        "--out", "one.h5")  # fmt: skip
    refuse("probe", "one.h5", "--split", "held-out", "--out", "a.nc", late=True,
           says=("has one exemplar", "--per-category"))  # fmt: skip
