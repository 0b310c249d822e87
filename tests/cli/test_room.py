"""Disks on which a result does not fit, told before or rescued after it; lost terminals."""

import os
import pty
import subprocess
import sys

import pandas
import pytest
import xarray

import elsewhere.storage.files
from elsewhere.errors import StorageError
from elsewhere.recording import Sweep
from elsewhere.stimuli import Canvas
from elsewhere.storage import load_result, save_all, save_result, save_table
from elsewhere.training import Curriculum, Exemplars, Network, Phase, train
from tests.cli.conftest import invoke

LIVE = ("small-cnn", "--canvas", "24", "--object-size", "8", "--objects", "novel",
        "--categories", "4", "--grid", "2x2")  # fmt: skip
SALIENCY = ("--method", "saliency", "--target", "logit:1")
SIMILARITY = ("similarity", *LIVE, "--layers", "logits", "--out")
COMMANDS = {
    "similarity": (*SIMILARITY, "r.nc"),
    "measure": ("measure", *LIVE, "--names", "cosine", "--layers", "logits", "--out", "r.nc"),
    "probe": ("probe", *LIVE, "--layers", "logits", "--controls", "none", "--split", "same",
              "--out", "r.nc"),
    "sanity": ("sanity", *LIVE, *SALIENCY, "--out", "r.nc"),
    "attribute": ("attribute", *LIVE, *SALIENCY, "--canvas-maps", "--out", "r.nc"),
    "attribute over training": ("attribute", "--checkpoints", "run", "--grid", "2x2",
                                "--method", "saliency", "--out", "r.nc"),
    "accuracy": ("accuracy", "LAST", "--grid", "2x2", "--exemplars", "1", "--out", "r.nc"),
    "track": ("track", "run", "--grid", "2x2", "--exemplars", "1", "--out", "r.nc"),
    "reproduce": ("reproduce", "--scale", "quick", "--max-steps", "2", "--out", "claims"),
}  # fmt: skip


@pytest.fixture(scope="module")
def curriculum():
    network = Network("small-cnn", arguments={"channels": "4", "hidden": 8}, gain=4.0)
    phase = Phase("learn", "glyphs", categories=3, exemplars=Exemplars(4, 2), steps=2, batch=4,
                  checkpoints=(0, 2), environment="one")  # fmt: skip
    return Curriculum("tiny", network, Canvas(16, 7), (phase,))


@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_disk_that_is_too_small_is_told_before_the_work(here, curriculum, monkeypatch, name):
    words = COMMANDS[name]
    if {"run", "LAST"} & {*words}:
        train(curriculum, here / "run", device="cpu")
        last = str(sorted((here / "run" / "checkpoints").glob("*.safetensors"))[-1])
        words = [last if word == "LAST" else word for word in words]
    monkeypatch.setattr(Sweep, "stream", lambda *_, **__: pytest.fail("it began to work"))
    monkeypatch.setattr(elsewhere.storage.files, "free_bytes", lambda _: 1000)
    outcome = invoke(*words)
    line = outcome.err.splitlines()[-1]
    assert outcome.code == 1, outcome
    assert "will need about" in line
    assert "1000 B are free" in line
    assert "Traceback" not in outcome.err
    assert not [*here.rglob("*.nc"), *here.rglob("*.parts"), *here.rglob("claims/seeds")]


def test_the_joined_result_of_checkpoints_needs_room_beside_theirs(here, curriculum, monkeypatch):
    """Both are on one disk, which has room for those of the two checkpoints alone."""
    train(curriculum, here / "run", device="cpu")
    monkeypatch.setattr(elsewhere.storage.files, "free_bytes", lambda _: 3 * 2**16)
    outcome = invoke(*COMMANDS["track"])
    assert "r.nc will need about" in outcome.err.splitlines()[-1]
    assert not [*here.rglob("*.nc")]


SECOND = {
    "t.csv": ("measure", *LIVE, "--names", "partition,cosine", "--layers", "logits", "--table"),
    "trials.csv": ("accuracy", "LAST", "--grid", "7x7", "--exemplars", "4", "--trials"),
    "p.nc": ("probe", *LIVE, "--layers", "logits", "--controls", "none", "--split", "same",
             "--readout"),
}  # fmt: skip


def last_of(here, curriculum):
    train(curriculum, here / "run", device="cpu")
    return str(sorted((here / "run" / "checkpoints").glob("*.safetensors"))[-1])


@pytest.mark.parametrize("name", list(SECOND))
@pytest.mark.parametrize("together", [True, False])
def test_second_outputs_are_told_before_the_work(here, curriculum, monkeypatch, name, together):
    """They need room of their own where they go, or beside the result on the same disk."""
    words = SECOND[name]
    if "LAST" in words:
        last = last_of(here, curriculum)
        words = [last if word == "LAST" else word for word in words]
    free = 2**16 + 1000 if together else 100
    monkeypatch.setattr(
        elsewhere.storage.files, "free_bytes", lambda p: 2**17 if p.name == "r.nc" else free
    )
    monkeypatch.setattr(Sweep, "stream", lambda *_, **__: pytest.fail("it began to work"))
    outcome = invoke(*words, name, "--out", "r.nc")
    assert outcome.code == 1, outcome
    assert f"{name} will need about" in outcome.err.splitlines()[-1]
    assert not (here / name).exists()
    assert not (here / "r.nc").exists()


