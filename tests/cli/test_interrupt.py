"""Ctrl-C while a recording is made, and going on afterwards."""

import signal
import subprocess
import sys
import time

import numpy as np

from elsewhere.storage import open_recording

OPTIONS = ("small-cnn", "--objects", "novel", "--categories", "6", "--grid", "12x12",
           "--layers", "fc5,logits", "--threads", "1", "--out", "run.h5")  # fmt: skip


def units(folder):
    return len(list(folder.glob("run.h5.parts/unit-*.h5")))


def test_an_interrupted_recording_is_never_taken_for_a_finished_one(here, run, refuse):
    program = [sys.executable, "-m", "elsewhere.cli", "record", *OPTIONS]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=here
    ) as process:
        give_up = time.monotonic() + 60
        while units(here) < 2 and process.poll() is None and time.monotonic() < give_up:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert out == ""
    assert err.splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in err
    assert units(here) >= 2
    assert not (here / "run.h5").exists()
    refuse("inspect", "run.h5", says=("run.h5", "not finished"))
    refuse("similarity", "run.h5", "--out", "sim.nc", says="not finished")

    run("record", *OPTIONS)
    assert [path.name for path in here.iterdir()] == ["run.h5"]
    run("record", *OPTIONS[:-1], "whole.h5")
    with open_recording("run.h5") as one, open_recording("whole.h5") as other:
        np.testing.assert_allclose(one["fc5"].values, other["fc5"].values, atol=1e-5)
