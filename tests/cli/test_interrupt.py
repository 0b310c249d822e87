"""Ctrl-C while a recording is made, and going on afterwards."""

import os
import signal
import subprocess
import sys
import time

import numpy as np

from elsewhere.storage import open_recording

# Waits to be interrupted, two units done, where a file says so; none is lost in going on.
SLEEPY = """
import time
from pathlib import Path
from torch import nn

class Sleepy(nn.Module):
    def forward(self, values):
        while Path("slow").exists() and len(list(Path(".").glob("run.h5.parts/unit-*.h5"))) >= 2:
            time.sleep(0.05)
        return values

def build():
    return nn.Sequential(Sleepy(), nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(),
                         nn.Linear(4 * 11 * 11, 6))
"""
OPTIONS = ("sleepy_net:build", "--canvas", "24", "--objects", "novel", "--categories", "6",
           "--grid", "8x8", "--layers", "2,logits", "--engine", "dense",
           "--out")  # fmt: skip


def units(folder):
    return len(list(folder.glob("run.h5.parts/unit-*.h5")))


def test_an_interrupted_recording_is_never_taken_for_a_finished_one(here, run, refuse, monkeypatch):
    (here / "sleepy_net.py").write_text(SLEEPY)
    (here / "slow").touch()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    program = [sys.executable, "-B", "-m", "elsewhere.cli", "record", *OPTIONS, "run.h5"]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=here
    ) as process:
        give_up = time.monotonic() + 600
        while units(here) < 2 and process.poll() is None and time.monotonic() < give_up:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    assert out == ""
    assert err.splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in err
    assert units(here) >= 2
    assert not (here / "run.h5").exists()
    refuse("inspect", "run.h5", says=("run.h5", "not finished"))
    refuse("similarity", "run.h5", "--out", "sim.nc", says="not finished")

    (here / "slow").unlink()
    run("record", *OPTIONS, "run.h5")
    assert sorted(path.name for path in here.iterdir()) == ["run.h5", "sleepy_net.py"]
    run("record", *OPTIONS, "whole.h5")
    sys.modules.pop("sleepy_net")
    with open_recording("run.h5") as one, open_recording("whole.h5") as other:
        np.testing.assert_allclose(one["logits"].values, other["logits"].values, atol=1e-5)
        assert one["logits"].values.std() > 0