def test_trials_that_do_not_fit_in_the_end_are_rescued(here, curriculum, mounted):
    folder = mounted("64k")  # 882 rows of at least 64 bytes fit, what they have does not
    words = [last_of(here, curriculum) if word == "LAST" else word for word in SECOND["trials.csv"]]
    outcome = invoke(*words, folder / "trials.csv", "--out", "r.nc")
    line = outcome.err.splitlines()[-1]
    assert outcome.code == 1, outcome
    assert "no space left" in line
    rescued = here / "trials.rescued.csv"
    assert f"what was computed is in {rescued}" in line
    assert len(pandas.read_csv(rescued)) == load_result(here / "r.nc")["correct"].size
    assert not list(folder.iterdir())


def test_one_output_that_cannot_be_written_does_not_lose_the_others(here, mounted):
    folder, table = mounted("4k"), pandas.DataFrame({"a": range(9000)})
    result = xarray.Dataset({"a": ("x", range(9000))}, attrs={"kind": "made"})
    with pytest.raises(StorageError) as caught:
        save_all(
            lambda: save_table(table, folder / "t.csv", rescue=True),
            lambda: save_result(result, folder / "r.nc", rescue=True),
            lambda: save_table(table, here / "u.csv", rescue=True),
        )
    for name in ("t.rescued.csv", "r.rescued.nc"):
        assert f"what was computed is in {here / name}" in str(caught.value)
    assert len(pandas.read_csv(here / "t.rescued.csv")) == 9000
    assert load_result(here / "r.rescued.nc")["a"].equals(result["a"])
    assert len(pandas.read_csv(here / "u.csv")) == 9000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--trials", "t.ods"), r"expected a name in .csv, .parquet or .xlsx"),
        (("--trials", "r.nc.csv", "--out", "r.nc.csv"), "--out and --trials are both r.nc.csv"),
    ],
)
def test_names_of_trials_are_looked_at_before_the_work(here, curriculum, words, said):
    outcome = invoke("accuracy", last_of(here, curriculum), "--out", "r.nc", *words)
    assert outcome.code == 1
    assert said in outcome.err.splitlines()[-1]
    assert not [*here.glob("*.nc"), *here.glob("*.csv")]


def test_what_does_not_fit_in_the_end_is_rescued(here, mounted):
    folder = mounted("72k")  # the estimate fits, which leaves out what the names take
    outcome = invoke(*SIMILARITY, folder / "r.nc")
    line = outcome.err.splitlines()[-1]
    assert outcome.code == 1
    assert "no space left" in line
    rescued = here / "r.rescued.nc"
    assert str(rescued) in line
    assert load_result(rescued).attrs["kind"] == "similarity"
    assert not list(folder.iterdir())


def test_a_run_whose_folder_of_results_cannot_be_written(here, curriculum, mounted):
    train(curriculum, here / "run", device="cpu")
    (here / "run" / "track").symlink_to(mounted("1m"))
    assert "is a link" in invoke(*COMMANDS["track"]).err.splitlines()[-1]
    (here / "run" / "track").unlink()
    (here / "run" / "track").mkdir()
    bind = ["mount", "--bind", str(here / "disk"), str(here / "run" / "track")]
    if subprocess.run(bind, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a file system here")
    try:
        again = ["mount", "-o", "remount,ro,bind", *bind[2:]]
        assert subprocess.run(again, check=False).returncode == 0
        outcome = invoke(*COMMANDS["track"])
        line = outcome.err.splitlines()[-1]
        assert outcome.code == 1
        assert "cannot write" in line
        assert "Read-only file system" in line
        assert "Traceback" not in outcome.err
    finally:
        subprocess.run(["umount", bind[-1]], check=True)


HANG_UP = """
import os, signal, sys
import elsewhere.storage.files as files
from elsewhere.cli import main
write = files.write_atomically
def hung_up(*arguments, **options):
    if "r.nc" in str(arguments[0]):
        os.kill(os.getpid(), signal.SIGHUP)
    return write(*arguments, **options)
files.write_atomically = hung_up
sys.argv[0] = "elsewhere"
main()
"""


@pytest.mark.long
def test_a_terminal_that_is_closed_at_the_end_loses_nothing(here):
    program = [sys.executable, "-c", HANG_UP, *SIMILARITY, "r.nc"]
    done = subprocess.run(program, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert load_result(here / "r.nc").attrs["kind"] == "similarity"


@pytest.mark.long
def test_a_full_standard_output_and_a_lost_terminal_keep_the_result(here):
    program = [sys.executable, "-m", "elsewhere.cli", *SIMILARITY]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*program, "full.nc"], check=False, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert load_result(here / "full.nc").attrs["kind"] == "similarity"

    keyboard, terminal = pty.openpty()
    with subprocess.Popen(
        ["nohup", *program, "lost.nc"], stdin=terminal, stdout=terminal, stderr=terminal,
        start_new_session=True,
    ) as left:  # fmt: skip
        os.close(terminal)
        os.read(keyboard, 10)
        os.close(keyboard)
        left.wait(120)
    assert load_result(here / "lost.nc").attrs["kind"] == "similarity"
