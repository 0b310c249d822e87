"""Worker processes that die while they start, or cannot take up their work."""

import multiprocessing.context
import os
import subprocess
import sys

import pytest
import torch

from elsewhere import record
from elsewhere.errors import InputError, StorageError
from elsewhere.recording.workers import LOSSES, perform

DYING = """
import os, sys
if "spawn_main" in " ".join(sys.orig_argv):
    try:
        os.close(os.open({mark!r}, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        dies = {always}
    else:
        dies = True
    if dies:
        os.kill(os.getpid(), 9)
"""
"""What ends processes before they have read anything: all of them, or the first one."""


@pytest.fixture
def dying(tmp_path):
    """Return a function that makes the environment of processes whose workers die at once."""

    def make(*, always):
        folder = tmp_path / "site"
        folder.mkdir()
        code = DYING.format(mark=str(tmp_path / "begun"), always=always)
        (folder / "sitecustomize.py").write_text(code)
        return {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}

    return make


class Large:
    """A job that fills any pipe."""

    def __init__(self, fails=""):
        self.weights, self.fails = torch.ones(2**18), fails

    def prepare(self):
        if self.fails:
            raise RuntimeError(self.fails)

    def perform(self, task):
        return task, float(self.weights.sum())


def test_workers_that_die_at_once_end_the_command(dying, tmp_path):
    """It does not wait for somebody to read what it sends."""
    words = ["record", "small-cnn", "--model-arg", "channels=4-8", "--model-arg", "canvas=16",
             "--model-arg", "hidden=2000", "--objects", "glyphs", "--categories", "4",
             "--grid", "3x3", "--canvas", "16", "--device", "cpu,cpu", "--out", "r.h5"]  # fmt: skip
    folder = tmp_path / "here"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", "from elsewhere.cli import main; main()", *words],
        cwd=folder, env=os.environ | dying(always=True), capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert len(told) == 1, done.stderr
    assert f"worker processes ended {LOSSES} times at the same task (exit code -9)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [*folder.iterdir()]


def test_a_worker_that_dies_at_once_is_replaced(dying, tmp_path, monkeypatch):
    for name, value in dying(always=False).items():
        monkeypatch.setenv(name, value)
    found = {}
    perform(Large(), [1, 2, 3], workers=2, done=lambda task, given: found.update({task: given}))
    assert found == {task: (task, 2.0**18) for task in (1, 2, 3)}
    assert (tmp_path / "begun").exists()


def test_a_job_that_cannot_be_taken_up_is_told():
    with pytest.raises(InputError, match=r"cannot begin its work \(no such card\): it needs"):
        perform(Large("no such\ncard"), [1, 2], workers=2, done=print)


def test_a_process_that_cannot_be_started_is_told(make_sweep, tmp_path, monkeypatch):
    begun = []

    def start(process):
        begun.append(process)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(multiprocessing.context.SpawnProcess, "start", start)
    with pytest.raises(StorageError, match=r"cannot start a worker process \(.*unavailable\)"):
        record(make_sweep(n=12, grid="4x4"), tmp_path / "run.h5", workers=("cpu", "cpu"))
    assert len(begun) == 1
    assert not [*tmp_path.iterdir()]
