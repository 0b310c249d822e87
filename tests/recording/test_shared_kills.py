"""Recordings by workers that are killed again and again: the values, and the work, of one run."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from elsewhere.models import load_model
from elsewhere.recording import Sweep, record
from elsewhere.stimuli import Canvas, Grid, load_objects

NETWORK = """
import os, time
import torch
from torch import nn

class Counting(nn.Module):
    def forward(self, values):
        time.sleep(0.01)
        shown = (values.amax((1, 2, 3)) != values.amin((1, 2, 3))).sum().item()
        with open({log!r}, "a") as file:
            file.write(f"{{os.getpid()}} {{shown}}\\n")
        return values

def build():
    torch.manual_seed(0)
    network = nn.Sequential(Counting(), nn.Conv2d(3, 4, 5, stride=2), nn.ReLU(), nn.Flatten(),
                            nn.Linear(4 * 10 * 10, 6))
    network.canvas_size = 24
    return network
"""

RECORD = """
import os, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
import test_sweep_of_kills as here
from elsewhere.recording import record

if __name__ == "__main__":
    print(os.getpid(), flush=True)
    record(here.make(), Path("run.h5"), workers=2)
"""

MAKE = """
from elsewhere.models import load_model
from elsewhere.recording import Sweep
from elsewhere.stimuli import Canvas, Grid, load_objects

def make():
    canvas = Canvas(24, 8)
    return Sweep(load_model("killed_network:build"), load_objects("novel", size=8, categories=5),
                 canvas=canvas, grid=Grid.parse("12x12", canvas), layers="*", engine="dense")
"""

UNIT = 60
"""Images of a unit, at most: 5 objects at up to 12 places of a row."""


def workers_of(process):
    import psutil

    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    except psutil.Error:
        return []


@pytest.mark.parametrize("kills", [1, 30], ids=["few", "many"])
@pytest.mark.long
def test_workers_and_parents_that_are_killed(tmp_path, monkeypatch, contents_of, kills):
    log = tmp_path / "work.log"
    (tmp_path / "killed_network.py").write_text(NETWORK.format(log=str(log)))
    (tmp_path / "test_sweep_of_kills.py").write_text(MAKE)
    (tmp_path / "program.py").write_text(RECORD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    canvas = Canvas(24, 8)
    sweep = Sweep(
        load_model("killed_network:build"),
        load_objects("novel", size=8, categories=5),
        canvas=canvas,
        grid=Grid.parse("12x12", canvas),
        layers="*",
        engine="dense",
    )
    whole = record(sweep, tmp_path / "whole.h5")
    log.unlink()
    draw, path, done = np.random.default_rng(kills), tmp_path / "run.h5", 0
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    while not path.exists():
        process = subprocess.Popen(
            [sys.executable, "program.py"], stdout=subprocess.DEVNULL, env=environment
        )
        size = log.stat().st_size if log.exists() else 0
        while process.poll() is None and (not log.exists() or log.stat().st_size == size):
            time.sleep(0.01)  # until the workers work
        crew = workers_of(process)
        if done < kills:
            time.sleep(draw.uniform(0, 0.3))
            victim = process.pid
            if crew and draw.random() < 0.4:  # a worker: another one takes its place
                victim = crew[int(draw.integers(len(crew)))].pid
            try:
                os.kill(victim, signal.SIGKILL)
                done += 1
            except ProcessLookupError:
                pass
        process.wait()
    sys.modules.pop("killed_network", None)
    assert contents_of(path) == contents_of(whole)  # bit for bit
    images = Counter()
    for line in log.read_text().splitlines():
        pid, count = map(int, line.split())
        images[pid] += count
    assert images.pop(os.getpid(), 0) == 0
    total = 5 * 144
    # a kill costs what two workers had begun, and nothing more
    assert total <= sum(images.values()) <= total + 2 * UNIT * done
    left = {entry.name for entry in tmp_path.iterdir()} - {"__pycache__"}
    assert left == {
        "whole.h5", "run.h5", "work.log", "program.py", "killed_network.py",
        "test_sweep_of_kills.py",
    }  # fmt: skip
